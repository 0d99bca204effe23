//! Sockets: listening, dialling, and how long one may do nothing.
//!
//! Owns the one place where a socket becomes a [`Stream`] ([`dial`], [`Listening::accept`]): TLS is
//! wrapped around it there.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, Sleep};

use types::{Scheme, Url};

/// A bound socket on which peers are served.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A socket file.
    Unix(std::os::unix::net::UnixListener),
}

/// A socket being served.
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// Must be called within a runtime.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
        })
    }

    /// The next connection and, of TCP, where it comes from.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(from)))
            }
            Self::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How connections to peers are made.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// Time for a connection, with the look-up of its name.
    pub(crate) timeout: Duration,
    /// The address from which TCP connections leave.
    pub(crate) local_address: Option<IpAddr>,
}

/// Connects to a peer.
pub(crate) async fn dial(dialer: &Dialer, url: &Url) -> io::Result<Stream> {
    let connect = async {
        match url.scheme() {
            Scheme::Http => tcp(dialer, url.host()).await.map(Stream::Tcp),
            Scheme::Unix => UnixStream::connect(url.host()).await.map(Stream::Unix),
            Scheme::Https | Scheme::Unixs => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("peers with TLS are not supported: {url}"),
            )),
        }
    };
    match tokio::time::timeout(dialer.timeout, connect).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("dial {url}: i/o timeout"))),
    }
}

async fn tcp(dialer: &Dialer, host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address of {host}"));
    for address in tokio::net::lookup_host(host).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_keepalive(true)?;
        if let Some(local) = dialer.local_address
            && local.is_ipv4() == address.is_ipv4()
        {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A deadline that is set anew whenever something moved.
#[derive(Debug)]
struct Patience {
    limit: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Patience {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None, waiting: false }
    }

    fn watch<T>(&mut self, poll: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some(limit) = self.limit else { return poll };
        if poll.is_ready() {
            self.waiting = false;
            return poll;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.waiting {
            timer.as_mut().reset(Instant::now() + limit);
            self.waiting = true;
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A connection whose reads and writes fail if one of them waits too long.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: Stream,
    read: Patience,
    write: Patience,
}

impl Timed {
    /// `None` waits for ever.
    pub(crate) fn new(stream: Stream, read: Option<Duration>, write: Option<Duration>) -> Self {
        Self { stream, read: Patience::new(read), write: Patience::new(write) }
    }
}

macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = on_stream!(self, stream => Pin::new(stream).poll_read(cx, buf));
        self.read.watch(poll, cx)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = on_stream!(self, stream => Pin::new(stream).poll_write(cx, data));
        self.write.watch(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = on_stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        self.write.watch(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
