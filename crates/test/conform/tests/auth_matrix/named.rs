//! The ways around permissions that etcd once had, by name. Each is closed on both servers: whoever
//! may not is refused, sees nothing and changes nothing.

use std::fmt::Debug;

use api::etcdserverpb as pb;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_request::RequestUnion;
use api::method::Method;
use conform::grpc::envelope;
use conform::{Client, Failure};
use prost::Message;

use crate::cell::{self, Cell, Outcome};
use crate::conditions::{Pair, block_on};
use crate::identity::Identity;
use crate::model::Span;
use crate::rows::{self, LEASE, bytes, delete, put, range};
use crate::world::World;

const PERMISSION_DENIED: u16 = 7;
const DENIED: &str = "etcdserver: permission denied";
const NO_NAME: &str = "etcdserver: user name is empty";

const fn span(key: &'static [u8], end: &'static [u8]) -> Span {
    Span { key, end }
}

const K: Span = span(b"k", b"");
const P1: Span = span(b"p/1", b"");

/// Runs a scenario on the subject and on etcd, each with everybody.
fn on_both(scenario: impl AsyncFn(&World)) {
    let Some(pair) = Pair::start(&[]) else { return };
    block_on(async {
        let (mut left, mut right) = pair.worlds(&Identity::all()).await;
        tokio::join!(left.enable(), right.enable());
        for (side, world) in [("etcd", &right), ("the subject", &left)] {
            eprintln!("on {side}");
            scenario(world).await;
        }
    });
}

async fn asks(
    world: &World,
    who: &str,
    method: Method,
    request: &(impl Message + Debug),
) -> Outcome {
    cell::run(&world.by(who), &Cell::new(method, "", request), world.patience).await
}

async fn is_denied(world: &World, who: &str, method: Method, request: &(impl Message + Debug)) {
    let outcome = asks(world, who, method, request).await;
    assert_eq!(
        (outcome.code, outcome.text.as_str()),
        (PERMISSION_DENIED, DENIED),
        "{who}: {method:?} {request:?}"
    );
}

async fn is_let_in(world: &World, who: &str, method: Method, request: &(impl Message + Debug)) {
    let outcome = asks(world, who, method, request).await;
    assert_eq!(outcome.code, 0, "{who}: {method:?} {request:?}: {outcome:?}");
}

async fn value_of(world: &World, key: Span) -> Option<bytes::Bytes> {
    let answer: pb::RangeResponse = world.must(Method::Range, &range(key)).await;
    answer.kvs.into_iter().next().map(|kv| kv.value)
}

/// What comes first on a watch.
async fn watch(client: &Client, span: Span) -> Result<pb::WatchResponse, Failure> {
    let (key, range_end) = (bytes(span.key), bytes(span.end));
    let create = pb::WatchCreateRequest { key, range_end, ..Default::default() };
    let request_union = Some(RequestUnion::CreateRequest(create));
    let body = envelope(&pb::WatchRequest { request_union }.encode_to_vec());
    let mut stream = client.try_open(Method::Watch.row().path, Some(body), false).await?;
    let first = stream.next(std::time::Duration::from_secs(20)).await?;
    Ok(first.expect("a watch is answered"))
}

#[test]
fn a_watch_on_an_open_range_needs_all_of_it() {
    on_both(async |world| {
        for (who, span, is_allowed) in [
            ("key-read", span(b"k", b"\0"), false),
            ("key-read", K, true),
            ("prefix-readwrite", span(b"p/", b"\0"), false),
            ("range-read", span(b"d", b"\0"), false),
            ("from-read", span(b"m", b"\0"), true),
            ("from-read", span(b"l", b"\0"), false),
            ("from-write", span(b"m", b"\0"), false),
            ("key-read", span(b"\0", b"\0"), false),
            ("key-read", span(b"", b"\0"), false),
            ("without-roles", span(b"\0", b"\0"), false),
            ("open-read", span(b"\0", b"\0"), true),
        ] {
            let first = watch(&world.by(who), span).await.expect("refused within the stream");
            assert_eq!(first.canceled, !is_allowed, "{who} {span:?}: {first:?}");
            assert_eq!(first.cancel_reason.contains(DENIED), !is_allowed, "{who}: {first:?}");
        }
        let first = watch(&world.by("nobody"), K).await.expect("refused within the stream");
        assert!(first.canceled && first.cancel_reason.contains(NO_NAME), "{first:?}");
    });
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The operation so many transactions deep, in both branches in turn.
fn nested(depth: usize, request: Request) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest { success: vec![op(request)], ..Default::default() };
    for level in 0..depth {
        let inner = vec![op(Request::RequestTxn(txn))];
        txn = if level % 2 == 0 {
            pb::TxnRequest { failure: inner, ..Default::default() }
        } else {
            pb::TxnRequest { success: inner, ..Default::default() }
        };
    }
    txn
}

