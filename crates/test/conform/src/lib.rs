//! Black-box suites: the same calls against Quorate and a real etcd, the same answers expected.
//!
//! Owns starting and stopping server processes ([`process`]), a gRPC client that shows exactly
//! what is on the wire ([`grpc`]), and running one scenario on both servers ([`session`] with a
//! transcript, [`both`] with a value to compare).

pub mod both;
pub mod fuzz;
pub mod fuzz_watch;
pub mod grpc;
pub mod process;
pub mod session;

pub use both::{both, run_both};
pub use grpc::{Client, Failure, Stream};
pub use process::{Kind, Server, oracle};
pub use session::{Masked, Session, on_fresh_pair, on_shared_pair};
