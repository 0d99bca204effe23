//! The message stream: a length of 8 bytes, big endian, and a `raftpb.Message`, again and again.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use raft::Message;

use super::input::Input;
use super::{Broken, Heard, MAX_MESSAGE_BYTES};

/// Appends the frame of a message.
pub fn encode_message(message: &Message, out: &mut BytesMut) {
    let wire = message.to_wire();
    let len = wire.encoded_len();
    out.reserve(8 + len);
    out.put_u64(len as u64);
    wire.encode(out).expect("the buffer grows");
}

/// Appends the frame that only says that the link is alive.
pub fn encode_link_heartbeat(out: &mut BytesMut) {
    let wire = api::raftpb::Message {
        r#type: Some(api::raftpb::MessageType::MsgHeartbeat as i32),
        ..Default::default()
    };
    out.put_u64(wire.encoded_len() as u64);
    wire.encode(out).expect("the buffer grows");
}

/// Reads the message stream.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    input: Input,
}

impl MessageDecoder {
    /// A decoder at the stream's start.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what arrived.
    pub fn feed(&mut self, piece: Bytes) {
        self.input.feed(piece);
    }

    /// What was said next; `None` if more bytes are needed.
    ///
    /// # Errors
    /// See [`Broken`]; the stream is over then.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Heard>, Broken> {
        match take_message(&mut self.input, 0, MAX_MESSAGE_BYTES)? {
            Some(bytes) => {
                let len = bytes.len();
                Heard::of(Message::decode(bytes), len).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// The bytes of a message that begins, with its length, `skip` bytes on.
pub(super) fn take_message(
    input: &mut Input,
    skip: usize,
    limit_bytes: u64,
) -> Result<Option<Bytes>, Broken> {
    let Some(len) = input.peek_u64(skip) else { return Ok(None) };
    if len > limit_bytes {
        return Err(Broken::TooLarge);
    }
    let len = usize::try_from(len).map_err(|_| Broken::TooLarge)?;
    if input.len() < skip + 8 + len {
        return Ok(None);
    }
    input.take(skip + 8).expect("checked above");
    Ok(input.take(len))
}

/// Reads the head of a snapshot from the input.
///
/// # Errors
/// See [`Broken`]; also what is no message for raft.
pub(crate) fn snapshot_message(input: &mut Input) -> Result<Option<(Message, usize)>, Broken> {
    let Some(bytes) = take_message(input, 0, super::MAX_SNAPSHOT_MESSAGE_BYTES)? else {
        return Ok(None);
    };
    let len = bytes.len();
    match Message::decode(bytes) {
        Ok(message) => Ok(Some((message, len))),
        Err(_) => Err(Broken::Message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::Body;
    use types::{MemberId, Term};

    #[test]
    fn messages_come_back_whatever_the_pieces() {
        let message = Message {
            from: MemberId(2),
            to: MemberId(1),
            term: Term(3),
            body: Body::Heartbeat { commit: types::Index(9), context: Bytes::from_static(b"ctx") },
        };
        let mut out = BytesMut::new();
        encode_message(&message, &mut out);
        encode_link_heartbeat(&mut out);
        encode_message(&message, &mut out);
        for size in 1..out.len() {
            let mut decoder = MessageDecoder::new();
            let mut heard = Vec::new();
            for piece in out.chunks(size) {
                decoder.feed(Bytes::copy_from_slice(piece));
                while let Some(one) = decoder.next().unwrap() {
                    heard.push(one);
                }
            }
            assert_eq!(heard.len(), 3);
            assert_eq!(heard[1], Heard::LinkHeartbeat);
            assert!(matches!(&heard[2], Heard::Message(m, _) if *m == message));
        }
    }

    #[test]
    fn a_giant_length_breaks_the_stream_before_anything_is_kept_for_it() {
        let mut decoder = MessageDecoder::new();
        decoder.feed(Bytes::from_static(&[0, 0, 0, 0, 0x20, 0, 0, 1]));
        assert_eq!(decoder.next(), Err(Broken::TooLarge));
        let mut decoder = MessageDecoder::new();
        decoder.feed(Bytes::from_static(&[0xff; 8]));
        assert_eq!(decoder.next(), Err(Broken::TooLarge));
    }
}
