//! Key-value commands of the log: put, delete, transaction.
//!
//! In a transaction every compare is evaluated first, then every operation of the branches taken
//! is checked, then they run; so a transaction fails whole or not at all (semantics D7, D12).
//! Values are read only where the meaning depends on them.

use api::error::ApiError;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder as WireOrder, SortTarget as WireTarget};
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use bytes::Bytes;
use env::MayBlock;
use store::{
    KeyRef, KeyValue, Lookup, RangeError, RangeQuery, SortOrder, SortTarget, Store, ValueError,
    View, WriteTxn,
};
use types::{LeaseId, Revision};

use crate::leases::Leases;
use crate::outcome::{DeleteReply, OpReply, PutReply, RangeReply, TxnReply};

/// A value of the store that a request needs: from memory, or from the disk while apply waits.
fn value(store: &Store, may: &MayBlock, key: &KeyRef) -> Result<Bytes, ValueError> {
    let found = match store.try_value(key.rev)? {
        Lookup::Found(value) => Some(value),
        Lookup::Cold => store.value(may, key.rev)?,
        Lookup::Absent => None,
    };
    found.ok_or(ValueError::Compacted)
}

/// The store's form of a range request.
#[must_use]
pub fn query(request: &RangeRequest) -> RangeQuery<'_> {
    RangeQuery {
        key: &request.key,
        range_end: &request.range_end,
        revision: request.revision,
        limit: request.limit,
        sort_order: match request.sort_order() {
            WireOrder::None => SortOrder::None,
            WireOrder::Ascend => SortOrder::Ascend,
            WireOrder::Descend => SortOrder::Descend,
        },
        sort_target: match request.sort_target() {
            WireTarget::Key => SortTarget::Key,
            WireTarget::Version => SortTarget::Version,
            WireTarget::Create => SortTarget::Create,
            WireTarget::Mod => SortTarget::Mod,
            WireTarget::Value => SortTarget::Value,
        },
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod: request.min_mod_revision,
        max_mod: request.max_mod_revision,
        min_create: request.min_create_revision,
        max_create: request.max_create_revision,
    }
}

/// The error of the client API for a range that cannot be answered.
#[must_use]
pub fn range_error(error: RangeError) -> ApiError {
    match error {
        RangeError::Compacted => ApiError::Compacted,
        RangeError::FutureRevision => ApiError::FutureRevision,
    }
}

/// A refusal for the client, or a failure that ends the process.
#[derive(Debug)]
pub enum Failed {
    /// The request is refused; nothing changed.
    Refused(ApiError),
    /// The database failed under apply.
    Broken(ValueError),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Failed::Refused(error)
    }
}

impl From<ValueError> for Failed {
    fn from(error: ValueError) -> Self {
        Failed::Broken(error)
    }
}

/// The state that a request is applied to.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) leases: &'a mut Leases,
    pub(crate) may: &'a MayBlock,
    /// Whether a caller on this member waits for the reply; otherwise ranges in transactions are
    /// skipped, which changes no state (semantics D17).
    pub(crate) reply: bool,
}

/// Applies a put outside a transaction.
pub(crate) fn put(cx: &mut Context<'_>, request: &PutRequest) -> Result<PutReply, Failed> {
    let mut txn = cx.store.begin();
    check_put(&txn, cx.leases, request)?;
    let reply = put_in(&mut txn, cx.leases, cx.may, cx.reply, request)?;
    txn.end();
    Ok(reply)
}

/// The lease is looked up before the key.
//= etcd 3.7.1: server/etcdserver/txn/put.go#checkPut
fn check_put(txn: &WriteTxn<'_>, leases: &Leases, request: &PutRequest) -> Result<(), ApiError> {
    if request.lease != 0 && leases.get(LeaseId(request.lease)).is_none() {
        return Err(ApiError::LeaseNotFound);
    }
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && txn.get(&request.key).is_none() {
        return Err(ApiError::KeyNotFound);
    }
    Ok(())
}

fn put_in(
    txn: &mut WriteTxn<'_>,
    leases: &mut Leases,
    may: &MayBlock,
    wants_reply: bool,
    request: &PutRequest,
) -> Result<PutReply, ValueError> {
    let keeps = request.ignore_value || request.ignore_lease;
    let mut reply = PutReply::default();
    let mut old = None;
    if (keeps || (request.prev_kv && wants_reply))
        && let Some(prev) = txn.get(&request.key)
    {
        old = Some(value(txn.store(), may, &prev)?);
    }
    if keeps && old.is_none() {
        // Only a transaction that etcd itself would not survive gets here: a delete before this
        // put took the key (semantics D12). The put has nothing to keep and is left out.
        return Ok(reply);
    }
    let parsed = old.as_deref().map(KeyValue::parse).transpose()?.unwrap_or_default();
    let new_value = if request.ignore_value { parsed.value } else { &request.value[..] };
    let lease = if request.ignore_lease { LeaseId(parsed.lease) } else { LeaseId(request.lease) };
    txn.put(&request.key, new_value, lease);
    leases.attach(&request.key, lease);
    if request.prev_kv {
        reply.prev = old;
    }
    Ok(reply)
}

