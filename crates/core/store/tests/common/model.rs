//! The naive model: every version of every key, never thrown away. What a compaction removes is
//! worked out when asked.

use std::collections::{BTreeMap, BTreeSet};

use store::{KeyValue, RangeError, RangeQuery, SortOrder, SortTarget};

#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub main: i64,
    pub sub: i64,
    pub tombstone: bool,
    pub create: i64,
    pub version: i64,
    pub value: Vec<u8>,
    pub lease: i64,
}

impl Version {
    pub fn stored(&self, key: &[u8]) -> Vec<u8> {
        let (create, main, version) = (self.create, self.main, self.version);
        let kv = KeyValue { key, create, main, version, value: &self.value, lease: self.lease };
        let tombstone = KeyValue { key, ..KeyValue::default() };
        let mut out = Vec::new();
        if self.tombstone { tombstone } else { kv }.encode(&mut out);
        out
    }
}

#[derive(Clone, Debug)]
pub struct Model {
    pub keys: BTreeMap<Vec<u8>, Vec<Version>>,
    pub revision: i64,
    pub compact: i64,
}

/// What a range answers.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub count: u64,
    pub more: bool,
    pub kvs: Vec<Vec<u8>>,
}

impl Model {
    pub fn new() -> Self {
        Self { keys: BTreeMap::new(), revision: 1, compact: -1 }
    }

    pub fn at(&self, key: &[u8], rev: i64) -> Option<&Version> {
        let history = self.keys.get(key)?;
        history.iter().rev().find(|v| v.main <= rev).filter(|v| !v.tombstone)
    }

    pub fn inside(key: &[u8], low: &[u8], end: &[u8]) -> bool {
        match end {
            [] => key == low,
            [0] => key >= low,
            _ => key >= low && key < end,
        }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64, place: (i64, i64)) {
        let (main, sub) = place;
        let alive = self.at(key, i64::MAX).cloned();
        let (create, version) = alive.map_or((main, 1), |v| (v.create, v.version + 1));
        let (tombstone, value) = (false, value.to_vec());
        let new = Version { main, sub, tombstone, create, version, value, lease };
        self.keys.entry(key.to_vec()).or_default().push(new);
    }

    pub fn delete(&mut self, key: &[u8], place: (i64, i64)) {
        let (main, sub) = place;
        let (create, version, value, lease) = (0, 0, Vec::new(), 0);
        let new = Version { main, sub, tombstone: true, create, version, value, lease };
        self.keys.get_mut(key).unwrap().push(new);
    }

    /// All changes in (main, sub) order with their keys.
    pub fn rows(&self) -> BTreeMap<(i64, i64), (&[u8], &Version)> {
        let rows = self.keys.iter().flat_map(|(key, history)| {
            history.iter().map(move |v| ((v.main, v.sub), (&key[..], v)))
        });
        rows.collect()
    }

    /// The rows that remain in the database once the deletes of the last compaction are done.
    pub fn remaining(&self) -> BTreeMap<(i64, i64), (&[u8], &Version)> {
        let mut rows = self.rows();
        for history in self.keys.values() {
            for (i, v) in history.iter().enumerate() {
                let superseded = history.get(i + 1).is_some_and(|next| next.main <= self.compact);
                let dead = if v.tombstone { v.main < self.compact } else { superseded };
                if dead {
                    rows.remove(&(v.main, v.sub));
                }
            }
        }
        rows
    }

