//! What peers ask of us: the accept loop and the table of paths.
//!
//! Invariants: whatever a peer sends ends at most its own connection; a body is read only after the
//! request's head was found good.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/http.go#pipelineHandler, #streamHandler
//! //= etcd 3.7.1: server/etcdserver/api/etcdhttp/peer.go#newPeerHandler

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use net::{Handshake, Listener, Opened, Stream, Timed};
use raft::Message;
use types::{MemberId, Url};

use crate::codec::MAX_MESSAGE_BYTES;
use crate::core::Core;
use crate::event::{Channel, Event, RejectReason};
use crate::headers::{
    CLUSTER_ID, CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION, PEER_URLS, RAFT_TO, SERVER_FROM,
    SERVER_VERSION, parse_id,
};
use crate::link::read_body;
use crate::snapshot_receive;
use crate::writer::AnswerBody;
use crate::{probe, reader, tasks};

/// Rest after an accept that failed (no more file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request about leases.
//= etcd 3.7.1: server/lease/leasehttp/http.go#maxLeaseHTTPRequestSize
const LEASE_BYTES: usize = 64 * 1024;
/// Bytes of any other small request. Ours: etcd has no limit.
const SMALL_BYTES: usize = 1 << 20;

type Reply = Response<AnswerBody>;

