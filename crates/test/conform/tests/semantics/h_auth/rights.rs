//! H17, H18, H23, H24: which keys a user may read and write.

use conform::on_fresh_pair;

use super::*;

#[test]
fn h17_h18_a_range_is_permitted_if_all_permissions_together_cover_it() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "root", "rpw").await;
        for role in ["x", "y"] {
            auth!(s, "RoleAdd", AuthRoleAddRequest { name: role.into() } => AuthRoleAddResponse)
                .unwrap();
            auth!(s, "UserGrantRole", holds("alice", role) => AuthUserGrantRoleResponse).unwrap();
        }
        let permissions = [
            ("x", Type::Read, "g", "m"),
            ("y", Type::Readwrite, "m", "p"),
            ("y", Type::Read, "p", ""),
            ("x", Type::Read, "p\0", "r"),
            ("x", Type::Write, "x", "\0"),
        ];
        for (role, kind, key, end) in permissions {
            let request = permits(role, kind, key, end);
            auth!(s, "RoleGrantPermission", request => AuthRoleGrantPermissionResponse).unwrap();
        }
        // The same keys with another kind: it takes the place of the one before.
        let request = permits("y", Type::Write, "m", "p");
        auth!(s, "RoleGrantPermission", request => AuthRoleGrantPermissionResponse).unwrap();
        let request = permits("y", Type::Readwrite, "m", "p");
        auth!(s, "RoleGrantPermission", request => AuthRoleGrantPermissionResponse).unwrap();
        log_in(s, "alice", "apw").await;
        let ends = ["", "\0", "a0", "g", "m", "n", "p", "p\0", "q", "r", "s", "x", "z", "\u{7f}"];
        let (mut read, mut written) = (0, 0);
        for key in ["\0", "a/", "a/5", "a0", "b", "g", "h", "m", "o", "p", "p\0", "q", "r", "x"] {
            // One that ends before it begins is permitted in etcd by the shape of a tree (COMPAT.md).
            for end in ends.into_iter().filter(|end| ["", "\0"].contains(end) || *end > key) {
                read += i32::from(s.range(&range(key, end)).await.is_ok());
                written += i32::from(s.delete(&delete(key, end)).await.is_ok());
            }
            let _ = s.put(&put(key, "v")).await;
        }
        assert!((20..90).contains(&read) && (10..90).contains(&written), "{read} {written}");
        let root = log_in(s, "root", "rpw").await;
        s.act_as(root);
        s.range(&range("\0", "\0")).await.unwrap();
        // Without the role, root is anybody.
        auth!(s, "AuthDisable", AuthDisableRequest {} => AuthDisableResponse).unwrap();
    });
}

/// A request in every form in which it can be made: alone, in either branch of a transaction, and
/// in one within one.
async fn in_every_form(s: &mut Session, op: RequestOp) -> Vec<Result<(), Failure>> {
    let mut answers = Vec::new();
    let inner = TxnRequest { success: vec![op.clone()], ..Default::default() };
    let branches = [
        TxnRequest { success: vec![op.clone()], ..Default::default() },
        TxnRequest { failure: vec![op.clone()], ..Default::default() },
        TxnRequest { failure: vec![op_txn(inner.clone())], ..Default::default() },
        TxnRequest {
            success: vec![op_txn(TxnRequest {
                failure: vec![op_txn(inner)],
                ..Default::default()
            })],
            ..Default::default()
        },
    ];
    for txn in branches {
        answers.push(s.txn(&txn).await.map(drop));
    }
    answers.push(match op.request.expect("it asks for something") {
        Request::RequestRange(request) => s.range(&request).await.map(drop),
        Request::RequestPut(request) => s.put(&request).await.map(drop),
        Request::RequestDeleteRange(request) => s.delete(&request).await.map(drop),
        Request::RequestTxn(request) => s.txn(&request).await.map(drop),
    });
    answers
}

pub(super) async fn allowed(s: &mut Session, op: RequestOp) {
    for answer in in_every_form(s, op).await {
        answer.unwrap();
    }
}

pub(super) async fn denied(s: &mut Session, op: RequestOp) {
    for answer in in_every_form(s, op).await {
        fails(answer, PERMISSION_DENIED, DENIED);
    }
}

