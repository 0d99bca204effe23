//! What the member knows, shown when somebody asks.

use api::etcdserverpb::AlarmType;
use member::{MemberView, NodeStatus};
use prometheus::core::Collector;
use prometheus::{Encoder, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use store::RangeQuery;
use types::MemberId;

use super::Metrics;

/// What a scrape shows besides the metrics that are counted as they happen.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// The newest View.
    pub view: &'a MemberView,
    /// The newest state of raft.
    pub status: NodeStatus,
    /// This member.
    pub member: MemberId,
    /// The effective quota in bytes, negative for none.
    pub quota_bytes: i64,
    /// What was counted.
    pub metrics: &'a Metrics,
    /// Feature gates: name, stage, and whether it is open.
    pub features: &'a [(&'static str, &'static str, bool)],
}

fn add(registry: &Registry, collector: impl Collector + 'static) -> Result<(), prometheus::Error> {
    registry.register(Box::new(collector))
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The text exposition.
///
/// # Errors
/// The library's, which none of these names and labels gives rise to.
pub fn render(scrape: &Scrape<'_>) -> Result<Vec<u8>, prometheus::Error> {
    let registry = Registry::new();
    gauges(&registry, scrape)?;
    counters(&registry, scrape)?;
    labelled(&registry, scrape)?;
    scrape.metrics.calls.register(&registry)?;
    add(&registry, prometheus::process_collector::ProcessCollector::for_self())?;
    let mut families = registry.gather();
    // The library's own; Go's has none.
    families.retain(|family| family.name() != "process_threads");
    families.extend(scrape.metrics.registry.gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut out = Vec::new();
    TextEncoder::new().encode(&families, &mut out)?;
    Ok(out)
}

fn gauges(registry: &Registry, scrape: &Scrape<'_>) -> Result<(), prometheus::Error> {
    let (view, status) = (scrape.view, scrape.status);
    let backend = view.store.backend();
    let every = RangeQuery { key: b"\0", range_end: b"\0", ..RangeQuery::default() };
    let keys = view.store.count(&every).unwrap_or_default();
    let is_learner = view.members.get(scrape.member).is_some_and(|m| m.is_learner);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64);
    let all = [
        ("etcd_server_has_leader", "Whether a leader is known.", status.leader.is_some().into()),
        ("etcd_server_is_leader", "Whether this member leads.", status.is_leader.into()),
        ("etcd_server_is_learner", "Whether this member is a learner.", is_learner.into()),
        (
            "etcd_server_proposals_committed_total",
            "The last committed entry.",
            int(status.commit.0),
        ),
        (
            "etcd_server_proposals_applied_total",
            "The last applied entry.",
            int(view.store.applied_index().0),
        ),
        (
            "etcd_server_proposals_pending",
            "Proposals that wait for their outcome.",
            int(status.pending),
        ),
        ("etcd_server_quota_backend_bytes", "The backend's quota.", scrape.quota_bytes),
        (
            "etcd_mvcc_db_total_size_in_bytes",
            "The backend's size.",
            int(backend.map_or(0, bolt::ReadTx::size_bytes)),
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "The backend's pages in use.",
            int(backend.map_or(0, bolt::ReadTx::size_in_use_bytes)),
        ),
        ("etcd_debugging_mvcc_current_revision", "The current revision.", view.store.revision().0),
        (
            "etcd_debugging_mvcc_compact_revision",
            "The last compaction's revision.",
            view.store.compact_revision().0,
        ),
        ("etcd_debugging_mvcc_keys_total", "Keys.", int(keys)),
        ("etcd_debugging_mvcc_pending_events_total", "Events in queues: there are none.", 0),
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "Bytes of keys and values put.",
            int(view.counts.put_bytes),
        ),
        ("os_fd_limit", "File descriptors allowed.", limit.map_or(i64::MAX, int)),
        ("os_fd_used", "File descriptors open.", int(used)),
    ];
    for (name, help, value) in all {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value);
        add(registry, gauge)?;
    }
    Ok(())
}

fn counters(registry: &Registry, scrape: &Scrape<'_>) -> Result<(), prometheus::Error> {
    let (status, counts) = (scrape.status, scrape.view.counts);
    let (received, sent) = scrape.metrics.calls.bytes();
    let all = [
        (
            "etcd_server_leader_changes_seen_total",
            "Times the leader changed.",
            status.leader_changes,
        ),
        (
            "etcd_server_proposals_failed_total",
            "Proposals that timed out.",
            status.proposals_failed,
        ),
        (
            "etcd_server_heartbeat_send_failures_total",
            "Heartbeats of this leader that were late.",
            status.late_heartbeats,
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "Linearizable reads without an index.",
            status.reads_failed,
        ),
        (
            "etcd_debugging_server_lease_expired_total",
            "Leases found expired.",
            status.leases_expired,
        ),
        (
            "etcd_mvcc_range_total",
            "Ranges.",
            counts.ranges.saturating_add(scrape.metrics.ranges.get()),
        ),
        ("etcd_mvcc_put_total", "Puts.", counts.puts),
        ("etcd_mvcc_delete_total", "Deletes.", counts.deletes),
        ("etcd_mvcc_txn_total", "Transactions of several operations.", counts.txns),
        (
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "Dead versions that compactions removed.",
            counts.compacted,
        ),
        (
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes of messages from clients.",
            received,
        ),
        ("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages to clients.", sent),
    ];
    for (name, help, value) in all {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        add(registry, counter)?;
    }
    Ok(())
}

fn labelled(registry: &Registry, scrape: &Scrape<'_>) -> Result<(), prometheus::Error> {
    let family = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
    let member = scrape.member.to_string();
    let id = family("etcd_server_id", "This member.", &["server_id"])?;
    id.with_label_values(&[&member]).set(1);
    add(registry, id)?;
    let version = family("etcd_server_version", "The version.", &["server_version"])?;
    version.with_label_values(&[types::SERVER_VERSION]).set(1);
    add(registry, version)?;
    let features =
        family("etcd_server_feature_enabled", "Whether a feature is enabled.", &["name", "stage"])?;
    for (name, stage, enabled) in scrape.features {
        features.with_label_values(&[*name, *stage]).set((*enabled).into());
    }
    add(registry, features)?;
    if let Some(version) = &scrape.view.members.cluster_version {
        let short = version.rsplit_once('.').map_or(&version[..], |(short, _)| short);
        let cluster = family("etcd_cluster_version", "The cluster version.", &["cluster_version"])?;
        cluster.with_label_values(&[short]).set(1);
        add(registry, cluster)?;
    }
    let alarms = scrape.view.alarms.list(AlarmType::None as i32);
    if !alarms.is_empty() {
        let labels = ["server_id", "alarm_type"];
        let set = family("etcd_debugging_server_alarms", "Alarms that are set.", &labels)?;
        for alarm in alarms {
            let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |a| a.as_str_name());
            let member = MemberId(alarm.member_id).to_string();
            set.with_label_values(&[&member[..], name]).set(1);
        }
        add(registry, set)?;
    }
    Ok(())
}
