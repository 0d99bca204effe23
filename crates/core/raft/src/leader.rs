//! Leading: proposals, heartbeats, quorum checks, membership changes and handing over.
//= etcd 3.7.1: raft/raft.go#stepLeader, #tickHeartbeat, #becomeLeader, #switchToConfig

use bytes::Bytes;
use env::sometimes;
use types::{Index, MemberId};

use crate::confchange::{ConfChange, ConfChangeV2};
use crate::entry::{Entry, EntryKind};
use crate::error::{ProposeError, StepError};
use crate::log::MAX_INDEX;
use crate::message::{Body, Message, Proposal};
use crate::probes;
use crate::raft::Raft;
use crate::status::{ReplicationState, Role};

impl Raft {
    pub(crate) fn become_leader(&mut self) {
        assert!(self.role == Role::Candidate, "only a candidate becomes leader");
        self.reset(self.term);
        self.leader = Some(self.id());
        self.role = Role::Leader;
        let (own, ticks) = (self.id(), self.ticks);
        for (&id, progress) in &mut self.tracker.progress {
            // A quorum has just voted.
            progress.last_contact = ticks;
            if id == own {
                progress.become_replicate();
                progress.recent_active = true;
            }
        }
        // There may be a membership change somewhere in the tail: wait until all is applied.
        self.pending_conf_index = self.log.last();
        // An entry of our own term, by which everything before it commits (paper, 5.4.2).
        self.append_entry(EntryKind::Normal, Bytes::new());
    }

