//! What etcd refuses before a request reaches the log (semantics C1, D1, D6, D8 to D11).

use api::error::ApiError;
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

/// Operations per level of a transaction (`--max-txn-ops`).
const MAX_TXN_OPS: usize = 128;

pub(crate) fn range(r: &RangeRequest) -> Result<(), ApiError> {
    use api::etcdserverpb::range_request::{SortOrder, SortTarget};
    if r.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    let known =
        SortOrder::try_from(r.sort_order).is_ok() && SortTarget::try_from(r.sort_target).is_ok();
    if known { Ok(()) } else { Err(ApiError::InvalidSortOption) }
}

pub(crate) fn put(r: &PutRequest) -> Result<(), ApiError> {
    if r.key.is_empty() {
        Err(ApiError::EmptyKey)
    } else if r.ignore_value && !r.value.is_empty() {
        Err(ApiError::ValueProvided)
    } else if r.ignore_lease && r.lease != 0 {
        Err(ApiError::LeaseProvided)
    } else {
        Ok(())
    }
}

pub(crate) fn txn(r: &TxnRequest) -> Result<(), ApiError> {
    levels(r, MAX_TXN_OPS)?;
    changes(&r.success)?;
    changes(&r.failure)?;
    for ops in [&r.success, &r.failure] {
        if poisons(ops, &mut Vec::new()) {
            return Err(ApiError::KeyNotFound);
        }
    }
    Ok(())
}

/// Whether a put relies on a key that a delete from a key on has taken before it in its branch.
/// etcd accepts it, and no member survives applying it (semantics D12): whoever tests etcd itself
/// must not ask for it.
fn poisons(ops: &[RequestOp], taken_from: &mut Vec<Bytes>) -> bool {
    ops.iter().any(|op| match &op.request {
        Some(Op::RequestDeleteRange(r)) if r.range_end[..] == [0] => {
            taken_from.push(r.key.clone());
            false
        }
        Some(Op::RequestPut(r)) => {
            let relies = r.ignore_value || r.ignore_lease;
            relies && taken_from.iter().any(|from| *from <= r.key)
        }
        Some(Op::RequestTxn(r)) => {
            let before = taken_from.clone();
            let mut other = before;
            let found = poisons(&r.success, taken_from) || poisons(&r.failure, &mut other);
            taken_from.extend(other);
            found
        }
        _ => false,
    })
}

fn levels(r: &TxnRequest, limit: usize) -> Result<(), ApiError> {
    let most = r.compare.len().max(r.success.len()).max(r.failure.len());
    if most > limit {
        return Err(ApiError::TooManyOps);
    }
    if r.compare.iter().any(|c| c.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    for op in r.success.iter().chain(&r.failure) {
        match &op.request {
            Some(Op::RequestRange(r)) => range(r)?,
            Some(Op::RequestPut(r)) => put(r)?,
            Some(Op::RequestDeleteRange(r)) if r.key.is_empty() => return Err(ApiError::EmptyKey),
            Some(Op::RequestDeleteRange(_)) => {}
            Some(Op::RequestTxn(r)) => levels(r, limit - most)?,
            None => return Err(ApiError::KeyNotFound),
        }
    }
    Ok(())
}

/// What a branch changes: keys it puts, and ranges it deletes as `[start, end)`.
#[derive(Default)]
struct Changes {
    puts: Vec<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Changes {
    fn touches(&self, key: &Bytes) -> bool {
        self.puts.contains(key) || self.deletes.iter().any(|(from, to)| from <= key && key < to)
    }
}

/// A range end of one zero byte is taken literally, as in etcd (semantics R3).
fn changes(ops: &[RequestOp]) -> Result<Changes, ApiError> {
    let mut found = Changes::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(r)) = &op.request {
            let end = match &r.range_end[..] {
                [] => Bytes::from([&r.key[..], &[0]].concat()),
                _ => r.range_end.clone(),
            };
            found.deletes.push((r.key.clone(), end));
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(r)) = &op.request else { continue };
        let (then, other) = (changes(&r.success)?, changes(&r.failure)?);
        // The two branches exclude each other and may put the same key.
        if then.puts.iter().chain(&other.puts).any(|key| found.touches(key)) {
            return Err(ApiError::DuplicateKey);
        }
        for branch in [then, other] {
            found.puts.extend(branch.puts);
            found.deletes.extend(branch.deletes);
        }
    }
    for op in ops {
        let Some(Op::RequestPut(r)) = &op.request else { continue };
        if found.touches(&r.key) {
            return Err(ApiError::DuplicateKey);
        }
        found.puts.push(r.key.clone());
    }
    Ok(found)
}
