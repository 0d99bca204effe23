//! Messages that are written by copying a template and patching what differs from call to call:
//! key, value and revision. The templates are the full generator's own requests.

use api::etcdserverpb::{TxnResponse, response_op::Response};
use bytes::Bytes;
use env::{Entropy, SplitMix};
use prost::Message;

use super::frame::MAX_PAYLOAD_BYTES;
use crate::shape::{Shape, Slot, key};

/// Bytes of a key.
const KEY_BYTES: usize = 64;
/// Different keys at most: they lie in memory, 64 MB of them.
pub const MAX_KEYS: u64 = 1_000_000;
/// Bytes of a value that differ from call to call.
const STAMP_BYTES: usize = 8;
/// What values are made of; no key contains it.
const VALUE: u8 = b'v';

/// A message in its envelope, and where it changes.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    keys: Vec<usize>,
    stamp: Option<usize>,
    revision: Option<usize>,
}

/// All requests of a kind.
#[derive(Debug)]
pub struct Requests {
    shape: Shape,
    /// One, or with compare-and-put one per length of the revision.
    templates: Vec<Template>,
    /// Keys in no order, as [`key`] makes them. They are taken one after another, which spreads them
    /// as evenly as drawing them would, without waiting for memory each time.
    keys: Vec<[u8; KEY_BYTES]>,
    next_key: usize,
    entropy: SplitMix,
}

/// Bytes that a number takes as a varint.
fn varint_len(number: u64) -> usize {
    ((64 - number.leading_zeros()) as usize).div_ceil(7).max(1)
}

