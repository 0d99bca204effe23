//! How a member starts: from nothing, or from what its disk holds.
//!
//! //= etcd 3.7.1: server/etcdserver/bootstrap.go
//!
//! First boot is atomic: the log appears under its name with the bootstrap entries in it, or not
//! at all. Recovery trusts the backend up to its consistent index and the log behind it; the
//! `.snap` files are not read. Invariant 4: raft hands out nothing at or below that index again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use env::{Disk, Entropy, Failpoints, Instant, IoErrorKind, MayBlock, Open, sometimes};
use machine::Machine;
use machine::membership::Member;
use prost::Message;
use raft::{ConfChange, ConfChangeKind, Entry, HardState, Raft, Recovered};
use store::{Bucket, meta};
use types::{ClusterId, Index, MemberId, Term, Version};
use wal::snap::SnapError;
use wal::writer::Beginning;
use wal::{ReadError, Wal, WriteError};

use crate::applier::Applier;
use crate::committer::Committer;
use crate::config::StartConfig;
use crate::log_writer::LogWriter;
use crate::message::{BackendCommitted, RaftSnapshot};
use crate::node::Node;
use crate::probes;
use crate::received;

/// Why a member cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The disk failed, or denies access.
    Io(env::IoError),
    /// Another process holds the database: wait and try again.
    Locked,
    /// The database cannot be opened.
    Database(bolt::OpenError),
    /// The database's buckets cannot be made.
    Buckets(crate::committer::CommitFailure),
    /// The state in the database cannot be read.
    State(machine::apply::MachineError),
    /// The log cannot be read.
    Log(ReadError),
    /// The log cannot be written.
    LogWrite(WriteError),
    /// A snapshot file cannot be written.
    Snap(SnapError),
    /// The log belongs to another member or cluster, or names none.
    Metadata,
    /// The log vouches for a snapshot that the database does not hold.
    SnapshotMismatch {
        /// The database's file.
        path: PathBuf,
        /// What it holds.
        database: Index,
        /// What the log vouches for.
        snapshot: Index,
    },
    /// Nor is there a received one that does.
    NoSnapshotDatabase,
    /// An entry or hard state in the log is not raft's.
    Malformed(String),
    /// Raft refuses what the disk holds.
    Raft(raft::ConfigError),
    /// The database was written by a newer version.
    NewerStorage(String),
    /// The cluster has agreed on a version that this binary does not speak.
    NewerCluster(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Io(e) => e.fmt(f),
            StartError::Locked => f.write_str("the database is locked by another process"),
            StartError::Database(e) => e.fmt(f),
            StartError::Buckets(e) => e.fmt(f),
            StartError::State(e) => e.fmt(f),
            StartError::Log(e) => e.fmt(f),
            StartError::LogWrite(e) => e.fmt(f),
            StartError::Snap(e) => e.fmt(f),
            StartError::Metadata => f.write_str("wal: the log belongs to another member"),
            StartError::SnapshotMismatch { path, database, snapshot } => write!(
                f,
                "database file ({} index {database}) does not match with snapshot (index {snapshot})",
                path.display()
            ),
            //= etcd 3.7.1: server/storage/backend.go#OpenSnapshotBackend
            StartError::NoSnapshotDatabase => f.write_str(
                "failed to find database snapshot file (snap: snapshot file doesn't exist)",
            ),
            StartError::Malformed(what) => write!(f, "wal: {what}"),
            StartError::Raft(e) => e.fmt(f),
            StartError::NewerStorage(version) => write!(
                f,
                "storage version {version} is newer than this binary; open it with that version"
            ),
            //= etcd 3.7.1: server/etcdserver/api/membership/downgrade.go#mustDetectDowngrade
            StartError::NewerCluster(version) => write!(
                f,
                "invalid downgrade; server version is lower than determined cluster version \
                 ({version}); open it with that version"
            ),
        }
    }
}

