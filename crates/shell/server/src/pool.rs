//! The work pool: what may wait for the disk or take long, away from the runtimes.
//!
//! Invariant 12: the queue has a limit; a job that does not fit is refused, and its caller told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use calls::{Job, JobDropped};
use env::MayBlock;
use handover::Inbox;
use osenv::RecvBlocking;

/// Jobs that wait at once before calls are refused.
const MAX_QUEUED: usize = 65_536;

/// Fewest threads: a long job must not hold up the short ones.
const MIN_THREADS: usize = 2;

/// Threads that run jobs. Dropping it lets them finish what is queued.
pub struct Pool {
    queues: Vec<Queue>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue {
    jobs: Arc<Inbox<Job>>,
    /// Jobs that wait or run.
    load: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let mut pool = Self { queues: Vec::new(), threads: Vec::new() };
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

    /// Queues a job where the fewest wait.
    ///
    /// # Errors
    /// [`JobDropped`].
    pub fn submit(&self, job: Job) -> Result<(), JobDropped> {
        let queue = self.queues.iter().min_by_key(|queue| queue.load.load(Ordering::Relaxed));
        let queue = queue.expect("a pool has threads");
        queue.load.fetch_add(1, Ordering::Relaxed);
        queue.jobs.push(job).map_err(|_| {
            queue.load.fetch_sub(1, Ordering::Relaxed);
            JobDropped
        })
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
    fn a_long_job_does_not_hold_up_a_short_one() {
        let pool = Pool::new(1).unwrap();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (done, result) = std::sync::mpsc::channel();
        let ended = done.clone();
        let long = move |_: &MayBlock| {
            wait.recv().unwrap();
            ended.send("long").unwrap();
        };
        pool.submit(Box::new(long)).unwrap();
        pool.submit(Box::new(move |_| done.send("short").unwrap())).unwrap();
        // With a single queue this would never end.
        assert_eq!(result.recv(), Ok("short"));
        release.send(()).unwrap();
        assert_eq!(result.recv(), Ok("long"));
    }

    #[test]
    fn a_job_that_panics_ends_neither_its_thread_nor_the_others() {
        let pool = Pool::new(1).unwrap();
        let (done, result) = std::sync::mpsc::channel();
        for _ in 0..8 {
            pool.submit(Box::new(|_| panic!("planted"))).unwrap();
        }
        for n in 0..8 {
            let done = done.clone();
            pool.submit(Box::new(move |_| done.send(n).unwrap())).unwrap();
        }
        let mut seen: Vec<i32> = (0..8).map(|_| result.recv().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..8).collect::<Vec<_>>());
    }
}
