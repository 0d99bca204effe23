//! The same raw requests to both servers, the same answers: status, headers, bodies.

#[path = "support/samples.rs"]
mod samples;
mod support;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use samples::{every_kind, message, snapshot};
use support::{Go, Ours, oracle};

/// Headers of a member that is welcome.
const WELCOME: &[(&str, &str)] = &[
    ("X-Server-From", "2"),
    ("X-Server-Version", "3.7.3"),
    ("X-Min-Cluster-Version", "3.0.0"),
    ("X-Etcd-Cluster-ID", "c1"),
    ("X-Raft-To", "1"),
];

struct Case {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    /// Replace or add to [`WELCOME`]; an empty value leaves a header out.
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
}

impl Case {
    fn request(&self) -> Vec<u8> {
        let mut headers: BTreeMap<_, _> = WELCOME.iter().copied().collect();
        headers.extend(self.headers.iter().copied());
        let mut text = format!("{} {} HTTP/1.1\r\nHost: a\r\n", self.method, self.path);
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n", self.body.len()));
        [text.into_bytes(), self.body.clone()].concat()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Reply {
    status: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Sends a request and reads the answer to its end; of an endless one the first piece, which comes
/// within a third of the read timeout.
fn exchange(url: &str, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    stream.write_all(request).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let reply = parse(&bytes);
        let length = reply.headers.get("Content-Length").and_then(|n| n.parse::<usize>().ok());
        let is_chunked = reply.headers.contains_key("Transfer-Encoding");
        let is_whole = match length {
            Some(length) => reply.body.len() >= length,
            None => reply.status.contains("204") || is_chunked && reply.body.ends_with("\r\n"),
        };
        if is_whole {
            return reply;
        }
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
            _ => return reply,
        }
    }
}

fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Reply::default() };
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| *name != "Date")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Reply { status, headers, body: body.to_owned() }
}