impl std::error::Error for StartError {}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {
        $(impl From<$error> for StartError {
            fn from(e: $error) -> Self {
                StartError::$variant(e)
            }
        })*
    };
}

from!(env::IoError => Io, ReadError => Log, WriteError => LogWrite, SnapError => Snap,
      machine::apply::MachineError => State, raft::ConfigError => Raft,
      crate::committer::CommitFailure => Buckets);

/// The automata of a started member.
pub struct Parts {
    /// Consensus, proposals and leases.
    pub node: Node,
    /// The writer of the log.
    pub log_writer: LogWriter,
    /// The state machine's.
    pub applier: Applier,
    /// The writer of the backend.
    pub committer: Committer,
    /// Who this member is according to its log.
    pub member: MemberId,
    /// The cluster it belongs to according to its log.
    pub cluster: ClusterId,
}

impl Parts {
    /// Lets tests from outside reach the moments of all automata.
    pub fn set_failpoints(&mut self, failpoints: &Failpoints) {
        self.log_writer.set_failpoints(failpoints.clone());
        self.applier.set_failpoints(failpoints.clone());
        self.committer.set_failpoints(failpoints.clone());
    }
}

/// Starts a member: creates its log and database, or recovers from them.
///
/// # Errors
/// [`StartError`].
pub fn start(
    disk: Arc<dyn Disk>,
    may: &MayBlock,
    now: Instant,
    mut config: StartConfig,
    entropy: Box<dyn Entropy>,
) -> Result<Parts, StartError> {
    disk.create_dir_all(may, &config.snap_dir)?;
    let db_path = config.snap_dir.join("db");
    settle(&*disk, may, &config, &db_path)?;
    let (mut db, mut machine, mut storage_version) = state(&disk, may, &config, &db_path)?;
    remove_leftovers(&*disk, &config.snap_dir, may)?;
    found_log(&disk, may, &config)?;
    let snapshot = newest_snapshot(&*disk, &config.wal_dir, may)?;
    if snapshot.0 > machine.store.applied_index() {
        if !disk.exists(may, &received::path(&config.snap_dir, snapshot.0))? {
            return Err(StartError::NoSnapshotDatabase);
        }
        sometimes!(config.hooks, probes::INSTALLED_AT_START);
        // Its record is in the log, so it counts; the crash came before it was installed.
        drop((db, machine));
        received::rename(&*disk, &config.snap_dir, may, snapshot.0)?;
        (db, machine, storage_version) = state(&disk, may, &config, &db_path)?;
    }
    received::remove_all(&*disk, &config.snap_dir, may)?;
    let consistent = (machine.store.applied_index(), machine.store.applied_term());
    if snapshot.0 > consistent.0 {
        return Err(StartError::SnapshotMismatch {
            path: db_path,
            database: consistent.0,
            snapshot: snapshot.0,
        });
    }
    let from = (snapshot.0.0, snapshot.1.0);
    let (mut wal, log) = Wal::open(Arc::clone(&disk), &config.wal_dir, may, from)?;
    wal.set_segment_bytes(config.limits.wal_segment_bytes);
    // What a killed process wrote and did not sync counts from now on.
    wal.sync(may)?;
    (config.member, config.cluster) = identity(&log.metadata)?;
    config.node.id = config.member;
    config.apply.id = config.member;

    let place = (&*disk, config.snap_dir.as_path());
    let mut recovered = recovered(may, &mut wal, place, &log, snapshot, consistent, &machine)?;
    if config.force_new_cluster {
        expel_others(may, &mut wal, &mut recovered, config.member, consistent.0)?;
    }
    let last_snapshot = recovered.snapshot.0;
    let raft = Raft::new(raft_config(&config, consistent.0), recovered, entropy)?;
    let (members, hooks) = (machine.members().as_ref().clone(), config.hooks);
    let leases: Vec<_> =
        machine.leases().iter().map(|(id, lease)| (id, lease.ttl, lease.remaining)).collect();
    let mut node = Node::new(
        config.node,
        raft,
        now,
        last_snapshot,
        members,
        leases.into_iter(),
        hooks.clone(),
    );
    node.set_signing_revision(machine.auth().signing_revision());
    let (members, pace) = (Arc::clone(machine.members()), config.limits.compaction);
    let applier = Applier::new(machine, storage_version, last_snapshot, pace, hooks.clone());
    if applier.wants_snapshot() {
        node.force_snapshot();
    }
    let committed = BackendCommitted { index: consistent.0, term: consistent.1, members };
    let (shared, snap_dir) = (Arc::clone(&disk), config.snap_dir.clone());
    let (recorded, unsafe_no_fsync) = ((snapshot.1, snapshot.0), config.unsafe_no_fsync);
    let log_writer =
        LogWriter::new(wal, shared, config.snap_dir, recorded, unsafe_no_fsync, hooks.clone());
    Ok(Parts {
        node,
        log_writer,
        applier,
        committer: Committer::new(db, committed, config.commit, (disk, snap_dir), hooks),
        member: config.member,
        cluster: config.cluster,
    })
}

