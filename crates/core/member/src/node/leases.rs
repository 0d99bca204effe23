//! Leases: who may be asked about them, and their end.
//!
//! The leader whose term has begun answers; everyone else names it (the shell sends the call on),
//! or waits for one. Invariant 9: only the leader of the current term expires leases, only by
//! proposing, and only while it knows that a quorum follows it.

use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest,
};
use env::{Instant, sometimes};
use types::limits::{APPLY_WAIT_MS, MAX_LEASE_CHECKPOINTS, MAX_REVOKES_IN_FLIGHT};
use types::{Index, LeaseId, ReplyToken};

use super::Node;
use crate::lease_expiry::Renewed;
use crate::message::{NodeOutput, Reply};
use crate::probes;

/// A question about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Renew,
    TimeToLive,
}

/// A question that waits: for a leader, for apply to catch up, or for a revoke to be applied.
#[derive(Debug)]
pub(super) struct WaitingLease {
    token: ReplyToken,
    lease: LeaseId,
    question: Question,
    pub(super) until: Instant,
    /// An unknown lease is answered once this much is applied.
    applied: Option<Index>,
}

/// Whether the leader has heard of a quorum since its process last stood still.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// Ticks since then; `None` if it was long ago.
    ticks: Option<u64>,
}

impl Pause {
    /// The process stood still for so long that others may lead.
    pub(super) fn resumed(&mut self) {
        self.ticks = Some(0);
    }

    pub(super) fn ticked(&mut self, contact_age: Option<u64>) {
        if let Some(ticks) = &mut self.ticks {
            *ticks += 1;
            if contact_age.is_some_and(|age| age < *ticks) {
                self.ticks = None;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ticks.is_none()
    }
}

impl Node {
    pub(super) fn ask_lease(
        &mut self,
        now: Instant,
        token: ReplyToken,
        lease: LeaseId,
        question: Question,
        out: &mut NodeOutput,
    ) {
        let until = now + self.config.request_timeout();
        let mut waiting = WaitingLease { token, lease, question, until, applied: None };
        if let Some(reply) = self.answer_lease(now, &mut waiting) {
            out.replies.push((token, reply));
        } else {
            self.waiting_leases.push(waiting);
        }
    }

    pub(super) fn wake_leases(&mut self, now: Instant, out: &mut NodeOutput) {
        if self.waiting_leases.is_empty() {
            return;
        }
        for mut waiting in std::mem::take(&mut self.waiting_leases) {
            match self.answer_lease(now, &mut waiting) {
                Some(reply) => out.replies.push((waiting.token, reply)),
                None => self.waiting_leases.push(waiting),
            }
        }
    }

    /// The answer, if there is one now.
    fn answer_lease(&mut self, now: Instant, waiting: &mut WaitingLease) -> Option<Reply> {
        if !self.leases.is_running() {
            // A leader's clock starts with the first applied entry of its term.
            let elsewhere = self.status.leader.filter(|_| !self.status.is_leader);
            let late = waiting.until <= now;
            //= etcd 3.7.1: server/etcdserver/v3_server.go#waitLeader
            let error = match self.status.leader {
                Some(_) => ApiError::Timeout,
                None => ApiError::NoLeader,
            };
            return match elsewhere {
                Some(leader) => Some(Reply::Elsewhere(leader)),
                None => late.then_some(Reply::Refused(error)),
            };
        }
        if !self.pause.is_over() {
            sometimes!(self.hooks, probes::STOOD_STILL);
            // Others may have led meanwhile: who stood still hears of a quorum first.
            //= etcd 3.7.1: server/etcdserver/server.go#ensureLeadership
            return (waiting.until <= now).then_some(Reply::Refused(ApiError::Timeout));
        }
        if waiting.question == Question::TimeToLive {
            match self.leases.time_to_live(now, waiting.lease) {
                Some(time) => return Some(Reply::TimeToLive(Some(time))),
                None => return self.unknown_lease(now, waiting, Reply::TimeToLive(None)),
            }
        }
        match self.leases.renew(now, waiting.lease) {
            Renewed::Ttl(ttl) => Some(Reply::KeepAlive(ttl)),
            Renewed::Unknown => self.unknown_lease(now, waiting, Reply::KeepAlive(0)),
            Renewed::Expiring => {
                // What was expiring and is gone is answered at once.
                waiting.applied = Some(Index(0));
                (waiting.until <= now).then_some(Reply::Refused(ApiError::Timeout))
            }
        }
    }

    /// Its grant may be committed and on its way to apply.
    fn unknown_lease(
        &self,
        now: Instant,
        waiting: &mut WaitingLease,
        unknown: Reply,
    ) -> Option<Reply> {
        if waiting.applied.is_none() {
            waiting.until = now + Duration::from_millis(APPLY_WAIT_MS);
        }
        let applied = *waiting.applied.get_or_insert(self.status.commit);
        if self.status.applied >= applied {
            return Some(unknown);
        }
        (waiting.until <= now).then_some(Reply::Refused(ApiError::TimeoutWaitApplied))
    }

    /// Tells the others what is left of long leases, so that a new leader does not give them their
    /// whole time again; and that a renewed one has its whole time.
    //= etcd 3.7.1: server/lease/lessor.go#checkpointScheduledLeases
    pub(super) fn checkpoint_leases(&mut self, now: Instant) {
        let Some(term) = self.led_term.filter(|_| self.config.lease_checkpoints) else { return };
        let due = self.leases.due_checkpoints(now, MAX_LEASE_CHECKPOINTS);
        if due.is_empty() {
            return;
        }
        let checkpoint =
            |(id, left): (LeaseId, i64)| LeaseCheckpoint { id: id.0, remaining_ttl: left };
        let checkpoints = due.into_iter().map(checkpoint).collect();
        let (_, data) = self.own_request(InternalRaftRequest {
            lease_checkpoint: Some(LeaseCheckpointRequest { checkpoints }),
            ..InternalRaftRequest::default()
        });
        // What a deposed leader did not tell is told by nobody: leases live longer then.
        let _ = self.raft.propose_as_leader(term, data);
    }

    pub(super) fn expire_leases(&mut self, now: Instant) {
        let Some(term) = self.led_term.filter(|_| self.leases.is_running()) else {
            return;
        };
        // A leader that may be deposed without knowing it lets nothing end.
        let age = self.raft.quorum_contact_age();
        let is_followed = age.is_some_and(|age| age <= u64::from(self.election_ticks()));
        if !is_followed || !self.pause.is_over() {
            sometimes!(self.hooks, probes::NOT_FOLLOWED);
            return;
        }
        for lease in self.leases.expire(now, MAX_REVOKES_IN_FLIGHT) {
            self.status.leases_expired += 1;
            let (_, data) = self.own_request(InternalRaftRequest {
                lease_revoke: Some(LeaseRevokeRequest { id: lease.0 }),
                ..InternalRaftRequest::default()
            });
            if self.raft.propose_as_leader(term, data).is_err() {
                self.leases.retry(lease, now + self.config.tick);
            }
        }
    }
}
