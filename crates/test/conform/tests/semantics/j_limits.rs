//! J: the limits of requests.

use conform::{on_fresh_pair, on_shared_pair};

use super::*;

#[test]
fn j2_an_entry_beyond_max_request_bytes_is_refused() {
    on_shared_pair(async |s| {
        let value = "v".repeat(1_572_864);
        let text = "etcdserver: request is too large";
        fails(s.put(&put("a", &value)).await, INVALID, text);
        fails(s.txn(&then(vec![op_put(put("a", &value))])).await, INVALID, text);
        fails(s.delete(&delete(&value, "")).await, INVALID, text);
        // A read goes into no entry.
        s.range(&range(&value, "")).await.unwrap();
        s.set("a", &value[..1_500_000]).await;
        assert_eq!(s.get("a").await.unwrap().value.len(), 1_500_000);
    });
}

#[test]
fn j3_a_message_beyond_the_limit_is_not_read() {
    on_shared_pair(async |s| {
        for extra in [0, 1, 100_000] {
            let value = "v".repeat(2_097_152 + extra);
            let answer = s.put(&put("a", &value)).await.unwrap_err();
            assert_eq!(answer.code, 8);
            assert!(answer.message.starts_with("grpc: received message larger than max ("));
        }
        assert!(s.get("a").await.is_none());
    });
}

#[test]
fn j2_j3_follow_the_flag() {
    on_fresh_pair(&["--max-request-bytes", "65536"], async |s| {
        s.set("a", &"v".repeat(65_000)).await;
        let text = "etcdserver: request is too large";
        fails(s.put(&put("a", &"v".repeat(66_000))).await, INVALID, text);
        fails(s.put(&put("a", &"v".repeat(589_000))).await, INVALID, text);
        let text = "grpc: received message larger than max (590011 vs. 589824)";
        fails(s.put(&put("a", &"v".repeat(590_004))).await, 8, text);
    });
}

#[test]
fn d1_follows_the_flag() {
    on_fresh_pair(&["--max-txn-ops", "2"], async |s| {
        let ops = |n: usize| (0..n).map(|n| op_put(put(&n.to_string(), ""))).collect();
        s.txn(&then(ops(2))).await.unwrap();
        let text = "etcdserver: too many operations in txn request";
        fails(s.txn(&then(ops(3))).await, INVALID, text);
    });
}
