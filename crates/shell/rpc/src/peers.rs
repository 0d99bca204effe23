//! What members ask each other besides raft: answers for the peer plane, and calls that only the
//! leader can serve sent on to it.
//!
//! Statuses and texts are etcd's, for Go members read them (http.md section 5).
//= etcd 3.7.1: server/etcdserver/api/etcdhttp/peer.go, server/lease/leasehttp/http.go

use std::rc::Rc;

use api::error::ApiError;
use api::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use api::leasepb;
use bytes::Bytes;
use calls::peers::{Answered, Asked, PeerAnswer, PeerError, PeerHash, PeerVersions, Question};
use calls::{Caller, Credential, Member};
use http::{HeaderValue, Request, Response, StatusCode, header};
use machine::Member as ClusterMember;
use peer::{Client, ClientError, HashError, LeaseError, PromoteError, RemoteMember};
use prost::Message;
use tokio::sync::oneshot;
use types::{ClusterId, LeaseId, MemberId, Revision};

use crate::http::version_json;

/// A request of another member, and where the answer goes.
pub struct PeerCall {
    /// The request; its body was read.
    pub request: Request<Bytes>,
    /// Nobody listens if the peer has gone.
    pub answer: oneshot::Sender<Response<Bytes>>,
}

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
pub async fn serve(member: Rc<Member>, calls: std::sync::Arc<handover::Inbox<PeerCall>>) {
    let mut new = Vec::new();
    loop {
        calls.recv(&mut new).await;
        for PeerCall { request, answer } in new.drain(..) {
            let member = Rc::clone(&member);
            tokio::task::spawn_local(async move {
                let _ = answer.send(respond(&member, request).await);
            });
        }
    }
}

async fn respond(member: &Rc<Member>, request: Request<Bytes>) -> Response<Bytes> {
    if request.uri().path() == "/version" {
        return whole("application/json", version_json(member));
    }
    match read(&request) {
        Ok(question) => {
            // The token of the client on whose behalf the other member asks.
            let token = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            let token = token.filter(|token| !token.is_empty());
            let credential = token.map(|token| Rc::new(Credential::of(token)));
            let caller = Caller::default().with(credential);
            shown(question, calls::peers::answer(member, question, &caller).await)
        }
        Err((status, why)) => text(status, why),
    }
}

/// The question of a request; status and text for one that holds none.
fn read(request: &Request<Bytes>) -> Result<Question, (StatusCode, String)> {
    let (path, body) = (request.uri().path(), request.body());
    let malformed = || (StatusCode::BAD_REQUEST, "error unmarshalling request".to_owned());
    if let Some(id) = path.strip_prefix("/members/promote/") {
        return match id.parse() {
            Ok(number) => Ok(Question::Promote(MemberId(number))),
            Err(_) => Err((StatusCode::NOT_FOUND, format!("member {id} not found in cluster"))),
        };
    }
    Ok(match path {
        "/members" => Question::Members,
        "/members/hashkv" => {
            let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| malformed())?;
            Question::HashKv(Revision(json["revision"].as_i64().unwrap_or(0)))
        }
        "/leases" => {
            let request = LeaseKeepAliveRequest::decode(body.clone()).map_err(|_| malformed())?;
            Question::Renew(LeaseId(request.id))
        }
        "/leases/internal" => {
            let request = leasepb::LeaseInternalRequest::decode(body.clone());
            let request = request.map_err(|_| malformed())?;
            let request = request.lease_time_to_live_request.unwrap_or_default();
            Question::TimeToLive { lease: LeaseId(request.id), keys: request.keys }
        }
        "/downgrade/enabled" => Question::DowngradeEnabled,
        _ => return Err((StatusCode::NOT_FOUND, "404 page not found".to_owned())),
    })
}

/// An answer as etcd's HTTP shows it.
fn shown(question: Question, answer: Answered) -> Response<Bytes> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return refused(question, why),
    };
    match answer {
        PeerAnswer::Members(members) | PeerAnswer::Promoted(members) => {
            whole("application/json", member_array(&members))
        }
        PeerAnswer::Renewed(ttl) => {
            let id = if let Question::Renew(lease) = question { lease.0 } else { 0 };
            let response = LeaseKeepAliveResponse { header: None, id, ttl };
            whole("application/protobuf", response.encode_to_vec())
        }
        PeerAnswer::TimeToLive(response) => {
            let lease_time_to_live_response = Some(response);
            let response = leasepb::LeaseInternalResponse { lease_time_to_live_response };
            whole("application/protobuf", response.encode_to_vec())
        }
        PeerAnswer::Hash(hash) => whole("application/json", hash_json(&hash)),
        PeerAnswer::DowngradeEnabled(enabled) => whole("text/plain", enabled.to_string()),
        PeerAnswer::Versions(_) => unreachable!("answered without a question"),
    }
}

