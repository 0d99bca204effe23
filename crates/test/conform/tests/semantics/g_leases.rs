//! G: leases, as one member shows them.

use std::time::Duration;

use api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use conform::{Failure, Masked, Session, on_fresh_pair, on_shared_pair};

use super::*;

const UNKNOWN: &str = "etcdserver: requested lease not found";
const PATIENCE: Duration = Duration::from_secs(10);

/// `LeaseTimeToLive` with its keys sorted: their order is that of a Go map. The time left is
/// looked at by the caller: a second may pass between the servers.
async fn time_to_live(s: &mut Session, id: i64, keys: bool) -> LeaseTimeToLiveResponse {
    let request = LeaseTimeToLiveRequest { id, keys };
    let answer = s.client().call("/etcdserverpb.Lease/LeaseTimeToLive", &request).await;
    let mut answer: LeaseTimeToLiveResponse = answer.unwrap();
    answer.mask();
    answer.keys.sort();
    s.note(format!("{:?}", LeaseTimeToLiveResponse { ttl: answer.ttl.min(0), ..answer.clone() }));
    answer
}

/// One keep-alive on a stream of its own.
async fn keep_alive(s: &mut Session, id: i64) -> Result<i64, Failure> {
    let answer = quiet_keep_alive(s, id).await;
    s.note(format!("{answer:?}"));
    answer.map(|a| a.ttl)
}

async fn quiet_keep_alive(s: &Session, id: i64) -> Result<LeaseKeepAliveResponse, Failure> {
    let mut stream = s.client().open("/etcdserverpb.Lease/LeaseKeepAlive", None, false).await;
    stream.send(&LeaseKeepAliveRequest { id });
    let answer = stream.next::<LeaseKeepAliveResponse>(PATIENCE).await;
    answer.map(|a| {
        let mut answer = a.expect("an answer in time");
        answer.mask();
        answer
    })
}

async fn leases(s: &mut Session) -> Vec<i64> {
    let path = "/etcdserverpb.Lease/LeaseLeases";
    let answer: LeaseLeasesResponse = s.call(path, &LeaseLeasesRequest {}).await.unwrap();
    answer.leases.iter().map(|l| l.id).collect()
}

#[test]
fn g1_a_ttl_is_raised_to_the_least_and_refused_beyond_the_most() {
    on_shared_pair(async |s| {
        for (ttl, granted) in
            [(-1, 2), (0, 2), (1, 2), (2, 2), (3, 3), (i64::MIN, 2), (9_000_000_000, 9_000_000_000)]
        {
            let answer = s.grant(71, ttl).await.unwrap();
            assert_eq!((answer.id, answer.ttl, &answer.error[..]), (71, granted, ""));
            s.revoke(71).await.unwrap();
        }
        let text = "etcdserver: too large lease TTL";
        fails(s.grant(71, 9_000_000_001).await, OUT_OF_RANGE, text);
        fails(s.grant(71, i64::MAX).await, OUT_OF_RANGE, text);
    });
}

#[test]
fn g2_ids_are_chosen_or_given_once() {
    on_shared_pair(async |s| {
        let path = "/etcdserverpb.Lease/LeaseGrant";
        let request = api::etcdserverpb::LeaseGrantRequest { id: 0, ttl: 100 };
        let chosen: api::etcdserverpb::LeaseGrantResponse =
            s.client().call(path, &request).await.unwrap();
        assert!(chosen.id > 0);
        assert_eq!(chosen.ttl, 100);
        for id in [72, -72, i64::MIN, i64::MAX] {
            s.grant(id, 100).await.unwrap();
            fails(s.grant(id, 100).await, 9, "etcdserver: lease already exists");
            fails(s.grant(id, i64::MAX).await, OUT_OF_RANGE, "etcdserver: too large lease TTL");
            s.revoke(id).await.unwrap();
        }
        let revoke = api::etcdserverpb::LeaseRevokeRequest { id: chosen.id };
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        let _: api::etcdserverpb::LeaseRevokeResponse =
            s.client().call(path, &revoke).await.unwrap();
    });
}

