//! Reads ahead what applying a write will need from the database, so that Applier finds it in the
//! page cache: values that are compared, kept, or returned as the version before.
//!
//! An optimization only: a value that is cold all the same makes Applier wait for the disk, and
//! nobody else. Most
//! writes need nothing, and most values are in memory; then this costs a look at each.

use std::rc::Rc;

use api::etcdserverpb::compare::CompareTarget;
use api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request,
};
use store::{Piece, RangeQuery};

use crate::answer::Local;
use crate::caller::Allowed;
use crate::member::Member;

/// Bytes of one interval that are looked at on the thread of the connection.
const LOOK_BYTES: usize = 64 << 10;
/// Bytes read at once on the pool.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of one interval beyond which reading ahead would only push others out of the cache.
const MOST_BYTES: u64 = 64 << 20;

/// Intervals of keys whose newest values are needed.
type Wanted<'r> = Vec<(&'r [u8], &'r [u8])>;

fn want_put<'r>(put: &'r PutRequest, wanted: &mut Wanted<'r>) {
    if put.ignore_value || put.ignore_lease || put.prev_kv {
        wanted.push((&put.key, &[]));
    }
}

fn want_delete<'r>(delete: &'r DeleteRangeRequest, wanted: &mut Wanted<'r>) {
    if delete.prev_kv {
        wanted.push((&delete.key, &delete.range_end));
    }
}

fn want_ops<'r>(ops: &'r [RequestOp], wanted: &mut Wanted<'r>) {
    for op in ops {
        match &op.request {
            Some(Request::RequestPut(put)) => want_put(put, wanted),
            Some(Request::RequestDeleteRange(delete)) => want_delete(delete, wanted),
            // Bounded by `--max-txn-ops`, as validation is.
            Some(Request::RequestTxn(txn)) => want_txn(txn, wanted),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}

fn want_txn<'r>(txn: &'r TxnRequest, wanted: &mut Wanted<'r>) {
    let (value, lease) = (CompareTarget::Value as i32, CompareTarget::Lease as i32);
    let compares = txn.compare.iter().filter(|c| c.target == value || c.target == lease);
    wanted.extend(compares.map(|c| (&c.key[..], &c.range_end[..])));
    want_ops(&txn.success, wanted);
    want_ops(&txn.failure, wanted);
}

/// What reads ahead for a put, if anything must be waited for.
pub(crate) fn put(
    member: &Rc<Member>,
    request: &PutRequest,
    allowed: Allowed,
) -> Option<Local<'static, ()>> {
    let mut wanted = Wanted::new();
    want_put(request, &mut wanted);
    read(member, &wanted, allowed)
}

/// What reads ahead for a delete, if anything must be waited for.
pub(crate) fn delete(
    member: &Rc<Member>,
    request: &DeleteRangeRequest,
    allowed: Allowed,
) -> Option<Local<'static, ()>> {
    let mut wanted = Wanted::new();
    want_delete(request, &mut wanted);
    read(member, &wanted, allowed)
}

/// What reads ahead for a transaction, whichever branch it takes, if anything must be waited for.
pub(crate) fn txn(
    member: &Rc<Member>,
    request: &TxnRequest,
    allowed: Allowed,
) -> Option<Local<'static, ()>> {
    let mut wanted = Wanted::new();
    want_txn(request, &mut wanted);
    read(member, &wanted, allowed)
}

fn read(member: &Rc<Member>, wanted: &Wanted<'_>, allowed: Allowed) -> Option<Local<'static, ()>> {
    if wanted.is_empty() {
        return None;
    }
    let view = member.view().open(allowed);
    let (mut cold, mut scratch) = (Vec::new(), Vec::new());
    for (key, range_end) in wanted {
        let Ok(ranged) = view.store.range(&RangeQuery::between(key, range_end)) else { continue };
        scratch.clear();
        let warm = view.store.try_render(&ranged, LOOK_BYTES, &mut scratch);
        if matches!(warm, Ok(false)) && ranged.body_bytes() <= MOST_BYTES {
            cold.push(ranged);
        }
    }
    if cold.is_empty() {
        return None;
    }
    let job = move |may: &env::MayBlock| {
        for ranged in cold {
            let mut body = view.store.body(ranged);
            loop {
                scratch.clear();
                match body.next_blocking(may, &view.store, PIECE_BYTES, &mut scratch) {
                    Ok(Piece::Done) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
    };
    let member = Rc::clone(member);
    Some(Box::pin(async move {
        // A full pool, or a value that was compacted meanwhile: Applier will see for itself.
        let _ = member.run(job).await;
    }))
}
