//! Plain HTTP by every door: with TLS and without, beside calls, apart from them, for metrics.

use bytes::Bytes;
use conform::Kind;
use conform::process::free_port;
use tls::{ClientTls, Spoken};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::member::{Member, Ports, etcdctl};
use crate::{BOTH, World, files};
use authority::Wish;

/// What is looked at of an answer: status, type, and the body unless it has figures.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: String,
    kind: String,
    body: String,
}

fn answer(status: &str, kind: &str, body: &str) -> Answer {
    let body = if body.contains("# TYPE ") { "figures" } else { body };
    // The storage version rises some seconds after a start.
    let body = body.split("\"storage\"").next().unwrap_or_default();
    Answer { status: status.to_owned(), kind: kind.to_owned(), body: body.to_owned() }
}

async fn by_http1<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    path: &str,
) -> Option<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut text = Vec::new();
    // What breaks off is judged by what has come.
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?;
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then_some(value)
    });
    Some(answer(status, kind.unwrap_or_default(), body))
}

async fn by_http2<S>(stream: S, path: &str, method: &str) -> Option<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::handshake(stream).await.ok()?;
    tokio::spawn(connection);
    let mut send = send.ready().await.ok()?;
    let uri = format!("https://localhost{path}");
    let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
    let (response, mut body) = send.send_request(request, method == "GET").ok()?;
    if method != "GET" {
        body.send_data(Bytes::from_static(b"a body"), true).ok()?;
    }
    let response = response.await.ok()?;
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let (status, kind) = (response.status(), kind.unwrap_or_default().to_owned());
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.ok()?;
        body.flow_control().release_capacity(part.len()).ok()?;
        all.extend_from_slice(&part);
    }
    Some(answer(status.as_str(), &kind, &String::from_utf8_lossy(&all)))
}

async fn plain(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

async fn secured(
    port: u16,
    client: &ClientTls,
) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    client.connect(plain(port).await, "localhost").await.unwrap()
}

const PATHS: [&str; 5] = ["/health", "/version", "/livez", "/metrics", "/nothing"];

#[tokio::test]
async fn every_door_answers_alike() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let pair = world.pair("server", Wish::new("", &["localhost"]));
        let (ports, metrics) = (Ports::new(), [free_port(), free_port()]);
        let (port, peer) = (ports.client, ports.peer);
        let mut args = ports.urls("https", "http");
        // The last of a flag counts.
        args.push(format!("--listen-client-urls=https://127.0.0.1:{port},http://127.0.0.1:{port}"));
        args.push(format!(
            "--listen-metrics-urls=https://127.0.0.1:{},http://127.0.0.1:{}",
            metrics[0], metrics[1]
        ));
        args.push(format!("--initial-cluster=default=http://127.0.0.1:{peer}"));
        args.push("--host-whitelist=known.example,127.0.0.1".to_owned());
        args.extend(files("", &pair));
        let dir = world.path().join("member");
        let Some(mut member) = Member::start(kind, &dir, ports, &args) else { return };
        member.wait_served();
        let (http1, http2) =
            (world.client(None, Spoken::Unsaid), world.client(None, Spoken::Http2));
        let mut verdict = Vec::new();
        for path in PATHS {
            for host in ["known.example:1", "other.example", "127.0.0.1:2"] {
                verdict.push((path, host, by_http1(plain(port).await, host, path).await));
                let stream = secured(port, &http1).await;
                verdict.push((path, host, by_http1(stream, host, path).await));
            }
            let stream = secured(port, &http2).await;
            verdict.push((path, "h2", by_http2(stream, path, "GET").await));
            let stream = secured(port, &http2).await;
            verdict.push((path, "h2 POST", by_http2(stream, path, "POST").await));
            for host in ["other.example"] {
                verdict.push((path, "m", by_http1(plain(metrics[1]).await, host, path).await));
                let stream = secured(metrics[0], &http1).await;
                verdict.push((path, "m tls", by_http1(stream, host, path).await));
            }
            let stream = secured(metrics[0], &http2).await;
            verdict.push((path, "m h2", by_http2(stream, path, "GET").await));
        }
        verdicts.push(verdict);
    }
    for (theirs, ours) in verdicts[0].iter().zip(&verdicts[1]) {
        assert_eq!(theirs, ours);
    }
    let is = |status: &str| {
        let of = |(_, _, answer): &&(_, _, Option<Answer>)| {
            answer.as_ref().is_some_and(|answer| answer.status == status)
        };
        verdicts[0].iter().filter(of).count()
    };
    assert!(is("200") > 20 && is("421") == 5, "{:?}", verdicts[0]);
}

#[tokio::test]
async fn calls_and_http_are_served_apart() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let pair = world.pair("server", Wish::new("", &["localhost", "127.0.0.1"]));
        let (ports, [http, https]) = (Ports::new(), [free_port(), free_port()]);
        let mut args = ports.urls("https", "http");
        args.push(format!(
            "--listen-client-http-urls=http://127.0.0.1:{http},https://127.0.0.1:{https}"
        ));
        args.push(format!("--initial-cluster=default=http://127.0.0.1:{}", ports.peer));
        args.extend(files("", &pair));
        let dir = world.path().join("member");
        let Some(mut member) = Member::start(kind, &dir, ports, &args) else { return };
        member.wait_served();
        member.wait_log("\"traffic\":\"http\"");
        let (http1, http2) =
            (world.client(None, Spoken::Unsaid), world.client(None, Spoken::Http2));
        let mut verdict = Vec::new();
        for path in PATHS {
            verdict.push(by_http1(plain(http).await, "h", path).await);
            verdict.push(by_http1(secured(https, &http1).await, "h", path).await);
            verdict.push(by_http2(secured(https, &http2).await, path, "GET").await);
            // Where calls are served, HTTP/1.1 is not.
            verdict.push(by_http1(secured(ports.client, &http1).await, "h", path).await);
        }
        let at = format!("--endpoints=https://127.0.0.1:{}", ports.client);
        let put =
            etcdctl(&[at, format!("--cacert={}", world.ca), "put".into(), "a".into(), "b".into()]);
        assert_eq!(put, Some(Ok("OK".to_owned())), "{kind:?}: {}", member.log());
        verdicts.push(verdict);
        if kind == Kind::Quorate {
            assert_eq!(verdicts[0], verdicts[1]);
        }
    }
}
