//! What the threads see happen becomes log lines and metrics.
//!
//! Texts and field names are etcd's where it logs the same event; what it logs of its own inside
//! (goroutines, caches, retries that do not exist here) has no line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::AlarmType;
use bolt::Stage;
use cli::text::{show_duration, size};
use machine::{Alarms, CommandKind, Effect, Member};
use member::{ApplierOutput, FinishedCompaction, NodeInput, NodeStatus, Reply, StagesTold};
use osenv::Clock;
use raft::{ConfChange, ConfChangeKind};
use types::limits::READ_INDEX_RETRY_MS;
use types::{ClusterId, Index, MemberId};

use crate::metrics::millis;
use crate::{Log, Metrics, log_line};

/// Time of a flush from which on it is reported.
//= etcd 3.7.1: server/storage/wal/wal.go (warnSyncDuration)
const SLOW_FLUSH: Duration = Duration::from_secs(1);

/// Where reports go.
#[derive(Clone)]
pub struct Reporter {
    /// Where lines go.
    pub log: Arc<Log>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    publish_timeout: Duration,
    /// Time of one turn of Applier beyond which it is reported.
    slow_apply: Duration,
}

/// How large a database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of it in use.
    pub in_use_bytes: u64,
}

impl From<&bolt::ReadTx> for DatabaseSize {
    fn from(tx: &bolt::ReadTx) -> Self {
        Self { bytes: tx.size_bytes(), in_use_bytes: tx.size_in_use_bytes() }
    }
}

/// What a turn of Applier did, noted before its outputs go out.
#[derive(Debug, Default)]
pub struct Turn {
    kinds: Vec<(CommandKind, bool)>,
    effects: Vec<Effect>,
    /// Whether a part of a compaction was removed.
    sliced: bool,
}

impl Reporter {
    /// A reporter for a member.
    pub fn new(
        log: Arc<Log>,
        metrics: Arc<Metrics>,
        (member, cluster): (MemberId, ClusterId),
        publish_timeout: Duration,
        slow_apply: Duration,
    ) -> Self {
        Self { log, metrics, member, cluster, publish_timeout, slow_apply }
    }

    /// Raft's state changed.
    //= etcd raft 3.7.0: raft.go#becomeFollower, #becomeLeader, node.go#run
    pub fn status(&self, before: &NodeStatus, now: &NodeStatus) {
        let (me, term) = (self.member, now.term.0);
        if now.is_leader && !before.is_leader {
            log_line!(self.log, Info, &format!("{me} became leader at term {term}"));
        }
        if before.is_leader && !now.is_leader {
            if now.term == before.term {
                let line = format!("{me} stepped down to follower since quorum is not active");
                log_line!(self.log, Warn, &line);
            }
            log_line!(self.log, Info, &format!("{me} became follower at term {term}"));
        }
        if now.late_heartbeats > before.late_heartbeats {
            let line = "leader failed to send out heartbeat on time; took too long, leader is \
                        overloaded likely from slow disk";
            let more = now.late_heartbeats - before.late_heartbeats;
            log_line!(self.log, Warn, line, "late-heartbeats" = more);
        }
        //= etcd 3.7.3: server/etcdserver/read/read.go#requestCurrentIndex
        if now.reads_retried > before.reads_retried {
            log_line!(
                self.log,
                Warn,
                "waiting for ReadIndex response took too long, retrying",
                "sent-request-id" = now.retried_read,
                "retry-timeout" = show_duration(Duration::from_millis(READ_INDEX_RETRY_MS)),
            );
        }
        if now.reads_late > before.reads_late {
            let line = "timed out waiting for read index response (local node might have slow \
                        network)";
            let timeout = show_duration(self.publish_timeout);
            log_line!(self.log, Warn, line, "timeout" = timeout);
        }
        if now.leader == before.leader {
            return;
        }
        let line = match (before.leader, now.leader) {
            (None, Some(leader)) => {
                format!("raft.node: {me} elected leader {leader} at term {term}")
            }
            (Some(old), Some(new)) => {
                format!("raft.node: {me} changed leader from {old} to {new} at term {term}")
            }
            (Some(old), None) => format!("raft.node: {me} lost leader {old} at term {term}"),
            (None, None) => return,
        };
        log_line!(self.log, Info, &line);
    }

