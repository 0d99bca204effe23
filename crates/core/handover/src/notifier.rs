//! Wakes a task that asked for it; a notice that nobody asked for is one exchange.
//!
//! Invariant: a task that arms its notifier and then finds nothing new will be woken by the next
//! notice. The pairing: one side publishes, then notifies; the task arms, then looks.

use std::task::Waker;

use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// Wakes one task. Any thread may notify it.
#[derive(Debug)]
pub struct Notifier {
    /// Written by every notice, so that arming synchronises with the one before it.
    armed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Default for Notifier {
    fn default() -> Self {
        Self { armed: AtomicBool::new(false), waker: Mutex::new(None) }
    }
}

impl Notifier {
    /// Asks for one wake-up. Look for news after this, not before.
    pub fn arm(&self, waker: &Waker) {
        {
            let mut held = lock(&self.waker);
            if held.as_ref().is_none_or(|w| !w.will_wake(waker)) {
                *held = Some(waker.clone());
            }
        }
        // Both sides exchange: whichever comes second sees what the first did before.
        self.armed.swap(true, Ordering::AcqRel);
    }

    /// Takes the request back.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }

    /// Wakes the task if it asked. Publish what is new before this.
    pub fn notify(&self) {
        if self.armed.swap(false, Ordering::AcqRel) {
            let waker = lock(&self.waker).clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn a_notice_wakes_once_per_arming() {
        let (notifier, count) = (Notifier::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(std::sync::atomic::Ordering::SeqCst);
        notifier.notify();
        assert_eq!(woken(), 0);
        notifier.arm(&waker);
        notifier.notify();
        notifier.notify();
        assert_eq!(woken(), 1);
        notifier.arm(&waker);
        notifier.disarm();
        notifier.notify();
        assert_eq!(woken(), 1);
    }
}

#[cfg(loom)]
#[cfg(test)]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn news_are_seen_or_the_task_is_woken() {
        loom::model(|| {
            let (notifier, news) = (Arc::new(Notifier::default()), Arc::new(AtomicUsize::new(0)));
            let woken = std::sync::Arc::new(Woken(false.into()));
            let other = {
                let (notifier, news) = (Arc::clone(&notifier), Arc::clone(&news));
                loom::thread::spawn(move || {
                    news.store(1, Ordering::Relaxed);
                    notifier.notify();
                })
            };
            notifier.arm(&Waker::from(std::sync::Arc::clone(&woken)));
            let seen = news.load(Ordering::Relaxed) == 1;
            other.join().unwrap();
            assert!(seen || woken.0.load(std::sync::atomic::Ordering::SeqCst));
        });
    }
}
