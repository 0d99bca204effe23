//! What a running member shows, checks, and may be told at one's own risk.

use super::super::flag::{Flag, Group, InFile, State, at};
use super::of;

const MONITORING_ROW: Flag = of(Group::Monitoring);

/// Rows of the part "Profiling and Monitoring".
pub(super) const MONITORING: &[Flag] = &[
    Flag {
        name: "enable-pprof",
        default: "false",
        help: "Serve profiles at /debug/pprof/ of the client URLs.",
        place: at!(monitoring.enable_pprof),
        state: State::Later,
        ..MONITORING_ROW
    },
    Flag {
        name: "metrics",
        default: "basic",
        help: "How much is measured; extensive adds histograms of calls.",
        place: at!(monitoring.metrics),
        ..MONITORING_ROW
    },
    Flag {
        name: "listen-metrics-urls",
        help: "Where /metrics and /health are served apart from clients.",
        place: at!(listeners.metrics_urls),
        ..MONITORING_ROW
    },
];

const LOGGING_ROW: Flag = of(Group::Logging);

/// Rows of the part "Logging".
pub(super) const LOGGING: &[Flag] = &[
    Flag {
        name: "logger",
        default: "zap",
        help: "The form of the log's lines is that of zap; nothing else is taken.",
        place: at!(logging.logger),
        ..LOGGING_ROW
    },
    Flag {
        name: "log-outputs",
        default: "default",
        help: "Where lines go: stderr, stdout, systemd/journal, or files; default is stderr.",
        place: at!(logging.outputs),
        ..LOGGING_ROW
    },
    Flag {
        name: "log-level",
        default: "info",
        help: "Least level of the lines that are written: debug, info, warn, error, panic, fatal.",
        place: at!(logging.level),
        ..LOGGING_ROW
    },
    Flag {
        name: "log-format",
        default: "json",
        help: "How a line looks: json, or console for people.",
        place: at!(logging.format),
        ..LOGGING_ROW
    },
    Flag {
        name: "enable-log-rotation",
        default: "false",
        help: "Begin a new log file when the old one is full or old.",
        place: at!(logging.enable_rotation),
        state: State::Later,
        ..LOGGING_ROW
    },
    Flag {
        name: "log-rotation-config-json",
        default: "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \
                  \"compress\": false}",
        help: "When a log file is full (MB) or old (days), how many are kept (0 keeps all), and \
               whether they are named by local time and compressed.",
        place: at!(logging.rotation_config_json),
        state: State::Later,
        ..LOGGING_ROW
    },
    Flag {
        name: "audit-log",
        help: "File to which a line of JSON is appended for each change that a client asks for, \
               and for each call that is refused for who calls; empty is none. Quorate's own.",
        place: at!(logging.audit),
        ..LOGGING_ROW
    },
    Flag {
        name: "warning-unary-request-duration",
        default: "300ms",
        help: "Time after which a call is slow and the log says so.",
        place: at!(monitoring.warning_unary_request_duration),
        ..LOGGING_ROW
    },
];

const TRACING_ROW: Flag = of(Group::Tracing);

/// Rows of the part "Distributed tracing".
pub(super) const TRACING: &[Flag] = &[
    Flag {
        name: "enable-distributed-tracing",
        default: "false",
        help: "Send traces of calls to a collector.",
        place: at!(tracing.enable),
        state: State::Later,
        ..TRACING_ROW
    },
    Flag {
        name: "distributed-tracing-address",
        default: "localhost:4317",
        help: "Address of the collector.",
        place: at!(tracing.address),
        state: State::Later,
        ..TRACING_ROW
    },
    Flag {
        name: "distributed-tracing-service-name",
        default: "etcd",
        help: "What the service is called in traces; the same for all members.",
        place: at!(tracing.service_name),
        state: State::Later,
        ..TRACING_ROW
    },
    Flag {
        name: "distributed-tracing-instance-id",
        help: "What this member is called in traces; another for each.",
        place: at!(tracing.instance_id),
        state: State::Later,
        ..TRACING_ROW
    },
    Flag {
        name: "distributed-tracing-sampling-rate",
        default: "0",
        help: "How many of a million spans are sent.",
        place: at!(tracing.sampling_rate),
        state: State::Later,
        ..TRACING_ROW
    },
];