    /// Notes what a turn of Applier gave out.
    pub fn note(&self, out: &ApplierOutput, turn: &mut Turn) {
        turn.sliced = out.sliced;
        turn.kinds.extend(out.replies.iter().filter_map(|(_, reply)| match reply {
            // etcd does not count a refused compaction as a failure.
            Reply::Applied(o) => {
                let success = !matches!(&o.reply, Err(e) if *e != ApiError::Compacted);
                o.kind.map(|kind| (kind, success))
            }
            _ => None,
        }));
        for input in &out.node {
            if let NodeInput::Applied(applied) = input {
                turn.effects.extend(applied.effects.iter().map(|(_, effect)| effect.clone()));
            }
        }
    }

    /// A turn of Applier took this long.
    pub fn applied(&self, turn: &mut Turn, took: Duration) {
        if took > self.slow_apply && !turn.kinds.is_empty() {
            log_line!(
                self.log,
                Warn,
                "apply request took too long",
                "took" = show_duration(took),
                "expected-duration" = show_duration(self.slow_apply),
                "prefix" = "",
                "request" = format!("{} entries in one turn", turn.kinds.len()),
                "response" = "",
            );
            self.metrics.slow_applies.inc();
        }
        if turn.sliced {
            self.metrics.timings.compaction_slice.observe(millis(took));
        }
        if turn.effects.iter().any(|effect| matches!(effect, Effect::Compaction(_))) {
            self.metrics.timings.compaction_begun.observe(millis(took));
        }
        self.metrics.applied(&turn.kinds, took);
        turn.kinds.clear();
        for effect in turn.effects.drain(..) {
            self.effect(&effect);
        }
    }

    fn effect(&self, effect: &Effect) {
        match effect {
            Effect::LeaseGranted { ttl, .. } => {
                self.metrics.lease_granted.inc();
                self.metrics.lease_ttl.observe(*ttl as f64);
            }
            Effect::LeaseRevoked(_) => self.metrics.lease_revoked.inc(),
            Effect::Compaction(_) => {
                let now = i64::try_from(Clock.wall().unix_secs()).unwrap_or(i64::MAX);
                self.metrics.last_compaction.set(now);
            }
            Effect::Attributes { id, name, client_urls } if *id == self.member => {
                let urls = client_urls.join(" ");
                log_line!(
                    self.log,
                    Info,
                    "published local member to cluster through raft",
                    "local-member-id" = self.member.to_string(),
                    "local-member-attributes" = format!("{{Name:{name} ClientURLs:[{urls}]}}"),
                    "cluster-id" = self.cluster.to_string(),
                    "publish-timeout" = show_duration(self.publish_timeout),
                );
            }
            Effect::ClusterVersion(version) => {
                let short = version.rsplit_once('.').map_or(&version[..], |(short, _)| short);
                log_line!(self.log, Info, "cluster version is updated", "cluster-version" = short);
            }
            Effect::ConfChange(Some(change)) => self.membership(change),
            Effect::Attributes { .. }
            | Effect::LeaseCheckpoint { .. }
            | Effect::ConfChange(None)
            | Effect::Downgrade(_)
            | Effect::NoSpace
            | Effect::LeaseKept(_)
            | Effect::Auth { .. }
            | Effect::TokenAssigned { .. }
            | Effect::UserTokensEnded(_)
            | Effect::TokensEnded => {}
        }
    }

    //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#AddMember
    fn membership(&self, change: &ConfChange) {
        let is_learner = change.kind == ConfChangeKind::AddLearner;
        if !is_learner && change.kind != ConfChangeKind::AddNode {
            return;
        }
        let added = Member::from_json(&change.context).unwrap_or_default();
        log_line!(
            self.log,
            Info,
            "added member",
            "cluster-id" = self.cluster.to_string(),
            "local-member-id" = self.member.to_string(),
            "added-peer-id" = change.node.to_string(),
            "added-peer-peer-urls" = added.peer_urls.unwrap_or_default(),
            "added-peer-is-learner" = is_learner,
        );
    }

