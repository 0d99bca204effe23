//! What applying one entry gives: a reply for its proposer, and effects for the rest of the member.

use std::sync::Arc;

use api::error::ApiError;
use api::etcdserverpb::AlarmMember;
use bytes::Bytes;
use raft::ConfChange;
use store::compact::Compacted;
use types::{Index, LeaseId, MemberId, Revision, Term};

use crate::command::CommandKind;
use crate::membership::Members;

/// What became of an entry.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its place in the log.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// What it asked for; `None` for the start of a term and for changes of membership.
    pub kind: Option<CommandKind>,
    /// The store's revision after it.
    pub revision: Revision,
    /// What the proposer is told.
    pub reply: Result<CommandReply, ApiError>,
    /// What else must happen on this member.
    pub effects: Vec<Effect>,
}

/// The answer to a proposer. Values are encoded `mvccpb.KeyValue` messages.
#[derive(Clone, Debug)]
pub enum CommandReply {
    /// Done; there is nothing to tell but the header.
    Empty,
    /// A put.
    Put(PutReply),
    /// A delete.
    Delete(DeleteReply),
    /// A transaction.
    Txn(Box<TxnReply>),
    /// A compaction was accepted; its physical part goes on.
    Compact {
        /// The revision compacted to.
        revision: Revision,
    },
    /// A lease was granted.
    LeaseGrant {
        /// Its id.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// Alarms that were set, cleared or listed.
    Alarms(Vec<AlarmMember>),
    /// A membership change: the members after it.
    Members(Arc<Members>),
}

/// The answer to a put.
#[derive(Clone, Debug, Default)]
pub struct PutReply {
    /// The value before, if asked for and if there was one.
    pub prev: Option<Bytes>,
}

/// The answer to a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteReply {
    /// Keys deleted.
    pub deleted: i64,
    /// Their values before, if asked for.
    pub prevs: Vec<Bytes>,
}

/// The answer to a range within a transaction.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// What was found, as encoded `kvs` fields.
    pub kvs: Bytes,
    /// Whether the limit cut the rest off.
    pub more: bool,
    /// Keys in the range.
    pub count: i64,
}

/// The answer to a transaction.
#[derive(Clone, Debug, Default)]
pub struct TxnReply {
    /// Whether all compares held.
    pub succeeded: bool,
    /// One answer per operation of the branch taken, with the revision it saw.
    pub responses: Vec<(Revision, OpReply)>,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum OpReply {
    Range(RangeReply),
    Put(PutReply),
    Delete(DeleteReply),
    Txn(TxnReply),
}

/// What the member must do or know after an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A lease exists now. Only a leader runs its clock.
    LeaseGranted {
        /// Its id.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// A lease is gone.
    LeaseRevoked(LeaseId),
    /// A lease has this much left when it is next taken over, in seconds.
    LeaseCheckpoint {
        /// Its id.
        id: LeaseId,
        /// Seconds left.
        remaining: i64,
    },
    /// A membership change was applied, or rejected (`None`). Raft waits for either.
    ConfChange(Option<ConfChange>),
    /// A member told its name and client URLs.
    Attributes {
        /// The member.
        id: MemberId,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
    /// The cluster version is this now.
    ClusterVersion(String),
    /// The cluster is being downgraded to this version, or (`None`) not any more.
    Downgrade(Option<String>),
    /// This member's quota is exceeded: a NOSPACE alarm is due.
    NoSpace,
    /// A compaction has work to do.
    Compaction(Compacted),
}
