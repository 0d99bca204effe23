//! Streams between a client and a member: messages one way, bytes within a window the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use api::error::Status;
use bytes::{Buf, Bytes, BytesMut};
use calls::{ENVELOPE_BYTES, Gone, Sink, Source};

/// What a client has sent and a member has yet to read.
#[derive(Debug, Default)]
struct Upward {
    messages: VecDeque<Bytes>,
    is_half_closed: bool,
    waker: Option<Waker>,
}

/// What a member has sent.
#[derive(Debug)]
struct Downward {
    /// On its way to the client, within the window.
    wire: BytesMut,
    window: usize,
    waker: Option<Waker>,
}

/// One stream. Copies are both ends of it.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    up: Rc<RefCell<Upward>>,
    down: Rc<RefCell<Downward>>,
    /// What the client has read of a message that is not complete.
    read: Rc<RefCell<BytesMut>>,
    /// The status that ended it, if one did.
    pub(crate) ended: Rc<RefCell<Option<Result<(), Status>>>>,
    /// Bytes of messages that the member counted.
    counted: Rc<Cell<usize>>,
    /// Bytes that the client has read and its connection has not looked at.
    taken: Rc<Cell<usize>>,
}

impl Stream {
    /// A stream whose client takes so many bytes before it reads.
    pub(crate) fn new(window: usize) -> Self {
        Self {
            up: Rc::default(),
            down: Rc::new(RefCell::new(Downward { wire: BytesMut::new(), window, waker: None })),
            read: Rc::default(),
            ended: Rc::default(),
            counted: Rc::default(),
            taken: Rc::default(),
        }
    }

    /// The client sends a message.
    pub(crate) fn send(&self, message: Bytes) {
        let mut up = self.up.borrow_mut();
        up.messages.push_back(message);
        wake(&mut up.waker);
    }

    /// The client sends no more.
    pub(crate) fn half_close(&self) {
        let mut up = self.up.borrow_mut();
        up.is_half_closed = true;
        wake(&mut up.waker);
    }

    /// The client reads what has come; the next message if it is complete.
    pub(crate) fn take(&self) -> Option<Bytes> {
        let mut read = self.read.borrow_mut();
        let mut down = self.down.borrow_mut();
        if !down.wire.is_empty() {
            read.extend_from_slice(&down.wire);
            self.taken.update(|taken| taken + down.wire.len());
            down.wire.clear();
            wake(&mut down.waker);
        }
        let length = first_message(&read)?;
        read.advance(ENVELOPE_BYTES);
        Some(read.split_to(length).freeze())
    }

    /// Whether there may be another message for the client; the rest of one that a connection broke
    /// is none.
    pub(crate) fn has_message(&self) -> bool {
        !self.down.borrow().wire.is_empty() || first_message(&self.read.borrow()).is_some()
    }

    /// Whether nothing is left for the client to read.
    pub(crate) fn is_drained(&self) -> bool {
        self.read.borrow().is_empty() && self.down.borrow().wire.is_empty()
    }
}

/// The length of the first message, if all of it is there.
fn first_message(read: &[u8]) -> Option<usize> {
    let length = read.get(1..ENVELOPE_BYTES)?;
    let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    (read.len() >= ENVELOPE_BYTES + length).then_some(length)
}

/// What a client's connection does with its streams.
impl Stream {
    /// The next message that is to be sent, and whether it is the last.
    pub(crate) fn outgoing(&self) -> Option<(Bytes, bool)> {
        let mut up = self.up.borrow_mut();
        let message = up.messages.pop_front()?;
        Some((message, up.is_half_closed && up.messages.is_empty()))
    }

    /// Bytes have come.
    pub(crate) fn arrived(&self, bytes: &[u8]) {
        self.down.borrow_mut().wire.extend_from_slice(bytes);
    }

    /// Bytes that were read since this was last asked.
    pub(crate) fn taken(&self) -> usize {
        self.taken.take()
    }

    /// Whether there is something to send, or to tell that it was read.
    pub(crate) fn has_news(&self) -> bool {
        self.taken.get() > 0 || !self.up.borrow().messages.is_empty()
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Source for Stream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        let mut up = self.up.borrow_mut();
        if let Some(message) = up.messages.pop_front() {
            return Poll::Ready(Ok(Some(message)));
        }
        if up.is_half_closed {
            return Poll::Ready(Ok(None));
        }
        up.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Sink for Stream {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        let mut down = self.down.borrow_mut();
        let room = down.window.saturating_sub(down.wire.len()).min(sealed.len());
        down.wire.extend_from_slice(&sealed.split_to(room));
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        self.try_send(sealed)?;
        if sealed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.down.borrow_mut().waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn compress(&self, _: &[u8]) -> Bytes {
        unreachable!("messages go out as they are")
    }

    fn count(&self, bytes: usize) {
        self.counted.update(|all| all + bytes);
    }
}
