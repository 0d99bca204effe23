//! A client's end of a connection. It checks what it is sent: frames and header blocks are read by
//! the load generator's side of HTTP/2, which shares no code with the server's.

use std::collections::{BTreeMap, BTreeSet};

use api::error::{ApiError, Code, Status};
use api::method::{CallType, Method};
use bench::light::decoder::Decoder;
use bench::light::frame::{
    self, HEAD_BYTES, Head, MAX_PAYLOAD_BYTES, PREFACE, flag, kind, setting,
};
use bytes::Bytes;
use env::{Entropy, SplitMix};

use super::channel::{CALL, TOKEN};
use crate::streams::Stream;

/// Bytes of every window until something else is said.
//= RFC 9113, 6.9.2
const DEFAULT_WINDOW: i64 = 65_535;
/// Error code of a stream whose answer is not wanted any more.
//= RFC 9113, 7
const CANCEL: u32 = 8;
/// `:method: POST` and `:scheme: http` of HPACK's static table.
const POST_HTTP: [u8; 2] = [0x83, 0x86];

/// What an answer has come to.
pub(crate) type Ended = (u64, Result<Bytes, Status>);

struct Call {
    number: u64,
    method: Method,
    stream: Stream,
    /// Bytes that may still come.
    window: i64,
    has_begun: bool,
    /// The only message of an answer that has one.
    message: Option<Bytes>,
    status: Option<(Code, String)>,
}

/// A client's end of one connection.
pub(crate) struct Client {
    pub(crate) out: Vec<u8>,
    rest: Vec<u8>,
    decoder: Decoder,
    calls: BTreeMap<u32, Call>,
    next: u32,
    /// Streams that were reset, on which something may still be on its way.
    cancelled: BTreeSet<u32>,
    initial: i64,
    /// Bytes that may still come on all streams together.
    window: i64,
    /// The connection's window is opened again when so many bytes have come.
    give_back: i64,
}

/// Appends a field that nobody keeps, as it is.
//= RFC 7541, 6.2.2
fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("a short text"));
        block.extend_from_slice(text);
    }
}

