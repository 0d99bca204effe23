//! The ways around etcd's checks that were published, each with a test that keeps it shut.

use std::time::Duration;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::watch_request::RequestUnion;
use conform::on_fresh_pair;

use super::rights::denied;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a new watch is told first: that it is there, or why not.
async fn watch(s: &mut Session, key: &str, end: &str) -> WatchResponse {
    let mut stream = s.client().open("/etcdserverpb.Watch/Watch", None, false).await;
    let (key, range_end) = (bytes(key), bytes(end));
    let create = WatchCreateRequest { key, range_end, ..Default::default() };
    stream.send(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    let mut answer = stream.next::<WatchResponse>(PATIENCE).await.unwrap().expect("an answer");
    conform::Masked::mask(&mut answer);
    s.note(format!("{answer:?}"));
    answer
}

#[test]
fn f19_h_bypass_watch_on_an_open_range() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "alice", "apw").await;
        for (key, end) in [("a/", "a0"), ("a/1", ""), ("b", ""), ("a/", "a/z")] {
            assert!(!watch(s, key, end).await.canceled, "{key:?} {end:?}");
        }
        for (key, end) in
            [("a/", "\0"), ("b", "\0"), ("\0", "\0"), ("", "\0"), ("", ""), ("c", ""), ("a/", "b")]
        {
            let answer = watch(s, key, end).await;
            let reason = format!("rpc error: code = PermissionDenied desc = {DENIED}");
            assert_eq!((answer.canceled, answer.cancel_reason), (true, reason), "{key:?} {end:?}");
        }
        log_out(s).await;
        let answer = watch(s, "a/1", "").await;
        assert_eq!(
            answer.cancel_reason,
            format!("rpc error: code = InvalidArgument desc = {NOBODY}")
        );
    });
}

#[test]
fn h_bypass_nested_transaction() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "alice", "apw").await;
        let secret = TxnRequest { success: vec![op_range(range("d", ""))], ..Default::default() };
        let written = TxnRequest { success: vec![op_put(put("d", "x"))], ..Default::default() };
        let compared = TxnRequest {
            compare: vec![Compare { key: bytes("d"), ..Default::default() }],
            ..Default::default()
        };
        for txn in [secret, written, compared] {
            denied(s, op_txn(txn)).await;
        }
        log_in(s, "root", "rpw").await;
        assert!(s.get("d").await.is_none());
    });
}

#[test]
fn h_bypass_previous_value_and_lease_in_a_transaction() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "root", "rpw").await;
        s.set("c", "secret").await;
        s.grant(5, 1_000).await.unwrap();
        s.put(&PutRequest { lease: 5, ..put("other", "x") }).await.unwrap();
        log_in(s, "alice", "apw").await;
        denied(s, op_put(PutRequest { prev_kv: true, ..put("c", "x") })).await;
        denied(s, op_delete(DeleteRangeRequest { prev_kv: true, ..delete("c", "") })).await;
        denied(s, op_put(PutRequest { lease: 5, ..put("a/1", "x") })).await;
        log_in(s, "root", "rpw").await;
        assert_eq!(s.get("c").await.unwrap().value, "secret");
    });
}

#[test]
fn e8_h_bypass_checks_lost_under_an_alarm() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
            log_in(s, "root", "rpw").await;
            s.alarm(AlarmAction::Activate, alarm, 1).await.unwrap();
            for who in ["alice", ""] {
                match who {
                    "" => log_out(s).await,
                    _ => drop(log_in(s, "alice", "apw").await),
                }
                let _ = s.put(&put("d", "x")).await;
                let _ = s.put(&put("a/1", "x")).await;
                let _ = s.delete(&delete("d", "")).await;
                let _ = s.range(&range("d", "")).await;
                let _ = s.grant(7, 100).await;
                let _ = s.revoke(7).await;
                let only_deletes =
                    TxnRequest { success: vec![op_delete(delete("d", ""))], ..Default::default() };
                let _ = s.txn(&only_deletes).await;
                let _ = s.alarm(AlarmAction::Deactivate, alarm, 1).await;
                let _ = s.compact(1, false).await;
                let listed = auth!(s, "UserList", AuthUserListRequest {} => AuthUserListResponse);
                assert!(listed.is_err());
            }
            log_in(s, "root", "rpw").await;
            s.alarm(AlarmAction::Deactivate, alarm, 1).await.unwrap();
            assert!(s.get("d").await.is_none());
        }
    });
}

#[test]
fn f20_an_open_watch_goes_on_when_its_user_may_no_more() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        let alice = log_in(s, "alice", "apw").await;
        let mut stream = alice.open("/etcdserverpb.Watch/Watch", None, false).await;
        let create =
            WatchCreateRequest { key: bytes("a/"), range_end: bytes("a0"), ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        stream.send(&create);
        assert!(stream.next::<WatchResponse>(PATIENCE).await.unwrap().unwrap().created);
        log_in(s, "root", "rpw").await;
        let request = AuthUserRevokeRoleRequest { name: "alice".into(), role: "r".into() };
        auth!(s, "UserRevokeRole", request => AuthUserRevokeRoleResponse).unwrap();
        s.set("a/1", "x").await;
        let told = stream.next::<WatchResponse>(PATIENCE).await.unwrap().unwrap();
        assert_eq!(told.events.len(), 1);
        stream.send(&create);
        let told = stream.next::<WatchResponse>(PATIENCE).await.unwrap().unwrap();
        assert!(told.canceled && told.created);
    });
}
