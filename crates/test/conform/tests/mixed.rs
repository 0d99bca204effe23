//! Clusters of etcd's members and ours: either leads, and nobody notices.

use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use api::mvccpb::event::EventType;
use conform::{Client, Cluster, Kind, Stream};

const OURS: Kind = Kind::Quorate;
const GO: Kind = Kind::Reference;
/// It sends the raft messages of a turn in reverse order.
const REVERSED: Kind = Kind::Reference371;
const OLD: Kind = Kind::Reference36;

/// Longest time that anything here may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(kinds: &[Kind], args: &[&str], scenario: impl AsyncFn(&mut Cluster)) {
    let Some(mut cluster) = Cluster::start(kinds, args) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(scenario(&mut cluster));
}

async fn watch(client: &Client, start_revision: i64) -> Stream {
    let zero = bytes::Bytes::from_static(b"\0");
    let create = pb::WatchCreateRequest {
        key: zero.clone(),
        range_end: zero,
        start_revision,
        prev_kv: true,
        ..Default::default()
    };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    let message = pb::WatchRequest { request_union: Some(union) };
    let body = conform::grpc::envelope(&prost::Message::encode_to_vec(&message));
    client.open("/etcdserverpb.Watch/Watch", Some(body), false).await
}

/// Every event up to a revision.
async fn events_until(stream: &mut Stream, last: i64) -> Vec<api::mvccpb::Event> {
    let mut seen: Vec<api::mvccpb::Event> = Vec::new();
    let newest = |seen: &[api::mvccpb::Event]| {
        seen.last().map_or(0, |e| e.kv.as_ref().unwrap().mod_revision)
    };
    while newest(&seen) < last {
        let next = stream.next::<pb::WatchResponse>(Duration::from_secs(10)).await.unwrap();
        let next = next.unwrap_or_else(|| panic!("{last} does not come after {}", newest(&seen)));
        assert!(!next.canceled, "{next:?}");
        seen.extend(next.events);
    }
    seen
}

async fn leased_put(c: &Cluster, n: usize, key: &str, lease: i64) {
    let request = pb::PutRequest { key: key.to_owned().into(), lease, ..Default::default() };
    let _: pb::PutResponse = c.call(n, "/etcdserverpb.KV/Put", &request).await.unwrap();
}

/// Renews a lease of 100 s through a member that may not have applied its grant. Under one leader
/// and term that must do. On a busy machine leadership changes by itself: etcd's member that led
/// before may then refuse, or not know the lease, and is asked again.
async fn renewed(c: &Cluster, n: usize, lease: i64, mut leadership: (usize, u64)) {
    loop {
        let answer = c.keep_alive(n, lease).await;
        if answer.as_ref().is_ok_and(|ttl| *ttl == 100) {
            return;
        }
        let now = c.leadership().await;
        assert_ne!(now, leadership, "{:?} says {answer:?} of lease {lease}", c.nodes[n].kind);
        leadership = now;
    }
}

/// Waits until a lease that was revoked through another member is gone for who asks through `n`. A
/// leader renews a lease that it knows without a look at what it has yet to apply.
//= etcd 3.7.3: server/etcdserver/v3_server.go#LeaseRenew (FastLeaseKeepAlive)
async fn gone_for(c: &Cluster, n: usize, lease: i64) {
    let begun = Instant::now();
    while c.keep_alive(n, lease).await.unwrap() != 0 {
        assert!(begun.elapsed() < PATIENCE, "lease {lease} is not gone at {:?}", c.nodes[n].kind);
    }
}

