//! The table of metric families: what a scraper sees of each, apart from its samples.
//!
//! A new family is one row here and one place that counts: nothing else spells out a name. Names,
//! types, help texts, labels and buckets are etcd's, because dashboards and alerts were made for
//! them; COMPAT.md says which families of etcd are missing.

/// Bounds of a histogram's buckets: each twice the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buckets {
    /// The first upper bound.
    pub from: f64,
    /// Buckets, without the one up to infinity.
    pub count: usize,
}

/// The type of a family's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// A number that only grows.
    Counter,
    /// A number.
    Gauge,
    /// Counts by size.
    Histogram(Buckets),
}

use Type::{Counter, Gauge, Histogram};

impl Type {
    /// As the exposition names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
            Histogram(_) => "histogram",
        }
    }
}

/// One family.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name in code.
    pub family: Family,
    /// Its name on the wire.
    pub name: &'static str,
    /// The type of its samples.
    pub kind: Type,
    /// etcd's help text.
    pub help: &'static str,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($family:ident = $kind:ident $(($buckets:expr))? $name:literal [$($label:literal),*]
        $help:literal;)*) => {
        /// A metric family, named by what it counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Family { $($family),* }

        /// All families, in the order of their names, which is that of the exposition.
        pub const FAMILIES: &[Row] = &[$(Row {
            family: Family::$family,
            name: $name,
            kind: $kind $(($buckets))?,
            help: $help,
            labels: &[$($label),*],
        }),*];
    };
}

/// Buckets from a millisecond to eight seconds, those of most durations.
const FROM_1_MS: Buckets = Buckets { from: 0.001, count: 14 };

