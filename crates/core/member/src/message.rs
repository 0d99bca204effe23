//! The messages between the four automata, and between them and the shell.
//!
//! Every edge of the data flow has its message here; there are no callbacks.
//!
//! ```text
//!  shell ── NodeInput ──▶ Node ── Persist ──▶ LogWriter ── Persisted ──▶ Node
//!                          ├──── Committed ──▶ Applier ─── Applied ────▶ Node
//!                          │                    └── Batch ──▶ Committer ── BackendCommitted ──▶
//!                          │                                                   Applier, Node
//!                          └──── Message ────▶ peer plane ── Step ─────▶ Node
//! ```
//!
//! A snapshot of the log: Node ── `save_snapshot` ──▶ Committer (its `.snap` file) ──
//! `SnapshotFileSaved` ──▶ Node ── `Snapshot` ──▶ LogWriter (its record) ── `SnapshotSaved` ──▶ Node.
//!
//! A snapshot to a peer: Node ── `SnapshotWanted` ──▶ Committer ── `OutgoingSnapshot` ──▶ peer
//! plane ── `SnapshotSent` ──▶ Node. One from a peer: plane (file) ── `Step` ──▶ Node ──
//! `Received` ──▶ LogWriter ── `Persisted` ──▶ Node ── `install` ──▶ Applier ── `Install` ──▶
//! Committer ── `Installed` ──▶ Applier ── `Installed` ──▶ Node.

use std::sync::Arc;

use api::error::ApiError;
use api::{raftpb, walpb};
use bytes::Bytes;
use machine::{Effect, Members, Outcome};
use raft::{ConfChange, ConfState, Entry, SnapshotMeta};
use types::{Index, LeaseId, MemberId, ReplyToken, RequestId, Term, WriteId};

/// A request that goes through the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The token that the reply will carry.
    pub token: ReplyToken,
    /// The request id in the header of `data`.
    pub id: RequestId,
    /// An encoded `InternalRaftRequest`, at most `--max-request-bytes`.
    pub data: Bytes,
}

/// An input of Node.
#[derive(Debug)]
pub enum NodeInput {
    /// Propose a request.
    Propose(Proposal),
    /// Answer with a read index: it covers everything committed before now.
    ReadIndex(ReplyToken),
    /// Renew a lease.
    KeepAlive {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The lease's id.
        lease: LeaseId,
        /// Whether another member asks. It may have applied more than this one: then all that is
        /// committed here is applied before the answer.
        for_peer: bool,
    },
    /// Answer with a lease's granted and remaining time to live.
    TimeToLive {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The lease's id.
        lease: LeaseId,
    },
    /// Answer with the ids of all leases.
    Leases(ReplyToken),
    /// A raft message of a peer. A snapshot's file is durable before its message comes.
    Step(raft::Message),
    /// Messages to a peer could not be delivered.
    Unreachable(MemberId),
    /// Nobody listens where a peer did, and its connections broke: its process has ended.
    PeerEnded(MemberId),
    /// After a start: others can be reached, so the first election may come sooner.
    //= etcd 3.7.1: server/etcdserver/server.go#adjustTicks
    AdvanceElection,
    /// A snapshot has arrived at a peer, or was given up.
    SnapshotSent {
        /// The peer.
        peer: MemberId,
        /// Whether it arrived.
        arrived: bool,
    },
    /// Propose a membership change.
    ChangeMembers {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The change; its `id` is a request id of this member.
        change: ConfChange,
    },
    /// Answer whether a learner's log is nearly as long as this leader's.
    IsLearnerReady {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The learner.
        learner: MemberId,
    },
    /// Transfer leadership; answered once the other member leads.
    TransferLeader {
        /// The token that the reply will carry.
        token: ReplyToken,
        /// The member that is to lead.
        to: MemberId,
    },
    /// A received snapshot has replaced the state.
    Installed(Installed),
    /// A write to the log is durable, and so are all before it.
    Persisted(WriteId),
    /// Entries were applied.
    Applied(Applied),
    /// The backend has durably committed everything up to an entry.
    BackendCommitted(BackendCommitted),
    /// A raft snapshot's file is durable: the log may vouch for it.
    SnapshotFileSaved(RaftSnapshot),
    /// A raft snapshot's file and log record are durable.
    SnapshotSaved(Index),
    /// Finish what is in flight and stop; a leader transfers leadership first.
    Stop {
        /// The successor, if there is one.
        successor: Option<MemberId>,
    },
}

