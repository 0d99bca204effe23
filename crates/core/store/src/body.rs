//! The body of a range response in pieces: lists of any size in bounded memory.
//!
//! A body keeps the index it was planned on and takes the newest View for each piece, so a slow
//! reader pins no database pages. Invariant: the bytes of all pieces are exactly
//! [`Ranged::body_bytes`] long, in the planned order.

use env::MayBlock;

use crate::error::ValueError;
use crate::index::Snapshot;
use crate::index::read::Bounds;
use crate::kv::{kvs_field_len, put_kvs_field};
use crate::plan::key_only;
use crate::range::{Entries, Ranged, ValueRef};
use crate::values::{Lookup, Sources};
use crate::view::View;

/// Values read together.
const WINDOW: usize = 512;

/// How a piece ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More follows: ask again.
    More,
    /// The body is complete.
    Done,
    /// The next value is not in memory: go on with [`RangeBody::next_blocking`] on the pool.
    NeedsBlocking,
}

/// A producer of encoded `kvs` fields.
#[derive(Debug)]
pub struct RangeBody {
    index: Snapshot,
    entries: Entries,
    /// Elements of `entries` produced, unless it is a walk.
    next: usize,
    window: Vec<ValueRef>,
    window_next: usize,
}

impl RangeBody {
    pub(crate) fn new(index: Snapshot, ranged: Ranged) -> Self {
        assert!(!ranged.needs_values(), "resolve a plan by value first");
        let entries = ranged.entries;
        Self { index, entries, next: 0, window: Vec::new(), window_next: 0 }
    }

    /// Appends to `out` until it holds `max_bytes` or more (one element may overshoot), the body
    /// ends, or a value is not in memory.
    ///
    /// # Errors
    /// [`ValueError::Compacted`] if a compaction removed what the list still needs, or the
    /// database's.
    pub fn next(
        &mut self,
        view: &View,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<Piece, ValueError> {
        loop {
            while let Some(r) = self.window.get(self.window_next) {
                if out.len() >= max_bytes {
                    return Ok(Piece::More);
                }
                match view.sources().try_value(r.main, r.sub)? {
                    Lookup::Found(value) => put_kvs_field(out, &value),
                    Lookup::Cold => return Ok(Piece::NeedsBlocking),
                    Lookup::Absent => return Err(ValueError::Compacted),
                }
                self.window_next += 1;
            }
            if out.len() >= max_bytes {
                return Ok(if self.is_done() { Piece::Done } else { Piece::More });
            }
            if !self.refill(max_bytes, out) {
                return Ok(Piece::Done);
            }
        }
    }

    /// As [`RangeBody::next`] where waiting is allowed: reads windows of values sorted by page.
    ///
    /// # Errors
    /// As [`RangeBody::next`].
    pub fn next_blocking(
        &mut self,
        may: &MayBlock,
        view: &View,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<Piece, ValueError> {
        while out.len() < max_bytes {
            if self.window_next == self.window.len() && !self.refill(max_bytes, out) {
                return Ok(Piece::Done);
            }
            // Lengths are known: the window read now is what still fits, at least one value.
            let (mut room, mut count) = (max_bytes.saturating_sub(out.len()), 0);
            let rest = &self.window[self.window_next..];
            for r in rest {
                if count > 0 && room == 0 {
                    break;
                }
                room = room.saturating_sub(kvs_field_len(r.len as usize));
                count += 1;
            }
            append_values(view.sources(), may, &rest[..count], out)?;
            self.window_next += count;
        }
        Ok(if self.is_done() { Piece::Done } else { Piece::More })
    }

    fn is_done(&self) -> bool {
        let ended = match &self.entries {
            Entries::Walk { left, .. } => *left == 0,
            Entries::Refs(refs) => self.next == refs.len(),
            Entries::Inline(all) => self.next == all.len(),
        };
        ended && self.window_next == self.window.len()
    }

    /// Gets the next window of places; elements without values go straight to `out`. False at the
    /// end of the list.
    fn refill(&mut self, max_bytes: usize, out: &mut Vec<u8>) -> bool {
        self.window.clear();
        self.window_next = 0;
        match &mut self.entries {
            Entries::Refs(refs) => {
                let end = (self.next + WINDOW).min(refs.len());
                self.window.extend_from_slice(&refs[self.next..end]);
                self.next = end;
                !self.window.is_empty()
            }
            Entries::Inline(all) => {
                while let Some(element) = all.get(self.next) {
                    if out.len() >= max_bytes {
                        return true;
                    }
                    put_kvs_field(out, element);
                    self.next += 1;
                }
                false
            }
            Entries::Walk { low, high, rev, left, keys_only } => {
                let bounds = Bounds { low: Some(low), high: high.as_deref() };
                let (reader, mut last) = (self.index.reader(), Vec::new());
                let window = &mut self.window;
                let mut taken = 0;
                reader.visit(bounds, *rev, &mut |key, record| {
                    if taken == *left {
                        return false;
                    }
                    taken += 1;
                    if *keys_only {
                        let (_, encoded) = key_only(&reader, key, record, true);
                        put_kvs_field(out, &encoded.unwrap_or_default());
                    } else {
                        let (main, sub) = (record.main, record.sub());
                        window.push(ValueRef { main, sub, len: record.len });
                    }
                    if window.len() == WINDOW || out.len() >= max_bytes {
                        key.append_to(&mut last);
                        return false;
                    }
                    true
                });
                // An early end continues behind its last key; any other end is the end.
                *left = if last.is_empty() { 0 } else { *left - taken };
                last.push(0);
                *low = last;
                taken > 0
            }
        }
    }
}

/// Reads values in page order and appends them in list order.
fn append_values(
    sources: Sources<'_>,
    may: &MayBlock,
    refs: &[ValueRef],
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let mut values: Vec<Option<Box<[u8]>>> = vec![None; refs.len()];
    sources.values(may, refs, &mut |i, value| values[i] = value.map(Into::into))?;
    for value in values {
        put_kvs_field(out, &value.ok_or(ValueError::Compacted)?);
    }
    Ok(())
}
