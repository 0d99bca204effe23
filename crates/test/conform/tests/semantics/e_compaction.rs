//! E: compaction.

use conform::{on_fresh_pair, on_shared_pair};

use super::*;

#[test]
fn e1_a_compaction_lies_between_the_last_one_and_now() {
    on_shared_pair(async |s| {
        for n in 0..5 {
            s.set("a", &n.to_string()).await;
        }
        let now = s.revision().await;
        fails(s.compact(now + 1, false).await, OUT_OF_RANGE, FUTURE);
        fails(s.compact(i64::MAX, false).await, OUT_OF_RANGE, FUTURE);
        s.compact(now - 2, true).await.unwrap();
        fails(s.compact(now - 2, false).await, OUT_OF_RANGE, COMPACTED);
        fails(s.compact(now - 3, true).await, OUT_OF_RANGE, COMPACTED);
        fails(s.compact(0, false).await, OUT_OF_RANGE, COMPACTED);
        fails(s.compact(i64::MIN, false).await, OUT_OF_RANGE, COMPACTED);
        s.compact(now, true).await.unwrap();
    });
}

#[test]
fn e1_a_fresh_store_accepts_revision_0_but_not_minus_1() {
    on_fresh_pair(&[], async |s| {
        fails(s.compact(-1, false).await, OUT_OF_RANGE, COMPACTED);
        let at = |revision| then(vec![op_range(RangeRequest { revision, ..range("a", "") })]);
        s.txn(&at(-1)).await.unwrap();
        s.compact(0, true).await.unwrap();
        fails(s.compact(0, true).await, OUT_OF_RANGE, COMPACTED);
        // D14: the range's revision is compared with the compacted one as a number.
        fails(s.txn(&at(-1)).await, OUT_OF_RANGE, COMPACTED);
        s.compact(1, true).await.unwrap();
    });
}

#[test]
fn e2_what_is_compacted_cannot_be_read_at_once() {
    on_shared_pair(async |s| {
        let first = s.set("a", "1").await;
        s.set("a", "2").await;
        s.set("a", "3").await;
        s.compact(first + 1, false).await.unwrap();
        let at = |revision| RangeRequest { revision, ..range("a", "") };
        fails(s.range(&at(first)).await, OUT_OF_RANGE, COMPACTED);
        assert_eq!(s.range(&at(first + 1)).await.unwrap().kvs[0].value, "2");
        let nested = then(vec![op_range(at(first))]);
        fails(s.txn(&nested).await, OUT_OF_RANGE, COMPACTED);
        fails(s.hash_kv(first).await, OUT_OF_RANGE, COMPACTED);
    });
}

#[test]
fn e3_a_physical_compaction_has_ended_when_it_is_answered() {
    on_shared_pair(async |s| {
        for n in 0..300 {
            s.set(&format!("k{}", n % 7), &n.to_string()).await;
        }
        let now = s.revision().await;
        s.compact(now - 100, true).await.unwrap();
        s.compact(now - 5, true).await.unwrap();
        assert_eq!(s.hash_kv(now).await.unwrap().compact_revision, now - 5);
    });
}

#[test]
fn e3_the_hash_of_a_compaction_is_kept_with_the_one_before_it() {
    on_fresh_pair(&[], async |s| {
        s.compact(0, true).await.unwrap();
        let hash = s.hash_kv(0).await.unwrap();
        assert_eq!((hash.hash_revision, hash.compact_revision), (0, -1));
        for n in 0..300 {
            s.set(&format!("k{}", n % 7), &n.to_string()).await;
        }
        s.compact(200, true).await.unwrap();
        assert_eq!(s.hash_kv(200).await.unwrap().compact_revision, 0);
        s.compact(295, true).await.unwrap();
        assert_eq!(s.hash_kv(295).await.unwrap().compact_revision, 200);
        assert_eq!(s.hash_kv(301).await.unwrap().compact_revision, 295);
        fails(s.hash_kv(294).await, OUT_OF_RANGE, COMPACTED);
        // A stored one is answered though its revision is compacted.
        s.hash_kv(200).await.unwrap();
        for revision in 296..=301 {
            s.compact(revision, true).await.unwrap();
            s.hash_kv(revision).await.unwrap();
        }
        let last = s.unset("k1").await;
        s.compact(last, true).await.unwrap();
        s.hash_kv(last).await.unwrap();
    });
}

#[test]
fn e4_a_compaction_keeps_what_lives_at_its_revision() {
    on_shared_pair(async |s| {
        s.set("live", "1").await;
        s.set("live", "2").await;
        s.set("gone", "1").await;
        s.unset("gone").await;
        s.set("last", "1").await;
        let tombstone = s.unset("last").await;
        s.compact(tombstone, true).await.unwrap();
        let at = RangeRequest { revision: tombstone, ..range("\0", "\0") };
        assert_eq!(keys(&s.range(&at).await.unwrap()), ["live"]);
        s.set("last", "2").await;
        // Which records are left is in the hash.
        s.hash_kv(0).await.unwrap();
        assert_eq!(s.get("last").await.unwrap().version, 1);
        let now = s.set("last", "3").await;
        s.compact(now - 1, true).await.unwrap();
        s.hash_kv(now).await.unwrap();
    });
}

#[test]
fn e7_a_compaction_answers_with_the_current_revision() {
    on_shared_pair(async |s| {
        let old = s.set("a", "1").await;
        let now = s.set("a", "2").await;
        assert_eq!(revision_of(s.compact(old, false).await.unwrap().header), now);
    });
}
