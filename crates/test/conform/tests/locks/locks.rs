//! Locks.

use api::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, RangeResponse};
use conform::{Masked, on_shared_pair};

use super::*;

/// The answer to a lock that was waited for, written down.
async fn held(s: &mut Session, mut waiting: Stream) -> String {
    let answer = waiting.next::<LockResponse>(PATIENCE).await;
    let mut answer = answer.expect("the lock is given").expect("in time");
    answer.mask();
    s.note(format!("{answer:?}"));
    String::from_utf8_lossy(&answer.key).into_owned()
}

#[test]
fn a_lock_is_a_key_of_its_lease() {
    on_shared_pair(async |s| {
        s.grant(0x1a, 100).await.unwrap();
        let answer = lock(s, "l", 0x1a).await.unwrap();
        assert_eq!(answer.key, "l/1a");
        assert_eq!(s.get("l/1a").await.unwrap().lease, 0x1a);
        // Whoever holds it gets it again.
        let again = lock(s, "l", 0x1a).await.unwrap();
        assert_eq!(again.header.unwrap().revision, answer.header.unwrap().revision);
        unlock(s, "l/1a").await.unwrap();
        unlock(s, "l/1a").await.unwrap();
        assert_eq!(s.get("l/1a").await, None);
        s.grant(-0x1b, 100).await.unwrap();
        assert_eq!(lock(s, "", -0x1b).await.unwrap().key, "/-1b");
        // Any key may be unlocked.
        s.put(&put("other", "v")).await.unwrap();
        unlock(s, "other").await.unwrap();
        assert_eq!(s.get("other").await, None);
        for lease in [0x1a, -0x1b] {
            s.revoke(lease).await.unwrap();
        }
    });
}

#[test]
fn refusals_have_lost_their_codes() {
    on_shared_pair(async |s| {
        let missing = "etcdserver: requested lease not found";
        fails(lock(s, "l", 99).await, UNKNOWN, missing);
        fails(lock(s, "l", -1).await, UNKNOWN, missing);
        fails(unlock(s, "").await, UNKNOWN, "etcdserver: key is not provided");
        assert!(s.client().raw(LOCK, b"\xff").await.is_err());
    });
}

#[test]
fn without_a_lease_one_of_a_minute_is_granted() {
    on_shared_pair(async |s| {
        let answer: LockResponse = s.client().call(LOCK, &lock_request("l", 0)).await.unwrap();
        let key = String::from_utf8_lossy(&answer.key).into_owned();
        let request = RangeRequest { key: answer.key, ..RangeRequest::default() };
        let range = s.client().call("/etcdserverpb.KV/Range", &request).await;
        let range: RangeResponse = range.unwrap();
        let lease = range.kvs[0].lease;
        assert_eq!(key, format!("l/{lease:x}"));
        let request = LeaseTimeToLiveRequest { id: lease, keys: true };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        let answer: LeaseTimeToLiveResponse = s.client().call(path, &request).await.unwrap();
        assert_eq!((answer.granted_ttl, answer.keys), (60, vec![Bytes::from(key)]));
    });
}

#[test]
fn contenders_get_it_in_the_order_in_which_they_came() {
    on_shared_pair(async |s| {
        let names: Vec<_> = (0x21..0x29).map(|lease| format!("l/{lease:x}")).collect();
        let mut waiting = Vec::new();
        for (n, lease) in (0x21..0x29).enumerate() {
            s.grant(lease, 100).await.unwrap();
            waiting.push(begin(s, LOCK, &lock_request("l", lease)).await);
            let so_far: Vec<_> = names[..=n].iter().map(String::as_str).collect();
            until_keys(s, "l/", &so_far).await;
        }
        for (n, contender) in waiting.into_iter().enumerate() {
            assert_eq!(held(s, contender).await, names[n]);
            unlock(s, &names[n]).await.unwrap();
        }
        for lease in 0x21..0x29 {
            s.revoke(lease).await.unwrap();
        }
    });
}

#[test]
fn who_gives_up_leaves_no_key_behind() {
    on_shared_pair(async |s| {
        for lease in [0x31, 0x32, 0x33] {
            s.grant(lease, 100).await.unwrap();
        }
        lock(s, "l", 0x31).await.unwrap();
        let gives_up = begin(s, LOCK, &lock_request("l", 0x32)).await;
        until_keys(s, "l/", &["l/31", "l/32"]).await;
        let stays = begin(s, LOCK, &lock_request("l", 0x33)).await;
        until_keys(s, "l/", &["l/31", "l/32", "l/33"]).await;
        drop(gives_up);
        until_keys(s, "l/", &["l/31", "l/33"]).await;
        // So does one whose time has passed: it is told, or its stream is reset before that.
        let client = s.client().clone().with("grpc-timeout", "200m");
        let late = client.raw(LOCK, &lock_request("l", 0x32).encode_to_vec()).await;
        assert!(matches!(late.expect_err("nobody gives it the lock").code, 4 | 999));
        until_keys(s, "l/", &["l/31", "l/33"]).await;
        unlock(s, "l/31").await.unwrap();
        assert_eq!(held(s, stays).await, "l/33");
        for lease in [0x31, 0x32, 0x33] {
            s.revoke(lease).await.unwrap();
        }
    });
}

#[test]
fn a_lease_that_ends_hands_over() {
    on_shared_pair(async |s| {
        s.grant(0x41, 2).await.unwrap();
        for lease in [0x42, 0x43] {
            s.grant(lease, 100).await.unwrap();
        }
        lock(s, "l", 0x41).await.unwrap();
        let second = begin(s, LOCK, &lock_request("l", 0x42)).await;
        until_keys(s, "l/", &["l/41", "l/42"]).await;
        // Its lease expires.
        assert_eq!(held(s, second).await, "l/42");
        let third = begin(s, LOCK, &lock_request("l", 0x43)).await;
        until_keys(s, "l/", &["l/42", "l/43"]).await;
        s.revoke(0x42).await.unwrap();
        assert_eq!(held(s, third).await, "l/43");
        s.revoke(0x43).await.unwrap();
    });
}

#[test]
fn whose_lease_ends_while_it_waits_is_told_in_the_end() {
    on_shared_pair(async |s| {
        for lease in [0x51, 0x52] {
            s.grant(lease, 100).await.unwrap();
        }
        lock(s, "l", 0x51).await.unwrap();
        let mut second = begin(s, LOCK, &lock_request("l", 0x52)).await;
        until_keys(s, "l/", &["l/51", "l/52"]).await;
        s.revoke(0x52).await.unwrap();
        unlock(s, "l/51").await.unwrap();
        let answer = second.next::<LockResponse>(PATIENCE).await;
        fails(answer, UNKNOWN, "mutex: session is expired");
        s.revoke(0x51).await.unwrap();
    });
}

#[test]
fn a_key_of_the_prefix_that_is_no_contenders_counts() {
    on_shared_pair(async |s| {
        s.grant(0x61, 100).await.unwrap();
        s.put(&put("l/anything", "")).await.unwrap();
        let waiting = begin(s, LOCK, &lock_request("l", 0x61)).await;
        until_keys(s, "l/", &["l/anything", "l/61"]).await;
        // Changing it does not let anyone in.
        s.put(&put("l/anything", "else")).await.unwrap();
        s.put(&put("l/anything", "again")).await.unwrap();
        s.unset("l/anything").await;
        assert_eq!(held(s, waiting).await, "l/61");
        s.revoke(0x61).await.unwrap();
    });
}