/// Reads, writes, watches and leases through every member, whoever leads.
async fn everything_works(c: &mut Cluster) {
    let mut streams = Vec::new();
    for n in 0..3 {
        streams.push(watch(&c.client(n).await, 1).await);
    }
    for leader in 0..3 {
        c.lead(leader).await;
        for n in 0..3 {
            for i in 0..5 {
                c.put_in_time(n, &format!("k{i}"), &format!("{leader}.{n}.{i}")).await;
            }
            // Read where it was not written.
            let read = c.get((n + 1) % 3, "k4").await.unwrap().unwrap();
            assert_eq!(read, format!("{leader}.{n}.4"));
            let key = format!("k{n}");
            let request = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
            let gone: pb::DeleteRangeResponse =
                c.call(n, "/etcdserverpb.KV/DeleteRange", &request).await.unwrap();
            assert_eq!(gone.deleted, 1);
            let lease = 1 + i64::try_from(leader * 3 + n).unwrap();
            let leadership = c.leadership().await;
            c.grant(n, lease, 100).await.unwrap();
            leased_put(c, n, "leased", lease).await;
            let m = (n + 2) % 3;
            renewed(c, m, lease, leadership).await;
            let left = c.time_to_live(m, lease, true).await.unwrap();
            assert_eq!((left.granted_ttl, &left.keys), (100, &vec!["leased".into()]));
            assert!(left.ttl >= 98, "{left:?}");
            let revoke = pb::LeaseRevokeRequest { id: lease };
            let _: pb::LeaseRevokeResponse =
                c.call(m, "/etcdserverpb.Lease/LeaseRevoke", &revoke).await.unwrap();
            gone_for(c, n, lease).await;
        }
    }
    let last = c.put(0, "last", "").await.unwrap().header.unwrap().revision;
    let mut all = Vec::new();
    for stream in &mut streams {
        all.push(events_until(stream, last).await);
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
    assert_eq!(all[0].len() as i64, last - 1, "one event per revision");
    // A compaction of one reaches all.
    let compact = pb::CompactionRequest { revision: last - 5, physical: true };
    let _: pb::CompactionResponse = c.call(1, "/etcdserverpb.KV/Compact", &compact).await.unwrap();
    c.assert_equal().await;
}

#[test]
fn one_of_etcd_and_two_of_ours() {
    run(&[GO, OURS, OURS], &[], everything_works);
}

#[test]
fn two_of_etcd_and_one_of_ours() {
    run(&[OURS, GO, GO], &[], everything_works);
}

#[test]
fn one_of_the_older_etcd_and_two_of_ours() {
    run(&[OLD, OURS, OURS], &[], everything_works);
}

#[test]
fn one_of_each() {
    run(&[OLD, GO, OURS], &[], everything_works);
}

#[test]
fn two_that_send_in_reverse_order_and_one_of_ours() {
    run(&[OURS, REVERSED, REVERSED], &[], everything_works);
}

#[test]
fn one_that_sends_in_reverse_order_and_two_of_ours() {
    run(&[REVERSED, OURS, OURS], &[], everything_works);
}

/// A lease ends under the second leader; its keys go on all members at once.
async fn leases_end_under_a_new_leader(c: &mut Cluster, first: usize, second: usize) {
    c.lead(first).await;
    c.grant(second, 7, 2).await.unwrap();
    leased_put(c, first, "a", 7).await;
    leased_put(c, second, "b", 7).await;
    let mut streams = Vec::new();
    for n in 0..3 {
        streams.push(watch(&c.client(n).await, 4).await);
    }
    c.lead(second).await;
    let began = Instant::now();
    for stream in &mut streams {
        let events = events_until(stream, 4).await;
        let gone: Vec<_> = events.iter().map(|e| e.kv.as_ref().unwrap().key.clone()).collect();
        assert_eq!(gone, ["a", "b"]);
        assert!(events.iter().all(|e| e.r#type == EventType::Delete as i32));
    }
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    c.assert_equal().await;
}

#[test]
fn leases_of_etcds_leader_end_under_ours() {
    run(&[GO, OURS, OURS], &[], async |c| leases_end_under_a_new_leader(c, 0, 1).await);
}

#[test]
fn leases_of_our_leader_end_under_etcds() {
    run(&[OURS, GO, GO], &[], async |c| leases_end_under_a_new_leader(c, 0, 1).await);
}

/// Few entries are kept, so that whoever is new needs a snapshot.
const FEW: [&str; 4] = ["--snapshot-count", "20", "--snapshot-catchup-entries", "10"];

/// A learner of either kind learns from a leader, is promoted, leads, moves, and is removed.
async fn members_come_and_go(c: &mut Cluster, leader: usize, kind: Kind) {
    c.lead(leader).await;
    c.grant(leader, 7, 300).await.unwrap();
    leased_put(c, leader, "leased", 7).await;
    for i in 0..200 {
        c.put(leader, &format!("k{}", i % 50), &"v".repeat(100)).await.unwrap();
    }
    let learner = c.add_in_time((leader + 1) % 3, kind, true).await;
    c.wait_ready_one(learner);
    let id = c.id(learner).await;
    c.promote_in_time((leader + 1) % 3, id).await;
    c.put_in_time(learner, "a", "1").await;
    c.assert_equal().await;
    c.lead(learner).await;
    assert_eq!(c.time_to_live(learner, 7, true).await.unwrap().keys, ["leased"]);
    assert_eq!(c.keep_alive(leader, 7).await.unwrap(), 300);
    // A restart finds what the snapshot brought.
    c.restart_clean(learner);
    c.put_in_time(learner, "a", "2").await;
    c.assert_equal().await;
    // It moves.
    c.nodes[learner].stop();
    c.nodes[learner].move_peer();
    let url = c.nodes[learner].peer_url();
    let other = c.leader().await;
    c.member_update(other, id, &[&url]).await.unwrap();
    c.restart(learner);
    c.put_in_time(learner, "a", "3").await;
    c.assert_equal().await;
    // And goes; the rest goes on.
    let other = c.leader().await;
    let through = if other == learner { leader } else { other };
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(e) = c.member_remove(through, id).await {
        assert!(e.message.ends_with("unhealthy cluster") && Instant::now() < until, "{e:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let code = c.nodes[learner].wait_exit(Duration::from_secs(10));
    assert_eq!(code, Some(Some(0)), "{:?}", c.nodes[learner].kind);
    for n in 0..3 {
        c.put_in_time(n, "a", "4").await;
    }
    c.assert_equal().await;
}

#[test]
fn our_learner_of_etcds_leader() {
    run(&[GO, GO, OURS], &FEW, async |c| members_come_and_go(c, 0, OURS).await);
}

#[test]
fn etcds_learner_of_our_leader() {
    run(&[OURS, OURS, GO], &FEW, async |c| members_come_and_go(c, 0, GO).await);
}

#[test]
fn our_learner_of_a_leader_that_sends_in_reverse_order() {
    run(&[REVERSED, GO, OURS], &FEW, async |c| members_come_and_go(c, 0, OURS).await);
}

#[test]
fn our_learner_of_our_leader() {
    run(&[OURS, OURS, GO], &FEW, async |c| members_come_and_go(c, 0, OURS).await);
}

/// The leader hashes what was compacted, and asks the others.
async fn hashes_agree(c: &mut Cluster, leader: usize) {
    c.lead(leader).await;
    for round in 0..3 {
        for i in 0..30 {
            c.put_in_time(i % 3, &format!("k{}", i % 7), &format!("{round}.{i}")).await;
        }
        let newest = c.put(0, "last", "").await.unwrap().header.unwrap().revision;
        let compact = pb::CompactionRequest { revision: newest - 3, physical: true };
        let _: pb::CompactionResponse =
            c.call(round, "/etcdserverpb.KV/Compact", &compact).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    for n in 0..3 {
        let request = pb::AlarmRequest::default();
        let alarms: pb::AlarmResponse =
            c.call(n, "/etcdserverpb.Maintenance/Alarm", &request).await.unwrap();
        assert!(alarms.alarms.is_empty(), "{alarms:?}");
        assert_eq!(c.nodes[n].http_get("/readyz").unwrap(), "ok\n");
        let log = c.nodes[n].log();
        assert!(!log.contains("compact hash mismatch"), "{}", c.nodes[n].name);
    }
    let log = c.nodes[leader].log();
    assert!(log.contains("finished compaction hash check"), "the leader compared nothing");
    c.assert_equal().await;
}

const CHECKS: [&str; 5] = [
    "--compact-hash-check-time",
    "300ms",
    "--corrupt-check-time",
    "1s",
    "--feature-gates=CompactHashCheck=true,InitialCorruptCheck=true",
];

#[test]
fn etcds_leader_finds_our_hashes_equal() {
    run(&[GO, OURS, OURS], &CHECKS, async |c| hashes_agree(c, 0).await);
}

#[test]
fn our_leader_finds_etcds_hashes_equal() {
    run(&[OURS, GO, GO], &CHECKS, async |c| hashes_agree(c, 0).await);
}

#[test]
fn members_change_their_kind_one_after_the_other() {
    run(&[GO, GO, GO], &FEW, async |c| {
        for kind in [OURS, GO] {
            for n in 0..3 {
                c.nodes[n].stop();
                c.nodes[n].kind = kind;
                for i in 0..60 {
                    c.put_in_time((n + 1) % 3, &format!("k{}", i % 9), &i.to_string()).await;
                }
                c.restart(n);
                c.put_in_time(n, "a", &n.to_string()).await;
                c.assert_equal().await;
            }
        }
    });
}
