//! etcd's peer protocol: how members talk to each other, byte for byte as etcd's `rafthttp`.
//!
//! Owns the peer listeners, two streams each way per peer (the reader of messages opens them), one
//! request per message or snapshot where there is no stream, probes, and the questions of one
//! member to another ([`Client`]). Everything of a [`Plane`] runs on one thread with a runtime of
//! its own; databases are read and written on threads for files.
//!
//! Never does: consensus, membership, logs or metrics. What arrives is given to a [`Member`], what
//! is lost is told to it, what happens is an [`Event`]. Never blocks a caller, never panics on what
//! a peer sent; queues are bounded, and what does not fit is lost as if by the network.
//!
//! Read next: [`plane`](Plane) (the interface), `core.rs` (which way a message takes), `writer.rs`
//! and `reader.rs` (streams), `serve.rs` (what peers ask), [`codec`] (the bytes).
//!
//! # Differences from etcd
//! Limits that etcd does not have: connections (4,096), remotes (256), snapshots received at once
//! (4), entries of an append (1,048,576), time for a message by request (30 s) and for a peer that
//! takes nothing of a snapshot (60 s). A version header that is none is refused as an incompatible
//! one; Go's handler panics. Where Go aborts a connection after its answer, ours says that it
//! closes it. URLs in `X-PeerURLs` that are none are ignored; Go panics.

pub mod codec;

mod client;
mod core;
mod event;
mod headers;
mod link;
mod picker;
mod pipeline;
mod plane;
mod probe;
mod reader;
mod rfc3339;
mod serve;
mod snapshot_receive;
mod snapshot_send;
mod tasks;
mod writer;

pub use client::{
    Client, ClientError, HashError, LeaseError, PromoteError, RemoteCluster, RemoteHash,
    RemoteMember, Versions,
};
pub use event::{Channel, Event, Probe, RejectReason, Side};
pub use plane::{Answer, Config, Member, Plane, ReceiveError};

/// Reads arbitrary text as what stands in requests and answers: URLs, ids, versions, times.
#[doc(hidden)]
pub fn fuzz_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(urls) = types::Url::parse_all(&text.split(',').collect::<Vec<_>>()) {
        assert!(urls.iter().all(|url| types::Url::parse(&url.to_string()).as_ref() == Ok(url)));
    }
    if let Some(id) = headers::parse_id(text) {
        assert_eq!(headers::parse_id(&format!("{id:x}")), Some(id));
    }
    let _ = headers::Minor::parse(text);
    if let Some(time) = rfc3339::parse(text) {
        assert_eq!(rfc3339::parse(&rfc3339::format(time)), Some(time));
    }
    let _ = serde_json::from_str::<Vec<RemoteMember>>(text);
    let _ = serde_json::from_str::<Versions>(text);
}
