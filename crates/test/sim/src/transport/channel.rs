//! A call of a connection as its handler sees it: messages in, and an answer through the client's
//! windows. The same hand-over as `shell/rpc/src/session/stream.rs`, without its runtime.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use api::error::Status;
use api::method::{Method, Row, by_path};
use bytes::{Buf, Bytes};
use calls::{Body, Encoded, Gone, Local, Sink, Source};
use grpc::status::{code_text, percent_encode};
use grpc::{Encoding, Messages};
use http2::{Code, Connection, End, Field, Protocol, ResponseHead, StaticTags, StreamKey};

use crate::plant::Plant;

/// The field by which a client numbers its calls, so that what they lead to can be told apart.
pub(crate) const CALL: &[u8] = b"x-call";
/// The field with a client's token.
pub(crate) const TOKEN: &[u8] = b"token";
/// Bytes of a request's message at most.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// gRPC, as far as simulated clients speak it.
pub(crate) enum Grpc {}

/// What a field means.
#[derive(Clone, Debug)]
pub(crate) enum Tag {
    Path(Option<&'static Row>),
    Call(Option<u64>),
    Token(Arc<str>),
    Ignored,
}

/// A request's fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) row: Option<&'static Row>,
    pub(crate) call: Option<u64>,
    pub(crate) token: Option<Arc<str>>,
}

impl Protocol for Grpc {
    type Tag = Tag;
    type Head = Head;
    type Slot = Rc<Channel>;

    fn tag(name: &[u8], value: &[u8]) -> Tag {
        let text = std::str::from_utf8(value).unwrap_or_default();
        match name {
            b":path" => Tag::Path(by_path(text)),
            CALL => Tag::Call(text.parse().ok()),
            TOKEN => Tag::Token(text.into()),
            _ => Tag::Ignored,
        }
    }

    fn static_tags() -> &'static StaticTags<Tag> {
        static TAGS: LazyLock<StaticTags<Tag>> = LazyLock::new(StaticTags::of::<Grpc>);
        &TAGS
    }

    fn field(head: &mut Head, tag: &Tag, _: &[u8], _: &[u8]) {
        match tag {
            Tag::Path(row) => head.row = *row,
            Tag::Call(call) => head.call = *call,
            Tag::Token(token) => head.token = Some(Arc::clone(token)),
            Tag::Ignored => {}
        }
    }
}

