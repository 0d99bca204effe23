//! Messages from peers: the gateway, terms, and the way to the role that handles them.
//!
//! Invariant: what passes the gateway is well-formed, so that no handler can overflow, leave a gap
//! in the log or count an answer of a stranger (invariant 11).
//= etcd 3.7.1: raft/raft.go#Step, raft/rawnode.go#Step

use types::{Index, Term};

use crate::confchange::{ConfChange, ConfChangeV2};
use crate::entry::{Entry, EntryKind};
use crate::error::StepError;
use crate::log::{MAX_INDEX, MAX_TERM};
use crate::message::{Body, Message, Proposal};
use crate::raft::Raft;
use crate::status::Role;

impl Raft {
    /// The gateway: what passes here is well-formed (invariant 11).
    pub(crate) fn check(&self, message: &Message) -> Result<(), StepError> {
        let own = message.from == self.id();
        if message.from.0 == 0 || (own && !message.body.is_forwarded()) {
            return Err(StepError::BadSender);
        }
        if message.term.0 == 0 && !message.body.is_forwarded() {
            return Err(StepError::MissingTerm);
        }
        if message.term.0 > MAX_TERM {
            return Err(StepError::ImpossibleTerm(message.term));
        }
        if message.body.is_response() && !self.tracker.progress.contains_key(&message.from) {
            return Err(StepError::UnknownPeer(message.from));
        }
        match &message.body {
            Body::Propose(proposals) => check_proposals(proposals),
            Body::Append { prev_index, prev_term, entries, .. } => {
                check_entries(*prev_index, *prev_term, entries, message.term)
            }
            Body::Snapshot { meta, .. } if meta.index.0 > MAX_INDEX || meta.term > message.term => {
                Err(StepError::MalformedEntries { prev: meta.index })
            }
            _ => Ok(()),
        }
    }

    /// Handles a message that is well-formed, from a peer or from this member to itself.
    pub(crate) fn receive(&mut self, message: Message) -> Result<(), StepError> {
        if message.term.0 != 0 && !self.settle_term(&message) {
            return Ok(());
        }
        match message.body {
            Body::Vote { last_index, last_term, .. } => {
                self.vote_requested(message.from, message.term, last_index, last_term, false);
                Ok(())
            }
            Body::PreVote { last_index, last_term, .. } => {
                self.vote_requested(message.from, message.term, last_index, last_term, true);
                Ok(())
            }
            _ => match self.role {
                Role::Leader => self.step_leader(message),
                Role::Follower => self.step_follower(message),
                Role::PreCandidate | Role::Candidate => self.step_candidate(message),
            },
        }
    }

    /// Adopts a newer term, answers or ignores an older one. False if the message is done with.
    //= etcd 3.7.1: raft/raft.go#Step
    fn settle_term(&mut self, message: &Message) -> bool {
        if message.term > self.term {
            if let Body::Vote { transfer, .. } | Body::PreVote { transfer, .. } = message.body {
                // Who hears from a leader disturbs nobody (thesis, 4.2.3).
                let in_lease = self.config.check_quorum
                    && self.leader.is_some()
                    && self.early_campaign_at.is_none()
                    && self.election_elapsed < self.config.election_ticks;
                if in_lease && !transfer {
                    return false;
                }
            }
            match message.body {
                // A pre-vote is about a term that may never come.
                Body::PreVote { .. } | Body::PreVoteReply { reject: false } => {}
                Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                    self.become_follower(message.term, Some(message.from));
                }
                _ => self.become_follower(message.term, None),
            }
        } else if message.term < self.term {
            self.answer_older_term(message);
            return false;
        }
        true
    }

    fn answer_older_term(&mut self, message: &Message) {
        match message.body {
            // A deposed leader, or one that cannot reach us with its votes because we are ahead:
            // tell it the term.
            Body::Heartbeat { .. } | Body::Append { .. }
                if self.config.check_quorum || self.config.pre_vote =>
            {
                let body = Body::AppendReply { index: Index(0), rejected: None };
                self.send_durable(message.from, body);
            }
            Body::PreVote { .. } => {
                self.send_durable(message.from, Body::PreVoteReply { reject: true });
            }
            _ => {}
        }
    }
}

/// Proposals that a peer sent on: there are some, and changes of membership can be decoded.
fn check_proposals(proposals: &[Proposal]) -> Result<(), StepError> {
    if proposals.is_empty() {
        return Err(StepError::EmptyProposal);
    }
    let decodes = proposals.iter().all(|proposal| match proposal.kind {
        EntryKind::Normal => true,
        EntryKind::ConfChange => ConfChange::decode(proposal.data.clone()).is_ok(),
        EntryKind::ConfChangeV2 => ConfChangeV2::decode(proposal.data.clone()).is_ok(),
    });
    if decodes { Ok(()) } else { Err(StepError::MalformedConfChange) }
}

/// Entries that follow `prev` and each other, with terms that neither decrease nor pass `term`.
//= etcd 3.7.1: raft/types.go#logSlice
fn check_entries(
    prev: Index,
    prev_term: Term,
    entries: &[Entry],
    term: Term,
) -> Result<(), StepError> {
    let malformed = StepError::MalformedEntries { prev };
    if prev.0 > MAX_INDEX || entries.len() as u64 > MAX_INDEX - prev.0 || prev_term > term {
        return Err(malformed);
    }
    let mut last = (prev, prev_term);
    for entry in entries {
        if entry.index != last.0.next() || entry.term < last.1 || entry.term > term {
            return Err(malformed);
        }
        last = (entry.index, entry.term);
    }
    Ok(())
}
