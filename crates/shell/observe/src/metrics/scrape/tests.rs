use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use env::mem::MemDisk;
use env::{Instant, MayBlock, SplitMix};
use machine::{CommandKind, Member};
use member::StartConfig;
use peer::{Channel, Event, Probe};
use types::{ClusterId, Index};

use super::super::{Buckets, Detail, Read, Type};
use super::*;

const ID: MemberId = MemberId(7);

/// The View of a member that has just been founded.
fn founded() -> MemberView {
    let founder = Member { id: ID.0, name: "m".to_owned(), ..Member::default() };
    let config = StartConfig::founding(Path::new("/d/member"), founder, ClusterId(9));
    let may = MayBlock::on_this_thread();
    let entropy = Box::new(SplitMix::new(1));
    let parts = member::start(Arc::new(MemDisk::new()), &may, Instant(0), config, entropy);
    parts.unwrap_or_else(|e| panic!("{e}")).applier.view()
}

/// Uses each family once that appears with its first use.
fn use_all(metrics: &Metrics) {
    let (peer, took) = (MemberId(8), Duration::from_millis(3));
    metrics.applied(&[(CommandKind::Put, true)], took);
    metrics.read(Read::Range, true, took);
    metrics.ranged(true, took);
    metrics.checked("readyz", "data_corruption", true);
    metrics.clients("3.7")[0].inc();
    metrics.receive_failed("watch");
    metrics.peers.promoted(Some("too early"));
    let index = Index(5);
    for event in [
        Event::PeerAdded(peer, &[]),
        Event::Active(peer),
        Event::Inactive { peer, channel: Channel::Messages, action: "write", reason: "gone" },
        Event::Sent(peer, 1),
        Event::Received(peer, 1),
        Event::SendFailed(peer, Channel::Messages),
        Event::ReceiveFailed(peer),
        Event::RoundTrip(peer, Probe::Pipeline, took),
        Event::SnapshotSending { peer, index, bytes: 1 },
        Event::SnapshotSent { peer, index, bytes: 1, took, failed: None },
        Event::SnapshotSent { peer, index, bytes: 1, took, failed: Some("gone") },
        Event::SnapshotReceiving { peer, index, message_bytes: 1 },
        Event::SnapshotReceived {
            peer: Some(peer),
            index,
            bytes: 1,
            synced: took,
            took,
            failed: None,
        },
        Event::SnapshotReceived {
            peer: Some(peer),
            index,
            bytes: 1,
            synced: took,
            took,
            failed: Some("cut"),
        },
    ] {
        metrics.peers.event(ID, &event);
    }
}

/// What a page shows of a family.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
    bounds: BTreeSet<String>,
}

fn shown(text: &str) -> BTreeMap<String, Shown> {
    let mut families: BTreeMap<String, Shown> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((family, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            name = family.to_owned();
            let first = Shown { help: help.to_owned(), ..Shown::default() };
            assert!(families.insert(name.clone(), first).is_none(), "{name} is shown twice");
            continue;
        }
        let family = families.get_mut(&name).unwrap();
        if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            family.kind = kind.to_owned();
            continue;
        }
        let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
        for pair in inside.map_or("", |(inside, _)| inside).split("\",").filter(|p| !p.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            match label {
                "le" => family.bounds.insert(value.trim_end_matches('"').to_owned()),
                label => family.labels.insert(label.to_owned()),
            };
        }
    }
    families
}

#[test]
fn each_family_of_the_table_is_registered_and_shown_as_its_row_says() {
    let metrics = Metrics::new(Detail::Extensive);
    use_all(&metrics);
    let mut view = founded();
    Arc::make_mut(&mut view.members).set_cluster_version("3.7.0".to_owned());
    Arc::make_mut(&mut view.alarms).set(AlarmType::Nospace as i32, ID.0);
    let scrape = Scrape {
        view: &view,
        status: NodeStatus::default(),
        member: ID,
        quota_bytes: 1 << 31,
        metrics: &metrics,
        features: &[("AllAlpha", "ALPHA", false)],
    };
    let plain = render(&scrape, "identity");
    assert_eq!(plain.encoding, None);
    let shown = shown(std::str::from_utf8(&plain.body).unwrap());
    for row in FAMILIES {
        let family = shown.get(row.name).unwrap_or_else(|| panic!("{} is not shown", row.name));
        assert_eq!((&family.kind[..], &family.help[..]), (row.kind.name(), row.help));
        let mut labels: BTreeSet<_> = row.labels.iter().map(|l| (*l).to_owned()).collect();
        if row.kind == Type::Summary {
            labels.insert("quantile".to_owned());
        }
        assert_eq!(family.labels, labels, "{}", row.name);
        let buckets = match row.kind {
            Type::Histogram(Buckets { count, .. }) => count + 1,
            Type::HistogramAt(bounds) => bounds.len() + 1,
            Type::Counter | Type::Gauge | Type::Summary => 0,
        };
        assert_eq!(family.bounds.len(), buckets, "{}", row.name);
    }
    assert_eq!(shown.len(), FAMILIES.len(), "nothing is shown that is not in the table");
    let bounds = &shown["etcd_debugging_lease_ttl_total"].bounds;
    assert!(bounds.contains("1.048576e+06") && bounds.contains("524288"), "{bounds:?}");
}

#[test]
fn a_page_is_compressed_for_who_asks() {
    let (metrics, view) = (Metrics::default(), founded());
    let scrape = Scrape {
        view: &view,
        status: NodeStatus::default(),
        member: ID,
        quota_bytes: 1,
        metrics: &metrics,
        features: &[],
    };
    let page = render(&scrape, "gzip");
    assert_eq!(page.encoding, Some("gzip"));
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&page.body[..]);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    assert!(text.contains("\netcd_server_has_leader 0\n"));
}
