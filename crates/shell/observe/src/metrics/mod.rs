//! Metrics under etcd's names.
//!
//! Three sources: what is counted as it happens ([`Metrics`], here), calls by method ([`Calls`]),
//! and what the member knows, read from its View and raft status when somebody asks ([`scrape`]).
//! Names, labels, types and buckets are etcd's as of 3.7.3; COMPAT.md says which are missing. As in
//! etcd, a family with labels appears when one of its label sets is first used.

mod calls;
mod peers;
pub mod scrape;

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use machine::CommandKind;
use machine::command::COMMANDS;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

pub use calls::Calls;
pub use peers::PeerMetrics;
pub use prometheus::IntCounter;
pub use scrape::{Scrape, render};

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
    /// Traffic between members.
    pub peers: PeerMetrics,
    /// Snapshots of other members that are being installed.
    pub snapshot_installing: IntGauge,
    healthcheck: IntGaugeVec,
    healthchecks: IntCounterVec,
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

/// Makes families and registers them; names and buckets are constants, so nothing fails.
struct Maker(Registry);

const CONSTANT: &str = "names, labels and buckets are well-formed constants";

impl Maker {
    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
    ) -> C {
        let collector = made.expect(CONSTANT);
        self.0.register(Box::new(collector.clone())).expect(CONSTANT);
        collector
    }

    fn histogram(&self, name: &str, help: &str, (start, count): (f64, usize)) -> Histogram {
        let buckets = exponential_buckets(start, 2.0, count).expect(CONSTANT);
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        (start, count): (f64, usize),
        labels: &[&str],
    ) -> HistogramVec {
        let buckets = exponential_buckets(start, 2.0, count).expect(CONSTANT);
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }
}

/// Buckets that begin at a millisecond, by number.
const FROM_1_MS: (f64, usize) = (0.001, 14);

impl Default for Metrics {
    fn default() -> Self {
        let m = Maker(Registry::new());
        let cells = || std::array::from_fn(|_| [OnceLock::new(), OnceLock::new()]);
        let requests = m.histograms(
            "etcd_server_request_duration_seconds",
            "Time from a request's arrival to its outcome.",
            FROM_1_MS,
            &["type", "success"],
        );
        let apply = m.histograms(
            "etcd_server_apply_duration_seconds",
            "Time of applying an entry; entries applied in one turn share its time evenly.",
            (0.0001, 20),
            &["version", "op", "success"],
        );
        Self {
            calls: Calls::default(),
            wal_fsync: m.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Flushes of the log.",
                FROM_1_MS,
            ),
            wal_write: m.histogram(
                "etcd_disk_wal_write_duration_seconds",
                "Writes to the log.",
                FROM_1_MS,
            ),
            wal_bytes: m.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log."),
            snap_fsync: m.histogram(
                "etcd_snap_fsync_duration_seconds",
                "Flushes of .snap files.",
                FROM_1_MS,
            ),
            backend_commit: m.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Commits of the backend.",
                FROM_1_MS,
            ),
            defrag: m.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Defragmentations of the backend.",
                (0.1, 13),
            ),
            defrag_inflight: m
                .gauge("etcd_disk_defrag_inflight", "Whether a defragmentation runs."),
            snapshot: m.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Snapshots sent to clients.",
                (0.01, 17),
            ),
            hash: m.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Hashes of the whole backend.",
                (0.01, 15),
            ),
            hash_rev: m.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Hashes of keys and values at a revision.",
                (0.01, 15),
            ),
            lease_granted: m.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            lease_revoked: m.counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
            lease_renewed: m.counter("etcd_debugging_lease_renewed_total", "Leases renewed."),
            lease_ttl: m.histogram(
                "etcd_debugging_lease_ttl_total",
                "Times to live of granted leases, in seconds.",
                (1.0, 24),
            ),
            watch_streams: m.gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams."),
            watchers: m.gauge("etcd_debugging_mvcc_watcher_total", "Watchers."),
            slow_watchers: m
                .gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that read history."),
            events: m.counter("etcd_debugging_mvcc_events_total", "Events sent to watchers."),
            ranges: IntCounter::new("ranges", "added to those within transactions")
                .expect(CONSTANT),
            last_compaction: m.gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "When the last compaction was asked for, in seconds since 1970.",
            ),
            health_success: m.counter("etcd_server_health_success", "Good answers of /health."),
            health_failures: m.counter("etcd_server_health_failures", "Bad answers of /health."),
            peers: PeerMetrics::new(&m),
            snapshot_installing: m.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "Whether a snapshot of another member is being installed.",
            ),
            healthcheck: m.gauges(
                "etcd_server_healthcheck",
                "Last outcome of each health check.",
                &["type", "name"],
            ),
            healthchecks: m.counters(
                "etcd_server_healthchecks_total",
                "Outcomes of health checks.",
                &["type", "name", "status"],
            ),
            client_requests: m.counters(
                "etcd_server_client_requests_total",
                "Calls by the version that the client states.",
                &["type", "client_api_version"],
            ),
            client_versions: Mutex::default(),
            apply: ByKind { family: apply, before: &["v3"], cells: cells() },
            request: ByKind { family: requests.clone(), before: &[], cells: cells() },
            reads: Reads {
                requests,
                range: Default::default(),
                txn: Default::default(),
                from_view: m.histograms(
                    "etcd_server_range_duration_seconds",
                    "Time of answering a range from the state.",
                    (0.0001, 20),
                    &["success"],
                ),
                ranged: Default::default(),
            },
            registry: m.0,
        }
    }
}

impl Metrics {
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
