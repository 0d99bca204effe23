//! Hashes by which members compare their data: HashKV of the key bucket, Hash of the whole
//! database. Both run in budgeted steps on the pool.
//!
//! HashKV at revision R with compact revision C is the CRC-32C of the bucket's name and of every
//! row up to R, but of rows up to C only those that R still shows, and never of a tombstone exactly
//! at C (older versions of etcd removed it). So it does not depend on how far the deletes of a
//! compaction have come.
//!
//! Quirk kept: if nothing is alive at R, etcd does not filter rows up to C at all. What it then
//! hashes depends on its progress; here it is always what remains once the deletes are done.
//!
//! //= etcd 3.7.1: server/storage/mvcc/hash.go#kvHasher
//! //= etcd 3.7.1: server/storage/mvcc/key_index.go#keep

use std::ops::Bound;

use bytes::Bytes;
use env::{Access, MayBlock};
use types::Revision;
use types::limits::STORED_COMPACTION_HASHES;

use crate::bucket::{Bucket, meta};
use crate::compact::Step;
use crate::error::{RangeError, ValueError};
use crate::index::read::Bounds;
use crate::kv::KeyValue;
use crate::rev::{ParsedRev, RevKey};
use crate::view::View;

/// A hash of the key bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C.
    pub hash: u32,
    /// The revision hashed.
    pub revision: Revision,
    /// The compact revision it counts from; -1 before the first compaction.
    pub compact_revision: Revision,
    /// Whether anything was alive at that revision. Where nothing was, the hash depends on whether it
    /// was made before or by a compaction, in etcd as well: it says nothing of a member's health.
    pub was_alive: bool,
}

/// A HashKV in progress. It takes the newest View for each step, so it pins nothing in between.
#[derive(Clone, Debug)]
pub struct KvHasher {
    revision: i64,
    /// What the hash counts from.
    compact: i64,
    /// The compact revision of every View that may be used.
    expected: i64,
    of_compaction: bool,
    /// Which rows up to `compact` count; found at the first step.
    keep: Option<Keep>,
    crc: u32,
    next: (u64, u64),
}

impl View {
    /// Begins a HashKV; revision 0 is the current one, below 0 nothing but the seed is hashed.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn hash_kv(&self, revision: i64) -> Result<KvHasher, RangeError> {
        if revision > 0 && revision < self.compact {
            return Err(RangeError::Compacted);
        }
        if revision > self.revision().0 {
            return Err(RangeError::FutureRevision);
        }
        let revision = if revision == 0 { self.revision().0 } else { revision };
        Ok(KvHasher::new(revision, self.compact, self.compact, false))
    }

    /// Begins the hash that belongs to this View's compaction: what HashKV would have said of its
    /// revision just before it. Run it to its end before the first
    /// [`crate::Store::compaction_step`].
    #[must_use]
    pub fn hash_compaction(&self, previous: Revision) -> KvHasher {
        KvHasher::new(self.compact, previous.0, self.compact, true)
    }
}

impl KvHasher {
    fn new(revision: i64, compact: i64, expected: i64, of_compaction: bool) -> Self {
        let crc = crc32c::crc32c(Bucket::Key.name());
        Self { revision, compact, expected, of_compaction, keep: None, crc, next: (0, 0) }
    }

    /// Hashes about `budget_bytes` more of keys and values. After a new compaction it begins
    /// again, with that one's compact revision.
    ///
    /// # Errors
    /// [`ValueError::Compacted`] if a new compaction passed the revision, or the database's.
    pub fn step(
        &mut self,
        may: &MayBlock,
        view: &View,
        budget_bytes: usize,
    ) -> Result<Step, ValueError> {
        if view.compact != self.expected {
            if self.of_compaction || (self.revision > 0 && self.revision < view.compact) {
                return Err(ValueError::Compacted);
            }
            *self = Self::new(self.revision, view.compact, view.compact, false);
        }
        let Ok(last) = u64::try_from(self.revision) else { return Ok(Step::Done) };
        let keep = match self.keep.take() {
            Some(keep) => keep,
            None => Keep::find(may, view, self)?,
        };
        let result = self.go_on(may, view, &keep, last, budget_bytes.max(1));
        self.keep = Some(keep);
        result
    }

