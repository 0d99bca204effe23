//! The append stream (`msgappv2`): appends that follow each other say only what is new.
//!
//! | type | then |
//! |---|---|
//! | 0 link heartbeat | |
//! | 1 entries after the last | count; per entry its length and a `raftpb.Entry`; commit index |
//! | 2 any append | length, `raftpb.Message` |
//!
//! Numbers have 8 bytes, big endian. Type 1 stands for an append whose previous entry is the last
//! one that was sent, in the same term. Invariant: encoder and decoder keep that position alike.

use api::odd;
use api::raftpb;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use raft::{Body, Entry, Message};
use types::{Index, MemberId, Term};

use super::input::Input;
use super::messages::{encode_message, take_message};
use super::{Broken, Heard, MAX_ENTRIES, MAX_MESSAGE_BYTES};

const LINK_HEARTBEAT: u8 = 0;
const ENTRIES: u8 = 1;
const APPEND: u8 = 2;

/// The last entry that the stream carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    term: Term,
    index: Index,
}

impl Position {
    /// After a whole message. Only appends are sent here; anything else begins anew.
    fn after(message: &Message) -> Self {
        let Body::Append { prev_index, entries, .. } = &message.body else {
            return Self::default();
        };
        let index = entries.last().map_or(*prev_index, |entry| entry.index);
        Self { term: message.term, index }
    }
}

/// Writes the append stream.
#[derive(Debug, Default)]
pub struct AppendEncoder {
    last: Position,
}

impl AppendEncoder {
    /// Appends the frame of an append.
    pub fn encode(&mut self, message: &Message, out: &mut BytesMut) {
        if let Body::Append { prev_index, prev_term, entries, commit } = &message.body
            && *prev_index == self.last.index
            && *prev_term == self.last.term
            && *prev_term == message.term
        {
            out.put_u8(ENTRIES);
            out.put_u64(entries.len() as u64);
            for entry in entries {
                let wire = entry.to_wire();
                let len = wire.encoded_len();
                out.reserve(8 + len + 8);
                out.put_u64(len as u64);
                wire.encode(out).expect("the buffer grows");
            }
            out.put_u64(commit.0);
            self.last.index = Index(self.last.index.0.wrapping_add(entries.len() as u64));
            return;
        }
        out.put_u8(APPEND);
        encode_message(message, out);
        self.last = Position::after(message);
    }

    /// Appends the frame that only says that the link is alive.
    pub fn encode_link_heartbeat(out: &mut BytesMut) {
        out.put_u8(LINK_HEARTBEAT);
    }
}

/// A frame of entries that is being read.
#[derive(Debug)]
struct Partial {
    left: u64,
    entries: Vec<Entry>,
    /// Bytes of the entries so far.
    bytes: u64,
}

/// Reads the append stream.
#[derive(Debug)]
pub struct AppendDecoder {
    local: MemberId,
    remote: MemberId,
    input: Input,
    last: Position,
    partial: Option<Partial>,
}

impl AppendDecoder {
    /// A decoder at the start of the stream that `remote` sends to `local`.
    #[must_use]
    pub fn new(local: MemberId, remote: MemberId) -> Self {
        let last = Position::default();
        Self { local, remote, input: Input::default(), last, partial: None }
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
        if self.partial.is_some() {
            return self.entries();
        }
        match self.input.peek_u8() {
            None => Ok(None),
            Some(LINK_HEARTBEAT) => {
                self.input.take(1);
                Ok(Some(Heard::LinkHeartbeat))
            }
            Some(ENTRIES) => {
                let Some(left) = self.input.peek_u64(1) else { return Ok(None) };
                if left > MAX_ENTRIES {
                    return Err(Broken::TooLarge);
                }
                self.input.take(9);
                self.partial = Some(Partial { left, entries: Vec::new(), bytes: 0 });
                self.entries()
            }
            Some(APPEND) => {
                let Some(bytes) = take_message(&mut self.input, 1, MAX_MESSAGE_BYTES)? else {
                    return Ok(None);
                };
                let len = bytes.len();
                let decoded = Message::decode(bytes);
                if let Ok(message) = &decoded {
                    self.last = Position::after(message);
                }
                Heard::of(decoded, len).map(Some)
            }
            Some(other) => Err(Broken::FrameType(other)),
        }
    }

