//! The h2 crate's client talks to the server over a pipe: both understand each other.

use std::collections::HashMap;
use std::future::Future;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Version};
use http2::{
    Code, Connection, End, Event, Field, Indexing, LastStream, Limits, Protocol, ResponseHead,
    StaticTags, StreamKey,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bytes that the pipe holds.
const PIPE: usize = 60_000;

/// A field's name and value.
type NameValue = (Vec<u8>, Vec<u8>);

#[derive(Debug)]
struct Test;

/// What the server does for a request, by its path.
#[derive(Debug)]
struct Call {
    path: String,
    body: Vec<u8>,
    head: Vec<NameValue>,
    left: usize,
}

impl Protocol for Test {
    type Tag = usize;
    type Head = Vec<NameValue>;
    type Slot = Call;

    fn tag(name: &[u8], value: &[u8]) -> usize {
        name.len() * 1_000 + value.len()
    }

    fn static_tags() -> &'static StaticTags<usize> {
        static TAGS: LazyLock<StaticTags<usize>> = LazyLock::new(StaticTags::of::<Test>);
        &TAGS
    }

    fn field(head: &mut Self::Head, tag: &usize, name: &[u8], value: &[u8]) {
        assert_eq!(*tag, Self::tag(name, value));
        head.push((name.to_vec(), value.to_vec()));
    }
}

const OK: ResponseHead<'static> =
    ResponseHead { status: 200, fields: &[Field::indexed(b"content-type", b"application/grpc")] };
const DONE: &[Field<'static>] = &[Field::indexed(b"grpc-status", b"0")];

/// Serves a pipe until the client closes it.
async fn serve(mut pipe: DuplexStream, limits: Limits) -> Connection<Test> {
    let mut connection = Connection::new(limits);
    let mut buffer = BytesMut::new();
    loop {
        let mut input = &buffer[..];
        while let Some(event) = connection.next(&mut input).expect("the client keeps the rules") {
            handle(&mut connection, event);
        }
        let used = buffer.len() - input.len();
        let _ = buffer.split_to(used);
        if !connection.out().is_empty() {
            let out = std::mem::take(connection.out());
            if pipe.write_all(&out).await.is_err() {
                return connection;
            }
            continue;
        }
        assert!(connection.wants_input());
        if matches!(pipe.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
            return connection;
        }
    }
}

fn handle(connection: &mut Connection<Test>, event: Event<'_, Test>) {
    let call = |head: Vec<NameValue>| {
        let path = head.iter().find(|(name, _)| name == b":path").expect("a path");
        let path = String::from_utf8(path.1.clone()).expect("a text");
        Call { path, body: Vec::new(), head, left: 0 }
    };
    match event {
        Event::Whole { stream, head, body } => {
            let call = call(head);
            if call.path == "/echo" {
                connection.answer(stream, &OK, |out| out.extend_from_slice(body), DONE);
            } else {
                let stream = connection.open(stream, call);
                on_data(connection, stream, body, true);
            }
        }
        Event::Head { stream, head, end } => {
            assert!(connection.set_slot(stream, call(head)).is_none());
            if end {
                on_data(connection, stream, b"", true);
            }
        }
        Event::Data { stream, body, end } => on_data(connection, stream, body, end),
        Event::Writable { stream } => pull(connection, stream),
        Event::Reset { slot, .. } => assert!(slot.is_none_or(|call| call.path != "/echo")),
        Event::Ping { .. } | Event::Pong(_) => {}
    }
}

fn on_data(connection: &mut Connection<Test>, stream: StreamKey, body: &[u8], end: bool) {
    connection.release(stream, body.len());
    let call = connection.slot(stream).expect("a call");
    match &*call.path {
        "/stream" => {
            connection.headers(stream, &OK, End::Open);
            assert!(connection.data_from(stream, body));
            if end {
                connection.trailers(stream, DONE);
            }
        }
        "/refuse" => {
            let fields = [Field::literal(b"grpc-status", b"12")];
            let refused = ResponseHead { status: 200, fields: &fields };
            connection.headers(stream, &refused, End::Stream);
        }
        "/reset" => {
            connection.reset(stream, Code::ENHANCE_YOUR_CALM);
        }
        "/never" => {}
        _ if !end => call.body.extend_from_slice(body),
        // As many bytes as the body says.
        "/pull" => {
            call.left = std::str::from_utf8(body).expect("a text").parse().expect("a number");
            connection.headers(stream, &OK, End::Open);
            pull(connection, stream);
        }
        "/fields" => {
            let fields = std::mem::take(&mut call.head);
            let fields: Vec<Field<'_>> = fields
                .iter()
                .filter(|(name, _)| name[0] != b':')
                .map(|(name, value)| {
                    let indexing = [Indexing::Indexed, Indexing::Literal][value.len() % 2];
                    Field { name, value, indexing }
                })
                .collect();
            let head = ResponseHead { status: 200, fields: &fields };
            connection.answer(stream, &head, |_| {}, &fields);
        }
        _ => {
            call.body.extend_from_slice(body);
            let body = std::mem::take(&mut call.body);
            connection.answer(stream, &OK, |out| out.extend_from_slice(&body), DONE);
        }
    }
}

fn pull(connection: &mut Connection<Test>, stream: StreamKey) {
    let room = connection.room(stream);
    let call = connection.slot(stream).expect("a call");
    let size = room.min(call.left);
    call.left -= size;
    let is_done = call.left == 0;
    assert!(connection.data(stream, Bytes::from(vec![b'p'; size])));
    match is_done {
        true => drop(connection.trailers(stream, DONE)),
        false => connection.want_room(stream),
    }
}

/// Runs a client against the server; what the server was when the client had closed.
fn converse<F: Future<Output = ()>>(
    limits: Limits,
    builder: &h2::client::Builder,
    client: impl FnOnce(SendRequest<Bytes>) -> F,
) -> Connection<Test> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (send, connection) = builder.handshake::<_, Bytes>(theirs).await.expect("a greeting");
        let server = serve(ours, limits);
        let ((), server) = tokio::join!(
            async {
                tokio::select! {
                    () = client(send) => {}
                    ended = connection => panic!("the connection ended first: {ended:?}"),
                }
            },
            server
        );
        server
    })
}

