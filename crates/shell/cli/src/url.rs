//! URLs of peers, refused with the texts of etcd's client and of Go's URL parser.
//!
//! Never resolves a name, and never changes what it was given: the server does that.

use crate::text::quote;

/// Looks at the URLs of one member before they are sent.
///
/// # Errors
/// What is wrong with the first one that cannot be a peer's.
//= etcd 3.7.1: client/pkg/types/urls.go#NewURLs
pub fn check_peers(urls: &[String]) -> Result<(), String> {
    urls.iter().try_for_each(|url| check_peer(url.trim()))
}

fn check_peer(text: &str) -> Result<(), String> {
    let (before, _) = text.split_once('#').unwrap_or((text, ""));
    let parts = split(before).map_err(|why| format!("parse {}: {why}", quote(before.as_bytes())));
    let (scheme, host, path) = parts?;
    match scheme.as_str() {
        "http" | "https" => {}
        "unix" | "unixs" => return Ok(()),
        _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
    }
    if !has_port(host) {
        return Err(format!("URL address does not have the form \"host:port\": {text}"));
    }
    if !path.is_empty() {
        return Err(format!("URL must not contain a path: {text}"));
    }
    Ok(())
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
        let why = |url: &str| check_peers(&["http://a:1".to_owned(), url.to_owned()]).unwrap_err();
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
        assert_eq!(check_peers(&fine.map(str::to_owned)), Ok(()));
    }
}
