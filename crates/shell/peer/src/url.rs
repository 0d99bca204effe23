//! Where a peer listens, and which of its addresses is tried.
//!
//! //= etcd 3.7.1: client/pkg/types/urls.go#NewURLs
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/urlpick.go#urlPicker

use std::cell::{Cell, RefCell};
use std::fmt;

/// How a peer is reached.
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

/// A peer URL: a scheme and an authority; a socket file may have a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
}

/// The text is no peer URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(pub String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a peer URL: {}", self.0)
    }
}

impl std::error::Error for BadUrl {}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// If the scheme is unknown, a TCP URL has no port or a path, or the host cannot stand in a
    /// request.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let text = text.trim();
        let bad = || BadUrl(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(bad()),
        };
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
            let bare = host.starts_with('[') || !host.contains(':');
            if !bare || port.parse::<u16>().is_err() {
                return Err(bad());
            }
        }
        if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad());
        }
        Ok(Self { text: text.to_owned(), scheme, host: rest.to_owned() })
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
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a list of URLs, sorted by text as etcd sorts them.
///
/// # Errors
/// The first that is none; an empty list.
pub fn parse_urls<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Url>, BadUrl> {
    let mut urls =
        texts.iter().map(|text| Url::parse(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
    if urls.is_empty() {
        return Err(BadUrl(String::new()));
    }
    urls.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(urls)
}

/// The URLs of one peer, of which one is in use. Never empty.
#[derive(Debug)]
pub(crate) struct Picker {
    urls: RefCell<Vec<Url>>,
    picked: Cell<usize>,
}

impl Picker {
    /// The first is tried first.
    pub(crate) fn new(urls: Vec<Url>) -> Self {
        assert!(!urls.is_empty(), "a peer has a URL");
        Self { urls: RefCell::new(urls), picked: Cell::new(0) }
    }

    /// Other URLs, from the first.
    pub(crate) fn update(&self, urls: Vec<Url>) {
        assert!(!urls.is_empty(), "a peer has a URL");
        *self.urls.borrow_mut() = urls;
        self.picked.set(0);
    }

    /// The URL in use.
    pub(crate) fn pick(&self) -> Url {
        self.urls.borrow()[self.picked.get()].clone()
    }

    /// Moves on if `url` is the one in use.
    pub(crate) fn failed(&self, url: &Url) {
        let urls = self.urls.borrow();
        if urls[self.picked.get()] == *url {
            self.picked.set((self.picked.get() + 1) % urls.len());
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Url> {
        self.urls.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_url_is_a_scheme_and_an_address() {
        for good in ["http://a:1", "https://[::1]:2380", "unix://localhost:7", "unix:///tmp/s"] {
            assert_eq!(Url::parse(good).unwrap().to_string(), good);
        }
        for bad in ["a:1", "http://a", "http://a:1/b", "http://::1:2", "ftp://a:1", "http://a b:1"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert!(parse_urls::<&str>(&[]).is_err());
    }

    #[test]
    fn a_failure_moves_on_once() {
        let picker = Picker::new(parse_urls(&["http://b:1", "http://a:1"]).unwrap());
        let first = picker.pick();
        assert_eq!(first.host(), "a:1");
        picker.failed(&first);
        picker.failed(&first);
        let second = picker.pick();
        assert_eq!(second.host(), "b:1");
        picker.failed(&second);
        assert_eq!(picker.pick(), first);
    }
}
