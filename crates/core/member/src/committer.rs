//! Committer: batches become the backend's contents.
//!
//! Owns the database's one writer. Batches are written in order, many in one transaction, together
//! with the consistent index of the last (invariant 4). A commit is due 100 ms after the first
//! batch, at 10,000 operations, or when someone asks (a barrier). Clients wait for none of it: what
//! a crash takes is in the write-ahead log.
//!
//! It writes the `.snap` files of the log's snapshots too, beside the database that they stand for:
//! they need flushes, and nobody waits for this automaton.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bolt::{Db, Stage, SuspendedTx, WriteTx};
use env::{Disk, Failpoint, Failpoints, Hooks, Instant, IoError, MayBlock, buggify, sometimes};
use raft::{Body, SnapshotMeta};
use store::compact::Step;
use store::defrag::Defrag;
use types::Index;
use wal::snap::SnapError;

use crate::applier::ApplierInput;
use crate::message::{BackendCommitted, OutgoingSnapshot, RaftSnapshot, Sealed, SnapshotWanted};
use crate::probes;
use crate::received;

/// An input of Committer.
#[derive(Debug)]
pub enum CommitterInput {
    /// Write this batch; batches come in order.
    Batch(Sealed),
    /// Commit now what was received before this.
    Flush,
    /// Copy the database into a fresh file and go on with that. No compaction deletes anything
    /// until it is done.
    Defragment,
    /// A peer needs a snapshot of what was applied.
    Snapshot(SnapshotWanted),
    /// Write the `.snap` file of what the database holds.
    SaveSnapshot(RaftSnapshot),
    /// A received snapshot takes the database's place; whatever was pending is void.
    Install(SnapshotMeta),
    /// What the installed snapshot holds, as its reader says.
    Holds(BackendCommitted),
}

/// The outputs of one turn of Committer.
#[derive(Debug, Default)]
pub struct CommitterOutput {
    /// Inputs for Applier.
    pub applier: Vec<ApplierInput>,
    /// Backend commits, for Node.
    pub node: Vec<BackendCommitted>,
    /// For Node, behind `node`: snapshots whose files are durable.
    pub saved: Vec<RaftSnapshot>,
    /// Snapshots for the peer plane.
    pub snapshots: Vec<OutgoingSnapshot>,
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
    /// The database cannot be read.
    Read(bolt::ReadError),
    /// The commit failed; what is on disk is one of the two last states.
    Commit(bolt::CommitError),
    /// The defragmented copy could not take the database's name durably.
    Rename(IoError),
    /// A received snapshot could not take the database's name durably.
    Install(IoError),
    /// A received snapshot is no database.
    Open(bolt::OpenError),
    /// A `.snap` file cannot be written.
    Snap(SnapError),
}

