//! Every method on the client port, arm by arm.
//!
//! [`handler`] names each method: one that is added to the table without an arm here does not
//! compile (`tests/exhaustive.rs` sees that), nor does a row without a rule of authorization.

use std::rc::Rc;

use api::error::{ApiError, Status};
use api::method::{Learner, Method, Need, Row, Rule};
use bytes::Bytes;
use member::Reply;

use crate::answer::{Answer, Body, Encoded, Finish, Then};
use crate::audit::Ending;
use crate::caller::{Allowed, Caller, Wish, authorize};
use crate::feed::Responses;
use crate::host::Measure;
use crate::leaderless::Leaderless;
use crate::member::Member;
use crate::stream::{Out, Serving, Source};
use crate::watch::Watches;
use crate::{
    auth, cluster, downgrade, election, health, kv, lease, lock, maintenance, range_stream,
};

/// A call without its messages, as the transport makes it.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method's row in the table.
    pub row: &'static Row,
    /// Who calls.
    pub caller: Caller,
    /// Whether the client wants to be refused when there is no leader (`hasleader`).
    pub requires_leader: bool,
    /// The version of the API that the client states (`client-api-version`).
    pub client_version: Option<&'a [u8]>,
}

/// Answers the calls of one runtime.
pub struct Calls {
    member: Rc<Member>,
    watches: Rc<Watches>,
    leaderless: Rc<Leaderless>,
}

impl Calls {
    /// The calls of a runtime.
    #[must_use]
    pub fn new(member: Rc<Member>) -> Rc<Self> {
        let watches = Watches::new(Rc::clone(&member));
        Rc::new(Self { member, watches, leaderless: Rc::default() })
    }

    /// The member that answers.
    #[must_use]
    pub fn member(&self) -> &Rc<Member> {
        &self.member
    }

