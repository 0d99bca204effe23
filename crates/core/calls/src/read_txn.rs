//! Transactions that only read: answered from one View, on the pool.

use std::rc::Rc;

use api::error::Status;
use api::etcdserverpb::{TxnRequest, request_op::Request};
use api::method::Method;
use machine::kv::{check_revision, query, range_error};
use machine::{OpReply, RangeReply, TxnReply};
use member::MemberView;
use store::Piece;

use crate::answer::{Body, Encoded};
use crate::caller::{Caller, authorize_reading_txn};
use crate::kv::{count, value_error};
use crate::member::Member;
use crate::{render, validate};

/// A transaction that only reads does not go through the log.
pub(crate) async fn answer(
    member: &Rc<Member>,
    caller: &Caller,
    request: TxnRequest,
) -> Result<Body, Status> {
    let serializable = validate::is_serializable(&request);
    let view = if serializable { member.view() } else { member.linearizable_view().await? };
    let row = Method::Txn.row();
    let allowed = authorize_reading_txn(member, row, caller, &view, &request)?;
    let view = view.open(allowed);
    let revision = view.store.revision();
    let job = move |may: &env::MayBlock| read_txn(may, &view, &request);
    let reply = member.run(job).await??;
    let mut out = Encoded::default();
    render::txn(render::response(&mut out, &member.header(revision), 0), &reply);
    Ok(Body::Whole(out))
}

/// Answers a transaction that only reads, from one View.
fn read_txn(
    may: &env::MayBlock,
    view: &MemberView,
    request: &TxnRequest,
) -> Result<TxnReply, Status> {
    let store = &view.store;
    let held = |compare| machine::kv::holds_in_view(store, may, compare).map_err(value_error);
    let mut succeeded = true;
    for compare in &request.compare {
        if !held(compare)? {
            succeeded = false;
            break;
        }
    }
    let ops = if succeeded { &request.success } else { &request.failure };
    let ranges = || {
        ops.iter().filter_map(|op| match &op.request {
            Some(Request::RequestRange(range)) => Some(range),
            _ => None,
        })
    };
    for range in ranges() {
        check_revision(range.revision, store.revision(), store.compact_revision())?;
    }
    let mut responses = Vec::new();
    for range in ranges() {
        let ranged = store.range(&query(range)).map_err(range_error)?;
        let ranged = store.resolve(may, ranged).map_err(value_error)?;
        let (more, count) = (ranged.more, count(&ranged));
        let mut kvs = Vec::new();
        let mut body = store.body(ranged);
        while body.next_blocking(may, store, usize::MAX, &mut kvs).map_err(value_error)?
            != Piece::Done
        {}
        let reply = RangeReply { kvs: kvs.into(), more, count };
        responses.push((store.revision(), OpReply::Range(reply)));
    }
    Ok(TxnReply { succeeded, responses })
}
