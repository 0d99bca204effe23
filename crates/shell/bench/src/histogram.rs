//! Latencies in buckets of about 3 % width.

const SUB: u64 = 32;

/// Counts of durations in nanoseconds, from 1 µs to about an hour.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 64 * SUB as usize], total: 0 }
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(SUB);
    let power = 63 - nanos.leading_zeros() as u64;
    let shift = power - SUB.trailing_zeros() as u64;
    (power * SUB + (nanos >> shift) % SUB) as usize
}

fn lower(bucket: usize) -> u64 {
    let (power, within) = (bucket as u64 / SUB, bucket as u64 % SUB);
    let shift = power.saturating_sub(SUB.trailing_zeros() as u64);
    (SUB + within) << shift
}

impl Histogram {
    /// Adds one duration.
    pub fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The duration that a share of all stays below, in microseconds.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return lower(bucket) as f64 / 1_000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::default();
        for us in 1..=1_000 {
            histogram.add(us * 1_000);
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let got = histogram.quantile_us(share);
            assert!((got - expected).abs() / expected < 0.04, "{share}: {got}");
        }
    }
}
