//! Watches of real Go clients: this server and the reference etcd give them the same.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program of the oracles; `None` (with a line on stderr) if it is missing.
fn oracle(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("QUORATE_ORACLES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle"),
        PathBuf::from,
    );
    let program = folder.join(name);
    if program.exists() {
        return Some(program);
    }
    let missing = program.display();
    assert!(std::env::var_os("QUORATE_CI").is_none(), "the oracle {missing} is missing");
    eprintln!("SKIPPED: no Go oracle at {missing}");
    None
}

/// A server with an empty data directory; killed when dropped.
struct Server {
    process: Child,
    endpoint: String,
    directory: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; its directory goes in any case.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    fn start(name: &str, command: impl FnOnce(&PathBuf, u16) -> Command) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("watch-{name}-{port}"));
        let mut command = command(&directory, port);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the server starts");
        let endpoint = format!("127.0.0.1:{port}");
        let server = Self { process, endpoint, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&server.endpoint).is_err() {
            assert!(Instant::now() < deadline, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn ours() -> Self {
        Self::start("ours", |directory, port| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
            command.arg("--data-dir").arg(directory).arg("--port").arg(port.to_string());
            command
        })
    }

    fn reference(program: &PathBuf) -> Self {
        Self::start("reference", |directory, port| {
            let url = format!("http://127.0.0.1:{port}");
            let mut command = Command::new(program);
            command.arg("--data-dir").arg(directory);
            command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
            command.arg("--listen-peer-urls").arg(format!("http://127.0.0.1:{}", free_port()));
            command
        })
    }

    fn client(&self, program: &PathBuf) -> Child {
        let mut command = Command::new(program);
        command.env("EP", &self.endpoint).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("the client starts")
    }
}

fn output(mut client: Child) -> String {
    let mut text = String::new();
    client.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
    assert!(client.wait().expect("it ends").success(), "{text}");
    text
}

/// Runs a client program against a fresh server of each kind.
fn compare(client: &str) {
    let (Some(etcd), Some(program)) = (oracle("etcd/etcd"), oracle(client)) else { return };
    let (ours, reference) = (Server::ours(), Server::reference(&etcd));
    let (got, want) = (ours.client(&program), reference.client(&program));
    let (got, want) = (output(got), output(want));
    assert!(got.ends_with("OK\n"), "{got}");
    for (line, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "line {}", line + 1);
    }
    assert_eq!(got.len(), want.len());
}

#[test]
fn every_response_of_a_raw_stream_is_etcds() {
    compare("client-new/watchraw");
}

#[test]
fn a_client_that_pauses_loses_nothing_and_stalls_nobody() {
    compare("client-new/watchslow");
}

#[test]
fn watch_and_lock_of_both_client_versions_work() {
    for client in ["client-new/watch", "client-old/watch", "client-new/lock", "client-old/lock"] {
        compare(client);
    }
}
