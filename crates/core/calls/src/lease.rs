//! The Lease service.

use std::collections::VecDeque;
use std::rc::Rc;

use api::error::{ApiError, Status};
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use api::method::Method;
use bytes::Bytes;
use env::Failpoint;
use machine::CommandKind;
use member::{ApplierInput, LeaseTime, LeaseWish, NodeInput, Reply};
use prost::Message;
use types::{LeaseId, Revision};

use crate::answer::{Answer, Body, Encoded, Finish, LeaseKeys, ResponseKind, Then};
use crate::caller::{Allowed, Caller, Wish, authorize, permit_keys, permit_leases};
use crate::decode::{decode, decode_in_stream, unchanged};
use crate::host::Measure;
use crate::kv::{Write, check_quota, write};
use crate::member::Member;
use crate::replies::Wait;
use crate::stream::{Out, Source, next, next_now, receive_failed, seal_into, send_sealed};
use crate::{Call, audit, peers};

pub(crate) fn grant(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let mut request: LeaseGrantRequest = decode(message.clone())?;
    if let Some(refused) = check_quota(member, machine::command::LEASE_COST) {
        return Ok(refused);
    }
    let allowed = call.permit(member)?;
    let body = if request.id == 0 {
        //= etcd 3.7.3: server/etcdserver/v3_server.go#LeaseGrant
        while request.id == 0 {
            request.id = (member.next_id().0 & (u64::MAX >> 1)) as i64;
        }
        request.encode_to_vec().into()
    } else {
        unchanged(message, &request)
    };
    write(
        member,
        Write::new(call, CommandKind::LeaseGrant, ResponseKind::Grant, body, allowed),
        None,
    )
}

pub(crate) fn revoke(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: LeaseRevokeRequest = decode(message.clone())?;
    // Whether its keys may be deleted is decided when it is applied.
    let allowed = authorize(member, call.row, &call.caller, &member.view(), Wish::Lease)?;
    let body = unchanged(message, &request);
    write(
        member,
        Write::new(call, CommandKind::LeaseRevoke, ResponseKind::Revoke, body, allowed),
        None,
    )
}

pub(crate) fn time_to_live(
    member: &Rc<Member>,
    call: &Call<'_>,
    message: Bytes,
) -> Result<Answer, Status> {
    let request: LeaseTimeToLiveRequest = decode(message)?;
    let lease = LeaseId(request.id);
    let _: Allowed = authorize(member, call.row, &call.caller, &member.view(), Wish::Lease)?;
    let token = member.begin(|token| NodeInput::TimeToLive { token, lease });
    let keys = if request.keys { LeaseKeys::Included } else { LeaseKeys::Omitted };
    let then = Then::TimeToLive(lease, keys);
    Ok(Answer::Later(token, Finish::new(member.now(), call.caller.clone(), then)))
}

fn time_response(lease: LeaseId, time: LeaseTime) -> LeaseTimeToLiveResponse {
    LeaseTimeToLiveResponse {
        id: lease.0,
        ttl: time.remaining,
        granted_ttl: time.granted,
        ..LeaseTimeToLiveResponse::default()
    }
}

fn no_such_lease(lease: LeaseId) -> LeaseTimeToLiveResponse {
    LeaseTimeToLiveResponse { id: lease.0, ttl: -1, ..LeaseTimeToLiveResponse::default() }
}

fn now(member: &Member) -> Revision {
    member.view().revision()
}

/// Node has told what is left of a lease.
pub(crate) fn finish_time_to_live(
    member: &Rc<Member>,
    caller: &Caller,
    (lease, keys): (LeaseId, LeaseKeys),
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let mut response = match reply {
        Reply::TimeToLive(None) => no_such_lease(lease),
        Reply::TimeToLive(Some(time)) if keys == LeaseKeys::Included => {
            return Ok(waits_for_keys(member, caller.clone(), lease, time));
        }
        Reply::TimeToLive(Some(time)) => time_response(lease, time),
        Reply::Elsewhere(_) => return Ok(waits_for_leader(member, caller.clone(), lease, keys)),
        Reply::Refused(error) => return Err(error.into()),
        other => unreachable!("a time to live is answered by one, not {other:?}"),
    };
    response.header = Some(member.header(now(member)));
    out.put(&response);
    Ok(Answer::Now)
}

