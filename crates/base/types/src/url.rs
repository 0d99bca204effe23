//! URLs of listeners and peers, read and refused as etcd and Go's URL parser do.
//!
//! Never resolves a name, and never changes what it was given.

use std::fmt;

use crate::quote;

/// How a listener is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// TCP.
    Http,
    /// TCP with TLS.
    Https,
    /// A socket file.
    Unix,
    /// A socket file with TLS.
    Unixs,
}

impl Scheme {
    /// Whether it needs TLS.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }

    /// Whether it is a file.
    #[must_use]
    pub fn is_socket(self) -> bool {
        matches!(self, Scheme::Unix | Scheme::Unixs)
    }
}

/// A URL: a scheme and an authority; a socket file may have a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
}

/// The text is no URL of a listener; says why in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(pub String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUrl {}

impl Url {
    /// Reads a URL. White space around it does not count, nor does what follows a `?` or `#`.
    ///
    /// # Errors
    /// etcd's, or those of Go's parser.
    //= etcd 3.7.1: client/pkg/types/urls.go#NewURLs
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let text = text.trim();
        let (before, _) = text.split_once('#').unwrap_or((text, ""));
        let parts = split(before);
        let (scheme, host, path) =
            parts.map_err(|why| BadUrl(format!("parse {}: {why}", quote(before.as_bytes()))))?;
        let scheme = match scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                let why = format!("URL scheme must be http, https, unix, or unixs: {text}");
                return Err(BadUrl(why));
            }
        };
        if scheme.is_socket() {
            return Ok(Self { text: text.to_owned(), scheme, host: format!("{host}{path}") });
        }
        if !has_port(host) {
            let why = format!("URL address does not have the form \"host:port\": {text}");
            return Err(BadUrl(why));
        }
        if !path.is_empty() {
            return Err(BadUrl(format!("URL must not contain a path: {text}")));
        }
        Ok(Self { text: text.to_owned(), scheme, host: host.to_owned() })
    }

    /// Reads a list of URLs, sorted by text as etcd sorts them.
    ///
    /// # Errors
    /// The first that is none; an empty list.
    pub fn parse_all<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Self>, BadUrl> {
        let urls: Result<Vec<_>, _> = texts.iter().map(|text| Self::parse(text.as_ref())).collect();
        let mut urls = urls?;
        if urls.is_empty() {
            return Err(BadUrl("no valid URLs given".to_owned()));
        }
        urls.sort_by(|a, b| a.text.cmp(&b.text));
        Ok(urls)
    }

    /// What it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or the name of a socket file.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host without port and brackets.
    #[must_use]
    pub fn hostname(&self) -> &str {
        let host = self.host.rsplit_once(':').map_or(&self.host[..], |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Scheme in small letters, host with port, path.
fn split(text: &str) -> Result<(String, &str, &str), String> {
    if text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (scheme, rest) = scheme(text)?;
    let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        if scheme.is_empty() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        return Ok((scheme, "", rest));
    }
    let Some(authority) = rest.strip_prefix("//") else { return Ok((scheme, "", rest)) };
    let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    check_host(host)?;
    check_escapes(path)?;
    Ok((scheme, host, path))
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    match text.find(|c| !is_inner(c)) {
        Some(0) if text.starts_with(':') => Err("missing protocol scheme".to_owned()),
        Some(at)
            if text[at..].starts_with(':')
                && text.starts_with(|c: char| c.is_ascii_alphabetic()) =>
        {
            Ok((text[..at].to_ascii_lowercase(), &text[at + 1..]))
        }
        _ => Ok((String::new(), text)),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = match host.rfind('[') {
        Some(0) => {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            &host[end + 1..]
        }
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let is_port =
        |p: &str| p.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !port.is_empty() && !is_port(port) {
        return Err(format!("invalid port {} after host", quote(port.as_bytes())));
    }
    check_escapes(host)?;
    let is_foreign = |c: &char| " \\^`{|}".contains(*c);
    match host.chars().find(is_foreign) {
        Some(c) => {
            let shown = quote(c.to_string().as_bytes());
            Err(format!("invalid character {shown} in host name"))
        }
        None => Ok(()),
    }
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)) {
            let end = text.char_indices().map(|(n, c)| n + c.len_utf8()).find(|end| *end >= at + 3);
            let shown = &text[at..end.unwrap_or(text.len())];
            return Err(format!("invalid URL escape {}", quote(shown.as_bytes())));
        }
    }
    Ok(())
}

/// Whether a host that passed [`check_host`] names a port, which may be empty.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(name, _)| !name.starts_with('[') || name.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_peers_are_refused_with_etcds_texts() {
        let why = |url: &str| Url::parse(url).unwrap_err().to_string();
        let form = r#"URL address does not have the form "host:port": "#;
        let bad_scheme = "URL scheme must be http, https, unix, or unixs: ";
        assert_eq!(why("http://a"), format!("{form}http://a"));
        assert_eq!(why("http:a:1"), format!("{form}http:a:1"));
        assert_eq!(why("http://::1:7"), r#"parse "http://::1:7": invalid port "::1:7" after host"#);
        assert_eq!(why("http://a:1/"), "URL must not contain a path: http://a:1/");
        for url in ["", "a", "ftp://a:1", "localhost:1", "//a:1"] {
            assert_eq!(why(url), format!("{bad_scheme}{url}"));
        }
        assert_eq!(
            why("127.0.0.1:1"),
            r#"parse "127.0.0.1:1": first path segment in URL cannot contain colon"#
        );
        assert_eq!(why(":1"), r#"parse ":1": missing protocol scheme"#);
        assert_eq!(why("http://a:x"), r#"parse "http://a:x": invalid port ":x" after host"#);
        assert_eq!(why("http://[a"), r#"parse "http://[a": missing ']' in host"#);
        assert_eq!(why("http://a%:1"), r#"parse "http://a%:1": invalid URL escape "%:1""#);
    }

    #[test]
    fn what_could_be_a_peer_passes() {
        let fine =
            ["http://a:1", "HTTPS://[::1]:2", " http://a:1 ", "unix://x", "unixs:y", "http://:1"];
        assert!(fine.iter().all(|url| Url::parse(url).is_ok()));
    }

    #[test]
    fn a_url_is_a_scheme_and_an_address() {
        for good in ["http://a:1", "https://[::1]:2380", "unix://localhost:7", "unix:///tmp/s"] {
            assert_eq!(Url::parse(good).unwrap().to_string(), good);
        }
        let url = Url::parse(" HTTPS://[::1]:2380?a=b ").unwrap();
        assert_eq!((url.scheme(), url.host()), (Scheme::Https, "[::1]:2380"));
        assert_eq!((url.hostname(), url.text()), ("::1", "HTTPS://[::1]:2380?a=b"));
        assert_eq!(Url::parse("unix:///tmp/s").unwrap().host(), "/tmp/s");
        for bad in ["a:1", "http://a", "http://a:1/b", "http://::1:2", "ftp://a:1", "http://a b:1"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert!(Url::parse_all::<&str>(&[]).is_err());
    }
}
