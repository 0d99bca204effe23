//! The values of all flags, typed: what the sources fill in and the checks read.

use std::time::Duration;

use rpc::Cors;
use types::Url;

use observe::logging::{Format, Level};

use super::deferred::{CompactionMode, Deferred, InitialCluster, RetentionLength, Zap};
use super::features::Features;
use super::table::flags;
use super::words::{ClusterState, Fallback, Hosts, LogOutputs, OrDefault, Quota, V2Deprecation};

/// The values of all flags. A field is described by its row of the table.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Configuration {
    pub config_file: String,
    pub version: bool,
    pub member: MemberFlags,
    pub storage: StorageFlags,
    pub raft: RaftFlags,
    pub listeners: ListenerFlags,
    pub clustering: ClusteringFlags,
    pub discovery: DiscoveryFlags,
    pub compaction: CompactionFlags,
    pub client_security: SecurityFlags,
    pub peer_security: SecurityFlags,
    pub security: CommonSecurityFlags,
    pub auth: AuthFlags,
    pub monitoring: MonitoringFlags,
    pub logging: LoggingFlags,
    pub tracing: TracingFlags,
    pub checks: CheckFlags,
}

impl Configuration {
    /// What holds if nothing is set.
    ///
    /// # Errors
    /// A row of the table whose default is no value of its type; a test sees that there is none.
    pub fn defaults() -> Result<Self, String> {
        let mut configuration = Self::default();
        for flag in flags() {
            let set = flag.place.set(&mut configuration, flag.default);
            set.map_err(|e| format!("the default of --{}: {e}", flag.name))?;
        }
        Ok(configuration)
    }
}

/// Who the member is and what it grants a client.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct MemberFlags {
    pub name: String,
    pub data_dir: String,
    pub wal_dir: String,
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub watch_progress_notify_interval: Duration,
    pub feature_gates: Features,
}

/// What is kept on disk, and how it is written.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct StorageFlags {
    pub max_snapshots: usize,
    pub max_wals: usize,
    pub quota: Quota,
    pub freelist_type: String,
    pub batch_interval: Duration,
    pub batch_limit: OrDefault,
    pub memory_mlock: bool,
    pub bootstrap_defrag_threshold_megabytes: usize,
    pub unsafe_no_fsync: bool,
}

/// How the log is agreed on.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct RaftFlags {
    /// In milliseconds.
    pub heartbeat_interval: usize,
    /// In milliseconds.
    pub election_timeout: usize,
    pub initial_election_tick_advance: bool,
    pub pre_vote: bool,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    pub read_timeout: Duration,
    pub write_timeout: Duration,
}

/// Where the member listens, and what holds for connections.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ListenerFlags {
    pub peer_urls: Vec<Url>,
    pub client_urls: Vec<Url>,
    pub client_http_urls: Vec<Url>,
    pub metrics_urls: Vec<Url>,
    pub reuse_port: bool,
    pub reuse_address: bool,
    pub max_concurrent_streams: u32,
    pub keepalive_min_time: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub grpc_gateway: bool,
    pub cors: Cors,
    pub host_whitelist: Hosts,
}

/// How the member finds its cluster, and what it tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ClusteringFlags {
    pub advertise_peer_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    pub initial_cluster: Deferred<InitialCluster>,
    pub state: ClusterState,
    pub token: String,
    pub strict_reconfig_check: bool,
    pub max_learners: isize,
    pub v2_deprecation: V2Deprecation,
    pub downgrade_check_time: Duration,
    pub force_new_cluster: bool,
}

/// How a cluster is found through DNS or another etcd.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct DiscoveryFlags {
    pub srv: String,
    pub srv_name: String,
    pub token: String,
    pub endpoints: Vec<String>,
    pub dial_timeout: Duration,
    pub request_timeout: Duration,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    pub insecure_transport: bool,
    pub insecure_skip_tls_verify: bool,
    pub cert: String,
    pub key: String,
    pub cacert: String,
    pub user: String,
    pub password: String,
    pub fallback: Fallback,
}

/// What of the history is dropped, and at what pace.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct CompactionFlags {
    pub mode: Deferred<CompactionMode>,
    pub retention: Deferred<RetentionLength>,
    pub batch_limit: OrDefault,
    pub sleep_interval: Duration,
}

/// TLS of one side: clients or peers.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct SecurityFlags {
    pub cert_file: String,
    pub key_file: String,
    pub client_cert_file: String,
    pub client_key_file: String,
    pub client_cert_auth: bool,
    pub trusted_ca_file: String,
    pub auto_tls: bool,
    pub crl_file: String,
    pub allowed_cn: Vec<String>,
    pub allowed_hostname: Vec<String>,
    pub skip_client_san_verification: bool,
}

/// TLS of both sides.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct CommonSecurityFlags {
    /// In years.
    pub self_signed_cert_validity: usize,
    pub cipher_suites: Vec<String>,
    pub tls_min_version: String,
    pub tls_max_version: String,
}

/// Users and their tokens.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct AuthFlags {
    pub token: String,
    pub bcrypt_cost: usize,
    /// In seconds.
    pub token_ttl: usize,
}

/// What is measured.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct MonitoringFlags {
    pub enable_pprof: bool,
    pub metrics: String,
    pub warning_apply_duration: Duration,
    pub warning_unary_request_duration: Duration,
}

/// What the log is like.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct LoggingFlags {
    pub logger: Deferred<Zap>,
    pub outputs: LogOutputs,
    pub level: Deferred<Level>,
    pub format: Deferred<Format>,
    pub enable_rotation: bool,
    pub rotation_config_json: String,
    pub audit: String,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct TracingFlags {
    pub enable: bool,
    pub address: String,
    pub service_name: String,
    pub instance_id: String,
    pub sampling_rate: isize,
}

/// When members' data is compared.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct CheckFlags {
    pub corrupt_check_time: Duration,
    pub compact_hash_check_time: Duration,
}
