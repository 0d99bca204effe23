//! The leader's clock of leases: when each expires.
//!
//! Every member knows which leases exist and for how long they were granted; only the leader of
//! the current term counts their time, and it only proposes their end (invariant 9). The clock
//! starts when the first entry of its term is applied, gives every lease its full time (or what
//! the last checkpoint left) and one election timeout more, and stops when it is deposed.
//!
//! A keep-alive only moves the lease's deadline; the place where it is looked at stays until that
//! time comes, and is then moved on. So a keep-alive costs a look-up, however many leases there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use env::Instant;
use types::LeaseId;
use types::limits::LEASE_CHECKPOINT_SECS;

use crate::message::LeaseTime;

/// Time between two checkpoints of a lease.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(LEASE_CHECKPOINT_SECS);

#[derive(Clone, Copy, Debug)]
struct Clock {
    ttl: i64,
    /// Seconds left at the last checkpoint; 0 without one.
    checkpoint: i64,
    /// Only meaningful while the clock runs.
    deadline: Instant,
    /// When it is looked at: at the deadline or before.
    scheduled: Instant,
    /// A revoke was proposed.
    expired: bool,
}

/// The clock of leases: those that this member knows, and their deadlines while it leads.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    leases: BTreeMap<LeaseId, Clock>,
    /// Running leases by when they are looked at.
    schedule: BTreeSet<(Instant, LeaseId)>,
    /// Long leases by when it is told what is left of them. Entries of leases that are gone, or
    /// were renewed, are found out when their time comes.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
    /// Renewed leases whose last checkpoint must be taken back.
    to_clear: BTreeSet<LeaseId>,
    running: bool,
    in_flight: usize,
}

/// The result of a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// The lease was renewed; its time to live in seconds.
    Ttl(i64),
    /// The lease has expired and its revoke was proposed; the answer waits for that.
    Expiring,
    /// There is no such lease as far as this member has applied.
    Unknown,
}