const CONTENT_TYPE: Field<'static> = Field::indexed(b"content-type", b"application/grpc");
const HEAD: ResponseHead<'static> = ResponseHead { status: 200, fields: &[CONTENT_TYPE] };
const OK: [Field<'static>; 2] =
    [Field::indexed(b"grpc-status", b"0"), Field::indexed(b"grpc-message", b"")];

/// What the calls of a connection share.
pub(crate) struct Shared {
    pub(crate) wire: RefCell<Connection<Grpc>>,
    /// The stream that was opened last, for a planted bug.
    pub(crate) newest: Cell<Option<StreamKey>>,
    pub(crate) plant: Option<Plant>,
}

/// A call as its handler sees it.
pub(crate) struct Channel {
    pub(crate) call: u64,
    pub(crate) method: Method,
    pub(crate) token: Option<Arc<str>>,
    shared: Rc<Shared>,
    stream: Cell<StreamKey>,
    incoming: RefCell<Messages>,
    has_ended: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    has_begun: Cell<bool>,
    /// A part of a message has left, the rest has not.
    is_within: Cell<bool>,
    is_over: Cell<bool>,
}

/// What the connection says.
impl Channel {
    pub(crate) fn new(
        shared: &Rc<Shared>,
        stream: StreamKey,
        (call, method): (u64, Method),
        token: Option<Arc<str>>,
    ) -> Self {
        Self {
            call,
            method,
            token,
            shared: Rc::clone(shared),
            stream: Cell::new(stream),
            incoming: RefCell::new(Messages::new(Encoding::Identity, MAX_MESSAGE_BYTES)),
            has_ended: Cell::new(false),
            waiting: RefCell::default(),
            has_begun: Cell::new(false),
            is_within: Cell::new(false),
            is_over: Cell::new(false),
        }
    }

    /// The stream has this place in the connection's table now.
    pub(crate) fn place(&self, stream: StreamKey) {
        self.stream.set(stream);
    }

    /// More of the request has come.
    pub(crate) fn push(&self, body: &[u8], end: bool) {
        self.incoming.borrow_mut().push(body);
        self.has_ended.set(end);
        self.wake();
    }

    /// The next message, if all of it is there.
    pub(crate) fn message(&self) -> Result<Option<Bytes>, Status> {
        self.incoming.borrow_mut().take_next()
    }

    /// Something that the call waits for has happened.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// The client wants nothing any more.
    pub(crate) fn set_over(&self) {
        self.is_over.set(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub(crate) fn is_on(&self, shared: &Rc<Shared>) -> bool {
        Rc::ptr_eq(&self.shared, shared)
    }
}

/// What the call does.
impl Channel {
    /// Answers with one message, or what was wrong.
    pub(crate) fn answer(&self, answer: Result<Bytes, Status>) {
        let mut stream = self.stream.get();
        if self.shared.plant == Some(Plant::AnswerMisplaced) {
            stream = self.shared.newest.get().unwrap_or(stream);
        }
        match answer {
            Err(status) => self.end(Some(&status)),
            Ok(message) => {
                let body = |out: &mut Vec<u8>| {
                    out.extend_from_slice(&calls::envelope(message.len()));
                    out.extend_from_slice(&message);
                };
                self.shared.wire.borrow_mut().answer(stream, &HEAD, body, &OK);
                self.is_over.set(true);
            }
        }
    }

    /// Ends the answer behind what was sent.
    fn end(&self, status: Option<&Status>) {
        if self.is_over.replace(true) {
            return;
        }
        let stream = self.stream.get();
        let mut wire = self.shared.wire.borrow_mut();
        let (code, text) = status.map_or(("0", String::new()), |status| {
            (code_text(status.code), percent_encode(&status.message))
        });
        let trailers = [
            CONTENT_TYPE,
            Field::literal(b"grpc-status", code.as_bytes()),
            Field::literal(b"grpc-message", text.as_bytes()),
        ];
        if self.is_within.get() {
            wire.reset(stream, Code::INTERNAL_ERROR);
        } else if self.has_begun.get() {
            wire.trailers(stream, &trailers[1..]);
        } else {
            wire.headers(stream, &ResponseHead { status: 200, fields: &trailers }, End::Stream);
        }
    }
}

/// A stream's messages, and where its answer goes.
#[derive(Clone)]
pub(crate) struct Ends(pub(crate) Rc<Channel>);

impl Source for Ends {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        match self.0.message()? {
            None if !self.0.has_ended.get() => {
                *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            message => Poll::Ready(Ok(message)),
        }
    }
}

impl Sink for Ends {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        let channel = &*self.0;
        if channel.is_over() {
            return Err(Gone);
        }
        let mut wire = channel.shared.wire.borrow_mut();
        let stream = channel.stream.get();
        if !channel.has_begun.replace(true) {
            wire.headers(stream, &HEAD, End::Open);
        }
        let room = wire.room(stream).min(sealed.len());
        if room > 0 {
            wire.data_from(stream, &sealed[..room]);
            sealed.advance(room);
            channel.is_within.set(!sealed.is_empty());
        }
        if channel.shared.plant == Some(Plant::WindowSkipped) {
            sealed.clear();
        }
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.try_send(sealed)?;
        if sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.0.shared.wire.borrow_mut().want_room(self.0.stream.get());
        *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn compress(&self, _: &[u8]) -> Bytes {
        unreachable!("messages go out as they are")
    }

    fn count(&self, _: usize) {}
}

/// Serves a stream to its end.
pub(crate) async fn serve(channel: Rc<Channel>, serving: Local<'static, Result<(), Status>>) {
    let ended = serving.await;
    channel.end(ended.err().as_ref());
}

/// Sends a response that had to be waited for, all at once or piece by piece.
pub(crate) async fn send(channel: Rc<Channel>, waiting: Local<'static, Result<Body, Status>>) {
    let ended = send_body(&channel, waiting).await;
    channel.end(ended.err().as_ref());
}

async fn send_body(
    channel: &Rc<Channel>,
    waiting: Local<'static, Result<Body, Status>>,
) -> Result<(), Status> {
    let mut pieces = match waiting.await? {
        Body::Whole(message) => {
            channel.answer(Ok(Encoded::into_message(message).into()));
            return Ok(());
        }
        Body::Pieces(pieces) => pieces,
    };
    let ends = Ends(Rc::clone(channel));
    let length = usize::try_from(pieces.remaining()).expect("a list of this member's");
    let mut sealed = Bytes::copy_from_slice(&calls::envelope(length));
    loop {
        let sent = poll_fn(|cx| ends.poll_send(cx, &mut sealed)).await;
        if sent.is_err() {
            return Ok(());
        }
        channel.is_within.set(true);
        match pieces.next().await? {
            Some(piece) => sealed = piece,
            None => break,
        }
    }
    channel.is_within.set(false);
    Ok(())
}
