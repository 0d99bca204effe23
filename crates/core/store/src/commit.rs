//! Writing batches into the database.

use bolt::{WriteError, WriteTx};
use env::MayBlock;

use crate::batch::Batch;
use crate::bucket::{Bucket, meta};
use crate::rev::RevKey;

/// How full pages of the `key` bucket are made: it grows at its end, as etcd's does.
const KEY_FILL: f64 = 0.9;

/// How the database of a store is opened: etcd's page size on every common host, and fences for
/// the bucket of revisions, without which no value is found.
#[must_use]
pub fn database_options() -> bolt::Options {
    bolt::Options { page_size: 4_096, fenced_bucket: Some(Bucket::Key.name()) }
}

/// Makes every bucket of etcd that the database lacks.
///
/// # Errors
/// The database's.
pub fn create_buckets(tx: &mut WriteTx<'_>, may: &MayBlock) -> Result<(), WriteError> {
    Bucket::ALL.iter().try_for_each(|bucket| tx.create_bucket(may, bucket.name()))
}

impl Batch {
    /// Writes the batch: changes of keys, deletes of compacted versions, other operations, and the
    /// position it ends at, in that order. Batches go into one or several transactions, in order;
    /// each transaction then carries the consistent index of its last batch (invariant 4).
    ///
    /// //= etcd 3.7.1: server/storage/schema/cindex.go#unsafeUpdateConsistentIndex
    ///
    /// # Errors
    /// The database's; the transaction must then be dropped.
    pub fn write_to(&self, tx: &mut WriteTx<'_>, may: &MayBlock) -> Result<(), WriteError> {
        let keys = Bucket::Key.name();
        if !self.rows().is_empty() {
            tx.set_fill_percent(keys, KEY_FILL);
        }
        for row in self.rows() {
            let key = RevKey::new(row.main, u64::from(row.sub), row.tombstone);
            tx.put(may, keys, key.as_bytes(), self.slice(row))?;
        }
        for dead in self.dead() {
            let key = RevKey::new(dead.main, u64::from(dead.sub), dead.tombstone);
            tx.delete(may, keys, key.as_bytes())?;
        }
        for op in self.ops() {
            match &op.value {
                Some(value) => tx.put(may, op.bucket.name(), &op.key, value)?,
                None => tx.delete(may, op.bucket.name(), &op.key)?,
            }
        }
        let mut put = |key, value: &[u8]| tx.put(may, Bucket::Meta.name(), key, value);
        if let Some(conf_state) = self.conf_state() {
            put(meta::CONF_STATE, conf_state)?;
        }
        if self.last_index().0 != 0 {
            put(meta::CONSISTENT_INDEX, &self.last_index().0.to_be_bytes())?;
            if self.term().0 != 0 {
                put(meta::TERM, &self.term().0.to_be_bytes())?;
            }
        }
        Ok(())
    }
}
