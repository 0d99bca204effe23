//! A queue of log lines and the thread that writes them to one output.
//!
//! Invariants: whoever logs never waits for the output, but for [`Writer::flush`], which is bounded;
//! lines leave in the order in which they were pushed; what is dropped because the output does not
//! keep up is counted, and told as soon as there is room again.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of lines that wait for an output; further lines are dropped. As many may be on their way.
const QUEUED_BYTES: usize = 4 << 20;
/// What a line that must not be lost may exceed that by.
const URGENT_BYTES: usize = 64 << 10;
/// Time that the end of the program, or a fatal line, waits for an output.
const FLUSH: Duration = Duration::from_secs(1);

/// Whether a line may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Normal,
    /// The process is about to end.
    Urgent,
}

/// The line that tells how many lines were dropped.
pub(crate) type Notice = Box<dyn Fn(u64) -> String + Send>;

/// One output. Dropping it waits, for a bounded time, until what is queued was written.
pub(crate) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write, or the end.
    pushed: Condvar,
    /// Something was written.
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: String,
    /// Lines dropped since this was last told.
    dropped: u64,
    /// Batches taken by the thread, and those of them that are written.
    taken: u64,
    written: u64,
    is_closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A thread that panicked within these few lines left a whole queue behind.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread of an output.
    ///
    /// # Errors
    /// The thread cannot be had.
    pub(crate) fn start(output: Box<dyn Write + Send>, notice: Notice) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            pushed: Condvar::new(),
            written: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        let run = move || write_all(&of_thread, output, &notice);
        std::thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self(shared))
    }

    /// Queues a line, or counts it as dropped if there is no room.
    pub(crate) fn push(&self, line: &str, urgency: Urgency) {
        let mut queue = self.0.lock();
        let room = match urgency {
            Urgency::Normal => QUEUED_BYTES,
            Urgency::Urgent => QUEUED_BYTES + URGENT_BYTES,
        };
        if queue.lines.len() + line.len() > room {
            queue.dropped += 1;
            return;
        }
        queue.lines.push_str(line);
        drop(queue);
        self.0.pushed.notify_one();
    }

    /// Waits until what was pushed before is written, a second at the longest.
    pub(crate) fn flush(&self) {
        let mut queue = self.0.lock();
        let wanted = queue.taken + u64::from(!queue.is_empty());
        let deadline = std::time::Instant::now() + FLUSH;
        while queue.written < wanted {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.written.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
        self.0.lock().is_closed = true;
        self.0.pushed.notify_one();
    }
}

/// The thread's work. A write that fails loses its lines: a log must not end a member.
fn write_all(shared: &Shared, mut output: Box<dyn Write + Send>, notice: &Notice) {
    let mut batch = String::new();
    loop {
        let mut queue = shared.lock();
        while queue.is_empty() && !queue.is_closed {
            queue = shared.pushed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.is_empty() {
            return;
        }
        batch.clear();
        std::mem::swap(&mut queue.lines, &mut batch);
        let dropped = std::mem::take(&mut queue.dropped);
        queue.taken += 1;
        drop(queue);
        if dropped > 0 {
            // They would have come behind what was queued.
            batch.push_str(&notice(dropped));
        }
        let _ = output.write_all(batch.as_bytes());
        let _ = output.flush();
        shared.lock().written += 1;
        shared.written.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, pipe};
    use std::time::Instant;

    use super::*;

    fn start(output: impl Write + Send + 'static) -> Writer {
        let notice = |dropped| format!("dropped {dropped}\n");
        Writer::start(Box::new(output), Box::new(notice)).unwrap()
    }

    /// Pushes lines until some are dropped; nobody may have read anything.
    fn fill(writer: &Writer) -> u64 {
        let mut pushed = 0;
        while writer.0.lock().dropped < 10 {
            writer.push(&format!("line {pushed} {:1000}\n", ""), Urgency::Normal);
            pushed += 1;
            assert!(pushed < 1_000_000, "there is a limit");
        }
        pushed
    }

    #[test]
    fn an_output_that_nobody_reads_stops_nobody_and_what_it_missed_is_told() {
        let (reader, output) = pipe().unwrap();
        let writer = start(output);
        let pushed = fill(&writer);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut seen = 0;
        let dropped: u64 = loop {
            let line = lines.next().expect("the writer lives");
            if let Some(count) = line.strip_prefix("dropped ") {
                break count.parse().unwrap();
            }
            assert!(line.starts_with(&format!("line {seen} ")), "in order and whole: {line:.20}");
            seen += 1;
        };
        assert!(dropped >= 10);
        assert_eq!(seen + dropped, pushed);
        writer.push("on it goes\n", Urgency::Normal);
        assert_eq!(lines.next().unwrap(), "on it goes");
    }

    #[test]
    fn the_end_waits_for_what_is_queued() {
        let (mut reader, output) = pipe().unwrap();
        let writer = start(output);
        for n in 0..100 {
            writer.push(&format!("{n}\n"), Urgency::Normal);
        }
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 100);
    }

    #[test]
    fn the_last_line_has_room_and_waits_no_longer_than_a_moment() {
        let (mut reader, output) = pipe().unwrap();
        let writer = start(output);
        fill(&writer);
        let began = Instant::now();
        writer.push("the end\n", Urgency::Urgent);
        drop(writer);
        let took = began.elapsed();
        assert!(took >= FLUSH && took < FLUSH * 10, "{took:?}");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("\nthe end\n"));
    }
}
