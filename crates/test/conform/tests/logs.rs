//! Log lines: etcd's shape, and the texts that people and tools look for.

use api::etcdserverpb::{PutRequest, PutResponse};
use conform::{Client, Kind, Server};

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