#[test]
fn h23_what_was_there_before_is_shown_to_who_may_read_it() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "alice", "apw").await;
        allowed(s, op_put(put("a/1", "x"))).await;
        allowed(s, op_put(put("c", "x"))).await;
        allowed(s, op_put(PutRequest { prev_kv: true, ..put("a/1", "x") })).await;
        denied(s, op_put(PutRequest { prev_kv: true, ..put("c", "x") })).await;
        denied(s, op_put(put("b", "x"))).await;
        allowed(s, op_range(range("b", ""))).await;
        denied(s, op_range(range("c", ""))).await;
        allowed(s, op_delete(delete("c", ""))).await;
        denied(s, op_delete(DeleteRangeRequest { prev_kv: true, ..delete("c", "") })).await;
        allowed(s, op_delete(DeleteRangeRequest { prev_kv: true, ..delete("a/", "a0") })).await;
        denied(s, op_delete(delete("a/", "a1"))).await;
        for (key, may) in [("b", true), ("c", false), ("d", false)] {
            let compare = Compare { key: bytes(key), ..Default::default() };
            let txn = TxnRequest { compare: vec![compare], ..Default::default() };
            assert_eq!(s.txn(&txn).await.is_ok(), may, "{key}");
        }
    });
}

#[test]
fn g23_h24_a_key_is_attached_only_to_a_lease_that_its_user_may_end() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "alice", "apw").await;
        s.grant(1, 1_000).await.unwrap();
        allowed(s, op_put(PutRequest { lease: 1, ..put("a/1", "x") })).await;
        log_in(s, "root", "rpw").await;
        s.put(&PutRequest { lease: 1, ..put("other", "x") }).await.unwrap();
        log_in(s, "alice", "apw").await;
        denied(s, op_put(PutRequest { lease: 1, ..put("a/2", "x") })).await;
        fails(s.revoke(1).await, PERMISSION_DENIED, DENIED);
        allowed(s, op_put(put("a/2", "x"))).await;
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        for keys in [false, true] {
            let request = LeaseTimeToLiveRequest { id: 1, keys };
            let answer: Result<LeaseTimeToLiveResponse, _> = s.client().call(path, &request).await;
            s.note(format!("{keys}: {:?}", answer.map(|a| a.keys)));
        }
        let path = "/etcdserverpb.Lease/LeaseLeases";
        let _ = s.call::<LeaseLeasesResponse>(path, &LeaseLeasesRequest {}).await;
        fails(keep_alive(s, 1).await, PERMISSION_DENIED, DENIED);
        assert_eq!(keep_alive(s, 2).await, Ok(0), "there is none");
        log_out(s).await;
        fails(keep_alive(s, 1).await, INVALID, NOBODY);
        fails(s.grant(2, 100).await, INVALID, NOBODY);
        fails(s.revoke(1).await, INVALID, NOBODY);
        log_in(s, "root", "rpw").await;
        assert_eq!(keep_alive(s, 1).await, Ok(1_000));
        s.revoke(1).await.unwrap();
        assert!(s.get("other").await.is_none());
    });
}

async fn keep_alive(s: &Session, id: i64) -> Result<i64, Failure> {
    let mut stream = s.client().open("/etcdserverpb.Lease/LeaseKeepAlive", None, false).await;
    stream.send(&LeaseKeepAliveRequest { id });
    let answer = stream.next::<LeaseKeepAliveResponse>(std::time::Duration::from_secs(10)).await;
    answer.map(|answer| answer.expect("an answer in time").ttl)
}

#[test]
fn h_a_lease_ends_by_itself_whoever_its_keys_belong_to() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "root", "rpw").await;
        s.grant(9, 2).await.unwrap();
        s.put(&PutRequest { lease: 9, ..put("other", "x") }).await.unwrap();
        let mut left = 200;
        loop {
            let request = RangeRequest { count_only: true, ..range("other", "") };
            let path = "/etcdserverpb.KV/Range";
            let answer: RangeResponse = s.client().call(path, &request).await.unwrap();
            if answer.count == 0 {
                break;
            }
            left -= 1;
            assert!(left > 0, "the lease does not end");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
}
