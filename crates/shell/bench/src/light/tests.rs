//! The light generator against the `h2` crate's server, which shares no code with it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::call::{Event, Failure};
use super::connection::{Connection, Ends, Reading};
use super::encoder::{Caller, Deadlines, Encoder, TABLE_BYTES};
use super::frame::{self, HEAD_BYTES, Head, flag, kind};
use super::{Pace, Plan, Work, run};
use crate::access::Access;
use crate::load::block_on;
use crate::shape::Shape;

const PATH: &str = "/etcdserverpb.KV/Put";
const MESSAGE: &[u8] = b"\0\0\0\0\x02ok";

fn connection(reading: Reading) -> Connection {
    Connection::new(
        Encoder::new("127.0.0.1:2379", PATH, Deadlines::Each(7), &Caller::default()),
        reading,
    )
}

/// How a server answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(&'static str),
    TrailersOnly(&'static str),
    Http(u16),
    Reset,
    NoStatus,
    NoMessage,
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
    if status != "0" {
        trailers.insert("grpc-message", http::HeaderValue::from_static("etcdserver: no"));
    }
    trailers
}

fn answer(mut respond: h2::server::SendResponse<Bytes>, how: Answer) -> Result<(), h2::Error> {
    let head = |status: u16| Response::builder().status(status).body(()).expect("a response");
    match how {
        Answer::Reset => respond.send_reset(h2::Reason::CANCEL),
        Answer::Http(status) => drop(respond.send_response(head(status), true)?),
        Answer::TrailersOnly(status) => {
            let mut response = head(200);
            *response.headers_mut() = trailers(status);
            drop(respond.send_response(response, true)?);
        }
        Answer::NoStatus => {
            respond.send_response(head(200), false)?.send_data(MESSAGE.into(), true)?;
        }
        Answer::NoMessage => {
            respond.send_response(head(200), false)?.send_trailers(trailers("0"))?;
        }
        Answer::Status(status) => {
            let mut stream = respond.send_response(head(200), false)?;
            stream.send_data(MESSAGE.into(), false)?;
            stream.send_trailers(trailers(status))?;
        }
    }
    Ok(())
}

type Seen = Rc<RefCell<Vec<(Request<()>, Vec<u8>)>>>;

/// Answers calls in their order, each as `how` says of its number.
async fn serve<T>(io: T, builder: h2::server::Builder, how: fn(usize) -> Answer, seen: Seen)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut server = builder.handshake::<_, Bytes>(io).await.expect("a client");
    while let Some(Ok((request, respond))) = server.accept().await {
        let seen = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            let (head, mut body) = request.into_parts();
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
                bytes.extend_from_slice(&chunk);
            }
            let number = seen.borrow().len();
            seen.borrow_mut().push((Request::from_parts(head, ()), bytes));
            answer(respond, how(number)).expect("an open stream");
        });
    }
}

type Outcomes = Vec<(u32, Result<(), Failure>)>;

/// Writes what is to be sent, then reads until `done`; what was read is appended to `read`.
async fn exchange(
    io: &mut DuplexStream,
    connection: &mut Connection,
    outcomes: &mut Outcomes,
    read: &mut Vec<u8>,
    done: impl Fn(&Connection, &Outcomes) -> bool,
) {
    let mut buffer = vec![0; 64 * 1_024];
    loop {
        let out = std::mem::take(&mut connection.out);
        io.write_all(&out).await.unwrap();
        if done(connection, outcomes) {
            return;
        }
        let rest = connection.take_rest(&mut buffer);
        let count = io.read(&mut buffer[rest..]).await.unwrap();
        assert!(count > 0, "the server hung up");
        read.extend_from_slice(&buffer[rest..rest + count]);
        connection
            .received(&buffer[..rest + count], &mut |slot, event| {
                if let Event::Ended(outcome) = event {
                    outcomes.push((slot, outcome));
                }
            })
            .unwrap();
    }
}

