//! Equal schedules on our members and on Go's: every message, write, commit, membership, read and
//! state must be equal, byte for byte where there are bytes.
//!
//! Seeded; `RAFT_SEEDS=from..to` and `RAFT_STEPS=n` run a longer one.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod support;

use env::{Entropy, SplitMix};
use raft::{Body, Role};
use support::figures::Figures;
use support::oracle::Comparison;
use support::script::Runner;
use support::{Cluster, oracle};
use types::MemberId;

struct Setup {
    nodes: u64,
    voters: u64,
    pre_vote: bool,
    check_quorum: bool,
    max_bytes: usize,
    inflight: usize,
    /// Whether members come and go.
    membership: bool,
    /// Whether members crash and logs are compacted.
    crashes: bool,
}

impl Setup {
    fn draw(rng: &mut SplitMix, nodes: u64) -> Self {
        let voters = if nodes > 3 { 3 } else { nodes };
        let membership = nodes > voters || rng.below(3) == 0;
        Self {
            nodes,
            voters,
            pre_vote: rng.below(3) > 0,
            check_quorum: rng.below(3) > 0,
            // A refused membership change counts two bytes more in Go (an explicit type 0).
            max_bytes: if !membership && rng.below(2) == 0 { 40 } else { 1 << 20 },
            inflight: if rng.below(3) == 0 { 2 } else { 512 },
            membership,
            crashes: rng.below(2) == 0,
        }
    }

    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::with(self.voters, |config| self.adjust(config));
        for id in self.voters + 1..=self.nodes {
            cluster.join_with(id, |config| self.adjust(config));
        }
        cluster
    }

    fn adjust(&self, config: raft::Config) -> raft::Config {
        raft::Config {
            pre_vote: self.pre_vote,
            check_quorum: self.check_quorum,
            max_bytes_per_append: self.max_bytes,
            max_inflight: self.inflight,
            ..config
        }
    }

    fn arguments(&self) -> Vec<String> {
        vec![
            format!("-n={}", self.nodes),
            format!("-voters={}", self.voters),
            format!("-prevote={}", self.pre_vote),
            format!("-checkquorum={}", self.check_quorum),
            format!("-maxsize={}", self.max_bytes),
            format!("-inflight={}", self.inflight),
        ]
    }
}

/// Steps of bad luck after which everything arrives and a leader works.
const EPISODE: u64 = 800;
/// Messages on their way, beyond which nothing else happens than that they arrive or get lost.
const MAX_WAITING: usize = 100;
/// Entries in a log beyond which it is compacted, whatever was drawn: a long run stays quick.
const MAX_LOG: usize = 400;

/// Draws and runs a schedule of at least `steps` commands: unlucky at first, then everything arrives and a leader works; in a
/// long one again and again.
fn schedule(rng: &mut SplitMix, setup: &Setup, steps: u64) -> Runner {
    let mut runner = Runner::new(setup.cluster());
    let mut counter = 0;
    while runner.commands < steps {
        // Drawn once: some episodes get far, others get confused.
        let luck = Luck {
            loss: [0, 5, 20][rng.below(3) as usize],
            ticks: [2, 4, 12][rng.below(3) as usize],
            cut: rng.below(3 * setup.nodes),
        };
        for _ in 0..EPISODE.min(steps) {
            unlucky_step(rng, setup, &mut runner, &mut counter, &luck);
        }
        work_in_peace(setup, &mut runner, &mut counter);
    }
    runner
}

struct Luck {
    /// How many of a hundred messages get lost.
    loss: u64,
    /// The most ticks at once.
    ticks: u64,
    /// Who hears nobody and is not heard, if it exists.
    cut: u64,
}

