//! The audit log of the real program: what it tells, and what it never stops.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use api::authpb::{Permission, permission::Type};
use api::etcdserverpb as pb;
use api::etcdserverpb::watch_request::RequestUnion;
use conform::process::{free_port, quorate};
use conform::{Client, Kind, Server};
use prost::Message;
use serde_json::{Value, json};

/// How long a line may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

async fn auth<A: Message + Default>(client: &Client, method: &str, request: &impl Message) -> A {
    let answer = client.call(&format!("/etcdserverpb.Auth/{method}"), request).await;
    answer.unwrap_or_else(|failure| panic!("{method}: {failure:?}"))
}

async fn put(client: &Client, key: impl Into<bytes::Bytes>, value: Vec<u8>) -> Result<i64, String> {
    let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    let answer = client.call::<pb::PutResponse>("/etcdserverpb.KV/Put", &request).await;
    answer.map(|put| put.header.unwrap().revision).map_err(|failure| failure.message)
}

async fn token(client: &Client, name: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.into(), password: "pw".into() };
    auth::<pb::AuthenticateResponse>(client, "Authenticate", &request).await.token
}

/// Users root and alice, who may do everything below `a/`.
async fn set_up(client: &Client) {
    for name in ["root", "alice"] {
        let (name, password) = (name.into(), "pw".into());
        let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
        let _: pb::AuthUserAddResponse = auth(client, "UserAdd", &request).await;
    }
    let role = pb::AuthRoleAddRequest { name: "r".into() };
    let _: pb::AuthRoleAddResponse = auth(client, "RoleAdd", &role).await;
    let (perm_type, key, range_end) = (Type::Readwrite as i32, "a/".into(), "a0".into());
    let perm = Some(Permission { perm_type, key, range_end });
    let permit = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm };
    let _: pb::AuthRoleGrantPermissionResponse = auth(client, "RoleGrantPermission", &permit).await;
    for (user, role) in [("root", "root"), ("alice", "r")] {
        let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        let _: pb::AuthUserGrantRoleResponse = auth(client, "UserGrantRole", &grant).await;
    }
    let _: pb::AuthEnableResponse = auth(client, "AuthEnable", &pb::AuthEnableRequest {}).await;
}

