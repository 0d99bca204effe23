//! `/metrics`: what ours shows has etcd's names, types, help texts, labels and bounds of buckets,
//! all of etcd's names are there, and the figures that operators alert on move. `/debug/vars`.

use std::collections::{BTreeMap, BTreeSet};

use api::etcdserverpb as pb;
use conform::grpc::Client;
use conform::process::{Kind, Server};

/// A family: its type, its help text, the label names of its samples, and the bounds of its buckets.
#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    bounds: BTreeSet<String>,
}

type Families = BTreeMap<String, Family>;

/// Labels of a sample with their values.
fn labels(sample: &str) -> impl Iterator<Item = (&str, &str)> + '_ {
    let inside = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
    let parts = inside.map_or("", |(inside, _)| inside).split(',');
    parts.filter_map(|pair| pair.split_once('='))
}

fn families(text: &str) -> Families {
    let mut all = Families::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            all.insert(current.clone(), Family { help: help.to_owned(), ..Family::default() });
            continue;
        }
        let family = all.get_mut(&current).unwrap();
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family.kind = rest.split_once(' ').unwrap().1.to_owned();
            continue;
        }
        for (label, value) in labels(line) {
            family.labels.insert(label.to_owned());
            if label == "le" {
                family.bounds.insert(value.to_owned());
            }
        }
    }
    all
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is shown")).parse().unwrap()
}

/// A server after a little of everything, and what it shows then.
fn scrape(kind: Kind, detail: &str) -> Option<String> {
    let server = Server::start(kind, &["--metrics", detail])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(server.port).await;
        let key = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
        for _ in 0..2 {
            client.call::<pb::PutResponse>("/etcdserverpb.KV/Put", &key).await.unwrap();
        }
        let key = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
        let path = "/etcdserverpb.KV/DeleteRange";
        client.call::<pb::DeleteRangeResponse>(path, &key).await.unwrap();
        let key = pb::RangeRequest { key: "a".into(), ..Default::default() };
        client.call::<pb::RangeResponse>("/etcdserverpb.KV/Range", &key).await.unwrap();
        let create =
            pb::WatchCreateRequest { key: "a".into(), start_revision: 2, ..Default::default() };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        let mut watch = client.open("/etcdserverpb.Watch/Watch", None, false).await;
        watch.send(&pb::WatchRequest { request_union: Some(create) });
        let mut events = 0;
        while events < 3 {
            let message = watch.next_raw().await.unwrap().expect("the watch goes on");
            events += <pb::WatchResponse as prost::Message>::decode(message).unwrap().events.len();
        }
        let compact = pb::CompactionRequest { revision: 4, physical: true };
        client.call::<pb::CompactionResponse>("/etcdserverpb.KV/Compact", &compact).await.unwrap();
        let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
        let path = "/etcdserverpb.Lease/LeaseGrant";
        client.call::<pb::LeaseGrantResponse>(path, &grant).await.unwrap();
        let path = "/etcdserverpb.Maintenance/Defragment";
        client.call::<pb::DefragmentResponse>(path, &pb::DefragmentRequest {}).await.unwrap();
        // The backend is committed within 100 ms.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        for path in ["/health", "/readyz"] {
            server.http_get(path).expect("it is healthy");
        }
        // The watch is still open.
        Some(server.http_get("/metrics").expect("metrics are always there"))
    })
}

#[test]
fn families_are_etcds_and_all_of_them_are_there() {
    for detail in ["basic", "extensive"] {
        let ours = scrape(Kind::Quorate, detail).expect("our own binary is built");
        let Some(theirs) = scrape(Kind::Reference, detail) else { return };
        let (ours, theirs) = (families(&ours), families(&theirs));
        let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let mut differ = Vec::new();
        for name in names {
            if ours.get(name) != theirs.get(name) {
                differ.push(format!("{name}: {:?} {:?}", ours.get(name), theirs.get(name)));
            }
        }
        assert!(differ.is_empty(), "{detail}: left is ours, right is etcd's: {differ:#?}");
        let is_extensive = detail == "extensive";
        assert_eq!(ours.contains_key("grpc_server_handling_seconds"), is_extensive);
    }
}