fn unlucky_step(
    rng: &mut SplitMix,
    setup: &Setup,
    runner: &mut Runner,
    counter: &mut u64,
    luck: &Luck,
) {
    let id = 1 + rng.below(setup.nodes);
    let waiting = runner.waiting.len();
    let dice = if waiting > MAX_WAITING { 0 } else { rng.below(100) };
    let line = match dice {
        0..=44 if waiting > 0 => {
            // Mostly in order, sometimes any.
            let nth = if rng.below(5) == 0 { rng.below(waiting as u64) as usize } else { 0 };
            let at = runner.waiting[nth];
            let message = runner.net[at].as_ref().expect("it waits");
            let cut = [message.from.0, message.to.0].contains(&luck.cut);
            match rng.below(100) {
                dice if cut || dice < luck.loss => format!("drop {at}"),
                dice if dice < luck.loss + 4 => format!("dup {at}"),
                _ => format!("deliver {at}"),
            }
        }
        0..=69 => format!("drain {id}"),
        70..=79 => format!("tick {id} {}", 1 + rng.below(luck.ticks)),
        80 => format!("campaign {id}"),
        81..=88 => {
            *counter += 1;
            format!("propose {id} {counter}{}", "x".repeat(rng.below(30) as usize))
        }
        89..=91 => {
            *counter += 1;
            format!("readindex {id} {counter}")
        }
        92 => format!("transfer {id} {}", 1 + rng.below(setup.nodes)),
        93 => format!("unreachable {id} {}", 1 + rng.below(setup.nodes)),
        94 => {
            let outcome = if rng.below(2) == 0 { "ok" } else { "failed" };
            format!("snapstatus {id} {} {outcome}", 1 + rng.below(setup.nodes))
        }
        95 | 96 if setup.membership => membership_change(rng, setup, id),
        97 if setup.crashes => {
            // Another timeout counts from the start on, in Go at once.
            if rng.below(4) == 0 {
                let _ = runner.exec(&format!("timeout {id} {}", 10 + rng.below(10)));
                format!("restart {id}")
            } else {
                format!("crash {id} {}", rng.below(4))
            }
        }
        98 | 99 if setup.crashes => match compaction(rng, runner, id) {
            Some(line) => line,
            None => return,
        },
        _ => return,
    };
    drain_before_append(runner, &line);
    let snapshot = snapshot_at(runner, &line);
    let _ = runner.exec(&line);
    if let Some((from, to)) = snapshot {
        // As transports do.
        let outcome = if line.starts_with("drop") { "failed" } else { "ok" };
        runner.exec(&format!("snapstatus {from} {to} {outcome}")).expect("it is comparable");
    }
}

/// Sender and receiver of the snapshot that a command delivers or drops.
fn snapshot_at(runner: &Runner, line: &str) -> Option<(MemberId, MemberId)> {
    let (word, at) = line.split_once(' ')?;
    if word != "deliver" && word != "drop" {
        return None;
    }
    let message = runner.net[at.parse::<usize>().ok()?].as_ref()?;
    matches!(message.body, Body::Snapshot { .. }).then_some((message.from, message.to))
}

/// Go's leader acknowledges each append to its own log by itself. Where that alone commits, it
/// may tell every step of the commit index, and ours the last; so there, what was appended is
/// written before there is more.
fn drain_before_append(runner: &mut Runner, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let number = || words[1].parse::<u64>().expect("a number");
    let target = match words[0] {
        "propose" | "proposecc" | "proposev2" => number(),
        "deliver" | "dup" => match &runner.net[number() as usize] {
            Some(message) => message.to.0,
            None => return,
        },
        _ => return,
    };
    let Some(member) = runner.cluster.members.get(&target) else { return };
    let voters = member.raft.conf_state().voters;
    if member.raft.role() == Role::Leader && voters.len() == 1 && member.raft.has_ready() {
        let _ = runner.exec(&format!("drain {target}"));
    }
}

fn work_in_peace(setup: &Setup, runner: &mut Runner, counter: &mut u64) {
    let leader = |runner: &Runner| (1..=setup.nodes).find(|&id| runner.role(id) == Role::Leader);
    runner.settle();
    for _ in 0..3 {
        for id in 1..=setup.nodes {
            let _ = runner.exec(&format!("tick {id} 4"));
        }
        runner.settle();
        if let Some(leader) = leader(runner) {
            *counter += 2;
            runner.exec(&format!("propose {leader} end{counter}")).unwrap();
            let _ = runner.exec(&format!("readindex {leader} {counter}"));
            runner.settle();
        }
    }
    for id in 1..=setup.nodes {
        if leader(runner).is_none() {
            runner.exec(&format!("campaign {id}")).unwrap();
            runner.settle();
        }
    }
    for id in 1..=setup.nodes {
        let member = &runner.cluster.members[&id];
        let applied = member.disk.applied;
        if member.disk.entries.len() > MAX_LOG && applied >= member.raft.status().first {
            runner.exec(&format!("compact {id} {applied}")).unwrap();
        }
    }
}

