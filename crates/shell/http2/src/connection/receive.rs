//! Every frame but header blocks: what it says, and what is wrong with it.
//!
//! Which error costs a stream and which the connection is decided as by the framer under grpc-go.
//= grpc-go 1.82: golang.org/x/net/http2/frame.go#ReadFrameForHeader

use super::{Connection, Told};
use crate::frame::{self, Head, flag, setting};
use crate::protocol::{Event, Protocol};
use crate::{Code, Fatal};

impl<P: Protocol> Connection<P> {
    //= grpc-go 1.82: internal/transport/http2_server.go#handleData
    pub(super) fn on_data<'a>(&mut self, head: Head, payload: &'a [u8]) -> Told<'a, P> {
        if head.id == 0 {
            return self.fail(Code::PROTOCOL_ERROR, "DATA on stream 0");
        }
        let Some(Some(body)) = frame::unpad(head, payload) else {
            return self.fail(Code::PROTOCOL_ERROR, "DATA with more padding than bytes");
        };
        let end = head.has(flag::END_STREAM);
        self.charge(payload.len())?;
        if !body.is_empty() || end {
            self.empty_data_frames = 0;
        } else {
            self.empty_data_frames += 1;
            if self.empty_data_frames > self.limits.empty_data_frames {
                return self.fail_loudly(Code::ENHANCE_YOUR_CALM, "too many empty DATA frames");
            }
        }
        // One that has ended, or never began: nobody waits for it.
        let Some(key) = self.streams.find(head.id) else { return Ok(None) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        // Nor if the answer is complete, and only waits for the client's windows.
        //= grpc-go 1.82: internal/transport/http2_server.go#finishStream
        if stream.trailers.is_some() {
            return Ok(None);
        }
        if stream.request_ended {
            return Ok(self.stream_error(head.id, Code::STREAM_CLOSED));
        }
        let padding = payload.len() - body.len();
        stream.request_ended = end;
        stream.unreleased += body.len();
        stream.owed += padding;
        if stream.unreleased + stream.owed > self.limits.stream_window as usize {
            stream.unreleased -= body.len();
            return Ok(self.stream_error(head.id, Code::FLOW_CONTROL_ERROR));
        }
        self.flow.unreleased += body.len();
        if padding > 0 {
            self.give_back(key);
        }
        if body.is_empty() && !end {
            return Ok(None);
        }
        Ok(Some(Event::Data { stream: key, body, end }))
    }

    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#parseWindowUpdateFrame
    pub(super) fn on_window_update<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return self.fail(Code::FRAME_SIZE_ERROR, "a WINDOW_UPDATE of a wrong size");
        };
        let increment = i64::from(u32::from_be_bytes(increment) & frame::MAX_ID);
        match (head.id, increment) {
            (0, 0) => self.fail(Code::PROTOCOL_ERROR, "a WINDOW_UPDATE of 0"),
            (id, 0) => Ok(self.stream_error(id, Code::PROTOCOL_ERROR)),
            (0, increment) => {
                self.flow.open_connection(increment);
                Ok(None)
            }
            (id, increment) => {
                if let Some(key) = self.streams.find(id) {
                    self.open_window(key, increment);
                }
                Ok(None)
            }
        }
    }

    //= grpc-go 1.82: internal/transport/http2_server.go#handleRSTStream
    pub(super) fn on_rst_stream<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return self.fail(Code::FRAME_SIZE_ERROR, "a RST_STREAM of a wrong size");
        };
        if head.id == 0 {
            return self.fail(Code::PROTOCOL_ERROR, "RST_STREAM on stream 0");
        }
        let Some(stream) = self.streams.find(head.id) else { return Ok(None) };
        let slot = self.remove(stream).and_then(|stream| stream.slot);
        let code = Code(u32::from_be_bytes(code));
        Ok(Some(Event::Reset { stream, code, slot }))
    }

    /// Applies the client's settings, then says so, then sends what they allow.
    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#parseSettingsFrame
    //= grpc-go 1.82: internal/transport/controlbuf.go#applySettings
    pub(super) fn on_settings<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let is_answer = head.has(flag::ACK);
        if is_answer && !payload.is_empty() {
            return self.fail(Code::FRAME_SIZE_ERROR, "a SETTINGS answer that says something");
        }
        if head.id != 0 {
            return self.fail(Code::PROTOCOL_ERROR, "SETTINGS on a stream");
        }
        if !payload.len().is_multiple_of(6) {
            return self.fail(Code::FRAME_SIZE_ERROR, "SETTINGS of a wrong size");
        }
        let (settings, _) = payload.as_chunks::<6>();
        let settings = settings
            .iter()
            .map(|[a, b, value @ ..]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value)));
        let mut windows =
            settings.clone().filter(|(name, _)| *name == setting::INITIAL_WINDOW_SIZE);
        if windows.next().is_some_and(|(_, window)| window > frame::MAX_ID) {
            return self.fail(Code::FLOW_CONTROL_ERROR, "an initial window that is too large");
        }
        if is_answer {
            return Ok(None);
        }
        for (name, value) in settings {
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.allow(value),
                setting::INITIAL_WINDOW_SIZE => self.flow.set_initial(value),
                setting::MAX_HEADER_LIST_SIZE => self.header_list_limit = Some(value),
                _ => {}
            }
        }
        frame::head(&mut self.out, 0, frame::kind::SETTINGS, flag::ACK, 0);
        Ok(None)
    }

    //= grpc-go 1.82: internal/transport/http2_server.go#handlePing
    pub(super) fn on_ping<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let Ok(data) = <[u8; 8]>::try_from(payload) else {
            return self.fail(Code::FRAME_SIZE_ERROR, "a PING of a wrong size");
        };
        if head.id != 0 {
            return self.fail(Code::PROTOCOL_ERROR, "a PING on a stream");
        }
        if head.has(flag::ACK) {
            return Ok(Some(Event::Pong(data)));
        }
        frame::ping(&mut self.out, flag::ACK, data);
        Ok(Some(Event::Ping { forgiven: std::mem::take(&mut self.answered) }))
    }

    /// A client that says goodbye is served until it closes.
    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#parseGoAwayFrame
    pub(super) fn on_goaway<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        if head.id != 0 {
            return self.fail(Code::PROTOCOL_ERROR, "GOAWAY on a stream");
        }
        if payload.len() < 8 {
            return self.fail(Code::FRAME_SIZE_ERROR, "a GOAWAY that is too short");
        }
        Ok(None)
    }

    /// A client has nothing to promise, but is not told so.
    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#parsePushPromise
    pub(super) fn on_push_promise<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let promised = payload.get(usize::from(head.has(flag::PADDED)) + 4..);
        let padding = if head.has(flag::PADDED) { payload.first().copied() } else { Some(0) };
        match (promised, padding) {
            _ if head.id == 0 => {}
            (Some(block), Some(padding)) if usize::from(padding) <= block.len() => return Ok(None),
            _ => {}
        }
        self.fail(Code::PROTOCOL_ERROR, "a PUSH_PROMISE that is wrong")
    }

    /// Priorities are read and ignored.
    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#parsePriorityFrame
    pub(super) fn on_priority<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        if head.id == 0 {
            return self.fail(Code::PROTOCOL_ERROR, "PRIORITY on stream 0");
        }
        if payload.len() != 5 {
            return self.fail(Code::FRAME_SIZE_ERROR, "a PRIORITY of a wrong size");
        }
        Ok(None)
    }

    //= grpc-go 1.82: golang.org/x/net/http2/frame.go#parsePriorityUpdateFrame
    pub(super) fn on_priority_update<'a>(&mut self, head: Head, payload: &[u8]) -> Told<'a, P> {
        let prioritized = payload.first_chunk().map(|id| u32::from_be_bytes(*id) & frame::MAX_ID);
        if head.id != 0 || prioritized.is_none_or(|id| id == 0) {
            return self.fail(Code::PROTOCOL_ERROR, "a PRIORITY_UPDATE that is wrong");
        }
        Ok(None)
    }

    /// Counts DATA against the connection's window.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Fatal> {
        self.flow.received += bytes;
        if self.flow.received > self.limits.connection_window as usize {
            return self.fail(Code::FLOW_CONTROL_ERROR, "more DATA than the window allows");
        }
        self.give_connection_back();
        Ok(())
    }
}
