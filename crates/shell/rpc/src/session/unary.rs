//! Unary calls: answered at once, or waiting for a reply without a future.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::grpc::Messages;
use api::error::{Code, Status};
use api::method::Row;
use bytes::Bytes;
use calls::{Answer, Encoded, Finish, Recipient};
use futures_util::stream::{FuturesUnordered, StreamExt};
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

impl Gathering {
    /// The message, once all of it has come; an error if the connection keeps too much for calls
    /// like this one.
    fn next(&mut self, body: &[u8], ended: bool) -> Option<Result<Bytes, Status>> {
        let message = next_message(&mut self.messages, body, ended);
        if message.is_some() {
            return message;
        }
        self.share.set(self.messages.buffered()).err().map(Err)
    }
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
    /// When it began, if calls are timed.
    pub(super) began: Option<std::time::Instant>,
}

/// What answers the calls of a connection.
pub(super) struct Answering<D: Dispatch> {
    pub(super) session: Rc<Session>,
    pub(super) dispatch: Rc<D>,
    /// The calls that are futures; none on a connection that rests.
    futures: Option<FuturesUnordered<Local<'static, ()>>>,
    deadlines: Deadlines,
    /// Replies that are being looked at; what is left of them waits until the client takes more.
    arrived: VecDeque<(usize, Reply)>,
    /// Where answers are encoded.
    message: Encoded,
}

impl<D: Dispatch> Answering<D> {
    pub(super) fn new(session: Rc<Session>, dispatch: Rc<D>) -> Self {
        Self {
            session,
            dispatch,
            futures: None,
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
        let began = self.session.metrics.calls.clock();
        match head.encoding() {
            Ok(encoding) => form.encoding = encoding,
            Err(status) => {
                self.session.end_empty(stream, &form, Some(&status));
                return;
            }
        }
        let deadline = head.timeout.map(|timeout| Instant::now() + timeout);
        let limit = self.session.settings.max_message_bytes;
        let call = Unary { stream, row, form, deadline, began };
        if row.kind != api::method::CallType::Unary {
            return self.begin_stream(call, head, whole);
        }
        let mut messages = Messages::new(call.form.encoding, limit);
        match whole {
            None => {
                let share = Share::new(&self.session);
                self.gather(Gathering { call, head, messages, share });
            }
            Some(body) => match next_message(&mut messages, body, true) {
                Some(message) => self.run(call, &head, message),
                None => unreachable!("a request that has ended has a message or an error"),
            },
        }
    }

    /// Lets a call wait for its message, until its deadline.
    fn gather(&mut self, gathering: Gathering) {
        let (stream, deadline) = (gathering.call.stream, gathering.call.deadline);
        let key = self.session.gathering.borrow_mut().insert(gathering);
        self.session.wire.borrow_mut().set_slot(stream, Slot::Gathering(key));
        if let Some(deadline) = deadline {
            self.deadlines.add(deadline);
        }
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
        self.push(Box::pin(serving));
    }

    pub(super) fn push(&mut self, call: Local<'static, ()>) {
        self.futures.get_or_insert_default().push(call);
    }

    /// Goes on with the calls that are futures and were woken.
    pub(super) fn futures(&mut self, cx: &mut Context<'_>) {
        let Some(futures) = &mut self.futures else { return };
        while let Poll::Ready(Some(())) = futures.poll_next_unpin(cx) {}
    }

    /// More of a request's body has come.
    pub(super) fn data(&mut self, stream: StreamKey, body: &[u8], end: bool) {
        let mut wire = self.session.wire.borrow_mut();
        match wire.slot(stream) {
            Some(Slot::Future(channel)) => channel.push(body, end),
            Some(slot @ Slot::Gathering(_)) => {
                let Slot::Gathering(key) = *slot else { unreachable!("matched above") };
                let mut table = self.session.gathering.borrow_mut();
                let message = table[key].next(body, end);
                let gathered = message.map(|message| {
                    *slot = Slot::Ended;
                    (table.remove(key), message)
                });
                // What is gathered is bounded for the connection.
                wire.release(stream, body.len());
                drop((wire, table));
                if let Some((Gathering { call, head, .. }, message)) = gathered {
                    self.run(call, &head, message);
                }
            }
            Some(slot @ Slot::Web(_)) => {
                let Slot::Web(waiting) = &mut *slot else { unreachable!("matched above") };
                waiting.push(body, self.session.settings.max_body_bytes);
                let waiting = if end { std::mem::replace(slot, Slot::Ended) } else { Slot::Ended };
                wire.release(stream, body.len());
                drop(wire);
                if let Slot::Web(waiting) = waiting {
                    self.begin_web(stream, *waiting);
                }
            }
            // It has its message already: what follows is ignored.
            Some(Slot::Pending(_) | Slot::Ended) | None => wire.release(stream, body.len()),
        }
    }

    fn run(&mut self, call: Unary, head: &Head, message: Result<Bytes, Status>) {
        let answer = message.and_then(|message| {
            self.session.metrics.calls.received(call.row.method, message.len());
            self.dispatch.calls().unary(
                &seen(&self.session, call.row, head),
                message,
                &mut self.message,
            )
        });
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
        self.futures = self.futures.take().filter(|futures| !futures.is_empty());
        if self.futures.is_none() {
            self.session.pieces.set(None);
        }
        self.give_back(0, 0);
    }

    fn give_back(&mut self, kept_bytes: usize, kept_calls: usize) {
        self.message.clear(kept_bytes);
        let mut pending = self.session.pending.borrow_mut();
        let mut gathering = self.session.gathering.borrow_mut();
        if kept_calls == 0 && pending.is_empty() && gathering.is_empty() {
            self.deadlines = Deadlines::default();
        }
        if pending.is_empty() && pending.capacity() > kept_calls {
            *pending = Slab::new();
        }
        if gathering.is_empty() && gathering.capacity() > kept_calls {
            *gathering = Slab::new();
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
                self.dispatch.finished(call.row, None, call.began);
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
                    self.push(work);
                }
            }
            Err(status) => {
                self.dispatch.finished(call.row, Some(&status), call.began);
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
        let recipient = Rc::clone(&self.session) as Rc<dyn Recipient<Reply>>;
        self.dispatch.calls().member().address(token, recipient, key as u64);
        if let Some(deadline) = deadline {
            self.deadlines.add(deadline);
        }
    }

    /// The client wants no answer any more.
    pub(super) fn reset(&mut self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.give_up(slot, &context_canceled());
        }
    }

