//! A client of the etcd v3 API over HTTP/2, without a gRPC framework.
//!
//! The framing is ours, on `h2`: a framework would double the time to build the tools and gives
//! nothing that they use.
//!
//! Owns: endpoints and connections, calls with deadlines, streams, what may be repeated
//! ([`repeat`]), who calls ([`auth`]), watches that survive their stream ([`watches`]), leases that
//! are kept alive ([`lease`]), locks and elections ([`concurrency`]). Never: repeats a call that may
//! have written; runs threads; prints. Read next: [`endpoint`], [`call`], [`repeat`], [`auth`], then
//! [`watches`].

pub mod auth;
pub mod call;
pub mod concurrency;
pub mod endpoint;
pub mod error;
pub mod lease;
pub mod repeat;
pub mod watches;

pub use auth::Credentials;
pub use call::{Client, Config, FailedAttempt, Leader, Stream};
pub use endpoint::Endpoint;
pub use error::Error;
pub use watches::{Told, WatchKey, WatchTable, Watches, prefix_end};