/// What came of calls, what the server saw, and the bytes that it sent at first and afterwards.
struct Exchanged {
    outcomes: Outcomes,
    seen: Vec<(Request<()>, Vec<u8>)>,
    first: Vec<u8>,
    then: Vec<u8>,
}

fn exchanged(builder: h2::server::Builder, calls: u32, how: fn(usize) -> Answer) -> Exchanged {
    let seen = Seen::default();
    let (mut outcomes, mut first, mut then) = (Vec::new(), Vec::new(), Vec::new());
    block_on(async {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        tokio::task::spawn_local(serve(far, builder, how, Rc::clone(&seen)));
        let mut connection = connection(Reading::Count);
        let is_ready = |connection: &Connection, _: &Outcomes| connection.is_ready();
        exchange(&mut near, &mut connection, &mut outcomes, &mut first, is_ready).await;
        for slot in 0..calls {
            assert!(connection.has_room(6));
            connection.begin(slot, Ends::Now, |out| out.extend_from_slice(b"\0\0\0\0\x01x"));
            let all_ended =
                |_: &Connection, outcomes: &Outcomes| outcomes.len() == slot as usize + 1;
            // Some alone, the rest in one batch.
            if slot < calls / 2 || slot + 1 == calls {
                exchange(&mut near, &mut connection, &mut outcomes, &mut then, all_ended).await;
            }
        }
        Ok(())
    })
    .unwrap();
    outcomes.sort_by_key(|(slot, _)| *slot);
    let seen = std::mem::take(&mut *seen.borrow_mut());
    Exchanged { outcomes, seen, first, then }
}

#[test]
fn header_blocks_say_what_grpc_go_says_whatever_size_the_table_has() {
    for size in [TABLE_BYTES as u32, 300, 60, 0] {
        let mut builder = h2::server::Builder::new();
        builder.header_table_size(size);
        let exchanged = exchanged(builder, 500, |_| Answer::Status("0"));
        assert!(exchanged.outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{size}");
        let mut timeouts = std::collections::BTreeSet::new();
        for (request, body) in &exchanged.seen {
            assert_eq!(request.method(), "POST");
            assert_eq!(*request.uri(), *format!("http://127.0.0.1:2379{PATH}"));
            let header = |name: &str| request.headers()[name].to_str().unwrap();
            assert_eq!(header("content-type"), "application/grpc");
            assert_eq!(header("user-agent"), "grpc-go/1.82.1");
            assert_eq!(header("te"), "trailers");
            assert_eq!(header("client-api-version"), "3.7");
            let us: u64 = header("grpc-timeout").strip_suffix('u').unwrap().parse().unwrap();
            assert!((4_990_000..5_000_000).contains(&us), "{us}");
            timeouts.insert(us);
            assert_eq!(request.headers().len(), 5);
            assert_eq!(body, b"\0\0\0\0\x01x");
        }
        assert_eq!(timeouts.len(), 500);
    }
}

#[test]
fn header_blocks_are_those_of_grpc_gos_encoder() {
    // What x/net's hpack.Encoder makes of the same fields: they are inserted by the first call and
    // indexed from the second on, until the 74th, for which they have left the table.
    let of_go = [
        (
            1,
            "8386458f60a924882d9dcb6571af9b8b1aed4f418a089d5c0b8170dc132ebf5f8b1d75d0620d263d4c4d65\
             647a8a9acac8b4c7602bbc25c340027465864d833505b11f40899acac8b24d494f6a7f8669f7da032f5b40\
             8d25062d495875996ee5b1063d5f03332e37",
        ),
        (2, "8386c4c3c2c1c07f008669f7c0cb2edbbf"),
        (73, "8386ff0cff0bff0aff09ff087e8669f7dc79976dff07"),
        (
            74,
            "8386458f60a924882d9dcb6571af9b8b1aed4f418a089d5c0b8170dc132ebf5f8b1d75d0620d263d4c4d65\
             647a8a9acac8b4c7602bbc25c340027465864d833505b11f7f048669f7d90b2e5b408d25062d495875996e\
             e5b1063d5f03332e37",
        ),
        (75, "8386c4c3c2c1c07f008669f7df680f5bbf"),
    ];
    let mut encoder = Encoder::new("127.0.0.1:2379", PATH, Deadlines::Each(7), &Caller::default());
    let mut block = Vec::new();
    let mut written = 0;
    for (number, expected) in of_go {
        while written < number {
            block.clear();
            encoder.write(&mut block);
            written += 1;
        }
        let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "call {number}");
    }
}

