//! L: who leads; and what the other sections say of leaders that are lost: B13, F21, F23, F24, G4,
//! G6, G10, G16, G17, G19, J4, J7.

use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use api::mvccpb::event::EventType;
use conform::{Client, Cluster, Stream, on_both_clusters, on_clusters};

use super::*;

const UNAVAILABLE: u16 = 14;

async fn watch(client: &Client, key: &str, start_revision: i64) -> Stream {
    let create = pb::WatchCreateRequest {
        key: bytes(key),
        range_end: bytes("\0"),
        start_revision,
        ..Default::default()
    };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    let message = pb::WatchRequest { request_union: Some(union) };
    let body = conform::grpc::envelope(&prost::Message::encode_to_vec(&message));
    client.open("/etcdserverpb.Watch/Watch", Some(body), false).await
}

/// Takes events until that of this revision has come: their revisions.
async fn events_until(stream: &mut Stream, last: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        let next = stream.next::<pb::WatchResponse>(Duration::from_secs(10)).await.unwrap();
        let next = next.unwrap_or_else(|| panic!("{last} does not come after {seen:?}"));
        assert!(!next.canceled, "{next:?}");
        seen.extend(next.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision));
    }
    seen
}

#[test]
fn l1_leadership_is_handed_over_by_the_leader_to_a_voter() {
    on_both_clusters(&["--strict-reconfig-check=false"], async |c| {
        let (leader, follower) = (c.leader().await, c.follower().await);
        let (own, other) = (c.id(leader).await, c.id(follower).await);
        let refused = 9;
        fails(c.move_leader(follower, other).await, refused, "etcdserver: not leader");
        fails(c.move_leader(follower, 77).await, refused, "etcdserver: not leader");
        let bad = "etcdserver: bad leader transferee";
        fails(c.move_leader(leader, 77).await, refused, bad);
        fails(c.move_leader(leader, 0).await, refused, bad);
        let silent = c.member_add(leader, &["http://127.0.0.1:7"], true).await.unwrap();
        fails(c.move_leader(leader, silent.member.unwrap().id).await, refused, bad);
        let answer = c.move_leader(leader, own).await.unwrap();
        c.note(format!("{}", answer.header.is_some()));
        assert_eq!(c.leader().await, leader);
        let term = c.status(leader).await.raft_term;
        let answer = c.move_leader(leader, other).await.unwrap();
        c.note(format!("{}", answer.header.is_some()));
        assert_eq!(c.leader().await, follower);
        assert_eq!(c.status(leader).await.raft_term, term + 1);
        // Writes go on through each.
        for n in 0..3 {
            c.put(n, "a", &n.to_string()).await.unwrap();
        }
        c.assert_equal().await;
    });
}

#[test]
fn l1_a_hand_over_to_a_voter_that_is_down_takes_too_long() {
    on_both_clusters(&[], async |c| {
        let (leader, follower) = (c.leader().await, c.follower().await);
        let gone = c.id(follower).await;
        c.nodes[follower].kill();
        // As long as the client cares to wait.
        let began = Instant::now();
        let request = http::Request::post("http://localhost/etcdserverpb.Maintenance/MoveLeader")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "1500m")
            .body(())
            .unwrap();
        let message = pb::MoveLeaderRequest { target_id: gone };
        let body = conform::grpc::envelope(&prost::Message::encode_to_vec(&message));
        let answer = c.client(leader).await.exchange(request, body).await;
        // etcd resets the stream then, if its handler has not answered yet.
        assert!(answer.code != Some(0), "{answer:?}");
        let took = began.elapsed();
        assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
        assert_eq!(c.leader().await, leader);
        c.put_in_time(leader, "a", "1").await;
    });
}

#[test]
fn l2_a_leader_that_stops_hands_over() {
    on_both_clusters(&[], async |c| {
        for _ in 0..2 {
            let leader = c.leader().await;
            let term = c.status(leader).await.raft_term;
            assert_eq!(c.nodes[leader].stop().unwrap_or(0), 0);
            // Nobody had to wait for an election.
            let began = Instant::now();
            let next = c.leader().await;
            let took = began.elapsed();
            assert!(took < Duration::from_millis(400), "{took:?}");
            assert_eq!(c.status(next).await.raft_term, term + 1);
            c.put(next, "a", "1").await.unwrap();
            c.restart(leader);
        }
        c.assert_equal().await;
    });
}

