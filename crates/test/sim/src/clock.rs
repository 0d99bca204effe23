//! A member's monotonic clock: it begins anywhere, runs a little slow, and stands still while its
//! machine is suspended.
//!
//! Invariant: no clock runs faster than the world's. What a member may do only after some time has
//! passed (end a lease) is so never early by the recorder's clock, however the clocks differ.

use env::Instant;

/// Parts of which [`Clock::rate`] counts.
const WHOLE: u64 = 1_000;

/// The clock of one boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// World time and shown time of the last change of its course.
    world: u64,
    shown: u64,
    /// Nanoseconds shown per thousand of the world's.
    rate: u64,
}

impl Clock {
    /// A clock that shows `shown` at world time `now`.
    pub(crate) fn new(now: u64, shown: u64, rate: u64) -> Self {
        assert!((1..=WHOLE).contains(&rate), "it runs, and not too fast");
        Self { world: now, shown, rate }
    }

    /// What it shows at world time `now`.
    pub(crate) fn at(&self, now: u64) -> Instant {
        Instant(self.shown + now.saturating_sub(self.world) * self.rate / WHOLE)
    }

    /// The world time at which it shows `instant`, or the time of its last change if that is later.
    pub(crate) fn when(&self, instant: Instant) -> u64 {
        self.world + (instant.0.saturating_sub(self.shown) * WHOLE).div_ceil(self.rate)
    }

    /// Stands still from `now` until `until`.
    pub(crate) fn suspend(&mut self, now: u64, until: u64) {
        (self.shown, self.world) = (self.at(now).0, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_clock_reaches_an_instant_when_it_says() {
        for rate in [1, 950, 999, 1_000] {
            let mut clock = Clock::new(70, 5_000, rate);
            for instant in [0, 5_000, 5_001, 9_999_999] {
                let when = clock.when(Instant(instant));
                assert!(clock.at(when) >= Instant(instant));
                assert!(when == 70 || clock.at(when - 1) < Instant(instant));
            }
            let shown = clock.at(1_000);
            clock.suspend(1_000, 9_000);
            assert_eq!((clock.at(1_000), clock.at(9_000)), (shown, shown));
            assert!(clock.at(20_000) > shown);
        }
    }
}
