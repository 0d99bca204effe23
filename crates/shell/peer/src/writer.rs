//! A stream that a peer opened to be sent messages: the queue, and the body that drains it.
//!
//! Invariants: the queue is filled only while a body is attached; a newer body replaces an older
//! one; a body that ends reports its peer unreachable, for what it took may not have arrived.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/stream.go#streamWriter

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use raft::Message;
use tokio::time::{Interval, MissedTickBehavior};
use types::MemberId;

use crate::codec::{AppendEncoder, encode_link_heartbeat, encode_message};
use crate::core::Core;
use crate::event::{Channel, Event, Side};

/// Messages that wait for a stream.
const QUEUED_MESSAGES: usize = 4_096;
/// Messages of one write.
const BATCH_MESSAGES: usize = 2_048;
/// Bytes after which a write takes no more messages.
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes of a buffer for writes to begin with.
const BUFFER_BYTES: usize = 16 * 1024;
/// A buffer above this is not kept.
const KEPT_BYTES: usize = 1 << 20;

/// The sending side of one stream to one peer.
pub(crate) struct Writer {
    core: Rc<Core>,
    peer: MemberId,
    channel: Channel,
    queue: RefCell<VecDeque<Message>>,
    /// The number of the attached body; 0 if there is none.
    attached: Cell<u64>,
    bodies: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Writer {
    pub(crate) fn new(core: Rc<Core>, peer: MemberId, channel: Channel) -> Rc<Self> {
        Rc::new(Self {
            core,
            peer,
            channel,
            queue: RefCell::default(),
            attached: Cell::new(0),
            bodies: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached.get() != 0
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.borrow().is_empty()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Queues a message; whether there was room.
    pub(crate) fn push(&self, message: Message) -> bool {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= QUEUED_MESSAGES {
            return false;
        }
        queue.push_back(message);
        drop(queue);
        self.wake();
        true
    }

    /// The body of a new stream, which takes the place of an older one.
    pub(crate) fn attach(self: &Rc<Self>) -> StreamBody {
        if self.is_attached() {
            self.detach(self.attached.get(), "replaced by a newer connection");
        }
        let number = self.bodies.get() + 1;
        self.bodies.set(number);
        self.attached.set(number);
        self.core.activate(self.peer);
        self.core.event(Event::StreamEstablished(self.peer, self.channel, Side::Writer));
        let mut ticks = tokio::time::interval(self.core.config.read_timeout / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let encoder = match self.channel {
            Channel::Appends => Encoder::Appends(AppendEncoder::default()),
            _ => Encoder::Messages,
        };
        StreamBody {
            writer: Rc::clone(self),
            number,
            encoder,
            ticks,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            lengths: 0,
        }
    }

    fn detach(&self, number: u64, why: &str) {
        if number == 0 || self.attached.get() != number {
            return;
        }
        self.attached.set(0);
        self.queue.borrow_mut().clear();
        self.wake();
        self.core.event(Event::StreamLost(self.peer, self.channel, Side::Writer, why));
        self.core.member.unreachable(self.peer);
    }

    /// Ends the stream: the peer is no peer any more.
    pub(crate) fn close(&self) {
        if self.is_attached() {
            self.attached.set(0);
            self.queue.borrow_mut().clear();
            self.wake();
            self.core.event(Event::StreamLost(self.peer, self.channel, Side::Writer, "stopped"));
        }
    }
}

enum Encoder {
    Appends(AppendEncoder),
    Messages,
}

/// An endless response body.
pub(crate) struct StreamBody {
    writer: Rc<Writer>,
    number: u64,
    encoder: Encoder,
    ticks: Interval,
    buffer: BytesMut,
    /// Bytes of messages in the buffer.
    lengths: u64,
}

impl StreamBody {
    /// Encodes what is queued, up to the limits of one write.
    fn gather(&mut self) {
        let mut queue = self.writer.queue.borrow_mut();
        for _ in 0..BATCH_MESSAGES {
            if self.buffer.len() >= BATCH_BYTES {
                break;
            }
            let Some(message) = queue.pop_front() else { break };
            let before = self.buffer.len();
            match &mut self.encoder {
                Encoder::Appends(encoder) => encoder.encode(&message, &mut self.buffer),
                Encoder::Messages => encode_message(&message, &mut self.buffer),
            }
            self.lengths += (self.buffer.len() - before) as u64;
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.writer.attached.get() != self.number {
            return Poll::Ready(None);
        }
        self.gather();
        if self.ticks.poll_tick(cx).is_ready() {
            match &self.encoder {
                Encoder::Appends(_) => AppendEncoder::encode_link_heartbeat(&mut self.buffer),
                Encoder::Messages => encode_link_heartbeat(&mut self.buffer),
            }
            // The timer must be polled once more to wake this task again.
            let _ = self.ticks.poll_tick(cx);
        }
        if self.buffer.is_empty() {
            let mut waker = self.writer.waker.borrow_mut();
            if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if self.lengths > 0 {
            let lengths = std::mem::take(&mut self.lengths);
            self.writer.core.event(Event::Sent(self.writer.peer, lengths));
        }
        let batch = self.buffer.split().freeze();
        // Reclaims the storage if the last batch has left.
        if batch.len() > KEPT_BYTES {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        } else {
            self.buffer.reserve(BUFFER_BYTES);
        }
        Poll::Ready(Some(Frame::data(batch)))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.writer.attached.get() == self.number {
            let (peer, channel) = (self.writer.peer, self.writer.channel);
            self.writer.core.deactivate(peer, channel, "write", "connection lost");
            self.writer.detach(self.number, "connection lost");
        }
    }
}

/// The body of an answer to a peer.
pub(crate) enum AnswerBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// A stream.
    Stream(Box<StreamBody>),
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            AnswerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            AnswerBody::Stream(stream) => stream.poll_frame(cx).map(|f| f.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            AnswerBody::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            AnswerBody::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            AnswerBody::Stream(_) => hyper::body::SizeHint::default(),
        }
    }
}