#[test]
fn a_smaller_table_is_announced_as_grpc_gos_encoder_does() {
    // A table of 60 bytes holds one field at a time, and few of them at all.
    let of_go = [
        "3f1d8386458f60a924882d9dcb6571af9b8b1aed4f418a089d5c0b8170dc132ebf5f8b1d75d0620d\
             263d4c4d65647a8a9acac8b4c7602bbc25c340027465864d833505b11f40899acac8b24d494f6a7f\
             8669f7da032f5b408d25062d495875996ee5b1063d5f03332e37",
        "8386458f60a924882d9dcb6571af9b8b1aed4f418a089d5c0b8170dc132ebf5f8b1d75d0620d263d\
             4c4d65647a8a9acac8b4c7602bbc25c340027465864d833505b11f40899acac8b24d494f6a7f8669\
             f7c0cb2edb408d25062d495875996ee5b1063d5f03332e37",
    ];
    let mut encoder = Encoder::new("127.0.0.1:2379", PATH, Deadlines::Each(7), &Caller::default());
    encoder.set_table_size(60);
    for expected in of_go {
        let mut block = Vec::new();
        encoder.write(&mut block);
        let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}

#[test]
fn streams_have_no_deadline() {
    let mut encoder = Encoder::new("localhost", PATH, Deadlines::None, &Caller::default());
    let mut blocks: Vec<Vec<u8>> = (0..3).map(|_| Vec::new()).collect();
    blocks.iter_mut().for_each(|block| encoder.write(block));
    // Nothing is inserted after the first, so all fields are indexed.
    assert_eq!(blocks[1], [0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe]);
    assert_eq!(blocks[1], blocks[2]);
}

fn mixed(number: usize) -> Answer {
    match number % 8 {
        1 => Answer::Status("8"),
        2 => Answer::TrailersOnly("14"),
        3 => Answer::Http(503),
        4 => Answer::Reset,
        5 => Answer::NoStatus,
        6 => Answer::NoMessage,
        _ => Answer::Status("0"),
    }
}

#[test]
fn only_status_0_with_a_message_is_a_success() {
    let exchanged = exchanged(h2::server::Builder::new(), 16, mixed);
    let status = |code: &str| Failure::Status(code.to_owned(), "etcdserver: no".to_owned());
    let expected = [
        Ok(()),
        Err(status("8")),
        Err(status("14")),
        Err(Failure::Http("503".to_owned())),
        Err(Failure::Reset(8)),
        Err(Failure::NoStatus),
        Err(Failure::NoMessage),
        Ok(()),
    ];
    for (slot, outcome) in exchanged.outcomes {
        assert_eq!(outcome, expected[slot as usize % 8], "call {slot}");
    }
}

#[test]
fn answers_cut_anywhere_mean_the_same() {
    let exchanged = exchanged(h2::server::Builder::new(), 16, mixed);
    let replay = |piece: usize| {
        let (mut connection, mut events) = (connection(Reading::Show), Vec::new());
        let mut on = |slot: u32, event: Event<'_>| events.push(format!("{slot}: {event:?}"));
        connection.received(&exchanged.first, &mut on).unwrap();
        let begin = |out: &mut Vec<u8>| out.extend_from_slice(MESSAGE);
        (0..16).for_each(|slot| connection.begin(slot, Ends::Now, begin));
        let mut buffer = vec![0; 64 * 1_024];
        for chunk in exchanged.then.chunks(piece) {
            let rest = connection.take_rest(&mut buffer);
            buffer[rest..rest + chunk.len()].copy_from_slice(chunk);
            connection.received(&buffer[..rest + chunk.len()], &mut on).unwrap();
        }
        assert_eq!(connection.in_flight(), 0);
        (events, connection.out)
    };
    let whole = replay(exchanged.then.len());
    assert!(whole.0.iter().any(|event| event.contains("Message([111, 107])")), "{:?}", whole.0);
    for piece in 1..60 {
        assert_eq!(replay(piece), whole, "pieces of {piece} bytes");
    }
}

/// A connection whose server has said what it allows, and what is sent on it from then on.
fn greeted(reading: Reading, settings: &[(u16, u32)]) -> Connection {
    let mut connection = connection(reading);
    let mut greeting = Vec::new();
    frame::settings(&mut greeting, settings);
    connection.received(&greeting, &mut |_, _| panic!("no call")).unwrap();
    connection.out.clear();
    connection
}

fn events(connection: &mut Connection, bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    let mut on = |slot: u32, event: Event<'_>| events.push(format!("{slot}: {event:?}"));
    connection.received(bytes, &mut on).unwrap();
    events
}

/// `:status: 200` and `grpc-status: 0`, as literals that are not inserted.
const OK_BLOCK: &[u8] = b"\x88\x00\x0bgrpc-status\x010";

#[test]
fn padding_priority_and_continuations_are_understood() {
    let mut connection = greeted(Reading::Show, &[]);
    connection.begin(4, Ends::Now, |out| out.extend_from_slice(MESSAGE));
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::DATA, flag::PADDED, 1, &[&[2], MESSAGE, &[0, 0]].concat());
    let (front, back) = OK_BLOCK.split_at(5);
    let flags = flag::PADDED | flag::PRIORITY | flag::END_STREAM;
    let padded = [&[1][..], &[0; 5], front, &[0]].concat();
    frame::write(&mut bytes, kind::HEADERS, flags, 1, &padded);
    frame::write(&mut bytes, kind::CONTINUATION, 0, 1, &[]);
    frame::write(&mut bytes, kind::CONTINUATION, flag::END_HEADERS, 1, back);
    let got = events(&mut connection, &bytes);
    assert_eq!(got, ["4: Message([111, 107])", "4: Ended(Ok(()))"]);
    // More padding than frame.
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::DATA, flag::PADDED, 1, &[2, 0]);
    assert!(connection.received(&bytes, &mut |_, _| {}).is_err());
}

