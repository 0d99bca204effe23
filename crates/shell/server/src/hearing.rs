//! What calls measure and tell, as metrics and log lines.
//!
//! Texts and field names are etcd's. Never decides anything: a call goes on as if nobody listened.

use std::cell::RefCell;
use std::sync::Arc;

use api::method::CallType;
use calls::{CompactionHash, Event, HashDiffers, Host, MaintenanceEvent, Measure, Read, Record};
use cli::text::{show_duration, size};
use env::{Instant, WallTime};
use observe::metrics::IntCounter;
use observe::{AuditLog, Log, Metrics, log_line};
use osenv::Clock;
use types::MemberId;

use crate::refusals::Refusals;

/// Turns what calls measure and tell into metrics and log lines.
pub(crate) struct Hearing {
    member: MemberId,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    audit: Option<Arc<AuditLog>>,
    refusals: Refusals,
    /// The counters of the last client's version.
    client: RefCell<Option<(String, [IntCounter; 2])>>,
}

impl Hearing {
    pub(crate) fn new(
        member: MemberId,
        log: Arc<Log>,
        metrics: Arc<Metrics>,
        audit: Option<Arc<AuditLog>>,
    ) -> Self {
        let refusals = Refusals::default();
        Self { member, log, metrics, audit, refusals, client: RefCell::default() }
    }

    /// Counts a call by its client's version.
    fn count_client(&self, kind: CallType, version: &str) {
        let mut last = self.client.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| known != version) {
            *last = Some((version.to_owned(), self.metrics.clients(version)));
        }
        if let Some((_, counters)) = &*last {
            counters[usize::from(kind != CallType::Unary)].inc();
        }
    }

    /// Tells of a comparison of compaction hashes.
    fn log_compaction(&self, compared: CompactionHash<'_>) {
        let (log, me) = (&self.log, self.member.to_string());
        match compared {
            CompactionHash::Skipped { peer, peers } => log_line!(
                log,
                Warn,
                "Skipped peer's hash",
                "number-of-peers" = peers,
                "leader-id" = me,
                "peer-id" = peer.to_string(),
            ),
            CompactionHash::Shared { own, peers } => log_line!(
                log,
                Info,
                "successfully checked hash on whole cluster",
                "number-of-peers-checked" = peers,
                "revision" = own.revision.0,
                "compactRevision" = own.compact_revision.0,
            ),
            CompactionHash::Differs { own, hash, peers, has_majority } => {
                let ids: Vec<String> = peers.iter().map(MemberId::to_string).collect();
                log_line!(
                    log,
                    Error,
                    "Detected compaction hash mismatch",
                    "leader-id" = me,
                    "leader-revision" = own.revision.0,
                    "leader-compact-revision" = own.compact_revision.0,
                    "leader-hash" = own.hash,
                    "peer-hash" = hash,
                    "peer-ids" = ids.join(","),
                    "quorum-exist" = has_majority,
                );
            }
        }
    }

    /// Tells of a call of the Maintenance service.
    fn log_maintenance(&self, event: MaintenanceEvent<'_>) {
        let log = &self.log;
        match event {
            MaintenanceEvent::DefragmentRequested => log_line!(log, Info, "starting defragment"),
            MaintenanceEvent::DefragmentEnded(Ok(())) => {
                log_line!(log, Info, "finished defragment")
            }
            MaintenanceEvent::DefragmentEnded(Err(why)) => {
                log_line!(log, Warn, "failed to defragment", "error" = why);
            }
            MaintenanceEvent::SnapshotSending { bytes, version } => log_line!(
                log,
                Info,
                "sending database snapshot to client",
                "total-bytes" = bytes,
                "size" = size(bytes),
                "storage-version" = version,
            ),
            MaintenanceEvent::SnapshotChecksum { bytes, checksum_bytes } => log_line!(
                log,
                Info,
                "sending database sha256 checksum to client",
                "total-bytes" = bytes,
                "checksum-size" = checksum_bytes,
            ),
            MaintenanceEvent::SnapshotSent { bytes, took, version } => log_line!(
                log,
                Info,
                "successfully sent database snapshot to client",
                "total-bytes" = bytes,
                "size" = size(bytes),
                "took" = show_duration(took),
                "storage-version" = version,
            ),
        }
    }
}

impl Host for Hearing {
    fn now(&self) -> Instant {
        Clock.now()
    }

    fn wall(&self) -> WallTime {
        Clock.wall()
    }

    fn secret(&self, out: &mut [u8]) {
        osenv::secret(out);
    }