    fn go_on(
        &mut self,
        may: &MayBlock,
        view: &View,
        keep: &Keep,
        last: u64,
        mut left: usize,
    ) -> Result<Step, ValueError> {
        let in_backend = last.min(view.backend_revision);
        if let Some(backend) = &view.backend
            && self.next.0 <= in_backend
        {
            let low = RevKey::new(self.next.0, self.next.1, false);
            let high = RevKey::new(in_backend + 1, 0, false);
            let range = (Bound::Included(low.as_bytes()), Bound::Excluded(high.as_bytes()));
            let mut scan = backend.scan(may, Bucket::Key.name(), range, Access::ScanOnce);
            while let Some((key, value)) = scan.next_ref()? {
                let rev = ParsedRev::parse(key).ok_or(ValueError::BadKeyValue)?;
                self.row(view, keep, rev, value)?;
                left = left.saturating_sub(key.len() + value.len());
                if left == 0 {
                    return Ok(Step::More);
                }
            }
            self.next = (in_backend + 1, 0);
        }
        let from = (self.next.0, self.next.1 as u32);
        for event in view.log.events(from.0, from.1, view.revision) {
            let (main, sub) = (event.rev().main.0 as u64, event.rev().sub.0 as u64);
            if main > last {
                break;
            }
            let rev = ParsedRev { main, sub, tombstone: event.is_tombstone() };
            self.row(view, keep, rev, event.stored())?;
            left = left.saturating_sub(18 + event.stored().len());
            if left == 0 {
                return Ok(Step::More);
            }
        }
        Ok(Step::Done)
    }

    /// The hash, once a step was [`Step::Done`].
    #[must_use]
    pub fn finish(&self) -> KvHash {
        KvHash {
            hash: self.crc,
            revision: Revision(self.revision),
            compact_revision: Revision(self.compact),
            was_alive: self.keep.as_ref().is_some_and(|keep| keep.was_alive),
        }
    }

    fn row(
        &mut self,
        view: &View,
        keep: &Keep,
        rev: ParsedRev,
        value: &[u8],
    ) -> Result<(), ValueError> {
        self.next = (rev.main, rev.sub + 1);
        let main = rev.main as i64;
        if main <= self.compact {
            // A tombstone is never alive, so one at the compact revision is left out as well.
            let key = KeyValue::parse(value)?.key;
            let alive = view.index.reader().get(key, keep.at);
            let place = (rev.main, rev.sub);
            if alive.map(|r| (r.main, u64::from(r.sub()))) != Some(place)
                || keep.lost.binary_search(&place).is_ok()
            {
                return Ok(());
            }
        }
        let key = RevKey::new(rev.main, rev.sub, rev.tombstone);
        self.crc = crc32c::crc32c_append(self.crc, key.as_bytes());
        self.crc = crc32c::crc32c_append(self.crc, value);
        Ok(())
    }
}

/// Which rows up to the compact revision etcd's keep set holds.
#[derive(Clone, Debug)]
struct Keep {
    /// Those that are alive at this revision.
    at: u64,
    /// Whether anything is alive at the hashed revision.
    was_alive: bool,
    /// But not these: a transaction at the hashed revision deleted the key and put it again, and
    /// etcd then keeps nothing of it. Ascending.
    lost: Vec<(u64, u64)>,
}

impl Keep {
    fn find(may: &MayBlock, view: &View, hasher: &KvHasher) -> Result<Self, ValueError> {
        let nothing = Self { at: 0, was_alive: false, lost: Vec::new() };
        let Ok(at) = u64::try_from(hasher.revision) else { return Ok(nothing) };
        let reader = view.index.reader();
        let Ok(compact) = u64::try_from(hasher.compact) else {
            // Before the first compaction every row counts.
            let mut was_alive = false;
            reader.visit(Bounds::ALL, at, &mut |_, _| {
                was_alive = true;
                false
            });
            return Ok(Self { was_alive, ..nothing });
        };
        let (mut lost, mut tombstones) = (Vec::new(), false);
        each_row_of(may, view, at, &mut |rev, value| {
            tombstones |= rev.tombstone;
            if rev.tombstone
                && let Some(alive) = reader.get(KeyValue::parse(value)?.key, at)
            {
                lost.push((alive.main, u64::from(alive.sub())));
            }
            Ok(())
        })?;
        lost.sort_unstable();
        lost.dedup();
        // A compaction's keep set has the tombstones at its revision, too.
        let mut was_alive = false;
        reader.visit(Bounds::ALL, at, &mut |_, record| {
            was_alive = lost.binary_search(&(record.main, u64::from(record.sub()))).is_err();
            !was_alive
        });
        let any = was_alive || (hasher.of_compaction && tombstones);
        Ok(Self { at: if any { at } else { compact }, was_alive, lost })
    }
}

type EachRow<'f> = dyn FnMut(ParsedRev, &[u8]) -> Result<(), ValueError> + 'f;

