//! Making connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::address::Remote;
use crate::stream::{Socket, Stream};

/// Idle time after which the other end of a connection is asked whether it is still there.
//= etcd 3.7.3: client/pkg/transport/transport.go#NewTransport (KeepAlive)
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How connections are made.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    /// Time for a connection, with the look-up of its name; `None` waits as long as the system does.
    pub timeout: Option<Duration>,
    /// The address from which TCP connections leave.
    pub local_address: Option<IpAddr>,
}

/// Connects. Of a name's addresses the first that answers is taken.
///
/// # Errors
/// The last address's, the resolver's, or `TimedOut`.
pub async fn dial(dialer: &Dialer, remote: &Remote) -> io::Result<Stream> {
    let connect = async {
        let socket = match remote {
            Remote::Tcp(host) => Socket::Tcp(tcp(dialer, host).await?),
            Remote::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        };
        Ok(Stream::dialed(socket))
    };
    let Some(timeout) = dialer.timeout else { return connect.await };
    match tokio::time::timeout(timeout, connect).await {
        Ok(result) => result,
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("dial {remote}: i/o timeout")))
        }
    }
}

async fn tcp(dialer: &Dialer, host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address of {host}"));
    for address in tokio::net::lookup_host(host).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        keep_alive(SockRef::from(&socket), KEEPALIVE)?;
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

/// Finds out about an end that is gone without a word, after `idle` and nine questions more.
pub(crate) fn keep_alive(socket: SockRef<'_>, idle: Duration) -> io::Result<()> {
    /// Time between questions, Go's.
    const INTERVAL: Duration = Duration::from_secs(15);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(INTERVAL))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_are_kept_alive_and_not_delayed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = Dialer { timeout: Some(Duration::from_secs(5)), ..Dialer::default() };
        let stream = dial(&dialer, &Remote::Tcp(format!("localhost:{port}"))).await.unwrap();
        let Socket::Tcp(socket) = &stream.socket else { panic!("{stream:?}") };
        assert!(socket.nodelay().unwrap());
        assert_eq!(SockRef::from(socket).tcp_keepalive_time().unwrap(), KEEPALIVE);
    }

    #[tokio::test]
    async fn a_socket_file_is_dialed_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let mut stream = dial(&Dialer::default(), &Remote::Unix(path)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        let mut text = [0; 5];
        other.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[tokio::test]
    async fn nobody_there_is_the_systems_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = dial(&Dialer::default(), &Remote::Tcp(address)).await.unwrap_err();
        assert_eq!(osenv::error_text(&error), "connection refused");
    }
}
