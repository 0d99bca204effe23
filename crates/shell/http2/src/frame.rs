//! Frames as bytes.
//!
//! A frame is a head of nine bytes and a payload: length (3 bytes), kind, flags, stream (4 bytes).

use crate::Code;

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// Bytes of the largest payload, both ways: what every peer takes, and all that grpc-go uses.
//= grpc-go 1.82: internal/transport/http_util.go#http2MaxFrameLen
pub(crate) const MAX_PAYLOAD: usize = 16_384;
/// The largest id of a stream.
pub(crate) const MAX_ID: u32 = 0x7fff_ffff;

/// Kinds of frames.
//= RFC 9113, 6
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
    //= RFC 9218, 7.1
    pub(crate) const PRIORITY_UPDATE: u8 = 16;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Settings that are looked at or sent.
//= RFC 9113, 6.5.2
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
}

impl Head {
    /// Reads a head, if the bytes are there. The reserved bit of the id is ignored.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, id @ ..] = *bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { length, kind, flags, id: u32::from_be_bytes(id) & MAX_ID })
    }

    /// The head as bytes.
    pub(crate) fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.id.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame's head.
pub(crate) fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, id: u32) {
    out.extend_from_slice(&Head { length, kind, flags, id }.bytes());
}

/// Appends a WINDOW_UPDATE; stream 0 is the connection.
pub(crate) fn window_update(out: &mut Vec<u8>, id: u32, increment: u32) {
    head(out, 4, kind::WINDOW_UPDATE, 0, id);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Appends a RST_STREAM.
pub(crate) fn rst_stream(out: &mut Vec<u8>, id: u32, code: Code) {
    head(out, 4, kind::RST_STREAM, 0, id);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends a PING or its answer.
pub(crate) fn ping(out: &mut Vec<u8>, flags: u8, data: [u8; 8]) {
    head(out, 8, kind::PING, flags, 0);
    out.extend_from_slice(&data);
}

/// Appends a GOAWAY; of `debug` as much as a frame holds.
pub(crate) fn goaway(out: &mut Vec<u8>, last: u32, code: Code, debug: &[u8]) {
    let debug = &debug[..debug.len().min(MAX_PAYLOAD - 8)];
    head(out, 8 + debug.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug);
}

/// Sets the length of the frame that begins at `at` and ends where `out` does. A header block that
/// is larger than a frame goes on in CONTINUATION frames.
pub(crate) fn close_block(out: &mut Vec<u8>, at: usize) {
    let length = out.len() - at - HEAD;
    if length <= MAX_PAYLOAD {
        return set_length(out, at, length);
    }
    let block = out.split_off(at + HEAD);
    let id = Head::read(&out[at..]).map_or(0, |head| head.id);
    let pieces = block.chunks(MAX_PAYLOAD);
    let last = pieces.len() - 1;
    for (number, piece) in pieces.enumerate() {
        if number == 0 {
            out[at + 4] &= !flag::END_HEADERS;
            set_length(out, at, piece.len());
        } else {
            let flags = if number == last { flag::END_HEADERS } else { 0 };
            head(out, piece.len(), kind::CONTINUATION, flags, id);
        }
        out.extend_from_slice(piece);
    }
}

/// Makes DATA frames of the bytes behind the frame's head at `at`.
pub(crate) fn close_data(out: &mut Vec<u8>, at: usize) {
    let length = out.len() - at - HEAD;
    if length <= MAX_PAYLOAD {
        return set_length(out, at, length);
    }
    let head = Head::read(&out[at..]).unwrap_or(Head { length: 0, kind: 0, flags: 0, id: 0 });
    // From the last frame to the second, each moves by the heads before it.
    let more = (length - 1) / MAX_PAYLOAD;
    out.resize(out.len() + more * HEAD, 0);
    for number in (1..=more).rev() {
        let from = at + HEAD + number * MAX_PAYLOAD;
        let size = (length - number * MAX_PAYLOAD).min(MAX_PAYLOAD);
        let to = from + number * HEAD;
        out.copy_within(from..from + size, to);
        out[to - HEAD..to].copy_from_slice(&Head { length: size, ..head }.bytes());
    }
    set_length(out, at, MAX_PAYLOAD);
}

fn set_length(out: &mut [u8], at: usize, length: usize) {
    out[at..at + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
}

/// The payload without its padding. The outer `None`: there is no byte that says how much there is;
/// the inner: it says more than there is.
pub(crate) fn unpad(head: Head, payload: &[u8]) -> Option<Option<&[u8]>> {
    if !head.has(flag::PADDED) {
        return Some(Some(payload));
    }
    let (&padding, rest) = payload.split_first()?;
    Some(rest.len().checked_sub(usize::from(padding)).map(|length| &rest[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_frames_where_they_lie() {
        for length in [0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD, 3 * MAX_PAYLOAD + 7] {
            let body: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            let mut out = b"before".to_vec();
            head(&mut out, 0, kind::DATA, 0, 5);
            out.extend_from_slice(&body);
            close_data(&mut out, 6);
            let (mut rest, mut found) = (&out[6..], Vec::new());
            while let Some(head) = Head::read(rest) {
                assert!(head.length <= MAX_PAYLOAD && head.id == 5 && head.kind == kind::DATA);
                found.extend_from_slice(&rest[HEAD..HEAD + head.length]);
                rest = &rest[HEAD + head.length..];
            }
            assert!(rest.is_empty() && found == body, "{length}");
        }
    }

    #[test]
    fn a_large_block_is_continued() {
        let mut out = Vec::new();
        let flags = flag::END_HEADERS | flag::END_STREAM;
        head(&mut out, 0, kind::HEADERS, flags, 7);
        out.resize(HEAD + 2 * MAX_PAYLOAD + 5, b'x');
        close_block(&mut out, 0);
        let (mut rest, mut kinds) = (&out[..], Vec::new());
        while let Some(head) = Head::read(rest) {
            kinds.push((head.kind, head.flags, head.length));
            rest = &rest[HEAD + head.length..];
        }
        let expected = [
            (kind::HEADERS, flag::END_STREAM, MAX_PAYLOAD),
            (kind::CONTINUATION, 0, MAX_PAYLOAD),
            (kind::CONTINUATION, flag::END_HEADERS, 5),
        ];
        assert_eq!(kinds, expected);
    }
}
