//! The life of one connection: which protocol, then its calls until it ends.
//!
//! Invariant: every task of a connection ends with it; nothing here is sent to another thread.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::grpc::{self, Activity};
use crate::http1;
use crate::io::{Answered, cork};
use crate::ping::{PREFACE, Policy};
use crate::wakes::Wakes;
use crate::{Dispatch, HttpResponse};

/// Time that streams are given when the server stops; calls that end by themselves may end.
const STREAM_GRACE: Duration = Duration::from_millis(500);
/// Rounds over the calls and the connection in one poll: what the first reads, the second answers.
const ROUNDS: usize = 2;
/// Times in a round that calls which were woken while they were polled are polled again.
const TURNS: usize = 64;

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
            max_body_bytes: 2 * max_message_bytes,
            reader_progress: Duration::from_secs(types::limits::READER_PROGRESS_SECS),
        }
    }
}

/// Bytes of a stream's window: what a client may send of one request unasked.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The largest number that is told as a limit of calls: clients read it as a signed one.
//= etcd 3.7.3: server/embed/serve.go#configureHttpServer
const MAX_STREAMS: u32 = i32::MAX as u32;
/// Bytes of a connection's window.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of request headers, as grpc-go allows.
const HEADER_LIST_BYTES: u32 = 16 << 20;

