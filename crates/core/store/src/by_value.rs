//! Ranges whose order or form depends on values: target VALUE.
//!
//! Sorting keeps a fixed-size beginning of each value; only values that share it are read again,
//! so memory grows with the number of keys and not with their values.

use std::cmp::Ordering;

use bytes::Bytes;
use env::MayBlock;

use crate::error::ValueError;
use crate::kv::{KeyValue, kvs_field_len};
use crate::range::{ByValue, Entries, Ranged, ValueRef};
use crate::values::Sources;

/// Bytes of a value that are kept for sorting.
const KEPT: usize = 24;
/// Values read together.
const WINDOW: usize = 512;

struct Item {
    start: [u8; KEPT],
    /// Bytes of the value, up to [`KEPT`] + 1.
    len: u8,
    order: u32,
    at: ValueRef,
}

fn directed(order: Ordering, descending: bool) -> Ordering {
    if descending { order.reverse() } else { order }
}

pub(crate) fn resolve(
    sources: Sources<'_>,
    may: &MayBlock,
    mut ranged: Ranged,
) -> Result<Ranged, ValueError> {
    let Some(ByValue { descending, limit, strip }) = ranged.by_value.take() else {
        return Ok(ranged);
    };
    let Entries::Refs(refs) = &ranged.entries else { return Ok(ranged) };
    let mut sorted = sort(sources, may, refs, descending)?;
    if let Some(limit) = limit.and_then(|l| usize::try_from(l).ok())
        && sorted.len() > limit
    {
        ranged.more = true;
        sorted.truncate(limit);
    }
    ranged.len = sorted.len() as u64;
    let size = |len: usize| kvs_field_len(len) as u64;
    if strip {
        let mut stripped = Vec::with_capacity(sorted.len());
        for_each_value(sources, may, &sorted, |_, kv| {
            let mut out = Vec::new();
            KeyValue { value: &[], ..kv }.encode(&mut out);
            stripped.push(out.into_boxed_slice());
        })?;
        ranged.body_bytes = stripped.iter().map(|e| size(e.len())).sum();
        ranged.entries = Entries::Inline(stripped);
    } else {
        ranged.body_bytes = sorted.iter().map(|r| size(r.len as usize)).sum();
        ranged.entries = Entries::Refs(sorted);
    }
    Ok(ranged)
}

/// Reads values in windows and hands them out in the order of `refs`.
fn for_each_value(
    sources: Sources<'_>,
    may: &MayBlock,
    refs: &[ValueRef],
    mut each: impl FnMut(usize, KeyValue<'_>),
) -> Result<(), ValueError> {
    for (window, chunk) in refs.chunks(WINDOW).enumerate() {
        let mut values: Vec<Option<Bytes>> = vec![None; chunk.len()];
        sources.values(may, chunk.iter(), &mut |i, value| {
            values[i] = value.map(Bytes::copy_from_slice);
        })?;
        for (i, value) in values.iter().enumerate() {
            let value = value.as_ref().ok_or(ValueError::Compacted)?;
            each(window * WINDOW + i, KeyValue::parse(value)?);
        }
    }
    Ok(())
}

/// Sorts by value; equal values stay in key order.
fn sort(
    sources: Sources<'_>,
    may: &MayBlock,
    refs: &[ValueRef],
    descending: bool,
) -> Result<Vec<ValueRef>, ValueError> {
    let mut items = Vec::with_capacity(refs.len());
    for_each_value(sources, may, refs, |i, kv| {
        let kept = kv.value.len().min(KEPT);
        let mut start = [0; KEPT];
        start[..kept].copy_from_slice(&kv.value[..kept]);
        let len = kv.value.len().min(KEPT + 1) as u8;
        items.push(Item { start, len, order: i as u32, at: refs[i] });
    })?;
    items.sort_unstable_by(|a, b| {
        directed((a.start, a.len).cmp(&(b.start, b.len)), descending).then(a.order.cmp(&b.order))
    });
    let mut sorted = Vec::with_capacity(items.len());
    for run in items.chunk_by(|a, b| (a.start, a.len) == (b.start, b.len)) {
        let places: Vec<ValueRef> = run.iter().map(|item| item.at).collect();
        if run.len() > 1 && usize::from(run[0].len) > KEPT {
            sorted.extend(sort_whole(sources, may, &places, descending)?);
        } else {
            sorted.extend(places);
        }
    }
    Ok(sorted)
}

/// Sorts values that begin alike by all their bytes.
fn sort_whole(
    sources: Sources<'_>,
    may: &MayBlock,
    refs: &[ValueRef],
    descending: bool,
) -> Result<Vec<ValueRef>, ValueError> {
    let mut whole = Vec::with_capacity(refs.len());
    for_each_value(sources, may, refs, |i, kv| {
        let rest: Box<[u8]> = kv.value.get(KEPT..).unwrap_or_default().into();
        whole.push((rest, i));
    })?;
    whole.sort_by(|a, b| directed(a.0.cmp(&b.0), descending));
    Ok(whole.into_iter().map(|(_, i)| refs[i]).collect())
}
