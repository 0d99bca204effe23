//! Metrics under etcd's names.
//!
//! [`FAMILIES`] lists what there is. Samples have four sources: what is counted as it happens
//! ([`Metrics`], here), calls by method ([`Calls`]), what the member knows, read from its View and
//! raft status when somebody asks ([`scrape`]), and what the kernel knows of the process. As in
//! etcd, a family with labels appears when one of its label sets is first used.

mod calls;
mod elsewhere;
mod family;
mod negotiation;
mod peers;
mod process;
pub mod scrape;
mod text;
mod timings;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use machine::CommandKind;
use machine::command::COMMANDS;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

pub use calls::{Calls, Detail};
pub use family::{Buckets, FAMILIES, Family, Row, Type};
pub use peers::PeerMetrics;
pub use prometheus::IntCounter;
pub use scrape::{Exposition, Scrape, render};
pub use timings::Timings;
pub(crate) use timings::millis;

/// Versions of clients that are told apart; the label comes from the client, and more are counted
/// as `unknown`.
const MAX_CLIENT_VERSIONS: usize = 100;

/// A histogram per kind of command and outcome, looked up once each.
#[derive(Debug)]
struct ByKind {
    family: HistogramVec,
    /// Labels before the kind.
    before: &'static [&'static str],
    cells: [[OnceLock<Histogram>; 2]; COMMANDS.len()],
}

impl ByKind {
    fn observe(&self, kind: CommandKind, success: bool, took: Duration) {
        let cell = &self.cells[kind as usize][usize::from(success)];
        let histogram = cell.get_or_init(|| {
            let mut labels = self.before.to_vec();
            labels.extend([kind.row().name, truth(success)]);
            self.family.with_label_values(&labels)
        });
        histogram.observe(took.as_secs_f64());
    }
}

fn truth(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

/// What is counted and measured as it happens. Shared by all threads; nothing here waits.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls by method.
    pub calls: Calls,
    /// Flushes of the log.
    pub wal_fsync: Histogram,
    /// Writes to the log.
    pub wal_write: Histogram,
    /// Bytes written to the log.
    pub wal_bytes: IntGauge,
    /// Flushes of `.snap` files.
    pub snap_fsync: Histogram,
    /// Commits of the backend.
    pub backend_commit: Histogram,
    /// Defragmentations.
    pub defrag: Histogram,
    /// 1 while a defragmentation runs.
    pub defrag_inflight: IntGauge,
    /// Snapshots streamed to clients.
    pub snapshot: Histogram,
    /// Hashes of the whole backend.
    pub hash: Histogram,
    /// Hashes of keys and values.
    pub hash_rev: Histogram,
    /// Leases granted.
    pub lease_granted: IntCounter,
    /// Leases revoked, by clients or when they expired.
    pub lease_revoked: IntCounter,
    /// Keep-alives answered by this member's lease clock.
    pub lease_renewed: IntCounter,
    /// Times to live granted, in seconds.
    pub lease_ttl: Histogram,
    /// Open watch streams.
    pub watch_streams: IntGauge,
    /// Watchers.
    pub watchers: IntGauge,
    /// Watchers that read history.
    pub slow_watchers: IntGauge,
    /// Events sent to watchers.
    pub events: IntCounter,
    /// Ranges answered from Views.
    pub ranges: IntCounter,
    /// When the last compaction was asked for, in seconds since 1970.
    pub last_compaction: IntGauge,
    /// `/health` answers that were good.
    pub health_success: IntCounter,
    /// `/health` answers that were bad.
    pub health_failures: IntCounter,
    /// Applications that took longer than `--warning-apply-duration`.
    pub slow_applies: IntCounter,
    /// Durations of what goes on beside the requests.
    pub timings: Timings,
    /// Traffic between members.
    pub peers: PeerMetrics,
    /// Snapshots of other members that are being installed.
    pub snapshot_installing: IntGauge,
    healthcheck: IntGaugeVec,
    healthchecks: IntCounterVec,
    stream_failures: IntCounterVec,
    scrapes: AtomicU64,
    client_requests: IntCounterVec,
    client_versions: Mutex<BTreeSet<String>>,
    apply: ByKind,
    request: ByKind,
    reads: Reads,
}