impl std::fmt::Display for CommitFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommitFailure::Write(e) => e.fmt(f),
            CommitFailure::Read(e) => e.fmt(f),
            CommitFailure::Commit(e) => e.fmt(f),
            CommitFailure::Rename(e) | CommitFailure::Install(e) => e.fmt(f),
            CommitFailure::Open(e) => e.fmt(f),
            CommitFailure::Snap(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CommitFailure {}

impl From<bolt::WriteError> for CommitFailure {
    fn from(e: bolt::WriteError) -> Self {
        CommitFailure::Write(e)
    }
}

impl From<SnapError> for CommitFailure {
    fn from(e: SnapError) -> Self {
        CommitFailure::Snap(e)
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
    pending: Vec<Sealed>,
    /// What the first `written` of them have changed already, in memory.
    suspended: Option<SuspendedTx>,
    written: usize,
    /// Operations of all pending batches, and of those that are not written to it.
    operations: usize,
    unwritten: usize,
    since: Option<Instant>,
    flush: bool,
    disk: Arc<dyn Disk>,
    /// The database's directory.
    dir: PathBuf,
    defragmenting: Option<Defrag>,
    /// What the database holds.
    committed: BackendCommitted,
    /// Snapshots that wait until the database holds enough.
    wanted: Vec<SnapshotWanted>,
    /// Whom the stages of a commit are told.
    told: Option<StagesTold>,
    failpoints: Failpoints,
    hooks: Hooks,
}

/// What measures the stages of commits.
pub type StagesTold = Box<dyn FnMut(Stage) + Send>;

/// Pending operations for which the transaction is resumed before a commit is due. A slice of a
/// compaction has as many; puts at a low rate wait for the commit.
const RESUME_OPERATIONS: usize = 250;
/// Bytes copied per turn of a defragmentation, between commits.
const COPY_BYTES: usize = 1 << 20;
/// The copy's name until it takes the database's.
const COPY_NAME: &str = "db.tmp.defrag";

impl Committer {
    /// A committer over the open database `db` in `dir`, which holds `committed`.
    #[must_use]
    pub fn new(
        db: Db,
        committed: BackendCommitted,
        policy: CommitPolicy,
        (disk, dir): (Arc<dyn Disk>, PathBuf),
        hooks: Hooks,
    ) -> Self {
        Self {
            db,
            policy,
            pending: Vec::new(),
            suspended: None,
            written: 0,
            operations: 0,
            unwritten: 0,
            since: None,
            flush: false,
            disk,
            dir,
            defragmenting: None,
            committed,
            wanted: Vec::new(),
            told: None,
            failpoints: Failpoints::default(),
            hooks,
        }
    }

    /// Has `told` called at each stage of a commit.
    pub fn tell_stages(&mut self, told: StagesTold) {
        self.told = Some(told);
    }

    /// Lets tests from outside reach this automaton's moments.
    pub fn set_failpoints(&mut self, failpoints: Failpoints) {
        self.failpoints = failpoints;
    }

    /// The database's file.
    #[must_use]
    pub fn database_path(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// Operations after which there is something to do, though the time of a commit has not come.
    #[must_use]
    pub fn working_set(&self) -> usize {
        self.policy.operations.min(RESUME_OPERATIONS)
    }

    /// When [`Committer::handle`] must be called even without input.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.defragmenting.is_some() {
            return Some(Instant(0));
        }
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
        out: &mut CommitterOutput,
    ) -> Result<(), CommitFailure> {
        for input in inputs.drain(..) {
            match input {
                CommitterInput::Batch(batch) => {
                    self.operations += batch.batch.op_count();
                    self.unwritten += batch.batch.op_count();
                    self.pending.push(batch);
                    self.since.get_or_insert(now);
                }
                CommitterInput::Flush => self.flush = true,
                CommitterInput::Snapshot(wanted) => {
                    let waits = wanted.at_least > self.committed.index;
                    sometimes!(self.hooks, probes::SNAPSHOT_WAITS, waits);
                    self.wanted.push(wanted);
                    self.flush = true;
                }
                CommitterInput::SaveSnapshot(snapshot) => {
                    let file = snapshot.clone().into_file();
                    wal::snap::write(&*self.disk, &self.dir, may, &file)?;
                    out.saved.push(snapshot);
                }
                CommitterInput::Install(meta) => self.install(may, &meta, out)?,
                CommitterInput::Holds(committed) => self.committed = committed,
                CommitterInput::Defragment => match self.begin_copy(may) {
                    // Deletes that a compaction has emitted must be in before the copy begins.
                    Ok(copy) => {
                        self.commit(may, out)?;
                        self.failpoints.hit(Failpoint::DefragBeforeCopy);
                        match self.failpoints.error(Failpoint::DefragDbFail) {
                            Ok(()) => self.defragmenting = Some(copy),
                            Err(why) => self.drop_copy(may, why, out),
                        }
                    }
                    Err(e) => out.applier.push(ApplierInput::Defragmented(Err(e))),
                },
            }
        }
        let late = self.since.is_some_and(|since| since + self.policy.interval <= now);
        let early = buggify!(self.hooks, "committer: an early commit");
        if late || early || self.flush || self.operations >= self.policy.operations {
            self.commit(may, out)?;
        } else if self.unwritten >= RESUME_OPERATIONS {
            self.suspended = Some(self.write_pending(may)?.suspend());
        }
        self.send_snapshots(out);
        self.copy(may, out)
    }

    /// Opens what peers are to be sent: the database as of its last commit, under the name of what
    /// it holds (etcd renames raft's snapshot to what it sends, too).
    //= etcd 3.7.1: server/etcdserver/snapshot_merge.go#createMergedSnapshotMessage
    fn send_snapshots(&mut self, out: &mut CommitterOutput) {
        let committed = &self.committed;
        let db = &self.db;
        self.wanted.retain_mut(|wanted| {
            if wanted.at_least > committed.index {
                return true;
            }
            let RaftSnapshot { index, term, conf_state, data } = RaftSnapshot::of(committed);
            let mut message = wanted.message.clone();
            message.body = Body::Snapshot { meta: SnapshotMeta { index, term, conf_state }, data };
            out.snapshots.push(OutgoingSnapshot { message, database: db.begin_read() });
            false
        });
    }

    /// What a received snapshot does not hold is of no use any more, nor is a copy of what was
    /// there before.
    fn install(
        &mut self,
        may: &MayBlock,
        meta: &SnapshotMeta,
        out: &mut CommitterOutput,
    ) -> Result<(), CommitFailure> {
        sometimes!(self.hooks, probes::PENDING_DROPPED, !self.pending.is_empty());
        self.pending.clear();
        self.wanted.clear();
        // Until its reader has said what it holds, nobody is sent anything.
        self.committed.index = Index(0);
        self.discard_suspended();
        (self.operations, self.unwritten, self.since, self.flush) = (0, 0, None, false);
        if self.defragmenting.take().is_some() {
            sometimes!(self.hooks, probes::COPY_DROPPED);
            self.drop_copy(may, "a snapshot was installed meanwhile".to_owned(), out);
        }
        self.failpoints.hit(Failpoint::ApplyBeforeOpenSnapshot);
        received::rename(&*self.disk, &self.dir, may, meta.index)
            .map_err(CommitFailure::Install)?;
        let path = self.database_path();
        let options = store::database_options();
        self.db =
            Db::open(Arc::clone(&self.disk), &path, may, options).map_err(CommitFailure::Open)?;
        received::create_buckets(&mut self.db, may)?;
        self.failpoints.hit(Failpoint::ApplyAfterOpenSnapshot);
        let (meta, backend) = (meta.clone(), self.db.begin_read());
        out.applier.push(ApplierInput::Installed { meta, backend });
        Ok(())
    }

    fn begin_copy(&self, may: &MayBlock) -> Result<Defrag, String> {
        let path = self.dir.join(COPY_NAME);
        let fresh = || -> Result<Db, String> {
            if self.disk.exists(may, &path).map_err(|e| e.to_string())? {
                self.disk.remove_file(may, &path).map_err(|e| e.to_string())?;
            }
            self.failpoints.error(Failpoint::DefragOpenFileError)?;
            let options = store::database_options();
            Db::open(Arc::clone(&self.disk), &path, may, options).map_err(|e| e.to_string())
        };
        fresh().map(Defrag::new)
    }

    /// Copies a piece; in the last turn nothing is committed, the copy takes the database's name,
    /// and everything goes on with it.
    fn copy(&mut self, may: &MayBlock, out: &mut CommitterOutput) -> Result<(), CommitFailure> {
        let Some(mut copy) = self.defragmenting.take() else {
            return Ok(());
        };
        match copy.step(may, &self.db.begin_read(), COPY_BYTES) {
            Ok(Step::More) => {
                self.defragmenting = Some(copy);
                return Ok(());
            }
            Ok(Step::Done) => {}
            Err(e) => {
                self.drop_copy(may, e.to_string(), out);
                return Ok(());
            }
        }
        // The original holds what was committed so far; what is pending goes into the copy.
        let fresh = match copy.finish(may, &self.db.begin_read()) {
            Ok(fresh) => fresh,
            Err(e) => {
                self.drop_copy(may, e.to_string(), out);
                return Ok(());
            }
        };
        let (from, to) = (self.dir.join(COPY_NAME), self.database_path());
        self.failpoints.hit(Failpoint::DefragBeforeRename);
        // From the rename on it is unknown which file a restart finds: a failure is fatal.
        self.disk.rename(may, &from, &to).map_err(CommitFailure::Rename)?;
        self.disk.sync_dir(may, &self.dir).map_err(CommitFailure::Rename)?;
        self.db = fresh;
        self.discard_suspended();
        out.applier.push(ApplierInput::Defragmented(Ok(self.db.begin_read())));
        Ok(())
    }

    fn drop_copy(&self, may: &MayBlock, why: String, out: &mut CommitterOutput) {
        // If the copy cannot be removed now, the next start removes it.
        let _ = self.disk.remove_file(may, &self.dir.join(COPY_NAME));
        out.applier.push(ApplierInput::Defragmented(Err(why)));
    }

    /// Takes up the transaction and writes to it, in memory, what is pending and not in it yet.
    ///
    /// Batches are worked in as they come: ten slices of a compaction in one go would keep the
    /// processor for 5 ms, and with it, on a single core, every client waiting.
    fn write_pending(&mut self, may: &MayBlock) -> Result<WriteTx<'_>, CommitFailure> {
        let mut tx = match self.suspended.take() {
            Some(suspended) => self.db.resume(suspended),
            None => self.db.begin_write(),
        };
        for sealed in &self.pending[self.written..] {
            sealed.batch.write_to(&mut tx, may)?;
        }
        (self.written, self.unwritten) = (self.pending.len(), 0);
        Ok(tx)
    }

    /// Drops the suspended transaction; all that is pending is to be written again.
    fn discard_suspended(&mut self) {
        (self.suspended, self.written, self.unwritten) = (None, 0, self.operations);
    }

    /// The moments before and after this commit that a compaction in it makes.
    fn compactions(&self) -> Vec<(Failpoint, Failpoint)> {
        use Failpoint as F;
        let mut moments = Vec::new();
        if self.failpoints.is_on() {
            let mut pending = self.pending.iter().map(|sealed| &sealed.batch);
            if pending.clone().any(|batch| batch.schedules_compaction()) {
                let before = F::CompactBeforeCommitScheduledCompact;
                moments.push((before, F::CompactAfterCommitScheduledCompact));
            }
            if pending.any(|batch| batch.removes_a_part()) {
                moments.push((F::CompactBeforeCommitBatch, F::CompactAfterCommitBatch));
            }
        }
        moments
    }

    fn commit(&mut self, may: &MayBlock, out: &mut CommitterOutput) -> Result<(), CommitFailure> {
        self.flush = false;
        self.since = None;
        self.operations = 0;
        let Some(Sealed { batch, members }) = self.pending.last().cloned() else {
            return Ok(());
        };
        let (failpoints, compactions) = (self.failpoints.clone(), self.compactions());
        compactions.iter().for_each(|(before, _)| failpoints.hit(*before));
        failpoints.hit(Failpoint::CommitBeforePreCommitHook);
        let mut told = self.told.take();
        let tx = self.write_pending(may)?;
        failpoints.hit(Failpoint::CommitAfterPreCommitHook);
        failpoints.hit(Failpoint::BeforeCommit);
        match &mut told {
            Some(told) => tx.commit_told(may, &mut **told)?,
            None => tx.commit(may)?,
        };
        self.told = told;
        failpoints.hit(Failpoint::AfterCommit);
        compactions.iter().for_each(|(_, after)| failpoints.hit(*after));
        self.pending.clear();
        self.written = 0;
        let backend = self.db.begin_read();
        let (index, term) = (batch.last_index(), batch.term());
        self.committed = BackendCommitted { index, term, members };
        out.node.push(self.committed.clone());
        out.applier.push(ApplierInput::BackendCommitted { batch, backend });
        Ok(())
    }
}
