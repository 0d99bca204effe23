//! The connection: what it knows, and one `match` over what comes in.
//!
//! Invariants:
//! 1. No more DATA is ever put out for a stream than its window and the connection's allow.
//! 2. A stream is in the table from its first event to its last frame, unless it came whole and was
//!    answered at once.
//! 3. A stream is in at most one of the queues of `flow`, and `held` is the sum over all streams.
//! 4. Nothing grows with what a client sends but within a limit of [`Limits`].

mod answer;
mod flow;
mod headers;
mod receive;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;

use crate::frame::{self, HEAD, Head, MAX_ID, MAX_PAYLOAD, kind, setting};
use crate::hpack::{Decoder, Encoder};
use crate::protocol::{Event, LastStream, Protocol};
use crate::streams::{StreamKey, Streams};
use crate::{Code, Fatal, Limits, PREFACE};

/// Bytes of every window, until something else is said.
//= RFC 9113, 6.9.2
const DEFAULT_WINDOW: u32 = 65_535;

/// What a frame leads to.
type Told<'a, P> = Result<Option<Event<'a, P>>, Fatal>;

/// How far the client has introduced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its preface is to come.
    Preface,
    /// Its first SETTINGS is to come.
    Settings,
    /// Anything may come.
    Open,
}

/// The server's half of an HTTP/2 connection. See the crate's page.
pub struct Connection<P: Protocol> {
    limits: Limits,
    out: Vec<u8>,
    phase: Phase,
    failed: Option<Fatal>,
    decoder: Decoder<P::Tag>,
    encoder: Encoder,
    /// A header block that has not ended.
    gathering: Option<Box<headers::Gathering<P>>>,
    cache: Vec<headers::Cached<P>>,
    streams: Streams<P::Slot>,
    /// The highest stream that was taken.
    last: u32,
    /// Whether new streams are ignored.
    draining: bool,
    flow: flow::Flow,
    empty_data_frames: u32,
    /// The client's limit of a response's fields.
    header_list_limit: Option<u32>,
    /// Whether a HEADERS or DATA frame was put out since the last PING came.
    answered: bool,
    abandoned: usize,
    protocol: PhantomData<fn(P)>,
}