#[test]
fn l3_l4_a_lost_leader_is_followed_by_another_one_soon() {
    on_both_clusters(&[], async |c| {
        let leader = c.leader().await;
        c.put(leader, "a", "1").await.unwrap();
        c.nodes[leader].kill();
        let began = Instant::now();
        let next = c.leader().await;
        // One to two election timeouts, and some rounds of votes.
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        c.put(next, "a", "2").await.unwrap();
        c.restart(leader);
        // It comes back as a follower and disturbs nobody.
        assert_eq!(c.leader().await, next);
        assert_eq!(c.get(leader, "a").await.unwrap().unwrap(), "2");
        c.assert_equal().await;
    });
}

#[test]
fn l4_a_cluster_that_starts_again_has_its_data() {
    on_both_clusters(&[], async |c| {
        for n in 0..20 {
            c.put(n % 3, &format!("k{n}"), "v").await.unwrap();
        }
        let before = c.members(0, true).await.unwrap().members;
        for node in &mut c.nodes {
            node.kill();
        }
        c.restart_all(&[0, 1, 2]);
        assert_eq!(c.members(1, true).await.unwrap().members, before);
        assert_eq!(c.get(2, "k19").await.unwrap().unwrap(), "v");
        c.assert_equal().await;
    });
}

/// Stops all but one member, which led; waits until it knows that it does not any more.
async fn alone(c: &mut Cluster) -> usize {
    let leader = c.leader().await;
    for n in (0..3).filter(|&n| n != leader) {
        c.nodes[n].kill();
    }
    let began = Instant::now();
    while c.status(leader).await.leader != 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "it leads nobody for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    leader
}

#[test]
fn l5_l6_j4_j7_a_leader_without_followers_steps_down() {
    on_both_clusters(&[], async |c| {
        c.put(0, "a", "1").await.unwrap();
        let n = alone(c).await;
        let status = c.status(n).await;
        c.note(format!("{:?}", status.errors));
        assert_eq!(status.errors, ["etcdserver: no leader"]);
        // Writes wait for one, until their time is over; local reads do not.
        let local = RangeRequest { serializable: true, ..range("a", "") };
        let client = c.client(n).await;
        let answer: RangeResponse = client.call("/etcdserverpb.KV/Range", &local).await.unwrap();
        assert_eq!(answer.count, 1);
        let began = Instant::now();
        let (written, read, granted) =
            tokio::join!(c.put(n, "a", "2"), c.get(n, "a"), c.grant(n, 7, 100));
        let took = began.elapsed();
        assert!(took > Duration::from_secs(5) && took < Duration::from_secs(9), "{took:?}");
        c.note(format!("{written:?} {read:?} {granted:?}"));
        let health = c.nodes[n].http_get("/health");
        c.note(format!("{health:?}"));
        // Back together, everything goes on.
        let others: Vec<usize> = (0..3).filter(|&other| other != n).collect();
        c.restart_all(&others);
        c.put_in_time(n, "a", "3").await;
        c.assert_equal().await;
    });
}

#[test]
fn b13_f21_f23_calls_may_ask_for_a_leader_and_watches_do_without() {
    on_both_clusters(&[], async |c| {
        let n = alone(c).await;
        let client = c.client(n).await;
        let request = || {
            http::Request::post("http://localhost/etcdserverpb.KV/Range")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("hasleader", "true")
                .body(())
                .unwrap()
        };
        let local = RangeRequest { serializable: true, ..range("a", "") };
        let body = conform::grpc::envelope(&prost::Message::encode_to_vec(&local));
        let answer = client.exchange(request(), body).await;
        c.note(format!("{answer:?}"));
        assert_eq!(answer.code, Some(UNAVAILABLE));
        // A watch of what is here: created, and told nothing.
        let mut stream = watch(&client, "a", 0).await;
        let first = stream.next::<pb::WatchResponse>(Duration::from_secs(5)).await.unwrap();
        assert!(first.unwrap().created);
        let others: Vec<usize> = (0..3).filter(|&other| other != n).collect();
        c.restart_all(&others);
        c.put_in_time(others[0], "a", "1").await;
        events_until(&mut stream, 2).await;
    });
}