/// A refusal as etcd's HTTP shows it.
fn refused(question: Question, why: PeerError) -> Response<Bytes> {
    match (question, why) {
        (_, PeerError::LeaseNotFound) => text(StatusCode::NOT_FOUND, "lease not found"),
        (Question::TimeToLive { .. }, PeerError::NotLeader) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "not a primary lessor")
        }
        (_, PeerError::NotLeader) => text(StatusCode::BAD_REQUEST, "not a primary lessor"),
        (_, PeerError::MemberNotFound) => text(StatusCode::NOT_FOUND, "membership: ID not found"),
        (_, PeerError::NotLearner) => {
            let why = "membership: can only promote a learner member";
            text(StatusCode::PRECONDITION_FAILED, why)
        }
        (_, PeerError::LearnerNotReady) => {
            text(StatusCode::PRECONDITION_FAILED, ApiError::LearnerNotReady.text())
        }
        // The store's own text, without the server's prefix.
        (_, PeerError::Compacted) => {
            text(StatusCode::BAD_REQUEST, "mvcc: required revision has been compacted")
        }
        (_, PeerError::FutureRevision) => {
            text(StatusCode::BAD_REQUEST, "mvcc: required revision is a future revision")
        }
        (_, PeerError::NotApplied) => {
            let why = "waiting for node to catch up its applied index has timed out";
            text(StatusCode::REQUEST_TIMEOUT, why)
        }
        (Question::Promote(_), PeerError::Other(_)) => {
            let body = r#"{"message":"Internal Server Error"}"#;
            let mut response = whole("application/json", body);
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
        (Question::Renew(_) | Question::TimeToLive { .. }, PeerError::Other(why)) => {
            text(StatusCode::BAD_REQUEST, why)
        }
        (_, PeerError::Other(why)) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
        (_, PeerError::ClusterMismatch) => {
            text(StatusCode::PRECONDITION_FAILED, ApiError::ClusterIdMismatch.text())
        }
    }
}

fn member_array(members: &[ClusterMember]) -> Vec<u8> {
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

/// As Go's JSON shows the message: what is zero is left out.
fn hash_json(hash: &PeerHash) -> Vec<u8> {
    let mut json = format!(r#"{{"header":{{"revision":{}}}"#, hash.revision);
    for (name, value) in [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compact_revision.0),
        ("hash_revision", hash.hash_revision.0),
    ] {
        if value != 0 {
            json.push_str(&format!(r#","{name}":{value}"#));
        }
    }
    json.push('}');
    json.into_bytes()
}

/// Asks another member over HTTP, at one of its addresses after the other.
pub async fn ask(client: &Client, cluster: ClusterId, asked: &Asked) -> Answered {
    let mut answer = Err(PeerError::Other("no URL".to_owned()));
    if asked.question == Question::Version {
        let versions = client.version(&asked.urls, asked.patience).await.map_err(other)?;
        return Ok(PeerAnswer::Versions(PeerVersions {
            server: versions.server,
            cluster: Some(versions.cluster),
            storage: Some(versions.storage),
        }));
    }
    for url in &asked.urls {
        answer = ask_at(client, cluster, url, asked).await;
        let is_final = match (&asked.question, &answer) {
            (_, Ok(_)) => true,
            (Question::Renew(_) | Question::TimeToLive { .. }, Err(why)) => {
                *why == PeerError::LeaseNotFound
            }
            (Question::Promote(_), Err(why)) => !matches!(why, PeerError::Other(_)),
            (_, Err(_)) => false,
        };
        if is_final {
            break;
        }
    }
    answer
}

async fn ask_at(client: &Client, cluster: ClusterId, url: &str, asked: &Asked) -> Answered {
    let urls = std::slice::from_ref;
    let (patience, authorization) = (asked.patience, asked.authorization.as_ref());
    match asked.question {
        Question::Renew(lease) => {
            let renewed = client.renew(url, lease, patience).await;
            renewed.map(PeerAnswer::Renewed).map_err(lease_refusal)
        }
        Question::TimeToLive { lease, keys } => {
            let told = client.time_to_live(url, lease, keys, patience).await;
            told.map(PeerAnswer::TimeToLive).map_err(lease_refusal)
        }
        Question::Promote(id) => match client
            .promote(url, id, authorization.map(|token| &*token.0), patience)
            .await
        {
            Ok(members) => Ok(PeerAnswer::Promoted(members.into_iter().map(from_remote).collect())),
            Err(PromoteError::NotFound) => Err(PeerError::MemberNotFound),
            Err(PromoteError::NotLearner) => Err(PeerError::NotLearner),
            Err(PromoteError::NotReady) => Err(PeerError::LearnerNotReady),
            Err(PromoteError::Timeout) => Err(PeerError::Other("timeout".to_owned())),
            Err(PromoteError::Other(why)) => Err(other(why)),
        },
        Question::HashKv(revision) => {
            match client.hash_kv(url, cluster, revision, patience).await {
                Ok(hash) => Ok(PeerAnswer::Hash(PeerHash {
                    revision: hash.revision,
                    hash: hash.hash,
                    compact_revision: hash.compact_revision,
                    hash_revision: hash.hash_revision,
                })),
                Err(HashError::Compacted) => Err(PeerError::Compacted),
                Err(HashError::FutureRevision) => Err(PeerError::FutureRevision),
                Err(HashError::ClusterMismatch) => Err(PeerError::ClusterMismatch),
                Err(HashError::Other(why)) => Err(other(why)),
            }
        }
        Question::DowngradeEnabled => {
            let enabled = client.downgrade_enabled(urls(&url.to_owned()), patience).await;
            enabled.map(PeerAnswer::DowngradeEnabled).map_err(other)
        }
        Question::Members => {
            let found = client.members(urls(&url.to_owned()), patience).await.map_err(other)?;
            let members = found.members.into_iter().map(from_remote);
            Ok(PeerAnswer::Members(members.collect()))
        }
        Question::Version => unreachable!("asked at all addresses together"),
    }
}

fn other(why: ClientError) -> PeerError {
    PeerError::Other(why.to_string())
}

fn lease_refusal(error: LeaseError) -> PeerError {
    match error {
        LeaseError::NotFound => PeerError::LeaseNotFound,
        LeaseError::Timeout => PeerError::NotApplied,
        LeaseError::Other(why) => other(why),
    }
}

fn from_remote(member: RemoteMember) -> ClusterMember {
    ClusterMember {
        id: member.id,
        peer_urls: Some(member.peer_urls),
        is_learner: member.is_learner,
        name: member.name,
        client_urls: member.client_urls,
    }
}
