//! Failpoints from outside, as etcd's own robustness tests use them: set over HTTP, a server dies
//! in the midst of something, and nothing that it acknowledged is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use conform::{Client, Failure, Kind, Server, oracle, process};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// One request to a failpoint listener: status and body. HTTP/1.0, so that a body ends with the
/// connection.
fn ask(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("it can be set");
    let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status line"), body.to_owned())
}

/// A server with a listener for failpoints at the returned port.
fn with_listener(data_dir: &Path, args: &[&str], set: &str) -> (Server, u16) {
    let mut server = Server::prepare(Kind::Quorate, data_dir, args);
    let port = process::free_port();
    let address = format!("127.0.0.1:{port}");
    let envs = [("GOFAIL_HTTP", address.as_str()), ("GOFAIL_FAILPOINTS", set)];
    server.set_program(&process::quorate(), &envs);
    (server, port)
}

fn launched(data_dir: &Path, args: &[&str]) -> (Server, u16) {
    for _ in 0..5 {
        // Another process may take a port in between.
        let (mut server, port) = with_listener(data_dir, args, "");
        if server.try_launch() == Some(true) {
            return (server, port);
        }
    }
    panic!("it does not serve; see {}", data_dir.display());
}

fn set(port: u16, name: &str, terms: &str) {
    assert_eq!(ask(port, "PUT", &format!("/{name}"), terms), (204, String::new()), "{name}");
}

fn count(port: u16, name: &str) -> u64 {
    let (status, body) = ask(port, "GET", &format!("/{name}/count"), "");
    assert_eq!(status, 200, "{body}");
    body.parse().expect("a number")
}

async fn put(client: &Client, key: &str) -> Result<PutResponse, Failure> {
    let request = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
    // When the server dies the connection may go at any step.
    let client = client.clone();
    let call = async move { client.call("/etcdserverpb.KV/Put", &request).await };
    tokio::spawn(call).await.unwrap_or_else(|e| Err(Failure { code: 14, message: e.to_string() }))
}

async fn compact(client: &Client, revision: i64) -> Result<CompactionResponse, Failure> {
    let request = CompactionRequest { revision, physical: false };
    let client = client.clone();
    let call = async move { client.call("/etcdserverpb.KV/Compact", &request).await };
    tokio::spawn(call).await.unwrap_or_else(|e| Err(Failure { code: 14, message: e.to_string() }))
}

fn keys(server: &Server) -> Vec<String> {
    block_on(async {
        let client = Client::connect(server.port).await;
        let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let answer: RangeResponse = client.call("/etcdserverpb.KV/Range", &all).await.unwrap();
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        answer.kvs.iter().map(|kv| text(&kv.key)).collect()
    })
}

/// Puts, and compacts now and then, until the server is gone. Returns the keys it acknowledged.
fn write_until_dead(port: u16, prefix: &str) -> Vec<String> {
    block_on(async {
        let client = Client::connect(port).await;
        let mut acknowledged = Vec::new();
        for n in 0..20_000 {
            let key = format!("{prefix}/{n:05}");
            let Ok(answer) = put(&client, &key).await else { return acknowledged };
            acknowledged.push(key);
            // The same key again and again, so that there is something to compact.
            let Ok(_) = put(&client, "same").await else { return acknowledged };
            if n % 20 == 19 {
                let revision = answer.header.expect("every answer has one").revision;
                if compact(&client, revision).await.is_err() {
                    return acknowledged;
                }
            }
        }
        panic!("{prefix}: the server does not die");
    })
}

/// Every moment that puts, compactions and snapshots pass, in the order of `ALL`.
const PASSED: &[&str] = &[
    "raftBeforeSave",
    "raftAfterSave",
    "walBeforeSync",
    "walAfterSync",
    "raftBeforeWALSaveSnaphot",
    "beforeApplyOneEntryNormal",
    "commitBeforePreCommitHook",
    "commitAfterPreCommitHook",
    "beforeCommit",
    "afterCommit",
    "compactBeforeCommitScheduledCompact",
    "compactAfterCommitScheduledCompact",
    "compactBeforeCommitBatch",
    "compactAfterCommitBatch",
    "compactBeforeSetFinishedCompact",
    "compactAfterSetFinishedCompact",
];

