//! Peers: their messages, changes of who they are, and handing leadership over.

use api::error::ApiError;
use env::{Instant, sometimes};
use raft::{ConfChange, ConfChangeKind, Message};
use types::limits::{LEARNER_READY_PERCENT, REMOVED_LINGER_MS};
use types::{Index, MemberId, ReplyToken};

use std::time::Duration;

use super::Node;
use crate::message::{NodeOutput, PeerChange, Reply};
use crate::probes;

/// A call that waits for another member to lead.
#[derive(Debug)]
pub(super) struct Transfer {
    token: ReplyToken,
    to: MemberId,
    until: Instant,
}

/// A stop that was asked for.
#[derive(Debug)]
pub(super) struct Stopping {
    /// Until when a leader waits for its successor.
    until: Instant,
}

impl Node {
    pub(super) fn step(&mut self, now: Instant, message: Message, out: &mut NodeOutput) {
        let from = message.from;
        // A member that was removed has nothing more to say.
        //= etcd 3.7.1: server/etcdserver/server.go#Process
        if self.members.is_removed(from) {
            sometimes!(self.hooks, probes::LATE_MESSAGE);
            return;
        }
        self.note_snapshot(&message);
        let Some(message) = self.park_forwarded(now, message) else { return };
        if let Err(why) = self.raft.step(message) {
            out.refused.push((from, why));
        }
    }

    /// A membership change was applied (`None`: rejected).
    pub(super) fn conf_applied(
        &mut self,
        now: Instant,
        index: Index,
        change: Option<ConfChange>,
        out: &mut NodeOutput,
    ) {
        if let Some(change) = &change {
            let _ = self.members.change(change);
            let id = change.node;
            match change.kind {
                ConfChangeKind::RemoveNode if id == self.config.id => self.was_removed(now),
                ConfChangeKind::RemoveNode => out.peers.push(PeerChange::Remove(id)),
                _ if id == self.config.id => {}
                _ => {
                    let member = self.members.get(id);
                    let urls = member.and_then(|m| m.peer_urls.clone()).unwrap_or_default();
                    out.peers.push(PeerChange::Set { id, urls });
                }
            }
        }
        self.raft.conf_applied(index, change);
        if self.raft.leader().is_none() {
            self.campaign_if_alone();
        }
    }

    /// The others hear from this member a while longer, so that they learn that its removal is
    /// committed.
    //= etcd 3.7.1: server/etcdserver/server.go#applyEntries (stopWithDelay)
    pub(super) fn was_removed(&mut self, now: Instant) {
        sometimes!(self.hooks, probes::REMOVED);
        let until = now + Duration::from_millis(REMOVED_LINGER_MS);
        self.removed_at.get_or_insert(until);
    }

    //= etcd 3.7.1: server/etcdserver/server.go#isLearnerReady
    pub(super) fn is_learner_ready(
        &self,
        token: ReplyToken,
        learner: MemberId,
        out: &mut NodeOutput,
    ) {
        let reply = match (self.status.is_leader, self.status.leader) {
            (false, Some(leader)) => Reply::Elsewhere(leader),
            (false, None) => Reply::Refused(ApiError::NoLeader),
            (true, _) => {
                let status = self.raft.status();
                let own = status.progress.iter().find(|p| p.id == self.config.id);
                let theirs = status.progress.iter().find(|p| p.id == learner);
                match (own, theirs) {
                    (Some(own), Some(theirs))
                        if theirs.matched.0.saturating_mul(100)
                            >= own.matched.0.saturating_mul(LEARNER_READY_PERCENT) =>
                    {
                        Reply::Done
                    }
                    (_, None) => Reply::Refused(ApiError::MemberNotFound),
                    _ => Reply::Refused(ApiError::LearnerNotReady),
                }
            }
        };
        out.replies.push((token, reply));
    }

    //= etcd 3.7.1: server/etcdserver/server.go#MoveLeader
    pub(super) fn transfer_leader(
        &mut self,
        now: Instant,
        token: ReplyToken,
        to: MemberId,
        out: &mut NodeOutput,
    ) {
        let refusal = if !self.status.is_leader {
            Some(ApiError::NotLeader)
        } else if self.members.get(to).is_none_or(|member| member.is_learner) {
            Some(ApiError::BadLeaderTransferee)
        } else {
            None
        };
        if let Some(error) = refusal {
            out.replies.push((token, Reply::Refused(error)));
            return;
        }
        self.raft.transfer_leader(to);
        let until = now + self.config.request_timeout();
        self.transfers.push(Transfer { token, to, until });
    }

    pub(super) fn wake_transfers(&mut self, now: Instant, out: &mut NodeOutput) {
        let leader = self.status.leader;
        self.transfers.retain(|transfer| {
            let reply = if leader == Some(transfer.to) {
                Reply::Done
            } else if transfer.until <= now {
                Reply::Refused(ApiError::TimeoutLeaderTransfer)
            } else {
                return true;
            };
            out.replies.push((transfer.token, reply));
            false
        });
    }

    /// Stops; a leader hands over first, if it has a successor.
    //= etcd 3.7.1: server/etcdserver/server.go#TransferLeadership
    pub(super) fn stop(&mut self, now: Instant, successor: Option<MemberId>) {
        let until = match successor.filter(|_| self.status.is_leader) {
            Some(successor) => {
                self.raft.transfer_leader(successor);
                now + self.config.request_timeout()
            }
            None => now,
        };
        self.stopping.get_or_insert(Stopping { until });
    }

    /// Whether everything that a stop waits for is over.
    pub(super) fn is_stopped(&self, now: Instant) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let handed_over = !self.status.is_leader && self.status.leader.is_some();
        // Who is stopped to start as the version before must not find this one's entries.
        let is_covered =
            self.snapshot_forced.is_none() || stopping.until + self.config.request_timeout() <= now;
        (handed_over || stopping.until <= now) && self.in_flight.len() == 0 && is_covered
    }
}
