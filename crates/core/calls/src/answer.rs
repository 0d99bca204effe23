//! The three ways to answer a unary call, and the bytes of an answer.

use std::future::Future;
use std::pin::Pin;

use api::error::Status;
use api::etcdserverpb::RangeRequest;
use bytes::Bytes;
use env::Instant;
use machine::CommandKind;
use types::{LeaseId, ReplyToken, Revision};

use crate::audit::Ending;
use crate::caller::Caller;

/// A future on the runtime's own thread.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Bytes in front of each message on the wire: whether it is compressed, and its length.
pub const ENVELOPE_BYTES: usize = 5;

/// The envelope of a message of `length` bytes that is not compressed.
#[must_use]
pub fn envelope(length: usize) -> [u8; ENVELOPE_BYTES] {
    let mut out = [0; ENVELOPE_BYTES];
    out[1..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out
}

/// An encoded message behind room for its envelope, so that sealing it copies nothing. It takes no
/// memory before something is written.
#[derive(Debug, Default)]
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// A message as it is encoded.
    #[must_use]
    pub fn of(message: &impl prost::Message) -> Self {
        let mut encoded = Self::default();
        encoded.put(message);
        encoded
    }

    /// Appends a message as it is encoded.
    pub fn put(&mut self, message: &impl prost::Message) {
        message.encode_raw(self.body(message.encoded_len()));
    }

    /// Where the message is appended to; what is there already must stay. `room` is how many bytes
    /// will follow, about.
    pub fn body(&mut self, room: usize) -> &mut Vec<u8> {
        if self.0.is_empty() {
            self.0.reserve_exact(ENVELOPE_BYTES + room);
            self.0.extend_from_slice(&[0; ENVELOPE_BYTES]);
        }
        &mut self.0
    }

    /// The message, as far as it is written.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.0.get(ENVELOPE_BYTES..).unwrap_or_default()
    }

    /// The message, as far as it is written, to be sent in another form.
    #[must_use]
    pub fn into_message(mut self) -> Vec<u8> {
        self.0.drain(..ENVELOPE_BYTES.min(self.0.len()));
        self.0
    }

    /// The message behind its envelope, not compressed.
    #[must_use]
    pub fn seal(mut self) -> Bytes {
        let _ = self.sealed();
        self.0.into()
    }

    /// As [`Encoded::seal`], of a message whose memory is used again.
    pub fn sealed(&mut self) -> &[u8] {
        let length = self.body(0).len() - ENVELOPE_BYTES;
        self.0[..ENVELOPE_BYTES].copy_from_slice(&envelope(length));
        &self.0
    }

    /// Makes room for another message, in the same memory if that has at most `kept` bytes.
    pub fn clear(&mut self, kept: usize) {
        if self.0.capacity() > kept {
            self.0 = Vec::new();
        }
        self.0.clear();
    }
}

/// The response to a unary call that had to wait.
pub enum Body {
    /// All of it.
    Whole(Encoded),
    /// Piece by piece, as the client's window allows.
    Pieces(Box<dyn Pieces>),
}

impl Body {
    /// A message as it is encoded.
    pub(crate) fn of(message: &impl prost::Message) -> Self {
        Body::Whole(Encoded::of(message))
    }
}

/// Produces a long response in pieces of bounded size.
pub trait Pieces {
    /// Bytes still to come; before the first piece, the length of the whole message.
    fn remaining(&self) -> u64;

    /// The next piece, or `None` at the end. An error in the middle cuts the message, which
    /// clients see as `unexpected EOF`.
    fn next(&mut self) -> Local<'_, Result<Option<Bytes>, Status>>;
}

/// How a unary call is answered.
pub enum Answer {
    /// The response is written.
    Now,
    /// It can be written as soon as the reply with this token is there: hand both to
    /// [`crate::Calls::finish`]. Whoever drops this without waiting gives the token back
    /// ([`crate::Member::release`]).
    Later(ReplyToken, Finish),
    /// It takes more than one wait.
    Waits(Local<'static, Result<Body, Status>>),
}

/// What is left to do of a call when its reply comes.
#[derive(Debug)]
pub struct Finish {
    /// When it began.
    pub(crate) began: Instant,
    pub(crate) caller: Caller,
    pub(crate) then: Then,
    /// What is told when it ends.
    pub(crate) ending: Ending,
}

impl Finish {
    /// What is left of a call that began at this time.
    pub(crate) fn new(began: Instant, caller: Caller, then: Then) -> Self {
        Self { began, caller, then, ending: Ending::default() }
    }
}

/// The continuations.
#[derive(Debug)]
pub(crate) enum Then {
    /// A linearizable range got its read index, or waited for it to be applied.
    Range(RangeRequest, Stage),
    /// So did a list of members.
    Members(Stage),
    /// A request of this kind was applied.
    Applied(CommandKind, ResponseKind),
    /// The work of a compaction is done that was answered at this revision.
    Compacted(Revision),
    /// The database was copied.
    Defragmented,
    /// The leases are listed.
    Leases,
    /// The time of a lease is told; with its keys if they were asked for.
    TimeToLive(LeaseId, LeaseKeys),
    /// Leadership was handed over.
    Moved,
}

/// How far a linearizable read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its read index.
    Index,
    /// It waits until that entry is applied.
    Apply,
}

/// Whether the keys of a lease are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseKeys {
    /// They were asked for.
    Included,
    /// They were not.
    Omitted,
}

/// The response that an applied request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    Put,
    Delete,
    Txn,
    /// The answer waits for the physical part.
    CompactPhysical,
    Compact,
    Grant,
    Revoke,
    Alarm,
    Auth,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_behind_its_envelope() {
        let mut out = Encoded::default();
        assert_eq!((out.message(), out.0.capacity()), (&b""[..], 0));
        out.body(3).extend_from_slice(b"abc");
        assert_eq!((out.message(), out.0.capacity()), (&b"abc"[..], 8));
        assert_eq!(&out.seal()[..], b"\0\0\0\0\x03abc");
        assert_eq!(&Encoded::default().seal()[..], b"\0\0\0\0\0");
        let mut again = Encoded::default();
        again.body(100).extend_from_slice(b"first");
        assert_eq!(again.sealed(), b"\0\0\0\0\x05first");
        again.clear(105);
        assert_eq!((again.message(), again.0.capacity()), (&b""[..], 105));
        again.body(1).push(b'2');
        assert_eq!(again.sealed(), b"\0\0\0\0\x012");
        again.clear(100);
        assert_eq!(again.0.capacity(), 0);
        assert_eq!(Encoded::default().into_message(), b"");
    }
}