#[test]
fn messages_of_a_stream_come_one_by_one() {
    let mut connection = greeted(Reading::Show, &[]);
    connection.begin(0, Ends::Later, |out| out.extend_from_slice(MESSAGE));
    assert!(connection.send(0, MESSAGE.len(), |out| out.extend_from_slice(MESSAGE)));
    let two_and_a_half = [MESSAGE, MESSAGE, &MESSAGE[..3]].concat();
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::DATA, 0, 1, &two_and_a_half);
    assert_eq!(events(&mut connection, &bytes).len(), 2);
    bytes.clear();
    frame::write(&mut bytes, kind::DATA, 0, 1, &MESSAGE[3..]);
    assert_eq!(events(&mut connection, &bytes), ["0: Message([111, 107])"]);
}

#[test]
fn pings_and_settings_are_acknowledged() {
    let mut connection = greeted(Reading::Count, &[]);
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::PING, 0, 0, b"12345678");
    frame::write(&mut bytes, kind::PING, flag::ACK, 0, b"87654321");
    frame::settings(&mut bytes, &[]);
    events(&mut connection, &bytes);
    let mut expected = Vec::new();
    frame::write(&mut expected, kind::PING, flag::ACK, 0, b"12345678");
    frame::write(&mut expected, kind::SETTINGS, flag::ACK, 0, &[]);
    assert_eq!(connection.out, expected);
}

