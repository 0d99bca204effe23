//! K: who is a member.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::etcdserverpb as pb;
use conform::{Client, Cluster, Kind, on_both_clusters, on_clusters};

use super::*;

const FAILED_PRECONDITION: u16 = 9;
const UNAVAILABLE: u16 = 14;
const UNKNOWN: u16 = 2;

const UNHEALTHY: &str = "etcdserver: unhealthy cluster";
const NOT_STARTED: &str = "etcdserver: re-configuration failed due to not enough started members";
const NO_MEMBER: &str = "etcdserver: member not found";
const NO_LEARNER_CALL: &str = "etcdserver: rpc not supported for learner";

/// Changes at once: without it, peers must be connected for five seconds.
const LAX: [&str; 1] = ["--strict-reconfig-check=false"];

/// What two clusters can have in common of a list of members.
fn shape(members: &[pb::Member]) -> Vec<String> {
    let one = |m: &pb::Member| {
        let (peers, clients) = (m.peer_ur_ls.len(), m.client_ur_ls.len());
        format!("{:?} learner={} peers={peers} clients={clients}", m.name, m.is_learner)
    };
    let mut all: Vec<String> = members.iter().map(one).collect();
    all.sort_unstable();
    all
}

#[test]
fn k1_urls_of_a_new_member_must_be_addresses() {
    on_both_clusters(&LAX, async |c| {
        let bad: [&[&str]; 11] = [
            &[],
            &[""],
            &["127.0.0.1:1"],
            &["http://127.0.0.1"],
            &["http://127.0.0.1:1/path"],
            &["ftp://127.0.0.1:1"],
            &["http://:1"],
            &["http://127.0.0.1:x"],
            &["http://127.0.0.1:1", "nonsense"],
            &["http://[::1:1"],
            &["//127.0.0.1:1"],
        ];
        for urls in bad {
            let answer = c.member_add(0, urls, true).await;
            c.note(format!("{urls:?}: {:?}", answer.as_ref().err()));
            if let Ok(added) = answer {
                c.note(format!("{:?}", added.member.as_ref().unwrap().peer_ur_ls));
                c.member_remove(0, added.member.unwrap().id).await.unwrap();
            }
        }
        let refused = c.member_add(0, &["127.0.0.1:1"], true).await;
        fails(refused, INVALID, "etcdserver: given member URLs are invalid");
        // Several, unsorted, with spaces around.
        let urls = ["http://127.0.0.1:7", " http://127.0.0.1:3 ", "unix://b:2", "https://a:1"];
        let added = c.member_add(0, &urls, true).await.unwrap().member.unwrap();
        c.note(format!("{:?}", added.peer_ur_ls));
        // Changing them is not checked that far.
        let updated = c.member_update(0, added.id, &["http://127.0.0.1:9"]).await.unwrap();
        let urls = updated.members.iter().find(|m| m.id == added.id).unwrap().peer_ur_ls.clone();
        assert_eq!(urls, ["http://127.0.0.1:9"]);
    });
}

#[test]
fn k2_k18_a_new_member_has_an_id_of_its_time_and_no_name() {
    on_both_clusters(&LAX, async |c| {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let urls = ["http://127.0.0.1:7".to_owned(), "http://127.0.0.1:8".to_owned()];
        let before = now();
        let added = c.member_add(0, &["http://127.0.0.1:8", "http://127.0.0.1:7"], true).await;
        let added = added.unwrap();
        let mut times = before..=now();
        let member = added.member.clone().unwrap();
        let is_it = |time| calls::identity::added_member_id(&urls, time).0 == member.id;
        assert!(times.any(is_it), "{member:?}");
        assert_eq!((member.name.as_str(), member.client_ur_ls.len()), ("", 0));
        assert_eq!(member.peer_ur_ls, urls);
        assert!(member.is_learner);
        // Every change is answered by all members, and carries no revision.
        let header = added.header.unwrap();
        assert_eq!((header.revision, header.member_id), (0, c.id(0).await));
        assert!(header.raft_term > 0 && header.cluster_id > 0);
        assert_eq!(added.members.len(), 4);
        assert!(added.members.windows(2).all(|pair| pair[0].id < pair[1].id), "by id");
        c.note(format!("{:?}", shape(&added.members)));
        let updated = c.member_update(0, member.id, &["http://127.0.0.1:9"]).await.unwrap();
        assert_eq!(updated.header.unwrap().revision, 0);
        c.note(format!("{:?}", shape(&updated.members)));
        let removed = c.member_remove(1, member.id).await.unwrap();
        assert_eq!(removed.header.unwrap().revision, 0);
        c.note(format!("{:?}", shape(&removed.members)));
        let listed = c.members(2, true).await.unwrap();
        assert_eq!((listed.header.unwrap().revision, &listed.members), (0, &removed.members));
    });
}

