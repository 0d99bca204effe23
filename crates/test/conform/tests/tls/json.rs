//! The JSON gateway over TLS: by both versions of HTTP, and with certificates that name users.

use bytes::Bytes;
use conform::Kind;
use serde_json::Value;
use tls::{ClientTls, Spoken};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{BOTH, World, serve};
use authority::Wish;

/// Status, content type and lines; ids and terms are each server's.
type Told = (u16, String, Vec<String>);

fn told(status: u16, kind: Option<&str>, body: &[u8]) -> Told {
    let masked = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(mut value) => {
            let has_result = value.get("result").is_some();
            let header = match has_result {
                true => value.pointer_mut("/result/header"),
                false => value.pointer_mut("/header"),
            };
            if let Some(Value::Object(header)) = header {
                header.retain(|name, _| name == "revision");
            }
            value.to_string().replace('\u{a0}', " ")
        }
        Err(_) => line.to_owned(),
    };
    let text = String::from_utf8_lossy(body);
    (status, kind.unwrap_or_default().to_owned(), text.lines().map(masked).collect())
}

async fn by_http1(port: u16, client: &ClientTls, path: &str, body: &str) -> Told {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = client.connect(stream, "localhost").await.unwrap();
    let length = body.len();
    let head = "Host: localhost\r\nConnection: close";
    let request =
        format!("POST {path} HTTP/1.0\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then_some(value)
    });
    told(status, kind, body.as_bytes())
}

/// Asks with a body in two pieces; `lines` of the answer are waited for, 0 stands for all.
async fn by_http2(
    port: u16,
    client: &ClientTls,
    (path, fields): (&str, &[(&str, &str)]),
    body: &str,
    lines: usize,
) -> Told {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let stream = client.connect(stream, "localhost").await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let mut request = http::Request::post(format!("https://localhost{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (response, mut sending) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let (first, second) = body.split_at(body.len() / 2);
    sending.send_data(Bytes::copy_from_slice(first.as_bytes()), false).unwrap();
    sending.send_data(Bytes::copy_from_slice(second.as_bytes()), true).unwrap();
    let response = response.await.unwrap();
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let (status, kind) = (response.status().as_u16(), kind.map(str::to_owned));
    let (mut incoming, mut all) = (response.into_body(), Vec::new());
    while let Some(part) = incoming.data().await {
        let part = part.unwrap();
        incoming.flow_control().release_capacity(part.len()).unwrap();
        all.extend_from_slice(&part);
        if lines > 0 && all.iter().filter(|b| **b == b'\n').count() == lines {
            break;
        }
    }
    told(status, kind.as_deref(), &all)
}

const CALLS: [(&str, &str); 9] = [
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/range", r#"{"key":1}"#),
    ("/v3/kv/range", "{"),
    ("/v3/nothing", "{}"),
    ("/v3/lease/keepalive", r#"{"ID":1}{"ID":2}"#),
    ("/v3/lease/keepalive", ""),
    ("/nothing", "{}"),
];

#[tokio::test]
async fn both_versions_of_http_carry_the_gateway() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let pair = world.pair("server", Wish::new("", &["localhost", "127.0.0.1"]));
        let Some(member) = serve(kind, &world, &pair, &[]) else { return };
        let port = member.client;
        let http1 = world.client(None, Spoken::Unsaid);
        let http2 = world.client(None, Spoken::Http2);
        let mut verdict = Vec::new();
        for (path, body) in CALLS {
            verdict.push(by_http1(port, &http1, path, body).await);
            verdict.push(by_http2(port, &http2, (path, &[]), body, 0).await);
        }
        let watch = r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#;
        verdict.push(by_http2(port, &http2, ("/v3/watch", &[]), watch, 2).await);
        let timeout = [("grpc-timeout", "300m")];
        verdict.push(by_http2(port, &http2, ("/v3/watch", &timeout), watch, 0).await);
        // A value beyond what a client takes at once.
        let large = format!(r#"{{"key":"bGFyZ2U=","value":"{}"}}"#, "QUJD".repeat(200_000));
        verdict.push(by_http2(port, &http2, ("/v3/kv/put", &[]), &large, 0).await);
        let range = r#"{"key":"bGFyZ2U="}"#;
        verdict.push(by_http2(port, &http2, ("/v3/kv/range", &[]), range, 0).await);
        let watch = r#"{"create_request":{"key":"bGFyZ2U=","start_revision":"1"}}"#;
        verdict.push(by_http2(port, &http2, ("/v3/watch", &[]), watch, 2).await);
        verdicts.push(verdict);
    }
    for (theirs, ours) in verdicts[0].iter().zip(&verdicts[1]) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(verdicts[1].iter().filter(|(status, ..)| *status == 200).count(), 15);
}

#[tokio::test]
async fn a_certificate_that_names_a_user_is_refused_with_authentication_on() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let server = world.pair("server", Wish::new("", &["localhost", "127.0.0.1"]));
        let asking = ["--client-cert-auth".to_owned(), format!("--trusted-ca-file={}", world.ca)];
        let Some(member) = serve(kind, &world, &server, &asking) else { return };
        let (port, mut verdict) = (member.client, Vec::new());
        let named = ["root", ""].map(|name| world.pair(&format!("{name}-u"), Wish::new(name, &[])));
        let calls = [
            ("user/add", r#"{"name":"root","password":"root"}"#),
            ("user/grant", r#"{"user":"root","role":"root"}"#),
            ("enable", "{}"),
            ("status", "{}"),
        ];
        for (path, body) in calls {
            let path = format!("/v3/auth/{path}");
            for pair in &named {
                let http1 = world.client(Some(pair), Spoken::Unsaid);
                let http2 = world.client(Some(pair), Spoken::Http2);
                verdict.push(by_http1(port, &http1, &path, body).await);
                verdict.push(by_http2(port, &http2, (&path, &[]), body, 0).await);
            }
        }
        let nameless = world.client(Some(&named[1]), Spoken::Http2);
        let login = ("/v3/auth/authenticate", &[][..]);
        let body = r#"{"name":"root","password":"root"}"#;
        let (_, _, lines) = by_http2(port, &nameless, login, body, 0).await;
        let token: Value = serde_json::from_str(&lines[0]).unwrap();
        let token = token["token"].as_str().unwrap().to_owned();
        let range = r#"{"key":"Zm9v"}"#;
        for name in ["authorization", "grpc-metadata-token", "token"] {
            let fields = [(name, &token[..]), ("accept", "*/*")];
            verdict.push(by_http2(port, &nameless, ("/v3/kv/range", &fields), range, 0).await);
        }
        verdicts.push(verdict);
        if kind == Kind::Quorate {
            assert_eq!(verdicts[0], verdicts[1]);
        }
    }
    let status = |n: usize| verdicts[1][n].0;
    assert_eq!([status(12), status(13), status(16), status(17)], [400, 400, 200, 200]);
}
