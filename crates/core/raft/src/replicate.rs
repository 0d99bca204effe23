//! A leader's sending side: appends, snapshots instead of them, and what answers set in motion.
//= etcd 3.7.1: raft/raft.go#maybeSendAppend, #maybeSendSnapshot, #stepLeader (MsgAppResp)

use env::{buggify, sometimes};
use types::{Index, MemberId};

use crate::entry::SnapshotMeta;
use crate::error::StepError;
use crate::message::{Body, Rejection};
use crate::probes;
use crate::raft::Raft;
use crate::status::ReplicationState;

impl Raft {
    /// Sends to every peer what it lacks, or at least the commit index.
    pub(crate) fn broadcast_append(&mut self) {
        self.for_each_peer(|raft, peer| {
            raft.send_append(peer, true);
        });
    }

    pub(crate) fn for_each_peer(&mut self, mut f: impl FnMut(&mut Self, MemberId)) {
        // Sending never changes the membership.
        for i in 0..self.tracker.peers().len() {
            let peer = self.tracker.peers()[i];
            f(self, peer);
        }
    }

    /// Sends one append (or snapshot) to `to` unless it is paused; with `even_empty`, also without
    /// entries. True if something was sent.
    pub(crate) fn send_append(&mut self, to: MemberId, even_empty: bool) -> bool {
        let Some(progress) = self.tracker.progress.get_mut(&to) else { return false };
        if progress.is_paused() {
            return false;
        }
        let prev_index = Index(progress.next.0 - 1);
        let Some(prev_term) = self.log.term(prev_index) else { return self.send_snapshot(to) };
        // With a full window only empty appends go out, so that lost ones are found out.
        let replicating = progress.state == ReplicationState::Replicate;
        let entries = if replicating && progress.window_full() {
            Vec::new()
        } else {
            let short = buggify!(self.config.hooks, "raft: one entry per append");
            let max_bytes = if short { 0 } else { self.config.max_bytes_per_append };
            self.log.entries(progress.next, self.log.last(), max_bytes)
        };
        if entries.is_empty() && !even_empty {
            return false;
        }
        let commit = self.log.committed();
        progress.sent_entries(entries.len());
        progress.sent_commit = commit;
        self.send(to, Body::Append { prev_index, prev_term, entries, commit });
        true
    }

    /// The entries that `to` needs are forgotten: names a snapshot of what is applied here. The
    /// member fills in the snapshot that it really sends, which may be newer.
    fn send_snapshot(&mut self, to: MemberId) -> bool {
        let index = self.log.applied();
        let term = self.log.term(index).expect("a leader's applied entry is known");
        let meta = SnapshotMeta { index, term, conf_state: self.conf_state() };
        let Some(progress) = self.tracker.progress.get_mut(&to) else { return false };
        if !progress.recent_active {
            return false;
        }
        progress.become_snapshot(index);
        sometimes!(self.config.hooks, probes::SNAPSHOT_SENT);
        self.send(to, Body::Snapshot { meta, data: bytes::Bytes::new() });
        true
    }

    /// A follower's answer to an append or a snapshot.
    pub(crate) fn append_answered(
        &mut self,
        from: MemberId,
        index: Index,
        rejected: Option<Rejection>,
    ) -> Result<(), StepError> {
        let last = self.log.last();
        let Some(progress) = self.tracker.progress.get_mut(&from) else { return Ok(()) };
        progress.recent_active = true;
        progress.last_contact = self.ticks;
        if let Some(Rejection { hint, term }) = rejected {
            // Our terms above the follower's cannot match at or below its hint: skip them.
            let probe = match term.0 {
                0 => hint,
                _ => self.log.find_conflict_by_term(hint, term).0,
            };
            if progress.rejected(index, probe) {
                if progress.state == ReplicationState::Replicate {
                    progress.become_probe();
                }
                self.send_append(from, true);
            }
            return Ok(());
        }
        if index > last {
            return Err(StepError::AckBeyondLog { index, last });
        }
        let probed = progress.matched == index && progress.state == ReplicationState::Probe;
        if progress.acknowledged(index) || probed {
            match progress.state {
                ReplicationState::Probe => progress.become_replicate(),
                // Any snapshot will do from which our log can go on, whichever was sent.
                ReplicationState::Snapshot if progress.matched.next() >= self.log.first() => {
                    progress.become_replicate();
                }
                ReplicationState::Snapshot => {}
                ReplicationState::Replicate => progress.free_inflight(index),
            }
            self.acknowledged(from);
        }
        Ok(())
    }

    /// `from` acknowledged something new: commit, and send it more.
    fn acknowledged(&mut self, from: MemberId) {
        let committed = self.log.committed();
        if self.maybe_commit() {
            self.release_pending_reads();
            self.broadcast_append();
        } else if self.tracker.progress[&from].can_bump_commit(committed) {
            self.send_append(from, true);
        }
        // The window may have room for several appends now.
        while self.send_append(from, false) {}
        if self.transferee == Some(from) && self.tracker.progress[&from].matched == self.log.last()
        {
            self.send(from, Body::TimeoutNow);
        }
    }

    /// Commits what a quorum holds; true if that is more than before.
    pub(crate) fn maybe_commit(&mut self) -> bool {
        let index = self.tracker.quorum_index();
        self.log.maybe_commit(index, self.term)
    }

    /// Counts the durable part of our own log towards the quorum.
    pub(crate) fn acknowledge_own_log(&mut self) {
        let persisted = self.unstable.persisted();
        let own = self.id();
        let Some(progress) = self.tracker.progress.get_mut(&own) else { return };
        if progress.acknowledged(persisted) && self.maybe_commit() {
            self.release_pending_reads();
            self.broadcast_append();
        }
    }
}
