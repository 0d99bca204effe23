//! What clients ask for, drawn from the seed.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use bytes::Bytes;
use env::{Entropy, SplitMix};
use model::Request;

use crate::options::Options;
use crate::wire::Ask;

/// What clients know of the store.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Leases granted, some of them gone.
    pub(crate) leases: Vec<i64>,
    /// The newest revision that anyone has seen.
    pub(crate) revision: i64,
    /// The newest revision compacted.
    pub(crate) compact: i64,
    /// Operations so far; makes values distinct.
    pub(crate) operations: u64,
}

struct Draw<'a> {
    entropy: &'a mut SplitMix,
    options: &'a Options,
    known: &'a Known,
}

/// The next operation of some client.
pub(crate) fn ask(entropy: &mut SplitMix, options: &Options, known: &Known) -> Ask {
    let mut draw = Draw { entropy, options, known };
    if draw.below(1_000) < options.defragment_permille {
        return Ask::Defragment;
    }
    let percent = draw.below(100);
    let mut upto = options.compact_percent;
    if percent < upto {
        return Ask::Kv(draw.compact());
    }
    upto += options.lease_percent * (100 - upto) / 100;
    if percent < upto {
        return Ask::Kv(draw.lease());
    }
    let percent = draw.below(100);
    Ask::Kv(if percent < options.read_percent {
        draw.read()
    } else if percent < options.read_percent + options.txn_percent {
        Request::Txn(draw.txn(2))
    } else if draw.below(5) == 0 {
        Request::DeleteRange(draw.delete())
    } else {
        Request::Put(draw.put())
    })
}

/// A call that reads or changes keys.
pub(crate) fn call(entropy: &mut SplitMix, options: &Options, known: &Known) -> Request {
    let mut draw = Draw { entropy, options, known };
    match draw.below(4) {
        0 => draw.read(),
        1 => Request::Txn(draw.txn(3)),
        2 => Request::DeleteRange(draw.delete()),
        _ => Request::Put(draw.put()),
    }
}

/// What a client watches.
pub(crate) fn watch(entropy: &mut SplitMix, options: &Options) -> WatchCreateRequest {
    let known = Known::default();
    let mut draw = Draw { entropy, options, known: &known };
    let (key, mut range_end) = draw.interval();
    if range_end == key && key[..] != [0] {
        // An empty range is refused; that is for `conform` to see.
        range_end = Bytes::new();
    }
    let filters = match draw.below(6) {
        0 => vec![0],
        1 => vec![1],
        _ => vec![],
    };
    WatchCreateRequest {
        key,
        range_end,
        filters,
        start_revision: draw.below(3) as i64,
        prev_kv: draw.coin(),
        progress_notify: draw.coin(),
        fragment: draw.coin(),
        watch_id: 0,
    }
}

/// A watch of everything, from the first change on.
pub(crate) fn watch_all() -> WatchCreateRequest {
    WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 2,
        prev_kv: true,
        ..WatchCreateRequest::default()
    }
}

/// A range over everything.
pub(crate) fn everything() -> RangeRequest {
    RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() }
}

