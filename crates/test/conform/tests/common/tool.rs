//! Running tools and keeping what can be compared: of stderr only the lines that are etcdctl's own,
//! for Go's client logs there too.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conform::process::quorate;

/// What a tool did.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub stdout: String,
    pub stderr: Vec<String>,
    pub code: Option<i32>,
}

/// One of our tools.
pub fn ours(tool: &str) -> PathBuf {
    let path = quorate().with_file_name(tool);
    assert!(path.exists(), "{} is missing; run `cargo build --bin {tool}`", path.display());
    path
}

/// Runs a tool for at most `patience`; one that still runs then is ended.
pub fn run(tool: &Path, args: &[String], stdin: &str, patience: Duration) -> Ran {
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let mut input = child.stdin.take().expect("it is piped");
    // A tool that reads nothing may be gone already.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let until = Instant::now() + patience;
    while child.try_wait().expect("the child is ours").is_none() {
        if Instant::now() > until {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("the child is ours");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_stable = |l: &&str| {
        let told = l.contains(" is unhealthy: ");
        told || ["Error:", "watch was", "Failed to"].iter().any(|s| l.starts_with(s))
    };
    Ran {
        // Bytes that are no text become different characters for each byte.
        stdout: String::from_utf8(output.stdout)
            .unwrap_or_else(|e| e.into_bytes().iter().map(|&b| char::from(b)).collect()),
        stderr: stderr.lines().filter(is_stable).map(str::to_owned).collect(),
        code: output.status.code(),
    }
}

/// Longest time that a tool may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A command line; `''` is the empty word.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|w| if w == "''" { String::new() } else { w.to_owned() }).collect()
}