/// Serves a listener's connections for as long as the plane lives.
pub(crate) async fn accept(core: Rc<Core>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                let from = accepted.from;
                match accepted.open() {
                    Opened::Plain(stream) => {
                        tasks::spawn(&core, connection(Rc::clone(&core), stream, from));
                    }
                    Opened::Handshake(handshake) => {
                        tasks::spawn(&core, secured(Rc::clone(&core), handshake, from));
                    }
                }
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// A connection over TLS. Whatever both ends agreed on, HTTP/1.1 is spoken, as by etcd's peers.
async fn secured(core: Rc<Core>, handshake: Handshake, from: Option<SocketAddr>) {
    match handshake.run().await {
        Ok(stream) => connection(core, stream, from).await,
        Err(refused) => core.event(Event::Unsecured(&refused)),
    }
}

async fn connection(core: Rc<Core>, stream: Stream, from: Option<SocketAddr>) {
    let (read, write) = (core.config.read_timeout, core.config.write_timeout);
    // Reads wait without limit: a stream's reader says nothing. Bodies have their own.
    let stream = Timed::new(stream, None, Some(write));
    let service = service_fn(move |request| {
        let core = Rc::clone(&core);
        async move { Ok::<_, Infallible>(answer(&core, request, from).await) }
    });
    // A peer that breaks off or sends nonsense is met again when it is needed.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An answer like Go's `http.Error`.
fn error(status: StatusCode, text: &str) -> Reply {
    let mut reply = Response::new(AnswerBody::Whole(Some(format!("{text}\n").into())));
    *reply.status_mut() = status;
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let reason = ReasonPhrase::from_static(b"Request Entity Too Large");
        reply.extensions_mut().insert(reason);
    }
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

fn not_found() -> Reply {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

fn wrong_method(allow: Option<&'static str>) -> Reply {
    let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Some(allow) = allow {
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    reply
}

fn no_content() -> Reply {
    let mut reply = Response::new(AnswerBody::Whole(None));
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

async fn answer(core: &Rc<Core>, request: Request<Incoming>, from: Option<SocketAddr>) -> Reply {
    let path = request.uri().path();
    match path {
        "/raft" => {
            posted(core, request, async |head, body| message(core, head, body, from).await).await
        }
        "/raft/snapshot" => posted(core, request, async |_, body| snapshot(core, body).await).await,
        "/raft/probing" => probing(),
        _ if path.starts_with("/raft/stream/") => stream(core, &request),
        _ => other(core, request).await,
    }
}

fn with_cluster(core: &Core, mut reply: Reply) -> Reply {
    let id = HeaderValue::from_str(&core.identity.cluster.to_string()).expect("hex digits");
    reply.headers_mut().insert(CLUSTER_ID, id);
    reply
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn refuse(
    core: &Core,
    headers: &HeaderMap,
    why: RejectReason,
    status: StatusCode,
    text: &str,
) -> Reply {
    core.event(Event::Rejected { from: text_of(headers, SERVER_FROM), why });
    error(status, text)
}

/// Whether the sender belongs to our cluster and gets on with us; the answer if not.
fn incompatible(core: &Core, headers: &HeaderMap) -> Option<Reply> {
    let text = core.identity.refuse(headers)?;
    let why =
        if text == INCOMPATIBLE_VERSION { RejectReason::Version } else { RejectReason::Cluster };
    Some(refuse(core, headers, why, StatusCode::PRECONDITION_FAILED, text))
}

/// Remembers how to reach a sender.
fn add_remote(core: &Rc<Core>, id: Option<u64>, headers: &HeaderMap) {
    let urls = text_of(headers, PEER_URLS);
    if let (Some(id), false) = (id, urls.is_empty())
        && let Ok(urls) = Url::parse_all(&urls.split(',').collect::<Vec<_>>())
    {
        core.add_remote(MemberId(id), urls);
    }
}

/// What a peer posts, handed on once its head was found good. Every answer but to another method
/// names our cluster.
async fn posted(
    core: &Rc<Core>,
    request: Request<Incoming>,
    handle: impl AsyncFnOnce(&HeaderMap, Incoming) -> Reply,
) -> Reply {
    if request.method() != Method::POST {
        return wrong_method(Some("POST"));
    }
    let (head, body) = request.into_parts();
    let reply = match incompatible(core, &head.headers) {
        Some(refused) => refused,
        None => {
            let id = parse_id(text_of(&head.headers, SERVER_FROM));
            add_remote(core, id, &head.headers);
            handle(&head.headers, body).await
        }
    };
    with_cluster(core, reply)
}

async fn message(
    core: &Rc<Core>,
    headers: &HeaderMap,
    body: Incoming,
    from: Option<SocketAddr>,
) -> Reply {
    let limit = usize::try_from(MAX_MESSAGE_BYTES).expect("fits");
    let Some(bytes) = whole(core, body, limit).await else {
        core.event(Event::ReadFailed(from));
        return error(StatusCode::BAD_REQUEST, "error reading raft message");
    };
    let len = bytes.len() as u64;
    let outcome = match Message::decode(bytes) {
        Ok(message) => {
            core.event(Event::Received(message.from, len));
            core.deliver(message)
        }
        Err(raft::WireError::Protobuf) => {
            core.event(Event::ReadFailed(from));
            let text = "error unmarshalling raft message";
            return refuse(core, headers, RejectReason::Malformed, StatusCode::BAD_REQUEST, text);
        }
        Err(_) => Err("a message that means nothing"),
    };
    if outcome.is_ok() {
        return no_content();
    }
    let mut reply = error(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message");
    // Go's handler panics here, which ends the connection.
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

/// A whole body; `None` if it is too long, broken off, or does not come in time.
async fn whole(core: &Core, body: Incoming, limit: usize) -> Option<Bytes> {
    // A body that comes slowly is not given up while it comes: etcd reads it without a limit too.
    let patience = core.config.read_timeout + Duration::from_secs(limit as u64 >> 20);
    tokio::time::timeout(patience, read_body(body, limit)).await.ok()?.ok()
}

async fn snapshot(core: &Rc<Core>, body: Incoming) -> Reply {
    match snapshot_receive::receive(Rc::clone(core), body).await {
        Ok(()) => no_content(),
        Err((status, text)) => error(status, &text),
    }
}

fn probing() -> Reply {
    let body = probe::answer(SystemTime::now());
    let mut reply = Response::new(AnswerBody::Whole(Some(body.into())));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, text);
    reply
}

fn stream(core: &Rc<Core>, request: &Request<Incoming>) -> Reply {
    if request.method() != Method::GET {
        return wrong_method(Some("GET"));
    }
    let headers = request.headers();
    let reply = incompatible(core, headers)
        .unwrap_or_else(|| open_stream(core, request.uri().path(), headers));
    let mut reply = with_cluster(core, reply);
    let version = HeaderValue::from_str(&core.identity.version).expect("checked at the start");
    reply.headers_mut().insert(SERVER_VERSION, version);
    reply
}

fn open_stream(core: &Rc<Core>, path: &str, headers: &HeaderMap) -> Reply {
    let refused = |why, status, text| refuse(core, headers, why, status, text);
    let (kind, from) = split_path(path);
    let channel =
        [Channel::Appends, Channel::Messages].into_iter().find(|c| reader::path(*c) == kind);
    let Some(channel) = channel else {
        return error(StatusCode::NOT_FOUND, "invalid path");
    };
    let Some(from) = parse_id(from) else {
        return error(StatusCode::NOT_FOUND, "invalid from");
    };
    let id = MemberId(from);
    if core.member.is_removed(id) {
        return refused(RejectReason::Removed, StatusCode::GONE, "removed member");
    }
    let Some(peer) = core.peer(id) else {
        add_remote(core, Some(from), headers);
        let text = "error sender not found";
        return refused(RejectReason::UnknownSender, StatusCode::NOT_FOUND, text);
    };
    if text_of(headers, RAFT_TO) != core.config.id.to_string() {
        let text = "to field mismatch";
        return refused(RejectReason::Recipient, StatusCode::PRECONDITION_FAILED, text);
    }
    let writer = if channel == Channel::Appends { &peer.appends } else { &peer.messages };
    Response::new(AnswerBody::Stream(Box::new(writer.attach())))
}

/// Directory and last part, as Go's `path.Dir` and `path.Base` split a clean path.
fn split_path(path: &str) -> (&str, &str) {
    match path.strip_suffix('/') {
        Some(dir) => (dir, dir.rsplit('/').next().unwrap_or_default()),
        None => path.rsplit_once('/').unwrap_or_default(),
    }
}

/// How a path that is not about raft is served.
struct Route {
    method: Method,
    /// What an answer to another method names.
    allow: Option<&'static str>,
    body_limit: usize,
    /// The answer to a body that is too long.
    too_long: (StatusCode, &'static str),
    /// Whether refusals carry the cluster's id too.
    always_cluster: bool,
    /// Whether answers carry it.
    cluster: bool,
}

fn route(path: &str) -> Option<Route> {
    let get = Route {
        method: Method::GET,
        allow: Some("GET"),
        body_limit: SMALL_BYTES,
        too_long: (StatusCode::BAD_REQUEST, "error reading body"),
        always_cluster: true,
        cluster: true,
    };
    Some(match path {
        "/members" | "/downgrade/enabled" => get,
        "/version" => Route { always_cluster: false, cluster: false, ..get },
        "/members/hashkv" => Route { always_cluster: false, ..get },
        "/leases" | "/leases/internal" => Route {
            method: Method::POST,
            allow: None,
            body_limit: LEASE_BYTES,
            too_long: (StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
            always_cluster: false,
            cluster: false,
        },
        _ if path.starts_with("/members/promote/") => {
            Route { method: Method::POST, allow: Some("POST"), ..get }
        }
        _ => return None,
    })
}

async fn other(core: &Rc<Core>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let Some(route) = route(path) else { return not_found() };
    if head.method != route.method {
        return wrong_method(route.allow);
    }
    if path == "/members/hashkv" {
        let told = text_of(&head.headers, CLUSTER_ID);
        if !told.is_empty() && told != core.identity.cluster.to_string() {
            return error(StatusCode::PRECONDITION_FAILED, CLUSTER_ID_MISMATCH);
        }
    }
    let read = tokio::time::timeout(core.config.read_timeout, read_body(body, route.body_limit));
    let body = match read.await {
        Ok(Ok(body)) => body,
        Ok(Err(e)) if is_too_long(&*e) => return error(route.too_long.0, route.too_long.1),
        _ => return error(StatusCode::BAD_REQUEST, "error reading body"),
    };
    let reply = core.member.other(Request::from_parts(head, body)).await;
    let cluster = route.always_cluster || route.cluster && reply.status() == StatusCode::OK;
    let reply = reply.map(|bytes| AnswerBody::Whole(Some(bytes)));
    if cluster { with_cluster(core, reply) } else { reply }
}

fn is_too_long(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_as_in_go() {
        assert_eq!(split_path("/raft/stream/msgapp/ab"), ("/raft/stream/msgapp", "ab"));
        assert_eq!(split_path("/raft/stream/msgapp/"), ("/raft/stream/msgapp", "msgapp"));
        assert_eq!(split_path("/raft/stream/"), ("/raft/stream", "stream"));
    }
}
