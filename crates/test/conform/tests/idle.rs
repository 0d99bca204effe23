//! What an idle connection holds, to the byte: the server runs in this process, whose allocator
//! counts. What the kernel holds for a socket, and what the allocator rounds up, is not in it.

use std::alloc::System;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use api::etcdserverpb::{PutRequest, RangeRequest};
use cap::Cap;
use conform::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Head, INITIAL_WINDOW_SIZE, PREFACE, SETTINGS,
    call_block, frame, settings, window_update,
};
use conform::grpc::envelope;
use conform::process;
use prost::Message;
use server::{Address, Listen};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Connections that are counted: as many that what the server does beside them hardly shows.
const CONNECTIONS: usize = 400;
/// Bytes of an idle connection, whatever it did before: its task and socket as tokio has them, the
/// session with its HTTP/2 state, a timer, and the HPACK table of its answers; 2,072 by count.
const IDLE: usize = 2_112;
/// What the server may keep that is no connection's: its history of the puts, queues that grew.
const NOISE: usize = 256 << 10;
/// Bytes of the window of each stream, and what the connection's is raised by.
const WINDOW: u32 = 1 << 20;
/// Longest time that anything may take to come true: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection on which each of these calls was answered.
fn connect(port: u16, calls: &[(&str, Vec<u8>)]) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, WINDOW)]));
    window_update(&mut out, 0, WINDOW);
    for ((path, message), id) in calls.iter().zip((1..).step_by(2)) {
        frame(&mut out, HEADERS, END_HEADERS, id, &call_block(path));
        for piece in envelope(message).chunks(16_000) {
            frame(&mut out, DATA, 0, id, piece);
        }
        frame(&mut out, DATA, END_STREAM, id, &[]);
    }
    socket.write_all(&out).expect("the server takes it");
    let mut ended = 0;
    while ended < calls.len() {
        let Head { kind, flags, .. } = Frame::read(&mut socket).expect("a frame").head;
        ended += usize::from(kind == HEADERS && flags & END_STREAM != 0);
    }
    socket
}

/// Waits until what is allocated beyond `before` is at most `most`.
fn until(what: &str, before: usize, most: usize) {
    let began = Instant::now();
    while ALLOCATOR.allocated().saturating_sub(before) > most {
        let now = ALLOCATOR.allocated().saturating_sub(before);
        assert!(began.elapsed() < PATIENCE, "{what}: {now} bytes instead of {most}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Opens a crowd that does something once and then nothing: it must shrink to [`IDLE`] bytes each, and
/// leave nothing behind.
fn crowd(name: &str, open: impl Fn() -> TcpStream) {
    let start = ALLOCATOR.allocated();
    let all = || (0..CONNECTIONS).map(|_| open()).collect::<Vec<_>>();
    // Queues that the first crowd makes grow are no connection's.
    drop(all());
    until(name, start, NOISE);
    let before = ALLOCATOR.allocated();
    let each = || ALLOCATOR.allocated().saturating_sub(before) / CONNECTIONS;
    let crowd = all();
    let at_first = each();
    until(name, before, IDLE * CONNECTIONS);
    let resting = each();
    drop(crowd);
    until(name, before, NOISE);
    let left = ALLOCATOR.allocated().saturating_sub(before);
    eprintln!("{name}: {at_first} bytes at first, {resting} resting; {left} left by all of them");
}

#[test]
fn a_connection_that_rests_is_small_and_one_that_is_gone_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = server::Options {
        data_dir: dir.path().join("data"),
        wal_dir: dir.path().join("data/member/wal"),
        client_urls: vec![Listen::plain(Address::Tcp(
            ([127, 0, 0, 1], process::free_port()).into(),
        ))],
        peer_urls: Vec::new(),
        ..server::Options::default()
    };
    let log = std::sync::Arc::new(server::Log::none());
    let server = server::start(&server::os_disk(), &log, &options).expect("it starts");
    let port = server.addresses[0].port();
    let (put, range) = ("/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range");
    let get = RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec();
    let small = RangeRequest { key: "none".into(), ..Default::default() }.encode_to_vec();
    let value = vec![b'v'; 60_000].into();
    let put_large = PutRequest { key: "k".into(), value, ..Default::default() }.encode_to_vec();
    drop(connect(port, &[(put, put_large)]));
    crowd("silent", || TcpStream::connect(("127.0.0.1", port)).expect("it listens"));
    crowd("after half a frame", || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06").expect("it is taken");
        socket
    });
    // A put would leave an entry in the log, which is no connection's: the large request is a read.
    let key = vec![b'k'; 60_000].into();
    let large = RangeRequest { key, ..Default::default() }.encode_to_vec();
    crowd("after a small call", || connect(port, &[(range, small.clone())]));
    crowd("after large calls", || connect(port, &[(range, large.clone()), (range, get.clone())]));
    server.stopper().send_replace(true);
    server.wait().expect("a clean stop");
}