#[test]
fn a_nested_transaction_hides_nothing() {
    on_both(async |world| {
        let before = value_of(world, P1).await;
        for depth in 0..=8 {
            for (who, request) in [
                ("key-readwrite", Request::RequestPut(put(P1))),
                ("key-readwrite", Request::RequestRange(range(P1))),
                ("key-readwrite", Request::RequestDeleteRange(delete(P1))),
                ("prefix-read", Request::RequestPut(put(P1))),
                ("prefix-write", Request::RequestRange(range(P1))),
                ("without-roles", Request::RequestRange(range(P1))),
            ] {
                is_denied(world, who, Method::Txn, &nested(depth, request)).await;
            }
            let allowed = Request::RequestRange(range(P1));
            is_let_in(world, "prefix-read", Method::Txn, &nested(depth, allowed)).await;
            let compare = pb::TxnRequest {
                compare: vec![crate::rows_txn::compare(P1)],
                ..Default::default()
            };
            let hidden = nested(depth, Request::RequestTxn(compare));
            is_denied(world, "prefix-write", Method::Txn, &hidden).await;
        }
        assert_eq!(value_of(world, P1).await, before);
    });
}

#[test]
fn the_value_before_is_read() {
    on_both(async |world| {
        let with_put = pb::PutRequest { prev_kv: true, ..put(P1) };
        let with_delete = pb::DeleteRangeRequest { prev_kv: true, ..delete(P1) };
        is_denied(world, "prefix-write", Method::Put, &with_put).await;
        is_denied(world, "prefix-write", Method::DeleteRange, &with_delete).await;
        for depth in [0, 1, 2] {
            let txn = nested(depth, Request::RequestPut(with_put.clone()));
            is_denied(world, "prefix-write", Method::Txn, &txn).await;
            is_let_in(world, "prefix-readwrite", Method::Txn, &txn).await;
            let txn = nested(depth, Request::RequestDeleteRange(with_delete.clone()));
            is_denied(world, "prefix-write", Method::Txn, &txn).await;
        }
        is_let_in(world, "prefix-write", Method::Put, &put(P1)).await;
    });
}

#[test]
fn a_lease_is_attached_by_who_may_write_all_its_keys() {
    on_both(async |world| {
        // It is attached to `k`.
        let leased = pb::PutRequest { lease: LEASE, ..put(P1) };
        is_denied(world, "prefix-readwrite", Method::Put, &leased).await;
        for depth in [0, 1, 2] {
            let txn = nested(depth, Request::RequestPut(leased.clone()));
            is_denied(world, "prefix-readwrite", Method::Txn, &txn).await;
        }
        let revoke = pb::LeaseRevokeRequest { id: LEASE };
        is_denied(world, "prefix-readwrite", Method::LeaseRevoke, &revoke).await;
        let keys = pb::LeaseTimeToLiveRequest { id: LEASE, keys: true };
        is_denied(world, "prefix-readwrite", Method::LeaseTimeToLive, &keys).await;
        assert!(value_of(world, K).await.is_some());
        is_let_in(world, "key-write", Method::LeaseRevoke, &revoke).await;
        assert_eq!(value_of(world, K).await, None);
    });
}

