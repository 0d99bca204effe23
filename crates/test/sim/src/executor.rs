//! Futures whose turn the seed decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use calls::Local;
use env::{Entropy, SplitMix};

/// The tasks that may go on.
type Woken = Arc<Mutex<BTreeSet<u64>>>;

/// Notes that a task may go on.
struct Wakeup {
    task: u64,
    woken: Woken,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        lock(&self.woken).insert(self.task);
    }
}

fn lock(woken: &Woken) -> MutexGuard<'_, BTreeSet<u64>> {
    // A task may have panicked, though not in here.
    woken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A future, and the call that it belongs to, if it belongs to one.
struct Task {
    future: Local<'static, ()>,
    call: Option<u64>,
    waker: Waker,
}

/// The tasks of one process.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: BTreeMap<u64, Task>,
    woken: Woken,
    next: u64,
}

impl Executor {
    /// Takes a future, which begins at its first turn.
    pub(crate) fn spawn(&mut self, future: Local<'static, ()>, call: Option<u64>) -> u64 {
        let task = self.next;
        self.next += 1;
        let waker = Waker::from(Arc::new(Wakeup { task, woken: Arc::clone(&self.woken) }));
        waker.wake_by_ref();
        self.tasks.insert(task, Task { future, call, waker });
        task
    }

    /// Ends a task in the midst of what it does.
    pub(crate) fn drop_task(&mut self, task: u64) {
        self.tasks.remove(&task);
    }

    /// Whether a task may go on.
    pub(crate) fn has_turns(&self) -> bool {
        !lock(&self.woken).is_empty()
    }

    /// Lets one of the tasks go on that may; the call that it belongs to.
    pub(crate) fn turn(&mut self, entropy: &mut SplitMix) -> Option<u64> {
        let picked = {
            let mut woken = lock(&self.woken);
            let at = entropy.below(woken.len() as u64) as usize;
            let picked = woken.iter().nth(at).copied().expect("drawn from those there are");
            woken.remove(&picked);
            picked
        };
        // It may have been dropped since.
        let Task { mut future, call, waker } = self.tasks.remove(&picked)?;
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.insert(picked, Task { future, call, waker });
        }
        call
    }
}
