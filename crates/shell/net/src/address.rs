//! Addresses of both ends, from URLs.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use types::{Scheme, Url};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// `host:port`; the host may be a name.
    Tcp(String),
    /// A socket file.
    Unix(PathBuf),
    /// `host:port`, over TLS.
    Tls(String),
    /// A socket file, over TLS.
    UnixTls(PathBuf),
}

/// No address can be had from a URL; says why as etcd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress(pub String);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadAddress {}

impl Address {
    /// Where a listener's URL says to listen: `localhost` is 127.0.0.1, no host is every interface.
    ///
    /// # Errors
    /// The host does not resolve, or the port is none.
    pub fn of(url: &Url) -> Result<Self, BadAddress> {
        if url.scheme().is_socket() {
            return Ok(Self::Unix(url.host().into()));
        }
        let host = match url.host().strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => url.host().to_owned(),
        };
        if let Some(port) = host.strip_prefix(':') {
            let port = port.parse();
            let port = port.map_err(|_| BadAddress(format!("invalid port in {}", url.text())))?;
            return Ok(Self::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
        }
        let resolved = host.to_socket_addrs();
        let mut resolved = resolved.map_err(|e| BadAddress(format!("listen tcp {host}: {e}")))?;
        let first = resolved.next();
        first.map(Self::Tcp).ok_or_else(|| BadAddress(format!("listen tcp {host}: no address")))
    }
}

impl Remote {
    /// Whom a URL names.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        match url.scheme() {
            Scheme::Http => Self::Tcp(url.host().to_owned()),
            Scheme::Unix => Self::Unix(url.host().into()),
            Scheme::Https => Self::Tls(url.host().to_owned()),
            Scheme::Unixs => Self::UnixTls(url.host().into()),
        }
    }

    /// The host that a certificate must be for, if it is reached over TLS. A socket file has the one
    /// that its name begins with, as etcd's URLs of socket files look like those of hosts.
    pub(crate) fn secured_host(&self) -> Option<&str> {
        let text = match self {
            Self::Tcp(_) | Self::Unix(_) => return None,
            Self::Tls(host) => host.as_str(),
            Self::UnixTls(path) => path.to_str().unwrap_or_default(),
        };
        Some(text.rsplit_once(':').map_or(text, |(host, _)| host))
    }
}

impl fmt::Display for Address {
    /// As Go names it in errors: `tcp 127.0.0.1:2379`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {}", Path::display(path)),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) | Self::Tls(host) => write!(f, "tcp {host}"),
            Self::Unix(path) | Self::UnixTls(path) => write!(f, "unix {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(url: &str) -> Result<Address, String> {
        Address::of(&Url::parse(url).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn listeners_urls_say_where_to_listen() {
        let tcp = |text: &str| Ok(Address::Tcp(text.parse().unwrap()));
        assert_eq!(listen("http://127.0.0.1:2379"), tcp("127.0.0.1:2379"));
        assert_eq!(listen("http://localhost:2379"), tcp("127.0.0.1:2379"));
        assert_eq!(listen("https://[::1]:2379"), tcp("[::1]:2379"));
        assert_eq!(listen("http://:2379"), tcp("0.0.0.0:2379"));
        assert_eq!(listen("unix:///run/e"), Ok(Address::Unix("/run/e".into())));
        assert_eq!(listen("http://:70000"), Err("invalid port in http://:70000".to_owned()));
    }

    #[test]
    fn urls_name_whom_to_dial() {
        let dial = |url| Remote::of(&Url::parse(url).unwrap());
        assert_eq!(dial("http://name:1"), Remote::Tcp("name:1".to_owned()));
        assert_eq!(dial("unix://a:1"), Remote::Unix("a:1".into()));
        assert_eq!(dial("https://name:1"), Remote::Tls("name:1".to_owned()));
        assert_eq!(dial("unixs://a:1"), Remote::UnixTls("a:1".into()));
        let host = |url| dial(url).secured_host().map(str::to_owned);
        assert_eq!(host("http://name:1"), None);
        assert_eq!(host("https://[::1]:1").as_deref(), Some("[::1]"));
        assert_eq!(host("unixs://a:1").as_deref(), Some("a"));
    }
}
