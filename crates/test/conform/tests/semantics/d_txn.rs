//! D: transactions.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use conform::both::run;
use conform::{Client, Kind, Session, on_shared_pair};

use super::*;

const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";

/// Whether the compares hold.
async fn holds(s: &mut Session, compares: Vec<Compare>) -> bool {
    s.txn(&branches(compares, vec![], vec![])).await.unwrap().succeeded
}

#[test]
fn d1_each_level_takes_from_the_limit_of_operations() {
    on_shared_pair(async |s| {
        let puts = |from: usize, n: usize| -> Vec<RequestOp> {
            (from..from + n).map(|n| op_put(put(&format!("k{n:03}"), ""))).collect()
        };
        s.txn(&then(puts(0, 128))).await.unwrap();
        fails(s.txn(&then(puts(0, 129))).await, INVALID, TOO_MANY);
        let compares = vec![compare("k000", CompareResult::Equal, TargetUnion::Version(1)); 129];
        fails(s.txn(&branches(compares, vec![], vec![])).await, INVALID, TOO_MANY);
        fails(s.txn(&branches(vec![], vec![], puts(0, 129))).await, INVALID, TOO_MANY);
        let nested = |outer: usize, inner: usize| {
            let mut ops = puts(0, outer - 1);
            ops.push(op_txn(then(puts(500, inner))));
            then(ops)
        };
        s.txn(&nested(100, 28)).await.unwrap();
        fails(s.txn(&nested(100, 29)).await, INVALID, TOO_MANY);
    });
}

#[test]
fn d2_all_compares_must_hold() {
    on_shared_pair(async |s| {
        s.set("a", "1").await;
        let yes = || compare("a", CompareResult::Equal, TargetUnion::Version(1));
        let no = || compare("a", CompareResult::Equal, TargetUnion::Version(2));
        assert!(holds(s, vec![]).await);
        assert!(holds(s, vec![yes(), yes()]).await);
        assert!(!holds(s, vec![yes(), no()]).await);
        assert!(!holds(s, vec![no(), yes()]).await);
    });
}

#[test]
fn d3_every_target_compares_in_every_way() {
    on_shared_pair(async |s| {
        s.grant(31, 600).await.unwrap();
        s.set("other", "").await;
        let created = s.set("a", "m").await;
        let leased = PutRequest { lease: 31, ..put("a", "m") };
        let changed = revision_of(s.put(&leased).await.unwrap().header);
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        for d in [-1, 0, 1] {
            let value = ["z", "m", "b"][(1 - d) as usize];
            for union in [
                TargetUnion::Version(2 + d),
                TargetUnion::CreateRevision(created + d),
                TargetUnion::ModRevision(changed + d),
                TargetUnion::Lease(31 + d),
                TargetUnion::Value(bytes(value)),
            ] {
                for result in results {
                    let expected = match result {
                        CompareResult::Equal => d == 0,
                        CompareResult::NotEqual => d != 0,
                        CompareResult::Greater => d < 0,
                        CompareResult::Less => d > 0,
                    };
                    let held = holds(s, vec![compare("a", result, union.clone())]).await;
                    assert_eq!(held, expected, "{union:?} {result:?}");
                }
            }
        }
        s.revoke(31).await.unwrap();
    });
}

#[test]
fn d3_a_missing_or_mismatched_operand_counts_as_zero() {
    on_shared_pair(async |s| {
        s.set("a", "").await;
        for target in 0..5 {
            for result in 0..4 {
                for target_union in
                    [None, Some(TargetUnion::Version(9)), Some(TargetUnion::Value(bytes("x")))]
                {
                    let (key, range_end) = (bytes("a"), Bytes::new());
                    let c = Compare { result, target, key, range_end, target_union };
                    holds(s, vec![c]).await;
                }
            }
        }
        let mut lease = compare("a", CompareResult::Equal, TargetUnion::Version(5));
        lease.target = CompareTarget::Lease as i32;
        assert!(holds(s, vec![lease]).await);
        let mut unknown = compare("a", CompareResult::Less, TargetUnion::Version(0));
        unknown.result = 99;
        assert!(holds(s, vec![unknown.clone()]).await);
        unknown.target = 99;
        assert!(holds(s, vec![unknown]).await);
    });
}

