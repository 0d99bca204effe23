//! A: revisions.

use conform::{on_fresh_pair, on_shared_pair};

use super::*;

#[test]
fn a1_an_empty_store_is_at_revision_1_and_was_never_compacted() {
    on_fresh_pair(&[], async |s| {
        assert_eq!(s.revision().await, 1);
        let hash = s.hash_kv(0).await.unwrap();
        assert_eq!((hash.compact_revision, hash.hash_revision), (-1, 1));
        assert_eq!(s.set("a", "1").await, 2);
        assert_eq!(s.get("a").await.unwrap().mod_revision, 2);
    });
}

#[test]
fn a2_a_transaction_takes_one_revision_for_all_its_changes() {
    on_shared_pair(async |s| {
        let before = s.set("old", "").await;
        let ops = vec![op_put(put("b", "1")), op_put(put("a", "2")), op_delete(delete("old", ""))];
        let answer = s.txn(&then(ops)).await.unwrap();
        assert_eq!(revision_of(answer.header), before + 1);
        for key in ["a", "b"] {
            assert_eq!(s.get(key).await.unwrap().mod_revision, before + 1);
        }
        assert_eq!(s.set("a", "3").await, before + 2);
    });
}

#[test]
fn a3_what_changes_nothing_keeps_the_revision() {
    on_shared_pair(async |s| {
        let before = s.set("a", "1").await;
        assert_eq!(s.unset("none").await, before);
        let nothing = vec![op_delete(delete("none", "nonf")), op_range(range("a", ""))];
        assert_eq!(revision_of(s.txn(&then(nothing)).await.unwrap().header), before);
        let ranges = vec![op_range(range("a", ""))];
        assert_eq!(revision_of(s.txn(&then(ranges)).await.unwrap().header), before);
        assert_eq!(revision_of(s.txn(&then(vec![])).await.unwrap().header), before);
        assert_eq!(s.revision().await, before);
    });
}

#[test]
fn a4_versions_count_puts_since_creation() {
    on_shared_pair(async |s| {
        let created = s.set("a", "1").await;
        s.set("a", "2").await;
        let changed = s.set("a", "3").await;
        let kv = s.get("a").await.unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (created, changed, 3));
        s.unset("a").await;
        let again = s.set("a", "4").await;
        let kv = s.get("a").await.unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
    });
}

#[test]
fn a5_an_identical_value_is_a_change_too() {
    on_shared_pair(async |s| {
        let first = s.set("a", "same").await;
        assert_eq!(s.set("a", "same").await, first + 1);
        assert_eq!(s.get("a").await.unwrap().version, 2);
    });
}

#[test]
fn a6_a_delete_of_many_is_one_revision() {
    on_shared_pair(async |s| {
        for key in ["c", "a", "b", "d"] {
            s.set(key, key).await;
        }
        let before = s.revision().await;
        let answer = s.delete(&DeleteRangeRequest { prev_kv: true, ..delete("a", "d") }).await;
        let answer = answer.unwrap();
        assert_eq!((answer.deleted, revision_of(answer.header)), (3, before + 1));
        assert_eq!(s.revision().await, before + 1);
        // The hash covers the records with their sub-revisions, so also their order.
        s.hash_kv(0).await.unwrap();
    });
}

#[test]
fn a7_writes_answer_with_the_revision_they_made() {
    on_shared_pair(async |s| {
        let put = s.set("a", "1").await;
        assert_eq!(put, s.revision().await);
        assert_eq!(s.unset("a").await, put + 1);
        assert_eq!(s.unset("a").await, put + 1);
    });
}

#[test]
fn a8_a_range_sees_the_puts_before_it_in_its_transaction() {
    on_shared_pair(async |s| {
        let before = s.set("a", "old").await;
        let ops = vec![
            op_range(range("a", "")),
            op_put(put("a", "new")),
            op_range(range("a", "")),
            // From a key on, because that conflicts with nothing.
            op_delete(delete("a", "\0")),
            op_range(range("a", "")),
        ];
        let answer = s.txn(&then(ops)).await.unwrap();
        assert_eq!(revision_of(answer.header), before + 1);
        assert_eq!(range_at(&answer, 0).kvs[0].value, "old");
        assert_eq!(revision_of(range_at(&answer, 0).header), before);
        assert_eq!(range_at(&answer, 2).kvs[0].value, "new");
        assert_eq!(revision_of(range_at(&answer, 2).header), before + 1);
        assert_eq!(range_at(&answer, 4).count, 0);
        let inner = range_at(&answer, 0).header.unwrap();
        assert_eq!((inner.cluster_id, inner.member_id, inner.raft_term), (0, 0, 0));
    });
}

#[test]
fn a9_a_key_holds_the_lease_of_its_last_put() {
    on_shared_pair(async |s| {
        s.grant(901, 600).await.unwrap();
        s.put(&PutRequest { lease: 901, ..put("a", "1") }).await.unwrap();
        assert_eq!(s.get("a").await.unwrap().lease, 901);
        s.set("a", "2").await;
        assert_eq!(s.get("a").await.unwrap().lease, 0);
        s.revoke(901).await.unwrap();
        assert!(s.get("a").await.is_some(), "detached by the second put");
    });
}

#[test]
fn a10_keys_are_unsigned_bytes_and_never_empty() {
    on_shared_pair(async |s| {
        for key in [&b"\xff"[..], b"\x00", b"\x7f", b"\x80", b"\xff\x00", b"a\x00", b"a"] {
            let key = Bytes::copy_from_slice(key);
            s.put(&PutRequest { key, ..Default::default() }).await.unwrap();
        }
        let all = s.range(&range("\0", "\0")).await.unwrap();
        let found: Vec<&[u8]> = all.kvs.iter().map(|kv| &kv.key[..]).collect();
        let sorted: [&[u8]; 7] = [b"\x00", b"a", b"a\x00", b"\x7f", b"\x80", b"\xff", b"\xff\x00"];
        assert_eq!(found, sorted);
        let long = "k".repeat(100_000);
        s.set(&long, "").await;
        assert_eq!(s.get(&long).await.unwrap().key.len(), 100_000);
        let empty = "etcdserver: key is not provided";
        fails(s.put(&put("", "v")).await, INVALID, empty);
        fails(s.range(&range("", "\0")).await, INVALID, empty);
        fails(s.delete(&delete("", "\0")).await, INVALID, empty);
    });
}

#[test]
fn a11_range_end_selects_one_key_an_interval_or_the_rest() {
    on_shared_pair(async |s| {
        for key in ["a", "b", "c", "d"] {
            s.set(key, "").await;
        }
        for (key, end, expected) in [
            ("b", "", &["b"][..]),
            ("b", "\0", &["b", "c", "d"]),
            ("b", "d", &["b", "c"]),
            ("\0", "\0", &["a", "b", "c", "d"]),
            ("c", "b", &[]),
            ("c", "c", &[]),
            ("a\0", "\0", &["b", "c", "d"]),
        ] {
            let answer = s.range(&range(key, end)).await.unwrap();
            assert_eq!(keys(&answer), expected, "[{key:?}, {end:?})");
            assert_eq!(answer.count, expected.len() as i64);
        }
        assert_eq!(s.delete(&delete("c", "b")).await.unwrap().deleted, 0);
        assert_eq!(s.delete(&delete("b", "d")).await.unwrap().deleted, 2);
        assert_eq!(s.delete(&delete("\0", "\0")).await.unwrap().deleted, 2);
    });
}
