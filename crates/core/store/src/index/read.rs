//! Reading the index at any revision that is not compacted.

use super::history::{Entry, History};
use super::node::{Kid, Leaf, Node};
use super::record::Record;
use super::versions::WideVersions;

/// Keys in `[low, high)`; `None` is unbounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    pub(crate) low: Option<&'a [u8]>,
    pub(crate) high: Option<&'a [u8]>,
}

impl Bounds<'_> {
    pub(crate) const ALL: Bounds<'static> = Bounds { low: None, high: None };

    fn is_all(&self) -> bool {
        self.low.is_none() && self.high.is_none()
    }

    fn is_empty(&self) -> bool {
        matches!((self.low, self.high), (Some(low), Some(high)) if high <= low)
    }

    fn places(&self, leaf: &Leaf) -> std::ops::Range<usize> {
        let place = |key: &[u8]| leaf.keys.search(key).unwrap_or_else(|i| i);
        let from = self.low.map_or(0, place);
        from..self.high.map_or(leaf.keys.len(), place).max(from)
    }

    /// The bounds for child `i` of `first..=last`.
    fn narrowed(&self, i: usize, first: usize, last: usize) -> Self {
        Self {
            low: if i == first { self.low } else { None },
            high: if i == last { self.high } else { None },
        }
    }
}

/// A key in two pieces, as the node that holds it keeps it.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    prefix: &'a [u8],
    suffix: &'a [u8],
}

impl<'a> KeyParts<'a> {
    /// A whole key.
    pub(crate) fn whole(key: &'a [u8]) -> Self {
        Self { prefix: key, suffix: &[] }
    }

    /// Bytes of the key.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Whether the key has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the key to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix);
        out.extend_from_slice(self.suffix);
    }

    /// A copy of the key.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }
}

/// Called per key in byte order; false ends the walk.
type Visit<'f> = dyn FnMut(KeyParts<'_>, &Record) -> bool + 'f;

/// A borrowed index, the writer's or a snapshot's.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) root: &'a Kid,
    pub(crate) history: &'a History,
    pub(crate) wide: &'a WideVersions,
}

impl Reader<'_> {
    /// The version of `key` that is alive at `rev`.
    pub(crate) fn get(&self, key: &[u8], rev: u64) -> Option<Record> {
        let newest = self.root.newest(key)?;
        self.history.at(newest, rev).filter(|r| !r.is_tombstone())
    }

    /// The version counter of `record`, which belongs to `key`.
    pub(crate) fn version(&self, key: KeyParts<'_>, record: &Record) -> u64 {
        if record.has_wide_version() {
            self.wide.version(&key.to_vec(), record)
        } else {
            u64::from(record.version)
        }
    }

    /// Versions of `key` from the newest back, tombstones too, until `visit` says false or the
    /// rest is compacted.
    pub(crate) fn chain(&self, key: &[u8], mut visit: impl FnMut(&Record) -> bool) {
        let Some(newest) = self.root.newest(key) else { return };
        if !visit(newest) {
            return;
        }
        let mut next: Option<Entry> = self.history.before(newest);
        while let Some(entry) = next {
            if !visit(&entry.record) {
                return;
            }
            next = self.history.older(&entry);
        }
    }

    /// Visits the keys alive at `rev` in byte order; false if the visitor ended it.
    pub(crate) fn visit(&self, bounds: Bounds<'_>, rev: u64, visit: &mut Visit<'_>) -> bool {
        bounds.is_empty() || self.visit_below(self.root, bounds, rev, visit)
    }

    fn visit_below(&self, kid: &Kid, bounds: Bounds<'_>, rev: u64, visit: &mut Visit<'_>) -> bool {
        if kid.live == 0 && kid.last_life <= rev {
            return true; // after a mass delete, lists must not walk the dead
        }
        match &kid.node {
            Node::Leaf(leaf) => {
                let prefix = leaf.keys.prefix();
                for i in bounds.places(leaf) {
                    let newest = &leaf.records[i];
                    let key = KeyParts { prefix, suffix: leaf.keys.suffix(i) };
                    let goes_on = if newest.main <= rev {
                        newest.is_tombstone() || visit(key, newest)
                    } else {
                        let then = self.history.at(newest, rev);
                        then.is_none_or(|r| r.is_tombstone() || visit(key, &r))
                    };
                    if !goes_on {
                        return false;
                    }
                }
                true
            }
            Node::Branch(branch) => {
                let first = bounds.low.map_or(0, |k| branch.child(k));
                let last = bounds.high.map_or(branch.kids.len() - 1, |k| branch.child(k));
                (first..=last).all(|i| {
                    self.visit_below(&branch.kids[i], bounds.narrowed(i, first, last), rev, visit)
                })
            }
        }
    }

    /// Keys alive at `rev`.
    pub(crate) fn count(&self, bounds: Bounds<'_>, rev: u64) -> u64 {
        if bounds.is_empty() { 0 } else { self.count_below(self.root, bounds, rev) }
    }

    fn count_below(&self, kid: &Kid, bounds: Bounds<'_>, rev: u64) -> u64 {
        if kid.last_life <= rev && (kid.live == 0 || bounds.is_all()) {
            return kid.live;
        }
        match &kid.node {
            Node::Leaf(leaf) => {
                let records = &leaf.records[bounds.places(leaf)];
                records.iter().filter(|r| self.is_alive(r, rev)).count() as u64
            }
            Node::Branch(branch) => {
                let first = bounds.low.map_or(0, |k| branch.child(k));
                let last = bounds.high.map_or(branch.kids.len() - 1, |k| branch.child(k));
                let below = |i| bounds.narrowed(i, first, last);
                (first..=last).map(|i| self.count_below(&branch.kids[i], below(i), rev)).sum()
            }
        }
    }

    /// Whether the key of `newest` is alive at `rev`; cheaper than finding its version then.
    fn is_alive(&self, newest: &Record, rev: u64) -> bool {
        if newest.main <= rev {
            return !newest.is_tombstone();
        }
        if newest.create <= rev {
            return true; // its generation spans `rev`
        }
        self.history.at(newest, rev).is_some_and(|r| !r.is_tombstone())
    }
}
