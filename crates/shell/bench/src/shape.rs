//! What is asked.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op::Request,
};
use bytes::{BufMut, Bytes, BytesMut};
use env::{Entropy, SplitMix};
use prost::Message;

/// The kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Puts of random keys.
    Put,
    /// Linearizable reads of one random key.
    Range,
    /// The same from local state.
    SerializableRange,
    /// What Kubernetes does: put a key if its revision is the expected one, else read it.
    CompareAndPut,
    /// Lease grants.
    Grant,
}

impl Shape {
    /// All, with the names of the command line.
    pub const ALL: [(&'static str, Shape); 5] = [
        ("put", Shape::Put),
        ("range", Shape::Range),
        ("serializable-range", Shape::SerializableRange),
        ("compare-and-put", Shape::CompareAndPut),
        ("grant", Shape::Grant),
    ];

    /// The method's path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Shape::Put => "/etcdserverpb.KV/Put",
            Shape::Range | Shape::SerializableRange => "/etcdserverpb.KV/Range",
            Shape::CompareAndPut => "/etcdserverpb.KV/Txn",
            Shape::Grant => "/etcdserverpb.Lease/LeaseGrant",
        }
    }

    /// One request in its envelope.
    #[must_use]
    pub fn request(self, entropy: &mut SplitMix, keys: u64, value: &Bytes) -> Bytes {
        let key: Bytes = format!("/registry/pods/ns/{:046}", entropy.below(keys)).into();
        match self {
            Shape::Put => envelope(&PutRequest { key, value: value.clone(), ..Default::default() }),
            Shape::Range => envelope(&RangeRequest { key, ..Default::default() }),
            Shape::SerializableRange => {
                envelope(&RangeRequest { key, serializable: true, ..Default::default() })
            }
            Shape::CompareAndPut => {
                let compare = Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key.clone(),
                    target_union: Some(TargetUnion::ModRevision(0)),
                    ..Default::default()
                };
                let put =
                    PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
                let get = RangeRequest { key, ..Default::default() };
                envelope(&TxnRequest {
                    compare: vec![compare],
                    success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
                    failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
                })
            }
            Shape::Grant => envelope(&LeaseGrantRequest { ttl: 3_600, id: 0 }),
        }
    }
}

fn envelope(message: &impl Message) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.encoded_len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).expect("requests are small"));
    message.encode_raw(&mut out);
    out.freeze()
}
