//! Server processes under measurement, on cores of their own, and their data directories.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::access::Access;
use crate::guard::Guard;
use crate::{load, million};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Ours.
    Ours,
    /// The reference.
    Reference,
}

/// The two programs and where their data lies.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Our server.
    pub ours: PathBuf,
    /// etcd.
    pub reference: PathBuf,
    /// Its etcdutl.
    pub etcdutl: PathBuf,
    /// A directory for data, on the disk that is to be measured.
    pub dir: PathBuf,
}

/// The core that servers run on; the generator must run on another one.
pub const SERVER_CORE: &str = "0";
/// Every core, where a server is not measured by its CPU.
pub const ALL_CORES: &str = "0-1023";

/// A running server, killed when dropped.
pub struct Server {
    /// Its client port on 127.0.0.1.
    pub port: u16,
    /// Its process.
    pub pid: u32,
    /// How it is connected to, and in whose name.
    pub access: Access,
    /// From the start of the program to the first linearizable count.
    pub ready_after: Duration,
    began: Instant,
    child: Child,
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const COUNT: usize>() -> std::io::Result<[u16; COUNT]> {
    // All are held until the last is found, so that none comes twice.
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

pub(crate) fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Programs {
    /// Where a side keeps the data of a kind.
    #[must_use]
    pub fn data(&self, side: Side, kind: &str) -> PathBuf {
        let side = if side == Side::Ours { "ours" } else { "etcd" };
        self.dir.join(format!("{side}-{kind}"))
    }

    /// Starts a server on some cores (as `taskset -c` takes them) and waits until it counts its
    /// keys and is guarded. Must not run on a runtime.
    ///
    /// # Errors
    /// It does not serve within a minute; its log lies beside its data.
    pub fn start(
        &self,
        side: Side,
        data: &Path,
        guard: Guard,
        cores: &str,
    ) -> std::io::Result<Server> {
        let args = guard.args(&self.dir)?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut server = self.start_with(side, data, &args, guard, cores)?;
        server.access = load::block_on(guard.set_up(server.port, server.access.clone()))?;
        Ok(server)
    }

    fn start_with(
        &self,
        side: Side,
        data: &Path,
        args: &[&str],
        guard: Guard,
        cores: &str,
    ) -> std::io::Result<Server> {
        let [client, peer] = free_ports()?;
        let cluster = format!("default={}", url(peer));
        let mut all = vec!["--initial-cluster", &cluster];
        all.extend(args);
        let mut server = self.spawn(side, data, (client, peer), (guard, &all), cores)?;
        server.wait()?;
        Ok(server)
    }

    /// Starts a server with its client and peer ports on some cores (as `taskset -c` takes them)
    /// and waits for nothing.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn spawn(
        &self,
        side: Side,
        data: &Path,
        (port, peer): (u16, u16),
        (guard, args): (Guard, &[&str]),
        cores: &str,
    ) -> std::io::Result<Server> {
        let program = if side == Side::Ours { &self.ours } else { &self.reference };
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(program);
        if cores == SERVER_CORE {
            command.env("GOMAXPROCS", "1");
        }
        let clients = guard.url(port);
        let log = std::fs::File::create(data.with_extension("log"))?;
        command
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--log-level", "error", "--quota-backend-bytes", "8589934592"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let began = Instant::now();
        let child = command.spawn()?;
        // The program replaces taskset, so this is its process.
        let pid = child.id();
        let access = guard.access()?;
        Ok(Server { port, pid, access, ready_after: Duration::ZERO, began, child })
    }

    /// The directory with a million keys, of which the first so many were written again. Made once
    /// by the reference, whose files both can open, and kept.
    ///
    /// # Errors
    /// The disk's, or the reference does not serve.
    pub fn million(&self, updated: u64) -> std::io::Result<PathBuf> {
        let data = self.dir.join(format!("million-{updated}"));
        let complete = self.dir.join(format!("million-{updated}.complete"));
        if complete.exists() {
            return Ok(data);
        }
        remove(&data)?;
        if updated > 0 {
            copy(&self.million(0)?, &data)?;
        }
        let count = if updated > 0 { updated } else { million::KEYS };
        self.fill(&data, count, 256)?;
        std::fs::write(complete, "")?;
        Ok(data)
    }

    /// A database of a gigabyte as a file, made once by the reference and kept.
    ///
    /// # Errors
    /// As [`Programs::million`].
    pub fn gigabyte(&self) -> std::io::Result<PathBuf> {
        let database = self.dir.join("gigabyte.db");
        if database.exists() {
            return Ok(database);
        }
        let data = self.dir.join("gigabyte");
        remove(&data)?;
        self.fill(&data, million::BIG_KEYS, million::BIG_VALUE_BYTES)?;
        std::fs::rename(data.join("member/snap/db"), &database)?;
        remove(&data)?;
        Ok(database)
    }

    fn fill(&self, data: &Path, count: u64, value_bytes: usize) -> std::io::Result<()> {
        cli::output::err(format!("etcd-bench: filling {}, once", data.display()));
        let args = ["--unsafe-no-fsync"];
        let mut server = self.start_with(Side::Reference, data, &args, Guard::None, ALL_CORES)?;
        let access = server.access.clone();
        load::block_on(million::fill(server.port, &access, count, value_bytes))?;
        server.stop()
    }
}

impl Server {
    /// Waits until it counts its keys. Must not run on a runtime.
    ///
    /// # Errors
    /// It does not within a minute, or ends.
    pub fn wait(&mut self) -> std::io::Result<()> {
        let (port, access) = (self.port, self.access.clone());
        loop {
            if let Ok(Ok(_)) = load::block_on(async {
                Ok(tokio::time::timeout(Duration::from_secs(10), million::count(port, &access))
                    .await)
            })? {
                self.ready_after = self.began.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let text = format!("a server ended: {status}; see its log");
                return Err(std::io::Error::other(text));
            }
            if self.began.elapsed() > Duration::from_secs(60) {
                return Err(std::io::Error::other("a server does not serve"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it, as `kill -9` does.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Asks the process to stop and waits for it.
    ///
    /// # Errors
    /// It does not end within a minute.
    pub fn stop(&mut self) -> std::io::Result<()> {
        Command::new("kill").args(["-TERM", &self.pid.to_string()]).status()?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(std::io::Error::other("a server does not stop"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes a directory, if it is there.
///
/// # Errors
/// The disk's.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Replaces a directory by a copy of another, synced so that nothing is written back while servers
/// are measured.
///
/// # Errors
/// The disk's.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    remove(to)?;
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            std::fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}
