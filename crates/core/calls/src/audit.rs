//! What is told of calls that change something, and of calls that are refused.
//!
//! A call with one request begins an [`Ending`] where it comes in and ends it where its answer goes
//! out ([`Calls`](crate::Calls)), whichever way it took in between. A host that keeps an audit log
//! gets one [`Record`] of each that changes something, also of one whose caller did not wait for the
//! outcome, and of each that was refused for who called; without an audit log an ending is the row
//! of its method, and costs nothing. Streams of requests tell of each message by themselves
//! ([`refused`]). What the records hold is read out of the request by the host, later.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Status};
use api::etcdserverpb::ResponseHeader;
use api::method::{Method, Row, Rule};
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use types::Revision;

use crate::answer::{Answer, Body, Encoded, Local};
use crate::caller::Caller;
use crate::dispatch::Call;
use crate::host::{Event, Host};
use crate::member::Member;
use crate::stream::Serving;

/// Whether calls of a method change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// All of them do, or let a user in, or give the data away as a whole.
    Always,
    /// Their requests say so.
    ByRequest,
    /// None does.
    Never,
}

/// Whether calls of `method` change something. No arm stands for methods that it does not name.
#[must_use]
pub fn changes(method: Method) -> Changes {
    match method {
        Method::Put | Method::DeleteRange | Method::Compact => Changes::Always,
        Method::LeaseGrant | Method::LeaseRevoke => Changes::Always,
        Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::MoveLeader => Changes::Always,
        Method::Defragment | Method::Snapshot => Changes::Always,
        Method::AuthEnable | Method::AuthDisable | Method::Authenticate => Changes::Always,
        Method::UserAdd
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole => Changes::Always,
        Method::RoleAdd
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => Changes::Always,
        Method::Lock | Method::Unlock => Changes::Always,
        Method::Campaign | Method::Proclaim | Method::Resign => Changes::Always,
        Method::Txn | Method::Alarm | Method::Downgrade => Changes::ByRequest,
        Method::Range | Method::RangeStream | Method::Watch => Changes::Never,
        Method::LeaseKeepAlive | Method::LeaseTimeToLive | Method::LeaseLeases => Changes::Never,
        Method::MemberList | Method::Status | Method::Hash | Method::HashKV => Changes::Never,
        Method::AuthStatus
        | Method::UserGet
        | Method::UserList
        | Method::RoleGet
        | Method::RoleList => Changes::Never,
        Method::Leader | Method::Observe => Changes::Never,
        Method::HealthCheck | Method::HealthList | Method::HealthWatch => Changes::Never,
    }
}

/// A call as an audit log tells of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The method's row in the table.
    pub row: &'static Row,
    /// Who called; empty for nobody that is known.
    pub user: Box<str>,
    /// Where the call came from; `None` within a process.
    pub remote: Option<Arc<str>>,
    /// The encoded request, which may hold passwords and values.
    pub request: Bytes,
    /// How it ended.
    pub ended: Ended,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an answer whose header names this revision; 0 if none does.
    Done(Revision),
    /// It was refused for who called.
    Refused(Status),
    /// It failed for another reason.
    Failed(Status),
    /// Its caller did not wait: what it asked for was done, or will be, or not.
    Unanswered,
}

/// What is left to tell of a call when it ends.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    row: Option<&'static Row>,
    /// For the audit log, if there is one.
    entry: Option<Box<Entry>>,
}

/// What a record is made of. One that is dropped tells that its call has no answer.
struct Entry {
    host: Rc<dyn Host>,
    row: &'static Row,
    caller: Caller,
    user: Option<Rc<str>>,
    request: Bytes,
    is_told: bool,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Requests hold secrets.
        f.debug_struct("Entry").field("row", &self.row.path).finish_non_exhaustive()
    }
}

