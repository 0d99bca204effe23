//! The life of one gRPC call: headers in, messages, status out.
//!
//! Reactions to bad input are grpc-go 1.82's (`internal/transport/http2_server.go`, `server.go`),
//! because clients and their retry policies were made for them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use api::error::{Code, Status};
use api::method::{self, CallType, Method as GrpcMethod, Row};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use ::grpc::envelope::prefix;
use ::grpc::status;
use calls::stream::stopped_reading;
use calls::{Answer, Body, Encoded, Gone, Pieces, Sink, Source};

use crate::message::{self, Encoding, Ended, Reader};
use crate::metadata::{self, CLIENT_API_VERSION, Metadata};
use crate::progress::Progress;
use crate::{Call, Dispatch, Settings};
use observe::Metrics;

/// What the connection wants to know of its calls.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) open_calls: Cell<u32>,
    /// Those of them that end by themselves.
    pub(crate) finite_calls: Cell<u32>,
    metrics: Arc<Metrics>,
}

impl Activity {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { open_calls: Cell::default(), finite_calls: Cell::default(), metrics }
    }
}

/// The messages of a request.
#[derive(Debug)]
pub struct Requests {
    reader: Reader,
    row: &'static Row,
    activity: Rc<Activity>,
}

impl Source for Requests {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        Poll::Ready(match ready!(self.reader.poll_next(cx)) {
            Ok(message) => {
                self.activity.metrics.calls.received(self.row.method, message.len());
                Ok(Some(message))
            }
            Err(Ended::Eof) => Ok(None),
            Err(Ended::Cut) => Err(Status::new(Code::Internal, "unexpected EOF")),
            Err(Ended::Refused(status)) => Err(status),
            // Nobody will see it.
            Err(Ended::Gone) => Err(context_canceled()),
        })
    }
}

impl Requests {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits for the one message of a server-streaming call.
    ///
    /// # Errors
    /// grpc-go's texts for none or several.
    async fn only(&mut self) -> Result<Bytes, Status> {
        debug_assert_eq!(self.row.kind, CallType::ServerStream);
        let Some(message) = self.next().await? else {
            return Err(Status::new(
                Code::Internal,
                "cardinality violation: received no request message from non-client-streaming RPC",
            ));
        };
        if self.next().await?.is_some() {
            return Err(Status::new(
                Code::Internal,
                "cardinality violation: received multiple request messages for \
                 non-client-streaming RPC",
            ));
        }
        Ok(message)
    }
}

/// Sends the messages of a response. Clones send to the same call.
#[derive(Clone)]
pub struct Sender(Rc<RefCell<Outgoing>>);

struct Outgoing {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
    content_type: HeaderValue,
    encoding: Encoding,
    activity: Rc<Activity>,
    /// Set once the method is known.
    method: Option<GrpcMethod>,
    /// Time after which a client that takes nothing of a long answer is given up.
    progress: Duration,
    /// How much of a message is on its way.
    left: Progress,
}

impl Outgoing {
    fn start(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        if self.stream.is_none() {
            let response = headers(&self.content_type, self.encoding);
            self.stream = Some(self.respond.send_response(response, false).map_err(|_| Gone)?);
        }
        Ok(self.stream.as_mut().expect("set above"))
    }

