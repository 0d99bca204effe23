//! The KV service.
//!
//! Writes go into the log as the client encoded them. Reads are answered from a View: what is in
//! memory on this thread, what is not on the pool, long lists piece by piece.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api::error::{ApiError, Code, Status};
use api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
    request_op::Request,
};
use bytes::Bytes;
use machine::CommandKind;
use machine::kv::{check_revision, query, range_error};
use machine::{OpReply, RangeReply, Reply, TxnReply};
use member::{ApplierInput, MemberView};
use store::{Piece, RangeBody, Ranged, ValueError};
use tokio::sync::oneshot;
use types::limits::MAX_SEND_BYTES;

use crate::pool::Permit;
use crate::runtime::{Runtime, pool_refused};
use crate::services::pin::Pin;
use crate::services::{decode, render, unchanged, validate, warm};
use crate::{Body, Local, Pieces};
use observe::metrics::Read;

/// Bytes of an answer that is rendered at once, on the thread of its connection.
const INLINE_BYTES: usize = 64 * 1024;
/// Bytes that `more` and `count` take at most.
const END_BYTES: usize = 16;
/// Bytes of a piece of a longer one.
const PIECE_BYTES: usize = 128 * 1024;
/// Bytes of an answer that is read on the pool from the start: there it is read in the order of
/// pages.
const LONG_BYTES: u64 = 1 << 20;
/// Bytes of a piece of a long answer, if [`crate::pool::Pool::large_result`] allows it. Values of neighbouring
/// keys lie anywhere in the database: a piece of a long list reads a part of all its pages, so
/// fewer pieces are fewer readings of the database.
const WIDE_PIECE_BYTES: usize = 40 << 20;
/// Bytes at the end of a large piece that are sent apart: a frame.
const LARGE_END_BYTES: usize = 16 << 10;

pub(super) async fn range(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: RangeRequest = decode(message)?;
    if !request.serializable && rt.handle.is_learner() {
        return Err(ApiError::NotSupportedForLearner.into());
    }
    validate::range(&request)?;
    let began = Instant::now();
    let answer = answer(rt, request).await;
    rt.handle.metrics.read(Read::Range, answer.is_ok(), began.elapsed());
    answer
}

async fn answer(rt: &Rc<Runtime>, request: RangeRequest) -> Result<Body, Status> {
    let view = if request.serializable { rt.view() } else { rt.linearizable_view().await? };
    let began = Instant::now();
    let ranged = view.store.range(&query(&request)).map_err(range_error);
    rt.handle.metrics.ranged(ranged.is_ok(), began.elapsed());
    let ranged = ranged?;
    let room = usize::try_from(ranged.body_bytes()).unwrap_or(usize::MAX).min(INLINE_BYTES);
    let mut head = render::response(&rt.header(ranged.revision), room + END_BYTES);
    if view.store.try_render(&ranged, INLINE_BYTES, head.body()).map_err(value_error)? {
        render::range_end(head.body(), ranged.more, count(&ranged));
        return Ok(Body::Whole(head));
    }
    Box::pin(long_answer(Rc::clone(rt), view, ranged, head.into_message())).await
}

