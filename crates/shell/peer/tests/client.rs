//! Questions to a real etcd, and its refusals next to ours.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use peer::{Client, ClientError, HashError, LeaseError, PromoteError};
use support::{Ours, program};
use types::{ClusterId, LeaseId, MemberId, Revision};

const TIMEOUT: Duration = Duration::from_secs(5);

struct Etcd {
    child: Child,
    peer_url: String,
    client_url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A URL nobody listens on now.
fn free_url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

async fn start(client: &Client) -> Option<Etcd> {
    let program = program("etcd/etcd")?;
    let (peer_url, client_url) = (free_url(), free_url());
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(program)
        .args(["--name", "a", "--data-dir", dir.path().to_str().unwrap()])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--initial-cluster", &format!("a={peer_url}"), "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts");
    let etcd = Etcd { child, peer_url, client_url, _dir: dir };
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let found = client.members(std::slice::from_ref(&etcd.peer_url), TIMEOUT).await;
        // Clients are told where it is once it has published itself.
        if found.is_ok_and(|cluster| !cluster.members[0].client_urls.is_empty()) {
            return Some(etcd);
        }
        assert!(Instant::now() < until, "etcd does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

async fn gateway(client: &Client, etcd: &Etcd, path: &str, body: &str) {
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let answer = client.ask(&etcd.client_url, request, TIMEOUT).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}: {:?}", answer.body());
}

#[test]
fn etcd_answers_every_question() {
    run(async {
        let client = Client::new(Duration::from_secs(2), None, None);
        let Some(etcd) = start(&client).await else { return };
        let url = &etcd.peer_url;
        // The first URL cannot be reached.
        let urls = [free_url(), url.clone()];

        let cluster = client.members(&urls, TIMEOUT).await.unwrap();
        assert_eq!(cluster.members.len(), 1);
        let member = &cluster.members[0];
        assert_eq!(member.peer_urls, [url.as_str()]);
        assert_eq!(member.client_urls, [etcd.client_url.as_str()]);
        assert!(!member.is_learner && member.id != 0 && cluster.id != ClusterId(0));

        let versions = client.version(&urls, TIMEOUT).await.unwrap();
        assert_eq!((&*versions.server, &*versions.cluster), ("3.7.3", "3.7.0"));
        assert_eq!(client.downgrade_enabled(&urls, TIMEOUT).await, Ok(false));

        let promote = |id| client.promote(url, MemberId(id), Some("token"), TIMEOUT);
        assert_eq!(promote(77).await, Err(PromoteError::NotFound));
        assert_eq!(promote(member.id).await, Err(PromoteError::NotLearner));

        let renew = |id| client.renew(url, LeaseId(id), TIMEOUT);
        assert_eq!(renew(9).await, Err(LeaseError::NotFound));
        let absent = client.time_to_live(url, LeaseId(9), true, TIMEOUT).await;
        assert_eq!(absent, Err(LeaseError::NotFound));
        gateway(&client, &etcd, "/v3/lease/grant", r#"{"ID":9,"TTL":100}"#).await;
        let put = r#"{"key":"aw==","value":"dg==","lease":9}"#;
        gateway(&client, &etcd, "/v3/kv/put", put).await;
        assert_eq!(renew(9).await, Ok(100));
        let lease = client.time_to_live(url, LeaseId(9), true, TIMEOUT).await.unwrap();
        assert_eq!((lease.granted_ttl, lease.keys), (100, vec![Bytes::from_static(b"k")]));

        let hash = |cluster, revision| client.hash_kv(url, cluster, Revision(revision), TIMEOUT);
        let newest = hash(cluster.id, 0).await.unwrap();
        assert_eq!((newest.revision, newest.hash_revision), (Revision(2), Revision(2)));
        assert_eq!(hash(cluster.id, 2).await.unwrap().hash, newest.hash);
        assert_eq!(hash(cluster.id, 99).await, Err(HashError::FutureRevision));
        assert_eq!(hash(ClusterId(1), 0).await, Err(HashError::ClusterMismatch));
        for _ in 0..3 {
            gateway(&client, &etcd, "/v3/kv/put", put).await;
        }
        gateway(&client, &etcd, "/v3/kv/compaction", r#"{"revision":4,"physical":true}"#).await;
        assert_eq!(hash(cluster.id, 2).await, Err(HashError::Compacted));

        let nowhere = client.version(&[free_url()], TIMEOUT).await;
        assert!(matches!(nowhere, Err(ClientError::Unreachable(_))), "{nowhere:?}");
    });
}

/// A leader that renews lease 9 on every connection as often as it is told.
fn renewing(times: &[usize]) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let times = times.to_vec();
    let serve = move || {
        for times in times {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..times {
                let mut request = Vec::new();
                let mut byte = [0];
                // The body is the last two bytes: field 1, lease 9.
                while !request.ends_with(b"\r\n\r\n\x08\x09") {
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x10\x09\x18\x05")
                    .unwrap();
            }
        }
    };
    (url, std::thread::spawn(serve))
}

#[test]
fn a_connection_serves_many_renewals_and_one_that_was_closed_is_replaced() {
    run(async {
        let client = Client::new(Duration::from_secs(2), None, None);
        let (url, served) = renewing(&[4, 1, 2]);
        for _ in 0..7 {
            assert_eq!(client.renew(&url, LeaseId(9), TIMEOUT).await, Ok(5));
        }
        served.join().unwrap();
    });
}

#[test]
fn a_peer_that_never_answers_costs_only_the_timeout() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(Duration::from_secs(2), None, None);
        let began = Instant::now();
        let answer = client.version(&[url], Duration::from_millis(200)).await;
        assert!(matches!(answer, Err(ClientError::Unreachable(_))), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(2));
    });
}

/// Status, headers but for dates and clusters, body.
fn ask(url: &str, request: &str) -> (String, Vec<String>, String) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
        if bytes.ends_with(b"\n") {
            break;
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next().unwrap();
    let mut headers: Vec<_> = lines
        .filter(|line| !line.starts_with("Date: "))
        .map(|line| if line.starts_with("X-Etcd-Cluster-Id") { "cluster".into() } else { line })
        .collect();
    headers.sort();
    (status, headers, body.to_owned())
}

#[test]
fn other_requests_are_refused_as_by_etcd() {
    run(async {
        let client = Client::new(Duration::from_secs(2), None, None);
        let Some(etcd) = start(&client).await else { return };
        let ours = Ours::start(1);
        let mut different = Vec::new();
        let long = "x".repeat(65_537);
        for (method, path, more, body) in [
            ("POST", "/members", "", ""),
            ("DELETE", "/members", "", ""),
            ("GET", "/members/promote/7", "", ""),
            ("POST", "/downgrade/enabled", "", ""),
            ("POST", "/members/hashkv", "", "{}"),
            ("GET", "/members/hashkv", "X-Etcd-Cluster-ID: 1\r\n", "{}"),
            ("POST", "/version", "", ""),
            ("GET", "/leases", "", ""),
            ("PUT", "/leases/internal", "", ""),
            ("POST", "/leases", "", &long),
            ("GET", "/leases/other", "", ""),
            ("GET", "/members/other", "", ""),
            ("GET", "/health", "", ""),
            ("GET", "/", "", ""),
        ] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let (a, b) = (ask(&ours.url, &request), ask(&etcd.peer_url, &request));
            if a != b {
                different.push(format!("{method} {path}: {a:?} against etcd's {b:?}"));
            }
        }
        assert!(different.is_empty(), "{}", different.join("\n"));
    });
}