    /// Sends as much as the window allows; ready when nothing is left.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Gone>> {
        let before = bytes.len();
        let sent = self.poll_send_now(cx, bytes);
        self.left.sent(before, bytes.len());
        sent
    }

    fn poll_send_now(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Gone>> {
        let stream = match self.start() {
            Ok(stream) => stream,
            Err(gone) => return Poll::Ready(Err(gone)),
        };
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            let capacity = match stream.capacity() {
                0 => match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(capacity)) => capacity,
                    Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
                },
                capacity => capacity,
            };
            // Splitting off all would cost a reference count.
            let piece = match capacity < bytes.len() {
                true => bytes.split_to(capacity),
                false => std::mem::take(bytes),
            };
            if stream.send_data(piece, false).is_err() {
                return Poll::Ready(Err(Gone));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands a whole message to HTTP/2, which keeps it until the window allows it. For the one
    /// message of a call: it is in memory anyway.
    fn send_whole(&mut self, sealed: Bytes) -> Result<(), Gone> {
        self.start()?.send_data(sealed, false).map_err(|_| Gone)
    }

    /// Sends as much as the window allows now.
    fn try_send(&mut self, bytes: &mut Bytes) -> Result<(), Gone> {
        let before = bytes.len();
        let stream = self.start()?;
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            let capacity = stream.capacity().min(bytes.len());
            if capacity == 0 {
                break;
            }
            stream.send_data(bytes.split_to(capacity), false).map_err(|_| Gone)?;
        }
        self.left.sent(before, bytes.len());
        Ok(())
    }

    /// Waits no more for a reset, until [`Outgoing::poll_gone`] does again. HTTP/2 would wake that
    /// waiter with each piece of window it gives, and it is the one who is just sending.
    fn forget_gone(&mut self) {
        let _ = self.poll_gone(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(|_| ()),
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    /// A send that fails now has no one left to tell.
    fn finish(&mut self, status: Option<&Status>) {
        match self.stream.take() {
            Some(mut stream) => {
                if let Some(reason) = self.left.reset(status) {
                    return stream.send_reset(reason);
                }
                let mut trailers = HeaderMap::with_capacity(2);
                status::put(&mut trailers, status);
                let _ = stream.send_trailers(trailers);
            }
            None => {
                let mut response = headers(&self.content_type, Encoding::Identity);
                status::put(response.headers_mut(), status);
                let _ = self.respond.send_response(response, true);
            }
        }
    }
}

impl Sink for Sender {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        self.0.borrow_mut().try_send(sealed)
    }

    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.0.borrow_mut().poll_send(cx, sealed)
    }

    fn begin_send(&self) {
        self.0.borrow_mut().forget_gone();
    }

    fn is_plain(&self) -> bool {
        self.0.borrow().encoding == Encoding::Identity
    }

    fn compress(&self, message: &[u8]) -> Bytes {
        message::seal(message, self.0.borrow().encoding)
    }

    fn count(&self, bytes: usize) {
        let out = self.0.borrow();
        if let Some(method) = out.method {
            out.activity.metrics.calls.sent(method, bytes);
        }
    }
}

impl Sender {
    /// Sends the only message of a call.
    fn send_only(&self, message: Encoded) -> Result<(), Gone> {
        self.count(message.message().len());
        let mut out = self.0.borrow_mut();
        let sealed = message::seal_encoded(message, out.encoding);
        out.send_whole(sealed)
    }

    /// Sends bytes of an answer that holds something of the database meanwhile: a client that takes
    /// nothing for long is given up.
    async fn send_to_reader(&self, mut sealed: Bytes) -> Result<(), Status> {
        let progress = self.0.borrow().progress;
        loop {
            let left = sealed.len();
            let sending = poll_fn(|cx| self.0.borrow_mut().poll_send(cx, &mut sealed));
            match tokio::time::timeout(progress, sending).await {
                Ok(sent) => return sent.map_err(|Gone| context_canceled()),
                Err(_) if sealed.len() < left => {}
                Err(_) => return Err(stopped_reading()),
            }
        }
    }
}

fn headers(content_type: &HeaderValue, encoding: Encoding) -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.reserve(if encoding == Encoding::Gzip { 2 } else { 1 });
    headers.insert(header::CONTENT_TYPE, content_type.clone());
    if encoding == Encoding::Gzip {
        headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    response
}

/// A call whose headers were accepted.
struct Begun<D> {
    dispatch: Rc<D>,
    call: Call,
    reader: Reader,
    sender: Sender,
    activity: Rc<Activity>,
}

