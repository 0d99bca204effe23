//! Messages, cut from a stream of bytes.
//!
//! Invariants: a length is checked against the limit before anything is kept for it; a compressed
//! message is never inflated beyond the limit.

use api::error::{Code, Status};
use bytes::{Buf, Bytes, BytesMut};

use crate::envelope::{Encoding, PREFIX_BYTES};
use crate::gunzip::gunzip;

/// Bytes of one direction of a call on their way to become messages.
#[derive(Debug)]
pub struct Messages {
    buffered: BytesMut,
    encoding: Encoding,
    limit: usize,
}

impl Messages {
    /// For a direction with this encoding, whose messages have at most `limit` bytes.
    #[must_use]
    pub fn new(encoding: Encoding, limit: usize) -> Self {
        Self { buffered: BytesMut::new(), encoding, limit }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffered.extend_from_slice(chunk);
    }

    /// The next message, decompressed, once all of it is there.
    ///
    /// # Errors
    /// What is there is no message, or one that is too long; with grpc-go's text.
    pub fn take_next(&mut self) -> Result<Option<Bytes>, Status> {
        parse(&mut self.buffered, self.encoding, self.limit)
    }

    /// The message that is exactly this chunk: if nothing came before it that is still here, and it
    /// is plain and allowed.
    #[must_use]
    pub fn whole<'a>(&self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        let ([flag, length @ ..], message) = chunk.split_first_chunk::<PREFIX_BYTES>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let is_whole = self.buffered.is_empty() && message.len() == length;
        (*flag == 0 && is_whole && length <= self.limit).then_some(message)
    }

    /// Bytes that have not become messages.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffered.len()
    }

    /// Whether all bytes have become messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffered.is_empty()
    }

    /// Whether a message has begun that is not complete; a piece of a prefix is none.
    #[must_use]
    pub fn is_within_one(&self) -> bool {
        self.buffered.len() >= PREFIX_BYTES
    }
}

/// Takes the first message off `buffered` once all of it is there, decompressed.
fn parse(
    buffered: &mut BytesMut,
    encoding: Encoding,
    limit: usize,
) -> Result<Option<Bytes>, Status> {
    let refuse = |code, text: String| Err(Status::new(code, text));
    let Some([flag, length @ ..]) = buffered.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let (flag, length) = (*flag, u32::from_be_bytes(*length) as usize);
    if length > limit {
        return refuse(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({length} vs. {limit})"),
        );
    }
    if buffered.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffered.advance(PREFIX_BYTES);
    let bytes = buffered.split_to(length).freeze();
    // The flag is looked at last: one that means nothing does not hide that the message is cut.
    //= grpc-go 1.82: rpc_util.go#recvAndDecompress
    match (flag, encoding) {
        (0, _) => Ok(Some(bytes)),
        (2.., _) => {
            refuse(Code::Internal, format!("grpc: received unexpected payload format {flag}"))
        }
        (_, Encoding::Gzip) => gunzip(&bytes, limit).map(Some),
        (_, Encoding::Identity) => refuse(
            Code::Internal,
            "grpc: compressed flag set with identity or empty encoding".to_owned(),
        ),
    }
}

/// Reads arbitrary bytes as a stream of messages, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    const LIMIT: usize = 1 << 16;
    for encoding in [Encoding::Identity, Encoding::Gzip] {
        let mut buffered = BytesMut::from(bytes);
        while let Ok(Some(message)) = parse(&mut buffered, encoding, LIMIT) {
            assert!(message.len() <= LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::seal;

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let wanted: [&[u8]; 4] = [b"one", b"", b"three", b"4"];
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let stream: Vec<u8> = wanted.iter().flat_map(|m| seal(m, encoding)).collect();
            for cut in 1..=stream.len() {
                let mut messages = Messages::new(encoding, 100);
                let mut found = Vec::new();
                for chunk in stream.chunks(cut) {
                    messages.push(chunk);
                    while let Some(message) = messages.take_next().unwrap() {
                        found.push(message);
                    }
                }
                assert_eq!(found, wanted, "cut every {cut} bytes");
                assert!(messages.is_empty());
            }
        }
    }

    #[test]
    fn a_chunk_that_is_a_message_is_told_from_others() {
        let mut messages = Messages::new(Encoding::Gzip, 4);
        let whole = |messages: &Messages, chunk| messages.whole(chunk).map(<[u8]>::to_vec);
        assert_eq!(whole(&messages, b"\0\0\0\0\x03abc"), Some(b"abc".to_vec()));
        assert_eq!(whole(&messages, b"\0\0\0\0\0"), Some(Vec::new()));
        let others: [&[u8]; 5] = [
            b"",
            b"\0\0\0\0\x03ab",
            b"\0\0\0\0\x03abcd",
            b"\x01\0\0\0\x03abc",
            b"\0\0\0\0\x05abcde",
        ];
        for other in others {
            assert_eq!(whole(&messages, other), None, "{other:?}");
        }
        messages.push(b"\0");
        assert_eq!(whole(&messages, b"\0\0\0\0\x03abc"), None, "something came before it");
    }

    #[test]
    fn what_is_no_message_is_refused_with_grpc_gos_texts() {
        let refused = |bytes: &[u8], encoding| {
            let mut messages = Messages::new(encoding, 10);
            messages.push(bytes);
            let status = messages.take_next().unwrap_err();
            (status.code, status.message.into_owned())
        };
        let (plain, internal) = (Encoding::Identity, Code::Internal);
        let flag = "grpc: received unexpected payload format 2".to_owned();
        assert_eq!(refused(&[2, 0, 0, 0, 0], plain), (internal, flag));
        let mut cut = Messages::new(plain, 10);
        cut.push(&[2, 0, 0, 0, 1]);
        assert!(cut.take_next().unwrap().is_none() && cut.is_within_one());
        let longer = "grpc: received message larger than max (12 vs. 10)".to_owned();
        assert_eq!(refused(&[2, 0, 0, 0, 12], plain), (Code::ResourceExhausted, longer));
        let packed = "grpc: compressed flag set with identity or empty encoding".to_owned();
        assert_eq!(refused(&[1, 0, 0, 0, 0], plain), (internal, packed));
        let long = "grpc: received message larger than max (11 vs. 10)".to_owned();
        assert_eq!(refused(&[0, 0, 0, 0, 11], plain), (Code::ResourceExhausted, long));
        let zeros = seal(&[0; 11], Encoding::Gzip);
        assert_eq!(refused(&zeros, Encoding::Gzip).0, Code::ResourceExhausted);
    }
}
