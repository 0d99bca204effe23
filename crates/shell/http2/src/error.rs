//! Error codes, and what ends a connection.

use std::fmt;

/// An error code of RST_STREAM and GOAWAY. A peer may send any number.
//= RFC 9113, 7
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Not a failure: the rest is not needed.
    pub const NO_ERROR: Self = Self(0);
    /// Something that the protocol does not allow.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// The server failed.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More bytes than the window allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that this side had closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame, or a header list, of a size that is not allowed.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The request was not looked at: the client may send it again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The sender wants no answer any more.
    pub const CANCEL: Self = Self(8);
    /// A header block that cannot be decoded.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// More than this side is willing to do.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NO_ERROR => "NO_ERROR",
            Self::PROTOCOL_ERROR => "PROTOCOL_ERROR",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            Self::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
            Self::STREAM_CLOSED => "STREAM_CLOSED",
            Self::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
            Self::REFUSED_STREAM => "REFUSED_STREAM",
            Self::CANCEL => "CANCEL",
            Self::COMPRESSION_ERROR => "COMPRESSION_ERROR",
            Self::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
            Self(code) => return write!(f, "Code({code})"),
        };
        f.write_str(name)
    }
}

/// The connection must end: the client broke the protocol or a limit. What is in
/// [`Connection::out`](crate::Connection::out) may be sent before it is closed; where grpc-go says
/// goodbye with a GOAWAY, that is its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// What kind of error it is.
    pub code: Code,
    /// What was wrong, for a log.
    pub reason: &'static str,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.reason)
    }
}

impl std::error::Error for Fatal {}
