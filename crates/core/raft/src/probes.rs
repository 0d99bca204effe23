//! The rare paths of this crate that simulations must take.

/// Every name that this crate gives to `env::sometimes!`.
pub const PROBES: &[&str] = &[
    REFUSED_APPEND,
    TRUNCATED,
    LOST_QUORUM,
    LOG_HANGS,
    HANDED_OVER,
    TRANSFER_FAILED,
    SNAPSHOT_KNOWN,
    SNAPSHOT_OLD,
    SNAPSHOT_OVERTAKEN,
    SNAPSHOT_FAILED,
    SNAPSHOT_SENT,
    GATED,
    READ_EARLY,
];

pub(crate) const REFUSED_APPEND: &str = "raft: an append does not match";
pub(crate) const TRUNCATED: &str = "raft: entries of another leader are replaced";
pub(crate) const LOST_QUORUM: &str = "raft: a leader without a quorum steps down";
pub(crate) const LOG_HANGS: &str = "raft: a leader whose log hangs steps down";
pub(crate) const HANDED_OVER: &str = "raft: a successor is told to campaign";
pub(crate) const TRANSFER_FAILED: &str = "raft: a transfer took too long";
pub(crate) const SNAPSHOT_KNOWN: &str = "raft: a snapshot of what the log holds";
pub(crate) const SNAPSHOT_OLD: &str = "raft: a snapshot of what is committed";
pub(crate) const SNAPSHOT_OVERTAKEN: &str = "raft: a snapshot replaces one that is not installed";
pub(crate) const SNAPSHOT_FAILED: &str = "raft: a snapshot did not arrive";
pub(crate) const SNAPSHOT_SENT: &str = "raft: a follower needs a snapshot";
pub(crate) const GATED: &str = "raft: an answer waits for a membership change";
pub(crate) const READ_EARLY: &str = "raft: a read comes before the first commit of a term";
