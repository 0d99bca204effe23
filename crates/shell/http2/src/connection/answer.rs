//! Answers: heads, data, trailers, resets.

use bytes::Bytes;

use super::Connection;
use crate::Code;
use crate::frame::{self, HEAD, MAX_PAYLOAD, flag, kind};
use crate::hpack::Encoder;
use crate::protocol::{End, Field, Protocol, ResponseHead};
use crate::streams::{NOWHERE, Stream, StreamKey};

/// Bytes that a field counts in a list besides its text.
const FIELD_OVERHEAD: usize = 32;

impl<P: Protocol> Connection<P> {
    /// Gives a [`Event::Whole`](crate::Event::Whole) request a place in the table of streams, to be
    /// answered later under the key that is returned.
    pub fn open(&mut self, stream: StreamKey, slot: P::Slot) -> StreamKey {
        let id = stream.id;
        let made = Stream { request_ended: true, slot: Some(slot), ..Stream::new(id) };
        self.streams.insert(made)
    }

    /// Answers a request with one body: straight into [`Connection::out`] as far as the windows
    /// allow; what does not fit waits in the stream. `body` appends the DATA and is called at once,
    /// unless the stream is gone or its head is longer than the client takes. Returns the slot.
    pub fn answer(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead<'_>,
        body: impl FnOnce(&mut Vec<u8>),
        trailers: &[Field<'_>],
    ) -> Option<P::Slot> {
        let is_whole = stream.place == NOWHERE;
        let window = match self.streams.get(stream) {
            Some(known) if known.trailers.is_some() => return None,
            Some(known) if known.waiting.is_empty() => self.flow.window(known.send_window),
            Some(_) => 0,
            None if is_whole => self.flow.window(0),
            None => return None,
        };
        if self.is_too_long(head.fields, Some(head.status)) {
            return self.reset(stream, Code::INTERNAL_ERROR);
        }
        if self.streams.get(stream).is_none_or(|known| !known.head_sent) {
            self.send_head(stream, head, 0);
        }
        let at = self.out.len();
        frame::head(&mut self.out, 0, kind::DATA, 0, stream.id);
        body(&mut self.out);
        let length = self.out.len() - at - HEAD;
        let sent = length.min(window);
        let mut known = self.streams.get_mut(stream);
        let mut opened = 0;
        let relative = known.as_mut().map_or(&mut opened, |known| &mut known.send_window);
        self.flow.spend(relative, sent);
        if sent == length {
            // An empty message has no frame.
            match length {
                0 => self.out.truncate(at),
                _ => frame::close_data(&mut self.out, at),
            }
            if is_whole && self.is_too_long(trailers, None) {
                return self.reset(stream, Code::INTERNAL_ERROR);
            }
            if is_whole {
                self.send_trailers_of(stream.id, true, |encoder, out| {
                    trailers.iter().for_each(|field| encoder.field(out, field));
                });
                return None;
            }
            return self.trailers(stream, trailers);
        }
        let rest = Bytes::from(self.out.split_off(at + HEAD + sent));
        match sent {
            0 => self.out.truncate(at),
            _ => frame::close_data(&mut self.out, at),
        }
        let stream = match is_whole {
            true => self.streams.insert(Stream {
                request_ended: true,
                head_sent: true,
                send_window: opened,
                ..Stream::new(stream.id)
            }),
            false => stream,
        };
        self.hold(stream, rest);
        self.trailers(stream, trailers)
    }

    /// Sends an answer's head, once, unless the stream is gone. With [`End::Stream`] it is all of
    /// the answer (gRPC's trailers-only), and the slot is returned. It is too if the head is longer
    /// than the client takes, which resets the stream.
    pub fn headers(
        &mut self,
        stream: StreamKey,
        head: &ResponseHead<'_>,
        end: End,
    ) -> Option<P::Slot> {
        let is_whole = stream.place == NOWHERE;
        match self.streams.get(stream) {
            Some(known) if known.head_sent => return None,
            None if !is_whole || end == End::Open => return None,
            _ => {}
        }
        if self.is_too_long(head.fields, Some(head.status)) {
            return self.reset(stream, Code::INTERNAL_ERROR);
        }
        match end {
            End::Open => {
                self.send_head(stream, head, 0);
                None
            }
            End::Stream => {
                self.send_head(stream, head, flag::END_STREAM);
                self.finish(stream)
            }
        }
    }

    /// Sends a part of an answer, behind its head; what windows and room do not allow waits in the
    /// stream. Returns whether the stream is there and takes data.
    pub fn data(&mut self, stream: StreamKey, mut data: Bytes) -> bool {
        let sent = self.room(stream).min(data.len());
        let Some(known) = self.streams.get_mut(stream) else { return false };
        if !known.head_sent || known.trailers.is_some() {
            return false;
        }
        if sent > 0 {
            self.flow.spend(&mut known.send_window, sent);
            self.send_data(stream.id, &data[..sent]);
        }
        if sent < data.len() {
            self.hold(stream, data.split_off(sent));
        }
        true
    }

    /// Like [`Connection::data`], for short parts: what leaves at once is copied nowhere else.
    pub fn data_from(&mut self, stream: StreamKey, data: &[u8]) -> bool {
        if self.room(stream) < data.len() {
            return self.data(stream, Bytes::copy_from_slice(data));
        }
        let Some(known) = self.streams.get_mut(stream) else { return false };
        if !known.head_sent {
            return false;
        }
        self.flow.spend(&mut known.send_window, data.len());
        self.send_data(stream.id, data);
        true
    }

    /// Ends an answer behind what was sent, with its last DATA if there are no fields, and returns
    /// the slot. If the client still sends, it is
    /// told to stop by RST_STREAM with NO_ERROR. An answer without a head, and one whose trailers
    /// are longer than the client takes, is reset with INTERNAL_ERROR.
    //= grpc-go 1.82: internal/transport/http2_server.go#writeStatus
    pub fn trailers(&mut self, stream: StreamKey, fields: &[Field<'_>]) -> Option<P::Slot> {
        let known = self.streams.get(stream)?;
        if !known.head_sent || self.is_too_long(fields, None) {
            return self.reset(stream, Code::INTERNAL_ERROR);
        }
        let known = self.streams.get_mut(stream)?;
        if known.trailers.is_some() {
            return None;
        }
        if known.waiting.is_empty() {
            return self.send_trailers(stream, |encoder, out| {
                fields.iter().for_each(|field| encoder.field(out, field));
            });
        }
        let mut block = Vec::new();
        fields.iter().for_each(|field| Encoder::timeless(&mut block, field));
        known.trailers = Some(block.into());
        known.slot.take()
    }

    /// Gives up a stream, with what waits in it, and returns the slot. Works for a
    /// [`Event::Whole`](crate::Event::Whole) request too.
    pub fn reset(&mut self, stream: StreamKey, code: Code) -> Option<P::Slot> {
        let known = self.remove(stream);
        if known.is_some() || stream.place == NOWHERE {
            frame::rst_stream(&mut self.out, stream.id, code);
        }
        known.and_then(|known| known.slot)
    }

    /// Whether the client does not take a list of fields of this length.
    //= grpc-go 1.82: internal/transport/http2_server.go#checkForHeaderListSize
    fn is_too_long(&self, fields: &[Field<'_>], status: Option<u16>) -> bool {
        let Some(limit) = self.header_list_limit else { return false };
        let size = |field: &Field<'_>| field.name.len() + field.value.len() + FIELD_OVERHEAD;
        let status = status.map_or(0, |_| ":status".len() + "200".len() + FIELD_OVERHEAD);
        status + fields.iter().map(size).sum::<usize>() > limit as usize
    }

    fn send_head(&mut self, stream: StreamKey, head: &ResponseHead<'_>, flags: u8) {
        let mut forgives = true;
        if let Some(known) = self.streams.get_mut(stream) {
            known.head_sent = true;
            forgives = known.forgives;
        }
        self.answered |= forgives;
        let at = self.out.len();
        frame::head(&mut self.out, 0, kind::HEADERS, flags | flag::END_HEADERS, stream.id);
        self.encoder.begin(&mut self.out);
        Encoder::status(&mut self.out, head.status);
        for field in head.fields {
            self.encoder.field(&mut self.out, field);
        }
        frame::close_block(&mut self.out, at);
    }

    /// Puts out DATA for which there is room.
    fn send_data(&mut self, id: u32, data: &[u8]) {
        self.answered |= !data.is_empty();
        for piece in data.chunks(MAX_PAYLOAD) {
            frame::head(&mut self.out, piece.len(), kind::DATA, 0, id);
            self.out.extend_from_slice(piece);
        }
    }

    /// Keeps data until its turn.
    fn hold(&mut self, key: StreamKey, data: Bytes) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.held += data.len();
        self.flow.held += data.len();
        stream.waiting.push_back(data);
        self.line_up(key);
    }

    /// Puts out the trailers of a stream of the table.
    pub(super) fn send_trailers(
        &mut self,
        key: StreamKey,
        fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) -> Option<P::Slot> {
        let forgives = self.streams.get(key).is_some_and(|stream| stream.forgives);
        self.send_trailers_of(key.id, forgives, fields);
        self.finish(key)
    }

    fn send_trailers_of(
        &mut self,
        id: u32,
        forgives: bool,
        fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        self.answered |= forgives;
        let at = self.out.len();
        let flags = flag::END_HEADERS | flag::END_STREAM;
        frame::head(&mut self.out, 0, kind::HEADERS, flags, id);
        self.encoder.begin(&mut self.out);
        fields(&mut self.encoder, &mut self.out);
        if self.out.len() == at + HEAD {
            // An answer without trailers ends with its data.
            self.out.truncate(at);
            return frame::head(&mut self.out, 0, kind::DATA, flag::END_STREAM, id);
        }
        frame::close_block(&mut self.out, at);
    }

    /// An answer has left. A client that still sends is told to stop.
    //= grpc-go 1.82: internal/transport/http2_server.go#writeStatus
    fn finish(&mut self, key: StreamKey) -> Option<P::Slot> {
        let stream = self.remove(key)?;
        if !stream.request_ended {
            frame::rst_stream(&mut self.out, key.id, Code::NO_ERROR);
        }
        stream.slot
    }
}
