//! The messages of a request, from its body.

use api::error::Status;
use bytes::Bytes;
use grpc::Messages;
use h2::RecvStream;

pub use grpc::envelope::{prefix, seal};
pub use grpc::{Draft, Encoding, PREFIX_BYTES};

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
            if let Some(message) = self.messages.take_next().map_err(Ended::Refused)? {
                return Ok(message);
            }
            if self.ended {
                return Err(if self.messages.is_within_one() { Ended::Cut } else { Ended::Eof });
            }
            match self.body.data().await {
                Some(Ok(chunk)) => {
                    // The window is given back at once: what is buffered is bounded by the limit.
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    if may_share && let Some(message) = self.messages.whole(&chunk) {
                        return Ok(message);
                    }
                    self.messages.push(&chunk);
                }
                Some(Err(_)) => return Err(Ended::Gone),
                None => self.ended = true,
            }
        }
    }

    /// Whether the client has sent all it will send and all of it was read.
    pub fn is_finished(&self) -> bool {
        self.messages.is_empty() && (self.ended || self.body.is_end_stream())
    }
}
