//! Windows, both ways, and whose turn it is to send.
//!
//! A stream's window is kept relative to the client's initial one, so that a SETTINGS frame that
//! changes it costs the same however many streams are open. Streams that have something to send
//! stand in one of two lines: a queue of those that may, of which each sends one frame a turn while
//! the connection's window lasts; and those whose own window is shut, sorted by the initial window
//! that would open it.

use std::collections::{BTreeSet, VecDeque};

use super::{Connection, DEFAULT_WINDOW};
use crate::frame::{self, MAX_PAYLOAD, kind};
use crate::protocol::Protocol;
use crate::steps;
use crate::streams::{Stream, StreamKey, Streams, Turn};

/// Queue entries of streams that are gone which are not worth dropping.
const SLACK: usize = 16;

pub(super) struct Flow {
    /// Bytes that may be sent on all streams together. Go does not mind what exceeds 2^31-1.
    connection: i64,
    /// Bytes that may be sent on a stream at first.
    initial: i64,
    /// Bytes of DATA since the connection's window was given back.
    pub(super) received: usize,
    /// Bytes that the layer above has not released, of all streams.
    pub(super) unreleased: usize,
    /// Bytes that wait in streams.
    pub(super) held: usize,
    queue: VecDeque<StreamKey>,
    /// The initial window that a stream needs, and its place.
    starved: BTreeSet<(i64, u32)>,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            connection: i64::from(DEFAULT_WINDOW),
            initial: i64::from(DEFAULT_WINDOW),
            received: 0,
            unreleased: 0,
            held: 0,
            queue: VecDeque::new(),
            starved: BTreeSet::new(),
        }
    }

    pub(super) fn open_connection(&mut self, increment: i64) {
        self.connection = self.connection.saturating_add(increment);
    }

    /// Changes every stream's window at once.
    pub(super) fn set_initial(&mut self, window: u32) {
        self.initial = i64::from(window);
    }

    /// The stream whose turn it is. Those that a larger initial window has freed come first, and
    /// then queue with the others. Nobody is moved before its turn: a client that toggles the
    /// initial window would make that dear.
    fn next_turn<S>(&mut self, streams: &Streams<S>) -> Option<StreamKey> {
        if let Some(&(needed, place)) = self.starved.first()
            && needed <= self.initial
        {
            self.starved.pop_first();
            return streams.at(place);
        }
        self.queue.pop_front()
    }

    /// Bytes that a stream may send now; `sent` is its window relative to the initial one.
    pub(super) fn window(&self, relative: i64) -> usize {
        let window = self.initial.saturating_add(relative).min(self.connection);
        usize::try_from(window).unwrap_or(0)
    }

    /// Takes bytes off the connection's window and a stream's.
    pub(super) fn spend(&mut self, relative: &mut i64, bytes: usize) {
        self.connection -= bytes as i64;
        *relative -= bytes as i64;
    }

    /// Puts a stream that has something to send into its line.
    fn line_up<S>(&mut self, key: StreamKey, stream: &mut Stream<S>) {
        if stream.turn != Turn::None {
            return;
        }
        if self.initial.saturating_add(stream.send_window) > 0 {
            stream.turn = Turn::Queued;
            self.queue.push_back(key);
        } else {
            let needed = 1_i64.saturating_sub(stream.send_window);
            stream.turn = Turn::Starved(needed);
            self.starved.insert((needed, key.place));
        }
    }

    /// Gives memory back if no stream is open.
    pub(super) fn shrink<S>(&mut self, streams: &Streams<S>) {
        if streams.len() == 0 {
            self.queue = VecDeque::new();
        }
    }

    /// Streams in either line.
    #[cfg(test)]
    pub(super) fn lined_up(&self) -> usize {
        self.queue.len() + self.starved.len()
    }
}

impl<P: Protocol> Connection<P> {
    /// Bytes of DATA that would leave at once; 0 if the stream is gone or waits for its turn.
    #[must_use]
    pub fn room(&self, stream: StreamKey) -> usize {
        let Some(stream) = self.streams.get(stream) else { return 0 };
        if !stream.waiting.is_empty() || stream.trailers.is_some() {
            return 0;
        }
        let unsent = self.limits.unsent_bytes.saturating_sub(self.out.len());
        self.flow.window(stream.send_window).min(unsent)
    }

    /// Asks for one [`Event::Writable`](crate::Event::Writable) when there is room.
    pub fn want_room(&mut self, stream: StreamKey) {
        if let Some(known) = self.streams.get_mut(stream) {
            known.wants_room = true;
        }
        self.line_up(stream);
    }

