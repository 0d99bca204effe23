//! Handshakes take turns, so that a storm of them holds up nobody else.
//!
//! A handshake computes for up to some milliseconds at a time. Where many are due at once, each
//! thread would work them off one after another while requests on open connections wait. So only a
//! few may compute until the other tasks of the thread have had their turn. Waiting for the other
//! end takes nobody's place: silent connections cost memory, and that until their deadline.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// A turn that took this long has computed something.
const WORK: Duration = Duration::from_micros(50);

/// Who may compute.
#[derive(Debug)]
pub(crate) struct Turns(Semaphore);

impl Turns {
    /// One at a time per core.
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)))
    }

    /// Runs a handshake to its end, a turn at a time.
    pub(crate) async fn run<F: Future>(&self, handshake: F) -> F::Output {
        let mut handshake = pin!(handshake);
        loop {
            let permit = self.0.acquire().await.expect("nobody closes the semaphore");
            let begun = Instant::now();
            let poll = poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
            if let Poll::Ready(output) = poll {
                return output;
            }
            if begun.elapsed() >= WORK {
                tokio::task::yield_now().await;
                // It is asked again at once, as what woke it meanwhile may be forgotten.
                continue;
            }
            drop(permit);
            woken().await;
        }
    }
}

/// Waits until something wakes the task.
async fn woken() {
    let mut asked = false;
    poll_fn(|_| if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Computes so many times, with other things to wait for in between.
    async fn handshake(steps: usize) {
        for _ in 0..steps {
            let begun = Instant::now();
            while begun.elapsed() < 2 * WORK {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_between_handshakes() {
        const HANDSHAKES: usize = 100;
        const STEPS: usize = 3;
        let turns = Arc::new(Turns(Semaphore::new(1)));
        let (seen, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&seen);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let all: Vec<_> = (0..HANDSHAKES)
            .map(|_| {
                let (turns, done) = (Arc::clone(&turns), Arc::clone(&done));
                tokio::spawn(async move {
                    turns.run(handshake(STEPS)).await;
                    done.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        for handshake in all {
            handshake.await.unwrap();
        }
        other.abort();
        assert_eq!(done.load(Ordering::Relaxed), HANDSHAKES);
        let seen = seen.load(Ordering::Relaxed);
        assert!(seen >= HANDSHAKES * STEPS, "{seen} turns of the other beside all of them");
    }

    #[tokio::test]
    async fn who_waits_for_the_other_end_keeps_nobody_out() {
        let turns = Arc::new(Turns(Semaphore::new(1)));
        let waiting = Arc::clone(&turns);
        let silent = tokio::spawn(async move { waiting.run(std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        turns.run(handshake(1)).await;
        silent.abort();
    }
}
