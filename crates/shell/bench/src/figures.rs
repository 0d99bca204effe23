//! Named figures of one run.

use std::collections::BTreeMap;

use crate::histogram::Histogram;
use crate::process;

/// Names of figures. A unit is the end of a name: `_us`, `_ms`, `_s`, `_mb` (10^6 bytes).
pub mod name {
    #![allow(missing_docs)]
    pub const PER_SECOND: &str = "per_second";
    pub const P50: &str = "p50_us";
    pub const P99: &str = "p99_us";
    pub const P999: &str = "p999_us";
    pub const CPU: &str = "cpu_us";
    pub const FAILED: &str = "failed";
    pub const ANON: &str = "anon_mb";
    pub const PEAK_ANON: &str = "peak_anon_mb";
    pub const EXTRA_ANON: &str = "extra_anon_mb";
    pub const FILE: &str = "file_mb";
    pub const SECONDS: &str = "time_s";
    pub const IDLE_P99: &str = "idle_p99_us";
    pub const BUSY_OVER_IDLE: &str = "busy_over_idle";
    pub const FAILOVER: &str = "failover_ms";
    pub const SLOWEST_FAILOVER: &str = "slowest_failover_ms";
    pub const STALL: &str = "stall_ms";
    pub const CPU_PER_SECOND: &str = "cpu_ms_per_s";
    pub const CLIENT_CPU: &str = "client_cpu_us";
    pub const LISTS_PER_SECOND: &str = "lists_per_second";
    pub const LATE_P99: &str = "late_p99_us";
    pub const BESIDE_P99: &str = "beside_p99_us";
}

/// Figures by name.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub BTreeMap<&'static str, f64>);

impl Figures {
    /// Sets one.
    pub fn set(&mut self, name: &'static str, value: f64) {
        self.0.insert(name, value);
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Sets the quantiles of a latency.
    pub fn set_latency(&mut self, latency: &Histogram) {
        self.set(name::P50, latency.quantile_us(0.5));
        self.set(name::P99, latency.quantile_us(0.99));
        self.set(name::P999, latency.quantile_us(0.999));
    }

    /// Sets the memory of processes together as it is now.
    pub fn set_memory(&mut self, pids: &[u32]) {
        let all: Vec<_> = pids.iter().filter_map(|pid| process::memory(*pid)).collect();
        if !all.is_empty() {
            self.set(name::ANON, all.iter().map(|m| m.anonymous).sum::<u64>() as f64 / 1e6);
            self.set(name::FILE, all.iter().map(|m| m.file).sum::<u64>() as f64 / 1e6);
        }
    }
}

/// The median of some numbers, `None` of none.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 {
        return Some(numbers[middle]);
    }
    Some((numbers.get(middle.checked_sub(1)?)? + numbers[middle]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