    /// Puts a stream that has something to send into its line.
    pub(super) fn line_up(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            self.flow.line_up(key, stream);
        }
        // Keys of streams that are gone stay in the queue until their turn, if it ever comes.
        if self.flow.queue.len() > 2 * self.streams.len() + SLACK {
            let streams = &self.streams;
            self.flow.queue.retain(|key| streams.get(*key).is_some());
        }
    }

    /// A stream's window grows.
    pub(super) fn open_window(&mut self, key: StreamKey, increment: i64) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.send_window = stream.send_window.saturating_add(increment);
        if let Turn::Starved(needed) = stream.turn {
            self.flow.starved.remove(&(needed, key.place));
            stream.turn = Turn::None;
            self.flow.line_up(key, stream);
        }
    }

    /// Gives turns while there is window and room. Stops at a stream that wants to be told.
    //= grpc-go 1.82: internal/transport/controlbuf.go#processData
    pub(super) fn continue_answers(&mut self) -> Option<StreamKey> {
        while self.flow.connection > 0
            && self.out.len() < self.limits.unsent_bytes
            && let Some(key) = self.flow.next_turn(&self.streams)
        {
            steps::count();
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.turn = Turn::None;
            let window = self.flow.window(stream.send_window);
            if window == 0 {
                self.flow.line_up(key, stream);
                continue;
            }
            if !stream.waiting.is_empty() {
                self.send_waiting(key, window);
            } else if std::mem::take(&mut stream.wants_room) {
                return Some(key);
            }
        }
        None
    }

    /// Sends one frame of what waits in a stream, and behind the last one its trailers.
    fn send_waiting(&mut self, key: StreamKey, window: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(first) = stream.waiting.front_mut() else { return };
        let size = first.len().min(window).min(MAX_PAYLOAD);
        let piece = first.split_to(size);
        if first.is_empty() {
            stream.waiting.pop_front();
        }
        stream.held -= size;
        self.flow.held -= size;
        self.flow.spend(&mut stream.send_window, size);
        frame::head(&mut self.out, size, kind::DATA, 0, key.id);
        self.out.extend_from_slice(&piece);
        self.answered = true;
        if !stream.waiting.is_empty() || stream.trailers.is_none() && stream.wants_room {
            self.flow.line_up(key, stream);
        } else if let Some(block) = stream.trailers.take() {
            self.send_trailers(key, |_, out| out.extend_from_slice(&block));
        }
    }

    /// Bytes of the stream's [`Event::Data`](crate::Event::Data) were used: the window is given back
    /// at half. What a stream did not release when it ends is given back to the connection then.
    pub fn release(&mut self, stream: StreamKey, bytes: usize) {
        let Some(known) = self.streams.get_mut(stream) else { return };
        let bytes = bytes.min(known.unreleased);
        known.unreleased -= bytes;
        known.owed += bytes;
        self.flow.unreleased -= bytes;
        self.give_back(stream);
        self.give_connection_back();
    }

    /// Gives a stream's window back once half of it is owed.
    pub(super) fn give_back(&mut self, key: StreamKey) {
        let half = self.limits.stream_window as usize / 2;
        if let Some(stream) = self.streams.get_mut(key)
            && stream.owed >= half
            && !stream.request_ended
        {
            let owed = std::mem::take(&mut stream.owed);
            frame::window_update(&mut self.out, key.id, owed as u32);
        }
    }

    /// Gives the connection's window back once half of it was used, whether the layer above is done
    /// with the bytes or not: a stream that is read slowly must not hold up the others. Only where
    /// a whole window is not released does the client wait.
    //= grpc-go 1.82: internal/transport/http2_server.go#handleData
    pub(super) fn give_connection_back(&mut self) {
        let full = self.limits.connection_window as usize;
        if self.flow.received >= full / 2 && self.flow.unreleased <= full {
            let received = std::mem::take(&mut self.flow.received);
            frame::window_update(&mut self.out, 0, received as u32);
        }
    }

    /// Takes a stream off the table and the lines, with what waits in it.
    pub(super) fn remove(&mut self, key: StreamKey) -> Option<Stream<P::Slot>> {
        let stream = self.streams.remove(key)?;
        if let Turn::Starved(needed) = stream.turn {
            self.flow.starved.remove(&(needed, key.place));
        }
        self.flow.held -= stream.held;
        self.flow.unreleased -= stream.unreleased;
        self.give_connection_back();
        Some(stream)
    }
}