/// The lines of a file once there are so many.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
        }
        assert!(began.elapsed() < PATIENCE, "{count} lines are expected: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn serve(dir: &Path, audit: &Path) -> Server {
    let audit = format!("--audit-log={}", audit.display());
    let log = format!("--log-outputs={}", dir.join("log").display());
    let args = [audit.as_str(), &log, "--bcrypt-cost=4", "--max-request-bytes=2097152"];
    Server::start_on(Kind::Quorate, &dir.join("data"), &args).expect("our own binary is built")
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// Alice puts, reads, watches, logs in and deletes, some of which she or the caller may not.
async fn is_let_in_and_refused(client: &Client, alice: &Client) {
    put(alice, "b", b"v".to_vec()).await.unwrap_err();
    put(client, "a/2", b"v".to_vec()).await.unwrap_err();
    put(&client.with_token(Some("no.1")), "a/3", b"v".to_vec()).await.unwrap_err();
    let range = pb::RangeRequest { key: "b".into(), range_end: "c".into(), ..<_>::default() };
    let read = alice.call::<pb::RangeResponse>("/etcdserverpb.KV/Range", &range).await;
    read.unwrap_err();
    let allowed = pb::RangeRequest { key: "a/1".into(), ..<_>::default() };
    let read = alice.call::<pb::RangeResponse>("/etcdserverpb.KV/Range", &allowed).await;
    assert_eq!(read.unwrap().count, 1);
    let create = pb::WatchCreateRequest { key: "w".into(), ..<_>::default() };
    let request_union = Some(RequestUnion::CreateRequest(create));
    let mut watch = alice.open("/etcdserverpb.Watch/Watch", None, false).await;
    watch.send(&pb::WatchRequest { request_union });
    let told: pb::WatchResponse = watch.next(PATIENCE).await.unwrap().unwrap();
    assert!(told.canceled);
    let wrong = pb::AuthenticateRequest { name: "alice".into(), password: "no".into() };
    let path = "/etcdserverpb.Auth/Authenticate";
    client.call::<pb::AuthenticateResponse>(path, &wrong).await.unwrap_err();
    let delete =
        pb::DeleteRangeRequest { key: "a/".into(), range_end: "a0".into(), ..<_>::default() };
    let path = "/etcdserverpb.KV/DeleteRange";
    alice.call::<pb::DeleteRangeResponse>(path, &delete).await.unwrap();
}

#[test]
fn changes_and_refusals_are_told_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let (audit, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
    let mut server = serve(dir.path(), &audit);
    run(async {
        let client = Client::connect(server.port).await;
        set_up(&client).await;
        let alice = client.with_token(Some(&token(&client, "alice").await));
        let revision = put(&alice, "a/1", b"v".to_vec()).await.unwrap();
        assert_eq!(revision, 2);
        is_let_in_and_refused(&client, &alice).await;

        let denied = "etcdserver: permission denied";
        let expected = [
            ("Auth/UserAdd", "", json!(null), 1, "ok"),
            ("Auth/UserAdd", "", json!(null), 1, "ok"),
            ("Auth/RoleAdd", "", json!(null), 1, "ok"),
            ("Auth/RoleGrantPermission", "", json!([{"key": "a/", "range_end": "a0"}]), 1, "ok"),
            ("Auth/UserGrantRole", "", json!(null), 1, "ok"),
            ("Auth/UserGrantRole", "", json!(null), 1, "ok"),
            ("Auth/AuthEnable", "", json!(null), 1, "ok"),
            ("Auth/Authenticate", "", json!(null), 1, "ok"),
            ("KV/Put", "alice", json!([{"key": "a/1"}]), 2, "ok"),
            ("KV/Put", "alice", json!([{"key": "b"}]), 0, denied),
            ("KV/Put", "", json!([{"key": "a/2"}]), 0, "etcdserver: user name is empty"),
            ("KV/Put", "", json!([{"key": "a/3"}]), 0, "etcdserver: invalid auth token"),
            ("KV/Range", "alice", json!([{"key": "b", "range_end": "c"}]), 0, denied),
            ("Watch/Watch", "alice", json!([{"key": "w"}]), 0, denied),
            (
                "Auth/Authenticate",
                "",
                json!(null),
                0,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            ("KV/DeleteRange", "alice", json!([{"key": "a/", "range_end": "a0"}]), 3, "ok"),
        ];
        let told = lines(&audit, expected.len());
        for (line, (method, user, keys, revision, result)) in told.iter().zip(&expected) {
            let seen =
                (&line["method"], &line["user"], &line["keys"], &line["revision"], &line["result"]);
            let method = json!(format!("/etcdserverpb.{method}"));
            let wanted = (&method, &json!(user), keys, &json!(revision), &json!(result));
            assert_eq!(seen, wanted, "{line}");
            assert!(line["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
            let time = line["time"].as_str().unwrap();
            assert!(time.len() == 30 && time.ends_with('Z'), "{line}");
        }
        assert_eq!(told.len(), expected.len(), "{told:#?}");

        std::fs::rename(&audit, &old).unwrap();
        put(&alice, "a/rotated", Vec::new()).await.unwrap();
        assert_eq!(lines(&audit, 1)[0]["keys"][0]["key"], "a/rotated");
        assert_eq!(lines(&old, expected.len()).len(), expected.len());
        put(&alice, "a/last", Vec::new()).await.unwrap();
    });
    server.stop();
    assert_eq!(lines(&audit, 2)[1]["keys"][0]["key"], "a/last", "the end writes what is queued");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for text in
        ["\"permission denied\"", "\"invalid auth token\"", "invalid authentication was requested"]
    {
        assert!(log.contains(text), "{text}");
    }
}

#[test]
fn an_audit_log_that_takes_nothing_stops_no_put() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit");
    assert!(Command::new("mkfifo").arg(&audit).status().unwrap().success());
    let mut server = serve(dir.path(), &audit);
    let log = dir.path().join("log");
    run(async {
        let client = Client::connect(server.port).await;
        // The pipe is full of lines, then the queue of requests.
        for n in 0..100 {
            put(&client, format!("{n:0900}"), Vec::new()).await.unwrap();
        }
        for n in 0..200 {
            put(&client, format!("large-{}", n % 4), vec![0; 1 << 20]).await.unwrap();
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains("the audit log does not take its lines in time") {
                put(&client, "behind", Vec::new()).await.unwrap();
                return;
            }
        }
        panic!("nothing was dropped");
    });
    server.stop();
}

#[test]
fn a_full_disk_stops_no_put_and_a_path_that_leads_nowhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = serve(dir.path(), Path::new("/dev/full"));
    run(async {
        let client = Client::connect(server.port).await;
        put(&client, "k", b"v".to_vec()).await.unwrap();
        let began = Instant::now();
        let is_told = || {
            let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
            text.contains("cannot write the audit log")
        };
        while !is_told() {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        put(&client, "k", b"v".to_vec()).await.unwrap();
    });
    server.stop();
    let url = |port| format!("http://127.0.0.1:{port}");
    let (client, peer) = (url(free_port()), url(free_port()));
    let output = Command::new(quorate())
        .arg(format!("--audit-log={}", dir.path().join("no/such").display()))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--data-dir"])
        .arg(dir.path().join("other"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot open the audit log") && told.contains("no/such"), "{told}");
    assert!(!dir.path().join("other").exists(), "nothing was founded");
}
