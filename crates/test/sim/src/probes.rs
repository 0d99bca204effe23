//! The listener behind `sometimes!` and `buggify!` in the member: counts the rare paths that were
//! taken, and says when to do something odd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use env::{Entropy, Hook, SplitMix};

/// Every probe that some seed must reach.
pub fn all() -> impl Iterator<Item = &'static str> {
    raft::PROBES.iter().chain(member::PROBES).chain(calls::PROBES).chain(USERS).copied()
}

/// What users must meet, as the trail that they leave shows.
pub const USERS: &[&str] = &[DENIED_AT_APPLY, OLD_AT_APPLY, GONE, REVOKED_AMID_WATCH];

pub(crate) const DENIED_AT_APPLY: &str = "users: an entry is refused that the member let pass";
pub(crate) const OLD_AT_APPLY: &str = "users: an entry is signed as of an old auth revision";
pub(crate) const GONE: &str = "users: a token of a user comes that is no more";
pub(crate) const REVOKED_AMID_WATCH: &str = "users: a watcher loses a role while it watches";

#[derive(Debug)]
struct State {
    reached: BTreeSet<&'static str>,
    /// Of a thousand times, how many each place strikes: most places never do in a seed.
    places: BTreeMap<&'static str, u64>,
    entropy: SplitMix,
    /// Whether places strike.
    on: bool,
}

/// What one seed has reached.
#[derive(Debug)]
pub(crate) struct Probes(Mutex<State>);

impl Probes {
    pub(crate) fn new(seed: u64) -> Self {
        let (reached, places) = (BTreeSet::new(), BTreeMap::new());
        // Its own numbers: that a place is asked must not change the rest of the schedule.
        let entropy = SplitMix::new(!seed);
        Self(Mutex::new(State { reached, places, entropy, on: true }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A member may have panicked, though not in here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing odd is done any more.
    pub(crate) fn heal(&self) {
        self.state().on = false;
    }

    /// What was reached.
    pub(crate) fn reached(&self) -> BTreeSet<&'static str> {
        self.state().reached.clone()
    }
}

impl Hook for Probes {
    fn reached(&self, probe: &'static str) {
        self.state().reached.insert(probe);
    }

    fn strikes(&self, place: &'static str) -> bool {
        let state = &mut *self.state();
        if !state.on {
            return false;
        }
        let entropy = &mut state.entropy;
        let permille = *state
            .places
            .entry(place)
            .or_insert_with(|| if entropy.below(4) == 0 { 10 + entropy.below(400) } else { 0 });
        permille > 0 && entropy.below(1_000) < permille
    }
}