#[test]
fn g3_a_keep_alive_of_an_unknown_lease_says_zero_and_the_stream_goes_on() {
    on_shared_pair(async |s| {
        s.grant(73, 100).await.unwrap();
        let mut stream = s.client().open("/etcdserverpb.Lease/LeaseKeepAlive", None, false).await;
        for (id, ttl) in [(9_999, 0), (73, 100), (0, 0), (-1, 0), (73, 100)] {
            stream.send(&LeaseKeepAliveRequest { id });
            let answer = stream.next::<LeaseKeepAliveResponse>(PATIENCE).await;
            let mut answer = answer.unwrap().expect("an answer in time");
            answer.mask();
            assert_eq!((answer.id, answer.ttl), (id, ttl));
            s.note(format!("{answer:?}"));
        }
        stream.half_close();
        assert_eq!(stream.next::<LeaseKeepAliveResponse>(PATIENCE).await, Ok(None));
        s.revoke(73).await.unwrap();
    });
}

#[test]
fn g7_a_keep_alive_gives_the_whole_time_again() {
    on_shared_pair(async |s| {
        s.grant(74, 3).await.unwrap();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(keep_alive(s, 74).await, Ok(3));
        }
        assert!(time_to_live(s, 74, false).await.ttl >= 1);
        s.revoke(74).await.unwrap();
        assert_eq!(keep_alive(s, 74).await, Ok(0));
    });
}

#[test]
fn g9_time_to_live_tells_time_and_keys() {
    on_shared_pair(async |s| {
        s.grant(75, 100).await.unwrap();
        for key in ["b", "a", "c"] {
            s.put(&PutRequest { lease: 75, ..put(key, "") }).await.unwrap();
        }
        let answer = time_to_live(s, 75, true).await;
        assert_eq!(
            (answer.granted_ttl, answer.keys),
            (100, vec!["a".into(), "b".into(), "c".into()])
        );
        assert!((90..100).contains(&answer.ttl), "{} s left", answer.ttl);
        assert_eq!(time_to_live(s, 75, false).await.keys.len(), 0);
        for id in [9_998, 0, -1] {
            let answer = time_to_live(s, id, true).await;
            assert_eq!((answer.id, answer.ttl, answer.granted_ttl), (id, -1, 0));
        }
        s.revoke(75).await.unwrap();
        assert_eq!(time_to_live(s, 75, true).await.ttl, -1);
    });
}

#[test]
fn g9_a_second_of_a_lease_is_gone_from_the_first_moment_on() {
    on_shared_pair(async |s| {
        let told = async |s: &mut Session, id: i64| {
            s.grant(id, 90).await.unwrap();
            let left = time_to_live(s, id, false).await.ttl;
            s.revoke(id).await.unwrap();
            left
        };
        for id in 300..340 {
            assert_eq!(told(s, id).await, 89);
        }
    });
}

#[test]
fn g11_leases_are_listed_by_the_time_they_have_left() {
    on_fresh_pair(&[], async |s| {
        // For who does not lead, no lease ever ends (G17): the order is nobody's.
        if !s.is_alone() {
            return;
        }
        assert!(leases(s).await.is_empty());
        for (id, ttl) in [(1, 300), (2, 100), (3, 200)] {
            s.grant(id, ttl).await.unwrap();
        }
        assert_eq!(leases(s).await, [2, 3, 1]);
        s.revoke(3).await.unwrap();
        assert_eq!(leases(s).await, [2, 1]);
    });
}

#[test]
fn g12_an_unknown_lease_cannot_be_revoked() {
    on_shared_pair(async |s| {
        for id in [9_997, 0, -1] {
            fails(s.revoke(id).await, NOT_FOUND, UNKNOWN);
        }
    });
}

#[test]
fn g13_a_revoke_deletes_the_keys_in_one_revision() {
    on_shared_pair(async |s| {
        s.grant(76, 100).await.unwrap();
        let empty = s.set("other", "").await;
        assert_eq!(revision_of(s.revoke(76).await.unwrap().header), empty, "no keys");
        s.grant(76, 100).await.unwrap();
        for key in ["b", "c", "a"] {
            s.put(&PutRequest { lease: 76, ..put(key, "") }).await.unwrap();
        }
        let before = s.revision().await;
        assert_eq!(revision_of(s.revoke(76).await.unwrap().header), before + 1);
        assert_eq!(keys(&s.range(&range("\0", "\0")).await.unwrap()), ["other"]);
        // The order of the tombstones is in the hash.
        s.hash_kv(0).await.unwrap();
    });
}

