//! URLs of listeners and peers.
//!
//! //= etcd 3.7.1: client/pkg/types/urls.go#NewURLs

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use crate::listen::Address;

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The text it was parsed from.
    pub text: String,
    /// `http`, `https`, `unix` or `unixs`.
    pub scheme: String,
    /// Host and port, or the rest of a socket's path.
    pub host: String,
}

/// Parses a list of URLs; the result is sorted, as etcd sorts it.
///
/// # Errors
/// etcd's text.
pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
    let mut urls = Vec::new();
    for one in text.split(',') {
        urls.push(parse(one.trim())?);
    }
    urls.sort_by(|a, b| a.text.cmp(&b.text));
    urls.dedup_by(|a, b| a.text == b.text);
    Ok(urls)
}

/// Parses one URL.
///
/// # Errors
/// etcd's text.
pub fn parse(text: &str) -> Result<Url, String> {
    let bad_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
    let (scheme, rest) = text.split_once("://").ok_or_else(bad_scheme)?;
    if !matches!(scheme, "http" | "https" | "unix" | "unixs") {
        return Err(bad_scheme());
    }
    if scheme.starts_with("unix") {
        return Ok(Url { text: text.to_owned(), scheme: scheme.to_owned(), host: rest.to_owned() });
    }
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let port = host.rsplit_once(':').map(|(_, port)| port);
    if port.is_none_or(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!(r#"URL address does not have the form "host:port": {text}"#));
    }
    if !path.is_empty() {
        return Err(format!("URL must not contain a path: {text}"));
    }
    Ok(Url { text: text.to_owned(), scheme: scheme.to_owned(), host: host.to_owned() })
}

impl Url {
    /// Host without port and brackets.
    #[must_use]
    pub fn hostname(&self) -> &str {
        let host = self.host.rsplit_once(':').map_or(&self.host[..], |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether this is a URL for binding: an IP or `localhost`, or a socket file.
    ///
    /// # Errors
    /// etcd's text.
    //= etcd 3.7.1: server/embed/config.go#checkBindURLs
    pub fn check_bind(&self) -> Result<(), String> {
        if self.scheme.starts_with("unix") {
            return Ok(());
        }
        let host = self.hostname();
        if host == "localhost" || host.is_empty() || host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(format!("expected IP in URL for binding ({})", self.text))
    }

    /// Where to listen.
    ///
    /// # Errors
    /// The name does not resolve.
    pub fn address(&self) -> Result<Address, String> {
        if self.scheme.starts_with("unix") {
            return Ok(Address::Unix(self.host.clone().into()));
        }
        let host = match self.host.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => self.host.clone(),
        };
        if let Some(port) = host.strip_prefix(':') {
            let port = port.parse().map_err(|_| format!("invalid port in {}", self.text))?;
            return Ok(Address::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
        }
        let resolved = host.to_socket_addrs().map_err(|e| format!("listen tcp {host}: {e}"))?;
        let first = resolved.into_iter().next();
        first.map(Address::Tcp).ok_or_else(|| format!("listen tcp {host}: no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_refused_with_etcds_texts() {
        let text = |url| parse(url).unwrap_err();
        assert_eq!(text("ftp://x:1"), "URL scheme must be http, https, unix, or unixs: ftp://x:1");
        assert_eq!(text("http://x"), r#"URL address does not have the form "host:port": http://x"#);
        assert_eq!(text("http://x:1/a"), "URL must not contain a path: http://x:1/a");
        let name = parse("http://example.com:2379").unwrap();
        assert_eq!(
            name.check_bind().unwrap_err(),
            "expected IP in URL for binding (http://example.com:2379)"
        );
        assert!(parse("http://[::1]:2379").unwrap().check_bind().is_ok());
        assert!(parse("unix://localhost:123").unwrap().check_bind().is_ok());
    }
}
