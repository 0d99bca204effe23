//! Answers to unary calls that take more than one wait, or come in pieces.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use ::grpc::envelope::prefix;
use api::error::Status;
use bytes::{Bytes, BytesMut};
use calls::{Body, Gone, Pieces, Sink};
use tokio::time::Instant;

use super::stream::{self, Channel, context_canceled};
use crate::{Dispatch, Local};

/// Pieces of long answers that the calls of a connection hold for their client at once. One that is
/// fetched stays until it was taken, and has 128 KiB or one value: what a client that reads slowly
/// makes us hold does not grow with its calls.
const PIECES: usize = 32;

/// Waits for the response and sends it.
pub(super) async fn answer<D: Dispatch>(
    dispatch: Rc<D>,
    channel: Rc<Channel>,
    waiting: Local<'static, Result<Body, Status>>,
    deadline: Option<Instant>,
) {
    let work = async {
        match waiting.await? {
            Body::Whole(message) => channel.send_whole(message),
            Body::Pieces(pieces) => Box::pin(send_pieces(&channel, pieces)).await?,
        }
        Ok(())
    };
    stream::run(&*dispatch, &channel, pin!(work), deadline).await;
}

async fn send_pieces(channel: &Channel, mut pieces: Box<dyn Pieces>) -> Result<(), Status> {
    let turns = channel.turns(PIECES);
    if channel.is_plain() {
        channel.begin_pieces();
        let length = usize::try_from(pieces.remaining()).unwrap_or(usize::MAX);
        channel.count_sent(length);
        channel.send_to_reader(Bytes::copy_from_slice(&prefix(length))).await?;
        loop {
            let _turn = turns.acquire().await;
            let Some(piece) = pieces.next().await? else { break };
            channel.send_to_reader(piece).await?;
        }
        channel.end_pieces();
        return Ok(());
    }
    let _turn = turns.acquire().await;
    // gzip needs the whole message: its length in the envelope is not known before.
    let mut message = BytesMut::new();
    while let Some(piece) = pieces.next().await? {
        message.extend_from_slice(&piece);
    }
    channel.count_sent(message.len());
    let mut sealed = channel.compress(&message);
    let sending = poll_fn(|cx| channel.poll_send(cx, &mut sealed));
    sending.await.map_err(|_: Gone| context_canceled())
}
