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
//! Read next: `raft.rs` (the inputs), `step.rs` (messages), `ready.rs` (the outputs and the two gates a message passes),
//! `unstable.rs` (which write a promise waits for), then one role per file.
//!
//! # One round
//! Give inputs, then call [`Raft::ready`] while [`Raft::has_ready`]: send the messages, hand the
//! write to the log, the snapshot and entries to the state machine. Report back with
//! [`Raft::persisted`], [`Raft::conf_applied`] and [`Raft::applied`], whenever that is; later
//! rounds need not wait for it.
//!
//! # Differences from etcd's raft
//! Equal schedules give equal traces (`tests/differential.rs`), and groups of both kinds keep one
//! log (`tests/mixed.rs`), but for these, each on purpose:
//! - A sole voter campaigns on its first tick, and answers reads only after the first commit of
//!   its term. A leader that is not the one remaining voter still asks that voter before it answers
//!   reads; etcd's does not. Reads that waited for the first commit of a term in which no other
//!   voter is left are answered then; etcd's waits for the word of a learner, or for ever.
//! - A member whose log on disk ends in a later term than its hard state (a write was torn between
//!   the two) starts in that term; etcd's starts in that of the hard state.
//! - A candidate's requests for votes wait until its own vote is durable, as they do in etcd's
//!   server but not in its raft with asynchronous storage.
//! - A leader acknowledges its own log per write, not per append, and waiting acknowledgements
//!   replace each other: fewer messages, same outcome.
//! - A leader refuses its own membership change that is not allowed now with an error; etcd appends
//!   an empty entry and lets the client time out. What a follower sent on becomes that empty entry
//!   here too, also if the change is impossible, where etcd's members panic at apply.
//! - A leader whose log write hangs for more than an election timeout steps down if another voter
//!   is healthy.
//! - Malformed messages, terms beyond 2^63 - 1, and a commit index beyond our log, are errors
//!   instead of panics or a cluster that can never elect again; a
//!   message without a term is never taken as local; `MsgForgetLeader` is ignored; reads that wait
//!   on a leader are limited to 10,000.
//!
//! Not here: lease-based reads, asynchronous payload loading (all entries since the last
//! [`Raft::compact`] are in memory), limits on uncommitted or in-flight bytes (etcd sets none).

mod raft;
mod ready;

mod candidate;
mod follower;
mod leader;
mod read_index;
mod replicate;
mod snapshots;
mod step;

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
mod order;
mod probes;
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
pub use order::order_appends;
pub use probes::PROBES;
pub use raft::{EARLY_CAMPAIGN_TICKS, Raft};
pub use ready::{Persist, ReadState, Ready, SoftState};
pub use status::{PeerStatus, ReplicationState, Role, Status};
#[doc(hidden)]
pub use wire::fuzz_message;
