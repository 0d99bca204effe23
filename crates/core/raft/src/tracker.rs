//! The membership in force, and what is known about each member: progress and votes.
//!
//! Invariants (checked by `confchange::changer` after every change): exactly the voters and
//! learners have progress; learners and voters are disjoint; staged learners are outgoing voters.
//= etcd 3.7.1: raft/tracker/tracker.go

use std::collections::BTreeMap;

use types::{Index, MemberId};

use crate::entry::ConfState;
use crate::progress::Progress;
use crate::quorum::{VoteResult, both, majority_reached, majority_vote};

pub(crate) struct Tracker {
    pub conf: ConfState,
    pub progress: BTreeMap<MemberId, Progress>,
    /// Everybody in `progress` but this member, ascending: whom a leader sends to.
    peers: Vec<MemberId>,
    votes: BTreeMap<MemberId, bool>,
}

impl Tracker {
    pub fn new(own: MemberId, conf: ConfState, progress: BTreeMap<MemberId, Progress>) -> Self {
        let mut tracker = Self {
            conf: ConfState::default(),
            progress: BTreeMap::new(),
            peers: Vec::new(),
            votes: BTreeMap::new(),
        };
        tracker.switch(own, conf, progress);
        tracker
    }

    pub fn switch(
        &mut self,
        own: MemberId,
        conf: ConfState,
        progress: BTreeMap<MemberId, Progress>,
    ) {
        self.peers = progress.keys().copied().filter(|&id| id != own).collect();
        self.conf = conf;
        self.progress = progress;
    }

    pub fn peers(&self) -> &[MemberId] {
        &self.peers
    }

    pub fn is_joint(&self) -> bool {
        !self.conf.voters_outgoing.is_empty()
    }

    pub fn is_voter(&self, id: MemberId) -> bool {
        self.conf.voters.contains(&id) || self.conf.voters_outgoing.contains(&id)
    }

    /// Whether `id` alone decides everything.
    pub fn is_sole_voter(&self, id: MemberId) -> bool {
        self.conf.voters == [id] && !self.is_joint()
    }

    /// The voters of both halves, ascending.
    pub fn voters(&self) -> Vec<MemberId> {
        let mut voters = [&self.conf.voters[..], &self.conf.voters_outgoing[..]].concat();
        voters.sort_unstable();
        voters.dedup();
        voters
    }

    /// The highest index that a quorum holds.
    pub fn quorum_index(&self) -> Index {
        Index(self.quorum_reached(|id| self.progress.get(&id).map_or(0, |p| p.matched.0)))
    }

    /// The highest value that a quorum has reached.
    pub fn quorum_reached(&self, reached: impl Fn(MemberId) -> u64) -> u64 {
        majority_reached(&self.conf.voters, &reached)
            .min(majority_reached(&self.conf.voters_outgoing, &reached))
    }

    fn quorum_vote(&self, vote: impl Fn(MemberId) -> Option<bool>) -> VoteResult {
        both(
            majority_vote(&self.conf.voters, &vote),
            majority_vote(&self.conf.voters_outgoing, &vote),
        )
    }

    /// Whether a quorum was heard from since the last check.
    pub fn quorum_active(&self) -> bool {
        self.quorum_vote(|id| self.progress.get(&id).map(|progress| progress.recent_active))
            == VoteResult::Won
    }

    pub fn reset_votes(&mut self) {
        self.votes.clear();
    }

    /// Counts a vote; a second one of the same member changes nothing.
    pub fn record_vote(&mut self, from: MemberId, granted: bool) -> VoteResult {
        self.votes.entry(from).or_insert(granted);
        self.quorum_vote(|id| self.votes.get(&id).copied())
    }
}