#[test]
fn calls_wait_for_windows_and_for_other_calls_to_end() {
    let settings = [(3, 2), (4, 1_000)];
    let mut connection = greeted(Reading::Count, &settings);
    assert!(!connection.has_room(1_001), "beyond a stream's window");
    let begin = |connection: &mut Connection, slot| {
        assert!(connection.has_room(1_000));
        connection.begin(slot, Ends::Now, |out| out.extend_from_slice(&[0; 1_000]));
    };
    begin(&mut connection, 0);
    begin(&mut connection, 1);
    assert!(!connection.has_room(1), "two calls are in flight");
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::RST_STREAM, 0, 1, &7_u32.to_be_bytes());
    assert_eq!(events(&mut connection, &bytes), ["0: Ended(Err(Reset(7)))"]);
    assert!(connection.has_room(1_000));
    // 65,535 bytes on the whole connection: 65 calls.
    for number in 2..65 {
        begin(&mut connection, number);
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind::RST_STREAM, 0, number * 2 + 1, &[0; 4]);
        events(&mut connection, &bytes);
    }
    assert!(connection.has_room(535) && !connection.has_room(536));
    let mut bytes = Vec::new();
    frame::window_update(&mut bytes, 0, 1);
    events(&mut connection, &bytes);
    assert!(connection.has_room(536) && !connection.has_room(537));
}

#[test]
fn windows_are_given_back_as_answers_come() {
    let mut connection = greeted(Reading::Count, &[]);
    connection.begin(0, Ends::Now, |out| out.extend_from_slice(MESSAGE));
    connection.out.clear();
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::DATA, 0, 1, &[0; 16_384]);
    // 20 MB: more than the windows of stream and connection.
    let (mut stream, mut whole) = (0_i64, 0_i64);
    for _ in 0..1_280 {
        events(&mut connection, &bytes);
        stream += 16_384;
        whole += 16_384;
        let mut out = &connection.out[..];
        while let Some(head) = Head::read(out) {
            let payload = &out[HEAD_BYTES..HEAD_BYTES + head.length];
            let back = i64::from(u32::from_be_bytes(payload.try_into().unwrap()));
            *(if head.stream == 0 { &mut whole } else { &mut stream }) -= back;
            out = &out[HEAD_BYTES + head.length..];
        }
        connection.out.clear();
        assert!((0..1 << 20).contains(&stream) && (0..16 << 20).contains(&whole));
    }
}

#[test]
fn a_server_that_goes_away_fails_what_it_has_not_seen() {
    let mut connection = greeted(Reading::Count, &[]);
    (0..3).for_each(|slot| connection.begin(slot, Ends::Now, |out| out.extend_from_slice(MESSAGE)));
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(events(&mut connection, &bytes), ["2: Ended(Err(GoneAway))"]);
    assert!(!connection.has_room(1) && connection.is_closing());
    let mut lost = Vec::new();
    connection.lose(&mut |slot, event| lost.push(format!("{slot}: {event:?}")));
    assert_eq!(lost, ["0: Ended(Err(Lost))", "1: Ended(Err(Lost))"]);
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let refused = |connection: &mut Connection, bytes: &[u8]| {
        assert!(connection.received(bytes, &mut |_, _| {}).is_err(), "{bytes:x?}");
    };
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::PING, 0, 0, &[0; 8]);
    refused(&mut connection(Reading::Count), &bytes);
    refused(&mut connection(Reading::Count), b"HTTP/1.1 400 Bad Request\r\n");
    for (kind, payload) in [
        (kind::CONTINUATION, &[][..]),
        (kind::GOAWAY, &[0; 3]),
        (kind::WINDOW_UPDATE, &[0; 3]),
        (kind::RST_STREAM, &[0; 3]),
        (kind::SETTINGS, &[0; 5]),
        (kind::HEADERS, &[0x80]),
    ] {
        let mut bytes = Vec::new();
        frame::write(
            &mut bytes,
            kind,
            flag::END_HEADERS,
            u32::from(kind == kind::HEADERS),
            payload,
        );
        refused(&mut greeted(Reading::Count, &[]), &bytes);
    }
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind::HEADERS, 0, 1, &[]);
    frame::write(&mut bytes, kind::PING, 0, 0, &[0; 8]);
    refused(&mut greeted(Reading::Count, &[]), &bytes);
}

