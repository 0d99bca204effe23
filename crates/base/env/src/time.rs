//! Clock values. Automata receive them as arguments; they never read a clock (invariant 1).

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the member's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Time passed since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

/// A point on the wall clock, in nanoseconds since the Unix epoch. Shown to users and mixed into
/// ids; never compared for ordering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn unix_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }
}