/// Starts a member anew, so that it is connected for less than the five seconds after which etcd
/// takes it for healthy; on a slow machine again, until there is time left to ask.
fn connect_anew(c: &mut Cluster, n: usize) {
    for _ in 0..20 {
        c.nodes[n].kill();
        let began = std::time::Instant::now();
        c.restart(n);
        if began.elapsed() < Duration::from_secs(4) {
            return;
        }
    }
    panic!("member {n} never started within four seconds");
}

#[test]
fn k3_a_peer_url_has_one_member() {
    on_both_clusters(&LAX, async |c| {
        let taken = c.nodes[1].peer_url();
        let text = "etcdserver: Peer URLs already exists";
        fails(c.member_add(0, &[&taken], false).await, FAILED_PRECONDITION, text);
        let both = ["http://127.0.0.1:7", taken.as_str()];
        fails(c.member_add(2, &both, true).await, FAILED_PRECONDITION, text);
        let other = c.id(2).await;
        fails(c.member_update(0, other, &[&taken]).await, FAILED_PRECONDITION, text);
        // Its own it may keep.
        c.member_update(0, other, &[&c.nodes[2].peer_url()]).await.unwrap();
        assert_eq!(c.members(0, true).await.unwrap().members.len(), 3);
    });
}

#[test]
fn k4_k5_a_voter_is_added_only_to_a_cluster_that_is_up_and_started() {
    on_both_clusters(&[], async |c| {
        connect_anew(c, 2);
        let first = c.member_add(0, &["http://127.0.0.1:7"], false).await;
        fails(first, UNAVAILABLE, UNHEALTHY);
        fails(c.member_add(0, &["http://127.0.0.1:7"], true).await, UNAVAILABLE, UNHEALTHY);
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        c.member_add(0, &["http://127.0.0.1:7"], false).await.unwrap();
        // Three of five would be started, and then three of six. Each member judges by what it has
        // applied itself.
        c.member_add(0, &["http://127.0.0.1:8"], false).await.unwrap();
        let third = c.member_add(0, &["http://127.0.0.1:9"], false).await;
        fails(third, UNKNOWN, NOT_STARTED);
        let urls = ["http://127.0.0.1:9"];
        // Whether a learner may come is asked of those that are connected: three of five.
        let learner = c.member_add(0, &urls, true).await.map(|a| shape(&a.members));
        c.note(format!("{learner:?}"));
    });
}

#[test]
fn k4_a_lone_member_may_always_get_a_second() {
    on_clusters(1, &[], async |c| {
        let added = c.add(0, c.nodes[0].kind, false).await.unwrap();
        c.wait_ready_one(added);
        // Two are not healthy for five seconds.
        connect_anew(c, added);
        let third = c.member_add(0, &["http://127.0.0.1:7"], false).await;
        fails(third, UNAVAILABLE, UNHEALTHY);
        c.put(1, "a", "1").await.unwrap();
        c.assert_equal().await;
    });
}

#[test]
fn k6_a_voter_is_removed_only_if_the_rest_is_up() {
    on_both_clusters(&[], async |c| {
        let mut ids = Vec::new();
        for n in 0..3 {
            ids.push(c.id(n).await);
        }
        connect_anew(c, 2);
        fails(c.member_remove(0, ids[1]).await, UNAVAILABLE, UNHEALTHY);
        fails(c.member_remove(0, ids[0]).await, UNAVAILABLE, UNHEALTHY);
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        // One that is down may go, one that is up then may not.
        c.nodes[2].kill();
        c.leader().await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        fails(c.member_remove(0, ids[1]).await, UNAVAILABLE, UNHEALTHY);
        c.member_remove(0, ids[2]).await.unwrap();
        // Of two that are up, either may go.
        let answer = c.member_remove(0, ids[1]).await.map(|a| a.members.len());
        c.note(format!("{answer:?}"));
    });
}

