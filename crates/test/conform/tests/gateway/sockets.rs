//! Websockets: a message for each request and each response.

use std::net::TcpStream;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::web::{Answer, Connection, masked, post};
use crate::{Pair, base64};

const FIELDS: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    pub fn open(port: u16, path: &str, fields: &str) -> (Answer, Self) {
        let mut connection = Connection::open(port);
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{FIELDS}{fields}\r\n");
        connection.send(head.as_bytes());
        let answer = connection.head();
        let (stream, rest) = connection.into_parts();
        let socket = WebSocket::from_partially_read(stream, rest, Role::Client, None);
        (answer, Self(socket))
    }

    pub fn send(&mut self, text: &str) {
        self.0.send(Message::text(text.to_owned())).expect("the server reads");
    }

    /// The next message; `None` at the end.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => {
                    return Some(masked(serde_json::from_str(text.as_str()).expect("JSON")));
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// The header fields of ours without those of CORS, which etcd's upgrade passes by.
pub fn upgraded(mut answer: Answer) -> Answer {
    answer.fields.retain(|(name, _)| !name.starts_with("access-control"));
    answer
}

#[test]
fn a_watch_by_websocket() {
    let pair = Pair::start(&[]);
    pair.same("a watch", |port| {
        let (answer, mut socket) = Socket::open(port, "/v3/watch", "");
        let create = json!({"create_request": {"key": base64("k")}}).to_string();
        socket.send(&create);
        let mut seen = vec![socket.next()];
        let put = json!({"key": base64("k"), "value": base64("v")}).to_string();
        post(port, "/v3/kv/put", &put);
        seen.push(socket.next());
        socket.send(&json!({"cancel_request": {"watch_id": "0"}}).to_string());
        seen.push(socket.next());
        (upgraded(answer), seen)
    });
}

#[test]
fn keep_alives_by_websocket_end_with_bad_json() {
    let pair = Pair::start(&[]);
    pair.same("keep-alives", |port| {
        let (answer, mut socket) = Socket::open(port, "/v3/lease/keepalive", "");
        let mut seen = Vec::new();
        for id in 1..5 {
            socket.send(&json!({"ID": id}).to_string());
            seen.push(socket.next());
        }
        socket.send("{\"ID\":1}{\"ID\":2}");
        seen.extend([socket.next(), socket.next()]);
        socket.send("nonsense");
        seen.push(socket.next());
        (upgraded(answer), seen)
    });
}

#[test]
fn what_is_no_path_is_told_as_a_message() {
    let pair = Pair::start(&[]);
    for path in ["/v3/nothing", "/v3/", "/v3beta/watch/x"] {
        pair.same(path, |port| {
            let (answer, mut socket) = Socket::open(port, path, "");
            (upgraded(answer), socket.next(), socket.next())
        });
    }
}

#[test]
fn a_bad_request_for_a_websocket_is_refused() {
    let pair = Pair::start(&[]);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    for (method, fields) in [
        ("GET", format!("{upgrade}{key}")),
        ("GET", format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n")),
        ("GET", format!("{upgrade}Sec-WebSocket-Version: 13\r\n")),
        ("GET", format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n")),
        ("POST", format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\n")),
        ("GET", format!("Connection: Upgrade\r\n{key}Sec-WebSocket-Version: 13\r\n")),
    ] {
        pair.same(&fields, |port| crate::web::ask(port, method, "/v3/watch", &fields, b""));
    }
}

/// etcd waits for the end of the client's messages, which a websocket does not have.
#[test]
fn a_call_with_one_request_is_answered_by_websocket() {
    let pair = Pair::start(&[]);
    let (_, mut socket) = Socket::open(pair.ours.port, "/v3/kv/range", "");
    socket.send(&json!({"key": base64("k")}).to_string());
    let answer = socket.next().expect("an answer");
    assert_eq!(answer["header"]["revision"], "1");
    assert_eq!(socket.next(), None);
}
