//! B: ranges.

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use conform::{Session, on_shared_pair};

use super::*;

/// Five keys whose orders by key, value, version, creation and change all differ.
async fn five(s: &mut Session) -> i64 {
    s.set("c", "5").await;
    s.set("a", "3").await;
    s.set("e", "1").await;
    s.set("b", "4").await;
    s.set("d", "2").await;
    for (key, value, times) in [("a", "3", 2), ("e", "1", 1), ("d", "2", 4), ("c", "5", 3)] {
        for _ in 0..times {
            s.set(key, value).await;
        }
    }
    s.revision().await
}

fn sorted(order: SortOrder, target: SortTarget) -> RangeRequest {
    RangeRequest { sort_order: order as i32, sort_target: target as i32, ..range("\0", "\0") }
}

#[test]
fn b1_a_revision_must_be_neither_compacted_nor_in_the_future() {
    on_shared_pair(async |s| {
        let first = s.set("a", "1").await;
        s.set("a", "2").await;
        let last = s.set("a", "3").await;
        let at = |revision| RangeRequest { revision, ..range("a", "") };
        for revision in [0, -1, i64::MIN] {
            assert_eq!(s.range(&at(revision)).await.unwrap().kvs[0].value, "3");
        }
        assert_eq!(s.range(&at(first)).await.unwrap().kvs[0].value, "1");
        fails(s.range(&at(last + 1)).await, OUT_OF_RANGE, FUTURE);
        fails(s.range(&at(i64::MAX)).await, OUT_OF_RANGE, FUTURE);
        s.compact(first + 1, true).await.unwrap();
        assert_eq!(s.range(&at(first + 1)).await.unwrap().kvs[0].value, "2");
        fails(s.range(&at(first)).await, OUT_OF_RANGE, COMPACTED);
    });
}

#[test]
fn b2_the_header_shows_the_current_revision() {
    on_shared_pair(async |s| {
        let first = s.set("a", "1").await;
        let last = s.set("a", "2").await;
        let old = s.range(&RangeRequest { revision: first, ..range("a", "") }).await.unwrap();
        assert_eq!(revision_of(old.header), last);
    });
}

#[test]
fn b3_count_ignores_limit_and_filters() {
    on_shared_pair(async |s| {
        let last = five(s).await;
        let limited = RangeRequest { limit: 2, ..range("\0", "\0") };
        assert_eq!(s.range(&limited).await.unwrap().count, 5);
        let filtered = RangeRequest { min_mod_revision: last, ..range("\0", "\0") };
        let answer = s.range(&filtered).await.unwrap();
        assert_eq!((answer.count, keys(&answer)), (5, vec!["c".to_owned()]));
        let old = RangeRequest { revision: last - 12, ..range("\0", "\0") };
        assert_eq!(s.range(&old).await.unwrap().count, 3);
    });
}

#[test]
fn b4_more_is_set_if_the_limit_cut() {
    on_shared_pair(async |s| {
        five(s).await;
        for (limit, got, more) in [
            (0, 5, false),
            (-1, 5, false),
            (i64::MIN, 5, false),
            (4, 4, true),
            (5, 5, false),
            (6, 5, false),
            (1, 1, true),
            (i64::MAX, 5, false),
        ] {
            let answer = s.range(&RangeRequest { limit, ..range("\0", "\0") }).await.unwrap();
            assert_eq!((answer.kvs.len(), answer.more), (got, more), "limit {limit}");
        }
    });
}

#[test]
fn b5_orders_and_filters_apply_before_the_limit() {
    on_shared_pair(async |s| {
        let last = five(s).await;
        let by_key = RangeRequest { limit: 2, ..sorted(SortOrder::Descend, SortTarget::Key) };
        let answer = s.range(&by_key).await.unwrap();
        assert_eq!((keys(&answer), answer.more), (vec!["e".into(), "d".into()], true));
        let by_change = RangeRequest { limit: 2, ..sorted(SortOrder::Descend, SortTarget::Mod) };
        assert_eq!(keys(&s.range(&by_change).await.unwrap()), ["c", "d"]);
        let filter = RangeRequest { max_mod_revision: last - 3, limit: 3, ..range("\0", "\0") };
        let answer = s.range(&filter).await.unwrap();
        assert_eq!((keys(&answer), answer.more), (vec!["a".into(), "b".into(), "d".into()], true));
    });
}

#[test]
fn b6_without_an_order_the_limit_comes_before_the_sorting() {
    on_shared_pair(async |s| {
        five(s).await;
        let quirk = RangeRequest { limit: 3, ..sorted(SortOrder::None, SortTarget::Value) };
        let answer = s.range(&quirk).await.unwrap();
        // a, b, c, d by key; of these the three lowest values.
        assert_eq!(keys(&answer), ["d", "a", "b"]);
        assert!(answer.more);
        let whole = sorted(SortOrder::None, SortTarget::Value);
        assert_eq!(keys(&s.range(&whole).await.unwrap()), ["e", "d", "a", "b", "c"]);
    });
}

