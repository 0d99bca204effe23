//! What a member is, keeps and grants.

use super::super::flag::{Flag, Group, InFile, State, at};
use super::of;

const ROW: Flag = of(Group::Member);

const PROGRAM_ROW: Flag = of(Group::Program);

/// Rows of the part "Program".
pub(super) const PROGRAM: &[Flag] = &[
    Flag {
        name: "config-file",
        help: "A YAML file that says everything; other flags and the environment are then \
               ignored. Durations are whole nanoseconds there.",
        place: at!(config_file),
        file: InFile::Nowhere,
        ..PROGRAM_ROW
    },
    Flag {
        name: "version",
        default: "false",
        help: "Print the version and end.",
        place: at!(version),
        file: InFile::Nowhere,
        ..PROGRAM_ROW
    },
];

/// Rows of the part "Member".
pub(super) const MEMBER: &[Flag] = &[
    Flag {
        name: "name",
        default: "default",
        help: "What people call this member; it must be one of the names in --initial-cluster.",
        place: at!(member.name),
        ..ROW
    },
    Flag {
        name: "data-dir",
        help: "Directory of everything the member stores; <name>.etcd if empty.",
        place: at!(member.data_dir),
        ..ROW
    },
    Flag {
        name: "wal-dir",
        help: "Directory of the write-ahead log, for a disk of its own; \
               <data-dir>/member/wal if empty.",
        place: at!(member.wal_dir),
        ..ROW
    },
    Flag {
        name: "snapshot-count",
        default: "10000",
        help: "Applied entries after which the next snapshot is written and the log cut.",
        place: at!(raft.snapshot_count),
        ..ROW
    },
    Flag {
        name: "heartbeat-interval",
        default: "100",
        help: "Milliseconds between two heartbeats of a leader.",
        place: at!(raft.heartbeat_interval),
        ..ROW
    },
    Flag {
        name: "election-timeout",
        default: "1000",
        help: "Milliseconds without a leader after which a member asks for votes: at least five \
               heartbeats, at most 50000.",
        place: at!(raft.election_timeout),
        ..ROW
    },
    Flag {
        name: "initial-election-tick-advance",
        default: "true",
        help: "Let a member that starts wait for only part of its first election timeout.",
        place: at!(raft.initial_election_tick_advance),
        ..ROW
    },
    Flag {
        name: "listen-peer-urls",
        default: "http://localhost:2380",
        help: "Where other members reach this one; hosts are IP addresses or localhost.",
        place: at!(listeners.peer_urls),
        ..ROW
    },
    Flag {
        name: "listen-client-urls",
        default: "http://localhost:2379",
        help: "Where clients are served, gRPC and HTTP on the same port.",
        place: at!(listeners.client_urls),
        ..ROW
    },
    Flag {
        name: "listen-client-http-urls",
        help: "Where clients are served HTTP alone, which --listen-client-urls then no longer does.",
        place: at!(listeners.client_http_urls),
        ..ROW
    },
    Flag {
        name: "max-snapshots",
        default: "5",
        help: "Snapshot files that are kept; 0 keeps all. Deprecated since 3.6.",
        place: at!(storage.max_snapshots),
        state: State::Deprecated(
            "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
        ),
        ..ROW
    },
    Flag {
        name: "max-wals",
        default: "5",
        help: "Files of the write-ahead log that are kept; 0 keeps all.",
        place: at!(storage.max_wals),
        ..ROW
    },
    Flag {
        name: "memory-mlock",
        default: "false",
        help: "Lock the database's pages in memory.",
        place: at!(storage.memory_mlock),
        state: State::Later,
        ..ROW
    },
    Flag {
        name: "quota-backend-bytes",
        default: "0",
        help: "Bytes that the database may have before it takes no more writes: 0 is 2 GiB, a \
               negative number is no limit.",
        place: at!(storage.quota),
        ..ROW
    },
    Flag {
        name: "backend-bbolt-freelist-type",
        help: "Taken for the sake of old settings; any form of the free list reads the same file.",
        place: at!(storage.freelist_type),
        ..ROW
    },
    Flag {
        name: "backend-batch-interval",
        default: "0",
        help: "Longest time that writes wait for a commit of the database; 0 is 100ms.",
        place: at!(storage.batch_interval),
        ..ROW
    },
    Flag {
        name: "backend-batch-limit",
        default: "0",
        help: "Most writes that wait for a commit of the database; 0 is 10000.",
        place: at!(storage.batch_limit),
        ..ROW
    },
    Flag {
        name: "max-txn-ops",
        default: "128",
        help: "Operations that a transaction may have.",
        place: at!(member.max_txn_ops),
        ..ROW
    },
    Flag {
        name: "max-request-bytes",
        default: "1572864",
        help: "Bytes that a client's request may have.",
        place: at!(member.max_request_bytes),
        ..ROW
    },
    Flag {
        name: "max-concurrent-streams",
        default: "4294967295",
        help: "Calls that a connection may have open at a time.",
        place: at!(listeners.max_concurrent_streams),
        ..ROW
    },
    Flag {
        name: "grpc-keepalive-min-time",
        default: "5s",
        help: "Shortest time between two pings of a client; who pings more often is cut off.",
        place: at!(listeners.keepalive_min_time),
        ..ROW
    },
    Flag {
        name: "grpc-keepalive-interval",
        default: "2h",
        help: "Silence after which the server pings a client; 0 is never.",
        place: at!(listeners.keepalive_interval),
        ..ROW
    },
    Flag {
        name: "grpc-keepalive-timeout",
        default: "20s",
        help: "How long such a ping may go unanswered before the connection is closed.",
        place: at!(listeners.keepalive_timeout),
        ..ROW
    },
    Flag {
        name: "socket-reuse-port",
        default: "false",
        help: "Listen with SO_REUSEPORT, so that several processes may share a port.",
        place: at!(listeners.reuse_port),
        file: InFile::At("socket-options.reuse-port"),
        ..ROW
    },
    Flag {
        name: "socket-reuse-address",
        default: "false",
        help: "Listen with SO_REUSEADDR, also while old connections of the address linger.",
        place: at!(listeners.reuse_address),
        file: InFile::At("socket-options.reuse-address"),
        ..ROW
    },
    Flag {
        name: "enable-grpc-gateway",
        default: "true",
        help: "Serve the gRPC API as JSON over HTTP, too.",
        place: at!(listeners.grpc_gateway),
        ..ROW
    },
    Flag {
        name: "raft-read-timeout",
        default: "5s",
        help: "How long a connection of a peer may say nothing before it is closed.",
        place: at!(raft.read_timeout),
        file: InFile::Nowhere,
        ..ROW
    },
    Flag {
        name: "raft-write-timeout",
        default: "5s",
        help: "How long a peer may take to accept what is written to it.",
        place: at!(raft.write_timeout),
        file: InFile::Nowhere,
        ..ROW
    },
    Flag {
        name: "feature-gates",
        help: "Features that are switched on or off, as Name=true,Name=false. Their names, stages \
               and defaults:",
        place: at!(member.feature_gates),
        ..ROW
    },
];
