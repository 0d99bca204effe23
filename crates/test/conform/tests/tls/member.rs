//! Members that are started with flags of TLS, and what is asked of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use conform::Kind;
use conform::process::{free_port, oracle};
use tls::{ClientTls, error_text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time for a member to do what it must do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between looks.
pub const STEP: Duration = Duration::from_millis(20);

/// A process, which ends with this value.
pub struct Member {
    child: Child,
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    pub client: u16,
    pub peer: u16,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports of a member.
#[derive(Clone, Copy)]
pub struct Ports {
    pub client: u16,
    pub peer: u16,
}

impl Ports {
    pub fn new() -> Self {
        Self { client: free_port(), peer: free_port() }
    }

    /// URLs for a lone member, with these schemes for clients and peers.
    pub fn urls(self, clients: &str, peers: &str) -> Vec<String> {
        let client = format!("{clients}://127.0.0.1:{}", self.client);
        let peer = format!("{peers}://127.0.0.1:{}", self.peer);
        vec![
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
        ]
    }
}

impl Member {
    /// Starts a member on a directory; `None` where the reference was not built.
    pub fn start(kind: Kind, dir: &Path, ports: Ports, args: &[String]) -> Option<Self> {
        let program = kind.program()?;
        let log = dir.with_extension("log");
        let mut all = vec![format!("--data-dir={}", dir.display())];
        all.extend_from_slice(args);
        let child = spawn(&program, &all, &log);
        Some(Self { child, program, args: all, log, client: ports.client, peer: ports.peer })
    }

    /// Ends it and starts it again, with a new log.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.program, &self.args, &self.log);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has a text.
    pub fn wait_log(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "no {text:?} in {}", self.log());
            std::thread::sleep(STEP);
        }
    }

    pub fn wait_served(&mut self) {
        self.wait_log("\"serving client traffic ");
    }

    /// Waits until the process ends by itself: its exit code, and the last error that it told.
    pub fn refused(&mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(Instant::now() < until, "it goes on: {}", self.log());
            std::thread::sleep(STEP);
        };
        let log = self.log();
        let lines = log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let mut told = lines.filter(|line| line["level"] == "fatal" || line["level"] == "warn");
        let last = told.next_back().unwrap_or_default();
        let text = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
        (code, format!("{}: {}", text("msg"), text("error")))
    }

    /// Asks it to end and waits for it.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        self.child.wait().unwrap();
    }
}

fn spawn(program: &Path, args: &[String], log: &Path) -> Child {
    let file = File::create(log).unwrap();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    command.spawn().unwrap()
}

/// The first line of the answer to a request over TLS, or why there is none.
pub async fn ask(port: u16, client: &ClientTls, host: &str) -> Result<String, String> {
    let words = |e: std::io::Error| match e.kind() {
        // How a connection ends that was refused is a race between its last bytes.
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => "EOF".to_owned(),
        _ => error_text(&e),
    };
    let socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(words)?;
    let mut stream = client.connect(socket, host).await.map_err(words)?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(words)?;
    stream.flush().await.map_err(words)?;
    let mut answer = Vec::new();
    loop {
        let n = stream.read_buf(&mut answer).await.map_err(words)?;
        let text = String::from_utf8_lossy(&answer);
        if let Some((line, _)) = text.split_once("\r\n") {
            return Ok(line.to_owned());
        }
        if n == 0 {
            return Err("EOF".to_owned());
        }
    }
}

/// Runs etcd's own `etcdctl`; `None` where it was not built.
pub fn etcdctl(args: &[String]) -> Option<Result<String, String>> {
    let out = Command::new(oracle("etcdctl/etcdctl")?).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Some(if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) })
}
