//! Who makes a call, and what it may do.
//!
//! The transport makes a [`Caller`] of the token that came with the call and of the client's
//! certificate; it goes with the call into every handler. Who that is, is asked where something is
//! decided ([`Member::identify`]), and signs the log entry. [`authorize`] is asked for every method,
//! each watch that is created and each message of a lease stream (invariant 14); it looks at the
//! method's rule and leaves the decision to [`machine::Auth::permit`], which the machine asks again
//! when an entry is applied. What it gives, [`Allowed`], opens the published View
//! ([`crate::PublishedView`]), and is wanted by everything that proposes or creates a watch: a
//! handler that does not ask does not compile.

use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Status};
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmType, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, WatchCreateRequest,
};
use api::method::{Row, Rule};
use bytes::Bytes;
use machine::Auth;
use machine::auth::{Attached, Want, Who};
use member::{ApplierInput, LeaseWish, Reply};

use crate::credential::Credential;
use crate::member::Member;
use crate::published::PublishedView;

/// The caller of a call. Cheap to copy: nobody costs no memory.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    credential: Option<Rc<Credential>>,
    identity: Option<Rc<Identity>>,
}

/// What is known of a caller by its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Names in the client's certificate, its common name first; empty without one.
    pub certificate: Vec<String>,
    /// Where it comes from, as a text for people: an address and a port, or `unix`.
    pub remote: Option<Arc<str>>,
}

impl Caller {
    /// A caller whose connection tells something of it.
    #[must_use]
    pub fn known(identity: Identity) -> Self {
        Self { credential: None, identity: Some(Rc::new(identity)) }
    }

    /// The same with the token that came with its call, if one did.
    #[must_use]
    pub fn with(self, credential: Option<Rc<Credential>>) -> Self {
        Self { credential, ..self }
    }

    /// The same for a call that came through the JSON gateway, whose certificate is not its
    /// client's.
    //= etcd 3.7.3: server/auth/store.go#AuthInfoFromTLS (grpcgateway-accept)
    #[must_use]
    pub fn through_gateway(self) -> Self {
        let Some(Identity { remote: Some(remote), .. }) = self.identity() else {
            return Self { identity: None, ..self };
        };
        let identity = Identity { remote: Some(Arc::clone(remote)), ..Identity::default() };
        Self { identity: Some(Rc::new(identity)), ..self }
    }

    /// What its connection tells of it.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Where the call comes from.
    pub(crate) fn remote(&self) -> Option<&Arc<str>> {
        self.identity().and_then(|identity| identity.remote.as_ref())
    }

    /// The token that came with the call.
    pub(crate) fn credential(&self) -> Option<&Credential> {
        self.credential.as_deref()
    }

    /// Whether nothing tells who it is.
    pub(crate) fn is_nobody(&self) -> bool {
        self.credential.is_none()
            && self.identity().is_none_or(|known| known.certificate.is_empty())
    }
}

/// A user that a caller was found to be.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) user: Rc<str>,
    /// The auth revision at which it was identified.
    pub(crate) revision: u64,
}

impl Known {
    pub(crate) fn who(known: Option<&Self>) -> Who<'_> {
        known.map_or_else(Who::default, |known| Who { user: &known.user, revision: known.revision })
    }
}

