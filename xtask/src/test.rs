//! Every check, and their long forms.

use std::process::Command;

use crate::shell::{cargo, target};
use crate::{image, oracle, tidy};

/// Operations that the differential fuzzer compares in its short form.
const FUZZ_OPS: &str = "20000";
/// ... and in its long form, per seed.
const SOAK_OPS: &str = "250000";
/// How often the long form does each thing that the short one does to a server: 20 makes 100,000
/// streams and 10,000 connections.
const SOAK_HOSTILE: &str = "20";
/// The same of TLS: 10,000 connections that do not get on with their handshake.
const SOAK_CROWD: &str = "34";
/// Sequences of frames that are compared in the long form.
const SOAK_SEQUENCES: &str = "1000000";

fn with_oracles(command: &mut Command, ci: bool) -> &mut Command {
    command.env("QUORATE_ORACLES", oracle::dir()).env("QUORATE_BIN", target().join("debug/etcd"));
    if ci {
        command.env("QUORATE_CI", "1");
    }
    command
}

/// Runs every check. With `ci` the Go oracles are mandatory, without they are used if Go is there.
pub fn run(ci: bool) -> Result<(), String> {
    crate::shell::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    crate::shell::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    if ci || oracle::can_build() {
        oracle::build()?;
    } else {
        eprintln!("xtask: SKIPPED: no Go here, nothing is compared with etcd's own code");
    }
    crate::shell::run(&mut cargo(&["build", "--quiet", "--bins"]))?;
    let mut tests = cargo(&["test", "--workspace", "--quiet", "--no-fail-fast"]);
    with_oracles(&mut tests, ci).env("QUORATE_FUZZ_OPS", FUZZ_OPS);
    crate::shell::run(&mut tests)?;
    on_three_members(ci)?;
    loom()?;
    // Wants root and a kernel that lets a Docker daemon run, which CI has.
    if ci { image::run_image(&[]) } else { Ok(()) }
}

/// What one member shows, again on a follower of three; what needs several was run before.
fn on_three_members(ci: bool) -> Result<(), String> {
    let mut tests =
        cargo(&["test", "--quiet", "-p", "quorate-conform", "--test", "semantics", "--"]);
    for module in ["checklist", "k_members", "l_leadership", "m_versions"] {
        tests.args(["--skip", module]);
    }
    crate::shell::run(with_oracles(&mut tests, ci).env("QUORATE_MEMBERS", "3"))
}

/// Every interleaving of what threads share: the hand-over, and the index's log.
fn loom() -> Result<(), String> {
    let mut tests = cargo(&["test", "--quiet", "--lib"]);
    tests.args(["-p", "quorate-handover", "-p", "quorate-store", "loom_tests"]);
    tests.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target().join("loom"));
    crate::shell::run(&mut tests)
}

/// A long form: package, test, and what its environment has more.
type Long<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// The long forms. First raft beside Go's: 100 seeds of 100,000 commands to equal groups and to
/// mixed ones, and the HTTP/2 connection under 49,000 random clients. Then, on an optimised server:
/// four times 250,000 compared operations at the same time, then one after another 1,000,000
/// sequences of HTTP/2 frames, hostile clients, 200 kills, failing disks at hundreds of places,
/// 1,000 snapshots, and readers that stop for ten minutes.
pub fn soak() -> Result<(), String> {
    oracle::build()?;
    crate::shell::run(&mut raft_beside_go())?;
    crate::shell::run(&mut random_clients())?;
    run_release()?;
    let mut running = Vec::new();
    for seed in ["101", "102", "103", "104"] {
        let more = [("QUORATE_FUZZ_OPS", SOAK_OPS), ("QUORATE_FUZZ_SEED", seed)];
        let mut tests = long_form(("quorate-conform", "differential", &more));
        let child = tests.spawn().map_err(|e| format!("{tests:?}: {e}"))?;
        running.push((seed, child));
    }
    let mut failed = Vec::new();
    for (seed, mut child) in running {
        let ended = child.wait().map_err(|e| e.to_string())?;
        if !ended.success() {
            failed.push(seed);
        }
    }
    if !failed.is_empty() {
        return Err(format!("differential: failing seeds {failed:?}"));
    }
    let forms: [Long<'_>; 8] = [
        ("quorate-conform", "fuzz_wire", &[("QUORATE_WIRE_SEQUENCES", SOAK_SEQUENCES)]),
        ("quorate-conform", "hostile", &[("QUORATE_HOSTILE", SOAK_HOSTILE)]),
        ("quorate-conform", "tls", &[("QUORATE_HOSTILE", SOAK_CROWD)]),
        ("quorate-lossy", "kills", &[("QUORATE_KILL_ROUNDS", "200")]),
        ("quorate-lossy", "cluster", &[("QUORATE_CLUSTER_ROUNDS", "50")]),
        ("quorate-lossy", "faults", &[("QUORATE_SOAK", "1")]),
        ("quorate-conform", "snapshot", &[("QUORATE_SNAPSHOTS", "1000")]),
        ("quorate-conform", "bounded", &[("QUORATE_BOUNDED_SECS", "600")]),
    ];
    forms.into_iter().try_for_each(|form| crate::shell::run(&mut long_form(form)))
}

fn raft_beside_go() -> Command {
    let mut tests = cargo(&["test", "--release", "--package", "quorate-raft"]);
    tests.args(["--test", "differential", "--test", "mixed", "--", "--nocapture"]);
    with_oracles(&mut tests, true).envs([("RAFT_SEEDS", "0..100"), ("RAFT_STEPS", "100000")]);
    tests
}

fn random_clients() -> Command {
    cargo(&[
        "test",
        "--package",
        "quorate-http2",
        "--lib",
        "many_random_clients",
        "--",
        "--ignored",
    ])
}

fn long_form((package, test, more): Long<'_>) -> Command {
    // The tests themselves wait for the servers: only those need to be optimised.
    let mut tests = cargo(&["test", "--package", package, "--test", test]);
    tests.args(["--", "--nocapture"]);
    let own = target().join("release/etcd");
    with_oracles(&mut tests, true).env("QUORATE_BIN", own).envs(more.iter().copied());
    tests
}

fn run_release() -> Result<(), String> {
    crate::shell::run(&mut cargo(&["build", "--release", "--quiet", "--bins"]))
}
