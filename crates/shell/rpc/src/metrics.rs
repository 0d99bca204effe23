//! Metrics under etcd's names.
//!
//! Counters of calls are kept here, per runtime and without a lock; what the member knows is read
//! from its View and raft status when somebody asks. Names, labels and types are etcd's
//! as of 3.7.1; COMPAT.md says which are missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use api::error::Code;
use api::method::{METHODS, Method};
use member::{MemberView, NodeStatus};
use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use types::MemberId;

const CODES: usize = Code::ALL.len();

/// Counts of finished calls by method and code. Shared by all runtimes; each addition is one
/// relaxed atomic.
#[derive(Debug)]
pub struct Calls(Vec<[AtomicU64; CODES]>);

impl Default for Calls {
    fn default() -> Self {
        Self(METHODS.iter().map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect())
    }
}

impl Calls {
    /// Counts a call that ended with `code`.
    pub fn finished(&self, method: Method, code: Code) {
        self.0[method as usize][code as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What a scrape shows besides the calls.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// The newest View.
    pub view: &'a MemberView,
    /// The newest state of raft.
    pub status: NodeStatus,
    /// This member.
    pub member: MemberId,
    /// The effective quota in bytes, 0 for none.
    pub quota_bytes: u64,
    /// Finished calls.
    pub calls: &'a Calls,
}

/// The text exposition.
///
/// # Errors
/// The library's, which none of these names and labels gives rise to.
pub fn render(scrape: &Scrape<'_>) -> Result<Vec<u8>, prometheus::Error> {
    let registry = Registry::new();
    let (view, status) = (scrape.view, scrape.status);
    let backend = view.store.backend();
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let gauges: BTreeMap<&str, (&str, i64)> = [
        ("etcd_server_has_leader", ("Whether a leader is known.", status.leader.is_some().into())),
        ("etcd_server_is_leader", ("Whether this member leads.", status.is_leader.into())),
        (
            "etcd_server_proposals_committed_total",
            ("The last committed entry.", int(status.commit.0)),
        ),
        ("etcd_server_proposals_applied_total", ("The last applied entry.", int(status.applied.0))),
        (
            "etcd_server_is_learner",
            (
                "Whether this member is a learner.",
                view.members.get(scrape.member).is_some_and(|m| m.is_learner).into(),
            ),
        ),
        ("etcd_server_quota_backend_bytes", ("The backend's quota.", int(scrape.quota_bytes))),
        (
            "etcd_mvcc_db_total_size_in_bytes",
            ("The backend's size.", int(backend.map_or(0, bolt::ReadTx::size_bytes))),
        ),
        (
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            (
                "The backend's pages in use.",
                int(backend.map_or(0, bolt::ReadTx::size_in_use_bytes)),
            ),
        ),
        (
            "etcd_debugging_mvcc_current_revision",
            ("The current revision.", view.store.revision().0),
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            ("The last compaction's revision.", view.store.compact_revision().0),
        ),
    ]
    .into_iter()
    .collect();
    for (name, (help, value)) in gauges {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))?;
    }
    let changes = prometheus::IntCounter::new(
        "etcd_server_leader_changes_seen_total",
        "Times the leader changed.",
    )?;
    changes.inc_by(status.leader_changes);
    registry.register(Box::new(changes))?;
    let member = scrape.member.to_string();
    labelled(&registry, "etcd_server_id", "This member.", "server_id", &member)?;
    let version = types::SERVER_VERSION;
    labelled(&registry, "etcd_server_version", "The version.", "server_version", version)?;
    if let Some(version) = &view.members.cluster_version {
        let short = version.rsplit_once('.').map_or(&version[..], |(short, _)| short);
        let help = "The cluster version.";
        labelled(&registry, "etcd_cluster_version", help, "cluster_version", short)?;
    }
    let handled = IntCounterVec::new(
        Opts::new("grpc_server_handled_total", "Calls that ended, by code."),
        &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
    )?;
    for row in METHODS {
        for code in Code::ALL {
            let count = scrape.calls.0[row.method as usize][code as usize].load(Ordering::Relaxed);
            let labels = [row.kind.label(), row.service, row.name, code.name()];
            handled.with_label_values(&labels).inc_by(count);
        }
    }
    registry.register(Box::new(handled))?;
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let mut out = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    Ok(out)
}

fn labelled(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    value: &str,
) -> Result<(), prometheus::Error> {
    let gauge = IntGaugeVec::new(Opts::new(name, help), &[label])?;
    gauge.with_label_values(&[value]).set(1);
    registry.register(Box::new(gauge))
}
