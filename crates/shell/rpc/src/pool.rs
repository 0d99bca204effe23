//! The work pool: what may wait for the disk or take long, away from the runtimes.
//!
//! Invariant 12: the queue has a limit; a job that does not fit is refused, and its caller told.

use std::sync::Arc;
use std::thread::JoinHandle;

use env::MayBlock;
use handover::Inbox;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce(&MayBlock) + Send>;

/// Jobs that wait at once before calls are refused.
const MAX_QUEUED: usize = 65_536;

/// Threads that run jobs. Dropping it lets them finish what is queued.
pub struct Pool {
    queues: Vec<Arc<Inbox<Job>>>,
    next: std::sync::atomic::AtomicUsize,
    threads: Vec<JoinHandle<()>>,
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
        let mut pool = Self {
            queues: Vec::new(),
            next: std::sync::atomic::AtomicUsize::new(0),
            threads: Vec::new(),
        };
        for number in 0..threads.max(1) {
            let queue: Arc<Inbox<Job>> = Arc::new(Inbox::new(MAX_QUEUED));
            pool.queues.push(Arc::clone(&queue));
            let work = move || {
                let may = MayBlock::on_this_thread();
                let mut jobs = Vec::new();
                while queue.recv_blocking(&mut jobs, None) {
                    for job in jobs.drain(..) {
                        // A job that panics loses its call (the answer's sender is dropped), not
                        // the thread.
                        let run = std::panic::AssertUnwindSafe(|| job(&may));
                        let _ = std::panic::catch_unwind(run);
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
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.queues[turn % self.queues.len()].push(job).map_err(|_| Refused)?;
        receive.await.map_err(|_| Refused)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.close());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
