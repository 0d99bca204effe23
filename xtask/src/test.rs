//! Every check, and their long forms.

use std::process::Command;

use crate::shell::{cargo, target};
use crate::{oracle, tidy};

/// Operations that the differential fuzzer compares in its short form.
const FUZZ_OPS: &str = "20000";
/// ... and in its long form, per seed.
const SOAK_OPS: &str = "250000";

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
    let mut tests = cargo(&["test", "--workspace", "--quiet"]);
    with_oracles(&mut tests, ci).env("QUORATE_FUZZ_OPS", FUZZ_OPS);
    crate::shell::run(&mut tests)?;
    loom()
}

/// Every interleaving of what threads share: the hand-over, and the index's log.
fn loom() -> Result<(), String> {
    let mut tests = cargo(&["test", "--quiet", "--lib"]);
    tests.args(["-p", "quorate-handover", "-p", "quorate-store", "loom_tests"]);
    tests.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target().join("loom"));
    crate::shell::run(&mut tests)
}

/// The long forms: four seeds of 250,000 compared operations each, on an optimised server.
pub fn soak() -> Result<(), String> {
    oracle::build()?;
    run_release()?;
    for seed in ["101", "102", "103", "104"] {
        let mut tests = cargo(&[
            "test",
            "--release",
            "--package",
            "quorate-conform",
            "--test",
            "differential",
            "--",
            "--nocapture",
        ]);
        with_oracles(&mut tests, true)
            .env("QUORATE_BIN", target().join("release/etcd"))
            .env("QUORATE_FUZZ_OPS", SOAK_OPS)
            .env("QUORATE_FUZZ_SEED", seed);
        crate::shell::run(&mut tests)?;
    }
    Ok(())
}

fn run_release() -> Result<(), String> {
    crate::shell::run(&mut cargo(&["build", "--release", "--quiet", "--bins"]))
}