impl Ending {
    /// A call begins.
    #[inline]
    pub(crate) fn begin(member: &Member, call: &Call<'_>, request: &Bytes) -> Self {
        let entry = member.audits.then(|| Entry::new(member, call.row, &call.caller, request));
        Self { row: Some(call.row), entry: entry.flatten().map(Box::new) }
    }

    /// A unary call came as far as this: it ended, or goes on with the ending.
    #[inline]
    pub(crate) fn follow(
        self,
        member: &Rc<Member>,
        caller: &Caller,
        answer: &mut Result<Answer, Status>,
        out: &Encoded,
    ) {
        match answer {
            Ok(Answer::Now) => self.done(out.message()),
            Ok(Answer::Later(_, finish)) => finish.ending = self,
            Ok(Answer::Waits(body)) => {
                if self.is_heard(member) {
                    let inner = std::mem::replace(body, Box::pin(std::future::pending()));
                    *body = self.wait(member, caller, inner);
                }
            }
            Err(status) => self.failed(member, caller, status),
        }
    }

    /// The same stream of responses, whose end is told.
    pub(crate) fn of_stream(
        self,
        member: &Rc<Member>,
        caller: &Caller,
        serving: Serving,
    ) -> Serving {
        if !self.is_heard(member) {
            return serving;
        }
        let (member, caller) = (Rc::clone(member), caller.clone());
        Box::pin(async move {
            let result = serving.await;
            match &result {
                Ok(()) => self.done(&[]),
                Err(status) => self.failed(&member, &caller, status),
            }
            result
        })
    }

    /// Whether there is something to tell, however a call goes that takes more than one wait.
    fn is_heard(&self, member: &Member) -> bool {
        let may_be_refused = || self.row.is_some_and(|row| row.rule != Rule::Open);
        self.entry.is_some() || may_be_refused() && member.view().auth().is_enabled()
    }

    fn wait(
        self,
        member: &Rc<Member>,
        caller: &Caller,
        body: Local<'static, Result<Body, Status>>,
    ) -> Local<'static, Result<Body, Status>> {
        let (member, caller) = (Rc::clone(member), caller.clone());
        Box::pin(async move {
            let result = body.await;
            match &result {
                Ok(Body::Whole(encoded)) => self.done(encoded.message()),
                Ok(Body::Pieces(_)) => self.done(&[]),
                Err(status) => self.failed(&member, &caller, status),
            }
            result
        })
    }

    #[inline]
    fn done(self, response: &[u8]) {
        if let Some(mut entry) = self.entry {
            entry.done(response);
        }
    }

    fn failed(self, member: &Member, caller: &Caller, status: &Status) {
        let Some(row) = self.row else { return };
        let is_refusal = is_refusal(member, row, caller, status);
        if is_refusal {
            tell(member, row, caller, status);
        }
        if let Some(mut entry) = self.entry {
            entry.user = entry.user.take().or_else(|| named(member, caller));
            let end = if is_refusal { Ended::Refused } else { Ended::Failed };
            entry.tell(end(status.clone()));
        }
    }
}

impl Entry {
    /// `None` for a call that there is nothing to tell of, however it ends.
    fn new(member: &Member, row: &'static Row, caller: &Caller, request: &Bytes) -> Option<Self> {
        if row.rule == Rule::Open && changes(row.method) == Changes::Never {
            return None;
        }
        Some(Self {
            host: Rc::clone(&member.host),
            row,
            caller: caller.clone(),
            // Whoever ends its own token is still who asked for that.
            user: named(member, caller),
            request: request.clone(),
            is_told: false,
        })
    }

    fn done(&mut self, response: &[u8]) {
        let is_change = changes(self.row.method) != Changes::Never;
        self.tell(Ended::Done(if is_change { revision_of(response) } else { Revision(0) }));
    }

