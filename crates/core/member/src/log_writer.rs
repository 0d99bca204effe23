//! LogWriter: makes entries, hard state and snapshot records durable, in order, with few syncs.
//!
//! Owns the write-ahead log. Each turn writes all that is queued and flushes once; a snapshot's
//! record shares that flush, for its file was made durable before (by Committer). Invariants 2, 3
//! and 10: `Persisted` follows the flush that covers it; old segments are let go behind the flush of
//! the record that replaces them; after the first failure nothing more is acknowledged. A received snapshot
//! takes flushes of its own: its member has nothing else to say before it is recorded.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use env::{Disk, Failpoint, Failpoints, Hooks, Instant, MayBlock, buggify};
use types::{Index, Term, WriteId};
use wal::Wal;
use wal::error::WriteError;
use wal::snap::SnapError;

use crate::message::{LogInput, NodeInput, RaftSnapshot};
use crate::zero_ahead::{CHUNK_BYTES, Pace};

/// Why the log writer cannot go on. The process must end before anything more is acknowledged.
#[derive(Debug)]
pub enum LogFailure {
    /// The log.
    Wal(WriteError),
    /// A snapshot file.
    Snap(SnapError),
}

impl std::fmt::Display for LogFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogFailure::Wal(e) => e.fmt(f),
            LogFailure::Snap(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LogFailure {}

impl From<WriteError> for LogFailure {
    fn from(e: WriteError) -> Self {
        LogFailure::Wal(e)
    }
}

impl From<SnapError> for LogFailure {
    fn from(e: SnapError) -> Self {
        LogFailure::Snap(e)
    }
}

/// What a turn has appended and not said yet.
#[derive(Debug, Default)]
struct Turn {
    written: Option<WriteId>,
    must_sync: bool,
    /// A snapshot's record is among it.
    snapshot: Option<Index>,
}

/// The automaton that makes things durable.
#[derive(Debug)]
pub struct LogWriter {
    wal: Wal,
    disk: Arc<dyn Disk>,
    snap_dir: PathBuf,
    /// The last recorded snapshot.
    recorded: (Term, Index),
    unsafe_no_fsync: bool,
    pace: Pace,
    /// Bytes of records written since the start.
    written_bytes: u64,
    failpoints: Failpoints,
    hooks: Hooks,
}

impl LogWriter {
    /// Takes over an open log, whose last snapshot is `recorded`. `unsafe_no_fsync` is etcd's flag
    /// of that name.
    #[must_use]
    pub fn new(
        wal: Wal,
        disk: Arc<dyn Disk>,
        snap_dir: PathBuf,
        recorded: (Term, Index),
        unsafe_no_fsync: bool,
        hooks: Hooks,
    ) -> Self {
        Self {
            wal,
            disk,
            snap_dir,
            recorded,
            unsafe_no_fsync,
            pace: Pace::default(),
            written_bytes: 0,
            failpoints: Failpoints::default(),
            hooks,
        }
    }

    /// Lets tests from outside reach this automaton's moments.
    pub fn set_failpoints(&mut self, failpoints: Failpoints) {
        self.failpoints = failpoints;
    }

    /// Writes everything in `inputs` and flushes at most once for all writes between snapshots.
    ///
    /// # Errors
    /// [`LogFailure`]; fatal.
    pub fn handle(
        &mut self,
        may: &MayBlock,
        inputs: &mut Vec<LogInput>,
        out: &mut Vec<NodeInput>,
    ) -> Result<(), LogFailure> {
        let mut turn = Turn::default();
        for input in inputs.drain(..) {
            match input {
                LogInput::Persist(persist) => {
                    turn.written = Some(persist.id);
                    turn.must_sync |= persist.must_sync;
                    self.append(&persist);
                    if buggify!(self.hooks, "log: a flush per write") {
                        self.finish(may, &mut turn, out)?;
                    }
                }
                LogInput::Received { persist, data } => {
                    self.finish(may, &mut turn, out)?;
                    self.record_received(may, &persist, data)?;
                    out.push(NodeInput::Persisted(persist.id));
                }
                LogInput::Snapshot(snapshot) => {
                    self.failpoints.hit(Failpoint::RaftBeforeWalSaveSnapshot);
                    self.append_record(&snapshot);
                    turn.snapshot = turn.snapshot.max(Some(snapshot.index));
                }
            }
        }
        self.finish(may, &mut turn, out)
    }

    /// Prepares the log's space for what will come, if that is due: one chunk. To be called when
    /// all that is queued was written and said, and only once the member is ready.
    ///
    /// # Errors
    /// [`LogFailure`]; fatal. A full disk is none.
    pub fn prepare(&mut self, may: &MayBlock, now: Instant) -> Result<(), LogFailure> {
        if !self.unsafe_no_fsync
            && self.pace.is_due(now, self.written_bytes, self.wal.zeroed_ahead())
        {
            self.wal.zero_ahead(may, CHUNK_BYTES)?;
        }
        Ok(())
    }

    /// Deletes log segments and snapshot files beyond what is kept; 0 keeps all. Failures are
    /// returned as texts: purging is not worth ending for.
    pub fn purge(&mut self, may: &MayBlock, max_wals: u32, max_snaps: u32) -> Vec<String> {
        let mut failures = Vec::new();
        if let Err(e) = self.wal.purge(may, max_wals) {
            failures.push(e.to_string());
        }
        let recorded = (self.recorded.0.0, self.recorded.1.0);
        if let Err(e) = wal::snap::purge(&*self.disk, &self.snap_dir, may, max_snaps, recorded) {
            failures.push(e.to_string());
        }
        failures
    }

    fn append(&mut self, persist: &raft::Persist) {
        for entry in &persist.entries {
            self.wal.append(&entry.to_wire());
        }
        if let Some(state) = &persist.hard_state {
            self.wal.append_hard_state(&state.to_wire());
        }
    }

    /// Writes what the turn has appended, flushes if that is due, and says so.
    //= etcd 3.7.1: server/etcdserver/server.go#snapshot, server/storage/storage.go#SaveSnap
    fn finish(
        &mut self,
        may: &MayBlock,
        turn: &mut Turn,
        out: &mut Vec<NodeInput>,
    ) -> Result<(), LogFailure> {
        let Turn { written, must_sync, snapshot } = std::mem::take(turn);
        if written.is_none() && snapshot.is_none() {
            return Ok(());
        }
        if written.is_some() {
            self.failpoints.hit(Failpoint::RaftBeforeSave);
        }
        self.written_bytes += self.wal.unwritten_bytes();
        self.wal.write(may)?;
        if snapshot.is_some() || (must_sync && !self.unsafe_no_fsync) {
            self.failpoints.hit(Failpoint::WalBeforeSync);
            self.wal.sync(may)?;
            self.failpoints.hit(Failpoint::WalAfterSync);
        }
        if let Some(id) = written {
            self.failpoints.hit(Failpoint::RaftAfterSave);
            out.push(NodeInput::Persisted(id));
        }
        if let Some(index) = snapshot {
            self.wal.release_to(index.0);
            out.push(NodeInput::SnapshotSaved(index));
        }
        Ok(())
    }

    /// Appends what vouches for a snapshot, unless a later one was recorded meanwhile.
    fn append_record(&mut self, snapshot: &RaftSnapshot) {
        if snapshot.index >= self.recorded.1 {
            self.wal.append_snapshot(&snapshot.record());
            self.recorded = (snapshot.term, snapshot.index);
        }
    }

    fn write_received(&mut self, may: &MayBlock, snapshot: RaftSnapshot) -> Result<(), LogFailure> {
        wal::snap::write(&*self.disk, &self.snap_dir, may, &snapshot.clone().into_file())?;
        self.failpoints.hit(Failpoint::RaftBeforeWalSaveSnapshot);
        self.append_record(&snapshot);
        self.wal.write(may)?;
        Ok(self.wal.sync(may)?)
    }

    /// A received snapshot, whose database is durable, replaces the log: first its record, synced,
    /// then what the write holds beside it, among it the commit index that makes the record count.
    /// Only then may older segments go.
    //= etcd 3.7.1: server/etcdserver/raft.go#start
    fn record_received(
        &mut self,
        may: &MayBlock,
        persist: &raft::Persist,
        data: Bytes,
    ) -> Result<(), LogFailure> {
        let meta = persist.snapshot.clone().expect("a received snapshot has a name");
        let index = meta.index;
        let (term, conf_state) = (meta.term, meta.conf_state);
        self.failpoints.hit(Failpoint::RaftBeforeSaveSnap);
        self.write_received(may, RaftSnapshot { index, term, conf_state, data })?;
        self.failpoints.hit(Failpoint::RaftAfterSaveSnap);
        self.failpoints.hit(Failpoint::RaftBeforeSave);
        self.append(persist);
        self.written_bytes += self.wal.unwritten_bytes();
        self.wal.write(may)?;
        self.failpoints.hit(Failpoint::RaftAfterSave);
        self.wal.sync(may)?;
        // Raft's own log was replaced when the message came; nobody has relied on it yet.
        self.failpoints.hit(Failpoint::RaftBeforeApplySnap);
        self.failpoints.hit(Failpoint::RaftAfterApplySnap);
        self.wal.release_to(index.0);
        self.failpoints.hit(Failpoint::RaftAfterWalRelease);
        Ok(())
    }
}