impl<P: Protocol> fmt::Debug for Connection<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Connection");
        shown.field("streams", &self.streams.len()).field("last", &self.last);
        shown.field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl<P: Protocol> Connection<P> {
    /// A connection that has just begun; what the server says first is in [`Connection::out`].
    //= grpc-go 1.82: internal/transport/http2_server.go#NewServerTransport
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut out = Vec::new();
        let mut settings = vec![(setting::MAX_FRAME_SIZE, MAX_PAYLOAD as u32)];
        if limits.concurrent_streams != u32::MAX {
            settings.push((setting::MAX_CONCURRENT_STREAMS, limits.concurrent_streams));
        }
        if limits.stream_window != DEFAULT_WINDOW {
            settings.push((setting::INITIAL_WINDOW_SIZE, limits.stream_window));
        }
        frame::head(&mut out, 6 * settings.len(), kind::SETTINGS, 0, 0);
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        let more = limits.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            frame::window_update(&mut out, 0, more);
        }
        Self {
            out,
            phase: Phase::Preface,
            failed: None,
            decoder: Decoder::new(P::static_tags(), P::tag, limits.header_list_bytes),
            encoder: Encoder::new(),
            gathering: None,
            cache: Vec::new(),
            streams: Streams::new(),
            last: 0,
            draining: false,
            flow: flow::Flow::new(),
            empty_data_frames: 0,
            header_list_limit: None,
            answered: false,
            abandoned: 0,
            protocol: PhantomData,
            limits,
        }
    }

    /// Takes the next frames off `input`, and continues answers that waited for windows. `None`:
    /// the rest is no whole frame (at most 16,393 bytes), or [`Connection::wants_input`] says no.
    /// Keep it, write what is in [`Connection::out`], and call again with more behind it, or with
    /// the same if something was written.
    ///
    /// # Errors
    /// The client's: the connection must end. Called again it says the same.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a, P>>, Fatal> {
        if let Some(fatal) = self.failed {
            return Err(fatal);
        }
        if self.phase == Phase::Preface && !self.take_preface(input)? {
            return Ok(None);
        }
        loop {
            if let Some(stream) = self.continue_answers() {
                return Ok(Some(Event::Writable { stream }));
            }
            if !self.wants_input() {
                return Ok(None);
            }
            let Some(head) = Head::read(input) else { return Ok(None) };
            if head.length > MAX_PAYLOAD {
                return self.fail(Code::FRAME_SIZE_ERROR, "a frame that is too large");
            }
            let Some((bytes, rest)) = input.split_at_checked(HEAD + head.length) else {
                return Ok(None);
            };
            *input = rest;
            if let Some(event) = self.on_frame(head, &bytes[HEAD..], input)? {
                return Ok(Some(event));
            }
        }
    }

    /// Takes the bytes that a client sends first; whether they were all there.
    fn take_preface(&mut self, input: &mut &[u8]) -> Result<bool, Fatal> {
        let known = PREFACE.len().min(input.len());
        if input[..known] != PREFACE[..known] {
            return self.fail(Code::PROTOCOL_ERROR, "a bogus greeting");
        }
        let is_whole = known == PREFACE.len();
        if is_whole {
            *input = &input[known..];
            self.phase = Phase::Settings;
        }
        Ok(is_whole)
    }

    fn on_frame<'a>(&mut self, head: Head, payload: &'a [u8], rest: &mut &'a [u8]) -> Told<'a, P> {
        if self.phase == Phase::Settings {
            if head.kind != kind::SETTINGS {
                return self.fail(Code::PROTOCOL_ERROR, "the first frame is no SETTINGS");
            }
            self.phase = Phase::Open;
        }
        let continued = self.gathering.as_ref().map(|gathering| gathering.id);
        if continued.is_some() != (head.kind == kind::CONTINUATION)
            || continued.is_some_and(|id| id != head.id)
        {
            return self.fail(Code::PROTOCOL_ERROR, "a header block that is not continued");
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload),
            kind::HEADERS => self.on_headers(head, payload, rest),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            kind::RST_STREAM => self.on_rst_stream(head, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PING => self.on_ping(head, payload),
            kind::GOAWAY => self.on_goaway(head, payload),
            kind::PUSH_PROMISE => self.on_push_promise(head, payload),
            kind::PRIORITY => self.on_priority(head, payload),
            kind::PRIORITY_UPDATE => self.on_priority_update(head, payload),
            _ => Ok(None),
        }
    }

    /// Ends the connection without a goodbye, as grpc-go does for most errors.
    //= grpc-go 1.82: internal/transport/http2_server.go#HandleStreams
    fn fail<T>(&mut self, code: Code, reason: &'static str) -> Result<T, Fatal> {
        let fatal = Fatal { code, reason };
        self.failed = Some(fatal);
        self.gathering = None;
        Err(fatal)
    }

    /// Ends the connection with a GOAWAY.
    fn fail_loudly<T>(&mut self, code: Code, reason: &'static str) -> Result<T, Fatal> {
        self.goaway(LastStream::Seen, code, reason.as_bytes());
        self.fail(code, reason)
    }

    /// Resets a stream on which the client broke the protocol, whether it is known or not.
    fn stream_error<'a>(&mut self, id: u32, code: Code) -> Option<Event<'a, P>> {
        frame::rst_stream(&mut self.out, id, code);
        let stream = self.streams.find(id)?;
        let slot = self.remove(stream).and_then(|stream| stream.slot);
        Some(Event::Reset { stream, code, slot })
    }

    /// What is to be sent. The driver writes and clears it once per round, and may swap it for
    /// another empty buffer, so that idle connections hold none.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether frames are taken off the input: not while too much is unsent or too many abandoned
    /// calls run. The driver reads nothing meanwhile.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.out.len() < self.limits.unsent_bytes && self.abandoned < self.limits.abandoned_calls
    }

    /// Whether more answers may be put out: not while as much waits for the client as
    /// [`Limits::held_bytes`] says. Answers that can be made later stay small until then.
    #[must_use]
    pub fn takes_answers(&self) -> bool {
        self.pending_bytes() <= self.limits.held_bytes
    }

    /// Whether the client's preface and its first SETTINGS have come.
    #[must_use]
    pub fn is_introduced(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Sends a PING; [`Event::Pong`] is its answer.
    pub fn ping(&mut self, data: [u8; 8]) {
        frame::ping(&mut self.out, 0, data);
    }

    /// Says goodbye, or warns of it.
    //= grpc-go 1.82: internal/transport/http2_server.go#outgoingGoAwayHandler
    pub fn goaway(&mut self, last: LastStream, code: Code, debug: &[u8]) {
        let last = match last {
            LastStream::Any => MAX_ID,
            LastStream::Seen => {
                self.draining = true;
                self.last
            }
        };
        frame::goaway(&mut self.out, last, code, debug);
    }

    /// Notes calls whose streams are gone but on which the layer above still works
    /// ([`Limits::abandoned_calls`]).
    pub fn abandoned(&mut self, calls: usize) {
        self.abandoned = self.abandoned.saturating_add(calls);
    }

    /// Notes that as many abandoned calls have ended.
    pub fn settled(&mut self, calls: usize) {
        self.abandoned = self.abandoned.saturating_sub(calls);
    }

    /// Whether the stream is in the table.
    #[must_use]
    pub fn is_open(&self, stream: StreamKey) -> bool {
        self.streams.get(stream).is_some()
    }

    /// What the layer above keeps with a stream.
    pub fn slot(&mut self, stream: StreamKey) -> Option<&mut P::Slot> {
        self.streams.get_mut(stream)?.slot.as_mut()
    }

    /// Sets what the layer above keeps with a stream; gives it back if the stream is gone.
    pub fn set_slot(&mut self, stream: StreamKey, slot: P::Slot) -> Option<P::Slot> {
        match self.streams.get_mut(stream) {
            Some(stream) => {
                stream.slot = Some(slot);
                None
            }
            None => Some(slot),
        }
    }

    /// Streams in the table: those with a request or an answer that is not complete.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether a goodbye was said and every stream that it promised has ended: the connection may
    /// be closed once all is written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.streams.len() == 0
    }

    /// Whether nothing is open and nothing is unsent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.len() == 0 && self.out.is_empty()
    }

    /// Bytes of answers that wait for the client's windows.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.flow.held
    }

    /// Bytes that are not written yet: those held, and those in [`Connection::out`].
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.flow.held + self.out.len()
    }

    /// Gives back all that the next request would make again. For a driver that has heard nothing
    /// for long.
    pub fn rest(&mut self) {
        self.shrink();
        self.streams.rest();
        self.cache = Vec::new();
        self.decoder.rest();
        self.encoder.rest();
    }

    /// Gives memory back that an idle connection does not need. For a driver that is going to wait;
    /// cheap if there is nothing to give.
    pub fn shrink(&mut self) {
        self.streams.shrink();
        self.flow.shrink(&self.streams);
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }
}
