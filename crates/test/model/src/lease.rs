//! Leases: they live for their time after the last renewal, and end once.
//!
//! Only leases whose id was granted once are looked at: of the others nobody knows which one an
//! answer meant.

use std::collections::BTreeMap;

use api::error::ApiError;

use crate::history::{History, Operation, Outcome, Request, Response};
use crate::oracle::Replay;
use crate::violation::{Property, Violation};

/// A time at which a lease was certainly alive, with its seconds to live from then on.
#[derive(Clone, Copy, Debug)]
struct Alive {
    call: u64,
    returned: u64,
    ttl: i64,
}

impl Alive {
    fn until(&self) -> u64 {
        let secs = u64::try_from(self.ttl).unwrap_or(0);
        self.call.saturating_add(secs.saturating_mul(1_000_000_000))
    }
}

#[derive(Debug, Default)]
struct Life {
    grants: usize,
    /// Granted before the history began.
    of_start: bool,
    alive: Vec<Alive>,
    /// Calls of revokes that may have had effect.
    revokes: Vec<(u64, u64)>,
}

fn lives(history: &History) -> BTreeMap<i64, Life> {
    let mut lives: BTreeMap<i64, Life> = BTreeMap::new();
    for op in &history.operations {
        match op.taken() {
            Request::LeaseGrant(r) if !matches!(op.outcome, Outcome::Refused(_)) => {
                let life = lives.entry(r.id).or_default();
                life.grants += 1;
                if let Some(Response::LeaseGrant(a)) = op.response() {
                    life.alive.push(Alive { call: op.call, returned: op.end(), ttl: a.ttl });
                }
            }
            Request::LeaseKeepAlive(id) => {
                if let Some(Response::LeaseKeepAlive(a)) = op.response()
                    && a.ttl > 0
                {
                    let alive = Alive { call: op.call, returned: op.end(), ttl: a.ttl };
                    lives.entry(id).or_default().alive.push(alive);
                }
            }
            Request::LeaseRevoke(r) if !matches!(op.outcome, Outcome::Refused(_)) => {
                lives.entry(r.id).or_default().revokes.push((op.call, op.end()));
            }
            _ => {}
        }
    }
    for id in history.start().leases().keys() {
        let life = lives.entry(*id).or_default();
        (life.of_start, life.grants) = (true, life.grants + 2);
    }
    lives
}

/// The times before which leases cannot have ended by themselves, one for each end that there can
/// have been.
pub(crate) fn earliest_ends(history: &History) -> Vec<(i64, u64)> {
    let mut ends = Vec::new();
    for (id, life) in lives(history) {
        let untils = life.alive.iter().map(Alive::until);
        // Renewals tell more, but only of the lease that they meant.
        let end = if life.grants == 1 { untils.max() } else { untils.min() };
        let end = if life.of_start { 0 } else { end.unwrap_or(0) };
        ends.extend(std::iter::repeat_n((id, end), life.grants.max(1)));
    }
    ends
}

/// Whether a lease must have been alive during all of an operation.
fn certainly_alive(life: &Life, op: &Operation) -> bool {
    let until = life.alive.iter().filter(|a| a.returned < op.call).map(Alive::until).max();
    let revoked = life.revokes.iter().any(|(call, _)| *call <= op.end());
    life.grants == 1 && !revoked && until.is_some_and(|until| op.end() < until)
}

/// Checks that no lease ends early or comes back.
///
/// # Errors
/// [`Property::Leases`].
pub fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    let lives = lives(history);
    let fail = |what: String| Err(Violation::new(Property::Leases, what));
    for (revision, lease) in &replay.expired {
        let Some(life) = lives.get(lease).filter(|life| life.grants == 1) else { continue };
        let seen = replay.seen().at(*revision);
        let revoked = life.revokes.iter().any(|(call, _)| *call <= seen);
        let until = life.alive.iter().map(Alive::until).max();
        if !revoked && until.is_some_and(|until| seen < until) {
            return fail(format!(
                "lease {lease:x} ended at revision {revision}, seen at {seen}, before {until:?}"
            ));
        }
    }
    for op in &history.operations {
        let lease = match &op.request {
            Request::LeaseKeepAlive(id) => *id,
            Request::Put(r) => r.lease,
            _ => continue,
        };
        let Some(life) = lives.get(&lease) else { continue };
        let gone = match &op.outcome {
            Outcome::Answered(Response::LeaseKeepAlive(a)) => {
                let revoked = life.revokes.iter().any(|(_, end)| *end < op.call);
                // A leader renews what it has not yet seen revoked, as etcd's does
                // (`FastLeaseKeepAlive`), though another member has.
                if a.ttl > 0 && revoked && life.grants == 1 && history.one_member {
                    return fail(format!("a revoked lease was renewed: {op:?}"));
                }
                a.ttl <= 0
            }
            Outcome::Refused(status) => status.message == ApiError::LeaseNotFound.text(),
            Outcome::Answered(_) | Outcome::Unknown => false,
        };
        if gone && certainly_alive(life, op) {
            return fail(format!("a lease was gone before its time: {op:?}"));
        }
    }
    Ok(())
}