#[test]
fn k7_k8_a_member_that_was_removed_ends_and_does_not_come_back() {
    on_both_clusters(&LAX, async |c| {
        fails(c.member_remove(0, 77).await, NOT_FOUND, NO_MEMBER);
        fails(c.member_update(0, 77, &["http://127.0.0.1:7"]).await, NOT_FOUND, NO_MEMBER);
        c.put(0, "a", "1").await.unwrap();
        // The leader's end would take changes along that are on their way.
        c.lead(0).await;
        let gone = c.id(2).await;
        let removed = c.member_remove(0, gone).await.unwrap();
        assert_eq!(removed.members.len(), 2);
        let began = std::time::Instant::now();
        let code = c.nodes[2].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        assert_eq!(code, Some(0));
        c.note(format!("{}", began.elapsed() > Duration::from_millis(500)));
        fails(c.member_remove(0, gone).await, NOT_FOUND, NO_MEMBER);
        fails(c.member_update(0, gone, &["http://127.0.0.1:7"]).await, NOT_FOUND, NO_MEMBER);
        c.put_in_time(1, "a", "2").await;
        // Whoever starts it again is told by its own data or by the others.
        c.spawn(2);
        assert!(c.nodes[2].wait_exit(Duration::from_secs(15)).is_some(), "it ends either way");
        c.put(0, "a", "3").await.unwrap();
        c.assert_equal().await;
    });
}

#[test]
fn k8_a_leader_that_is_removed_ends_too() {
    on_both_clusters(&LAX, async |c| {
        let leader = c.leader().await;
        let id = c.id(leader).await;
        // It may end before it has answered.
        match c.member_remove(leader, id).await {
            Ok(answer) => assert_eq!(answer.members.len(), 2),
            Err(e) => assert_eq!(e.message, "etcdserver: server stopped"),
        }
        let code = c.nodes[leader].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        assert_eq!(code, Some(0));
        let next = c.leader().await;
        c.put_in_time(next, "a", "1").await;
        c.assert_equal().await;
    });
}

#[test]
fn k9_learners_are_few() {
    on_both_clusters(&["--strict-reconfig-check=false", "--max-learners", "2"], async |c| {
        for url in ["http://127.0.0.1:7", "http://127.0.0.1:8"] {
            c.member_add(0, &[url], true).await.unwrap();
        }
        let text = "etcdserver: too many learner members in cluster";
        fails(c.member_add(1, &["http://127.0.0.1:9"], true).await, FAILED_PRECONDITION, text);
        // A member that allows fewer than there are does not start.
        c.nodes[2].stop();
        c.nodes[2].args = vec!["--max-learners".into(), "1".into()];
        c.spawn(2);
        let code = c.nodes[2].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        c.note(format!("{code:?}"));
        assert_ne!(code, Some(0));
    });
}

#[test]
fn k10_k11_a_learner_is_promoted_once_it_follows() {
    on_both_clusters(&LAX, async |c| {
        for n in 0..30 {
            c.put(0, &format!("k{n}"), "v").await.unwrap();
        }
        let (leader, follower) = (c.leader().await, c.follower().await);
        let voter = c.id(follower).await;
        let only = "etcdserver: can only promote a learner member";
        let behind = "etcdserver: can only promote a learner member which is in sync with leader";
        for n in [leader, follower] {
            fails(c.member_promote(n, 77).await, NOT_FOUND, NO_MEMBER);
            fails(c.member_promote(n, voter).await, FAILED_PRECONDITION, only);
        }
        // One that never started has nothing.
        let urls = ["http://127.0.0.1:7"];
        let silent = c.member_add(0, &urls, true).await.unwrap().member.unwrap().id;
        for n in [leader, follower] {
            fails(c.member_promote(n, silent).await, FAILED_PRECONDITION, behind);
        }
        c.member_remove(follower, silent).await.unwrap();
        let learner = c.add(follower, c.nodes[0].kind, true).await.unwrap();
        c.wait_ready_one(learner);
        let id = c.id(learner).await;
        assert!(c.status(learner).await.is_learner);
        let promoted = c.promote_in_time(follower, id).await;
        assert_eq!(promoted.header.unwrap().revision, 0);
        c.note(format!("{:?}", shape(&promoted.members)));
        fails(c.member_promote(leader, id).await, FAILED_PRECONDITION, only);
        c.put_in_time(learner, "a", "1").await;
        assert!(!c.status(learner).await.is_learner);
        c.lead(learner).await;
        c.put_in_time(follower, "a", "2").await;
        c.assert_equal().await;
    });
}

