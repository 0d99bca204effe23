//! What reaches a member's peer port and is not right: refused as etcd refuses it, without a panic,
//! a raised term or a lost write.
//!
//! `peer/tests/refusals.rs` compares every refusal's head and body with Go's transport; here whole
//! clusters get the same requests, and ours alone what ends a process of Go's.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use conform::cluster::Cluster;
use conform::process::Kind;
use raft::{Body, ConfState, Entry, EntryKind, Message, SnapshotMeta};
use types::{Index, MemberId, Term};

/// Sends a request with these headers and returns the status, 0 if the connection just ends.
fn post(to: SocketAddr, path: &str, headers: &BTreeMap<&str, String>, body: &[u8]) -> u16 {
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    exchange(to, &[head.as_bytes(), body].concat())
}

fn exchange(to: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(to).expect("a member listens for peers");
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The answer may come before all is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer);
    let status = head.split_ascii_whitespace().nth(1);
    status.and_then(|status| status.parse().ok()).unwrap_or(0)
}

struct Place {
    address: SocketAddr,
    own: u64,
    other: u64,
    cluster: u64,
    term: u64,
    index: u64,
}

impl Place {
    fn headers(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("X-Server-From", format!("{:x}", self.other)),
            ("X-Server-Version", "3.7.3".to_owned()),
            ("X-Min-Cluster-Version", "3.0.0".to_owned()),
            ("X-Etcd-Cluster-ID", format!("{:x}", self.cluster)),
            ("Content-Type", "application/protobuf".to_owned()),
        ])
    }

    fn message(&self, term: u64, body: Body) -> Message {
        Message { from: MemberId(self.other), to: MemberId(self.own), term: Term(term), body }
    }

    fn snapshot(&self, index: u64, database: &[u8]) -> Vec<u8> {
        let voters = vec![MemberId(self.own), MemberId(self.other)];
        let conf_state = ConfState { voters, ..ConfState::default() };
        let meta = SnapshotMeta { index: Index(index), term: Term(self.term), conf_state };
        let message = self.message(self.term, Body::Snapshot { meta, data: Bytes::new() }).encode();
        [&(message.len() as u64).to_be_bytes()[..], &message, database].concat()
    }
}

/// A follower of a running cluster, seen through its API.
async fn place(cluster: &Cluster) -> (usize, Place) {
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let status = cluster.status(follower).await;
    let header = status.header.expect("every answer has a header");
    let place = Place {
        address: cluster.nodes[follower].peer,
        own: header.member_id,
        other: cluster.id((leader + 2) % 3).await,
        cluster: header.cluster_id,
        term: status.raft_term,
        index: status.raft_index,
    };
    (follower, place)
}

/// Requests that etcd answers and survives, with its statuses.
fn strangers(place: &Place) -> Vec<u16> {
    let vote = |term| {
        let body = Body::Vote { last_index: Index(1 << 40), last_term: Term(term), transfer: true };
        place.message(term, body).encode()
    };
    let highest = u64::MAX;
    let with = |name: &'static str, value: &str| {
        let mut headers = place.headers();
        headers.insert(name, value.to_owned());
        headers
    };
    let mut statuses = Vec::new();
    for headers in [
        with("X-Etcd-Cluster-ID", "1"),
        with("X-Etcd-Cluster-ID", ""),
        with("X-Server-Version", "2.3.8"),
        with("X-Min-Cluster-Version", "9.0.0"),
    ] {
        statuses.push(post(place.address, "/raft", &headers, &vote(highest)));
        let snapshot = place.snapshot(1 << 40, b"nothing");
        statuses.push(post(place.address, "/raft/snapshot", &headers, &snapshot));
    }
    let good = place.headers();
    for garbage in [&b""[..], b"\xff", &[0x0a; 100], &[0xff; 4096]] {
        statuses.push(post(place.address, "/raft", &good, garbage));
        statuses.push(post(place.address, "/raft/snapshot", &good, garbage));
    }
    // A message longer than any may be, by its own word.
    let giant = [&u64::MAX.to_be_bytes()[..], b"x"].concat();
    statuses.push(post(place.address, "/raft/snapshot", &good, &giant));
    statuses
}

