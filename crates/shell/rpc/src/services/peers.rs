//! What members ask each other besides raft: answers for the peer plane, and calls that only the
//! leader can serve sent on to it.
//!
//! Statuses and texts are etcd's, for Go members read them (http.md section 5).
//= etcd 3.7.1: server/etcdserver/api/etcdhttp/peer.go, server/lease/leasehttp/http.go

use std::rc::Rc;
use std::time::{Duration, Instant};

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{
    HashKvRequest, HashKvResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseTimeToLiveResponse, ResponseHeader,
};
use api::leasepb;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use machine::Member;
use member::{ApplierInput, NodeInput, Reply};
use peer::{LeaseError, PromoteError, RemoteMember};
use prost::Message;
use tokio::sync::oneshot;
use types::{LeaseId, MemberId};

use crate::runtime::Runtime;
use crate::services::cluster::{self, Promoted};
use crate::services::maintenance;

/// A request of another member, and where the answer goes.
pub struct PeerCall {
    /// The request; its body was read.
    pub request: Request<Bytes>,
    /// Nobody listens if the peer has gone.
    pub answer: oneshot::Sender<Response<Bytes>>,
}

/// Pause between attempts to reach a leader.
const RETRY: Duration = Duration::from_millis(50);

fn text(status: StatusCode, body: impl Into<String>) -> Response<Bytes> {
    let mut body = body.into();
    body.push('\n');
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .header("X-Content-Type-Options", "nosniff");
    response.body(body.into()).expect("the parts are valid")
}

fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let response = Response::builder().header(header::CONTENT_TYPE, content_type);
    response.body(body.into()).expect("the parts are valid")
}

/// The answer of a member that cannot take the request now.
#[must_use]
pub fn unavailable() -> Response<Bytes> {
    text(StatusCode::SERVICE_UNAVAILABLE, "etcdserver: too many requests")
}

/// Answers requests of other members, for ever.
pub async fn serve(rt: Rc<Runtime>, calls: std::sync::Arc<handover::Inbox<PeerCall>>) {
    let mut new = Vec::new();
    loop {
        calls.recv(&mut new).await;
        for PeerCall { request, answer } in new.drain(..) {
            let rt = Rc::clone(&rt);
            tokio::task::spawn_local(async move {
                let _ = answer.send(respond(&rt, request).await);
            });
        }
    }
}

