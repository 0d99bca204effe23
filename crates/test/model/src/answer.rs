//! What the model answers, and whether a real answer says the same.
//!
//! Headers are compared by revision only. Keys with equal sort targets may come in any order (Go's
//! sort is not stable, semantics B7), and a limit may cut any of them.

use api::etcdserverpb::response_op::Response as Op;
use api::etcdserverpb::{
    CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseRevokeResponse, PutResponse,
    RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
};
use api::mvccpb::KeyValue;

use crate::history::Response;

/// The model's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a range.
    Range(RangeAnswer),
    /// To a put.
    Put(PutResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnAnswer),
    /// To a compaction.
    Compact(CompactionResponse),
    /// To a grant.
    LeaseGrant(LeaseGrantResponse),
    /// To a revoke, or the end of a lease.
    LeaseRevoke(LeaseRevokeResponse),
}

/// The answer to a range.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAnswer {
    /// With ties in key order.
    pub response: RangeResponse,
    /// If ties are possible: everything that was sorted, before the limit, with what it was sorted
    /// by.
    pub sorted: Option<Vec<(SortKey, KeyValue)>>,
}

/// What keys are sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum SortKey {
    Number(i64),
    Bytes(bytes::Bytes),
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnAnswer {
    /// The store's revision after it.
    pub revision: i64,
    /// Whether all compares held.
    pub succeeded: bool,
    /// One per operation of the branch taken.
    pub ops: Vec<Answer>,
}

/// A header as far as the model knows it.
#[must_use]
pub fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn revision_of(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |h| h.revision)
}

fn same_revision(a: Option<&ResponseHeader>, b: Option<&ResponseHeader>) -> bool {
    revision_of(a) == revision_of(b)
}

impl RangeAnswer {
    fn accepts(&self, got: &RangeResponse) -> bool {
        let want = &self.response;
        let shape = same_revision(want.header.as_ref(), got.header.as_ref())
            && (want.count, want.more, want.kvs.len()) == (got.count, got.more, got.kvs.len());
        let Some(sorted) = &self.sorted else { return shape && want.kvs == got.kvs };
        // Each key is one of those sorted, none comes twice, and what they are sorted by is the
        // same at every place.
        shape
            && got
                .kvs
                .iter()
                .zip(sorted)
                .all(|(kv, (place, _))| sorted.iter().any(|(by, other)| by == place && other == kv))
            && got
                .kvs
                .iter()
                .enumerate()
                .all(|(i, kv)| got.kvs[..i].iter().all(|k| k.key != kv.key))
    }
}

impl Answer {
    /// The answer as a message, ties in key order.
    #[must_use]
    pub fn to_response(&self) -> Response {
        match self {
            Answer::Range(a) => Response::Range(a.response.clone()),
            Answer::Put(a) => Response::Put(a.clone()),
            Answer::DeleteRange(a) => Response::DeleteRange(a.clone()),
            Answer::Txn(a) => Response::Txn(a.to_response(true)),
            Answer::Compact(a) => Response::Compact(*a),
            Answer::LeaseGrant(a) => Response::LeaseGrant(a.clone()),
            Answer::LeaseRevoke(a) => Response::LeaseRevoke(*a),
        }
    }

    /// Whether a real answer says the same.
    #[must_use]
    pub fn accepts(&self, got: &Response) -> bool {
        match (self, got) {
            (Answer::Range(want), Response::Range(got)) => want.accepts(got),
            (Answer::Put(want), Response::Put(got)) => {
                same_revision(want.header.as_ref(), got.header.as_ref())
                    && want.prev_kv == got.prev_kv
            }
            (Answer::DeleteRange(want), Response::DeleteRange(got)) => {
                same_revision(want.header.as_ref(), got.header.as_ref())
                    && (want.deleted, &want.prev_kvs) == (got.deleted, &got.prev_kvs)
            }
            (Answer::Txn(want), Response::Txn(got)) => want.accepts(got, true),
            // etcd reads its header's revision after the compaction is done, which others' writes
            // do not wait for.
            //= etcd 3.7.1: server/etcdserver/v3_server.go#Compact
            (Answer::Compact(want), Response::Compact(got)) => {
                revision_of(want.header.as_ref()) <= revision_of(got.header.as_ref())
            }
            (Answer::LeaseGrant(want), Response::LeaseGrant(got)) => {
                // The server chooses an id for 0, and raises short times to its minimum.
                let id = want.id == 0 || want.id == got.id;
                id && same_revision(want.header.as_ref(), got.header.as_ref())
                    && got.ttl >= want.ttl
                    && got.error.is_empty()
            }
            (Answer::LeaseRevoke(want), Response::LeaseRevoke(got)) => {
                same_revision(want.header.as_ref(), got.header.as_ref())
            }
            _ => false,
        }
    }
}

impl TxnAnswer {
    fn to_response(&self, top: bool) -> TxnResponse {
        // A nested transaction's header is empty (semantics A8).
        let revision = if top { self.revision } else { 0 };
        let responses = self.ops.iter().map(|op| {
            let response = match op {
                Answer::Txn(inner) => Op::ResponseTxn(inner.to_response(false)),
                other => match other.to_response() {
                    Response::Range(r) => Op::ResponseRange(r),
                    Response::Put(r) => Op::ResponsePut(r),
                    Response::DeleteRange(r) => Op::ResponseDeleteRange(r),
                    other => unreachable!("no operation of a transaction answers {other:?}"),
                },
            };
            ResponseOp { response: Some(response) }
        });
        let responses = responses.collect();
        TxnResponse { header: header(revision), succeeded: self.succeeded, responses }
    }

    fn accepts(&self, got: &TxnResponse, top: bool) -> bool {
        let revision = if top { self.revision } else { 0 };
        same_revision(header(revision).as_ref(), got.header.as_ref())
            && self.succeeded == got.succeeded
            && self.ops.len() == got.responses.len()
            && self.ops.iter().zip(&got.responses).all(|(want, got)| match (want, &got.response) {
                (Answer::Range(want), Some(Op::ResponseRange(got))) => want.accepts(got),
                (Answer::Put(_), Some(Op::ResponsePut(got))) => {
                    want.accepts(&Response::Put(got.clone()))
                }
                (Answer::DeleteRange(_), Some(Op::ResponseDeleteRange(got))) => {
                    want.accepts(&Response::DeleteRange(got.clone()))
                }
                (Answer::Txn(want), Some(Op::ResponseTxn(got))) => want.accepts(got, false),
                _ => false,
            })
    }
}
