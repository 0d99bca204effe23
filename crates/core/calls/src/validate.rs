//! Validation of requests, before anything else looks at them (invariant 11).
//!
//! Errors and their order are etcd's (`server/etcdserver/api/v3rpc/key.go`). Nothing here recurses
//! on the depth of a request that was not bounded before: [`txn_depth`] walks the encoded bytes
//! without a stack of its own calls.

use std::collections::{BTreeMap, BTreeSet};

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};

/// Messages within messages beyond which protobuf-go gives up.
const MAX_NESTED_MESSAGES: usize = 10_000;

/// Validates a range request.
///
/// # Errors
/// etcd's error for the first fault found; the client is at fault.
pub fn range(request: &RangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(ApiError::InvalidSortOption);
    }
    Ok(())
}

/// Validates a put request.
///
/// # Errors
/// etcd's error for the first fault found; the client is at fault.
pub fn put(request: &PutRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ApiError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ApiError::LeaseProvided);
    }
    Ok(())
}

/// Validates a delete request.
///
/// # Errors
/// etcd's error for the first fault found; the client is at fault.
pub fn delete(request: &DeleteRangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() { Err(ApiError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction: its size, each operation, and that no key is changed twice where etcd
/// would notice.
///
/// # Errors
/// etcd's, and `key not found` for a put that relies on a key which an earlier delete of the same
/// branch removes: etcd accepts it and then no member survives applying it (semantics D12).
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), ApiError> {
    txn_ops(request, max_ops)?;
    changes(&request.success)?;
    changes(&request.failure)?;
    poison(&request.success, &mut Vec::new())?;
    poison(&request.failure, &mut Vec::new())
}

fn txn_ops(request: &TxnRequest, max_ops: usize) -> Result<(), ApiError> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > max_ops {
        return Err(ApiError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(r)) => range(r)?,
            Some(Request::RequestPut(r)) => put(r)?,
            Some(Request::RequestDeleteRange(r)) => delete(r)?,
            // Each level takes at least one from the limit, so this recursion ends with it.
            Some(Request::RequestTxn(r)) => txn_ops(r, max_ops - ops)?,
            None => return Err(ApiError::KeyNotFound),
        }
    }
    Ok(())
}

/// Ranges that are deleted, as disjoint intervals by their start.
#[derive(Debug, Default)]
struct Deleted(BTreeMap<Vec<u8>, Vec<u8>>);

impl Deleted {
    /// Adds `[start, end)`. A `range_end` of one zero byte counts literally, as in etcd, so a
    /// delete from a key on conflicts with nothing (semantics R3).
    fn insert(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        if end <= start {
            return;
        }
        let touching: Vec<Vec<u8>> = self
            .0
            .range(..=end.clone())
            .rev()
            .take_while(|(_, e)| **e >= start)
            .map(|(s, _)| s.clone())
            .collect();
        for other in touching {
            let other_end = self.0.remove(&other).expect("listed above");
            start = start.min(other);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.0.range(..=key.to_vec()).next_back().is_some_and(|(_, end)| key < &end[..])
    }

    fn extend(&mut self, other: Deleted) {
        for (start, end) in other.0 {
            self.insert(start, end);
        }
    }
}

/// Refuses duplicate changes within one branch; returns its puts and deletes.
//= etcd 3.7.1: server/etcdserver/api/v3rpc/key.go#checkIntervals
fn changes(ops: &[RequestOp]) -> Result<(BTreeSet<&[u8]>, Deleted), ApiError> {
    let mut deleted = Deleted::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(r)) = &op.request {
            let end = if r.range_end.is_empty() {
                [&r.key[..], &[0]].concat()
            } else {
                r.range_end.to_vec()
            };
            deleted.insert(r.key.to_vec(), end);
        }
    }
    let mut puts: BTreeSet<&[u8]> = BTreeSet::new();
    for op in ops {
        let Some(Request::RequestTxn(r)) = &op.request else { continue };
        let (then_puts, then_deleted) = changes(&r.success)?;
        let (else_puts, else_deleted) = changes(&r.failure)?;
        for key in &then_puts {
            if puts.contains(key) || deleted.contains(key) {
                return Err(ApiError::DuplicateKey);
            }
        }
        for key in &else_puts {
            // The two branches exclude each other and may put the same key.
            if puts.contains(key) || deleted.contains(key) {
                return Err(ApiError::DuplicateKey);
            }
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        deleted.extend(then_deleted);
        deleted.extend(else_deleted);
    }
    for op in ops {
        let Some(Request::RequestPut(r)) = &op.request else { continue };
        if deleted.contains(&r.key) || !puts.insert(&r.key) {
            return Err(ApiError::DuplicateKey);
        }
    }
    Ok((puts, deleted))
}