#[test]
fn d4_an_absent_key_has_no_value_and_zeros() {
    on_shared_pair(async |s| {
        for result in [CompareResult::Equal, CompareResult::NotEqual, CompareResult::Less] {
            let c = compare("none", result, TargetUnion::Value(Bytes::new()));
            assert!(!holds(s, vec![c]).await, "{result:?}");
        }
        for union in [
            TargetUnion::Version(0),
            TargetUnion::CreateRevision(0),
            TargetUnion::ModRevision(0),
            TargetUnion::Lease(0),
        ] {
            assert!(holds(s, vec![compare("none", CompareResult::Equal, union)]).await);
        }
    });
}

#[test]
fn d5_a_compare_of_a_range_holds_for_all_its_keys() {
    on_shared_pair(async |s| {
        s.set("a", "x").await;
        s.set("b", "x").await;
        s.set("c", "y").await;
        let value = |end: &str| Compare {
            range_end: bytes(end),
            ..compare("a", CompareResult::Equal, TargetUnion::Value(bytes("x")))
        };
        assert!(holds(s, vec![value("c")]).await);
        assert!(!holds(s, vec![value("d")]).await);
        assert!(!holds(s, vec![value("\0")]).await);
        let empty =
            |union| Compare { range_end: bytes("n"), ..compare("m", CompareResult::Equal, union) };
        assert!(holds(s, vec![empty(TargetUnion::Version(0))]).await);
        assert!(!holds(s, vec![empty(TargetUnion::Value(Bytes::new()))]).await);
    });
}

#[test]
fn d6_a_compare_needs_a_key() {
    on_shared_pair(async |s| {
        let text = "etcdserver: key is not provided";
        let c = compare("", CompareResult::Equal, TargetUnion::Version(0));
        fails(s.txn(&branches(vec![c.clone()], vec![], vec![])).await, INVALID, text);
        let nested = then(vec![op_txn(branches(vec![c], vec![], vec![]))]);
        fails(s.txn(&nested).await, INVALID, text);
    });
}

#[test]
fn d7_all_compares_see_the_state_before_the_transaction() {
    on_shared_pair(async |s| {
        s.set("a", "old").await;
        let inner = branches(
            vec![compare("a", CompareResult::Equal, TargetUnion::Value(bytes("old")))],
            vec![op_put(put("seen", "old"))],
            vec![op_put(put("seen", "new"))],
        );
        s.txn(&then(vec![op_put(put("a", "new")), op_txn(inner)])).await.unwrap();
        assert_eq!(s.get("seen").await.unwrap().value, "old");
    });
}

#[test]
fn d8_a_branch_changes_a_key_once() {
    on_shared_pair(async |s| {
        let twice = vec![op_put(put("a", "1")), op_put(put("a", "2"))];
        fails(s.txn(&then(twice)).await, INVALID, DUPLICATE);
        for ops in [
            vec![op_put(put("b", "1")), op_delete(delete("a", "c"))],
            vec![op_delete(delete("a", "c")), op_put(put("b", "1"))],
            vec![op_delete(delete("b", "")), op_put(put("b", "1"))],
        ] {
            fails(s.txn(&then(ops)).await, INVALID, DUPLICATE);
        }
        s.set("b", "").await;
        let overlapping = vec![op_delete(delete("a", "c")), op_delete(delete("b", "d"))];
        s.txn(&then(overlapping)).await.unwrap();
        s.txn(&then(vec![op_put(put("c", "")), op_delete(delete("a", "c"))])).await.unwrap();
    });
}

#[test]
fn r3_a_delete_from_a_key_on_conflicts_with_nothing() {
    on_shared_pair(async |s| {
        let before = s.set("b", "1").await;
        s.txn(&then(vec![op_put(put("b", "2")), op_delete(delete("a", "\0"))])).await.unwrap();
        assert!(s.get("b").await.is_none());
        s.set("b", "3").await;
        s.txn(&then(vec![op_delete(delete("a", "\0")), op_put(put("b", "4"))])).await.unwrap();
        let kv = s.get("b").await.unwrap();
        assert_eq!((&kv.value[..], kv.version, kv.mod_revision), (&b"4"[..], 1, before + 3));
        s.hash_kv(0).await.unwrap();
    });
}

