//! `/metrics`: what ours shows has etcd's names, types, help texts, labels and bounds of buckets,
//! and the figures that operators alert on are there and move.

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
fn scrape(kind: Kind) -> Option<String> {
    let server = Server::start(kind, &[])?;
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
fn every_family_of_ours_is_one_of_etcds() {
    let ours = families(&scrape(Kind::Quorate).expect("our own binary is built"));
    let Some(theirs) = scrape(Kind::Reference) else { return };
    let theirs = families(&theirs);
    for (name, family) in &ours {
        assert_eq!(Some(family), theirs.get(name), "{name}: left is ours, right is etcd's");
    }
}

#[test]
fn what_operators_alert_on_is_there_and_moves() {
    let text = scrape(Kind::Quorate).expect("our own binary is built");
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
