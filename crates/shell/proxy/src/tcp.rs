//! A proxy for TCP: each connection goes to a remote that answers, and bytes go both ways.
//!
//! Threads share one listening socket and the table of remotes; a connection stays on the thread
//! that took it. An end of one direction is passed on and leaves the other open, so that a client
//! which has said everything still hears the answer (etcd's proxy closes both).
//!
//! Limits: connections by the descriptors of the process, two for each; 64 KiB of bytes under way
//! per direction; [`DIAL_TIMEOUT`] to reach a remote. Who is gone without a word is noticed by TCP's
//! keep-alive.
//= etcd 3.7.3: server/proxy/tcpproxy/userspace.go#TCPProxy

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cli::text::show_duration;
use net::{Accepted, Bound, Dialer, Limit, Listener, Opened, Remote, Security, Stream};
use observe::{Log, log_line};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::runtime::Builder;

use crate::pick::{Remotes, Target};

/// How long a remote may take to answer. etcd's waits as long as the system does, two minutes.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes under way in one direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;
/// Rest after a connection that could not be accepted, as when descriptors run out.
const REST: Duration = Duration::from_millis(50);
/// Threads at most.
const MAX_THREADS: usize = 16;

/// A proxy, as its threads share it.
#[derive(Debug)]
pub struct Proxy {
    remotes: Remotes,
    /// After how long remotes that did not answer are tried again.
    retry: Duration,
}

impl Proxy {
    /// A proxy to these targets.
    #[must_use]
    pub fn new(targets: Vec<Target>, retry: Duration) -> Self {
        Self { remotes: Remotes::new(targets, osenv::seed()), retry }
    }

    /// Serves a socket on as many threads as there are cores. Comes back only if it cannot.
    ///
    /// # Errors
    /// The operating system's, for a thread, a runtime or the socket.
    pub fn serve(self, bound: Bound, connections: usize, log: &Arc<Log>) -> io::Result<()> {
        let Bound::Tcp(socket) = bound else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not a TCP socket"));
        };
        let addresses: Vec<String> = self.remotes.targets().iter().map(Target::address).collect();
        log_line!(log, Info, "ready to proxy client requests", "endpoints" = addresses);
        let (proxy, limit) = (Arc::new(self), Limit::new(connections));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 1..cores.min(MAX_THREADS) {
            let bound = Bound::Tcp(socket.try_clone()?);
            let (proxy, limit, log) = (Arc::clone(&proxy), limit.clone(), Arc::clone(log));
            let name = format!("gateway-{number}");
            std::thread::Builder::new().name(name).spawn(move || {
                Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .and_then(|runtime| runtime.block_on(proxy.accept(bound, limit, &log)))
            })?;
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::spawn(watch_over(Arc::clone(&proxy), Arc::clone(log)));
            proxy.accept(Bound::Tcp(socket), limit, log).await
        })
    }

    async fn accept(self: Arc<Self>, bound: Bound, limit: Limit, log: &Arc<Log>) -> io::Result<()> {
        let listener = Listener::new(bound, limit, Security::Plain)?;
        loop {
            match listener.accept().await.map(Accepted::open) {
                Ok(Opened::Plain(stream)) => {
                    tokio::spawn(Arc::clone(&self).pass(stream, Arc::clone(log)));
                }
                Ok(Opened::Handshake(_)) => unreachable!("the listener speaks no TLS"),
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    }

    /// Passes a connection on until both directions have ended; closes it if nobody answers.
    async fn pass(self: Arc<Self>, mut client: Stream, log: Arc<Log>) {
        let Some(mut remote) = self.connect(&log).await else { return };
        // A connection that breaks ends both; nobody is left to be told.
        let _ = copy_bidirectional_with_sizes(&mut client, &mut remote, BUFFER_BYTES, BUFFER_BYTES)
            .await;
    }

    /// A connection to the remote whose turn it is. Ends, as each that does not answer is out.
    async fn connect(&self, log: &Log) -> Option<Stream> {
        loop {
            let place = self.remotes.pick()?;
            match self.dial(place).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    self.remotes.set_active(place, false);
                    log_line!(
                        log,
                        Warn,
                        "deactivated endpoint",
                        "address" = self.remotes.target(place).address(),
                        "interval" = show_duration(self.retry),
                        "error" = error,
                    );
                }
            }
        }
    }

    /// Dials a remote; the error is in Go's words.
    async fn dial(&self, place: usize) -> Result<Stream, String> {
        let target = self.remotes.target(place);
        let dialer = Dialer { timeout: Some(DIAL_TIMEOUT), ..Dialer::default() };
        let error = match net::dial(&dialer, &Remote::Tcp(target.address())).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        // Go names the address that a name led to.
        let Ok(found) = net::look_up(&target.address()).await else {
            return Err(format!("dial tcp: lookup {}: no such host", target.host));
        };
        let address = found.first().map_or(target.address(), SocketAddr::to_string);
        Err(match error.kind() {
            io::ErrorKind::TimedOut => format!("dial tcp {address}: i/o timeout"),
            _ => format!("dial tcp {address}: connect: {}", osenv::error_text(&error)),
        })
    }

    /// Asks a remote that did not answer once more.
    async fn try_again(self: Arc<Self>, place: usize, log: Arc<Log>) {
        let address = self.remotes.target(place).address();
        match self.dial(place).await {
            Ok(_) => {
                self.remotes.set_active(place, true);
                log_line!(log, Info, "activated", "address" = address);
            }
            Err(error) => {
                let text = "failed to activate endpoint (stay inactive for another interval)";
                let interval = show_duration(self.retry);
                log_line!(
                    log,
                    Warn,
                    text,
                    "address" = address,
                    "interval" = interval,
                    "error" = error,
                );
            }
        }
    }
}

