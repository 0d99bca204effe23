//! Raft consensus with the behaviour of etcd's raft v3.7.0 and the settings etcd uses, as values.
//!
//! Owns the protocol of one group: elections (with pre-vote and check-quorum), replication,
//! commitment, membership changes, leader transfer and linearizable read indexes. Inputs are
//! method calls on [`Raft`]; everything there is to do comes out of [`Raft::ready`].
//!
//! Never does: I/O, clocks (time is [`Raft::tick`]), threads, randomness other than the injected
//! [`env::Entropy`], panics on what a peer sent. Misuse by our own member does panic: consensus
//! must not go on after it.
//!
//! Read next: [`raft`] (the inputs), [`ready`] (the outputs and the two gates a message passes),
//! `unstable` (which write a promise waits for), then one role per file.

mod raft;
mod ready;

mod candidate;
mod follower;
mod leader;
mod read_index;
mod replicate;
mod snapshots;

mod log;
mod progress;
mod quorum;
mod tracker;
mod unstable;

mod bootstrap;
mod confchange;
mod config;
mod entry;
mod error;
mod message;
mod status;
mod wire;

pub use bootstrap::bootstrap;
pub use confchange::{
    ConfChange, ConfChangeError, ConfChangeKind, ConfChangeSingle, ConfChangeV2, Transition,
};
pub use config::{Config, Recovered};
pub use entry::{ConfState, Entry, EntryKind, HardState, SnapshotMeta};
pub use error::{ConfigError, NotLeader, ProposeError, StepError, WireError};
pub use message::{Body, Message, Proposal, Rejection};
pub use raft::Raft;
pub use ready::{Persist, ReadState, Ready, SoftState};
pub use status::{PeerStatus, ReplicationState, Role, Status};
#[doc(hidden)]
pub use wire::fuzz_message;
