//! When a leader compacts by itself (`--auto-compaction-mode`, `--auto-compaction-retention`).
//!
//! //= etcd 3.7.1: server/etcdserver/api/v3compactor/periodic.go, revision.go
//!
//! A plain value: the driver calls [`AutoCompaction::step`] every [`AutoCompaction::interval`],
//! proposes what it says, and reports success.

use std::collections::VecDeque;
use std::time::Duration;

use env::Instant;
use types::Revision;

const HOUR: Duration = Duration::from_secs(3_600);
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

/// What auto-compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Revisions younger than this.
    Periodic(Duration),
    /// This many of the newest revisions.
    Revisions(i64),
}

/// Decides when to compact, and up to which revision.
#[derive(Clone, Debug)]
pub struct AutoCompaction {
    retention: Retention,
    /// Revisions seen, the oldest about one retention ago.
    seen: VecDeque<i64>,
    last_revision: i64,
    last_success: Instant,
    succeeded: bool,
}

impl AutoCompaction {
    /// Begins at `now`; a periodic one first compacts after a whole retention.
    #[must_use]
    pub fn new(retention: Retention, now: Instant) -> Self {
        Self {
            retention,
            seen: VecDeque::new(),
            last_revision: 0,
            last_success: now,
            succeeded: false,
        }
    }

    /// Time between two steps.
    #[must_use]
    pub fn interval(&self) -> Duration {
        match self.retention {
            Retention::Periodic(period) => (period.min(HOUR) / 10).max(Duration::from_millis(1)),
            Retention::Revisions(_) => REVISION_INTERVAL,
        }
    }

    /// Notes the current revision. Returns the revision to compact to, if a compaction is due.
    pub fn step(&mut self, now: Instant, revision: Revision, is_leader: bool) -> Option<Revision> {
        let target = match self.retention {
            Retention::Revisions(keep) => {
                if !is_leader {
                    return None;
                }
                revision.0.checked_sub(keep).filter(|target| *target > 0)?
            }
            Retention::Periodic(period) => {
                let oldest = self.seen.front().copied();
                self.seen.push_back(revision.0);
                let samples = period.as_nanos() / self.interval().as_nanos() + 1;
                while self.seen.len() as u128 > samples {
                    self.seen.pop_front();
                }
                // The first waits for a whole retention, those after it for at most an hour.
                let wait = if self.succeeded { period.min(HOUR) } else { period };
                if !is_leader || now.since(self.last_success) < wait {
                    return None;
                }
                oldest?
            }
        };
        (target != self.last_revision).then_some(Revision(target))
    }

    /// The compaction was accepted, or was done already. One that failed is tried again at the
    /// next step.
    pub fn succeeded(&mut self, now: Instant, revision: Revision) {
        self.last_revision = revision.0;
        self.last_success = now;
        self.succeeded = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periodic_compacts_to_what_was_current_one_period_ago() {
        let minutes = |n: u64| Instant(0) + Duration::from_secs(60 * n);
        let period = Duration::from_secs(600);
        let mut auto = AutoCompaction::new(Retention::Periodic(period), minutes(0));
        assert_eq!(auto.interval(), Duration::from_secs(60));
        let mut done = Vec::new();
        for n in 0..=25 {
            let revision = Revision(100 + n as i64);
            if let Some(target) = auto.step(minutes(n), revision, true) {
                done.push((n, target.0));
                auto.succeeded(minutes(n), target);
            }
        }
        assert_eq!(done, [(10, 100), (20, 109)]);
    }

    #[test]
    fn nothing_is_compacted_twice_or_by_a_follower() {
        let at = |n: u64| Instant(0) + Duration::from_secs(300 * n);
        let mut auto = AutoCompaction::new(Retention::Revisions(10), at(0));
        assert_eq!(auto.step(at(1), Revision(10), true), None);
        assert_eq!(auto.step(at(2), Revision(50), false), None);
        assert_eq!(auto.step(at(3), Revision(50), true), Some(Revision(40)));
        assert_eq!(auto.step(at(4), Revision(50), true), Some(Revision(40)), "it failed");
        auto.succeeded(at(4), Revision(40));
        assert_eq!(auto.step(at(5), Revision(50), true), None);
    }
}
