//! Planning a range: from the index alone to places and lengths of values, so that the size of the
//! response is known before any value is read.
//!
//! Semantics, quirks included, are etcd's: count ignores limit and filters; order NONE or
//! KEY+ASCEND stops after limit + 1 keys, and with another target those are then sorted; anything
//! else looks at every key, filters, sorts, cuts. Ties come in key order, where Go's unstable sort
//! gives any.
//!
//! //= etcd 3.7.1: server/etcdserver/txn/range.go#executeRange
//! //= etcd 3.7.1: server/storage/mvcc/kvstore_txn.go#rangeKeys

use crate::error::RangeError;
use crate::index::read::{KeyParts, Reader};
use crate::index::record::Record;
use crate::kv::{KeyValue, kvs_field_len};
use crate::range::{
    ByValue, Entries, KeyRef, RangeQuery, Ranged, SortOrder, SortTarget, ValueRef, interval,
};
use crate::rev::to_revision;

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
