//! Wakes a task that asked for it; a ring that nobody asked for is one exchange.
//!
//! Invariant: a task that arms the bell and then finds nothing new will be woken by the next
//! ring. The pairing: the ringer publishes, then rings; the task arms, then looks.

use std::task::Waker;

use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// One task's bell. Any thread may ring it.
#[derive(Debug)]
pub struct Bell {
    /// Written by every ring, so that arming synchronises with the ring before it.
    armed: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Default for Bell {
    fn default() -> Self {
        Self { armed: AtomicBool::new(false), waker: Mutex::new(None) }
    }
}

impl Bell {
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
    pub fn ring(&self) {
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
    fn a_ring_wakes_once_per_arming() {
        let (bell, count) = (Bell::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(std::sync::atomic::Ordering::SeqCst);
        bell.ring();
        assert_eq!(woken(), 0);
        bell.arm(&waker);
        bell.ring();
        bell.ring();
        assert_eq!(woken(), 1);
        bell.arm(&waker);
        bell.disarm();
        bell.ring();
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
            let (bell, news) = (Arc::new(Bell::default()), Arc::new(AtomicUsize::new(0)));
            let woken = std::sync::Arc::new(Woken(false.into()));
            let ringer = {
                let (bell, news) = (Arc::clone(&bell), Arc::clone(&news));
                loom::thread::spawn(move || {
                    news.store(1, Ordering::Relaxed);
                    bell.ring();
                })
            };
            bell.arm(&Waker::from(std::sync::Arc::clone(&woken)));
            let seen = news.load(Ordering::Relaxed) == 1;
            ringer.join().unwrap();
            assert!(seen || woken.0.load(std::sync::atomic::Ordering::SeqCst));
        });
    }
}