    /// The range as Go does it: everything is fetched, filtered, sorted, cut.
    pub fn range(&self, q: &RangeQuery<'_>) -> Result<Answer, RangeError> {
        if q.revision > self.revision {
            return Err(RangeError::FutureRevision);
        }
        let rev = if q.revision <= 0 { self.revision } else { q.revision };
        if rev < self.compact {
            return Err(RangeError::Compacted);
        }
        let all: Vec<_> = self
            .keys
            .keys()
            .filter(|key| Self::inside(key, q.key, q.range_end))
            .filter_map(|key| Some((key.clone(), self.at(key, rev)?.clone())))
            .collect();
        let mut answer = Answer { count: all.len() as u64, more: false, kvs: Vec::new() };
        if q.count_only {
            return Ok(answer);
        }
        let mut kvs = all;
        let filters = [q.min_mod, q.max_mod, q.min_create, q.max_create] != [0; 4];
        let default_order = q.sort_order == SortOrder::None
            || (q.sort_target == SortTarget::Key && q.sort_order == SortOrder::Ascend);
        if default_order && !filters && q.limit > 0 {
            kvs.truncate(q.limit as usize + 1);
        }
        kvs.retain(|(_, v)| {
            (q.max_mod == 0 || v.main <= q.max_mod)
                && (q.min_mod == 0 || v.main >= q.min_mod)
                && (q.max_create == 0 || v.create <= q.max_create)
                && (q.min_create == 0 || v.create >= q.min_create)
        });
        let descending = q.sort_order == SortOrder::Descend;
        kvs.sort_by(|a, b| {
            let order = match q.sort_target {
                SortTarget::Key => a.0.cmp(&b.0),
                SortTarget::Version => a.1.version.cmp(&b.1.version),
                SortTarget::Create => a.1.create.cmp(&b.1.create),
                SortTarget::Mod => a.1.main.cmp(&b.1.main),
                SortTarget::Value => a.1.value.cmp(&b.1.value),
            };
            // Ties are free; compare in a way that the test can undo.
            if descending { order.reverse() } else { order }.then_with(|| a.0.cmp(&b.0))
        });
        if q.limit > 0 && kvs.len() > q.limit as usize {
            kvs.truncate(q.limit as usize);
            answer.more = true;
        }
        for (key, mut v) in kvs {
            if q.keys_only {
                v.value.clear();
                if q.sort_target != SortTarget::Value {
                    v.lease = 0;
                }
            }
            answer.kvs.push(v.stored(&key));
        }
        Ok(answer)
    }

    /// HashKV by Go's algorithm, with an explicit keep set, over the remaining rows.
    pub fn hash_kv(&self, rev: i64) -> u32 {
        self.hash(rev, self.compact, self.remaining(), false)
    }

    /// The hash of the compaction that is under way, whose deletes have not begun.
    pub fn hash_compaction(&self, previous: i64) -> u32 {
        let before = Self { compact: previous, ..self.clone() };
        before.hash(self.compact, previous, before.remaining(), true)
    }

    fn hash(
        &self,
        rev: i64,
        compact: i64,
        rows: BTreeMap<(i64, i64), (&[u8], &Version)>,
        of_compaction: bool,
    ) -> u32 {
        let mut keep = BTreeSet::new();
        for history in self.keys.values() {
            // Generations end with tombstones; the one alive at `rev` is the first that ends at or
            // after it, or the last.
            let mut generations: Vec<Vec<&Version>> = vec![Vec::new()];
            for v in history {
                generations.last_mut().unwrap().push(v);
                if v.tombstone {
                    generations.push(Vec::new());
                }
            }
            let last = generations.len() - 1;
            let ended = |g: &[&Version]| g.last().is_some_and(|v| v.main >= rev);
            let i = (0..last).find(|&i| ended(&generations[i])).unwrap_or(last);
            if let Some(v) = generations[i].iter().rev().find(|v| v.main <= rev)
                && (of_compaction || !v.tombstone)
            {
                keep.insert((v.main, v.sub));
            }
        }
        // What Go's compaction removes, and ours keeps: a put after a delete of its key at exactly
        // the compact revision.
        let lost = |key: &[u8], place: (i64, i64)| {
            let dies = |v: &Version| v.tombstone && v.main == place.0 && v.sub < place.1;
            !of_compaction
                && place.0 == compact
                && rev == compact
                && self.keys[key].iter().any(dies)
        };
        let mut crc = crc32c::crc32c(b"key");
        for (place, (key, v)) in rows {
            let skipped = place.0 <= compact && !keep.is_empty() && !keep.contains(&place)
                || lost(key, place);
            if place.0 > rev || skipped || (v.tombstone && place.0 == compact) {
                continue;
            }
            let mut row = place.0.to_be_bytes().to_vec();
            row.push(b'_');
            row.extend(place.1.to_be_bytes());
            if v.tombstone {
                row.push(b't');
            }
            crc = crc32c::crc32c_append(crc, &row);
            crc = crc32c::crc32c_append(crc, &v.stored(key));
        }
        crc
    }
}
