//! One connection without its socket: bytes in, events out, and what is to be sent in a buffer.
//!
//! Calls are numbered by the driver's slots. A call succeeded only if its HTTP status was 200, its
//! `grpc-status` 0 and a message came; whatever else ends it is a [`Failure`].

use std::collections::VecDeque;

use super::call::{Broken, Call, Event, Failure};
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::frame::{self, HEAD_BYTES, Head, MAX_PAYLOAD_BYTES, flag, kind, setting};

/// Bytes that the server may send of one answer unasked; the full client's are the same.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all answers of the connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Windows until a peer says otherwise.
//= RFC 9113, 6.9.2
const DEFAULT_WINDOW_BYTES: u32 = 65_535;
/// Bytes of a header block over all its frames.
const MAX_BLOCK_BYTES: usize = 64 * 1_024;
/// The greatest stream id.
const MAX_STREAM: u32 = 0x7fff_ffff;

/// What is done with messages of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Their bytes are counted.
    Count,
    /// They are shown.
    Show,
}

/// A header block that is not complete.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends_stream: bool,
    bytes: Vec<u8>,
}

/// A client's end of one connection, without its socket.
#[derive(Debug)]
pub struct Connection {
    /// What is to be sent.
    pub out: Vec<u8>,
    reading: Reading,
    encoder: Encoder,
    decoder: Decoder,
    /// In the order of their streams.
    calls: VecDeque<Call>,
    next_stream: u32,
    /// What may still be sent on the connection, and at first on each stream.
    window: i64,
    initial_window: i64,
    unreturned: u32,
    max_calls: usize,
    block: Option<Block>,
    has_settings: bool,
    is_closing: bool,
    rest: Vec<u8>,
}

impl Connection {
    /// A connection whose first bytes are ready to be sent.
    #[must_use]
    pub fn new(encoder: Encoder, reading: Reading) -> Self {
        let mut out = frame::PREFACE.to_vec();
        let settings =
            [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES)];
        frame::settings(&mut out, &settings);
        frame::window_update(&mut out, 0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
        Self {
            out,
            reading,
            encoder,
            decoder: Decoder::default(),
            calls: VecDeque::new(),
            next_stream: 1,
            window: i64::from(DEFAULT_WINDOW_BYTES),
            initial_window: i64::from(DEFAULT_WINDOW_BYTES),
            unreturned: 0,
            max_calls: usize::MAX,
            block: None,
            has_settings: false,
            is_closing: false,
            rest: Vec::new(),
        }
    }

