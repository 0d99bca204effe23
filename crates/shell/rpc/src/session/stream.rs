//! Calls that are futures: streams, and answers that take more than one wait.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use ::grpc::{Encoding, Messages};
use api::error::{Code, Status};
use api::method::{CallType, Method, Row};
use bytes::{Buf, Bytes};
use calls::stream::stopped_reading;
use calls::{Encoded, Gone, Sink, Source};
use http2::StreamKey;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answer::Form;
use super::gathered::Share;
use super::head::{ContentType, Head, late};
use super::progress::Progress;
use super::unary::Unary;
use super::{Session, is_finite, seen};
use crate::Dispatch;

/// Bytes that a connection has to send from which on its calls wait.
const UNSENT_BYTES: usize = 256 * 1024;

/// Both directions of a call, as its future and the connection's task share them.
pub(crate) struct Channel {
    session: Rc<Session>,
    stream: Cell<StreamKey>,
    row: &'static Row,
    /// When the call began, if calls are timed.
    began: Option<std::time::Instant>,
    form: Form,
    incoming: RefCell<Incoming>,
    /// The future, when it waits: for a message, for room, or for the client to go.
    waiting: RefCell<Option<Waker>>,
    is_gone: Cell<bool>,
    has_begun: Cell<bool>,
    has_ended: Cell<bool>,
    /// How much of a message is on its way.
    left: RefCell<Progress>,
}

/// What came of a request and was not used yet.
struct Incoming {
    messages: Messages,
    /// Bytes that count against the stream's window.
    unreleased: usize,
    /// What of it no longer counts against the window.
    share: Share,
    ended: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// What the connection's task says.
impl Channel {
    pub(super) fn new(session: &Rc<Session>, call: &Unary) -> Rc<Self> {
        let messages = Messages::new(call.form.encoding, session.settings.max_message_bytes);
        let share = Share::new(session);
        Rc::new(Self {
            session: Rc::clone(session),
            stream: Cell::new(call.stream),
            row: call.row,
            began: call.began,
            form: call.form.clone(),
            incoming: RefCell::new(Incoming { messages, unreleased: 0, share, ended: false }),
            waiting: RefCell::default(),
            is_gone: Cell::new(false),
            has_begun: Cell::new(false),
            has_ended: Cell::new(false),
            left: RefCell::default(),
        })
    }

    /// The channel of a request over HTTP, whose messages are no calls' and whose answer begins by
    /// itself.
    pub(super) fn for_web(session: &Rc<Session>, stream: StreamKey) -> Rc<Self> {
        let form = Form { content_type: ContentType::Plain, encoding: Encoding::Identity };
        let messages = Messages::new(form.encoding, session.settings.max_message_bytes);
        let incoming =
            Incoming { messages, unreleased: 0, share: Share::new(session), ended: true };
        Rc::new(Self {
            session: Rc::clone(session),
            stream: Cell::new(stream),
            // Never looked at: nothing is counted by it.
            row: Method::Range.row(),
            began: None,
            form,
            incoming: RefCell::new(incoming),
            waiting: RefCell::default(),
            is_gone: Cell::new(false),
            has_begun: Cell::new(true),
            has_ended: Cell::new(false),
            left: RefCell::default(),
        })
    }

    /// The stream has a place in the table now.
    pub(super) fn set_stream(&self, stream: StreamKey) {
        self.stream.set(stream);
    }

    /// More of the request has come.
    pub(super) fn push(&self, body: &[u8], end: bool) {
        let mut incoming = self.incoming.borrow_mut();
        incoming.messages.push(body);
        incoming.unreleased += body.len();
        incoming.ended |= end;
        drop(incoming);
        self.wake();
    }

    /// The client is gone.
    pub(super) fn set_gone(&self) {
        self.is_gone.set(true);
        self.wake();
    }

    /// Something that the future may wait for has happened.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// What the call's future does.
impl Channel {
    fn wait(&self, cx: &mut Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
    }

    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_gone.get() {
            return Poll::Ready(());
        }
        self.wait(cx);
        Poll::Pending
    }

