//! One write transaction on the store: changes take effect at once and are seen by its own reads.

use types::{LeaseId, Revision};

use crate::error::RangeError;
use crate::index::read::{Bounds, KeyParts};
use crate::index::record::MAX_CHANGES_PER_REVISION;
use crate::kv::KeyValue;
use crate::plan::Planner;
use crate::range::{KeyRef, RangeQuery, Ranged, interval};
use crate::rev::to_revision;
use crate::store::Store;

/// Keys that a delete collects before it deletes them.
const DELETE_WINDOW: usize = 1_024;

/// A deleted key with the version that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The key.
    pub key: Vec<u8>,
    /// The version it had.
    pub prev: KeyRef,
}

/// A transaction in progress. All its changes carry one main revision and ascending subs; without
/// a change the store's revision stays. There is no rollback: check first, then change.
#[derive(Debug)]
pub struct WriteTxn<'s> {
    store: &'s mut Store,
    main: u64,
    changes: u32,
    /// Operations so far.
    ops: u64,
}

impl<'s> WriteTxn<'s> {
    pub(crate) fn new(store: &'s mut Store) -> Self {
        let main = store.revision + 1;
        assert!(i64::try_from(main).is_ok(), "revisions never run out of 63 bits");
        Self { store, main, changes: 0, ops: 0 }
    }

    /// The main revision that changes of this transaction carry.
    #[must_use]
    pub fn revision(&self) -> Revision {
        to_revision(self.main)
    }

    /// Whether anything was changed so far.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changes > 0
    }

    fn planner(&self) -> Planner<'_> {
        let (revision, compact) = (self.store.revision, self.store.compact);
        Planner { reader: self.store.index.reader(), revision, compact, hold: true }
    }

    /// The newest version of a key, own changes included.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<KeyRef> {
        self.planner().get(key, 0).ok().flatten()
    }

    /// The newest versions of all keys that the query's interval covers, in byte order.
    #[must_use]
    pub fn keys(&self, query: &RangeQuery<'_>) -> Vec<KeyRef> {
        let Some(bounds) = interval(query.key, query.range_end) else {
            return self.get(query.key).into_iter().collect();
        };
        let mut found = Vec::new();
        let reader = self.store.index.reader();
        reader.visit(bounds, u64::MAX, &mut |key: KeyParts<'_>, record: &_| {
            found.push(KeyRef::of(&reader, key, record));
            true
        });
        found
    }

    /// Plans a range on this state. The plan stays valid after further changes: it names values
    /// by revision.
    ///
    /// # Errors
    /// The revision is compacted, or beyond the current one (own changes included).
    pub fn range(&mut self, query: &RangeQuery<'_>) -> Result<Ranged, RangeError> {
        self.ops += 1;
        self.store.counts.ranges += 1;
        self.planner().plan(query)
    }

    /// Keys in the query's interval.
    ///
    /// # Errors
    /// As [`WriteTxn::range`].
    pub fn count(&self, query: &RangeQuery<'_>) -> Result<u64, RangeError> {
        self.planner().count(query)
    }

    /// The store, for reading values.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.store
    }

    /// The place of the next change; from the first one on the store has the new revision.
    fn next_sub(&mut self) -> u32 {
        let sub = self.changes;
        assert!(sub < MAX_CHANGES_PER_REVISION, "too many changes in one transaction");
        self.changes += 1;
        self.store.revision = self.main;
        sub
    }

    /// Sets a key; returns the version before.
    ///
    /// //= etcd 3.7.1: server/storage/mvcc/kvstore_txn.go#put
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: LeaseId) -> Option<KeyRef> {
        let sub = self.next_sub();
        self.ops += 1;
        self.store.counts.puts += 1;
        self.store.counts.put_bytes += (key.len() + value.len()) as u64;
        let Store { index, pending, .. } = &mut *self.store;
        let (main, mut prev) = (self.main, None);
        index.put(key, main, sub, &mut |alive| {
            prev = alive.map(|(record, version)| KeyRef::new(&record, version));
            let (create, version) = prev.map_or((main as i64, 1), |p| (p.create.0, p.version + 1));
            let kv = KeyValue { key, create, main: main as i64, version, value, lease: lease.0 };
            pending.push(main, sub, false, &kv)
        });
        prev
    }

    /// Deletes one key; returns the version it had.
    pub fn delete(&mut self, key: &[u8]) -> Option<KeyRef> {
        self.ops += 1;
        self.store.counts.deletes += 1;
        self.bury(key)
    }

    fn bury(&mut self, key: &[u8]) -> Option<KeyRef> {
        let (record, version) = self.store.index.delete(key, self.main, self.changes)?;
        let sub = self.next_sub();
        let tombstone = KeyValue { key, ..KeyValue::default() };
        self.store.pending.push(self.main, sub, true, &tombstone);
        Some(KeyRef::new(&record, version))
    }

    /// Deletes the keys that (key, range_end) mean, in byte order, one tombstone each.
    pub fn delete_range(&mut self, key: &[u8], range_end: &[u8]) -> Vec<Deleted> {
        let mut deleted = Vec::new();
        self.delete_range_with(key, range_end, &mut |key, prev| {
            deleted.push(Deleted { key: key.to_vec(), prev });
        });
        deleted
    }

    /// As [`WriteTxn::delete_range`], handing each key out instead of collecting them; returns
    /// how many there were.
    pub fn delete_range_with(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        each: &mut dyn FnMut(&[u8], KeyRef),
    ) -> u64 {
        let Some(bounds) = interval(key, range_end) else {
            let Some(prev) = self.delete(key) else { return 0 };
            each(key, prev);
            return 1;
        };
        self.ops += 1;
        self.store.counts.deletes += 1;
        let (mut total, mut low) = (0, key.to_vec());
        loop {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let from = Bounds { low: Some(&low), high: bounds.high };
            let mut collect = |key: KeyParts<'_>, _: &_| {
                keys.push(key.to_vec());
                keys.len() < DELETE_WINDOW
            };
            let all = self.store.index.reader().visit(from, u64::MAX, &mut collect);
            for key in &keys {
                let prev = self.bury(key).expect("alive a moment ago");
                each(key, prev);
                total += 1;
            }
            let Some(last) = keys.pop().filter(|_| !all) else { return total };
            low = last;
            low.push(0);
        }
    }

    /// Ends the transaction; returns the store's revision, which rose by one if anything changed.
    pub fn end(self) -> Revision {
        self.store.counts.txns += u64::from(self.ops > 1);
        to_revision(self.store.revision)
    }
}
