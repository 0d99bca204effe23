//! Sets of keys as sorted intervals.
//!
//! An interval goes from its first key up to, without, its end; without an end it goes on for ever
//! (semantics R1, R2). Intervals that overlap or touch are one: a range is permitted if the union of
//! all permissions covers it (semantics H17).
//!
//! //= etcd 3.7.3: server/auth/range_perm_cache.go, pkg/adt/interval_tree.go#Contains

use bytes::Bytes;

/// An interval: its first key, and the first key behind it (`None`: there is none).
pub(super) type Interval = (Bytes, Option<Bytes>);

/// Whether `end`, where `None` is behind all keys, is behind `key`.
fn is_behind(end: Option<&Bytes>, key: &[u8]) -> bool {
    end.is_none_or(|end| &end[..] > key)
}

/// The first key behind `key`.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// The keys of a permission; `None` if it has none.
pub(super) fn granted(key: &Bytes, range_end: &Bytes) -> Option<Interval> {
    let end = match &range_end[..] {
        [] => Some(successor(key)),
        [0] => None,
        _ => Some(range_end.clone()),
    };
    // The empty key stands behind all others, and nothing is granted from there on.
    (!key.is_empty() && is_behind(end.as_ref(), key)).then(|| (key.clone(), end))
}

/// Whether a permission may be granted on these keys.
//= etcd 3.7.3: server/auth/range_perm_cache.go#isValidPermissionRange
pub(super) fn is_grantable(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

/// A set of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Interval>);

impl Ranges {
    /// The union of intervals.
    pub(super) fn merge(mut intervals: Vec<Interval>) -> Self {
        intervals.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut merged: Vec<Interval> = Vec::with_capacity(intervals.len());
        for (begin, end) in intervals {
            match merged.last_mut() {
                Some((_, last)) if last.as_ref().is_none_or(|last| begin <= *last) => {
                    if last.is_some() && end.as_ref().is_none_or(|end| Some(end) > last.as_ref()) {
                        *last = end;
                    }
                }
                _ => merged.push((begin, end)),
            }
        }
        Self(merged)
    }

    /// Whether the keys of a request, given as etcd's requests do, are all in the set. Of a range
    /// that ends before it begins only the first key counts, as in etcd.
    #[must_use]
    pub fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        if key.is_empty() {
            return false;
        }
        let at = self.0.partition_point(|(begin, _)| &begin[..] <= key);
        let Some((_, end)) = at.checked_sub(1).map(|at| &self.0[at]) else { return false };
        match range_end {
            [0] => end.is_none(),
            _ => {
                is_behind(end.as_ref(), key) && end.as_ref().is_none_or(|end| range_end <= &end[..])
            }
        }
    }
}