/// A server on a port of its own, until the process ends.
fn server(how: fn(usize) -> Answer) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        block_on::<()>(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (io, _) = listener.accept().await?;
                let builder = h2::server::Builder::new();
                tokio::task::spawn_local(serve(io, builder, how, Seen::default()));
            }
        })
    });
    port
}

fn plan(port: u16, pace: Pace) -> Plan {
    Plan {
        ports: vec![port],
        access: Access::default(),
        pids: Vec::new(),
        work: Work::Calls(Shape::Put),
        pace,
        connections: 3,
        time: Duration::from_millis(200),
        keys: 10,
        value_bytes: 100,
        seed: u64::MAX,
    }
}

#[test]
fn both_paces_count_successes_and_failures_apart() {
    let half: fn(usize) -> Answer =
        |number| if number % 2 == 0 { Answer::Status("0") } else { Answer::Status("8") };
    for pace in [Pace::Closed { in_flight: 10 }, Pace::Open { per_second: 500 }] {
        let report = run(&plan(server(half), pace)).unwrap();
        assert!(report.figures.get("per_second").unwrap() > 0.0, "{pace:?}");
        assert!(report.figures.get("failed").unwrap() > 0.0, "{pace:?}");
        assert_eq!(report.first_failure.as_deref(), Some("status 8: etcdserver: no"), "{pace:?}");
    }
}

#[test]
fn an_open_loop_leaves_out_no_call() {
    let report = run(&plan(server(|_| Answer::Status("0")), Pace::Open { per_second: 500 }));
    let figures = report.unwrap().figures;
    // A fifth of a second.
    assert_eq!((figures.get("per_second"), figures.get("failed")), (Some(500.0), Some(0.0)));
    assert!(figures.get("late_p99_us").is_some());
}

/// Says that it is an HTTP/2 server, and hangs up when it is asked something.
fn rude_server() -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut settings = Vec::new();
            frame::settings(&mut settings, &[]);
            client.write_all(&settings).unwrap();
            std::thread::spawn(move || {
                let (mut seen, mut buffer) = (0, [0; 4_096]);
                // The greeting is shorter than a put.
                while seen < 200 {
                    match client.read(&mut buffer) {
                        Ok(count) if count > 0 => seen += count,
                        _ => break,
                    }
                }
            });
        }
    });
    port
}

#[test]
fn connections_that_break_fail_their_calls_and_end_the_run_with_the_last() {
    for pace in [Pace::Closed { in_flight: 10 }, Pace::Open { per_second: 500 }] {
        let why = run(&plan(rude_server(), pace)).unwrap_err().to_string();
        assert_eq!(why, "every connection broke: the connection broke", "{pace:?}");
    }
    // One of two servers: what it was given has failed, the rest goes on.
    let plan = plan(rude_server(), Pace::Open { per_second: 500 });
    let ports = vec![plan.ports[0], server(|_| Answer::Status("0"))];
    let figures = run(&Plan { ports, ..plan }).unwrap().figures;
    assert!(figures.get("failed").unwrap() > 0.0);
    assert!(figures.get("per_second").unwrap() > 0.0);
}

#[test]
fn plans_that_cannot_be_run_are_refused() {
    let closed = plan(1, Pace::Closed { in_flight: 10 });
    let work = Work::KeepAlive { streams: 2 };
    for wrong in [
        Plan { connections: 0, ..closed.clone() },
        Plan { ports: vec![], ..closed.clone() },
        Plan { pace: Pace::Closed { in_flight: 0 }, ..closed.clone() },
        Plan { keys: 0, ..closed.clone() },
        Plan { value_bytes: 20_000, ..closed.clone() },
        Plan { work: Work::Calls(Shape::CompareAndPut), keys: 9, ..closed.clone() },
        // 10 leases for 6 streams.
        Plan { work, ..closed.clone() },
        Plan { work: Work::KeepAlive { streams: 0 }, ..closed.clone() },
        // Nobody serves there.
        closed,
    ] {
        assert!(run(&wrong).is_err(), "{wrong:?}");
    }
}