#[test]
fn nothing_acknowledged_is_lost_wherever_the_server_dies() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let data_dir = dir.path().join("data");
    // Snapshots within a few hundred puts.
    let args = ["--snapshot-count", "30", "--snapshot-catchup-entries", "5"];
    let (mut all, mut died) = (Vec::new(), 0);
    for name in PASSED {
        let (mut server, port) = launched(&data_dir, &args);
        // What was written before is there, with what this one will write.
        let found = keys(&server);
        assert!(all.iter().all(|key| found.contains(key)), "{name}: lost by the one before");
        block_on(async {
            let client = Client::connect(server.port).await;
            for n in 0..5 {
                put(&client, &format!("{name}/before{n}")).await.expect("it serves");
            }
            if name.ends_with("CommitBatch") {
                // A compaction of more than one piece of 1,000 revisions.
                for _ in 0..25 {
                    let puts = (0..100).map(|_| {
                        let client = client.clone();
                        tokio::spawn(async move { put(&client, "same").await })
                    });
                    for put in puts.collect::<Vec<_>>() {
                        put.await.expect("it does not panic").expect("it serves");
                    }
                }
            }
        });
        set(port, name, "panic");
        let acknowledged = write_until_dead(server.port, name);
        let code = server.wait_exit(Duration::from_secs(10));
        assert_eq!(code, Some(Some(2)), "{name}: {}", server.log());
        died += 1;
        let said = server.log().matches("panic: failpoint panic: {}\n").count();
        assert_eq!(said, died, "{name}: {}", server.log());
        all.extend(acknowledged);
    }
    let (server, _) = launched(&data_dir, &args);
    let found = keys(&server);
    let lost: Vec<_> = all.iter().filter(|key| !found.contains(key)).collect();
    assert!(lost.is_empty() && all.len() > PASSED.len(), "{lost:?} of {}", all.len());
}

#[test]
fn a_first_start_that_dies_can_be_repeated() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let data_dir = dir.path().join("data");
    for name in ["beforeApplyOneConfChange", "raftBeforeSave", "raftAfterSave", "afterCommit"] {
        let (mut server, _) = with_listener(&data_dir, &[], &format!("{name}=panic(\"{name}\")"));
        server.spawn().expect("our own binary is built");
        let code = server.wait_exit(Duration::from_secs(10));
        assert_eq!(code, Some(Some(2)), "{name}: {}", server.log());
        assert!(server.log().contains(&format!("panic: failpoint panic: {name}\n")), "{name}");
    }
    let (server, _) = launched(&data_dir, &[]);
    block_on(async {
        let client = Client::connect(server.port).await;
        put(&client, "after").await.expect("it serves");
    });
}

#[test]
fn a_defragmentation_can_fail_and_die() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let data_dir = dir.path().join("data");
    let defragment = |server: &Server| {
        block_on(async {
            let client = Client::connect(server.port).await;
            put(&client, "before").await.expect("it serves");
            let path = "/etcdserverpb.Maintenance/Defragment";
            let call = async move {
                client.call::<DefragmentResponse>(path, &DefragmentRequest::default()).await
            };
            tokio::spawn(call).await.ok()
        })
    };
    let (mut server, port) = launched(&data_dir, &[]);
    for name in ["defragOpenFileError", "defragdbFail"] {
        set(port, name, &format!("1*return(\"{name} it is\")"));
        let failure = defragment(&server).expect("it lives").expect_err("it fails");
        assert_eq!(failure.message, format!("{name} it is"), "{failure:?}");
        assert!(defragment(&server).is_some_and(|answer| answer.is_ok()), "{name}");
        assert_eq!(count(port, name), 1);
    }
    for name in ["defragBeforeCopy", "defragdbFail", "defragBeforeRename"] {
        set(port, name, "panic");
        defragment(&server);
        let code = server.wait_exit(Duration::from_secs(10));
        assert_eq!(code, Some(Some(1)), "{name}: {}", server.log());
        assert!(server.log().contains("\"msg\":\"unexpected panic during defrag\""), "{name}");
        assert_eq!(server.try_launch(), Some(true), "{name}");
        assert_eq!(keys(&server), ["before"], "{name}");
        let left = std::fs::read_dir(data_dir.join("member/snap")).expect("it is there");
        let names: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("tmp")), "{names:?}");
    }
}