    /// The alarms may have changed.
    //= etcd 3.7.1: server/etcdserver/apply/apply_backend.go#Alarm
    pub fn alarms(&self, before: &Alarms, now: &Alarms) {
        let name = |kind| AlarmType::try_from(kind).map_or("UNKNOWN", |kind| kind.as_str_name());
        let (old, new) = (before.list(0), now.list(0));
        for alarm in new.iter().filter(|alarm| !old.contains(alarm)) {
            log_line!(
                self.log,
                Warn,
                "alarm raised",
                "alarm" = name(alarm.alarm),
                "from" = MemberId(alarm.member_id).to_string(),
            );
        }
        for alarm in old.iter().filter(|alarm| !new.contains(alarm)) {
            log_line!(
                self.log,
                Warn,
                "alarm disarmed",
                "alarm" = name(alarm.alarm),
                "from" = MemberId(alarm.member_id).to_string(),
            );
        }
    }

    /// A compaction has removed all it had to.
    //= etcd 3.7.1: server/storage/mvcc/kvstore_compaction.go#scheduleCompaction
    pub fn compacted(&self, done: &FinishedCompaction, now: DatabaseSize) {
        self.metrics.timings.compaction.observe(millis(done.took));
        log_line!(
            self.log,
            Info,
            "finished scheduled compaction",
            "compact-revision" = done.revision.0,
            "took" = show_duration(done.took),
            "number-of-keys-compacted" = done.removed,
            // 0 where none is stored; etcd shows what it hashed of the rest.
            "hash" = done.hash.unwrap_or_default(),
            "current-db-size-bytes" = now.bytes,
            "current-db-size" = size(now.bytes),
            "current-db-size-in-use-bytes" = now.in_use_bytes,
            "current-db-size-in-use" = size(now.in_use_bytes),
        );
    }

    /// A raft snapshot is recorded in the log.
    pub fn snapshot_saved(&self, index: Index) {
        log_line!(self.log, Info, "saved snapshot to disk", "snapshot-index" = index.0);
    }

    /// A defragmentation of this database begins.
    //= etcd 3.7.3: server/storage/backend/backend.go#defrag
    pub fn defragmenting(&self, path: &Path, now: DatabaseSize) {
        log_line!(
            self.log,
            Info,
            "defragmenting",
            "path" = path.display().to_string(),
            "current-db-size-bytes" = now.bytes,
            "current-db-size" = size(now.bytes),
            "current-db-size-in-use-bytes" = now.in_use_bytes,
            "current-db-size-in-use" = size(now.in_use_bytes),
        );
    }

    /// A defragmentation that took this long gave the database another size.
    pub fn defragmented(
        &self,
        path: &Path,
        (before, now): (DatabaseSize, DatabaseSize),
        took: Duration,
    ) {
        let more = |now: u64, before: u64| now as i64 - before as i64;
        log_line!(
            self.log,
            Info,
            "finished defragmenting directory",
            "path" = path.display().to_string(),
            "current-db-size-bytes-diff" = more(now.bytes, before.bytes),
            "current-db-size-bytes" = now.bytes,
            "current-db-size" = size(now.bytes),
            "current-db-size-in-use-bytes-diff" = more(now.in_use_bytes, before.in_use_bytes),
            "current-db-size-in-use-bytes" = now.in_use_bytes,
            "current-db-size-in-use" = size(now.in_use_bytes),
            "took" = show_duration(took),
        );
    }

    /// A flush of the log took this long, with the write before it.
    pub fn flushed(&self, took: Duration) {
        if took > SLOW_FLUSH {
            log_line!(
                self.log,
                Warn,
                "slow fdatasync",
                "took" = show_duration(took),
                "expected-duration" = show_duration(SLOW_FLUSH),
            );
        }
    }

    /// Old files could not be deleted; it is tried again later.
    pub fn purge_failed(&self, failures: &[String]) {
        for why in failures {
            log_line!(self.log, Warn, "failed to purge", "error" = why.as_str());
        }
    }

    /// What times the stages of a commit.
    #[must_use]
    pub fn commit_stages(&self) -> StagesTold {
        let (metrics, mut last) = (Arc::clone(&self.metrics), Clock.now());
        Box::new(move |stage| {
            let now = Clock.now();
            let took = now.since(std::mem::replace(&mut last, now)).as_secs_f64();
            let timings = &metrics.timings;
            match stage {
                Stage::Begun => {}
                Stage::Rebalanced => timings.rebalance.observe(took),
                Stage::Spilled => timings.spill.observe(took),
                Stage::Written => timings.write.observe(took),
            }
        })
    }

    /// A commit of the backend took this long.
    pub fn committed(&self, took: Duration) {
        self.metrics.backend_commit.observe(took.as_secs_f64());
    }
}
