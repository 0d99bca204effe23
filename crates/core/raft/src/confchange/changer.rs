//! What a membership change does: a pure function from one membership to the next.
//!
//! Never changes what it is given; the caller switches to the result as a whole.
//= etcd 3.7.1: raft/confchange/confchange.go, raft/confchange/restore.go

use std::collections::BTreeMap;

use types::{Index, MemberId};

use super::{ConfChangeError, ConfChangeKind, ConfChangeSingle, ConfChangeV2, Transition};
use crate::entry::ConfState;
use crate::progress::Progress;

type Outcome = Result<(ConfState, BTreeMap<MemberId, Progress>), ConfChangeError>;

/// The membership being built.
pub(crate) struct Changer {
    conf: ConfState,
    progress: BTreeMap<MemberId, Progress>,
    last: Index,
    max_inflight: usize,
}

impl Changer {
    /// Starts from a membership in force. New members are first probed at `last`.
    pub fn new(
        conf: &ConfState,
        progress: &BTreeMap<MemberId, Progress>,
        last: Index,
        max_inflight: usize,
    ) -> Self {
        Self { conf: conf.clone(), progress: progress.clone(), last, max_inflight }
    }

    /// Builds the membership that was recovered or came with a snapshot.
    pub fn restore(conf: &ConfState, last: Index, max_inflight: usize) -> Outcome {
        let sorted = |ids: &[MemberId]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        let conf = ConfState {
            voters: sorted(&conf.voters),
            learners: sorted(&conf.learners),
            voters_outgoing: sorted(&conf.voters_outgoing),
            learners_next: sorted(&conf.learners_next),
            auto_leave: conf.auto_leave,
        };
        let mut changer = Self { conf, progress: BTreeMap::new(), last, max_inflight };
        for id in [&changer.conf.voters[..], &changer.conf.voters_outgoing[..]].concat() {
            changer.track(id, false);
        }
        for id in changer.conf.learners.clone() {
            changer.track(id, true);
        }
        // Nobody at all is the state before the first entry is applied.
        if changer.conf.voters.is_empty() && changer.conf != ConfState::default() {
            return Err(ConfChangeError::NoVoters);
        }
        changer.finish()
    }

    /// Applies one change of either version.
    pub fn apply(self, change: &ConfChangeV2) -> Outcome {
        if change.leaves_joint() {
            self.leave_joint()
        } else if change.transition != Transition::Auto || change.changes.len() > 1 {
            self.enter_joint(change.transition != Transition::JointExplicit, &change.changes)
        } else {
            self.simple(&change.changes)
        }
    }

    fn is_joint(&self) -> bool {
        !self.conf.voters_outgoing.is_empty()
    }

    fn simple(mut self, changes: &[ConfChangeSingle]) -> Outcome {
        if self.is_joint() {
            return Err(ConfChangeError::AlreadyJoint);
        }
        let before = self.conf.voters.clone();
        self.change_all(changes)?;
        let after = &self.conf.voters;
        let changed = before.iter().filter(|id| !after.contains(id)).count()
            + after.iter().filter(|id| !before.contains(id)).count();
        if changed > 1 {
            return Err(ConfChangeError::TooManyVoters);
        }
        self.finish()
    }

    fn enter_joint(mut self, auto_leave: bool, changes: &[ConfChangeSingle]) -> Outcome {
        if self.is_joint() {
            return Err(ConfChangeError::AlreadyJoint);
        }
        if self.conf.voters.is_empty() {
            return Err(ConfChangeError::NoVoters);
        }
        self.conf.voters_outgoing = self.conf.voters.clone();
        self.change_all(changes)?;
        self.conf.auto_leave = auto_leave;
        self.finish()
    }

