//! The writer's side of the store, owned by the thread that applies.

use std::sync::Arc;

use bytes::Bytes;
use env::{Failpoints, MayBlock};
use types::{Index as LogIndex, Revision, Term};

use crate::batch::{Batch, Pending};
use crate::bucket::Op;
use crate::counts::Counts;
use crate::error::ValueError;
use crate::index::Index;
use crate::rev::{Rev, to_revision};
use crate::revlog::{Released, RevisionLog, WATCH_TAIL_BYTES};
use crate::values::{Lookup, Sources};
use crate::view::View;
use crate::write::WriteTxn;

/// Bytes of batches that the database may lag behind before apply takes no more entries.
pub const UNCOMMITTED_LIMIT_BYTES: usize = 64 << 20;

/// How much the store keeps in memory. The simulator makes these small, so that short runs meet
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of committed batches that stay for watchers.
    pub watch_tail_bytes: usize,
    /// Bytes of batches that the database may lag behind before apply takes no more entries.
    pub uncommitted_bytes: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { watch_tail_bytes: WATCH_TAIL_BYTES, uncommitted_bytes: UNCOMMITTED_LIMIT_BYTES }
    }
}

/// The current state and what leads from the database to it.
///
/// Order of use: any number of transactions and [`Store::local`] operations, [`Store::seal`],
/// [`Store::publish`]; now and then [`Store::committed`], then publish again.
#[derive(Debug)]
pub struct Store {
    pub(crate) index: Index,
    pub(crate) pending: Pending,
    pub(crate) log: RevisionLog,
    pub(crate) backend: Option<bolt::ReadTx>,
    pub(crate) backend_revision: u64,
    pub(crate) revision: u64,
    pub(crate) compact: i64,
    /// Revision up to which deletes of compacted versions are still to be emitted.
    pub(crate) compacting: Option<u64>,
    pub(crate) applied: (LogIndex, Term),
    pub(crate) last_batch: u64,
    pub(crate) committed_batch: u64,
    pub(crate) counts: Counts,
    pub(crate) uncommitted_limit_bytes: usize,
    pub(crate) failpoints: Failpoints,
}

