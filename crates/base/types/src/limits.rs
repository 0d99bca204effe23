//! Named limits and defaults (invariant 12: every queue, batch, pin and message has one).
//! Values are etcd 3.7.3's unless the comment says that they are ours.

/// Bytes of a marshalled raft request that are accepted by default (`--max-request-bytes`).
pub const MAX_REQUEST_BYTES: u64 = 1_572_864;
/// What a gRPC message may exceed the request limit by, in bytes.
pub const GRPC_OVERHEAD_BYTES: u64 = 512 * 1024;
/// Operations per level of a transaction by default (`--max-txn-ops`).
pub const MAX_TXN_OPS: usize = 128;
/// Committed but unapplied entries beyond which proposals are refused with `too many requests`.
pub const MAX_APPLY_GAP: u64 = 5_000;
/// Membership changes of other members that a leader keeps until the one before is applied. Ours:
/// clients ask for one at a time, and beyond it they run into their timeouts, as in etcd.
pub const MAX_PARKED_CONF_CHANGES: usize = 64;
/// Bytes of committed entries handed to apply at once.
pub const MAX_COMMITTED_BYTES_PER_APPLY: usize = 1024 * 1024;
/// Bytes of entries per append message (`MaxSizePerMsg`).
pub const MAX_BYTES_PER_APPEND: usize = 1024 * 1024;
/// Append messages in flight to one follower (`MaxInflightMsgs`).
pub const MAX_INFLIGHT_APPENDS: usize = 512;

/// Default size of the backend beyond which NOSPACE is raised, in bytes.
pub const DEFAULT_QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;
/// Time between backend commits, in milliseconds.
pub const BACKEND_BATCH_INTERVAL_MS: u64 = 100;
/// Backend operations that force a commit before its interval ends.
pub const BACKEND_BATCH_OPS: usize = 10_000;

/// Applied entries between snapshots on disk (`--snapshot-count`).
pub const SNAPSHOT_COUNT: u64 = 10_000;
/// Entries kept in the log behind a snapshot for slow followers (`--snapshot-catchup-entries`).
pub const SNAPSHOT_CATCHUP_ENTRIES: u64 = 5_000;
/// Applied entries between compactions of the in-memory raft log.
pub const MEMORY_COMPACTION_ENTRIES: u64 = 100;
/// Bytes of a WAL segment at which the next is begun; also its preallocated size.
pub const WAL_SEGMENT_BYTES: u64 = 64_000_000;
/// WAL segments kept by purge (`--max-wals`).
pub const MAX_WALS: u32 = 5;
/// Snapshot files kept by purge (`--max-snapshots`).
pub const MAX_SNAPSHOTS: u32 = 5;
/// Seconds between purges of WAL segments and snapshot files.
pub const PURGE_INTERVAL_SECS: u64 = 30;

/// Milliseconds per raft tick (`--heartbeat-interval`).
pub const HEARTBEAT_MS: u64 = 100;
/// Milliseconds of an election timeout (`--election-timeout`).
pub const ELECTION_MS: u64 = 1_000;
/// The part of a request's deadline that does not depend on the election timeout, milliseconds.
pub const REQUEST_TIMEOUT_BASE_MS: u64 = 5_000;
/// Milliseconds after which a stream to a peer that says or takes nothing is given up
/// (`--raft-read-timeout`, `--raft-write-timeout`).
pub const RAFT_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds between resends of an unanswered read index.
pub const READ_INDEX_RETRY_MS: u64 = 500;
/// Milliseconds a lease operation waits for apply to catch up.
pub const APPLY_WAIT_MS: u64 = 1_000;
/// Per cent of the leader's log that a learner must hold to be promoted.
pub const LEARNER_READY_PERCENT: u64 = 90;
/// Milliseconds that a removed member goes on, so that the others learn of its removal.
pub const REMOVED_LINGER_MS: u64 = 1_000;
/// Milliseconds that applying may take before it is reported.
pub const SLOW_APPLY_MS: u64 = 100;

/// Longest lease that can be granted, seconds.
pub const MAX_LEASE_TTL_SECS: i64 = 9_000_000_000;
/// Milliseconds between scans for expired leases.
pub const LEASE_SCAN_MS: u64 = 500;
/// Seconds between checkpoints of a lease that lives longer than that.
pub const LEASE_CHECKPOINT_SECS: u64 = 300;
/// Leases of which one entry tells what is left.
pub const MAX_LEASE_CHECKPOINTS: usize = 1_000;
/// Lease revokes in flight at once. Ours: etcd caps at 16 in flight and 1,000 a second.
pub const MAX_REVOKES_IN_FLIGHT: usize = 1_000;

/// Milliseconds after which the end of a lease is proposed again that was refused when applied.
//= etcd 3.7.3: server/lease/lessor.go (expiredLeaseRetryInterval)
pub const REVOKE_RETRY_MS: u64 = 3_000;
/// Tokens of users that a member keeps. Ours: etcd keeps all until they run out.
pub const MAX_TOKENS: usize = 1 << 20;

/// Revisions removed per slice of a compaction.
pub const COMPACTION_BATCH: usize = 1_000;
/// Milliseconds of rest between slices of a compaction.
pub const COMPACTION_SLEEP_MS: u64 = 10;
/// Compaction hashes kept for comparison with peers.
pub const STORED_COMPACTION_HASHES: usize = 10;

/// Milliseconds between progress notifications of an idle watch.
pub const WATCH_PROGRESS_MS: u64 = 600_000;
/// Distinct revisions per response of a watch that catches up.
pub const WATCH_BATCH_REVISIONS: usize = 1_000;

/// Bytes of the largest message that grpc-go sends.
pub const MAX_SEND_BYTES: u64 = i32::MAX as u64;
/// Seconds after which a client that takes nothing of a long list or a snapshot is given up, so
/// that what it holds of the database is let go. Ours: etcd waits for ever.
pub const READER_PROGRESS_SECS: u64 = 60;
/// Milliseconds for which a long list keeps the state it began with, so that no compaction can
/// remove what it still needs. Ours: etcd has the whole list in memory.
pub const LIST_PIN_MS: u64 = 10_000;
/// Lists that keep their state at once; others read what is newest from the start. Ours.
pub const MAX_PINNED_LISTS: usize = 256;
/// Keys that a line of the audit log names; it counts the others. Ours, as all of the audit log.
pub const AUDIT_KEYS: usize = 100;
/// Bytes of a key, a name or another text of a client's in a line of the audit log; a longer one is
/// cut.
pub const AUDIT_TEXT_BYTES: usize = 1_024;
/// Bytes of keys from which on a line of the audit log names no more.
pub const AUDIT_LINE_KEY_BYTES: usize = 16 * 1_024;
/// Bytes of requests that wait to be written to the audit log, and their number; others are
/// dropped, and counted. As many may be on their way.
pub const AUDIT_QUEUED_BYTES: usize = 16 << 20;
/// The number of them.
pub const AUDIT_QUEUED: usize = 65_536;
/// Milliseconds for which the audit log gathers lines before it writes them.
pub const AUDIT_GATHER_MS: u64 = 100;
/// Bytes of a chunk of the Snapshot RPC.
pub const SNAPSHOT_CHUNK_BYTES: usize = 32 * 1024;

const _: () = assert!(ELECTION_MS >= 5 * HEARTBEAT_MS);
const _: () = assert!(SNAPSHOT_CATCHUP_ENTRIES <= SNAPSHOT_COUNT);
const _: () = assert!(MAX_REQUEST_BYTES + GRPC_OVERHEAD_BYTES < MAX_SEND_BYTES);
