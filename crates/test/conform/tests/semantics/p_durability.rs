//! P: order of apply and durability, as one member shows it.

use conform::{on_fresh_pair, on_shared_pair};

use super::*;

#[test]
fn p1_an_answer_comes_when_every_reader_sees_the_write() {
    on_shared_pair(async |s| {
        let other = s.connect(1 << 24).await;
        for n in 0..50 {
            let revision = s.set("a", &n.to_string()).await;
            let local = RangeRequest { serializable: true, ..range("a", "") };
            let seen: RangeResponse = other.call("/etcdserverpb.KV/Range", &local).await.unwrap();
            assert_eq!(seen.kvs[0].mod_revision, revision);
        }
    });
}

#[test]
fn p3_p4_a_kill_loses_nothing_that_was_answered_and_applies_nothing_twice() {
    on_fresh_pair(&[], async |s| {
        for round in 0..3 {
            s.grant(100 + round, 1_000).await.unwrap();
            let kept = PutRequest { lease: 100 + round, ..put("leased", "1") };
            s.put(&kept).await.unwrap();
            for n in 0..20 {
                s.set(&format!("k{n}"), &round.to_string()).await;
            }
            s.delete(&delete("k0", "k3")).await.unwrap();
            let last = s.set("last", &round.to_string()).await;
            let hash = s.hash_kv(last).await.unwrap();
            // Within the 100 ms that the backend may wait.
            s.kill().await;
            assert_eq!(s.revision().await, last);
            assert_eq!(s.hash_kv(last).await.unwrap().hash, hash.hash);
            assert_eq!(s.get("leased").await.unwrap().lease, 100 + round);
            let version = s.get("last").await.unwrap().version;
            assert_eq!(version, round + 1, "each entry is applied once");
        }
    });
}

#[test]
fn d17_ranges_of_a_write_leave_no_trace_when_its_entry_is_replayed() {
    on_fresh_pair(&[], async |s| {
        s.set("a", "1").await;
        let ops = vec![op_range(range("a", "")), op_put(put("b", "1")), op_range(range("b", ""))];
        let answer = s.txn(&then(ops)).await.unwrap();
        assert_eq!(range_at(&answer, 2).kvs.len(), 1);
        let last = revision_of(answer.header);
        let hash = s.hash_kv(last).await.unwrap();
        s.kill().await;
        assert_eq!(s.hash_kv(last).await.unwrap().hash, hash.hash);
        assert_eq!(s.revision().await, last);
    });
}