families! {
    ClusterVersion = Gauge "etcd_cluster_version" ["cluster_version"]
        "Which version is running. 1 for 'cluster_version' label with current cluster version";
    AuthRevision = Gauge "etcd_debugging_auth_revision" []
        "The current revision of auth store.";
    LeaseGranted = Counter "etcd_debugging_lease_granted_total" []
        "The total number of granted leases.";
    LeaseRenewed = Counter "etcd_debugging_lease_renewed_total" []
        "The number of renewed leases seen by the leader.";
    LeaseRevoked = Counter "etcd_debugging_lease_revoked_total" []
        "The total number of revoked leases.";
    LeaseTtl = Histogram(Buckets { from: 1.0, count: 24 }) "etcd_debugging_lease_ttl_total" []
        "Bucketed histogram of lease TTLs.";
    CompactRevision = Gauge "etcd_debugging_mvcc_compact_revision" []
        "The revision of the last compaction in store.";
    CurrentRevision = Gauge "etcd_debugging_mvcc_current_revision" []
        "The current revision of store.";
    CompactedKeys = Counter "etcd_debugging_mvcc_db_compaction_keys_total" []
        "Total number of db keys compacted.";
    LastCompaction = Gauge "etcd_debugging_mvcc_db_compaction_last" []
        "The unix time of the last db compaction. Resets to 0 on start.";
    Events = Counter "etcd_debugging_mvcc_events_total" []
        "Total number of events sent by this member.";
    Keys = Gauge "etcd_debugging_mvcc_keys_total" []
        "Total number of keys.";
    PendingEvents = Gauge "etcd_debugging_mvcc_pending_events_total" []
        "Total number of pending events to be sent.";
    SlowWatchers = Gauge "etcd_debugging_mvcc_slow_watcher_total" []
        "Total number of unsynced slow watchers.";
    TotalPutSize = Gauge "etcd_debugging_mvcc_total_put_size_in_bytes" []
        "The total size of put kv pairs seen by this member.";
    WatchStreams = Gauge "etcd_debugging_mvcc_watch_stream_total" []
        "Total number of watch streams.";
    Watchers = Gauge "etcd_debugging_mvcc_watcher_total" []
        "Total number of watchers.";
    Alarms = Gauge "etcd_debugging_server_alarms" ["server_id", "alarm_type"]
        "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for \
         'alarm_type' label with type of this alarm";
    LeaseExpired = Counter "etcd_debugging_server_lease_expired_total" []
        "The total number of expired leases.";
    BackendCommit = Histogram(FROM_1_MS) "etcd_disk_backend_commit_duration_seconds" []
        "The latency distributions of commit called by backend.";
    BackendDefrag = Histogram(Buckets { from: 0.1, count: 13 })
        "etcd_disk_backend_defrag_duration_seconds" []
        "The latency distribution of backend defragmentation.";
    BackendSnapshot = Histogram(Buckets { from: 0.01, count: 17 })
        "etcd_disk_backend_snapshot_duration_seconds" []
        "The latency distribution of backend snapshots.";
    DefragInflight = Gauge "etcd_disk_defrag_inflight" []
        "Whether or not defrag is active on the member. 1 means active, 0 means not.";
    WalFsync = Histogram(FROM_1_MS) "etcd_disk_wal_fsync_duration_seconds" []
        "The latency distributions of fsync called by WAL.";
    WalWriteBytes = Gauge "etcd_disk_wal_write_bytes_total" []
        "Total number of bytes written in WAL.";
    WalWrite = Histogram(FROM_1_MS) "etcd_disk_wal_write_duration_seconds" []
        "The latency distributions of write called by WAL.";
    DbSize = Gauge "etcd_mvcc_db_total_size_in_bytes" []
        "Total size of the underlying database physically allocated in bytes.";
    DbSizeInUse = Gauge "etcd_mvcc_db_total_size_in_use_in_bytes" []
        "Total size of the underlying database logically in use in bytes.";
    Deletes = Counter "etcd_mvcc_delete_total" []
        "Total number of deletes seen by this member.";
    Hash = Histogram(Buckets { from: 0.01, count: 15 }) "etcd_mvcc_hash_duration_seconds" []
        "The latency distribution of storage hash operation.";
    HashRev = Histogram(Buckets { from: 0.01, count: 15 }) "etcd_mvcc_hash_rev_duration_seconds" []
        "The latency distribution of storage hash by revision operation.";
    Puts = Counter "etcd_mvcc_put_total" []
        "Total number of puts seen by this member.";
    Ranges = Counter "etcd_mvcc_range_total" []
        "Total number of ranges seen by this member.";
    Txns = Counter "etcd_mvcc_txn_total" []
        "Total number of txns seen by this member.";
    ActivePeers = Gauge "etcd_network_active_peers" ["Local", "Remote"]
        "The current number of active peer connections.";
    ClientReceivedBytes = Counter "etcd_network_client_grpc_received_bytes_total" []
        "The total number of bytes received from grpc clients.";
    ClientSentBytes = Counter "etcd_network_client_grpc_sent_bytes_total" []
        "The total number of bytes sent to grpc clients.";
    DisconnectedPeers = Counter "etcd_network_disconnected_peers_total" ["Local", "Remote"]
        "The total number of disconnected peers.";
    KnownPeers = Gauge "etcd_network_known_peers" ["Local", "Remote"]
        "The current number of known peers.";
    PeerReceivedBytes = Counter "etcd_network_peer_received_bytes_total" ["From"]
        "The total number of bytes received from peers.";
    PeerReceivedFailures = Counter "etcd_network_peer_received_failures_total" ["From"]
        "The total number of receive failures from peers.";
    PeerRoundTrip = Histogram(Buckets { from: 0.0001, count: 16 })
        "etcd_network_peer_round_trip_time_seconds" ["To"]
        "Round-Trip-Time histogram between peers";
    PeerSentBytes = Counter "etcd_network_peer_sent_bytes_total" ["To"]
        "The total number of bytes sent to peers.";
    PeerSentFailures = Counter "etcd_network_peer_sent_failures_total" ["To"]
        "The total number of send failures from peers.";
    SnapshotReceiveFailures = Counter "etcd_network_snapshot_receive_failures" ["From"]
        "Total number of snapshot receive failures";
    SnapshotReceiveInflights = Gauge "etcd_network_snapshot_receive_inflights_total" ["From"]
        "Total number of inflight snapshot receives";
    SnapshotReceiveSuccess = Counter "etcd_network_snapshot_receive_success" ["From"]
        "Total number of successful snapshot receives";
    SnapshotReceiveDuration = Histogram(Buckets { from: 0.1, count: 10 })
        "etcd_network_snapshot_receive_total_duration_seconds" ["From"]
        "Total latency distributions of v3 snapshot receives";
    SnapshotSendFailures = Counter "etcd_network_snapshot_send_failures" ["To"]
        "Total number of snapshot send failures";
    SnapshotSendInflights = Gauge "etcd_network_snapshot_send_inflights_total" ["To"]
        "Total number of inflight snapshot sends";
    SnapshotSendSuccess = Counter "etcd_network_snapshot_send_success" ["To"]
        "Total number of successful snapshot sends";
    SnapshotSendDuration = Histogram(Buckets { from: 0.1, count: 10 })
        "etcd_network_snapshot_send_total_duration_seconds" ["To"]
        "Total latency distributions of v3 snapshot sends";
    ApplyDuration = Histogram(Buckets { from: 0.0001, count: 20 })
        "etcd_server_apply_duration_seconds" ["version", "op", "success"]
        "The latency distributions of v2 apply called by backend.";
    ClientRequests = Counter "etcd_server_client_requests_total" ["type", "client_api_version"]
        "The total number of client requests per client version.";
    FeatureEnabled = Gauge "etcd_server_feature_enabled" ["name", "stage"]
        "Whether or not a feature is enabled. 1 is enabled, 0 is not.";
    HasLeader = Gauge "etcd_server_has_leader" []
        "Whether or not a leader exists. 1 is existence, 0 is not.";
    HealthFailures = Counter "etcd_server_health_failures" []
        "The total number of failed health checks";
    HealthSuccess = Counter "etcd_server_health_success" []
        "The total number of successful health checks";
    Healthcheck = Gauge "etcd_server_healthcheck" ["type", "name"]
        "The result of each kind of healthcheck.";
    Healthchecks = Counter "etcd_server_healthchecks_total" ["type", "name", "status"]
        "The total number of each kind of healthcheck.";
    HeartbeatSendFailures = Counter "etcd_server_heartbeat_send_failures_total" []
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).";
    ServerId = Gauge "etcd_server_id" ["server_id"]
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.";
    IsLeader = Gauge "etcd_server_is_leader" []
        "Whether or not this member is a leader. 1 if is, 0 otherwise.";
    IsLearner = Gauge "etcd_server_is_learner" []
        "Whether or not this member is a learner. 1 if is, 0 otherwise.";
    LeaderChanges = Counter "etcd_server_leader_changes_seen_total" []
        "The number of leader changes seen.";
    LearnerPromoteFailures = Counter "etcd_server_learner_promote_failures" ["Reason"]
        "The total number of failed learner promotions (likely learner not ready) while this \
         member is leader.";
    LearnerPromoteSuccesses = Counter "etcd_server_learner_promote_successes" []
        "The total number of successful learner promotions while this member is leader.";
    ProposalsApplied = Gauge "etcd_server_proposals_applied_total" []
        "The total number of consensus proposals applied.";
    ProposalsCommitted = Gauge "etcd_server_proposals_committed_total" []
        "The total number of consensus proposals committed.";
    ProposalsFailed = Counter "etcd_server_proposals_failed_total" []
        "The total number of failed proposals seen.";
    ProposalsPending = Gauge "etcd_server_proposals_pending" []
        "The current number of pending proposals to commit.";
    QuotaBytes = Gauge "etcd_server_quota_backend_bytes" []
        "Current backend storage quota size in bytes.";
    RangeDuration = Histogram(Buckets { from: 0.0001, count: 20 })
        "etcd_server_range_duration_seconds" ["success"]
        "The latency distributions of txn.Range";
    ReadIndexesFailed = Counter "etcd_server_read_indexes_failed_total" []
        "The total number of failed read indexes seen.";
    RequestDuration = Histogram(FROM_1_MS)
        "etcd_server_request_duration_seconds" ["type", "success"]
        "Response latency distribution in seconds for each type.";
    SnapshotApplyInProgress = Gauge "etcd_server_snapshot_apply_in_progress_total" []
        "1 if the server is applying the incoming snapshot. 0 if none.";
    ServerVersion = Gauge "etcd_server_version" ["server_version"]
        "Which version is running. 1 for 'server_version' label with current version.";
    SnapFsync = Histogram(FROM_1_MS) "etcd_snap_fsync_duration_seconds" []
        "The latency distributions of fsync called by snap.";
    CallsHandled = Counter
        "grpc_server_handled_total" ["grpc_type", "grpc_service", "grpc_method", "grpc_code"]
        "Total number of RPCs completed on the server, regardless of success or failure.";
    CallsReceived = Counter
        "grpc_server_msg_received_total" ["grpc_type", "grpc_service", "grpc_method"]
        "Total number of RPC stream messages received on the server.";
    CallsSent = Counter "grpc_server_msg_sent_total" ["grpc_type", "grpc_service", "grpc_method"]
        "Total number of gRPC stream messages sent by the server.";
    CallsStarted = Counter "grpc_server_started_total" ["grpc_type", "grpc_service", "grpc_method"]
        "Total number of RPCs started on the server.";
    FdLimit = Gauge "os_fd_limit" []
        "The file descriptor limit.";
    FdUsed = Gauge "os_fd_used" []
        "The number of used file descriptors.";
    ProcessCpu = Counter "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    ProcessMaxFds = Gauge "process_max_fds" []
        "Maximum number of open file descriptors.";
    ProcessNetworkReceived = Counter "process_network_receive_bytes_total" []
        "Number of bytes received by the process over the network.";
    ProcessNetworkSent = Counter "process_network_transmit_bytes_total" []
        "Number of bytes sent by the process over the network.";
    ProcessOpenFds = Gauge "process_open_fds" []
        "Number of open file descriptors.";
    ProcessResidentMemory = Gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    ProcessStartTime = Gauge "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    ProcessVirtualMemory = Gauge "process_virtual_memory_bytes" []
        "Virtual memory size in bytes.";
    ProcessVirtualMemoryMax = Gauge "process_virtual_memory_max_bytes" []
        "Maximum amount of virtual memory available in bytes.";
}

impl Family {
    /// What scrapers see of it.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &FAMILIES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_familys_place_in_the_order_of_names() {
        for (place, row) in FAMILIES.iter().enumerate() {
            assert_eq!(row.family as usize, place, "{}", row.name);
        }
        assert!(FAMILIES.is_sorted_by(|a, b| a.name < b.name));
    }
}