/// Tries those that did not answer, all at once, after each interval.
async fn watch_over(proxy: Arc<Proxy>, log: Arc<Log>) {
    loop {
        tokio::time::sleep(proxy.retry).await;
        let tries: Vec<_> = proxy
            .remotes
            .inactive()
            .into_iter()
            .map(|place| tokio::spawn(Arc::clone(&proxy).try_again(place, Arc::clone(&log))))
            .collect();
        for one in tries {
            let _ = one.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use net::Address;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A proxy to these ports, on a thread of its own, and where it listens.
    fn proxy(ports: &[u16], retry: Duration) -> SocketAddr {
        let here = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let bound = net::bind(&here, net::Reuse::default()).unwrap();
        let address = bound.local_addr().unwrap();
        let target = |&port| Target { host: "127.0.0.1".to_owned(), port, ..Target::default() };
        let targets = ports.iter().map(target).collect();
        std::thread::spawn(move || {
            Proxy::new(targets, retry).serve(bound, 8, &Arc::new(Log::none()))
        });
        address
    }

    async fn said(mut stream: TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn the_answer_to_who_has_said_everything_arrives() {
        let remote = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy(&[remote.local_addr().unwrap().port()], Duration::from_secs(60));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut other, _) = remote.accept().await.unwrap();
        let mut asked = Vec::new();
        other.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"question");
        let long = vec![7; 1 << 20];
        let (sent, heard) = tokio::join!(
            async {
                other.write_all(&long).await.unwrap();
                other.shutdown().await.unwrap();
            },
            said(client)
        );
        let () = sent;
        assert!(heard == long, "{} bytes", heard.len());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_left_out_until_it_does() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead_address = dead.local_addr().unwrap();
        drop(dead);
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = [dead_address.port(), alive.local_addr().unwrap().port()];
        let address = proxy(&ports, Duration::from_millis(20));
        for _ in 0..4 {
            let client = TcpStream::connect(address).await.unwrap();
            drop(alive.accept().await.unwrap());
            assert_eq!(said(client).await, b"");
        }
        // Once it listens, the monitor reaches it first, and then a client.
        let back = TcpListener::bind(dead_address).await.unwrap();
        drop(back.accept().await.unwrap());
        let reached = async {
            loop {
                let _client = TcpStream::connect(address).await.unwrap();
                tokio::select! {
                    taken = back.accept() => return taken.unwrap(),
                    taken = alive.accept() => drop(taken.unwrap()),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("it is used again");
    }

    #[tokio::test]
    async fn with_nobody_behind_it_a_client_is_told_so() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = dead.local_addr().unwrap().port();
        drop(dead);
        let client = TcpStream::connect(proxy(&[port], Duration::from_secs(60))).await.unwrap();
        assert_eq!(said(client).await, b"");
    }
}
