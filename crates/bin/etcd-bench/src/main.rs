//! Loads an etcd on this machine and prints figures, one line per run.

use std::process::ExitCode;
use std::time::Duration;

use bench::{Load, Shape, run};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Closed-loop load against 127.0.0.1.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Client port of the server.
    #[arg(long, default_value_t = 2379)]
    port: u16,
    /// Process id of the server, to measure its CPU time.
    #[arg(long)]
    pid: Option<u32>,
    /// put, range, serializable-range, compare-and-put or grant.
    #[arg(long, default_value = "put")]
    shape: String,
    /// Connections.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Requests in flight over all connections.
    #[arg(long, default_value_t = 1000)]
    in_flight: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
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

fn main() -> ExitCode {
    let args = Args::parse();
    let Some((_, shape)) = Shape::ALL.into_iter().find(|(name, _)| *name == args.shape) else {
        eprintln!("etcd-bench: unknown shape {:?}", args.shape);
        return ExitCode::from(2);
    };
    let load = Load {
        port: args.port,
        pid: args.pid,
        shape,
        connections: args.connections.max(1),
        in_flight: args.in_flight.max(1),
        time: Duration::from_secs_f64(args.seconds.clamp(0.1, 3_600.0)),
        keys: args.keys.max(1),
        value_bytes: args.value_bytes,
        seed: args.seed,
    };
    match run(&load) {
        Ok(m) => {
            println!(
                "{} per_second={:.0} p50_us={:.0} p99_us={:.0} p999_us={:.0} cpu_us={:.2} failed={}",
                args.shape,
                m.per_second,
                m.latency.quantile_us(0.5),
                m.latency.quantile_us(0.99),
                m.latency.quantile_us(0.999),
                m.cpu_us,
                m.failed
            );
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("etcd-bench: 127.0.0.1:{}: {e}", args.port);
            ExitCode::FAILURE
        }
    }
}
