//! The task of a connection: reads, hands events to calls, writes.
//!
//! One poll is a few rounds of: replies that have come, futures that were woken, what the socket has,
//! one write of all that these had to say. Idle connections hold no buffers: input is read into the
//! thread's, and only what is left of a frame is kept.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http2::{Code, Event, Fatal, LastStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::head::Grpc;
use super::keepalive::{Keepalive, Need};
use super::ping::Policy;
use super::unary::Answering;
use super::{Session, Slot};
use crate::{Dispatch, Origin, Settings};

/// Time that streams are given when the server stops; calls that end by themselves may end.
const STREAM_GRACE: Duration = Duration::from_millis(500);
/// Rounds in one poll, so that a busy connection does not keep others from theirs.
const ROUNDS: usize = 4;
/// Bytes read and written in one poll, from which on the others have their turn. What is written in
/// a round has a limit of its own (`stream.rs#UNSENT_BYTES`).
const TURN_BYTES: usize = READ_BYTES;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of input that may be kept: what was read and could not be taken yet.
const KEPT_BYTES: usize = 2 * READ_BYTES;
/// Bytes of an output buffer that a connection keeps while it waits for nothing.
const IDLE_BYTES: usize = 512;
/// The PING between the two goodbyes of a stop; its answer says that the first has arrived.
//= grpc-go 1.83: internal/transport/http2_server.go#goAwayPing
const GOODBYE_PING: [u8; 8] = [1, 6, 1, 8, 0, 3, 3, 9];

thread_local! {
    /// Where the connections of a thread are read into, one after another.
    static INPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; KEPT_BYTES + READ_BYTES].into());
}

