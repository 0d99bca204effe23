//! Server processes on free ports and temporary directories.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::child::Process;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Quorate,
    /// etcd 3.7.3, built from its Go module.
    Reference,
    /// etcd 3.7.1, likewise: it sends the raft messages of a turn in reverse order, and finds its
    /// newest snapshot by the `.snap` files.
    Reference371,
    /// etcd 3.6.16, likewise: what clusters are upgraded from.
    Reference36,
}

impl Kind {
    /// Its program; `None` where the reference was not built.
    ///
    /// # Panics
    /// If ours was not built.
    #[must_use]
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Kind::Quorate => Some(quorate()),
            Kind::Reference => oracle("etcd/etcd"),
            Kind::Reference371 => oracle("etcd371/etcd371"),
            Kind::Reference36 => oracle("etcd36/etcd36"),
        }
    }
}

/// A Go program of `oracle/`, or `None` (with a line that says so) where it was not built. With
/// `QUORATE_CI` set a missing program is a failure.
#[must_use]
pub fn oracle(program: &str) -> Option<PathBuf> {
    let default = workspace().join("target/oracle");
    let dir = std::env::var_os("QUORATE_ORACLES").map_or(default, PathBuf::from);
    let path = dir.join(program);
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("QUORATE_CI").is_none(),
        "{} is missing; `cargo xtask oracle` builds it",
        path.display()
    );
    eprintln!("SKIPPED: {program} was not built (`cargo xtask oracle` does, with Go)");
    None
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("the crate lies three folders deep")
        .to_path_buf()
}

/// Our server binary: `QUORATE_BIN`, or what `cargo build` made beside this test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn quorate() -> PathBuf {
    if let Some(path) = std::env::var_os("QUORATE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let path = test.ancestors().nth(2).expect("tests lie in deps/").join("etcd");
    assert!(path.exists(), "{} is missing; run `cargo build --bin etcd`", path.display());
    path
}

/// A port that was free a moment ago.
///
/// # Panics
/// If the loopback interface has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// Which one.
    pub kind: Kind,
    /// Its client port on 127.0.0.1.
    pub port: u16,
    /// Its data directory.
    pub data_dir: PathBuf,
    process: Process,
    _dir: Option<TempDir>,
    args: Vec<String>,
    /// Another program than the kind's, and what its environment has more.
    program: Option<PathBuf>,
    envs: Vec<(String, String)>,
}

impl Server {
    /// Starts a server on an empty directory; `None` where the reference was not built.
    ///
    /// # Panics
    /// If it does not serve within twenty seconds.
    #[must_use]
    pub fn start(kind: Kind, args: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let data_dir = dir.path().join("data");
        let mut server = Self::start_on(kind, &data_dir, args)?;
        server._dir = Some(dir);
        Some(server)
    }

    /// Starts a server on a directory that the caller keeps.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[must_use]
    pub fn start_on(kind: Kind, data_dir: &Path, args: &[&str]) -> Option<Self> {
        let mut server = Self::prepare(kind, data_dir, args);
        server.launch()?;
        Some(server)
    }

    /// A server on a directory that the caller keeps, not yet started.
    #[must_use]
    pub fn prepare(kind: Kind, data_dir: &Path, args: &[&str]) -> Self {
        Self {
            kind,
            port: 0,
            data_dir: data_dir.to_path_buf(),
            process: Process::default(),
            _dir: None,
            args: args.iter().map(|&a| a.to_owned()).collect(),
            program: None,
            envs: Vec::new(),
        }
    }

    /// Runs another program in place of ours, with more in its environment.
    pub fn set_program(&mut self, program: &Path, envs: &[(&str, &str)]) {
        self.program = Some(program.to_path_buf());
        self.envs = envs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    }

    fn launch(&mut self) -> Option<()> {
        // Another process may take the port in between: then another one is tried.
        for _ in 0..5 {
            if self.try_launch()? {
                return Some(());
            }
        }
        panic!("{:?} did not serve; see {}", self.kind, self.data_dir.display());
    }

    /// Starts the process once. `None` where the program was not built; false if it ended before
    /// it served, or did not serve within twenty seconds and was killed.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn try_launch(&mut self) -> Option<bool> {
        self.spawn()?;
        Some(self.wait_ready())
    }

    /// Starts the process and does not wait for it. `None` where the program was not built.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn spawn(&mut self) -> Option<()> {
        self.kill();
        let program = match (&self.program, self.kind) {
            (Some(program), _) => program.clone(),
            (None, kind) => kind.program()?,
        };
        self.port = free_port();
        let client = format!("http://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let log = self.log_path();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let log = log.expect("the directory of the log exists");
        let mut command = Command::new(&program);
        command
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(&self.args)
            .envs(self.envs.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.process.spawn(&mut command);
        Some(())
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// All that this server and those before it on the directory logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the process has ended by itself; `None` if it has not after `patience`. The
    /// code is `None` within if a signal ended it.
    ///
    /// # Panics
    /// If it was never started.
    pub fn wait_exit(&mut self, patience: Duration) -> Option<Option<i32>> {
        self.process.wait_exit(patience)
    }

    /// Waits until the server answers; false if it ended instead or twenty seconds passed.
    ///
    /// # Panics
    /// If it was never started.
    pub fn wait_ready(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if self.process.has_ended() {
                return false;
            }
            // With an alarm a server is never healthy, but it serves.
            let healthy = |body: String| body.contains("true") || body.contains("ALARM");
            if self.http_get("/health").is_some_and(healthy) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// The body of an HTTP/1.0 GET (so that it comes in one piece), if it was answered.
    #[must_use]
    pub fn http_get(&self, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process id.
    ///
    /// # Panics
    /// If it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends the process at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks the process to stop (SIGTERM) and waits for it. Returns its exit code, if it had one.
    ///
    /// # Panics
    /// If it does not end within twenty seconds.
    pub fn stop(&mut self) -> Option<i32> {
        if !self.process.runs() {
            return None;
        }
        self.process.signal("TERM");
        let ended = self.wait_exit(Duration::from_secs(20));
        ended.unwrap_or_else(|| panic!("{:?} does not stop", self.kind))
    }

    /// Starts the process again on the same directory, perhaps as the other kind.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn restart_as(&mut self, kind: Kind) {
        self.kill();
        self.kind = kind;
        self.launch().expect("the program was there before");
    }
}
