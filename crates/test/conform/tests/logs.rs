//! Log lines: etcd's shape, and the texts that people and tools look for.

use std::time::{Duration, Instant};

use api::etcdserverpb::{self as pb, PutRequest, PutResponse};
use conform::grpc::envelope;
use conform::{Client, Cluster, Kind, Server};
use prost::Message;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Texts of a run from the first start to a clean stop, in order.
const TEXTS: [&str; 12] = [
    "Initialize and start etcd server",
    "starting an etcd server",
    "opened backend db",
    "starting local member",
    "kvstore restored",
    "starting etcd server",
    "published local member to cluster through raft",
    "ready to serve client requests",
    "serving client traffic insecurely; this is strongly discouraged!",
    "received signal; shutting down",
    "closed etcd server",
    "server has already been initialized",
];

fn log_of_two_runs(kind: Kind, format: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let outputs = format!("--log-outputs={}", log.display());
    let format = format!("--log-format={format}");
    let mut server = Server::start_on(kind, &dir.path().join("data"), &[&outputs, &format])?;
    server.stop();
    server.restart_as(kind);
    server.stop();
    Some(std::fs::read_to_string(log).unwrap())
}

/// Digits become 0, so that two times look the same.
fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

#[test]
fn lines_are_json_as_etcds_and_tell_the_same_story() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(log) = log_of_two_runs(kind, "json") else { continue };
        let mut told = TEXTS.iter().peekable();
        for line in log.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            let line = value.as_object().unwrap();
            let first: Vec<_> = line.keys().take(2).map(String::as_str).collect();
            assert_eq!(first, ["level", "ts"], "{kind:?}");
            assert!(line.contains_key("caller"), "{kind:?}");
            assert_eq!(shape(line["ts"].as_str().unwrap()), "0000-00-00T00:00:00.000000Z");
            if told.peek().is_some_and(|text| line["msg"] == **text) {
                told.next();
            }
        }
        assert_eq!(told.next(), None, "{kind:?}: not told, or out of order:\n{log}");
    }
}

#[test]
fn a_data_directory_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let told = [Kind::Quorate, Kind::Reference].map(|kind| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o750)).unwrap();
        let server = Server::start_on(kind, &data, &[])?;
        let log = server.log().replace(&dir.path().display().to_string(), "DIR");
        let lines = log.lines().filter(|line| line.contains("check file permission"));
        let error =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["error"].clone();
        Some(lines.map(error).collect::<Vec<_>>())
    });
    let expected = r#"directory "DIR/data" exist, but the permission is "drwxr-x---". The recommended permission is "-rwx------" to prevent possible unprivileged access to the data"#;
    for told in told.into_iter().flatten() {
        assert_eq!(told, [expected]);
    }
}

#[test]
fn the_console_format_has_columns() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(log) = log_of_two_runs(kind, "console") else { continue };
        let line = log.lines().find(|line| line.contains("opened backend db")).unwrap();
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(shape(columns[0]), "0000-00-00T00:00:00.000000Z", "{kind:?}");
        assert_eq!((columns[1], columns[3]), ("info", "opened backend db"), "{kind:?}");
        assert!(columns[4].starts_with("{\"path\": \"/"), "{kind:?}: {line}");
    }
}

/// What one server logs of a put, if every apply is slow, or none.
fn slow_applies(kind: Kind, limit: &str) -> Option<Vec<serde_json::Value>> {
    let mut server = Server::start(kind, &[&format!("--warning-apply-duration={limit}")])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.port).await;
        let put = PutRequest { key: "a".into(), value: "b".into(), ..PutRequest::default() };
        let _: PutResponse = client.call("/etcdserverpb.KV/Put", &put).await.unwrap();
    });
    server.stop();
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    Some(lines.filter(|l: &serde_json::Value| l["msg"] == "apply request took too long").collect())
}

#[test]
fn j8_an_apply_slower_than_the_flag_says_is_told() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(lines) = slow_applies(kind, "1ns") else { continue };
        let line = lines.iter().find(|line| line["prefix"] == "").expect("a put is an apply");
        let line = line.as_object().unwrap();
        let names: Vec<&str> = line.keys().map(String::as_str).collect();
        let wanted = ["level", "ts", "caller", "msg", "took", "expected-duration", "prefix"];
        assert_eq!(names[..7], wanted, "{kind:?}");
        assert_eq!(names[7..], ["request", "response"], "{kind:?}");
        assert_eq!((&line["level"], &line["expected-duration"]), (&"warn".into(), &"1ns".into()));
        assert!(line["took"].as_str().unwrap().ends_with('s'), "{kind:?}");
        assert_eq!(slow_applies(kind, "1h"), Some(vec![]), "{kind:?}");
    }
}

/// What an operator's day makes a server tell, by text.
const ORDINARY: [&str; 11] = [
    "finished scheduled compaction",
    "starting defragment",
    "defragmenting",
    "finished defragmenting directory",
    "finished defragment",
    "sending database snapshot to client",
    "sending database sha256 checksum to client",
    "successfully sent database snapshot to client",
    "serving /health false due to an alarm",
    "/health error",
    "Health check error",
];

