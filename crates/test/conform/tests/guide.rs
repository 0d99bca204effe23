//! What a newcomer does: a configuration file, and small programs with Go's clients of today and
//! of the old guide.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conform::process::{free_port, quorate};
use conform::{Client, Kind, Server, oracle};

struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn health(port: u16) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The guide's file, with ports and directory of this test.
fn guide(dir: &Path, client: u16, peer: u16) -> String {
    format!(
        "name: etcd-node0\n\
         data-dir: {}\n\
         listen-client-urls: http://0.0.0.0:{client}\n\
         advertise-client-urls: http://0.0.0.0:{client}\n\
         listen-peer-urls: http://0.0.0.0:{peer}\n\
         initial-advertise-peer-urls: http://0.0.0.0:{peer}\n\
         initial-cluster: etcd-node0=http://0.0.0.0:{peer}\n\
         initial-cluster-token: etcd-cluster-token\n\
         initial-cluster-state: new\n\
         log-level: info\n\
         logger: zap\n\
         log-outputs: stderr\n",
        dir.join("data").display()
    )
}

#[test]
fn the_guides_file_starts_our_server() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (client, peer) = (free_port(), free_port());
    let file = dir.path().join("etcd.yml");
    std::fs::write(&file, guide(dir.path(), client, peer)).expect("the directory is writable");
    let log = std::fs::File::create(dir.path().join("log")).expect("the directory is writable");
    let child = Command::new(quorate())
        .arg("--config-file")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("our program runs");
    let mut running = Running(child);
    let until = Instant::now() + Duration::from_secs(15);
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    while !health(client).is_some_and(|answer| answer.contains("\"true\"")) {
        assert!(running.0.try_wait().expect("ours").is_none(), "it ended: {}", log());
        assert!(Instant::now() < until, "it does not serve: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let members: api::etcdserverpb::MemberListResponse = runtime.block_on(async {
        let client = Client::connect(client).await;
        let request = api::etcdserverpb::MemberListRequest { linearizable: true };
        client.call("/etcdserverpb.Cluster/MemberList", &request).await.expect("it answers")
    });
    assert_eq!(members.members.len(), 1);
    assert_eq!(members.members[0].name, "etcd-node0");
    assert_eq!(members.members[0].peer_ur_ls, [format!("http://0.0.0.0:{peer}")]);
    assert_eq!(members.members[0].client_ur_ls, [format!("http://0.0.0.0:{client}")]);
    assert!(dir.path().join("data/member/wal").is_dir());
}

/// Runs a program against a fresh server of a kind; `None` if one of them was not built.
fn run(kind: Kind, program: &str) -> Option<String> {
    let path = oracle(program)?;
    let server = Server::start(kind, &[])?;
    let output = Command::new("timeout")
        .arg("40")
        .arg(path)
        .env("EP", server.endpoint())
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} on {kind:?}: {text}{errors}");
    assert!(text.ends_with("OK\n"), "{program} on {kind:?}: {text}{errors}");
    Some(text)
}

fn same_on_both(program: &str) {
    for client in ["client-new", "client-old"] {
        let program = format!("{client}/{program}");
        let Some(ours) = run(Kind::Quorate, &program) else { continue };
        let Some(theirs) = run(Kind::Reference, &program) else { continue };
        assert_eq!(ours, theirs, "{program}: left is ours, right is etcd's");
    }
}

#[test]
fn gos_clients_put_and_get() {
    same_on_both("putget");
}

#[test]
fn gos_clients_keep_leases_alive() {
    same_on_both("keepalive");
}

/// This one waits for the expiry by a watch.
#[test]
fn gos_clients_use_leases() {
    same_on_both("lease");
}

#[test]
fn gos_clients_watch() {
    same_on_both("watch");
}

#[test]
fn gos_clients_lock() {
    same_on_both("lock");
}
