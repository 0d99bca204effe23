//! What lines hold, and what becomes of them when nobody takes them.

use std::io::Read;
use std::path::PathBuf;

use api::error::ApiError;
use api::etcdserverpb as pb;
use api::etcdserverpb::request_op::Request;
use api::method::{METHODS, Method};
use api::{v3electionpb as election, v3lockpb as lock};
use bytes::Bytes;
use calls::{Ended, Record};
use prost::Message;
use serde_json::Value;
use types::Revision;
use types::limits::{AUDIT_KEYS, AUDIT_TEXT_BYTES};

use super::*;
use crate::logging::{Format, Level};

/// What must stand in no line.
const SECRET: &str = "a-secret-7Hq2";

/// What stands in the line that counts those which were dropped.
const DROPPED: &[u8] = b"\"dropped\":";

fn record(method: Method, request: &impl Message) -> Record {
    Record {
        row: method.row(),
        user: "alice".into(),
        remote: Some("1.2.3.4:5".into()),
        request: request.encode_to_vec().into(),
        ended: Ended::Done(Revision(7)),
    }
}

fn put(key: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: SECRET.into(), ..<_>::default() }
}

fn put_of(key: impl Into<Bytes>) -> Record {
    record(Method::Put, &put(key))
}

/// The line of a record; `None` if it has none.
fn line(record: &Record) -> Option<Value> {
    let mut lines = Lines::default();
    lines.record(WallTime(1_700_000_000_000_000_042), record);
    assert!(lines.text.is_empty() || lines.text.ends_with('\n'));
    assert!(!lines.text.contains(SECRET), "{}", lines.text);
    (!lines.text.is_empty()).then(|| serde_json::from_str(&lines.text).expect(&lines.text))
}

#[test]
fn a_line_tells_who_what_and_how_it_ended() {
    let mut lines = Lines::default();
    lines.record(WallTime(1_700_000_000_000_000_042), &put_of("a\"b"));
    let expected = "{\"time\":\"2023-11-14T22:13:20.000000042Z\",\"method\":\"/etcdserverpb.KV/Put\",\
                    \"user\":\"alice\",\"remote\":\"1.2.3.4:5\",\"keys\":[{\"key\":\"a\\\"b\"}],\
                    \"revision\":7,\"result\":\"ok\"}\n";
    assert_eq!(lines.text, expected);
    let denied = Ended::Refused(ApiError::PermissionDenied.into());
    let told = line(&Record { ended: denied, ..put_of("k") }).unwrap();
    assert_eq!(told["result"], "etcdserver: permission denied");
    assert_eq!(told["revision"], 0);
    let told = line(&Record { ended: Ended::Unanswered, ..put_of("k") }).unwrap();
    assert_eq!(told["result"], "unanswered");
    let range = pb::DeleteRangeRequest { key: "a".into(), range_end: "\0".into(), prev_kv: false };
    let told = line(&record(Method::DeleteRange, &range)).unwrap();
    assert_eq!(told["keys"], serde_json::json!([{"key": "a", "range_end": "\0"}]));
}

