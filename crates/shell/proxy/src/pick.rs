//! Which remote a new connection goes to: SRV's rules (RFC 2782) over those that answer.
//!
//! Invariant: a remote is inactive from a failed connection to it until one succeeds; inactive ones
//! are never picked.
//= etcd 3.7.3: server/proxy/tcpproxy/userspace.go#pick

use std::sync::Mutex;

pub use discovery::Record as Target;

/// The remotes of a proxy and which of them answer.
#[derive(Debug)]
pub struct Remotes {
    targets: Vec<Target>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_active: Vec<bool>,
    /// Turns taken among those without weight.
    turns: usize,
    /// A xorshift generator; never 0.
    random: u64,
}

impl State {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn next_of(&mut self, places: &[usize]) -> usize {
        let place = places[self.turns % places.len()];
        self.turns = self.turns.wrapping_add(1);
        place
    }
}

impl Remotes {
    /// All active at first. Picks follow from `seed`.
    #[must_use]
    pub fn new(targets: Vec<Target>, seed: u64) -> Self {
        let is_active = vec![true; targets.len()];
        Self { targets, state: Mutex::new(State { is_active, turns: 0, random: seed | 1 }) }
    }

    /// The target at a place.
    #[must_use]
    pub fn target(&self, place: usize) -> &Target {
        &self.targets[place]
    }

    /// All targets.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Says whether the remote at a place answers.
    pub fn set_active(&self, place: usize, is_active: bool) {
        self.state().is_active[place] = is_active;
    }

    /// The places of those that did not answer.
    #[must_use]
    pub fn inactive(&self) -> Vec<usize> {
        let state = self.state();
        (0..self.targets.len()).filter(|&place| !state.is_active[place]).collect()
    }

    /// The place of the remote that the next connection goes to; `None` if none is active.
    ///
    /// Unlike etcd, which lets the first of two equal weights have all, and takes turns among all
    /// priorities, the weights are the shares and the priority holds (COMPAT.md).
    #[must_use]
    pub fn pick(&self) -> Option<usize> {
        let mut state = self.state();
        let active = || (0..self.targets.len()).filter(|&place| state.is_active[place]);
        let best = active().map(|place| self.targets[place].priority).min()?;
        let (weighted, unweighted): (Vec<usize>, Vec<usize>) = active()
            .filter(|&place| self.targets[place].priority == best)
            .partition(|&place| self.targets[place].weight > 0);
        if weighted.is_empty() {
            return Some(state.next_of(&unweighted));
        }
        // RFC 2782: beside weights, those without one have a very small chance.
        if !unweighted.is_empty() && state.below(100) == 1 {
            return Some(state.next_of(&unweighted));
        }
        let weight = |place: usize| u64::from(self.targets[place].weight);
        let sum: u64 = weighted.iter().map(|&place| weight(place)).sum();
        let mut left = state.below(sum);
        for &place in &weighted {
            match left.checked_sub(weight(place)) {
                Some(less) => left = less,
                None => return Some(place),
            }
        }
        unreachable!("what is below the sum of all is within one of them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(rows: &[(u16, u16)]) -> Remotes {
        let target = |&(priority, weight)| Target { priority, weight, ..Target::default() };
        Remotes::new(rows.iter().map(target).collect(), 0x9E37_79B9_7F4A_7C15)
    }

    fn picks(remotes: &Remotes, count: usize) -> Vec<usize> {
        let mut picks = vec![0; remotes.targets().len()];
        for _ in 0..count {
            picks[remotes.pick().unwrap()] += 1;
        }
        picks
    }

    #[test]
    fn those_without_weight_take_turns() {
        let remotes = remotes(&[(0, 0), (0, 0), (0, 0)]);
        assert_eq!(picks(&remotes, 300), [100, 100, 100]);
        remotes.set_active(1, false);
        assert_eq!(remotes.inactive(), [1]);
        assert_eq!(picks(&remotes, 300), [150, 0, 150]);
        remotes.set_active(1, true);
        assert!(picks(&remotes, 300)[1] > 0);
        (0..3).for_each(|place| remotes.set_active(place, false));
        assert_eq!(remotes.pick(), None);
    }

    #[test]
    fn a_higher_priority_waits_until_all_of_the_lower_are_gone() {
        let remotes = remotes(&[(10, 0), (1, 0), (1, 5), (10, 0)]);
        let picked = picks(&remotes, 10_000);
        assert_eq!((picked[0], picked[3]), (0, 0));
        assert!(picked[1] > 0 && picked[1] < 300, "{picked:?}");
        remotes.set_active(1, false);
        remotes.set_active(2, false);
        assert_eq!(picks(&remotes, 100), [50, 0, 0, 50]);
    }

    #[test]
    fn weights_are_shares() {
        let remotes = remotes(&[(0, 1), (0, 1), (0, 2)]);
        let picked = picks(&remotes, 40_000);
        for (picked, share) in picked.iter().zip([10_000, 10_000, 20_000]) {
            assert!(picked.abs_diff(share) < 600, "{picked} of {share}");
        }
    }
}