impl Member {
    /// Who a caller is while authentication is on: the user of its token, else of its certificate.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    //= etcd 3.7.3: server/etcdserver/v3_server.go#AuthInfoFromCtx
    pub(crate) fn identify(&self, caller: &Caller, auth: &Auth) -> Result<Option<Known>, ApiError> {
        if let Some(credential) = caller.credential() {
            return self.find(credential, auth.revision()).map(Some);
        }
        if !self.shared.logins.client_cert_auth {
            return Ok(None);
        }
        let names = caller.identity().map(|identity| &identity.certificate);
        let user = names.and_then(|names| names.first());
        Ok(user.map(|user| Known { user: user.as_str().into(), revision: auth.revision() }))
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
    /// A transaction, with all that is in it.
    Txn(&'a TxnRequest),
    /// A new watch.
    Watch(&'a WatchCreateRequest),
    /// Something with a lease, whose keys [`permit_leases`] asks about.
    Lease,
    /// Setting, clearing or listing alarms.
    Alarm(AlarmAction),
    /// Seeing a user's roles.
    User(&'a str),
    /// Seeing a role's permissions.
    Role(&'a str),
}

/// The permission to go on that [`authorize`] gives. Nothing else makes one.
#[derive(Clone, Copy, Debug)]
pub struct Allowed(());

impl Allowed {
    /// What a member does by itself needs nobody's permission.
    pub(crate) const BY_ITSELF: Allowed = Allowed(());
}

/// Whether `caller` may do what it wishes by way of the method of `row`, as of `view`.
///
/// # Errors
/// `PermissionDenied` and etcd's other refusals: the caller is at fault.
pub fn authorize(
    member: &Member,
    row: &Row,
    caller: &Caller,
    view: &PublishedView,
    wish: Wish<'_>,
) -> Result<Allowed, Status> {
    let auth = view.auth();
    if !auth.is_enabled() || row.rule == Rule::Open {
        return Ok(Allowed(()));
    }
    let known = member.identify(caller, auth)?;
    let ask = |want| auth.permit(Known::who(known.as_ref()), want, Attached::AtApply);
    match (row.rule, wish) {
        (Rule::ValidToken, _) => Ok(()),
        (Rule::User | Rule::LeaseKeysWrite | Rule::LeaseKeysRead | Rule::AllLeaseKeysRead, _)
        | (Rule::RootUnlessGet, Wish::Alarm(AlarmAction::Get)) => {
            known.as_ref().map(|_| ()).ok_or(ApiError::UserEmpty)
        }
        (Rule::Root | Rule::RootIfEnabled | Rule::RootUnlessGet, _) => ask(Want::Root),
        (Rule::RootOrSelf, Wish::User(user)) => ask(Want::SeeUser(user)),
        (Rule::RootOrHolder, Wish::Role(role)) => ask(Want::SeeRole(role)),
        (Rule::Key(_), Wish::Range(range)) => {
            ask(Want::Read { key: &range.key, range_end: &range.range_end })
                .and_then(|()| current(auth, known.as_ref()))
        }
        (Rule::WatchCreate, Wish::Watch(watch)) => {
            // No key is the smallest one.
            let key = if watch.key.is_empty() { &[0] } else { &watch.key[..] };
            ask(Want::Read { key, range_end: &watch.range_end })
        }
        (Rule::Key(_), Wish::Put(put)) => ask(Want::Put(put)),
        (Rule::Key(_), Wish::Delete(delete)) => ask(Want::Delete(delete)),
        (Rule::Txn, Wish::Txn(txn)) => ask(Want::Txn(txn)),
        // Default deny.
        (
            Rule::Open
            | Rule::Key(_)
            | Rule::Txn
            | Rule::WatchCreate
            | Rule::RootOrSelf
            | Rule::RootOrHolder
            | Rule::Inner,
            _,
        ) => Err(ApiError::PermissionDenied),
    }?;
    Ok(Allowed(()))
}

/// What is read is of the same View as the users and roles that permit it, so that nothing can
/// change in between. But a token of later users and roles than this member knows gets nothing.
//= etcd 3.7.3: server/etcdserver/v3_server.go#doSerialize
fn current(auth: &Auth, known: Option<&Known>) -> Result<(), ApiError> {
    match known {
        Some(known) if known.revision > auth.revision() => Err(ApiError::AuthOldRevision),
        _ => Ok(()),
    }
}

/// As [`authorize`], for a transaction that only reads.
///
/// # Errors
/// As there.
pub(crate) fn authorize_reading_txn(
    member: &Member,
    row: &Row,
    caller: &Caller,
    view: &PublishedView,
    txn: &TxnRequest,
) -> Result<Allowed, Status> {
    let allowed = authorize(member, row, caller, view, Wish::Txn(txn))?;
    let auth = view.auth();
    if auth.is_enabled() {
        current(auth, member.identify(caller, auth)?.as_ref())?;
    }
    Ok(allowed)
}

/// As [`authorize`], for a write of keys that costs so much of the quota. Under an alarm that will
/// refuse it when it is applied, that refusal comes first, as in etcd, and nothing is decided here.
///
/// # Errors
/// As there.
pub(crate) fn authorize_write(
    member: &Member,
    row: &Row,
    caller: &Caller,
    (wish, cost): (Wish<'_>, u64),
) -> Result<Allowed, Status> {
    let view = member.view();
    let (auth, alarms) = (view.auth(), view.alarms());
    let is_refused =
        alarms.is_set(AlarmType::Corrupt) || cost > 0 && alarms.is_set(AlarmType::Nospace);
    if auth.is_enabled() && is_refused {
        member.identify(caller, auth)?;
        return Ok(Allowed(()));
    }
    authorize(member, row, caller, &view, wish)
}

/// Whether `caller` may see keys that it is about to be shown.
///
/// # Errors
/// As [`authorize`].
pub(crate) fn permit_keys(member: &Member, caller: &Caller, keys: &[Bytes]) -> Result<(), Status> {
    let view = member.view();
    let auth = view.auth();
    if !auth.is_enabled() {
        return Ok(());
    }
    let known = member.identify(caller, auth)?;
    let ask = |key| {
        let want = Want::Read { key, range_end: &[] };
        auth.permit(Known::who(known.as_ref()), want, Attached::AtApply)
    };
    Ok(keys.iter().try_for_each(|key| ask(key))?)
}

/// Whether `caller` may do something that depends on the keys attached to leases, which only
/// Applier knows.
///
/// # Errors
/// As [`authorize`]; Applier takes no more questions.
//= etcd 3.7.3: server/etcdserver/v3_server.go#checkLeaseRenew, #checkLeaseTimeToLive
pub(crate) async fn permit_leases(
    member: &Member,
    caller: &Caller,
    wish: LeaseWish,
) -> Result<Allowed, Status> {
    let view = member.view();
    let auth = view.auth();
    if !auth.is_enabled() {
        return Ok(Allowed(()));
    }
    let known = member.identify(caller, auth)?.ok_or(ApiError::UserEmpty)?;
    if auth.permit(Known::who(Some(&known)), Want::Root, Attached::AtApply).is_ok() {
        return Ok(Allowed(()));
    }
    let (user, revision) = (known.user.to_string(), known.revision);
    let question = |token| ApplierInput::PermitLeases { token, user, revision, wish };
    match member.ask_applier(question).await {
        Reply::Done => Ok(Allowed(())),
        Reply::Refused(error) => Err(error.into()),
        other => unreachable!("a permission is given or refused, not {other:?}"),
    }
}