/// No method but those that are there for everybody answers somebody who is nobody.
#[test]
fn no_call_forgets_to_ask() {
    const OPEN: [&str; 4] = ["Authenticate", "AuthStatus", "Check", "List"];
    on_both(async |world| {
        for cell in rows::all() {
            let row = cell.method.row();
            let is_open = row.service == "grpc.health.v1.Health" || OPEN.contains(&row.name);
            let nobody = cell::run(&world.by("nobody"), &cell, world.patience).await;
            // What asks for nothing is anybody's: a transaction without operations, the empty name.
            if cell.name == "nothing" || cell.name.is_empty() {
                continue;
            }
            // An observer who may see nothing sees the end, as etcd's does.
            let sees_nothing = cell.method == Method::Observe && nobody.answer == "no message";
            assert!(
                nobody.code != 0 || nobody.is_refused() || sees_nothing || is_open,
                "{:?} [{}]: {nobody:?}",
                cell.method,
                cell.name
            );
        }
        for (method, request) in [
            (Method::Defragment, pb::DefragmentRequest {}.encode_to_vec()),
            (Method::Snapshot, pb::SnapshotRequest {}.encode_to_vec()),
            (Method::Hash, pb::HashRequest {}.encode_to_vec()),
            (Method::HashKV, pb::HashKvRequest { revision: 0 }.encode_to_vec()),
            (Method::MoveLeader, pb::MoveLeaderRequest { target_id: 5 }.encode_to_vec()),
            (Method::MemberRemove, pb::MemberRemoveRequest { id: 5 }.encode_to_vec()),
            (
                Method::Compact,
                pb::CompactionRequest { revision: 1, physical: false }.encode_to_vec(),
            ),
        ] {
            let cell = Cell { body: request, ..Cell::new(method, "", &()) };
            let outcome = cell::run(&world.by("open-readwrite"), &cell, world.patience).await;
            assert_eq!(outcome.text, DENIED, "{method:?}");
        }
    });
}

#[test]
fn an_alarm_for_space_checks_as_before() {
    on_both(async |world| {
        let member_id = world.status().await.expect("it serves").header.map_or(0, |h| h.member_id);
        let (action, alarm) = (AlarmAction::Activate.into(), pb::AlarmType::Nospace.into());
        let request = pb::AlarmRequest { action, member_id, alarm };
        world.must::<pb::AlarmResponse>(Method::Alarm, &request).await;
        let before = value_of(world, P1).await;
        let full = "etcdserver: mvcc: database space exceeded";
        for who in ["key-readwrite", "without-roles"] {
            is_denied(world, who, Method::Range, &range(P1)).await;
            is_denied(world, who, Method::DeleteRange, &delete(P1)).await;
            let txn = nested(1, Request::RequestDeleteRange(delete(P1)));
            is_denied(world, who, Method::Txn, &txn).await;
            let txn = nested(1, Request::RequestRange(range(P1)));
            is_denied(world, who, Method::Txn, &txn).await;
        }
        let revoke = pb::LeaseRevokeRequest { id: LEASE };
        is_denied(world, "prefix-readwrite", Method::LeaseRevoke, &revoke).await;
        let compact = pb::CompactionRequest { revision: 1, physical: false };
        is_denied(world, "open-readwrite", Method::Compact, &compact).await;
        let put_there = asks(world, "prefix-readwrite", Method::Put, &put(P1)).await;
        assert_eq!(put_there.text, full);
        assert_eq!(value_of(world, P1).await, before);
        is_let_in(world, "prefix-readwrite", Method::DeleteRange, &delete(P1)).await;
    });
}

/// A token outlives neither its user nor its user's password, nor does it keep lost roles.
#[test]
fn what_was_lost_is_lost_for_open_tokens() {
    on_both(async |world| {
        const INVALID: &str = "etcdserver: invalid auth token";
        for who in ["deleted", "rekeyed", "forged"] {
            assert_eq!(asks(world, who, Method::Range, &range(K)).await.text, INVALID, "{who}");
        }
        is_denied(world, "changed", Method::Range, &range(K)).await;
        is_denied(world, "changed", Method::Put, &put(P1)).await;
        is_let_in(world, "changed", Method::Range, &range(P1)).await;
    });
}
