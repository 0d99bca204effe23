//! Streams as calls see them: where messages come from, and where they go.
//!
//! The transport implements both ends. A sink takes bytes that are in their envelopes already, as
//! far as the client's window allows; what it does not take stays with the call.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use api::error::{Code, Status};
use bytes::Bytes;
use prost::Message;

use crate::answer::{Encoded, Local, envelope};
use crate::host::Measure;
use crate::member::Member;

/// The client has gone: its stream was reset, or the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The messages of a request.
pub trait Source {
    /// The next message; `None` at the client's half-close.
    ///
    /// # Errors
    /// The status to end the call with.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>>;
}

/// The messages of a response.
pub trait Sink {
    /// Sends of `sealed` what the window allows now; the rest stays in it.
    ///
    /// # Errors
    /// [`Gone`].
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone>;

    /// As [`Sink::try_send`], ready when nothing is left. Only the call's own task may wait here.
    fn poll_send(&self, cx: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>>;

    /// Whether messages go out uncompressed.
    fn is_plain(&self) -> bool;

    /// A message in its envelope, compressed as the call is. Only where [`Sink::is_plain`] is false.
    fn compress(&self, message: &[u8]) -> Bytes;

    /// Counts a message of this length, which goes out sealed.
    fn count(&self, bytes: usize);
}

/// The sink of a call. Copies lead to the same client.
pub type Out = Rc<dyn Sink>;

/// What ends a call whose client is gone.
pub(crate) fn context_canceled() -> Status {
    Status::new(Code::Canceled, "context canceled")
}

/// Counts a stream of `api` that ends for what came in. A client that is gone, or whose time is
/// over, is no failure.
//= etcd 3.7.3: server/etcdserver/api/v3rpc/util.go#isClientCtxErr
pub(crate) fn receive_failed(member: &Member, api: &'static str, why: &Status) {
    if !matches!(why.code, Code::Canceled | Code::DeadlineExceeded) {
        member.measure(Measure::ReceiveFailed(api));
    }
}

/// Waits for the next message.
pub(crate) async fn next(source: &mut dyn Source) -> Result<Option<Bytes>, Status> {
    poll_fn(|cx| source.poll_next(cx)).await
}

/// The next message if it has come already: `None` if one would have to wait for it.
pub(crate) async fn next_now(source: &mut dyn Source) -> Option<Result<Option<Bytes>, Status>> {
    poll_fn(|cx| {
        Poll::Ready(match source.poll_next(cx) {
            Poll::Ready(message) => Some(message),
            Poll::Pending => None,
        })
    })
    .await
}

/// A message in its envelope, counted.
pub(crate) fn seal(sink: &dyn Sink, message: &impl Message) -> Bytes {
    let encoded = Encoded::of(message);
    sink.count(encoded.message().len());
    if sink.is_plain() { encoded.seal() } else { sink.compress(encoded.message()) }
}

/// Appends a message in its envelope to others that go out together, counted.
pub(crate) fn seal_into(sink: &dyn Sink, out: &mut Vec<u8>, message: &impl Message) {
    let length = message.encoded_len();
    if !sink.is_plain() {
        out.extend_from_slice(&seal(sink, message));
        return;
    }
    sink.count(length);
    out.extend_from_slice(&envelope(length));
    message.encode_raw(out);
}

/// Sends bytes of messages that are in their envelopes, waiting for window as needed.
pub(crate) async fn send_sealed(sink: &dyn Sink, mut sealed: Bytes) -> Result<(), Gone> {
    poll_fn(|cx| sink.poll_send(cx, &mut sealed)).await
}

/// Sends one message, waiting for window as needed.
pub(crate) async fn send(sink: &dyn Sink, message: &impl Message) -> Result<(), Gone> {
    let sealed = seal(sink, message);
    send_sealed(sink, sealed).await
}

/// As [`send`], for answers that hold something of the database meanwhile: a client that takes
/// nothing for long is given up.
pub(crate) async fn send_to_reader(
    member: &Member,
    sink: &dyn Sink,
    message: &impl Message,
) -> Result<(), Status> {
    let mut sealed = seal(sink, message);
    let progress = member.shared.limits.reader_progress;
    let mut patience = member.sleep(progress);
    let mut left = sealed.len();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(sent) = sink.poll_send(cx, &mut sealed) {
                return Poll::Ready(sent.map_err(|Gone| context_canceled()));
            }
            if std::pin::Pin::new(&mut patience).poll(cx).is_pending() {
                return Poll::Pending;
            }
            if sealed.len() == left {
                return Poll::Ready(Err(stopped_reading()));
            }
            left = sealed.len();
            patience = member.sleep(progress);
        }
    })
    .await
}

/// What ends the call of a client that holds something and takes nothing.
#[must_use]
pub fn stopped_reading() -> Status {
    Status::new(Code::Canceled, "etcdserver: the client has stopped reading")
}

/// A stream's handler.
pub(crate) type Serving = Local<'static, Result<(), Status>>;
