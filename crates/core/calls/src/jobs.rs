//! Jobs for the host's thread pool: work that may block on the disk or take long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::error::{Code, Status};
use env::MayBlock;
use futures_channel::oneshot;

use crate::member::Member;

/// Work for the pool. It finishes in bounded time, but for the disk's.
pub type Job = Box<dyn FnOnce(&MayBlock) + Send>;

/// Large results that may be in memory at once.
const LARGE_RESULTS: usize = 2;

/// A job without a result: the pool was full, or the job panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobDropped;

impl From<JobDropped> for Status {
    fn from(_: JobDropped) -> Self {
        Status::new(Code::ResourceExhausted, "etcdserver: the work pool takes no more jobs")
    }
}

/// How many results of many megabytes there may be; shared by all runtimes.
#[derive(Debug)]
pub struct LargeResults(Arc<AtomicUsize>);

impl Default for LargeResults {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(LARGE_RESULTS)))
    }
}

/// A permit for one large result; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl LargeResults {
    /// Takes a permit, if one is left.
    pub(crate) fn take(&self) -> Option<Permit> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        taken.is_ok().then(|| Permit(Arc::clone(&self.0)))
    }
}

impl Member {
    /// Runs a job on the pool and waits for its result.
    ///
    /// # Errors
    /// [`JobDropped`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&MayBlock) -> T + Send + 'static,
    ) -> Result<T, JobDropped> {
        let (send, receive) = oneshot::channel();
        self.hand_out(|outbox| {
            outbox.jobs.push(Box::new(move |may| {
                // A caller that has gone needs no answer.
                let _ = send.send(job(may));
            }));
        });
        // A job that the host drops, or that panics, drops the sender.
        receive.await.map_err(|_| JobDropped)
    }

    /// Computes something long on the pool, so that others need not wait for it.
    ///
    /// # Errors
    /// [`JobDropped`].
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobDropped> {
        self.run(|_| work()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_are_few() {
        let large = LargeResults::default();
        let held: Vec<_> = std::iter::from_fn(|| large.take()).collect();
        assert_eq!(held.len(), LARGE_RESULTS);
        drop(held);
        assert!(large.take().is_some());
    }
}
