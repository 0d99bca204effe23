//! `cargo xtask bench`: our server and etcd side by side.

use std::process::Command;

use crate::oracle;
use crate::shell::{cargo, has, run, target};

/// Builds both servers and hands over to `etcd-bench compare`, which gets all further arguments:
/// `--quick`, `--runs N`, `--shape NAME`, `--generator NAME`. Servers run on core 0, the generator on core 1.
pub fn compare(args: &[&str]) -> Result<(), String> {
    if !has("taskset", "--version") {
        return Err("bench needs taskset (util-linux) to keep server and generator apart".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err("bench needs two cores, one for the server and one for the generator".into());
    }
    let reference = oracle::program("etcd")?;
    let etcdutl = oracle::program("etcdutl")?;
    run(&mut cargo(&["build", "--release", "--quiet", "--bin", "etcd", "--bin", "etcd-bench"]))?;
    let built = target().join("release");
    let mut command = Command::new("taskset");
    command
        .args(["-c", "1"])
        .arg(built.join("etcd-bench"))
        .arg("compare")
        .arg("--ours")
        .arg(built.join("etcd"))
        .arg("--reference")
        .arg(reference)
        .arg("--etcdutl")
        .arg(etcdutl)
        .arg("--dir")
        .arg(target().join("bench"))
        .arg("--json")
        .arg(target().join("bench.json"))
        .args(args);
    run(&mut command)
}