/// Serves a connection whose first bytes were read already, until it ends or `stop` turns true: then
/// calls that end by themselves are finished first, streams are cut after a moment.
///
/// # Errors
/// The socket's; a protocol error of the client ends the connection without one.
pub(crate) fn serve<S, D>(
    socket: S,
    first: Vec<u8>,
    origin: Origin,
    dispatch: Rc<D>,
    settings: Rc<Settings>,
    mut stop: watch::Receiver<bool>,
) -> impl Future<Output = io::Result<()>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    D: Dispatch,
{
    let stopped = Box::pin(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let keepalive = Keepalive::new(&settings);
    let policy = Policy::default();
    let session = Session::new(settings, Arc::clone(dispatch.metrics()), &origin);
    let mut drive = Drive {
        socket,
        kept: first,
        written: 0,
        unflushed: false,
        tells_end: origin.tls.is_some(),
        answering: Answering::new(Rc::clone(&session), dispatch),
        session,
        keepalive,
        policy,
        stopped,
        grace: None,
    };
    // Not an `async fn`: its future would have room for the arguments beside all this.
    poll_fn(move |cx| drive.poll(cx))
}

/// Has the task polled again, but not before the sockets of other connections were looked at.
///
/// A task that only wakes itself is polled thousands of times until the runtime asks the system for
/// what has become ready: a client that sends without a pause would hold up all others of its
/// thread.
fn yield_to_others(cx: &mut Context<'_>) {
    // Its first poll has the runtime wake the task behind its next look at the sockets.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Why a connection ends.
enum Ended {
    /// What was said last is sent if the socket takes it.
    Properly,
    /// The socket failed, or the client does not answer.
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Failed(error)
    }
}

impl From<Fatal> for Ended {
    fn from(_: Fatal) -> Self {
        Ended::Properly
    }
}

struct Drive<S, D: Dispatch> {
    socket: S,
    session: Rc<Session>,
    answering: Answering<D>,
    /// Input that was read and not taken.
    kept: Vec<u8>,
    /// Bytes of the output that the socket has taken.
    written: usize,
    /// Whether what TLS made of the output may not have left yet.
    unflushed: bool,
    /// Whether the client is to be told of the end: with TLS it would take it for an attack.
    tells_end: bool,
    keepalive: Keepalive,
    policy: Policy,
    stopped: Pin<Box<dyn Future<Output = ()>>>,
    grace: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, D: Dispatch> Drive<S, D> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.begin_poll(cx);
        let ended = self.rounds(cx);
        self.session.is_polled.set(false);
        match ended {
            Ok(()) => Poll::Pending,
            Err(Ended::Properly) => {
                let _ = self.write(cx);
                if self.tells_end {
                    let _ = Pin::new(&mut self.socket).poll_shutdown(cx);
                }
                Poll::Ready(Ok(()))
            }
            Err(Ended::Failed(error)) => Poll::Ready(Err(error)),
        }
    }

    fn rounds(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        self.stop(cx);
        let mut bytes = 0;
        for round in 1.. {
            self.answering.replies();
            self.answering.deadlines(cx);
            self.answering.futures(cx);
            let read = self.read(cx)?;
            bytes += read;
            // What has just been begun is polled once, and what has been woken.
            self.answering.futures(cx);
            let written = self.write(cx)?;
            bytes += written;
            if read == 0 && written == 0 {
                break;
            }
            if round == ROUNDS || bytes >= TURN_BYTES {
                yield_to_others(cx);
                break;
            }
        }
        if self.session.wire.borrow().is_introduced() {
            self.keepalive.introduced();
        }
        match self.keepalive.poll(cx) {
            Need::Nothing => {}
            Need::Rest => self.rest(),
            Need::Ping(data) => {
                self.session.wire.borrow_mut().ping(data);
                self.write(cx)?;
            }
            Need::End => return Err(Ended::Failed(io::ErrorKind::TimedOut.into())),
        }
        if self.is_over(cx) { Err(Ended::Properly) } else { Ok(()) }
    }

    /// Gives back what the next call would have to make again.
    fn rest(&mut self) {
        self.session.wire.borrow_mut().rest();
        self.answering.rest();
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
    }

    /// Begins to end the connection when the server stops.
    fn stop(&mut self, cx: &mut Context<'_>) {
        if self.grace.is_none() && self.stopped.as_mut().poll(cx).is_ready() {
            self.grace = Some(Box::pin(tokio::time::sleep(STREAM_GRACE)));
            let mut wire = self.session.wire.borrow_mut();
            wire.goaway(LastStream::Any, Code::NO_ERROR, b"graceful_stop");
            wire.ping(GOODBYE_PING);
        }
    }

    /// Whether a connection that is to end has nothing more to do.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(grace) = &mut self.grace else { return false };
        let mut wire = self.session.wire.borrow_mut();
        if !wire.out().is_empty() {
            return false;
        }
        // What is open when the time has passed and does not end by itself would never end.
        let has_passed = grace.is_elapsed() || grace.as_mut().poll(cx).is_ready();
        wire.is_drained()
            || has_passed && !self.session.has_finite_calls() && wire.held_bytes() == 0
    }

    /// Reads once and hands on what was read. Returns how many bytes that were.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<usize, Ended> {
        INPUT.with_borrow_mut(|buffer| {
            let kept = self.kept.len();
            buffer[..kept].copy_from_slice(&self.kept);
            let mut end = kept;
            if kept <= KEPT_BYTES && self.session.wire.borrow().wants_input() {
                let mut room = ReadBuf::new(&mut buffer[kept..kept + READ_BYTES]);
                match Pin::new(&mut self.socket).poll_read(cx, &mut room) {
                    Poll::Pending => {}
                    Poll::Ready(Err(error)) => return Err(error.into()),
                    // The client has gone; grpc-go's server does not answer one that half-closes.
                    Poll::Ready(Ok(())) if room.filled().is_empty() => return Err(Ended::Properly),
                    Poll::Ready(Ok(())) => end += room.filled().len(),
                }
            }
            if end > kept {
                self.keepalive.heard();
            }
            let mut input = &buffer[..end];
            let taken = self.take(&mut input);
            self.keep(input);
            taken?;
            Ok(end - kept)
        })
    }

    /// Keeps the rest of the input for the next time.
    fn keep(&mut self, rest: &[u8]) {
        self.kept.clear();
        self.kept.extend_from_slice(rest);
        if rest.is_empty() && self.kept.capacity() > IDLE_BYTES {
            self.kept = Vec::new();
        }
    }

    /// Hands on what stands in the input.
    fn take(&mut self, input: &mut &[u8]) -> Result<(), Ended> {
        loop {
            let event = self.session.wire.borrow_mut().next(input)?;
            let Some(event) = event else { return Ok(()) };
            self.handle(event)?;
        }
    }

    fn handle(&mut self, event: Event<'_, Grpc>) -> Result<(), Ended> {
        match event {
            Event::Whole { stream, head, body } if self.session.is_web(&head) => {
                self.answering.web(stream, &head, body, true);
            }
            Event::Head { stream, head, end } if self.session.is_web(&head) => {
                self.answering.web(stream, &head, &[], end);
            }
            Event::Whole { stream, head, body } => self.answering.begin(stream, head, Some(body)),
            // A request that ends with its head is not told to be over, and waits for its client to
            // leave: only DATA end what grpc-go's handlers read.
            //= grpc-go 1.82: internal/transport/http2_server.go#operateHeaders
            Event::Head { stream, head, .. } => self.answering.begin(stream, head, None),
            Event::Data { stream, body, end } => self.answering.data(stream, body, end),
            Event::Reset { slot, .. } => self.answering.reset(slot),
            Event::Writable { stream } => {
                if let Some(Slot::Future(channel)) = self.session.wire.borrow_mut().slot(stream) {
                    channel.wake();
                }
            }
            Event::Ping { forgiven } => {
                let is_open = self.session.wire.borrow().open_streams() > 0;
                let min_time = self.session.settings.keepalive_min_time;
                if self.policy.ping(min_time, Instant::now(), forgiven, is_open) {
                    let mut wire = self.session.wire.borrow_mut();
                    wire.goaway(LastStream::Seen, Code::ENHANCE_YOUR_CALM, b"too_many_pings");
                    return Err(Ended::Properly);
                }
            }
            Event::Pong(GOODBYE_PING) => {
                let mut wire = self.session.wire.borrow_mut();
                wire.goaway(LastStream::Seen, Code::NO_ERROR, b"graceful_stop");
            }
            Event::Pong(_) => {}
        }
        Ok(())
    }

    /// Writes what there is to say, as far as the socket takes it. Returns how many bytes it was if
    /// all was written: then calls that waited may go on. Else 0.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut wire = self.session.wire.borrow_mut();
        let out = wire.out();
        if out.is_empty() && !self.unflushed {
            return Ok(0);
        }
        while self.written < out.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &out[self.written..]) {
                Poll::Pending => return Ok(0),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        // Without TLS there is nothing left to do.
        self.unflushed = Pin::new(&mut self.socket).poll_flush(cx)?.is_pending();
        let written = std::mem::take(&mut self.written);
        out.clear();
        if self.unflushed {
            return Ok(0);
        }
        if wire.is_idle() {
            wire.shrink();
            self.answering.shrink();
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_busy_connection_lets_those_be_seen_that_have_become_ready() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        local.spawn_local(poll_fn(move |cx| {
            counted.update(|n: u32| n + 1);
            yield_to_others(cx);
            Poll::<()>::Pending
        }));
        local.block_on(&runtime, async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connected = tokio::net::TcpStream::connect(address);
            let (connected, accepted) = tokio::join!(connected, listener.accept());
            let (mut client, (mut server, _)) = (connected.unwrap(), accepted.unwrap());
            let before = polls.get();
            for _ in 0..100 {
                client.write_all(b"ask").await.unwrap();
                server.read_exact(&mut [0; 3]).await.unwrap();
            }
            let each = (polls.get() - before) / 100;
            assert!(each < 20, "{each} polls of the busy one for each answer");
        });
    }
}
