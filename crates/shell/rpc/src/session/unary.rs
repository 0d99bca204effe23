//! Unary calls: answered at once, or waiting for a reply without a future.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use ::grpc::{Messages, PREFIX_BYTES};
use api::error::{Code, Status};
use api::method::Row;
use bytes::Bytes;
use calls::{Answer, Encoded, Finish, Recipient};
use futures_util::stream::FuturesUnordered;
use http2::{Connection, Limits, StreamKey};
use member::Reply;
use slab::Slab;
use tokio::time::Instant;
use types::ReplyToken;

use super::answer::Form;
use super::deadline::Deadlines;
use super::gathered::Share;
use super::head::{Grpc, Head, late};
use super::stream::{self, Channel, context_canceled};
use super::{Session, Slot, seen, waits};
use crate::{Dispatch, Local};

/// Bytes that the buffer of answers keeps, while there are calls and when there are none.
const KEPT_BYTES: usize = 64 * 1024;
const IDLE_BYTES: usize = 512;
/// Calls for which an idle connection keeps room.
const IDLE_CALLS: usize = 16;

/// A unary call whose request is not there yet.
#[derive(Debug)]
pub(crate) struct Gathering {
    call: Unary,
    head: Head,
    messages: Messages,
    share: Share,
}

/// A unary call that waits for a reply.
#[derive(Debug)]
pub(crate) struct Pending {
    call: Unary,
    token: ReplyToken,
    /// None if nobody wants the answer any more; what was asked for goes on all the same.
    finish: Option<Finish>,
}

/// A unary call.
#[derive(Clone, Debug)]
pub(super) struct Unary {
    pub(super) stream: StreamKey,
    pub(super) row: &'static Row,
    pub(super) form: Form,
    pub(super) deadline: Option<Instant>,
}

/// What answers the calls of a connection.
pub(super) struct Answering<D: Dispatch> {
    pub(super) session: Rc<Session>,
    pub(super) dispatch: Rc<D>,
    /// The session, as replies are addressed to it.
    recipient: Rc<dyn Recipient<Reply>>,
    /// The calls that are futures.
    pub(super) futures: FuturesUnordered<Local<'static, ()>>,
    deadlines: Deadlines,
    /// Replies that are being looked at; what is left of them waits until the client takes more.
    arrived: VecDeque<(usize, Reply)>,
    /// Where answers are encoded.
    message: Encoded,
}

impl<D: Dispatch> Answering<D> {
    pub(super) fn new(session: Rc<Session>, dispatch: Rc<D>) -> Self {
        Self {
            recipient: Rc::clone(&session) as Rc<dyn Recipient<Reply>>,
            session,
            dispatch,
            futures: FuturesUnordered::new(),
            deadlines: Deadlines::default(),
            arrived: VecDeque::new(),
            message: Encoded::default(),
        }
    }

    /// A call's head has come, and all of its body with it if `whole` is there.
    pub(super) fn begin(&mut self, stream: StreamKey, head: Head, whole: Option<&[u8]>) {
        let content_type = head.content_type.clone().unwrap_or_default();
        if let Some(refusal) = head.refusal() {
            return self.session.refuse(stream, &content_type, &refusal);
        }
        let mut form = Form { content_type, encoding: ::grpc::Encoding::Identity };
        let row = match head.row() {
            Ok(row) => row,
            Err(status) => {
                self.session.end_empty(stream, &form, Some(&status));
                return;
            }
        };
        self.session.metrics.calls.started(row.method);
        match head.encoding() {
            Ok(encoding) => form.encoding = encoding,
            Err(status) => {
                self.session.end_empty(stream, &form, Some(&status));
                return;
            }
        }
        let deadline = head.timeout.map(|timeout| Instant::now() + timeout);
        let limit = self.session.settings.max_message_bytes;
        let call = Unary { stream, row, form, deadline };
        if row.kind != api::method::CallType::Unary {
            return self.begin_stream(call, head, whole);
        }
        if let Some(message) = whole.and_then(|body| only_message(body, limit)) {
            return self.run(call, &head, Bytes::copy_from_slice(message));
        }
        let mut messages = Messages::new(call.form.encoding, limit);
        messages.push(whole.unwrap_or_default());
        let share = self.session.gathered.share();
        self.gather(Box::new(Gathering { call, head, messages, share }), whole.is_some());
    }

    fn begin_stream(&mut self, mut call: Unary, head: Head, whole: Option<&[u8]>) {
        let mut wire = self.session.wire.borrow_mut();
        let channel = Channel::new(&self.session, &call);
        if let Some(body) = whole {
            channel.push(body, true);
        }
        let slot = Slot::Future(Rc::clone(&channel));
        call.stream = place(&mut wire, call.stream, slot);
        channel.set_stream(call.stream);
        drop(wire);
        let serving = stream::serve(Rc::clone(&self.dispatch), channel, head, call.deadline);
        self.futures.push(Box::pin(serving));
    }