#[test]
fn d9_nested_branches_conflict_with_their_parents() {
    on_shared_pair(async |s| {
        let nest = |success, failure| op_txn(branches(vec![], success, failure));
        let a = || op_put(put("a", ""));
        let cut = || op_delete(delete("a", "b"));
        for (ops, accepted) in [
            (vec![nest(vec![a()], vec![a()])], true),
            (vec![a(), nest(vec![a()], vec![])], false),
            (vec![nest(vec![], vec![a()]), a()], false),
            (vec![nest(vec![a()], vec![]), nest(vec![], vec![a()])], false),
            (vec![cut(), nest(vec![a()], vec![])], false),
            (vec![nest(vec![cut()], vec![]), a()], false),
            (vec![nest(vec![cut()], vec![]), nest(vec![a()], vec![])], false),
            (vec![nest(vec![a()], vec![]), nest(vec![cut()], vec![])], true),
            (vec![nest(vec![cut()], vec![]), nest(vec![], vec![a()])], false),
            (vec![nest(vec![nest(vec![a()], vec![])], vec![]), a()], false),
        ] {
            let request = then(ops);
            let answer = s.txn(&request).await;
            match accepted {
                true => assert!(answer.is_ok(), "{request:?}"),
                false => fails(answer, INVALID, DUPLICATE),
            }
        }
    });
}

#[test]
fn d10_the_branches_of_the_top_are_checked_apart() {
    on_shared_pair(async |s| {
        let both = branches(vec![], vec![op_put(put("a", "1"))], vec![op_put(put("a", "2"))]);
        s.txn(&both).await.unwrap();
        assert_eq!(s.get("a").await.unwrap().value, "1");
    });
}

#[test]
fn d11_an_operation_must_be_one() {
    on_shared_pair(async |s| {
        let text = "etcdserver: key not found";
        let none = || RequestOp { request: None };
        fails(s.txn(&then(vec![none()])).await, INVALID, text);
        fails(s.txn(&branches(vec![], vec![], vec![none()])).await, INVALID, text);
        fails(s.txn(&then(vec![op_txn(then(vec![none()]))])).await, INVALID, text);
    });
}

#[test]
fn d12_a_failing_operation_on_the_taken_path_undoes_all() {
    on_shared_pair(async |s| {
        let before = s.set("a", "1").await;
        let bad = |n: usize| match n {
            0 => op_put(PutRequest { lease: 12_345, ..put("c", "") }),
            1 => op_put(PutRequest { ignore_value: true, ..put("c", "") }),
            2 => op_range(RangeRequest { revision: before + 9, ..range("a", "") }),
            _ => op_put(PutRequest { ignore_lease: true, ..put("c", "x") }),
        };
        for n in 0..4 {
            let (code, text) = match n {
                0 => (NOT_FOUND, "etcdserver: requested lease not found"),
                2 => (OUT_OF_RANGE, FUTURE),
                _ => (INVALID, "etcdserver: key not found"),
            };
            fails(s.txn(&then(vec![op_put(put("b", "")), bad(n)])).await, code, text);
            let nested = then(vec![op_put(put("b", "")), op_txn(then(vec![bad(n)]))]);
            fails(s.txn(&nested).await, code, text);
            let not_taken = branches(vec![], vec![], vec![bad(n)]);
            s.txn(&not_taken).await.unwrap();
        }
        assert_eq!(s.revision().await, before);
        assert!(s.get("b").await.is_none());
    });
}

/// etcd itself panics here, on every member and at each restart, so this one runs on ours alone.
#[test]
fn d12_a_put_that_relies_on_a_deleted_key_is_refused_and_survived() {
    run(Kind::Quorate, &[], async |client: Client| {
        let keep = PutRequest { ignore_value: true, ..put("b", "") };
        let poison = then(vec![op_delete(delete("a", "\0")), op_put(keep)]);
        let answer: Result<TxnResponse, _> = client.call("/etcdserverpb.KV/Txn", &poison).await;
        fails(answer, INVALID, "etcdserver: key not found");
        let path = "/etcdserverpb.KV/Put";
        let alive: Result<api::etcdserverpb::PutResponse, _> =
            client.call(path, &put("b", "1")).await;
        assert_eq!(revision_of(alive.unwrap().header), 2);
    });
}