/// Serves one connection until it ends or `stop` turns true: then calls that end by themselves are
/// finished first, streams are cut after a moment.
/// Must run within a `LocalSet`.
///
/// # Errors
/// The socket's; a protocol error of the client ends the connection without one.
pub async fn serve<S, D>(
    mut socket: S,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let mut first = Vec::with_capacity(PREFACE.len());
    let sniffed = tokio::time::timeout(settings.header_timeout, sniff(&mut socket, &mut first));
    let protocol = tokio::select! {
        result = sniffed => result.map_err(|_| io::ErrorKind::TimedOut)??,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let socket = Rewound { first: first.into(), socket };
    match protocol {
        Protocol::Http2 => http2(socket, dispatch, settings, stop).await,
        Protocol::Http1 => http1(socket, dispatch, settings, stop).await,
        // Closed without an answer, as etcd does: it would mean nothing to whoever that is.
        Protocol::Unknown => Ok(()),
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

#[expect(
    clippy::too_many_lines,
    reason = "the life of a connection over h2, which an own HTTP/2 takes over"
)]
async fn http2<S, D>(
    socket: Rewound<S>,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let (corked, cork) = cork(socket);
    let mut handshake = pin!(
        h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(settings.max_concurrent_streams.min(MAX_STREAMS))
            .max_header_list_size(HEADER_LIST_BYTES)
            // A burst of cancelled calls must not end the connection; grpc-go has no limit.
            .max_pending_accept_reset_streams(usize::MAX)
            .max_local_error_reset_streams(None)
            .handshake::<_, Bytes>(corked)
    );
    let handshake = poll_fn(|cx| cork.poll(&mut handshake, cx));
    let mut connection = match tokio::time::timeout(settings.header_timeout, handshake).await {
        Ok(Ok(Ok(connection))) => connection,
        Ok(Ok(Err(_))) => return Ok(()),
        Ok(Err(e)) => return Err(e),
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let activity = Rc::new(Activity::new(Arc::clone(dispatch.metrics())));
    let mut policy = Policy::new(settings.keepalive_min_time);
    let mut keepalive = Keepalive::new(&settings, connection.ping_pong());
    let mut calls = FuturesUnordered::new();
    let mut wakes: Option<Wakes> = None;
    let mut grace: Option<Pin<Box<tokio::time::Sleep>>> = None;
    let mut stopped = pin!(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    // The connection and its calls are one task: an answer costs no turn of the scheduler.
    poll_fn(|cx| {
        if wakes.as_ref().is_none_or(|wakes| !wakes.belong_to(cx)) {
            wakes = Some(Wakes::new(cx));
        }
        let wakes = wakes.as_ref().expect("set above");
        wakes.begin();
        if grace.is_none() && stopped.as_mut().poll(cx).is_ready() {
            grace = Some(Box::pin(tokio::time::sleep(STREAM_GRACE)));
            connection.graceful_shutdown();
        }
        for _ in 0..ROUNDS {
            for _ in 0..TURNS {
                let cx_calls = &mut Context::from_waker(wakes.calls());
                while let Poll::Ready(Some(())) = calls.poll_next_unpin(cx_calls) {}
                if !wakes.calls_pending() {
                    break;
                }
            }
            let cx_connection = &mut Context::from_waker(wakes.connection());
            let mut began = false;
            loop {
                match connection.poll_accept(cx_connection) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        keepalive.heard();
                        let (dispatch, activity) = (Rc::clone(&dispatch), Rc::clone(&activity));
                        let call = grpc::call(dispatch, request, respond, &settings, activity);
                        if let Some(call) = call {
                            calls.push(call);
                            began = true;
                        }
                    }
                    Poll::Ready(Some(Err(_)) | None) => {
                        // What h2 still had to say (a GOAWAY) is sent if the socket takes it.
                        let _ = cork.poll_send(cx);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Pending => break,
                }
            }
            if began {
                wakes.wake_calls();
            }
            if !wakes.pending() {
                break;
            }
        }
        for answered in cork.take_pings() {
            keepalive.heard();
            let open = activity.open_calls.get() > 0;
            if policy.ping(Instant::now(), answered == Answered::Yes, open) {
                cork.append(&too_many_pings());
                let _ = cork.poll_send(cx);
                return Poll::Ready(Ok(()));
            }
        }
        if keepalive.poll_dead(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let sent = cork.poll_send(cx)?;
        if let Some(grace) = &mut grace
            && (grace.is_elapsed() || grace.as_mut().poll(cx).is_ready())
            && activity.finite_calls.get() == 0
            && sent.is_ready()
        {
            // What is open now would never end.
            return Poll::Ready(Ok(()));
        }
        wakes.end();
        Poll::Pending
    })
    .await
}

/// The GOAWAY frame that tells grpc-go clients to ping less often. Written by hand because h2 sends
/// none with debug data; stream 2^31-1 as the last one, as grpc-go does.
fn too_many_pings() -> Vec<u8> {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let text = b"too_many_pings";
    let mut frame = vec![0, 0, 8 + text.len() as u8, 7, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(text);
    frame
}

/// Pings a client that says nothing and gives it up when it does not answer.
struct Keepalive {
    ping_pong: Option<h2::PingPong>,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<tokio::time::Sleep>>,
    waiting: bool,
    heard: bool,
}

impl Keepalive {
    fn new(settings: &Settings, ping_pong: Option<h2::PingPong>) -> Self {
        Self {
            ping_pong,
            interval: settings.keepalive_interval,
            timeout: settings.keepalive_timeout,
            timer: Box::pin(tokio::time::sleep(settings.keepalive_interval)),
            waiting: false,
            heard: false,
        }
    }

    fn heard(&mut self) {
        self.heard = true;
    }

    fn poll_dead(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(ping_pong) = &mut self.ping_pong else {
            return false;
        };
        if self.waiting && ping_pong.poll_pong(cx).is_ready() {
            self.waiting = false;
            self.timer.as_mut().reset(tokio::time::Instant::now() + self.interval);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.waiting {
                return true;
            }
            let now = tokio::time::Instant::now();
            if std::mem::take(&mut self.heard) {
                self.timer.as_mut().reset(now + self.interval);
            } else if ping_pong.send_ping(h2::Ping::opaque()).is_ok() {
                self.waiting = true;
                self.timer.as_mut().reset(now + self.timeout);
            } else {
                return true;
            }
        }
        false
    }
}

async fn http1<S, D>(
    socket: Rewound<S>,
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
                Ok(body) => dispatch.http(http::Request::from_parts(head, body.to_bytes())).await,
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