/// Applies a delete outside a transaction.
pub(crate) fn delete(
    cx: &mut Context<'_>,
    request: &DeleteRangeRequest,
) -> Result<DeleteReply, Failed> {
    let mut txn = cx.store.begin();
    let reply = delete_in(&mut txn, cx.leases, cx.may, cx.reply, request)?;
    txn.end();
    Ok(reply)
}

fn delete_in(
    txn: &mut WriteTxn<'_>,
    leases: &mut Leases,
    may: &MayBlock,
    wants_reply: bool,
    request: &DeleteRangeRequest,
) -> Result<DeleteReply, ValueError> {
    let mut prevs: Vec<KeyRef> = Vec::new();
    let wanted = request.prev_kv && wants_reply;
    let deleted = txn.delete_range_with(&request.key, &request.range_end, &mut |key, prev| {
        leases.detach(key);
        if wanted {
            prevs.push(prev);
        }
    });
    let mut reply = DeleteReply {
        deleted: i64::try_from(deleted).expect("keys are counted in memory"),
        prevs: Vec::with_capacity(prevs.len()),
    };
    for prev in &prevs {
        reply.prevs.push(value(txn.store(), may, prev)?);
    }
    Ok(reply)
}

/// Deletes the keys of a lease that ended, ascending, in one transaction.
pub(crate) fn delete_keys(cx: &mut Context<'_>, keys: &[Bytes]) {
    let mut txn = cx.store.begin();
    for key in keys {
        txn.delete(key);
    }
    txn.end();
}

/// Which branches a transaction takes: its own, and those of the nested ones in it, in order.
#[derive(Debug)]
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn branch<'r>(&self, request: &'r TxnRequest) -> &'r [RequestOp] {
        if self.succeeded { &request.success } else { &request.failure }
    }
}

/// Applies a transaction.
pub(crate) fn txn(cx: &mut Context<'_>, request: &TxnRequest) -> Result<TxnReply, Failed> {
    let mut txn = cx.store.begin();
    let path = path(&txn, cx.may, request)?;
    check_txn(&txn, cx.leases, request, &path)?;
    let reply = run(&mut txn, cx.leases, cx.may, cx.reply, request, &path)?;
    txn.end();
    Ok(reply)
}

fn path(txn: &WriteTxn<'_>, may: &MayBlock, request: &TxnRequest) -> Result<Path, ValueError> {
    let mut path = Path { succeeded: true, nested: Vec::new() };
    for compare in &request.compare {
        if !holds(txn, may, compare)? {
            path.succeeded = false;
            break;
        }
    }
    for op in path.branch(request) {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            let inner = self::path(txn, may, inner)?;
            path.nested.push(inner);
        }
    }
    Ok(path)
}

/// What a compare reads: the store under a transaction, or a View.
trait Compared {
    fn keys(&self, compare: &Compare) -> Vec<KeyRef>;
    fn value(&self, may: &MayBlock, key: &KeyRef) -> Result<Bytes, ValueError>;
}

impl Compared for WriteTxn<'_> {
    fn keys(&self, compare: &Compare) -> Vec<KeyRef> {
        WriteTxn::keys(self, &RangeQuery::between(&compare.key, &compare.range_end))
    }

    fn value(&self, may: &MayBlock, key: &KeyRef) -> Result<Bytes, ValueError> {
        value(self.store(), may, key)
    }
}

impl Compared for View {
    fn keys(&self, compare: &Compare) -> Vec<KeyRef> {
        let mut found = Vec::new();
        let current = self.scan(&compare.key, &compare.range_end, 0, &mut |_, key| {
            found.push(key);
            true
        });
        current.expect("the current revision can always be read");
        found
    }

    fn value(&self, may: &MayBlock, key: &KeyRef) -> Result<Bytes, ValueError> {
        View::value(self, may, key.rev)?.ok_or(ValueError::Compacted)
    }
}

/// Whether a compare holds in a View, for transactions that only read.
///
/// # Errors
/// The database failed, or a value was compacted.
pub fn holds_in_view(view: &View, may: &MayBlock, compare: &Compare) -> Result<bool, ValueError> {
    holds(view, may, compare)
}

