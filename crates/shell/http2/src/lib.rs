//! The server's half of an HTTP/2 connection (RFC 9113) as an automaton.

mod connection;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod hpack;
mod limits;
mod protocol;
mod steps;
mod streams;

pub use connection::Connection;
pub use error::{Code, Fatal};
pub use hpack::StaticTags;
pub use limits::Limits;
pub use protocol::{End, Event, Field, Indexing, LastStream, Protocol, ResponseHead, Verdict};
pub use streams::StreamKey;

/// The bytes that a client sends first.
//= RFC 9113, 3.4
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
