//! What a member is run with: the configuration after parsing and checking.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use env::Failpoints;
use member::{CommitPolicy, CompactionPace, Retention};
use net::{Address, Reuse};
use observe::metrics::Detail;
use rpc::{Cors, Settings};
use tls::TlsInfo;

use crate::config::features::Features;
use crate::config::words::{ClusterState, Hosts, Quota};
use crate::threads::Keep;
use calls::corruption::Checks;

/// What a member is run with: the configuration after parsing and checking.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, or `<data-dir>/member/wal`.
    pub wal_dir: PathBuf,
    /// `--listen-client-urls`.
    pub client_urls: Vec<Listen>,
    /// `--listen-client-http-urls`.
    pub client_http_urls: Vec<Listen>,
    /// `--listen-metrics-urls`.
    pub metrics_urls: Vec<Listen>,
    /// `--listen-peer-urls`.
    pub peer_urls: Vec<Listen>,
    /// With what clients are served over TLS.
    pub client_tls: TlsInfo,
    /// With what peers are served over TLS, and reached.
    pub peer_tls: TlsInfo,
    /// Which certificates the member makes.
    pub self_made: SelfMade,
    /// `--host-whitelist`.
    pub hosts: Hosts,
    /// `--initial-advertise-peer-urls`.
    pub advertise_peer_urls: Vec<String>,
    /// Where connections to peers leave from, if they must.
    pub local_address: Option<IpAddr>,
    /// `--raft-read-timeout`, `--raft-write-timeout`.
    pub raft_timeouts: RaftTimeouts,
    /// `--initial-cluster-state`.
    pub state: ClusterState,
    /// `--strict-reconfig-check`.
    pub strict_reconfig: bool,
    /// `--downgrade-check-time`; 0 is never.
    pub downgrade_check: Duration,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<String>,
    /// `--initial-cluster`: names with their peer URLs.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// `--discovery-srv`: the domain whose SRV records name the founding members instead.
    pub srv: Option<SrvDomain>,
    /// `--discovery-endpoints` and what belongs to them: the registry of founding members.
    pub discovery: Option<discovery::registry::Service>,
    /// `--initial-cluster-token`, or `--discovery-token`.
    pub initial_cluster_token: String,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election: Duration,
    /// `--initial-election-tick-advance`.
    pub election_tick_advance: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub catchup_entries: u64,
    /// `--max-wals`, `--max-snapshots`.
    pub keep: Keep,
    /// `--backend-batch-interval`, `--backend-batch-limit`.
    pub commit: CommitPolicy,
    /// `--auto-compaction-mode`, `--auto-compaction-retention`; `None` is off.
    pub auto_compaction: Option<Retention>,
    /// `--compaction-batch-limit`, `--compaction-sleep-interval`.
    pub compaction: CompactionPace,
    /// `--quota-backend-bytes`.
    pub quota: Quota,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--watch-progress-notify-interval`.
    pub watch_progress: Duration,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--unsafe-no-fsync`.
    pub unsafe_no_fsync: bool,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `--socket-reuse-port`, `--socket-reuse-address`.
    pub reuse: Reuse,
    /// Which members' data is compared, and when.
    pub checks: Checks,
    /// What is told of long leases.
    pub lease_checkpoints: LeaseCheckpoints,
    /// `--feature-gates`.
    pub features: Features,
    /// `--warning-apply-duration`.
    pub slow_apply: Duration,
    /// `--metrics`.
    pub metrics: Detail,
    /// `--audit-log`: where changes and refused calls are told of.
    pub audit_log: Option<PathBuf>,
    /// How long a long list keeps the state it began with.
    pub list_pin: Duration,
    /// Limits and times of client connections.
    pub connections: Settings,
    /// How users log in.
    pub auth: AuthOptions,
    /// `--cors`.
    pub cors: Cors,
    /// `--enable-grpc-gateway`.
    pub gateway: bool,
    /// Threads that serve clients; 0 for one per core.
    pub runtimes: usize,
    /// What tests from outside make fail; off unless `GOFAIL_…` is set.
    pub failpoints: Failpoints,
}

/// How users log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOptions {
    /// `--auth-token`.
    pub token: String,
    /// `--auth-token-ttl`.
    pub token_ttl: Duration,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// `--client-cert-auth`.
    pub client_cert_auth: bool,
}

impl Default for AuthOptions {
    fn default() -> Self {
        let token_ttl = Duration::from_secs(300);
        Self { token: "simple".to_owned(), token_ttl, bcrypt_cost: 10, client_cert_auth: false }
    }
}

/// A URL to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The URL, as it was given.
    pub url: String,
    /// Its host and port.
    pub host: String,
    /// What it stands for.
    pub address: Address,
    /// Whether it is one for TLS.
    pub is_secure: bool,
}

