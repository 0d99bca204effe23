//! The life of one connection: which protocol, then its calls until it ends.
//!
//! Invariant: every task of a connection ends with it; nothing here is sent to another thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use calls::{Caller, Local};
use futures_util::TryFutureExt;
use http_body_util::{BodyExt, Limited};
use http2::PREFACE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use crate::gateway::websocket::{self, Upgrade};
use crate::gateway::{self, Bounds, Came, Chunks, Content, Told};
use crate::http1::{Gateway, Settled};
use crate::{Agreed, Dispatch, Door, Origin, http1, session};

/// Limits and times of a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of the largest request message (`--max-request-bytes` + 512 KiB).
    pub max_message_bytes: usize,
    /// Calls open at once per connection (`--max-concurrent-streams`).
    pub max_concurrent_streams: u32,
    /// Shortest time between PINGs that is no strike (`--grpc-keepalive-min-time`).
    pub keepalive_min_time: Duration,
    /// Idle time after which the client is pinged (`--grpc-keepalive-interval`).
    pub keepalive_interval: Duration,
    /// Time it then has to answer (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
    /// Time for the first bytes and for each HTTP/1.1 head.
    pub header_timeout: Duration,
    /// Time that a client has for its first SETTINGS, once its preface has come.
    //= grpc-go 1.82: server.go#defaultServerOptions (connectionTimeout)
    pub handshake_timeout: Duration,
    /// Bytes of the largest HTTP/1.1 body.
    pub max_body_bytes: usize,
    /// Time after which a client that takes nothing of a long answer is given up.
    pub reader_progress: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        use types::limits::{GRPC_OVERHEAD_BYTES, MAX_REQUEST_BYTES};
        let max_message_bytes = (MAX_REQUEST_BYTES + GRPC_OVERHEAD_BYTES) as usize;
        Self {
            max_message_bytes,
            max_concurrent_streams: u32::MAX,
            keepalive_min_time: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2 * 3600),
            keepalive_timeout: Duration::from_secs(20),
            header_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(120),
            max_body_bytes: 2 * max_message_bytes,
            reader_progress: Duration::from_secs(types::limits::READER_PROGRESS_SECS),
        }
    }
}

/// A step of a connection's life, which leads to the next if there is one. Each is boxed: a
/// connection holds the memory of what it is busy with, not of what it was busy with or may be.
type Step = Local<'static, io::Result<Next>>;

struct Next(Option<Step>);

/// Serves one connection until it ends or `stop` turns true: then calls that end by themselves are
/// finished first, streams are cut after a moment.
/// Must run within a `LocalSet`.
///
/// # Errors
/// The socket's; a protocol error of the client ends the connection without one.
pub fn serve<S, D>(
    socket: S,
    origin: Origin,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = io::Result<()>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let first: Step = Box::pin(begin(socket, origin, dispatch, settings, stop));
    async move {
        let mut step = Some(first);
        while let Some(current) = step {
            Next(step) = current.await?;
        }
        Ok(())
    }
}

/// Finds out which protocol is spoken.
async fn begin<S, D>(
    mut socket: S,
    origin: Origin,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<Next>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let mut first = Vec::with_capacity(PREFACE.len());
    let sniffed = tokio::time::timeout(settings.header_timeout, sniff(&mut socket, &mut first));
    let protocol = tokio::select! {
        result = sniffed => result.map_err(|_| io::ErrorKind::TimedOut)??,
        _ = stop.wait_for(|stop| *stop) => return Ok(Next(None)),
    };
    let next: Step = match protocol {
        Protocol::Http2 if origin.takes_http2() => {
            let serving = session::serve(socket, first, origin, dispatch, settings, stop);
            Box::pin(serving.map_ok(|()| Next(None)))
        }
        Protocol::Http1 if origin.takes_http1() => {
            let socket = Rewound { first: first.into(), socket };
            Box::pin(http1(socket, origin, dispatch, settings, stop).map_ok(|()| Next(None)))
        }
        // Closed without an answer, as etcd does: it would mean nothing to whoever that is.
        Protocol::Http2 | Protocol::Http1 | Protocol::Unknown => return Ok(Next(None)),
    };
    Ok(Next(Some(next)))
}

impl Origin {
    /// Whether HTTP/2 is answered. Without TLS it carries calls alone; with it, it must have been
    /// agreed on.
    //= etcd 3.7.3: server/embed/serve.go#serve
    fn takes_http2(&self) -> bool {
        match self.tls {
            None => self.takes_calls(),
            Some(agreed) => agreed == Agreed::Http2,
        }
    }