    /// Checks that hold for every call, before its first message is looked at: whether a learner
    /// serves the method, the client's version text and its wish for a leader.
    ///
    /// # Errors
    /// The client's, or that this member cannot serve it now.
    //= etcd 3.7.3: server/etcdserver/api/v3rpc/interceptor.go#newUnaryInterceptor
    pub fn check(&self, call: &Call<'_>) -> Result<(), Status> {
        // A range is looked at when it is decoded.
        if call.row.learner == Learner::Never && self.member.shared.is_learner() {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        let version = call.client_version.unwrap_or(b"unknown");
        match std::str::from_utf8(version) {
            Ok(version) => {
                self.member.measure(Measure::Client { kind: call.row.kind, version });
            }
            Err(_) => return Err(ApiError::InvalidClientApiVersion.into()),
        }
        if call.requires_leader && self.member.status().leader.is_none() {
            return Err(ApiError::NoLeader.into());
        }
        Ok(())
    }

    /// Answers a unary call: the encoded request in, the encoded response in `out`, which is empty.
    ///
    /// # Errors
    /// The status to end the call with; what `out` holds then is worthless.
    pub fn unary(
        self: &Rc<Self>,
        call: &Call<'_>,
        message: Bytes,
        out: &mut Encoded,
    ) -> Result<Answer, Status> {
        let ending = Ending::begin(&self.member, call, &message);
        let mut answer = self.check(call).and_then(|()| self.answer(call, message, out));
        ending.follow(&self.member, &call.caller, &mut answer, out);
        answer
    }

    /// As [`Calls::unary`], of a call that was checked.
    pub(crate) fn answer(
        self: &Rc<Self>,
        call: &Call<'_>,
        message: Bytes,
        out: &mut Encoded,
    ) -> Result<Answer, Status> {
        if self.member.is_behind(&call.caller) {
            return Ok(self.once_known(call, message));
        }
        match handler(call.row.method) {
            Handler::Now(answer) => answer(&self.member, call, message, out),
            Handler::Later(answer) => {
                let sent = message.clone();
                let answered = answer(&self.member, call, message);
                match answered {
                    Err(refused) if is_decided_when_applied(call.row, &refused) => {
                        Ok(self.once_current(call, sent))
                    }
                    answered => answered,
                }
            }
            Handler::Inner(answer) => answer(self, call, message),
            Handler::OneRequest(_) | Handler::Stream(_) => {
                unreachable!("{} is a stream", call.row.name)
            }
        }
    }

    /// The call of somebody whose login is not applied here yet.
    fn once_known(self: &Rc<Self>, call: &Call<'_>, message: Bytes) -> Answer {
        let (calls, call) = (Rc::clone(self), call.without_text());
        Answer::Waits(Box::pin(async move {
            let member = &calls.member;
            member.catch_up(&call.caller).await;
            let mut out = Encoded::default();
            let answer = match handler(call.row.method) {
                Handler::Now(answer) => answer(member, &call, message, &mut out)?,
                Handler::Later(answer) => answer(member, &call, message)?,
                Handler::Inner(answer) => answer(&calls, &call, message)?,
                _ => unreachable!("the call is unary"),
            };
            complete(&calls, answer, out).await
        }))
    }

    /// A change that was refused by what this member knows of users and roles. Others may know of
    /// newer ones: etcd decides when it is applied, this here when everything that was acknowledged
    /// before is.
    fn once_current(self: &Rc<Self>, call: &Call<'_>, message: Bytes) -> Answer {
        let (calls, call) = (Rc::clone(self), call.without_text());
        Answer::Waits(Box::pin(async move {
            calls.member.linearizable_view().await?;
            let answer = match handler(call.row.method) {
                Handler::Later(answer) => answer(&calls.member, &call, message)?,
                _ => unreachable!("the call changes something"),
            };
            complete(&calls, answer, Encoded::default()).await
        }))
    }

    /// Goes on with a call that was [`Answer::Later`], when its reply is there.
    ///
    /// # Errors
    /// As [`Calls::unary`].
    pub fn finish(
        &self,
        mut finish: Finish,
        reply: Reply,
        out: &mut Encoded,
    ) -> Result<Answer, Status> {
        let (ending, caller) = (std::mem::take(&mut finish.ending), finish.caller.clone());
        let mut answer = self::finish(&self.member, finish, reply, out);
        ending.follow(&self.member, &caller, &mut answer, out);
        answer
    }

    /// Answers a unary call by all of its response, for whoever has no window to heed.
    ///
    /// # Errors
    /// The status to end the call with.
    pub async fn call(self: &Rc<Self>, call: &Call<'_>, message: Bytes) -> Result<Vec<u8>, Status> {
        let mut out = Encoded::default();
        let answer = self.unary(call, message, &mut out)?;
        self.gathered(answer, out).await
    }

    /// As [`Calls::call`], of a call that another makes, which was checked and is what is told of.
    pub(crate) async fn whole(
        self: &Rc<Self>,
        call: &Call<'_>,
        message: Bytes,
    ) -> Result<Vec<u8>, Status> {
        let mut out = Encoded::default();
        let answer = self.answer(call, message, &mut out)?;
        self.gathered(answer, out).await
    }

    async fn gathered(self: &Rc<Self>, answer: Answer, out: Encoded) -> Result<Vec<u8>, Status> {
        match complete(self, answer, out).await? {
            Body::Whole(message) => Ok(message.into_message()),
            Body::Pieces(mut pieces) => {
                let mut message = Vec::new();
                while let Some(piece) = pieces.next().await? {
                    message.extend_from_slice(&piece);
                }
                Ok(message)
            }
        }
    }

    /// The responses to a call with one request.
    pub fn responses(self: &Rc<Self>, call: &Call<'_>, request: Bytes) -> Responses {
        Responses::new(|sink| match self.check(call) {
            Ok(()) => self.one_request(call, request, sink),
            Err(status) => refused(status),
        })
    }

    /// The responses to a call with streams both ways.
    pub fn responses_to_stream(
        self: &Rc<Self>,
        call: &Call<'_>,
        requests: Box<dyn Source>,
    ) -> Responses {
        Responses::new(|sink| match self.check(call) {
            Ok(()) => self.stream(call, requests, sink),
            Err(status) => refused(status),
        })
    }

    /// Serves a call with one request and a stream of responses until its status. It must have
    /// passed [`Calls::check`] before its request was read.
    #[must_use]
    pub fn one_request(self: &Rc<Self>, call: &Call<'_>, request: Bytes, sink: Out) -> Serving {
        if self.member.is_behind(&call.caller) {
            let (calls, call) = (Rc::clone(self), call.without_text());
            return Box::pin(async move {
                calls.member.catch_up(&call.caller).await;
                calls.serve_one_request(&call, request, sink).await
            });
        }
        self.serve_one_request(call, request, sink)
    }

    fn serve_one_request(self: &Rc<Self>, call: &Call<'_>, request: Bytes, sink: Out) -> Serving {
        let ending = Ending::begin(&self.member, call, &request);
        let serving = match handler(call.row.method) {
            Handler::OneRequest(serve) => serve(self, call, request, sink),
            Handler::Now(_) | Handler::Later(_) | Handler::Inner(_) | Handler::Stream(_) => {
                unreachable!("{} has no stream of responses only", call.row.name)
            }
        };
        let serving = ending.of_stream(&self.member, &call.caller, serving);
        self.guard(call, serving)
    }

    /// Serves a call with streams both ways until its status. It must have passed
    /// [`Calls::check`].
    #[must_use]
    pub fn stream(
        self: &Rc<Self>,
        call: &Call<'_>,
        requests: Box<dyn Source>,
        sink: Out,
    ) -> Serving {
        if self.member.is_behind(&call.caller) {
            let (calls, call) = (Rc::clone(self), call.without_text());
            return Box::pin(async move {
                calls.member.catch_up(&call.caller).await;
                calls.serve_stream(&call, requests, sink).await
            });
        }
        self.serve_stream(call, requests, sink)
    }

    fn serve_stream(&self, call: &Call<'_>, requests: Box<dyn Source>, sink: Out) -> Serving {
        let serving = match handler(call.row.method) {
            Handler::Stream(serve) => serve(self, call, requests, sink),
            Handler::Now(_) | Handler::Later(_) | Handler::Inner(_) | Handler::OneRequest(_) => {
                unreachable!("{} has no streams both ways", call.row.name)
            }
        };
        self.guard(call, serving)
    }

    /// Ends a stream that requires a leader when there is none for long.
    fn guard(&self, call: &Call<'_>, serving: Serving) -> Serving {
        if !call.requires_leader {
            return serving;
        }
        Box::pin(Rc::clone(&self.leaderless).guard(Rc::clone(&self.member), serving))
    }
}

/// Goes on with a call whose reply is there.
fn finish(
    member: &Rc<Member>,
    finish: Finish,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    match finish.then {
        Then::Range(..) => kv::finish_range(member, finish, reply, out),
        Then::Members(_) => cluster::finish_member_list(member, finish, reply, out),
        Then::Applied(kind, response) => {
            kv::finish_write(member, (kind, response), finish, reply, out)
        }
        Then::Compacted(revision) => kv::finish_compaction(member, revision, reply, out),
        Then::Defragmented => maintenance::finish_defragment(member, &finish, reply, out),
        Then::Leases => lease::finish_leases(member, &finish.caller, reply, out),
        Then::TimeToLive(lease, keys) => {
            lease::finish_time_to_live(member, &finish.caller, (lease, keys), reply, out)
        }
        Then::Moved => cluster::finish_move_leader(reply, out),
    }
}

/// Waits for whatever an answer waits for.
async fn complete(calls: &Rc<Calls>, mut answer: Answer, mut out: Encoded) -> Result<Body, Status> {
    loop {
        answer = match answer {
            Answer::Now => return Ok(Body::Whole(out)),
            Answer::Waits(body) => return body.await,
            Answer::Later(token, then) => {
                let reply = calls.member.wait(token).await;
                calls.finish(then, reply, &mut out)?
            }
        };
    }
}

/// Whether etcd decides only when it applies a call that was refused like this.
fn is_decided_when_applied(row: &Row, refused: &Status) -> bool {
    let is_applied = match row.rule {
        Rule::Key(Need::Write) | Rule::Txn | Rule::RootIfEnabled => true,
        Rule::RootOrSelf | Rule::RootOrHolder => true,
        Rule::Root => row.service == Method::AuthDisable.row().service,
        _ => false,
    };
    let by_rights = [ApiError::PermissionDenied, ApiError::UserNotFound, ApiError::UserEmpty];
    is_applied && by_rights.into_iter().any(|error| *refused == error.into())
}

impl Call<'_> {
    /// The same, once its version text was looked at.
    fn without_text(&self) -> Call<'static> {
        let Call { row, caller, requires_leader, client_version: _ } = self;
        let (requires_leader, caller) = (*requires_leader, caller.clone());
        Call { row, caller, requires_leader, client_version: None }
    }

    /// Whether the method is allowed to the caller, where its rule looks at nothing else.
    ///
    /// # Errors
    /// As [`authorize`].
    pub(crate) fn permit(&self, member: &Member) -> Result<Allowed, Status> {
        authorize(member, self.row, &self.caller, &member.view(), Wish::Method)
    }
}

