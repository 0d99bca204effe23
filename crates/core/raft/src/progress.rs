//! What a leader knows about one follower's log, and how fast it may send.
//!
//! Invariant: `matched < next`. Entries in `(matched, next)` are in flight.
//= etcd 3.7.1: raft/tracker/progress.go, raft/tracker/inflights.go

use std::collections::VecDeque;

use types::Index;

use crate::status::ReplicationState;

/// The leader's view of one member.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The log is known to be equal up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// The highest commit index on its way to the follower.
    pub sent_commit: Index,
    pub state: ReplicationState,
    /// In `Snapshot`: the index of the snapshot sent.
    pub pending_snapshot: Index,
    /// Heard from since the last quorum check.
    pub recent_active: bool,
    /// The tick at which it was last heard from.
    pub last_contact: u64,
    /// Appends pause until a heartbeat is answered.
    pub paused: bool,
    pub learner: bool,
    /// The last index of each append in flight, ascending.
    inflight: VecDeque<Index>,
    max_inflight: usize,
}

impl Progress {
    pub fn new(next: Index, max_inflight: usize, learner: bool) -> Self {
        Self {
            matched: Index(0),
            next: Index(next.0.max(1)),
            sent_commit: Index(0),
            state: ReplicationState::Probe,
            pending_snapshot: Index(0),
            recent_active: false,
            last_contact: 0,
            paused: false,
            learner,
            inflight: VecDeque::new(),
            max_inflight,
        }
    }

    fn enter(&mut self, state: ReplicationState) {
        self.paused = false;
        self.pending_snapshot = Index(0);
        self.state = state;
        self.inflight.clear();
    }

    /// Find out where the logs agree, one message at a time.
    pub fn become_probe(&mut self) {
        // A snapshot that was sent whole is where to go on.
        let after_snapshot = match self.state {
            ReplicationState::Snapshot => self.pending_snapshot.0 + 1,
            _ => 0,
        };
        self.enter(ReplicationState::Probe);
        self.next = Index(after_snapshot.max(self.matched.0 + 1));
        self.regress_sent_commit();
    }

    /// Send ahead without waiting for answers.
    pub fn become_replicate(&mut self) {
        self.enter(ReplicationState::Replicate);
        self.next = self.matched.next();
    }

    /// Send nothing until the snapshot at `index` has arrived.
    pub fn become_snapshot(&mut self, index: Index) {
        self.enter(ReplicationState::Snapshot);
        self.pending_snapshot = index;
        self.next = index.next();
        self.sent_commit = index;
    }

    /// Accounts for an append of `count` entries from `next`.
    pub fn sent_entries(&mut self, count: usize) {
        match self.state {
            ReplicationState::Replicate => {
                if count > 0 {
                    self.next = Index(self.next.0 + count as u64);
                    self.inflight.push_back(Index(self.next.0 - 1));
                }
                self.paused = self.window_full();
            }
            ReplicationState::Probe => self.paused |= count > 0,
            ReplicationState::Snapshot => unreachable!("appends are paused during a snapshot"),
        }
    }

    /// Whether a message with only the commit index would tell the follower something.
    pub fn can_bump_commit(&self, committed: Index) -> bool {
        committed > self.sent_commit && self.sent_commit.0 + 1 < self.next.0
    }

    /// Takes an acknowledgement up to `index`; false if it is old.
    pub fn acknowledged(&mut self, index: Index) -> bool {
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        self.next = self.next.max(index.next());
        self.paused = false;
        true
    }

    /// Frees the window of everything up to `index`.
    pub fn free_inflight(&mut self, index: Index) {
        while self.inflight.front().is_some_and(|&last| last <= index) {
            self.inflight.pop_front();
        }
    }

    /// Takes a rejection at `rejected`, with the follower's hint; false if it is stale.
    pub fn rejected(&mut self, rejected: Index, hint: Index) -> bool {
        if self.state == ReplicationState::Replicate {
            if rejected <= self.matched {
                return false;
            }
            self.next = self.matched.next();
        } else {
            // Only one probe is under way: any other rejection is stale.
            if self.next.0 - 1 != rejected.0 {
                return false;
            }
            let wanted = rejected.0.min(hint.0.saturating_add(1));
            self.next = Index(wanted.max(self.matched.0 + 1));
            self.paused = false;
        }
        self.regress_sent_commit();
        true
    }

    pub fn is_paused(&self) -> bool {
        self.paused || self.state == ReplicationState::Snapshot
    }

    pub fn window_full(&self) -> bool {
        self.inflight.len() >= self.max_inflight
    }

    pub fn inflight(&self) -> usize {
        self.inflight.len()
    }

    fn regress_sent_commit(&mut self) {
        self.sent_commit = self.sent_commit.min(Index(self.next.0 - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating(matched: u64, window: usize) -> Progress {
        let mut progress = Progress::new(Index(matched + 1), window, false);
        progress.matched = Index(matched);
        progress.become_replicate();
        progress
    }

    #[test]
    fn a_full_window_pauses_and_an_acknowledgement_reopens_it() {
        let mut progress = replicating(10, 2);
        progress.sent_entries(3);
        assert!(!progress.is_paused());
        progress.sent_entries(1);
        assert!(progress.is_paused());
        assert_eq!(progress.next, Index(15));
        assert!(progress.acknowledged(Index(13)));
        progress.free_inflight(Index(13));
        assert!(!progress.is_paused());
        assert_eq!(progress.inflight(), 1);
    }

    #[test]
    fn a_probe_moves_back_to_the_hint_but_never_below_the_match() {
        let mut progress = Progress::new(Index(10), 2, false);
        progress.matched = Index(3);
        progress.sent_entries(1);
        assert!(progress.is_paused());
        assert!(!progress.rejected(Index(7), Index(5)), "not the probe under way");
        assert!(progress.rejected(Index(9), Index(5)));
        assert_eq!((progress.next, progress.is_paused()), (Index(6), false));
        assert!(progress.rejected(Index(5), Index(0)));
        assert_eq!(progress.next, Index(4));
        assert!(progress.rejected(Index(3), Index(u64::MAX)));
        assert_eq!(progress.next, Index(4));
    }

    #[test]
    fn after_a_snapshot_the_probe_starts_behind_it() {
        let mut progress = Progress::new(Index(2), 2, false);
        progress.become_snapshot(Index(50));
        assert!(progress.is_paused());
        progress.become_probe();
        assert_eq!(progress.next, Index(51));
        progress.become_snapshot(Index(60));
        progress.pending_snapshot = Index(0);
        progress.become_probe();
        assert_eq!(progress.next, Index(1), "a failed snapshot is no progress");
    }
}
