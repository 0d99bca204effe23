//! Committer: batches become the backend's contents.
//!
//! Owns the database's one writer. Batches are written in order, many in one transaction, together
//! with the consistent index of the last (invariant 4). A commit is due 100 ms after the first
//! batch, at 10,000 operations, or when someone asks (a barrier). Clients wait for none of it: what
//! a crash takes is in the write-ahead log.

use std::sync::Arc;
use std::time::Duration;

use bolt::Db;
use env::{Instant, MayBlock};
use store::Batch;

use crate::applier::ApplierInput;

/// What Committer is told.
#[derive(Debug)]
pub enum CommitterInput {
    /// Write this; they come in order.
    Batch(Arc<Batch>),
    /// Commit now what was received before this.
    Flush,
}

/// When commits are due.
#[derive(Clone, Copy, Debug)]
pub struct CommitPolicy {
    /// Longest time a batch waits (`--backend-batch-interval`).
    pub interval: Duration,
    /// Operations that make a commit due at once (`--backend-batch-limit`).
    pub operations: usize,
}

/// Why the backend cannot be written. Fatal: nothing more may rely on it.
#[derive(Debug)]
pub enum CommitFailure {
    /// A change was refused.
    Write(bolt::WriteError),
    /// The commit failed; what is on disk is one of the two last states.
    Commit(bolt::CommitError),
}

impl std::fmt::Display for CommitFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommitFailure::Write(e) => e.fmt(f),
            CommitFailure::Commit(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CommitFailure {}

impl From<bolt::WriteError> for CommitFailure {
    fn from(e: bolt::WriteError) -> Self {
        CommitFailure::Write(e)
    }
}

impl From<bolt::CommitError> for CommitFailure {
    fn from(e: bolt::CommitError) -> Self {
        CommitFailure::Commit(e)
    }
}

/// The automaton that writes the backend.
pub struct Committer {
    db: Db,
    policy: CommitPolicy,
    pending: Vec<Arc<Batch>>,
    operations: usize,
    since: Option<Instant>,
    flush: bool,
}

impl Committer {
    /// A committer over an open database.
    #[must_use]
    pub fn new(db: Db, policy: CommitPolicy) -> Self {
        Self { db, policy, pending: Vec::new(), operations: 0, since: None, flush: false }
    }

    /// When [`Committer::handle`] must be called even without input.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + self.policy.interval)
    }

    /// Takes all inputs and commits if a commit is due.
    ///
    /// # Errors
    /// [`CommitFailure`]; fatal.
    pub fn handle(
        &mut self,
        may: &MayBlock,
        now: Instant,
        inputs: &mut Vec<CommitterInput>,
        out: &mut Vec<ApplierInput>,
    ) -> Result<(), CommitFailure> {
        for input in inputs.drain(..) {
            match input {
                CommitterInput::Batch(batch) => {
                    self.operations += batch.op_count();
                    self.pending.push(batch);
                    self.since.get_or_insert(now);
                }
                CommitterInput::Flush => self.flush = true,
            }
        }
        let late = self.deadline().is_some_and(|at| at <= now);
        if late || self.flush || self.operations >= self.policy.operations {
            self.commit(may, out)?;
        }
        Ok(())
    }

    fn commit(&mut self, may: &MayBlock, out: &mut Vec<ApplierInput>) -> Result<(), CommitFailure> {
        self.flush = false;
        self.since = None;
        self.operations = 0;
        let Some(last) = self.pending.last().cloned() else {
            return Ok(());
        };
        let mut tx = self.db.begin_write();
        for batch in &self.pending {
            batch.write_to(&mut tx, may)?;
        }
        tx.commit(may)?;
        self.pending.clear();
        let backend = self.db.begin_read();
        out.push(ApplierInput::BackendCommitted { batch: last, backend });
        Ok(())
    }
}
