//! The environment of a runtime's calls: its clocks, and where measurements and log events go.
//!
//! The server reads the machine's clocks, updates metrics and writes log lines; the simulator gives
//! the seed's time and records. What a host does with an event never changes what a call does.

use std::time::Duration;

use api::error::Status;
use api::method::{CallType, Row};
use env::{Instant, WallTime};
use machine::CommandKind;
use types::{MemberId, Revision, Version};

use crate::audit::Record;
use crate::peers::PeerHash;

/// The environment of one runtime's calls.
pub trait Host {
    /// Now on the member's monotonic clock.
    fn now(&self) -> Instant;

    /// Now on the wall clock; mixed into ids only.
    fn wall(&self) -> WallTime;

    /// Fills `out` with random bytes that nobody can guess.
    fn secret(&self, out: &mut [u8]);

    /// Takes a measurement.
    fn measure(&self, _measured: Measure<'_>) {}

    /// Takes an event for the log.
    fn log(&self, _event: Event<'_>) {}

    /// Whether records are wanted; asked once.
    fn audits(&self) -> bool {
        false
    }

    /// Takes a record for the audit log.
    fn audit(&self, _record: Record) {}
}

/// The kinds of reads that metrics tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A range.
    Range,
    /// A transaction without changes.
    Txn,
}

/// A measurement: what is counted or timed.
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
        /// The command.
        kind: CommandKind,
        /// Whether it was applied without a refusal.
        success: bool,
        /// Time from the proposal to the outcome.
        took: Duration,
    },
    /// A read was answered, its wait for an index included.
    Read {
        /// The kind of read.
        read: Read,
        /// Whether it succeeded.
        success: bool,
        /// Time from the request to the answer.
        took: Duration,
    },
    /// A range was planned, once its View was there.
    Ranged {
        /// Whether it succeeded.
        success: bool,
        /// Time of planning it.
        took: Duration,
    },
    /// This member's clock renewed a lease.
    LeaseRenewed,
    /// Change of the number of open watch streams.
    WatchStreams(i64),
    /// Change of the number of watchers.
    Watchers(i64),
    /// Change of the number of watchers that read history.
    SlowWatchers(i64),
    /// Number of events that went to watchers.
    Events(u64),
    /// Events went to watchers in one turn of their runtime.
    Watched {
        /// The number of events.
        events: u64,
        /// Time of handing them out.
        took: Duration,
    },
    /// A request within a watch stream was dealt with; how long it took.
    WatchControl(Duration),
    /// A watch stream was told its progress; how long it took.
    WatchProgress(Duration),
    /// A stream of this API broke off for what came in.
    ReceiveFailed(&'static str),
    /// A defragmentation began.
    DefragmentBegan,
    /// A defragmentation ended; how long it took.
    Defragmented(Duration),
    /// The whole backend was hashed; how long it took.
    Hashed(Duration),
    /// Keys and values were hashed; how long it took.
    HashedRevision(Duration),
    /// A snapshot was sent to a client; how long it took.
    SnapshotSent(Duration),
    /// This member, as the leader, promoted a learner, or refused to for this reason.
    Promoted(Option<&'a str>),
}

/// An event for the log. Texts and field names are the host's.
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
        /// What differs.
        how: HashDiffers,
        /// The peer.
        peer: MemberId,
        /// This member's hash.
        own: &'a PeerHash,
        /// The peer's.
        theirs: &'a PeerHash,
    },
    /// A peer's hash could not be fetched for the comparison before serving.
    NoHash {
        /// The peer.
        peer: MemberId,
        /// The peer's refusal, or why it could not be asked.
        why: &'a crate::peers::PeerError,
    },
    /// The comparison before serving found nothing.
    InitialCheckPassed,
    /// This member's own hash changed at one revision.
    OwnHashChanged(Revision),
    /// The comparison of the newest state ended.
    PeriodicCheckEnded {
        /// Number of peers that answered.
        peers: usize,
    },
    /// The comparison of compaction hashes ended.
    CompactionCheckEnded {
        /// Number of hashes compared.
        hashes: usize,
    },
    /// The hash of a compaction was compared with others'.
    CompactionHash(CompactionHash<'a>),
    /// A call was refused for who called.
    Refused {
        /// The method's row in the table.
        row: &'static Row,
        /// Who called; empty for nobody that is known.
        user: &'a str,
        /// Where the call came from; empty within a process.
        remote: &'a str,
        /// The answer.
        why: &'a Status,
    },
    /// A login was refused.
    LoginRefused {
        /// The name that was given.
        user: &'a str,
        /// Where the call came from; empty within a process.
        remote: &'a str,
        /// The answer.
        why: &'a Status,
    },
    /// A call of the Maintenance service.
    Maintenance(MaintenanceEvent<'a>),
}

/// What a call of the Maintenance service did.
#[derive(Clone, Copy, Debug)]
pub enum MaintenanceEvent<'a> {
    /// A client asked for a defragmentation.
    DefragmentRequested,
    /// It is over; why it failed, if it did.
    DefragmentEnded(Result<(), &'a str>),
    /// A database is about to be sent to a client.
    SnapshotSending {
        /// Bytes of the database.
        bytes: u64,
        /// The storage version; empty if none is stored.
        version: &'a str,
    },
    /// All of it has gone; its checksum follows.
    SnapshotChecksum {
        /// Bytes of the database.
        bytes: u64,
        /// Bytes of the checksum.
        checksum_bytes: usize,
    },
    /// Database and checksum have gone to the client.
    SnapshotSent {
        /// Bytes of the database.
        bytes: u64,
        /// Time since the first of them.
        took: Duration,
        /// The storage version; empty if none is stored.
        version: &'a str,
    },
}

/// The result of comparing the hash of one compaction.
#[derive(Clone, Copy, Debug)]
pub enum CompactionHash<'a> {
    /// A peer's was not comparable.
    Skipped {
        /// The peer.
        peer: MemberId,
        /// Number of peers asked.
        peers: usize,
    },
    /// All members share it.
    Shared {
        /// This member's.
        own: &'a PeerHash,
        /// Number of peers compared.
        peers: usize,
    },
    /// Some members have another one.
    Differs {
        /// This member's.
        own: &'a PeerHash,
        /// Their hash.
        hash: u32,
        /// The members that have it.
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
