//! The serving end.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pki_types::CertificateDer;
use rustls::server::{Acceptor, ClientHello, ServerSessionMemoryCache};
use rustls::sign::SingleCertAndKey;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::address;
use crate::certificate::{Certificate, now};
use crate::info::{TlsError, TlsInfo, quoted};
use crate::pem;
use crate::reload::{Notify, Reloading};
use crate::revoked::Revoked;
use crate::suites;
use crate::text::{UNSUPPORTED_PROTOCOLS, error_text};
use crate::trust::Trust;
use crate::turns::Turns;
use crate::verifier::{Allowed, Clients};

/// Time for a handshake, from the connection to its end.
//= etcd 3.7.3: client/pkg/transport/listener_tls.go#tlsHandshakeTimeout
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time within which an open connection ends after its client's certificate was taken back.
pub const REVOKED_WITHIN: Duration = Duration::from_secs(10);

/// Sessions of TLS 1.2 without tickets that clients may take up again.
const SESSIONS: usize = 1_024;

/// Whether a client must come from an address that its certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// It may come from anywhere.
    Any,
    /// It must, if its certificate names any.
    Checked,
}

/// What a server needs to speak TLS. Cheap to clone, and for all threads.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    loaded: Reloading<Loaded>,
    address: ClientAddress,
    turns: Turns,
}

/// What is made from the files.
struct Loaded {
    /// For clients that offer HTTP/2, or no protocol.
    http2: Arc<ServerConfig>,
    /// For clients that offer HTTP/1.1 and not HTTP/2: no protocol is agreed on.
    http1: Arc<ServerConfig>,
    revoked: Option<Revoked>,
}

/// What is known of a connection once its handshake is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The common name of the client's certificate, if it showed one that was verified; it may be
    /// empty. Of several the last.
    pub common_name: Option<String>,
    /// Whether both ends agreed on HTTP/2.
    pub http2: bool,
    /// Whether both ends agreed on any protocol.
    pub agreed: bool,
    /// Whether an earlier session was taken up.
    pub resumed: bool,
}

/// The certificates of an open connection's client, which may be taken back while it lasts.
#[derive(Debug)]
pub struct Standing {
    server: ServerTls,
    chain: Vec<Certificate>,
}

impl Standing {
    /// Whether they still count: the lists of those that were taken back are as their files are now.
    ///
    /// # Errors
    /// One was taken back; says which.
    pub fn check(&self) -> Result<(), String> {
        let loaded = self.server.0.loaded.current();
        loaded.revoked.as_ref().map_or(Ok(()), |revoked| revoked.check(&self.chain))
    }
}

/// A connection that is not served.
#[derive(Debug)]
pub struct Rejected {
    /// Why not, in etcd's words.
    pub text: String,
    /// Whether it ended without a word, as probes and port scans do.
    pub is_eof: bool,
    /// The name by which the client asked for this server.
    pub server_name: String,
    /// Addresses and host names of its certificate, if it showed one.
    pub names: Option<(Vec<String>, Vec<String>)>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Rejected {}

impl Rejected {
    /// A connection that does not begin with TLS.
    #[must_use]
    pub fn not_tls() -> Self {
        let text = crate::text::NOT_TLS.to_owned();
        Self { text, is_eof: false, server_name: String::new(), names: None }
    }

    /// A connection that failed before it said anything.
    #[must_use]
    pub fn failed(error: &io::Error) -> Self {
        Self::of(error, String::new())
    }

