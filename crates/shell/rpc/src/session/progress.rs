//! How far a message has left, and what ends an answer that breaks off within one.
//!
//! Behind half a message there is no place for a status: a client would read it as the message's
//! end, and report `unexpected EOF` in its stead. Such a stream is reset.

use api::error::{Code, Status};
use http2::Code as Reset;

/// How far the messages of a call have left.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The message that is being sent comes in several pieces.
    in_pieces: bool,
    /// A part of a message has left, the rest has not.
    is_within: bool,
}

impl Progress {
    /// The next bytes are pieces of one message, until [`Progress::end_pieces`].
    pub(crate) fn begin_pieces(&mut self) {
        self.in_pieces = true;
    }

    /// The last piece has left.
    pub(crate) fn end_pieces(&mut self) {
        *self = Self::default();
    }

    /// Of `before` bytes, whole messages or a piece, `left` are still to be sent.
    pub(crate) fn sent(&mut self, before: usize, left: usize) {
        if left < before {
            self.is_within = self.in_pieces || left > 0;
        }
    }

    /// What the stream is reset with if the call ends now with this status; `None` if the status
    /// can be sent.
    //= grpc-go 1.83: internal/transport/http2_server.go#operateHeaders (the deadline's timer)
    pub(crate) fn reset(&self, status: Option<&Status>) -> Option<Reset> {
        self.is_within.then(|| match status.map(|status| status.code) {
            Some(Code::DeadlineExceeded | Code::Canceled) => Reset::CANCEL,
            _ => Reset::INTERNAL_ERROR,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_ends_within_a_message_is_reset() {
        let late = Status::new(Code::DeadlineExceeded, "late");
        let compacted = Status::new(Code::OutOfRange, "compacted");
        let mut progress = Progress::default();
        assert_eq!(progress.reset(Some(&late)), None, "nothing has left");
        progress.sent(10, 10);
        assert_eq!(progress.reset(Some(&late)), None, "nothing could leave");
        progress.sent(10, 4);
        assert_eq!(progress.reset(Some(&late)), Some(Reset::CANCEL));
        assert_eq!(progress.reset(Some(&compacted)), Some(Reset::INTERNAL_ERROR));
        progress.sent(4, 4);
        assert!(progress.reset(None).is_some(), "the rest still waits");
        progress.sent(4, 0);
        assert_eq!(progress.reset(Some(&late)), None, "all of it has left");
        progress.begin_pieces();
        assert_eq!(progress.reset(Some(&late)), None, "none of the pieces has left");
        progress.sent(5, 0);
        assert!(progress.reset(None).is_some(), "a piece has left, others follow");
        progress.end_pieces();
        assert_eq!(progress.reset(Some(&late)), None);
    }
}
