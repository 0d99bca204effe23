//! Building the store from a database: one scan of the `key` bucket.
//!
//! //= etcd 3.7.1: server/storage/mvcc/kvstore.go#restore

use std::collections::BTreeMap;
use std::ops::Bound;

use env::{Access, MayBlock};
use types::{Index as LogIndex, LeaseId, Term};

use crate::bucket::{Bucket, meta};
use crate::error::RecoverError;
use crate::index::bulk::{Builder, Row};
use crate::kv::KeyValue;
use crate::rev::{ParsedRev, RevKey};
use crate::revlog::RevisionLog;
use crate::store::Store;

/// Nothing that counts up from 1 gets this far: a larger number is damage, and counting on from it
/// would overflow.
const MAX_COUNT: u64 = 1 << 62;

impl Store {
    /// Recovers the state that a database holds. An interrupted compaction is taken up again:
    /// [`Store::is_compacting`] then says so.
    ///
    /// # Errors
    /// The database is damaged, holds rows that etcd never writes, or its disk failed.
    pub fn recover(may: &MayBlock, backend: bolt::ReadTx) -> Result<Self, RecoverError> {
        Self::recover_with_leases(may, backend, &mut |_, _| {})
    }

    /// As [`Store::recover`]; also hands out each live key that has a lease, in key order.
    ///
    /// # Errors
    /// As [`Store::recover`].
    pub fn recover_with_leases(
        may: &MayBlock,
        backend: bolt::ReadTx,
        attach: &mut dyn FnMut(&[u8], LeaseId),
    ) -> Result<Self, RecoverError> {
        let mut builder = Builder::new();
        let mut leases: BTreeMap<Box<[u8]>, i64> = BTreeMap::new();
        let mut revision = 1;
        // etcd reads from main revision 1 on.
        let low = RevKey::new(1, 0, false);
        let range = (Bound::Included(low.as_bytes()), Bound::Unbounded);
        let mut scan = backend.scan(may, Bucket::Key.name(), range, Access::ScanOnce);
        while let Some((key, value)) = scan.next_ref()? {
            let rev =
                ParsedRev::parse(key).ok_or_else(|| RecoverError::BadRevisionKey(key.to_vec()))?;
            let (main, sub) = (rev.main, rev.sub);
            let bad = || RecoverError::BadRow { main, sub };
            let count = |n: i64| u64::try_from(n).ok().filter(|&n| n < MAX_COUNT).ok_or_else(bad);
            let kv = KeyValue::parse(value).map_err(|_| bad())?;
            let row = Row {
                key: kv.key,
                main,
                sub,
                create: count(kv.create)?,
                version: count(kv.version)?,
                len: u32::try_from(value.len()).map_err(|_| bad())?,
                tombstone: rev.tombstone,
            };
            count(main as i64)?;
            builder.push(row).map_err(|_| bad())?;
            if rev.tombstone || kv.lease == 0 {
                leases.remove(kv.key);
            } else if let Some(lease) = leases.get_mut(kv.key) {
                *lease = kv.lease;
            } else {
                leases.insert(kv.key.into(), kv.lease);
            }
            revision = main;
        }
        drop(scan);
        for (key, lease) in &leases {
            attach(key, LeaseId(*lease));
        }
        let finished = compact_revision(&backend, may, meta::FINISHED_COMPACT)?;
        let scheduled = compact_revision(&backend, may, meta::SCHEDULED_COMPACT)?;
        let revision = revision.max(finished.unwrap_or(0)).max(scheduled.unwrap_or(0));
        // A compaction at 0 that was never finished is forgotten, as in etcd.
        let compacting = scheduled.filter(|&s| s > finished.unwrap_or(0));
        let compact = compacting.or(finished).map_or(-1, |c| c as i64);
        let number = |key| number(&backend, may, key);
        let applied = (
            LogIndex(number(meta::CONSISTENT_INDEX)?.unwrap_or(0)),
            Term(number(meta::TERM)?.unwrap_or(0)),
        );
        Ok(Self {
            index: builder.finish(),
            log: RevisionLog::starting_at(revision + 1),
            backend: Some(backend),
            backend_revision: revision,
            revision,
            compact,
            compacting,
            applied,
            ..Self::empty()
        })
    }
}

fn compact_revision(
    backend: &bolt::ReadTx,
    may: &MayBlock,
    key: &'static [u8],
) -> Result<Option<u64>, RecoverError> {
    let Some(value) = backend.get(may, Bucket::Meta.name(), key)? else { return Ok(None) };
    let parsed = ParsedRev::parse(&value).filter(|rev| rev.main < MAX_COUNT);
    Ok(Some(parsed.ok_or(RecoverError::BadMeta(key))?.main))
}

fn number(
    backend: &bolt::ReadTx,
    may: &MayBlock,
    key: &'static [u8],
) -> Result<Option<u64>, RecoverError> {
    let Some(value) = backend.get(may, Bucket::Meta.name(), key)? else { return Ok(None) };
    let bytes = value.as_ref().try_into().map_err(|_| RecoverError::BadMeta(key))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}