    fn of(error: &io::Error, server_name: String) -> Self {
        let is_eof = error.kind() == io::ErrorKind::UnexpectedEof;
        Self { text: error_text(error), is_eof, server_name, names: None }
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// They or the rules cannot be used.
    //= etcd 3.7.3: client/pkg/transport/listener.go#ServerConfig
    pub fn new(info: &TlsInfo, address: ClientAddress, notify: Notify) -> Result<Self, TlsError> {
        let mut files = vec![info.cert_file.clone(), info.key_file.clone()];
        files.extend([info.trusted_ca_file.clone(), info.crl_file.clone()]);
        files.retain(|path| !path.is_empty());
        let info = info.clone();
        let loaded = Reloading::new(files, notify, move || Loaded::load(&info))?;
        Ok(Self(Arc::new(Shared { loaded, address, turns: Turns::new() })))
    }

    /// Makes a connection secure.
    ///
    /// # Errors
    /// It is not to be served, or not fast enough; it has been told, if it could be.
    pub async fn accept<IO>(
        &self,
        io: IO,
        from: Option<SocketAddr>,
    ) -> Result<(TlsStream<IO>, Session), Rejected>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let loaded = self.0.loaded.current();
        let mut hello = Hello::default();
        let handshake = self.0.turns.run(handshake(&loaded, io, &mut hello));
        let stream = in_time(handshake).await.map_err(|e| hello.rejected(&e))?;
        let server_name = hello.server_name;
        let connection = stream.get_ref().1;
        let session = Session {
            common_name: None,
            http2: connection.alpn_protocol() == Some(b"h2"),
            agreed: connection.alpn_protocol().is_some(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        let chain = certificates(connection);
        let Some(leaf) = chain.first() else { return Ok((stream, session)) };
        if let Err(text) = self.check(&loaded, &chain, leaf, from).await {
            let names = Some((leaf.ip_texts(), leaf.dns_names.clone()));
            return Err(Rejected { text, is_eof: false, server_name, names });
        }
        let common_name = Some(leaf.common_name.clone());
        Ok((stream, Session { common_name, ..session }))
    }

    /// What must be looked at again while a connection is open; `None` if nothing can change.
    #[must_use]
    pub fn standing<IO>(&self, stream: &TlsStream<IO>) -> Option<Standing> {
        self.0.loaded.current().revoked.as_ref()?;
        let chain = certificates(stream.get_ref().1);
        (!chain.is_empty()).then(|| Standing { server: self.clone(), chain })
    }

    /// What is asked of every client with a certificate, also of one that takes up a session and
    /// is not verified anew.
    async fn check(
        &self,
        loaded: &Loaded,
        chain: &[Certificate],
        leaf: &Certificate,
        from: Option<SocketAddr>,
    ) -> Result<(), String> {
        leaf.check_time(now())?;
        if let (ClientAddress::Checked, Some(from)) = (self.0.address, from) {
            let late = |_| format!("lookup {}: i/o timeout", from.ip());
            let check = address::check(leaf, from);
            tokio::time::timeout(HANDSHAKE_TIMEOUT, check).await.map_err(late)??;
        }
        loaded.revoked.as_ref().map_or(Ok(()), |revoked| revoked.check(chain))
    }
}

fn certificates(connection: &ServerConnection) -> Vec<Certificate> {
    let chain: &[CertificateDer<'_>] = connection.peer_certificates().unwrap_or_default();
    chain.iter().filter_map(|der| Certificate::read(der)).collect()
}

/// What a client said first, as far as logs show it.
#[derive(Debug, Default)]
struct Hello {
    server_name: String,
    protocols: Vec<String>,
}

impl Hello {
    fn rejected(&self, error: &io::Error) -> Rejected {
        let mut rejected = Rejected::of(error, self.server_name.clone());
        if rejected.text == UNSUPPORTED_PROTOCOLS {
            rejected.text = format!("{UNSUPPORTED_PROTOCOLS} ({})", quoted(&self.protocols));
        }
        rejected
    }
}

async fn handshake<IO>(loaded: &Loaded, io: IO, said: &mut Hello) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let hello = start.client_hello();
    hello.server_name().unwrap_or_default().clone_into(&mut said.server_name);
    let offered = hello.alpn().into_iter().flatten();
    said.protocols = offered.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let config = if falls_back(&hello) { &loaded.http1 } else { &loaded.http2 };
    let config = Arc::clone(config);
    start.into_stream(config).await
}

/// Whether the client knows HTTP/1.1 and not HTTP/2: Go's servers then agree on nothing.
//= go 1.26: src/crypto/tls/handshake_server.go#negotiateALPN
fn falls_back(hello: &ClientHello<'_>) -> bool {
    let Some(offered) = hello.alpn() else { return false };
    let mut http1 = false;
    for protocol in offered {
        if protocol == b"h2" {
            return false;
        }
        http1 |= protocol == b"http/1.1";
    }
    http1
}

/// A handshake that takes too long fails.
async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await.map_err(late)?
}

impl Loaded {
    fn load(info: &TlsInfo) -> Result<Self, TlsError> {
        info.check_pair()?;
        let provider = suites::provider(info)?;
        let algorithms = provider.signature_verification_algorithms;
        let pair = pem::pair(&info.cert_file, &info.key_file, &provider)?;
        info.check_client_pair()?;
        if !info.client_cert_file.is_empty() {
            pem::pair(&info.client_cert_file, &info.client_key_file, &provider)?;
        }
        info.check_allowed()?;
        let failed = |e: rustls::Error| TlsError(format!("tls: {e}"));
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&suites::versions(info)?)
            .map_err(failed)?;
        let mut revoked = None;
        let builder = if info.wants_client_certs() {
            let trust = Arc::new(Trust::load(info, algorithms)?);
            if !info.crl_file.is_empty() {
                revoked = Some(Revoked::load(&info.crl_file, &trust)?);
            }
            let clients = Clients::new(trust, Allowed::of(info));
            builder.with_client_cert_verifier(Arc::new(clients))
        } else {
            builder.with_no_client_auth()
        };
        let mut http1 = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        http1.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        http1.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(failed)?;
        // As Go's servers do; a second one would be for a client with two connections at once.
        http1.send_tls13_tickets = 1;
        http1.ignore_client_order = true;
        let mut http2 = http1.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { http2: Arc::new(http2), http1: Arc::new(http1), revoked })
    }
}
