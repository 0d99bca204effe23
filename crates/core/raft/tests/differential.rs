//! Equal schedules on our members and on Go's: every message, write, commit, membership, read and
//! state must be equal, byte for byte where there are bytes.
//!
//! Seeded; `RAFT_SEEDS=from..to` and `RAFT_STEPS=n` run a longer one.

mod support;

use env::{Entropy, SplitMix};
use raft::Role;
use support::oracle::Comparison;
use support::script::{Runner, Skip};
use support::{Cluster, oracle};

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

/// Draws and runs a schedule: unlucky at first, then everything arrives and a leader works.
fn schedule(rng: &mut SplitMix, setup: &Setup, steps: u64) -> Runner {
    let mut runner = Runner::new(setup.cluster());
    let mut counter = 0;
    // How often messages get lost, drawn once: some schedules get far, others get confused.
    let loss = [0, 5, 20][rng.below(3) as usize];
    for _ in 0..steps {
        let id = 1 + rng.below(setup.nodes);
        let waiting: Vec<usize> =
            (0..runner.net.len()).filter(|&at| runner.net[at].is_some()).collect();
        let line = match rng.below(100) {
            0..=44 if !waiting.is_empty() => {
                // Mostly in order, sometimes any.
                let at = if rng.below(5) == 0 {
                    waiting[rng.below(waiting.len() as u64) as usize]
                } else {
                    waiting[0]
                };
                match rng.below(100) {
                    dice if dice < loss => format!("drop {at}"),
                    dice if dice < loss + 4 => format!("dup {at}"),
                    _ => format!("deliver {at}"),
                }
            }
            0..=69 => format!("drain {id}"),
            70..=79 => format!("tick {id} {}", 1 + rng.below(4)),
            80 => format!("campaign {id}"),
            81..=88 => {
                counter += 1;
                format!("propose {id} {counter}{}", "x".repeat(rng.below(30) as usize))
            }
            89..=91 => {
                counter += 1;
                format!("readindex {id} {counter}")
            }
            92 => format!("transfer {id} {}", 1 + rng.below(setup.nodes)),
            93 => format!("unreachable {id} {}", 1 + rng.below(setup.nodes)),
            94 => {
                let outcome = if rng.below(2) == 0 { "ok" } else { "failed" };
                format!("snapstatus {id} {} {outcome}", 1 + rng.below(setup.nodes))
            }
            95 | 96 if setup.membership => membership_change(rng, setup, id),
            97 if setup.crashes => format!("restart {id}"),
            98 | 99 if setup.crashes => match compaction(rng, &runner, id) {
                Some(line) => line,
                None => continue,
            },
            _ => continue,
        };
        if let Err(Skip) = runner.exec(&line) {
            continue;
        }
    }
    runner.settle();
    for round in 0..3 {
        for id in 1..=setup.nodes {
            let _ = runner.exec(&format!("tick {id} 4"));
        }
        runner.settle();
        let leader = (1..=setup.nodes).find(|&id| runner.cluster.member(id).role() == Role::Leader);
        if let Some(leader) = leader {
            runner.exec(&format!("propose {leader} end{round}")).unwrap();
            let _ = runner.exec(&format!("readindex {leader} {}", 1000 + round));
            runner.settle();
        }
    }
    runner
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
    let (mut runs, mut parted) = (0, 0);
    for seed in support::seeds(0..25) {
        let seed = offset + seed;
        let mut rng = SplitMix::new(seed);
        let setup = Setup::draw(&mut rng, nodes);
        let runner = schedule(&mut rng, &setup, steps);
        let theirs = oracle::run(&program, &setup.arguments(), &runner.script);
        let what = format!("seed {seed}, {nodes} nodes: {}", setup.arguments().join(" "));
        runs += 1;
        if oracle::compare(&runner.trace, &theirs, &what) == Comparison::OtherCommitTold {
            parted += 1;
        }
    }
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
    // A comparison of clusters in which nothing happens would be worth nothing.
    let mut trace = String::new();
    for seed in 0..40 {
        for (offset, nodes) in [(1_000_000, 3), (2_000_000, 5)] {
            let mut rng = SplitMix::new(offset + seed);
            let setup = Setup::draw(&mut rng, nodes);
            trace += &schedule(&mut rng, &setup, 800).trace;
        }
    }
    let joint =
        trace.lines().filter(|line| line.starts_with("CONF") && line.ends_with("2801")).count();
    for (what, count, least) in [
        ("commits", trace.matches("COMMIT ").count(), 5000),
        ("installed snapshots", trace.matches("SNAP ").count(), 20),
        ("reads", trace.matches("READ ").count(), 200),
        ("memberships", trace.matches("CONF ").count(), 200),
        ("joint memberships", joint, 10),
        ("leaders", trace.matches("MsgVoteResp").count(), 200),
        ("transfers", trace.matches("MsgTimeoutNow").count(), 20),
        ("forwarded proposals", trace.matches("MsgProp ").count(), 200),
        ("learners", trace.matches("learner=true").count(), 100),
        ("restarts", trace.matches("> restart").count(), 50),
    ] {
        assert!(count >= least, "{what}: {count} < {least}");
    }
}