/// Every unary call, asked of a learner.
const CALLS: [&str; 26] = [
    "KV/Range",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseTimeToLive",
    "Lease/LeaseLeases",
    "Cluster/MemberList",
    "Cluster/MemberAdd",
    "Cluster/MemberRemove",
    "Cluster/MemberUpdate",
    "Cluster/MemberPromote",
    "Maintenance/Alarm",
    "Maintenance/Status",
    "Maintenance/Defragment",
    "Maintenance/Hash",
    "Maintenance/HashKV",
    "Maintenance/MoveLeader",
    "Maintenance/Downgrade",
    "Auth/AuthStatus",
    "Auth/AuthEnable",
    "Auth/Authenticate",
    "Auth/UserList",
    "Auth/RoleGet",
];

async fn stream_end(client: &Client, path: &str, message: &impl prost::Message) -> String {
    let body = conform::grpc::envelope(&prost::Message::encode_to_vec(message));
    let mut stream = client.open(&format!("/etcdserverpb.{path}"), Some(body), true).await;
    let patience = Duration::from_secs(5);
    match tokio::time::timeout(patience, stream.next_raw()).await {
        Ok(Ok(message)) => format!("{path}: message: {}", message.is_some()),
        Ok(Err(e)) => format!("{path}: {e:?}"),
        Err(_) => format!("{path}: silence"),
    }
}

#[test]
fn k12_k13_n2_a_learner_serves_little_and_never_leads() {
    on_both_clusters(&LAX, async |c| {
        c.put(0, "a", "1").await.unwrap();
        let learner = c.add(0, c.nodes[0].kind, true).await.unwrap();
        c.wait_ready_one(learner);
        let client = c.client(learner).await;
        for path in CALLS {
            let answer = client.raw(&format!("/etcdserverpb.{path}"), b"").await;
            c.note(format!("{path}: {:?}", answer.err()));
        }
        let read = |serializable| RangeRequest { serializable, ..range("a", "") };
        let path = "/etcdserverpb.KV/Range";
        let until = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let local: RangeResponse = client.call(path, &read(true)).await.unwrap();
            if local.count == 1 {
                break;
            }
            assert!(std::time::Instant::now() < until, "the learner does not learn");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let refused = client.call::<RangeResponse>(path, &read(false)).await;
        fails(refused, FAILED_PRECONDITION, NO_LEARNER_CALL);
        let keep_alive = pb::LeaseKeepAliveRequest { id: 1 };
        c.note(stream_end(&client, "Lease/LeaseKeepAlive", &keep_alive).await);
        let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let watch = pb::WatchRequest { request_union: Some(union) };
        c.note(stream_end(&client, "Watch/Watch", &watch).await);
        c.note(stream_end(&client, "Maintenance/Snapshot", &pb::SnapshotRequest {}).await);
        c.note(stream_end(&client, "KV/RangeStream", &range("a", "")).await);
        let status = c.status(learner).await;
        c.note(format!("{} {:?}", status.is_learner, status.errors));
        for path in ["/health", "/readyz?verbose", "/livez?verbose"] {
            let mut lines: Vec<String> =
                c.nodes[learner].http_get(path).unwrap().lines().map(str::to_owned).collect();
            lines.sort_unstable();
            c.note(format!("{path}: {lines:?}"));
        }
        let leader = c.leader().await;
        let to = c.id(learner).await;
        let text = "etcdserver: bad leader transferee";
        fails(c.move_leader(leader, to).await, FAILED_PRECONDITION, text);
    });
}

#[test]
fn k14_k15_a_list_of_members_is_local_or_asks_the_leader() {
    on_both_clusters(&LAX, async |c| {
        let listed = c.members(0, true).await.unwrap();
        assert!(listed.members.windows(2).all(|pair| pair[0].id < pair[1].id), "by id");
        // Whoever serves has told its name and URLs.
        for (n, node) in c.nodes.iter().enumerate() {
            let id = c.id(n).await;
            let member = listed.members.iter().find(|m| m.id == id).unwrap();
            assert_eq!(
                (&member.name, &member.client_ur_ls),
                (&node.name, &vec![node.client_url()])
            );
            assert_eq!(member.peer_ur_ls, [node.peer_url()]);
        }
        c.nodes[1].kill();
        c.nodes[2].kill();
        assert_eq!(c.members(0, false).await.unwrap().members, listed.members);
        let refused = c.members(0, true).await.unwrap_err();
        c.note(format!("{refused:?}"));
        c.restart_all(&[1, 2]);
        assert_eq!(c.members(0, true).await.unwrap().members, listed.members);
    });
}

