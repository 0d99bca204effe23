//! From an accepted socket to a connection over TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tls::{HANDSHAKE_TIMEOUT, Rejected, ServerTls};
use tokio::io::Interest;

use crate::limit::Permit;
use crate::stream::{Raw, Secured, Socket, Stream};
use crate::watched::Watched;

/// The first byte of TLS: a record of the handshake.
//= RFC 8446, 5.1
const HANDSHAKE_RECORD: u8 = 22;
/// Time for the first byte where it decides whether TLS is spoken.
//= etcd 3.7.3: server/embed/serve.go#serve (ReadHeaderTimeout)
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(300);

/// What a listener's connections speak.
#[derive(Clone, Debug)]
pub enum Security {
    /// No TLS.
    Plain,
    /// TLS.
    Tls(ServerTls),
    /// Either, as the first byte says: the same address was named with both kinds of URLs.
    Either(ServerTls),
}

/// An accepted connection that is not yet secure.
#[derive(Debug)]
pub struct Handshake {
    pub(crate) socket: Raw,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) permit: Permit,
    pub(crate) security: Security,
}

/// A connection that is not served, and where it came from.
#[derive(Debug)]
pub struct Refused {
    /// Why not.
    pub why: Rejected,
    /// Where it came from, for TCP.
    pub from: Option<SocketAddr>,
}

impl Handshake {
    /// Makes the connection secure. Boxed: it needs memory only until it is over.
    ///
    /// # Errors
    /// It is not to be served.
    #[must_use]
    pub fn run(self) -> Pin<Box<dyn Future<Output = Result<Stream, Refused>> + Send>> {
        Box::pin(async move {
            let Self { socket, from, permit, security } = self;
            let permit = Some(permit);
            let tls = match security {
                Security::Plain => return Ok(Stream { socket: socket.into(), permit }),
                Security::Tls(tls) => match first_byte(&socket, HANDSHAKE_TIMEOUT).await {
                    // Whoever does not speak TLS is told nothing, as in Go.
                    Ok(Some(byte)) if byte != HANDSHAKE_RECORD => {
                        return Err(Refused { why: Rejected::not_tls(), from });
                    }
                    Ok(_) => tls,
                    Err(error) => return Err(Refused { why: Rejected::failed(&error), from }),
                },
                Security::Either(tls) => match first_byte(&socket, FIRST_BYTE_TIMEOUT).await {
                    Ok(Some(HANDSHAKE_RECORD)) => tls,
                    // Whoever left without a word is told apart by whoever reads next.
                    Ok(_) => return Ok(Stream { socket: socket.into(), permit }),
                    Err(error) => return Err(Refused { why: Rejected::failed(&error), from }),
                },
            };
            // Boxed, so that whoever says nothing holds no memory for what he might have said.
            match Box::pin(tls.accept(socket, from)).await {
                Ok((stream, session)) => {
                    let watched = tls.standing(&stream).map(Watched::new);
                    let secured = Secured { stream: stream.into(), session, watched };
                    Ok(Stream { socket: Socket::Tls(Box::new(secured)), permit })
                }
                Err(why) => Err(Refused { why, from }),
            }
        })
    }
}

/// The first byte of a connection, which is left where it is; `None` at its end.
async fn first_byte(socket: &Raw, limit: Duration) -> io::Result<Option<u8>> {
    let first = async {
        loop {
            let peeked = match socket {
                Raw::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || peek(stream))
                }
                Raw::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || peek(stream))
                }
            };
            match peeked {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
    tokio::time::timeout(limit, first).await.map_err(late)?
}

/// The first byte that waits; `None` at the end.
fn peek(socket: impl std::os::fd::AsFd) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let read = recv(socket, &mut byte, RecvFlags::PEEK)?;
    Ok((read.0 > 0).then_some(byte[0]))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn the_first_byte_tells_and_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for first in [&b"\x16\x03\x01"[..], b"GET ", b""] {
            let address = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(first).await.unwrap();
            client.shutdown().await.unwrap();
            let raw = Raw::Tcp(listener.accept().await.unwrap().0);
            for _ in 0..2 {
                let byte = first_byte(&raw, HANDSHAKE_TIMEOUT).await.unwrap();
                assert_eq!(byte, first.first().copied());
            }
        }
    }
}