#[test]
fn b7_descending_is_the_reverse_of_ascending() {
    on_shared_pair(async |s| {
        five(s).await;
        for target in [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ] {
            let up = s.range(&sorted(SortOrder::Ascend, target)).await.unwrap();
            let down = s.range(&sorted(SortOrder::Descend, target)).await.unwrap();
            let reversed: Vec<_> = down.kvs.into_iter().rev().collect();
            assert_eq!(up.kvs, reversed, "{target:?}");
        }
    });
}

#[test]
fn b8_an_unknown_sort_option_is_refused() {
    on_shared_pair(async |s| {
        let text = "etcdserver: invalid sort option";
        for (sort_order, sort_target) in [(3, 0), (0, 5), (-1, 0), (0, -1), (i32::MAX, 0)] {
            let request = RangeRequest { sort_order, sort_target, ..range("a", "") };
            fails(s.range(&request).await, INVALID, text);
        }
    });
}

#[test]
fn b9_filters_are_inclusive_and_zero_turns_them_off() {
    on_shared_pair(async |s| {
        let last = five(s).await;
        let first = last - 14;
        let all = || range("\0", "\0");
        for (request, expected) in [
            (RangeRequest { max_mod_revision: last - 3, ..all() }, &["a", "b", "d", "e"][..]),
            (RangeRequest { min_mod_revision: last - 3, ..all() }, &["c", "d"]),
            (RangeRequest { max_create_revision: first + 1, ..all() }, &["a", "c"]),
            (RangeRequest { min_create_revision: first + 3, ..all() }, &["b", "d"]),
            (
                RangeRequest {
                    min_create_revision: first + 1,
                    max_create_revision: first + 1,
                    ..all()
                },
                &["a"],
            ),
            (RangeRequest { min_mod_revision: last, max_mod_revision: last - 1, ..all() }, &[]),
            (
                RangeRequest { min_mod_revision: -5, max_mod_revision: 0, ..all() },
                &["a", "b", "c", "d", "e"],
            ),
            (RangeRequest { max_mod_revision: -5, ..all() }, &[]),
        ] {
            let answer = s.range(&request).await.unwrap();
            assert_eq!(keys(&answer), expected, "{request:?}");
            assert_eq!(answer.count, 5);
        }
    });
}

#[test]
fn b10_count_only_sends_the_count() {
    on_shared_pair(async |s| {
        let last = five(s).await;
        let request = RangeRequest {
            count_only: true,
            limit: 1,
            min_mod_revision: last,
            ..range("\0", "\0")
        };
        let answer = s.range(&request).await.unwrap();
        assert_eq!((answer.count, answer.more, answer.kvs.len()), (5, false, 0));
        let one = RangeRequest { count_only: true, ..range("none", "") };
        assert_eq!(s.range(&one).await.unwrap().count, 0);
    });
}

#[test]
fn b11_keys_only_answers_without_lease_unless_sorted_by_value() {
    on_shared_pair(async |s| {
        s.grant(1101, 600).await.unwrap();
        s.put(&PutRequest { lease: 1101, ..put("a", "1") }).await.unwrap();
        s.set("b", "0").await;
        let request = RangeRequest { keys_only: true, ..range("\0", "\0") };
        let answer = s.range(&request).await.unwrap();
        let kv = &answer.kvs[0];
        assert_eq!((kv.lease, kv.version, kv.value.len()), (0, 1, 0));
        assert_ne!((kv.create_revision, kv.mod_revision), (0, 0));
        let by_value = RangeRequest { sort_target: SortTarget::Value as i32, ..request };
        let answer = s.range(&by_value).await.unwrap();
        assert_eq!(keys(&answer), ["b", "a"]);
        assert_eq!((answer.kvs[1].lease, answer.kvs[1].value.len()), (1101, 0));
        s.revoke(1101).await.unwrap();
    });
}

#[test]
fn b12_a_serializable_range_reads_the_same_state() {
    on_shared_pair(async |s| {
        s.set("a", "1").await;
        let request = RangeRequest { serializable: true, ..range("a", "") };
        let local = s.range(&request).await.unwrap();
        assert_eq!(local, s.range(&range("a", "")).await.unwrap());
    });
}

#[test]
fn b14_many_linearizable_reads_at_once_all_see_the_put_before_them() {
    on_shared_pair(async |s| {
        let written = s.set("a", "1").await;
        let client = s.client().clone();
        let reads = (0..200).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let path = "/etcdserverpb.KV/Range";
                client.call::<RangeResponse>(path, &range("a", "")).await
            })
        });
        let reads: Vec<_> = reads.collect();
        for read in reads {
            let answer = read.await.unwrap().unwrap();
            assert_eq!((answer.kvs[0].mod_revision, answer.count), (written, 1));
        }
    });
}

#[test]
fn b15_a_cancelled_range_leaves_the_server_serving() {
    on_shared_pair(async |s| {
        let value = "v".repeat(100_000);
        for n in 0..20 {
            s.set(&format!("k{n}"), &value).await;
        }
        let message = prost::Message::encode_to_vec(&range("\0", "\0"));
        for _ in 0..20 {
            let body = conform::grpc::envelope(&message);
            // Dropping the stream resets it.
            drop(s.client().open("/etcdserverpb.KV/Range", Some(body), true).await);
        }
        assert_eq!(s.range(&range("\0", "\0")).await.unwrap().count, 20);
    });
}