    /// Whether HTTP/1.1 is answered.
    fn takes_http1(&self) -> bool {
        self.takes_http() && self.tls != Some(Agreed::Http2)
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http2,
    Http1,
    Unknown,
}

/// Reads until it can be told what is spoken; what was read is left in `first`.
//= etcd 3.7.3: server/embed/serve.go#serve (cmux.HTTP2, cmux.HTTP1)
async fn sniff<S: AsyncRead + Unpin>(socket: &mut S, first: &mut Vec<u8>) -> io::Result<Protocol> {
    let mut room = [0; PREFACE.len()];
    while first.len() < PREFACE.len() {
        let n = socket.read(&mut room[first.len()..]).await?;
        let at = first.len();
        first.extend_from_slice(&room[at..at + n]);
        if n == 0 || first[..] != PREFACE[..first.len()] {
            let is_http1 = http1::sniff(socket, first).await?;
            return Ok(if is_http1 { Protocol::Http1 } else { Protocol::Unknown });
        }
    }
    Ok(Protocol::Http2)
}

/// Time that streams are given when the server stops.
const STREAM_GRACE: Duration = Duration::from_millis(500);

async fn http1<S, D>(
    socket: Rewound<S>,
    origin: Origin,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let web = Rc::new(Web::new(&origin, Rc::clone(&dispatch), &settings));
    let serving = Rc::clone(&web);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let web = Rc::clone(&serving);
        Box::pin(async move { Ok::<_, std::convert::Infallible>(web.answer(request).await) })
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .title_case_headers(true)
        .header_read_timeout(settings.header_timeout)
        .serve_connection(TokioIo::new(socket), service);
    let result = tokio::select! {
        result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
        _ = stop.wait_for(|stop| *stop) => {
            Pin::new(&mut connection).graceful_shutdown();
            let ending = poll_fn(|cx| connection.poll_without_shutdown(cx));
            tokio::select! {
                result = ending => result,
                // A stream would never end.
                () = web.until_cut() => return Ok(()),
            }
        }
    };
    // A client that breaks off or sends nonsense is not the server's error.
    if result.is_err() {
        return Ok(());
    }
    let hyper::server::conn::http1::Parts { io, read_buf, .. } = connection.into_parts();
    let mut socket = io.into_inner();
    if let Some(upgrade) = web.upgrade.take() {
        let to = (dispatch, web.came());
        websocket::serve(&mut socket, read_buf, upgrade, to, stop).await;
    }
    let _ = socket.shutdown().await;
    Ok(())
}

/// What the requests of a connection over HTTP/1.1 share.
struct Web<D> {
    dispatch: Rc<D>,
    door: Door,
    names_user: bool,
    caller: Caller,
    max_body_bytes: usize,
    max_message_bytes: usize,
    /// What the connection is to become.
    upgrade: Cell<Option<Upgrade>>,
    /// Whether the answer that is being sent is a stream.
    is_stream: Cell<bool>,
}

impl<D: Dispatch> Web<D> {
    fn new(origin: &Origin, dispatch: Rc<D>, settings: &Settings) -> Self {
        Self {
            dispatch,
            door: origin.door(),
            names_user: origin.names_user(),
            caller: origin.caller().through_gateway(),
            max_body_bytes: settings.max_body_bytes,
            max_message_bytes: settings.max_message_bytes,
            upgrade: Cell::default(),
            is_stream: Cell::default(),
        }
    }

    fn came(&self) -> Came {
        let (message_bytes, value_bytes) = (self.max_message_bytes, self.max_body_bytes);
        Came {
            door: self.door,
            names_user: self.names_user,
            bounds: Bounds { message_bytes, value_bytes },
            caller: self.caller.clone(),
            authorization: None,
            timeout: None,
        }
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Told {
        self.is_stream.set(false);
        let (mut head, body) = request.into_parts();
        match http1::settle(&mut head, gateway_of(&*self.dispatch, self.door)) {
            Settled::Handled => {}
            Settled::Answered(answer) => return answer.map(Content::from),
            Settled::Redirected(answer) => {
                let request = http::Request::from_parts(head, ());
                let answer = Rc::clone(&self.dispatch).redirect(request, self.door, *answer).await;
                return answer.map(Content::from);
            }
        }
        if is_of_gateway(&*self.dispatch, self.door, &head) {
            return self.by_gateway(head, body).await;
        }
        match Limited::new(body, self.max_body_bytes).collect().await {
            Ok(body) => {
                let request = http::Request::from_parts(head, body.to_bytes());
                let answer = Rc::clone(&self.dispatch).http(request, self.door).await;
                answer.map(Content::from)
            }
            Err(_) => {
                let mut response = Told::default();
                *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                response
            }
        }
    }

    async fn by_gateway(&self, head: http::request::Parts, body: Incoming) -> Told {
        let body: Box<dyn Chunks> = Box::new(gateway::Incoming(body));
        let request = http::Request::from_parts(head, body);
        let mut told = Rc::clone(&self.dispatch).gateway(request, self.came()).await;
        self.upgrade.set(told.extensions_mut().remove());
        self.is_stream.set(matches!(told.body(), Content::Lines(_)));
        told
    }

    /// Waits until a stream that is being sent has had its time.
    async fn until_cut(&self) {
        loop {
            tokio::time::sleep(STREAM_GRACE).await;
            if self.is_stream.get() {
                return;
            }
        }
    }
}

/// Whether calls are answered as JSON to who came in by this door.
pub(crate) fn gateway_of(dispatch: &impl Dispatch, door: Door) -> Gateway {
    match door != Door::Metrics && dispatch.gateway_turns().is_some() {
        true => Gateway::There,
        false => Gateway::Absent,
    }
}

/// Whether the gateway answers a request.
pub(crate) fn is_of_gateway(
    dispatch: &impl Dispatch,
    door: Door,
    head: &http::request::Parts,
) -> bool {
    gateway_of(dispatch, door) == Gateway::There && ::gateway::is_path(head.uri.path())
}

/// A socket whose first bytes were read already.
struct Rewound<S> {
    first: Bytes,
    socket: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let n = buf.remaining().min(self.first.len());
            buf.put_slice(&self.first.split_to(n));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