/// etcd loses the put at the compaction and its next read is fatal: ours alone.
#[test]
fn d12_a_put_behind_a_delete_from_its_key_on_survives_a_compaction() {
    run(Kind::Quorate, &[], async |client: Client| {
        let txn = then(vec![op_delete(delete("a", "\0")), op_put(put("a", "kept"))]);
        let answer: TxnResponse = client.call("/etcdserverpb.KV/Txn", &txn).await.unwrap();
        let revision = revision_of(answer.header);
        let compact = api::etcdserverpb::CompactionRequest { revision, physical: true };
        let _: api::etcdserverpb::CompactionResponse =
            client.call("/etcdserverpb.KV/Compact", &compact).await.unwrap();
        let answer: RangeResponse =
            client.call("/etcdserverpb.KV/Range", &range("a", "")).await.unwrap();
        assert_eq!(answer.kvs[0].value, "kept");
    });
}

#[test]
fn d13_a_range_cannot_ask_for_the_revision_its_transaction_makes() {
    on_shared_pair(async |s| {
        let before = s.set("a", "1").await;
        let ranged = |revision| {
            let at = RangeRequest { revision, ..range("a", "") };
            then(vec![op_put(put("a", "2")), op_range(at)])
        };
        fails(s.txn(&ranged(before + 1)).await, OUT_OF_RANGE, FUTURE);
        let answer = s.txn(&ranged(before)).await.unwrap();
        assert_eq!(range_at(&answer, 1).kvs[0].value, "1");
    });
}

#[test]
fn d14_a_negative_revision_in_a_transaction_is_compacted_once_anything_is() {
    on_shared_pair(async |s| {
        let now = s.set("a", "1").await;
        s.compact(now, true).await.unwrap();
        for revision in [-1, i64::MIN] {
            let at = RangeRequest { revision, ..range("a", "") };
            fails(s.txn(&then(vec![op_range(at.clone())])).await, OUT_OF_RANGE, COMPACTED);
            let written = then(vec![op_put(put("b", "")), op_range(at)]);
            fails(s.txn(&written).await, OUT_OF_RANGE, COMPACTED);
        }
        assert!(s.get("b").await.is_none());
    });
}

#[test]
fn d15_ranges_alone_change_nothing() {
    on_shared_pair(async |s| {
        let now = s.set("a", "1").await;
        let index = s.status().await.raft_index;
        for serializable in [false, true] {
            let read = op_range(RangeRequest { serializable, ..range("a", "") });
            let answer = s.txn(&branches(vec![], vec![read.clone()], vec![read])).await.unwrap();
            assert_eq!(revision_of(answer.header), now);
        }
        s.txn(&then(vec![])).await.unwrap();
        assert_eq!(s.status().await.raft_index, index, "no entry in the log");
        s.txn(&then(vec![op_txn(then(vec![]))])).await.unwrap();
        assert!(s.status().await.raft_index > index, "a nested one counts as a write");
    });
}

#[test]
fn d16_the_answers_stand_at_the_places_of_their_operations() {
    on_shared_pair(async |s| {
        s.set("a", "1").await;
        let ops = vec![
            op_put(PutRequest { prev_kv: true, ..put("a", "2") }),
            op_range(range("a", "")),
            op_txn(then(vec![op_range(range("a", "")), op_put(put("b", ""))])),
            op_delete(DeleteRangeRequest { prev_kv: true, ..delete("c", "d") }),
        ];
        let no = compare("a", CompareResult::Less, TargetUnion::Version(0));
        let answer = s.txn(&branches(vec![no], vec![], ops.clone())).await.unwrap();
        assert!(!answer.succeeded);
        assert_eq!(answer.responses.len(), 4);
        let answer = s.txn(&then(ops)).await.unwrap();
        assert!(answer.succeeded);
        assert!(matches!(answer.responses[0].response, Some(Response::ResponsePut(_))));
        assert!(matches!(answer.responses[2].response, Some(Response::ResponseTxn(_))));
        assert!(matches!(answer.responses[3].response, Some(Response::ResponseDeleteRange(_))));
    });
}

#[test]
fn d18_transactions_nest_as_deep_as_the_limit() {
    on_shared_pair(async |s| {
        let deep = |levels: usize| {
            let mut op = op_put(put("deep", "1"));
            for _ in 0..levels {
                op = op_txn(then(vec![op]));
            }
            then(vec![op])
        };
        s.txn(&deep(20)).await.unwrap();
        assert!(s.get("deep").await.is_some());
    });
}
