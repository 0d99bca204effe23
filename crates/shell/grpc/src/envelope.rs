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

/// A message being written, with room for its envelope's prefix in front: sealing it copies nothing.
#[derive(Debug)]
pub struct Draft(Vec<u8>);

impl Draft {
    /// An empty message with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut room = Vec::with_capacity(PREFIX_BYTES + bytes);
        room.extend_from_slice(&[0; PREFIX_BYTES]);
        Self(room)
    }

    /// A message as it is encoded.
    #[must_use]
    pub fn of(message: &impl prost::Message) -> Self {
        let mut draft = Self::with_capacity(message.encoded_len());
        message.encode_raw(&mut draft.0);
        draft
    }

    /// Where the message is appended to. What is there already must stay.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// What is written so far.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.0[PREFIX_BYTES..]
    }

    /// What is written so far, to be sent otherwise.
    #[must_use]
    pub fn into_message(mut self) -> Vec<u8> {
        self.0.drain(..PREFIX_BYTES);
        self.0
    }

    /// The message in its envelope, compressed if the call is.
    #[must_use]
    pub fn seal(mut self, encoding: Encoding) -> Bytes {
        if encoding != Encoding::Identity {
            return seal(self.message(), encoding);
        }
        let length = self.0.len() - PREFIX_BYTES;
        self.0[..PREFIX_BYTES].copy_from_slice(&prefix(length));
        self.0.into()
    }
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
    Draft::of(message).seal(Encoding::Identity)
}
