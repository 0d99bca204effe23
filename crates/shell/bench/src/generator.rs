//! Which of the two generators asks.

use std::time::Duration;

use crate::access::Access;
use crate::figures::Figures;
use crate::light::{self, Pace, Work};
use crate::load::{self, Load};
use crate::streams::{self, Renewers};

/// The generators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generator {
    /// The one over a whole HTTP/2 library: [`load`] and [`streams`].
    Full,
    /// The one of prepared frames: [`light`]. It takes part in closed loops and keep-alives; what
    /// else a case does is done as with the full one.
    #[default]
    Light,
}

impl Generator {
    /// Both, with the names of the command line.
    pub const ALL: [(&'static str, Generator); 2] =
        [("full", Generator::Full), ("light", Generator::Light)];

    /// Runs a closed loop. Must not run on a runtime.
    ///
    /// # Errors
    /// A server does not answer, or the load is beyond the generator's limits.
    pub fn run(self, load: &Load) -> std::io::Result<Figures> {
        match self {
            Generator::Full => load::block_on(load::run(load)),
            Generator::Light => told(&light::Plan {
                ports: load.ports.clone(),
                access: load.access.clone(),
                pids: load.pids.clone(),
                work: Work::Calls(load.shape),
                pace: Pace::Closed { in_flight: load.in_flight },
                connections: load.connections,
                time: load.time,
                keys: load.keys,
                value_bytes: load.value_bytes,
                seed: load.seed,
            }),
        }
    }

    /// Renews leases. Must not run on a runtime.
    ///
    /// # Errors
    /// The server does not serve leases.
    pub fn keep_alive(
        self,
        port: u16,
        pid: u32,
        time: Duration,
        renewers: Renewers,
    ) -> std::io::Result<Figures> {
        match self {
            Generator::Full => load::block_on(streams::keep_alive(port, pid, time, renewers)),
            Generator::Light => told(&light::Plan {
                ports: vec![port],
                access: Access::default(),
                pids: vec![pid],
                work: Work::KeepAlive { streams: renewers.streams },
                pace: Pace::Closed {
                    in_flight: renewers.connections * renewers.streams * renewers.leases,
                },
                connections: renewers.connections,
                time,
                keys: 1,
                value_bytes: 0,
                seed: 1,
            }),
        }
    }
}

/// Runs a plan and says how its first failure happened, which figures do not tell.
pub(crate) fn told(plan: &light::Plan) -> std::io::Result<Figures> {
    let report = light::run(plan)?;
    if let Some(why) = report.first_failure {
        cli::output::err(format!("etcd-bench: the first failure: {why}"));
    }
    Ok(report.figures)
}
