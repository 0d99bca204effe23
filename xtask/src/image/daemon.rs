//! A Docker daemon of the run's own, and its client.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::apart;
use crate::shell::{has, output};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between looks.
const STEP: Duration = Duration::from_millis(100);

/// Waits until `is_so` says yes.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > PATIENCE {
            return Err(format!("{what}: not so after {PATIENCE:?}"));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// A running daemon. Dropping it ends it.
pub struct Daemon {
    child: Child,
    host: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts one with everything it writes below `dir`.
    pub fn start(dir: &Path) -> Result<Self, String> {
        let (host, log) =
            (format!("unix://{}", dir.join("docker.sock").display()), dir.join("log"));
        let file = File::create(&log).map_err(|e| e.to_string())?;
        let errors = file.try_clone().map_err(|e| e.to_string())?;
        let child = apart("dockerd")
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("docker.pid"))
            .args(["--host", &host, "--group", "0"])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("dockerd: {e}"))?;
        let mut daemon = Self { child, host, log };
        let answers = wait_until("dockerd answers", || {
            daemon.has_ended() || daemon.docker(&["version"]).is_ok()
        });
        if daemon.has_ended() || answers.is_err() {
            let log = std::fs::read_to_string(&daemon.log).unwrap_or_default();
            return Err(format!("this kernel forbids a Docker daemon; it said:\n{log}"));
        }
        Ok(daemon)
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.host).env("DOCKER_BUILDKIT", "1").stdin(Stdio::null());
        command
    }

    /// Builds the image `quorate`, and `quorate-hardened`, of the programs in `context`.
    pub fn build(&self, dockerfile: &Path, context: &Path) -> Result<(), String> {
        let (file, context) = (dockerfile.display().to_string(), context.display().to_string());
        let prebuilt = ["--build-arg", "PROGRAMS=prebuilt", "--file", &file];
        let build = |more: &[&str]| {
            self.docker(&[&["build", "--quiet"], &prebuilt[..], more, &[&context]].concat())
        };
        build(&["--tag", "quorate"])?;
        build(&["--tag", "quorate-hardened", "--target", "hardened"])?;
        Ok(())
    }

    /// Runs `docker` and returns what it prints.
    pub fn docker(&self, args: &[&str]) -> Result<String, String> {
        // The daemon's own client: another one may stand before it in the path.
        let docker = if has("/usr/bin/docker", "--version") { "/usr/bin/docker" } else { "docker" };
        output(self.client(docker).args(args))
    }

    /// Runs `docker-compose` on the repository's file.
    pub fn compose(&self, file: &Path, args: &[&str]) -> Result<String, String> {
        let mut command = self.client("docker-compose");
        command.arg("--file").arg(file).args(["--project-name", "quorate"]).args(args);
        output(&mut command)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let _ = wait_until("dockerd ends", || self.has_ended());
    }
}
