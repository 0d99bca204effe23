//! What clients asked and saw, as plain data that any test can record.
//!
//! Times are nanoseconds on one clock of the recorder; only their order matters, except for leases,
//! whose seconds are counted on it.

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    /// Renew this lease.
    LeaseKeepAlive(i64),
    /// The hash at this revision; 0 for the current one.
    HashKv(i64),
    /// A lease ends by itself: nobody asks for it, checkers insert it.
    LeaseExpire(i64),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseKeepAlive(LeaseKeepAliveResponse),
    HashKv(HashKvResponse),
}

impl Response {
    /// The header.
    #[must_use]
    pub fn header(&self) -> Option<&ResponseHeader> {
        match self {
            Response::Range(r) => r.header.as_ref(),
            Response::Put(r) => r.header.as_ref(),
            Response::DeleteRange(r) => r.header.as_ref(),
            Response::Txn(r) => r.header.as_ref(),
            Response::Compact(r) => r.header.as_ref(),
            Response::LeaseGrant(r) => r.header.as_ref(),
            Response::LeaseRevoke(r) => r.header.as_ref(),
            Response::LeaseKeepAlive(r) => r.header.as_ref(),
            Response::HashKv(r) => r.header.as_ref(),
        }
    }

    /// The store's revision in the header; 0 without one.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.header().map_or(0, |h| h.revision)
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With this answer.
    Answered(Response),
    /// It was refused and had no effect.
    Refused(Status),
    /// Nobody knows: it may take effect at any time after the call, or never.
    Unknown,
}

/// Errors after which an operation has certainly had no effect.
const DEFINITE: [ApiError; 21] = [
    ApiError::EmptyKey,
    ApiError::KeyNotFound,
    ApiError::ValueProvided,
    ApiError::LeaseProvided,
    ApiError::TooManyOps,
    ApiError::DuplicateKey,
    ApiError::InvalidSortOption,
    ApiError::Compacted,
    ApiError::FutureRevision,
    ApiError::LeaseNotFound,
    ApiError::LeaseExists,
    ApiError::LeaseTtlTooLarge,
    ApiError::RequestTooLarge,
    ApiError::TooManyRequests,
    ApiError::Corrupt,
    ApiError::NotSupportedForLearner,
    ApiError::PermissionDenied,
    ApiError::UserEmpty,
    ApiError::UserNotFound,
    ApiError::AuthOldRevision,
    ApiError::InvalidAuthToken,
];

impl Outcome {
    /// The outcome of a call that ended with an error: refused if that error is only given to
    /// operations without effect. `database space exceeded` is not (semantics I4).
    #[must_use]
    pub fn of_error(status: Status) -> Self {
        let is = |e: &ApiError| e.code() == status.code && e.text() == status.message;
        let definite = status.code == Code::Unimplemented || DEFINITE.iter().any(is);
        if definite { Outcome::Refused(status) } else { Outcome::Unknown }
    }
}

/// One call of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who called.
    pub client: u32,
    /// When the call began, on the history's clock.
    pub call: u64,
    /// When the outcome was known; `None` if it never was.
    pub returned: Option<u64>,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

impl Operation {
    /// The answer, if there was one.
    #[must_use]
    pub fn response(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Answered(response) => Some(response),
            Outcome::Refused(_) | Outcome::Unknown => None,
        }
    }

    /// When the outcome was known, or the end of time.
    #[must_use]
    pub fn end(&self) -> u64 {
        match self.outcome {
            Outcome::Unknown => u64::MAX,
            Outcome::Answered(_) | Outcome::Refused(_) => self.returned.unwrap_or(u64::MAX),
        }
    }

    /// The request as the server took it: a grant without an id got one.
    #[must_use]
    pub fn taken(&self) -> Request {
        match (&self.request, &self.outcome) {
            (Request::LeaseGrant(r), Outcome::Answered(Response::LeaseGrant(a))) if r.id == 0 => {
                Request::LeaseGrant(LeaseGrantRequest { id: a.id, ttl: r.ttl })
            }
            (request, _) => request.clone(),
        }
    }

    /// Whether this is a read that may be answered from a member's own, older state.
    #[must_use]
    pub fn is_serializable(&self) -> bool {
        match &self.request {
            Request::Range(r) => r.serializable,
            Request::Txn(t) => crate::txn::is_serializable(t),
            Request::HashKv(_) | Request::LeaseKeepAlive(_) => true,
            _ => false,
        }
    }

    /// Whether this only reads.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match &self.request {
            Request::Range(_) | Request::HashKv(_) | Request::LeaseKeepAlive(_) => true,
            Request::Txn(t) => crate::txn::is_read_only(t),
            _ => false,
        }
    }
}

/// One life of a watch on one stream: a create request and what came back for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leg {
    /// The request as it was sent.
    pub request: WatchCreateRequest,
    /// When it was sent.
    pub opened: u64,
    /// What came for it, with the time of each; the first one has `created`. Stream-wide progress
    /// (id -1) that concerns it belongs here too.
    pub responses: Vec<(u64, WatchResponse)>,
    /// Everything up to this revision must have come, unless it was cancelled. A test sets it
    /// where it has waited long enough.
    pub must_reach: Option<i64>,
}

/// What one client watches, over all its connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    /// Who watches.
    pub client: u32,
    /// Its connections in order. Each after the first must resume behind what was seen, unless the
    /// one before was cancelled.
    pub legs: Vec<Leg>,
}

/// What an entry of the replicated log did, as far as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// It carried out an operation, named by its place.
    Operation(usize),
    /// It ended a lease whose time was over.
    Expiry(i64),
}

/// Everything that clients asked and saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Calls, in any order.
    pub operations: Vec<Operation>,
    /// Watches.
    pub watches: Vec<Watch>,
    /// The state that everything began with; `None` for an empty store.
    pub start: Option<crate::State>,
    /// Whether the server compacts by itself, so that compactions nobody asked for are right.
    pub compacts_itself: bool,
    /// The log, if the test can read it: who made a revision whose maker no answer names is then
    /// looked up there instead of tried. It is believed no further than that.
    pub log: Option<Vec<Logged>>,
    /// Whether there is one member only: then it never answers from older state than it has shown.
    pub one_member: bool,
}

impl History {
    /// The state that everything began with.
    #[must_use]
    pub fn start(&self) -> crate::State {
        self.start.clone().unwrap_or_default()
    }
}
