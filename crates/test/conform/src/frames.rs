//! HTTP/2 frames written and read by hand, for tests that say what no library says.
//!
//! The layout of frames is the light generator's ([`bench::light::frame`]); here are the header
//! blocks and whole frames that tests need besides.

use std::io::{self, Read};

pub use bench::light::frame::flag::{
    ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY as HAS_PRIORITY,
};
pub use bench::light::frame::kind::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
pub use bench::light::frame::setting::{HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE};
pub use bench::light::frame::{HEAD_BYTES, Head, PREFACE, window_update, write as frame};

/// Types of frames that no client of ours writes.
#[allow(missing_docs)]
mod odd {
    pub const PRIORITY: u8 = 2;
    pub const PUSH_PROMISE: u8 = 5;
}
pub use odd::{PRIORITY, PUSH_PROMISE};

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its head.
    pub head: Head,
    /// What is behind it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads one.
    ///
    /// # Errors
    /// The reader's; `UnexpectedEof` if it ends before the frame does.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        from.read_exact(&mut head)?;
        let head = Head::read(&head).expect("all its bytes are there");
        let mut payload = vec![0; head.length];
        from.read_exact(&mut payload)?;
        Ok(Self { head, payload })
    }
}

/// A literal field that enters no table, in plain letters of at most 126 bytes each.
///
/// # Panics
/// If a text is longer than a byte says.
//= RFC 7541, 6.2.2
#[must_use]
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    field(0, name, value)
}

/// A literal field of a kind: 0, 0x10 (never to be kept) or 0x40 (kept in the table).
///
/// # Panics
/// As [`literal`].
#[must_use]
pub fn field(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![kind];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).expect("texts are short"));
        field.extend(text);
    }
    field
}

/// A header block of [`literal`]s.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// The fields of a call's head.
#[must_use]
pub fn call_fields(path: &str) -> [(&str, &str); 6] {
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
}

/// The head of a call.
#[must_use]
pub fn call_block(path: &str) -> Vec<u8> {
    block(&call_fields(path))
}

/// A SETTINGS frame's payload.
#[must_use]
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let pairs = settings.iter();
    pairs
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect()
}
