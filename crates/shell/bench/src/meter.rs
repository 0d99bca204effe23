//! What servers and this process used while something was measured.

use std::time::{Duration, Instant};

use crate::figures::{Figures, name};
use crate::histogram::Histogram;
use crate::process;

/// CPU times at the beginning.
#[derive(Debug)]
pub struct Meter {
    pids: Vec<u32>,
    server: Option<Duration>,
    own: Duration,
    began: Instant,
}

fn server_cpu(pids: &[u32]) -> Option<Duration> {
    process::cpu_of(pids).filter(|_| !pids.is_empty())
}

fn own_cpu() -> Duration {
    process::cpu(std::process::id()).unwrap_or_default()
}

/// What was used since the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    server: Option<Duration>,
    own: Duration,
    took: Duration,
}

impl Meter {
    /// Begins to measure, with the processes of the servers.
    #[must_use]
    pub fn start(pids: &[u32]) -> Self {
        let (server, own) = (server_cpu(pids), own_cpu());
        Self { pids: pids.to_vec(), server, own, began: Instant::now() }
    }

    /// Ends it.
    #[must_use]
    pub fn stop(&self) -> Used {
        let took = self.began.elapsed();
        let server = server_cpu(&self.pids).zip(self.server);
        let own = own_cpu().saturating_sub(self.own);
        Used { server: server.map(|(after, before)| after.saturating_sub(before)), own, took }
    }
}

impl Used {
    /// The figures of operations that ended meanwhile.
    #[must_use]
    pub fn figures(&self, latency: &Histogram, failed: u64) -> Figures {
        let mut figures = Figures::default();
        let answered = latency.len() as f64;
        figures.set(name::PER_SECOND, answered / self.took.as_secs_f64());
        figures.set_latency(latency);
        figures.set(name::FAILED, failed as f64);
        let per_operation = |time: Duration| time.as_secs_f64() * 1e6 / answered.max(1.0);
        figures.set(name::CLIENT_CPU, per_operation(self.own));
        if let Some(server) = self.server {
            figures.set(name::CPU, per_operation(server));
        }
        figures
    }
}