/// Finds puts with `ignore_value` or `ignore_lease` behind a delete from a key on that covers
/// theirs. `from` holds the starts of such deletes on the way here.
fn poison<'a>(ops: &'a [RequestOp], from: &mut Vec<&'a [u8]>) -> Result<(), ApiError> {
    for op in ops {
        match &op.request {
            Some(Request::RequestDeleteRange(r)) if r.range_end[..] == [0] => from.push(&r.key),
            Some(Request::RequestPut(r))
                if (r.ignore_value || r.ignore_lease)
                    && from.iter().any(|start| **start <= r.key[..]) =>
            {
                return Err(ApiError::KeyNotFound);
            }
            Some(Request::RequestTxn(r)) => {
                let before = from.len();
                poison(&r.success, from)?;
                let then = from.split_off(before);
                poison(&r.failure, from)?;
                from.extend(then);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bounds the nesting of an encoded `TxnRequest` before it is decoded. `max_ops` levels are as
/// many as can pass [`txn`].
///
/// # Errors
/// protobuf-go's error beyond its own limit, else `too many operations in txn request`.
pub fn txn_depth(bytes: &[u8], max_ops: usize) -> Result<(), Status> {
    // The ends of the messages we are in: transactions and operations take turns.
    let mut ends: Vec<usize> = vec![bytes.len()];
    let (mut at, mut deepest) = (0, 0);
    while let Some(end) = ends.last().copied() {
        if at >= end {
            ends.pop();
            continue;
        }
        let Some((key, next)) = varint(bytes, at, end) else { return Ok(()) };
        let in_txn = ends.len() % 2 == 1;
        let (field, wire) = (key >> 3, key & 7);
        let Some((len, body)) = (match wire {
            0 => varint(bytes, next, end).map(|(_, after)| (0, after)),
            1 => Some((8, next)),
            2 => varint(bytes, next, end),
            5 => Some((4, next)),
            // A group is skipped, lest it hide what comes after it.
            3 => {
                let mut after = next;
                api::wire::skip(&bytes[..end], &mut after, field, 3).ok().map(|_| (0, after))
            }
            // Nonsense: the decoder will refuse it.
            _ => None,
        }) else {
            return Ok(());
        };
        let Some(body_end) = usize::try_from(len).ok().and_then(|l| body.checked_add(l)) else {
            return Ok(());
        };
        if body_end > end {
            return Ok(());
        }
        let descends = wire == 2 && if in_txn { matches!(field, 2 | 3) } else { field == 4 };
        if descends {
            ends.push(body_end);
            deepest = deepest.max(ends.len());
            at = body;
        } else {
            at = body_end;
        }
    }
    if deepest > MAX_NESTED_MESSAGES {
        let text = "grpc: error unmarshalling request: proto: exceeded maximum recursion depth";
        return Err(Status::new(Code::Internal, text));
    }
    // A level of operations is one transaction and the messages of its operations.
    if deepest / 2 > max_ops + 1 {
        return Err(ApiError::TooManyOps.into());
    }
    Ok(())
}

fn varint(bytes: &[u8], mut at: usize, end: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes[..end].get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Whether a transaction changes nothing whichever branch is taken; a nested one counts as a
/// change (semantics D15).
#[must_use]
pub fn is_read_only(request: &TxnRequest) -> bool {
    let reads = |op: &RequestOp| matches!(op.request, Some(Request::RequestRange(_)));
    request.success.iter().chain(&request.failure).all(reads)
}

/// Whether a read-only transaction may be answered from local state.
#[must_use]
pub fn is_serializable(request: &TxnRequest) -> bool {
    let serializable = |op: &RequestOp| match &op.request {
        Some(Request::RequestRange(r)) => r.serializable,
        _ => false,
    };
    request.success.iter().chain(&request.failure).all(serializable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
        let (key, range_end) = (key.into(), end.into());
        op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { compare: vec![], success, failure }))
    }

    fn check(success: Vec<RequestOp>) -> Result<(), ApiError> {
        txn(&TxnRequest { compare: vec![], success, failure: vec![] }, 128)
    }

    #[test]
    fn a_key_is_changed_once_per_branch() {
        let duplicate = Err(ApiError::DuplicateKey);
        assert_eq!(check(vec![put_op("a"), put_op("a")]), duplicate);
        assert_eq!(check(vec![put_op("b"), delete_op("a", "c")]), duplicate);
        assert_eq!(check(vec![put_op("c"), delete_op("a", "c")]), Ok(()));
        assert_eq!(check(vec![delete_op("a", "c"), delete_op("b", "d")]), Ok(()));
        assert_eq!(check(vec![delete_op("a", "\0"), put_op("b")]), Ok(()), "R3: taken literally");
        let both =
            TxnRequest { compare: vec![], success: vec![put_op("a")], failure: vec![put_op("a")] };
        assert_eq!(txn(&both, 128), Ok(()));
    }

    #[test]
    fn nested_branches_conflict_as_in_etcd() {
        let duplicate = Err(ApiError::DuplicateKey);
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(check(vec![put_op("a"), nested(vec![put_op("a")], vec![])]), duplicate);
        assert_eq!(check(vec![delete_op("a", ""), nested(vec![put_op("a")], vec![])]), duplicate);
        let delete_first =
            vec![nested(vec![delete_op("a", "")], vec![]), nested(vec![put_op("a")], vec![])];
        assert_eq!(check(delete_first), duplicate);
        let put_first =
            vec![nested(vec![put_op("a")], vec![]), nested(vec![delete_op("a", "")], vec![])];
        assert_eq!(check(put_first), Ok(()), "D9: etcd does not notice");
    }

    #[test]
    fn a_put_that_relies_on_a_deleted_key_is_refused() {
        let keep = PutRequest { key: "b".into(), ignore_value: true, ..Default::default() };
        let keep = op(Request::RequestPut(keep));
        assert_eq!(check(vec![delete_op("a", "\0"), keep.clone()]), Err(ApiError::KeyNotFound));
        assert_eq!(check(vec![keep.clone(), delete_op("a", "\0")]), Ok(()));
        assert_eq!(check(vec![delete_op("c", "\0"), keep]), Ok(()));
    }

    #[test]
    fn the_limit_counts_down_level_by_level() {
        let deep = |levels: usize| {
            let mut op = put_op("a");
            for _ in 0..levels {
                op = nested(vec![op], vec![]);
            }
            check(vec![op])
        };
        assert_eq!(deep(127), Ok(()));
        assert_eq!(deep(128), Err(ApiError::TooManyOps));
        let two = vec![put_op("a"), put_op("b"), put_op("c")];
        let request = TxnRequest { compare: vec![], success: two, failure: vec![] };
        assert_eq!(txn(&request, 2), Err(ApiError::TooManyOps));
    }

    #[test]
    fn depth_is_bounded_without_decoding() {
        let encoded = |levels: usize| {
            let mut bytes = Vec::new();
            for _ in 0..levels {
                let mut op = vec![0x22];
                prost::encoding::encode_varint(bytes.len() as u64, &mut op);
                op.extend_from_slice(&bytes);
                let mut txn = vec![0x12];
                prost::encoding::encode_varint(op.len() as u64, &mut txn);
                txn.extend_from_slice(&op);
                bytes = txn;
            }
            bytes
        };
        assert_eq!(txn_depth(&encoded(127), 128), Ok(()));
        assert!(TxnRequest::decode(&encoded(127)[..]).is_ok());
        assert_eq!(txn_depth(&encoded(4_000), 128), Err(ApiError::TooManyOps.into()));
        let too_deep = txn_depth(&encoded(6_000), 128).unwrap_err();
        assert!(too_deep.message.contains("exceeded maximum recursion depth"));
        assert_eq!(txn_depth(&[0x12, 0xff, 0xff], 128), Ok(()), "the decoder's business");
        let behind_a_group = [&[0x9b, 0x06, 0x08, 1, 0x9c, 0x06], &encoded(4_000)[..]].concat();
        assert_eq!(txn_depth(&behind_a_group, 128), Err(ApiError::TooManyOps.into()));
    }
}