/// Member 1 stays a voter, so that no change is impossible when it is applied.
fn membership_change(rng: &mut SplitMix, setup: &Setup, id: u64) -> String {
    let node = 2 + rng.below(setup.nodes.max(2) - 1);
    let kinds = [
        "ConfChangeAddNode",
        "ConfChangeRemoveNode",
        "ConfChangeUpdateNode",
        "ConfChangeAddLearnerNode",
    ];
    match rng.below(8) {
        0 => format!("proposev2 {id} 0 v{node} l{}", 2 + rng.below(setup.nodes.max(2) - 1)),
        1 => format!("proposev2 {id} 2 r{node}"),
        2 | 3 => format!("proposev2 {id} 0"),
        _ => format!("proposecc {id} {} {node}", kinds[rng.below(4) as usize]),
    }
}

fn compaction(rng: &mut SplitMix, runner: &Runner, id: u64) -> Option<String> {
    let member = &runner.cluster.members[&id];
    let (first, applied) = (member.raft.status().first, member.disk.applied);
    // Something must be forgotten, and what is applied in raft is what is applied here.
    if applied < first || member.raft.has_ready() {
        return None;
    }
    Some(format!("compact {id} {}", first.0 + rng.below(applied.0 - first.0 + 1)))
}

/// Runs and compares the schedules of all seeds. Nearly all traces must be equal to the end.
fn compare_all(offset: u64, nodes: u64, steps: u64) {
    let Some(program) = oracle::program() else { return };
    let (mut runs, mut parted, mut totals) = (0, 0, Figures::default());
    for seed in support::seeds(0..25) {
        let seed = offset + seed;
        let mut rng = SplitMix::new(seed);
        let setup = Setup::draw(&mut rng, nodes);
        let runner = schedule(&mut rng, &setup, steps);
        let theirs = oracle::run(&program, &setup.arguments(), &runner.script);
        let what = format!("seed {seed}, {nodes} nodes: {}", setup.arguments().join(" "));
        runs += 1;
        match oracle::compare(&runner.trace, &theirs, &what) {
            Comparison::Equal => totals.count(&runner.trace),
            Comparison::OtherCommitTold(line) => {
                eprintln!("{what}: another commit index is told in line {line}");
                parted += 1;
            }
        }
    }
    eprintln!("{nodes} nodes, {runs} seeds, {parted} of them part: {totals:?}");
    assert!(parted * 100 <= 3 * runs + 100, "{parted} of {runs} traces part");
}

fn steps() -> u64 {
    std::env::var("RAFT_STEPS").map_or(400, |text| text.parse().expect("a number"))
}

#[test]
fn one_voter_behaves_as_in_go() {
    compare_all(0, 1, steps());
}

#[test]
fn three_voters_behave_as_in_go() {
    compare_all(1_000_000, 3, steps());
}

#[test]
fn members_that_come_and_go_behave_as_in_go() {
    compare_all(2_000_000, 5, 2 * steps());
}

#[test]
fn the_schedules_reach_what_they_are_for() {
    let mut all = Figures::default();
    for seed in 0..40 {
        for (offset, nodes) in [(1_000_000, 3), (2_000_000, 5)] {
            let mut rng = SplitMix::new(offset + seed);
            let setup = Setup::draw(&mut rng, nodes);
            all.count(&schedule(&mut rng, &setup, 800).trace);
        }
    }
    for (what, count, least) in [
        ("commits", all.commits, 5000),
        ("duplicates", all.duplicated, 300),
        ("lost messages", all.lost, 1000),
        ("installed snapshots", all.snapshots, 20),
        ("reads", all.reads, 200),
        ("memberships", all.memberships, 200),
        ("joint memberships", all.joint, 10),
        ("elections", all.elections, 150),
        ("transfers", all.transfers, 20),
        ("forwarded proposals", all.forwarded, 200),
        ("learners", all.learners, 100),
        ("restarts", all.restarts, 50),
        ("torn writes", all.crashes, 100),
        ("compactions", all.compactions, 100),
        ("reports of transports", all.reports, 500),
    ] {
        assert!(count >= least, "{what}: {count} < {least}");
    }
}
