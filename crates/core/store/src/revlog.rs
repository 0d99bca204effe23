//! The revision log: the newest batches in memory, for values that the database does not hold yet
//! and for watchers.
//!
//! Batches lie in segments of write-once slots. Appending fills a slot of the segment that Views
//! already share; only a new segment copies the list of segments. So publishing costs one reference
//! count however many batches there are. A reader knows the newest revision of its View and stops
//! there; it never sees half a batch, as a slot is filled at once.
//!
//! Invariants: main revisions ascend; the log holds every change from `from` on; segments leave
//! only from the front and only when the database holds them.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::batch::{Batch, Event};

/// Bytes of committed batches that stay in memory for watchers.
pub const WATCH_TAIL_BYTES: usize = 8 << 20;

const SEGMENT_BATCHES: usize = 64;
const SEGMENT_BYTES: usize = 256 << 10;

/// A batch with its first main revision, so that a search follows no pointers.
#[derive(Debug)]
struct Placed {
    first_main: u64,
    batch: Arc<Batch>,
}

#[derive(Debug)]
struct Segment {
    first_main: u64,
    slots: Box<[OnceLock<Placed>]>,
}

impl Segment {
    /// The last batch that begins at or before `main`.
    fn batch(&self, main: u64) -> Option<(usize, &Arc<Batch>)> {
        let begins_by =
            |slot: &OnceLock<Placed>| slot.get().is_some_and(|placed| placed.first_main <= main);
        let i = self.slots.partition_point(begins_by).checked_sub(1)?;
        self.slots[i].get().map(|placed| (i, &placed.batch))
    }
}

/// A reader's hold on the log.
#[derive(Clone, Debug)]
pub(crate) struct LogSnapshot {
    from: u64,
    segments: Arc<Vec<Arc<Segment>>>,
}

impl LogSnapshot {
    /// Every change at or after this main revision is here.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    fn segment(&self, main: u64) -> usize {
        self.segments.partition_point(|s| s.first_main <= main).saturating_sub(1)
    }

    pub(crate) fn value(&self, main: u64, sub: u32) -> Option<Bytes> {
        self.segments.get(self.segment(main))?.batch(main)?.1.value(main, sub)
    }

    /// The changes at or after (main, sub) up to `last`.
    pub(crate) fn events(&self, main: u64, sub: u32, last: u64) -> Tail<'_> {
        let segment = self.segment(main);
        let found = self.segments.get(segment).and_then(|s| s.batch(main));
        let slot = found.map_or(0, |(i, _)| i);
        let row = found.map_or(0, |(_, batch)| {
            batch.rows().partition_point(|r| (r.main, r.sub) < (main, sub))
        });
        Tail { segments: &self.segments, segment, slot, row, last }
    }
}

/// Changes of keys from memory, in (main, sub) order, without a copy.
#[derive(Clone, Debug)]
pub struct Tail<'a> {
    segments: &'a [Arc<Segment>],
    segment: usize,
    slot: usize,
    row: usize,
    last: u64,
}

impl<'a> Iterator for Tail<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        loop {
            let segment = self.segments.get(self.segment)?;
            let Some(placed) = segment.slots.get(self.slot).and_then(OnceLock::get) else {
                (self.segment, self.slot, self.row) = (self.segment + 1, 0, 0);
                continue;
            };
            if placed.first_main > self.last {
                return None; // sealed after this View
            }
            if let Some(event) = placed.batch.event(self.row) {
                self.row += 1;
                return Some(event);
            }
            (self.slot, self.row) = (self.slot + 1, 0);
        }
    }
}

/// Batches that left the log. Freeing megabytes takes a while: drop this on a thread that has time.
#[must_use]
#[derive(Debug)]
pub struct Released(#[allow(dead_code)] Vec<Arc<Segment>>);

/// The writer's side.
#[derive(Debug)]
pub(crate) struct RevisionLog {
    shared: LogSnapshot,
    /// Slots used and bytes held of the newest segment.
    newest: (usize, usize),
    /// Bytes and last batch number of each segment.
    sizes: VecDeque<(usize, u64)>,
    total_bytes: usize,
    /// Number and bytes of batches that the database does not hold yet.
    uncommitted: VecDeque<(u64, usize)>,
    uncommitted_bytes: usize,
    /// Bytes of committed batches that stay.
    tail_limit_bytes: usize,
}

impl RevisionLog {
    /// An empty log; the next change has main revision `from` or later.
    pub(crate) fn starting_at(from: u64) -> Self {
        Self {
            shared: LogSnapshot { from, segments: Arc::default() },
            newest: (SEGMENT_BATCHES, 0),
            sizes: VecDeque::new(),
            total_bytes: 0,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            tail_limit_bytes: WATCH_TAIL_BYTES,
        }
    }

    pub(crate) fn tail_limit(&self) -> usize {
        self.tail_limit_bytes
    }

    pub(crate) fn set_tail_limit(&mut self, bytes: usize) {
        self.tail_limit_bytes = bytes;
    }

    pub(crate) fn snapshot(&self) -> LogSnapshot {
        self.shared.clone()
    }

    pub(crate) fn shared(&self) -> &LogSnapshot {
        &self.shared
    }

    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Appends a batch. One without changes of keys is only counted until it is committed.
    pub(crate) fn push(&mut self, batch: &Arc<Batch>) {
        let bytes = batch.size_bytes();
        self.uncommitted.push_back((batch.number(), bytes));
        self.uncommitted_bytes += bytes;
        let Some(first_main) = batch.first_main() else { return };
        if self.newest.0 == SEGMENT_BATCHES || self.newest.1 >= SEGMENT_BYTES {
            let slots = (0..SEGMENT_BATCHES).map(|_| OnceLock::new()).collect();
            let segment = Arc::new(Segment { first_main, slots });
            Arc::make_mut(&mut self.shared.segments).push(segment);
            self.sizes.push_back((0, 0));
            self.newest = (0, 0);
        }
        let segment = self.shared.segments.last().expect("pushed above or before");
        let placed = Placed { first_main, batch: Arc::clone(batch) };
        let filled = segment.slots[self.newest.0].set(placed);
        assert!(filled.is_ok(), "each slot is filled once");
        let size = self.sizes.back_mut().expect("one per segment");
        *size = (size.0 + bytes, batch.number());
        self.newest = (self.newest.0 + 1, self.newest.1 + bytes);
        self.total_bytes += bytes;
    }

    /// Notes that the database holds all batches up to `number`, and drops segments from the front
    /// while the tail is over its limit. `next_main` is the main revision of the next change.
    pub(crate) fn committed(&mut self, number: u64, next_main: u64) -> Released {
        while let Some(&(_, bytes)) = self.uncommitted.front().filter(|first| first.0 <= number) {
            self.uncommitted_bytes -= bytes;
            self.uncommitted.pop_front();
        }
        let mut gone = 0;
        while let Some(&(bytes, last)) = self.sizes.front() {
            if self.total_bytes <= self.tail_limit_bytes || last > number {
                break;
            }
            self.sizes.pop_front();
            self.total_bytes -= bytes;
            gone += 1;
        }
        let mut released = Vec::new();
        if gone > 0 {
            released.extend(Arc::make_mut(&mut self.shared.segments).drain(..gone));
            let first = self.shared.segments.first().map(|s| s.first_main);
            self.shared.from = first.unwrap_or(next_main);
            if first.is_none() {
                self.newest = (SEGMENT_BATCHES, 0);
            }
        }
        Released(released)
    }
}
