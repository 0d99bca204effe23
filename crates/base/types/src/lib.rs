//! The vocabulary of Quorate: identifiers, positions and named limits.
//!
//! Owns newtypes for every id and position that crosses a crate boundary, and every default or
//! limit that more than one crate must agree on. Never holds behaviour beyond conversion and
//! formatting. Read next: [`ids`], then [`limits`].

pub mod ids;
pub mod limits;
mod quote;
pub mod url;
pub mod version;

pub use ids::{
    ClusterId, Index, LeaseId, MemberId, ReplyToken, RequestId, Revision, SubRevision, Term,
    WatchId, WriteId,
};
pub use quote::quote;
pub use url::{BadUrl, Scheme, Url};
pub use version::Version;

/// The etcd version this build stands in for, as `--version`, `/version` and Status report it.
pub const SERVER_VERSION: &str = "3.7.3";
/// This program by its own name and version, as refusals of what is not there yet say it.
pub const PRODUCT: &str = concat!("Quorate ", env!("CARGO_PKG_VERSION"));
/// The cluster version a new single member settles on: major.minor of [`SERVER_VERSION`], patch 0.
pub const CLUSTER_VERSION: &str = "3.7.0";
/// The client API version: major.minor of [`SERVER_VERSION`].
pub const API_VERSION: &str = "3.7";
/// The oldest cluster version a member of this version can join.
pub const MIN_CLUSTER_VERSION: &str = "3.0.0";
