//! The body of a range response in pieces: lists of any size in bounded memory.
//!
//! A body keeps the index it was planned on and takes the newest View for each piece, so a slow
//! reader pins no database pages. Invariant: the bytes of all pieces are exactly
//! [`Ranged::body_bytes`] long, in the planned order.

use env::{Cached, MayBlock};

use crate::error::ValueError;
use crate::index::Snapshot;
use crate::index::read::Bounds;
use crate::kv::{kvs_field_len, put_kvs_field, write_kvs_field};
use crate::plan::key_only;
use crate::range::{Entries, Ranged, ValueRef};
use crate::values::{Lookup, Sources};
use crate::view::View;

/// Values looked up together where nothing may wait.
const WINDOW: usize = 512;
/// Values fewer than this are read one by one where nothing may wait: there is nothing to sort.
const FEW: usize = 4;
/// Values read together at most where waiting is allowed; 16 bytes each, and 68 more while they are
/// read.
const WIDE_WINDOW: usize = 256 << 10;

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
        while out.len() < max_bytes {
            let is_empty = self.window_next == self.window.len();
            if is_empty && !self.refill(max_bytes, WINDOW, out) {
                return Ok(Piece::Done);
            }
            let (refs, bytes) = self.fitting(max_bytes, out);
            let count = refs.len();
            if try_append_values(view.sources(), refs, bytes, out)? == Cached::Miss {
                return Ok(Piece::NeedsBlocking);
            }
            self.window_next += count;
        }
        Ok(if self.is_done() { Piece::Done } else { Piece::More })
    }

    /// As [`RangeBody::next`] where waiting is allowed: what fits into `max_bytes` is read in the
    /// order of pages, so a long list costs less the larger its pieces are.
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
            let is_empty = self.window_next == self.window.len();
            if is_empty && !self.refill(max_bytes, WIDE_WINDOW, out) {
                return Ok(Piece::Done);
            }
            let (refs, bytes) = self.fitting(max_bytes, out);
            let count = refs.len();
            append_values(view.sources(), may, refs, bytes, out)?;
            self.window_next += count;
        }
        Ok(if self.is_done() { Piece::Done } else { Piece::More })
    }

    /// What of the window fits into `max_bytes` behind `out`, at least one value if there is any,
    /// and how many bytes it needs.
    fn fitting(&self, max_bytes: usize, out: &[u8]) -> (&[ValueRef], usize) {
        let room = max_bytes.saturating_sub(out.len());
        let rest = &self.window[self.window_next..];
        let (mut bytes, mut count) = (0, 0);
        for r in rest {
            if count > 0 && bytes >= room {
                break;
            }
            bytes += kvs_field_len(r.len as usize);
            count += 1;
        }
        (&rest[..count], bytes)
    }

    fn is_done(&self) -> bool {
        let ended = match &self.entries {
            Entries::Walk { left, .. } => *left == 0,
            Entries::Refs(refs) => self.next == refs.len(),
            Entries::Inline(all) => self.next == all.len(),
        };
        ended && self.window_next == self.window.len()
    }

    /// Gets the next window of places, at most `most` and no more than `max_bytes` need; elements
    /// without values go straight to `out`. False at the end of the list.
    fn refill(&mut self, max_bytes: usize, most: usize, out: &mut Vec<u8>) -> bool {
        self.window.clear();
        self.window_next = 0;
        match &mut self.entries {
            Entries::Refs(refs) => {
                let end = (self.next + most).min(refs.len());
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
                let (mut taken, mut bytes) = (0, out.len());
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
                        bytes += kvs_field_len(record.len as usize);
                    }
                    if window.len() == most || bytes.max(out.len()) >= max_bytes {
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

/// Puts values in list order behind what `out` holds; they need `bytes` there. On an error `out` is
/// as long as before.
fn append_values(
    sources: Sources<'_>,
    may: &MayBlock,
    refs: &[ValueRef],
    bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let places = Places::new(refs);
    let read = |each: &mut Each<'_>| {
        sources.values(may, places.refs(), each)?;
        Ok(Cached::Hit)
    };
    places.fill(read, bytes, out).map(|_| ())
}

/// As [`append_values`] without waiting for the disk. On [`Cached::Miss`] too `out` is as long as
/// before.
pub(crate) fn try_append_values(
    sources: Sources<'_>,
    refs: &[ValueRef],
    bytes: usize,
    out: &mut Vec<u8>,
) -> Result<Cached, ValueError> {
    if refs.len() < FEW {
        let start = out.len();
        for r in refs {
            match sources.try_value(r.main, r.sub)? {
                Lookup::Found(value) => put_kvs_field(out, &value),
                Lookup::Absent => return Err(ValueError::Compacted),
                Lookup::Cold => {
                    out.truncate(start);
                    return Ok(Cached::Miss);
                }
            }
        }
        return Ok(Cached::Hit);
    }
    let places = Places::new(refs);
    places.fill(|each| sources.try_values(places.refs(), each), bytes, out)
}

/// Takes the position of a reference and its value.
type Each<'e> = dyn FnMut(usize, Option<&[u8]>) + 'e;

/// References in the order of revisions, which is nearly that of pages: nothing that belongs to a
/// value has to be looked for then. With each, where its field begins.
struct Places(Vec<(ValueRef, usize)>);

impl Places {
    fn new(refs: &[ValueRef]) -> Self {
        let mut places = Vec::with_capacity(refs.len());
        let mut at = 0;
        for r in refs {
            places.push((*r, at));
            at += kvs_field_len(r.len as usize);
        }
        places.sort_unstable_by_key(|(r, _)| (r.main, r.sub));
        Self(places)
    }

    fn refs(&self) -> impl ExactSizeIterator<Item = &ValueRef> {
        self.0.iter().map(|(r, _)| r)
    }

    /// Puts what `read` reports where it belongs, `bytes` in all.
    fn fill(
        &self,
        read: impl FnOnce(&mut Each<'_>) -> Result<Cached, ValueError>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<Cached, ValueError> {
        let start = out.len();
        out.resize(start + bytes, 0);
        let (room, mut missing, mut odd) = (&mut out[start..], self.0.len(), false);
        let read = read(&mut |i, value| {
            let Some(value) = value else { return };
            let (r, at) = self.0[i];
            if value.len() != r.len as usize {
                odd = true;
                return;
            }
            write_kvs_field(&mut room[at..], value);
            missing -= 1;
        });
        let result = match read {
            Ok(Cached::Hit) if odd => Err(ValueError::BadKeyValue),
            Ok(Cached::Hit) if missing > 0 => Err(ValueError::Compacted),
            Ok(Cached::Hit) => return Ok(Cached::Hit),
            other => other,
        };
        out.truncate(start);
        result
    }
}
