//! Preallocation of the log: zeroes are written ahead of the records.
//!
//! A sync of a record that lands in written space is one write of the disk; in space that is only
//! reserved it also changes the file system's metadata (measured: 203 and 108 us per commit). The
//! zeroes cost a write and a sync of their own, so they are made in chunks, at a pace, and only
//! while the log grows slowly: large groups share that cost anyway.

use std::time::Duration;

use env::Instant;

/// Bytes of zeroes written at once.
pub(crate) const CHUNK_BYTES: usize = 512 << 10;
/// Written zeroes that are enough.
const ENOUGH_BYTES: u64 = 1 << 20;
/// Time between chunks.
const PAUSE: Duration = Duration::from_millis(100);
/// Growth of the log per pause beyond which nothing is prepared: 16 MB/s.
const FAST_BYTES: u64 = 16_000_000 / 10;

/// The pace of preparation.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When it was last decided, and the bytes appended to the log until then.
    last: Option<(Instant, u64)>,
}

impl Pace {
    /// Whether a chunk should be written now. `appended` counts the bytes of records since the
    /// start, `ahead` those of zeroes that are there.
    pub(crate) fn is_due(&mut self, now: Instant, appended: u64, ahead: u64) -> bool {
        let Some((at, before)) = self.last else {
            self.last = Some((now, appended));
            return false;
        };
        if now < at + PAUSE {
            return false;
        }
        self.last = Some((now, appended));
        let pauses = (now.since(at).as_nanos() / PAUSE.as_nanos()) as u64;
        let grew = appended.saturating_sub(before);
        // A log at rest needs nothing more, and an idle server stays idle.
        grew > 0 && grew <= FAST_BYTES.saturating_mul(pauses) && ahead < ENOUGH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_grows_slowly_is_prepared() {
        let at = |ms| Instant(0) + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(!pace.is_due(at(0), 1_000, 0), "the rate is not known yet");
        assert!(!pace.is_due(at(50), 2_000, 0), "too early");
        assert!(pace.is_due(at(100), 3_000, 0));
        assert!(!pace.is_due(at(200), 4_000, ENOUGH_BYTES), "enough");
        assert!(!pace.is_due(at(300), 4_000, 0), "at rest");
        assert!(!pace.is_due(at(400), 4_000 + FAST_BYTES + 1, 0), "too fast");
        assert!(pace.is_due(at(900), 4_000 + 2 * FAST_BYTES, 0), "slow over the whole time");
    }
}