/// Takes a call's headers and returns what runs it to its end; nothing if it was refused. Dropping
/// that future (connection gone) cancels the handler. It is moved a few times while it becomes a
/// task, so it is kept small.
pub(crate) fn call<D: Dispatch>(
    dispatch: Rc<D>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    settings: &Settings,
    activity: Rc<Activity>,
) -> Option<impl Future<Output = ()> + use<D>> {
    begin(dispatch, request, respond, settings, activity).map(run)
}

fn begin<D: Dispatch>(
    dispatch: Rc<D>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    settings: &Settings,
    activity: Rc<Activity>,
) -> Option<Begun<D>> {
    let (head, body) = request.into_parts();
    let opened = match open(&head) {
        Ok(opened) => opened,
        Err((code, status)) => {
            let mut response = Response::new(());
            *response.status_mut() = code;
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(header::CONTENT_TYPE, grpc);
            status::put(response.headers_mut(), Some(&status));
            let _ = respond.send_response(response, true);
            return None;
        }
    };
    let encoding = opened.encoding.as_ref().map_or(Encoding::Identity, |e| *e);
    let sender = Sender(Rc::new(RefCell::new(Outgoing {
        respond,
        stream: None,
        content_type: opened.content_type,
        encoding,
        activity: Rc::clone(&activity),
        method: None,
        progress: settings.reader_progress,
        left: Progress::default(),
    })));
    let refuse = |status: &Status| {
        sender.0.borrow_mut().finish(Some(status));
        None
    };
    let row = match route(head.uri.path()) {
        Ok(row) => row,
        Err(status) => return refuse(&status),
    };
    sender.0.borrow_mut().method = Some(row.method);
    activity.metrics.calls.started(row.method);
    if let Err(status) = opened.encoding {
        return refuse(&status);
    }
    if opened.timeout == Some(Duration::ZERO) {
        // Its context has ended before the first message is read.
        let late = late();
        dispatch.finished(row, Some(&late));
        return refuse(&late);
    }
    let reader = Reader::new(body, encoding, settings.max_message_bytes);
    let call = Call { row, metadata: Metadata(head.headers), timeout: opened.timeout };
    Some(Begun { dispatch, call, reader, sender, activity })
}

async fn run<D: Dispatch>(begun: Begun<D>) {
    let Begun { dispatch, call, reader, sender, activity } = begun;
    let row = call.row;
    let _open = Open::new(&activity, row);
    let deadline = call.timeout.map(|t| tokio::time::Instant::now() + t);
    let gone = |cx: &mut Context<'_>| sender.0.borrow_mut().poll_gone(cx);
    let end = match row.kind {
        CallType::Unary => {
            let work = pin!(unary(&dispatch, call, reader, &sender));
            until(work, deadline, gone).await
        }
        CallType::ServerStream | CallType::BidiStream => {
            let requests = Requests { reader, row, activity: Rc::clone(&activity) };
            let mut work = Box::pin(stream(&dispatch, call, requests, sender.clone()));
            until(work.as_mut(), deadline, gone).await
        }
    };
    match end {
        Some(result) => {
            let status = result.err();
            dispatch.finished(row, status.as_ref());
            sender.0.borrow_mut().finish(status.as_ref());
        }
        None => dispatch.finished(row, Some(&Status::new(Code::Canceled, "context canceled"))),
    }
}

/// Counts a call as open while it lives.
struct Open<'a> {
    activity: &'a Activity,
    is_finite: bool,
}

impl<'a> Open<'a> {
    fn new(activity: &'a Activity, row: &Row) -> Self {
        let is_finite = row.kind != CallType::BidiStream && row.method != GrpcMethod::HealthWatch;
        activity.open_calls.update(|n| n + 1);
        activity.finite_calls.update(|n| n + u32::from(is_finite));
        Self { activity, is_finite }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.activity.open_calls.update(|n| n - 1);
        self.activity.finite_calls.update(|n| n - u32::from(self.is_finite));
    }
}

/// The call as its handler sees it. Tokens and certificates make callers here; so far there are
/// none, and everybody is nobody.
fn seen(call: &Call) -> calls::Call<'_> {
    calls::Call {
        row: call.row,
        caller: calls::Caller::default(),
        requires_leader: call.metadata.requires_leader(),
        client_version: call.metadata.get(&CLIENT_API_VERSION),
    }
}

