//! Seeded operations whose whole responses must be equal on both servers.
//!
//! What is masked, and why: cluster id, member id and raft term of headers (the servers are two
//! clusters); the order of keys with equal sort targets (Go's sort is not stable, semantics B7).

use api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
    WatchCreateRequest, request_op::Request, response_op::Response,
};
use bytes::Bytes;
use env::{Entropy, SplitMix};

use crate::grpc::{Client, Failure};

/// One operation.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
}

/// What came back, masked.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Answer {
    Range(RangeResponse),
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    Failed(Failure),
}

/// Draws operations. It follows the revision loosely, so that most revisions it asks for exist.
#[derive(Clone, Debug)]
pub struct Generator {
    entropy: SplitMix,
    revision: i64,
}

impl Generator {
    /// The operations of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { entropy: SplitMix::new(seed), revision: 1 }
    }

    /// Tells the revision that an answer showed.
    pub fn saw(&mut self, answer: &Answer) {
        let header = match answer {
            Answer::Range(r) => r.header,
            Answer::Put(r) => r.header,
            Answer::Delete(r) => r.header,
            Answer::Txn(r) => r.header,
            _ => None,
        };
        self.revision = self.revision.max(header.map_or(0, |h| h.revision));
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    /// Any number below a bound.
    pub fn number(&mut self, bound: u64) -> u64 {
        self.below(bound)
    }

    /// Key and range end as requests have them.
    pub fn span(&mut self) -> (Bytes, Bytes) {
        (self.key(), self.end())
    }

    /// True so many times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn key(&mut self) -> Bytes {
        match self.below(100) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\xff"),
            3 => vec![b'k'; 400].into(),
            _ => format!("k{:02}", self.below(40)).into(),
        }
    }

    fn end(&mut self) -> Bytes {
        match self.below(10) {
            0..=3 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        let len = [0, 1, 3, 30, 600][self.below(5) as usize];
        let byte = self.below(4) as u8;
        vec![byte; len].into()
    }

    fn revision(&mut self) -> i64 {
        match self.below(20) {
            0..=9 => 0,
            10 => -1,
            11 => self.revision + 1,
            12 => i64::MAX,
            13 => i64::MIN,
            _ => self.below(self.revision as u64 + 1) as i64,
        }
    }

    fn bound(&mut self) -> i64 {
        if self.chance(85) { 0 } else { self.below(self.revision as u64 + 2) as i64 - 1 }
    }

    fn lease(&mut self) -> i64 {
        if self.chance(85) { 0 } else { [1, 2, 3, -4, i64::MIN, 99][self.below(6) as usize] }
    }

    fn range(&mut self) -> RangeRequest {
        let key_order = self.chance(70);
        let sort_order = if key_order { 0 } else { self.below(4) as i32 };
        let sort_target = if key_order { 0 } else { self.below(6) as i32 };
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: [0, 0, 1, 3, 10, -1][self.below(6) as usize],
            revision: self.revision(),
            sort_order,
            sort_target,
            serializable: self.chance(30),
            keys_only: self.chance(20),
            count_only: self.chance(10),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(8), self.chance(8));
        let value = if ignore_value && self.chance(90) { Bytes::new() } else { self.value() };
        let lease = if ignore_lease && self.chance(90) { 0 } else { self.lease() };
        let (key, prev_kv) = (self.key(), self.chance(30));
        PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.chance(70) { Bytes::new() } else { self.end() };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.chance(40) }
    }

    fn compare(&mut self) -> Compare {
        let n = self.below(self.revision as u64 + 2) as i64;
        let union = match self.below(6) {
            0 => TargetUnion::Version(n % 5),
            1 => TargetUnion::CreateRevision(n),
            2 => TargetUnion::ModRevision(n),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease()),
        };
        let matching = match union {
            TargetUnion::Version(_) => CompareTarget::Version,
            TargetUnion::CreateRevision(_) => CompareTarget::Create,
            TargetUnion::ModRevision(_) => CompareTarget::Mod,
            TargetUnion::Value(_) => CompareTarget::Value,
            TargetUnion::Lease(_) => CompareTarget::Lease,
        } as i32;
        Compare {
            result: if self.chance(97) { self.below(4) as i32 } else { 99 },
            target: if self.chance(90) { matching } else { self.below(6) as i32 },
            key: self.key(),
            range_end: if self.chance(80) { Bytes::new() } else { self.end() },
            target_union: if self.chance(95) { Some(union) } else { None },
        }
    }

    /// A watch, most from now on or from a revision that there was.
    pub(crate) fn watch(&mut self) -> WatchCreateRequest {
        let start_revision = self.revision();
        let filters = match self.below(10) {
            0 => vec![0],
            1 => vec![1],
            2 => vec![5],
            _ => vec![],
        };
        WatchCreateRequest {
            key: self.key(),
            range_end: self.end(),
            start_revision,
            filters,
            prev_kv: self.chance(50),
            fragment: self.chance(20),
            ..WatchCreateRequest::default()
        }
    }

    fn op(&mut self, depth: u32) -> RequestOp {
        let request = match self.below(20) {
            0..=6 => Some(Request::RequestRange(self.range())),
            7..=13 => Some(Request::RequestPut(self.put())),
            14..=16 => Some(Request::RequestDeleteRange(self.delete())),
            17..=18 if depth > 0 => Some(Request::RequestTxn(self.txn(depth - 1))),
            17..=18 => Some(Request::RequestPut(self.put())),
            _ => (!self.chance(5)).then(|| Request::RequestRange(self.range())),
        };
        RequestOp { request }
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        let compares = self.below(3);
        let (success, failure) = (self.below(5), self.below(4));
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.op(depth)).collect(),
            failure: (0..failure).map(|_| self.op(depth)).collect(),
        }
    }

    /// The next operation. A transaction in which etcd itself would panic (a delete from a key on
    /// before a put in the same branch, semantics D12) is drawn again.
    pub fn draw(&mut self) -> Op {
        loop {
            let op = match self.below(100) {
                0..=34 => Op::Range(self.range()),
                35..=64 => Op::Put(self.put()),
                65..=72 => Op::Delete(self.delete()),
                73..=92 => Op::Txn(self.txn(2)),
                93..=94 => {
                    let revision = self.revision().saturating_sub(self.below(30) as i64);
                    Op::Compact(CompactionRequest { revision, physical: self.chance(50) })
                }
                95..=97 => {
                    let id = [1, 2, 3, -4, i64::MIN][self.below(5) as usize];
                    let ttl = [3_600, 0, -7, 9_000_000_000, 9_000_000_001][self.below(5) as usize];
                    // Short ones would end in the middle of the comparison.
                    let ttl = if ttl < 1 { 4_000 } else { ttl };
                    Op::Grant(LeaseGrantRequest { id, ttl })
                }
                _ => {
                    let id = [0, 1, 2, 3, -4, i64::MIN][self.below(6) as usize];
                    Op::Revoke(LeaseRevokeRequest { id })
                }
            };
            match &op {
                Op::Txn(txn) if is_poison(&txn.success) || is_poison(&txn.failure) => {}
                _ => return op,
            }
        }
    }
}