fn framed(message: &raft::Message, rest: &[u8]) -> Vec<u8> {
    let bytes = message.encode();
    [&(bytes.len() as u64).to_be_bytes()[..], &bytes, rest].concat()
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn cases() -> Vec<Case> {
    let good = every_kind(2, 1).swap_remove(4).encode();
    let case = |name, method, path, headers, body: &[u8]| Case {
        name,
        method,
        path,
        headers,
        body: body.to_vec(),
    };
    let from_removed = every_kind(3, 1).swap_remove(4).encode();
    let to_other = every_kind(2, 9).swap_remove(4).encode();
    let vote = message(2, 1, 4, raft::Body::VoteReply { reject: false });
    let app = "/raft/stream/msgapp/2";
    let mut cases = vec![
        case("a message", "POST", "/raft", &[], &good),
        case("a GET of raft", "GET", "/raft", &[], b""),
        case("a PUT of raft", "PUT", "/raft", &[], &good),
        case("another cluster", "POST", "/raft", &[("X-Etcd-Cluster-ID", "c2")], &good),
        case("no cluster", "POST", "/raft", &[("X-Etcd-Cluster-ID", "")], &good),
        case("too old", "POST", "/raft", &[("X-Server-Version", "2.3.0")], &good),
        case("no version", "POST", "/raft", &[("X-Server-Version", "")], &good),
        case("3.6.16", "POST", "/raft", &[("X-Server-Version", "3.6.16")], &good),
        case("too new", "POST", "/raft", &[("X-Min-Cluster-Version", "3.8.0")], &good),
        case("garbage", "POST", "/raft", &[], b"\xff\xff\xff"),
        case("nothing", "POST", "/raft", &[], b""),
        case("a removed sender", "POST", "/raft", &[("X-Server-From", "3")], &from_removed),
        case("another recipient", "POST", "/raft", &[], &to_other),
        case("a POST of a stream", "POST", app, &[], b""),
        case("a stream of another cluster", "GET", app, &[("X-Etcd-Cluster-ID", "c2")], b""),
        case("a stream of an old one", "GET", app, &[("X-Server-Version", "2.3.0")], b""),
        case("a stream to somebody else", "GET", app, &[("X-Raft-To", "9")], b""),
        case("a stream to nobody", "GET", app, &[("X-Raft-To", "")], b""),
        case("a stream of another kind", "GET", "/raft/stream/other/2", &[], b""),
        case("a stream without a kind", "GET", "/raft/stream/2", &[], b""),
        case("a stream without a reader", "GET", "/raft/stream/msgapp/", &[], b""),
        case("a stream for garbage", "GET", "/raft/stream/message/xyz", &[], b""),
        case("a stream for a removed one", "GET", "/raft/stream/message/3", &[], b""),
        case("a stream for an unknown one", "GET", "/raft/stream/message/4", &[], b""),
        case("a GET of a snapshot", "GET", "/raft/snapshot", &[], b""),
        case("an empty snapshot", "POST", "/raft/snapshot", &[], b""),
        case("a short snapshot", "POST", "/raft/snapshot", &[], &[0; 4]),
        case("a cut message", "POST", "/raft/snapshot", &[], &[0, 0, 0, 0, 0, 0, 0, 9, 8]),
        case(
            "a garbage snapshot",
            "POST",
            "/raft/snapshot",
            &[],
            &[0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff],
        ),
        case("a giant snapshot", "POST", "/raft/snapshot", &[], &[0, 0, 0, 0, 4, 0, 0, 1, 1, 2]),
        case("a vote as a snapshot", "POST", "/raft/snapshot", &[], &framed(&vote, b"db")),
        case(
            "a snapshot of another cluster",
            "POST",
            "/raft/snapshot",
            &[("X-Etcd-Cluster-ID", "c2")],
            &framed(&snapshot(2, 1, 7), b"db"),
        ),
        case("a snapshot", "POST", "/raft/snapshot", &[], &framed(&snapshot(2, 1, 7), b"db")),
        case(
            "a snapshot to somebody else",
            "POST",
            "/raft/snapshot",
            &[],
            &framed(&snapshot(2, 9, 8), b"db"),
        ),
        case("an unknown path", "GET", "/nothing", &[], b""),
        case("an unknown path below raft", "GET", "/raft/nothing", &[], b""),
    ];
    for path in [app, "/raft/stream/message/2"] {
        cases.push(case("an open stream", "GET", path, &[("Connection", "keep-alive")], b""));
    }
    cases
}

#[test]
fn raw_requests_are_answered_as_by_go() {
    let Some(program) = oracle() else { return };
    let ours = Ours::start(1);
    let mut go = Go::start(&program, 1);
    // Nobody listens there.
    let nowhere = "http://127.0.0.1:9";
    ours.add(2, nowhere);
    go.tell(&format!("addpeer 2 {nowhere}"));
    ours.member.with(|told| told.gone.push(3));
    go.tell("removed 3");
    ours.member.wait_event("PeerAdded", 1);
    let mut different = Vec::new();
    for case in cases() {
        let request = case.request();
        let (mut a, mut b) = (exchange(&ours.url, &request), exchange(&go.url, &request));
        for reply in [&mut a, &mut b] {
            // Who refuses a message says so in its own words; and Go aborts the connection, so
            // that its answer has no length.
            if let Some((before, _)) = reply.body.split_once("process raft message (") {
                reply.body = before.to_owned();
                reply.headers.remove("Content-Length");
            }
            // protobuf-go draws the kind of the space here by a hash of the program.
            if reply.body.contains("proto:") {
                reply.body = reply.body.replace("proto:\u{a0}", "proto: ");
                reply.headers.remove("Content-Length");
            }
            if reply.body.contains("error processing raft message") {
                reply.body = "error processing raft message".to_owned();
                for name in ["Content-Length", "Transfer-Encoding", "Connection"] {
                    reply.headers.remove(name);
                }
            }
        }
        // The digits of a chunk's length may be of either case.
        a.body = a.body.replacen("A\r\n", "a\r\n", 1);
        if a != b {
            different.push(format!("{}: {a:#?} against Go's {b:#?}", case.name));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let received = ours.member.with(|told| told.received.len());
    assert_eq!(received, 3, "the message, that of 3.6.16, the snapshot");
}

#[test]
fn a_probe_is_answered_like_go_answers() {
    let Some(program) = oracle() else { return };
    let (ours, go) = (Ours::start(1), Go::start(&program, 1));
    let case = Case { name: "", method: "GET", path: "/raft/probing", headers: &[], body: vec![] };
    let shape = |url: &str| {
        let mut reply = exchange(url, &case.request());
        reply.headers.remove("Content-Length");
        let start = r#"{"OK":true,"Now":""#;
        assert!(reply.body.starts_with(start) && reply.body.ends_with("\"}\n"), "{reply:?}");
        reply.body.clear();
        reply
    };
    assert_eq!(shape(&ours.url), shape(&go.url));
}