/// Whether a compare holds for every key in its range.
//= etcd 3.7.1: server/etcdserver/txn/txn.go#applyCompare
fn holds(on: &impl Compared, may: &MayBlock, compare: &Compare) -> Result<bool, ValueError> {
    let target = CompareTarget::try_from(compare.target);
    let needs_value = matches!(target, Ok(CompareTarget::Value | CompareTarget::Lease));
    let keys = on.keys(compare);
    if keys.is_empty() {
        return Ok(absent_holds(compare));
    }
    for key in keys {
        let stored;
        let parsed = if needs_value {
            stored = on.value(may, &key)?;
            KeyValue::parse(&stored)?
        } else {
            KeyValue::default()
        };
        if !holds_for(compare, &key, &parsed) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An absent key is all zeroes, but has no value that anything could be compared with.
fn absent_holds(compare: &Compare) -> bool {
    if compare.target == CompareTarget::Value as i32 {
        return false;
    }
    let zero = KeyRef { rev: store::Rev::default(), create: Revision(0), version: 0, len: 0 };
    holds_for(compare, &zero, &KeyValue::default())
}

/// A union of another kind than the target counts as 0 or empty, an unknown result holds, an
/// unknown target is equal.
fn holds_for(compare: &Compare, key: &KeyRef, stored: &KeyValue<'_>) -> bool {
    use std::cmp::Ordering;
    let union = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let wanted = match union {
                Some(TargetUnion::Value(v)) => &v[..],
                _ => &[],
            };
            stored.value.cmp(wanted)
        }
        Ok(CompareTarget::Create) => key.create.0.cmp(&match union {
            Some(TargetUnion::CreateRevision(v)) => *v,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => key.rev.main.0.cmp(&match union {
            Some(TargetUnion::ModRevision(v)) => *v,
            _ => 0,
        }),
        Ok(CompareTarget::Version) => key.version.cmp(&match union {
            Some(TargetUnion::Version(v)) => *v,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => stored.lease.cmp(&match union {
            Some(TargetUnion::Lease(v)) => *v,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order == Ordering::Equal,
        Ok(CompareResult::NotEqual) => order != Ordering::Equal,
        Ok(CompareResult::Greater) => order == Ordering::Greater,
        Ok(CompareResult::Less) => order == Ordering::Less,
        Err(_) => true,
    }
}

/// Checks the operations of the branches taken against the state before any of them.
fn check_txn(
    txn: &WriteTxn<'_>,
    leases: &Leases,
    request: &TxnRequest,
    path: &Path,
) -> Result<(), ApiError> {
    let mut nested = path.nested.iter();
    for op in path.branch(request) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(txn.store(), range.revision)?,
            Some(Request::RequestPut(put)) => check_put(txn, leases, put)?,
            Some(Request::RequestTxn(inner)) => {
                let path = nested.next().expect("a path was made for each nested transaction");
                check_txn(txn, leases, inner, path)?;
            }
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// Within a transaction the revision is compared as a number, also if negative (semantics D14).
//= etcd 3.7.1: server/etcdserver/txn/txn.go#checkRange
pub fn check_range(store: &Store, revision: i64) -> Result<(), ApiError> {
    check_revision(revision, store.revision(), store.compact_revision())
}

/// As [`check_range`], for a View.
///
/// # Errors
/// `Compacted` or `FutureRevision`: the client asks for a revision that is not there.
pub fn check_revision(revision: i64, current: Revision, compact: Revision) -> Result<(), ApiError> {
    match revision {
        0 => Ok(()),
        r if r > current.0 => Err(ApiError::FutureRevision),
        r if r < compact.0 => Err(ApiError::Compacted),
        _ => Ok(()),
    }
}

fn run(
    txn: &mut WriteTxn<'_>,
    leases: &mut Leases,
    may: &MayBlock,
    wants_reply: bool,
    request: &TxnRequest,
    path: &Path,
) -> Result<TxnReply, ValueError> {
    let mut reply = TxnReply { succeeded: path.succeeded, responses: Vec::new() };
    let mut nested = path.nested.iter();
    for op in path.branch(request) {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => {
                OpReply::Range(range_in(txn, may, wants_reply, range)?)
            }
            Some(Request::RequestPut(put)) => {
                OpReply::Put(put_in(txn, leases, may, wants_reply, put)?)
            }
            Some(Request::RequestDeleteRange(delete)) => {
                OpReply::Delete(delete_in(txn, leases, may, wants_reply, delete)?)
            }
            Some(Request::RequestTxn(inner)) => {
                let path = nested.next().expect("a path was made for each nested transaction");
                OpReply::Txn(run(txn, leases, may, wants_reply, inner, path)?)
            }
            None => continue,
        };
        reply.responses.push((txn.store().revision(), response));
    }
    Ok(reply)
}

fn range_in(
    txn: &mut WriteTxn<'_>,
    may: &MayBlock,
    wants_reply: bool,
    request: &RangeRequest,
) -> Result<RangeReply, ValueError> {
    if !wants_reply {
        return Ok(RangeReply::default());
    }
    // Checked before the transaction ran; its own changes only raise the revision.
    let Ok(ranged) = txn.range(&query(request)) else {
        return Ok(RangeReply::default());
    };
    let count = i64::try_from(ranged.count).expect("keys are counted in memory");
    let (kvs, more) = txn.store().render(may, ranged)?;
    Ok(RangeReply { kvs: kvs.into(), more, count })
}
