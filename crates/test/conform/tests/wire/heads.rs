//! Heads of requests that an HTTP library refuses and grpc-go does not, or only for their stream: a
//! call beside them is answered as if nothing had happened.

use std::collections::BTreeSet;

use conform::frames::{ACK, DATA, END_STREAM, HEADERS, RST_STREAM, SETTINGS};
use conform::{Kind, Server};

use super::pings::Frames;
use super::{RANGE, range_of};

/// What comes of a stream first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// An answer begins.
    Answer,
    /// Nothing but a status.
    Status,
    /// It is reset with this code.
    Reset(u32),
    /// The connection is closed, or another stream is answered before.
    Nothing,
}

/// What a server does about a request with these fields, and about an ordinary one behind it.
fn reactions(server: &Server, fields: &[(&str, &str)]) -> (Reaction, Reaction) {
    let mut frames = Frames::connect(server);
    frames.request(1, fields, &range_of("a"));
    let first = reaction(&mut frames, 1);
    frames.call(3, RANGE, &range_of("a"));
    (first, reaction(&mut frames, 3))
}

fn reaction(frames: &mut Frames, stream: u32) -> Reaction {
    while let Some(frame) = frames.next() {
        match frame.head.kind {
            SETTINGS if frame.head.flags & ACK == 0 => frames.send(SETTINGS, ACK, 0, &[]),
            HEADERS | DATA | RST_STREAM if frame.head.stream != stream => {}
            HEADERS if frame.head.flags & END_STREAM != 0 => return Reaction::Status,
            HEADERS => return Reaction::Answer,
            RST_STREAM => {
                let code = frame.payload[..].try_into().expect("four bytes");
                return Reaction::Reset(u32::from_be_bytes(code));
            }
            _ => {}
        }
    }
    Reaction::Nothing
}

/// An ordinary request's fields, some of them with other values or left out.
fn fields<'a>(other: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", RANGE),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let replaced = |name: &str| other.iter().find(|(other, _)| *other == name);
    let kept = usual.iter().filter_map(|(name, value)| match replaced(name) {
        Some((_, other)) => other.map(|value| (*name, value)),
        None => Some((*name, *value)),
    });
    let is_new = |name: &str| usual.iter().all(|(usual, _)| *usual != name);
    let added = other.iter().filter(|(name, _)| is_new(name));
    kept.chain(added.filter_map(|(name, value)| value.map(|value| (*name, value)))).collect()
}

#[test]
fn odd_heads_cost_what_they_cost_at_etcd() {
    let authorities =
        ["http://127.0.0.1:2379", "/run/etcd.sock", "a b", "user@h:1", "h:notaport", "h:1:2"];
    let mut cases: Vec<Vec<(&str, Option<&str>)>> =
        authorities.iter().map(|text| vec![(":authority", Some(*text))]).collect();
    for path in ["foo", "*", "/", "//", "/a/b/c", "/etcdserverpb.KV/Nope", "/x?y#z"] {
        cases.push(vec![(":path", Some(path))]);
    }
    for method in ["GET", "CONNECT", "OPTIONS", "post", "P O"] {
        cases.push(vec![(":method", Some(method))]);
    }
    for name in [":authority", ":path", ":scheme", ":method", "content-type", "te"] {
        cases.push(vec![(name, None)]);
    }
    cases.extend([
        vec![(":authority", None), ("host", Some("h"))],
        vec![("host", Some("h"))],
        vec![(":scheme", Some("what:ever"))],
        vec![("te", Some("gzip"))],
        vec![("connection", Some("close"))],
        vec![("transfer-encoding", Some("chunked"))],
        vec![("Upper", Some("case"))],
        vec![("a b", Some("c"))],
        vec![("x", Some("\u{1}"))],
        vec![("content-length", Some("1"))],
        vec![("content-length", Some("many"))],
        vec![(":unknown", Some("x"))],
        vec![("grpc-encoding", Some("snappy"))],
        vec![("grpc-timeout", Some("soon"))],
        vec![("x-bin", Some("***"))],
    ]);
    let Some(etcd) = Server::start(Kind::Reference, &[]) else { return };
    let ours = Server::start(Kind::Quorate, &[]).expect("ours is always there");
    for case in &cases {
        let fields = fields(case);
        assert_eq!(reactions(&ours, &fields), reactions(&etcd, &fields), "{case:?}");
    }
}

/// The number that SETTINGS tell for the calls open at once, if they tell one.
fn told_limit(server: &Server) -> Option<u32> {
    let mut frames = Frames::connect(server);
    let settings =
        std::iter::from_fn(|| frames.next()).find(|f| f.head.kind == SETTINGS && f.head.flags == 0);
    let payload = settings.expect("a server begins with its settings").payload;
    let limit = payload.chunks(6).find(|setting| setting[..2] == [0, 3])?;
    Some(u32::from_be_bytes(limit[2..].try_into().expect("four bytes")))
}

#[test]
fn the_limit_of_calls_is_told_only_where_one_is_set() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(server) = Server::start(kind, &[]) else { continue };
        assert_eq!(told_limit(&server), None, "{kind:?}");
    }
    let server = Server::start(Kind::Quorate, &["--max-concurrent-streams=7"]);
    assert_eq!(told_limit(&server.expect("ours is always there")), Some(7));
    let server = Server::start(Kind::Quorate, &["--max-concurrent-streams=4294967294"]);
    assert_eq!(told_limit(&server.expect("ours is always there")), Some(i32::MAX as u32));
}

/// A call whose message does not come, or only a part of it, ends at its deadline: etcd may reset it
/// or answer, whichever of its timers is first.
#[test]
fn a_deadline_ends_a_call_whose_message_is_still_to_come() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(server) = Server::start(kind, &[]) else { continue };
        let mut frames = Frames::connect(&server);
        for (stream, part) in [(1, &b""[..]), (3, b"\0\0"), (5, b"\0\0\0\0\x09part")] {
            frames.head(stream, &fields(&[("grpc-timeout", Some("300m"))]));
            frames.send(DATA, 0, stream, part);
        }
        let mut open = BTreeSet::from([1, 3, 5]);
        while !open.is_empty() {
            let frame = frames.next().unwrap_or_else(|| panic!("{kind:?}: {open:?} never end"));
            let is_last = frame.head.kind == RST_STREAM
                || frame.head.kind == HEADERS && frame.head.flags & END_STREAM != 0;
            if is_last {
                open.remove(&frame.head.stream);
            }
        }
        frames.call(7, RANGE, &range_of("a"));
        assert_eq!(reaction(&mut frames, 7), Reaction::Answer, "{kind:?}");
    }
}
