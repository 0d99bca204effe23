//! Calls as JSON over HTTP: made like any call, mapped by the crate `gateway`.
//!
//! A unary call reads one JSON value of its body and answers with one; streams read values as they
//! come and answer with a line for each response. A call sees the same checks, caller and limits as
//! over gRPC: the token comes from `Authorization` or `Grpc-Metadata-Token`, and the certificate of
//! the connection, which is that of whoever stands between, counts for nothing.
//!
//! Invariant: dropping an answer drops its call.
//!
//! //= etcd 3.7.3: server/embed/serve.go#createMux
//! //= grpc-gateway 2.29: runtime/handler.go

mod content;
mod lines;
mod requests;
pub(crate) mod websocket;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::gateway::{Mapping, Metadata, Refusal};
use api::error::{Code, Status};
use api::method::{CallType, Row};
use bytes::Bytes;
use calls::{Call, Caller, Credential};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::{Dispatch, Door};
pub use content::Content;
use lines::Lines;
pub(crate) use requests::Incoming;
use requests::{Requests, only_value};

/// Bytes of a response from which on it is mapped on the pool.
const INLINE_BYTES: usize = 64 * 1024;
/// Set on what has the whole of a call's header; grpc-gateway gives every such field on.
const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The body of a request, piece by piece.
pub trait Chunks {
    /// The next piece; `None` at the end, or when the client is gone.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;

    /// Whether the body has an end that a call with one request waits for.
    fn is_finite(&self) -> bool {
        true
    }
}

/// A request of the gateway.
pub type Asked = http::Request<Box<dyn Chunks>>;
/// The answer to it.
pub type Told = http::Response<Content>;

/// What bounds a call of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the largest request message.
    pub message_bytes: usize,
    /// Bytes of the largest JSON value.
    pub value_bytes: usize,
}

/// How a request of the gateway came in.
#[derive(Clone, Debug)]
pub struct Came {
    /// By which door.
    pub door: Door,
    /// Whether its connection's certificate names a user.
    pub names_user: bool,
    /// What bounds its call.
    pub bounds: Bounds,
    /// What the connection tells of who calls, but for a certificate.
    pub(crate) caller: Caller,
    /// The token of `authorization` and the timeout, where the connection reads them by itself.
    pub(crate) authorization: Option<Rc<Credential>>,
    pub(crate) timeout: Option<Duration>,
}

/// Answers a request below the gateway's paths.
pub async fn answer<D: Dispatch>(dispatch: Rc<D>, asked: Asked, came: Came) -> Told {
    if websocket::is_wanted(asked.headers()) {
        return websocket::accept(asked.into_parts().0);
    }
    serve(dispatch, asked, came).await
}

/// Answers a request, whatever carries it.
pub(crate) async fn serve<D: Dispatch>(dispatch: Rc<D>, asked: Asked, came: Came) -> Told {
    match begin(dispatch, asked, came).await {
        Ok(told) => told,
        Err(refusal) => refused(&refusal),
    }
}

/// The answer to a client that is known by its certificate, which does not reach the call.
//= etcd 3.7.3: server/embed/serve.go#accessController.ServeHTTP
#[must_use]
pub fn certificate_ignored() -> Told {
    let text = "CommonName of client sending a request against gateway will be ignored and not \
                used as expected\n";
    plain(StatusCode::BAD_REQUEST, text.to_owned())
}

/// A refusal as Go's `http.Error` gives it.
fn plain(status: StatusCode, text: String) -> Told {
    let mut told = Told::new(Content::Whole(text.into()));
    *told.status_mut() = status;
    let fields = told.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    fields.insert(header::CONTENT_TYPE, plain);
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    told
}

/// A call, before its messages.
struct Wanted {
    row: &'static Row,
    mapping: Mapping,
    caller: Caller,
    metadata: Metadata,
    bounds: Bounds,
    deadline: Option<Instant>,
}

impl Wanted {
    fn of(head: &Parts, came: Came) -> Result<Self, Refusal> {
        let row = ::gateway::find(&method(head), head.uri.path())?;
        let metadata = Metadata::of(&head.headers)?;
        let timeout = metadata.timeout.or(came.timeout);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let made = |token: &Vec<u8>| Rc::new(Credential::of(token));
        let authorization =
            came.authorization.or_else(|| metadata.authorization.as_ref().map(made));
        let credential = metadata.token.as_ref().map(made).or(authorization);
        let (caller, bounds) = (came.caller.with(credential), came.bounds);
        Ok(Self { row, mapping: Mapping::of(row), caller, metadata, bounds, deadline })
    }

    fn call(&self) -> Call<'_> {
        Call {
            row: self.row,
            caller: self.caller.clone(),
            requires_leader: self.metadata.requires_leader,
            client_version: self.metadata.client_version.as_deref(),
        }
    }
}

/// The method that is meant: a form may name another one.
//= grpc-gateway 2.29: runtime/mux.go#ServeHTTP (X-HTTP-Method-Override)
fn method(head: &Parts) -> http::Method {
    let is_form = head.method == http::Method::POST
        && head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes() == b"application/x-www-form-urlencoded");
    let other = head.headers.get("x-http-method-override").filter(|_| is_form);
    let other = other
        .and_then(|other| http::Method::from_bytes(&other.as_bytes().to_ascii_uppercase()).ok());
    other.unwrap_or_else(|| head.method.clone())
}

