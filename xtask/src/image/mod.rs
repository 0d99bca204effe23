//! The container image, tried for real: built and run by a Docker daemon of its own.
//!
//! The daemon lives in network, mount and process namespaces that end with it, so no process, no
//! bridge and no firewall rule outlives the run. Nothing is pulled: the image is made of static
//! programs that are built here. Where a program is missing and this is root, Debian's packages
//! are installed; where the kernel forbids a daemon, the run fails and says so.

mod daemon;
mod guide;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{Profile, collect, static_build};
use crate::shell::{has, root, run, target};

/// Programs that are needed, how to see that they are there, and Debian's packages of them.
const NEEDED: [(&str, &str, &str); 6] = [
    ("musl-gcc", "--version", "musl-tools"),
    ("dockerd", "--version", "docker.io"),
    ("docker-compose", "--version", "docker-compose"),
    ("iptables", "--version", "iptables"),
    ("ip", "-V", "iproute2"),
    ("unshare", "--version", "util-linux"),
];

/// Builds the static programs and the image, and does what the guide does with it.
pub fn run_image(args: &[&str]) -> Result<(), String> {
    match args {
        [] => {}
        ["--inside", dir] => return inside(Path::new(dir)),
        _ => return Err("image takes no arguments".into()),
    }
    install_what_is_missing()?;
    build_programs()?;
    let rules_before = firewall_rules()?;
    let dir = work_dir()?;
    let own = std::env::args_os().next().ok_or("a program without a name")?;
    let mut namespaces = Command::new("unshare");
    namespaces.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    // By its path and not as the running file: the suites before this may have built it anew.
    namespaces.arg(own).args(["image", "--inside"]).arg(&dir);
    let result = run(&mut namespaces);
    std::fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    result?;
    if firewall_rules()? != rules_before {
        return Err("the run left firewall rules behind".into());
    }
    Ok(())
}

/// A short path: sockets below it have at most 108 bytes.
fn work_dir() -> Result<PathBuf, String> {
    let dir = std::env::temp_dir().join(format!("quorate-image-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

fn install_what_is_missing() -> Result<(), String> {
    let is_missing = |(program, probe, _): &&(&str, &str, &str)| !has(program, probe);
    let packages: Vec<&str> = NEEDED.iter().filter(is_missing).map(|need| need.2).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let why =
        |e| format!("the image is not tested: {} cannot be installed: {e}", packages.join(", "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        run(command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(args))
    };
    apt(&["update"]).map_err(why)?;
    apt(&[&["install", "--yes", "--no-install-recommends"], &packages[..]].concat()).map_err(why)
}

/// Builds the programs into `target/image/`, the context of the image.
fn build_programs() -> Result<(), String> {
    run(&mut static_build(Profile::Dev)?)?;
    collect(Profile::Dev, &context())
}

fn context() -> PathBuf {
    target().join("image")
}

/// The packet filter's rules, without counters and dates.
fn firewall_rules() -> Result<Vec<String>, String> {
    let output = Command::new("iptables-save").output();
    let output = output.map_err(|e| format!("iptables-save: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect())
}

/// In the namespaces: this is their first process, and all of them end with it.
fn inside(dir: &Path) -> Result<(), String> {
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let daemon = daemon::Daemon::start(dir)?;
    daemon.build(&root().join("Dockerfile"), &context())?;
    guide::one_node(&daemon, dir)?;
    guide::plain_image(&daemon)?;
    guide::hardened(&daemon)?;
    guide::cluster(&daemon)
}

/// A program in a process group of its own, so that a signal for this one does not end it.
fn apart(program: &str) -> Command {
    let mut command = Command::new(program);
    command.process_group(0);
    command
}
