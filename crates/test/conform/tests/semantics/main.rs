//! The behaviours that one member shows, numbered as in the project's list of etcd's semantics
//! (A revisions, B range, C put and delete, D transactions, E compaction, F watches, G leases,
//! H authentication, I alarms, J limits, N maintenance, P durability). Each is asserted on both servers, and whole
//! answers are compared. What is not here, and why, stands in [`checklist`].

mod a_revisions;
mod b_range;
mod b_range_stream;
mod c_writes;
mod checklist;
mod d_txn;
mod e_compaction;
mod f_watch;
mod g_leases;
mod h_auth;
mod i_alarms;
mod j_limits;
mod k_members;
mod l_leadership;
mod m_versions;
mod n_maintenance;
mod p_durability;

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
};
use bytes::Bytes;
use conform::Failure;

const OUT_OF_RANGE: u16 = 11;
const INVALID: u16 = 3;
const NOT_FOUND: u16 = 5;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

fn fails<A: std::fmt::Debug>(answer: Result<A, Failure>, code: u16, text: &str) {
    assert_eq!(answer.expect_err("must be refused"), Failure { code, message: text.into() });
}

fn revision_of(header: Option<ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}

fn bytes(text: &str) -> Bytes {
    text.to_owned().into()
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false }
}

fn op_range(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(request)) }
}

fn op_put(request: PutRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(request)) }
}

fn op_delete(request: DeleteRangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestDeleteRange(request)) }
}

fn op_txn(request: TxnRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestTxn(request)) }
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

fn branches(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare, success, failure }
}

fn compare(key: &str, result: CompareResult, union: TargetUnion) -> Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result as i32,
        target: target as i32,
        key: bytes(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

fn keys(answer: &RangeResponse) -> Vec<String> {
    answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

/// The answer to the range at a place of a transaction.
fn range_at(answer: &TxnResponse, place: usize) -> &RangeResponse {
    match &answer.responses[place].response {
        Some(Response::ResponseRange(range)) => range,
        other => panic!("not a range: {other:?}"),
    }
}