#[test]
fn bytes_that_are_no_text_say_so_and_what_is_long_is_cut() {
    let told = line(&put_of(&b"\xff\x00"[..])).unwrap();
    assert_eq!(told["keys"], serde_json::json!([{"key_base64": "/wA="}]));
    // A letter of two bytes stands over the limit.
    let long = "x".repeat(AUDIT_TEXT_BYTES - 1) + "é";
    let told = line(&put_of(long.clone())).unwrap();
    assert_eq!(told["keys"][0]["key"], long[..AUDIT_TEXT_BYTES - 1]);
    assert_eq!(told["keys"][0]["key_cut"], true);
    let told = line(&put_of(vec![0xff; 2 * AUDIT_TEXT_BYTES])).unwrap();
    assert_eq!(
        told["keys"][0]["key_base64"].as_str().unwrap().len(),
        AUDIT_TEXT_BYTES.div_ceil(3) * 4
    );
    assert_eq!(told["keys"][0]["key_cut"], true);
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

#[test]
fn a_transaction_names_the_keys_of_all_that_is_in_it() {
    let read =
        operation(Request::RequestRange(pb::RangeRequest { key: "r".into(), ..<_>::default() }));
    let compare = pb::Compare { key: "c".into(), ..<_>::default() };
    let reads =
        pb::TxnRequest { compare: vec![compare], success: vec![read.clone()], failure: vec![] };
    assert_eq!(line(&record(Method::Txn, &reads)), None, "it changes nothing");
    let denied = Ended::Refused(ApiError::PermissionDenied.into());
    let told = line(&Record { ended: denied, ..record(Method::Txn, &reads) }).unwrap();
    let expected = serde_json::json!([{"op": "compare", "key": "c"}, {"op": "range", "key": "r"}]);
    assert_eq!(told["keys"], expected);
    let delete = pb::DeleteRangeRequest { key: "d".into(), range_end: "e".into(), prev_kv: false };
    let inner = pb::TxnRequest {
        failure: vec![operation(Request::RequestDeleteRange(delete))],
        ..<_>::default()
    };
    let nested = operation(Request::RequestTxn(inner));
    let changes = pb::TxnRequest {
        success: vec![operation(Request::RequestPut(put("p")))],
        failure: vec![read, nested],
        ..<_>::default()
    };
    let told = line(&record(Method::Txn, &changes)).unwrap();
    let expected = serde_json::json!([{"op": "put", "key": "p"}, {"op": "range", "key": "r"},
        {"op": "delete", "key": "d", "range_end": "e"}]);
    assert_eq!(told["keys"], expected);
    let many = (0..AUDIT_KEYS + 5).map(|n| operation(Request::RequestPut(put(n.to_string()))));
    let many = pb::TxnRequest { success: many.collect(), ..<_>::default() };
    let told = line(&record(Method::Txn, &many)).unwrap();
    assert_eq!(told["keys"].as_array().unwrap().len(), AUDIT_KEYS);
    assert_eq!(told["keys_omitted"], 5);
}

#[test]
fn what_nests_without_end_is_not_read() {
    let mut txn = pb::TxnRequest::default();
    for _ in 0..2_000 {
        let nested = operation(Request::RequestTxn(std::mem::take(&mut txn)));
        txn.success.push(nested);
    }
    let failed = Ended::Failed(ApiError::TooManyOps.into());
    // It is taken apart from the inside: dropping it must not recurse either.
    let request = record(Method::Txn, &txn);
    let mut left = vec![txn];
    while let Some(mut txn) = left.pop() {
        for operation in txn.success.drain(..) {
            if let Some(Request::RequestTxn(nested)) = operation.request {
                left.push(nested);
            }
        }
    }
    assert_eq!(line(&Record { ended: failed.clone(), ..request.clone() }), None);
    let denied = Ended::Refused(ApiError::PermissionDenied.into());
    assert_eq!(line(&Record { ended: denied, ..request }).unwrap()["unreadable"], true);
}

/// Requests that hold a secret wherever one may be, and what else their lines must name.
fn with_secrets() -> Vec<(Record, &'static str)> {
    let secret = || SECRET.to_owned();
    let user = pb::AuthUserAddRequest {
        name: "bob".into(),
        password: secret(),
        hashed_password: secret(),
        ..<_>::default()
    };
    let change = pb::AuthUserChangePasswordRequest {
        name: "bob".into(),
        password: secret(),
        hashed_password: secret(),
    };
    let login = pb::AuthenticateRequest { name: "bob".into(), password: secret() };
    let compare = pb::Compare {
        key: "k".into(),
        target_union: Some(pb::compare::TargetUnion::Value(SECRET.into())),
        ..<_>::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![operation(Request::RequestPut(put("p")))],
        ..<_>::default()
    };
    let campaign = election::CampaignRequest { name: "e".into(), lease: 3, value: SECRET.into() };
    let leader = Some(election::LeaderKey { key: "e/3".into(), ..<_>::default() });
    let proclaim = election::ProclaimRequest { leader, value: SECRET.into() };
    vec![
        (put_of("k"), "\"key\":\"k\""),
        (record(Method::Txn, &txn), "\"op\":\"put\""),
        (record(Method::UserAdd, &user), "\"target_user\":\"bob\""),
        (record(Method::UserChangePassword, &change), "\"target_user\":\"bob\""),
        (record(Method::Authenticate, &login), "\"target_user\":\"bob\""),
        (record(Method::Campaign, &campaign), "\"lease\":3"),
        (record(Method::Proclaim, &proclaim), "\"key\":\"e/3\""),
        (record(Method::Lock, &lock::LockRequest { name: "l".into(), lease: 4 }), "\"lease\":4"),
    ]
}

#[test]
fn no_line_holds_a_value_or_a_password() {
    for (record, named) in with_secrets() {
        let mut lines = Lines::default();
        lines.record(WallTime(1), &record);
        assert!(!lines.text.contains(SECRET), "{}", lines.text);
        assert!(lines.text.contains(named), "{named}: {}", lines.text);
    }
    // Whatever bytes a method is given, its line is JSON without them.
    let noise: Vec<u8> = (0..=255).chain(SECRET.bytes()).collect();
    for row in METHODS {
        for request in [Bytes::new(), Bytes::from(noise.clone()), Bytes::from_static(b"\x0a\xff")] {
            let denied = Ended::Refused(ApiError::PermissionDenied.into());
            let told = line(&Record { request, ended: denied, ..put_of("k") }.of(row.method));
            assert_eq!(told.unwrap()["method"], row.path);
        }
    }
}

trait Of {
    fn of(self, method: Method) -> Self;
}

impl Of for Record {
    fn of(self, method: Method) -> Self {
        Self { row: method.row(), ..self }
    }
}

/// A log, and what it said so far.
fn log(dir: &Path) -> (Arc<Log>, PathBuf) {
    let path = dir.join("log");
    let outputs = [path.display().to_string()];
    (Arc::new(Log::open(Level::Info, Format::Json, &outputs).unwrap()), path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
    let audit = AuditLog::open(&path, &log(dir.path()).0).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    audit.push(put_of("before"));
    audit.flush();
    std::fs::rename(&path, &old).unwrap();
    audit.push(put_of("after"));
    audit.flush();
    // Copied and cut, as others do it.
    std::fs::write(&path, "").unwrap();
    audit.push(put_of("last"));
    drop(audit);
    assert!(read(&old).contains("before") && read(&old).lines().count() == 1);
    assert!(read(&path).contains("last") && read(&path).lines().count() == 1, "{}", read(&path));
}

#[test]
fn a_full_disk_costs_lines_that_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (log, told) = log(dir.path());
    let path = dir.path().join("audit");
    let mut file = File::open(Path::new("/dev/full"), Arc::clone(&log)).unwrap();
    let mut lines = Lines::default();
    let mut append = |file: &mut File, keys: &[&str]| {
        keys.iter().for_each(|key| lines.record(WallTime(1), &put_of((*key).to_owned())));
        file.append(&mut lines);
        assert!(lines.text.is_empty());
    };
    append(&mut file, &["a", "b"]);
    append(&mut file, &["c"]);
    log.flush();
    let told = read(&told);
    assert_eq!(told.matches("cannot write the audit log: lines are dropped").count(), 1, "{told}");
    assert!(told.contains("\"dropped\":2") && told.contains("no space left on device"), "{told}");
    // There is room again.
    file.replace(&path);
    append(&mut file, &["d"]);
    let text = read(&path);
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect(&text)).collect();
    assert_eq!((lines.len(), &lines[0]["dropped"]), (2, &Value::from(3)), "{text}");
    assert_eq!(lines[1]["keys"][0]["key"], "d");
}

