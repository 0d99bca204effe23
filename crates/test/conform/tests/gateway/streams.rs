//! Streams over HTTP/1.1: requests as they come, a line for each response.

use serde_json::{Value, json};

use crate::web::{Answer, Connection, ask, post};
use crate::{Pair, base64};

/// A stream whose request goes on, piece by piece.
struct Stream {
    connection: Connection,
    rest: Vec<u8>,
}

impl Stream {
    fn open(port: u16, path: &str, fields: &str) -> Self {
        let mut connection = Connection::open(port);
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}");
        connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
        Self { connection, rest: Vec::new() }
    }

    /// A stream whose request is all there.
    fn whole(port: u16, path: &str, body: &str) -> Self {
        let mut connection = Connection::open(port);
        connection.ask("POST", path, "", body.as_bytes());
        Self { connection, rest: Vec::new() }
    }

    fn send(&mut self, piece: &str) {
        self.connection.send(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
    }

    fn end(&mut self) {
        self.connection.send(b"0\r\n\r\n");
    }

    fn head(&mut self) -> Answer {
        self.connection.head()
    }

    fn line(&mut self) -> Option<Value> {
        self.connection.line(&mut self.rest)
    }

    fn all(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.line()).collect()
    }
}

fn put(port: u16, key: &str, value: &str) {
    let body = json!({"key": base64(key), "value": base64(value)}).to_string();
    assert_eq!(post(port, "/v3/kv/put", &body).status, 200);
}

fn watch(key: &str) -> String {
    json!({"create_request": {"key": base64(key), "start_revision": "1"}}).to_string()
}

#[test]
fn a_watch_goes_on_line_by_line() {
    let pair = Pair::start(&[]);
    pair.same("a watch", |port| {
        let mut stream = Stream::whole(port, "/v3/watch", &watch("k"));
        let mut seen = Vec::new();
        let head = stream.head();
        seen.push(stream.line());
        for n in 0..3 {
            put(port, "k", &n.to_string());
            seen.push(stream.line());
        }
        let delete = json!({"key": base64("k")}).to_string();
        post(port, "/v3/kv/deleterange", &delete);
        seen.push(stream.line());
        (head, seen)
    });
}

#[test]
fn keep_alives_are_answered_each() {
    let pair = Pair::start(&[]);
    pair.same("keep-alives", |port| {
        post(port, "/v3/lease/grant", "{\"ID\":5,\"TTL\":1000}");
        let bodies = [
            "{\"ID\":5}",
            "{\"ID\":5}{\"ID\":6}\n{\"ID\":\"5\"}",
            "{\"ID\":5} x",
            "{\"ID\":5}{\"ID\":\"x\"}{\"ID\":5}",
            "{\"ID\":5",
            "",
            "x",
            "[]",
        ];
        bodies.map(|body| {
            let mut stream = Stream::whole(port, "/v3/lease/keepalive", body);
            (stream.head(), stream.all())
        })
    });
}

#[test]
fn a_server_stream_has_one_request() {
    let pair = Pair::start(&[]);
    pair.same("an observer", |port| {
        post(port, "/v3/lease/grant", "{\"ID\":5,\"TTL\":1000}");
        let name = base64("e");
        let campaign = json!({"name": name, "lease": 5, "value": base64("v")}).to_string();
        let campaigned = post(port, "/v3/election/campaign", &campaign);
        let mut stream =
            Stream::whole(port, "/v3/election/observe", &json!({"name": name}).to_string());
        let head = stream.head();
        let first = stream.line();
        let leader = json!({"name": name, "key": base64("e/5"), "rev": "2", "lease": "5"});
        let proclaim = json!({"leader": leader, "value": base64("w")}).to_string();
        post(port, "/v3/election/proclaim", &proclaim);
        (campaigned, head, first, stream.line())
    });
    pair.same("its bad requests", |port| {
        ["{", "[]", "{\"name\":1}"].map(|body| post(port, "/v3/election/observe", body))
    });
    for server in [Some(&pair.ours), pair.theirs.as_ref()].into_iter().flatten() {
        let mut stream = Stream::whole(server.port, "/v3/maintenance/snapshot", "{}");
        assert_eq!(stream.head().status, 200);
        let lines = stream.all();
        let blobs = lines.iter().filter(|line| line["result"]["blob"].is_string());
        assert_eq!(blobs.count(), lines.len());
        let left = |line: &Value| line["result"]["remaining_bytes"].as_str().map(str::to_owned);
        assert_eq!(left(lines.last().unwrap()), None);
        assert!(lines.len() > 1);
    }
}

#[test]
fn a_deadline_ends_a_stream() {
    let pair = Pair::start(&[]);
    pair.same("a deadline", |port| {
        let body = watch("k");
        let fields = "Grpc-Timeout: 300m\r\nConnection: close\r\n";
        ask(port, "POST", "/v3/watch", fields, body.as_bytes())
    });
}

/// Go's HTTP/1.1 server reads a request to its end before it answers; ours answers meanwhile.
#[test]
fn requests_may_follow_responses() {
    let pair = Pair::start(&[]);
    let port = pair.ours.port;
    let mut stream = Stream::open(port, "/v3/watch", "");
    stream.send(&watch("a"));
    assert_eq!(stream.head().status, 200);
    assert_eq!(stream.line().unwrap()["result"]["created"], true);
    let second = json!({"create_request": {"key": base64("b")}}).to_string();
    let (first, rest) = second.split_at(9);
    stream.send(first);
    stream.send(rest);
    assert_eq!(stream.line().unwrap()["result"]["watch_id"], "1");
    stream.end();
    put(port, "b", "v");
    let events = stream.line().unwrap();
    assert_eq!(events["result"]["events"][0]["kv"]["value"], base64("v"));
}
