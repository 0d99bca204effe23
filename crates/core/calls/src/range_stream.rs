//! KV.RangeStream: a range in many messages, each from the newest View at one pinned revision.
//!
//! //= etcd 3.7.1: server/etcdserver/v3_server.go#rangeStream
//!
//! Chunks grow and shrink as etcd's do. One difference: with order NONE and a target other than
//! the key etcd sorts each chunk by itself and goes on behind the wrong key; ours sorts the whole
//! (COMPAT.md).

use std::rc::Rc;
use std::sync::Arc;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::RangeRequest;
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::method::Method;
use bytes::Bytes;
use machine::kv::{query, range_error};
use member::MemberView;
use store::{KeyValue, Piece, Ranged, View};

use crate::answer::Encoded;
use crate::caller::{Allowed, Caller, Wish, authorize};
use crate::decode::decode;
use crate::kv::{resolve, value_error};
use crate::member::Member;
use crate::stream::{Out, Sink, context_canceled, send_sealed};
use crate::{render, validate};

/// Bytes of a field's key and length, at most.
const FIELD_BYTES: usize = 8;
/// Keys of the first message.
const FIRST_CHUNK: i64 = 10;

fn check(request: &RangeRequest) -> Result<(), Status> {
    validate::range(request)?;
    let by_key = request.sort_target == SortTarget::Key as i32;
    let ordered = request.sort_order == SortOrder::None as i32
        || (by_key && request.sort_order == SortOrder::Ascend as i32);
    if !ordered {
        let text = "RangeStream does not support custom sort orders";
        return Err(Status::new(Code::Unimplemented, text));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters != [0; 4] {
        let text = "RangeStream does not support revision filters";
        return Err(Status::new(Code::Unimplemented, text));
    }
    Ok(())
}

/// The next chunk's limit: doubled below half of the wanted size, halved above its double.
//= etcd 3.7.1: server/etcdserver/v3_server.go#adjustChunkLimit
fn adjust(limit: i64, size: usize, wanted: usize) -> i64 {
    if size < wanted / 2 {
        limit.saturating_mul(2)
    } else if size > wanted.saturating_mul(2) {
        (limit / 2).max(1)
    } else {
        limit.max(1)
    }
}

pub(crate) async fn range_stream(
    member: Rc<Member>,
    caller: Caller,
    message: Bytes,
    sink: Out,
) -> Result<(), Status> {
    let mut request: RangeRequest = decode(message)?;
    check(&request)?;
    let view =
        if request.serializable { member.view() } else { member.linearizable_view().await? };
    let row = Method::RangeStream.row();
    let allowed = authorize(&member, row, &caller, &view, Wish::Range(&request))?;
    let view = view.open(allowed);
    if request.count_only {
        let ranged = view.store.range(&query(&request)).map_err(range_error)?;
        let mut out = render::with_header(&member.header(ranged.revision));
        render::range_end(&mut out, false, ranged.count as i64);
        return send(&*sink, &out).await;
    }
    if request.sort_target != SortTarget::Key as i32 {
        return sorted(&member, (view, allowed), &request, &*sink).await;
    }
    let total = if request.limit == 0 { i64::MAX } else { request.limit };
    request.limit = FIRST_CHUNK.min(total);
    let wanted = member.shared.limits.max_request_bytes;
    let (mut sent, mut revision, mut view) = (0i64, None, view);
    loop {
        let ranged = view.store.range(&query(&request)).map_err(range_error)?;
        let pinned = *revision.get_or_insert(ranged.revision);
        if request.revision == 0 {
            request.revision = pinned.0;
        }
        sent = sent.saturating_add(ranged.len() as i64);
        let (more, listed) = (ranged.more, ranged.count as i64 - ranged.len() as i64);
        let kvs = chunk(&member, &view, ranged).await?;
        // A client that does not read holds no state: the next chunk comes from the newest.
        drop(view);
        let done = !more || sent == total;
        if done {
            let mut out = render::with_header(&member.header(pinned));
            out.extend_from_slice(&kvs);
            // What is left behind this chunk is what its own count says beyond it.
            render::range_end(&mut out, more, sent + if more { listed } else { 0 });
            return send(&*sink, &out).await;
        }
        let next = last_key(&kvs)?;
        send(&*sink, &kvs).await?;
        request.key = next;
        request.limit = adjust(request.limit, kvs.len(), wanted).min(total - sent);
        view = member.view().open(allowed);
    }
}

/// The encoded `kvs` of one chunk.
async fn chunk(member: &Member, view: &Arc<MemberView>, ranged: Ranged) -> Result<Vec<u8>, Status> {
    let mut out = Vec::new();
    if view.store.try_render(&ranged, usize::MAX, &mut out).map_err(value_error)? {
        return Ok(out);
    }
    let view = Arc::clone(view);
    let job = move |may: &env::MayBlock| whole(may, &view.store, ranged);
    member.run(job).await?.map_err(value_error)
}

fn whole(may: &env::MayBlock, view: &View, ranged: Ranged) -> Result<Vec<u8>, store::ValueError> {
    let (mut out, mut body) = (Vec::new(), view.body(ranged));
    while body.next_blocking(may, view, usize::MAX, &mut out)? != Piece::Done {}
    Ok(out)
}

/// The key behind the last one of an encoded, non-empty list of `kvs`.
fn last_key(kvs: &[u8]) -> Result<Bytes, Status> {
    let broken = || Status::from(ApiError::Corrupt);
    let (mut rest, mut last) = (kvs, None);
    while !rest.is_empty() {
        // One byte of field key, then the length.
        let mut after = rest.get(1..).ok_or_else(broken)?;
        let len = prost::encoding::decode_varint(&mut after).map_err(|_| broken())?;
        let (element, next) = after
            .split_at_checked(usize::try_from(len).map_err(|_| broken())?)
            .ok_or_else(broken)?;
        last = Some(element);
        rest = next;
    }
    let kv = KeyValue::parse(last.ok_or_else(broken)?).map_err(|_| broken())?;
    Ok([kv.key, &[0]].concat().into())
}

/// Order NONE with another target: the whole is sorted, then sent in pieces.
async fn sorted(
    member: &Member,
    (view, allowed): (Arc<MemberView>, Allowed),
    request: &RangeRequest,
    sink: &dyn Sink,
) -> Result<(), Status> {
    let ranged = view.store.range(&query(request)).map_err(range_error)?;
    let ranged = resolve(member, &view, ranged).await?;
    let mut end = render::with_header(&member.header(ranged.revision));
    render::range_end(&mut end, ranged.more, ranged.count as i64);
    let piece_bytes = member.shared.limits.max_request_bytes;
    let mut body = view.store.body(ranged);
    drop(view);
    loop {
        let reader = member.view().open(allowed);
        let job = move |may: &env::MayBlock| {
            let mut out = Vec::new();
            let piece = body.next_blocking(may, &reader.store, piece_bytes, &mut out);
            (piece, body, out)
        };
        let (piece, returned, out) = member.run(job).await?;
        body = returned;
        if piece.map_err(value_error)? == Piece::Done {
            return send(sink, &[out, end].concat()).await;
        }
        send(sink, &out).await?;
    }
}

/// Sends one `RangeStreamResponse` around the fields of a `RangeResponse`.
async fn send(sink: &dyn Sink, fields: &[u8]) -> Result<(), Status> {
    let mut out = Encoded::default();
    render::bytes_field(out.body(fields.len() + FIELD_BYTES), 1, fields);
    sink.count(out.message().len());
    let sealed = if sink.is_plain() { out.seal() } else { sink.compress(out.message()) };
    // Nothing is held between chunks: the client may take its time.
    send_sealed(sink, sealed).await.map_err(|_| context_canceled())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_the_wanted_size() {
        assert_eq!(adjust(10, 100, 1_000), 20);
        assert_eq!(adjust(10, 600, 1_000), 10);
        assert_eq!(adjust(10, 3_000, 1_000), 5);
        assert_eq!(adjust(1, 3_000, 1_000), 1);
    }

    #[test]
    fn the_next_chunk_begins_behind_the_last_key() {
        let mut kvs = Vec::new();
        for key in [&b"a"[..], b"bc"] {
            let mut kv = Vec::new();
            KeyValue { key, ..KeyValue::default() }.encode(&mut kv);
            render::bytes_field(&mut kvs, 2, &kv);
        }
        assert_eq!(last_key(&kvs).unwrap(), &b"bc\0"[..]);
        assert!(last_key(&[]).is_err() && last_key(&[0x12, 9]).is_err());
    }
}
