//! The outcome of applying one entry: a reply to its proposer, and effects on the rest of the member.

use std::fmt;
use std::sync::Arc;

use api::authpb;
use api::error::ApiError;
use api::etcdserverpb::AlarmMember;
use bytes::Bytes;
use raft::ConfChange;
use store::compact::Compacted;
use types::{Index, LeaseId, MemberId, Revision, Term};

use crate::command::CommandKind;
use crate::membership::Members;

/// The result of applying one entry.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The entry's index in the log.
    pub index: Index,
    /// The entry's term.
    pub term: Term,
    /// The command it held; `None` for the first entry of a term and for membership changes.
    pub kind: Option<CommandKind>,
    /// The store's revision after it.
    pub revision: Revision,
    /// The reply to the proposer, or why the command was refused.
    pub reply: Result<CommandReply, ApiError>,
    /// Effects for the rest of the member, in order.
    pub effects: Vec<Effect>,
}

/// The reply to the proposer of a command. Key-values are encoded `mvccpb.KeyValue` messages.
#[derive(Clone, Debug)]
pub enum CommandReply {
    /// Success; the response has a header only.
    Empty,
    /// A put.
    Put(PutReply),
    /// A delete.
    Delete(DeleteReply),
    /// A transaction.
    Txn(Box<TxnReply>),
    /// A compaction was accepted; dead revisions are removed in the background.
    Compact {
        /// The revision compacted to.
        revision: Revision,
    },
    /// A lease was granted.
    LeaseGrant {
        /// The lease's id.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// The alarms that were set, cleared or listed.
    Alarms(Vec<AlarmMember>),
    /// A membership change was applied; the members after it.
    Members(Arc<Members>),
    /// A command of the Auth service.
    Auth(AuthReply),
}

/// The reply to a command of the Auth service.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthReply {
    /// Success; the response has a header only.
    Done,
    /// Whether authentication is on, and the auth revision.
    Status {
        /// Whether it is on.
        enabled: bool,
        /// The auth revision.
        revision: u64,
    },
    /// The names of users, of roles, or of a user's roles, ascending.
    Names(Vec<String>),
    /// The permissions of a role, ascending by key.
    Permissions(Vec<authpb::Permission>),
    /// A user logged in at this auth revision.
    Authenticated {
        /// The auth revision.
        revision: u64,
    },
}

/// The reply to a put.
#[derive(Clone, Debug, Default)]
pub struct PutReply {
    /// The previous key-value, if it was asked for and existed.
    pub prev: Option<Bytes>,
}

/// The reply to a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteReply {
    /// Number of keys deleted.
    pub deleted: i64,
    /// The deleted key-values, if they were asked for.
    pub prevs: Vec<Bytes>,
}

/// The reply to a range within a transaction.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// The key-values found, as encoded `kvs` fields of the response.
    pub kvs: Bytes,
    /// Whether the limit left keys out.
    pub more: bool,
    /// Number of keys in the range, those beyond the limit included.
    pub count: i64,
}

/// The reply to a transaction.
#[derive(Clone, Debug, Default)]
pub struct TxnReply {
    /// Whether every compare held, so that the success branch was taken.
    pub succeeded: bool,
    /// One reply per operation of the branch taken, with the store's revision at it.
    pub responses: Vec<(Revision, OpReply)>,
}

/// The reply to one operation of a transaction.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum OpReply {
    Range(RangeReply),
    Put(PutReply),
    Delete(DeleteReply),
    Txn(TxnReply),
}

/// An effect of an entry on the rest of the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A lease was granted. Only the leader runs its clock.
    LeaseGranted {
        /// The lease's id.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// A lease was revoked, by a client or because it expired.
    LeaseRevoked(LeaseId),
    /// A lease was not revoked, for nobody may or the data is corrupt.
    LeaseKept(LeaseId),
    /// A lease's checkpoint: the next leader starts its clock with this.
    LeaseCheckpoint {
        /// The lease's id.
        id: LeaseId,
        /// Remaining time to live in seconds.
        remaining: i64,
    },
    /// A membership change was applied, or rejected (`None`). Raft waits for either.
    ConfChange(Option<ConfChange>),
    /// A member published its name and client URLs.
    Attributes {
        /// The member.
        id: MemberId,
        /// Its name.
        name: String,
        /// Its client URLs.
        client_urls: Vec<String>,
    },
    /// The cluster version was set.
    ClusterVersion(String),
    /// A downgrade to this version was enabled, or (`None`) ended.
    Downgrade(Option<String>),
    /// This member's quota is exceeded: a NOSPACE alarm is due.
    NoSpace,
    /// A compaction has work to do.
    Compaction(Compacted),
    /// Users, roles or authentication changed: what this member proposes by itself is signed with
    /// this revision from now on, or with none.
    Auth {
        /// The auth revision, if authentication is on.
        signing_revision: Option<u64>,
    },
    /// A user logged in: the token stands for it from now on.
    TokenAssigned {
        /// The user.
        user: String,
        /// The token.
        token: Secret,
    },
    /// The tokens of a user end: its password changed, or it is gone.
    UserTokensEnded(String),
    /// All tokens end: authentication is off.
    TokensEnded,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
