//! A client of the etcd v3 API over HTTP/2, without a gRPC framework.
//!
//! The framing is ours, on `h2`: a framework would double the time to build the tools and gives
//! nothing that they use.
//!
//! Owns: endpoints and connections, calls with deadlines, streams, what may be repeated
//! ([`repeat`]), who calls ([`auth`]). Never: repeats a call that may have written; runs threads;
//! prints. Read next: [`endpoint`], [`call`], [`repeat`], [`auth`].

pub mod auth;
pub mod call;
pub mod endpoint;
pub mod error;
pub mod repeat;

pub use auth::Credentials;
pub use call::{Client, Config, FailedAttempt, Stream};
pub use endpoint::Endpoint;
pub use error::Error;