/// An answer that must be waited for, or that comes in pieces.
async fn long_answer(
    rt: Rc<Runtime>,
    view: Arc<MemberView>,
    ranged: Ranged,
    head: Vec<u8>,
) -> Result<Body, Status> {
    let ranged = resolve(&rt, &view, ranged).await?;
    let mut tail = Vec::new();
    render::range_end(&mut tail, ranged.more, count(&ranged));
    let total = head.len() as u64 + ranged.body_bytes() + tail.len() as u64;
    if total > MAX_SEND_BYTES {
        let text =
            format!("grpc: trying to send message larger than max ({total} vs. {MAX_SEND_BYTES})");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    let body = view.store.body(ranged);
    Ok(Body::Pieces(Box::new(RangePieces {
        pin: Pin::new(&rt, view),
        rt,
        head: Some(head),
        body: Some(body),
        tail: Some(tail),
        remaining: total,
        large: None,
        end: None,
    })))
}

fn count(ranged: &Ranged) -> i64 {
    i64::try_from(ranged.count).expect("keys are counted in memory")
}

/// Finishes a plan that depends on values, on the pool.
pub(super) async fn resolve(
    rt: &Rc<Runtime>,
    view: &Arc<MemberView>,
    ranged: Ranged,
) -> Result<Ranged, Status> {
    if !ranged.needs_values() {
        return Ok(ranged);
    }
    let view = Arc::clone(view);
    let job = move |may: &env::MayBlock| view.store.resolve(may, ranged);
    rt.handle.pool.run(job).await.map_err(pool_refused)?.map_err(value_error)
}

/// A value that a plan named is gone, or the database failed.
pub(super) fn value_error(error: ValueError) -> Status {
    match error {
        ValueError::Compacted => ApiError::Compacted.into(),
        other => Status::new(Code::DataLoss, format!("etcdserver: {other}")),
    }
}

struct RangePieces {
    rt: Rc<Runtime>,
    pin: Pin,
    head: Option<Vec<u8>>,
    /// `None` while a piece is produced on the pool, and when that failed.
    body: Option<RangeBody>,
    tail: Option<Vec<u8>>,
    remaining: u64,
    /// Resolves when the last piece was written and its memory is free, if that was a large one.
    large: Option<oneshot::Receiver<()>>,
    /// The last bytes of that piece, which follow it.
    end: Option<Bytes>,
}

/// A large piece on its way; its memory is free when HTTP/2 has written the last of it.
struct Large {
    bytes: Vec<u8>,
    _permit: Permit,
    /// Dropped with the rest, which the receiver notices.
    _freed: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Pieces for RangePieces {
    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn next(&mut self) -> Local<'_, Result<Option<Bytes>, Status>> {
        Box::pin(async {
            if let Some(end) = self.end.take() {
                return Ok(Some(end));
            }
            let Some(mut body) = self.body.take() else {
                let tail = self.tail.take().filter(|tail| !tail.is_empty());
                self.remaining = 0;
                return Ok(tail.map(Bytes::from));
            };
            let mut out = self.head.take().unwrap_or_default();
            let view = self.pin.view();
            let is_long = self.remaining > LONG_BYTES;
            let mut piece = Ok(Piece::NeedsBlocking);
            if !is_long {
                piece = body.next(&view.store, PIECE_BYTES, &mut out);
            }
            let mut permit = None;
            if matches!(piece, Ok(Piece::NeedsBlocking)) {
                if let Some(freed) = self.large.take() {
                    // One large piece of an answer at a time.
                    let _ = freed.await;
                }
                let pool = &self.rt.handle.pool;
                permit = if is_long { pool.large_result() } else { None };
                let bytes = if permit.is_some() { WIDE_PIECE_BYTES } else { PIECE_BYTES };
                let job = move |may: &env::MayBlock| {
                    let piece = body.next_blocking(may, &view.store, bytes, &mut out);
                    (piece, body, out)
                };
                (piece, body, out) = pool.run(job).await.map_err(pool_refused)?;
            }
            if piece.map_err(value_error)? != Piece::Done {
                self.body = Some(body);
            }
            self.remaining = self.remaining.saturating_sub(out.len() as u64);
            let Some(permit) = permit else { return Ok(Some(out.into())) };
            let (freed, large) = oneshot::channel();
            self.large = Some(large);
            // h2 keeps the last bytes it wrote until it has others to write: a small end, sent
            // before anybody waits, lets it drop the rest.
            let end = out.split_off(out.len().saturating_sub(LARGE_END_BYTES));
            self.end = Some(end.into());
            let large = Large { bytes: out, _permit: permit, _freed: freed };
            Ok(Some(Bytes::from_owner(large)))
        })
    }
}

pub(super) async fn put(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: PutRequest = decode(message.clone())?;
    validate::put(&request)?;
    check_quota(rt, machine::command::put_cost(&request)).await?;
    if let Some(reading) = warm::put(rt, &request) {
        reading.await;
    }
    let outcome = rt.propose(CommandKind::Put, &unchanged(message, &request)).await?;
    let mut out = render::response(&rt.header(outcome.revision), 0);
    if let Reply::Put(reply) = outcome.reply? {
        render::put(out.body(), &reply);
    }
    Ok(Body::Whole(out))
}

pub(super) async fn delete(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: DeleteRangeRequest = decode(message.clone())?;
    validate::delete(&request)?;
    if let Some(reading) = warm::delete(rt, &request) {
        reading.await;
    }
    let outcome = rt.propose(CommandKind::DeleteRange, &unchanged(message, &request)).await?;
    let mut out = render::response(&rt.header(outcome.revision), 0);
    if let Reply::Delete(reply) = outcome.reply? {
        render::delete(out.body(), &reply);
    }
    Ok(Body::Whole(out))
}

pub(super) async fn txn(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    validate::txn_depth(&message, rt.handle.limits.max_txn_ops)?;
    let request: TxnRequest = decode(message.clone())?;
    validate::txn(&request, rt.handle.limits.max_txn_ops)?;
    if validate::is_read_only(&request) {
        let began = Instant::now();
        let answer = Box::pin(read_only_txn(rt, request)).await;
        rt.handle.metrics.read(Read::Txn, answer.is_ok(), began.elapsed());
        return answer;
    }
    let cost = machine::command::txn_cost(&request);
    if cost > 0 {
        check_quota(rt, cost).await?;
    }
    if let Some(reading) = warm::txn(rt, &request) {
        reading.await;
    }
    let outcome = rt.propose(CommandKind::Txn, &unchanged(message, &request)).await?;
    let mut out = render::response(&rt.header(outcome.revision), 0);
    if let Reply::Txn(reply) = outcome.reply? {
        render::txn(out.body(), &reply);
    }
    Ok(Body::Whole(out))
}

/// A transaction that only reads does not go through the log.
async fn read_only_txn(rt: &Rc<Runtime>, request: TxnRequest) -> Result<Body, Status> {
    let serializable = validate::is_serializable(&request);
    let view = if serializable { rt.view() } else { rt.linearizable_view().await? };
    let revision = view.store.revision();
    let job = move |may: &env::MayBlock| read_txn(may, &view, &request);
    let reply = rt.handle.pool.run(job).await.map_err(pool_refused)??;
    let mut out = render::response(&rt.header(revision), 0);
    render::txn(out.body(), &reply);
    Ok(Body::Whole(out))
}

/// Answers a transaction that only reads, from one View.
///
/// # Errors
/// etcd's, and the database's.
pub fn read_txn(
    may: &env::MayBlock,
    view: &MemberView,
    request: &TxnRequest,
) -> Result<TxnReply, Status> {
    let store = &view.store;
    let held = |compare| machine::kv::holds_in_view(store, may, compare).map_err(value_error);
    let mut succeeded = true;
    for compare in &request.compare {
        if !held(compare)? {
            succeeded = false;
            break;
        }
    }
    let ops = if succeeded { &request.success } else { &request.failure };
    let ranges = || {
        ops.iter().filter_map(|op| match &op.request {
            Some(Request::RequestRange(range)) => Some(range),
            _ => None,
        })
    };
    for range in ranges() {
        check_revision(range.revision, store.revision(), store.compact_revision())?;
    }
    let mut responses = Vec::new();
    for range in ranges() {
        let ranged = store.range(&query(range)).map_err(range_error)?;
        let ranged = store.resolve(may, ranged).map_err(value_error)?;
        let (more, count) = (ranged.more, count(&ranged));
        let mut kvs = Vec::new();
        let mut body = store.body(ranged);
        while body.next_blocking(may, store, usize::MAX, &mut kvs).map_err(value_error)?
            != Piece::Done
        {}
        let reply = RangeReply { kvs: kvs.into(), more, count };
        responses.push((store.revision(), OpReply::Range(reply)));
    }
    Ok(TxnReply { succeeded, responses })
}

pub(super) async fn compact(rt: &Rc<Runtime>, message: Bytes) -> Result<Body, Status> {
    let request: CompactionRequest = decode(message.clone())?;
    let outcome = rt.propose(CommandKind::Compaction, &unchanged(message, &request)).await?;
    outcome.reply?;
    if request.physical {
        rt.ask_applier(ApplierInput::AwaitCompaction).await?;
    }
    Ok(Body::Whole(render::response(&rt.header(outcome.revision), 0)))
}

/// Refuses a write that would cross the quota, before it reaches the log, and raises the alarm
/// (semantics I1).
//= etcd 3.7.1: server/etcdserver/api/v3rpc/quota.go#check
pub(super) async fn check_quota(rt: &Rc<Runtime>, cost: u64) -> Result<(), Status> {
    let Some(quota) = rt.handle.limits.quota() else { return Ok(()) };
    let size = rt.view().store.backend().map_or(0, bolt::ReadTx::size_bytes);
    if size.saturating_add(cost) < quota {
        return Ok(());
    }
    Box::pin(super::maintenance::raise_no_space(rt)).await;
    Err(ApiError::NoSpace.into())
}
