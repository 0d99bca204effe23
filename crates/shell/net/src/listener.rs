//! Listening sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;
use crate::dialer::keep_alive;
use crate::limit::{Limit, Permit};
use crate::secure::{Handshake, Security};
use crate::stream::{Raw, Stream};

/// Pending connections per socket.
const BACKLOG: i32 = 4_096;
/// Idle time after which a client is asked whether it is still there.
//= etcd 3.7.3: client/pkg/transport/keepalive_listener.go#Accept
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What else may be bound to an address (`--socket-reuse-port`, `--socket-reuse-address`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Another socket that says the same, at the same time.
    pub port: bool,
    /// Connections of a listener before this one, which are not quite over. Go sets this option on
    /// every listener, so that an etcd can start again at once: the flag asks for what there is.
    pub address: bool,
}

/// A bound socket that is not yet served.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A socket file.
    Unix(StdUnixListener),
}

/// An address that cannot be had; shown as Go shows it.
#[derive(Debug)]
pub struct BindError {
    /// The address that could not be bound.
    pub address: Address,
    /// Why not.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listen {}: bind: {}", self.address, osenv::error_text(&self.error))
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Binds an address. A left-over socket file is replaced, as etcd does.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: &Address, reuse: Reuse) -> Result<Bound, BindError> {
    let bound = match address {
        Address::Tcp(tcp) => bind_tcp(*tcp, reuse).map(Bound::Tcp),
        Address::Unix(path) => match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => StdUnixListener::bind(path).map(Bound::Unix),
        },
    };
    bound.map_err(|error| BindError { address: address.clone(), error })
}

//= etcd 3.7.3: client/pkg/transport/sockopt_unix.go#setReusePort, #setReuseAddress
fn bind_tcp(address: SocketAddr, reuse: Reuse) -> io::Result<std::net::TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Whether `reuse.address` or not: see there.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse.port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Bound {
    /// The address it is bound to, for TCP.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }
}

/// A socket being served.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    limit: Limit,
    security: Security,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Serves a socket, as long as `limit` allows, with TLS or not. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(bound: Bound, limit: Limit, security: Security) -> io::Result<Self> {
        let socket = match bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Tcp(TcpListener::from_std(listener)?)
            }
            Bound::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Unix(UnixListener::from_std(listener)?)
            }
        };
        Ok(Self { socket, limit, security })
    }

    /// Waits until there may be another connection, and for it. One that has ended meanwhile does
    /// not count.
    ///
    /// # Errors
    /// The operating system's, such as no more descriptors: rest for a moment.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let permit = self.limit.permit().await;
        let (socket, from) = match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // These fail only if the client has already gone; its first read will show it.
                let _ = stream.set_nodelay(true);
                let _ = keep_alive(SockRef::from(&stream), KEEPALIVE);
                (Raw::Tcp(stream), Some(from))
            }
            Listening::Unix(listener) => (Raw::Unix(listener.accept().await?.0), None),
        };
        Ok(Accepted { socket, from, permit, security: self.security.clone() })
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    socket: Raw,
    /// Where it comes from, for TCP.
    pub from: Option<SocketAddr>,
    permit: Permit,
    security: Security,
}

/// An accepted connection on its way to another runtime.
#[derive(Debug)]
pub struct Detached {
    socket: DetachedSocket,
    from: Option<SocketAddr>,
    permit: Permit,
    security: Security,
}

#[derive(Debug)]
enum DetachedSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection that may be used, or the way there.
#[derive(Debug)]
pub enum Opened {
    /// Without TLS, and at once.
    Plain(Stream),
    /// With TLS: to be driven on the connection's own task.
    Handshake(Handshake),
}

impl Accepted {
    /// The connection, on the runtime that accepted it.
    #[must_use]
    pub fn open(self) -> Opened {
        let Self { socket, from, permit, security } = self;
        match security {
            Security::Plain => {
                Opened::Plain(Stream { socket: socket.into(), permit: Some(permit) })
            }
            security => Opened::Handshake(Handshake { socket, from, permit, security }),
        }
    }

