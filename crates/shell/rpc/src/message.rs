//! The envelope of gRPC messages: flag, length, bytes.
//!
//! Invariants: a length is checked against the limit before anything is kept for it; a compressed
//! message is never inflated beyond the limit.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use api::error::{Code, Status};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use calls::{ENVELOPE_BYTES as PREFIX_BYTES, Encoded, envelope};
use h2::RecvStream;

use crate::gunzip::gunzip;

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

    /// The next message, decompressed.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        self.poll_next_of(false, cx)
    }

    /// As [`Reader::poll_next`], but the message may share the memory of the connection's read
    /// buffer: for messages that are not kept.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) async fn next_to_use(&mut self) -> Result<Bytes, Ended> {
        poll_fn(|cx| self.poll_next_of(true, cx)).await
    }

    fn poll_next_of(
        &mut self,
        may_share: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Ended>> {
        loop {
            let parsed = parse(&mut self.buffered, self.encoding, self.limit);
            if let Some(message) = parsed.map_err(Ended::Refused)? {
                return Poll::Ready(Ok(message));
            }
            if self.ended {
                let cut = self.buffered.len() >= PREFIX_BYTES;
                return Poll::Ready(Err(if cut { Ended::Cut } else { Ended::Eof }));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // The window is given back at once: what is buffered is bounded by the limit.
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    if may_share
                        && self.buffered.is_empty()
                        && let Some(message) = self.whole(&chunk)
                    {
                        return Poll::Ready(Ok(message));
                    }
                    self.buffered.extend_from_slice(&chunk);
                }
                Some(Err(_)) => return Poll::Ready(Err(Ended::Gone)),
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

/// A message behind its envelope, compressed if the call is.
#[must_use]
pub fn seal_encoded(message: Encoded, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Identity => message.seal(),
        gzip @ Encoding::Gzip => seal(message.message(), gzip),
    }
}

/// A message in its envelope, compressed if the call is.
#[must_use]
pub fn seal(message: &[u8], encoding: Encoding) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    match encoding {
        Encoding::Identity => {
            out.put_slice(&envelope(message.len()));
            out.put_slice(message);
        }
        Encoding::Gzip => {
            use std::io::Write;
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(message).expect("writing to memory does not fail");
            let deflated = encoder.finish().expect("writing to memory does not fail");
            out.put_slice(&envelope(deflated.len()));
            out[0] = 1;
            out.put_slice(&deflated);
        }
    }
    out.freeze()
}