async fn begin<D: Dispatch>(dispatch: Rc<D>, asked: Asked, came: Came) -> Result<Told, Refusal> {
    let (head, mut chunks) = asked.into_parts();
    let bounds = came.bounds;
    let wanted = Wanted::of(&head, came)?;
    if wanted.row.kind == CallType::BidiStream {
        let requests = Requests::new(&wanted, chunks, Arc::clone(dispatch.metrics()));
        let counted = Counted::begin(Rc::clone(&dispatch), &wanted).await?;
        let responses = dispatch.calls().responses_to_stream(&wanted.call(), Box::new(requests));
        return Ok(Lines::new(wanted, responses, counted).begin().await);
    }
    let value = only_value(&mut *chunks, bounds.value_bytes).await?;
    let message = match value {
        Some(value) => {
            let read = wanted.mapping.decode(&value);
            Bytes::from(read.map_err(|malformed| Refusal::invalid(malformed.text()))?)
        }
        None => Bytes::new(),
    };
    let counted = Counted::begin(Rc::clone(&dispatch), &wanted).await?;
    received(&*dispatch, &wanted, &message)?;
    if wanted.row.kind == CallType::ServerStream {
        let responses = dispatch.calls().responses(&wanted.call(), message);
        return Ok(Lines::new(wanted, responses, counted).begin().await);
    }
    unary(&*dispatch, &wanted, message, counted).await
}

/// Counts a request, unless it is too large.
fn received(dispatch: &impl Dispatch, wanted: &Wanted, message: &Bytes) -> Result<(), Status> {
    let (length, limit) = (message.len(), wanted.bounds.message_bytes);
    if length > limit {
        let text = format!("grpc: received message larger than max ({length} vs. {limit})");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    dispatch.metrics().calls.received(wanted.row.method, length);
    Ok(())
}

async fn unary<D: Dispatch>(
    dispatch: &D,
    wanted: &Wanted,
    message: Bytes,
    mut counted: Counted<D>,
) -> Result<Told, Refusal> {
    let call = wanted.call();
    let answering = dispatch.calls().call(&call, message);
    let answer = within(wanted.deadline, answering).await;
    counted.end(answer.as_ref().err());
    let answer = answer?;
    dispatch.metrics().calls.sent(wanted.row.method, answer.len());
    let json = mapped(dispatch, &wanted.mapping, answer.into()).await?;
    let mut told = Told::new(Content::Whole(json.into()));
    let headers = told.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert("grpc-metadata-content-type", GRPC_CONTENT_TYPE);
    Ok(told)
}

async fn within<T>(
    deadline: Option<Instant>,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => answer.await,
        Some(deadline) if deadline <= Instant::now() => Err(late()),
        Some(deadline) => {
            tokio::time::timeout_at(deadline, answer).await.unwrap_or_else(|_| Err(late()))
        }
    }
}

/// The status of a call whose deadline has passed.
fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// A response as JSON; a long one is mapped on the pool, so that others need not wait for it.
async fn mapped(
    dispatch: &impl Dispatch,
    mapping: &Mapping,
    message: Bytes,
) -> Result<Vec<u8>, Status> {
    let broken = |error| Status::new(Code::Internal, format!("the response is malformed: {error}"));
    if message.len() <= INLINE_BYTES {
        return mapping.encode(&message).map_err(broken);
    }
    let mapping = mapping.clone();
    let member = dispatch.calls().member();
    let mapped = member.compute(move || mapping.encode(&message)).await?;
    mapped.map_err(broken)
}

/// An error as the whole answer.
pub(crate) fn refused(refusal: &Refusal) -> Told {
    let json = ::gateway::status_json(&refusal.status);
    let mut told = Told::new(Content::Whole(json.into()));
    *told.status_mut() = refusal.http;
    told.headers_mut().insert(header::CONTENT_TYPE, JSON);
    if refusal.status.code == Code::Unauthenticated
        && let Ok(text) = HeaderValue::from_str(&refusal.status.message)
    {
        told.headers_mut().insert(header::WWW_AUTHENTICATE, text);
    }
    told
}

/// Counts a call as open, and as ended once, however that happens.
pub(crate) struct Counted<D: Dispatch> {
    dispatch: Rc<D>,
    row: &'static Row,
    began: Option<std::time::Instant>,
    has_ended: bool,
    _turn: OwnedSemaphorePermit,
}

impl<D: Dispatch> Counted<D> {
    /// Waits until the call has its turn: etcd's gateway is one connection to the member, which
    /// carries as many calls as any (`--max-concurrent-streams`).
    ///
    /// # Errors
    /// Its deadline has passed.
    async fn begin(dispatch: Rc<D>, wanted: &Wanted) -> Result<Self, Status> {
        let turns = Arc::clone(dispatch.gateway_turns().expect("it was looked at before"));
        let turn = turns.acquire_owned();
        let turn = within(wanted.deadline, async { turn.await.map_err(|_| late()) }).await?;
        let began = dispatch.metrics().calls.clock();
        Ok(Self { dispatch, row: wanted.row, began, has_ended: false, _turn: turn })
    }

    fn end(&mut self, status: Option<&Status>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.dispatch.finished(self.row, status, self.began);
        }
    }
}

impl<D: Dispatch> Drop for Counted<D> {
    fn drop(&mut self) {
        self.end(Some(&Status::new(Code::Canceled, "context canceled")));
    }
}
