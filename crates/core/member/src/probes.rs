//! The rare paths of this crate that simulations must take.

/// Every name that this crate gives to `env::sometimes!`.
pub const PROBES: &[&str] = &[
    PARKED,
    TIMED_OUT,
    READS_ENDED,
    READ_ASKED_AGAIN,
    STOOD_STILL,
    NOT_FOLLOWED,
    REMOVED,
    LATE_MESSAGE,
    KEPT_FOR_SNAPSHOT,
    RECEIVED_WAITS,
    INSTALLED_AMID_COMPACTION,
    OVER_LIMIT,
    SNAPSHOT_WAITS,
    PENDING_DROPPED,
    COPY_DROPPED,
    INSTALLED_AT_START,
];

pub(crate) const PARKED: &str = "node: a proposal waits for a leader";
pub(crate) const TIMED_OUT: &str = "node: a proposal has timed out";
pub(crate) const READS_ENDED: &str = "node: another leader ends waiting reads";
pub(crate) const READ_ASKED_AGAIN: &str = "node: a read index is asked for again";
pub(crate) const STOOD_STILL: &str = "node: a leader that stood still renews nothing yet";
pub(crate) const NOT_FOLLOWED: &str = "node: a leader without followers ends no leases";
pub(crate) const REMOVED: &str = "node: this member is removed";
pub(crate) const LATE_MESSAGE: &str = "node: a removed member still speaks";
pub(crate) const KEPT_FOR_SNAPSHOT: &str = "node: entries are kept for a snapshot's receiver";
pub(crate) const RECEIVED_WAITS: &str = "applier: a snapshot waits for the entries before it";
pub(crate) const INSTALLED_AMID_COMPACTION: &str = "applier: a snapshot ends a compaction";
pub(crate) const OVER_LIMIT: &str = "applier: entries wait for the backend";
pub(crate) const SNAPSHOT_WAITS: &str = "committer: a peer's snapshot waits for a commit";
pub(crate) const PENDING_DROPPED: &str = "committer: a snapshot voids what was pending";
pub(crate) const COPY_DROPPED: &str = "committer: a snapshot ends a defragmentation";
pub(crate) const INSTALLED_AT_START: &str = "recover: a start installs a received snapshot";
