//! Runs seeds on all cores: `quorate-sim [--seeds N] [--seed S] [--from S] [--planted]`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use sim::{Callers, Carrier, Case, Failure, Log, Plant, Shape, Summary, run};

const HELP: &str =
    "quorate-sim [--seeds N] [--from S] [--seed S] [--plant NAME] [--planted] [--one] [--http2|--messages] [--users|--nobody]

  --seeds N     how many seeds to run (200)
  --from S      the first of them (1)
  --seed S      runs this one and prints its event log
  --plant NAME  with a planted bug
  --planted     checks that each planted bug is found
  --one         one member that crashes all the time, instead of clusters
  --http2       all calls over HTTP/2, which one seed in four draws
  --messages    none of them
  --users       users call, who may not everything, which one seed in three draws
  --nobody      nobody in particular calls
  --threads N   at once (one per core)";

/// Seeds within which each planted bug must be found.
const PLANTED_SEEDS: u64 = 2_000;
/// Failures after which no more seeds are begun.
const MAX_FAILURES: usize = 5;

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    plant: Option<Plant>,
    planted: bool,
    shape: Shape,
    carrier: Carrier,
    callers: Callers,
    threads: usize,
}

impl Args {
    fn case(&self, seed: u64, plant: Option<Plant>) -> Case {
        Case { seed, shape: self.shape, plant, carrier: self.carrier, callers: self.callers }
    }
}

