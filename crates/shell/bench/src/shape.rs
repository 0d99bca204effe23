//! What is asked in closed loops of unary calls.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use bytes::Bytes;
use env::{Entropy, SplitMix};
use grpc::PREFIX_BYTES;

use crate::client::envelope;
use crate::light::message::{Put, put_of};

/// The kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Puts of random keys.
    Put,
    /// Linearizable reads of one random key.
    Range,
    /// The same from local state.
    SerializableRange,
    /// What Kubernetes does: put a key if its revision is the one last seen, else read it. Each
    /// slot has a key of its own, so all of them put.
    CompareAndPut,
    /// Lease grants.
    Grant,
    /// Counts all keys.
    Count,
    /// Lists the first 500 keys.
    Limit500,
    /// Lists all keys.
    List,
}

/// Every key of the loads begins so.
pub const PREFIX: &[u8] = b"/registry/pods/";
/// The first key behind all of them.
pub const PREFIX_END: &[u8] = b"/registry/pods0";

/// Key number `n`: 64 bytes, shaped like Kubernetes' (a thousand namespaces, random names), in no
/// order.
#[must_use]
pub fn key(n: u64) -> Bytes {
    let (a, b) = (SplitMix::new(n).next_u64(), SplitMix::new(!n).next_u64());
    format!("/registry/pods/ns-{:03}/pod-{a:016x}{b:016x}{:06}", a % 1_000, n % 1_000_000).into()
}

/// A request for all keys of the loads.
#[must_use]
pub fn all_keys() -> RangeRequest {
    RangeRequest { key: PREFIX.into(), range_end: PREFIX_END.into(), ..Default::default() }
}

impl Shape {
    /// All, with the names of the command line.
    pub const ALL: [(&'static str, Shape); 8] = [
        ("put", Shape::Put),
        ("range", Shape::Range),
        ("serializable-range", Shape::SerializableRange),
        ("compare-and-put", Shape::CompareAndPut),
        ("grant", Shape::Grant),
        ("count", Shape::Count),
        ("limit-500", Shape::Limit500),
        ("list", Shape::List),
    ];

    /// The method's path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Shape::Put => "/etcdserverpb.KV/Put",
            Shape::Range
            | Shape::SerializableRange
            | Shape::Count
            | Shape::Limit500
            | Shape::List => "/etcdserverpb.KV/Range",
            Shape::CompareAndPut => "/etcdserverpb.KV/Txn",
            Shape::Grant => "/etcdserverpb.Lease/LeaseGrant",
        }
    }

    /// Whether the next request depends on the answer to the last one.
    #[must_use]
    pub fn reads_answers(self) -> bool {
        self == Shape::CompareAndPut
    }

    /// The next request of a slot, in its envelope.
    #[must_use]
    pub fn request(self, slot: &mut Slot, value: &Bytes) -> Bytes {
        let mut key = || key(slot.entropy.below(slot.keys));
        match self {
            Shape::Put => {
                let (key, value) = (key(), value.clone());
                envelope(&PutRequest { key, value, ..Default::default() })
            }
            Shape::Range => envelope(&RangeRequest { key: key(), ..Default::default() }),
            Shape::SerializableRange => {
                envelope(&RangeRequest { key: key(), serializable: true, ..Default::default() })
            }
            Shape::CompareAndPut => envelope(&compare_and_put(slot, value)),
            Shape::Grant => envelope(&LeaseGrantRequest { ttl: 3_600, id: 0 }),
            Shape::Count => envelope(&RangeRequest { count_only: true, ..all_keys() }),
            Shape::Limit500 => envelope(&RangeRequest { limit: 500, ..all_keys() }),
            Shape::List => envelope(&all_keys()),
        }
    }
}

/// What one slot of a closed loop knows.
#[derive(Debug)]
pub struct Slot {
    /// Its number; with compare-and-put also that of its key.
    pub number: u64,
    /// Different keys.
    pub keys: u64,
    /// Where its random keys come from.
    pub entropy: SplitMix,
    /// Revision of the last answer, if they are read; of its own key, as nobody else writes it.
    pub revision: i64,
}

impl Slot {
    /// Takes note of an answer (a message in its envelope): the next request compares with the
    /// revision that was put, or with the one that was read because another was there.
    pub fn answered(&mut self, message: &[u8]) {
        if let Some(message) = message.get(PREFIX_BYTES..) {
            let (Put::Done(revision) | Put::Conflict(revision)) = put_of(message);
            self.revision = revision;
        }
    }
}

fn compare_and_put(slot: &Slot, value: &Bytes) -> TxnRequest {
    let key = &key(slot.number);
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(slot.revision)),
        ..Default::default()
    };
    let put = PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
    let get = RangeRequest { key: key.clone(), ..Default::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::etcdserverpb::{RangeResponse, ResponseOp, TxnResponse, response_op::Response};
    use api::mvccpb::KeyValue;

    #[test]
    fn keys_are_64_bytes_within_the_prefix_and_differ() {
        let keys: std::collections::BTreeSet<_> = (0..2_000).map(key).collect();
        assert_eq!(keys.len(), 2_000);
        assert!(keys.iter().all(|k| k.len() == 64 && k.starts_with(PREFIX) && k < PREFIX_END));
    }

    #[test]
    fn a_slot_learns_the_revision_of_a_key_that_was_there_before() {
        let kv = KeyValue { mod_revision: 12, ..Default::default() };
        let range = RangeResponse { kvs: vec![kv], ..Default::default() };
        let read = ResponseOp { response: Some(Response::ResponseRange(range)) };
        let conflict = TxnResponse { responses: vec![read], ..Default::default() };
        let mut slot = Slot { number: 0, keys: 1, entropy: SplitMix::new(0), revision: 0 };
        slot.answered(&envelope(&conflict));
        assert_eq!(slot.revision, 12);
    }
}
