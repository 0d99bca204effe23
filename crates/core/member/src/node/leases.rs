//! Leases: who may be asked about them, and their end.
//!
//! The leader whose term has begun answers; everyone else names it (the shell sends the call on),
//! or waits for one. Invariant 9: only the leader of the current term expires leases, only by
//! proposing, and only while it knows that a quorum follows it.

use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use env::{Instant, sometimes};
use machine::Command;
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
    RenewForPeer,
    TimeToLive,
}

/// Why an unknown lease may be called one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// Nothing was done for it yet.
    None,
    /// A quorum is asked how far the log is committed, with this context or a later one.
    Asked(u64),
    /// What is applied up to here says so.
    Applied(Index),
}

/// A question that waits: for a leader, for apply to catch up, or for a revoke to be applied.
#[derive(Debug)]
pub(super) struct WaitingLease {
    token: ReplyToken,
    lease: LeaseId,
    question: Question,
    pub(super) until: Instant,
    /// What must be applied first; `None` if nothing must.
    after: Option<Index>,
    /// What an unknown lease still needs.
    proof: Proof,
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
        // Who asks may have seen what this member has not applied yet. The leader's own clients are
        // told at once: a keep-alive must not wait for a long queue.
        //= etcd 3.7.1: server/lease/leasehttp/http.go#ServeHTTP, server/etcdserver/v3_server.go#LeaseRenew
        let waits = question != Question::Renew;
        let after = waits.then(|| self.raft.commit());
        let mut waiting = WaitingLease { token, lease, question, until, after, proof: Proof::None };
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
        if waiting.after.is_some_and(|after| self.status.applied < after) {
            let late = waiting.until <= now;
            return late.then_some(Reply::Refused(ApiError::TimeoutWaitApplied));
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
                waiting.proof = Proof::Applied(Index(0));
                (waiting.until <= now).then_some(Reply::Refused(ApiError::Timeout))
            }
        }
    }

    /// Its grant may be on its way to apply, or this member be deposed without knowing it: etcd
    /// looks at the clock for that, which stands still when a virtual machine does.
    fn unknown_lease(
        &mut self,
        now: Instant,
        waiting: &mut WaitingLease,
        unknown: Reply,
    ) -> Option<Reply> {
        let applied = match waiting.proof {
            Proof::None => {
                waiting.proof = Proof::Asked(self.reads.join(now));
                return None;
            }
            Proof::Asked(context) => {
                let Some(index) = self.reads.confirmed(context) else {
                    return (waiting.until <= now).then_some(Reply::Refused(ApiError::Timeout));
                };
                waiting.until = now + Duration::from_millis(APPLY_WAIT_MS);
                waiting.proof = Proof::Applied(index);
                index
            }
            Proof::Applied(index) => index,
        };
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
        let (_, data) =
            self.own_command(&Command::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
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
            let revoke = Command::LeaseRevoke(LeaseRevokeRequest { id: lease.0 });
            let data = self.signed_command(&revoke);
            if self.raft.propose_as_leader(term, data).is_err() {
                self.leases.retry(lease, now + self.config.tick);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::RequestId;

    use crate::message::{NodeInput, Proposal};
    use crate::node::kit::Leader;

    const LEASE: LeaseId = LeaseId(7);
    const TOKEN: ReplyToken = ReplyToken(1);

    fn keep_alive(leader: &mut Leader) {
        leader.inputs.push(NodeInput::KeepAlive { token: TOKEN, lease: LEASE, for_peer: false });
        leader.turn();
    }

    /// What the keep-alive was told.
    fn told(leader: &mut Leader) -> Option<Reply> {
        leader.replies.pop().map(|(_, reply)| reply)
    }

    #[test]
    fn a_lease_is_unknown_once_a_quorum_has_confirmed_it() {
        let mut leader = Leader::of_a_voter();
        keep_alive(&mut leader);
        assert!(matches!(told(&mut leader), Some(Reply::KeepAlive(0))));

        // Its clock stands still: by that alone it still leads, though others may.
        leader.is_followed = false;
        keep_alive(&mut leader);
        assert!(told(&mut leader).is_none());
        leader.now = leader.now + leader.node.config.request_timeout();
        leader.turn();
        assert!(matches!(told(&mut leader), Some(Reply::Refused(ApiError::Timeout))));
    }

    /// Its revoke, say, was acknowledged by a follower that applied it first.
    #[test]
    fn what_is_asked_through_others_waits_for_what_is_committed() {
        let mut leader = Leader::of_a_voter();
        leader.node.leases.granted(leader.now, LEASE, 5, 0);
        let proposal = Proposal { token: ReplyToken(2), id: RequestId(2), data: "x".into() };
        leader.inputs.push(NodeInput::Propose(proposal));
        leader.turn();
        assert!(leader.node.raft.commit() > leader.node.status.applied);
        keep_alive(&mut leader);
        assert!(matches!(told(&mut leader), Some(Reply::KeepAlive(5))), "its own clients need not");

        let (token, lease) = (TOKEN, LEASE);
        leader.inputs.push(NodeInput::KeepAlive { token, lease, for_peer: true });
        leader.inputs.push(NodeInput::TimeToLive { token, lease });
        leader.turn();
        assert!(leader.replies.is_empty());
        leader.node.leases.removed(LEASE);
        leader.apply();
        assert!(matches!(told(&mut leader), Some(Reply::TimeToLive(None))));
        assert!(matches!(told(&mut leader), Some(Reply::KeepAlive(0))));
    }

    #[test]
    fn a_known_lease_needs_no_quorum_to_be_renewed() {
        let mut leader = Leader::of_a_voter();
        leader.node.leases.granted(leader.now, LEASE, 5, 0);
        leader.is_followed = false;
        keep_alive(&mut leader);
        assert!(matches!(told(&mut leader), Some(Reply::KeepAlive(5))));
    }
}
