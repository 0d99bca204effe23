//! Making connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tls::{ClientTls, HANDSHAKE_TIMEOUT, Notify, Session, Spoken, TlsInfo};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::address::Remote;
use crate::stream::{Raw, Secured, Socket, Stream, in_words};

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
    /// How TLS is spoken with those who are reached over it. Without it whom the system trusts is
    /// believed, which is read from its files at each connection.
    pub tls: Option<ClientTls>,
}

/// Connects. Of a name's addresses the first that answers is taken.
///
/// # Errors
/// The last address's, the resolver's, the handshake's in Go's words, or `TimedOut`.
pub async fn dial(dialer: &Dialer, remote: &Remote) -> io::Result<Stream> {
    let connect = async {
        let socket = match remote {
            Remote::Tcp(host) | Remote::Tls(host) => Raw::Tcp(tcp(dialer, host).await?),
            Remote::Unix(path) | Remote::UnixTls(path) => {
                Raw::Unix(UnixStream::connect(path).await?)
            }
        };
        let socket = match remote.secured_host() {
            None => socket.into(),
            // Boxed: a connection without TLS does not hold its memory.
            Some(host) => Box::pin(secure(dialer, socket, host)).await?,
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

async fn secure(dialer: &Dialer, socket: Raw, host: &str) -> io::Result<Socket> {
    let tls = match &dialer.tls {
        Some(tls) => tls.clone(),
        None => ClientTls::new(&TlsInfo::default(), Spoken::Unsaid, Notify::none())
            .map_err(io::Error::other)?,
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.connect(socket, host)).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "net/http: TLS handshake timeout");
    let stream = handshake.map_err(late)?.map_err(in_words)?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let session = Session { http2, agreed: http2, ..Session::default() };
    Ok(Socket::Tls(Box::new(Secured { stream: stream.into(), session, watched: None })))
}

/// The addresses of `host:port`. A name that ends with a dot, as DNS gives them, may be one of the
/// system's file of hosts, which has none.
///
/// # Errors
/// The resolver's.
//= go 1.26: src/net/hosts.go#lookupStaticHost
pub async fn look_up(host: &str) -> io::Result<Vec<SocketAddr>> {
    match (tokio::net::lookup_host(host).await, host.rsplit_once(".:")) {
        (Err(_), Some((name, port))) => {
            let bare = format!("{name}:{port}");
            Ok(tokio::net::lookup_host(bare).await?.collect())
        }
        (found, _) => Ok(found?.collect()),
    }
}

async fn tcp(dialer: &Dialer, host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no address of {host}"));
    for address in look_up(host).await? {
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
    async fn a_name_may_end_with_a_dot() {
        let plain = look_up("localhost:7").await.unwrap();
        assert!(!plain.is_empty());
        assert_eq!(look_up("localhost.:7").await.unwrap(), plain);
        assert!(look_up("nowhere.invalid.:7").await.is_err());
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
