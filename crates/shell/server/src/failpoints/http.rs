//! The protocol by which failpoints are set: names as paths, terms as bodies.
//!
//! One thread per connection, for the few that a test opens; heads and bodies are limited. Answers
//! have the statuses and texts of Go's, but for the headers that its server adds by itself.
//= gofail 0.2.0: runtime/http.go

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::{DISABLED, Registry, assignments, lock};

/// Bytes of a request's head, and of its body.
const MAX_HEAD_BYTES: u64 = 64 << 10;
const MAX_BODY_BYTES: u64 = 1 << 20;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

fn answer(status: u16, body: impl Into<String>) -> Answer {
    Answer { status, body: body.into() }
}

/// As Go's `http.Error`: a line.
fn error(status: u16, text: impl std::fmt::Display) -> Answer {
    answer(status, format!("{text}\n"))
}

/// Answers one request.
pub fn respond(registry: &Registry, method: &str, uri: &str, body: &str) -> Answer {
    let Some(key) = uri.strip_prefix('/') else {
        return error(400, "malformed request URI");
    };
    match method {
        "PUT" => put(registry, key, body),
        "GET" if key.is_empty() => list(registry),
        "GET" => get(registry, key),
        "DELETE" => match registry.disable(key) {
            Ok(()) => answer(204, ""),
            Err(e) => error(400, format!("failed to delete failpoint {e}")),
        },
        _ => error(405, "Method not allowed"),
    }
}

fn put(registry: &Registry, key: &str, body: &str) -> Answer {
    let set = if key.eq_ignore_ascii_case("failpoints") {
        assignments(body)
    } else {
        Ok([(key, body)].into())
    };
    let set = match set {
        Ok(set) => set,
        Err(e) => return error(400, format!("fail to parse failpoint: {e}")),
    };
    for (name, terms) in set {
        if let Err(e) = registry.enable(name, terms) {
            return error(400, format!("fail to set failpoint: {e}"));
        }
    }
    answer(204, "")
}

fn list(registry: &Registry) -> Answer {
    let mut names: Vec<_> = env::Failpoint::ALL.iter().map(|point| point.name()).collect();
    names.sort_unstable();
    let line = |name: &str| {
        let (terms, _) = registry.status(name).unwrap_or_default();
        format!("{name}={terms}\n")
    };
    answer(200, names.into_iter().map(line).collect::<String>())
}

fn get(registry: &Registry, key: &str) -> Answer {
    if let Some(name) = key.strip_suffix("/count") {
        return match registry.status(name) {
            Ok((_, count)) => answer(200, count.to_string()),
            Err(e) => {
                let status = if e == DISABLED { 500 } else { 404 };
                error(status, format!("failed to GET: {e}"))
            }
        };
    }
    match registry.status(key) {
        Ok((terms, _)) => answer(200, format!("{terms}\n")),
        // Go goes on after the error with an empty status.
        Err(e) => error(404, format!("failed to GET: {e}\n")),
    }
}

/// Serves the protocol on an address until the process ends.
///
/// # Errors
/// Why the address cannot be listened on.
pub fn listen(registry: Arc<Registry>, address: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("listen tcp {address}: {e}");
    // Go takes an empty host as all of them.
    let bound = match address.strip_prefix(':') {
        Some(port) => TcpListener::bind(format!("[::]:{port}")),
        None => TcpListener::bind(address),
    };
    let listener = bound.map_err(failed)?;
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let registry = Arc::clone(&registry);
            // A connection that cannot be served is closed.
            let _ = std::thread::Builder::new()
                .name("failpoint".to_owned())
                .spawn(move || serve(&registry, stream));
        }
    };
    let builder = std::thread::Builder::new().name("failpoints".to_owned());
    builder.spawn(accept).map(|_| ()).map_err(failed)
}

/// A connection to its end; what goes wrong with it closes it.
fn serve(registry: &Registry, stream: TcpStream) -> Option<()> {
    let mut write = stream.try_clone().ok()?;
    let mut read = BufReader::new(stream);
    loop {
        let request = read_request(&mut read)?;
        let _answering = lock(&registry.answering);
        let Answer { status, body } =
            respond(registry, &request.method, &request.uri, &request.body);
        let (reason, more) = match status {
            200 => ("OK", ""),
            204 => ("No Content", ""),
            400 => ("Bad Request", "X-Content-Type-Options: nosniff\r\n"),
            404 => ("Not Found", "X-Content-Type-Options: nosniff\r\n"),
            405 => ("Method Not Allowed", "Allow: PUT\r\nX-Content-Type-Options: nosniff\r\n"),
            _ => ("Internal Server Error", "X-Content-Type-Options: nosniff\r\n"),
        };
        let kind = if status == 204 {
            String::new()
        } else {
            format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n", body.len())
        };
        let close = if request.keeps_alive { "" } else { "Connection: close\r\n" };
        let head = format!("HTTP/1.1 {status} {reason}\r\n{more}{kind}{close}\r\n");
        let body = if request.method == "HEAD" { "" } else { &body };
        write.write_all(format!("{head}{body}").as_bytes()).ok()?;
        if !request.keeps_alive {
            return Some(());
        }
    }
}

struct Request {
    method: String,
    uri: String,
    body: String,
    keeps_alive: bool,
}

/// The next request; `None` if there is none, or it is not one.
fn read_request(read: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = read.by_ref().take(MAX_HEAD_BYTES);
    let mut line = || {
        let mut line = String::new();
        let len = head.read_line(&mut line).ok()?;
        (len > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, uri, version) = (words.next()?, words.next()?, words.next()?);
    let (mut length, mut close, mut waits) = (0, version == "HTTP/1.0", false);
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            // Nobody who sets a failpoint streams its terms.
            "transfer-encoding" => return None,
            "connection" => close = value.eq_ignore_ascii_case("close"),
            "expect" => waits = true,
            _ => {}
        }
    }
    if length > MAX_BODY_BYTES {
        return None;
    }
    if waits {
        read.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = String::new();
    read.take(length).read_to_string(&mut body).ok()?;
    let (method, uri) = (method.to_owned(), uri.to_owned());
    (body.len() as u64 == length).then_some(Request { method, uri, body, keeps_alive: !close })
}
