//! Ranges: which changes a RangeRequest names, and in what order.
//!
//! Planning reads only the index. A plan lists places and lengths, so the size of the response is
//! known before any value is read; `body` then produces the bytes in pieces.
//!
//! Semantics, quirks included, are etcd's: count ignores limit and filters; order NONE or
//! KEY+ASCEND stops after limit + 1 keys, and with another target those are then sorted; anything
//! else looks at every key, filters, sorts, cuts. Ties may come in another order than Go's
//! unstable sort gives.
//! //= etcd 3.7.1: server/etcdserver/txn/range.go#executeRange
//! //= etcd 3.7.1: server/storage/mvcc/kvstore_txn.go#rangeKeys

use types::Revision;

use crate::error::RangeError;
use crate::index::read::{Bounds, KeyParts, Reader};
use crate::index::record::Record;
use crate::kv::{KeyValue, kvs_field_len};
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

    fn has_filters(&self) -> bool {
        [self.min_mod, self.max_mod, self.min_create, self.max_create] != [0; 4]
    }

    fn is_default_order(&self) -> bool {
        self.sort_order == SortOrder::None
            || (self.sort_target == SortTarget::Key && self.sort_order == SortOrder::Ascend)
    }

    fn passes(&self, record: &Record) -> bool {
        let at_most = |n: u64, bound: i64| bound == 0 || n as i64 <= bound;
        let at_least = |n: u64, bound: i64| bound == 0 || n as i64 >= bound;
        at_most(record.main, self.max_mod)
            && at_least(record.main, self.min_mod)
            && at_most(record.create, self.max_create)
            && at_least(record.create, self.min_create)
    }

    /// Whether keys alone answer: then the index does, and leases come out as 0 (etcd's quirk).
    fn is_index_only(&self) -> bool {
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
    fn of(record: &Record) -> Self {
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

/// Listed keys beyond which a plan in key order walks the index again instead of holding places.
const HELD_REFS: usize = 4_096;

/// Where a plan is made.
pub(crate) struct Planner<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) revision: u64,
    pub(crate) compact: i64,
    /// The index may change before the body is read: hold every place.
    pub(crate) hold: bool,
}

