//! The envelope of a message: a flag, four bytes of length, the message.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before each message: flag and length.
pub const PREFIX_BYTES: usize = 5;

/// The message compression of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// gzip.
    Gzip,
}

/// The prefix of a message of `length` bytes that is not compressed.
#[must_use]
pub fn prefix(length: usize) -> [u8; PREFIX_BYTES] {
    let mut out = [0; PREFIX_BYTES];
    out[1..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    out
}

/// A message in its envelope, compressed if the call is.
#[must_use]
pub fn seal(message: &[u8], encoding: Encoding) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    match encoding {
        Encoding::Identity => {
            out.put_slice(&prefix(message.len()));
            out.put_slice(message);
        }
        Encoding::Gzip => {
            use std::io::Write;
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(message).expect("writing to memory does not fail");
            let deflated = encoder.finish().expect("writing to memory does not fail");
            out.put_slice(&prefix(deflated.len()));
            out[0] = 1;
            out.put_slice(&deflated);
        }
    }
    out.freeze()
}

/// A message in its envelope, not compressed.
#[must_use]
pub fn of(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = Vec::with_capacity(PREFIX_BYTES + length);
    out.extend_from_slice(&prefix(length));
    message.encode_raw(&mut out);
    out.into()
}
