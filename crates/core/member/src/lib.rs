//! One member as four automata: [`Node`], [`LogWriter`], [`Applier`], [`Committer`].
//!
//! Each is a plain value with `handle(inputs) -> outputs`; what travels between them is in
//! [`message`]. The server spreads them over threads, the simulator runs them under a seed; they
//! cannot tell. Owns also how a member starts from its disk ([`recover`]). Never opens a socket,
//! reads a clock or spawns a thread. Read next: [`message`], [`node`], [`applier`], [`recover`].

pub mod applier;
pub mod auto_compaction;
pub mod committer;
mod config;
mod lease_expiry;
pub mod log_writer;
pub mod message;
pub mod node;
mod probes;
pub mod proposals;
pub mod received;
pub mod recover;
mod storage_version;
pub mod tokens;
mod zero_ahead;

pub use applier::{
    Applier, ApplierInput, ApplierOutput, ApplyFailure, CompactionPace, FinishedCompaction,
    LeaseWish, MemberView,
};
pub use auto_compaction::{AutoCompaction, Retention};
pub use committer::{
    CommitFailure, CommitPolicy, Committer, CommitterInput, CommitterOutput, StagesTold,
};
pub use config::{MemberLimits, StartConfig};
pub use log_writer::{LogFailure, LogWriter};
pub use message::{
    Applied, BackendCommitted, Committed, Installed, LeaseTime, LogInput, NodeInput, NodeOutput,
    NodeStatus, OutgoingSnapshot, PeerChange, Proposal, RaftSnapshot, Reply, Sealed,
    SnapshotWanted,
};
pub use node::{Node, NodeConfig};
pub use probes::PROBES;
pub use recover::{Parts, StartError, start};
pub use tokens::{Token, Tokens};
