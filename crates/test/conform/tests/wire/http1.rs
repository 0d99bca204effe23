//! HTTP/1.1 as bytes: first lines that are none, hosts, and paths that are not clean.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use conform::{Kind, Server};

/// What came back: the status line, `Location`, the body, and whether the server closed.
#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    location: Option<String>,
    body: String,
    closed: bool,
}

/// Sends bytes as they are and reads until the answer's body is complete or the server closes.
fn send(server: &Server, bytes: &str) -> Answer {
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(bytes.as_bytes()).unwrap();
    let (mut text, mut closed, mut room) = (String::new(), false, [0; 4096]);
    while !closed && !is_complete(&text) {
        // A server that closes with bytes unread resets the connection.
        let n = socket.read(&mut room).unwrap_or(0);
        text.push_str(std::str::from_utf8(&room[..n]).unwrap());
        closed = n == 0;
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    Answer {
        status: head.lines().next().unwrap_or_default().to_owned(),
        location: header("location"),
        body: body.to_owned(),
        closed: closed || header("connection").as_deref() == Some("close"),
    }
}

/// Whether a head is there, and as much of a body as it announces.
fn is_complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let announced = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    announced.is_some_and(|length| body.len() >= length)
}

const REQUESTS: &[&str] = &[
    "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: \r\n\r\n",
    "GET /health HTTP/1.1\r\n\r\n",
    "GET http://x/health HTTP/1.1\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET /health HTTP/1.1\r\nHost: a{b}\r\n\r\n",
    "GET //health HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET //health?a=b&c HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST //health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "GET /a/../health HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /health/. HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET //a%20b%2fc HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%68ealth HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%2fhealth HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /health%3Fa HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "PRI * HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "get /health HTTP/1.1\r\nHost: a\r\n\r\n",
    // No HTTP at all: closed without a word.
    "GET blah\r\n\r\n",
    "GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
    "hello\r\n",
    "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}\r\n\r\n",
    // A greeting of TLS begins so.
    "\u{16}\u{3}\u{1}\u{2}\n",
];

#[test]
fn requests_are_settled_as_gos_server_does() {
    let ours = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let theirs = Server::start(Kind::Reference, &[]);
    for request in REQUESTS {
        let answer = send(&ours, request);
        if let Some(theirs) = &theirs {
            assert_eq!(answer, send(theirs, request), "{request:?} (left ours, right etcd's)");
        }
    }
    let status = |request| send(&ours, request).status;
    assert_eq!(status(REQUESTS[0]), "HTTP/1.1 200 OK");
    assert_eq!(status(REQUESTS[2]), "HTTP/1.1 400 Bad Request: missing required Host header");
    assert_eq!(status("hello\r\n"), "");
}