fn is_poison(ops: &[RequestOp]) -> bool {
    let mut from_key = false;
    for op in ops {
        match &op.request {
            Some(Request::RequestDeleteRange(d)) => from_key |= d.range_end[..] == [0],
            Some(Request::RequestPut(_)) if from_key => return true,
            Some(Request::RequestTxn(t)) => {
                let has_from = |ops: &[RequestOp]| {
                    ops.iter().any(|op| match &op.request {
                        Some(Request::RequestDeleteRange(d)) => d.range_end[..] == [0],
                        Some(Request::RequestTxn(_)) => true,
                        _ => false,
                    })
                };
                if from_key || is_poison(&t.success) || is_poison(&t.failure) {
                    return true;
                }
                from_key |= has_from(&t.success) || has_from(&t.failure);
            }
            _ => {}
        }
    }
    false
}

fn mask(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
    }
}

/// Sorts runs of keys whose sort target is equal by key. With a limit the cut may fall into such
/// a run, and then which of them are listed is not determined: they are left out.
fn settle(request: &RangeRequest, response: &mut RangeResponse) {
    mask(&mut response.header);
    let target = request.sort_target();
    let sorted = request.sort_order != SortOrder::None as i32 || target != SortTarget::Key;
    if !sorted || target == SortTarget::Key {
        return;
    }
    let of = |kv: &api::mvccpb::KeyValue| match target {
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::Create => (kv.create_revision, Bytes::new()),
        SortTarget::Mod => (kv.mod_revision, Bytes::new()),
        // Values may have been stripped: their order cannot be seen then.
        SortTarget::Value => (0, kv.value.clone()),
        SortTarget::Key => (0, kv.key.clone()),
    };
    if response.more
        && let Some(last) = response.kvs.last().map(&of)
    {
        response.kvs.retain(|kv| of(kv) != last);
    }
    let kvs = std::mem::take(&mut response.kvs);
    let mut settled: Vec<api::mvccpb::KeyValue> = Vec::with_capacity(kvs.len());
    for run in kvs.chunk_by(|a, b| of(a) == of(b)) {
        let mut run = run.to_vec();
        run.sort_by(|a, b| a.key.cmp(&b.key));
        settled.extend(run);
    }
    response.kvs = settled;
}

