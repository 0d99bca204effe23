//! What clients send over HTTP/2.

use env::{Entropy, SplitMix};

use crate::recordings::RECORDINGS;

/// Header blocks, each behind its length: the examples of RFC 7541, C.4 and C.6, some with changes
/// of the table's size, and those of real clients.
#[must_use]
pub fn header_blocks() -> Vec<Vec<u8>> {
    let requests: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ];
    let responses: [&[u8]; 3] = [
        b"\x3f\xe1\x01\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b",
        b"\x48\x83\x64\x0e\xff\xbf\x00\x01a\x01b\x10\x01c\x00",
        b"\x20\x3f\x21\x40\x01a\x83\x1c\x64\x5f\x0f\x10\x00\xbe",
    ];
    let examples = [requests, responses].map(|blocks| {
        let behind_length = blocks.iter().map(|b| [&[b.len() as u8], *b].concat());
        behind_length.collect::<Vec<_>>().concat()
    });
    let recorded = RECORDINGS.iter().map(|recording| recording.header_blocks());
    examples.into_iter().chain(recorded).map(|blocks| [vec![255], blocks].concat()).collect()
}

/// Whole connections.
#[must_use]
pub fn frames() -> Vec<Vec<u8>> {
    (1..6).map(http2::fuzz::client_bytes).collect()
}

/// What the choices of a client are drawn from.
#[must_use]
pub fn choices() -> Vec<Vec<u8>> {
    let mut random = SplitMix::new(7);
    (0..6).map(|_| (0..400).map(|_| random.below(256) as u8).collect()).collect()
}
