//! Proposals: those of clients, and this member's own.

use api::error::ApiError;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType};
use api::membershippb;
use bytes::Bytes;
use env::{Instant, sometimes};
use machine::auth::ROOT;
use machine::command::{Command, Header};
use raft::{ConfChange, ProposeError};
use types::limits::MAX_APPLY_GAP;
use types::{ReplyToken, RequestId};

use super::Node;
use crate::message::{NodeOutput, Proposal, Reply};
use crate::probes;

/// What came while no leader could take it.
#[derive(Debug)]
pub(super) enum Parked {
    Proposal(Proposal),
    Change(ReplyToken, ConfChange),
}

impl Parked {
    fn token(&self) -> ReplyToken {
        match self {
            Parked::Proposal(proposal) => proposal.token,
            Parked::Change(token, _) => *token,
        }
    }
}

impl Node {
    pub(super) fn propose(&mut self, now: Instant, proposed: Vec<Proposal>, out: &mut NodeOutput) {
        if proposed.is_empty() {
            return;
        }
        if self.stopping.is_some() {
            let stopped = |p: Proposal| (p.token, Reply::Refused(ApiError::Stopped));
            out.replies.extend(proposed.into_iter().map(stopped));
            return;
        }
        //= etcd 3.7.1: server/etcdserver/v3_server.go#processInternalRaftRequestOnce
        let status = &self.status;
        if status.commit.0.saturating_sub(status.applied.0) > MAX_APPLY_GAP {
            let refused = |p: Proposal| (p.token, Reply::Refused(ApiError::TooManyRequests));
            out.replies.extend(proposed.into_iter().map(refused));
            return;
        }
        let batch: Vec<Bytes> = proposed.iter().map(|p| p.data.clone()).collect();
        match self.raft.propose(batch) {
            Ok(()) => {
                for proposal in proposed {
                    self.in_flight.insert(now, proposal.id, proposal.token);
                }
            }
            // As in etcd, a proposal without a leader waits for one until its time is over.
            Err(_) => {
                sometimes!(self.hooks, probes::PARKED);
                let parked = proposed.into_iter().map(|p| (now, Parked::Proposal(p)));
                self.parked.extend(parked);
            }
        }
    }

    /// Proposes what waited, as soon as there is a leader. Whether anything was tried.
    pub(super) fn unpark(&mut self, out: &mut NodeOutput) -> bool {
        if self.parked.is_empty() || self.status.leader.is_none() {
            return false;
        }
        for (at, parked) in std::mem::take(&mut self.parked) {
            match parked {
                Parked::Proposal(proposal) => {
                    match self.raft.propose(vec![proposal.data.clone()]) {
                        Ok(()) => self.in_flight.insert(at, proposal.id, proposal.token),
                        Err(_) => self.parked.push_back((at, Parked::Proposal(proposal))),
                    }
                }
                Parked::Change(token, change) => self.propose_change(at, token, change, out),
            }
        }
        true
    }

    /// Puts a membership change through the log.
    //= etcd 3.7.1: server/etcdserver/server.go#configure
    pub(super) fn propose_change(
        &mut self,
        at: Instant,
        token: ReplyToken,
        change: ConfChange,
        out: &mut NodeOutput,
    ) {
        if self.stopping.is_some() {
            out.replies.push((token, Reply::Refused(ApiError::Stopped)));
            return;
        }
        match self.raft.propose_conf_change(change.clone()) {
            Ok(()) => self.in_flight.insert(at, RequestId(change.id), token),
            // One at a time: it waits for the other's application.
            Err(
                ProposeError::NoLeader
                | ProposeError::TransferInProgress
                | ProposeError::ConfChangePending,
            ) => self.parked.push_back((at, Parked::Change(token, change))),
            Err(_) => out.replies.push((token, Reply::Refused(ApiError::Timeout))),
        }
    }

    /// Ends what waits for too long. What was proposed may still be applied (semantics J9).
    pub(super) fn time_proposals_out(&mut self, until: Instant, out: &mut NodeOutput) {
        for (at, token) in self.in_flight.take_older(until) {
            sometimes!(self.hooks, probes::TIMED_OUT);
            self.status.proposals_failed += 1;
            let error = self.timeout_of(at);
            out.replies.push((token, Reply::Refused(error)));
        }
        while self.parked.front().is_some_and(|(at, _)| *at <= until) {
            self.status.proposals_failed += 1;
            if let Some((_, parked)) = self.parked.pop_front() {
                let refused = Reply::Refused(ApiError::ContextDeadline);
                out.replies.push((parked.token(), refused));
            }
        }
    }

    /// Proposals from shortly before a leader was elected may have gone with the one before it.
    //= etcd 3.7.1: server/etcdserver/v3_server.go#parseProposeCtxErr
    fn timeout_of(&self, at: Instant) -> ApiError {
        let lost_within = 2 * self.config.election;
        match self.leader_elected {
            Some(elected) if at < elected && elected < at + lost_within => {
                ApiError::TimeoutLeaderFailure
            }
            _ => ApiError::Timeout,
        }
    }

    /// The entry for a command of this member's own, and its id.
    pub(super) fn own_command(&mut self, command: &Command) -> (RequestId, Bytes) {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        (id, command.encode(Header { id, ..Header::default() }))
    }

    /// The entry for a command of this member's own that wants permission: root signs it.
    //= etcd 3.7.3: server/auth/store.go#WithRoot
    pub(super) fn signed_command(&mut self, command: &Command) -> Bytes {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        command.encode(match self.signing_revision {
            Some(auth_revision) => Header { id, username: ROOT, auth_revision },
            None => Header { id, ..Header::default() },
        })
    }

    /// Tells the cluster this member's name and client URLs; the server is ready once applied.
    /// Tried again when a request's time has passed: it may have been lost on its way.
    //= etcd 3.7.1: server/etcdserver/server.go#publishV3
    pub(super) fn publish_if_due(&mut self, now: Instant) {
        let is_due = self.publish_pending.is_none_or(|(_, until)| until <= now);
        if self.published || !is_due || self.status.leader.is_none() || self.stopping.is_some() {
            return;
        }
        let request = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.config.id.0,
            member_attributes: Some(self.config.attributes.clone()),
        };
        let (id, data) = self.own_command(&Command::ClusterMemberAttrSet(request));
        if self.raft.propose(vec![data]).is_ok() {
            self.publish_pending = Some((id, now + self.config.request_timeout()));
        }
    }

    /// Decides on the cluster version if this member is the only one. Among several, the shell
    /// asks the others first.
    //= etcd 3.7.1: server/etcdserver/version/monitor.go#UpdateClusterVersionIfNeeded
    pub(super) fn decide_version(&mut self) {
        if self.version_decided || self.members.iter().count() > 1 {
            return;
        }
        let request =
            membershippb::ClusterVersionSetRequest { ver: self.config.cluster_version.clone() };
        let (_, data) = self.own_command(&Command::ClusterVersionSet(request));
        // A failure means that the term is over; the next one's first entry tries again.
        let _: Result<(), ProposeError> = self.raft.propose(vec![data]);
    }

    /// This member's backend is full: every member must stop growing.
    //= etcd 3.7.1: server/etcdserver/server.go#applyEntryNormal
    pub(super) fn raise_no_space(&mut self) {
        let request = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.config.id.0,
            alarm: AlarmType::Nospace as i32,
        };
        let (_, data) = self.own_command(&Command::Alarm(request));
        // If it is refused, the next write that finds the backend full asks again.
        let _: Result<(), ProposeError> = self.raft.propose(vec![data]);
    }
}
