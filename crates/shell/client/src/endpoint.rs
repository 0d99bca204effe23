//! Endpoints: `host:port`, `http://`, `https://`, `unix:` and `unixs:`, as etcd's client reads them.
//!
//! Invariant: whether a client speaks TLS is decided once, by its first endpoint and by whether TLS
//! is configured; an endpoint that asks for TLS is never dialed without it for want of files.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use h2::client::SendRequest;
use net::{Dialer, Remote};
use tls::{ClientTls, Notify, Spoken, TlsInfo};

use crate::error::Error;

/// Bytes that may be on their way in one stream and on one connection.
const WINDOW_BYTES: u32 = 1 << 24;

/// What an endpoint's scheme says of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// TLS, with or without files.
    Secure,
    /// No TLS, whatever files there are.
    Plain,
    /// TLS if it is configured.
    Unsaid,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(String),
    Unix(PathBuf),
}

/// A server, as users name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    place: Place,
    /// What stands in `:authority`; its host must be in the server's certificate.
    authority: String,
    scheme: Scheme,
}

impl Named {
    /// Reads an endpoint. Every text is one; what cannot be dialed shows when it is dialed.
    //= etcd 3.7.3: client/v3/internal/endpoint/endpoint.go#translateEndpoint
    fn parse(text: &str) -> Self {
        for (prefix, scheme) in [("unix:", Scheme::Unsaid), ("unixs:", Scheme::Secure)] {
            if let Some(path) = text.strip_prefix(prefix) {
                let path = path.strip_prefix("//").unwrap_or(path);
                let base = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path);
                let (place, authority) = (Place::Unix(path.into()), base.to_owned());
                return Self { place, authority, scheme };
            }
        }
        let whole = |scheme| {
            let place = Place::Tcp(text.to_owned());
            Self { place, authority: text.to_owned(), scheme }
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Plain, rest),
            Some(("https", rest)) => (Scheme::Secure, rest),
            _ => return whole(Scheme::Unsaid),
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        Self { place: Place::Tcp(host.to_owned()), authority: host.to_owned(), scheme }
    }
}

/// A server and how it is dialed.
#[derive(Clone, Debug)]
pub struct Endpoint {
    named: Named,
    dialer: Dialer,
    remote: Remote,
}

impl Endpoint {
    /// Reads the endpoints of a client, and the files of TLS if any are configured.
    ///
    /// # Errors
    /// The files cannot be used.
    //= etcd 3.7.3: client/v3/client.go#dialWithBalancer
    pub fn all(texts: &[String], tls: Option<&TlsInfo>) -> Result<Vec<Self>, Error> {
        let made = |info: &TlsInfo| {
            ClientTls::new(info, Spoken::Http2, Notify::none()).map_err(|e| Error::BadTls(e.0))
        };
        // Read even if no endpoint asks for TLS: what is wrong with them is told.
        let configured = tls.map(made).transpose()?;
        let named: Vec<Named> = texts.iter().map(|text| Named::parse(text.trim())).collect();
        let is_secure = named.first().is_some_and(|first| match first.scheme {
            Scheme::Secure => true,
            Scheme::Plain => false,
            Scheme::Unsaid => configured.is_some(),
        });
        let fallback = TlsInfo::default();
        let info = tls.unwrap_or(&fallback);
        let whole = match configured {
            Some(tls) => Some(tls),
            None if is_secure => Some(made(info)?),
            None => None,
        };
        let endpoint = |named: Named| {
            let (remote, tls) = match (&named.place, is_secure) {
                (Place::Tcp(host), false) => (Remote::Tcp(host.clone()), None),
                (Place::Unix(path), false) => (Remote::Unix(path.clone()), None),
                (Place::Tcp(host), true) => (Remote::Tls(host.clone()), whole.clone()),
                (Place::Unix(path), true) => {
                    // The certificate is for what the file's name begins with.
                    let mut info = info.clone();
                    if info.server_name.is_empty() {
                        named.host().clone_into(&mut info.server_name);
                    }
                    (Remote::UnixTls(path.clone()), Some(made(&info)?))
                }
            };
            let dialer = Dialer { tls, ..Dialer::default() };
            Ok(Self { named, dialer, remote })
        };
        named.into_iter().map(endpoint).collect()
    }