#[test]
fn g14_a_key_has_one_lease() {
    on_shared_pair(async |s| {
        s.grant(77, 100).await.unwrap();
        s.grant(78, 100).await.unwrap();
        s.put(&PutRequest { lease: 77, ..put("a", "") }).await.unwrap();
        s.put(&PutRequest { lease: 78, ..put("a", "") }).await.unwrap();
        assert_eq!(time_to_live(s, 77, true).await.keys.len(), 0);
        assert_eq!(time_to_live(s, 78, true).await.keys, ["a"]);
        s.revoke(77).await.unwrap();
        assert!(s.get("a").await.is_some());
        s.unset("a").await;
        assert_eq!(time_to_live(s, 78, true).await.keys.len(), 0);
        s.revoke(78).await.unwrap();
    });
}

#[test]
fn g15_a_lease_that_runs_out_takes_its_keys_along() {
    on_shared_pair(async |s| {
        s.grant(79, 1).await.unwrap();
        for key in ["b", "a"] {
            s.put(&PutRequest { lease: 79, ..put(key, "") }).await.unwrap();
        }
        let before = s.set("other", "").await;
        let began = std::time::Instant::now();
        let path = "/etcdserverpb.KV/Range";
        loop {
            let left: RangeResponse = s.client().call(path, &range("a", "")).await.unwrap();
            if left.count == 0 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(6), "the lease never ends");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() > Duration::from_millis(1_500), "two seconds are the least");
        assert_eq!(s.revision().await, before + 1);
        assert_eq!(time_to_live(s, 79, true).await.ttl, -1);
        fails(s.revoke(79).await, NOT_FOUND, UNKNOWN);
        assert_eq!(keys(&s.range(&range("\0", "\0")).await.unwrap()), ["other"]);
    });
}

#[test]
fn g20_g22_leases_and_their_keys_survive_a_restart() {
    on_fresh_pair(&[], async |s| {
        s.grant(1, 300).await.unwrap();
        s.grant(-2, 1).await.unwrap();
        s.grant(3, 5_000).await.unwrap();
        s.put(&PutRequest { lease: 1, ..put("a", "1") }).await.unwrap();
        s.put(&PutRequest { lease: 3, ..put("b", "2") }).await.unwrap();
        s.set("b", "3").await;
        s.restart().await;
        let answer = time_to_live(s, 1, true).await;
        assert_eq!((answer.granted_ttl, answer.keys), (300, vec!["a".into()]));
        assert_eq!(time_to_live(s, 3, true).await.keys.len(), 0);
        assert_eq!(s.get("a").await.unwrap().lease, 1);
        s.revoke(1).await.unwrap();
        assert!(s.get("a").await.is_none());
        assert!(s.get("b").await.is_some());
    });
}

#[test]
fn g8_a_keep_alive_of_a_lease_that_has_run_out_waits_for_its_end() {
    on_shared_pair(async |s| {
        for lease in [81, 82, 83] {
            s.grant(lease, 2).await.unwrap();
            let key = format!("leased/{lease}");
            s.put(&PutRequest { lease, ..put(&key, "1") }).await.unwrap();
            // Run out, but perhaps not yet revoked: servers look every half second.
            tokio::time::sleep(Duration::from_millis(2_010)).await;
            // Its revision depends on which came first, and is not written down.
            assert_eq!(quiet_keep_alive(s, lease).await.unwrap().ttl, 0);
            assert!(s.get(&key).await.is_none(), "the answer comes when the keys are gone");
        }
    });
}

#[test]
fn g21_alarms_stop_grants_and_only_corruption_stops_revokes() {
    use api::etcdserverpb::AlarmType;
    use api::etcdserverpb::alarm_request::AlarmAction;
    on_fresh_pair(&[], async |s| {
        let id = s.status().await.header.unwrap().member_id;
        for lease in [1, 2] {
            s.grant(lease, 1_000).await.unwrap();
        }
        s.alarm(AlarmAction::Activate, AlarmType::Nospace, id).await.unwrap();
        fails(s.grant(3, 100).await, 8, "etcdserver: mvcc: database space exceeded");
        s.revoke(1).await.unwrap();
        s.alarm(AlarmAction::Deactivate, AlarmType::Nospace, id).await.unwrap();
        s.alarm(AlarmAction::Activate, AlarmType::Corrupt, id).await.unwrap();
        fails(s.grant(3, 100).await, 15, "etcdserver: corrupt cluster");
        fails(s.revoke(2).await, 15, "etcdserver: corrupt cluster");
        assert_eq!(keep_alive(s, 2).await.unwrap(), 1_000, "renewals change no state");
        assert_eq!(leases(s).await, [2]);
        s.alarm(AlarmAction::Deactivate, AlarmType::Corrupt, id).await.unwrap();
        s.revoke(2).await.unwrap();
    });
}