const FEATURE_ROW: Flag = of(Group::Features);

/// Rows of the part "Features".
pub(super) const FEATURES: &[Flag] = &[
    Flag {
        name: "corrupt-check-time",
        default: "0s",
        help: "Time between two comparisons of the members' data; 0 is never.",
        place: at!(checks.corrupt_check_time),
        ..FEATURE_ROW
    },
    Flag {
        name: "compact-hash-check-time",
        default: "1m",
        help: "Time between two comparisons of hashes at compactions, with the gate \
               CompactHashCheck.",
        place: at!(checks.compact_hash_check_time),
        ..FEATURE_ROW
    },
    Flag {
        name: "compaction-batch-limit",
        default: "0",
        help: "Revisions that a compaction drops at a time; 0 is 1000.",
        place: at!(compaction.batch_limit),
        ..FEATURE_ROW
    },
    Flag {
        name: "peer-skip-client-san-verification",
        default: "false",
        help: "Do not compare a peer's address with its certificate.",
        place: at!(peer_security.skip_client_san_verification),
        file: InFile::At("peer-transport-security.skip-client-san-verification"),
        ..FEATURE_ROW
    },
    Flag {
        name: "watch-progress-notify-interval",
        default: "0",
        help: "Silence after which a watcher that asked for it is told how far it is; 0 is 10m.",
        place: at!(member.watch_progress_notify_interval),
        ..FEATURE_ROW
    },
    Flag {
        name: "warning-apply-duration",
        default: "100ms",
        help: "Time after which applying an entry is slow and the log says so.",
        place: at!(monitoring.warning_apply_duration),
        ..FEATURE_ROW
    },
    Flag {
        name: "bootstrap-defrag-threshold-megabytes",
        default: "0",
        help: "Megabytes that a defragmentation must free to be done at the start; 0 is never.",
        place: at!(storage.bootstrap_defrag_threshold_megabytes),
        state: State::Later,
        ..FEATURE_ROW
    },
    Flag {
        name: "max-learners",
        default: "1",
        help: "Learners that the cluster may have.",
        place: at!(clustering.max_learners),
        ..FEATURE_ROW
    },
    Flag {
        name: "compaction-sleep-interval",
        default: "0",
        help: "Pause between two batches of a compaction; 0 is 10ms.",
        place: at!(compaction.sleep_interval),
        ..FEATURE_ROW
    },
    Flag {
        name: "downgrade-check-time",
        default: "5s",
        help: "Time between two looks at whether a downgrade is finished; 0 is never.",
        place: at!(clustering.downgrade_check_time),
        ..FEATURE_ROW
    },
    Flag {
        name: "snapshot-catchup-entries",
        default: "5000",
        help: "Entries of the log kept behind a snapshot for members that are late.",
        place: at!(raft.snapshot_catchup_entries),
        ..FEATURE_ROW
    },
];

const UNSAFE_ROW: Flag = of(Group::Unsafe);

/// Rows of the part "Unsafe feature".
pub(super) const UNSAFE: &[Flag] = &[
    Flag {
        name: "force-new-cluster",
        default: "false",
        help: "Make this member the only one of its cluster, with the data it has.",
        place: at!(clustering.force_new_cluster),
        ..UNSAFE_ROW
    },
    Flag {
        name: "unsafe-no-fsync",
        default: "false",
        help: "Do not wait for the disk: a crash loses data.",
        place: at!(storage.unsafe_no_fsync),
        ..UNSAFE_ROW
    },
];