/// Names of metrics within expressions, without what a histogram's have behind them.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| {
        let known = ["etcd_", "grpc_server_", "process_", "os_", "go_"];
        known.iter().any(|prefix| word.starts_with(prefix))
    };
    words.filter(is_metric).collect()
}

/// What etcd's own alert rules and dashboards in use ask for.
const ASKED_FOR: &str = "etcd_server_has_leader etcd_server_leader_changes_seen_total \
    etcd_server_is_leader etcd_server_is_learner etcd_server_id etcd_server_version \
    etcd_cluster_version etcd_server_proposals_failed_total etcd_server_proposals_pending \
    etcd_server_proposals_committed_total etcd_server_proposals_applied_total \
    etcd_server_heartbeat_send_failures_total etcd_server_slow_apply_total \
    etcd_server_slow_read_indexes_total etcd_server_read_indexes_failed_total \
    etcd_server_quota_backend_bytes etcd_server_health_failures etcd_server_health_success \
    etcd_disk_wal_fsync_duration_seconds_bucket etcd_disk_wal_write_bytes_total \
    etcd_disk_backend_commit_duration_seconds_bucket etcd_disk_backend_commit_duration_seconds_sum \
    etcd_disk_backend_snapshot_duration_seconds_bucket etcd_debugging_mvcc_keys_total \
    etcd_disk_backend_defrag_duration_seconds_bucket etcd_mvcc_db_total_size_in_bytes \
    etcd_mvcc_db_total_size_in_use_in_bytes \
    etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_bucket \
    etcd_debugging_snap_save_total_duration_seconds_sum etcd_debugging_mvcc_watcher_total \
    etcd_debugging_mvcc_slow_watcher_total etcd_debugging_mvcc_pending_events_total \
    etcd_debugging_mvcc_watch_stream_total etcd_debugging_mvcc_events_total etcd_mvcc_put_total \
    etcd_mvcc_delete_total etcd_mvcc_range_total etcd_mvcc_txn_total etcd_network_known_peers \
    etcd_network_client_grpc_received_bytes_total etcd_network_client_grpc_sent_bytes_total \
    grpc_server_handled_total grpc_server_started_total grpc_server_msg_received_total \
    grpc_server_msg_sent_total grpc_server_handling_seconds_bucket process_start_time_seconds \
    process_resident_memory_bytes process_cpu_seconds_total process_open_fds process_max_fds \
    process_virtual_memory_bytes go_goroutines go_threads go_memstats_alloc_bytes os_fd_used \
    os_fd_limit";

/// Names that wait for a second member or an alarm.
const AT_FIRST_USE: [&str; 8] = [
    "etcd_debugging_server_alarms",
    "etcd_network_active_peers",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_sent_failures_total",
    "etcd_network_peer_received_failures_total",
    "etcd_network_snapshot_send_failures",
];

#[test]
fn alert_rules_and_dashboards_find_their_names() {
    let shown = scrape(Kind::Quorate, "extensive").expect("our own binary is built");
    let families = families(&shown);
    let table: BTreeSet<_> = observe::metrics::FAMILIES.iter().map(|row| row.name).collect();
    let contrib = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../contrib");
    let read = |name: &str| std::fs::read_to_string(contrib.join(name)).unwrap();
    let (rules, dashboard) = (read("prometheus/alerts.yml"), read("grafana/etcd.json"));
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
    for (of, text) in [("rules", &rules[..]), ("dashboard", &dashboard), ("others", ASKED_FOR)] {
        let names = names(text);
        assert!(names.len() > 10, "{of} name metrics: {names:?}");
        for name in names {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_shown = |name: &str| {
                families.contains_key(name)
                    || (AT_FIRST_USE.contains(&name) && table.contains(name))
            };
            assert!(is_shown(name) || base.is_some_and(is_shown), "{of}: {name} is not shown");
        }
    }
}