/// Versions, a compaction, a defragmentation, a snapshot, and checks of health under an alarm.
async fn live(server: &Server) {
    let client = Client::connect(server.port).await;
    for n in 0..40 {
        let (key, value) = (format!("k{}", n % 5).into(), format!("{n}").into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        let _: PutResponse = client.call("/etcdserverpb.KV/Put", &put).await.unwrap();
    }
    let delete = pb::DeleteRangeRequest { key: "k0".into(), ..Default::default() };
    let _: pb::DeleteRangeResponse =
        client.call("/etcdserverpb.KV/DeleteRange", &delete).await.unwrap();
    let compact = pb::CompactionRequest { revision: 42, physical: true };
    let _: pb::CompactionResponse =
        client.call("/etcdserverpb.KV/Compact", &compact).await.unwrap();
    let _: pb::DefragmentResponse = client
        .call("/etcdserverpb.Maintenance/Defragment", &pb::DefragmentRequest {})
        .await
        .unwrap();
    let request = envelope(&pb::SnapshotRequest {}.encode_to_vec());
    let mut stream = client.open("/etcdserverpb.Maintenance/Snapshot", Some(request), true).await;
    let mut remaining = u64::MAX;
    while let Some(part) = stream.next::<pb::SnapshotResponse>(PATIENCE).await.unwrap() {
        remaining = part.remaining_bytes;
    }
    assert_eq!(remaining, 0);
    let raise = pb::AlarmRequest { action: 1, member_id: 0x2a, alarm: 2 };
    let _: pb::AlarmResponse =
        client.call("/etcdserverpb.Maintenance/Alarm", &raise).await.unwrap();
    for path in ["/health", "/readyz/data_corruption", "/livez"] {
        let answer = server.http_get(path).unwrap();
        assert_eq!(answer.contains("CORRUPT"), path != "/livez", "{answer}");
    }
}

/// A line as it compares: without what depends on the file's layout, on time, or on being Go.
fn comparable(line: &serde_json::Value) -> Vec<(String, String)> {
    let line = line.as_object().expect("a line is an object");
    let told = line.iter().filter(|(name, _)| !["ts", "caller", "stacktrace"].contains(&&name[..]));
    let shown = |name: &str, value: &serde_json::Value| match value.as_str() {
        Some(took) if name == "took" && took.ends_with('s') => "a time".to_owned(),
        Some(path) if name == "path" && path.ends_with("member/snap/db") => "the file".to_owned(),
        Some(size) if name == "size" || name.starts_with("current-db-size") => {
            assert!(size.ends_with('B'), "{size}");
            "a size".to_owned()
        }
        None if name == "total-bytes" || name.starts_with("current-db-size") => {
            assert!(value.is_i64(), "{value}");
            "a number".to_owned()
        }
        _ => value.to_string(),
    };
    told.map(|(name, value)| (name.clone(), shown(name, value))).collect()
}

#[test]
fn an_ordinary_life_is_told_as_etcd_tells_it() {
    let told = [Kind::Quorate, Kind::Reference].map(|kind| {
        let mut server = Server::start(kind, &[])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(&server));
        server.stop();
        let log = server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let wanted = |line: &serde_json::Value| ORDINARY.iter().any(|text| line["msg"] == **text);
        // Checks of health before there was a leader differ by chance.
        let early = |line: &serde_json::Value| line["msg"] != "finished scheduled compaction";
        Some(lines.filter(wanted).skip_while(early).map(|l| comparable(&l)).collect::<Vec<_>>())
    });
    let [Some(ours), theirs] = told else { panic!("ours is built") };
    let texts: Vec<&str> = ours
        .iter()
        .map(|line| line.iter().find(|(n, _)| n == "msg").unwrap().1.trim_matches('"'))
        .collect();
    assert_eq!(texts, ORDINARY);
    if let Some(theirs) = theirs {
        assert_eq!(ours, theirs);
    }
}

/// What a member tells that has lost its quorum, of a read and of a check of health.
async fn alone(kind: Kind) -> Option<Vec<Vec<(String, String)>>> {
    let mut cluster = Cluster::start(&[kind; 3], &[])?;
    for n in [1, 2] {
        cluster.nodes[n].kill();
    }
    let read = async {
        let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
        let answer = cluster.call::<pb::RangeResponse>(0, "/etcdserverpb.KV/Range", &range).await;
        assert!(answer.is_err(), "nobody is there to confirm it");
    };
    read.await;
    let until = Instant::now() + PATIENCE;
    while !cluster.nodes[0].http_get("/health").is_some_and(|body| body.contains("NO LEADER")) {
        assert!(Instant::now() < until, "{kind:?} does not notice that there is no leader");
    }
    let texts = [
        "waiting for ReadIndex response took too long, retrying",
        "serving /health false; no leader",
    ];
    let log = cluster.nodes[0].log();
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = texts.map(|text| {
        let mut line = lines.iter().rfind(|line| line["msg"] == *text).cloned();
        if let Some(id) = line.as_mut().and_then(|line| line.get_mut("sent-request-id")) {
            assert!(id.as_u64().is_some_and(|id| id > 0), "{kind:?}: {id}");
            *id = 0.into();
        }
        comparable(&line.unwrap_or_else(|| panic!("{kind:?} does not tell {text:?}:\n{log}")))
    });
    Some(last.into())
}

#[test]
fn a_member_without_a_quorum_tells_what_it_waits_for() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [ours, theirs] = [Kind::Quorate, Kind::Reference].map(|kind| runtime.block_on(alone(kind)));
    let ours = ours.expect("ours is built");
    if let Some(theirs) = theirs {
        assert_eq!(ours, theirs);
    }
}