    pub(crate) fn tick_leader(&mut self) {
        self.heartbeat_elapsed += 1;
        if self.election_elapsed >= self.config.election_ticks {
            self.election_elapsed = 0;
            if self.config.check_quorum {
                self.check_quorum();
            }
            // A transfer that took this long has failed.
            sometimes!(self.config.hooks, probes::TRANSFER_FAILED, self.transferee.is_some());
            self.transferee = None;
        }
        if self.log_hangs() && self.another_voter_is_healthy() {
            sometimes!(self.config.hooks, probes::LOG_HANGS);
            self.become_follower(self.term, None);
        }
        if self.role == Role::Leader && self.heartbeat_elapsed >= self.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.broadcast_heartbeat();
        }
    }

    fn check_quorum(&mut self) {
        let own = self.id();
        if let Some(progress) = self.tracker.progress.get_mut(&own) {
            progress.recent_active = true;
        }
        if !self.tracker.quorum_active() {
            sometimes!(self.config.hooks, probes::LOST_QUORUM);
            self.become_follower(self.term, None);
        }
        for (&id, progress) in &mut self.tracker.progress {
            progress.recent_active = id == own;
        }
    }

    /// Whether a write has waited for the disk longer than an election timeout. etcd's leader
    /// would stop sending heartbeats then, because one loop does both.
    fn log_hangs(&self) -> bool {
        let limit = u64::from(self.config.election_ticks);
        self.unstable.oldest_sync().is_some_and(|tick| self.ticks - tick > limit)
    }

    fn another_voter_is_healthy(&self) -> bool {
        let limit = u64::from(self.config.election_ticks);
        self.tracker.peers().iter().any(|peer| {
            let progress = &self.tracker.progress[peer];
            self.tracker.is_voter(*peer)
                && progress.last_contact > 0
                && self.ticks - progress.last_contact < limit
        })
    }

    pub(crate) fn broadcast_heartbeat(&mut self) {
        let context = self.read_indexes.heartbeat_context();
        let committed = self.log.committed();
        self.for_each_peer(|raft, peer| {
            let Some(progress) = raft.tracker.progress.get_mut(&peer) else { return };
            // Never more than the follower is known to hold.
            let commit = progress.matched.min(committed);
            progress.sent_commit = commit;
            raft.send(peer, Body::Heartbeat { commit, context: context.clone() });
        });
    }

    pub(crate) fn step_leader(&mut self, message: Message) -> Result<(), StepError> {
        let from = message.from;
        match message.body {
            Body::Propose(proposals) => {
                self.propose_forwarded(proposals).map_err(StepError::Dropped)
            }
            Body::ReadIndex { context } => {
                self.read_index_as_leader(from, context);
                Ok(())
            }
            Body::AppendReply { index, rejected } => self.append_answered(from, index, rejected),
            Body::HeartbeatReply { context } => {
                self.heartbeat_answered(from, &context);
                Ok(())
            }
            Body::TransferLeader => {
                self.transfer_to(from);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn heartbeat_answered(&mut self, from: MemberId, context: &[u8]) {
        let ticks = self.ticks;
        let last = self.log.last();
        let Some(progress) = self.tracker.progress.get_mut(&from) else { return };
        progress.recent_active = true;
        progress.last_contact = ticks;
        progress.paused = false;
        // An append, perhaps empty, finds out about lost messages and ends a probe.
        if progress.matched < last || progress.state == ReplicationState::Probe {
            self.send_append(from, true);
        }
        self.reads_acknowledged(from, context);
    }

    // ---- Proposals ----

    fn accepts(&self, count: usize) -> Result<(), ProposeError> {
        if !self.tracker.progress.contains_key(&self.id()) {
            return Err(ProposeError::Removed);
        }
        if self.transferee.is_some() {
            return Err(ProposeError::TransferInProgress);
        }
        if count as u64 > MAX_INDEX.saturating_sub(self.log.last().0) {
            return Err(ProposeError::LogFull);
        }
        Ok(())
    }

    fn append_entry(&mut self, kind: EntryKind, data: Bytes) {
        let index = self.log.last().next();
        self.log.append(Entry { term: self.term, index, kind, data });
    }

    pub(crate) fn append_as_leader(&mut self, batch: Vec<Bytes>) -> Result<(), ProposeError> {
        self.accepts(batch.len())?;
        self.log.reserve(batch.len());
        for data in batch {
            self.append_entry(EntryKind::Normal, data);
        }
        self.broadcast_append();
        Ok(())
    }

    /// Appends proposals whose membership changes were found to be allowed.
    pub(crate) fn propose_as_is(&mut self, proposals: Vec<Proposal>) -> Result<(), ProposeError> {
        self.accepts(proposals.len())?;
        for Proposal { kind, data } in proposals {
            self.append_entry(kind, data);
            if kind != EntryKind::Normal {
                self.pending_conf_index = self.log.last();
            }
        }
        self.broadcast_append();
        Ok(())
    }

    /// A follower's proposals. A membership change that is not allowed now becomes an empty
    /// entry, as in etcd: its proposer runs into its timeout.
    fn propose_forwarded(&mut self, mut proposals: Vec<Proposal>) -> Result<(), ProposeError> {
        self.accepts(proposals.len())?;
        let mut pending = self.pending_conf_index;
        for (offset, proposal) in (1..).zip(&mut proposals) {
            let change = match proposal.kind {
                EntryKind::Normal => continue,
                EntryKind::ConfChange => {
                    ConfChange::decode(proposal.data.clone()).map(|change| change.to_v2())
                }
                EntryKind::ConfChangeV2 => ConfChangeV2::decode(proposal.data.clone()),
            };
            match change {
                Ok(change) if self.conf_change_allowed(&change, pending).is_ok() => {
                    pending = Index(self.log.last().0 + offset);
                }
                _ => *proposal = Proposal { kind: EntryKind::Normal, data: Bytes::new() },
            }
        }
        self.propose_as_is(proposals)
    }

    /// Whether a membership change may be proposed: one at a time, and joint ones in pairs.
    pub(crate) fn conf_change_allowed(
        &self,
        change: &ConfChangeV2,
        pending: Index,
    ) -> Result<(), ProposeError> {
        if self.pending_conf_index.max(pending) > self.log.applied() {
            return Err(ProposeError::ConfChangePending);
        }
        // A change without members leaves a joint configuration, whatever its transition.
        if self.tracker.is_joint() != change.changes.is_empty() {
            return Err(ProposeError::ConfChangeNotNow);
        }
        // Nothing is pending, so the membership in force is the one that it will be applied to.
        // etcd lets an impossible change into the log, where it stops every member.
        self.changed(change).map_err(|_| ProposeError::ConfChangeImpossible)?;
        Ok(())
    }

    // ---- Membership ----

    /// A joint configuration that shall be left by itself is left as soon as it is applied.
    pub(crate) fn leave_joint_if_due(&mut self) {
        if self.tracker.conf.auto_leave && self.log.applied() >= self.pending_conf_index {
            let leave = Proposal { kind: EntryKind::ConfChangeV2, data: Bytes::new() };
            // A transfer in progress refuses it; then the next leader leaves, or we do later.
            let _ = self.propose_forwarded(vec![leave]);
        }
    }

    /// The membership was switched: the quorum may be smaller, new members may wait.
    pub(crate) fn conf_switched(&mut self) {
        let own = self.id();
        // A removed leader goes on until its member stops (StepDownOnRemoval is off in etcd).
        if self.tracker.progress.get(&own).is_none_or(|progress| progress.learner) {
            return;
        }
        if self.maybe_commit() {
            self.release_pending_reads();
            self.broadcast_append();
        } else {
            self.for_each_peer(|raft, peer| {
                raft.send_append(peer, false);
            });
        }
        if self.transferee.is_some_and(|to| !self.tracker.is_voter(to)) {
            self.transferee = None;
        }
    }

    // ---- Handing over ----

    /// Hands over to `to`: brings its log up to ours, then tells it to campaign (thesis, 3.10).
    pub(crate) fn transfer_to(&mut self, to: MemberId) {
        let Some(progress) = self.tracker.progress.get(&to) else { return };
        if progress.learner || self.transferee == Some(to) {
            return;
        }
        let up_to_date = progress.matched == self.log.last();
        self.transferee = None;
        if to == self.id() {
            return;
        }
        // It must be done within an election timeout from now.
        self.election_elapsed = 0;
        self.transferee = Some(to);
        if up_to_date {
            sometimes!(self.config.hooks, probes::HANDED_OVER);
            self.send(to, Body::TimeoutNow);
        } else {
            self.send_append(to, true);
        }
    }

    pub(crate) fn peer_unreachable(&mut self, peer: MemberId) {
        if let Some(progress) = self.tracker.progress.get_mut(&peer) {
            // Appends sent ahead are probably lost.
            if progress.state == ReplicationState::Replicate {
                progress.become_probe();
            }
        }
    }
}
