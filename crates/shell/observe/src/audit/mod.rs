//! The audit log (`--audit-log`): who changed what, and who was refused.
//!
//! Records come from the threads that serve clients into one bounded queue; a thread reads out of
//! their requests what a line tells, gathers the lines of a moment and appends them to the file.
//!
//! Invariants: whoever hands in a record never waits for the file, but for [`AuditLog::flush`],
//! which is bounded; lines stand in the order in which calls ended; what is dropped, for a full
//! queue or a full disk, is counted, told in the ordinary log, and in the file by a line of its own
//! when there is room again; no line holds a value, a password, a token or a hash. Read next:
//! [`line`] (how a line looks), [`subject`] (what it takes from a request), [`file`].

mod file;
mod line;
mod subject;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use calls::Record;
use env::WallTime;
use osenv::Clock;
use types::limits::{AUDIT_GATHER_MS, AUDIT_QUEUED, AUDIT_QUEUED_BYTES};

use crate::{Log, log_line};
use file::File;
use line::Lines;
pub use line::cut;

/// Bytes of lines that are written at once.
const WRITE_BYTES: usize = 64 << 10;
/// Time that the end of the program waits for the file.
const FLUSH: Duration = Duration::from_secs(1);
/// Bytes beside its request that a record counts for.
const RECORD_BYTES: usize = 128;

/// The audit log. Dropping it waits, for a bounded time, until it is written.
pub struct AuditLog(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write, or the end, or somebody who waits for it.
    pushed: Condvar,
    /// Something was written.
    written: Condvar,
    log: Arc<Log>,
}

#[derive(Default)]
struct Queue {
    records: Vec<(WallTime, Record)>,
    bytes: usize,
    /// Records dropped since this was last told.
    dropped: u64,
    /// Batches taken by the thread, and those of them that are written.
    taken: u64,
    written: u64,
    /// Somebody waits: nothing is gathered.
    is_urgent: bool,
    is_closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.dropped == 0
    }

    /// Whether a batch is due before its time.
    fn is_due(&self) -> bool {
        self.is_urgent
            || self.is_closed
            || self.bytes > AUDIT_QUEUED_BYTES / 2
            || self.records.len() > AUDIT_QUEUED / 2
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A thread that panicked within these few lines left a whole queue behind.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditLog {
    /// Opens the file, mode 0600 if it is made, and starts the thread that writes it.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be had.
    pub fn open(path: &Path, log: &Arc<Log>) -> io::Result<Self> {
        let file = File::open(path, Arc::clone(log))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            pushed: Condvar::new(),
            written: Condvar::new(),
            log: Arc::clone(log),
        });
        let of_thread = Arc::clone(&shared);
        let run = move || write_all(&of_thread, file);
        std::thread::Builder::new().name("audit".to_owned()).spawn(run)?;
        Ok(Self(shared))
    }

    /// Queues a record, or counts it as dropped if there is no room.
    pub fn push(&self, record: Record) {
        let at = Clock.wall();
        let mut queue = self.0.lock();
        let bytes = queue.bytes + record.request.len() + RECORD_BYTES;
        if queue.records.len() >= AUDIT_QUEUED || bytes > AUDIT_QUEUED_BYTES {
            queue.dropped += 1;
            let is_first = queue.dropped == 1;
            drop(queue);
            if is_first {
                let text = "the audit log does not take its lines in time: some are dropped";
                log_line!(self.0.log, Warn, text);
            }
            return;
        }
        let was = (queue.is_empty(), queue.is_due());
        queue.bytes = bytes;
        queue.records.push((at, record));
        // The thread sleeps while nothing is there, and while it gathers: few records wake it.
        let is = (queue.is_empty(), queue.is_due());
        drop(queue);
        if was != is {
            self.0.pushed.notify_one();
        }
    }

    /// Waits until what was pushed before is written, a second at the longest.
    pub fn flush(&self) {
        let mut queue = self.0.lock();
        let wanted = queue.taken + u64::from(!queue.is_empty());
        queue.is_urgent = true;
        self.0.pushed.notify_one();
        let deadline = Instant::now() + FLUSH;
        while queue.written < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.written.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.flush();
        self.0.lock().is_closed = true;
        self.0.pushed.notify_one();
    }
}

/// The thread's work.
fn write_all(shared: &Shared, mut file: File) {
    let mut lines = Lines::default();
    let mut records = Vec::new();
    while let Some(dropped) = take(shared, &mut records) {
        file.follow();
        for (at, record) in records.drain(..) {
            lines.record(at, &record);
            if lines.text.len() >= WRITE_BYTES {
                file.append(&mut lines);
            }
        }
        if dropped > 0 {
            // They would have come behind what was queued.
            lines.dropped(Clock.wall(), dropped);
            log_line!(shared.log, Warn, "audit lines were dropped", "dropped" = dropped);
        }
        file.append(&mut lines);
        shared.lock().written += 1;
        shared.written.notify_all();
    }
}

/// Waits for records and takes them; how many were dropped meanwhile. `None` at the end.
fn take(shared: &Shared, records: &mut Vec<(WallTime, Record)>) -> Option<u64> {
    let mut queue = shared.lock();
    while queue.is_empty() && !queue.is_closed {
        queue.is_urgent = false;
        queue = shared.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    let until = Instant::now() + Duration::from_millis(AUDIT_GATHER_MS);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || queue.is_due() {
            break;
        }
        let waited = shared.pushed.wait_timeout(queue, left);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    if queue.is_empty() {
        return None;
    }
    std::mem::swap(&mut queue.records, records);
    queue.bytes = 0;
    queue.taken += 1;
    Some(std::mem::take(&mut queue.dropped))
}