/// A received snapshot has replaced the state.
#[derive(Debug)]
pub struct Installed {
    /// The last entry it covers.
    pub index: Index,
    /// The members as of the snapshot.
    pub members: Arc<Members>,
    /// The auth revision as of the snapshot, if authentication is on.
    pub signing_revision: Option<u64>,
    /// Its leases: id, granted seconds, seconds left at the last checkpoint (0: none).
    pub leases: Vec<(LeaseId, i64, i64)>,
}

/// A group of entries was applied.
#[derive(Debug)]
pub struct Applied {
    /// The index of the last of them.
    pub index: Index,
    /// Their effects on Node, in order.
    pub effects: Vec<(Index, Effect)>,
}

/// The backend committed.
#[derive(Clone, Debug)]
pub struct BackendCommitted {
    /// The consistent index that is durable now.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The members as of that entry.
    pub members: Arc<Members>,
}

/// An entry for the Applier.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The committed entry.
    pub entry: Entry,
    /// The token of the call on this member that waits for its outcome, if one does.
    pub token: Option<ReplyToken>,
}

/// A peer needs a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotWanted {
    /// Raft's message; which snapshot it names is decided when the database is read.
    pub message: raft::Message,
    /// The entry that the snapshot must cover.
    pub at_least: Index,
}

/// A snapshot on its way to a peer.
#[derive(Debug)]
pub struct OutgoingSnapshot {
    /// The message, which names the snapshot.
    pub message: raft::Message,
    /// The database as of that snapshot.
    pub database: bolt::ReadTx,
}

/// A membership change as the peer plane needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Another member is reached at these URLs from now on.
    Set {
        /// The member.
        id: MemberId,
        /// Its peer URLs, each `http://host:port` or `https://host:port`.
        urls: Vec<String>,
    },
    /// The member was removed.
    Remove(MemberId),
}

/// A raft snapshot, whose file is to be written and then recorded in the log.
#[derive(Clone, Debug)]
pub struct RaftSnapshot {
    /// The backend durably holds everything up to here.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// The membership as of that entry.
    pub conf_state: ConfState,
    /// The membership in the form that etcd 3.6 reads (disk.md section 3).
    pub data: Bytes,
}

impl RaftSnapshot {
    /// The snapshot of what the backend holds.
    pub(crate) fn of(committed: &BackendCommitted) -> Self {
        Self {
            index: committed.index,
            term: committed.term,
            conf_state: committed.members.conf_state(),
            data: machine::membership::v2_store_json(&committed.members),
        }
    }

    /// The record in the log that vouches for it.
    pub(crate) fn record(&self) -> walpb::Snapshot {
        walpb::Snapshot {
            index: Some(self.index.0),
            term: Some(self.term.0),
            conf_state: Some(self.conf_state.to_wire()),
        }
    }

    /// The contents of its `.snap` file.
    pub(crate) fn into_file(self) -> raftpb::Snapshot {
        raftpb::Snapshot {
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: Some(self.conf_state.to_wire()),
                index: Some(self.index.0),
                term: Some(self.term.0),
            }),
            data: Some(self.data),
        }
    }
}

/// An input of LogWriter.
#[derive(Debug)]
pub enum LogInput {
    /// Write and sync entries and hard state.
    Persist(raft::Persist),
    /// Record the received snapshot that the write begins with, then write the rest.
    Received {
        /// The write.
        persist: raft::Persist,
        /// The membership in the form that etcd 3.6 reads, as the sender wrote it.
        data: Bytes,
    },
    /// Record a snapshot, whose file is durable, and let go of what it covers.
    Snapshot(RaftSnapshot),
}

