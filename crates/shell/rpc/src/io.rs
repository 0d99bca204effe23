//! The socket under an HTTP/2 connection: one write per poll.
//!
//! h2 hands out many small pieces; written one by one they cost 15-19 µs per request, gathered
//! 4 µs. [`Corked`] keeps what h2 writes in a buffer and [`Uncork`], which polls the connection,
//! sends it afterwards. Invariant: after a poll of [`Uncork`] nothing is left in the buffer unless
//! the socket is full, and then the task will be woken when it is not.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ping::Sniffer;

/// Bytes gathered before a write is made within a poll; also what one connection may buffer.
const CORK_BYTES: usize = 256 * 1024;
/// What the buffer keeps between polls.
const KEEP_BYTES: usize = 16 * 1024;

struct Inner<S> {
    socket: RefCell<S>,
    buffer: RefCell<BytesMut>,
    incoming: RefCell<Sniffer>,
    outgoing: RefCell<Sniffer>,
    /// Whether a HEADERS or DATA frame was written since the last PING was read.
    answered: Cell<bool>,
    pings: RefCell<Vec<Answered>>,
}

/// Whether HEADERS or DATA left between a PING and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Yes,
    No,
}

/// PINGs that are noted between two looks at them. A client that sends more at once has enough
/// strikes with these, or is allowed any number.
const PINGS_NOTED: usize = 64;

/// What h2 sees as its socket.
pub(crate) struct Corked<S>(Rc<Inner<S>>);

/// The other end of it, for the task that polls the connection.
pub(crate) struct Cork<S>(Rc<Inner<S>>);

pub(crate) fn cork<S>(socket: S) -> (Corked<S>, Cork<S>) {
    let inner = Rc::new(Inner {
        socket: RefCell::new(socket),
        buffer: RefCell::new(BytesMut::new()),
        incoming: RefCell::new(Sniffer::of_client()),
        outgoing: RefCell::new(Sniffer::of_server()),
        answered: Cell::new(false),
        pings: RefCell::new(Vec::new()),
    });
    (Corked(Rc::clone(&inner)), Cork(inner))
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = self.buffer.borrow_mut();
        let mut socket = self.socket.borrow_mut();
        while !buffer.is_empty() {
            match Pin::new(&mut *socket).poll_write(cx, &buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => buffer.advance(n),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if buffer.capacity() > KEEP_BYTES {
            *buffer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Inner<S> {
    /// Whether the client was answered is settled as a PING is read: what h2 writes behind its
    /// acknowledgement, even in the same poll, forgives the next one.
    fn note_pings(&self, count: u32) {
        let mut pings = self.pings.borrow_mut();
        for _ in 0..count {
            if pings.len() < PINGS_NOTED {
                pings.push(if self.answered.take() { Answered::Yes } else { Answered::No });
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut *self.0.socket.borrow_mut()).poll_read(cx, buf);
        let pings = self.0.incoming.borrow_mut().pings(&buf.filled()[before..]);
        if pings > 0 {
            self.0.note_pings(pings);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.buffer.borrow().len() > CORK_BYTES {
            std::task::ready!(self.0.poll_send(cx))?;
        }
        let mut buffer = self.0.buffer.borrow_mut();
        let mut outgoing = self.0.outgoing.borrow_mut();
        for buf in bufs {
            if outgoing.has_answer(buf) {
                self.0.answered.set(true);
            }
            buffer.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bufs.iter().map(|b| b.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.0.poll_send(cx))?;
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// PINGs read since the last call, in order.
    pub(crate) fn take_pings(&self) -> Vec<Answered> {
        self.0.pings.take()
    }

    /// Appends bytes behind all that h2 wrote; between two polls that is a frame boundary.
    pub(crate) fn append(&self, bytes: &[u8]) {
        self.0.buffer.borrow_mut().extend_from_slice(bytes);
    }

    /// Sends what is buffered.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send(cx)
    }

    /// Polls `connection` and then sends what it wrote; the socket's error ends it.
    pub(crate) fn poll<F: Future + Unpin>(
        &self,
        connection: &mut F,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<F::Output>> {
        let polled = Pin::new(connection).poll(cx);
        if let Poll::Ready(Err(e)) = self.0.poll_send(cx) {
            return Poll::Ready(Err(e));
        }
        polled.map(Ok)
    }
}

impl<S> Clone for Cork<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::ping::PREFACE;

    /// A frame of this type with `payload` bytes.
    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut out = vec![0, (payload >> 8) as u8, payload as u8, kind, 0, 0, 0, 0, 1];
        out.resize(9 + payload, 0);
        out
    }

    /// What the client sends, read by the server.
    async fn pass(client: &mut DuplexStream, corked: &mut Corked<DuplexStream>, bytes: &[u8]) {
        client.write_all(bytes).await.unwrap();
        corked.read_exact(&mut vec![0; bytes.len()]).await.unwrap();
    }

    /// A long answer leaves piece by piece, as the window allows: each piece forgives the PING
    /// that comes behind it, not only the first.
    #[tokio::test]
    async fn each_frame_of_an_answer_forgives_the_next_ping() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (mut corked, cork) = cork(server);
        pass(&mut client, &mut corked, PREFACE).await;
        for answer in [frame(1, 20), frame(0, 16_384), frame(0, 16_384), frame(1, 3)] {
            // The head of a DATA frame and its payload come as two buffers.
            let (head, payload) = answer.split_at(9);
            let bufs = [io::IoSlice::new(head), io::IoSlice::new(payload)];
            assert_eq!(corked.write_vectored(&bufs).await.unwrap(), answer.len());
            pass(&mut client, &mut corked, &frame(6, 8)).await;
            assert_eq!(cork.take_pings(), [Answered::Yes]);
        }
        // An acknowledgement, SETTINGS and a window forgive nothing.
        corked.write_all(&[frame(6, 8), frame(4, 0), frame(8, 4)].concat()).await.unwrap();
        pass(&mut client, &mut corked, &[frame(6, 8), frame(6, 8)].concat()).await;
        assert_eq!(cork.take_pings(), [Answered::No, Answered::No]);
    }

    #[tokio::test]
    async fn what_is_written_behind_a_ping_forgives_the_next_one() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (mut corked, cork) = cork(server);
        pass(&mut client, &mut corked, &[PREFACE, &frame(6, 8)].concat()).await;
        corked.write_all(&frame(0, 100)).await.unwrap();
        pass(&mut client, &mut corked, &frame(6, 8)).await;
        assert_eq!(cork.take_pings(), [Answered::No, Answered::Yes]);
    }
}
