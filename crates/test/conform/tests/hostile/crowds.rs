//! Many: streams on one connection, and connections.

use std::time::Duration;

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use conform::frames::{DATA, END_HEADERS, HEADERS, PING, call_block, frame};
use conform::grpc::envelope;
use conform::{Kind, Server};
use prost::Message;

use crate::attacker::{Attacker, PUT, RANGE, Sent, WATCH, call};
use crate::beside::{Beside, Cost, anonymous, kind, times, trial, until};
use crate::{KIB, MIB, NOISE};

/// Open streams of one connection, in the short form.
const STREAMS: usize = 5_000;
/// Bytes of a stream whose request is not whole, and of one that watches.
const GATHERING: i64 = 2 * KIB;
const WATCHING: i64 = 8 * KIB;
/// Bytes of requests that are not whole which a connection may keep (`rpc/src/session/gathered.rs`),
/// and the slack of buffers that grow.
const GATHERED: i64 = 2 * 64 * MIB;
/// Streams that each send most of a large message: half as many again as the bound lets be.
const HALVES: usize = 100;
/// Connections, in the short form, and the most that an idle one holds: 2 KiB (`tests/idle.rs`), the
/// sizes that the allocator rounds up to, and what the connection gave back when it came to rest, as
/// far as that leaves holes in pages.
const CONNECTIONS: usize = 500;
const IDLE: i64 = 6 * KIB;
/// The most that it holds in the seconds before it rests: what it keeps for its next call.
const BEFORE_REST: i64 = 24 * KIB;

/// Sends a PING and waits for its answer: all before it was taken.
fn taken(attacker: &mut Attacker) {
    use std::io::Read;
    let mut out = Vec::new();
    frame(&mut out, PING, 0, 0, b"all done");
    assert_eq!(attacker.send(&out), Sent::All);
    attacker.0.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let (mut seen, mut room) = (Vec::<u8>::new(), [0; 1 << 16]);
    while !seen.windows(8).any(|bytes| bytes == b"all done") {
        let keep = seen.len().saturating_sub(7);
        seen.drain(..keep);
        let n = attacker.0.read(&mut room).expect("the server says something");
        assert!(n > 0, "it was sent away");
        seen.extend(&room[..n]);
    }
}

fn open_streams(name: &str, each: i64, path: &str, body: &[u8]) {
    let count = times(STREAMS);
    // The allocator keeps what it may need again; a second round would not take more.
    let most = each * count as i64 + NOISE;
    let cost = Cost { peak: most, after: most };
    trial(name, &cost, |server, beside| {
        let before = anonymous(server);
        let mut attacker = Attacker::connect(server, &[]);
        attacker.0.set_write_timeout(None).expect("a socket");
        let head = call_block(path);
        for id in (1..).step_by(2).take(count) {
            let mut out = Vec::new();
            frame(&mut out, HEADERS, END_HEADERS, id, &head);
            frame(&mut out, DATA, 0, id, body);
            assert_eq!(attacker.send(&out), Sent::All);
        }
        taken(&mut attacker);
        beside.answered();
        let more = anonymous(server) - before;
        eprintln!("{name}: {} bytes for each stream", more / count as i64);
        (attacker, count)
    });
}

#[test]
fn streams_whose_requests_never_end() {
    open_streams("open streams, half requests", GATHERING, PUT, &[0, 0, 0, 1, 0, b'x']);
}

#[test]
fn streams_that_watch() {
    let create = WatchCreateRequest { key: "nothing".into(), ..Default::default() };
    let request = RequestUnion::CreateRequest(create);
    let request = WatchRequest { request_union: Some(request) }.encode_to_vec();
    open_streams("open streams, watches", WATCHING, WATCH, &envelope(&request));
}

/// Streams that each send most of the largest message.
fn half_messages(name: &str, path: &str) {
    let cost = Cost { peak: GATHERED + NOISE, after: GATHERED + NOISE };
    trial(name, &cost, |server, beside| {
        let mut attacker = Attacker::connect(server, &[]);
        let drain = attacker.drain();
        let head = call_block(path);
        let count = HALVES;
        let prefix = 1_500_000_u32.to_be_bytes();
        attacker.0.set_write_timeout(None).expect("a socket");
        for id in (1..).step_by(2).take(count) {
            let mut out = Vec::new();
            frame(&mut out, HEADERS, END_HEADERS, id, &head);
            frame(&mut out, DATA, 0, id, &[&[0][..], &prefix].concat());
            // Within the window of a stream, in which nothing is given back.
            for _ in 0..60 {
                frame(&mut out, DATA, 0, id, &[b'v'; 16_000]);
            }
            assert_eq!(attacker.send(&out), Sent::All, "no reason to close");
        }
        beside.answered();
        attacker.hang_up();
        let kinds = drain.join().expect("it only reads");
        let refused = kinds[usize::from(HEADERS)];
        eprintln!("{name}: {refused} of {count} refused");
        assert!(refused > 0 || server.kind != Kind::Quorate, "{name}: all of it was kept");
        (attacker, count)
    });
}

#[test]
fn halves_of_large_unary_requests() {
    half_messages("half messages, puts", PUT);
}

#[test]
fn halves_of_large_messages_on_streams() {
    half_messages("half messages, watches", WATCH);
}

/// Connections that do something once and then nothing.
fn idle(name: &str, each: i64, begin: impl Fn(&Server) -> Attacker) {
    let count = times(CONNECTIONS);
    let cost = Cost { peak: BEFORE_REST * count as i64 + NOISE, after: each * count as i64 };
    trial(name, &cost, |server, beside: &Beside| {
        // What is allocated once is not a connection's.
        drop((0..50).map(|_| begin(server)).collect::<Vec<_>>());
        beside.answered();
        let before = anonymous(server);
        let crowd: Vec<_> = (0..count).map(|_| begin(server)).collect();
        beside.answered();
        let each_now = || (anonymous(server) - before) / count as i64;
        eprintln!("{name}: {} bytes for each connection at first", each_now());
        if server.kind == Kind::Quorate {
            until("a connection that rests is small", || each_now() <= each);
        }
        eprintln!("{name}: {} bytes for each connection", each_now());
        (crowd, count)
    });
}

#[test]
fn connections_that_are_idle_after_a_call() {
    let (head, get) = (call_block(RANGE), RangeRequest { key: "k".into(), ..Default::default() });
    idle("idle connections", IDLE, |server| {
        let mut attacker = Attacker::connect(server, &[]);
        let mut out = Vec::new();
        call(&mut out, 1, &head, &get.encode_to_vec());
        assert_eq!(attacker.send(&out), Sent::All);
        taken(&mut attacker);
        attacker
    });
}

#[test]
fn connections_that_say_nothing() {
    idle("silent connections", IDLE, Attacker::silent);
}

#[test]
fn connections_that_say_nonsense() {
    let nonsense: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\0\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x01\x04\0\0\0\0\0x",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\xff",
    ];
    let cost = Cost { peak: NOISE, after: NOISE };
    trial("nonsense", &cost, |server, _| {
        let count = times(CONNECTIONS);
        for n in 0..count {
            let mut attacker = Attacker::silent(server);
            let _ = attacker.send(nonsense[n % nonsense.len()]);
            if kind() == Kind::Quorate {
                until("it is closed", || attacker.is_closed_within(Duration::from_secs(1)));
            }
        }
        ((), count)
    });
}
