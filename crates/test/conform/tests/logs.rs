//! Log lines: etcd's shape, and the texts that people and tools look for.

use conform::process::{Kind, Server};

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