async fn respond(rt: &Rc<Runtime>, request: Request<Bytes>) -> Response<Bytes> {
    let path = request.uri().path();
    if let Some(id) = path.strip_prefix("/members/promote/") {
        return promote(rt, id).await;
    }
    match path {
        "/members" => members(rt),
        "/members/hashkv" => hash_kv(rt, request.body()).await,
        "/leases" => keep_alive(rt, request.into_body()).await,
        "/leases/internal" => time_to_live(rt, request.into_body()).await,
        "/downgrade/enabled" => downgrade_enabled(rt).await,
        "/version" => whole("application/json", super::http::version_json(rt)),
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn member_array<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<u8> {
    let mut json = vec![b'['];
    for member in members {
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(&member.to_json());
    }
    json.push(b']');
    json.push(b'\n');
    json
}

fn members(rt: &Runtime) -> Response<Bytes> {
    whole("application/json", member_array(rt.view().members.iter()))
}

async fn promote(rt: &Rc<Runtime>, id: &str) -> Response<Bytes> {
    let Ok(number) = id.parse() else {
        return text(StatusCode::NOT_FOUND, format!("member {id} not found in cluster"));
    };
    let promoted = match cluster::promote_here(rt, MemberId(number)).await {
        Ok(Promoted::Here(members)) => Ok(member_array(members.iter())),
        Ok(Promoted::Elsewhere) => {
            let members = promote_on_leader(rt, MemberId(number)).await;
            members.map(|members| member_array(members.iter()))
        }
        Err(status) => Err(status),
    };
    match promoted {
        Ok(json) => whole("application/json", json),
        Err(status) if status == ApiError::MemberNotFound.into() => {
            text(StatusCode::NOT_FOUND, "membership: ID not found")
        }
        Err(status) if status == ApiError::MemberNotLearner.into() => {
            let why = "membership: can only promote a learner member";
            text(StatusCode::PRECONDITION_FAILED, why)
        }
        Err(status) if status == ApiError::LearnerNotReady.into() => {
            text(StatusCode::PRECONDITION_FAILED, ApiError::LearnerNotReady.text())
        }
        Err(_) => {
            let body = r#"{"message":"Internal Server Error"}"#;
            let mut response = whole("application/json", body);
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

async fn keep_alive(rt: &Rc<Runtime>, body: Bytes) -> Response<Bytes> {
    let Ok(request) = LeaseKeepAliveRequest::decode(body) else {
        return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    let lease = LeaseId(request.id);
    match rt.ask(|token| NodeInput::KeepAlive { token, lease, for_peer: true }).await {
        Reply::KeepAlive(0) => text(StatusCode::NOT_FOUND, "lease not found"),
        Reply::KeepAlive(ttl) => {
            rt.handle.metrics.lease_renewed.inc();
            let response = LeaseKeepAliveResponse { header: None, id: request.id, ttl };
            whole("application/protobuf", response.encode_to_vec())
        }
        reply => lease_refused(&reply),
    }
}

fn lease_refused(reply: &Reply) -> Response<Bytes> {
    match reply {
        Reply::Refused(ApiError::TimeoutWaitApplied) => {
            let why = "waiting for node to catch up its applied index has timed out";
            text(StatusCode::REQUEST_TIMEOUT, why)
        }
        Reply::Elsewhere(_) => text(StatusCode::BAD_REQUEST, "not a primary lessor"),
        Reply::Refused(error) => text(StatusCode::BAD_REQUEST, error.text()),
        other => unreachable!("a lease is answered or refused, not {other:?}"),
    }
}

async fn time_to_live(rt: &Rc<Runtime>, body: Bytes) -> Response<Bytes> {
    let Ok(request) = leasepb::LeaseInternalRequest::decode(body) else {
        return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    let request = request.lease_time_to_live_request.unwrap_or_default();
    let lease = LeaseId(request.id);
    let time = match rt.ask(|token| NodeInput::TimeToLive { token, lease }).await {
        Reply::TimeToLive(Some(time)) => time,
        Reply::TimeToLive(None) => return text(StatusCode::NOT_FOUND, "lease not found"),
        Reply::Elsewhere(_) => {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "not a primary lessor");
        }
        reply => return lease_refused(&reply),
    };
    let mut response = LeaseTimeToLiveResponse {
        header: Some(ResponseHeader::default()),
        id: lease.0,
        ttl: time.remaining,
        granted_ttl: time.granted,
        keys: Vec::new(),
    };
    // What is committed may be on its way to apply.
    if request.keys
        && rt.view_at(rt.handle.status.load().commit).await.is_ok()
        && let Ok(Reply::LeaseKeys(keys)) =
            rt.ask_applier(|token| ApplierInput::LeaseKeys { token, lease }).await
    {
        response.keys = keys;
    }
    let response = leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(response) };
    whole("application/protobuf", response.encode_to_vec())
}

async fn downgrade_enabled(rt: &Rc<Runtime>) -> Response<Bytes> {
    match rt.linearizable_view().await {
        Ok(view) => whole("text/plain", view.members.downgrade.is_some().to_string()),
        Err(status) => {
            let why = format!("failed linearized read: {}", status.message);
            text(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

//= etcd 3.7.1: server/etcdserver/corrupt.go#ServeHTTP
async fn hash_kv(rt: &Rc<Runtime>, body: &Bytes) -> Response<Bytes> {
    let Ok(request) = serde_json::from_slice::<serde_json::Value>(body) else {
        return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
    };
    let revision = request["revision"].as_i64().unwrap_or(0);
    match maintenance::hash_at(rt, HashKvRequest { revision }).await {
        Ok(response) => whole("application/json", hash_json(&response)),
        Err(status) if status.code == Code::OutOfRange => {
            // The store's own text, without the server's prefix.
            let why = match status == ApiError::Compacted.into() {
                true => "mvcc: required revision has been compacted",
                false => "mvcc: required revision is a future revision",
            };
            text(StatusCode::BAD_REQUEST, why)
        }
        Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, status.message),
    }
}

/// As Go's JSON shows the message: what is zero is left out.
fn hash_json(response: &HashKvResponse) -> Vec<u8> {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let mut json = format!(r#"{{"header":{{"revision":{revision}}}"#);
    for (name, value) in [
        ("hash", i64::from(response.hash)),
        ("compact_revision", response.compact_revision),
        ("hash_revision", response.hash_revision),
    ] {
        if value != 0 {
            json.push_str(&format!(r#","{name}":{value}"#));
        }
    }
    json.push('}');
    json.into_bytes()
}

/// Where the leader is reached, if one is known.
fn leader_urls(rt: &Runtime) -> Option<Vec<String>> {
    let leader = rt.handle.status.load().leader?;
    rt.view().members.get(leader)?.peer_urls.clone()
}

/// Asks the leader, at one URL after the other, until it answers with something final (`Some`), for
/// as long as a request may take.
async fn on_leader<T, F>(rt: &Runtime, ask: impl Fn(String, Duration) -> F) -> Result<T, Status>
where
    F: Future<Output = Option<Result<T, Status>>>,
{
    let until = Instant::now() + rt.handle.request_timeout;
    loop {
        for url in leader_urls(rt).unwrap_or_default() {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(answer) = ask(url, left).await {
                return answer;
            }
        }
        if Instant::now() >= until {
            //= etcd 3.7.1: server/etcdserver/v3_server.go#waitLeader
            let is_known = rt.handle.status.load().leader.is_some();
            let error = if is_known { ApiError::Timeout } else { ApiError::NoLeader };
            return Err(error.into());
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Renews a lease on the leader; 0 if there is no such lease.
//= etcd 3.7.1: server/etcdserver/v3_server.go#LeaseRenew
pub(super) async fn renew_on_leader(rt: &Runtime, lease: LeaseId) -> Result<i64, Status> {
    on_leader(rt, |url, left| async move {
        match rt.peers.renew(&url, lease, left).await {
            Ok(ttl) => Some(Ok(ttl)),
            Err(LeaseError::NotFound) => Some(Ok(0)),
            Err(LeaseError::Timeout | LeaseError::Other(_)) => None,
        }
    })
    .await
}

/// What is left of a lease, as the leader knows; `None` if there is no such lease.
//= etcd 3.7.1: server/etcdserver/v3_server.go#LeaseTimeToLive
pub(super) async fn time_to_live_on_leader(
    rt: &Runtime,
    lease: LeaseId,
    keys: bool,
) -> Result<Option<LeaseTimeToLiveResponse>, Status> {
    on_leader(rt, |url, left| async move {
        match rt.peers.time_to_live(&url, lease, keys, left).await {
            Ok(response) => Some(Ok(Some(response))),
            Err(LeaseError::NotFound) => Some(Ok(None)),
            Err(LeaseError::Timeout | LeaseError::Other(_)) => None,
        }
    })
    .await
}

/// Promotes a learner on the leader; the members afterwards.
//= etcd 3.7.1: server/etcdserver/server.go#PromoteMember
pub(super) async fn promote_on_leader(rt: &Runtime, id: MemberId) -> Result<Vec<Member>, Status> {
    on_leader(rt, |url, left| async move {
        let error = match rt.peers.promote(&url, id, None, left).await {
            Ok(members) => return Some(Ok(members.into_iter().map(from_remote).collect())),
            Err(PromoteError::NotFound) => ApiError::MemberNotFound,
            Err(PromoteError::NotReady) => ApiError::LearnerNotReady,
            Err(PromoteError::NotLearner) => ApiError::MemberNotLearner,
            Err(PromoteError::Timeout | PromoteError::Other(_)) => return None,
        };
        Some(Err(error.into()))
    })
    .await
}

fn from_remote(member: RemoteMember) -> Member {
    Member {
        id: member.id,
        peer_urls: Some(member.peer_urls),
        is_learner: member.is_learner,
        name: member.name,
        client_urls: member.client_urls,
    }
}
