//! The connection.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::protocol::{End, Event, Field, LastStream, Protocol, ResponseHead};
use crate::{Code, Fatal, Limits, StreamKey};

/// The server's half of an HTTP/2 connection.
#[derive(Debug)]
pub struct Connection<P: Protocol> {
    out: Vec<u8>,
    protocol: PhantomData<fn(P)>,
}

impl<P: Protocol> Connection<P> {
    /// A connection that has just begun; what the server says first is in [`Connection::out`].
    #[must_use]
    pub fn new(_limits: Limits) -> Self {
        Self { out: Vec::new(), protocol: PhantomData }
    }

    /// Takes the next frames off `input`, and continues answers that waited for windows. `None`:
    /// the rest is no whole frame (at most 16,393 bytes), or [`Connection::wants_input`] says no;
    /// keep it, write what is in [`Connection::out`], and call again with more behind it, or with
    /// the same when all was written.
    ///
    /// # Errors
    /// The client's: the connection must end. Called again it says the same.
    pub fn next<'a>(&mut self, _input: &mut &'a [u8]) -> Result<Option<Event<'a, P>>, Fatal> {
        Ok(None)
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
        true
    }

    /// Answers a request with one body: straight into [`Connection::out`] as far as the windows
    /// allow; what does not fit waits in the stream. `body` appends the DATA and is called at most
    /// once, at once; not if the stream is gone.
    /// Returns the slot.
    pub fn answer(
        &mut self,
        _stream: StreamKey,
        _head: &ResponseHead<'_>,
        _body: impl FnOnce(&mut Vec<u8>),
        _trailers: &[Field<'_>],
    ) -> Option<P::Slot> {
        None
    }

    /// Gives a [`Event::Whole`] request a place in the table of streams, to be answered later under
    /// the key that is returned.
    pub fn open(&mut self, stream: StreamKey, _slot: P::Slot) -> StreamKey {
        stream
    }

    /// Whether the stream is open: known to the table, and its answer not complete.
    #[must_use]
    pub fn is_open(&self, _stream: StreamKey) -> bool {
        false
    }

    /// What the layer above keeps with a stream.
    pub fn slot(&mut self, _stream: StreamKey) -> Option<&mut P::Slot> {
        None
    }

    /// Sets what the layer above keeps with a stream; gives it back if the stream is gone.
    pub fn set_slot(&mut self, _stream: StreamKey, slot: P::Slot) -> Option<P::Slot> {
        Some(slot)
    }

    /// Sends an answer's head, once, unless the stream is gone. With [`End::Stream`] it is all of
    /// the answer (gRPC's trailers-only), and the slot is returned.
    pub fn headers(
        &mut self,
        _stream: StreamKey,
        _head: &ResponseHead<'_>,
        _end: End,
    ) -> Option<P::Slot> {
        None
    }

    /// Bytes of DATA that would leave at once; 0 if the stream is gone or waits for a window.
    #[must_use]
    pub fn room(&self, _stream: StreamKey) -> usize {
        0
    }

    /// Asks for one [`Event::Writable`] when there is room.
    pub fn want_room(&mut self, _stream: StreamKey) {}

    /// Sends a part of an answer, behind its head; what the windows do not allow waits in the
    /// stream. Returns whether the stream is there.
    pub fn data(&mut self, _stream: StreamKey, _data: Bytes) -> bool {
        false
    }

    /// Like [`Connection::data`], for short parts: what leaves at once is copied nowhere else.
    pub fn data_from(&mut self, _stream: StreamKey, _data: &[u8]) -> bool {
        false
    }

    /// Ends an answer behind what was sent, and returns the slot. If the client still sends, it is
    /// told to stop by RST_STREAM with NO_ERROR.
    pub fn trailers(&mut self, _stream: StreamKey, _fields: &[Field<'_>]) -> Option<P::Slot> {
        None
    }

    /// Gives up a stream, with what waits in it, and returns the slot. Works for a [`Event::Whole`]
    /// request too.
    pub fn reset(&mut self, _stream: StreamKey, _code: Code) -> Option<P::Slot> {
        None
    }

    /// Bytes of the stream's [`Event::Data`] were used: the window is given back at half. What a
    /// stream did not release when it ends is given back to the connection then.
    pub fn release(&mut self, _stream: StreamKey, _bytes: usize) {}

    /// Sends a PING; [`Event::Pong`] is its answer.
    pub fn ping(&mut self, _data: [u8; 8]) {}

    /// Says goodbye.
    pub fn goaway(&mut self, _last: LastStream, _code: Code, _debug: &[u8]) {}

    /// Notes calls whose streams are gone but on which the layer above still works
    /// ([`Limits::abandoned_calls`]).
    pub fn abandoned(&mut self, _calls: usize) {}

    /// Notes that as many abandoned calls have ended.
    pub fn settled(&mut self, _calls: usize) {}

    /// Streams in the table.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        0
    }

    /// Whether a goodbye was said and every stream that it promised has ended: the connection may
    /// be closed once all is written.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        false
    }

    /// Whether nothing is open and nothing is unsent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        true
    }

    /// Bytes of answers that wait for the client's windows.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        0
    }

    /// Bytes that are not written yet: those held, and those in [`Connection::out`].
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        0
    }

    /// Gives memory back that an idle connection does not need. For a driver that is going to wait.
    pub fn shrink(&mut self) {}
}
