//! Elections: campaigning, counting votes and voting for others.
//!
//! Unlike its answers, a candidate's requests for votes also wait for its own vote to be durable
//! (etcd saves before it sends, unless it leads). Otherwise it could win with the votes of others,
//! crash, forget that it had led the term and lead it a second time with other entries.
//= etcd 3.7.1: raft/raft.go#campaign, #stepCandidate

use types::{Index, MemberId, Term};

use crate::entry::EntryId;
use crate::error::{ProposeError, StepError};
use crate::log::MAX_TERM;
use crate::message::{Body, Message};
use crate::quorum::VoteResult;
use crate::raft::Raft;
use crate::status::Role;

/// Why and how a member campaigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// Ask first whether an election would succeed (thesis, 9.6).
    PreVote,
    /// Ask for votes in the next term.
    Election,
    /// Ask for votes because the leader hands over: no pre-vote, and leases give way.
    Transfer,
}

impl Raft {
    /// Campaigns if that is allowed now.
    pub(crate) fn hup(&mut self, campaign: Campaign) {
        let last_term = self.term.0 >= MAX_TERM;
        if self.role != Role::Leader
            && self.promotable()
            && !self.log.conf_change_unapplied()
            && !last_term
        {
            self.start_campaign(campaign);
        }
    }

    fn start_campaign(&mut self, campaign: Campaign) {
        let term = Term(self.term.0 + 1);
        if campaign == Campaign::PreVote {
            self.leader = None;
            self.tracker.reset_votes();
            self.role = Role::PreCandidate;
        } else {
            self.reset(term);
            self.vote = Some(self.id());
            self.role = Role::Candidate;
        }
        let EntryId { term: last_term, index: last_index } = self.log.last_id();
        let transfer = campaign == Campaign::Transfer;
        for to in self.tracker.voters() {
            let own = to == self.id();
            match (campaign, own) {
                // Our own vote counts when it is durable.
                (Campaign::PreVote, true) => {
                    self.send_durable_at(to, term, Body::PreVoteReply { reject: false });
                }
                (_, true) => self.send_durable(to, Body::VoteReply { reject: false }),
                (Campaign::PreVote, false) => {
                    let body = Body::PreVote { last_index, last_term, transfer };
                    self.send_as(self.id(), to, term, body);
                }
                (_, false) => {
                    self.send_durable(to, Body::Vote { last_index, last_term, transfer });
                }
            }
        }
    }

    pub(crate) fn step_candidate(&mut self, message: Message) -> Result<(), StepError> {
        match message.body {
            Body::Propose(_) => Err(StepError::Dropped(ProposeError::NoLeader)),
            // Somebody won this term.
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                self.become_follower(message.term, Some(message.from));
                self.step_follower(message)
            }
            Body::PreVoteReply { reject } if self.role == Role::PreCandidate => {
                self.count_vote(message.from, !reject);
                Ok(())
            }
            Body::VoteReply { reject } if self.role == Role::Candidate => {
                self.count_vote(message.from, !reject);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count_vote(&mut self, from: MemberId, granted: bool) {
        match self.tracker.record_vote(from, granted) {
            VoteResult::Pending => {}
            VoteResult::Won if self.role == Role::PreCandidate => {
                self.start_campaign(Campaign::Election);
            }
            VoteResult::Won => {
                self.become_leader();
                self.broadcast_append();
            }
            VoteResult::Lost => self.become_follower(self.term, None),
        }
    }

    /// Answers a request for a vote or pre-vote of the current term or (pre-vote) a later one.
    /// Learners vote too: they may be voters already without knowing it.
    pub(crate) fn vote_requested(
        &mut self,
        from: MemberId,
        term: Term,
        last_index: Index,
        last_term: Term,
        pre_vote: bool,
    ) {
        let free = self.vote == Some(from)
            || (self.vote.is_none() && self.leader.is_none())
            || (pre_vote && term > self.term);
        let granted =
            free && self.log.is_up_to_date(EntryId { term: last_term, index: last_index });
        // A granted pre-vote names the term asked for, else its receiver would ignore it.
        let term = if granted { term } else { self.term };
        let reject = !granted;
        let body =
            if pre_vote { Body::PreVoteReply { reject } } else { Body::VoteReply { reject } };
        self.send_durable_at(from, term, body);
        if granted && !pre_vote {
            self.election_elapsed = 0;
            self.vote = Some(from);
        }
    }
}