    /// More of a request's body has come.
    pub(super) fn data(&mut self, stream: StreamKey, body: &[u8], end: bool) {
        let mut wire = self.session.wire.borrow_mut();
        match wire.slot(stream) {
            Some(Slot::Future(channel)) => channel.push(body, end),
            Some(slot @ Slot::Gathering(_)) => {
                let Slot::Gathering(mut gathering) = std::mem::replace(slot, Slot::Ended) else {
                    unreachable!("matched above")
                };
                // What is gathered is bounded by the limit of a message.
                wire.release(stream, body.len());
                drop(wire);
                // Most requests are one frame, behind others' heads.
                let limit = self.session.settings.max_message_bytes;
                if gathering.messages.is_empty()
                    && let Some(message) = only_message(body, limit)
                {
                    let Gathering { call, head, .. } = *gathering;
                    return self.run(call, &head, Bytes::copy_from_slice(message));
                }
                gathering.messages.push(body);
                self.gather(gathering, end);
            }
            // It has its message already: what follows is ignored.
            Some(Slot::Pending(_) | Slot::Ended) | None => wire.release(stream, body.len()),
        }
    }

    /// Runs the call if its message is there.
    fn gather(&mut self, mut gathering: Box<Gathering>, ended: bool) {
        let eof = |text| Err(Status::new(Code::Unknown, text));
        let message = match gathering.messages.take_next() {
            Ok(Some(message)) => Ok(message),
            Err(status) => Err(status),
            Ok(None) if !ended => match gathering.share.set(gathering.messages.buffered()) {
                Ok(()) => {
                    let stream = gathering.call.stream;
                    self.session.wire.borrow_mut().set_slot(stream, Slot::Gathering(gathering));
                    return;
                }
                Err(status) => Err(status),
            },
            Ok(None) if gathering.messages.is_within_one() => eof("unexpected EOF"),
            Ok(None) => eof("EOF"),
        };
        let Gathering { call, head, .. } = *gathering;
        match message {
            Ok(message) => self.run(call, &head, message),
            Err(status) => self.settle(call, Err(status)),
        }
    }

    fn run(&mut self, call: Unary, head: &Head, message: Bytes) {
        self.session.metrics.calls.received(call.row.method, message.len());
        let calls = self.dispatch.calls();
        let answer = calls.unary(&seen(call.row, head), message, &mut self.message);
        self.settle(call, answer);
    }

    /// Goes on with the calls whose replies have come, as long as the client takes the answers:
    /// a reply is small, and what is made of it need not be.
    pub(super) fn replies(&mut self) {
        // The two queues are swapped, so that neither gives its memory back while there is traffic.
        let mut arrived = std::mem::take(&mut self.arrived);
        while self.session.wire.borrow().takes_answers() {
            if arrived.is_empty() {
                std::mem::swap(&mut arrived, &mut *self.session.replies.borrow_mut());
            }
            let Some((key, reply)) = arrived.pop_front() else { break };
            self.reply(key, reply);
        }
        self.arrived = arrived;
        if !self.session.wire.borrow().takes_answers() {
            self.settle_abandoned();
        }
    }

    /// Frees what only waits to be forgotten, if that keeps the connection from reading what would
    /// open its windows.
    fn settle_abandoned(&mut self) {
        self.arrived.append(&mut *self.session.replies.borrow_mut());
        if self.session.wire.borrow().wants_input() {
            return;
        }
        let (mut pending, before) = (self.session.pending.borrow_mut(), self.arrived.len());
        self.arrived.retain(|(key, _)| {
            let is_wanted = pending.get(*key).is_some_and(|pending| pending.finish.is_some());
            if !is_wanted {
                pending.try_remove(*key);
            }
            is_wanted
        });
        self.session.wire.borrow_mut().settled(before - self.arrived.len());
    }

    /// Gives memory back that a connection without calls does not need.
    pub(super) fn shrink(&mut self) {
        self.give_back(IDLE_BYTES, IDLE_CALLS);
    }

    /// Gives back all that is not in use.
    pub(super) fn rest(&mut self) {
        self.give_back(0, 0);
    }

    fn give_back(&mut self, kept_bytes: usize, kept_calls: usize) {
        self.message.clear(kept_bytes);
        let mut pending = self.session.pending.borrow_mut();
        if pending.is_empty() && pending.capacity() > kept_calls {
            *pending = Slab::new();
        }
        let mut replies = self.session.replies.borrow_mut();
        for queue in [&mut self.arrived, &mut *replies] {
            if queue.is_empty() && queue.capacity() > kept_calls {
                *queue = VecDeque::new();
            }
        }
    }

    fn reply(&mut self, key: usize, reply: Reply) {
        let pending = self.session.pending.borrow_mut().try_remove(key);
        match pending.map(|pending| (pending.call, pending.finish)) {
            Some((call, Some(finish))) => {
                let answer = self.dispatch.calls().finish(finish, reply, &mut self.message);
                self.settle(call, answer);
            }
            Some((_, None)) => self.session.wire.borrow_mut().settled(1),
            None => {}
        }
    }

