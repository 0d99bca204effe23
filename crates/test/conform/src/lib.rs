//! Black-box suites: the same calls against Quorate and a real etcd, the same answers expected.
//!
//! Owns starting and stopping server processes ([`process`]) and clusters of them ([`cluster`]), a
//! gRPC client that shows exactly what is on the wire ([`grpc`]), frames by hand ([`frames`]), and running one scenario on both
//! servers ([`session`] with a transcript, [`both`] with a value to compare, [`on_both_clusters`]
//! on three members of each). [`record`] has clients that remember all they see while servers come
//! and go, for the checkers of `model`.

pub mod both;
mod child;
pub mod cluster;
mod cluster_calls;
pub mod frames;
pub mod fuzz;
pub mod fuzz_watch;
pub mod fuzz_wire;
pub mod grpc;
mod join;
pub mod process;
pub mod record;
pub mod session;

pub use both::{both, run_both};
pub use cluster::{Cluster, Node};
pub use cluster_calls::{on_both_clusters, on_clusters};
pub use grpc::{Client, Failure, Stream};
pub use join::join_all;
pub use process::{Kind, Server, oracle};
pub use session::{Masked, Session, on_fresh_pair, on_shared_pair};
