//! Who calls: tokens by header field, and what calls may then do.

use serde_json::{Value, json};

use crate::sockets::{Socket, upgraded};
use crate::web::{Answer, Body, ask, post};
use crate::{Pair, base64};

/// Root and alice, whose passwords are their names. Alice may read `a`.
fn set_up(port: u16) {
    let calls = [
        ("user/add", json!({"name": "root", "password": "root"})),
        ("user/add", json!({"name": "alice", "password": "alice"})),
        ("role/add", json!({"name": "r"})),
        ("role/grant", json!({"name": "r", "perm": {"permType": "READ", "key": base64("a")}})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("user/grant", json!({"user": "alice", "role": "r"})),
        ("enable", json!({})),
    ];
    for (path, body) in calls {
        let answer = post(port, &format!("/v3/auth/{path}"), &body.to_string());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

fn token(port: u16, name: &str) -> String {
    let body = json!({"name": name, "password": name}).to_string();
    let mut connection = crate::web::Connection::open(port);
    connection.ask("POST", "/v3/auth/authenticate", "Connection: close\r\n", body.as_bytes());
    let text = connection.raw_answer();
    let value: Value = serde_json::from_slice(&text).expect("an answer of JSON");
    value["token"].as_str().expect("a token").to_owned()
}

fn range(port: u16, fields: &str, key: &str) -> Answer {
    let body = json!({"key": base64(key)}).to_string();
    ask(port, "POST", "/v3/kv/range", fields, body.as_bytes())
}

#[test]
fn a_token_may_come_in_several_header_fields() {
    let pair = Pair::start(&["--bcrypt-cost", "4"]);
    let seen = pair.same("tokens", |port| {
        set_up(port);
        let (root, alice) = (token(port, "root"), token(port, "alice"));
        let fields = [
            String::new(),
            format!("Authorization: {root}\r\n"),
            format!("Authorization: Bearer {root}\r\n"),
            format!("Authorization: {alice}\r\n"),
            format!("Grpc-Metadata-Token: {alice}\r\n"),
            format!("Grpc-Metadata-Authorization: {root}\r\n"),
            format!("Grpc-Metadata-Token: {alice}\r\nAuthorization: {root}\r\n"),
            format!("Token: {root}\r\n"),
            "Authorization: nonsense\r\n".to_owned(),
            "Authorization: \r\n".to_owned(),
        ];
        let ranges = fields.map(|fields| [range(port, &fields, "a"), range(port, &fields, "b")]);
        let as_alice = format!("Authorization: {alice}\r\n");
        let others = [
            ("/v3/kv/put", json!({"key": base64("a")})),
            ("/v3/auth/user/list", json!({})),
            ("/v3/maintenance/snapshot", json!({})),
            ("/v3/election/observe", json!({"name": base64("x")})),
            ("/v3/lock/lock", json!({"name": base64("x"), "lease": 1})),
            ("/v3/lease/keepalive", json!({"ID": 1})),
        ];
        let calls = others.map(|(path, body)| {
            ["", &as_alice]
                .map(|fields| ask(port, "POST", path, fields, body.to_string().as_bytes()))
        });
        (ranges, calls)
    });
    let status = |n: usize| seen.0[n].clone().map(|answer| answer.status);
    assert_eq!(status(1), [200, 200]);
    assert_eq!(status(3), [200, 403]);
    assert!(matches!(&seen.0[0][0].body, Body::Json(values) if values[0]["code"] == 3));
}

#[test]
fn a_browser_says_its_token_as_a_protocol_or_a_cookie() {
    let pair = Pair::start(&["--bcrypt-cost", "4"]);
    let seen = pair.same("websockets", |port| {
        set_up(port);
        let alice = token(port, "alice");
        let fields = [
            String::new(),
            format!("Sec-WebSocket-Protocol: Bearer, {alice}\r\n"),
            format!("Sec-WebSocket-Protocol: Bearer,{alice}\r\n"),
            format!("Cookie: a=b; token={alice}\r\n"),
            format!("Authorization: {alice}\r\n"),
            "Sec-WebSocket-Protocol: Bearer, nonsense\r\n".to_owned(),
            "Sec-WebSocket-Protocol: chat\r\n".to_owned(),
        ];
        fields.map(|fields| {
            let (answer, mut socket) = Socket::open(port, "/v3/watch", &fields);
            let watch = |key| json!({"create_request": {"key": base64(key)}}).to_string();
            socket.send(&watch("a"));
            let first = socket.next();
            socket.send(&watch("b"));
            (upgraded(answer), first, socket.next())
        })
    });
    let is_watched = |told: &Option<Value>| {
        told.as_ref().is_some_and(|told| told["result"]["canceled"].is_null())
    };
    let watched: Vec<_> = seen.iter().map(|(_, a, b)| (is_watched(a), is_watched(b))).collect();
    assert_eq!(watched[..4], [(false, false), (true, false), (true, false), (true, false)]);
}