    /// Ends what is done for a call that gets no answer any more, for this reason.
    fn give_up(&mut self, slot: Slot, why: &Status) {
        match slot {
            Slot::Future(channel) => channel.set_gone(),
            Slot::Gathering(key) => self.forget(key, why),
            Slot::Pending(key) => self.abandon(key, why),
            Slot::Web(_) | Slot::Ended => {}
        }
    }

    /// Forgets a call whose message is still to come.
    fn forget(&mut self, key: usize, why: &Status) {
        let gathering = self.session.gathering.borrow_mut().remove(key);
        let Unary { row, began, .. } = gathering.call;
        self.dispatch.finished(row, Some(why), began);
    }

    /// Forgets a call whose reply is still to come.
    fn abandon(&mut self, key: usize, why: &Status) {
        let mut pending = self.session.pending.borrow_mut();
        let Some(Pending { call, finish, .. }) = pending.get_mut(key) else { return };
        if finish.take().is_some() {
            self.dispatch.finished(call.row, Some(why), call.began);
            self.session.wire.borrow_mut().abandoned(1);
        }
    }

    /// Ends the calls whose deadlines have passed.
    pub(super) fn deadlines(&mut self, cx: &mut Context<'_>) {
        while self.deadlines.poll(cx) {
            let now = Instant::now();
            let (mut late_calls, mut next) = (Vec::new(), None::<Instant>);
            let mut look = |call: &Unary, slot: Slot| match call.deadline {
                Some(deadline) if deadline <= now => late_calls.push((call.clone(), slot)),
                Some(deadline) => next = Some(next.map_or(deadline, |n| n.min(deadline))),
                None => {}
            };
            for (key, gathering) in &*self.session.gathering.borrow() {
                look(&gathering.call, Slot::Gathering(key));
            }
            for (key, pending) in &*self.session.pending.borrow() {
                if pending.finish.is_some() {
                    look(&pending.call, Slot::Pending(key));
                }
            }
            for (call, slot) in late_calls {
                self.give_up(slot, &late());
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
        for gathering in self.session.gathering.borrow_mut().drain() {
            let Unary { row, began, .. } = gathering.call;
            self.dispatch.finished(row, Some(&context_canceled()), began);
        }
        for pending in self.session.pending.borrow_mut().drain() {
            member.release(pending.token);
            if pending.finish.is_some() {
                let Unary { row, began, .. } = pending.call;
                self.dispatch.finished(row, Some(&context_canceled()), began);
            }
        }
        self.futures = None;
        // What the streams hold leads back to the session.
        *self.session.wire.borrow_mut() = Connection::new(Limits::default());
    }
}

/// Gives a call its slot: its stream may have no place in the table yet.
pub(super) fn place(wire: &mut Connection<Grpc>, stream: StreamKey, slot: Slot) -> StreamKey {
    if wire.is_open(stream) {
        wire.set_slot(stream, slot);
        return stream;
    }
    wire.open(stream, slot)
}

/// The first message, once all of it has come; `body` is what came last, and `ended` whether nothing
/// follows.
fn next_message(
    messages: &mut Messages,
    body: &[u8],
    ended: bool,
) -> Option<Result<Bytes, Status>> {
    // Most requests are one frame.
    if let Some(message) = messages.whole(body) {
        return Some(Ok(Bytes::copy_from_slice(message)));
    }
    messages.push(body);
    match messages.take_next() {
        Ok(Some(message)) => Some(Ok(message)),
        Err(status) => Some(Err(status)),
        Ok(None) if !ended => None,
        Ok(None) if messages.is_within_one() => {
            Some(Err(Status::new(Code::Unknown, "unexpected EOF")))
        }
        Ok(None) => Some(Err(Status::new(Code::Unknown, "EOF"))),
    }
}