fn parse() -> Result<Args, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut args = Args {
        seeds: 200,
        from: 1,
        seed: None,
        plant: None,
        planted: false,
        shape: Shape::Cluster,
        carrier: Carrier::Drawn,
        callers: Callers::Drawn,
        threads: cores,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{flag} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        match flag.as_str() {
            "--seeds" => args.seeds = number(value()?)?,
            "--from" => args.from = number(value()?)?,
            "--seed" => args.seed = Some(number(value()?)?),
            "--plant" => args.plant = Some(value()?.parse()?),
            "--planted" => args.planted = true,
            "--http2" => args.carrier = Carrier::Http2,
            "--messages" => args.carrier = Carrier::Messages,
            "--users" => args.callers = Callers::Users,
            "--nobody" => args.callers = Callers::Nobody,
            "--one" => args.shape = Shape::One,
            "--threads" => args.threads = number(value()?)? as usize,
            other => return Err(format!("{other}\n{HELP}")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    // A panic of the member is a finding, told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = args.seed {
        return one(seed, &args);
    }
    if args.planted {
        return planted(&args);
    }
    many(&args)
}

fn one(seed: u64, args: &Args) -> ExitCode {
    match run(args.case(seed, args.plant), Log::Stdout) {
        Ok(summary) => {
            println!("seed {seed}: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Finds each planted bug, or fails.
fn planted(args: &Args) -> ExitCode {
    let mut missed = 0;
    for plant in Plant::ALL.into_iter().filter(|plant| args.plant.is_none_or(|p| p == *plant)) {
        let mut seeds = args.from..args.from + PLANTED_SEEDS;
        let find = |seed| run(args.case(seed, Some(plant)), Log::Nowhere).err();
        let found = seeds.find_map(find);
        match found {
            Some(failure) => {
                println!("{plant}: found by seed {}: {}", failure.case.seed, failure.what)
            }
            None => {
                println!("{plant}: MISSED by {PLANTED_SEEDS} seeds");
                missed += 1;
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a seed that failed once more, and leaves its event log for people.
fn write_log(failure: &Failure) {
    let path = std::env::temp_dir().join(format!("quorate-sim-{}.log", failure.case.seed));
    match std::fs::File::create(&path) {
        Ok(file) => {
            let log = Log::File(std::io::BufWriter::new(file));
            let _ = run(failure.case, log);
            println!("event log: {}", path.display());
        }
        Err(e) => println!("its event log cannot be written: {e}"),
    }
}

#[expect(clippy::too_many_lines, reason = "the figures of a run, line by line")]
fn many(args: &Args) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(args.from);
    let end = args.from.saturating_add(args.seeds);
    let failures: Mutex<Vec<Box<Failure>>> = Mutex::default();
    let (done, results) = mpsc::channel::<Summary>();
    let cores = args.threads;
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (done, next, failures) = (done.clone(), &next, &failures);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop =
                        failures.lock().expect("nobody panics with it").len() >= MAX_FAILURES;
                    if seed >= end || stop {
                        return;
                    }
                    match run(args.case(seed, args.plant), Log::Nowhere) {
                        Ok(summary) => done.send(summary).expect("the receiver waits"),
                        Err(failure) => {
                            println!("{failure}");
                            write_log(&failure);
                            failures.lock().expect("nobody panics with it").push(failure);
                        }
                    }
                }
            });
        }
    });
    drop(done);
    let (mut seeds, mut total, mut unsearched) = (0u64, Summary::default(), 0u64);
    let mut all: Vec<Summary> = Vec::new();
    for summary in results {
        all.push(summary.clone());
        seeds += 1;
        total.counts.steps += summary.counts.steps;
        total.counts.crashes += summary.counts.crashes;
        total.counts.compactions += summary.counts.compactions;
        total.counts.defragmentations += summary.counts.defragmentations;
        total.counts.snapshots += summary.counts.snapshots;
        total.counts.no_space += summary.counts.no_space;
        total.report.expired += summary.report.expired;
        total.report.operations += summary.report.operations;
        total.report.revisions += summary.report.revisions;
        total.report.events += summary.report.events;
        total.report.cancelled += summary.report.cancelled;
        total.simulated += summary.simulated;
        unsearched += u64::from(!summary.report.searched);
    }
    let failures = failures.into_inner().expect("nobody panics with it");
    let (counts, report, secs) = (total.counts, total.report, began.elapsed().as_secs_f64());
    println!(
        "{seeds} seeds passed, {} failed; {} operations, {} revisions, {} watch events checked \
         ({} watches cancelled by compactions), {} leases expired with keys, {} crashes, \
         {} compactions, {} defragmentations, {} raft snapshots, {} writes refused for space, \
         {} steps, {} simulated seconds in {secs:.1} s ({:.1} seeds/s on {cores} cores); the \
         general search ran out of steps in {unsearched} of them",
        failures.len(),
        report.operations,
        report.revisions,
        report.events,
        report.cancelled,
        report.expired,
        counts.crashes,
        counts.compactions,
        counts.defragmentations,
        counts.snapshots,
        counts.no_space,
        counts.steps,
        total.simulated / 1_000_000_000,
        (seeds as f64 + failures.len() as f64) / secs.max(0.001),
    );
    if args.shape == Shape::Cluster {
        show_clusters(&all);
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the seeds were like: the least, the median, the most.
fn show_clusters(all: &[Summary]) {
    type Of = fn(&Summary) -> u64;
    let figures: [(&str, Of); 18] = [
        ("simulated ms", |s| s.simulated / 1_000_000),
        ("answers over HTTP/2", |s| s.counts.carried),
        ("operations", |s| s.report.operations as u64),
        ("faults", |s| s.counts.faults),
        ("crashes", |s| s.counts.crashes),
        ("entries in the log", |s| s.counts.entries),
        ("terms with a leader", |s| s.counts.terms),
        ("membership changes, transfers", |s| s.counts.changes),
        ("snapshots installed", |s| s.counts.installs),
        ("snapshots broken off", |s| s.counts.broken),
        ("packets harmed", |s| s.counts.packets_harmed),
        ("keep-alives sent on", |s| s.counts.forwarded),
        ("states compared", |s| s.counts.compared),
        ("steps", |s| s.counts.steps),
        ("changes of users and roles", |s| s.counts.user_changes),
        ("calls and watches of users let in", |s| s.counts.let_in),
        ("turned away", |s| s.counts.turned_away),
        ("entries refused for who signed them", |s| s.counts.refused_entries),
    ];
    let reached = |probe: &str| all.iter().filter(|s| s.reached.contains(probe)).count();
    for probe in sim::probes::all() {
        println!("{:>6} seeds: {probe}", reached(probe));
    }
    let missed: Vec<&str> = sim::probes::all().filter(|probe| reached(probe) == 0).collect();
    println!("probes never reached: {missed:?}");
    for (name, of) in figures {
        let mut values: Vec<u64> = all.iter().map(of).collect();
        values.sort_unstable();
        let at = |part: usize| values.get((values.len().max(1) - 1) * part / 2).copied();
        let shown = [0, 1, 2].map(|part| at(part).unwrap_or_default().to_string());
        let with = values.iter().filter(|value| **value > 0).count();
        println!("{name}: {} (not 0 in {with} of {})", shown.join(" / "), values.len());
    }
}