#[test]
fn f21_a_stream_that_asked_for_a_leader_ends_without_one() {
    on_both_clusters(&[], async |c| {
        let leader = c.leader().await;
        let n = leader;
        let client = c.client(n).await;
        let create = pb::WatchCreateRequest { key: bytes("a"), ..Default::default() };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let message = pb::WatchRequest { request_union: Some(union) };
        let body = conform::grpc::envelope(&prost::Message::encode_to_vec(&message));
        let request = http::Request::post("http://localhost/etcdserverpb.Watch/Watch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("hasleader", "true")
            .body(())
            .unwrap();
        for other in (0..3).filter(|&other| other != leader) {
            c.nodes[other].kill();
        }
        let began = Instant::now();
        let answer = client.exchange(request, body).await;
        let took = began.elapsed();
        assert!(took > Duration::from_millis(1_000) && took < Duration::from_secs(8), "{took:?}");
        c.note(format!("{:?} {:?}", answer.code, answer.text));
        assert_eq!(answer.code, Some(UNAVAILABLE));
    });
}

#[test]
fn f21_a_keep_alive_stream_that_asked_for_a_leader_ends_without_one_too() {
    on_both_clusters(&[], async |c| {
        let leader = c.leader().await;
        let client = c.client(leader).await;
        let request = http::Request::post("http://localhost/etcdserverpb.Lease/LeaseKeepAlive")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("hasleader", "true")
            .body(())
            .unwrap();
        let message = pb::LeaseKeepAliveRequest { id: 77 };
        let body = conform::grpc::envelope(&prost::Message::encode_to_vec(&message));
        let mut stream = client.try_begin(request, Some(body), false).await.unwrap();
        let patience = Duration::from_secs(8);
        let first = stream.next::<pb::LeaseKeepAliveResponse>(patience).await.unwrap();
        assert_eq!(
            first.map(|answer| answer.ttl),
            Some(0),
            "no such lease, and the stream is open"
        );
        for other in (0..3).filter(|&other| other != leader) {
            c.nodes[other].kill();
        }
        let ended = stream.next::<pb::LeaseKeepAliveResponse>(patience).await.unwrap_err();
        c.note(format!("{ended:?}"));
        assert_eq!((ended.code, ended.message.as_str()), (UNAVAILABLE, "etcdserver: no leader"));
    });
}

#[test]
fn f23_every_member_shows_every_event_once() {
    on_both_clusters(&[], async |c| {
        let mut streams = Vec::new();
        for n in 0..3 {
            streams.push(watch(&c.client(n).await, "\0", 1).await);
        }
        for n in 0..30 {
            c.put(n % 3, &format!("k{n}"), "v").await.unwrap();
        }
        for stream in &mut streams {
            assert_eq!(events_until(stream, 31).await, (2..=31).collect::<Vec<_>>());
        }
    });
}

/// Few entries are kept, so that whoever was away needs a snapshot.
const FEW: [&str; 4] = ["--snapshot-count", "20", "--snapshot-catchup-entries", "10"];

#[test]
fn l7_f24_a_member_that_was_away_is_sent_the_database() {
    on_both_clusters(&FEW, async |c| {
        let n = c.follower().await;
        let mut stream = watch(&c.client(n).await, "\0", 1).await;
        c.put(n, "a", "1").await.unwrap();
        assert_eq!(events_until(&mut stream, 2).await, [2]);
        let (leader, lease) = (c.leader().await, 7);
        c.nodes[n].signal("STOP");
        c.grant(leader, lease, 300).await.unwrap();
        let put = PutRequest { lease, ..put("leased", "1") };
        let _: pb::PutResponse = c.call(leader, "/etcdserverpb.KV/Put", &put).await.unwrap();
        for i in 0..400 {
            c.put(leader, &format!("k{}", i % 50), "v").await.unwrap();
        }
        c.nodes[n].signal("CONT");
        // The watch goes on where it was, without a gap and nothing twice.
        let last = c.put(leader, "last", "").await.unwrap().header.unwrap().revision;
        assert_eq!(events_until(&mut stream, last).await, (3..=last).collect::<Vec<_>>());
        c.assert_equal().await;
        assert_eq!(c.keep_alive(n, lease).await.unwrap(), 300);
        c.lead(n).await;
        assert_eq!(c.time_to_live(leader, lease, true).await.unwrap().keys, ["leased"]);
        c.put_in_time(n, "a", "2").await;
        c.restart_clean(n);
        c.assert_equal().await;
    });
}

#[test]
fn g4_g10_g17_every_member_answers_for_leases() {
    on_both_clusters(&[], async |c| {
        let (leader, follower) = (c.leader().await, c.follower().await);
        c.grant(follower, 7, 100).await.unwrap();
        let put = PutRequest { lease: 7, ..put("a", "1") };
        let _: pb::PutResponse = c.call(follower, "/etcdserverpb.KV/Put", &put).await.unwrap();
        for n in [leader, follower] {
            assert_eq!(c.keep_alive(n, 7).await.unwrap(), 100);
            assert_eq!(c.keep_alive(n, 8).await.unwrap(), 0);
            let left = c.time_to_live(n, 7, true).await.unwrap();
            assert!((98..=100).contains(&left.ttl), "{left:?}");
            assert_eq!((left.granted_ttl, &left.keys), (100, &vec!["a".into()]));
            let header = left.header.unwrap();
            assert_eq!((header.revision, header.member_id), (2, c.id(n).await));
            let none = c.time_to_live(n, 8, true).await.unwrap();
            assert_eq!((none.ttl, none.granted_ttl, none.keys.len()), (-1, 0, 0));
            let path = "/etcdserverpb.Lease/LeaseLeases";
            let all: pb::LeaseLeasesResponse =
                c.call(n, path, &pb::LeaseLeasesRequest {}).await.unwrap();
            assert_eq!(all.leases.iter().map(|l| l.id).collect::<Vec<_>>(), [7]);
        }
    });
}

#[test]
fn g4_g6_g10_without_a_leader_a_lease_is_unknown_ground() {
    on_both_clusters(&[], async |c| {
        c.grant(0, 7, 100).await.unwrap();
        let n = alone(c).await;
        let began = Instant::now();
        let (renewed, left) = tokio::join!(c.keep_alive(n, 7), c.time_to_live(n, 7, false));
        c.note(format!("{renewed:?} {left:?}"));
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        let path = "/etcdserverpb.Lease/LeaseLeases";
        let all: Result<pb::LeaseLeasesResponse, _> =
            c.call(n, path, &pb::LeaseLeasesRequest {}).await;
        c.note(format!("{:?}", all.map(|a| a.leases)));
    });
}

#[test]
fn g16_g19_a_new_leader_gives_every_lease_its_full_time() {
    on_both_clusters(&[], async |c| {
        let leader = c.leader().await;
        c.grant(leader, 7, 3).await.unwrap();
        let put = PutRequest { lease: 7, ..put("a", "1") };
        let _: pb::PutResponse = c.call(leader, "/etcdserverpb.KV/Put", &put).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        c.nodes[leader].kill();
        let next = c.leader().await;
        let began = Instant::now();
        let mut stream = watch(&c.client(next).await, "\0", 3).await;
        // On a busy machine leadership changes once more by itself, which is no answer.
        let left = loop {
            match c.time_to_live(next, 7, false).await {
                Err(refused) if refused.message == "etcdserver: leader changed" => {}
                answer => break answer.unwrap(),
            }
        };
        assert!(left.ttl >= 2, "{left:?}");
        loop {
            let event = stream.next::<pb::WatchResponse>(Duration::from_secs(10)).await.unwrap();
            let event = event.expect("the lease ends");
            if let Some(event) = event.events.first() {
                assert_eq!(event.r#type, EventType::Delete as i32);
                break;
            }
        }
        // From when this term began: the TTL and an election timeout, and a scan.
        let took = began.elapsed();
        assert!(took > Duration::from_millis(2_500) && took < Duration::from_secs(7), "{took:?}");
        c.restart(leader);
        assert!(c.get(leader, "a").await.unwrap().is_none());
        c.assert_equal().await;
    });
}

#[test]
fn l2_a_lone_member_stops_without_a_successor() {
    on_clusters(1, &[], async |c| {
        let began = Instant::now();
        c.nodes[0].stop();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    });
}
