//! What real clients sent, connection by connection: `recordings/README.md` says who and what.

use bench::light::frame::{HEAD_BYTES, Head, flag, kind};

/// Bytes of a priority before a header block.
//= RFC 9113, 6.2
const PRIORITY_BYTES: usize = 5;

/// A connection that was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// The client, and which of its connections.
    pub name: &'static str,
    /// All that the client sent, preface first.
    pub sent: &'static [u8],
    /// The requests in it, as decoders that are none of ours read them (`recordings/expect.py`).
    pub requests: &'static str,
}

macro_rules! recordings {
    ($($name:literal)*) => {
        &[$(Recording {
            name: $name,
            sent: include_bytes!(concat!("../corpus/http2-frames/", $name)),
            requests: include_str!(concat!("../recordings/", $name, ".txt")),
        }),*]
    };
}

/// Every recording; the bytes are also in the corpus of `http2-frames`.
pub const RECORDINGS: &[Recording] = recordings![
    "etcdctl" "go" "go-old" "java" "node" "node-etcd3-1" "node-etcd3-2" "node-etcd3-3" "python"
    "python-large" "rust"
];

impl Recording {
    /// Its frames, each with its place.
    pub fn frames(self) -> impl Iterator<Item = (usize, Head, &'static [u8])> {
        let mut at = http2::PREFACE.len();
        std::iter::from_fn(move || {
            let head = Head::read(&self.sent[at..])?;
            let payload = &self.sent[at + HEAD_BYTES..][..head.length];
            let frame = (at, head, payload);
            at += HEAD_BYTES + head.length;
            Some(frame)
        })
    }

    /// Its header blocks, each behind its length. Clients that were recorded neither pad nor split
    /// them; some name a priority.
    #[must_use]
    pub fn header_blocks(self) -> Vec<u8> {
        let mut blocks = Vec::new();
        for (_, head, payload) in self.frames().filter(|(_, head, _)| head.kind == kind::HEADERS) {
            let known = flag::END_STREAM | flag::PRIORITY;
            assert_eq!(head.flags & !known, flag::END_HEADERS, "{}", self.name);
            let block = &payload[if head.has(flag::PRIORITY) { PRIORITY_BYTES } else { 0 }..];
            blocks.push(u8::try_from(block.len()).expect("recorded blocks are short"));
            blocks.extend_from_slice(block);
        }
        blocks
    }
}
