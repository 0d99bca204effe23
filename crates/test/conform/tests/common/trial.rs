//! One start of the server program with a command line, environment and directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use conform::Kind;
use conform::process::free_port;
use tempfile::TempDir;

/// Longest time for a server to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// A directory of its own, and ports for a member in it.
pub struct Trial {
    pub kind: Kind,
    pub dir: TempDir,
    pub client: u16,
    pub peer: u16,
}

/// A running server that is killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Trial {
    /// `None` where the program was not built.
    pub fn of(kind: Kind) -> Option<Self> {
        kind.program()?;
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Some(Self { kind, dir, client: free_port(), peer: free_port() })
    }

    /// One of each kind that was built.
    pub fn both() -> Vec<Self> {
        [Kind::Quorate, Kind::Reference].into_iter().filter_map(Self::of).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }

    /// Flags of a lone member `m` with its data in `d`.
    pub fn flags(&self) -> Vec<String> {
        let (client, peer) = (self.client_url(), self.peer_url());
        let cluster = format!("m={peer}");
        let data = self.path("d").display().to_string();
        [
            ["--name", "m"],
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &cluster],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// The program with these flags, in the directory, its log in a file.
    pub fn command(&self, flags: &[String]) -> Command {
        let program = self.kind.program().expect("asked for at the start");
        let log = std::fs::File::create(self.path("log")).expect("the directory is there");
        let mut command = Command::new(program);
        command.args(flags).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    pub fn spawn(&self, mut command: Command) -> Running {
        let child = command.spawn().expect("the program runs");
        Running { child, log: self.path("log") }
    }

    /// Starts with the lone member's flags and more.
    pub fn start(&self, more: &[&str]) -> Running {
        let mut flags = self.flags();
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        self.spawn(self.command(&flags))
    }
}

impl Running {
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log has a text; false if the process ended without it.
    pub fn says(&mut self, text: &str) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            let has_ended = self.child.try_wait().expect("the child is ours").is_some();
            if self.log().contains(text) {
                return true;
            }
            if has_ended || Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it serves clients.
    pub fn serves(&mut self) -> bool {
        self.says("ready to serve client requests")
    }

    /// Sends it a signal, by its name without `SIG`.
    #[allow(dead_code, reason = "not every test ends what it started")]
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([format!("-{name}"), self.child.id().to_string()]);
        assert!(kill.status().expect("the system has it").success());
    }

    /// Waits for its end; `None` if it goes on.
    pub fn end(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to an HTTP/1.1 request without a body: its head and its body.
pub fn http(port: u16, method: &str, path: &str, headers: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket takes a timeout");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers text");
    answer
}

/// Whether a file or directory is there.
pub fn exists(path: &Path) -> bool {
    path.try_exists().expect("the directory above is there")
}