async fn unary<D: Dispatch>(
    dispatch: &Rc<D>,
    call: Call,
    mut reader: Reader,
    sender: &Sender,
) -> Result<(), Status> {
    let message = reader.next_to_use().await.map_err(|ended| match ended {
        Ended::Eof => Status::new(Code::Unknown, "EOF"),
        Ended::Cut => Status::new(Code::Unknown, "unexpected EOF"),
        Ended::Refused(status) => status,
        Ended::Gone => context_canceled(),
    })?;
    dispatch.metrics().calls.received(call.row.method, message.len());
    let calls = dispatch.calls();
    let mut out = Encoded::default();
    let mut answer = calls.unary(&seen(&call), message, &mut out)?;
    loop {
        answer = match answer {
            Answer::Now => break,
            Answer::Later(token, finish) => {
                let reply = calls.member().wait(token).await;
                calls.finish(finish, reply, &mut out)?
            }
            Answer::Waits(waiting) => match waiting.await? {
                Body::Whole(message) => {
                    out = message;
                    break;
                }
                Body::Pieces(pieces) => return Box::pin(send_pieces(sender, pieces)).await,
            },
        }
    }
    sender.send_only(out).map_err(|_: Gone| context_canceled())
}

async fn stream<D: Dispatch>(
    dispatch: &Rc<D>,
    call: Call,
    mut requests: Requests,
    sender: Sender,
) -> Result<(), Status> {
    let calls = dispatch.calls();
    calls.check(&seen(&call))?;
    let sink: calls::stream::Out = Rc::new(sender);
    let serving = match call.row.kind {
        CallType::ServerStream => {
            let request = requests.only().await?;
            calls.one_request(&seen(&call), request, sink)
        }
        CallType::BidiStream | CallType::Unary => {
            calls.stream(&seen(&call), Box::new(requests), sink)
        }
    };
    serving.await
}

async fn send_pieces(sender: &Sender, mut pieces: Box<dyn Pieces>) -> Result<(), Status> {
    if sender.is_plain() {
        sender.0.borrow_mut().left.begin_pieces();
        let length = usize::try_from(pieces.remaining()).unwrap_or(usize::MAX);
        sender.count(length);
        sender.send_to_reader(Bytes::copy_from_slice(&prefix(length))).await?;
        while let Some(piece) = pieces.next().await? {
            sender.send_to_reader(piece).await?;
        }
        sender.0.borrow_mut().left.end_pieces();
        return Ok(());
    }
    // gzip needs the whole message: its length in the envelope is not known before.
    let mut message = BytesMut::new();
    while let Some(piece) = pieces.next().await? {
        message.extend_from_slice(&piece);
    }
    sender.count(message.len());
    let mut sealed = sender.compress(&message);
    sender.begin_send();
    let sending = poll_fn(|cx| sender.poll_send(cx, &mut sealed));
    sending.await.map_err(|_: Gone| context_canceled())
}

