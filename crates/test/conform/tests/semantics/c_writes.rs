//! C: put and delete.

use conform::on_shared_pair;

use super::*;

#[test]
fn c1_what_is_ignored_must_not_be_given() {
    on_shared_pair(async |s| {
        s.set("a", "1").await;
        let value = PutRequest { ignore_value: true, ..put("a", "2") };
        fails(s.put(&value).await, INVALID, "etcdserver: value is provided");
        let lease = PutRequest { ignore_lease: true, lease: 7, ..put("a", "2") };
        fails(s.put(&lease).await, INVALID, "etcdserver: lease is provided");
        let both = PutRequest { ignore_value: true, ignore_lease: true, lease: 7, ..put("a", "2") };
        fails(s.put(&both).await, INVALID, "etcdserver: value is provided");
    });
}

#[test]
fn c2_a_missing_key_has_nothing_to_keep() {
    on_shared_pair(async |s| {
        let text = "etcdserver: key not found";
        fails(s.put(&PutRequest { ignore_value: true, ..put("a", "") }).await, INVALID, text);
        fails(s.put(&PutRequest { ignore_lease: true, ..put("a", "1") }).await, INVALID, text);
        s.set("a", "").await;
        s.unset("a").await;
        fails(s.put(&PutRequest { ignore_value: true, ..put("a", "") }).await, INVALID, text);
    });
}

#[test]
fn c3_ignored_fields_keep_what_was() {
    on_shared_pair(async |s| {
        s.grant(301, 600).await.unwrap();
        s.grant(302, 600).await.unwrap();
        s.put(&PutRequest { lease: 301, ..put("a", "1") }).await.unwrap();
        s.put(&PutRequest { ignore_lease: true, ..put("a", "2") }).await.unwrap();
        let kv = s.get("a").await.unwrap();
        assert_eq!((&kv.value[..], kv.lease), (&b"2"[..], 301));
        s.put(&PutRequest { ignore_value: true, lease: 302, ..put("a", "") }).await.unwrap();
        let kv = s.get("a").await.unwrap();
        assert_eq!((&kv.value[..], kv.lease), (&b"2"[..], 302));
        s.put(&PutRequest { ignore_value: true, ..put("a", "") }).await.unwrap();
        let kv = s.get("a").await.unwrap();
        assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"2"[..], 0, 4));
        s.revoke(301).await.unwrap();
        s.revoke(302).await.unwrap();
    });
}

#[test]
fn c4_a_lease_must_exist() {
    on_shared_pair(async |s| {
        let before = s.revision().await;
        let request = PutRequest { lease: 404, ..put("a", "1") };
        fails(s.put(&request).await, NOT_FOUND, "etcdserver: requested lease not found");
        assert_eq!(s.revision().await, before);
        assert!(s.get("a").await.is_none());
    });
}

#[test]
fn c5_prev_kv_is_the_key_before_or_absent() {
    on_shared_pair(async |s| {
        let asking = |value| PutRequest { prev_kv: true, ..put("a", value) };
        assert_eq!(s.put(&asking("1")).await.unwrap().prev_kv, None);
        let second = s.put(&asking("2")).await.unwrap();
        assert_eq!(second.prev_kv.unwrap().value, "1");
        s.unset("a").await;
        assert_eq!(s.put(&asking("3")).await.unwrap().prev_kv, None);
    });
}

#[test]
fn c6_a_delete_returns_what_it_removed_in_key_order() {
    on_shared_pair(async |s| {
        for key in ["c", "a", "b"] {
            s.set(key, key).await;
        }
        let asking = DeleteRangeRequest { prev_kv: true, ..delete("a", "\0") };
        let answer = s.delete(&asking).await.unwrap();
        let removed: Vec<_> = answer.prev_kvs.iter().map(|kv| kv.key.clone()).collect();
        assert_eq!((answer.deleted, removed), (3, vec!["a".into(), "b".into(), "c".into()]));
        let answer = s.delete(&asking).await.unwrap();
        assert_eq!((answer.deleted, answer.prev_kvs.len()), (0, 0));
    });
}

#[test]
fn c7_a_negative_lease_is_looked_up_like_any_other() {
    on_shared_pair(async |s| {
        let request = PutRequest { lease: -7, ..put("a", "1") };
        fails(s.put(&request).await, NOT_FOUND, "etcdserver: requested lease not found");
        s.grant(-7, 600).await.unwrap();
        s.put(&request).await.unwrap();
        assert_eq!(s.get("a").await.unwrap().lease, -7);
        s.revoke(-7).await.unwrap();
        assert!(s.get("a").await.is_none());
    });
}
