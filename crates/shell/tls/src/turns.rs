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