    fn entries(&mut self) -> Result<Option<Heard>, Broken> {
        let partial = self.partial.as_mut().expect("the caller looked");
        while partial.left > 0 {
            let room = MAX_MESSAGE_BYTES - partial.bytes;
            let Some(bytes) = take_message(&mut self.input, 0, room)? else { return Ok(None) };
            partial.left -= 1;
            partial.bytes += bytes.len() as u64;
            let wire: raftpb::Entry = odd::decode(bytes).map_err(|_| Broken::Message)?;
            partial.entries.push(Entry::from_wire(wire).map_err(|_| Broken::Message)?);
        }
        let Some(commit) = self.input.peek_u64(0) else { return Ok(None) };
        self.input.take(8);
        let partial = self.partial.take().expect("still there");
        let prev = self.last;
        self.last.index = Index(prev.index.0.wrapping_add(partial.entries.len() as u64));
        let message = Message {
            from: self.remote,
            to: self.local,
            term: prev.term,
            body: Body::Append {
                prev_index: prev.index,
                prev_term: prev.term,
                entries: partial.entries,
                commit: Index(commit),
            },
        };
        let bytes = usize::try_from(partial.bytes).expect("it was in memory");
        Ok(Some(Heard::Message(message, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::EntryKind;

    fn append(prev: u64, count: u64, term: u64, payload: usize) -> Message {
        let entry = |n| Entry {
            term: Term(term),
            index: Index(prev + 1 + n),
            kind: EntryKind::Normal,
            data: vec![n as u8; payload].into(),
        };
        Message {
            from: MemberId(2),
            to: MemberId(1),
            term: Term(term),
            body: Body::Append {
                prev_index: Index(prev),
                prev_term: Term(term),
                entries: (0..count).map(entry).collect(),
                commit: Index(prev),
            },
        }
    }

    #[test]
    fn appends_that_follow_each_other_say_only_what_is_new() {
        let sent = [
            append(4, 2, 3, 10),
            append(6, 0, 3, 0),
            append(6, 3, 3, 2_000),
            append(2, 1, 3, 5),
            append(3, 1, 3, 5),
            append(4, 1, 4, 5),
        ];
        let kinds = [APPEND, ENTRIES, ENTRIES, APPEND, ENTRIES, APPEND];
        let (mut encoder, mut out) = (AppendEncoder::default(), BytesMut::new());
        for (message, kind) in sent.iter().zip(kinds) {
            let at = out.len();
            encoder.encode(message, &mut out);
            assert_eq!(out[at], kind);
            AppendEncoder::encode_link_heartbeat(&mut out);
        }
        for size in [1, 2, 7, 9, 100, 10_000] {
            let mut decoder = AppendDecoder::new(MemberId(1), MemberId(2));
            let mut got = Vec::new();
            for piece in out.chunks(size) {
                decoder.feed(Bytes::copy_from_slice(piece));
                while let Some(heard) = decoder.next().unwrap() {
                    got.push(heard);
                }
            }
            let beats = got.iter().filter(|h| **h == Heard::LinkHeartbeat).count();
            assert_eq!(beats, sent.len());
            let messages: Vec<_> = got
                .into_iter()
                .filter_map(|h| match h {
                    Heard::Message(message, _) => Some(message),
                    _ => None,
                })
                .collect();
            assert_eq!(messages, sent);
        }
    }

    #[test]
    fn payloads_are_slices_of_what_arrived() {
        let mut out = BytesMut::new();
        AppendEncoder::default().encode(&append(0, 1, 1, 3_000), &mut out);
        let arrived = out.freeze();
        let mut decoder = AppendDecoder::new(MemberId(1), MemberId(2));
        decoder.feed(arrived.clone());
        let Ok(Some(Heard::Message(message, _))) = decoder.next() else { panic!("whole") };
        let Body::Append { entries, .. } = message.body else { panic!("an append") };
        assert!(arrived.as_ptr_range().contains(&entries[0].data.as_ptr()));
    }

    #[test]
    fn nothing_is_believed_of_a_broken_stream() {
        let broken: [(&[u8], Broken); 4] = [
            (&[7], Broken::FrameType(7)),
            (&[ENTRIES, 0, 0, 0, 0, 1, 0, 0, 0], Broken::TooLarge),
            (&[APPEND, 0xff, 0, 0, 0, 1, 0, 0, 0], Broken::TooLarge),
            (&[APPEND, 0, 0, 0, 0, 0, 0, 0, 1, 0xff], Broken::Message),
        ];
        for (bytes, error) in broken {
            let mut decoder = AppendDecoder::new(MemberId(1), MemberId(2));
            decoder.feed(Bytes::copy_from_slice(bytes));
            assert_eq!(decoder.next(), Err(error));
        }
    }
}