impl Planner<'_> {
    /// The revision to read at.
    pub(crate) fn read_at(&self, revision: i64) -> Result<u64, RangeError> {
        match u64::try_from(revision) {
            Ok(rev) if rev > self.revision => Err(RangeError::FutureRevision),
            Ok(rev) if rev > 0 && revision < self.compact => Err(RangeError::Compacted),
            Ok(rev) if rev > 0 => Ok(rev),
            _ => Ok(self.revision),
        }
    }

    pub(crate) fn get(&self, key: &[u8], revision: i64) -> Result<Option<KeyRef>, RangeError> {
        let rev = self.read_at(revision)?;
        let found = self.reader.get(key, rev);
        Ok(found.map(|record| KeyRef::of(&self.reader, KeyParts::whole(key), &record)))
    }

    pub(crate) fn count(&self, query: &RangeQuery<'_>) -> Result<u64, RangeError> {
        let rev = self.read_at(query.revision)?;
        Ok(match interval(query.key, query.range_end) {
            None => u64::from(self.reader.get(query.key, rev).is_some()),
            Some(bounds) => self.reader.count(bounds, rev),
        })
    }

    pub(crate) fn plan(&self, query: &RangeQuery<'_>) -> Result<Ranged, RangeError> {
        let rev = self.read_at(query.revision)?;
        let mut ranged = Ranged {
            revision: to_revision(self.revision),
            count: 0,
            more: false,
            len: 0,
            body_bytes: 0,
            entries: Entries::Refs(Vec::new()),
            by_value: None,
        };
        if query.count_only {
            ranged.count = self.count(query)?;
            return Ok(ranged);
        }
        let limit = u64::try_from(query.limit).ok().filter(|&l| l > 0);
        if query.is_default_order() && !query.has_filters() && query.sort_target == SortTarget::Key
        {
            self.plan_in_order(query, rev, limit, &mut ranged);
        } else {
            self.plan_sorted(query, rev, limit, &mut ranged);
        }
        Ok(ranged)
    }

    fn visit(
        &self,
        query: &RangeQuery<'_>,
        rev: u64,
        visit: &mut dyn FnMut(KeyParts<'_>, &Record) -> bool,
    ) -> bool {
        match interval(query.key, query.range_end) {
            None => match self.reader.get(query.key, rev) {
                Some(record) => visit(KeyParts::whole(query.key), &record),
                None => true,
            },
            Some(bounds) => self.reader.visit(bounds, rev, visit),
        }
    }

    /// Key order without filters: stops after limit + 1 keys, holds at most [`HELD_REFS`] places.
    fn plan_in_order(
        &self,
        query: &RangeQuery<'_>,
        rev: u64,
        limit: Option<u64>,
        ranged: &mut Ranged,
    ) {
        let limit = limit.unwrap_or(u64::MAX);
        let (keys_only, hold) = (query.keys_only, self.hold);
        let held = if hold { usize::MAX } else { HELD_REFS };
        let expected = if keys_only || limit > HELD_REFS as u64 { 0 } else { limit as usize };
        let mut refs = Vec::with_capacity(if query.range_end.is_empty() { 1 } else { expected });
        let mut inline = Vec::new();
        let (mut listed, mut bytes) = (0, 0);
        let reader = &self.reader;
        let all = self.visit(query, rev, &mut |key, record| {
            if listed == limit {
                return false;
            }
            listed += 1;
            let len = if keys_only {
                let (len, encoded) = key_only(reader, key, record, hold);
                inline.extend(encoded);
                len
            } else {
                if refs.len() < held {
                    refs.push(ValueRef::of(record));
                }
                record.len as usize
            };
            bytes += kvs_field_len(len) as u64;
            true
        });
        (ranged.len, ranged.body_bytes) = (listed, bytes);
        ranged.more = !all;
        let single = query.range_end.is_empty();
        ranged.count = if all || single {
            ranged.len
        } else {
            interval(query.key, query.range_end).map_or(0, |bounds| reader.count(bounds, rev))
        };
        ranged.entries = if inline.len() as u64 == ranged.len && keys_only {
            Entries::Inline(inline)
        } else if refs.len() as u64 == ranged.len {
            Entries::Refs(refs)
        } else {
            let high = match interval(query.key, query.range_end) {
                // A single key is the interval up to its successor.
                None => Some([query.key, &[0]].concat()),
                Some(bounds) => bounds.high.map(<[u8]>::to_vec),
            };
            let (low, left) = (query.key.to_vec(), ranged.len);
            Entries::Walk { low, high, rev, left, keys_only }
        };
    }

    /// Any other order, or filters.
    fn plan_sorted(
        &self,
        query: &RangeQuery<'_>,
        rev: u64,
        limit: Option<u64>,
        ranged: &mut Ranged,
    ) {
        let by_value = query.sort_target == SortTarget::Value;
        let index_only = query.is_index_only();
        // Order NONE with a target fetches limit + 1 in key order, then sorts those.
        let early = query.is_default_order() && !query.has_filters();
        let fetch = limit.filter(|_| early).map_or(u64::MAX, |l| l.saturating_add(1));
        let descending = query.sort_order == SortOrder::Descend;
        // By value: all stays in key order until values are at hand.
        let mut top = Top::new(descending && !by_value, limit.filter(|_| !by_value));
        let (mut seen, reader) = (0, &self.reader);
        let all = self.visit(query, rev, &mut |key, record| {
            if seen == fetch {
                return false;
            }
            seen += 1;
            if query.passes(record) {
                let by = match query.sort_target {
                    SortTarget::Key | SortTarget::Value => top.next_sequence(),
                    SortTarget::Version => reader.version(key, record),
                    SortTarget::Create => record.create,
                    SortTarget::Mod => record.main,
                };
                let what = if index_only {
                    let (_, encoded) = key_only(reader, key, record, true);
                    Listed::Inline(encoded.unwrap_or_default())
                } else {
                    Listed::Ref(ValueRef::of(record))
                };
                top.push(by, what);
            }
            true
        });
        let whole = all && !query.range_end.is_empty();
        ranged.count = match interval(query.key, query.range_end) {
            Some(bounds) if !whole => reader.count(bounds, rev),
            _ => seen,
        };
        if by_value {
            let strip = query.keys_only;
            ranged.by_value =
                (strip || top.items.len() > 1).then_some(ByValue { descending, limit, strip });
        }
        let (listed, more) = top.finish();
        ranged.more = more;
        ranged.len = listed.len() as u64;
        ranged.entries = if index_only {
            Entries::Inline(listed.into_iter().filter_map(Listed::inline).collect())
        } else {
            Entries::Refs(listed.into_iter().filter_map(Listed::value).collect())
        };
        ranged.body_bytes = match &ranged.entries {
            Entries::Inline(all) => all.iter().map(|e| kvs_field_len(e.len()) as u64).sum(),
            Entries::Refs(all) => all.iter().map(|r| kvs_field_len(r.len as usize) as u64).sum(),
            Entries::Walk { .. } => 0,
        };
    }
}