#[test]
fn a_pipe_that_nobody_reads_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (log, told) = log(dir.path());
    let path = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let audit = AuditLog::open(&path, &log).unwrap();
    let mut pushed = 0_u64;
    while audit.0.lock().dropped < 10 {
        audit.push(put_of(format!("key-{pushed:0500}")));
        pushed += 1;
        assert!(pushed < 10_000_000, "there is a limit");
    }
    log.flush();
    assert!(read(&told).contains("does not take its lines in time"), "{}", read(&told));
    let reader = std::thread::spawn(move || {
        let mut pipe = std::fs::File::open(path).unwrap();
        let (mut text, mut room) = (Vec::new(), vec![0; 1 << 16]);
        // What was dropped is told behind what was queued.
        loop {
            let count = pipe.read(&mut room).unwrap();
            let seen = text.len().saturating_sub(DROPPED.len());
            text.extend_from_slice(&room[..count]);
            if text[seen..].windows(DROPPED.len()).any(|window| window == DROPPED) {
                return text;
            }
        }
    });
    let text = reader.join().unwrap();
    let text = String::from_utf8(text).unwrap();
    let seen = text.matches("\"method\"").count() as u64;
    assert!(seen > 100 && seen < pushed, "{seen} of {pushed}");
}

#[test]
fn a_path_that_leads_nowhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path()).0;
    assert!(AuditLog::open(&dir.path().join("no/such/dir"), &log).is_err());
    assert!(AuditLog::open(dir.path(), &log).is_err());
}
