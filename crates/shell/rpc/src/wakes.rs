//! Wakes of a connection and its calls, which are polled by one task.
//!
//! A call that sends wakes the connection, and a connection that has read wakes calls: within a
//! poll of both that only means another round, not another turn of the scheduler. Invariant: a
//! wake is either seen by a round that begins after it, or passed on to the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

/// Set while the task polls.
const POLLING: u8 = 1;
const CONNECTION: u8 = 2;
const CALLS: u8 = 4;

#[derive(Debug)]
struct State {
    flags: AtomicU8,
    task: Waker,
}

/// Notes a wake of one half, and wakes the task unless it is just polling.
struct Half<const FLAG: u8>(Arc<State>);

impl<const FLAG: u8> Wake for Half<FLAG> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.0.flags.fetch_or(FLAG, Ordering::SeqCst);
        if before & POLLING == 0 {
            self.0.task.wake_by_ref();
        }
    }
}

/// The two halves' wakers.
#[derive(Debug)]
pub(crate) struct Wakes {
    state: Arc<State>,
    connection: Waker,
    calls: Waker,
}

impl Wakes {
    /// For the task with this context.
    pub(crate) fn new(cx: &Context<'_>) -> Self {
        let state = Arc::new(State { flags: AtomicU8::new(0), task: cx.waker().clone() });
        let connection = Arc::new(Half::<CONNECTION>(Arc::clone(&state))).into();
        let calls = Arc::new(Half::<CALLS>(Arc::clone(&state))).into();
        Self { state, connection, calls }
    }

    /// Whether wakes reach the task of this context.
    pub(crate) fn belong_to(&self, cx: &Context<'_>) -> bool {
        self.state.task.will_wake(cx.waker())
    }

    /// Begins a poll of the task.
    pub(crate) fn begin(&self) {
        self.state.flags.fetch_or(POLLING, Ordering::SeqCst);
    }

    /// The waker to poll the connection with; its wakes until now are served by that.
    pub(crate) fn connection(&self) -> &Waker {
        self.state.flags.fetch_and(!CONNECTION, Ordering::SeqCst);
        &self.connection
    }

    /// The waker to poll the calls with; their wakes until now are served by that.
    pub(crate) fn calls(&self) -> &Waker {
        self.state.flags.fetch_and(!CALLS, Ordering::SeqCst);
        &self.calls
    }

    /// Notes that there are calls to poll.
    pub(crate) fn wake_calls(&self) {
        self.state.flags.fetch_or(CALLS, Ordering::SeqCst);
    }

    /// Whether calls were woken since they were last polled.
    pub(crate) fn calls_pending(&self) -> bool {
        self.state.flags.load(Ordering::SeqCst) & CALLS != 0
    }

    /// Whether a half was woken since it was last polled.
    pub(crate) fn pending(&self) -> bool {
        self.state.flags.load(Ordering::SeqCst) & (CONNECTION | CALLS) != 0
    }

    /// Ends a poll of the task; what is still pending wakes it.
    pub(crate) fn end(&self) {
        if self.state.flags.fetch_and(!POLLING, Ordering::SeqCst) & (CONNECTION | CALLS) != 0 {
            self.state.task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(AtomicU8);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_between_polls_wakes_the_task_and_one_within_a_poll_is_kept() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let wakes = Wakes::new(&Context::from_waker(&task));
        let woken = || count.0.load(Ordering::SeqCst);
        wakes.begin();
        let (connection, calls) = (wakes.connection().clone(), wakes.calls().clone());
        calls.wake_by_ref();
        assert!(wakes.pending() && woken() == 0);
        wakes.calls();
        assert!(!wakes.pending(), "the next round serves it");
        connection.wake_by_ref();
        wakes.end();
        assert_eq!(woken(), 1, "nobody served that");
        calls.wake_by_ref();
        assert_eq!(woken(), 2);
    }
}