    /// Counts a message that goes out.
    pub(super) fn count_sent(&self, bytes: usize) {
        self.session.metrics.calls.sent(self.row.method, bytes);
    }

    /// Answers with one message, and ends the call.
    pub(super) fn send_whole(&self, mut message: Encoded) {
        self.count_sent(message.message().len());
        self.session.answer(self.stream.get(), &self.form, &mut message);
        self.has_ended.set(true);
    }

    /// Ends the call, unless that is done. A client that is gone has no one left to tell.
    fn finish(&self, status: Option<&Status>) {
        if self.has_ended.get() {
            return;
        }
        let stream = self.stream.get();
        if let Some(code) = self.left.borrow().reset(status) {
            self.session.wire.borrow_mut().reset(stream, code);
        } else if self.has_begun.get() {
            self.session.end_answer(stream, status);
        } else {
            self.session.end_empty(stream, &self.form, status);
        }
        self.session.wake();
    }

    /// What the connection's calls take turns with, `count` at a time.
    pub(super) fn turns(&self, count: usize) -> Rc<Semaphore> {
        let turns = self.session.pieces.take().unwrap_or_else(|| Rc::new(Semaphore::new(count)));
        self.session.pieces.set(Some(Rc::clone(&turns)));
        turns
    }

    /// The next bytes are pieces of one message until [`Channel::end_pieces`].
    pub(super) fn begin_pieces(&self) {
        self.left.borrow_mut().begin_pieces();
    }

    /// The last piece has left.
    pub(super) fn end_pieces(&self) {
        self.left.borrow_mut().end_pieces();
    }

    pub(super) fn row(&self) -> &'static Row {
        self.row
    }

    /// Sends bytes of an answer that holds something of the database meanwhile: a client that takes
    /// nothing for long is given up.
    pub(super) async fn send_to_reader(&self, mut sealed: Bytes) -> Result<(), Status> {
        let progress = self.session.settings.reader_progress;
        loop {
            let left = sealed.len();
            let sending = poll_fn(|cx| self.poll_send(cx, &mut sealed));
            match tokio::time::timeout(progress, sending).await {
                Ok(sent) => return sent.map_err(|Gone| context_canceled()),
                Err(_) if sealed.len() < left => {}
                Err(_) => return Err(stopped_reading()),
            }
        }
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        let mut incoming = self.incoming.borrow_mut();
        let next = incoming.messages.take_next();
        let used = match &next {
            Ok(Some(message)) => incoming.unreleased.min(message.len() + ::grpc::PREFIX_BYTES),
            // A message may be longer than the window.
            Ok(None) | Err(_) => incoming.unreleased,
        };
        incoming.unreleased -= used;
        let left = incoming.messages.buffered().saturating_sub(incoming.unreleased);
        incoming.share.set(left)?;
        if used > 0 {
            self.session.wire.borrow_mut().release(self.stream.get(), used);
            self.session.wake();
        }
        Poll::Ready(match next? {
            Some(message) => {
                self.session.metrics.calls.received(self.row.method, message.len());
                Ok(Some(message))
            }
            // Nobody will see it.
            None if self.is_gone.get() => Err(context_canceled()),
            None if !incoming.ended => {
                drop(incoming);
                self.wait(cx);
                return Poll::Pending;
            }
            None if incoming.messages.is_within_one() => {
                Err(Status::new(Code::Internal, "unexpected EOF"))
            }
            None => Ok(None),
        })
    }
}

impl Sink for Channel {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        if self.is_gone.get() {
            return Err(Gone);
        }
        let stream = self.stream.get();
        if !self.has_begun.replace(true) {
            self.session.begin_answer(stream, &self.form);
        }
        let before = sealed.len();
        let mut wire = self.session.wire.borrow_mut();
        let room = UNSENT_BYTES.saturating_sub(wire.out().len()).min(wire.room(stream)).min(before);
        if room > 0 {
            wire.data_from(stream, &sealed[..room]);
            sealed.advance(room);
        }
        drop(wire);
        self.left.borrow_mut().sent(before, sealed.len());
        self.session.wake();
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.try_send(sealed)?;
        if sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.session.wire.borrow_mut().want_room(self.stream.get());
        self.wait(cx);
        Poll::Pending
    }

    fn is_plain(&self) -> bool {
        self.form.encoding == Encoding::Identity
    }

    fn compress(&self, message: &[u8]) -> Bytes {
        ::grpc::envelope::seal(message, self.form.encoding)
    }

    fn count(&self, bytes: usize) {
        self.count_sent(bytes);
    }
}

