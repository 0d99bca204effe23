//! Timers of one runtime: a queue of deadlines, which the host fires.
//!
//! Nothing here reads a clock: [`Timers::fire`] is told what time it is, and the host learns from
//! [`Timers::next`] when to come back. Invariant: a timer whose deadline a call of `fire` has
//! reached is ready at its next poll, whatever the clock says then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use env::Instant;

/// A deadline, and a number that tells equal ones apart.
type Key = (Instant, u64);

/// The timers that wait.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    waiting: RefCell<BTreeMap<Key, Waker>>,
    count: Cell<u64>,
    /// Deadlines up to here have passed.
    reached: Cell<Instant>,
    /// The host's task, woken when an earlier deadline than all others is set.
    host: RefCell<Option<Waker>>,
}

impl Timers {
    /// A future that is ready once `fire` was told a time at or after `deadline`.
    pub(crate) fn until(self: &Rc<Self>, deadline: Instant) -> Sleep {
        let number = self.count.get();
        self.count.set(number + 1);
        Sleep { timers: Rc::clone(self), key: (deadline, number), is_set: false }
    }

    /// When the first timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Lets every timer end whose deadline is not after `now`.
    pub(crate) fn fire(&self, now: Instant) {
        self.reached.set(self.reached.get().max(now));
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some(first) = waiting.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let waker = first.remove();
            drop(waiting);
            waker.wake();
        }
    }

    /// Keeps the host's waker for when the first deadline changes.
    pub(crate) fn set_host(&self, waker: &Waker) {
        let mut host = self.host.borrow_mut();
        if host.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *host = Some(waker.clone());
        }
    }

    fn set(&self, key: Key, waker: Waker) {
        let is_first = self.next().is_none_or(|first| key.0 < first);
        self.waiting.borrow_mut().insert(key, waker);
        if let Some(host) = self.host.borrow().as_ref().filter(|_| is_first) {
            host.wake_by_ref();
        }
    }
}

/// Waits for a deadline; see [`crate::Member::sleep`].
#[derive(Debug)]
pub struct Sleep {
    timers: Rc<Timers>,
    key: Key,
    is_set: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timers.reached.get() >= self.key.0 {
            return Poll::Ready(());
        }
        if self.is_set
            && let Some(known) = self.timers.waiting.borrow_mut().get_mut(&self.key)
        {
            known.clone_from(cx.waker());
            return Poll::Pending;
        }
        self.timers.set(self.key, cx.waker().clone());
        self.is_set = true;
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.is_set {
            self.timers.waiting.borrow_mut().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn timers_end_in_the_order_of_their_deadlines_and_the_host_knows_the_first() {
        let timers = Rc::new(Timers::default());
        let (host, task) = (Arc::new(Count::default()), Arc::new(Count::default()));
        timers.set_host(&Waker::from(Arc::clone(&host)));
        let waker = Waker::from(Arc::clone(&task));
        let cx = &mut Context::from_waker(&waker);
        let at = |ms: u64| Instant::default() + Duration::from_millis(ms);
        let (mut late, mut early) = (timers.until(at(20)), timers.until(at(10)));
        assert!(Pin::new(&mut late).poll(cx).is_pending());
        assert!(Pin::new(&mut early).poll(cx).is_pending());
        assert_eq!((host.0.load(Ordering::SeqCst), timers.next()), (2, Some(at(10))));
        timers.fire(at(9));
        assert_eq!(task.0.load(Ordering::SeqCst), 0);
        timers.fire(at(10));
        assert_eq!((task.0.load(Ordering::SeqCst), timers.next()), (1, Some(at(20))));
        assert!(Pin::new(&mut early).poll(cx).is_ready());
        assert!(Pin::new(&mut late).poll(cx).is_pending());
        drop(late);
        assert_eq!(timers.next(), None, "a timer that nobody waits for is gone");
    }
}
