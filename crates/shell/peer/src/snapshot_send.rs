//! Sending a snapshot: a request whose body is the message and then the database.
//!
//! Invariants: the database is read on a thread for files, [`CHUNKS`] pieces ahead of the socket at
//! most; a peer that takes nothing for [`STALL`] lets go of the transaction.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/snapshot_sender.go#snapshotSender

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use env::MayBlock;
use hyper::body::Frame;
use raft::{Body, Message};
use tokio::sync::{mpsc, oneshot};

use crate::codec::encode_message;
use crate::core::{Core, Peer};
use crate::event::{Channel, Event};
use crate::link::{Link, read_body};
use crate::pipeline::{judge, post_request};
use crate::reader::describe;
use types::Url;

/// Snapshots on their way at once.
//= etcd 3.7.1: server/etcdserver/raft.go#maxInFlightMsgSnap
const MAX_SNAPSHOTS: usize = 16;
/// Bytes of a piece.
const CHUNK_BYTES: u64 = 128 * 1024;
/// Pieces that wait for the socket.
const CHUNKS: usize = 4;
/// Time after which a peer that takes nothing is given up. Ours: etcd waits for ever.
const STALL: Duration = Duration::from_secs(types::limits::READER_PROGRESS_SECS);
/// Time for the peer to sync what it has. Ours: etcd waits for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for the rest of an answer that has begun.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer, which is a text if any.
const ANSWER_BYTES: usize = 64 * 1024;

/// Counts snapshots on their way.
#[derive(Debug, Default)]
pub(crate) struct SnapshotSlots(Cell<usize>);

impl SnapshotSlots {
    /// Takes a slot; whether there was one.
    pub(crate) fn take(&self) -> bool {
        let free = self.0.get() < MAX_SNAPSHOTS;
        if free {
            self.0.set(self.0.get() + 1);
        }
        free
    }
}

/// Gives the slot back, also if the task is dropped, and then says that nothing arrived.
struct Flight {
    core: Rc<Core>,
    peer: types::MemberId,
    told: bool,
}

impl Flight {
    fn tell(&mut self, arrived: bool) {
        self.told = true;
        self.core.member.snapshot_sent(self.peer, arrived);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let slots = &self.core.snapshots_out.0;
        slots.set(slots.get() - 1);
        if !self.told {
            self.core.member.snapshot_sent(self.peer, false);
        }
    }
}

/// Sends a snapshot and tells what became of it. The caller has taken a slot.
pub(crate) async fn send(core: Rc<Core>, peer: Rc<Peer>, message: Message, db: bolt::ReadTx) {
    let mut flight = Flight { core: Rc::clone(&core), peer: peer.id, told: false };
    let Body::Snapshot { meta, .. } = &message.body else { unreachable!("checked by the caller") };
    let index = meta.index;
    let mut head = BytesMut::new();
    encode_message(&message, &mut head);
    let bytes = head.len() as u64 - 8 + db.file_len_of_snapshot();
    core.event(Event::SnapshotSending { peer: peer.id, index, bytes });
    let began = Instant::now();
    let url = peer.picker.pick();
    let outcome = post(&core, &peer, &url, head.freeze(), db).await;
    let failed = outcome.as_ref().err().map(String::as_str);
    let took = began.elapsed();
    core.event(Event::SnapshotSent { peer: peer.id, index, bytes, took, failed });
    match &outcome {
        Ok(()) => {
            core.activate(peer.id);
            core.event(Event::Sent(peer.id, bytes));
        }
        Err(reason) => {
            peer.picker.failed(&url);
            core.deactivate(peer.id, Channel::Snapshot, "post", reason);
            core.event(Event::SendFailed(peer.id, Channel::Snapshot));
            core.member.unreachable(peer.id);
        }
    }
    flight.tell(outcome.is_ok());
}

async fn post(
    core: &Core,
    peer: &Peer,
    url: &Url,
    head: Bytes,
    db: bolt::ReadTx,
) -> Result<(), String> {
    let text = |error: crate::link::LinkError| describe(&*error);
    let mut link = Link::open(&core.dialer, url, None, Some(STALL)).await.map_err(text)?;
    let left = db.file_len_of_snapshot();
    let (sender, chunks) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || read_out(&MayBlock::on_this_thread(), &db, &sender));
    let (unfinished, finished) = oneshot::channel();
    let body = SnapshotBody { head: Some(head), chunks, left, _unfinished: unfinished };
    let request = post_request(core, "/raft/snapshot", "application/octet-stream", body);
    // The time for the answer begins when the body is taken; until then each piece has its own.
    let too_late = async {
        let _ = finished.await;
        tokio::time::sleep(ANSWER_TIMEOUT).await;
    };
    let answer = tokio::select! {
        answer = link.send(request) => answer.map_err(text)?,
        () = too_late => return Err("no answer in time".to_owned()),
    };
    let (head, body) = answer.into_parts();
    let body = link.drive(tokio::time::timeout(BODY_TIMEOUT, read_body(body, ANSWER_BYTES))).await;
    let body = body.map_err(|_| "no answer in time".to_owned())?.map_err(text)?;
    judge(core, peer.id, head.status, &body)
}

type Chunk = Result<Bytes, bolt::ReadError>;

fn read_out(may: &MayBlock, db: &bolt::ReadTx, sender: &mpsc::Sender<Chunk>) {
    let total = db.file_len_of_snapshot();
    let mut at = 0;
    while at < total {
        let mut chunk = vec![0; CHUNK_BYTES.min(total - at) as usize];
        let read = db.read_snapshot(may, at, &mut chunk);
        at += chunk.len() as u64;
        let failed = read.is_err();
        if sender.blocking_send(read.map(|()| chunk.into())).is_err() || failed {
            return;
        }
    }
}

/// The message, then the database.
pub(crate) struct SnapshotBody {
    head: Option<Bytes>,
    chunks: mpsc::Receiver<Chunk>,
    /// Bytes of the database that are still to come: a body that ends before is broken off, or the
    /// peer would take a part for the whole.
    left: u64,
    /// Dropped with the body.
    _unfinished: oneshot::Sender<()>,
}

impl hyper::body::Body for SnapshotBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        let chunk = match ready!(self.chunks.poll_recv(cx)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            None if self.left > 0 => {
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            None => return Poll::Ready(None),
        };
        self.left = self.left.saturating_sub(chunk.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_database_that_was_not_read_to_its_end_breaks_the_body_off() {
        for (pieces, is_whole) in [(2, true), (1, false)] {
            let (sender, chunks) = mpsc::channel(CHUNKS);
            let (unfinished, _finished) = oneshot::channel();
            let head = Some(Bytes::from_static(b"head"));
            let body = SnapshotBody { head, chunks, left: 6, _unfinished: unfinished };
            for _ in 0..pieces {
                sender.send(Ok(Bytes::from_static(b"abc"))).await.expect("there is room");
            }
            drop(sender);
            assert_eq!(body.collect().await.is_ok(), is_whole);
        }
    }
}
