//! The life of one connection: which protocol, then its calls until it ends.
//!
//! Invariant: every task of a connection ends with it; nothing here is sent to another thread.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use calls::Local;
use futures_util::TryFutureExt;
use http_body_util::{BodyExt, Full, Limited};
use http2::PREFACE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::{Agreed, Dispatch, Door, HttpResponse, Origin, http1, session};

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
            Box::pin(http1(socket, origin.door(), dispatch, settings, stop).map_ok(|()| Next(None)))
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

async fn http1<S, D>(
    socket: Rewound<S>,
    door: Door,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let limit = settings.max_body_bytes;
    let service = service_fn(move |request: http::Request<Incoming>| {
        let dispatch = Rc::clone(&dispatch);
        async move {
            let (head, body) = request.into_parts();
            let head = match http1::settle(head) {
                Ok(head) => head,
                Err(answer) => return Ok(answer.map(Full::new)),
            };
            let response = match Limited::new(body, limit).collect().await {
                Ok(body) => {
                    let request = http::Request::from_parts(head, body.to_bytes());
                    dispatch.http(request, door).await
                }
                Err(_) => {
                    let mut response = HttpResponse::new(Bytes::new());
                    *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                    response
                }
            };
            Ok::<_, std::convert::Infallible>(response.map(Full::new))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stop.wait_for(|stop| *stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that breaks off or sends nonsense is not the server's error.
    result.or(Ok(()))
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
