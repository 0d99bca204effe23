//! A compaction as Applier runs it: hashed first, by which members compare themselves, then removed,
//! both in slices between entries.

use std::sync::Arc;
use std::time::Duration;

use env::{Instant, MayBlock};
use store::ValueError;
use store::compact::Step;
use types::Revision;

use super::Applier;

/// Bytes of keys and values that are hashed per turn, between entries: about 200 µs.
const HASH_BUDGET_BYTES: usize = 256 << 10;
/// Time between the beginnings of two such turns. Hashing without a rest keeps a processor, for
/// which, if there is only one, every step of every write has to wait until the scheduler's patience
/// ends: milliseconds each.
pub(super) const HASH_EVERY: Duration = Duration::from_micros(500);

/// A compaction that has removed all it had to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedCompaction {
    /// The revision compacted to.
    pub revision: Revision,
    /// Time since it was applied; since the start, if it went on behind one.
    pub took: Duration,
    /// Versions of keys removed, tombstones among them; since the start, if it went on behind one.
    pub removed: u64,
    /// The hash stored for it, if one was: not behind a start, nor where the compaction before had
    /// not ended.
    pub hash: Option<u32>,
}

impl Applier {
    /// Runs a slice of a compaction; what the compaction came to if this was the last.
    pub(super) fn compact(&mut self, now: Instant) -> Option<FinishedCompaction> {
        let store = &mut self.machine.store;
        let (began, before) =
            *self.compaction_began.get_or_insert_with(|| (now, store.counts().compacted));
        if store.compaction_step(self.pace.batch) == Step::More {
            self.next_slice = Some(now + self.pace.sleep);
            return None;
        }
        (self.next_slice, self.compaction_began) = (None, None);
        let revision = store.compact_revision();
        Some(FinishedCompaction {
            revision,
            took: now.since(began),
            removed: store.counts().compacted - before,
            hash: self.hashes.get(revision).map(|stored| stored.hash),
        })
    }

    /// Hashes a slice of what a compaction is about to remove, by which members compare
    /// themselves. Returns whether it did: the removing waits.
    pub(super) fn hash(&mut self, may: &MayBlock) -> Result<bool, ValueError> {
        if self.hashing.is_none() && self.to_hash.is_none() {
            return Ok(false);
        }
        let view = self.machine.store.publish();
        let mut hasher = match (self.hashing.take(), self.to_hash.take()) {
            (Some(hasher), _) => hasher,
            (None, Some(previous)) => view.hash_compaction(previous),
            (None, None) => return Ok(false),
        };
        match hasher.step(may, &view, HASH_BUDGET_BYTES) {
            Ok(Step::More) => {
                self.hashing = Some(hasher);
                Ok(true)
            }
            Ok(Step::Done) => {
                Arc::make_mut(&mut self.hashes).store(hasher.finish());
                Ok(true)
            }
            // A newer compaction passed this one: its hash is void.
            Err(ValueError::Compacted) => Ok(false),
            Err(e) => Err(e),
        }
    }
}
