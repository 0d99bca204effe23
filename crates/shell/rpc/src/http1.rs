//! What Go's HTTP/1.1 server settles before a handler sees a request: whether the first bytes are
//! HTTP at all, the `Host` header, and the path that is meant.

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::HttpResponse;

/// Bytes within which the first line must end.
//= cmux 0.1.5: matchers.go#maxHTTPRead
const FIRST_LINE_BYTES: usize = 4_096;

/// Reads on, behind what `first` holds, until it can be told whether it is HTTP/1.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(
    socket: &mut S,
    first: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let mut room = [0; 512];
    loop {
        if let Some(end) = first.iter().position(|b| *b == b'\n') {
            return Ok(is_request_line(&first[..end]));
        }
        let left = FIRST_LINE_BYTES.saturating_sub(first.len()).min(room.len());
        let n = match left {
            0 => 0,
            left => socket.read(&mut room[..left]).await?,
        };
        if n == 0 {
            return Ok(is_request_line(first));
        }
        first.extend_from_slice(&room[..n]);
    }
}

/// Whether a line is a request line of HTTP/1, whatever its method and target.
//= cmux 0.1.5: matchers.go#matchHTTP1Field, #parseRequestLine
fn is_request_line(line: &[u8]) -> bool {
    let mut parts = line.strip_suffix(b"\r").unwrap_or(line).splitn(3, |b| *b == b' ');
    let (Some(_), Some(_), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit())
}

/// What becomes of a request.
pub(crate) enum Settled {
    /// A handler sees it.
    Handled,
    /// It is answered before anything else looks at it.
    Answered(Box<HttpResponse>),
    /// It is sent elsewhere, unless its host or its origin says otherwise.
    Redirected(Box<HttpResponse>),
}

/// Whether calls are answered as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateway {
    There,
    Absent,
}

/// Settles a request by its head, which is left with the target that is meant.
//= go 1.26: src/net/http/server.go#readRequest, #findHandler
pub(crate) fn settle(head: &mut Parts, gateway: Gateway) -> Settled {
    if let Err(why) = check_host(head) {
        return Settled::Answered(bad_request(why));
    }
    if head.uri.path() == "*" {
        return Settled::Answered(match head.method {
            Method::OPTIONS => Box::new(HttpResponse::new(Bytes::new())),
            _ => {
                let mut response = bad_request(None);
                response.body_mut().clear();
                response.headers_mut().remove(header::CONTENT_TYPE);
                response
            }
        });
    }
    if head.method == Method::CONNECT {
        return Settled::Handled;
    }
    //= etcd 3.7.3: server/embed/serve.go#accessController.ServeHTTP
    if let Some(rest) = head.uri.path().strip_prefix(::gateway::OLD_ROOT)
        && let Some(uri) = with_path(&head.uri, &format!("{}{rest}", ::gateway::ROOT))
    {
        head.uri = uri;
    }
    let path = head.uri.path();
    let Some(decoded) = decode(path) else { return Settled::Answered(bad_request(None)) };
    let clean = clean(path);
    let is_root = gateway == Gateway::There && ::gateway::ROOT.strip_suffix('/') == Some(&clean);
    if is_root {
        return Settled::Redirected(redirect(&head.method, ::gateway::ROOT, head.uri.query()));
    }
    if clean != path {
        return Settled::Redirected(redirect(&head.method, &clean, head.uri.query()));
    }
    if let Some(uri) = decoded.and_then(|decoded| with_path(&head.uri, &decoded)) {
        head.uri = uri;
    }
    Settled::Handled
}

/// There must be one `Host`, of letters that a host may have; in HTTP/1.0 there may be none.
fn check_host(head: &Parts) -> Result<(), Option<&'static str>> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(None),
        (Some(host), None) if !host.as_bytes().iter().all(is_of_host) => {
            Err(Some("malformed Host header"))
        }
        (None, _) if head.version == Version::HTTP_11 && head.method != Method::CONNECT => {
            Err(Some("missing required Host header"))
        }
        _ => Ok(()),
    }
}

//= golang.org/x/net: http/httpguts/httplex.go#validHostByte
fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;=[']_~".contains(byte)
}

