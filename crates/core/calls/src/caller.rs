//! Who makes a call, and what it may do.
//!
//! The transport makes a [`Caller`]; it goes with the call into every handler and into the header
//! of the log entry. [`authorize`] is asked for every method, for each operation and compare of a
//! transaction, for each watch that is created and each message of a lease stream (invariant 14).
//! What it gives, [`Allowed`], opens the published View ([`crate::PublishedView`]), and is wanted by
//! everything that proposes or creates a watch: a handler that does not ask does not compile.

use std::rc::Rc;

use api::error::{ApiError, Status};
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, request_op::Request,
};
use api::method::{Method, Row};
use types::LeaseId;

use crate::published::PublishedView;

/// The caller of a call. Cheap to copy: without authentication it is nobody and costs no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(Option<Rc<Identity>>);

/// What is known of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user whose token came with the call; empty if none did.
    pub user: String,
    /// The revision of the users and roles for which the token was made.
    pub auth_revision: u64,
    /// Names in the client's certificate, its common name first; empty without one.
    pub certificate: Vec<String>,
}

impl Caller {
    /// A caller whose identity is known.
    #[must_use]
    pub fn known(identity: Identity) -> Self {
        Self(Some(Rc::new(identity)))
    }

    /// The caller's identity, if it is known.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.0.as_deref()
    }

    /// The user's name and the auth revision for the header of a log entry; empty and 0 for nobody.
    #[must_use]
    pub fn signature(&self) -> (&str, u64) {
        self.0.as_deref().map_or(("", 0), |who| (&who.user, who.auth_revision))
    }
}

/// What a call asks for, as far as its method's rule looks at it.
#[derive(Clone, Copy, Debug)]
pub enum Wish<'a> {
    /// Nothing beyond the method itself.
    Method,
    /// A range of keys.
    Range(&'a RangeRequest),
    /// A put.
    Put(&'a PutRequest),
    /// A delete.
    Delete(&'a DeleteRangeRequest),
    /// A transaction; its parts are asked about one by one as well.
    Txn(&'a TxnRequest),
    /// A compare of a transaction.
    Compare(&'a Compare),
    /// A new watch.
    Watch(&'a WatchCreateRequest),
    /// Changing a lease.
    Lease(LeaseId),
    /// Looking at a lease, and perhaps at its keys.
    LeaseTime {
        /// The lease that is looked at.
        lease: LeaseId,
        /// Whether its keys are asked for.
        keys: bool,
    },
    /// Setting, clearing or listing alarms.
    Alarm(AlarmAction),
}

/// The permission to go on that [`authorize`] gives. Nothing else makes one.
#[derive(Clone, Copy, Debug)]
pub struct Allowed(());

impl Allowed {
    /// What a member does by itself needs nobody's permission.
    pub(crate) const BY_ITSELF: Allowed = Allowed(());
}

/// Whether authentication is enabled.
enum Authentication {
    /// All may do everything. It cannot be anything else yet: enabling it is not implemented, and
    /// an entry of another member that enables it stops this one (COMPAT.md).
    Disabled,
}

impl Authentication {
    fn of(_view: &PublishedView) -> Self {
        Self::Disabled
    }
}

/// Whether `caller` may do what it wishes by way of the method of `row`, as of `view`.
///
/// # Errors
/// `PermissionDenied` and etcd's other refusals: the caller is at fault.
pub fn authorize(
    _row: &Row,
    _caller: &Caller,
    view: &PublishedView,
    _wish: Wish<'_>,
) -> Result<Allowed, Status> {
    match Authentication::of(view) {
        Authentication::Disabled => Ok(Allowed(())),
    }
}

/// As [`authorize`] for a transaction: for the whole, for each compare, and for each operation of
/// both branches by its own method. The depth was bounded by validation.
///
/// # Errors
/// As there.
pub fn authorize_txn(
    caller: &Caller,
    view: &PublishedView,
    txn: &TxnRequest,
) -> Result<Allowed, Status> {
    let row = Method::Txn.row();
    let allowed = authorize(row, caller, view, Wish::Txn(txn))?;
    for compare in &txn.compare {
        authorize(row, caller, view, Wish::Compare(compare))?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        authorize_op(caller, view, op)?;
    }
    Ok(allowed)
}

fn authorize_op(caller: &Caller, view: &PublishedView, op: &RequestOp) -> Result<Allowed, Status> {
    match &op.request {
        Some(Request::RequestRange(range)) => {
            authorize(Method::Range.row(), caller, view, Wish::Range(range))
        }
        Some(Request::RequestPut(put)) => {
            authorize(Method::Put.row(), caller, view, Wish::Put(put))
        }
        Some(Request::RequestDeleteRange(delete)) => {
            authorize(Method::DeleteRange.row(), caller, view, Wish::Delete(delete))
        }
        Some(Request::RequestTxn(txn)) => authorize_txn(caller, view, txn),
        // Validation refuses an operation without a request.
        None => Err(ApiError::KeyNotFound.into()),
    }
}