impl Store {
    /// A store without keys or database: revision 1, nothing compacted.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            index: Index::new(),
            pending: Pending::default(),
            log: RevisionLog::starting_at(2),
            backend: None,
            backend_revision: 1,
            revision: 1,
            compact: -1,
            compacting: None,
            applied: (LogIndex(0), Term(0)),
            last_batch: 0,
            committed_batch: 0,
            counts: Counts::default(),
            uncommitted_limit_bytes: UNCOMMITTED_LIMIT_BYTES,
            failpoints: Failpoints::default(),
        }
    }

    /// How much stays in memory.
    #[must_use]
    pub fn limits(&self) -> StoreLimits {
        StoreLimits {
            watch_tail_bytes: self.log.tail_limit(),
            uncommitted_bytes: self.uncommitted_limit_bytes,
        }
    }

    /// Lets tests from outside reach the moments of a compaction.
    pub fn set_failpoints(&mut self, failpoints: Failpoints) {
        self.failpoints = failpoints;
    }

    /// Sets how much stays in memory.
    pub fn set_limits(&mut self, limits: StoreLimits) {
        self.log.set_tail_limit(limits.watch_tail_bytes);
        self.uncommitted_limit_bytes = limits.uncommitted_bytes;
    }

    /// Main revision of the last change; 1 in an empty store.
    #[must_use]
    pub fn revision(&self) -> Revision {
        to_revision(self.revision)
    }

    /// Oldest revision that can be read; -1 before the first compaction.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        Revision(self.compact)
    }

    /// Index of the last entry sealed.
    #[must_use]
    pub fn applied_index(&self) -> LogIndex {
        self.applied.0
    }

    /// Term of that entry.
    #[must_use]
    pub fn applied_term(&self) -> Term {
        self.applied.1
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    /// Adds an operation on a bucket to the group that is being applied.
    ///
    /// # Panics
    /// If the key is empty, which the database refuses.
    pub fn local(&mut self, op: Op) {
        assert!(!op.key.is_empty(), "a bucket has no empty key");
        self.pending.ops.push(op);
    }

    /// Bytes of a value of the group that is being applied or of an older change, without waiting.
    ///
    /// # Errors
    /// The database is damaged.
    pub fn try_value(&self, rev: Rev) -> Result<Lookup, ValueError> {
        let Some((main, sub)) = rev.place() else { return Ok(Lookup::Absent) };
        match self.pending.value(main, sub) {
            Some(value) => Ok(Lookup::Found(value)),
            None => self.sources().try_value(main, sub),
        }
    }

    /// As [`Store::try_value`], waiting for the disk if it must.
    ///
    /// # Errors
    /// The database is damaged or its disk failed.
    pub fn value(&self, may: &MayBlock, rev: Rev) -> Result<Option<Bytes>, ValueError> {
        let Some((main, sub)) = rev.place() else { return Ok(None) };
        match self.pending.value(main, sub) {
            Some(value) => Ok(Some(value)),
            None => self.sources().value(may, main, sub),
        }
    }

    fn sources(&self) -> Sources<'_> {
        Sources { log: self.log.shared(), backend: self.backend.as_ref() }
    }

    /// Whether anything was changed since the last [`Store::seal`].
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Freezes what was changed since the last seal into a batch, which is then part of the
    /// revision log and due to be committed. `index` and `term` are those of the last entry
    /// applied; `conf_state_json` if that changed.
    ///
    /// # Panics
    /// If `index` is below that of an earlier batch.
    pub fn seal(
        &mut self,
        index: LogIndex,
        term: Term,
        conf_state_json: Option<Bytes>,
    ) -> Arc<Batch> {
        assert!(index >= self.applied.0, "entries are applied in order");
        self.applied = (index, term);
        self.last_batch += 1;
        let frozen =
            self.pending.freeze(self.last_batch, self.revision, self.applied, conf_state_json);
        let batch = Arc::new(frozen);
        self.log.push(&batch);
        batch
    }

    /// Notes that `backend` holds every batch up to `batch` and no later one. What leaves memory
    /// comes back, to be dropped where there is time.
    ///
    /// # Panics
    /// If the batch was never sealed here or is before an earlier one.
    pub fn committed(&mut self, batch: &Batch, backend: bolt::ReadTx) -> Released {
        assert!(batch.number() <= self.last_batch, "only sealed batches are committed");
        assert!(batch.number() >= self.committed_batch, "commits come in order");
        self.committed_batch = batch.number();
        self.backend = Some(backend);
        self.backend_revision = batch.revision_raw();
        self.log.committed(batch.number(), self.revision + 1)
    }

    /// Takes another read transaction with the same content, after a defragmentation.
    pub fn replace_backend(&mut self, backend: bolt::ReadTx) {
        self.backend = Some(backend);
    }

    /// Number of the last batch sealed, 0 if none was.
    #[must_use]
    pub fn last_batch(&self) -> u64 {
        self.last_batch
    }

    /// Bytes of sealed batches that the database does not hold yet.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        self.log.uncommitted_bytes()
    }

    /// Whether the database lags so far behind that no more entries should be applied.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.log.uncommitted_bytes() > self.uncommitted_limit_bytes
    }

    /// What was done since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The state for readers.
    ///
    /// # Panics
    /// If changes were not sealed: a View shows whole groups.
    #[must_use]
    pub fn publish(&self) -> View {
        assert!(self.pending.is_empty(), "seal before publishing");
        View {
            index: self.index.snapshot(),
            log: self.log.snapshot(),
            backend: self.backend.clone(),
            backend_revision: self.backend_revision,
            revision: self.revision,
            compact: self.compact,
            applied: self.applied,
        }
    }
}
