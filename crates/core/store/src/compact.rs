//! Compaction: logical at once, physical in slices that are ordinary batch operations.
//!
//! //= etcd 3.7.1: server/storage/mvcc/kvstore.go#Compact
//! //= etcd 3.7.1: server/storage/mvcc/kvstore_compaction.go#scheduleCompaction

use bytes::Bytes;
use env::Failpoint;
use types::Revision;

use crate::bucket::{Bucket, Op, meta};
use crate::error::CompactError;
use crate::rev::RevKey;
use crate::store::Store;

/// Whether a budgeted piece of work is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    More,
    /// Nothing is left.
    Done,
}

/// A compaction that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The compact revision before, -1 for none: what the hash of this compaction begins at.
    pub previous: Revision,
    /// Whether the one before had ended; only then etcd stores this one's hash.
    pub previous_finished: bool,
}

fn revision_op(key: &'static [u8], revision: u64) -> Op {
    let value = Bytes::copy_from_slice(RevKey::new(revision, 0, false).as_bytes());
    Op { bucket: Bucket::Meta, key: Bytes::from_static(key), value: Some(value) }
}

impl Store {
    /// Makes every revision before `revision` unreadable, at once, and notes that in the group
    /// being applied. [`Store::compaction_step`] then removes what died.
    ///
    /// # Errors
    /// The revision is not after the last compaction's, or is in the future.
    pub fn compact(&mut self, revision: Revision) -> Result<Compacted, CompactError> {
        if revision.0 <= self.compact {
            return Err(CompactError::Compacted);
        }
        let target = u64::try_from(revision.0).map_err(|_| CompactError::Compacted)?;
        if target > self.revision {
            return Err(CompactError::FutureRevision);
        }
        let previous = Revision(self.compact);
        let previous_finished = self.compacting.is_none();
        self.compact = revision.0;
        self.compacting = Some(target);
        self.pending.ops.push(revision_op(meta::SCHEDULED_COMPACT, target));
        Ok(Compacted { previous, previous_finished })
    }

    /// Whether [`Store::compaction_step`] has work to do.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.compacting.is_some()
    }

    /// Removes up to about `budget` dead versions from the index and adds their deletes to the
    /// group being applied; the last step adds `finishedCompactRev`. Whoever wants the hash of the
    /// compaction computes it before the first step.
    pub fn compaction_step(&mut self, budget: usize) -> Step {
        let Some(target) = self.compacting else { return Step::Done };
        let (dead, counts) = (&mut self.pending.dead, &mut self.counts);
        let ended = self.index.compact_step(target, budget.max(1), |d| {
            counts.compacted += 1;
            dead.push(d);
        });
        if !ended {
            return Step::More;
        }
        self.failpoints.hit(Failpoint::CompactBeforeSetFinishedCompact);
        self.compacting = None;
        self.pending.ops.push(revision_op(meta::FINISHED_COMPACT, target));
        self.failpoints.hit(Failpoint::CompactAfterSetFinishedCompact);
        Step::Done
    }
}