/// Creates the log of a member that has none, with the entries that name the founders.
fn found_log(disk: &Arc<dyn Disk>, may: &MayBlock, config: &StartConfig) -> Result<(), StartError> {
    if !Wal::exists(&**disk, &config.wal_dir, may)? {
        let beginning = beginning(&config.founders);
        let metadata = wal::writer::metadata(config.member, config.cluster);
        Wal::create(Arc::clone(disk), &config.wal_dir, may, metadata, &beginning)?;
    }
    Ok(())
}

fn raft_config(config: &StartConfig, applied: Index) -> raft::Config {
    let mut raft_config = raft::Config::new(config.member);
    raft_config.election_ticks = config.election_ticks;
    raft_config.pre_vote = config.pre_vote;
    raft_config.applied = applied;
    raft_config.hooks = config.hooks.clone();
    raft_config
}

/// Opens the database, which must not be in use, and reads the state from it.
fn state(
    disk: &Arc<dyn Disk>,
    may: &MayBlock,
    config: &StartConfig,
    db_path: &Path,
) -> Result<(bolt::Db, Machine, Option<Bytes>), StartError> {
    let options = store::database_options();
    let mut db = match bolt::Db::open(Arc::clone(disk), db_path, may, options) {
        Err(bolt::OpenError::Locked) => return Err(StartError::Locked),
        result => result.map_err(StartError::Database)?,
    };
    received::create_buckets(&mut db, may)?;
    let backend = db.begin_read();
    let storage_version = check_storage_version(&backend, may)?;
    let mut machine = Machine::recover(config.apply.clone(), may, backend)?;
    machine.store.set_limits(config.limits.store);
    if let Some(version) = &machine.members().cluster_version
        && Version::parse(version) > Version::parse(types::CLUSTER_VERSION)
    {
        return Err(StartError::NewerCluster(version.clone()));
    }
    Ok((db, machine, storage_version))
}

