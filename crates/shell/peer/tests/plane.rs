//! Planes among themselves, and with peers that behave badly.

#[path = "support/samples.rs"]
mod samples;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use env::mem::{Fault, MemDisk};
use env::{Disk as _, IoErrorKind, MayBlock};
use samples::{append, database, every_kind, snapshot};
use support::{CLUSTER, Ours};
use types::MemberId;

fn connect(ours: &Ours) -> TcpStream {
    let stream = TcpStream::connect(ours.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// The head of a request of member 2 to member 1.
fn head(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nX-Server-From: 2\r\nX-Server-Version: 3.7.3\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER:x}\r\nX-Raft-To: 1\r\n\
         {more}\r\n"
    )
}

fn status(stream: &mut TcpStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

fn framed(message: &raft::Message) -> Vec<u8> {
    let bytes = message.encode();
    [&(bytes.len() as u64).to_be_bytes()[..], &bytes].concat()
}

/// Two planes whose streams are open.
fn pair() -> (Ours, Ours) {
    let (one, two) = (Ours::start(1), Ours::start(2));
    one.add(2, &two.url);
    two.add(1, &one.url);
    one.wait_streams(1);
    two.wait_streams(1);
    (one, two)
}

#[test]
fn two_planes_exchange_everything() {
    let (one, two) = pair();
    let mut sent = every_kind(1, 2);
    sent.push(append(1, 2, 4, 3, 1 << 20));
    for message in &sent {
        one.plane.send(vec![message.clone()]);
    }
    two.member.wait("all", |told| told.received.len() == sent.len());
    // Appends have a stream of their own.
    let is_append = |m: &&raft::Message| matches!(m.body, raft::Body::Append { .. });
    two.member.with(|told| {
        let (appends, others): (Vec<_>, Vec<_>) = told.received.iter().partition(is_append);
        assert_eq!(appends, [sent.last().unwrap()]);
        assert!(others.into_iter().eq(&sent[..sent.len() - 1]));
    });
    let (db, bytes) = database(one.dir.path(), 3);
    one.plane.send_snapshot(snapshot(1, 2, 77), db);
    one.member.wait("the snapshot", |told| told.snapshots == [(2, true)]);
    let saved = std::fs::read(two.dir.path().join("000000000000004d.snap.db")).unwrap();
    assert!(saved == bytes);
    assert!(one.plane.active_since(MemberId(2)).is_some() && one.plane.active_peers() == 1);
}

#[test]
fn a_peer_that_reads_nothing_holds_up_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Ours::start_with(1, listener, |config| {
        config.write_timeout = Duration::from_millis(500);
    });
    let three = Ours::start(3);
    one.add(2, "http://127.0.0.1:9");
    one.add(3, &three.url);
    three.add(1, &one.url);
    one.wait_streams(1);
    let mut deaf = connect(&one);
    deaf.write_all(head("GET", "/raft/stream/msgapp/2", "").as_bytes()).unwrap();
    assert_eq!(status(&mut deaf), "HTTP/1.1 200 OK");
    let big = append(1, 2, 4, 1, 1 << 20);
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in 1..=100 {
        one.plane.send(vec![big.clone(); 2]);
        let began = Instant::now();
        one.plane.send(vec![every_kind(1, 3).swap_remove(9)]);
        three.member.wait("a heartbeat", |told| told.received.len() == n);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_millis(400), "a heartbeat took {slowest:?}");
    // The deaf one is given up when its time is up.
    one.member.wait_event("StreamLost(MemberId(2), Appends, Writer", 1);
    one.member.wait("unreachable", |told| told.unreachable.contains(&2));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_does_not_fit_is_lost_and_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Ours::start_on(1, listener);
    one.add(2, "http://127.0.0.1:9");
    one.member.wait_event("PeerAdded", 1);
    let mut deaf = connect(&one);
    deaf.write_all(head("GET", "/raft/stream/msgapp/2", "").as_bytes()).unwrap();
    assert_eq!(status(&mut deaf), "HTTP/1.1 200 OK");
    let big = append(1, 2, 4, 1, 1 << 20);
    one.plane.send(vec![big; 5_000]);
    one.member.wait_event("SendFailed(MemberId(2), Appends)", 5_000 - 4_096 - 64);
    one.member.wait("unreachable", |told| told.unreachable.contains(&2));
}

