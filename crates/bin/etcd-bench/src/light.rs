//! `etcd-bench light`.

use std::time::Duration;

use bench::Shape;
use bench::light::{self, Pace, Plan, Work};
use cli::output;

#[derive(Debug, clap::Args)]
pub struct LightArgs {
    /// Client ports, with commas between them: connections are dealt out among them.
    #[arg(long, default_value = "2379", value_delimiter = ',')]
    port: Vec<u16>,
    #[command(flatten)]
    access: crate::access::AccessArgs,
    /// Process ids of the servers, to measure their CPU time and memory together.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// As of `load`, or keep-alive.
    #[arg(long, default_value = "put")]
    shape: String,
    /// Connections.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Calls in flight over all connections; of keep-alive, leases.
    #[arg(long, default_value_t = 1000)]
    in_flight: usize,
    /// Calls per second, whether others are answered or not: latency counts from the time at which
    /// a call was to be sent.
    #[arg(long, conflicts_with = "in_flight")]
    rate: Option<u64>,
    /// Streams of each connection for keep-alive.
    #[arg(long, default_value_t = 10)]
    streams: usize,
    /// Seconds to measure.
    #[arg(long, default_value = "5", value_parser = crate::seconds)]
    seconds: Duration,
    /// Different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seed of the random keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &LightArgs) -> Result<(), String> {
    let shape = Shape::ALL.into_iter().find(|(name, _)| *name == args.shape);
    let work = match (shape, args.shape.as_str()) {
        (Some((_, shape)), _) => Work::Calls(shape),
        (None, "keep-alive") => Work::KeepAlive { streams: args.streams },
        (None, name) => return Err(format!("unknown shape {name:?}")),
    };
    let pace = match args.rate {
        Some(per_second) => Pace::Open { per_second },
        None => Pace::Closed { in_flight: args.in_flight },
    };
    let plan = Plan {
        ports: args.port.clone(),
        access: args.access.read()?,
        pids: args.pid.clone(),
        work,
        pace,
        connections: args.connections,
        time: args.seconds,
        keys: args.keys,
        value_bytes: args.value_bytes,
        seed: args.seed,
    };
    let report = light::run(&plan).map_err(|e| format!("127.0.0.1, {:?}: {e}", args.port))?;
    if let Some(why) = report.first_failure {
        output::err(format!("etcd-bench: the first failure: {why}"));
    }
    let figures = report.figures.0.iter().map(|(name, v)| format!("{name}={v:.2}"));
    let figures: Vec<_> = figures.collect();
    output::out(format!("{} {}\n", args.shape, figures.join(" ")));
    Ok(())
}