/// How the calls of a method are answered.
enum Handler {
    /// One request; the response may be written at once.
    Now(fn(&Rc<Member>, &Call<'_>, Bytes, &mut Encoded) -> Result<Answer, Status>),
    /// One request whose response never is: something must be waited for.
    Later(fn(&Rc<Member>, &Call<'_>, Bytes) -> Result<Answer, Status>),
    /// One request, many responses.
    OneRequest(fn(&Rc<Calls>, &Call<'_>, Bytes, Out) -> Serving),
    /// Many of both.
    Stream(fn(&Calls, &Call<'_>, Box<dyn Source>, Out) -> Serving),
    /// One request, answered by way of other calls.
    Inner(fn(&Rc<Calls>, &Call<'_>, Bytes) -> Result<Answer, Status>),
}

/// The handler of each method. No arm stands for methods that it does not name.
fn handler(method: Method) -> Handler {
    use Handler::{Inner, Later, Now, OneRequest, Stream};
    match method {
        Method::Range => Now(kv::range),
        Method::RangeStream => OneRequest(range_stream),
        Method::Put => Later(kv::put),
        Method::DeleteRange => Later(kv::delete),
        Method::Txn => Later(kv::txn),
        Method::Compact => Later(kv::compact),
        Method::Watch => Stream(watch),
        Method::LeaseGrant => Later(lease::grant),
        Method::LeaseRevoke => Later(lease::revoke),
        Method::LeaseKeepAlive => Stream(keep_alive),
        Method::LeaseTimeToLive => Later(lease::time_to_live),
        Method::LeaseLeases => Later(lease::leases),
        Method::MemberAdd => Later(cluster::member_add),
        Method::MemberRemove => Later(cluster::member_remove),
        Method::MemberUpdate => Later(cluster::member_update),
        Method::MemberList => Now(cluster::member_list),
        Method::MemberPromote => Later(cluster::member_promote),
        Method::Alarm => Later(maintenance::alarm),
        Method::Status => Now(maintenance::status),
        Method::Defragment => Later(maintenance::defragment),
        Method::Hash => Later(maintenance::hash),
        Method::HashKV => Later(maintenance::hash_kv),
        Method::Snapshot => OneRequest(snapshot),
        Method::MoveLeader => Later(cluster::move_leader),
        Method::Downgrade => Later(downgrade::downgrade),
        Method::Authenticate => Later(auth::authenticate),
        Method::HealthCheck => Now(health::check),
        Method::HealthList => Now(health::list),
        Method::HealthWatch => OneRequest(health_watch),
        Method::UserAdd => Later(auth::user_add),
        Method::UserChangePassword => Later(auth::change_password),
        Method::AuthEnable
        | Method::AuthDisable
        | Method::AuthStatus
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => Later(auth::command),
        Method::Lock => Inner(lock::lock),
        Method::Unlock => Inner(lock::unlock),
        Method::Campaign => Inner(election::campaign),
        Method::Proclaim => Inner(election::proclaim),
        Method::Leader => Inner(election::leader),
        Method::Observe => OneRequest(election::observe),
        Method::Resign => Inner(election::resign),
    }
}

fn watch(calls: &Calls, call: &Call<'_>, requests: Box<dyn Source>, sink: Out) -> Serving {
    Box::pin(Rc::clone(&calls.watches).stream(call.caller.clone(), requests, sink))
}

fn keep_alive(calls: &Calls, call: &Call<'_>, requests: Box<dyn Source>, sink: Out) -> Serving {
    let member = Rc::clone(&calls.member);
    Box::pin(lease::keep_alive(member, call.caller.clone(), requests, sink))
}

fn range_stream(calls: &Rc<Calls>, call: &Call<'_>, request: Bytes, sink: Out) -> Serving {
    let member = Rc::clone(&calls.member);
    Box::pin(range_stream::range_stream(member, call.caller.clone(), request, sink))
}

fn snapshot(calls: &Rc<Calls>, call: &Call<'_>, _: Bytes, sink: Out) -> Serving {
    match call.permit(&calls.member) {
        Ok(allowed) => Box::pin(maintenance::snapshot(Rc::clone(&calls.member), allowed, sink)),
        Err(status) => refused(status),
    }
}

fn health_watch(calls: &Rc<Calls>, call: &Call<'_>, request: Bytes, sink: Out) -> Serving {
    match call.permit(&calls.member) {
        Ok(allowed) => Box::pin(health::watch(allowed, request, sink)),
        Err(status) => refused(status),
    }
}

/// A stream that ends at once.
fn refused(status: Status) -> Serving {
    Box::pin(std::future::ready(Err(status)))
}

#[cfg(test)]
mod tests {
    use api::method::{CallType, METHODS};

    use super::*;

    #[test]
    fn handlers_are_of_their_methods_kind() {
        for row in METHODS {
            let fits = match handler(row.method) {
                Handler::Now(_) | Handler::Later(_) | Handler::Inner(_) => {
                    row.kind == CallType::Unary
                }
                Handler::OneRequest(_) => row.kind == CallType::ServerStream,
                Handler::Stream(_) => row.kind == CallType::BidiStream,
            };
            assert!(fits, "{row:?}");
        }
    }
}
