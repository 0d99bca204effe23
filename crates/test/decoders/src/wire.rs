//! What clients and peers send.

use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, compare,
    request_op::Request,
};
use api::odd;
use bytes::Bytes;
use calls::validate;
use env::MayBlock;
use machine::Machine;
use machine::command::{self, CommandKind, Header};
use prost::Message;
use raft::{Entry, EntryKind};
use store::Piece;
use types::{Index, RequestId, Term};

use crate::disk::apply_config;

/// As `--max-txn-ops` has it.
const MAX_TXN_OPS: usize = 128;
/// Requests of one input; more would only make it slow.
const MOST_REQUESTS: usize = 64;

/// Commands, by the number that an input names.
const KINDS: [CommandKind; 7] = [
    CommandKind::Range,
    CommandKind::Put,
    CommandKind::DeleteRange,
    CommandKind::Txn,
    CommandKind::Compaction,
    CommandKind::LeaseGrant,
    CommandKind::LeaseRevoke,
];

/// Splits an input into requests: a kind, two bytes of length, the message.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = (CommandKind, Bytes)> {
    std::iter::from_fn(move || {
        let ([kind, low, high], rest) = bytes.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (message, rest) = rest.split_at(len);
        bytes = rest;
        Some((KINDS[usize::from(*kind) % KINDS.len()], Bytes::copy_from_slice(message)))
    })
    .take(MOST_REQUESTS)
}

fn join(requests: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, message) in requests {
        out.push(*kind);
        out.extend_from_slice(&(message.len() as u16).to_le_bytes());
        out.extend_from_slice(message);
    }
    out
}

/// Whether the gateway lets a request through.
fn is_accepted(kind: CommandKind, message: &Bytes) -> bool {
    match kind {
        CommandKind::Range => {
            odd::decode::<RangeRequest>(message.clone()).is_ok_and(|r| validate::range(&r).is_ok())
        }
        CommandKind::Put => {
            odd::decode::<PutRequest>(message.clone()).is_ok_and(|r| validate::put(&r).is_ok())
        }
        CommandKind::DeleteRange => odd::decode::<DeleteRangeRequest>(message.clone())
            .is_ok_and(|r| validate::delete(&r).is_ok()),
        CommandKind::Txn => {
            validate::txn_depth(message, MAX_TXN_OPS).is_ok()
                && odd::decode::<TxnRequest>(message.clone())
                    .is_ok_and(|r| validate::txn(&r, MAX_TXN_OPS).is_ok())
        }
        CommandKind::Compaction => odd::decode::<CompactionRequest>(message.clone()).is_ok(),
        CommandKind::LeaseGrant => odd::decode::<LeaseGrantRequest>(message.clone()).is_ok(),
        _ => odd::decode::<LeaseRevokeRequest>(message.clone()).is_ok(),
    }
}

/// Takes the requests through the gateway's checks into a state machine; reads are answered from
/// its view.
pub fn requests(bytes: &[u8]) {
    let may = MayBlock::on_this_thread();
    let mut machine = Machine::empty(apply_config());
    let mut index = 0;
    for (kind, message) in split(bytes) {
        if !is_accepted(kind, &message) {
            continue;
        }
        if kind == CommandKind::Range {
            let request = odd::decode(message).expect("decoded before");
            answer(&may, &machine, &request);
            continue;
        }
        index += 1;
        let header = Header { id: RequestId(index), ..Header::default() };
        let data = command::encode(kind, &message, header);
        let (at, term) = (Index(index), Term(1));
        let entry = Entry { index: at, term, kind: EntryKind::Normal, data };
        let before = machine.store.revision();
        let outcome = machine.apply(&may, &entry, true).expect("all values are in memory");
        let rise = machine.store.revision().0 - before.0;
        assert!((0..=1).contains(&rise), "the revision rose by {rise}");
        assert!(outcome.reply.is_ok() || rise == 0, "what is refused changes nothing");
        machine.store.seal(at, term, None);
    }
}

fn answer(may: &MayBlock, machine: &Machine, request: &RangeRequest) {
    let view = machine.store.publish();
    let Ok(ranged) = view.range(&machine::kv::query(request)) else { return };
    let Ok(ranged) = view.resolve(may, ranged) else { return };
    let mut body = view.body(ranged);
    let mut out = Vec::new();
    while body.next_blocking(may, &view, 1 << 16, &mut out).expect("in memory") != Piece::Done {}
}

fn put(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..Default::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn a_txn() -> TxnRequest {
    let within = TxnRequest {
        success: vec![op(Request::RequestPut(put("c", "inner", 0)))],
        ..Default::default()
    };
    TxnRequest {
        compare: vec![Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Value as i32,
            key: "a".into(),
            target_union: Some(compare::TargetUnion::Value("1".into())),
            ..Default::default()
        }],
        success: vec![
            op(Request::RequestDeleteRange(DeleteRangeRequest {
                key: "a".into(),
                range_end: "b".into(),
                prev_kv: true,
            })),
            op(Request::RequestTxn(within)),
            op(Request::RequestRange(RangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                ..Default::default()
            })),
        ],
        failure: vec![],
    }
}