fn bad_request(why: Option<&'static str>) -> Box<HttpResponse> {
    let reason = match why {
        Some(why) => format!("Bad Request: {why}"),
        None => "Bad Request".to_owned(),
    };
    let mut response = HttpResponse::new(format!("400 {reason}").into());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Ok(reason) = ReasonPhrase::try_from(reason.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    Box::new(response)
}

/// The path without `.`, `..` and empty segments; a slash at its end stays.
//= go 1.26: src/net/http/server.go#cleanPath
fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

/// The path with its escapes decoded: `None` for a malformed escape, `Some(None)` if there is
/// nothing to decode, or nothing that a handler's path could hold.
#[expect(clippy::option_option, reason = "an error without a text, and a choice")]
fn decode(path: &str) -> Option<Option<String>> {
    if !path.contains('%') {
        return Some(None);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    let mut is_ours = true;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        let hex = std::str::from_utf8(after.get(..2)?).ok()?;
        if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let decoded = u8::from_str_radix(hex, 16).ok()?;
        // An escaped slash separates nothing, and an escaped question mark begins no query.
        is_ours &= decoded.is_ascii_graphic() && !b"/?#%".contains(&decoded);
        out.push(decoded);
        rest = &after[2..];
    }
    Some(String::from_utf8(out).ok().filter(|_| is_ours))
}

/// The target with another path.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// Sends the client to the clean path.
//= go 1.26: src/net/http/server.go#Redirect
fn redirect(method: &Method, path: &str, query: Option<&str>) -> Box<HttpResponse> {
    let mut target = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            target.push(char::from(byte));
        } else {
            target.push_str(&format!("%{byte:02X}"));
        }
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        target.push('?');
        target.push_str(query);
    }
    let body = match *method {
        Method::GET => format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape(&target)),
        _ => String::new(),
    };
    let mut response = HttpResponse::new(body.into());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    if let Ok(target) = HeaderValue::try_from(target) {
        headers.insert(header::LOCATION, target);
    }
    if matches!(*method, Method::GET | Method::HEAD) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    Box::new(response)
}

/// Text within HTML, as Go escapes it.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}

/// Settles arbitrary bytes as a target, for fuzzing.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    is_request_line(bytes);
    let Ok(uri) = Uri::try_from(bytes) else { return };
    let request = http::Request::builder().uri(uri).header(header::HOST, "h").body(());
    let Ok(request) = request else { return };
    let mut head = request.into_parts().0;
    if let Settled::Handled = settle(&mut head, Gateway::There) {
        let path = head.uri.path().to_owned();
        assert_eq!(clean(&path), path, "what is handled is clean");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> Parts {
        let request = http::Request::builder().uri(target).header(header::HOST, "localhost:1");
        request.body(()).unwrap().into_parts().0
    }

    fn settled(mut head: Parts) -> Result<Parts, Box<HttpResponse>> {
        match settle(&mut head, Gateway::There) {
            Settled::Handled => Ok(head),
            Settled::Answered(answer) | Settled::Redirected(answer) => Err(answer),
        }
    }

    fn handled(target: &str) -> String {
        match settled(head(target)) {
            Ok(head) => head.uri.to_string(),
            Err(answer) => panic!("{target}: {answer:?}"),
        }
    }

    fn answer(head: Parts) -> HttpResponse {
        *settled(head).expect_err("no handler shall see it")
    }

    #[test]
    fn request_lines_are_told_from_anything_else() {
        for line in ["GET / HTTP/1.1", "get /health HTTP/1.0\r", "PRI * HTTP/1.1"] {
            assert!(is_request_line(line.as_bytes()), "{line}");
        }
        for line in ["", "hello", "GET blah", "GET  / HTTP/1.1", "GET / HTTP/2.0", "\u{1}\u{2}"] {
            assert!(!is_request_line(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn escapes_are_decoded_where_a_handler_could_mean_them() {
        assert_eq!(handled("/health?a=%20"), "/health?a=%20");
        assert_eq!(handled("/%68ealth?x=1"), "/health?x=1");
        assert_eq!(handled("/v3beta/kv/range?x"), "/v3/kv/range?x");
        for target in ["/%2fversion", "/health%3Fa", "/a%20b", "/%ff", "/livez/"] {
            assert_eq!(handled(target), target);
        }
        assert_eq!(answer(head("/%zz")).status(), StatusCode::BAD_REQUEST);
        assert_eq!(answer(head("/%6")).status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn unclean_paths_are_redirected() {
        for (target, location) in [
            ("//health", "/health"),
            ("/a/../health", "/health"),
            ("/./health?x=1&y", "/health?x=1&y"),
            ("/health/.", "/health"),
            ("//health//", "/health/"),
            ("//a%20b", "/a%2520b"),
            ("/..", "/"),
            ("/v3?x", "/v3/?x"),
            ("/v3beta//kv", "/v3/kv"),
        ] {
            let answer = answer(head(target));
            assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
            assert_eq!(answer.headers()[header::LOCATION], location, "{target}");
        }
        let body = answer(head("//health?a&b")).into_body();
        assert_eq!(body, "<a href=\"/health?a&amp;b\">Temporary Redirect</a>.\n\n");
    }

    #[test]
    fn one_proper_host_is_needed() {
        let with = |hosts: &[&'static str], version| {
            let mut head = head("/health");
            head.headers.clear();
            for host in hosts {
                head.headers.append(header::HOST, HeaderValue::from_static(host));
            }
            head.version = version;
            settled(head).map_or_else(|answer| answer.into_body(), |_| "handled".into())
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        assert_eq!(with(&["[::1]:2379"], new), "handled");
        assert_eq!(with(&[""], new), "handled");
        assert_eq!(with(&[], old), "handled");
        assert_eq!(with(&[], new), "400 Bad Request: missing required Host header");
        assert_eq!(with(&["a", "a"], old), "400 Bad Request");
        assert_eq!(with(&["a b"], new), "400 Bad Request: malformed Host header");
    }
}