#[test]
fn sleeps_delay_what_they_are_set_for_and_are_counted() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (server, port) = launched(&dir.path().join("data"), &[]);
    let long = Duration::from_millis(400);
    block_on(async {
        let client = Client::connect(server.port).await;
        put(&client, "before").await.expect("it serves");
        set(port, "raftAfterSave", "1*sleep(400)");
        let began = Instant::now();
        put(&client, "slow").await.expect("it serves");
        assert!(began.elapsed() >= long, "{:?}", began.elapsed());
        assert_eq!(count(port, "raftAfterSave"), 1);
        let began = Instant::now();
        put(&client, "quick").await.expect("it serves");
        assert!(began.elapsed() < long && count(port, "raftAfterSave") == 1);

        // A watch that is held up holds up nobody else.
        let create = WatchCreateRequest { key: "w".into(), ..Default::default() };
        let mut watch = client.open("/etcdserverpb.Watch/Watch", None, false).await;
        let union = RequestUnion::CreateRequest(create);
        watch.send(&WatchRequest { request_union: Some(union) });
        let patience = Duration::from_secs(5);
        let created: WatchResponse = watch.next(patience).await.unwrap().expect("it is created");
        assert!(created.created);
        set(port, "beforeSendWatchResponse", "1*sleep(\"400ms\")");
        let began = Instant::now();
        put(&client, "w").await.expect("it serves");
        assert!(began.elapsed() < long, "{:?}", began.elapsed());
        put(&client, "w").await.expect("it serves");
        let mut events = 0;
        while events < 2 {
            let next: WatchResponse = watch.next(patience).await.unwrap().expect("events");
            events += next.events.len();
            assert!(began.elapsed() >= long, "{:?}", began.elapsed());
        }
        assert!(count(port, "beforeSendWatchResponse") >= 1);

        let grant = LeaseGrantRequest { ttl: 60, id: 7 };
        let lease: LeaseGrantResponse =
            client.call("/etcdserverpb.Lease/LeaseGrant", &grant).await.unwrap();
        set(port, "beforeCheckpointInLeaseRenew", "sleep(400)");
        let mut stream = client.open("/etcdserverpb.Lease/LeaseKeepAlive", None, false).await;
        let began = Instant::now();
        stream.send(&LeaseKeepAliveRequest { id: lease.id });
        put(&client, "beside").await.expect("it serves");
        assert!(began.elapsed() < long);
        let renewed: LeaseKeepAliveResponse =
            stream.next(patience).await.unwrap().expect("renewed");
        assert!(renewed.ttl == 60 && began.elapsed() >= long);
        assert_eq!(ask(port, "DELETE", "/beforeCheckpointInLeaseRenew", "").0, 204);
    });
}

#[test]
fn requests_are_answered_as_by_gos_runtime() {
    let Some(program) = oracle("gofail/gofail") else { return };
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (_server, ours) = launched(&dir.path().join("data"), &[]);
    let (_, list) = ask(ours, "GET", "/", "");
    let names: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix('=')).collect();
    assert!(names.contains(&"raftBeforeSave") && names.contains(&"defragdbFail"), "{list}");
    let theirs = process::free_port();
    let mut go = Command::new(program)
        .arg("serve")
        .args(&names)
        .env("GOFAIL_HTTP", format!("127.0.0.1:{theirs}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle starts");
    let mut ready = [0; 6];
    go.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("it says when it listens");
    for (method, path, body) in [
        ("GET", "/", ""),
        ("GET", "/applyBeforeOpenSnapshot", ""),
        ("GET", "/applyBeforeOpenSnapshot/count", ""),
        ("GET", "/unknown", ""),
        ("GET", "/unknown/count", ""),
        ("PUT", "/unknown", "off"),
        ("PUT", "/defragdbFail", "nonsense"),
        ("PUT", "/defragdbFail", ""),
        ("PUT", "/defragdbFail", "2*return(\"a b\")->1*sleep(10)"),
        ("GET", "/defragdbFail", ""),
        ("GET", "/defragdbFail/count", ""),
        ("PUT", "/defragdbFail", "nonsense"),
        ("GET", "/defragdbFail", ""),
        ("PUT", "/failpoints", "defragBeforeCopy=print;defragBeforeRename=50.0%off;"),
        ("PUT", "/FailPoints", "defragBeforeCopy=off"),
        ("GET", "/", ""),
        ("PUT", "/failpoints", "defragBeforeCopy=off=off"),
        ("PUT", "/failpoints", "defragBeforeCopy"),
        ("PUT", "/failpoints", "unknown=off"),
        ("PUT", "/failpoints", "defragBeforeCopy=nonsense"),
        ("PUT", "/failpoints", ""),
        ("DELETE", "/defragBeforeCopy", ""),
        ("DELETE", "/defragBeforeCopy", ""),
        ("DELETE", "/unknown", ""),
        ("DELETE", "/", ""),
        ("POST", "/defragBeforeCopy", "off"),
        ("PATCH", "/", ""),
        ("HEAD", "/", ""),
        ("GET", "/defragBeforeCopy?x=1", ""),
        ("GET", "/count", ""),
        ("GET", "//count", ""),
        ("GET", "/", ""),
    ] {
        let (ours, theirs) = (ask(ours, method, path, body), ask(theirs, method, path, body));
        assert_eq!(ours, theirs, "{method} {path} {body}");
    }
    drop(go.stdin.take());
    go.wait().expect("it ends with its input");
}

#[test]
fn without_the_variables_nobody_listens() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut server = Server::prepare(Kind::Quorate, &dir.path().join("data"), &[]);
    let bad = [("GOFAIL_FAILPOINTS", "a=b=c")];
    server.set_program(&process::quorate(), &bad);
    server.spawn().expect("our own binary is built");
    assert_eq!(server.wait_exit(Duration::from_secs(10)), Some(Some(1)));
    server.set_program(&process::quorate(), &[("GOFAIL_FAILPOINTS", "raftBeforeSave=panic")]);
    server.spawn().expect("our own binary is built");
    assert_eq!(server.wait_exit(Duration::from_secs(10)), Some(Some(2)));
    server.set_program(&process::quorate(), &[]);
    assert_eq!(server.try_launch(), Some(true));
}