    /// Whether the server said what it allows; before, no call may begin.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.has_settings
    }

    /// Calls that have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call with a message of so many bytes may begin now.
    #[must_use]
    pub fn has_room(&self, message_bytes: usize) -> bool {
        let bytes = message_bytes as i64;
        self.has_settings
            && !self.is_closing
            && self.calls.len() < self.max_calls
            && self.next_stream <= MAX_STREAM
            && bytes <= self.window
            && bytes <= self.initial_window
    }

    /// Whether no call will ever begin again.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.is_closing || self.next_stream > MAX_STREAM
    }

    /// Begins a call with the message that `write` appends, which is its only one if `ends`.
    ///
    /// # Panics
    /// Unless [`Connection::has_room`] for the message.
    pub fn begin(&mut self, slot: u32, ends: Ends, write: impl FnOnce(&mut Vec<u8>)) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let head_at = self.out.len();
        self.out.extend_from_slice(&[0; HEAD_BYTES]);
        self.encoder.write(&mut self.out);
        self.patch_head(head_at, kind::HEADERS, flag::END_HEADERS, stream);
        self.calls.push_back(Call::new(stream, slot, self.initial_window));
        self.data(self.calls.len() - 1, ends, write);
    }

    /// Sends one more message on the open stream of a slot; `false` if its windows have no room
    /// for so many bytes, or it is over.
    pub fn send(&mut self, slot: u32, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let bytes = bytes as i64;
        let Some(place) = self.calls.iter().position(|call| call.slot == slot) else {
            return false;
        };
        if bytes > self.window || bytes > self.calls[place].window {
            return false;
        }
        self.data(place, Ends::Later, write);
        true
    }

    fn data(&mut self, place: usize, ends: Ends, write: impl FnOnce(&mut Vec<u8>)) {
        let head_at = self.out.len();
        self.out.extend_from_slice(&[0; HEAD_BYTES]);
        write(&mut self.out);
        let bytes = (self.out.len() - head_at - HEAD_BYTES) as i64;
        let call = &mut self.calls[place];
        call.window -= bytes;
        self.window -= bytes;
        assert!(self.window >= 0 && call.window >= 0, "a message beyond the windows");
        let flags = if ends == Ends::Now { flag::END_STREAM } else { 0 };
        let stream = call.stream;
        self.patch_head(head_at, kind::DATA, flags, stream);
    }

    fn patch_head(&mut self, at: usize, kind: u8, flags: u8, stream: u32) {
        let length = self.out.len() - at - HEAD_BYTES;
        assert!(length <= MAX_PAYLOAD_BYTES, "a frame of {length} bytes");
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        self.out[at..at + HEAD_BYTES].copy_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
    }

    /// Puts what was left of the last bytes to the front of the buffer that is to be read into, and
    /// tells how many those are. They belong to what [`Connection::received`] gets next.
    pub fn take_rest(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.rest.len();
        buffer[..count].copy_from_slice(&self.rest);
        self.rest.clear();
        count
    }

    /// Walks the frames of what was received and keeps the beginning of one that is not complete.
    ///
    /// # Errors
    /// The server broke the protocol.
    pub fn received(
        &mut self,
        mut input: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        while let Some(head) = Head::read(input) {
            if head.length > MAX_PAYLOAD_BYTES {
                return Err(Broken("a frame beyond the limit"));
            }
            let Some(payload) = input.get(HEAD_BYTES..HEAD_BYTES + head.length) else { break };
            self.frame(head, payload, on)?;
            input = &input[HEAD_BYTES + head.length..];
        }
        self.rest.extend_from_slice(input);
        Ok(())
    }

    /// Ends every call because the connection is gone.
    pub fn lose(&mut self, on: &mut impl FnMut(u32, Event<'_>)) {
        self.is_closing = true;
        for call in self.calls.drain(..) {
            on(call.slot, Event::Ended(Err(Failure::Lost)));
        }
    }

    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        if self.block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Broken("a header block was interrupted"));
        }
        if !self.has_settings && head.kind != kind::SETTINGS {
            return Err(Broken("not HTTP/2, or no SETTINGS frame first"));
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload, on),
            kind::HEADERS => {
                let block = frame::unpadded(head, payload).ok_or(Broken("too much padding"))?;
                let ends_stream = head.has(flag::END_STREAM);
                if head.has(flag::END_HEADERS) {
                    return self.on_fields(head.stream, ends_stream, block, on);
                }
                let bytes = block.to_vec();
                self.block = Some(Block { stream: head.stream, ends_stream, bytes });
                Ok(())
            }
            kind::CONTINUATION => self.on_continuation(head, payload, on),
            kind::RST_STREAM => {
                let code = payload.first_chunk().ok_or(Broken("a short RST_STREAM"))?;
                let code = u32::from_be_bytes(*code);
                self.end(head.stream, on, |_| Err(Failure::Reset(code)));
                Ok(())
            }
            kind::SETTINGS if head.has(flag::ACK) => Ok(()),
            kind::SETTINGS => self.on_settings(payload),
            kind::PING if head.has(flag::ACK) => Ok(()),
            kind::PING => {
                frame::write(&mut self.out, kind::PING, flag::ACK, 0, payload);
                Ok(())
            }
            kind::GOAWAY => {
                let last = payload.first_chunk().ok_or(Broken("a short GOAWAY"))?;
                let last = u32::from_be_bytes(*last) & MAX_STREAM;
                self.is_closing = true;
                while self.calls.back().is_some_and(|call| call.stream > last)
                    && let Some(call) = self.calls.pop_back()
                {
                    on(call.slot, Event::Ended(Err(Failure::GoneAway)));
                }
                Ok(())
            }
            kind::WINDOW_UPDATE => {
                let bytes = payload.first_chunk().ok_or(Broken("a short WINDOW_UPDATE"))?;
                let bytes = i64::from(u32::from_be_bytes(*bytes) & MAX_STREAM);
                if head.stream == 0 {
                    self.window += bytes;
                } else if let Some(place) = self.place(head.stream) {
                    self.calls[place].window += bytes;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_settings(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Broken("a short SETTINGS"));
        }
        for [a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([*c, *d, *e, *f]);
            match u16::from_be_bytes([*a, *b]) {
                setting::HEADER_TABLE_SIZE => self.encoder.set_table_size(value as usize),
                setting::MAX_CONCURRENT_STREAMS => self.max_calls = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.initial_window;
                    self.initial_window += change;
                    self.calls.iter_mut().for_each(|call| call.window += change);
                }
                _ => {}
            }
        }
        self.has_settings = true;
        frame::write(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    /// Where the call of a stream stands. Answers mostly come in the order of the calls.
    fn place(&self, stream: u32) -> Option<usize> {
        if self.calls.front()?.stream == stream {
            return Some(0);
        }
        self.calls.binary_search_by_key(&stream, |call| call.stream).ok()
    }

    fn end(
        &mut self,
        stream: u32,
        on: &mut impl FnMut(u32, Event<'_>),
        outcome: impl FnOnce(&mut Call) -> Result<(), Failure>,
    ) {
        if let Some(mut call) = self.place(stream).and_then(|place| self.calls.remove(place)) {
            on(call.slot, Event::Ended(outcome(&mut call)));
        }
    }

    fn on_data(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        // Padding counts as well, and so does what comes for a call that is over.
        //= RFC 9113, 6.9.1
        self.unreturned += head.length as u32;
        if self.unreturned >= CONNECTION_WINDOW_BYTES / 2 {
            frame::window_update(&mut self.out, 0, std::mem::take(&mut self.unreturned));
        }
        let data = frame::unpadded(head, payload).ok_or(Broken("too much padding"))?;
        let Some(place) = self.place(head.stream) else { return Ok(()) };
        let call = &mut self.calls[place];
        call.bytes += data.len() as u64;
        call.unreturned += head.length as u32;
        if call.unreturned >= STREAM_WINDOW_BYTES / 2 && !head.has(flag::END_STREAM) {
            let bytes = std::mem::take(&mut call.unreturned);
            frame::window_update(&mut self.out, head.stream, bytes);
        }
        if self.reading == Reading::Show {
            call.show(data, on)?;
        }
        if head.has(flag::END_STREAM) {
            self.end(head.stream, on, |_| Err(Failure::NoStatus));
        }
        Ok(())
    }

    fn on_continuation(
        &mut self,
        head: Head,
        payload: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        let mut block = self.block.take().ok_or(Broken("a CONTINUATION of nothing"))?;
        if block.stream != head.stream || block.bytes.len() + payload.len() > MAX_BLOCK_BYTES {
            return Err(Broken("a CONTINUATION that does not fit"));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.on_fields(block.stream, block.ends_stream, &block.bytes, on);
        }
        self.block = Some(block);
        Ok(())
    }

    fn on_fields(
        &mut self,
        stream: u32,
        ends_stream: bool,
        block: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        let place = self.place(stream);
        let mut call = place.map(|place| &mut self.calls[place]);
        self.decoder.decode(block, |name, value| {
            if let Some(call) = &mut call {
                call.field(name, value);
            }
        })?;
        if ends_stream {
            self.end(stream, on, Call::outcome);
        }
        Ok(())
    }
}

/// When a call's own half ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// With this message.
    Now,
    /// After more messages, or never.
    Later,
}
