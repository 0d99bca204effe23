//! One call: what its answer says, and how it ends.

use std::fmt;

use grpc::PREFIX_BYTES;

use super::decoder::Malformed;

/// Bytes of a message that is kept until all of it is there.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The `grpc-status` that is not 0, and its text.
    Status(String, String),
    /// An HTTP status that is not 200.
    Http(String),
    /// The server reset the stream with this code.
    Reset(u32),
    /// The answer ended without a status.
    NoStatus,
    /// The status is OK, but there is no message.
    NoMessage,
    /// The server went away (GOAWAY) without having looked at the call.
    GoneAway,
    /// The connection broke.
    Lost,
    /// Nothing came.
    Unanswered,
    /// The call went well, but what was asked for was not done.
    NotDone(&'static str),
    /// More calls were outstanding than are held, so it was never sent.
    Overrun,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(code, text) => write!(f, "status {code}: {text}"),
            Failure::Http(status) => write!(f, "HTTP status {status}"),
            Failure::Reset(code) => write!(f, "the stream was reset with code {code}"),
            Failure::NoStatus => f.write_str("an answer without a status"),
            Failure::NoMessage => f.write_str("an answer without a message"),
            Failure::GoneAway => f.write_str("the server went away"),
            Failure::Lost => f.write_str("the connection broke"),
            Failure::Unanswered => f.write_str("no answer came"),
            Failure::NotDone(what) => f.write_str(what),
            Failure::Overrun => f.write_str("too many calls were outstanding to send another"),
        }
    }
}

/// What the peer may not do. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Broken("a malformed header block")
    }
}

/// What happened to the call of a slot.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole message, without its envelope; only if messages are read.
    Message(&'a [u8]),
    /// It is over.
    Ended(Result<(), Failure>),
}

/// A call that has begun and not ended.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) stream: u32,
    pub(super) slot: u32,
    /// What may still be sent on it.
    pub(super) window: i64,
    /// Bytes that came and whose window was not given back.
    pub(super) unreturned: u32,
    /// Bytes of all messages.
    pub(super) bytes: u64,
    /// The beginning of a message, if messages are shown.
    kept: Vec<u8>,
    failure: Option<Box<Failure>>,
    has_status: bool,
}

impl Call {
    pub(super) fn new(stream: u32, slot: u32, window: i64) -> Self {
        Self {
            stream,
            slot,
            window,
            unreturned: 0,
            bytes: 0,
            kept: Vec::new(),
            failure: None,
            has_status: false,
        }
    }

    /// Takes note of a field of its answer.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match name {
            b":status" if value != b"200" => self.fail(Failure::Http(text(value))),
            b"grpc-status" => {
                self.has_status = true;
                // What HTTP refuses stays refused.
                if value != b"0" && self.failure.is_none() {
                    self.fail(Failure::Status(text(value), String::new()));
                }
            }
            b"grpc-message" => {
                if let Some(Failure::Status(_, message)) = self.failure.as_deref_mut() {
                    *message = text(value);
                }
            }
            _ => {}
        }
    }

    #[cold]
    fn fail(&mut self, why: Failure) {
        self.failure = Some(Box::new(why));
    }

    /// What it came to, when its answer has ended.
    pub(super) fn outcome(&mut self) -> Result<(), Failure> {
        match self.failure.take() {
            Some(failure) => Err(*failure),
            None if !self.has_status => Err(Failure::NoStatus),
            None if self.bytes < PREFIX_BYTES as u64 => Err(Failure::NoMessage),
            None => Ok(()),
        }
    }

    /// Shows each whole message and keeps what is left.
    pub(super) fn show(
        &mut self,
        data: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<(), Broken> {
        if self.kept.is_empty() {
            let rest = messages(data, |message| on(self.slot, Event::Message(message)));
            self.kept.extend_from_slice(rest);
        } else {
            self.kept.extend_from_slice(data);
            let rest = messages(&self.kept, |message| on(self.slot, Event::Message(message))).len();
            self.kept.drain(..self.kept.len() - rest);
        }
        if self.kept.len() > MAX_KEPT_BYTES {
            return Err(Broken("a message beyond the limit"));
        }
        Ok(())
    }
}

/// Shows the whole messages at the front of `data`, without their envelopes, and gives the rest.
fn messages(mut data: &[u8], mut show: impl FnMut(&[u8])) -> &[u8] {
    while let Some([_, length @ ..]) = data.first_chunk::<PREFIX_BYTES>() {
        let end = PREFIX_BYTES.saturating_add(u32::from_be_bytes(*length) as usize);
        let Some(message) = data.get(PREFIX_BYTES..end) else { break };
        show(message);
        data = &data[end..];
    }
    data
}
