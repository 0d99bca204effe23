//! Loads an etcd on this machine, or compares two, and prints figures.

mod access;
mod light;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::cases::Times;
use bench::{Generator, Load, Plan, Programs, Shape};
use clap::{Parser, Subcommand};
use cli::output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load against an etcd on 127.0.0.1.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A closed loop against a server that runs; prints one line.
    Load(LoadArgs),
    /// A generator of less than a microsecond per call against a server that runs: a closed loop, or
    /// calls at a fixed rate; prints one line.
    Light(light::LightArgs),
    /// Starts two servers in turn and prints their figures side by side. Start it on another core
    /// than 0, which is the servers'.
    Compare(CompareArgs),
}

#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// Client ports, with commas between them: connections are dealt out among them.
    #[arg(long, default_value = "2379", value_delimiter = ',')]
    port: Vec<u16>,
    #[command(flatten)]
    access: access::AccessArgs,
    /// Process ids of the servers, to measure their CPU time and memory together.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// put, range, serializable-range, compare-and-put, grant, count, limit-500 or list.
    #[arg(long, default_value = "put")]
    shape: String,
    /// Connections.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Requests in flight over all connections.
    #[arg(long, default_value_t = 1000)]
    in_flight: usize,
    /// Seconds to measure.
    #[arg(long, default_value = "5", value_parser = seconds)]
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

#[derive(Debug, clap::Args)]
struct CompareArgs {
    /// Our server.
    #[arg(long)]
    ours: PathBuf,
    /// The reference etcd.
    #[arg(long)]
    reference: PathBuf,
    /// etcd's etcdutl, for the data of clusters.
    #[arg(long)]
    etcdutl: PathBuf,
    /// Directory for data, up to 8 GB of it.
    #[arg(long)]
    dir: PathBuf,
    /// Runs of each case on each server; 5, or 1 with --quick.
    #[arg(long)]
    runs: Option<usize>,
    /// Only these cases; may be given several times.
    #[arg(long = "shape")]
    shapes: Vec<String>,
    /// One short run.
    #[arg(long)]
    quick: bool,
    /// What asks in closed loops and keep-alives: full, or light.
    #[arg(long, default_value = "light")]
    generator: String,
    /// Where the figures are kept as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Load(args) => load(&args),
        Command::Light(args) => light::run(&args),
        Command::Compare(args) => compare(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::err(format!("etcd-bench: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Seconds from a tenth to an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if !(0.1..=3_600.0).contains(&seconds) {
        return Err("it must be from 0.1 to 3600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn load(args: &LoadArgs) -> Result<(), String> {
    let shape = Shape::ALL.into_iter().find(|(name, _)| *name == args.shape);
    let (_, shape) = shape.ok_or_else(|| format!("unknown shape {:?}", args.shape))?;
    let load = Load {
        ports: args.port.clone(),
        access: args.access.read()?,
        pids: args.pid.clone(),
        shape,
        connections: args.connections.max(1),
        in_flight: args.in_flight.max(1),
        time: args.seconds,
        keys: args.keys.max(1),
        value_bytes: args.value_bytes,
        seed: args.seed,
    };
    let figures = bench::block_on(bench::run(&load));
    let figures = figures.map_err(|e| format!("127.0.0.1, {:?}: {e}", args.port))?;
    let figures: Vec<_> = figures.0.iter().map(|(name, v)| format!("{name}={v:.2}")).collect();
    output::out(format!("{} {}\n", args.shape, figures.join(" ")));
    Ok(())
}

fn compare(args: CompareArgs) -> Result<(), String> {
    let generator = Generator::ALL.into_iter().find(|(name, _)| *name == args.generator);
    let (_, generator) = generator.ok_or_else(|| format!("no generator {:?}", args.generator))?;
    let plan = Plan {
        programs: Programs {
            ours: args.ours,
            reference: args.reference,
            etcdutl: args.etcdutl,
            dir: args.dir,
        },
        cases: args.shapes,
        runs: args.runs.unwrap_or(if args.quick { 1 } else { 5 }).max(1),
        times: if args.quick { Times::QUICK } else { Times::FULL },
        generator,
    };
    let results = bench::compare(&plan, &mut |line| output::err(format!("etcd-bench: {line}")))?;
    output::out(bench::report::table(&results));
    if let Some(path) = args.json {
        std::fs::write(&path, bench::report::json(&results))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        output::out(format!("kept as {}\n", path.display()));
    }
    Ok(())
}
