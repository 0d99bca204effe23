//! A stream's way to its client, and the bytes of responses.
//!
//! Events are copied from their shared encoding, never decoded. Small responses are one piece of
//! bytes, shared by the watchers whose response is equal (same events, same id); of large ones the
//! events are a shared slice behind a head of their own.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use api::error::Status;
use api::etcdserverpb::{ResponseHeader, WatchResponse};
use bytes::Bytes;
use env::{Failpoint, Instant};
use prost::Message;
use prost::encoding::encode_varint;
use types::{Revision, WatchId};
use watch::{Flow, Response, Sink, StreamId, split_events};

use crate::answer::{ENVELOPE_BYTES, envelope};
use crate::host::Measure;
use crate::member::Member;
use crate::render::varint_field;
use crate::stream::{self, Gone, seal};
use crate::timers::Sleep;

/// Bytes of events up to which a response is put into one piece.
const COPY_BYTES: usize = 8 * 1024;
/// Room for the id and flag of a response.
const HEAD_BYTES: usize = 16;

/// Where a stream's responses go.
pub(super) struct Out {
    sink: stream::Out,
    is_plain: bool,
    /// The rest of one response that the client's window did not allow.
    pending: RefCell<VecDeque<Bytes>>,
    /// Until when a test holds the next response up.
    held: RefCell<Option<Sleep>>,
    gone: Cell<bool>,
    end: RefCell<Option<Status>>,
    waker: RefCell<Option<Waker>>,
}

impl Out {
    pub(super) fn new(sink: stream::Out) -> Self {
        Self {
            is_plain: sink.is_plain(),
            sink,
            pending: RefCell::default(),
            held: RefCell::default(),
            gone: Cell::new(false),
            end: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Ends the stream with a status.
    pub(super) fn end(&self, status: Status) {
        *self.end.borrow_mut() = Some(status);
        self.wake();
    }

    /// Counts a message of this length.
    fn count(&self, bytes: usize) {
        self.sink.count(bytes);
    }

    fn push(&self, mut sealed: Bytes) -> Flow {
        if self.gone.get() {
            return Flow::Full;
        }
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            let is_held = self.held.borrow().is_some();
            if !is_held && self.sink.try_send(&mut sealed).is_err() {
                // The call is about to be dropped; until then its watchers cost nothing.
                self.gone.set(true);
                return Flow::Full;
            }
            if sealed.is_empty() {
                return Flow::Open;
            }
            self.wake();
        }
        pending.push_back(sealed);
        Flow::Full
    }

    /// Sends a response of its own.
    pub(super) fn respond(&self, response: &WatchResponse) -> Flow {
        self.push(seal(&*self.sink, response))
    }

    pub(super) fn is_clear(&self) -> bool {
        self.pending.borrow().is_empty()
    }

    /// Sends what is pending as the window opens.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if let Some(until) = &mut *self.held.borrow_mut() {
            ready!(Pin::new(until).poll(cx));
        }
        *self.held.borrow_mut() = None;
        let mut pending = self.pending.borrow_mut();
        while let Some(first) = pending.front_mut() {
            ready!(self.sink.poll_send(cx, first))?;
            pending.pop_front();
        }
        pending.shrink_to(0);
        Poll::Ready(Ok(()))
    }

    /// Ready when the stream is to end, or something is pending.
    pub(super) fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Some(status) = self.end.borrow_mut().take() {
            return Poll::Ready(Err(status));
        }
        if !self.is_clear() {
            return Poll::Ready(Ok(()));
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when the stream is to end.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(status) = self.end.borrow_mut().take() {
            return Poll::Ready(status);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The last small response, for the next watcher whose is the same.
struct Last {
    revision: Revision,
    watch: WatchId,
    /// Held, so that its address names it.
    body: Bytes,
    sealed: Bytes,
    /// Events in it.
    events: u64,
}

/// Hands the hub's responses out during one turn.
pub(super) struct Delivery<'a> {
    outs: Ref<'a, Vec<Option<Rc<Out>>>>,
    member: &'a Member,
    header: ResponseHeader,
    last: Option<Last>,
    /// The header of the last response with events, encoded behind room for the envelope.
    encoded: Vec<u8>,
    /// Since the first response with events, and how many there were.
    sending: Option<(Instant, u64)>,
}

impl Drop for Delivery<'_> {
    /// One look at the clock for a whole turn, however many watchers it serves.
    fn drop(&mut self) {
        if let Some((began, events)) = self.sending {
            let took = self.member.now().since(began);
            self.member.measure(Measure::Watched { events, took });
        }
    }
}

impl<'a> Delivery<'a> {
    pub(super) fn new(outs: Ref<'a, Vec<Option<Rc<Out>>>>, member: &'a Member) -> Self {
        let header = member.header(Revision(0));
        Self { outs, member, header, last: None, encoded: Vec::new(), sending: None }
    }

    /// The fields before the events, behind room for the envelope and before room for `body`
    /// bytes.
    fn head(&mut self, watch: WatchId, revision: Revision, fragment: bool, body: usize) -> Vec<u8> {
        if self.encoded.is_empty() || self.header.revision != revision.0 {
            self.header.revision = revision.0;
            self.encoded.clear();
            self.encoded.extend_from_slice(&[0; ENVELOPE_BYTES]);
            self.encoded.push(1 << 3 | 2);
            encode_varint(self.header.encoded_len() as u64, &mut self.encoded);
            self.header.encode_raw(&mut self.encoded);
        }
        let mut head = Vec::with_capacity(self.encoded.len() + HEAD_BYTES + body);
        head.extend_from_slice(&self.encoded);
        varint_field(&mut head, 2, watch.0 as u64);
        varint_field(&mut head, 7, u64::from(fragment));
        head
    }

