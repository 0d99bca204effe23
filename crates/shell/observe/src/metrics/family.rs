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
    /// Counts by size, with these upper bounds.
    HistogramAt(&'static [f64]),
    /// Values that given shares of all stay below.
    Summary,
}

use Type::{Counter, Gauge, Histogram, HistogramAt, Summary};

impl Type {
    /// As the exposition names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
            Histogram(_) | HistogramAt(_) => "histogram",
            Summary => "summary",
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

/// Bounds of the durations of calls, in seconds: the defaults of Prometheus.
const CALL_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

families! {
    ClusterVersion = Gauge "etcd_cluster_version" ["cluster_version"]
        "Which version is running. 1 for 'cluster_version' label with current cluster version";
    AuthRevision = Gauge "etcd_debugging_auth_revision" []
        "The current revision of auth store.";
    BackendRebalance = Histogram(FROM_1_MS)
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds" []
        "The latency distributions of commit.rebalance called by bboltdb backend.";
    BackendSpill = Histogram(FROM_1_MS)
        "etcd_debugging_disk_backend_commit_spill_duration_seconds" []
        "The latency distributions of commit.spill called by bboltdb backend.";
    BackendWrite = Histogram(FROM_1_MS)
        "etcd_debugging_disk_backend_commit_write_duration_seconds" []
        "The latency distributions of commit.write called by bboltdb backend.";
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
    CompactionPause = Histogram(Buckets { from: 1.0, count: 13 })
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" []
        "Bucketed histogram of db compaction pause duration.";
    CompactionTotal = Histogram(Buckets { from: 100.0, count: 14 })
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds" []
        "Bucketed histogram of db compaction total duration.";
    Events = Counter "etcd_debugging_mvcc_events_total" []
        "Total number of events sent by this member.";
    IndexCompactionPause = Histogram(Buckets { from: 0.5, count: 14 })
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds" []
        "Bucketed histogram of index compaction pause duration.";
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
    WatchControl = Histogram(FROM_1_MS)
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" []
        "The total duration in seconds of running through the send loop control stream response.";
    WatchProgress = Histogram(FROM_1_MS)
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds" []
        "The total duration in seconds of running through the progress loop control stream \
         response.";
    WatchSendPerEvent = Histogram(FROM_1_MS)
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" []
        "The average duration in seconds of running through the send loop watch stream response, \
         per event.";
    WatchSend = Histogram(FROM_1_MS)
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" []
        "The total duration in seconds of running through the send loop watch stream response all \
         events.";
    SnapMarshalling = Histogram(FROM_1_MS)
        "etcd_debugging_snap_save_marshalling_duration_seconds" []
        "The marshalling cost distributions of save called by snapshot.";
    SnapSave = Histogram(FROM_1_MS) "etcd_debugging_snap_save_total_duration_seconds" []
        "The total latency distributions of save called by snapshot.";
    StoreExpires = Counter "etcd_debugging_store_expires_total" []
        "Total number of expired keys.";
    StoreWatchRequests = Counter "etcd_debugging_store_watch_requests_total" []
        "Total number of incoming watch requests (new or reestablished).";
    StoreWatchers = Gauge "etcd_debugging_store_watchers" []
        "Count of currently active watchers.";
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
    ProxyCacheHits = Gauge "etcd_grpc_proxy_cache_hits_total" []
        "Total number of cache hits";
    ProxyCacheKeys = Gauge "etcd_grpc_proxy_cache_keys_total" []
        "Total number of keys/ranges cached";
    ProxyCacheMisses = Gauge "etcd_grpc_proxy_cache_misses_total" []
        "Total number of cache misses";
    ProxyEvents = Counter "etcd_grpc_proxy_events_coalescing_total" []
        "Total number of events coalescing";
    ProxyWatchers = Gauge "etcd_grpc_proxy_watchers_coalescing_total" []
        "Total number of current watchers coalescing";
    OpenReads = Gauge "etcd_mvcc_db_open_read_transactions" []
        "The number of currently open read transactions";
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
    StreamFailures = Counter "etcd_network_server_stream_failures_total" ["Type", "API"]
        "The total number of stream failures from the local server.";
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
    GoVersion = Gauge "etcd_server_go_version" ["server_go_version"]
        "Which Go version server is running with. 1 for 'server_go_version' label with current \
         version.";
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
    SlowApplies = Counter "etcd_server_slow_apply_total" []
        "The total number of slow apply requests (likely overloaded from slow disk).";
    SlowReadIndexes = Counter "etcd_server_slow_read_indexes_total" []
        "The total number of pending read indexes not in sync with leader's or timed out read \
         index requests.";
    SnapshotApplyInProgress = Gauge "etcd_server_snapshot_apply_in_progress_total" []
        "1 if the server is applying the incoming snapshot. 0 if none.";
    ServerVersion = Gauge "etcd_server_version" ["server_version"]
        "Which version is running. 1 for 'server_version' label with current version.";
    SnapDbFsync = Histogram(FROM_1_MS) "etcd_snap_db_fsync_duration_seconds" []
        "The latency distributions of fsyncing .snap.db file";
    SnapDbSave = Histogram(Buckets { from: 0.1, count: 10 })
        "etcd_snap_db_save_total_duration_seconds" []
        "The total latency distributions of v3 snapshot save";
    SnapFsync = Histogram(FROM_1_MS) "etcd_snap_fsync_duration_seconds" []
        "The latency distributions of fsync called by snap.";
    GoGcDuration = Summary "go_gc_duration_seconds" []
        "A summary of the wall-time pause (stop-the-world) duration in garbage collection cycles.";
    GoGcGogcPercent = Gauge "go_gc_gogc_percent" []
        "Heap size target percentage configured by the user, otherwise 100. This value is set by \
         the GOGC environment variable, and the runtime/debug.SetGCPercent function. Sourced from \
         /gc/gogc:percent.";
    GoGcGomemlimitBytes = Gauge "go_gc_gomemlimit_bytes" []
        "Go runtime memory limit configured by the user, otherwise math.MaxInt64. This value is \
         set by the GOMEMLIMIT environment variable, and the runtime/debug.SetMemoryLimit \
         function. Sourced from /gc/gomemlimit:bytes.";
    GoGoroutines = Gauge "go_goroutines" []
        "Number of goroutines that currently exist.";
    GoInfo = Gauge "go_info" ["version"]
        "Information about the Go environment.";
    GoMemstatsAllocBytes = Gauge "go_memstats_alloc_bytes" []
        "Number of bytes allocated in heap and currently in use. Equals to \
         /memory/classes/heap/objects:bytes.";
    GoMemstatsAllocBytesTotal = Counter "go_memstats_alloc_bytes_total" []
        "Total number of bytes allocated in heap until now, even if released already. Equals to \
         /gc/heap/allocs:bytes.";
    GoMemstatsBuckHashSysBytes = Gauge "go_memstats_buck_hash_sys_bytes" []
        "Number of bytes used by the profiling bucket hash table. Equals to \
         /memory/classes/profiling/buckets:bytes.";
    GoMemstatsFreesTotal = Counter "go_memstats_frees_total" []
        "Total number of heap objects frees. Equals to /gc/heap/frees:objects + \
         /gc/heap/tiny/allocs:objects.";
    GoMemstatsGcSysBytes = Gauge "go_memstats_gc_sys_bytes" []
        "Number of bytes used for garbage collection system metadata. Equals to \
         /memory/classes/metadata/other:bytes.";
    GoMemstatsHeapAllocBytes = Gauge "go_memstats_heap_alloc_bytes" []
        "Number of heap bytes allocated and currently in use, same as go_memstats_alloc_bytes. \
         Equals to /memory/classes/heap/objects:bytes.";
    GoMemstatsHeapIdleBytes = Gauge "go_memstats_heap_idle_bytes" []
        "Number of heap bytes waiting to be used. Equals to /memory/classes/heap/released:bytes + \
         /memory/classes/heap/free:bytes.";
    GoMemstatsHeapInuseBytes = Gauge "go_memstats_heap_inuse_bytes" []
        "Number of heap bytes that are in use. Equals to /memory/classes/heap/objects:bytes + \
         /memory/classes/heap/unused:bytes";
    GoMemstatsHeapObjects = Gauge "go_memstats_heap_objects" []
        "Number of currently allocated objects. Equals to /gc/heap/objects:objects.";
    GoMemstatsHeapReleasedBytes = Gauge "go_memstats_heap_released_bytes" []
        "Number of heap bytes released to OS. Equals to /memory/classes/heap/released:bytes.";
    GoMemstatsHeapSysBytes = Gauge "go_memstats_heap_sys_bytes" []
        "Number of heap bytes obtained from system. Equals to /memory/classes/heap/objects:bytes + \
         /memory/classes/heap/unused:bytes + /memory/classes/heap/released:bytes + \
         /memory/classes/heap/free:bytes.";
    GoMemstatsLastGcTimeSeconds = Gauge "go_memstats_last_gc_time_seconds" []
        "Number of seconds since 1970 of last garbage collection.";
    GoMemstatsMallocsTotal = Counter "go_memstats_mallocs_total" []
        "Total number of heap objects allocated, both live and gc-ed. Semantically a counter \
         version for go_memstats_heap_objects gauge. Equals to /gc/heap/allocs:objects + \
         /gc/heap/tiny/allocs:objects.";
    GoMemstatsMcacheInuseBytes = Gauge "go_memstats_mcache_inuse_bytes" []
        "Number of bytes in use by mcache structures. Equals to \
         /memory/classes/metadata/mcache/inuse:bytes.";
    GoMemstatsMcacheSysBytes = Gauge "go_memstats_mcache_sys_bytes" []
        "Number of bytes used for mcache structures obtained from system. Equals to \
         /memory/classes/metadata/mcache/inuse:bytes + /memory/classes/metadata/mcache/free:bytes.";
    GoMemstatsMspanInuseBytes = Gauge "go_memstats_mspan_inuse_bytes" []
        "Number of bytes in use by mspan structures. Equals to \
         /memory/classes/metadata/mspan/inuse:bytes.";
    GoMemstatsMspanSysBytes = Gauge "go_memstats_mspan_sys_bytes" []
        "Number of bytes used for mspan structures obtained from system. Equals to \
         /memory/classes/metadata/mspan/inuse:bytes + /memory/classes/metadata/mspan/free:bytes.";
    GoMemstatsNextGcBytes = Gauge "go_memstats_next_gc_bytes" []
        "Number of heap bytes when next garbage collection will take place. Equals to \
         /gc/heap/goal:bytes.";
    GoMemstatsOtherSysBytes = Gauge "go_memstats_other_sys_bytes" []
        "Number of bytes used for other system allocations. Equals to /memory/classes/other:bytes.";
    GoMemstatsStackInuseBytes = Gauge "go_memstats_stack_inuse_bytes" []
        "Number of bytes obtained from system for stack allocator in non-CGO environments. Equals \
         to /memory/classes/heap/stacks:bytes.";
    GoMemstatsStackSysBytes = Gauge "go_memstats_stack_sys_bytes" []
        "Number of bytes obtained from system for stack allocator. Equals to \
         /memory/classes/heap/stacks:bytes + /memory/classes/os-stacks:bytes.";
    GoMemstatsSysBytes = Gauge "go_memstats_sys_bytes" []
        "Number of bytes obtained from system. Equals to /memory/classes/total:byte.";
    GoSchedGomaxprocsThreads = Gauge "go_sched_gomaxprocs_threads" []
        "The current runtime.GOMAXPROCS setting, or the number of operating system threads that \
         can execute user-level Go code simultaneously. Sourced from /sched/gomaxprocs:threads.";
    GoThreads = Gauge "go_threads" []
        "Number of OS threads created.";
    CallsHandled = Counter
        "grpc_server_handled_total" ["grpc_type", "grpc_service", "grpc_method", "grpc_code"]
        "Total number of RPCs completed on the server, regardless of success or failure.";
    CallsTook = HistogramAt(&CALL_BOUNDS)
        "grpc_server_handling_seconds" ["grpc_type", "grpc_service", "grpc_method"]
        "Histogram of response latency (seconds) of gRPC that had been application-level handled \
         by the server.";
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
    ScrapesInFlight = Gauge "promhttp_metric_handler_requests_in_flight" []
        "Current number of scrapes being served.";
    Scrapes = Counter "promhttp_metric_handler_requests_total" ["code"]
        "Total number of scrapes by HTTP status code.";
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
