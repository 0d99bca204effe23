//! Snapshots: when one is recorded, what peers are sent, what is received, and which entries stay
//! in memory meanwhile.

use std::time::Duration;

use bytes::Bytes;
use env::{Instant, buggify, sometimes};
use raft::{Body, Message};
use types::limits::MEMORY_COMPACTION_ENTRIES;
use types::{Index, MemberId, Version};

use super::Node;
use crate::lease_expiry::LeaseClock;
use crate::message::{
    BackendCommitted, Installed, LogInput, NodeOutput, PeerChange, RaftSnapshot, SnapshotWanted,
};
use crate::probes;

/// How long entries behind a snapshot that was sent are kept: its receiver installs it first.
//= etcd 3.7.1: server/etcdserver/server.go (releaseDelayAfterSnapshot)
const RELEASE_DELAY: Duration = Duration::from_secs(30);

/// Snapshots on their way to peers.
#[derive(Debug, Default)]
pub(super) struct Sending {
    peers: Vec<MemberId>,
    /// Entries stay until then.
    hold: Option<Instant>,
}

impl Sending {
    fn holds(&self, now: Instant) -> bool {
        !self.peers.is_empty() || self.hold.is_some_and(|until| now < until)
    }
}

/// The received snapshot whose file is on the disk and that raft has not written yet.
#[derive(Debug)]
pub(super) struct Arrived {
    index: Index,
    data: Bytes,
}

impl Node {
    /// Sorts raft's messages: snapshots take the way through the Committer.
    pub(super) fn send(&mut self, messages: Vec<Message>, out: &mut NodeOutput) {
        for message in messages {
            if let Body::Snapshot { meta, .. } = &message.body {
                let at_least = meta.index;
                self.sending.peers.push(message.to);
                out.snapshots.push(SnapshotWanted { message, at_least });
            } else {
                out.messages.push(message);
            }
        }
    }

    pub(super) fn snapshot_sent(&mut self, now: Instant, peer: MemberId, arrived: bool) {
        if let Some(place) = self.sending.peers.iter().position(|p| *p == peer) {
            self.sending.peers.swap_remove(place);
            self.sending.hold = Some(now + RELEASE_DELAY);
        }
        self.raft.report_snapshot(peer, arrived);
    }

    /// A message of a peer is about to be handled.
    pub(super) fn note_snapshot(&mut self, message: &Message) {
        if let Body::Snapshot { meta, data } = &message.body {
            self.arrived = Some(Arrived { index: meta.index, data: data.clone() });
        }
    }

    /// What the log is to write.
    pub(super) fn log_input(&mut self, persist: raft::Persist) -> LogInput {
        let Some(meta) = &persist.snapshot else {
            return LogInput::Persist(persist);
        };
        let arrived = self.arrived.take_if(|arrived| arrived.index == meta.index);
        let data = arrived.map(|arrived| arrived.data).unwrap_or_default();
        LogInput::Received { persist, data }
    }

    /// A received snapshot is the state now.
    pub(super) fn installed(&mut self, now: Instant, installed: Installed, out: &mut NodeOutput) {
        let before = std::mem::replace(&mut self.members, installed.members.as_ref().clone());
        for member in before.iter().map(|m| MemberId(m.id)) {
            if member != self.config.id && self.members.get(member).is_none() {
                out.peers.push(PeerChange::Remove(member));
            }
        }
        for member in self.members.iter().filter(|m| m.id != self.config.id.0) {
            let urls = member.peer_urls.clone().unwrap_or_default();
            out.peers.push(PeerChange::Set { id: MemberId(member.id), urls });
        }
        if self.members.is_removed(self.config.id) {
            self.was_removed(now);
        }
        self.version_decided = self.members.cluster_version.is_some();
        // A member that installs a snapshot does not lead: it sends none, and the clock stands.
        self.sending = Sending::default();
        self.signing_revision = installed.signing_revision;
        self.leases = LeaseClock::default();
        for (id, ttl, checkpoint) in installed.leases {
            self.leases.granted(now, id, ttl, checkpoint);
        }
        self.last_snapshot = self.last_snapshot.max(installed.index);
        self.forgotten = installed.index;
        self.status.applied = installed.index;
        self.raft.applied(installed.index);
        // The snapshot may cover its publication, which then never comes through the log.
        self.publish_pending = None;
        self.publish_if_due(now);
    }

    /// The cluster's version is this from entry `index` on. What the log says of a higher one must
    /// not be read again by members of this one: a snapshot is due.
    //= etcd 3.7.1: server/etcdserver/server.go (forceDiskSnapshot)
    pub(super) fn version_set(&mut self, index: Index, version: String) {
        let parse = |text: Option<&String>| text.and_then(|text| Version::parse(text));
        if parse(Some(&version)) < parse(self.members.cluster_version.as_ref()) {
            self.snapshot_forced = Some(index);
        }
        self.members.cluster_version = Some(version);
        self.version_decided = true;
    }

    /// A snapshot is due as soon as anything was applied since the last.
    pub(crate) fn force_snapshot(&mut self) {
        self.snapshot_forced = Some(self.status.applied);
    }

    /// Whether a snapshot is due that covers entries up to `index`.
    fn is_snapshot_due(&self, index: Index) -> bool {
        let since = index.0.saturating_sub(self.last_snapshot.0);
        since > self.config.snapshot_count
            || self.snapshot_forced.is_some_and(|forced| forced <= index && since > 0)
    }

    pub(super) fn ask_for_snapshot(&mut self, out: &mut NodeOutput) {
        if self.is_snapshot_due(self.status.applied) && !self.snapshot_asked {
            self.snapshot_asked = true;
            out.flush = true;
        }
    }

    /// Invariant 3: a snapshot is taken only of what the backend durably holds. Its file is none of
    /// the log's work: on a slow disk its flushes would keep raft from its log.
    pub(super) fn backend_committed(&mut self, committed: &BackendCommitted, out: &mut NodeOutput) {
        if !self.snapshot_asked || !self.is_snapshot_due(committed.index) {
            return;
        }
        self.last_snapshot = committed.index;
        out.save_snapshot = Some(RaftSnapshot::of(committed));
    }

    pub(super) fn snapshot_saved(&mut self, now: Instant, index: Index, out: &mut NodeOutput) {
        self.snapshot_asked = false;
        self.snapshot_forced.take_if(|forced| *forced <= index);
        out.snapshot_saved = Some(index);
        self.forget(now, self.status.applied);
    }

    /// Lets go of applied entries in memory every hundred entries; after a snapshot at once.
    //= etcd 3.7.1: server/etcdserver/server.go#snapshotIfNeededAndCompactRaftLog
    pub(super) fn forget_entries(&mut self, now: Instant, applied: Index) {
        let early = buggify!(self.hooks, "node: forgets entries early");
        if applied.0 < self.forgotten.0 + MEMORY_COMPACTION_ENTRIES && !early {
            return;
        }
        self.forget(now, applied);
    }

    /// Others may still ask for the last thousands, and one that was sent a snapshot for everything
    /// behind it; alone, a member needs none of them.
    //= etcd 3.7.1: server/etcdserver/server.go#compactRaftLog
    fn forget(&mut self, now: Instant, applied: Index) {
        if self.sending.holds(now) {
            sometimes!(self.hooks, probes::KEPT_FOR_SNAPSHOT);
            return;
        }
        self.forgotten = applied;
        let alone = self.members.iter().count() <= 1;
        let keep = if alone { 0 } else { self.config.catchup_entries };
        if let Some(to) = applied.0.checked_sub(keep).filter(|to| *to > 0) {
            self.raft.compact(Index(to));
        }
    }
}