/// Makes durable what a killed process may have left in the page cache: this one reads it, builds
/// on it and vouches for what follows from it, so a power cut must not take it back. Contents of
/// the database, and names: of the log and its segments, of the database and of what replaced it.
fn settle(
    disk: &dyn Disk,
    may: &MayBlock,
    config: &StartConfig,
    db_path: &std::path::Path,
) -> Result<(), StartError> {
    if disk.exists(may, db_path)? {
        disk.open(may, db_path, Open::Write)?.sync_data(may)?;
    }
    for dir in [&config.snap_dir, &config.wal_dir] {
        if disk.exists(may, dir)? {
            disk.sync_dir(may, dir)?;
        }
        match dir.parent() {
            Some(parent) if disk.exists(may, parent)? => disk.sync_dir(may, parent)?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes what an interrupted defragmentation or snapshot transfer left behind. Only after the
/// database is locked: before, it could belong to another process.
fn remove_leftovers(disk: &dyn Disk, dir: &Path, may: &MayBlock) -> Result<(), StartError> {
    for entry in disk.read_dir(may, dir)? {
        if entry.name.starts_with("db.tmp.") || entry.name.starts_with("tmp") {
            disk.remove_file(may, &dir.join(&entry.name))?;
        }
    }
    Ok(())
}

/// The first log: the same on all founding members.
fn beginning(founders: &[Member]) -> Beginning {
    if founders.is_empty() {
        // It joins: the leader sends everything.
        return Beginning::default();
    }
    let members: Vec<_> = founders.iter().map(|m| (MemberId(m.id), m.to_json())).collect();
    let (hard_state, entries) = raft::bootstrap(&members);
    Beginning {
        entries: entries.iter().map(Entry::to_wire).collect(),
        hard_state: Some(hard_state.to_wire()),
        snapshot: None,
    }
}

/// Refuses a database of a version after this one (invariant 13).
fn check_storage_version(
    backend: &bolt::ReadTx,
    may: &MayBlock,
) -> Result<Option<Bytes>, StartError> {
    let stored = backend
        .get(may, Bucket::Meta.name(), meta::STORAGE_VERSION)
        .map_err(machine::apply::MachineError::from)?;
    let Some(version) = stored else { return Ok(None) };
    let parts = |text: &str| {
        let mut numbers = text.split('.').map(|p| p.parse::<u32>().unwrap_or(u32::MAX));
        (numbers.next(), numbers.next())
    };
    let text = String::from_utf8_lossy(&version);
    if parts(&text) > parts(types::CLUSTER_VERSION) {
        return Err(StartError::NewerStorage(text.into_owned()));
    }
    Ok(Some(version))
}

fn newest_snapshot(
    disk: &dyn Disk,
    dir: &Path,
    may: &MayBlock,
) -> Result<(Index, Term), StartError> {
    let mut attempt = 1;
    let valid = loop {
        match wal::snapshots(disk, dir, may) {
            // Listed, and gone when it was opened: someone purges, or a volume is slow to tell.
            Err(ReadError::Io(e)) if e.kind == IoErrorKind::NotFound && attempt < SCANS => {
                attempt += 1;
            }
            result => break result?,
        }
    };
    let newest = valid.iter().max_by_key(|s| s.index.unwrap_or(0));
    Ok(newest
        .map_or((Index(0), Term(0)), |s| (Index(s.index.unwrap_or(0)), Term(s.term.unwrap_or(0)))))
}

/// Times that the log is read for its newest snapshot while files vanish under the reader.
//= etcd 3.7.3: server/storage/wal/wal.go#ValidSnapshotEntries
const SCANS: u32 = 3;

fn identity(metadata: &Bytes) -> Result<(MemberId, ClusterId), StartError> {
    let metadata =
        api::etcdserverpb::Metadata::decode(metadata.clone()).map_err(|_| StartError::Metadata)?;
    match (metadata.node_id, metadata.cluster_id) {
        (Some(member), Some(cluster)) => Ok((MemberId(member), ClusterId(cluster))),
        _ => Err(StartError::Metadata),
    }
}

/// Makes this member the only one: what is not committed is dropped, and the removal of everyone
/// else is written as committed behind the rest.
//= etcd 3.7.1: server/etcdserver/bootstrap.go#NewConfigChangeEntries
fn expel_others(
    may: &MayBlock,
    wal: &mut Wal,
    recovered: &mut Recovered,
    own: MemberId,
    applied: Index,
) -> Result<(), StartError> {
    let commit = recovered.hard_state.commit;
    recovered.entries.retain(|entry| entry.index <= commit);
    let state = &recovered.conf_state;
    let mut members: BTreeSet<MemberId> =
        state.voters.iter().chain(&state.learners).copied().collect();
    let changes = recovered
        .entries
        .iter()
        .filter(|entry| entry.kind == raft::EntryKind::ConfChange && entry.index > applied);
    for change in changes.filter_map(|entry| ConfChange::decode(entry.data.clone()).ok()) {
        match change.kind {
            ConfChangeKind::RemoveNode => members.remove(&change.node),
            _ => members.insert(change.node),
        };
    }
    let term = recovered.hard_state.term;
    let entry = |kind, node, context, last: &mut Index| {
        *last = last.next();
        let data = ConfChange { id: 0, kind, node, context }.encode();
        Entry { term, index: *last, kind: raft::EntryKind::ConfChange, data }
    };
    let mut last = commit;
    let mut added = Vec::new();
    for other in members.iter().filter(|id| **id != own) {
        added.push(entry(ConfChangeKind::RemoveNode, *other, Bytes::new(), &mut last));
    }
    if !members.contains(&own) {
        let peer_urls = ["http://localhost:2380", "http://localhost:7001"].map(str::to_owned);
        let member = Member { id: own.0, peer_urls: Some(peer_urls.to_vec()), ..Member::default() };
        added.push(entry(ConfChangeKind::AddNode, own, member.to_json(), &mut last));
    }
    recovered.hard_state.commit = last;
    added.iter().for_each(|entry| wal.append(&entry.to_wire()));
    wal.append_hard_state(&recovered.hard_state.to_wire());
    wal.write(may)?;
    wal.sync(may)?;
    recovered.entries.extend(added);
    Ok(())
}

/// What raft starts from. Go applies committed entries while they are still being saved, so a
/// database from Go may hold more than its log: then the database is a snapshot and the log begins
/// anew behind it, which is written down before anyone gets an answer. Go starts only from a
/// snapshot that has a file, and refuses a log with a gap in it: so the file comes first.
fn recovered(
    may: &MayBlock,
    wal: &mut Wal,
    (disk, snap_dir): (&dyn Disk, &Path),
    log: &wal::Log,
    snapshot: (Index, Term),
    consistent: (Index, Term),
    machine: &Machine,
) -> Result<Recovered, StartError> {
    let mut entries = Vec::with_capacity(log.entries.len());
    let mut term = snapshot.1;
    for entry in &log.entries {
        let entry = Entry::from_wire(entry.clone())
            .map_err(|e| StartError::Malformed(format!("entry: {e}")))?;
        if entry.term < term {
            // What a received snapshot replaced lies before its record in the log, also beyond its
            // index; it never was committed, or the snapshot's term would not be higher.
            break;
        }
        term = entry.term;
        entries.push(entry);
    }
    let mut hard_state = log.hard_state.as_ref().map(HardState::from_wire).unwrap_or_default();
    hard_state.commit = hard_state.commit.max(consistent.0);
    let conf_state = machine.members().conf_state();
    let last = entries.last().map_or(snapshot.0, |e| e.index);
    if consistent.0 <= last {
        return Ok(Recovered { hard_state, conf_state, snapshot, entries });
    }
    if hard_state.term < consistent.1 {
        // A vote belongs to its term.
        (hard_state.term, hard_state.vote) = (consistent.1, None);
    }
    let snapshot = RaftSnapshot {
        index: consistent.0,
        term: consistent.1,
        conf_state: conf_state.clone(),
        data: machine::membership::v2_store_json(machine.members()),
    };
    let record = snapshot.record();
    wal::snap::write(disk, snap_dir, may, &snapshot.into_file())?;
    wal.append_hard_state(&hard_state.to_wire());
    wal.append_snapshot(&record);
    wal.write(may)?;
    wal.sync(may)?;
    Ok(Recovered { hard_state, conf_state, snapshot: consistent, entries: Vec::new() })
}