/// The messages of a request.
struct Requests(Rc<Channel>);

impl Source for Requests {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        self.0.poll_next(cx)
    }
}

/// Serves a stream to its end.
pub(super) async fn serve<D: Dispatch>(
    dispatch: Rc<D>,
    channel: Rc<Channel>,
    head: Head,
    deadline: Option<Instant>,
) {
    let work = async {
        let calls = dispatch.calls();
        let row = channel.row();
        calls.check(&seen(&channel.session, row, &head))?;
        let sink: calls::stream::Out = Rc::clone(&channel) as _;
        let serving = match row.kind {
            CallType::ServerStream => {
                let request = only_request(&channel).await?;
                calls.one_request(&seen(&channel.session, row, &head), request, sink)
            }
            CallType::BidiStream | CallType::Unary => {
                let requests = Box::new(Requests(Rc::clone(&channel)));
                calls.stream(&seen(&channel.session, row, &head), requests, sink)
            }
        };
        serving.await
    };
    run(&*dispatch, &channel, pin!(work), deadline).await;
}

/// The one message of a server-streaming call.
///
/// # Errors
/// grpc-go's texts for none or several.
async fn only_request(channel: &Channel) -> Result<Bytes, Status> {
    let refuse = |text| Err(Status::new(Code::Internal, text));
    let Some(message) = poll_fn(|cx| channel.poll_next(cx)).await? else {
        return refuse(
            "cardinality violation: received no request message from non-client-streaming RPC",
        );
    };
    if poll_fn(|cx| channel.poll_next(cx)).await?.is_some() {
        return refuse(
            "cardinality violation: received multiple request messages for \
             non-client-streaming RPC",
        );
    }
    Ok(message)
}

/// Runs a call's work until it ends, its deadline passes, or the client is gone; and ends it.
pub(super) async fn run<D: Dispatch>(
    dispatch: &D,
    channel: &Rc<Channel>,
    work: Pin<&mut impl Future<Output = Result<(), Status>>>,
    deadline: Option<Instant>,
) {
    let mut open = Open::new(dispatch, channel);
    let Some(result) = until(work, deadline, |cx| channel.poll_gone(cx)).await else { return };
    let status = result.err();
    open.end(status.as_ref());
    channel.finish(status.as_ref());
}

/// Counts a call as open while it lives, and as ended when it does not any more.
struct Open<'a, D: Dispatch> {
    dispatch: &'a D,
    channel: &'a Channel,
    has_ended: bool,
}

impl<'a, D: Dispatch> Open<'a, D> {
    fn new(dispatch: &'a D, channel: &'a Channel) -> Self {
        if is_finite(channel.row) {
            channel.session.finite_futures.update(|n| n + 1);
        }
        Self { dispatch, channel, has_ended: false }
    }

    fn end(&mut self, status: Option<&Status>) {
        self.has_ended = true;
        self.dispatch.finished(self.channel.row, status, self.channel.began);
    }
}

impl<D: Dispatch> Drop for Open<'_, D> {
    fn drop(&mut self) {
        // Whoever else still has the call's sink has no client any more.
        self.channel.is_gone.set(true);
        if is_finite(self.channel.row) {
            self.channel.session.finite_futures.update(|n| n - 1);
        }
        if !self.has_ended {
            self.end(Some(&context_canceled()));
        }
    }
}

/// Runs `work` until it ends, `deadline` passes (a status), or the client is gone (`None`).
async fn until<W: Future<Output = Result<(), Status>> + ?Sized>(
    mut work: Pin<&mut W>,
    deadline: Option<Instant>,
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

/// The status of a call whose client is gone.
pub(super) fn context_canceled() -> Status {
    Status::new(Code::Canceled, "context canceled")
}