    fn measure(&self, measured: Measure<'_>) {
        use observe::metrics::Read as Known;
        let metrics = &self.metrics;
        match measured {
            Measure::Client { kind, version } => self.count_client(kind, version),
            Measure::Requested { kind, success, took } => metrics.requested(kind, success, took),
            Measure::Read { read: Read::Range, success, took } => {
                metrics.read(Known::Range, success, took);
            }
            Measure::Read { read: Read::Txn, success, took } => {
                metrics.read(Known::Txn, success, took);
            }
            Measure::Ranged { success, took } => metrics.ranged(success, took),
            Measure::LeaseRenewed => metrics.lease_renewed.inc(),
            Measure::WatchStreams(more) => metrics.watch_streams.add(more),
            Measure::Watchers(more) => metrics.watchers.add(more),
            Measure::SlowWatchers(more) => metrics.slow_watchers.add(more),
            Measure::Events(more) => metrics.events.inc_by(more),
            Measure::Watched { events, took } => metrics.timings.watched(events, took),
            Measure::WatchControl(took) => {
                metrics.timings.watch_control.observe(took.as_secs_f64());
            }
            Measure::WatchProgress(took) => {
                metrics.timings.watch_progress.observe(took.as_secs_f64());
            }
            Measure::ReceiveFailed(api) => metrics.receive_failed(api),
            Measure::DefragmentBegan => metrics.defrag_inflight.set(1),
            Measure::Defragmented(took) => {
                metrics.defrag_inflight.set(0);
                metrics.defrag.observe(took.as_secs_f64());
            }
            Measure::Hashed(took) => metrics.hash.observe(took.as_secs_f64()),
            Measure::HashedRevision(took) => metrics.hash_rev.observe(took.as_secs_f64()),
            Measure::SnapshotSent(took) => metrics.snapshot.observe(took.as_secs_f64()),
            Measure::Promoted(failed) => metrics.peers.promoted(failed),
        }
    }

    fn audits(&self) -> bool {
        self.audit.is_some()
    }

    fn audit(&self, record: Record) {
        if let Some(audit) = &self.audit {
            audit.push(record);
        }
    }

    fn log(&self, event: Event<'_>) {
        let (log, me) = (&self.log, self.member.to_string());
        match event {
            Event::CannotDowngrade { target, now } => log_line!(
                log,
                Error,
                "Cannot downgrade from cluster-version to downgrade-target",
                "downgrade-target" = target.to_string(),
                "cluster-version" = now.to_string(),
            ),
            Event::Downgraded(version) => log_line!(
                log,
                Info,
                "the cluster has been downgraded",
                "cluster-version" = version.to_string()
            ),
            Event::InitialCheckBegan => {
                log_line!(log, Info, "starting initial corruption check", "local-member-id" = me)
            }
            Event::HashDiffers { how, peer, own, theirs } => log_line!(
                log,
                Warn,
                differs(how),
                "local-member-id" = me,
                "local-member-revision" = own.hash_revision.0,
                "local-member-compact-revision" = own.compact_revision.0,
                "local-member-hash" = own.hash,
                "remote-peer-id" = peer.to_string(),
                "remote-peer-revision" = theirs.hash_revision.0,
                "remote-peer-compact-revision" = theirs.compact_revision.0,
                "remote-peer-hash" = theirs.hash,
            ),
            Event::NoHash { peer, why } => log_line!(
                log,
                Warn,
                "cannot fetch hash from remote peer",
                "remote-peer-id" = peer.to_string(),
                "error" = format!("{why:?}"),
            ),
            Event::InitialCheckPassed => log_line!(
                log,
                Info,
                "initial corruption checking passed; no corruption",
                "local-member-id" = me
            ),
            Event::OwnHashChanged(revision) => {
                log_line!(log, Warn, "found hash mismatch", "revision" = revision.0);
            }
            Event::PeriodicCheckEnded { peers } => log_line!(
                log,
                Info,
                "finished peer corruption check",
                "number-of-peers-checked" = peers
            ),
            Event::CompactionCheckEnded { hashes } => log_line!(
                log,
                Info,
                "finished compaction hash check",
                "number-of-hashes-checked" = hashes
            ),
            Event::CompactionHash(compared) => self.log_compaction(compared),
            Event::Refused { row, user, remote, why } => {
                self.refusals.refused(log, row, (user, remote), why);
            }
            Event::LoginRefused { user, remote, why } => {
                self.refusals.login(log, (user, remote), why);
            }
            Event::Maintenance(event) => self.log_maintenance(event),
        }
    }
}

fn differs(how: HashDiffers) -> &'static str {
    match how {
        HashDiffers::Initial => "found different hash values from remote peer",
        HashDiffers::InitialCompaction => {
            "found different compact revision values from remote peer"
        }
        HashDiffers::Revision => "revision from follower must be less than or equal to leader's",
        HashDiffers::Compaction => {
            "compact revision from follower must be less than or equal to leader's"
        }
        HashDiffers::Hash => "same compact revision then hashes must match",
    }
}