    /// Takes the connection off its runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn detach(self) -> io::Result<Detached> {
        let Self { socket, from, permit, security } = self;
        let socket = match socket {
            Raw::Tcp(stream) => DetachedSocket::Tcp(stream.into_std()?),
            Raw::Unix(stream) => DetachedSocket::Unix(stream.into_std()?),
        };
        Ok(Detached { socket, from, permit, security })
    }
}

impl Detached {
    /// The connection on the runtime within which this is called.
    ///
    /// # Errors
    /// The operating system's.
    pub fn attach(self) -> io::Result<Accepted> {
        let Self { socket, from, permit, security } = self;
        let socket = match socket {
            DetachedSocket::Tcp(stream) => Raw::Tcp(TcpStream::from_std(stream)?),
            DetachedSocket::Unix(stream) => Raw::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Accepted { socket, from, permit, security })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::stream::Socket;

    fn plain(accepted: Accepted) -> Stream {
        match accepted.open() {
            Opened::Plain(stream) => stream,
            Opened::Handshake(handshake) => panic!("{handshake:?}"),
        }
    }

    fn loopback() -> Address {
        Address::Tcp(([127, 0, 0, 1], 0).into())
    }

    fn option(bound: &Bound, get: fn(&SockRef<'_>) -> io::Result<bool>) -> bool {
        let Bound::Tcp(listener) = bound else { panic!("{bound:?}") };
        get(&SockRef::from(listener)).unwrap()
    }

    #[test]
    fn addresses_are_reused_always_and_ports_when_asked() {
        for (port, address) in [(false, false), (false, true), (true, false), (true, true)] {
            let bound = bind(&loopback(), Reuse { port, address }).unwrap();
            assert!(option(&bound, |socket| socket.reuse_address()));
            assert_eq!(option(&bound, |socket| socket.reuse_port()), port);
        }
    }

    #[test]
    fn a_port_has_two_listeners_only_if_both_say_so() {
        let both = Reuse { port: true, address: false };
        let first = bind(&loopback(), both).unwrap();
        let same = Address::Tcp(first.local_addr().unwrap());
        bind(&same, both).unwrap();
        let error = bind(&same, Reuse::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("listen {same}: bind: address already in use"));
    }

    #[test]
    fn a_left_over_socket_file_is_replaced_but_not_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = Address::Unix(dir.path().join("socket"));
        drop(bind(&file, Reuse::default()).unwrap());
        bind(&file, Reuse::default()).unwrap();
        let error = bind(&Address::Unix(dir.path().to_owned()), Reuse::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("listen unix {}: bind: ", dir.path().display())));
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_until_one_ends() {
        let bound = bind(&loopback(), Reuse::default()).unwrap();
        let address = bound.local_addr().unwrap();
        let listener = Listener::new(bound, Limit::new(2), Security::Plain).unwrap();
        let connect = || tokio::net::TcpStream::connect(address);
        let _clients = (connect().await.unwrap(), connect().await.unwrap());
        let first = listener.accept().await.unwrap().detach().unwrap();
        let second = plain(listener.accept().await.unwrap());
        let mut waiting = connect().await.unwrap();
        let mut third = pin!(listener.accept());
        poll_fn(|cx| {
            assert!(third.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // A connection counts on its way between runtimes, too.
        drop((first.attach().unwrap(), second));
        drop(third.await.unwrap());
        assert_eq!(waiting.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn accepted_connections_are_kept_alive_and_not_delayed() {
        let bound = bind(&loopback(), Reuse::default()).unwrap();
        let address = bound.local_addr().unwrap();
        let listener = Listener::new(bound, Limit::new(1), Security::Plain).unwrap();
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let stream = plain(listener.accept().await.unwrap());
        let Socket::Tcp(socket) = &stream.socket else { panic!("{stream:?}") };
        assert!(socket.nodelay().unwrap());
        assert_eq!(SockRef::from(socket).tcp_keepalive_time().unwrap(), KEEPALIVE);
    }
}