    fn count(&mut self, events: u64) {
        self.member.measure(Measure::Events(events));
        let (_, sent) = self.sending.get_or_insert_with(|| (self.member.now(), 0));
        *sent += events;
    }

    fn events(
        &mut self,
        out: &Out,
        (watch, revision): (WatchId, Revision),
        body: &Bytes,
        fragment: bool,
    ) -> Flow {
        if let Some(last) = &self.last
            && (last.revision, last.watch) == (revision, watch)
            && (last.body.as_ptr(), last.body.len()) == (body.as_ptr(), body.len())
            && out.is_plain
            && !fragment
        {
            out.count(last.sealed.len() - ENVELOPE_BYTES);
            let (events, sealed) = (last.events, last.sealed.clone());
            self.count(events);
            return out.push(sealed);
        }
        let events = split_events(body).count() as u64;
        self.count(events);
        let copied = if body.len() > COPY_BYTES { 0 } else { body.len() };
        let mut head = self.head(watch, revision, false, copied);
        let length = head.len() - ENVELOPE_BYTES + body.len();
        if fragment && length >= self.member.shared.limits.fragment_bytes {
            return self.fragments(out, watch, revision, body);
        }
        out.count(length);
        head[..ENVELOPE_BYTES].copy_from_slice(&envelope(length));
        if !out.is_plain {
            head.extend_from_slice(body);
            return out.push(out.sink.compress(&head[ENVELOPE_BYTES..]));
        }
        if body.len() > COPY_BYTES {
            let first = out.push(head.into());
            let second = out.push(body.clone());
            return if first == Flow::Full { first } else { second };
        }
        head.extend_from_slice(body);
        let sealed = Bytes::from(head);
        let flow = out.push(sealed.clone());
        self.last = Some(Last { revision, watch, body: body.clone(), sealed, events });
        flow
    }

    /// Splits a response between events so that each part stays below the limit where one event
    /// alone does not exceed it.
    //= etcd 3.7.1: server/etcdserver/api/v3rpc/watch.go#sendFragments
    fn fragments(&mut self, out: &Out, watch: WatchId, revision: Revision, body: &Bytes) -> Flow {
        let head = self.head(watch, revision, true, 0).len() - ENVELOPE_BYTES;
        let parts = cut(body, head, self.member.shared.limits.fragment_bytes);
        let count = parts.len();
        let mut flow = Flow::Open;
        for (i, (start, end)) in parts.into_iter().enumerate() {
            let mut message = self.head(watch, revision, i + 1 < count, end - start);
            message.extend_from_slice(&body[start..end]);
            let length = message.len() - ENVELOPE_BYTES;
            out.count(length);
            message[..ENVELOPE_BYTES].copy_from_slice(&envelope(length));
            let sealed = match out.is_plain {
                true => message.into(),
                false => out.sink.compress(&message[ENVELOPE_BYTES..]),
            };
            if out.push(sealed) == Flow::Full {
                flow = Flow::Full;
            }
        }
        flow
    }
}

/// Where a body of events is cut so that each part, behind `head` bytes, stays below `limit` unless
/// one event alone does not.
fn cut(body: &Bytes, head: usize, limit: usize) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    for event in split_events(body) {
        match parts.last_mut() {
            Some((start, end)) if head + at + event.len() - *start < limit => {
                *end = at + event.len();
            }
            _ => parts.push((at, at + event.len())),
        }
        at += event.len();
    }
    parts
}

impl Sink for Delivery<'_> {
    fn send(&mut self, stream: StreamId, response: Response<'_>) -> Flow {
        let Some(out) = self.outs[stream.0 as usize].clone() else {
            unreachable!("a stream is closed in the hub before its way out is dropped")
        };
        let delay = self.member.shared.failpoints.delay(Failpoint::BeforeSendWatchResponse);
        if !delay.is_zero() {
            *out.held.borrow_mut() = Some(self.member.sleep(delay));
        }
        match response {
            Response::Events { watch, revision, body, fragment } => {
                self.events(&out, (watch, revision), body, fragment)
            }
            // etcd leaves the revision out of this one's header.
            Response::Compacted { watch, compact } => out.respond(&WatchResponse {
                header: Some(ResponseHeader { revision: 0, ..self.header }),
                watch_id: watch.0,
                canceled: true,
                compact_revision: compact.0,
                ..WatchResponse::default()
            }),
            Response::Progress { watch, revision } => out.respond(&WatchResponse {
                header: Some(ResponseHeader { revision: revision.0, ..self.header }),
                watch_id: watch.0,
                ..WatchResponse::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of these encoded lengths.
    fn body(lens: &[usize]) -> Bytes {
        let mut body = Vec::new();
        for len in lens {
            body.push(0x5a);
            encode_varint(*len as u64, &mut body);
            body.resize(body.len() + len, b'e');
        }
        body.into()
    }

    #[test]
    fn parts_are_cut_between_events_where_the_limit_is_reached() {
        let of = |lens: &[usize], head, limit| -> Vec<usize> {
            let parts = cut(&body(lens), head, limit);
            assert_eq!(parts.first().map(|p| p.0), Some(0));
            assert!(parts.windows(2).all(|w| w[0].1 == w[1].0));
            parts.iter().map(|(start, end)| end - start).collect()
        };
        assert_eq!(of(&[98, 98, 98], 10, 311), [300]);
        assert_eq!(of(&[98, 98, 98], 10, 310), [200, 100]);
        assert_eq!(of(&[98, 98, 98], 10, 210), [100, 100, 100]);
        assert_eq!(of(&[98, 98, 98], 10, 211), [200, 100]);
        assert_eq!(of(&[500, 1, 1], 10, 100), [503, 6]);
    }
}
