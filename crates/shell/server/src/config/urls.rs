//! URLs of listeners and peers.
//!
//! //= etcd 3.7.1: client/pkg/types/urls.go#NewURLs

use std::net::IpAddr;

use types::Url;

/// Parses a list of URLs; the result is sorted, as etcd sorts it.
///
/// # Errors
/// etcd's text.
pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
    let texts: Vec<&str> = text.split(',').collect();
    let mut urls = Url::parse_all(&texts).map_err(|e| e.to_string())?;
    urls.dedup_by(|a, b| a.text() == b.text());
    Ok(urls)
}

/// Whether this is a URL for binding: an IP or `localhost`, or a socket file.
///
/// # Errors
/// etcd's text.
//= etcd 3.7.1: server/embed/config.go#checkBindURLs
pub fn check_bind(url: &Url) -> Result<(), String> {
    if url.scheme().is_socket() {
        return Ok(());
    }
    let host = url.hostname();
    if host == "localhost" || host.is_empty() || host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("expected IP in URL for binding ({})", url.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_refused_with_etcds_texts() {
        let text = |url| parse_list(url).unwrap_err();
        assert_eq!(text("ftp://x:1"), "URL scheme must be http, https, unix, or unixs: ftp://x:1");
        assert_eq!(text("http://x"), r#"URL address does not have the form "host:port": http://x"#);
        assert_eq!(text("http://x:1/a"), "URL must not contain a path: http://x:1/a");
        let name = Url::parse("http://example.com:2379").unwrap();
        assert_eq!(
            check_bind(&name).unwrap_err(),
            "expected IP in URL for binding (http://example.com:2379)"
        );
        assert!(check_bind(&Url::parse("http://[::1]:2379").unwrap()).is_ok());
        assert!(check_bind(&Url::parse("unix://localhost:123").unwrap()).is_ok());
    }
}
