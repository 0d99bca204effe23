//! The dialing end.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use pki_types::ServerName;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::Certificate;
use crate::info::{TlsError, TlsInfo};
use crate::pem;
use crate::reload::{Notify, Reloading};
use crate::suites;
use crate::trust::Trust;
use crate::verifier::{Allowed, Servers};

/// What is spoken within TLS, as far as the handshake tells the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/2.
    Http2,
    /// Nothing is said: HTTP/1.1.
    Unsaid,
}

/// What a client needs to speak TLS. Cheap to clone, and for all threads.
#[derive(Clone)]
pub struct ClientTls(Arc<Shared>);

struct Shared {
    loaded: Reloading<ClientConfig>,
    /// Whether the name of the dialed host matters.
    skips_verification: bool,
    /// The name to ask for instead of the dialed host's; empty asks for that.
    server_name: String,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.loaded.fmt(f)
    }
}

impl ClientTls {
    /// Reads the files. Without a certificate the client has none to show.
    ///
    /// # Errors
    /// They or the rules cannot be used.
    //= etcd 3.7.3: client/pkg/transport/listener.go#ClientConfig
    pub fn new(info: &TlsInfo, spoken: Spoken, notify: Notify) -> Result<Self, TlsError> {
        let mut files = vec![info.cert_file.clone(), info.key_file.clone()];
        files.extend([info.client_cert_file.clone(), info.client_key_file.clone()]);
        files.push(info.trusted_ca_file.clone());
        files.retain(|path| !path.is_empty());
        let skips_verification = info.insecure_skip_verify || info.self_made;
        let server_name = info.server_name.clone();
        let info = info.clone();
        let loaded = Reloading::new(files, notify, move || load(&info, spoken))?;
        Ok(Self(Arc::new(Shared { loaded, skips_verification, server_name })))
    }

    /// Makes a connection to `host` (a name or an address, without a port) secure.
    ///
    /// # Errors
    /// As the handshake's; [`crate::error_text`] has Go's words for it.
    pub async fn connect<IO>(&self, io: IO, host: &str) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.name_of(host)?;
        let config = self.0.loaded.current();
        TlsConnector::from(config).connect(name, io).await
    }

    /// The same as an automaton, for whoever moves the bytes by itself.
    ///
    /// # Errors
    /// The host is no name that a certificate could have.
    pub fn session(&self, host: &str) -> io::Result<ClientConnection> {
        let name = self.name_of(host)?;
        ClientConnection::new(self.0.loaded.current(), name).map_err(io::Error::other)
    }

    /// The name that is asked for.
    fn name_of(&self, host: &str) -> io::Result<ServerName<'static>> {
        let host = if self.0.server_name.is_empty() { host } else { &self.0.server_name };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        match ServerName::try_from(bare.to_owned()) {
            Ok(name) => Ok(name),
            // Such a name cannot be sent and is in no certificate, which does not matter to all.
            Err(_) if self.0.skips_verification => {
                Ok(ServerName::IpAddress(IpAddr::from(Ipv4Addr::UNSPECIFIED).into()))
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, nobody(bare))),
        }
    }
}

fn nobody(host: &str) -> String {
    if host.is_empty() {
        return "tls: either ServerName or InsecureSkipVerify must be specified in the tls.Config"
            .to_owned();
    }
    format!(
        "tls: failed to verify certificate: x509: certificate is not valid for any names, \
         but wanted to match {host}"
    )
}

fn load(info: &TlsInfo, spoken: Spoken) -> Result<ClientConfig, TlsError> {
    let provider = suites::provider(info)?;
    let algorithms = provider.signature_verification_algorithms;
    let mut pair = None;
    if !info.is_empty() {
        info.check_pair()?;
        pem::pair(&info.cert_file, &info.key_file, &provider)?;
        info.check_client_pair()?;
        let (cert, key) = info.client_pair();
        pair = Some(pem::pair(cert, key, &provider)?);
        info.check_allowed()?;
    }
    let verifies = !info.insecure_skip_verify && !info.self_made;
    let trust = if verifies {
        Some(Arc::new(Trust::load(info, algorithms)?))
    } else {
        // A bundle that cannot be read is an error all the same.
        if !info.trusted_ca_file.is_empty() {
            Trust::load(info, algorithms)?;
        }
        None
    };
    if info.empty_cn && !info.is_empty() {
        refuse_common_name(info)?;
    }
    let allowed = if info.is_empty() { Allowed::All } else { Allowed::of(info) };
    let servers = Servers::new(trust, algorithms, info.server_name.clone(), allowed);
    let failed = |e: rustls::Error| TlsError(format!("tls: {e}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&suites::versions(info)?)
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match pair {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
        None => builder.with_no_client_auth(),
    };
    // As Go's clients without a cache: a session that is taken up shows no certificate to verify.
    config.resumption = Resumption::disabled();
    if spoken == Spoken::Http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(config)
}

fn refuse_common_name(info: &TlsInfo) -> Result<(), TlsError> {
    let chain = pem::certificates(&pem::read(&info.cert_file)?);
    let leaf = chain.first().and_then(|der| Certificate::read(der));
    let name = leaf.map(|leaf| leaf.common_name).unwrap_or_default();
    if name.is_empty() {
        return Ok(());
    }
    let file = &info.cert_file;
    Err(TlsError(format!("cert has non empty Common Name ({name}): {file}")))
}