    /// `http://host` or `https://host`, what stands before a method's path.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.is_secure() { "https" } else { "http" };
        let authority = &self.named.authority;
        // A file's name may be no host at all.
        match authority.parse::<http::uri::Authority>() {
            Ok(_) => format!("{scheme}://{authority}"),
            Err(_) => format!("{scheme}://localhost"),
        }
    }

    fn is_secure(&self) -> bool {
        matches!(self.remote, Remote::Tls(_) | Remote::UnixTls(_))
    }

    /// The text of a failed attempt to connect, in gRPC's words.
    //= grpc-go 1.82: internal/transport/http2_client.go#newHTTP2Client
    pub(crate) fn not_dialed(&self, why: &Undialed) -> String {
        let text = match why {
            Undialed::Handshake(why) => {
                format!("transport: authentication handshake failed: {why}")
            }
            Undialed::Socket(why) => {
                let (network, address) = match &self.named.place {
                    Place::Tcp(address) => ("tcp", address.clone()),
                    Place::Unix(path) => ("unix", path.display().to_string()),
                };
                format!("transport: Error while dialing: dial {network} {address}: {why}")
            }
        };
        format!("connection error: desc = {}", types::quote(text.as_bytes()))
    }

    pub(crate) async fn connect(&self) -> Result<SendRequest<Bytes>, Undialed> {
        let dialed = net::dial(&self.dialer, &self.remote).await;
        let socket = dialed.map_err(|e| self.undialed(&e))?;
        if socket.session().is_some_and(|session| !session.http2) {
            return Err(Undialed::Handshake(NO_ALPN.to_owned()));
        }
        let (send, driver) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await
            .map_err(|e| Undialed::Socket(format!("connect: {e}")))?;
        // It ends with the connection; its error shows in the calls.
        tokio::spawn(driver);
        Ok(send)
    }

    /// Errors of the system come from the socket, unless the other end hung up on a handshake.
    fn undialed(&self, error: &io::Error) -> Undialed {
        let broke = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        let is_of_socket = match error.raw_os_error() {
            Some(_) => !broke.contains(&error.kind()),
            None => error.kind() == io::ErrorKind::NotFound,
        };
        let text = osenv::error_text(error);
        if self.is_secure() && !is_of_socket {
            return Undialed::Handshake(text);
        }
        Undialed::Socket(format!("connect: {text}"))
    }
}

/// What grpc-go says to a server that chose no protocol.
//= grpc-go 1.82: credentials/tls.go#ClientHandshake
const NO_ALPN: &str = "credentials: cannot check peer: missing selected ALPN property. If you \
                       upgraded from a grpc-go version earlier than 1.67, your TLS connections \
                       may have stopped working due to ALPN enforcement. For more details, see: \
                       https://github.com/grpc/grpc-go/issues/434";

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undialed {
    /// Nobody was reached.
    Socket(String),
    /// Somebody was, and is not trusted or does not trust.
    Handshake(String),
}

impl Named {
    /// The authority without its port.
    fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or(&self.authority, |(host, _)| host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> (Place, String, Scheme) {
        let Named { place, authority, scheme } = Named::parse(text);
        (place, authority, scheme)
    }

    #[test]
    fn endpoints_are_read_with_and_without_scheme() {
        let tcp = |host: &str, scheme| (Place::Tcp(host.to_owned()), host.to_owned(), scheme);
        assert_eq!(named("localhost:2379"), tcp("localhost:2379", Scheme::Unsaid));
        assert_eq!(named("http://127.0.0.1:1/"), tcp("127.0.0.1:1", Scheme::Plain));
        assert_eq!(named("https://u:p@a:1/x?y"), tcp("a:1", Scheme::Secure));
        assert_eq!(named("dns://a:1"), tcp("dns://a:1", Scheme::Unsaid));
        let unix =
            |path: &str, base: &str, scheme| (Place::Unix(path.into()), base.to_owned(), scheme);
        assert_eq!(named("unix:///run/e"), unix("/run/e", "e", Scheme::Unsaid));
        assert_eq!(named("unix:run/e:1"), unix("run/e:1", "e:1", Scheme::Unsaid));
        assert_eq!(
            named("unixs://localhost:1"),
            unix("localhost:1", "localhost:1", Scheme::Secure)
        );
    }

    #[test]
    fn the_first_endpoint_decides_for_all() {
        let remotes = |texts: &[&str], tls: Option<&TlsInfo>| {
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            let all = Endpoint::all(&texts, tls).unwrap();
            all.into_iter().map(|endpoint| endpoint.remote).collect::<Vec<_>>()
        };
        let skips = TlsInfo { insecure_skip_verify: true, ..TlsInfo::default() };
        let plain = |host: &str| Remote::Tcp(host.to_owned());
        let secure = |host: &str| Remote::Tls(host.to_owned());
        assert_eq!(remotes(&["http://a:1", "https://b:1"], None), [plain("a:1"), plain("b:1")]);
        assert_eq!(remotes(&["https://a:1", "b:1"], None), [secure("a:1"), secure("b:1")]);
        assert_eq!(remotes(&["a:1"], None), [plain("a:1")]);
        assert_eq!(remotes(&["a:1"], Some(&skips)), [secure("a:1")]);
        assert_eq!(remotes(&["http://a:1"], Some(&skips)), [plain("a:1")]);
        assert_eq!(remotes(&["unix:p"], Some(&skips)), [Remote::UnixTls("p".into())]);
    }

    #[test]
    fn files_that_cannot_be_read_are_told_whatever_is_dialed() {
        let info = TlsInfo { trusted_ca_file: "/nonexistent/ca".to_owned(), ..TlsInfo::default() };
        let told = Endpoint::all(&["http://a:1".to_owned()], Some(&info)).unwrap_err();
        assert!(told.to_string().contains("/nonexistent/ca"), "{told}");
    }
}