fn patch_varint(out: &mut [u8], mut number: u64) {
    for byte in out {
        *byte = number as u8 | 0x80;
        number >>= 7;
        if number == 0 {
            *byte &= 0x7f;
            return;
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let places = bytes.windows(wanted.len()).enumerate();
    places.filter(|(_, window)| *window == wanted).map(|(place, _)| place).collect()
}

impl Template {
    /// Of the request that the full generator makes when its slot knows a revision.
    fn new(shape: Shape, value: &Bytes, revision: i64) -> Self {
        let mut slot = Slot { number: 0, keys: 1, entropy: SplitMix::new(0), revision };
        let bytes = shape.request(&mut slot, value).to_vec();
        let keys = find(&bytes, &key(0));
        // The last one: what stands before a value, its length, may look like a part of it.
        let stamp = (value.len() >= STAMP_BYTES).then(|| find(&bytes, value).last().copied());
        // The revision is the last field of the comparison, behind the key and a byte of its own.
        let revision = (shape == Shape::CompareAndPut).then(|| keys[0] + KEY_BYTES + 1);
        Self { bytes, keys, stamp: stamp.flatten(), revision }
    }
}

impl Requests {
    /// Requests over so many keys with values of so many bytes.
    ///
    /// # Errors
    /// There are more keys than are held, or a message does not fit into a frame.
    pub fn new(shape: Shape, keys: u64, value_bytes: usize, seed: u64) -> Result<Self, String> {
        if !(1..=MAX_KEYS).contains(&keys) {
            return Err(format!("{keys} keys: the light generator takes 1 to {MAX_KEYS}"));
        }
        if value_bytes >= MAX_PAYLOAD_BYTES {
            return Err(too_long());
        }
        let value = Bytes::from(vec![VALUE; value_bytes]);
        let lengths = if shape == Shape::CompareAndPut { 0..9 } else { 0..1 };
        // The least revision of each length.
        let templates = lengths.map(|length| Template::new(shape, &value, 1 << (7 * length)));
        let templates: Vec<_> = templates.collect();
        if templates.iter().any(|template| template.bytes.len() > MAX_PAYLOAD_BYTES) {
            return Err(too_long());
        }
        let mut table = Vec::with_capacity(keys as usize);
        for number in 0..keys {
            table.push(key(number).as_ref().try_into().map_err(|_| "a key of another length")?);
        }
        let mut entropy = SplitMix::new(seed);
        let next_key = entropy.below(keys) as usize;
        Ok(Self { shape, templates, keys: table, next_key, entropy })
    }

    fn template(&self, revision: i64) -> &Template {
        match self.templates.as_slice() {
            [only] => only,
            all => &all[varint_len(revision as u64).min(all.len()) - 1],
        }
    }

    /// Bytes of the next request of a slot that knows this revision.
    #[must_use]
    pub fn len(&self, revision: i64) -> usize {
        self.template(revision).bytes.len()
    }

    /// Appends the next request of a slot. With compare-and-put the key is the slot's own, else the
    /// next one.
    pub fn write(&mut self, slot: u32, revision: i64, out: &mut Vec<u8>) {
        let stamp = self.entropy.next_u64();
        let number = match self.shape {
            Shape::CompareAndPut => slot as usize % self.keys.len(),
            _ => self.next_key,
        };
        self.next_key += 1;
        if self.next_key == self.keys.len() {
            self.next_key = 0;
        }
        let (template, key) = (self.template(revision), &self.keys[number]);
        let at = out.len();
        out.extend_from_slice(&template.bytes);
        let message = &mut out[at..];
        for place in &template.keys {
            message[*place..place + KEY_BYTES].copy_from_slice(key);
        }
        if let Some(place) = template.stamp {
            message[place..place + STAMP_BYTES].copy_from_slice(&stamp.to_ne_bytes());
        }
        if let Some(place) = template.revision {
            patch_varint(&mut message[place..], revision as u64);
        }
    }
}

fn too_long() -> String {
    format!("the light generator sends messages of up to {MAX_PAYLOAD_BYTES} bytes: one frame")
}

/// A field of a message: its number, and what it holds.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

/// Takes the next field off a message; `None` at its end, and where it is no message.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(message)?;
    let value = match key & 7 {
        0 => Value::Varint(varint(message)?),
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            let (bytes, rest) = message.split_at_checked(length)?;
            *message = rest;
            Value::Bytes(bytes)
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

fn number(mut message: &[u8], wanted: u64) -> u64 {
    while let Some((number, value)) = field(&mut message) {
        if let (true, Value::Varint(value)) = (number == wanted, value) {
            return value;
        }
    }
    0
}

/// What a compare-and-put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It put; this is the key's revision now.
    Done(i64),
    /// The key's revision was another one: this.
    Conflict(i64),
}

/// Reads the answer to a compare-and-put (TxnResponse: `header` 1 with `revision` 3, `succeeded`
/// 2).
#[must_use]
pub fn put_of(message: &[u8]) -> Put {
    let (mut rest, mut revision, mut succeeded) = (message, 0, false);
    while let Some((number_of, value)) = field(&mut rest) {
        match (number_of, value) {
            (1, Value::Bytes(header)) => revision = number(header, 3) as i64,
            (2, Value::Varint(value)) => succeeded = value != 0,
            _ => {}
        }
    }
    if succeeded {
        return Put::Done(revision);
    }
    let read = TxnResponse::decode(message).ok().and_then(|answer| {
        match answer.responses.into_iter().next()?.response? {
            Response::ResponseRange(range) => range.kvs.first().map(|kv| kv.mod_revision),
            _ => None,
        }
    });
    Put::Conflict(read.unwrap_or(0))
}

/// The seconds that a renewed lease has (LeaseKeepAliveResponse: `TTL` 3); 0 if it is gone.
#[must_use]
pub fn ttl_of(message: &[u8]) -> i64 {
    number(message, 3) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::etcdserverpb::{
        LeaseKeepAliveResponse, PutRequest, RangeRequest, RangeResponse, ResponseHeader,
        ResponseOp, TxnRequest, compare::TargetUnion, request_op::Request,
    };
    use api::mvccpb::KeyValue;

    fn request<M: Message + Default>(requests: &mut Requests, slot: u32, revision: i64) -> M {
        let mut out = b"before".to_vec();
        requests.write(slot, revision, &mut out);
        let message = &out[6..];
        assert_eq!(message.len(), requests.len(revision));
        assert_eq!(message[..5], grpc::envelope::prefix(message.len() - 5));
        M::decode(&message[5..]).unwrap()
    }

    #[test]
    fn a_put_has_keys_and_values_that_vary() {
        let mut requests = Requests::new(Shape::Put, 100, 256, 1).unwrap();
        let puts: Vec<PutRequest> = (0..50).map(|_| request(&mut requests, 0, 0)).collect();
        let known: Vec<_> = (0..100).map(key).collect();
        assert!(puts.iter().all(|put| known.contains(&put.key) && put.value.len() == 256));
        let values: std::collections::BTreeSet<_> = puts.iter().map(|put| &put.value).collect();
        let keys: std::collections::BTreeSet<_> = puts.iter().map(|put| &put.key).collect();
        assert_eq!(values.len(), 50);
        assert_eq!(keys.len(), 50);
        assert!(puts.iter().all(|put| put.lease == 0 && !put.prev_kv));
        // Short values do not vary, but they are there.
        let mut short = Requests::new(Shape::Put, 1, 3, 1).unwrap();
        assert_eq!(request::<PutRequest>(&mut short, 0, 0).value, &b"vvv"[..]);
    }

    #[test]
    fn ranges_ask_for_one_key() {
        for (shape, serializable) in [(Shape::Range, false), (Shape::SerializableRange, true)] {
            let mut requests = Requests::new(shape, 1, 0, 1).unwrap();
            let range: RangeRequest = request(&mut requests, 0, 0);
            assert_eq!(range, RangeRequest { key: key(0), serializable, ..Default::default() });
        }
    }

    #[test]
    fn a_compare_and_put_is_the_full_generators_at_every_revision() {
        let mut requests = Requests::new(Shape::CompareAndPut, 10, 40, 1).unwrap();
        for revision in [0, 1, 127, 128, 300, 16_384, 1 << 40, i64::MAX] {
            let transaction: TxnRequest = request(&mut requests, 7, revision);
            let [compare] = &transaction.compare[..] else { panic!("one comparison") };
            assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(revision)));
            let mut slot = Slot { number: 7, keys: 10, entropy: SplitMix::new(0), revision };
            let Some(Request::RequestPut(put)) = &transaction.success[0].request else {
                panic!("a put")
            };
            let full = Shape::CompareAndPut.request(&mut slot, &put.value);
            assert_eq!(transaction, TxnRequest::decode(&full[5..]).unwrap());
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        assert!(Requests::new(Shape::Put, 0, 1, 1).is_err());
        assert!(Requests::new(Shape::Put, MAX_KEYS + 1, 1, 1).is_err());
        assert!(Requests::new(Shape::Put, 1, MAX_PAYLOAD_BYTES - 73, 1).is_err());
        assert!(Requests::new(Shape::Put, 1, MAX_PAYLOAD_BYTES - 74, 1).is_ok());
        assert!(Requests::new(Shape::Put, 1, usize::MAX, 1).is_err());
    }

    #[test]
    fn answers_are_read() {
        let header = Some(ResponseHeader { revision: 300, raft_term: 2, ..Default::default() });
        let done = TxnResponse { header, succeeded: true, responses: vec![] };
        assert_eq!(put_of(&done.encode_to_vec()), Put::Done(300));
        let kv = KeyValue { mod_revision: 12, ..Default::default() };
        let range = RangeResponse { kvs: vec![kv], ..Default::default() };
        let read = ResponseOp { response: Some(Response::ResponseRange(range)) };
        let conflict = TxnResponse { header, succeeded: false, responses: vec![read] };
        assert_eq!(put_of(&conflict.encode_to_vec()), Put::Conflict(12));
        assert_eq!(put_of(&[0xff; 20]), Put::Conflict(0));
        let renewed = LeaseKeepAliveResponse { header: None, id: 5, ttl: 60 };
        assert_eq!(ttl_of(&renewed.encode_to_vec()), 60);
        assert_eq!(ttl_of(&LeaseKeepAliveResponse::default().encode_to_vec()), 0);
    }
}
