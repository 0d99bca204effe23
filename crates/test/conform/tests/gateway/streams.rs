//! Streams over HTTP/1.1: requests as they come, a line for each response.

use serde_json::{Value, json};

use crate::web::{Answer, Body, Connection, PATIENCE, ask, post};
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

/// Waits until so many keys are under a prefix that ends with a slash.
fn until_keys(port: u16, prefix: &str, wanted: u64) {
    let end = prefix.replace('/', "0");
    let range = json!({"key": base64(prefix), "range_end": base64(end), "count_only": true});
    let begun = std::time::Instant::now();
    loop {
        let Body::Json(values) = post(port, "/v3/kv/range", &range.to_string()).body else {
            panic!("a range is answered by JSON")
        };
        // Fields that are zero are left out.
        let count = values[0]["count"].as_str().map_or(0, |count| count.parse().unwrap());
        if count == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{count} keys, not {wanted}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn who_hangs_up_ends_its_call() {
    let pair = Pair::start(&[]);
    pair.same("a lock that is given up", |port| {
        for lease in 1..3 {
            post(port, "/v3/lease/grant", &json!({"ID": lease, "TTL": 1000}).to_string());
        }
        let lock = |lease: u32| json!({"name": base64("l"), "lease": lease}).to_string();
        let held = post(port, "/v3/lock/lock", &lock(1));
        let mut waiting = Connection::open(port);
        waiting.ask("POST", "/v3/lock/lock", "", lock(2).as_bytes());
        until_keys(port, "l/", 2);
        drop(waiting);
        until_keys(port, "l/", 1);
        held
    });
}

#[test]
fn all_calls_together_are_bounded() {
    let pair = Pair::start(&["--max-concurrent-streams", "2"]);
    pair.same("two streams and a call", |port| {
        let range = json!({"key": base64("k")}).to_string();
        let within = |fields: &str| ask(port, "POST", "/v3/kv/range", fields, range.as_bytes());
        let mut first = Stream::whole(port, "/v3/watch", &watch("k"));
        let heads = [first.head(), within("Connection: close\r\n")];
        let mut second = Stream::whole(port, "/v3/watch", &watch("k"));
        let lines = [first.line(), Some(second.head().status.into()), second.line()];
        let late = within("Connection: close\r\nGrpc-Timeout: 300m\r\n");
        assert_eq!(late.status, 504);
        drop(first);
        (heads, lines, late, within("Connection: close\r\n"))
    });
}
