//! Clusters, or one member, under a seeded scheduler.
//!
//! The production automata of `core/member` and the production calls of `core/calls` run on disks in
//! memory that lose and tear what was not synced, and talk over a network that loses, repeats,
//! delays and cuts. The seed draws the options ([`Options`]) and
//! every choice of the schedule: whose turn it is, what of its inbox an automaton finds, which
//! outputs have left it when the power goes, how slow each is, how clocks differ, who joins and
//! leaves. Clients write, read, hold leases and watch; what they saw goes to the checkers of
//! `model`, and what members do is compared by `checks.rs` as it happens. Same seed, same commit:
//! the same event log, byte for byte.
//!
//! Owns: the schedule, faults, clients. Never: decides what a right answer is, that is `model`'s;
//! never re-implements what the product has: only the threads of the shell and its sockets are
//! replaced, by [`world`]'s steps and the executor of `gateway.rs`; for one seed in four sockets are
//! pipes of bytes between clients and the product's half of HTTP/2 (`transport`).
//!
//! Read next: [`options`], `world.rs`, `process.rs`, `gateway.rs`, `members.rs`, `mail.rs`,
//! `transport`, [`plant`].

mod admin;
mod calls;
mod checks;
mod clients;
mod clock;
mod crowd;
mod executor;
mod faults;
mod gateway;
mod inbox;
mod keeper;
mod liveness;
mod mail;
mod members;
mod network;
pub mod options;
pub mod plant;
pub mod probes;
mod process;
mod streams;
mod surroundings;
mod trace;
mod transfers;
mod transport;
mod wire;
mod workload;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use options::{Callers, Carrier, Http2Options, Options, Shape, UserOptions};
pub use plant::Plant;
pub use trace::Log;
pub use world::Counts;

use world::World;

/// What a seed did and saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What happened.
    pub counts: Counts,
    /// What the checkers looked at.
    pub report: model::Report,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// The rare paths that were taken.
    pub reached: BTreeSet<&'static str>,
    /// The hash of the event log.
    pub hash: u64,
    /// Lines in it.
    pub lines: u64,
}

/// What is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// What it simulates.
    pub shape: Shape,
    /// The planted bug, if one is.
    pub plant: Option<Plant>,
    /// How calls come to the members.
    pub carrier: Carrier,
    /// Who calls.
    pub callers: Callers,
}

/// A seed that found something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was run.
    pub case: Case,
    /// What is wrong.
    pub what: String,
    /// The property that the history breaks, if the run came to its end.
    pub property: Option<model::Property>,
    /// The last lines of the event log.
    pub last: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { seed, shape, plant, carrier, callers } = self.case;
        writeln!(f, "seed {seed}: {}", self.what)?;
        write!(f, "replay: cargo xtask sim --seed {seed}")?;
        if shape == Shape::One {
            write!(f, " --one")?;
        }
        match carrier {
            Carrier::Drawn => {}
            Carrier::Http2 => write!(f, " --http2")?,
            Carrier::Messages => write!(f, " --messages")?,
        }
        match callers {
            Callers::Drawn => {}
            Callers::Users => write!(f, " --users")?,
            Callers::Nobody => write!(f, " --nobody")?,
        }
        match plant {
            Some(plant) => write!(f, " --plant {plant}"),
            None => Ok(()),
        }
    }
}

/// Steps of the safety phase after which a seed is taken to hang.
const MAX_STEPS: u64 = 6_000_000;

/// Runs a seed. The event log goes where `log` says.
///
/// # Errors
/// [`Failure`].
pub fn run(case: Case, log: Log) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(case, trace::Trace::new(log));
    let fail = |world: &World, what: String, property| {
        Box::new(Failure { case, what, property, last: world.trace.last() })
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        while !world.is_done() {
            if world.counts.steps > MAX_STEPS {
                return Err("the safety phase does not end".to_owned());
            }
            world.step()?;
        }
        liveness::run(&mut world)
    }));
    match result {
        Ok(Ok(())) => {}
        Ok(Err(what)) => return Err(fail(&world, what, None)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            let what = format!("panic: {}", text.unwrap_or_default());
            return Err(fail(&world, what, None));
        }
    }
    world.history.watches =
        world.watchers.iter_mut().flat_map(|w| w.lanes.drain(..).map(|lane| lane.watch)).collect();
    let walked = match world.walk() {
        Ok(walked) => walked,
        Err(v) => return Err(fail(&world, v.to_string(), Some(v.property))),
    };
    world.history.log = Some(world.checks.log(&world.requests, &walked.refused));
    let report = match model::check(&world.history) {
        Ok(report) => report,
        Err(v) => return Err(fail(&world, v.to_string(), Some(v.property))),
    };
    let mut counts = world.counts;
    counts.packets_harmed = world.network.harmed;
    counts.terms = world.checks.terms();
    counts.entries = world.checks.last_committed().0;
    counts.compared = world.checks.compared;
    (counts.let_in, counts.turned_away) = (walked.let_in as u64, walked.turned_away as u64);
    counts.refused_entries = walked.refused.len() as u64;
    Ok(Summary {
        counts,
        report,
        simulated: world.now,
        reached: world.probes.reached(),
        hash: world.trace.hash(),
        lines: world.trace.lines(),
    })
}
