//! When the calls of an open loop are to be sent.
//!
//! Call `n` is intended at `n / rate` seconds after the start, whatever happened to the calls
//! before it, and its latency counts from then. A closed loop, or one that counts from the moment
//! of sending, stops asking while the server stalls and so leaves out just the calls that would
//! have waited longest ("coordinated omission": Tene, How NOT to Measure Latency, 2013).

/// Calls per second at most: a thread alone does not send more.
pub const MAX_RATE: u64 = 1_000_000;

/// A fixed rate from a start on. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: u64,
    rate: u64,
    next: u64,
}

impl Schedule {
    /// `rate` calls per second.
    ///
    /// # Errors
    /// The rate is 0 or beyond [`MAX_RATE`].
    pub fn new(start: u64, rate: u64) -> Result<Self, String> {
        if !(1..=MAX_RATE).contains(&rate) {
            return Err(format!("a rate of {rate}: it must be from 1 to {MAX_RATE} per second"));
        }
        Ok(Self { start, rate, next: 0 })
    }

    /// When the next call is intended.
    #[must_use]
    pub fn next(&self) -> u64 {
        // From the number of the call, so that roundings do not add up.
        let offset = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate);
        self.start.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    /// Takes the next call if it is due, and tells when it was intended.
    pub fn take_due(&mut self, now: u64) -> Option<u64> {
        let intended = self.next();
        (intended <= now).then(|| {
            self.next += 1;
            intended
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_their_times_through_a_stall() {
        let mut schedule = Schedule::new(1_000, 1_000).unwrap();
        assert_eq!(schedule.take_due(999), None);
        assert_eq!(schedule.take_due(1_000), Some(1_000));
        assert_eq!(schedule.take_due(1_000), None);
        // Five milliseconds in which nothing was sent: all five calls are due, each since its time.
        let now = 1_000 + 5_000_000;
        let due: Vec<_> = std::iter::from_fn(|| schedule.take_due(now)).collect();
        assert_eq!(due, [1, 2, 3, 4, 5].map(|n| 1_000 + n * 1_000_000));
        assert_eq!(schedule.next(), 1_000 + 6_000_000);
    }

    #[test]
    fn a_rate_that_divides_nothing_does_not_drift() {
        let mut schedule = Schedule::new(0, 7).unwrap();
        let mut last = 0;
        for _ in 0..7 * 3_600 {
            last = schedule.take_due(u64::MAX).unwrap();
        }
        assert_eq!(last, (7 * 3_600 - 1) * 1_000_000_000 / 7);
        assert_eq!(schedule.next(), 3_600 * 1_000_000_000);
    }

    #[test]
    fn rates_have_bounds() {
        assert!(Schedule::new(0, 0).is_err());
        assert!(Schedule::new(0, MAX_RATE).is_ok());
        assert!(Schedule::new(0, MAX_RATE + 1).is_err());
    }
}