/// `/debug/vars` of a server that runs.
fn vars(kind: Kind) -> Option<serde_json::Value> {
    let server = Server::start(kind, &[])?;
    let text = server.http_get("/debug/vars").expect("variables are always there");
    Some(serde_json::from_str(&text).expect("they are JSON"))
}

#[test]
fn variables_have_etcds_names_and_tell_of_this_process() {
    let ours = vars(Kind::Quorate).expect("our own binary is built");
    let raft = &ours["raft.status"];
    assert_eq!(raft["raftState"], "StateLeader");
    assert_eq!(raft["lead"], raft["id"]);
    assert!(raft["commit"].as_u64().unwrap() >= raft["applied"].as_u64().unwrap());
    assert!(ours["memstats"]["Alloc"].as_u64().unwrap() > 1 << 16);
    assert!(ours["file_descriptor_limit"].as_u64().unwrap() > 100);
    let words = ours["cmdline"].as_array().unwrap();
    assert!(words.iter().any(|word| word == "--data-dir"), "{words:?}");
    let Some(theirs) = vars(Kind::Reference) else { return };
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&ours), keys(&theirs));
    let missing: Vec<_> = keys(&theirs["raft.status"]).difference(&keys(raft)).cloned().collect();
    assert_eq!(missing, ["leadtransferee", "progress", "vote"]);
    assert!(keys(&ours["memstats"]).is_subset(&keys(&theirs["memstats"])));
}

#[test]
fn what_operators_alert_on_is_there_and_moves() {
    let text = scrape(Kind::Quorate, "basic").expect("our own binary is built");
    for (series, at_least) in [
        ("etcd_server_has_leader", 1.0),
        ("etcd_server_leader_changes_seen_total", 1.0),
        ("etcd_server_proposals_committed_total", 6.0),
        ("etcd_server_proposals_applied_total", 6.0),
        ("etcd_server_proposals_pending", 0.0),
        ("etcd_server_proposals_failed_total", 0.0),
        ("etcd_disk_wal_fsync_duration_seconds_count", 3.0),
        ("etcd_disk_backend_commit_duration_seconds_count", 1.0),
        ("etcd_mvcc_db_total_size_in_bytes", 20_480.0),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", 8_192.0),
        ("etcd_server_quota_backend_bytes", 2_147_483_648.0),
        ("etcd_mvcc_put_total", 2.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_range_total", 1.0),
        ("etcd_debugging_mvcc_keys_total", 0.0),
        ("etcd_debugging_mvcc_events_total", 3.0),
        ("etcd_server_health_success", 1.0),
        ("etcd_network_client_grpc_received_bytes_total", 10.0),
        ("etcd_network_client_grpc_sent_bytes_total", 10.0),
        ("os_fd_used", 5.0),
        ("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds_count", 1.0),
        ("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds_count", 1.0),
        ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
        ("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds_count", 1.0),
        ("etcd_debugging_disk_backend_commit_write_duration_seconds_count", 1.0),
        ("etcd_mvcc_db_open_read_transactions", 1.0),
        ("etcd_server_slow_apply_total", 0.0),
        ("etcd_server_slow_read_indexes_total", 0.0),
        ("go_memstats_alloc_bytes", 65_536.0),
        ("go_threads", 5.0),
    ] {
        let value = value(&text, series);
        assert!(value >= at_least, "{series} is {value}");
    }
    let watch =
        r#"{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}"#;
    assert!(value(&text, &format!("grpc_server_msg_sent_total{watch}")) >= 2.0);
    let behind = value(&text, "etcd_debugging_mvcc_slow_watcher_total");
    assert!(behind < 0.5, "a watcher that caught up reads no history");
    let puts = r#"{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    for name in ["started", "msg_received", "msg_sent"] {
        assert_eq!(value(&text, &format!("grpc_server_{name}_total{puts}")), 2.0, "{name}");
    }
}