fn seconds(secs: i64) -> Duration {
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

impl LeaseClock {
    /// A lease exists, with the time of its last checkpoint (0: none).
    pub(crate) fn granted(&mut self, now: Instant, id: LeaseId, ttl: i64, checkpoint: i64) {
        self.removed(id);
        let deadline = now + seconds(ttl);
        if self.running {
            self.schedule.insert((deadline, id));
        }
        let scheduled = deadline;
        self.schedule_checkpoint(now, id, if checkpoint > 0 { checkpoint } else { ttl });
        self.leases.insert(id, Clock { ttl, checkpoint, deadline, scheduled, expired: false });
    }

    /// A lease was revoked.
    pub(crate) fn removed(&mut self, id: LeaseId) {
        if let Some(clock) = self.leases.remove(&id) {
            self.schedule.remove(&(clock.scheduled, id));
            self.in_flight -= usize::from(clock.expired);
        }
    }

    /// A checkpoint was applied.
    pub(crate) fn checkpointed(&mut self, now: Instant, id: LeaseId, remaining: i64) {
        if let Some(clock) = self.leases.get_mut(&id) {
            clock.checkpoint = remaining;
            self.schedule_checkpoint(now, id, remaining);
        }
    }

    fn schedule_checkpoint(&mut self, now: Instant, id: LeaseId, left: i64) {
        if self.running && seconds(left) > CHECKPOINT_INTERVAL {
            self.checkpoints.insert((now + CHECKPOINT_INTERVAL, id));
        }
    }

    /// What is left of long leases whose time to tell has come, and 0 for those that have their
    /// whole time again; at most `limit`.
    pub(crate) fn due_checkpoints(&mut self, now: Instant, limit: usize) -> Vec<(LeaseId, i64)> {
        let mut due = Vec::new();
        while due.len() < limit {
            let Some(id) = self.to_clear.pop_first() else { break };
            due.push((id, 0));
        }
        while due.len() < limit {
            let Some((at, id)) = self.checkpoints.first().copied() else { break };
            if at > now {
                break;
            }
            self.checkpoints.pop_first();
            let Some(clock) = self.leases.get(&id).filter(|clock| clock.deadline > now) else {
                continue;
            };
            let left = clock.deadline.since(now).as_secs_f64().ceil() as i64;
            if left < clock.ttl {
                due.push((id, left));
            }
        }
        due
    }

    /// This member leads: every lease gets its time anew, and `extend` on top.
    pub(crate) fn start(&mut self, now: Instant, extend: Duration) {
        self.running = true;
        self.in_flight = 0;
        self.schedule.clear();
        self.checkpoints.clear();
        self.to_clear.clear();
        for (id, clock) in &mut self.leases {
            let left = if clock.checkpoint > 0 { clock.checkpoint } else { clock.ttl };
            clock.deadline = now + seconds(left) + extend;
            clock.scheduled = clock.deadline;
            clock.expired = false;
            self.schedule.insert((clock.scheduled, *id));
            if seconds(left) > CHECKPOINT_INTERVAL {
                self.checkpoints.insert((now + CHECKPOINT_INTERVAL, *id));
            }
        }
    }

    /// This member does not lead any more.
    pub(crate) fn stop(&mut self) {
        self.running = false;
        self.in_flight = 0;
        self.schedule.clear();
        self.checkpoints.clear();
        self.to_clear.clear();
        for clock in self.leases.values_mut() {
            clock.expired = false;
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running
    }

    /// Renews a lease while the clock runs.
    pub(crate) fn renew(&mut self, now: Instant, id: LeaseId) -> Renewed {
        let Some(clock) = self.leases.get_mut(&id) else {
            return Renewed::Unknown;
        };
        if clock.expired || clock.deadline <= now {
            return Renewed::Expiring;
        }
        clock.deadline = now + seconds(clock.ttl);
        if std::mem::take(&mut clock.checkpoint) > 0 {
            self.to_clear.insert(id);
        }
        // Rare: the time that a new leader adds is longer than what passed since.
        if clock.deadline < clock.scheduled {
            self.schedule.remove(&(clock.scheduled, id));
            clock.scheduled = clock.deadline;
            self.schedule.insert((clock.scheduled, id));
        }
        Renewed::Ttl(clock.ttl)
    }

    /// What is left of a lease while the clock runs.
    pub(crate) fn time_to_live(&self, now: Instant, id: LeaseId) -> Option<LeaseTime> {
        let clock = self.leases.get(&id)?;
        // The clock of a turn stands still, that of etcd does not: a grant and a question in one
        // turn are a moment apart all the same.
        let left = clock.deadline.since(now).saturating_sub(Duration::from_nanos(1)).as_secs();
        Some(LeaseTime { granted: clock.ttl, remaining: i64::try_from(left).unwrap_or(i64::MAX) })
    }

    /// All leases, those that end first at the front (by id while the clock stands).
    pub(crate) fn by_remaining(&self) -> Vec<LeaseId> {
        if self.running {
            // Those whose end was proposed come first.
            let place = |c: &Clock| (!c.expired).then_some(c.deadline);
            let mut leases: Vec<_> = self.leases.iter().map(|(id, c)| (place(c), *id)).collect();
            leases.sort_unstable();
            return leases.into_iter().map(|(_, id)| id).collect();
        }
        self.leases.keys().copied().collect()
    }

    /// Leases whose time is over and whose end may be proposed now, at most up to `limit` in
    /// flight. Each is given out once until [`LeaseClock::retry`].
    pub(crate) fn expire(&mut self, now: Instant, limit: usize) -> Vec<LeaseId> {
        let mut over = Vec::new();
        while self.running && self.in_flight < limit {
            let Some((scheduled, id)) = self.schedule.first().copied() else { break };
            if scheduled > now {
                break;
            }
            self.schedule.pop_first();
            let clock = self.leases.get_mut(&id).expect("what is scheduled is a lease");
            if clock.deadline > now {
                clock.scheduled = clock.deadline;
                self.schedule.insert((clock.scheduled, id));
                continue;
            }
            clock.expired = true;
            self.in_flight += 1;
            over.push(id);
        }
        over
    }

    /// A revoke could not be proposed: try again from `at` on.
    pub(crate) fn retry(&mut self, id: LeaseId, at: Instant) {
        if let Some(clock) = self.leases.get_mut(&id).filter(|c| c.expired) {
            clock.expired = false;
            (clock.deadline, clock.scheduled) = (at, at);
            self.in_flight -= 1;
            self.schedule.insert((at, id));
        }
    }

    /// When a lease must be looked at next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant(0) + Duration::from_secs(secs)
    }

    #[test]
    fn a_lease_ends_once_and_only_while_this_member_leads() {
        let mut clock = LeaseClock::default();
        clock.granted(at(0), LeaseId(1), 10, 0);
        assert!(clock.expire(at(100), 9).is_empty(), "a follower ends nothing");
        clock.start(at(100), Duration::from_secs(1));
        assert!(clock.expire(at(110), 9).is_empty());
        assert_eq!(clock.expire(at(111), 9), [LeaseId(1)]);
        assert!(clock.expire(at(200), 9).is_empty(), "it is on its way");
        assert_eq!(clock.renew(at(200), LeaseId(1)), Renewed::Expiring);
        clock.retry(LeaseId(1), at(205));
        assert_eq!(clock.expire(at(205), 9), [LeaseId(1)]);
        clock.removed(LeaseId(1));
        assert_eq!(clock.renew(at(206), LeaseId(1)), Renewed::Unknown);
    }

    #[test]
    fn renewing_gives_the_full_time_and_forgets_the_checkpoint() {
        let mut clock = LeaseClock::default();
        clock.start(at(0), Duration::ZERO);
        clock.granted(at(0), LeaseId(1), 10, 0);
        clock.checkpointed(at(0), LeaseId(1), 3);
        assert_eq!(clock.renew(at(9), LeaseId(1)), Renewed::Ttl(10));
        assert_eq!(
            clock.time_to_live(at(12) + Duration::from_millis(1), LeaseId(1)),
            Some(LeaseTime { granted: 10, remaining: 6 })
        );
        clock.stop();
        clock.start(at(20), Duration::ZERO);
        assert_eq!(clock.next_deadline(), Some(at(30)));
    }

    #[test]
    fn what_is_left_is_less_than_what_was_granted_from_the_first_moment_on() {
        let mut clock = LeaseClock::default();
        clock.start(at(0), Duration::ZERO);
        clock.granted(at(0), LeaseId(1), 90, 0);
        let left = |seconds| clock.time_to_live(at(seconds), LeaseId(1)).unwrap().remaining;
        assert_eq!((left(0), left(1), left(89), left(90), left(91)), (89, 88, 0, 0, 0));
    }

    #[test]
    fn what_is_renewed_ends_at_its_own_time_and_not_when_it_is_looked_at() {
        let mut clock = LeaseClock::default();
        clock.granted(at(0), LeaseId(1), 10, 0);
        clock.granted(at(0), LeaseId(2), 10, 0);
        clock.start(at(0), Duration::from_secs(5));
        assert_eq!(clock.renew(at(1), LeaseId(1)), Renewed::Ttl(10));
        assert_eq!(clock.next_deadline(), Some(at(11)), "sooner than a new leader gave it");
        assert_eq!(clock.by_remaining(), [LeaseId(1), LeaseId(2)]);
        assert_eq!(clock.renew(at(10), LeaseId(1)), Renewed::Ttl(10));
        assert_eq!(clock.by_remaining(), [LeaseId(2), LeaseId(1)]);
        assert!(clock.expire(at(11), 9).is_empty());
        assert_eq!(clock.expire(at(19), 9), [LeaseId(2)]);
        assert_eq!(clock.by_remaining(), [LeaseId(2), LeaseId(1)], "what ends comes first");
        assert_eq!(clock.expire(at(20), 9), [LeaseId(1)]);
        clock.removed(LeaseId(1));
        clock.removed(LeaseId(2));
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn what_is_left_of_a_long_lease_is_told_every_five_minutes() {
        let mut clock = LeaseClock::default();
        clock.start(at(0), Duration::ZERO);
        clock.granted(at(0), LeaseId(1), 1_000, 0);
        clock.granted(at(0), LeaseId(2), 300, 0);
        assert!(clock.due_checkpoints(at(299), 9).is_empty());
        assert_eq!(clock.due_checkpoints(at(300), 9), [(LeaseId(1), 700)]);
        clock.checkpointed(at(301), LeaseId(1), 700);
        assert_eq!(clock.due_checkpoints(at(601), 9), [(LeaseId(1), 399)]);
        clock.checkpointed(at(602), LeaseId(1), 399);
        assert_eq!(clock.renew(at(650), LeaseId(1)), Renewed::Ttl(1_000));
        assert_eq!(clock.due_checkpoints(at(651), 9), [(LeaseId(1), 0)]);
        clock.stop();
        assert!(clock.due_checkpoints(at(9_000), 9).is_empty());
    }

    #[test]
    fn revokes_in_flight_are_limited() {
        let mut clock = LeaseClock::default();
        clock.start(at(0), Duration::ZERO);
        for id in 0..10 {
            clock.granted(at(0), LeaseId(id), 1, 0);
        }
        assert_eq!(clock.expire(at(5), 4).len(), 4);
        assert!(clock.expire(at(5), 4).is_empty());
        clock.removed(LeaseId(0));
        assert_eq!(clock.expire(at(5), 4).len(), 1);
    }
}