/// The keys of a lease, for a caller that may see them; none if what is committed is not applied in
/// time.
///
/// # Errors
/// Applier takes no more questions.
pub(crate) async fn keys_of(
    member: &Member,
    lease: LeaseId,
    _: Allowed,
) -> Result<Vec<Bytes>, Status> {
    // What is committed may be on its way to apply: etcd waits for it as well.
    if member.view_at(member.status().commit).await.is_err() {
        return Ok(Vec::new());
    }
    match member.ask_applier(|token| ApplierInput::LeaseKeys { token, lease }).await {
        Reply::LeaseKeys(keys) => Ok(keys),
        Reply::Refused(error) => Err(error.into()),
        other => unreachable!("keys are answered by keys, not {other:?}"),
    }
}

fn waits_for_keys(member: &Rc<Member>, caller: Caller, lease: LeaseId, time: LeaseTime) -> Answer {
    let member = Rc::clone(member);
    Answer::Waits(Box::pin(async move {
        let allowed = permit_leases(&member, &caller, LeaseWish::Read(lease)).await?;
        let as_of = member.view().auth().signing_revision();
        let mut response = time_response(lease, time);
        response.keys = keys_of(&member, lease, allowed).await?;
        unchanged_since(&member, as_of)?;
        // Other keys may have been attached since.
        permit_keys(&member, &caller, &response.keys)?;
        response.header = Some(member.header(now(&member)));
        Ok(Body::of(&response))
    }))
}

/// Refuses what was permitted by users and roles that are not those of now.
//= etcd 3.7.3: server/etcdserver/v3_server.go#LeaseTimeToLive
fn unchanged_since(member: &Member, signing_revision: Option<u64>) -> Result<(), ApiError> {
    match member.view().auth().signing_revision() {
        Some(now) if signing_revision != Some(now) => Err(ApiError::AuthOldRevision),
        _ => Ok(()),
    }
}

fn waits_for_leader(
    member: &Rc<Member>,
    caller: Caller,
    lease: LeaseId,
    keys: LeaseKeys,
) -> Answer {
    let member = Rc::clone(member);
    Answer::Waits(Box::pin(async move {
        let wants = keys == LeaseKeys::Included;
        let as_of = member.view().auth().signing_revision();
        if wants {
            let _: Allowed = permit_leases(&member, &caller, LeaseWish::Read(lease)).await?;
        }
        let told = peers::time_to_live_on_leader(&member, lease, wants).await?;
        let mut response = told.unwrap_or_else(|| no_such_lease(lease));
        if wants {
            unchanged_since(&member, as_of)?;
            permit_keys(&member, &caller, &response.keys)?;
        }
        response.header = Some(member.header(now(&member)));
        Ok(Body::of(&response))
    }))
}

pub(crate) fn leases(member: &Rc<Member>, call: &Call<'_>, _: Bytes) -> Result<Answer, Status> {
    let _: Allowed = call.permit(member)?;
    let token = member.begin(NodeInput::Leases);
    let caller = call.caller.clone();
    Ok(Answer::Later(token, Finish::new(member.now(), caller, Then::Leases)))
}

pub(crate) fn finish_leases(
    member: &Rc<Member>,
    caller: &Caller,
    reply: Reply,
    out: &mut Encoded,
) -> Result<Answer, Status> {
    let leases = match reply {
        Reply::Leases(leases) => leases,
        Reply::Refused(error) => return Err(error.into()),
        other => unreachable!("a list of leases is answered by one, not {other:?}"),
    };
    let leases: Vec<_> = leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
    if !member.view().auth().is_enabled() {
        let header = Some(member.header(now(member)));
        out.put(&LeaseLeasesResponse { header, leases });
        return Ok(Answer::Now);
    }
    let (member, caller) = (Rc::clone(member), caller.clone());
    Ok(Answer::Waits(Box::pin(async move {
        let _: Allowed = permit_leases(&member, &caller, LeaseWish::ReadAll).await?;
        let header = Some(member.header(now(&member)));
        Ok(Body::of(&LeaseLeasesResponse { header, leases }))
    })))
}

