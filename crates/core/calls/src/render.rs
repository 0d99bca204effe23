//! Responses as bytes. Stored values are copied into them as they are, never decoded.

use api::etcdserverpb::ResponseHeader;
use machine::{DeleteReply, OpReply, PutReply, RangeReply, TxnReply};
use prost::Message;
use prost::encoding::encode_varint;
use types::Revision;

use crate::answer::Encoded;

/// The bytes of a field key for a length-delimited field.
const fn key(field: u8) -> u8 {
    field << 3 | 2
}

/// Appends a length-delimited field; `field` is below 16.
pub(crate) fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(key(field));
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a varint field unless it is 0; `field` is below 16.
pub(crate) fn varint_field(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        encode_varint(value, out);
    }
}

/// A response that begins with a header in field 1.
pub(crate) fn with_header(header: &ResponseHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_header(&mut out, header);
    out
}

fn put_header(out: &mut Vec<u8>, header: &ResponseHeader) {
    out.push(key(1));
    encode_varint(header.encoded_len() as u64, out);
    header.encode_raw(out);
}

/// Begins a response with a header in field 1, with room for so many bytes behind it.
pub(crate) fn response<'o>(
    out: &'o mut Encoded,
    header: &ResponseHeader,
    room: usize,
) -> &'o mut Vec<u8> {
    /// Bytes that a header takes at most, with its key and length.
    const HEADER_BYTES: usize = 48;
    let body = out.body(HEADER_BYTES + room);
    put_header(body, header);
    body
}

/// The header of an operation within a transaction: only a revision.
fn inner_header(revision: Revision) -> ResponseHeader {
    ResponseHeader { revision: revision.0, ..ResponseHeader::default() }
}

/// Appends the fields of a `PutResponse` after its header.
pub(crate) fn put(out: &mut Vec<u8>, reply: &PutReply) {
    if let Some(prev) = &reply.prev {
        bytes_field(out, 2, prev);
    }
}

/// Appends the fields of a `DeleteRangeResponse` after its header.
pub(crate) fn delete(out: &mut Vec<u8>, reply: &DeleteReply) {
    varint_field(out, 2, reply.deleted as u64);
    for prev in &reply.prevs {
        bytes_field(out, 3, prev);
    }
}

/// Appends the fields of a `RangeResponse` behind its `kvs`.
pub(crate) fn range_end(out: &mut Vec<u8>, more: bool, count: i64) {
    varint_field(out, 3, u64::from(more));
    varint_field(out, 4, count as u64);
}

fn range(out: &mut Vec<u8>, reply: &RangeReply) {
    out.extend_from_slice(&reply.kvs);
    range_end(out, reply.more, reply.count);
}

/// Appends the fields of a `TxnResponse` after its header. Recursion ends with the depth of the
/// request, which was bounded when it came in.
pub(crate) fn txn(out: &mut Vec<u8>, reply: &TxnReply) {
    varint_field(out, 2, u64::from(reply.succeeded));
    for (revision, response) in &reply.responses {
        let mut op = Vec::new();
        let field = match response {
            OpReply::Range(reply) => {
                op = with_header(&inner_header(*revision));
                range(&mut op, reply);
                1
            }
            OpReply::Put(reply) => {
                op = with_header(&inner_header(*revision));
                put(&mut op, reply);
                2
            }
            OpReply::Delete(reply) => {
                op = with_header(&inner_header(*revision));
                delete(&mut op, reply);
                3
            }
            // Nested transactions carry an empty header.
            OpReply::Txn(reply) => {
                bytes_field(&mut op, 1, &[]);
                txn(&mut op, reply);
                4
            }
        };
        let mut wrapped = Vec::with_capacity(op.len() + 8);
        bytes_field(&mut wrapped, field, &op);
        bytes_field(out, 3, &wrapped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::etcdserverpb::{TxnResponse, response_op::Response};

    #[test]
    fn a_rendered_transaction_decodes_to_what_it_was() {
        let kv = api::mvccpb::KeyValue { key: "k".into(), version: 3, ..Default::default() };
        let kv = kv.encode_to_vec();
        let mut kvs = Vec::new();
        bytes_field(&mut kvs, 2, &kv);
        let reply = TxnReply {
            succeeded: true,
            responses: vec![
                (Revision(5), OpReply::Range(RangeReply { kvs: kvs.into(), more: true, count: 9 })),
                (Revision(6), OpReply::Put(PutReply { prev: Some(kv.clone().into()) })),
                (Revision(6), OpReply::Delete(DeleteReply { deleted: 1, prevs: vec![kv.into()] })),
                (Revision(6), OpReply::Txn(TxnReply::default())),
            ],
        };
        let header = ResponseHeader { revision: 6, raft_term: 2, ..Default::default() };
        let mut out = with_header(&header);
        txn(&mut out, &reply);
        let decoded = TxnResponse::decode(&out[..]).unwrap();
        assert_eq!(decoded.header, Some(header));
        assert!(decoded.succeeded);
        let ops: Vec<_> = decoded.responses.into_iter().map(|r| r.response.unwrap()).collect();
        let Response::ResponseRange(range) = &ops[0] else { panic!("{ops:?}") };
        assert_eq!((range.count, range.more, range.kvs[0].version), (9, true, 3));
        assert_eq!(range.header.unwrap().revision, 5);
        let Response::ResponseDeleteRange(delete) = &ops[2] else { panic!("{ops:?}") };
        assert_eq!((delete.deleted, delete.prev_kvs.len()), (1, 1));
        assert!(matches!(&ops[3], Response::ResponseTxn(t) if !t.succeeded));
    }
}