/// A snapshot whose body ends before its time.
fn cut_snapshot(place: &Place) -> u16 {
    let mut head = "POST /raft/snapshot HTTP/1.1\r\nHost: peer\r\n".to_owned();
    for (name, value) in place.headers() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let body = place.snapshot(place.index + 1_000, &[0; 4096]);
    let chunk = format!("{:x}\r\n", body.len());
    let mut stream = TcpStream::connect(place.address).unwrap();
    stream.write_all(&[head.as_bytes(), chunk.as_bytes(), &body, b"\r\n"].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let head = String::from_utf8_lossy(&answer).into_owned();
    head.split_ascii_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// What comes from a member, by its headers, and cannot be.
fn impossible(place: &Place) -> Vec<(&'static str, Message)> {
    let entry = |term, index| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Normal,
        data: Bytes::from_static(b"\xff\xff"),
    };
    let (term, last) = (place.term, place.index);
    let append = |prev_index, prev_term, entries, commit| Body::Append {
        prev_index: Index(prev_index),
        prev_term: Term(prev_term),
        entries,
        commit: Index(commit),
    };
    let highest = u64::MAX;
    let heartbeat = |commit| Body::Heartbeat { commit: Index(commit), context: Bytes::new() };
    vec![
        ("the highest term", place.message(highest, heartbeat(0))),
        ("a vote in the highest term", {
            let last = (Index(highest), Term(highest));
            let body = Body::Vote { last_index: last.0, last_term: last.1, transfer: true };
            place.message(highest, body)
        }),
        ("a gap", place.message(term, append(last, term, vec![entry(term, last + 9)], 0))),
        (
            "falling terms",
            place.message(
                term,
                append(last + 5, term, vec![entry(term, last + 6), entry(1, last + 7)], 0),
            ),
        ),
        ("a term to come", place.message(term, append(last, term + 7, Vec::new(), 0))),
        ("the highest index", place.message(term, append(highest, term, Vec::new(), highest))),
        ("no term", place.message(0, heartbeat(0))),
        ("oneself", Message { from: MemberId(place.own), ..place.message(term, heartbeat(0)) }),
        (
            "an answer of nobody",
            Message {
                from: MemberId(77),
                ..place.message(term, Body::AppendReply { index: Index(highest), rejected: None })
            },
        ),
        ("an unknown type", place.message(term, Body::Unknown(99))),
    ]
}

async fn still_well(cluster: &mut Cluster, term: u64, key: &str) {
    for n in 0..3 {
        assert!(cluster.nodes[n].runs(), "a member ended\n{}", cluster.nodes[n].log());
        cluster.put(n, key, "v").await.expect("the cluster writes on");
        assert_eq!(cluster.status(n).await.raft_term, term, "the term was raised");
    }
}

#[tokio::test]
async fn strangers_and_garbage_are_refused_as_by_etcd() {
    let mut answers = Vec::new();
    for kind in [Kind::Reference, Kind::Quorate] {
        let Some(mut cluster) = Cluster::start(&[kind; 3], &[]) else { return };
        let (_, place) = place(&cluster).await;
        let mut statuses = strangers(&place);
        statuses.push(cut_snapshot(&place));
        still_well(&mut cluster, place.term, "after").await;
        answers.push(statuses);
    }
    assert_eq!(answers[1], answers[0]);
}

#[tokio::test]
async fn what_cannot_be_changes_nothing() {
    let Some(mut cluster) = Cluster::start(&[Kind::Quorate; 3], &[]) else { return };
    let (follower, place) = place(&cluster).await;
    for (name, message) in impossible(&place) {
        let status = post(place.address, "/raft", &place.headers(), &message.encode());
        // Whether raft takes a message is not for the sender to know.
        assert!(matches!(status, 204 | 500), "{name}: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A database that is none, or whose pages are damaged, is found out before it counts.
    let database = cluster.nodes[follower].data_dir.join("member/snap/db");
    let mut flipped = std::fs::read(&database).expect("a member has a database");
    for at in (0..flipped.len()).step_by(512) {
        flipped[at] ^= 0xff;
    }
    for bytes in [&b"not a database"[..], &flipped, &flipped[..4096]] {
        let snapshot = place.snapshot(place.index + 1_000, bytes);
        let status = post(place.address, "/raft/snapshot", &place.headers(), &snapshot);
        assert_eq!(status, 500, "{} bytes", bytes.len());
    }
    still_well(&mut cluster, place.term, "after").await;
    let left: Vec<_> = std::fs::read_dir(database.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "db" && !name.ends_with(".snap"))
        .collect();
    assert!(left.is_empty(), "refused snapshots leave nothing: {left:?}");
}
