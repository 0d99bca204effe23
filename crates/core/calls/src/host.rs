//! What surrounds a runtime's calls: a clock, and who hears what was measured and what belongs into
//! the log.
//!
//! The server reads its clock, adds to metrics and writes lines; the simulator shows the seed's
//! time and listens. Nothing that a host does with what it hears changes what a call does.

use std::time::Duration;

use api::method::CallType;
use env::{Instant, WallTime};
use machine::CommandKind;
use types::{MemberId, Revision, Version};

use crate::peers::PeerHash;

/// The surroundings of one runtime.
pub trait Host {
    /// Now on the member's monotonic clock.
    fn now(&self) -> Instant;

    /// Now on the wall clock; mixed into ids only.
    fn wall(&self) -> WallTime;

    /// Something was measured.
    fn measure(&self, _measured: Measure<'_>) {}

    /// Something happened that an operator wants to read of.
    fn log(&self, _event: Event<'_>) {}
}

/// Which of the reads that metrics tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A range.
    Range,
    /// A transaction without changes.
    Txn,
}

/// What is counted and timed.
#[derive(Clone, Copy, Debug)]
pub enum Measure<'a> {
    /// A call began, of a client that states this version.
    Client {
        /// Whether it is a stream.
        kind: CallType,
        /// The version's text.
        version: &'a str,
    },
    /// A request went through the log, or failed to.
    Requested {
        /// What kind.
        kind: CommandKind,
        /// Whether it was applied without a refusal.
        success: bool,
        /// From its proposal to its outcome.
        took: Duration,
    },
    /// A read was answered, its wait for an index included.
    Read {
        /// What kind of read it was.
        read: Read,
        /// Whether it had an answer.
        success: bool,
        /// How long it took.
        took: Duration,
    },
    /// A range was planned, once its View was there.
    Ranged {
        /// Whether it had an answer.
        success: bool,
        /// How long that took.
        took: Duration,
    },
    /// This member's clock renewed a lease.
    LeaseRenewed,
    /// So many more watch streams are open.
    WatchStreams(i64),
    /// So many more watchers exist.
    Watchers(i64),
    /// So many more watchers read history.
    SlowWatchers(i64),
    /// So many events went to watchers.
    Events(u64),
    /// A defragmentation began.
    DefragmentBegan,
    /// It ended.
    Defragmented(Duration),
    /// The whole backend was hashed.
    Hashed(Duration),
    /// Keys and values were hashed.
    HashedRevision(Duration),
    /// A snapshot went to a client.
    SnapshotSent(Duration),
    /// This member, as the leader, promoted a learner, or refused to for this reason.
    Promoted(Option<&'a str>),
}

/// What the log tells. Texts are the host's.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The downgrade that was asked for does not fit the members' versions.
    CannotDowngrade {
        /// The version wanted.
        target: Version,
        /// The cluster's.
        now: Version,
    },
    /// Every member runs the version of the downgrade.
    Downgraded(Version),
    /// Hashes are about to be compared before clients are served.
    InitialCheckBegan,
    /// A peer's data differs, or is of another compaction.
    HashDiffers {
        /// In what the data differs.
        how: HashDiffers,
        /// The peer.
        peer: MemberId,
        /// This member's hash.
        own: &'a PeerHash,
        /// The peer's.
        theirs: &'a PeerHash,
    },
    /// A peer told no hash before clients are served.
    NoHash {
        /// The peer.
        peer: MemberId,
        /// What the peer said, or why nothing came of it.
        why: &'a crate::peers::PeerError,
    },
    /// The comparison before serving found nothing.
    InitialCheckPassed,
    /// This member's own hash changed at one revision.
    OwnHashChanged(Revision),
    /// The comparison of the newest state ended.
    PeriodicCheckEnded {
        /// Peers that answered.
        peers: usize,
    },
    /// The comparison of compaction hashes ended.
    CompactionCheckEnded {
        /// Hashes that were looked at.
        hashes: usize,
    },
    /// The hash of a compaction was compared with others'.
    CompactionHash(CompactionHash<'a>),
}

/// What came of comparing the hash of one compaction.
#[derive(Clone, Copy, Debug)]
pub enum CompactionHash<'a> {
    /// A peer's was not comparable.
    Skipped {
        /// The peer.
        peer: MemberId,
        /// Peers asked.
        peers: usize,
    },
    /// All members share it.
    Shared {
        /// This member's.
        own: &'a PeerHash,
        /// Peers compared.
        peers: usize,
    },
    /// Some members have another one.
    Differs {
        /// This member's.
        own: &'a PeerHash,
        /// Theirs.
        hash: u32,
        /// Who they are.
        peers: &'a [MemberId],
        /// Whether most members agree on another one.
        has_majority: bool,
    },
}

/// In what way two members' hashes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashDiffers {
    /// Before serving: the hashes of one compaction.
    Initial,
    /// Before serving: the compactions, which is no fault.
    InitialCompaction,
    /// The peer is ahead of its leader.
    Revision,
    /// The peer's compaction is ahead of its leader's.
    Compaction,
    /// The hashes of one compaction.
    Hash,
}