#[test]
fn k16_other_members_follow_a_peer_url_that_changes() {
    on_both_clusters(&LAX, async |c| {
        let id = c.id(2).await;
        c.nodes[2].stop();
        c.nodes[2].move_peer();
        let url = c.nodes[2].peer_url();
        let updated = c.member_update(0, id, &[&url]).await.unwrap();
        let urls = updated.members.iter().find(|m| m.id == id).unwrap().peer_ur_ls.clone();
        assert_eq!(urls, [url]);
        c.restart(2);
        c.put(2, "a", "1").await.unwrap();
        // It has a vote: without it there is no majority.
        c.nodes[1].kill();
        c.put_in_time(0, "a", "2").await;
        c.assert_equal().await;
    });
}

#[test]
fn k17_only_who_is_expected_and_not_older_may_join() {
    on_both_clusters(&LAX, async |c| {
        let known = c.members(0, true).await.unwrap().members;
        // Not added, or under another URL: the lists differ.
        let n = c.push_joining(c.nodes[0].kind, &[]);
        c.spawn(n);
        let code = c.nodes[n].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        c.note(format!("not added: {code:?}"));
        assert_eq!(code, Some(1));
        assert!(c.nodes[n].log().contains("member count is unequal"), "{}", c.nodes[n].log());
        c.member_add(0, &["http://127.0.0.1:7"], true).await.unwrap();
        c.spawn(n);
        let code = c.nodes[n].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        c.note(format!("another: {code:?}"));
        assert!(
            c.nodes[n].log().contains("unmatched member while checking PeerURLs")
                || c.nodes[n].log().contains("PeerURLs: no match found for existing member"),
            "{}",
            c.nodes[n].log()
        );
        assert_eq!(c.members(0, true).await.unwrap().members.len(), known.len() + 1);
    });
}

#[test]
fn k17_an_older_binary_may_not_join() {
    on_both_clusters(&LAX, async |c| {
        if Kind::Reference36.program().is_none() {
            return;
        }
        let n = c.add(0, Kind::Reference36, true).await.unwrap();
        let code = c.nodes[n].wait_exit(Duration::from_secs(10)).expect("it ends by itself");
        assert_eq!(code, Some(1));
        let log = c.nodes[n].log();
        assert!(log.contains("incompatible with current running cluster"), "{log}");
    });
}

#[test]
fn k19_changes_are_made_one_after_the_other() {
    on_both_clusters(&LAX, async |c| {
        // What comes while one is under way is dropped by etcd's leader: callers wait in vain.
        for round in 0..4 {
            let n = round % 3;
            let url = format!("http://127.0.0.1:{}", 7 + round);
            let added = c.member_add(n, &[&url], true).await.unwrap().member.unwrap();
            let other = format!("http://127.0.0.1:{}", 17 + round);
            c.member_update((n + 1) % 3, added.id, &[&other]).await.unwrap();
            let removed = c.member_remove((n + 2) % 3, added.id).await.unwrap();
            assert_eq!(removed.members.len(), 3);
        }
        for n in 0..3 {
            assert_eq!(c.members(n, true).await.unwrap().members.len(), 3);
        }
    });
}

/// What a cluster of three is asked of its peers' port.
#[test]
fn k8_k11_peers_ask_each_other_over_http() {
    on_both_clusters(&LAX, async |c: &mut Cluster| {
        for path in [
            "/members/promote/77",
            "/members/promote/x",
            "/downgrade/enabled",
            "/raft/probing",
            "/leases",
            "/nothing",
        ] {
            let answer = c.nodes[1].peer_get(path).unwrap_or_default();
            let timeless = answer.split("\"Now\"").next().unwrap_or_default();
            c.note(format!("{path}: {timeless}"));
        }
        let members = c.nodes[1].peer_get("/members").unwrap();
        c.note(format!("{} members", members.matches("peerURLs").count()));
    });
}
