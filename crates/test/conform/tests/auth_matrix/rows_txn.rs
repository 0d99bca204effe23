//! Transactions: each operation in each place of a tree.

use api::etcdserverpb as pb;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::method::{Method, Need};

use crate::cell::{Cell, Needs};
use crate::model::Span;
use crate::rows::{LEASE, bytes, delete, put, range, with_lease};
use crate::targets::{TARGETS, some};

/// Where an operation stands. Which branch is taken does not matter: both are checked.
const PLACES: [&str; 5] = ["then", "else", "then-then", "else-else-then", "beside"];

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn then(op: pb::RequestOp) -> pb::TxnRequest {
    pb::TxnRequest { success: vec![op], ..Default::default() }
}

fn or_else(op: pb::RequestOp) -> pb::TxnRequest {
    pb::TxnRequest { failure: vec![op], ..Default::default() }
}

fn inner(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}

fn placed(place: &str, request: pb::RequestOp) -> pb::TxnRequest {
    match place {
        "then" => then(request),
        "else" => or_else(request),
        "then-then" => then(inner(then(request))),
        "else-else-then" => or_else(inner(or_else(inner(then(request))))),
        _ => {
            // Behind an operation that any reader of the key `k` may do.
            let first = op(Request::RequestRange(range(TARGETS[0].1)));
            pb::TxnRequest { success: vec![first, request], ..Default::default() }
        }
    }
}

/// A compare that anybody's store answers in some way.
pub fn compare(span: Span) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Version.into(),
        key: bytes(span.key),
        range_end: bytes(span.end),
        target_union: Some(TargetUnion::Version(0)),
    }
}

/// Each operation with what it needs.
fn operations(span: Span) -> Vec<(&'static str, Request, Vec<(Need, Span)>)> {
    let (read, write) = ((Need::Read, span), (Need::Write, span));
    let mut all = vec![
        ("range", Request::RequestRange(range(span)), vec![read]),
        ("delete", Request::RequestDeleteRange(delete(span)), vec![write]),
        (
            "delete prev_kv",
            Request::RequestDeleteRange(pb::DeleteRangeRequest { prev_kv: true, ..delete(span) }),
            vec![write, read],
        ),
    ];
    if span.end.is_empty() {
        let prev = pb::PutRequest { prev_kv: true, ..put(span) };
        let leased = pb::PutRequest { lease: LEASE, ..put(span) };
        all.push(("put", Request::RequestPut(put(span)), vec![write]));
        all.push(("put prev_kv", Request::RequestPut(prev), vec![write, read]));
        let attached = (Need::Write, TARGETS[0].1);
        all.push(("put with a lease", Request::RequestPut(leased), vec![write, attached]));
    }
    all
}

/// The rows of Txn.
pub fn all() -> Vec<Cell> {
    let cell = |name: String, txn: &pb::TxnRequest, needs| {
        let is_leased = name.contains("lease");
        let cell = Cell::new(Method::Txn, name, txn).needs(Needs::Keys(needs));
        if is_leased { with_lease(cell) } else { cell }
    };
    let mut cells = Vec::new();
    for (target, span) in some() {
        for (kind, request, mut needs) in operations(span) {
            for place in PLACES {
                let txn = placed(place, op(request.clone()));
                if place == "beside" {
                    needs.push((Need::Read, TARGETS[0].1));
                }
                cells.push(cell(format!("{kind} {target} {place}"), &txn, needs.clone()));
            }
        }
        let compares = pb::TxnRequest { compare: vec![compare(span)], ..Default::default() };
        let name = format!("compare {target}");
        cells.push(cell(name.clone(), &compares, vec![(Need::Read, span)]));
        let nested = then(inner(compares));
        cells.push(cell(format!("{name} nested"), &nested, vec![(Need::Read, span)]));
    }
    cells.push(Cell::new(Method::Txn, "nothing", &pb::TxnRequest::default()));
    cells.push(Cell::new(Method::Txn, "no operation", &then(pb::RequestOp { request: None })));
    cells
}