fn request(path: &str) -> http::request::Builder {
    let uri = format!("http://127.0.0.1:2379{path}");
    Request::post(uri).version(Version::HTTP_2).header("te", "trailers")
}

/// All of a body, and its trailers.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        all.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok((all, body.trailers().await?.unwrap_or_default()))
}

/// One call with one message.
async fn call(
    send: &SendRequest<Bytes>,
    path: &str,
    body: Bytes,
) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request(path).body(()).unwrap(), false)?;
    stream.send_data(body, true)?;
    let response = response.await?;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    read(response.into_body()).await
}

#[test]
fn unary_calls_one_after_the_other_and_all_at_once() {
    let server = converse(Limits::default(), &h2::client::Builder::new(), |send| async move {
        for size in [0, 1, 5, 1_000, 16_384, 16_385, 70_000, 3_000_000] {
            let body = Bytes::from(vec![b'x'; size]);
            let (answer, trailers) = call(&send, "/echo", body.clone()).await.unwrap();
            assert!(answer == body, "{size}");
            assert_eq!(trailers["grpc-status"], "0");
        }
        let calls = (0..2_000_usize).map(|n| {
            let send = &send;
            async move {
                let body = Bytes::from(n.to_string().repeat(n % 300));
                assert!(call(send, "/echo", body.clone()).await.unwrap().0 == body);
            }
        });
        futures(calls).await;
    });
    assert_eq!((server.open_streams(), server.held_bytes()), (0, 0));
}