fn settle_txn(request: &TxnRequest, response: &mut TxnResponse) {
    mask(&mut response.header);
    let ops = if response.succeeded { &request.success } else { &request.failure };
    for (op, answer) in ops.iter().zip(&mut response.responses) {
        match (&op.request, &mut answer.response) {
            (Some(Request::RequestRange(q)), Some(Response::ResponseRange(a))) => settle(q, a),
            (Some(Request::RequestTxn(q)), Some(Response::ResponseTxn(a))) => settle_txn(q, a),
            _ => {}
        }
    }
}

/// Runs one operation and masks its answer.
pub async fn run(client: &Client, op: &Op) -> Answer {
    match op {
        Op::Range(q) => match client.call::<RangeResponse>("/etcdserverpb.KV/Range", q).await {
            Ok(mut a) => {
                settle(q, &mut a);
                Answer::Range(a)
            }
            Err(e) => Answer::Failed(e),
        },
        Op::Put(q) => match client.call::<PutResponse>("/etcdserverpb.KV/Put", q).await {
            Ok(mut a) => {
                mask(&mut a.header);
                Answer::Put(a)
            }
            Err(e) => Answer::Failed(e),
        },
        Op::Delete(q) => {
            match client.call::<DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", q).await {
                Ok(mut a) => {
                    mask(&mut a.header);
                    Answer::Delete(a)
                }
                Err(e) => Answer::Failed(e),
            }
        }
        Op::Txn(q) => match client.call::<TxnResponse>("/etcdserverpb.KV/Txn", q).await {
            Ok(mut a) => {
                settle_txn(q, &mut a);
                Answer::Txn(a)
            }
            Err(e) => Answer::Failed(e),
        },
        Op::Compact(q) => {
            match client.call::<CompactionResponse>("/etcdserverpb.KV/Compact", q).await {
                Ok(mut a) => {
                    mask(&mut a.header);
                    Answer::Compact(a)
                }
                Err(e) => Answer::Failed(e),
            }
        }
        Op::Grant(q) => {
            match client.call::<LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant", q).await {
                Ok(mut a) => {
                    mask(&mut a.header);
                    Answer::Grant(a)
                }
                Err(e) => Answer::Failed(e),
            }
        }
        Op::Revoke(q) => {
            match client.call::<LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke", q).await {
                Ok(mut a) => {
                    mask(&mut a.header);
                    Answer::Revoke(a)
                }
                Err(e) => Answer::Failed(e),
            }
        }
    }
}
