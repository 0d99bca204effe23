//! A connection, whatever it runs over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tls::{Session, TlsStream, error_text};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::limit::Permit;
use crate::watched::Watched;

/// A connection. It counts against the limit of its listener while it lives.
#[derive(Debug)]
pub struct Stream {
    pub(crate) socket: Socket,
    #[expect(dead_code, reason = "it counts while it lives")]
    pub(crate) permit: Option<Permit>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed, so that connections without TLS are as small as they can be.
    Tls(Box<Secured>),
}

/// A connection over TLS.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<Raw>,
    pub(crate) session: Session,
    /// Of a client whose certificate may be taken back.
    pub(crate) watched: Option<Watched>,
}

/// What TLS runs over.
#[derive(Debug)]
pub(crate) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// A connection that no listener counts.
    pub(crate) fn dialed(socket: Socket) -> Self {
        Self { socket, permit: None }
    }

    /// Fails once the certificate of the client was taken back.
    fn poll_standing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tls(secured) => secured.watched.as_mut().map_or(Ok(()), |w| w.poll(cx)),
            Socket::Tcp(_) | Socket::Unix(_) => Ok(()),
        }
    }

    /// What TLS says of the connection; `None` without TLS.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match &self.socket {
            Socket::Tls(secured) => Some(&secured.session),
            Socket::Tcp(_) | Socket::Unix(_) => None,
        }
    }
}

impl From<Raw> for Socket {
    fn from(raw: Raw) -> Self {
        match raw {
            Raw::Tcp(stream) => Self::Tcp(stream),
            Raw::Unix(stream) => Self::Unix(stream),
        }
    }
}

/// Errors of TLS in Go's words; those of the system are left as they are.
pub(crate) fn in_words(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() || error.get_ref().is_none() {
        return error;
    }
    io::Error::new(error.kind(), error_text(&error))
}

fn worded<T>(poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    poll.map_err(in_words)
}

/// The calls of a stream's traits, led to the variant that it has.
macro_rules! on_socket {
    ($self:ident, $socket:ident => $call:expr) => {
        match &mut $self.socket {
            Socket::Tcp($socket) => $call,
            Socket::Unix($socket) => $call,
            Socket::Tls(secured) => {
                let $socket = &mut secured.stream;
                worded($call)
            }
        }
    };
}

macro_rules! on_raw {
    ($self:ident, $socket:ident => $call:expr) => {
        match &mut *$self {
            Raw::Tcp($socket) => $call,
            Raw::Unix($socket) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_standing(cx)?;
        on_socket!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_standing(cx)?;
        on_socket!(self, socket => Pin::new(socket).poll_write(cx, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_standing(cx)?;
        on_socket!(self, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}

impl AsyncRead for Raw {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_raw!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_raw!(self, socket => Pin::new(socket).poll_write(cx, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_raw!(self, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_raw!(self, socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_raw!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}
