//! The envelope of gRPC messages: flag, length, bytes.
//!
//! Invariants: a length is checked against the limit before anything is kept for it; a compressed
//! message is never inflated beyond the limit.

use api::error::{Code, Status};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;

use crate::gunzip::gunzip;

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

/// Why there is no (further) message.
#[derive(Debug)]
pub enum Ended {
    /// The stream ended between messages, or within a prefix.
    Eof,
    /// The stream ended within a message.
    Cut,
    /// The bytes are refused.
    Refused(Status),
    /// The client reset the stream or the connection is gone.
    Gone,
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

/// Reads messages from a request body.
#[derive(Debug)]
pub struct Reader {
    body: RecvStream,
    buffered: BytesMut,
    ended: bool,
    encoding: Encoding,
    limit: usize,
}

impl Reader {
    pub(crate) fn new(body: RecvStream, encoding: Encoding, limit: usize) -> Self {
        Self { body, buffered: BytesMut::new(), ended: false, encoding, limit }
    }

    /// Waits for the next message, decompressed.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next(&mut self) -> Result<Bytes, Ended> {
        self.next_of(false).await
    }

    /// As [`Reader::next`], but the message may share the memory of the connection's read buffer:
    /// for messages that are not kept.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) async fn next_to_use(&mut self) -> Result<Bytes, Ended> {
        self.next_of(true).await
    }

    async fn next_of(&mut self, may_share: bool) -> Result<Bytes, Ended> {
        loop {
            let parsed = parse(&mut self.buffered, self.encoding, self.limit);
            if let Some(message) = parsed.map_err(Ended::Refused)? {
                return Ok(message);
            }
            if self.ended {
                let cut = self.buffered.len() >= PREFIX_BYTES;
                return Err(if cut { Ended::Cut } else { Ended::Eof });
            }
            match self.body.data().await {
                Some(Ok(chunk)) => {
                    // The window is given back at once: what is buffered is bounded by the limit.
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    if may_share
                        && self.buffered.is_empty()
                        && let Some(message) = self.whole(&chunk)
                    {
                        return Ok(message);
                    }
                    self.buffered.extend_from_slice(&chunk);
                }
                Some(Err(_)) => return Err(Ended::Gone),
                None => self.ended = true,
            }
        }
    }

    /// The message that is exactly this chunk, if it is plain and allowed.
    fn whole(&self, chunk: &Bytes) -> Option<Bytes> {
        let [flag, length @ ..] = chunk.first_chunk::<PREFIX_BYTES>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let is_whole = chunk.len() - PREFIX_BYTES == length;
        (*flag == 0 && is_whole && length <= self.limit).then(|| chunk.slice(PREFIX_BYTES..))
    }

    /// Whether the client has sent all it will send and all of it was read.
    pub fn is_finished(&self) -> bool {
        self.buffered.is_empty() && (self.ended || self.body.is_end_stream())
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
    if flag > 1 {
        return refuse(Code::Internal, format!("grpc: received unexpected payload format {flag}"));
    }
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
    match (flag, encoding) {
        (0, _) => Ok(Some(bytes)),
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