/// Hands out the rows of one main revision.
fn each_row_of(
    may: &MayBlock,
    view: &View,
    main: u64,
    each: &mut EachRow<'_>,
) -> Result<(), ValueError> {
    if main > view.backend_revision || view.backend.is_none() {
        for event in view.log.events(main, 0, main).take_while(|e| e.rev().main.0 as u64 == main) {
            let sub = event.rev().sub.0 as u64;
            each(ParsedRev { main, sub, tombstone: event.is_tombstone() }, event.stored())?;
        }
        return Ok(());
    }
    let Some(backend) = &view.backend else { return Ok(()) };
    let (low, high) = (RevKey::new(main, 0, false), RevKey::new(main + 1, 0, false));
    let range = (Bound::Included(low.as_bytes()), Bound::Excluded(high.as_bytes()));
    let mut scan = backend.scan(may, Bucket::Key.name(), range, Access::Scan);
    while let Some((key, value)) = scan.next_ref()? {
        each(ParsedRev::parse(key).ok_or(ValueError::BadKeyValue)?, value)?;
    }
    Ok(())
}

/// The hashes of the last compactions, by which members compare themselves. Lost at restart.
///
/// //= etcd 3.7.1: server/storage/mvcc/hash.go#hashStorage
#[derive(Clone, Debug, Default)]
pub struct CompactionHashes(Vec<KvHash>);

impl CompactionHashes {
    /// Adds one; only the newest by revision stay.
    pub fn store(&mut self, hash: KvHash) {
        let place = self.0.partition_point(|h| h.revision <= hash.revision);
        self.0.insert(place, hash);
        let surplus = self.0.len().saturating_sub(STORED_COMPACTION_HASHES);
        self.0.drain(..surplus);
    }

    /// The one at a revision. HashKV answers with it before it hashes anything, for revision 0 too.
    #[must_use]
    pub fn get(&self, revision: Revision) -> Option<KvHash> {
        self.0.iter().copied().find(|h| h.revision == revision)
    }

    /// All, ascending by revision.
    #[must_use]
    pub fn all(&self) -> &[KvHash] {
        &self.0
    }
}

/// A Hash of every bucket in progress. It holds its read transaction until it is dropped.
///
/// //= etcd 3.7.1: server/storage/backend/backend.go#Hash
#[derive(Debug)]
pub struct DatabaseHasher {
    backend: bolt::ReadTx,
    buckets: Option<Vec<Bytes>>,
    bucket: usize,
    after: Option<Bytes>,
    crc: u32,
}

impl DatabaseHasher {
    /// Begins. Flush the store first: what the backend does not hold is not hashed.
    #[must_use]
    pub fn new(backend: bolt::ReadTx) -> Self {
        Self { backend, buckets: None, bucket: 0, after: None, crc: 0 }
    }

    /// Hashes about `budget_bytes` more.
    ///
    /// # Errors
    /// The database's.
    pub fn step(&mut self, may: &MayBlock, budget_bytes: usize) -> Result<Step, ValueError> {
        let buckets = match self.buckets.take() {
            Some(buckets) => buckets,
            None => self.backend.buckets(may)?,
        };
        let result = self.go_on(may, &buckets, budget_bytes.max(1));
        self.buckets = Some(buckets);
        result
    }

    fn go_on(
        &mut self,
        may: &MayBlock,
        buckets: &[Bytes],
        mut left: usize,
    ) -> Result<Step, ValueError> {
        while let Some(name) = buckets.get(self.bucket) {
            let low = match &self.after {
                None => {
                    self.crc = crc32c::crc32c_append(self.crc, name);
                    Bound::Unbounded
                }
                Some(key) => Bound::Excluded(&key[..]),
            };
            let mut scan = self.backend.scan(may, name, (low, Bound::Unbounded), Access::ScanOnce);
            while let Some((key, value)) = scan.next_ref()? {
                if !is_ignored(name, key) {
                    self.crc = crc32c::crc32c_append(self.crc, key);
                    self.crc = crc32c::crc32c_append(self.crc, value);
                }
                left = left.saturating_sub(key.len() + value.len());
                if left == 0 {
                    self.after = Some(Bytes::copy_from_slice(key));
                    return Ok(Step::More);
                }
            }
            self.bucket += 1;
            self.after = None;
        }
        Ok(Step::Done)
    }

    /// The hash, once a step was [`Step::Done`].
    #[must_use]
    pub fn finish(&self) -> u32 {
        self.crc
    }
}

/// Keys that differ between members with equal data.
///
/// //= etcd 3.7.1: server/storage/schema/bucket.go#DefaultIgnores
fn is_ignored(bucket: &[u8], key: &[u8]) -> bool {
    bucket == Bucket::Meta.name()
        && [meta::CONSISTENT_INDEX, meta::TERM, meta::STORAGE_VERSION].contains(&key)
}
