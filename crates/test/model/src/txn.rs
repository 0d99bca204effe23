//! Transactions of the model: compares first, then checks of the branches taken, then operations.
//!
//! //= etcd 3.7.1: server/etcdserver/txn/txn.go

use std::cmp::Ordering;

use api::error::ApiError;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{Compare, RequestOp, TxnRequest};
use api::mvccpb::KeyValue;

use crate::answer::{Answer, RangeAnswer, TxnAnswer};
use crate::state::State;

/// The branch that a transaction takes, and those of the ones nested in it.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

/// Whether a transaction changes nothing whichever branch is taken; a nested one counts as a
/// change (semantics D15).
pub(crate) fn is_read_only(r: &TxnRequest) -> bool {
    let reads = |op: &RequestOp| matches!(op.request, Some(Op::RequestRange(_)));
    r.success.iter().chain(&r.failure).all(reads)
}

/// Whether a read-only transaction may be answered from older state.
pub(crate) fn is_serializable(r: &TxnRequest) -> bool {
    let serializable =
        |op: &RequestOp| matches!(&op.request, Some(Op::RequestRange(r)) if r.serializable);
    r.success.iter().chain(&r.failure).all(serializable)
}

fn branch(r: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &r.success } else { &r.failure }
}

impl State {
    /// Runs a transaction.
    pub(crate) fn txn(&mut self, r: &TxnRequest) -> Result<TxnAnswer, ApiError> {
        let path = self.path(r, self.revision);
        self.check_ops(r, &path)?;
        let new = self.revision + 1;
        let mut answer = self.run(r, &path, new);
        answer.revision = self.revision;
        Ok(answer)
    }

    /// The answer to a transaction that only reads, by a store whose newest revision is `current`.
    ///
    /// # Errors
    /// A range of it asks for a future revision.
    pub fn read_txn_as_of(&self, r: &TxnRequest, current: i64) -> Result<TxnAnswer, ApiError> {
        let path = self.path(r, current);
        let mut ops = Vec::new();
        for op in branch(r, path.succeeded) {
            if let Some(Op::RequestRange(range)) = &op.request {
                ops.push(Answer::Range(self.range_as_of(range, current)?));
            }
        }
        Ok(TxnAnswer { revision: current, succeeded: path.succeeded, ops })
    }

    fn path(&self, r: &TxnRequest, current: i64) -> Path {
        let succeeded = r.compare.iter().all(|c| self.holds(c, current));
        let nested = branch(r, succeeded).iter().filter_map(|op| match &op.request {
            Some(Op::RequestTxn(inner)) => Some(self.path(inner, current)),
            _ => None,
        });
        Path { succeeded, nested: nested.collect() }
    }

    fn holds(&self, c: &Compare, current: i64) -> bool {
        let found = self.live(&c.key, &c.range_end, current);
        if found.is_empty() {
            // An absent key is all zeroes, but has no value to compare (semantics D4).
            return c.target != CompareTarget::Value as i32 && holds_for(c, &KeyValue::default());
        }
        found.iter().all(|kv| holds_for(c, kv))
    }

    fn check_ops(&self, r: &TxnRequest, path: &Path) -> Result<(), ApiError> {
        let mut nested = path.nested.iter();
        for op in branch(r, path.succeeded) {
            match &op.request {
                // Compared as a number, also if negative (semantics D14).
                Some(Op::RequestRange(range)) => match range.revision {
                    0 => {}
                    n if n > self.revision => return Err(ApiError::FutureRevision),
                    n if n < self.compact => return Err(ApiError::Compacted),
                    _ => {}
                },
                Some(Op::RequestPut(put)) => self.check_put(put)?,
                Some(Op::RequestTxn(inner)) => {
                    let path = nested.next().expect("a path was made for each nested transaction");
                    self.check_ops(inner, path)?;
                }
                Some(Op::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn run(&mut self, r: &TxnRequest, path: &Path, new: i64) -> TxnAnswer {
        let mut nested = path.nested.iter();
        let mut ops = Vec::new();
        for op in branch(r, path.succeeded) {
            ops.push(match &op.request {
                Some(Op::RequestRange(range)) => {
                    let answer = self.range_as_of(range, self.revision);
                    let none = RangeAnswer { response: Default::default(), sorted: None };
                    Answer::Range(answer.unwrap_or(none))
                }
                Some(Op::RequestPut(put)) => Answer::Put(self.put_at(put, new)),
                Some(Op::RequestDeleteRange(delete)) => {
                    Answer::DeleteRange(self.delete_at(delete, new))
                }
                Some(Op::RequestTxn(inner)) => {
                    let path = nested.next().expect("a path was made for each nested transaction");
                    Answer::Txn(self.run(inner, path, new))
                }
                None => continue,
            });
        }
        TxnAnswer { revision: self.revision, succeeded: path.succeeded, ops }
    }
}

/// A union of another kind than the target counts as 0 or empty; an unknown result holds, an
/// unknown target is equal.
fn holds_for(c: &Compare, kv: &KeyValue) -> bool {
    let union = c.target_union.as_ref();
    let number = |wanted: Option<i64>, have: i64| have.cmp(&wanted.unwrap_or(0));
    let order = match CompareTarget::try_from(c.target) {
        Ok(CompareTarget::Value) => match union {
            Some(TargetUnion::Value(v)) => kv.value[..].cmp(&v[..]),
            _ => kv.value[..].cmp(&[]),
        },
        Ok(CompareTarget::Version) => match union {
            Some(TargetUnion::Version(v)) => number(Some(*v), kv.version),
            _ => number(None, kv.version),
        },
        Ok(CompareTarget::Create) => match union {
            Some(TargetUnion::CreateRevision(v)) => number(Some(*v), kv.create_revision),
            _ => number(None, kv.create_revision),
        },
        Ok(CompareTarget::Mod) => match union {
            Some(TargetUnion::ModRevision(v)) => number(Some(*v), kv.mod_revision),
            _ => number(None, kv.mod_revision),
        },
        Ok(CompareTarget::Lease) => match union {
            Some(TargetUnion::Lease(v)) => number(Some(*v), kv.lease),
            _ => number(None, kv.lease),
        },
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(c.result) {
        Ok(CompareResult::Equal) => order == Ordering::Equal,
        Ok(CompareResult::NotEqual) => order != Ordering::Equal,
        Ok(CompareResult::Greater) => order == Ordering::Greater,
        Ok(CompareResult::Less) => order == Ordering::Less,
        Err(_) => true,
    }
}
