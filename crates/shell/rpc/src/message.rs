//! The messages of a request, from its body.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use api::error::Status;
use bytes::Bytes;
use calls::Encoded;
use grpc::Messages;
use h2::RecvStream;

pub use grpc::Encoding;
pub use grpc::envelope::seal;

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
    messages: Messages,
    ended: bool,
}

impl Reader {
    pub(crate) fn new(body: RecvStream, encoding: Encoding, limit: usize) -> Self {
        Self { body, messages: Messages::new(encoding, limit), ended: false }
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
            if let Some(message) = self.messages.take_next().map_err(Ended::Refused)? {
                return Poll::Ready(Ok(message));
            }
            if self.ended {
                let is_cut = self.messages.is_within_one();
                return Poll::Ready(Err(if is_cut { Ended::Cut } else { Ended::Eof }));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    // The window is given back at once: what is buffered is bounded by the limit.
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    if may_share && let Some(message) = self.messages.whole(&chunk) {
                        return Poll::Ready(Ok(message));
                    }
                    self.messages.push(&chunk);
                }
                Some(Err(_)) => return Poll::Ready(Err(Ended::Gone)),
                None => self.ended = true,
            }
        }
    }

    /// Whether the client has sent all it will send and all of it was read.
    pub fn is_finished(&self) -> bool {
        self.messages.is_empty() && (self.ended || self.body.is_end_stream())
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