impl Client {
    /// A client whose streams have windows of so many bytes.
    pub(crate) fn new(window: u32, give_back: i64) -> Self {
        let mut out = PREFACE.to_vec();
        frame::settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, window)]);
        Self {
            out,
            rest: Vec::new(),
            decoder: Decoder::default(),
            calls: BTreeMap::new(),
            next: 1,
            cancelled: BTreeSet::new(),
            initial: i64::from(window),
            window: DEFAULT_WINDOW,
            give_back,
        }
    }

    /// Begins a call, whose messages are taken from `stream`.
    pub(crate) fn begin(
        &mut self,
        (number, method): (u64, Method),
        stream: Stream,
        token: Option<&str>,
    ) {
        let mut block = POST_HTTP.to_vec();
        field(&mut block, b":path", method.row().path.as_bytes());
        field(&mut block, b"content-type", b"application/grpc");
        field(&mut block, b"te", b"trailers");
        field(&mut block, CALL, number.to_string().as_bytes());
        if let Some(token) = token {
            field(&mut block, TOKEN, token.as_bytes());
        }
        frame::write(&mut self.out, kind::HEADERS, flag::END_HEADERS, self.next, &block);
        let call = Call {
            number,
            method,
            stream,
            window: self.initial,
            has_begun: false,
            message: None,
            status: None,
        };
        self.calls.insert(self.next, call);
        self.next += 2;
    }

    /// Gives a call up; whether it was there.
    pub(crate) fn cancel(&mut self, number: u64) -> bool {
        let found = self.calls.iter().find(|(_, call)| call.number == number);
        let Some(id) = found.map(|(id, _)| *id) else { return false };
        self.calls.remove(&id);
        self.cancelled.insert(id);
        frame::write(&mut self.out, kind::RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        true
    }

    /// The connection is gone: what every call has come to.
    pub(crate) fn lose(&mut self) -> Vec<Ended> {
        let calls = std::mem::take(&mut self.calls);
        let lost = || Status::new(Code::Unavailable, "error reading from server: EOF");
        calls.into_values().filter_map(|call| call.end(Err(lost()))).collect()
    }

    /// Whether there is something to send.
    pub(crate) fn is_busy(&self) -> bool {
        !self.out.is_empty() || self.calls.values().any(|call| call.stream.has_news())
    }

    /// Writes messages and windows.
    pub(crate) fn pump(&mut self, entropy: &mut SplitMix) -> Vec<u8> {
        for (id, call) in &mut self.calls {
            while let Some((message, is_last)) = call.stream.outgoing() {
                let sealed = [&calls::envelope(message.len())[..], &message].concat();
                let most = match entropy.below(4) {
                    0 => 1 + entropy.below(sealed.len() as u64) as usize,
                    _ => MAX_PAYLOAD_BYTES,
                };
                let pieces = sealed.len().div_ceil(most);
                for (n, piece) in sealed.chunks(most).enumerate() {
                    let ends = is_last && n + 1 == pieces;
                    let flags = if ends { flag::END_STREAM } else { 0 };
                    frame::write(&mut self.out, kind::DATA, flags, *id, piece);
                }
            }
            let taken = call.stream.taken();
            if taken > 0 {
                call.window += taken as i64;
                frame::window_update(&mut self.out, *id, taken as u32);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Reads what has come, and tells which calls with one response have ended.
    ///
    /// # Errors
    /// The server does what it must not.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Ended>, String> {
        let mut input = std::mem::take(&mut self.rest);
        input.extend_from_slice(bytes);
        let (mut rest, mut ended) = (&input[..], Vec::new());
        while let Some(head) = Head::read(rest) {
            let Some(payload) = rest.get(HEAD_BYTES..HEAD_BYTES + head.length) else { break };
            let done = self.frame(head, payload).map_err(|what| format!("{head:?}: {what}"))?;
            ended.extend(done);
            rest = &rest[HEAD_BYTES + head.length..];
        }
        self.rest = rest.to_vec();
        Ok(ended)
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<Option<Ended>, &'static str> {
        let known = self.calls.contains_key(&head.stream);
        match head.kind {
            kind::DATA => self.on_data(head, payload)?,
            kind::HEADERS => self.on_headers(head, payload)?,
            kind::RST_STREAM if known => {
                let call = self.calls.remove(&head.stream).expect("it is known");
                let status = Status::new(Code::Internal, "the stream was reset");
                return Ok(call.end(Err(status)));
            }
            kind::SETTINGS if !head.has(flag::ACK) => {
                frame::write(&mut self.out, kind::SETTINGS, flag::ACK, 0, b"");
            }
            kind::GOAWAY => return Err("nobody asked it to go away"),
            _ => {}
        }
        if !head.has(flag::END_STREAM) || !matches!(head.kind, kind::DATA | kind::HEADERS) {
            return Ok(None);
        }
        let Some(call) = self.calls.remove(&head.stream) else { return Ok(None) };
        call.finish()
    }

    fn on_data(&mut self, head: Head, data: &[u8]) -> Result<(), &'static str> {
        let bytes = data.len() as i64;
        self.window -= bytes;
        if self.window < 0 {
            return Err("more DATA than the connection's window allows");
        }
        let used = DEFAULT_WINDOW - self.window;
        if used >= self.give_back {
            self.window = DEFAULT_WINDOW;
            frame::window_update(&mut self.out, 0, used as u32);
        }
        let Some(call) = self.calls.get_mut(&head.stream) else {
            let expected = self.cancelled.contains(&head.stream);
            return if expected { Ok(()) } else { Err("DATA of no call") };
        };
        call.window -= bytes;
        if call.window < 0 {
            return Err("more DATA than the stream's window allows");
        }
        if !call.has_begun {
            return Err("DATA before the head");
        }
        call.stream.arrived(data);
        if call.method != Method::Watch
            && let Some(message) = call.stream.take()
            && call.message.replace(message).is_some()
        {
            return Err("more than one message");
        }
        Ok(())
    }

    fn on_headers(&mut self, head: Head, block: &[u8]) -> Result<(), &'static str> {
        let mut call = self.calls.get_mut(&head.stream);
        let expected = call.is_some() || self.cancelled.contains(&head.stream);
        let mut code = None;
        let (mut text, mut is_first) = (String::new(), false);
        let decoded = self.decoder.decode(block, |name, value| {
            let value = String::from_utf8_lossy(value);
            match name {
                b":status" => is_first = value == "200",
                b"grpc-status" => code = value.parse().ok().and_then(|n: usize| Code::ALL.get(n)),
                b"grpc-message" => text = grpc::status::percent_decode(&value),
                _ => {}
            }
        });
        decoded.map_err(|_| "a malformed header block")?;
        let Some(call) = &mut call else {
            return if expected { Ok(()) } else { Err("HEADERS of no call") };
        };
        if std::mem::replace(&mut call.has_begun, true) == is_first {
            return Err("a head that is none, or another one");
        }
        call.status = code.map(|code| (*code, text));
        Ok(())
    }
}

impl Call {
    /// Its answer is complete.
    fn finish(self) -> Result<Option<Ended>, &'static str> {
        let status = match &self.status {
            None => return Err("an answer without a status"),
            Some((Code::Ok, _)) => Ok(()),
            Some((code, text)) => Err(Status::new(*code, text.clone())),
        };
        let is_unary = self.method.row().kind == CallType::Unary;
        if is_unary && status.is_ok() != self.message.is_some() {
            return Err("a message with an error, or none without");
        }
        if self.method != Method::Watch && !self.stream.is_drained() {
            return Err("an answer that ends within a message");
        }
        Ok(self.end(status))
    }

    /// Tells what it has come to: a watcher finds it at its stream.
    fn end(self, status: Result<(), Status>) -> Option<Ended> {
        if self.method == Method::Watch {
            *self.stream.ended.borrow_mut() = Some(status);
            return None;
        }
        let answer = self.message;
        let answer = answer.ok_or_else(|| status.err().unwrap_or_else(|| ApiError::Stopped.into()));
        Some((self.number, answer))
    }
}
