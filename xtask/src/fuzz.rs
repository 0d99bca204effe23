//! libFuzzer on the decoders, by a stable compiler: coverage counters, no sanitizers (nothing in
//! the decoders is unsafe).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::shell::{cargo, root, target};

/// Seconds for each target, unless told otherwise.
const SECONDS: u64 = 300;
/// Bytes of the longest input.
const MAX_LEN: u64 = 65_536;

/// What makes the compiler count edges, as cargo-fuzz asks for it.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// Runs every target, or those named, for some seconds each; stops at the first that fails.
pub fn run(args: &[&str]) -> Result<(), String> {
    let (mut seconds, mut names) = (SECONDS, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if *arg == "--seconds" {
            let value = args.next().and_then(|value| value.parse().ok());
            seconds = value.ok_or("--seconds wants a number")?;
        } else {
            names.push((*arg).to_owned());
        }
    }
    let build = target().join("fuzz");
    let manifest = root().join("fuzz/Cargo.toml");
    let mut compile = cargo(&["build", "--release", "--quiet", "--manifest-path"]);
    // A named target keeps the counters out of build scripts.
    let triple = host()?;
    compile.arg(manifest).args(["--target", &triple]).env("RUSTFLAGS", COVERAGE);
    crate::shell::run(compile.env("CARGO_TARGET_DIR", &build))?;
    let program = build.join(&triple).join("release/quorate-fuzz");
    let found = build.join("corpus");
    let mut seeds = Command::new(&program);
    let listed = seeds.env("QUORATE_FUZZ_SEEDS", &found).stderr(Stdio::inherit()).output();
    let listed = String::from_utf8(listed.map_err(|e| e.to_string())?.stdout);
    let all = listed.map_err(|e| e.to_string())?;
    for name in all.lines().filter(|name| names.is_empty() || names.iter().any(|n| n == name)) {
        eprintln!("xtask: {name}, {seconds} s");
        let kept: PathBuf = root().join("crates/test/decoders/corpus").join(name);
        let failures = build.join("failures").join(name);
        std::fs::create_dir_all(&failures).map_err(|e| e.to_string())?;
        let mut fuzz = Command::new(&program);
        fuzz.env("QUORATE_FUZZ_TARGET", name)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_LEN}"))
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0"])
            .arg(found.join(name));
        if kept.is_dir() {
            fuzz.arg(kept);
        }
        crate::shell::run(&mut fuzz)?;
    }
    Ok(())
}

fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|e| format!("rustc: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or_else(|| "rustc -vV names no host".to_owned())
}
