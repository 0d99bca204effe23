//! Long range responses: those that are read from the disk, or sent in pieces.

use std::rc::Rc;
use std::sync::Arc;

use api::error::{Code, Status};
use bytes::Bytes;
use env::buggify;
use futures_channel::oneshot;
use member::MemberView;
use store::{Piece, RangeBody, Ranged};
use types::limits::MAX_SEND_BYTES;

use crate::answer::{Body, Local, Pieces};
use crate::caller::Allowed;
use crate::jobs::Permit;
use crate::kv::{count, resolve, value_error};
use crate::member::Member;
use crate::pin::Pin;
use crate::render;

/// Bytes of a piece of a list.
const PIECE_BYTES: usize = 128 * 1024;
/// The same, if the simulator wants to see what a list of many pieces meets.
const ODD_PIECE_BYTES: usize = 128;
/// Bytes of an answer that is read on the pool from the start: there it is read in the order of
/// pages.
const LONG_BYTES: u64 = 1 << 20;
/// Bytes of a piece of a long answer, if [`crate::jobs::LargeResults`] allows it. Values of
/// neighbouring keys lie anywhere in the database: a piece of a long list reads a part of all its
/// pages, so fewer pieces are fewer readings of the database.
const WIDE_PIECE_BYTES: usize = 40 << 20;
/// Bytes at the end of a large piece that are sent apart: a frame.
const LARGE_END_BYTES: usize = 16 << 10;

/// An answer that must be waited for, or that comes in pieces.
pub(crate) async fn answer(
    member: Rc<Member>,
    (view, allowed): (Arc<MemberView>, Allowed),
    ranged: Ranged,
    head: Vec<u8>,
) -> Result<Body, Status> {
    let ranged = resolve(&member, &view, ranged).await?;
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
        pin: Pin::new(&member, view, allowed),
        member,
        head: Some(head),
        body: Some(body),
        tail: Some(tail),
        remaining: total,
        large: None,
        end: None,
    })))
}

struct RangePieces {
    member: Rc<Member>,
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
            let is_odd = buggify!(self.member.shared.hooks, "calls: a piece of a few bytes");
            let piece_bytes = if is_odd { ODD_PIECE_BYTES } else { PIECE_BYTES };
            let mut piece = Ok(Piece::NeedsBlocking);
            if !is_long {
                piece = body.next(&view.store, piece_bytes, &mut out);
            }
            let mut permit = None;
            if matches!(piece, Ok(Piece::NeedsBlocking)) {
                if let Some(freed) = self.large.take() {
                    // One large piece of an answer at a time.
                    let _ = freed.await;
                }
                permit = if is_long { self.member.shared.large.take() } else { None };
                let bytes = if permit.is_some() { WIDE_PIECE_BYTES } else { piece_bytes };
                let job = move |may: &env::MayBlock| {
                    let piece = body.next_blocking(may, &view.store, bytes, &mut out);
                    (piece, body, out)
                };
                (piece, body, out) = self.member.run(job).await?;
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
