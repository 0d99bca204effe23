//! The machine's clocks.

use env::{Instant, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Reads the machine's clocks. The monotonic one counts through suspension, so a member that was
/// asleep knows that its time has passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Now on the monotonic clock.
    #[must_use]
    pub fn now(self) -> Instant {
        Instant(nanos(ClockId::Boottime))
    }

    /// Now on the wall clock.
    #[must_use]
    pub fn wall(self) -> WallTime {
        WallTime(nanos(ClockId::Realtime))
    }
}

fn nanos(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    // Clocks before 1970 are shown as 1970.
    u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000)
        + u64::try_from(t.tv_nsec).unwrap_or(0)
}
