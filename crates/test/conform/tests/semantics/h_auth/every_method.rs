//! H34: who may call what. Every method of the client port, by everybody.

use std::time::Duration;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::downgrade_request::DowngradeAction;
use api::method::{CallType, METHODS, Method, Row};
use conform::on_fresh_pair;
use prost::Message;

use super::*;

/// A request that does no harm if it is allowed.
fn harmless(method: Method) -> Vec<u8> {
    match method {
        Method::Range | Method::RangeStream => range("d", "").encode_to_vec(),
        Method::Put => put("d", "x").encode_to_vec(),
        Method::DeleteRange => delete("d", "").encode_to_vec(),
        Method::Txn => TxnRequest { success: vec![op_put(put("d", "x"))], ..Default::default() }
            .encode_to_vec(),
        Method::Alarm => {
            AlarmRequest { action: AlarmAction::Deactivate as i32, ..Default::default() }
                .encode_to_vec()
        }
        Method::Downgrade => {
            let version = "3.6.0".to_owned();
            DowngradeRequest { action: DowngradeAction::Validate as i32, version }.encode_to_vec()
        }
        Method::MemberAdd => {
            MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], is_learner: false }
                .encode_to_vec()
        }
        Method::LeaseGrant => LeaseGrantRequest { id: 0, ttl: 10 }.encode_to_vec(),
        // They name nothing that is there.
        _ => Vec::new(),
    }
}

/// The outcome of a call, or that a stream has none in a while.
async fn outcome(s: &Session, row: &Row) -> String {
    let message = harmless(row.method);
    let mut envelope = vec![0];
    envelope.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    envelope.extend_from_slice(&message);
    let ends = row.kind != CallType::BidiStream;
    let mut stream = s.client().open(row.path, Some(envelope.into()), ends).await;
    match tokio::time::timeout(Duration::from_secs(10), stream.next_raw()).await {
        Ok(Ok(_)) => "it answers".to_owned(),
        Ok(Err(failure)) => format!("{failure:?}"),
        Err(_) => "it waits".to_owned(),
    }
}

/// Methods that this version does not have, and a stream that waits for what it is asked.
fn is_compared(row: &Row) -> bool {
    let is_here = !row.service.starts_with("v3lock") && !row.service.starts_with("v3election");
    is_here && !matches!(row.method, Method::Watch | Method::Defragment | Method::MoveLeader)
}

#[test]
fn h34_every_method_is_allowed_to_the_same_callers() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        for who in ["nobody", "alice", "bad token"] {
            match who {
                "nobody" => log_out(s).await,
                "alice" => drop(log_in(s, "alice", "apw").await),
                _ => {
                    let client = s.connect(1 << 24).await.with("token", "bad.1");
                    s.act_as(client);
                }
            }
            for row in METHODS.iter().filter(|row| is_compared(row)) {
                let outcome = outcome(s, row).await;
                s.note(format!("{who}: {}: {outcome}", row.path));
            }
            for method in [Method::Defragment, Method::MoveLeader] {
                assert!(outcome(s, method.row()).await.contains("code"), "{who} {method:?}");
            }
        }
        log_in(s, "root", "rpw").await;
        assert_eq!(outcome(s, Method::Defragment.row()).await, "it answers");
        assert_eq!(outcome(s, Method::HashKV.row()).await, "it answers");
        assert_eq!(outcome(s, Method::Snapshot.row()).await, "it answers");
    });
}

#[test]
fn h34_reading_alarms_is_open_to_every_user() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        fails(s.alarm(AlarmAction::Get, AlarmType::None, 0).await, INVALID, NOBODY);
        log_in(s, "alice", "apw").await;
        s.alarm(AlarmAction::Get, AlarmType::None, 0).await.unwrap();
        let set = s.alarm(AlarmAction::Activate, AlarmType::Nospace, 1).await;
        fails(set, PERMISSION_DENIED, DENIED);
    });
}
