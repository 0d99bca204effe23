//! Following: taking the leader's entries, and sending on what only a leader can answer.
//= etcd 3.7.1: raft/raft.go#stepFollower, #handleAppendEntries, #handleHeartbeat

use bytes::Bytes;
use env::sometimes;
use types::{Index, MemberId, Term};

use crate::candidate::Campaign;
use crate::entry::{Entry, EntryId};
use crate::error::{ProposeError, StepError};
use crate::message::{Body, Message, Proposal, Rejection};
use crate::probes;
use crate::raft::Raft;
use crate::ready::ReadState;

impl Raft {
    pub(crate) fn step_follower(&mut self, message: Message) -> Result<(), StepError> {
        let from = message.from;
        match message.body {
            Body::Propose(proposals) => {
                self.forward_proposals(from, proposals).map_err(StepError::Dropped)
            }
            Body::Append { prev_index, prev_term, entries, commit } => {
                self.heard_from_leader(from);
                self.append_from_leader(from, prev_index, prev_term, entries, commit);
                Ok(())
            }
            Body::Heartbeat { commit, context } => {
                self.heard_from_leader(from);
                let last = self.log.last();
                if commit > last {
                    return Err(StepError::CommitBeyondLog { commit, last });
                }
                self.log.commit_to(commit);
                self.send(from, Body::HeartbeatReply { context });
                Ok(())
            }
            Body::Snapshot { meta, .. } => {
                self.heard_from_leader(from);
                self.snapshot_received(from, meta)
            }
            Body::TimeoutNow => {
                self.hup(Campaign::Transfer);
                Ok(())
            }
            Body::TransferLeader => {
                self.forward_transfer(from);
                Ok(())
            }
            Body::ReadIndex { context } => {
                self.forward_read_index(from, context);
                Ok(())
            }
            Body::ReadIndexReply { index, context } => {
                self.push_read_state(index, &context);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn heard_from_leader(&mut self, leader: MemberId) {
        self.election_elapsed = 0;
        self.early_campaign_at = None;
        self.leader = Some(leader);
    }

    fn append_from_leader(
        &mut self,
        from: MemberId,
        prev_index: Index,
        prev_term: Term,
        entries: Vec<Entry>,
        commit: Index,
    ) {
        let committed = self.log.committed();
        if prev_index < committed {
            // Old news: what is committed here is committed there.
            let body = Body::AppendReply { index: committed, rejected: None };
            self.send_durable(from, body);
            return;
        }
        if !self.log.matches(EntryId { term: prev_term, index: prev_index }) {
            // Skip our own tail of newer terms in one step: the leader's log has at most
            // `prev_term` there.
            let start = prev_index.min(self.log.last());
            let (hint, term) = self.log.find_conflict_by_term(start, prev_term);
            sometimes!(self.config.hooks, probes::REFUSED_APPEND);
            let rejected = Some(Rejection { hint, term });
            self.send_durable(from, Body::AppendReply { index: prev_index, rejected });
            return;
        }
        let end = Index(prev_index.0 + entries.len() as u64);
        self.take_entries(entries);
        self.log.commit_to(commit.min(end));
        self.send_durable(from, Body::AppendReply { index: end, rejected: None });
    }

    /// Appends what is new of `entries`, which follow a point at or after the commit index where
    /// the logs agree: so what is truncated was never committed.
    fn take_entries(&mut self, entries: Vec<Entry>) {
        let known = entries.iter().take_while(|entry| self.log.matches(entry.id())).count();
        let Some(first) = entries.get(known) else { return };
        if first.index <= self.log.last() {
            sometimes!(self.config.hooks, probes::TRUNCATED);
            self.log.truncate(first.index);
            self.unstable.truncated(first.index);
        }
        self.log.reserve(entries.len() - known);
        for entry in entries.into_iter().skip(known) {
            self.log.append(entry);
        }
    }

    pub(crate) fn forward_proposals(
        &mut self,
        from: MemberId,
        proposals: Vec<Proposal>,
    ) -> Result<(), ProposeError> {
        let leader = self.leader.ok_or(ProposeError::NoLeader)?;
        self.send_as(from, leader, Term(0), Body::Propose(proposals));
        Ok(())
    }

    pub(crate) fn forward_read_index(&mut self, from: MemberId, context: Bytes) {
        if let Some(leader) = self.leader {
            self.send_as(from, leader, Term(0), Body::ReadIndex { context });
        }
    }

    /// The sender of a transfer message is the member that shall lead.
    pub(crate) fn forward_transfer(&mut self, transferee: MemberId) {
        if let Some(leader) = self.leader {
            self.send_as(transferee, leader, self.term, Body::TransferLeader);
        }
    }

    /// Keeps an answer to one of our own read indexes; contexts that are not ours are dropped.
    pub(crate) fn push_read_state(&mut self, index: Index, context: &[u8]) {
        if let Ok(context) = context.try_into() {
            self.read_states.push(ReadState { context: u64::from_be_bytes(context), index });
        }
    }
}
