//! I: alarms and the quota.

use api::etcdserverpb::AlarmType;
use api::etcdserverpb::alarm_request::AlarmAction;
use conform::on_fresh_pair;

use super::*;

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const CORRUPT: &str = "etcdserver: corrupt cluster";
const EXHAUSTED: u16 = 8;
const DATA_LOSS: u16 = 15;

/// The text without the id. Go's protobuf text puts one or two spaces between fields, by a coin
/// tossed for each build of a program.
fn alarm_text(text: &str, id: u64) -> String {
    text.replace(&id.to_string(), "ID").replace("  ", " ")
}

#[test]
fn i1_i3_a_write_beyond_the_quota_is_refused_and_raises_the_alarm() {
    on_fresh_pair(&["--quota-backend-bytes", "4096"], async |s| {
        let listed = s.alarm(AlarmAction::Get, AlarmType::None, 0).await.unwrap();
        assert_eq!(listed.alarms, []);
        fails(s.put(&put("a", "1")).await, EXHAUSTED, NO_SPACE);
        let mut alarms = vec![];
        for _ in 0..100 {
            alarms = s
                .client()
                .call::<api::etcdserverpb::AlarmResponse>(
                    "/etcdserverpb.Maintenance/Alarm",
                    &api::etcdserverpb::AlarmRequest::default(),
                )
                .await
                .unwrap()
                .alarms;
            if !alarms.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(alarms.len(), 1);
        assert_eq!(alarms[0].alarm, AlarmType::Nospace as i32);
        assert_ne!(alarms[0].member_id, 0);
        fails(s.txn(&then(vec![op_put(put("a", "1"))])).await, EXHAUSTED, NO_SPACE);
        fails(s.grant(1, 100).await, EXHAUSTED, NO_SPACE);
        s.delete(&delete("a", "")).await.unwrap();
        s.txn(&then(vec![op_delete(delete("a", ""))])).await.unwrap();
        s.range(&range("a", "")).await.unwrap();
        s.compact(1, true).await.unwrap();
        let status = s.status().await;
        assert_eq!(status.db_size_quota, 4096);
        assert_eq!(status.errors.len(), 1, "{:?}", status.errors);
        s.note(alarm_text(&status.errors[0], alarms[0].member_id));
    });
}

#[test]
fn i2_a_put_costs_256_and_its_bytes() {
    on_fresh_pair(&["--quota-backend-bytes", "1000000"], async |s| {
        // What the database takes is the server's own business: the boundary is relative to it.
        let size = s.status().await.db_size;
        let room = usize::try_from(1_000_000 - size - 256).expect("the database is small");
        let value = "v".repeat(room - 3);
        fails(s.put(&put("key", &value)).await, EXHAUSTED, NO_SPACE);
        for alarm in s.alarm(AlarmAction::Get, AlarmType::None, 0).await.unwrap().alarms {
            assert_eq!(alarm.alarm, AlarmType::Nospace as i32);
        }
        let id = s.status().await.header.unwrap().member_id;
        s.alarm(AlarmAction::Deactivate, AlarmType::Nospace, id).await.unwrap();
        let size = s.status().await.db_size;
        let room = usize::try_from(1_000_000 - size - 256).expect("the database is small");
        let revision = s.set("key", &"v".repeat(room - 4)).await;
        assert_eq!(revision, 2);
    });
}

#[test]
fn i5_to_i8_an_alarm_stays_until_it_is_turned_off() {
    on_fresh_pair(&[], async |s| {
        s.grant(1, 1_000).await.unwrap();
        s.set("a", "1").await;
        s.set("b", "1").await;
        let id = s.status().await.header.unwrap().member_id;
        let none = s.alarm(AlarmAction::Deactivate, AlarmType::Nospace, id).await.unwrap();
        assert_eq!(none.alarms, [], "nothing to turn off");
        let none = s.alarm(AlarmAction::Activate, AlarmType::None, id).await.unwrap();
        assert_eq!(none.alarms, []);
        for _ in 0..2 {
            let on = s.alarm(AlarmAction::Activate, AlarmType::Nospace, id).await.unwrap();
            assert_eq!(on.alarms.len(), 1);
        }
        let health = s.http_get("/health").expect("answered");
        assert!(health.contains("false"), "{health}");
        s.note(health);
        fails(s.put(&put("a", "2")).await, EXHAUSTED, NO_SPACE);
        fails(s.grant(2, 100).await, EXHAUSTED, NO_SPACE);
        fails(s.txn(&then(vec![op_put(put("a", ""))])).await, EXHAUSTED, NO_SPACE);
        let either = branches(vec![], vec![], vec![op_put(put("a", ""))]);
        fails(s.txn(&either).await, EXHAUSTED, NO_SPACE);
        s.txn(&then(vec![op_range(range("a", ""))])).await.unwrap();
        s.txn(&then(vec![op_delete(delete("b", ""))])).await.unwrap();
        s.delete(&delete("c", "")).await.unwrap();
        s.revoke(1).await.unwrap();
        s.compact(3, true).await.unwrap();
        s.restart().await;
        fails(s.put(&put("a", "3")).await, EXHAUSTED, NO_SPACE);
        let listed = s.alarm(AlarmAction::Get, AlarmType::None, 0).await.unwrap();
        assert_eq!(listed.alarms.len(), 1);
        s.alarm(AlarmAction::Get, AlarmType::Nospace, 0).await.unwrap();
        s.alarm(AlarmAction::Get, AlarmType::Corrupt, 0).await.unwrap();
        let other = s.alarm(AlarmAction::Deactivate, AlarmType::Nospace, id ^ 1).await.unwrap();
        assert_eq!(other.alarms, [], "another member's");
        fails(s.put(&put("a", "3")).await, EXHAUSTED, NO_SPACE);
        let off = s.alarm(AlarmAction::Deactivate, AlarmType::Nospace, id).await.unwrap();
        assert_eq!(off.alarms.len(), 1);
        s.set("a", "4").await;
        let health = s.http_get("/health").expect("answered");
        assert!(health.contains("true"), "{health}");
        s.note(health);
    });
}

#[test]
fn i9_a_corrupt_cluster_takes_no_writes() {
    on_fresh_pair(&[], async |s| {
        s.set("a", "1").await;
        s.grant(1, 1_000).await.unwrap();
        let id = s.status().await.header.unwrap().member_id;
        s.alarm(AlarmAction::Activate, AlarmType::Corrupt, id).await.unwrap();
        fails(s.put(&put("a", "2")).await, DATA_LOSS, CORRUPT);
        fails(s.delete(&delete("a", "")).await, DATA_LOSS, CORRUPT);
        fails(s.txn(&then(vec![op_put(put("a", ""))])).await, DATA_LOSS, CORRUPT);
        fails(s.compact(1, false).await, DATA_LOSS, CORRUPT);
        fails(s.grant(2, 100).await, DATA_LOSS, CORRUPT);
        fails(s.revoke(1).await, DATA_LOSS, CORRUPT);
        assert_eq!(s.get("a").await.unwrap().value, "1");
        s.txn(&then(vec![op_range(range("a", ""))])).await.unwrap();
        let errors = s.status().await.errors;
        assert_eq!(errors.len(), 1);
        s.note(alarm_text(&errors[0], id));
        s.note(s.http_get("/health").expect("answered"));
        // NOSPACE beside it: which one wins?
        s.alarm(AlarmAction::Activate, AlarmType::Nospace, id).await.unwrap();
        let _ = s.put(&put("a", "2")).await;
        s.alarm(AlarmAction::Deactivate, AlarmType::Corrupt, id).await.unwrap();
        s.alarm(AlarmAction::Deactivate, AlarmType::Nospace, id).await.unwrap();
        s.set("a", "3").await;
    });
}

#[test]
fn i11_status_shows_the_quota_in_force() {
    for (flag, shown) in [("0", 2_147_483_648), ("16000000", 16_000_000)] {
        on_fresh_pair(&["--quota-backend-bytes", flag], async |s| {
            assert_eq!(s.status().await.db_size_quota, shown);
        });
    }
}

#[test]
fn i11_a_negative_quota_is_none() {
    on_fresh_pair(&["--quota-backend-bytes=-5"], async |s| {
        let quota = s.status().await.db_size_quota;
        s.note(format!("quota {quota}"));
        s.set("a", "1").await;
    });
}

#[test]
fn i12_a_corrupt_alarm_of_member_0_means_that_nobody_knows_whose_fault_it_is() {
    on_fresh_pair(&[], async |s| {
        s.set("a", "1").await;
        let on = s.alarm(AlarmAction::Activate, AlarmType::Corrupt, 0).await.unwrap();
        assert_eq!((on.alarms.len(), on.alarms[0].member_id), (1, 0));
        let listed = s.alarm(AlarmAction::Get, AlarmType::Corrupt, 0).await.unwrap();
        assert_eq!(listed.alarms, on.alarms);
        fails(s.put(&put("a", "2")).await, DATA_LOSS, CORRUPT);
        assert_eq!(s.get("a").await.unwrap().value, "1");
        let errors = s.status().await.errors;
        assert_eq!(errors.len(), 1);
        s.note(alarm_text(&errors[0], 0));
        s.restart().await;
        fails(s.put(&put("a", "2")).await, DATA_LOSS, CORRUPT);
        let own = s.status().await.header.unwrap().member_id;
        let other = s.alarm(AlarmAction::Deactivate, AlarmType::Corrupt, own).await.unwrap();
        assert_eq!(other.alarms, [], "this one is nobody's");
        s.alarm(AlarmAction::Deactivate, AlarmType::Corrupt, 0).await.unwrap();
        s.set("a", "2").await;
    });
}