/// Histograms of reads, looked up once each; the second of a pair is for successes.
#[derive(Debug)]
struct Reads {
    requests: HistogramVec,
    range: [OnceLock<Histogram>; 2],
    txn: [OnceLock<Histogram>; 2],
    from_view: HistogramVec,
    ranged: [OnceLock<Histogram>; 2],
}

/// Reads that do not go through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A range.
    Range,
    /// A transaction without writes.
    Txn,
}

/// Makes collectors of families and registers them; rows are constants, so nothing fails.
struct Maker(Registry);

const CONSTANT: &str = "rows of the table are well-formed and each is made once";

impl Maker {
    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
    ) -> C {
        let collector = made.expect(CONSTANT);
        self.0.register(Box::new(collector.clone())).expect(CONSTANT);
        collector
    }

    fn histogram(&self, family: Family) -> Histogram {
        self.add(Histogram::with_opts(histogram_opts(family)))
    }

    fn histograms(&self, family: Family) -> HistogramVec {
        self.add(HistogramVec::new(histogram_opts(family), family.row().labels))
    }

    fn counter(&self, family: Family) -> IntCounter {
        self.add(IntCounter::with_opts(opts(family, Type::Counter)))
    }

    fn counters(&self, family: Family) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(family, Type::Counter), family.row().labels))
    }

    fn gauge(&self, family: Family) -> IntGauge {
        self.add(IntGauge::with_opts(opts(family, Type::Gauge)))
    }

    fn gauges(&self, family: Family) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(family, Type::Gauge), family.row().labels))
    }
}

fn opts(family: Family, kind: Type) -> Opts {
    let row = family.row();
    assert_eq!(row.kind, kind, "{} is counted as what its row says", row.name);
    Opts::new(row.name, row.help)
}

fn histogram_opts(family: Family) -> HistogramOpts {
    let row = family.row();
    let buckets = match row.kind {
        Type::Histogram(Buckets { from, count }) => {
            exponential_buckets(from, 2.0, count).expect(CONSTANT)
        }
        Type::HistogramAt(bounds) => bounds.to_vec(),
        Type::Counter | Type::Gauge | Type::Summary => panic!("{} is no histogram", row.name),
    };
    HistogramOpts::new(row.name, row.help).buckets(buckets)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Detail::Basic)
    }
}

