//! Ranges: which changes a RangeRequest names, and in what order.
//!
//! The vocabulary: queries, references to versions and values, planned answers. `plan` makes an
//! answer out of a query, `by_value` finishes those that depend on values, `body` produces the
//! bytes in pieces.

use types::Revision;

use crate::index::read::{Bounds, KeyParts, Reader};
use crate::index::record::Record;
use crate::rev::{Rev, to_revision};

/// What to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// In which direction to sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// As the index gives them; ascending if the target is not the key.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// A RangeRequest less what does not concern the store.
#[derive(Clone, Debug, Default)]
pub struct RangeQuery<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Empty: only `key`. One zero byte: every key from `key` on. Else the first key beyond.
    pub range_end: &'a [u8],
    /// Revision to read at; 0 or less is the current one.
    pub revision: i64,
    /// Keys at most; 0 or less is no limit.
    pub limit: i64,
    /// Direction.
    pub sort_order: SortOrder,
    /// What is compared.
    pub sort_target: SortTarget,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count; limit, filters and order are ignored.
    pub count_only: bool,
    /// Lower bound of the change's revision, inclusive, 0 for none; the others alike.
    pub min_mod: i64,
    /// Upper bound of the change's revision.
    pub max_mod: i64,
    /// Lower bound of the creation's revision.
    pub min_create: i64,
    /// Upper bound of the creation's revision.
    pub max_create: i64,
}

impl<'a> RangeQuery<'a> {
    /// One key at the current revision.
    #[must_use]
    pub fn key(key: &'a [u8]) -> Self {
        Self { key, ..Self::default() }
    }

    /// All keys in `[key, range_end)`, by the rules of [`RangeQuery::range_end`].
    #[must_use]
    pub fn between(key: &'a [u8], range_end: &'a [u8]) -> Self {
        Self { key, range_end, ..Self::default() }
    }

    pub(crate) fn has_filters(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create] != [0; 4]
    }

    pub(crate) fn is_default_order(&self) -> bool {
        self.sort_order == SortOrder::None
            || (self.sort_target == SortTarget::Key && self.sort_order == SortOrder::Ascend)
    }

    pub(crate) fn passes(&self, record: &Record) -> bool {
        let at_most = |n: u64, bound: i64| bound == 0 || n as i64 <= bound;
        let at_least = |n: u64, bound: i64| bound == 0 || n as i64 >= bound;
        at_most(record.main, self.max_mod)
            && at_least(record.main, self.min_mod)
            && at_most(record.create, self.max_create)
            && at_least(record.create, self.min_create)
    }

    /// Whether keys alone answer: then the index does, and leases come out as 0 (etcd's quirk).
    pub(crate) fn is_index_only(&self) -> bool {
        self.keys_only && self.sort_target != SortTarget::Value
    }
}

/// The interval that (key, range_end) means; `None` for a single key.
pub(crate) fn interval<'a>(key: &'a [u8], range_end: &'a [u8]) -> Option<Bounds<'a>> {
    match range_end {
        [] => None,
        [0] => Some(Bounds { low: Some(key), high: None }),
        _ => Some(Bounds { low: Some(key), high: Some(range_end) }),
    }
}

/// A version of a key, without the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Where the version stands; its main is `mod_revision`.
    pub rev: Rev,
    /// Main revision of the key's creation.
    pub create: Revision,
    /// Changes since creation, from 1.
    pub version: i64,
    /// Bytes of the stored `KeyValue`.
    pub len: u32,
}

impl KeyRef {
    pub(crate) fn of(reader: &Reader<'_>, key: KeyParts<'_>, record: &Record) -> Self {
        Self::new(record, reader.version(key, record))
    }

    pub(crate) fn new(record: &Record, version: u64) -> Self {
        Self {
            rev: Rev::new(record.main, record.sub()),
            create: to_revision(record.create),
            version: version as i64,
            len: record.len,
        }
    }
}

/// The place and length of a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueRef {
    pub(crate) main: u64,
    pub(crate) sub: u32,
    pub(crate) len: u32,
}

impl ValueRef {
    pub(crate) fn of(record: &Record) -> Self {
        Self { main: record.main, sub: record.sub(), len: record.len }
    }

    /// Where the change stands.
    #[must_use]
    pub fn rev(&self) -> Rev {
        Rev::new(self.main, self.sub)
    }

    /// Bytes of the stored `KeyValue`.
    #[must_use]
    pub fn size_bytes(&self) -> u32 {
        self.len
    }
}

/// What a range lists.
#[derive(Clone, Debug)]
pub(crate) enum Entries {
    /// Too many to hold: walk the index again from `low` at `rev`, `left` keys.
    Walk { low: Vec<u8>, high: Option<Vec<u8>>, rev: u64, left: u64, keys_only: bool },
    /// Values to read, in order.
    Refs(Vec<ValueRef>),
    /// Whole encoded elements, without values.
    Inline(Vec<Box<[u8]>>),
}

/// A planned answer to a range.
#[derive(Clone, Debug)]
pub struct Ranged {
    /// The store's revision for the response header.
    pub revision: Revision,
    /// Keys in the interval at the revision read, whatever limit and filters say.
    pub count: u64,
    /// Whether the limit cut keys off.
    pub more: bool,
    pub(crate) len: u64,
    pub(crate) body_bytes: u64,
    pub(crate) entries: Entries,
    pub(crate) by_value: Option<ByValue>,
}

/// What remains to be done once values are at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByValue {
    pub(crate) descending: bool,
    pub(crate) limit: Option<u64>,
    pub(crate) strip: bool,
}

impl Ranged {
    /// Keys listed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no key is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the `kvs` fields of the whole response. Exact unless [`Ranged::needs_values`].
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Whether order or size depend on values: [`crate::View::resolve`] must run before the body.
    #[must_use]
    pub fn needs_values(&self) -> bool {
        self.by_value.is_some()
    }

    /// The values listed, in order, if they were few enough to hold (always within a
    /// transaction).
    #[must_use]
    pub fn refs(&self) -> Option<&[ValueRef]> {
        match &self.entries {
            Entries::Refs(refs) => Some(refs),
            Entries::Walk { .. } | Entries::Inline(_) => None,
        }
    }
}
