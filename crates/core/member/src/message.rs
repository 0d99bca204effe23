//! What travels between the four automata, and between them and the shell.
//!
//! Every edge of DESIGN's data flow has its message here, by name; there are no callbacks.
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
    /// Where the outcome goes.
    pub token: ReplyToken,
    /// The id in the header of `data`.
    pub id: RequestId,
    /// An encoded `InternalRaftRequest`, at most `--max-request-bytes`.
    pub data: Bytes,
}

/// What Node is told.
#[derive(Debug)]
pub enum NodeInput {
    /// Put this through the log.
    Propose(Proposal),
    /// Answer with an index that covers everything committed before now.
    ReadIndex(ReplyToken),
    /// Renew a lease.
    KeepAlive {
        /// Where the answer goes.
        token: ReplyToken,
        /// Which lease.
        lease: LeaseId,
        /// Another member asks, which may have applied more: what is committed comes first.
        for_peer: bool,
    },
    /// Tell what is left of a lease.
    TimeToLive {
        /// Where the answer goes.
        token: ReplyToken,
        /// Which lease.
        lease: LeaseId,
    },
    /// List all leases.
    Leases(ReplyToken),
    /// A message of a peer. A snapshot's file is durable before its message comes.
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
    /// Put a membership change through the log.
    ChangeMembers {
        /// Where the outcome goes.
        token: ReplyToken,
        /// The change; its `id` is a request id of this member.
        change: ConfChange,
    },
    /// Tell whether a learner has nearly all that this leader has.
    IsLearnerReady {
        /// Where the answer goes.
        token: ReplyToken,
        /// The learner.
        learner: MemberId,
    },
    /// Hand leadership over; answered when the other one leads.
    TransferLeader {
        /// Where the answer goes.
        token: ReplyToken,
        /// Who shall lead.
        to: MemberId,
    },
    /// A received snapshot is the state now.
    Installed(Installed),
    /// A write is durable, and all before it.
    Persisted(WriteId),
    /// Entries were applied.
    Applied(Applied),
    /// The backend holds everything up to an entry.
    BackendCommitted(BackendCommitted),
    /// A raft snapshot's file is durable: the log may vouch for it.
    SnapshotFileSaved(RaftSnapshot),
    /// A raft snapshot's file and log record are durable.
    SnapshotSaved(Index),
    /// Finish what is in flight and stop; a leader hands over first.
    Stop {
        /// To whom, if there is somebody.
        successor: Option<MemberId>,
    },
}

/// A snapshot replaced the state.
#[derive(Debug)]
pub struct Installed {
    /// The last entry it covers.
    pub index: Index,
    /// Who the members are now.
    pub members: Arc<Members>,
    /// Its leases: id, granted seconds, seconds left at the last checkpoint (0: none).
    pub leases: Vec<(LeaseId, i64, i64)>,
}

/// A group of entries was applied.
#[derive(Debug)]
pub struct Applied {
    /// The last of them.
    pub index: Index,
    /// What Node must know of them, in order.
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
    /// The entry.
    pub entry: Entry,
    /// Who waits for its outcome on this member.
    pub token: Option<ReplyToken>,
}

/// A peer needs a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotWanted {
    /// Raft's message; which snapshot it names is decided when the database is read.
    pub message: raft::Message,
    /// The snapshot must cover this.
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

/// What the peer plane must know of a membership change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Another member is reached at these URLs from now on.
    Set {
        /// The member.
        id: MemberId,
        /// Its peer URLs, each `http://host:port` or `https://host:port`.
        urls: Vec<String>,
    },
    /// It is no member any more.
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

/// What the log writer is told.
#[derive(Debug)]
pub enum LogInput {
    /// Write this.
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

/// What Node does after it handled its inputs.
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

/// What others may know of raft's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// The current term.
    pub term: Term,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// Whether that is this member.
    pub is_leader: bool,
    /// The last committed entry.
    pub commit: Index,
    /// The last applied entry.
    pub applied: Index,
    /// Whether this member has published its attributes and may serve clients.
    pub ready: bool,
    /// Times the leader changed since the start.
    pub leader_changes: u64,
    /// Proposals of this member that wait for their outcome.
    pub pending: u64,
    /// Proposals that timed out, since the start.
    pub proposals_failed: u64,
    /// Groups of linearizable reads that got no index, since the start.
    pub reads_failed: u64,
    /// Heartbeats that this leader sent late, since the start.
    pub late_heartbeats: u64,
    /// Leases found expired, since the start.
    pub leases_expired: u64,
}

/// An answer for a waiting call.
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
    /// Another member, the leader, must be asked.
    Elsewhere(MemberId),
    /// What was waited for has happened.
    Done,
    /// The call failed.
    Refused(ApiError),
    /// The call failed for a reason of this member's own.
    Failed(String),
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// Seconds as granted.
    pub granted: i64,
    /// Seconds left, rounded down.
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
