//! The Go program that runs the same script on etcd's own raft.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use api::raftpb;
use prost::Message as _;

/// Where `cargo xtask oracle` puts the program; `None` (with a line on stderr) if it is missing.
pub fn program() -> Option<PathBuf> {
    let folder = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let program = folder.join("raft/raft");
    if program.exists() {
        return Some(program);
    }
    assert!(
        std::env::var_os("QUORATE_CI").is_none(),
        "the oracle {} is missing",
        program.display()
    );
    eprintln!("SKIPPED: no Go oracle at {}", program.display());
    None
}

/// The oracle's trace of `script`, and what it said on stderr if it failed.
pub fn run(program: &PathBuf, arguments: &[String], script: &str) -> (String, Option<String>) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the oracle starts");
    let mut stdin = child.stdin.take().expect("piped");
    let script = script.to_owned();
    let writer = std::thread::spawn(move || {
        // A broken pipe means that it died; its output tells.
        let _ = stdin.write_all(script.as_bytes());
    });
    let output = child.wait_with_output().expect("the oracle runs");
    writer.join().expect("the writer does not panic");
    let failure =
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned());
    (String::from_utf8(output.stdout).expect("text"), failure)
}

/// How two traces of one script compare.
#[derive(Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    /// They part at an append that tells another commit index, and only that: Go acknowledges
    /// each append to its own log by itself and may tell every step of the commit index, ours
    /// acknowledges a write as a whole. The line is where.
    OtherCommitTold(usize),
}

/// Compares two traces.
///
/// # Panics
/// With the place where they part.
pub fn compare(ours: &str, (theirs, failure): &(String, Option<String>), what: &str) -> Comparison {
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    let at = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    if at == ours.len() && at == theirs.len() && failure.is_none() {
        return Comparison::Equal;
    }
    if let (Some(ours), Some(theirs)) = (ours.get(at), theirs.get(at))
        && let (Some(ours), Some(theirs)) =
            (append_without_commit(ours), append_without_commit(theirs))
        && ours == theirs
    {
        return Comparison::OtherCommitTold(at);
    }
    let show = |lines: &[&str]| {
        let from = at.saturating_sub(30).min(lines.len());
        lines[from..(at + 8).min(lines.len())].join("\n")
    };
    let (ours, theirs) = (show(&ours), show(&theirs));
    let failure = failure.as_deref().unwrap_or_default();
    panic!("{what}: traces part at line {at}\n--- ours\n{ours}\n--- Go's\n{theirs}\n{failure}");
}

/// The append in a line of a trace, if it is one, with its commit index removed.
fn append_without_commit(line: &str) -> Option<raftpb::Message> {
    let hex = line.strip_prefix("MSG ")?.split(' ').nth(3)?;
    let mut message = raftpb::Message::decode(&super::script::unhex(hex)[..]).expect("a message");
    message.commit = None;
    (message.r#type() == raftpb::MessageType::MsgApp).then_some(message)
}

/// The oracle as members that are talked to.
pub struct Live {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Live {
    pub fn start(program: &Path, arguments: &[String]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the oracle starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    /// What it prints for one command; `None` if it died, which its stderr explains.
    pub fn command(&mut self, line: &str) -> Option<String> {
        self.stdin.write_all(format!("{line}\nsync\n").as_bytes()).ok()?;
        let mut said = String::new();
        loop {
            let start = said.len();
            if self.stdout.read_line(&mut said).ok()? == 0 {
                return None;
            }
            if &said[start..] == "SYNC\n" {
                said.truncate(start);
                return Some(said);
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