/// Runs `work` until it ends, `deadline` passes (a status), or the client is gone (`None`).
async fn until<W: Future<Output = Result<(), Status>> + ?Sized>(
    mut work: Pin<&mut W>,
    deadline: Option<tokio::time::Instant>,
    mut gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<Result<(), Status>> {
    let mut sleep = pin!(None::<tokio::time::Sleep>);
    poll_fn(|cx| {
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        if gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        // Most calls end before they wait: the timer is made at the first wait.
        if sleep.is_none() {
            sleep.set(Some(tokio::time::sleep_until(deadline)));
        }
        let sleep = sleep.as_mut().as_pin_mut().expect("set above");
        ready!(sleep.poll(cx));
        Poll::Ready(Some(Err(late())))
    })
    .await
}

fn context_canceled() -> Status {
    Status::new(Code::Canceled, "context canceled")
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

struct Opened {
    content_type: HeaderValue,
    encoding: Result<Encoding, Status>,
    timeout: Option<Duration>,
}

/// Checks the headers in grpc-go's order.
//= grpc-go 1.82: internal/transport/http2_server.go#operateHeaders
fn open(head: &http::request::Parts) -> Result<Opened, (StatusCode, Status)> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, Status::new(Code::Internal, text));
    let (mut hosts, mut has_binary) = (0, false);
    let (mut content_type, mut timeout, mut encoding) = (None, None, None);
    // One pass is cheaper than a lookup of each; the first of several values counts.
    for (name, value) in &head.headers {
        let first = match name.as_str() {
            "content-type" => &mut content_type,
            "grpc-timeout" => &mut timeout,
            "grpc-encoding" => &mut encoding,
            "host" => {
                hosts += 1;
                continue;
            }
            other => {
                has_binary |= other.ends_with("-bin");
                continue;
            }
        };
        first.get_or_insert(value.as_bytes());
    }
    if hosts > 1 {
        let authorities = usize::from(head.uri.authority().is_some());
        return Err(bad(format!(
            "num values of :authority: {authorities}, num values of host: {hosts}, both must only \
             have 1 value as per HTTP/2 spec"
        )));
    }
    let text = String::from_utf8_lossy(content_type.unwrap_or_default());
    let Some(answer) = metadata::response_content_type(&text) else {
        let refusal = format!("invalid gRPC request content-type {text:?}");
        let status = Status::new(Code::InvalidArgument, refusal);
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, status));
    };
    let timeout = match timeout {
        None => None,
        Some(value) => {
            let text = String::from_utf8_lossy(value);
            let malformed = |e| bad(format!("malformed grpc-timeout: {e}"));
            Some(::grpc::timeout(&text).map_err(malformed)?)
        }
    };
    if has_binary {
        metadata::check_binary(&head.headers).map_err(|s| (StatusCode::BAD_REQUEST, s))?;
    }
    if head.method != Method::POST {
        let refusal = format!(
            "Received a HEADERS frame with :method \"{}\" which should be POST",
            head.method
        );
        let status = Status::new(Code::Internal, refusal);
        return Err((StatusCode::METHOD_NOT_ALLOWED, status));
    }
    let content_type = match answer.as_ref() {
        "application/grpc" => HeaderValue::from_static("application/grpc"),
        other => HeaderValue::try_from(other)
            .map_err(|_| bad("malformed header: content-type".to_owned()))?,
    };
    Ok(Opened { content_type, encoding: requested_encoding(encoding), timeout })
}

fn requested_encoding(name: Option<&[u8]>) -> Result<Encoding, Status> {
    match name {
        None | Some(b"" | b"identity") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(other) => {
            let name = String::from_utf8_lossy(other).into_owned();
            Err(Status::new(
                Code::Unimplemented,
                format!("grpc: Decompressor is not installed for grpc-encoding {name:?}"),
            ))
        }
    }
}

/// Finds the row of a path, with grpc-go's texts for paths that have none.
//= grpc-go 1.82: server.go#handleStream
fn route(path: &str) -> Result<&'static method::Row, Status> {
    if let Some(row) = method::by_path(path) {
        return Ok(row);
    }
    let refuse = |text| Err(Status::new(Code::Unimplemented, text));
    let full = path.strip_prefix('/').unwrap_or(path);
    match full.rsplit_once('/') {
        None => refuse(format!("malformed method name: {path:?}")),
        Some((service, method)) if method::is_service(service) => {
            refuse(format!("unknown method {method} for service {service}"))
        }
        Some((service, _)) => refuse(format!("unknown service {service}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_get_grpc_gos_texts() {
        let text = |path| route(path).unwrap_err().message.into_owned();
        assert_eq!(
            text("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(text("/no.Such/Thing"), "unknown service no.Such");
        assert_eq!(text("/plain"), "malformed method name: \"/plain\"");
        assert_eq!(route("/etcdserverpb.KV/Put").unwrap().name, "Put");
    }
}