impl Listen {
    /// An address without TLS.
    #[must_use]
    pub fn plain(address: Address) -> Self {
        let host = match &address {
            Address::Tcp(tcp) => tcp.to_string(),
            Address::Unix(path) => path.display().to_string(),
        };
        let scheme = if matches!(address, Address::Tcp(_)) { "http" } else { "unix" };
        Self { url: format!("{scheme}://{host}"), host, address, is_secure: false }
    }
}

/// Which certificates the member makes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfMade {
    /// `--auto-tls`.
    pub client: bool,
    /// `--peer-auto-tls`.
    pub peer: bool,
    /// `--self-signed-cert-validity`.
    pub years: u32,
}

/// How long a connection of a peer may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTimeouts {
    /// `--raft-read-timeout`.
    pub read: Duration,
    /// `--raft-write-timeout`.
    pub write: Duration,
}

/// What is told of the time that long leases have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCheckpoints {
    /// Whether a leader tells it (gate `LeaseCheckpoint`).
    pub replicated: bool,
    /// Whether it is stored whatever the cluster's version (gate `LeaseCheckpointPersist`).
    pub persisted: bool,
}

/// Where DNS is asked for founding members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvDomain {
    /// `--discovery-srv`.
    pub domain: String,
    /// `--discovery-srv-name`.
    pub service: String,
}

/// No files, and every version that is safe.
fn tls_info() -> TlsInfo {
    TlsInfo { min_version: "TLS1.2".to_owned(), ..TlsInfo::default() }
}

impl Default for Options {
    /// etcd's defaults: one member named `default` on 127.0.0.1:2379.
    fn default() -> Self {
        use types::limits as l;
        Self {
            name: "default".to_owned(),
            data_dir: PathBuf::from("default.etcd"),
            wal_dir: PathBuf::from("default.etcd/member/wal"),
            client_urls: vec![Listen::plain(Address::Tcp(([127, 0, 0, 1], 2379).into()))],
            client_http_urls: Vec::new(),
            metrics_urls: Vec::new(),
            peer_urls: vec![Listen::plain(Address::Tcp(([127, 0, 0, 1], 2380).into()))],
            client_tls: tls_info(),
            peer_tls: tls_info(),
            self_made: SelfMade { client: false, peer: false, years: 1 },
            hosts: Hosts(vec!["*".to_owned()]),
            advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
            local_address: None,
            raft_timeouts: RaftTimeouts {
                read: Duration::from_millis(l::RAFT_TIMEOUT_MS),
                write: Duration::from_millis(l::RAFT_TIMEOUT_MS),
            },
            state: ClusterState::New,
            strict_reconfig: true,
            downgrade_check: Duration::from_secs(5),
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            initial_cluster: vec![("default".to_owned(), vec!["http://localhost:2380".to_owned()])],
            srv: None,
            discovery: None,
            initial_cluster_token: "etcd-cluster".to_owned(),
            heartbeat: Duration::from_millis(l::HEARTBEAT_MS),
            election: Duration::from_millis(l::ELECTION_MS),
            election_tick_advance: true,
            pre_vote: true,
            snapshot_count: l::SNAPSHOT_COUNT,
            catchup_entries: l::SNAPSHOT_CATCHUP_ENTRIES,
            keep: Keep { wals: l::MAX_WALS, snapshots: l::MAX_SNAPSHOTS },
            commit: CommitPolicy {
                interval: Duration::from_millis(l::BACKEND_BATCH_INTERVAL_MS),
                operations: l::BACKEND_BATCH_OPS,
            },
            auto_compaction: None,
            compaction: CompactionPace::default(),
            quota: Quota::Default,
            max_request_bytes: l::MAX_REQUEST_BYTES as usize,
            max_txn_ops: l::MAX_TXN_OPS,
            watch_progress: Duration::from_millis(l::WATCH_PROGRESS_MS),
            max_learners: 1,
            unsafe_no_fsync: false,
            force_new_cluster: false,
            reuse: Reuse::default(),
            checks: Checks { initial: false, periodic: Duration::ZERO, compaction: Duration::ZERO },
            lease_checkpoints: LeaseCheckpoints::default(),
            features: Features::default(),
            metrics: Detail::Basic,
            slow_apply: Duration::from_millis(l::SLOW_APPLY_MS),
            audit_log: None,
            list_pin: Duration::from_millis(l::LIST_PIN_MS),
            connections: Settings::default(),
            auth: AuthOptions::default(),
            cors: Cors::default(),
            gateway: true,
            runtimes: 0,
            failpoints: Failpoints::default(),
        }
    }
}
