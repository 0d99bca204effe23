//! h2spec against both servers: each of its cases passes, or fails, at ours where it does at etcd.
//!
//! grpc-go does not check all that RFC 9113 demands, and clients were made for it; the crate
//! `http2` lists where.

use std::process::Command;

use conform::{Kind, Server, oracle};

/// Seconds that a case waits for a reaction. What passes reacts at once.
const PATIENCE: &str = "2";

/// A line per case: what came of it, its number and its text.
fn verdicts(program: &std::path::Path, kind: Kind) -> Option<Vec<String>> {
    // Without a limit of calls, one case opens four thousand million of them.
    let server = Server::start(kind, &["--max-concurrent-streams=100"])?;
    let mut h2spec = Command::new(program);
    let output = h2spec.arg(server.port.to_string()).arg(PATIENCE).output().expect("h2spec starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("a text");
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn each_case_ends_as_at_etcd() {
    let Some(program) = oracle("h2spec/h2spec") else { return };
    let (ours, etcd) = std::thread::scope(|scope| {
        let etcd = scope.spawn(|| verdicts(&program, Kind::Reference));
        (verdicts(&program, Kind::Quorate), etcd.join().expect("it does not panic"))
    });
    let Some(etcd) = etcd else { return };
    let ours = ours.expect("ours is always there");
    assert_eq!(ours.len(), etcd.len());
    let differ: Vec<_> = ours.iter().zip(&etcd).filter(|(ours, etcd)| ours != etcd).collect();
    assert!(differ.is_empty(), "ours, and etcd's: {differ:#?}");
    let passed = ours.iter().filter(|line| line.starts_with("pass ")).count();
    assert!(passed > 100, "only {passed} of {} cases passed", ours.len());
}