    fn leave_joint(mut self) -> Outcome {
        if !self.is_joint() {
            return Err(ConfChangeError::NotJoint);
        }
        for id in std::mem::take(&mut self.conf.learners_next) {
            insert(&mut self.conf.learners, id);
            if let Some(progress) = self.progress.get_mut(&id) {
                progress.learner = true;
            }
        }
        for id in std::mem::take(&mut self.conf.voters_outgoing) {
            if !self.conf.voters.contains(&id) && !self.conf.learners.contains(&id) {
                self.progress.remove(&id);
            }
        }
        self.conf.auto_leave = false;
        self.finish()
    }

    fn change_all(&mut self, changes: &[ConfChangeSingle]) -> Result<(), ConfChangeError> {
        for change in changes {
            // etcd sets the node of a change that it rejects at apply to 0.
            if change.node.0 == 0 {
                continue;
            }
            match change.kind {
                ConfChangeKind::AddNode => self.make_voter(change.node),
                ConfChangeKind::AddLearner => self.make_learner(change.node),
                ConfChangeKind::RemoveNode => self.remove(change.node),
                ConfChangeKind::UpdateNode => {}
            }
        }
        if self.conf.voters.is_empty() { Err(ConfChangeError::NoVoters) } else { Ok(()) }
    }

    fn make_voter(&mut self, id: MemberId) {
        match self.progress.get_mut(&id) {
            Some(progress) => progress.learner = false,
            None => self.track(id, false),
        }
        remove(&mut self.conf.learners, id);
        remove(&mut self.conf.learners_next, id);
        insert(&mut self.conf.voters, id);
    }

    fn make_learner(&mut self, id: MemberId) {
        let Some(progress) = self.progress.get(&id) else {
            self.track(id, true);
            insert(&mut self.conf.learners, id);
            return;
        };
        if progress.learner {
            return;
        }
        let mut progress = progress.clone();
        self.remove(id);
        // An outgoing voter stays one until the joint configuration is left.
        if self.conf.voters_outgoing.contains(&id) {
            insert(&mut self.conf.learners_next, id);
        } else {
            progress.learner = true;
            insert(&mut self.conf.learners, id);
        }
        self.progress.insert(id, progress);
    }

    fn remove(&mut self, id: MemberId) {
        remove(&mut self.conf.voters, id);
        remove(&mut self.conf.learners, id);
        remove(&mut self.conf.learners_next, id);
        if !self.conf.voters_outgoing.contains(&id) {
            self.progress.remove(&id);
        }
    }

    fn track(&mut self, id: MemberId, learner: bool) {
        let mut progress = Progress::new(self.last, self.max_inflight, learner);
        // Give it time to be heard from before the next quorum check.
        progress.recent_active = true;
        self.progress.insert(id, progress);
    }

    fn finish(self) -> Outcome {
        let conf = &self.conf;
        let increasing = |ids: &[MemberId]| ids.is_sorted_by(|a, b| a < b);
        let well_formed = increasing(&conf.voters)
            && increasing(&conf.learners)
            && increasing(&conf.voters_outgoing)
            && increasing(&conf.learners_next)
            && !self.progress.contains_key(&MemberId(0));
        let learners_apart = conf.learners.iter().all(|id| {
            !conf.voters.contains(id)
                && !conf.voters_outgoing.contains(id)
                && self.progress.get(id).is_some_and(|progress| progress.learner)
        });
        let staged_outgoing = conf.learners_next.iter().all(|id| {
            conf.voters_outgoing.contains(id)
                && !conf.voters.contains(id)
                && self.progress.get(id).is_some_and(|progress| !progress.learner)
        });
        let joint_parts = !conf.learners_next.is_empty() || conf.auto_leave;
        if well_formed && learners_apart && staged_outgoing && (self.is_joint() || !joint_parts) {
            Ok((self.conf, self.progress))
        } else {
            Err(ConfChangeError::Contradiction)
        }
    }
}

fn insert(ids: &mut Vec<MemberId>, id: MemberId) {
    if let Err(at) = ids.binary_search(&id) {
        ids.insert(at, id);
    }
}

fn remove(ids: &mut Vec<MemberId>, id: MemberId) {
    ids.retain(|&other| other != id);
}

#[cfg(test)]
mod tests;