    fn tell(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let is_change = changes(self.row.method) != Changes::Never;
        if is_change || matches!(ended, Ended::Refused(_)) {
            self.host.audit(Record {
                row: self.row,
                user: self.user.as_deref().unwrap_or_default().into(),
                remote: self.caller.remote().cloned(),
                request: std::mem::take(&mut self.request),
                ended,
            });
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tell(Ended::Unanswered);
    }
}

/// Tells of a message of a stream that was refused, if that was for who called.
pub(crate) fn refused(
    member: &Member,
    (row, caller): (&'static Row, &Caller),
    request: &impl Message,
    status: &Status,
) {
    if !is_refusal(member, row, caller, status) {
        return;
    }
    tell(member, row, caller, status);
    if member.audits {
        let request = request.encode_to_vec().into();
        if let Some(mut entry) = Entry::new(member, row, caller, &request) {
            entry.tell(Ended::Refused(status.clone()));
        }
    }
}

/// Tells of a login that was refused: the name is known there only.
//= etcd 3.7.3: server/etcdserver/v3_server.go#Authenticate
pub(crate) fn login_refused(member: &Member, caller: &Caller, user: &str, status: &Status) {
    if *status != ApiError::AuthNotEnabled.into() {
        let remote = caller.remote().map_or("", |remote| remote);
        member.host.log(Event::LoginRefused { user, remote, why: status });
    }
}

fn tell(member: &Member, row: &'static Row, caller: &Caller, status: &Status) {
    // Refused logins have their own line.
    if row.method != Method::Authenticate {
        let user = named(member, caller);
        let user = user.as_deref().unwrap_or_default();
        let remote = caller.remote().map_or("", |remote| remote);
        member.host.log(Event::Refused { row, user, remote, why: status });
    }
}

/// The user of a call; `None` for nobody that is known.
fn named(member: &Member, caller: &Caller) -> Option<Rc<str>> {
    if caller.is_nobody() {
        return None;
    }
    let view = member.view();
    let auth = view.auth();
    if auth.is_enabled() {
        return member.identify(caller, auth).ok().flatten().map(|known| known.user);
    }
    let names = caller.identity().map(|identity| &identity.certificate);
    names.and_then(|names| names.first()).map(|name| name.as_str().into())
}

/// Whether a call failed for who called, and not for what it asked.
fn is_refusal(member: &Member, row: &Row, caller: &Caller, status: &Status) -> bool {
    let is = |error: ApiError| *status == error.into();
    let concerns_users = row.service == Method::UserGet.row().service;
    if [ApiError::PermissionDenied, ApiError::InvalidAuthToken, ApiError::AuthOldRevision]
        .into_iter()
        .any(is)
    {
        return true;
    }
    if row.method == Method::Authenticate {
        return [ApiError::AuthFailed, ApiError::NoPasswordUser].into_iter().any(is);
    }
    // Those who manage users are told of names that are wrong with the same texts.
    is(ApiError::UserEmpty) && (!concerns_users || named(member, caller).is_none())
        || is(ApiError::UserNotFound) && !concerns_users
}

/// The revision in the header of an encoded response; 0 if it has none.
fn revision_of(mut response: &[u8]) -> Revision {
    let mut header = || {
        let (1, WireType::LengthDelimited) = decode_key(&mut response).ok()? else { return None };
        let length = usize::try_from(decode_varint(&mut response).ok()?).ok()?;
        let header = (length <= response.remaining()).then(|| &response[..length])?;
        ResponseHeader::decode(header).ok()
    };
    Revision(header().map_or(0, |header| header.revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_of_a_response_is_its_headers() {
        let header = ResponseHeader { revision: 7, raft_term: 2, ..ResponseHeader::default() };
        let response = api::etcdserverpb::PutResponse { header: Some(header), prev_kv: None };
        let encoded = response.encode_to_vec();
        assert_eq!(revision_of(&encoded), Revision(7));
        for cut in 0..encoded.len() {
            assert_eq!(revision_of(&encoded[..cut]), Revision(0));
        }
        let health = api::etcdserverpb::StatusResponse { version: "3".into(), ..<_>::default() };
        assert_eq!(revision_of(&health.encode_to_vec()), Revision(0));
    }
}
