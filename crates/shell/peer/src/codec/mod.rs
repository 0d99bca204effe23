//! What goes over the wire between members, as functions of bytes.
//!
//! Owns the frames of the two streams and the head of a snapshot. Never does I/O. A decoder is fed
//! pieces as they arrive and gives whole messages; every length is capped before it is believed,
//! memory grows only with bytes that came, and payloads stay slices of those bytes.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/msg_codec.go#messageDecoder
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/msgappv2_codec.go#msgAppV2Decoder

mod appends;
mod input;
mod messages;

pub use appends::{AppendDecoder, AppendEncoder};
pub use input::Input;
pub(crate) use messages::snapshot_message;
pub use messages::{MessageDecoder, encode_link_heartbeat, encode_message};

use raft::{Body, Message, WireError};
use types::MemberId;

/// Bytes of the largest message on a stream.
pub const MAX_MESSAGE_BYTES: u64 = 512 << 20;
/// Bytes of the largest message before a snapshot.
pub const MAX_SNAPSHOT_MESSAGE_BYTES: u64 = 64 << 20;
/// Entries of an append. Ours: etcd has no limit; its leaders send at most 1 MiB at once, and an
/// entry has some bytes.
pub const MAX_ENTRIES: u64 = 1 << 20;

/// A stream that cannot be read on; the peer is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A length above its cap.
    TooLarge,
    /// A frame of a type that does not exist.
    FrameType(u8),
    /// Bytes that are no message.
    Message,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::TooLarge => f.write_str("rafthttp: error limit exceeded"),
            Broken::FrameType(kind) => write!(f, "failed to parse type {kind} in msgappv2 stream"),
            Broken::Message => f.write_str("proto: cannot parse invalid wire-format data"),
        }
    }
}

impl std::error::Error for Broken {}

/// One thing that a stream said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The link is alive.
    LinkHeartbeat,
    /// A message for raft, and the bytes that it took.
    Message(Message, usize),
    /// A well-formed message that means nothing: it is skipped.
    Nonsense(WireError),
}

impl Heard {
    fn of(decoded: Result<Message, WireError>, bytes: usize) -> Result<Self, Broken> {
        match decoded {
            Ok(message) if is_link_heartbeat(&message) => Ok(Heard::LinkHeartbeat),
            Ok(message) => Ok(Heard::Message(message, bytes)),
            Err(WireError::Protobuf) => Err(Broken::Message),
            Err(nonsense) => Ok(Heard::Nonsense(nonsense)),
        }
    }
}

fn is_link_heartbeat(message: &Message) -> bool {
    let nobody = MemberId(0);
    message.from == nobody && message.to == nobody && matches!(message.body, Body::Heartbeat { .. })
}

/// Reads arbitrary bytes as the head of a snapshot, in pieces of a size that the first byte names.
#[doc(hidden)]
pub fn fuzz_snapshot_head(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let mut input = Input::default();
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        input.feed(bytes::Bytes::copy_from_slice(piece));
        match snapshot_message(&mut input) {
            Ok(None) => {}
            Ok(Some((message, len))) => {
                assert!(input.len() + 8 + len <= bytes.len());
                round_trip(Heard::Message(message, len));
                return;
            }
            Err(_) => return,
        }
    }
}

/// Reads arbitrary bytes as both streams, in pieces of a size that the first byte names. What is
/// understood is understood again after it was encoded.
#[doc(hidden)]
pub fn fuzz_streams(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let mut messages = MessageDecoder::new();
    let mut appends = AppendDecoder::new(MemberId(1), MemberId(2));
    let mut again = AppendDecoder::new(MemberId(1), MemberId(2));
    let mut encoder = AppendEncoder::default();
    let (mut messages_live, mut appends_live) = (true, true);
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        let piece = bytes::Bytes::copy_from_slice(piece);
        messages.feed(piece.clone());
        appends.feed(piece);
        while messages_live {
            match messages.next() {
                Ok(Some(heard)) => round_trip(heard),
                Ok(None) => break,
                Err(_) => messages_live = false,
            }
        }
        while appends_live {
            match appends.next() {
                Ok(Some(Heard::Message(message, _))) => {
                    let mut out = bytes::BytesMut::new();
                    encoder.encode(&message, &mut out);
                    again.feed(out.freeze());
                    let heard = again.next().expect("our own bytes decode");
                    let Some(Heard::Message(copy, _)) = heard else {
                        panic!("{message:?} became {heard:?}");
                    };
                    assert_eq!(copy.body, message.body);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => appends_live = false,
            }
        }
    }
}

fn round_trip(heard: Heard) {
    let Heard::Message(message, _) = heard else { return };
    let mut out = bytes::BytesMut::new();
    encode_message(&message, &mut out);
    let mut decoder = MessageDecoder::new();
    decoder.feed(out.freeze());
    let Ok(Some(Heard::Message(copy, _))) = decoder.next() else {
        panic!("{message:?} does not come back");
    };
    assert_eq!(copy.body, message.body);
}