#[test]
fn a_newer_stream_takes_the_place_of_an_older_one() {
    let one = Ours::start(1);
    one.add(2, "http://127.0.0.1:9");
    let open = || {
        let mut stream = connect(&one);
        stream.write_all(head("GET", "/raft/stream/message/2", "").as_bytes()).unwrap();
        assert_eq!(status(&mut stream), "HTTP/1.1 200 OK");
        stream
    };
    one.member.wait_event("PeerAdded", 1);
    let mut older = open();
    let mut newer = open();
    let mut rest = String::new();
    // The older ends properly. It stays open as a connection for other requests.
    older.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let _ = older.read_to_string(&mut rest);
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
    one.plane.send(vec![every_kind(1, 2).swap_remove(5)]);
    let mut bytes = vec![0; 2_000];
    let mut text = Vec::new();
    let wanted = every_kind(1, 2).swap_remove(5).encode();
    while !text.windows(wanted.len()).any(|w| w == wanted) {
        let n = newer.read(&mut bytes).expect("the message comes");
        text.extend_from_slice(&bytes[..n]);
    }
}

/// A peer that answers whatever is asked with these bytes and keeps the connection.
fn fake_peer(answer: &'static [u8]) -> (String, std::sync::mpsc::Receiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().take(200) {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer);
            kept.push(stream);
            if sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    (url, asked)
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.3\r\nTransfer-Encoding: chunked\r\n";

#[test]
fn a_peer_that_sends_nonsense_is_asked_again_but_not_often() {
    let answers: [(&'static [u8], &str); 4] = [
        (b"nonsense\r\n\r\n", "StreamLost|Inactive|"),
        (b"HTTP/1.1 200 OK\r\nX-Server-Version: x\r\n\r\n", ""),
        (
            b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.3\r\nTransfer-Encoding: chunked\r\n\r\n\
              a\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n",
            "error limit exceeded",
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.3\r\nTransfer-Encoding: chunked\r\n\r\n\
              a\r\n\0\0\0\0\0\0\0\x02\xff\xff\r\n",
            "cannot parse",
        ),
    ];
    assert!(answers[2].0.starts_with(CHUNKED.as_bytes()));
    for (answer, told) in answers {
        let one = Ours::start(1);
        let (url, asked) = fake_peer(answer);
        one.add(2, &url);
        let first = asked.recv_timeout(Duration::from_secs(5)).unwrap();
        let mut last = first;
        for _ in 0..7 {
            last = asked.recv_timeout(Duration::from_secs(5)).unwrap();
        }
        // Eight attempts of two streams.
        assert!(last - first >= Duration::from_millis(290), "asked again after {:?}", last - first);
        if !told.contains('|') && !told.is_empty() {
            one.member.wait_event(told, 1);
        }
        one.member.with(|told| assert!(told.received.is_empty()));
    }
}

#[test]
fn a_peer_that_says_nothing_is_given_up_after_the_read_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Ours::start_with(1, listener, |config| {
        config.read_timeout = Duration::from_millis(300);
    });
    let (url, asked) = fake_peer(
        b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.3\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    one.add(2, &url);
    asked.recv_timeout(Duration::from_secs(5)).unwrap();
    one.member.wait_event("StreamLost(MemberId(2), Messages, Reader", 2);
    one.member.wait_event("Inactive", 1);
}

#[test]
fn links_are_kept_alive_by_heartbeats_that_raft_never_sees() {
    let ours = |id| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Ours::start_with(id, listener, |config| config.read_timeout = Duration::from_millis(300))
    };
    let (one, two) = (ours(1), ours(2));
    one.add(2, &two.url);
    two.add(1, &one.url);
    one.wait_streams(1);
    std::thread::sleep(Duration::from_millis(1_200));
    one.member.with(|told| {
        assert!(!told.events.iter().any(|e| e.starts_with("StreamLost")), "{:#?}", told.events);
        assert!(told.received.is_empty());
    });
}

#[test]
fn a_snapshot_that_breaks_off_leaves_nothing() {
    let one = Ours::start(1);
    let mut stream = connect(&one);
    let chunked = "Transfer-Encoding: chunked\r\n";
    stream.write_all(head("POST", "/raft/snapshot", chunked).as_bytes()).unwrap();
    let body = [framed(&snapshot(2, 1, 9)), vec![7; 300_000]].concat();
    stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    stream.write_all(b"\r\n").unwrap();
    one.member.wait_event("SnapshotReceiving", 1);
    drop(stream);
    one.member.wait_event("SnapshotReceived", 1);
    one.member.with(|told| {
        assert!(told.received.is_empty());
        assert!(told.events.iter().any(|e| e.contains("unexpected EOF")), "{:#?}", told.events);
    });
    assert_eq!(std::fs::read_dir(one.dir.path()).unwrap().count(), 0);
}

#[test]
fn a_disk_that_fails_anywhere_keeps_a_snapshot_whole_or_not_at_all() {
    let may = MayBlock::on_this_thread();
    let dir = Path::new("/member/snap");
    let name = dir.join("0000000000000009.snap.db");
    let body = [framed(&snapshot(2, 1, 9)), vec![7; 600_000]].concat();
    let mut saved = 0;
    for at in 0.. {
        let disk = Arc::new(MemDisk::new());
        disk.create_dir_all(&may, dir).unwrap();
        disk.sync_dir(&may, Path::new("/")).unwrap();
        disk.sync_dir(&may, Path::new("/member")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = Ours::start_with(1, listener, |config| {
            config.disk = Arc::clone(&disk) as _;
            config.snap_dir = dir.to_owned();
        });
        let kind = IoErrorKind::Other;
        disk.set_fault(Some(Fault { at, only: None, kind, permanent: false, torn: true }));
        let mut stream = connect(&one);
        let length = format!("Content-Length: {}\r\n", body.len());
        stream.write_all(head("POST", "/raft/snapshot", &length).as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let answer = status(&mut stream);
        disk.set_fault(None);
        disk.crash(None);
        let durable = disk.exists(&may, &name).unwrap();
        if answer == "HTTP/1.1 204 No Content" {
            one.member.with(|told| assert_eq!(told.received, [snapshot(2, 1, 9)]));
            let file = disk.open(&may, &name, env::Open::Read).unwrap();
            assert_eq!(file.len().unwrap(), 600_000);
            saved = at;
            break;
        }
        assert_eq!(answer, "HTTP/1.1 500 Internal Server Error");
        one.member.with(|told| assert!(told.received.is_empty()));
        assert!(!durable, "operation {at} failed, but the name is there");
    }
    assert!(saved >= 6, "only {saved} operations could fail");
}

#[test]
fn questions_to_the_member_are_checked_before_it_hears_of_them() {
    let one = Ours::start(1);
    let ask = |request: String| {
        let mut stream = connect(&one);
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    let close = "Connection: close\r\n";
    let text = ask(head("GET", "/members", close));
    assert!(text.contains("X-Etcd-Cluster-Id: c1"), "{text}");
    assert!(text.ends_with("GET /members b\"\""), "{text}");
    for (path, wrong) in [
        ("/members", "DELETE"),
        ("/members/promote/7", "GET"),
        ("/downgrade/enabled", "POST"),
        ("/members/hashkv", "POST"),
        ("/version", "POST"),
        ("/leases", "GET"),
        ("/leases/internal", "PUT"),
    ] {
        let text = ask(head(wrong, path, close));
        assert!(text.starts_with("HTTP/1.1 405"), "{path}: {text}");
        assert_eq!(text.contains("Allow: "), !path.starts_with("/leases"), "{path}: {text}");
        assert!(text.ends_with("Method Not Allowed\n"));
    }
    let text = ask(head("GET", "/members/hashkv", close).replace(": c1", ": c2"));
    assert!(text.starts_with("HTTP/1.1 412") && text.ends_with("cluster ID mismatch\n"), "{text}");
    let long = format!("{close}Content-Length: 65537\r\n");
    let text = ask(head("POST", "/leases", &long) + &"x".repeat(65_537));
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    assert!(text.ends_with("request body too large\n"), "{text}");
    let fits = format!("{close}Content-Length: 2\r\n");
    let text = ask(head("POST", "/leases/internal", &fits) + "ab");
    assert!(text.ends_with("POST /leases/internal b\"ab\""), "{text}");
}

#[test]
fn peers_meet_on_socket_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let url = format!("unix://{}", path.display());
    let one = Ours::start(1);
    let member = Arc::new(support::Recorder::default());
    let config = peer::Config {
        local_address: Some("127.0.0.1".parse().unwrap()),
        ..support::config(2, &url, dir.path())
    };
    let listeners = vec![(net::Bound::Unix(listener), net::Security::Plain)];
    let two = peer::Plane::start(config, Arc::clone(&member) as _, listeners).unwrap();
    two.add_peer(MemberId(1), &[&one.url]).unwrap();
    one.add(2, &url);
    one.wait_streams(1);
    let sent = every_kind(1, 2).swap_remove(4);
    one.plane.send(vec![sent.clone()]);
    member.wait("the message", |told| told.received == [sent.clone()]);
    two.stop();
}

#[test]
fn the_next_url_is_tried_when_one_fails() {
    let (one, two) = (Ours::start(1), Ours::start(2));
    two.add(1, &one.url);
    one.plane.add_peer(MemberId(2), &["http://127.0.0.1:9", &two.url]).unwrap();
    one.wait_streams(1);
    // Other URLs take effect when a connection is made anew.
    one.plane.update_peer(MemberId(2), &["http://127.0.0.1:9"]).unwrap();
    one.member.wait_event("PeerUpdated", 1);
    let address = two.url.strip_prefix("http://").unwrap().to_owned();
    drop(two);
    one.member.wait_event("StreamLost", 4);
    let two = Ours::start_on(2, TcpListener::bind(address).unwrap());
    one.plane.update_peer(MemberId(2), &[&two.url]).unwrap();
    two.add(1, &one.url);
    one.wait_streams(2);
}

#[test]
fn after_stop_the_member_is_let_go_and_the_port_is_free() {
    let (one, two) = pair();
    let address = one.url.strip_prefix("http://").unwrap().to_owned();
    let member = Arc::clone(&one.member);
    drop(one);
    assert_eq!(Arc::strong_count(&member), 1);
    TcpListener::bind(address).unwrap();
    two.member.wait_event("StreamLost", 4);
}

#[test]
fn probes_tell_round_trips_and_who_does_not_answer() {
    let ours = |id| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Ours::start_with(id, listener, |config| config.read_timeout = Duration::from_secs(2))
    };
    let (one, two) = (ours(1), ours(2));
    one.add(2, &two.url);
    one.add(3, "http://127.0.0.1:9");
    for kind in ["Streams", "Pipeline"] {
        one.member.wait_event(&format!("RoundTrip(MemberId(2), {kind}, "), 1);
        one.member.wait_event(&format!("ProbeFailed(MemberId(3), {kind}, "), 1);
    }
    one.member.with(|told| {
        let zero = |e: &&String| e.starts_with("RoundTrip(MemberId(2)") && e.ends_with(" 0ns)");
        assert_eq!(told.events.iter().find(zero), None);
        assert!(!told.events.iter().any(|e| e.contains("ClockDrift")));
    });
}

#[test]
fn a_removed_sender_is_sent_nothing() {
    let (one, two) = (Ours::start(1), Ours::start(2));
    one.plane.add_remote(MemberId(2), &[&two.url]).unwrap();
    one.plane.send(vec![every_kind(1, 2).swap_remove(5)]);
    two.member.wait("an answer", |told| told.received.len() == 1);
    one.member.with(|told| told.gone.push(2));
    one.plane.send(vec![every_kind(1, 2).swap_remove(5)]);
    // What is sent later to another one arrives, so this one was not only late.
    let three = Ours::start(3);
    one.plane.add_remote(MemberId(3), &[&three.url]).unwrap();
    one.plane.send(vec![every_kind(1, 3).swap_remove(5)]);
    three.member.wait("another", |told| told.received.len() == 1);
    std::thread::sleep(Duration::from_millis(50));
    two.member.with(|told| assert_eq!(told.received.len(), 1));
}

#[test]
fn a_panic_on_the_planes_thread_is_told() {
    let (one, two) = pair();
    two.member.with(|told| told.panic = true);
    one.plane.send(vec![every_kind(1, 2).swap_remove(5)]);
    two.member.wait("the panic", |told| told.fatal.len() == 1);
    two.member.with(|told| assert!(told.fatal[0].contains("a message too much")));
}

#[test]
fn a_peer_whose_port_nobody_has_any_more_has_ended() {
    let (one, two) = pair();
    one.member.with(|told| told.ended.clear());
    drop(two);
    one.member.wait("the end", |told| told.ended.contains(&2));
}

#[test]
fn a_peer_with_several_urls_may_live_behind_another_one() {
    let one = Ours::start(1);
    let urls = ["http://127.0.0.1:9", "http://127.0.0.1:10"];
    one.plane.add_peer(MemberId(2), &urls).unwrap();
    one.member.wait_event("PeerAdded", 1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    one.member.with(|told| assert!(told.ended.is_empty()));
}