impl Draw<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn key(&mut self) -> Bytes {
        let number = self.entropy.below(self.options.keys);
        Bytes::from(format!("k{number:02}"))
    }

    /// One key, a few, those from one on, or all.
    fn interval(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        match self.below(8) {
            0 => (vec![0].into(), vec![0].into()),
            1 => (key, vec![0].into()),
            2 | 3 => {
                let other = self.key();
                (key.clone().min(other.clone()), key.max(other))
            }
            _ => (key, Bytes::new()),
        }
    }

    fn value(&mut self) -> Bytes {
        let mut value = self.known.operations.to_string();
        if self.below(16) == 0 {
            let more = self.entropy.below(self.options.large_bytes + 1) as usize;
            value.extend(std::iter::repeat_n('.', more));
        }
        value.into()
    }

    fn some_lease(&mut self) -> i64 {
        match self.known.leases.len() as u64 {
            0 => 99,
            // Mostly the newest ones: the others are gone.
            n => self.known.leases[(n - 1 - self.below(n.min(5))) as usize],
        }
    }

    fn lease(&mut self) -> Request {
        match self.below(10) {
            0..=2 => Request::LeaseGrant(LeaseGrantRequest {
                id: 1_000 + self.known.operations as i64,
                ttl: 1 + self.below(7) as i64,
            }),
            3..=4 => Request::LeaseKeepAlive(self.some_lease()),
            5 => Request::LeaseRevoke(LeaseRevokeRequest { id: self.some_lease() }),
            _ => {
                let lease = self.some_lease();
                Request::Put(PutRequest { lease, ignore_lease: false, ..self.put() })
            }
        }
    }

    fn put(&mut self) -> PutRequest {
        let (key, value, prev_kv) = (self.key(), self.value(), self.coin());
        let plain = PutRequest { key, value, prev_kv, ..PutRequest::default() };
        match self.below(20) {
            0 => PutRequest { value: Bytes::new(), ignore_value: true, ..plain },
            1 => PutRequest { ignore_lease: true, ..plain },
            _ => plain,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.interval();
        DeleteRangeRequest { key, range_end, prev_kv: self.coin() }
    }

    /// A revision around what can still be read.
    fn revision(&mut self) -> i64 {
        let (from, to) = (self.known.compact.max(1) - 2, self.known.revision + 2);
        from + self.below((to - from).max(1) as u64) as i64
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.interval();
        let mut range = RangeRequest { key, range_end, ..RangeRequest::default() };
        if self.below(3) == 0 {
            range.revision = self.revision();
        }
        match self.below(8) {
            0 => range.limit = 1 + self.below(4) as i64,
            1 => range.keys_only = true,
            2 => range.count_only = true,
            3 => {
                range.sort_order = self.below(3) as i32;
                range.sort_target = self.below(5) as i32;
                range.limit = self.below(4) as i64;
            }
            4 => {
                range.min_mod_revision = self.below(self.known.revision as u64 + 1) as i64;
                range.max_create_revision = self.below(self.known.revision as u64 + 1) as i64;
            }
            _ => {}
        }
        range
    }

    fn read(&mut self) -> Request {
        match self.below(20) {
            0 => Request::HashKv(if self.coin() { 0 } else { self.revision().max(0) }),
            1 => {
                let mut reads = vec![self.range(), self.range()];
                let serializable = self.coin();
                reads.iter_mut().for_each(|r| {
                    r.serializable = serializable;
                    r.revision = r.revision.max(0);
                });
                let op = |r| RequestOp { request: Some(Op::RequestRange(r)) };
                let success = reads.into_iter().map(op).collect();
                let failure = vec![];
                Request::Txn(TxnRequest { compare: vec![self.compare()], success, failure })
            }
            _ => {
                let serializable = self.below(3) == 0;
                Request::Range(RangeRequest { serializable, ..self.range() })
            }
        }
    }

    fn compact(&mut self) -> Request {
        let revision = match self.below(4) {
            0 => self.known.revision,
            _ => self.revision(),
        };
        Request::Compact(CompactionRequest { revision, physical: self.coin() })
    }

    fn compare(&mut self) -> Compare {
        let target = match self.below(5) {
            0 => CompareTarget::Version,
            1 => CompareTarget::Create,
            2 => CompareTarget::Mod,
            3 => CompareTarget::Value,
            _ => CompareTarget::Lease,
        };
        let number = match target {
            CompareTarget::Version => self.below(4) as i64,
            _ => self.below(self.known.revision as u64 + 1) as i64,
        };
        let union = match target {
            CompareTarget::Version => TargetUnion::Version(number),
            CompareTarget::Create => TargetUnion::CreateRevision(number),
            CompareTarget::Mod => TargetUnion::ModRevision(number),
            CompareTarget::Value => TargetUnion::Value(number.to_string().into()),
            CompareTarget::Lease => TargetUnion::Lease(self.some_lease()),
        };
        let result = match self.below(4) {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            _ => CompareResult::NotEqual,
        };
        let (key, range_end) =
            if self.below(4) == 0 { self.interval() } else { (self.key(), Bytes::new()) };
        Compare {
            key,
            range_end,
            target: target as i32,
            result: result as i32,
            target_union: Some(union),
        }
    }

    fn txn(&mut self, depth: u64) -> TxnRequest {
        let compare = (0..self.below(3)).map(|_| self.compare()).collect();
        let success = (0..self.below(4)).map(|_| self.op(depth)).collect();
        let failure = (0..self.below(3)).map(|_| self.op(depth)).collect();
        TxnRequest { compare, success, failure }
    }

    fn op(&mut self, depth: u64) -> RequestOp {
        let request = match self.below(if depth > 0 { 8 } else { 7 }) {
            0 | 1 => {
                let mut range = self.range();
                // Within a transaction a negative revision is an odd number, not none.
                range.revision = range.revision.max(0);
                Op::RequestRange(range)
            }
            2..=5 => {
                let mut put = self.put();
                if self.below(6) == 0 && !put.ignore_lease {
                    put.lease = self.some_lease();
                }
                Op::RequestPut(put)
            }
            6 => Op::RequestDeleteRange(self.delete()),
            _ => Op::RequestTxn(self.txn(depth - 1)),
        };
        RequestOp { request: Some(request) }
    }
}
