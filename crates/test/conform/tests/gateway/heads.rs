//! Methods, paths and header fields.

use std::fmt::Write;

use api::method::METHODS;

use crate::web::{Connection, ask};
use crate::{Pair, base64, none};

#[test]
fn only_post_is_answered_and_only_on_exact_paths() {
    let pair = Pair::start(&[]);
    let mut differences = Vec::new();
    for path in METHODS.iter().flat_map(|row| row.gateway) {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "post", "FOO"] {
            let what = format!("{method} {path}");
            pair.compare(&mut differences, &what, |port| ask(port, method, path, "", b"{}"));
        }
    }
    let others = [
        "/v3",
        "/v3/",
        "/v3/x",
        "/v3/kv",
        "/v3/kv/",
        "/v3/kv/range/",
        "/v3/kv/Range",
        "/v3/kv/range:x",
        "/v3/kv/range?a=b",
        "/v3/kv/range?",
        "/v3//kv/range",
        "/v3/./kv/range",
        "/v3/kv/../kv/range",
        "/v3/../version",
        "//v3/kv/range",
        "/v3beta/kv/range",
        "/v3beta/x",
        "/v3beta",
        "/v3beta/",
        "/v3alpha/kv/range",
        "/v2/keys",
        "/v3/kv/%72ange",
        "/%763/kv/range",
        "/v3/kv/ra%20nge",
        "/v3/kv/range%",
        "/v3/kv/range/..",
        "/v3/kv/..//",
        "/v3/kv/range//?x=%20y",
        "/v3betax",
        "/v3x",
        "/health/",
        "/version/",
        "/nothing",
        "/",
    ];
    for path in others {
        for method in ["GET", "POST", "HEAD", "OPTIONS"] {
            let what = format!("{method} {path}");
            pair.compare(&mut differences, &what, |port| ask(port, method, path, "", b""));
        }
    }
    none(&differences);
}

#[test]
fn header_fields_of_grpc_count() {
    let pair = Pair::start(&[]);
    let mut differences = Vec::new();
    let body = format!("{{\"key\":\"{}\"}}", base64("foo"));
    let fields = [
        "Grpc-Timeout: x",
        "Grpc-Timeout: 1",
        "Grpc-Timeout: 1x",
        "Grpc-Timeout: 5S",
        "Grpc-Timeout: 1H",
        "Grpc-Timeout: 1n",
        "Grpc-Timeout: -1S",
        "Grpc-Timeout: 0S",
        "Grpc-Timeout: 9999999999999999999S",
        "Grpc-Metadata-Foo: bar",
        "Grpc-Metadata-Foo-Bin: !!",
        "Grpc-Metadata-Foo-Bin: Zm9v",
        "Grpc-Metadata-Foo-Bin: Zm9",
        "Grpc-Metadata-Hasleader: true",
        "Grpc-Metadata-Hasleader: false",
        "Grpc-Metadata-Client-Api-Version: 3.7",
        "TE: trailers",
        "Accept-Encoding: gzip",
        "Accept: text/html",
        "Content-Type: application/json",
        "Content-Type: text/plain",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: application/grpc",
        "X-HTTP-Method-Override: GET",
        "Origin: http://a.example",
        "Connection: keep-alive",
        "Authorization: nonsense",
        "Grpc-Metadata-Token: nonsense",
        "Cookie: token=nonsense",
        "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: get",
        "Upgrade: h2c\r\nConnection: Upgrade",
    ];
    for field in fields {
        let field = format!("{field}\r\n");
        pair.compare(&mut differences, &field, |port| {
            ask(port, "POST", "/v3/kv/range", &field, body.as_bytes())
        });
    }
    none(&differences);
}

#[test]
fn a_connection_carries_many_requests() {
    let pair = Pair::start(&[]);
    let body = format!("{{\"key\":\"{}\"}}", base64("foo"));
    pair.same("one after another", |port| {
        let mut connection = Connection::open(port);
        let mut answers = Vec::new();
        for n in 0..20 {
            let (path, body) = match n % 4 {
                0 => ("/v3/kv/put", body.as_str()),
                1 => ("/v3/kv/range", body.as_str()),
                2 => ("/v3/kv/range", "{"),
                _ => ("/v3/lease/keepalive", "{\"ID\":1}{\"ID\":2}"),
            };
            connection.ask("POST", path, "", body.as_bytes());
            answers.push(connection.answer("POST"));
        }
        answers
    });
    pair.same("all at once, in chunks", |port| {
        let mut connection = Connection::open(port);
        let mut requests = String::new();
        for _ in 0..5 {
            let head = "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
            let (first, second) = body.split_at(5);
            let _ = write!(requests, "{head}5\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
        }
        connection.send(requests.as_bytes());
        (0..5).map(|_| connection.answer("POST")).collect::<Vec<_>>()
    });
}

#[test]
fn origins_hosts_and_the_gateway_itself_are_configured() {
    let body = format!("{{\"key\":\"{}\"}}", base64("foo"));
    let ask_as = |port, method: &str, path: &str, fields: &str| {
        ask(port, method, path, &format!("{fields}\r\n"), body.as_bytes())
    };
    let pair = Pair::start(&["--cors", "http://a.example:80"]);
    for origin in ["Origin: http://a.example:80", "Origin: http://b.example:80", "X: y"] {
        for method in ["POST", "OPTIONS"] {
            pair.same(origin, |port| ask_as(port, method, "/v3/kv/range", origin));
        }
    }
    drop(pair);
    let pair = Pair::start(&["--host-whitelist", "127.0.0.1,localhost"]);
    for (method, path) in [("POST", "/v3/kv/range"), ("OPTIONS", "/v3/x"), ("GET", "/v3beta/x")] {
        let answer = pair.same(path, |port| ask_as(port, method, path, "X: y"));
        assert_ne!(answer.status, 421);
        let other = |port| {
            let mut connection = Connection::open(port);
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n");
            connection.send(format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
            connection.answer(method)
        };
        assert_eq!(pair.same("another host", other).status, 421);
    }
    drop(pair);
    let pair = Pair::start(&["--enable-grpc-gateway=false"]);
    for path in ["/v3/kv/range", "/v3", "/v3beta/kv/range"] {
        let answer = pair.same(path, |port| ask_as(port, "POST", path, "X: y"));
        assert_eq!(answer.status, 404, "{path}");
    }
}
