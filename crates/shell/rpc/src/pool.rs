//! The work pool: what may wait for the disk or take long, away from the runtimes.
//!
//! Invariant 12: the queue has a limit; a job that does not fit is refused, and its caller told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use env::MayBlock;
use handover::Inbox;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce(&MayBlock) + Send>;

/// Jobs that wait at once before calls are refused.
const MAX_QUEUED: usize = 65_536;

/// Fewest threads: a long job must not hold up the short ones.
const MIN_THREADS: usize = 2;
/// Large results that may be in memory at once.
const LARGE_RESULTS: usize = 2;

/// Threads that run jobs. Dropping it lets them finish what is queued.
pub struct Pool {
    queues: Vec<Queue>,
    threads: Vec<JoinHandle<()>>,
    large: Arc<AtomicUsize>,
}

struct Queue {
    jobs: Arc<Inbox<Job>>,
    /// Jobs that wait or run.
    load: Arc<AtomicUsize>,
}

/// The right to one large result; dropping it gives the right back.
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The pool takes no more work now, or the job panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Pool {
    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let large = Arc::new(AtomicUsize::new(LARGE_RESULTS));
        let mut pool = Self { queues: Vec::new(), threads: Vec::new(), large };
        for number in 0..threads.max(MIN_THREADS) {
            let queue: Arc<Inbox<Job>> = Arc::new(Inbox::new(MAX_QUEUED));
            let load = Arc::new(AtomicUsize::new(0));
            pool.queues.push(Queue { jobs: Arc::clone(&queue), load: Arc::clone(&load) });
            let work = move || {
                let may = MayBlock::on_this_thread();
                let mut jobs = Vec::new();
                while queue.recv_blocking(&mut jobs, None) {
                    for job in jobs.drain(..) {
                        // A job that panics loses its call (the answer's sender is dropped), not
                        // the thread.
                        let run = std::panic::AssertUnwindSafe(|| job(&may));
                        let _ = std::panic::catch_unwind(run);
                        load.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("pool-{number}")).spawn(work)?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Runs a job and waits for its result.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&MayBlock) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |may| {
            // A caller that has gone needs no answer.
            let _ = send.send(job(may));
        });
        let queue = self.queues.iter().min_by_key(|queue| queue.load.load(Ordering::Relaxed));
        let queue = queue.expect("a pool has threads");
        queue.load.fetch_add(1, Ordering::Relaxed);
        if queue.jobs.push(job).is_err() {
            queue.load.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused);
        }
        receive.await.map_err(|_| Refused)
    }

    /// The right to a result of many megabytes, if one is left.
    #[must_use]
    pub fn large_result(&self) -> Option<Permit> {
        let taken =
            self.large.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        taken.is_ok().then(|| Permit(Arc::clone(&self.large)))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.jobs.close());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_are_few() {
        let pool = Pool::new(1).unwrap();
        let held: Vec<_> = std::iter::from_fn(|| pool.large_result()).collect();
        assert_eq!(held.len(), LARGE_RESULTS);
        drop(held);
        assert!(pool.large_result().is_some());
    }

    #[test]
    fn a_long_job_does_not_hold_up_a_short_one() {
        let pool = Pool::new(1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let mut long = std::pin::pin!(pool.run(move |_| wait.recv()));
            let waker = std::task::Waker::noop();
            assert!(long.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
            // With a single queue this would never end.
            assert_eq!(pool.run(|_| 7).await, Ok(7));
            release.send(()).unwrap();
            assert_eq!(long.await, Ok(Ok(())));
        });
    }
}
