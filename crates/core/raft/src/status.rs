//! What a member can be asked about itself.

use types::{Index, MemberId, Term};

use crate::entry::ConfState;

/// A member's part in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether an election would succeed.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// How a leader sends to one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicationState {
    /// One append at a time, to find where the logs agree.
    #[default]
    Probe,
    /// A window of appends ahead of the answers.
    Replicate,
    /// Nothing, until a snapshot has arrived.
    Snapshot,
}

/// What a leader knows about one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub id: MemberId,
    /// Its log is known to be equal up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How it is sent to.
    pub state: ReplicationState,
    /// Whether it is a learner.
    pub learner: bool,
    /// Whether it was heard from since the last quorum check.
    pub recent_active: bool,
    /// Whether appends to it are paused.
    pub paused: bool,
    /// Appends in flight.
    pub inflight: usize,
}

/// A copy of a member's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: MemberId,
    /// Its term.
    pub term: Term,
    /// Its vote in that term.
    pub vote: Option<MemberId>,
    /// Its commit index.
    pub commit: Index,
    /// What its state machine reported as applied.
    pub applied: Index,
    /// The first entry still in memory.
    pub first: Index,
    /// The last entry of its log.
    pub last: Index,
    /// The end of the durable part of its log.
    pub persisted: Index,
    /// The leader it knows.
    pub leader: Option<MemberId>,
    /// Its role.
    pub role: Role,
    /// The member it hands leadership to.
    pub transferee: Option<MemberId>,
    /// The membership it works with.
    pub conf_state: ConfState,
    /// On a leader, every member (itself too), ascending; empty otherwise.
    pub progress: Vec<PeerStatus>,
}