/// The name that metrics give to streams of keep-alives.
const API: &str = "lease-keepalive";
/// Keep-alives of a stream that are asked and answered together at most.
const KEEP_ALIVES_AT_ONCE: usize = 64;
/// Bytes of an answer in its envelope, about.
const RESPONSE_BYTES: usize = 64;

/// A keep-alive that waits for its answer: the lease, and the revision before the renewal.
type Asked = (LeaseId, Revision, Wait<Reply>);

/// How a stream goes on.
type Next = Option<Result<(), Status>>;

/// Renews leases until the client ends the stream. What has come already is asked together and
/// answered together, in order.
pub(crate) async fn keep_alive(
    member: Rc<Member>,
    caller: Caller,
    mut requests: Box<dyn Source>,
    sink: Out,
) -> Result<(), Status> {
    let mut asked = VecDeque::new();
    let failed = |why: &Status| receive_failed(&member, API, why);
    while let Some(message) = next(&mut *requests).await.inspect_err(failed)? {
        let mut end = gather(&member, &caller, message, &mut *requests, &mut asked).await;
        let mut responses = Vec::with_capacity(asked.len() * RESPONSE_BYTES);
        while let Some((lease, revision, wait)) = asked.pop_front() {
            match renewed(&member, lease, wait.await).await {
                Ok(ttl) => {
                    let header = Some(member.header(revision));
                    let response = LeaseKeepAliveResponse { header, id: lease.0, ttl };
                    seal_into(&*sink, &mut responses, &response);
                }
                Err(status) => {
                    end = Some(Err(status));
                    asked.clear();
                }
            }
        }
        if send_sealed(&*sink, responses.into()).await.is_err() {
            break;
        }
        if let Some(end) = end {
            return end;
        }
    }
    Ok(())
}

/// Asks for what has come; how the stream ends behind that, if it does.
async fn gather(
    member: &Member,
    caller: &Caller,
    first: Bytes,
    requests: &mut dyn Source,
    asked: &mut VecDeque<Asked>,
) -> Next {
    let mut message = first;
    loop {
        match ask(member, caller, message).await {
            Ok(one) => asked.push_back(one),
            Err(status) => return Some(Err(status)),
        }
        if asked.len() >= KEEP_ALIVES_AT_ONCE {
            return None;
        }
        match next_now(requests).await? {
            Ok(Some(next)) => message = next,
            Ok(None) => return Some(Ok(())),
            Err(status) => {
                receive_failed(member, API, &status);
                return Some(Err(status));
            }
        }
    }
}

async fn ask(member: &Member, caller: &Caller, message: Bytes) -> Result<Asked, Status> {
    let decoded = decode_in_stream(message).inspect_err(|why| receive_failed(member, API, why));
    let request: LeaseKeepAliveRequest = decoded?;
    let lease = LeaseId(request.id);
    let row = Method::LeaseKeepAlive.row();
    let view = member.view();
    let permitted = async {
        let _: Allowed = authorize(member, row, caller, &view, Wish::Lease)?;
        permit_leases(member, caller, LeaseWish::Change(lease)).await
    };
    let _: Allowed = permitted.await.inspect_err(|status| {
        audit::refused(member, (row, caller), &request, status);
    })?;
    // The revision is that from before the renewal, which may wait for the end of the lease.
    //= etcd 3.7.3: server/etcdserver/api/v3rpc/lease.go#leaseKeepAlive
    let revision = view.revision();
    let delay = member.shared.failpoints.delay(Failpoint::BeforeCheckpointInLeaseRenew);
    if !delay.is_zero() {
        member.sleep(delay).await;
    }
    let wait = member.ask(|token| NodeInput::KeepAlive { token, lease, for_peer: false });
    Ok((lease, revision, wait))
}

/// The lease's new time to live; 0 if there is no such lease.
async fn renewed(member: &Member, lease: LeaseId, reply: Reply) -> Result<i64, Status> {
    match reply {
        Reply::KeepAlive(ttl) => {
            member.measure(Measure::LeaseRenewed);
            Ok(ttl)
        }
        Reply::Elsewhere(_) => peers::renew_on_leader(member, lease).await,
        Reply::Refused(ApiError::LeaseNotFound) => Ok(0),
        Reply::Refused(error) => Err(error.into()),
        other => unreachable!("a keep-alive is answered by one, not {other:?}"),
    }
}
