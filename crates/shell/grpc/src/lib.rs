//! gRPC's own bytes, for both ends of a call: envelopes of messages, statuses in trailers, timeouts
//! in headers.
//!
//! Owns what stands in HTTP/2's DATA frames and in gRPC's headers, with grpc-go's texts for what is
//! wrong with them. Never reads or writes a socket. Read next: [`envelope`], [`messages`],
//! [`status`].

pub mod envelope;
mod gunzip;
pub mod messages;
pub mod status;
mod timeout;

pub use envelope::{Encoding, PREFIX_BYTES};
pub use messages::Messages;
pub use timeout::timeout;