    /// Answers a call, or lets it wait.
    fn settle(&mut self, call: Unary, answer: Result<Answer, Status>) {
        match answer {
            Ok(Answer::Now) => {
                let bytes = self.message.message().len();
                self.session.metrics.calls.sent(call.row.method, bytes);
                self.dispatch.finished(call.row, None);
                self.session.answer(call.stream, &call.form, &mut self.message);
            }
            Ok(Answer::Later(token, finish)) => self.wait_for_reply(call, token, finish),
            Ok(Answer::Waits(waiting)) => {
                let channel = Channel::new(&self.session, &call);
                let slot = Slot::Future(Rc::clone(&channel));
                let stream = place(&mut self.session.wire.borrow_mut(), call.stream, slot);
                channel.set_stream(stream);
                let work =
                    waits::answer(Rc::clone(&self.dispatch), channel, waiting, call.deadline);
                let mut work: Local<'static, ()> = Box::pin(work);
                // What need not wait is not put among the others.
                if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    self.futures.push(work);
                }
            }
            Err(status) => {
                self.dispatch.finished(call.row, Some(&status));
                self.session.end_empty(call.stream, &call.form, Some(&status));
            }
        }
        self.message.clear(KEPT_BYTES);
    }

    fn wait_for_reply(&mut self, mut call: Unary, token: ReplyToken, finish: Finish) {
        let (stream, deadline) = (call.stream, call.deadline);
        let mut pending = self.session.pending.borrow_mut();
        let entry = pending.vacant_entry();
        let key = entry.key();
        let mut wire = self.session.wire.borrow_mut();
        call.stream = place(&mut wire, stream, Slot::Pending(key));
        entry.insert(Pending { call, token, finish: Some(finish) });
        drop((pending, wire));
        self.dispatch.calls().member().address(token, &self.recipient, key as u64);
        if let Some(deadline) = deadline {
            self.deadlines.add(deadline);
        }
    }

    /// The client wants no answer any more.
    pub(super) fn reset(&mut self, slot: Option<Slot>) {
        match slot {
            Some(Slot::Future(channel)) => channel.set_gone(),
            Some(Slot::Gathering(gathering)) => {
                self.dispatch.finished(gathering.call.row, Some(&context_canceled()));
            }
            Some(Slot::Pending(key)) => self.abandon(key, &context_canceled()),
            Some(Slot::Ended) | None => {}
        }
    }

    /// Forgets a call whose reply is still to come.
    fn abandon(&mut self, key: usize, why: &Status) {
        let mut pending = self.session.pending.borrow_mut();
        let Some(Pending { call, finish, .. }) = pending.get_mut(key) else { return };
        if finish.take().is_some() {
            self.dispatch.finished(call.row, Some(why));
            self.session.wire.borrow_mut().abandoned(1);
        }
    }

    /// Ends the calls whose deadlines have passed.
    pub(super) fn deadlines(&mut self, cx: &mut Context<'_>) {
        while self.deadlines.poll(cx) {
            let now = Instant::now();
            let mut late_calls = Vec::new();
            let mut next: Option<Instant> = None;
            for (key, pending) in &*self.session.pending.borrow() {
                match pending.call.deadline.filter(|_| pending.finish.is_some()) {
                    Some(deadline) if deadline <= now => {
                        late_calls.push((key, pending.call.clone()))
                    }
                    Some(deadline) => next = Some(next.map_or(deadline, |n| n.min(deadline))),
                    None => {}
                }
            }
            for (key, call) in late_calls {
                self.abandon(key, &late());
                self.session.end_empty(call.stream, &call.form, Some(&late()));
            }
            if let Some(next) = next {
                self.deadlines.add(next.max(Deadlines::earliest(now)));
            }
        }
    }
}

impl<D: Dispatch> Drop for Answering<D> {
    /// The connection is gone.
    fn drop(&mut self) {
        let member = self.dispatch.calls().member();
        for pending in self.session.pending.borrow_mut().drain() {
            member.release(pending.token);
            if pending.finish.is_some() {
                self.dispatch.finished(pending.call.row, Some(&context_canceled()));
            }
        }
        self.futures.clear();
        // What the streams hold leads back to the session.
        *self.session.wire.borrow_mut() = Connection::new(Limits::default());
    }
}

/// Gives a call its slot: its stream may have no place in the table yet.
fn place(wire: &mut Connection<Grpc>, stream: StreamKey, slot: Slot) -> StreamKey {
    if wire.is_open(stream) {
        wire.set_slot(stream, slot);
        return stream;
    }
    wire.open(stream, slot)
}

/// The message that is all of `body`, if it is plain and allowed.
fn only_message(body: &[u8], limit: usize) -> Option<&[u8]> {
    let ([flag, length @ ..], message) = body.split_first_chunk::<PREFIX_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (*flag == 0 && length == message.len() && length <= limit).then_some(message)
}
