//! What members say to each other. One variant per message type, each with just its own fields.

use bytes::Bytes;
use types::{Index, MemberId, Term};

use crate::entry::{Entry, EntryKind, SnapshotMeta};

/// One message between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it; for a forwarded proposal or read index, who asked first; for a leader
    /// transfer, the member that shall lead.
    pub from: MemberId,
    /// Whom it is for.
    pub to: MemberId,
    /// The sender's term; 0 in forwarded proposals and read indexes, which belong to no term.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// An entry before a leader has given it its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What `data` means.
    pub kind: EntryKind,
    /// The payload.
    pub data: Bytes,
}

/// Why an append was refused, and where the leader should try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The follower's best guess at the last index where both logs agree.
    pub hint: Index,
    /// The follower's term at `hint`; 0 if unknown.
    pub term: Term,
}

/// The kinds of message (raftpb's `MessageType`, without those that never cross the network).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Proposals on their way to the leader.
    Propose(Vec<Proposal>),
    /// Entries after `prev`, and how far the leader has committed.
    Append {
        /// The index before the first entry.
        prev_index: Index,
        /// The term of the entry at `prev_index`.
        prev_term: Term,
        /// Consecutive entries from `prev_index + 1`.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The log matches up to `index`, or (rejected) does not match at `index`.
    AppendReply {
        /// See above; 0 in the answer to a deposed leader, which only carries the newer term.
        index: Index,
        /// Set if the append was refused.
        rejected: Option<Rejection>,
    },
    /// A request for a vote.
    Vote {
        /// The last index of the candidate's log.
        last_index: Index,
        /// The term of that entry.
        last_term: Term,
        /// Whether the leader asked for this election (then leases do not protect it).
        transfer: bool,
    },
    /// A vote, granted or not.
    VoteReply {
        /// Refused.
        reject: bool,
    },
    /// "Would you vote for me?", which changes nobody's term.
    PreVote {
        /// The last index of the candidate's log.
        last_index: Index,
        /// The term of that entry.
        last_term: Term,
        /// Never set by us; etcd reads it alike.
        transfer: bool,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// Refused.
        reject: bool,
    },
    /// Replace the log by this snapshot. Its data travels beside the message, not through raft.
    Snapshot {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// The legacy store document of `Snapshot.data`; raft neither reads nor writes it.
        data: Bytes,
    },
    /// The leader is alive.
    Heartbeat {
        /// The commit index, capped by what this follower is known to hold.
        commit: Index,
        /// A token to send back unchanged; empty if none.
        context: Bytes,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// The heartbeat's token, unchanged.
        context: Bytes,
    },
    /// Make [`Message::from`] the leader.
    TransferLeader,
    /// Campaign at once: the leader hands over.
    TimeoutNow,
    /// Ask the leader for a read index.
    ReadIndex {
        /// The asker's token.
        context: Bytes,
    },
    /// The leader's answer: reads at `index` or later are linearizable.
    ReadIndexReply {
        /// The read index.
        index: Index,
        /// The asker's token.
        context: Bytes,
    },
    /// A type that we do not know or that etcd's server never sends: only its term counts.
    Unknown(i32),
}

impl Body {
    /// Whether this answers a request, so that only a known member may send it.
    //= etcd 3.7.1: raft/util.go#IsResponseMsg
    pub(crate) fn is_response(&self) -> bool {
        matches!(
            self,
            Body::AppendReply { .. }
                | Body::VoteReply { .. }
                | Body::HeartbeatReply { .. }
                | Body::ReadIndexReply { .. }
                | Body::PreVoteReply { .. }
        )
    }

    /// Whether this may have been sent on for somebody else, so that it carries no own term and
    /// its `from` may be the receiver itself.
    pub(crate) fn is_forwarded(&self) -> bool {
        matches!(self, Body::Propose(_) | Body::ReadIndex { .. } | Body::TransferLeader)
    }
}