impl Metrics {
    /// Nothing counted yet; calls are timed if `detail` says so.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        let m = Maker(Registry::new());
        let cells = || std::array::from_fn(|_| [OnceLock::new(), OnceLock::new()]);
        let requests = m.histograms(Family::RequestDuration);
        // Entries that are applied in one turn share its time evenly.
        let apply = m.histograms(Family::ApplyDuration);
        Self {
            calls: Calls::new(detail, &m),
            wal_fsync: m.histogram(Family::WalFsync),
            wal_write: m.histogram(Family::WalWrite),
            wal_bytes: m.gauge(Family::WalWriteBytes),
            snap_fsync: m.histogram(Family::SnapFsync),
            backend_commit: m.histogram(Family::BackendCommit),
            defrag: m.histogram(Family::BackendDefrag),
            defrag_inflight: m.gauge(Family::DefragInflight),
            snapshot: m.histogram(Family::BackendSnapshot),
            hash: m.histogram(Family::Hash),
            hash_rev: m.histogram(Family::HashRev),
            lease_granted: m.counter(Family::LeaseGranted),
            lease_revoked: m.counter(Family::LeaseRevoked),
            lease_renewed: m.counter(Family::LeaseRenewed),
            lease_ttl: m.histogram(Family::LeaseTtl),
            watch_streams: m.gauge(Family::WatchStreams),
            watchers: m.gauge(Family::Watchers),
            slow_watchers: m.gauge(Family::SlowWatchers),
            events: m.counter(Family::Events),
            // Not registered: what is shown adds those within transactions.
            ranges: IntCounter::with_opts(opts(Family::Ranges, Type::Counter)).expect(CONSTANT),
            last_compaction: m.gauge(Family::LastCompaction),
            health_success: m.counter(Family::HealthSuccess),
            health_failures: m.counter(Family::HealthFailures),
            slow_applies: m.counter(Family::SlowApplies),
            timings: Timings::new(&m),
            peers: PeerMetrics::new(&m),
            snapshot_installing: m.gauge(Family::SnapshotApplyInProgress),
            healthcheck: m.gauges(Family::Healthcheck),
            healthchecks: m.counters(Family::Healthchecks),
            stream_failures: m.counters(Family::StreamFailures),
            scrapes: AtomicU64::new(0),
            client_requests: m.counters(Family::ClientRequests),
            client_versions: Mutex::default(),
            apply: ByKind { family: apply, before: &["v3"], cells: cells() },
            request: ByKind { family: requests.clone(), before: &[], cells: cells() },
            reads: Reads {
                requests,
                range: Default::default(),
                txn: Default::default(),
                from_view: m.histograms(Family::RangeDuration),
                ranged: Default::default(),
            },
            registry: m.0,
        }
    }

    /// Notes that entries of these kinds were applied in one turn.
    pub fn applied(&self, entries: &[(CommandKind, bool)], took: Duration) {
        let Ok(count) = u32::try_from(entries.len()) else { return };
        for (kind, success) in entries {
            self.apply.observe(*kind, *success, took / count.max(1));
        }
    }

    /// Notes how long a request took that went through the log.
    pub fn requested(&self, kind: CommandKind, success: bool, took: Duration) {
        self.request.observe(kind, success, took);
    }

    /// Notes how long a read took, its wait for an index included.
    pub fn read(&self, read: Read, success: bool, took: Duration) {
        let (cells, name) = match read {
            Read::Range => (&self.reads.range, "Range"),
            Read::Txn => (&self.reads.txn, "ReadonlyTxn"),
        };
        let cell = &cells[usize::from(success)];
        let family = &self.reads.requests;
        let histogram = cell.get_or_init(|| family.with_label_values(&[name, truth(success)]));
        histogram.observe(took.as_secs_f64());
    }

    /// Notes how long a range took once its View was there.
    pub fn ranged(&self, success: bool, took: Duration) {
        self.ranges.inc();
        let cell = &self.reads.ranged[usize::from(success)];
        let family = &self.reads.from_view;
        let histogram = cell.get_or_init(|| family.with_label_values(&[truth(success)]));
        histogram.observe(took.as_secs_f64());
    }

    /// Notes a check of `/livez` or `/readyz`.
    pub fn checked(&self, kind: &str, name: &str, success: bool) {
        self.healthcheck.with_label_values(&[kind, name]).set(success.into());
        let status = if success { "success" } else { "error" };
        self.healthchecks.with_label_values(&[kind, name, status]).inc();
    }

    /// Notes that a stream of this API (`watch`, `lease-keepalive`) broke off for what came in.
    pub fn receive_failed(&self, api: &str) {
        self.stream_failures.with_label_values(&["receive", api]).inc();
    }

    /// The counters of unary calls and streams of clients of this version.
    pub fn clients(&self, version: &str) -> [IntCounter; 2] {
        let mut known = self.client_versions.lock().expect("no code panics while it holds this");
        let version = if known.contains(version) {
            version
        } else if known.len() < MAX_CLIENT_VERSIONS {
            known.insert(version.to_owned());
            version
        } else {
            "unknown"
        };
        ["unary", "stream"].map(|kind| self.client_requests.with_label_values(&[kind, version]))
    }
}