/// The element of a keys-only response: its length and, if wanted, its bytes. No lease: the index
/// knows none.
pub(crate) fn key_only(
    reader: &Reader<'_>,
    key: KeyParts<'_>,
    record: &Record,
    encode: bool,
) -> (usize, Option<Box<[u8]>>) {
    let version = reader.version(key, record) as i64;
    let numbers = KeyValue {
        create: record.create as i64,
        main: record.main as i64,
        version,
        ..KeyValue::default()
    };
    let key_field = if key.is_empty() { 0 } else { kvs_field_len(key.len()) };
    let len = key_field + numbers.encoded_len();
    let encoded = encode.then(|| {
        let (whole, mut out) = (key.to_vec(), Vec::with_capacity(len));
        KeyValue { key: &whole, ..numbers }.encode(&mut out);
        out.into_boxed_slice()
    });
    (len, encoded)
}

#[derive(Debug)]
enum Listed {
    Ref(ValueRef),
    Inline(Box<[u8]>),
}

impl Listed {
    fn value(self) -> Option<ValueRef> {
        match self {
            Self::Ref(value) => Some(value),
            Self::Inline(_) => None,
        }
    }

    fn inline(self) -> Option<Box<[u8]>> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::Ref(_) => None,
        }
    }
}

/// The first `limit + 1` items of a sort, holding at most about twice as many.
struct Top {
    descending: bool,
    limit: Option<usize>,
    sequence: u64,
    items: Vec<(u64, u64, Listed)>,
}

impl Top {
    fn new(descending: bool, limit: Option<u64>) -> Self {
        let limit = limit.and_then(|l| usize::try_from(l).ok());
        Self { descending, limit, sequence: 0, items: Vec::new() }
    }

    fn next_sequence(&self) -> u64 {
        self.sequence
    }

    fn push(&mut self, by: u64, what: Listed) {
        let by = if self.descending { !by } else { by };
        self.items.push((by, self.sequence, what));
        self.sequence += 1;
        if let Some(keep) = self.limit.and_then(|l| l.checked_add(1))
            && self.items.len() / 2 > keep.max(HELD_REFS)
        {
            self.items.select_nth_unstable_by_key(keep - 1, |i| (i.0, i.1));
            self.items.truncate(keep);
        }
    }

    /// The items in order, and whether the limit cut some off.
    fn finish(mut self) -> (Vec<Listed>, bool) {
        self.items.sort_unstable_by_key(|i| (i.0, i.1));
        let limit = self.limit.unwrap_or(usize::MAX);
        let more = self.items.len() > limit;
        self.items.truncate(limit);
        (self.items.into_iter().map(|i| i.2).collect(), more)
    }
}
