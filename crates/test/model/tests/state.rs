//! The model against statements of etcd's semantics (their numbers in the names of the groups).

use api::error::ApiError;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest,
};
use model::{Request, Response, State};

fn put(key: &str, value: &str) -> PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    PutRequest { key, value, ..PutRequest::default() }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    DeleteRangeRequest { key, range_end, prev_kv: true }
}

fn all() -> RangeRequest {
    RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() }
}

fn told(state: &mut State, request: Request) -> Result<Response, ApiError> {
    state.apply(&request).map(|answer| answer.expect("the model answers these").to_response())
}

fn range(state: &mut State, request: RangeRequest) -> Result<RangeResponse, ApiError> {
    told(state, Request::Range(request)).map(|response| match response {
        Response::Range(r) => r,
        other => panic!("{other:?}"),
    })
}

fn txn(ops: Vec<Op>) -> Request {
    let success = ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
    Request::Txn(TxnRequest { success, ..TxnRequest::default() })
}

#[test]
fn a_revisions_rise_by_one_for_each_change() {
    let mut state = State::default();
    assert_eq!((state.revision(), state.compact_revision()), (1, -1));
    told(&mut state, Request::Put(put("a", "1"))).unwrap();
    told(&mut state, Request::DeleteRange(delete("none", ""))).unwrap();
    assert_eq!(state.revision(), 2, "a delete of nothing changes nothing");
    told(&mut state, Request::Put(put("a", "1"))).unwrap();
    let kv = state.kv(b"a", 3).unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    told(&mut state, Request::DeleteRange(delete("a", ""))).unwrap();
    told(&mut state, Request::Put(put("a", "2"))).unwrap();
    let kv = state.kv(b"a", 5).unwrap();
    assert_eq!((kv.create_revision, kv.version), (5, 1), "a delete ends a generation");
    assert_eq!(state.kv(b"a", 4), None);
    assert_eq!(state.kv(b"a", 3).unwrap().version, 2);
}

#[test]
fn b_count_ignores_the_limit_and_keys_only_knows_no_lease() {
    let mut state = State::default();
    told(&mut state, Request::LeaseGrant(LeaseGrantRequest { id: 5, ttl: 10 })).unwrap();
    for key in ["a", "b", "c"] {
        let request = PutRequest { lease: 5, ..put(key, "v") };
        told(&mut state, Request::Put(request)).unwrap();
    }
    let some = range(&mut state, RangeRequest { limit: 2, ..all() }).unwrap();
    assert_eq!((some.count, some.more, some.kvs.len()), (3, true, 2));
    let keys = range(&mut state, RangeRequest { keys_only: true, ..all() }).unwrap();
    assert!(keys.kvs.iter().all(|kv| kv.value.is_empty() && kv.lease == 0));
    let by_value = RangeRequest { keys_only: true, sort_target: 4, ..all() };
    assert_eq!(range(&mut state, by_value).unwrap().kvs[0].lease, 5);
    let newest = RangeRequest { sort_order: 2, sort_target: 3, limit: 1, ..all() };
    assert_eq!(&range(&mut state, newest).unwrap().kvs[0].key[..], b"c");
    let future = RangeRequest { revision: 9, ..all() };
    assert_eq!(range(&mut state, future), Err(ApiError::FutureRevision));
}

#[test]
fn d_a_transaction_sees_its_own_writes_and_fails_whole() {
    let mut state = State::default();
    let ops = vec![Op::RequestPut(put("a", "1")), Op::RequestRange(all())];
    let Response::Txn(answer) = told(&mut state, txn(ops)).unwrap() else { panic!() };
    let Some(api::etcdserverpb::response_op::Response::ResponseRange(seen)) =
        &answer.responses[1].response
    else {
        panic!("{answer:?}")
    };
    assert_eq!((seen.kvs.len(), seen.header.unwrap().revision), (1, 2));
    let lost = PutRequest { lease: 77, ..put("b", "1") };
    let ops = vec![Op::RequestPut(put("c", "1")), Op::RequestPut(lost)];
    assert_eq!(told(&mut state, txn(ops)), Err(ApiError::LeaseNotFound));
    assert_eq!((state.revision(), state.kv(b"c", 2)), (2, None));
    let twice = vec![Op::RequestPut(put("a", "1")), Op::RequestPut(put("a", "2"))];
    assert_eq!(told(&mut state, txn(twice)), Err(ApiError::DuplicateKey));
    let inside = vec![Op::RequestDeleteRange(delete("a", "c")), Op::RequestPut(put("b", "2"))];
    assert_eq!(told(&mut state, txn(inside)), Err(ApiError::DuplicateKey));
    let keep = PutRequest { ignore_value: true, ..put("b", "") };
    let poison = vec![Op::RequestDeleteRange(delete("a", "\0")), Op::RequestPut(keep)];
    assert_eq!(told(&mut state, txn(poison)), Err(ApiError::KeyNotFound));
}

#[test]
fn e_compacted_revisions_are_gone_and_the_compacted_one_is_not() {
    let mut state = State::default();
    for value in ["1", "2", "3"] {
        told(&mut state, Request::Put(put("a", value))).unwrap();
    }
    let to = |revision| Request::Compact(CompactionRequest { revision, physical: false });
    assert_eq!(told(&mut state, to(9)), Err(ApiError::FutureRevision));
    told(&mut state, to(3)).unwrap();
    assert_eq!(told(&mut state, to(3)), Err(ApiError::Compacted));
    assert!(range(&mut state, RangeRequest { revision: 3, ..all() }).is_ok());
    let gone = range(&mut state, RangeRequest { revision: 2, ..all() });
    assert_eq!(gone, Err(ApiError::Compacted));
}

#[test]
fn g_a_lease_takes_its_keys_in_one_revision_and_going_back_brings_them_back() {
    let mut state = State::default();
    let grant = Request::LeaseGrant(LeaseGrantRequest { id: 5, ttl: 10 });
    told(&mut state, grant.clone()).unwrap();
    assert_eq!(told(&mut state, grant), Err(ApiError::LeaseExists));
    for key in ["b", "a", "moved"] {
        told(&mut state, Request::Put(PutRequest { lease: 5, ..put(key, "v") })).unwrap();
    }
    told(&mut state, Request::Put(put("moved", "v"))).unwrap();
    let (mark, before) = (state.mark(), state.fingerprint());
    told(&mut state, Request::LeaseRevoke(LeaseRevokeRequest { id: 5 })).unwrap();
    let gone: Vec<_> = state.changes(6).iter().map(|change| change.key.clone()).collect();
    assert_eq!(gone, ["a", "b"]);
    let again = told(&mut state, Request::LeaseRevoke(LeaseRevokeRequest { id: 5 }));
    assert_eq!(again, Err(ApiError::LeaseNotFound));
    assert_ne!(state.fingerprint(), before);
    state.go_back(mark);
    assert_eq!((state.fingerprint(), state.revision()), (before, 5));
    assert_eq!(state.attached(5).len(), 2);
}
