//! Superseded versions, ordered by the revision that superseded them: the history of all keys and
//! the queue of compaction in one append-only log.
//!
//! The versions of one key are linked backwards by `prev`; `jump` skips further, so a key with a
//! long history is searched in logarithmic time (skew-binary jump pointers: Myers, An applicative
//! random-access stack, 1983).
//!
//! Invariants: `by` never falls along the log; an entry never changes while a reader can reach it.
//! A slot is a run of relaxed atomics: the writer fills slots at or beyond every reader's `end`,
//! and publishing a View (through a lock) orders those writes before the reader's loads.

use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(loom)]
use loom::sync::atomic::AtomicU64;

use super::record::Record;

/// 64-bit words of an entry.
const WORDS: usize = 6;
/// Entries per chunk: 65,520 bytes, just inside an allocation class.
const PER_CHUNK: u64 = if cfg!(loom) { 2 } else { 1_365 };

/// A superseded version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// Main revision of the change that superseded it.
    pub(crate) by: u64,
    /// Absolute position of this entry.
    pub(crate) at: u64,
    jump: u32,
    depth: u32,
}

type Chunk = Arc<[AtomicU64]>;

/// The log, or a reader's view of it. Cloning costs one reference count.
#[derive(Clone, Debug)]
pub(crate) struct History {
    start: u64,
    end: u64,
    first_chunk: u64,
    chunks: Arc<Vec<Chunk>>,
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl History {
    /// An empty log whose first entry will have position `at`.
    pub(crate) fn starting_at(at: u64) -> Self {
        Self { start: at, end: at, first_chunk: at / PER_CHUNK, chunks: Arc::default() }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    fn words(&self, at: u64) -> &[AtomicU64] {
        let chunk = &self.chunks[(at / PER_CHUNK - self.first_chunk) as usize];
        let offset = (at % PER_CHUNK) as usize * WORDS;
        &chunk[offset..offset + WORDS]
    }

    /// The entry at an absolute position in `start..end`.
    pub(crate) fn entry(&self, at: u64) -> Entry {
        let words = self.words(at);
        let word = |i: usize| words[i].load(Relaxed);
        let (prev, flags) = split(word(2));
        let (version, len) = split(word(3));
        let (jump, depth) = split(word(5));
        let record = Record { main: word(0), create: word(1), prev, flags, version, len };
        Entry { record, by: word(4), at, jump, depth }
    }

    /// Resolves a position stored modulo 2^32 in something that lies at absolute position `from`.
    fn resolve(&self, from: u64, position: u32) -> Option<u64> {
        let back = u64::from((from as u32).wrapping_sub(position));
        let at = from.checked_sub(back)?;
        (back > 0 && at >= self.start).then_some(at)
    }

    fn linked(&self, from: u64, record: &Record) -> Option<Entry> {
        if !record.has_prev() {
            return None;
        }
        let entry = self.entry(self.resolve(from, record.prev)?);
        // Guards against a compacted link that aliases a position 2^32 later.
        (entry.by == record.main).then_some(entry)
    }

    /// The version before the newest one of a key, unless it is compacted.
    pub(crate) fn before(&self, newest: &Record) -> Option<Entry> {
        self.linked(self.end, newest)
    }

    /// The version before an entry, unless it is compacted.
    pub(crate) fn older(&self, entry: &Entry) -> Option<Entry> {
        self.linked(entry.at, &entry.record)
    }

    fn jump(&self, entry: &Entry) -> Option<Entry> {
        if entry.depth == 0 {
            return None;
        }
        let target = self.entry(self.resolve(entry.at, entry.jump)?);
        (target.depth < entry.depth).then_some(target)
    }

    /// The version of a key at main revision `rev`: the newest whose main is at or below it.
    pub(crate) fn at(&self, newest: &Record, rev: u64) -> Option<Record> {
        if newest.main <= rev {
            return Some(*newest);
        }
        let mut entry = self.before(newest)?;
        loop {
            if entry.record.main <= rev {
                return Some(entry.record);
            }
            entry = match self.jump(&entry) {
                Some(target) if target.record.main > rev => target,
                _ => self.older(&entry)?,
            };
        }
    }

    /// Appends the version that a change at `by` supersedes; returns its position modulo 2^32.
    pub(crate) fn push(&mut self, record: Record, by: u64) -> u32 {
        let at = self.end;
        let (jump, depth) = self.jump_for(&record);
        if at / PER_CHUNK - self.first_chunk >= self.chunks.len() as u64 {
            let words = PER_CHUNK as usize * WORDS;
            let chunk: Chunk = (0..words).map(|_| AtomicU64::new(0)).collect();
            Arc::make_mut(&mut self.chunks).push(chunk);
        }
        let filled = [
            record.main,
            record.create,
            join(record.prev, record.flags),
            join(record.version, record.len),
            by,
            join(jump, depth),
        ];
        for (slot, word) in self.words(at).iter().zip(filled) {
            slot.store(word, Relaxed);
        }
        self.end += 1;
        at as u32
    }

    /// Jump pointer and depth of a new entry. Where two jumps before it span equal distances they
    /// merge into one, and the depth alone tells that: of the entries that the pointers lead to, at
    /// most one is loaded, for each is a cache miss.
    fn jump_for(&self, record: &Record) -> (u32, u32) {
        let Some(older) = self.before(record) else { return (0, 0) };
        let depth = older.depth.saturating_add(1);
        let merged = || {
            let first = self.entry(self.resolve(older.at, older.jump)?);
            let second = self.resolve(first.at, first.jump).filter(|_| first.depth > 0)?;
            Some(second as u32)
        };
        let merged = if jump_distance(depth) > 1 { merged() } else { None };
        (merged.unwrap_or(older.at as u32), depth)
    }

    /// Forgets the entries before `at`; whole chunks are released once no reader holds them.
    pub(crate) fn trim(&mut self, at: u64) {
        self.start = at;
        let passed = (at / PER_CHUNK - self.first_chunk).min(self.chunks.len() as u64) as usize;
        if passed > 0 {
            Arc::make_mut(&mut self.chunks).drain(..passed);
            self.first_chunk += passed as u64;
        }
    }
}

/// How many entries the jump pointer of an entry at this depth skips: the smallest summand when the
/// depth is written as a sum of the greatest possible numbers 2^k - 1.
fn jump_distance(depth: u32) -> u32 {
    let (mut left, mut distance) = (depth, 0);
    while left > 0 {
        // The greatest 2^k - 1 that is not above it.
        distance = ((1_u64 << (u64::from(left) + 1).ilog2()) - 1) as u32;
        left -= distance;
    }
    distance
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_depth_alone_tells_how_far_an_entry_jumps() {
        // Myers: if the two jumps before an entry span equal distances, they merge.
        let mut targets = vec![None];
        for depth in 1..10_000_usize {
            let before = depth - 1;
            let merged = targets[before].and_then(|first: usize| {
                let second = targets[first]?;
                (before - first == first - second).then_some(second)
            });
            targets.push(Some(merged.unwrap_or(before)));
        }
        for (depth, target) in targets.iter().enumerate().skip(1) {
            let distance = jump_distance(depth as u32) as usize;
            assert_eq!(Some(depth - distance), *target, "depth {depth}");
        }
        assert_eq!(
            (jump_distance(u32::MAX), jump_distance(u32::MAX - 1)),
            (u32::MAX, (1 << 31) - 1)
        );
    }
}

/// Every interleaving of the writer with a reader (`RUSTFLAGS="--cfg loom"`).
#[cfg(loom)]
#[cfg(test)]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Mutex};

    /// The nth superseded version of one key.
    fn nth(n: u64, prev: Option<u32>) -> Record {
        let mut record = Record::first(n, 0, 1, 10, false);
        if let Some(prev) = prev {
            record.set_prev(prev);
        }
        record
    }

    #[test]
    fn a_published_log_reads_the_same_whatever_the_writer_does_next() {
        loom::model(|| {
            let mut log = History::starting_at(0);
            log.push(nth(1, None), 2);
            let published = Arc::new(Mutex::new(log.clone()));
            let slot = Arc::clone(&published);
            let writer = loom::thread::spawn(move || {
                // The second fills the chunk, the third begins another, then the first goes.
                for n in 2..=3 {
                    log.push(nth(n, Some(n as u32 - 2)), n + 1);
                    *slot.lock().unwrap() = log.clone();
                }
                log.trim(2);
                *slot.lock().unwrap() = log.clone();
            });
            let seen = published.lock().unwrap().clone();
            for at in seen.start()..seen.end() {
                let entry = seen.entry(at);
                assert_eq!((entry.record.main, entry.by), (at + 1, at + 2));
            }
            writer.join().unwrap();
            let last = published.lock().unwrap().clone();
            assert_eq!((last.start(), last.end()), (2, 3));
            assert_eq!(last.entry(2).record.main, 3);
        });
    }
}