/// Polls all of them until each is done.
async fn futures<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(|one| Some(Box::pin(one))).collect();
    std::future::poll_fn(|cx| {
        let mut is_done = true;
        for one in &mut all {
            if one.as_mut().is_some_and(|one| one.as_mut().poll(cx).is_ready()) {
                *one = None;
            }
            is_done &= one.is_none();
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
fn large_bodies_pass_small_windows_both_ways() {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1_000).initial_connection_window_size(70_000);
    let limits = Limits { stream_window: 65_535, connection_window: 65_535, ..Limits::default() };
    let server = converse(limits, &builder, |send| async move {
        let calls = (0..6_usize).map(|n| {
            let send = &send;
            async move {
                let body = Bytes::from(vec![n as u8; 100_000 * n]);
                assert!(call(send, "/other", body.clone()).await.unwrap().0 == body);
                let size = 150_000 * n;
                let (pulled, _) = call(send, "/pull", size.to_string().into()).await.unwrap();
                assert!(pulled.len() == size && pulled.iter().all(|byte| *byte == b'p'));
            }
        });
        futures(calls).await;
    });
    assert_eq!((server.open_streams(), server.held_bytes()), (0, 0));
}

#[test]
fn streams_go_both_ways_at_once() {
    let server = converse(Limits::default(), &h2::client::Builder::new(), |send| async move {
        let calls = (0..20_usize).map(|n| {
            let send = &send;
            async move {
                let mut send = send.clone().ready().await.unwrap();
                let head = request("/stream").body(()).unwrap();
                let (response, mut stream) = send.send_request(head, false).unwrap();
                stream.send_data(Bytes::from_static(b"first"), false).unwrap();
                let mut body = response.await.unwrap().into_body();
                assert_eq!(body.data().await.unwrap().unwrap(), "first");
                for round in 0..20 {
                    let message = Bytes::from(vec![round; 100 * n + 1]);
                    stream.send_data(message.clone(), false).unwrap();
                    let mut got = Vec::new();
                    while got.len() < message.len() {
                        got.extend_from_slice(&body.data().await.unwrap().unwrap());
                    }
                    body.flow_control().release_capacity(got.len()).unwrap();
                    assert_eq!(got, message);
                }
                stream.send_data(Bytes::new(), true).unwrap();
                assert!(body.data().await.is_none());
                assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
            }
        });
        futures(calls).await;
    });
    assert_eq!(server.open_streams(), 0);
}

#[test]
fn resets_and_refusals() {
    let server = converse(Limits::default(), &h2::client::Builder::new(), |send| async move {
        let error = call(&send, "/reset", Bytes::from_static(b"abc")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        // Refused while the request goes on.
        let mut ready = send.clone().ready().await.unwrap();
        let head = request("/refuse").body(()).unwrap();
        let (response, mut stream) = ready.send_request(head, false).unwrap();
        stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
        let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, Reason::NO_ERROR);
        // Given up by the client, many times.
        for _ in 0..500 {
            let mut ready = send.clone().ready().await.unwrap();
            let head = request("/never").body(()).unwrap();
            let (response, mut stream) = ready.send_request(head, false).unwrap();
            stream.send_reset(Reason::CANCEL);
            assert!(response.await.is_err());
        }
        let (answer, _) = call(&send, "/echo", Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(answer, b"abc");
    });
    assert_eq!(server.open_streams(), 0);
}

#[test]
fn header_fields_survive_both_ways() {
    for table in [0, 100, 4_096, 65_536] {
        let mut builder = h2::client::Builder::new();
        builder.header_table_size(table);
        converse(Limits::default(), &builder, |send| async move {
            let mut state = u64::from(table);
            let mut below = |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % n
            };
            for _ in 0..300 {
                let mut head = request("/fields");
                let mut expected = HashMap::from([("te".to_owned(), b"trailers".to_vec())]);
                for _ in 0..below(12) {
                    let name = format!("x-{}", "n".repeat(below(30) as usize));
                    let length = [3, 3, 40, 3_000][below(4) as usize];
                    let byte = |n: u64| if n == 127 { b'\t' } else { n as u8 };
                    let value: Vec<u8> = (0..length).map(|_| byte(32 + below(224))).collect();
                    if expected.insert(name.clone(), value.clone()).is_none() {
                        head = head.header(&name, &value[..]);
                    } else {
                        head.headers_mut().unwrap().insert(
                            http::HeaderName::try_from(name).unwrap(),
                            http::HeaderValue::from_bytes(&value).unwrap(),
                        );
                    }
                }
                let mut ready = send.clone().ready().await.unwrap();
                let (response, _) = ready.send_request(head.body(()).unwrap(), true).unwrap();
                let response = response.await.unwrap();
                let check = |found: &HeaderMap| {
                    assert_eq!(found.len(), expected.len());
                    for (name, value) in found {
                        assert_eq!(expected[name.as_str()], value.as_bytes(), "{name}");
                    }
                };
                check(response.headers());
                let (_, trailers) = read(response.into_body()).await.unwrap();
                check(&trailers);
            }
        });
    }
}

#[test]
fn a_goodbye_lets_calls_end_and_takes_no_new_ones() {
    let mut server = Connection::<Test>::new(Limits::default());
    server.goaway(LastStream::Any, Code::NO_ERROR, b"graceful_stop");
    assert!(!server.is_drained(), "a warning only");
    server.goaway(LastStream::Seen, Code::NO_ERROR, b"graceful_stop");
    assert!(server.is_drained());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let goodbye = std::mem::take(server.out());
    runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(PIPE);
        let builder = h2::client::Builder::new();
        let (send, connection) = builder.handshake::<_, Bytes>(theirs).await.expect("a greeting");
        ours.write_all(&goodbye).await.expect("room");
        drop(ours);
        let ended = connection.await;
        assert!(send.ready().await.is_err(), "{ended:?}");
    });
}