impl LogInput {
    /// Whether somebody waits for it. A commit index alone may be written with what comes next:
    /// losing it costs nothing.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !matches!(self, LogInput::Persist(persist) if !persist.must_sync)
    }
}

/// The outputs of one turn of Node.
#[derive(Debug, Default)]
pub struct NodeOutput {
    /// For the log writer, in order.
    pub log: Vec<LogInput>,
    /// For the Applier, in order.
    pub committed: Vec<Committed>,
    /// For the Applier, behind `committed`: a durable snapshot to install.
    pub install: Option<SnapshotMeta>,
    /// For the Committer: a snapshot whose file is to be written.
    pub save_snapshot: Option<RaftSnapshot>,
    /// For the Applier: a snapshot of the log covers everything up to here.
    pub snapshot_saved: Option<Index>,
    /// For the peer plane.
    pub messages: Vec<raft::Message>,
    /// For the Committer: snapshots that peers need.
    pub snapshots: Vec<SnapshotWanted>,
    /// For the peer plane, before `messages`.
    pub peers: Vec<PeerChange>,
    /// Messages of peers that raft refused, and why.
    pub refused: Vec<(MemberId, raft::StepError)>,
    /// For the runtimes.
    pub replies: Vec<(ReplyToken, Reply)>,
    /// The state to show, if it changed.
    pub status: Option<NodeStatus>,
    /// Ask the Committer to commit now and say so.
    pub flush: bool,
    /// Everything in flight was answered; the process may end.
    pub stopped: bool,
    /// This member was removed from the cluster a while ago; the process must end.
    pub removed: bool,
}

/// Raft's state as the rest of the process sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// The current term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Index of the last committed entry.
    pub commit: Index,
    /// Index of the last applied entry.
    pub applied: Index,
    /// Whether this member has published its attributes and may serve clients.
    pub ready: bool,
    /// Number of leader changes since the start.
    pub leader_changes: u64,
    /// Number of this member's proposals that wait for their outcome.
    pub pending: u64,
    /// Number of proposals that timed out since the start.
    pub proposals_failed: u64,
    /// Number of read-index rounds that failed since the start, because the leader changed.
    pub reads_failed: u64,
    /// Number of read-index rounds that were given up since the start, without an answer in time.
    pub reads_late: u64,
    /// Number of read indexes asked for again after 500 ms without an answer, since the start.
    pub reads_retried: u64,
    /// The request id of the last of those.
    pub retried_read: u64,
    /// Number of heartbeats that this leader sent late since the start.
    pub late_heartbeats: u64,
    /// Number of leases found expired since the start.
    pub leases_expired: u64,
}

/// A reply of Node or Applier to a waiting call.
#[derive(Debug)]
pub enum Reply {
    /// A proposal was applied. The View in it (or a later one) shows its effects.
    Applied(Box<Outcome>),
    /// A read may be answered from a View at or beyond this index.
    ReadIndex(Index),
    /// A keep-alive's new time to live in seconds; 0 if there is no such lease.
    KeepAlive(i64),
    /// A lease's granted and remaining seconds; `None` if there is no such lease.
    TimeToLive(Option<LeaseTime>),
    /// All leases by remaining time.
    Leases(Vec<LeaseId>),
    /// The keys attached to a lease, ascending.
    LeaseKeys(Vec<Bytes>),
    /// Only the leader can answer: this member.
    Elsewhere(MemberId),
    /// Success: what the call waited for has happened.
    Done,
    /// The call is refused, with etcd's error.
    Refused(ApiError),
    /// The call failed within this member; the text says why.
    Failed(String),
}

/// The time to live of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// Granted, in seconds.
    pub granted: i64,
    /// Remaining, in seconds, rounded down.
    pub remaining: i64,
}

/// An applied group on its way to the backend.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its changes.
    pub batch: Arc<store::Batch>,
    /// The members after it: a raft snapshot must not name later ones.
    pub members: Arc<Members>,
}
