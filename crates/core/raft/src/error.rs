//! Everything that can go wrong, one enum per operation, by who is at fault.

use std::fmt;

use types::{Index, MemberId, Term};

use crate::confchange::ConfChangeError;

/// Why [`Raft::new`](crate::Raft::new) refused: the caller's configuration, or a disk whose
/// contents contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The id is 0 or one of the two highest values, which raft reserves.
    ReservedId,
    /// The heartbeat interval is 0 ticks.
    NoHeartbeat,
    /// The election timeout is not longer than the heartbeat interval.
    ElectionTooShort,
    /// No append may be in flight.
    NoInflight,
    /// The entries do not follow the snapshot and each other, or a term decreases.
    EntriesOutOfOrder {
        /// The first misplaced entry.
        index: Index,
    },
    /// The hard state commits more than the log holds.
    CommitBeyondLog {
        /// The hard state's commit index.
        commit: Index,
        /// The end of the log.
        last: Index,
    },
    /// More was applied than the log holds, or less than the log's snapshot covers.
    AppliedOutsideLog {
        /// The applied index.
        applied: Index,
        /// The index of the snapshot that the log starts after.
        snapshot: Index,
        /// The end of the log.
        last: Index,
    },
    /// The recovered membership contradicts itself.
    InvalidConfState(ConfChangeError),
}

/// Why a message was not handled. The sender is at fault unless the variant says otherwise; the
/// message had no effect, except that its term may have been adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepError {
    /// A message that must carry a term has none.
    MissingTerm,
    /// A term that no number of elections can have led to.
    ImpossibleTerm(Term),
    /// The sender is nobody or the receiver itself.
    BadSender,
    /// Entries with gaps, decreasing terms, or terms beyond the sender's.
    MalformedEntries {
        /// The index before the first entry.
        prev: Index,
    },
    /// A proposal without entries.
    EmptyProposal,
    /// A proposed membership change that cannot be decoded.
    MalformedConfChange,
    /// An answer from somebody who is not in the configuration. Nobody's fault: it may have been
    /// removed just now.
    UnknownPeer(MemberId),
    /// A forwarded proposal that cannot be accepted now. Nobody's fault.
    Dropped(ProposeError),
    /// The leader says that more is committed than this log holds: this member has lost entries
    /// that it had acknowledged (etcd panics here).
    CommitBeyondLog {
        /// The leader's commit index.
        commit: Index,
        /// The end of our log.
        last: Index,
    },
    /// A follower acknowledged more than was ever sent.
    AckBeyondLog {
        /// The acknowledged index.
        index: Index,
        /// The end of our log.
        last: Index,
    },
    /// A snapshot whose membership contradicts itself.
    InvalidConfState(ConfChangeError),
}

/// Why a proposal was not taken. It is in no log and will not be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// No leader is known; try again when there is one.
    NoLeader,
    /// The leader is handing over its office.
    TransferInProgress,
    /// This leader is no longer in the configuration.
    Removed,
    /// The log's positions are used up.
    LogFull,
    /// Another membership change is in the log and not yet applied.
    ConfChangePending,
    /// The joint configuration must be left first, or there is none to leave.
    ConfChangeNotNow,
    /// The change cannot be applied to the membership in force, for example because no voter
    /// would be left.
    ConfChangeImpossible,
}

/// Why [`Raft::propose_as_leader`](crate::Raft::propose_as_leader) refused: this member does not
/// lead that term, or is handing over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// The term asked for.
    pub wanted: Term,
    /// The term this member is in.
    pub term: Term,
}

/// Why bytes are no message of ours. The sender is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Not a protobuf message of this type.
    Protobuf,
    /// A type that a member only sends to itself.
    LocalMessage(i32),
    /// An entry type that does not exist.
    UnknownEntryType(i32),
    /// A membership change type that does not exist.
    UnknownConfChangeType(i32),
    /// A read index or its answer without exactly one context.
    NoContext,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedId => f.write_str("the member id is reserved"),
            Self::NoHeartbeat => f.write_str("heartbeat ticks must be greater than 0"),
            Self::ElectionTooShort => {
                f.write_str("election ticks must be greater than heartbeat ticks")
            }
            Self::NoInflight => f.write_str("appends in flight must be greater than 0"),
            Self::EntriesOutOfOrder { index } => {
                write!(f, "log entry {index} does not follow the one before it")
            }
            Self::CommitBeyondLog { commit, last } => {
                write!(f, "commit index {commit} is beyond the end of the log {last}")
            }
            Self::AppliedOutsideLog { applied, snapshot, last } => {
                write!(f, "applied index {applied} is outside the log ({snapshot} to {last})")
            }
            Self::InvalidConfState(error) => write!(f, "invalid membership: {error}"),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingTerm => f.write_str("message without a term"),
            Self::ImpossibleTerm(term) => write!(f, "message of the impossible term {term}"),
            Self::BadSender => f.write_str("message with an impossible sender"),
            Self::MalformedEntries { prev } => write!(f, "malformed entries after {prev}"),
            Self::EmptyProposal => f.write_str("proposal without entries"),
            Self::MalformedConfChange => f.write_str("malformed membership change"),
            Self::UnknownPeer(id) => write!(f, "answer from {id}, which is not a member"),
            Self::Dropped(error) => write!(f, "proposal dropped: {error}"),
            Self::CommitBeyondLog { commit, last } => write!(
                f,
                "commit index {commit} is beyond the end of the log {last}: entries were lost"
            ),
            Self::AckBeyondLog { index, last } => {
                write!(f, "acknowledged index {index} is beyond the end of the log {last}")
            }
            Self::InvalidConfState(error) => write!(f, "snapshot with invalid membership: {error}"),
        }
    }
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoLeader => "no leader",
            Self::TransferInProgress => "leader transfer in progress",
            Self::Removed => "this leader was removed",
            Self::LogFull => "no log positions left",
            Self::ConfChangePending => "another membership change is not yet applied",
            Self::ConfChangeNotNow => "wrong state of a joint membership change",
            Self::ConfChangeImpossible => "impossible membership change",
        })
    }
}

impl fmt::Display for NotLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the leader of term {} (now in term {})", self.wanted, self.term)
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protobuf => f.write_str("not a raft message"),
            Self::LocalMessage(kind) => write!(f, "message type {kind} is local to a member"),
            Self::UnknownEntryType(kind) => write!(f, "unknown entry type {kind}"),
            Self::UnknownConfChangeType(kind) => write!(f, "unknown conf change type {kind}"),
            Self::NoContext => f.write_str("read index without exactly one context"),
        }
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for StepError {}
impl std::error::Error for ProposeError {}
impl std::error::Error for NotLeader {}
impl std::error::Error for WireError {}