/// Scripts that use every kind of request.
#[must_use]
pub fn request_seeds() -> Vec<Vec<u8>> {
    let all = RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        limit: 2,
        revision: 3,
        ..Default::default()
    };
    let delete = DeleteRangeRequest { key: "b".into(), prev_kv: true, ..Default::default() };
    let compact = CompactionRequest { revision: 3, physical: false };
    vec![
        join(&[
            (5, LeaseGrantRequest { id: 5, ttl: 10 }.encode_to_vec()),
            (1, put("a", "1", 5).encode_to_vec()),
            (1, put("b", "2", 0).encode_to_vec()),
            (3, a_txn().encode_to_vec()),
            (2, delete.encode_to_vec()),
            (4, compact.encode_to_vec()),
            (0, all.encode_to_vec()),
            (6, LeaseRevokeRequest { id: 5 }.encode_to_vec()),
            (0, RangeRequest { key: "a".into(), ..Default::default() }.encode_to_vec()),
        ]),
        join(&[(3, a_txn().encode_to_vec())]),
    ]
}

/// Entries that put something into most buckets.
pub(crate) fn entries() -> Vec<Vec<u8>> {
    let request = |set: fn(&mut InternalRaftRequest)| {
        let mut request = InternalRaftRequest::default();
        set(&mut request);
        request.encode_to_vec()
    };
    let mut entries = vec![
        request(|r| r.lease_grant = Some(LeaseGrantRequest { id: 5, ttl: 10 })),
        request(|r| r.put = Some(put("a", "1", 5))),
        request(|r| r.txn = Some(a_txn())),
        request(|r| r.put = Some(put("a", &"long".repeat(600), 0))),
    ];
    entries.extend((0..60).map(|n| {
        let request = InternalRaftRequest {
            put: Some(put(&format!("k{n}"), "some value", 0)),
            ..Default::default()
        };
        request.encode_to_vec()
    }));
    entries
}

/// Stored key-values.
#[must_use]
pub fn key_values() -> Vec<Vec<u8>> {
    let kv = api::mvccpb::KeyValue {
        key: "key".into(),
        create_revision: 2,
        mod_revision: 300,
        version: 4,
        value: "value".into(),
        lease: -1,
    };
    vec![kv.encode_to_vec()]
}

/// Messages of every shape that peers send, and membership changes.
#[must_use]
pub fn raft_messages() -> Vec<Vec<u8>> {
    use api::raftpb;
    let entry = raftpb::Entry {
        term: Some(2),
        index: Some(8),
        data: Some("data".into()),
        ..Default::default()
    };
    let mut seeds: Vec<_> = (0..=22)
        .map(|kind| {
            let message = raftpb::Message {
                r#type: Some(kind),
                to: Some(1),
                from: Some(2),
                term: Some(2),
                log_term: Some(1),
                index: Some(7),
                entries: vec![entry.clone()],
                commit: Some(7),
                context: Some(vec![0, 0, 0, 0, 0, 0, 0, 9].into()),
                ..Default::default()
            };
            message.encode_to_vec()
        })
        .collect();
    let change = raftpb::ConfChange {
        id: Some(1),
        r#type: Some(0),
        node_id: Some(3),
        context: Some("{}".into()),
    };
    seeds.push(change.encode_to_vec());
    seeds
}

/// Streams of gRPC messages.
#[must_use]
pub fn envelopes() -> Vec<Vec<u8>> {
    let plain = grpc::envelope::seal(b"a message", grpc::Encoding::Identity);
    let zipped = grpc::envelope::seal(&[b'z'; 3_000], grpc::Encoding::Gzip);
    // With a comment of no bytes, which is not what encoders send.
    let mut odd = zipped.to_vec();
    odd[8] = 16;
    odd.insert(15, 0);
    odd[4] += 1;
    vec![[&plain[..], &plain[..]].concat(), zipped.to_vec(), odd]
}

/// What a server answers to the calls that the load generator has begun.
#[must_use]
pub fn answers() -> Vec<Vec<u8>> {
    use bench::light::frame::{flag, kind, settings, window_update, write};
    let head = b"\x88\x5f\x10application/grpc";
    let trailers = b"\x40\x0bgrpc-status\x010\x40\x0cgrpc-message\x00";
    let mut good = Vec::new();
    write(&mut good, kind::HEADERS, flag::END_HEADERS, 1, head);
    write(&mut good, kind::DATA, flag::PADDED, 1, b"\x02\0\0\0\0\x04\x0a\x02\x18\x07\0\0");
    write(&mut good, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, trailers);
    write(&mut good, kind::HEADERS, flag::END_STREAM, 3, b"\x88\xbf");
    write(&mut good, kind::CONTINUATION, flag::END_HEADERS, 3, b"\xbe");
    let mut control = Vec::new();
    settings(&mut control, &[(1, 100), (3, 7), (4, 70_000)]);
    write(&mut control, kind::PING, 0, 0, b"12345678");
    window_update(&mut control, 0, 9);
    window_update(&mut control, 5, 9);
    write(&mut control, kind::RST_STREAM, 0, 5, &[0, 0, 0, 8]);
    write(&mut control, kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    vec![good, control]
}
