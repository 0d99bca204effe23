//! Each wrong or odd frame and what it costs: nothing, its stream, or the connection.

use super::kit::*;
use crate::connection::Connection;
use crate::frame::{MAX_PAYLOAD, flag, kind};
use crate::{Code, End, Event, Limits, PREFACE, StreamKey};

/// Frames in; events and frames out; and whether the connection ends.
struct Case {
    name: &'static str,
    sent: Vec<u8>,
    events: &'static [&'static str],
    said: &'static [&'static str],
    failed: Option<Code>,
}

impl Case {
    fn ok(
        name: &'static str,
        sent: impl Into<Vec<u8>>,
        events: &'static [&'static str],
        said: &'static [&'static str],
    ) -> Self {
        Self { name, sent: sent.into(), events, said, failed: None }
    }

    /// The connection ends without a word.
    fn fatal(name: &'static str, sent: impl Into<Vec<u8>>, code: Code) -> Self {
        Self { name, sent: sent.into(), events: &[], said: &[], failed: Some(code) }
    }
}

/// Every case begins with stream 1 open both ways, and stream 3 whose request has ended.
fn check(cases: Vec<Case>) {
    for case in cases {
        let mut client = Client::new();
        client.send(&headers(1, POST));
        client.begin(3);
        assert!(client.said().is_empty());
        let events = client.send(&case.sent);
        assert_eq!(events, case.events, "{}", case.name);
        assert_eq!(client.said(), case.said, "{}", case.name);
        assert_eq!(client.failed.map(|fatal| fatal.code), case.failed, "{}", case.name);
        if case.failed.is_none() {
            // The connection and its last stream live.
            assert_eq!(client.send(&headers(101, POST)), ["head 101"], "{}", case.name);
        }
    }
}

fn padded(kind: u8, flags: u8, id: u32, padding: u8, rest: &[u8]) -> Vec<u8> {
    framed(kind, flags | flag::PADDED, id, &[&[padding], rest].concat())
}

#[test]
fn data_frames() {
    check(vec![
        Case::ok("with a body", data(1, b"abc"), &["data 1 3"], &[]),
        Case::ok("the last", last_data(1, b"abc"), &["data 1 3 end"], &[]),
        Case::ok("empty", data(1, b""), &[], &[]),
        Case::ok("empty and the last", last_data(1, b""), &["data 1 0 end"], &[]),
        Case::ok("padded", padded(0, 0, 1, 2, b"abc.."), &["data 1 3"], &[]),
        Case::ok("all padding", padded(0, 1, 1, 5, b"....."), &["data 1 0 end"], &[]),
        Case::ok("of a stream that never was", data(77, b"abc"), &[], &[]),
        Case::ok("of an even stream", data(2, b"abc"), &[], &[]),
        Case::ok(
            "behind the end",
            data(3, b"abc"),
            &["reset 3 STREAM_CLOSED slot"],
            &["RST_STREAM 3 STREAM_CLOSED"],
        ),
        Case::fatal("of stream 0", data(0, b"abc"), Code::PROTOCOL_ERROR),
        Case::fatal("with too much padding", padded(0, 0, 1, 4, b"abc"), Code::PROTOCOL_ERROR),
        Case::fatal("without its padding's length", framed(0, 8, 1, b""), Code::PROTOCOL_ERROR),
    ]);
}

#[test]
fn data_behind_a_complete_answer_are_ignored_while_it_waits_for_a_window() {
    const INITIAL_WINDOW: u16 = 4;
    for (request, end) in
        [(headers(1, POST), &["RST_STREAM 1 NO_ERROR"][..]), (whole_headers(1), &[])]
    {
        let mut client = Client::with(Limits::default(), &[(INITIAL_WINDOW, 1)]);
        client.send_with(&request, |server, event| {
            let Event::Head { stream, .. } = event else { panic!("{event:?}") };
            server.answer(*stream, &OK, |out| out.extend_from_slice(b"abc"), DONE);
        });
        assert_eq!(client.said(), ["HEADERS 1", "DATA 1 1"]);
        assert!(client.send(&data(1, b"late")).is_empty());
        assert!(client.send(&last_data(1, b"late")).is_empty());
        assert!(client.said().is_empty() && client.failed.is_none());
        client.send(&window_update(1, 5));
        assert_eq!(client.said(), [&["DATA 1 2", "HEADERS 1 end"], end].concat());
    }
}

#[test]
fn headers_frames() {
    let priority = flag::PRIORITY | flag::END_HEADERS;
    let of = |fields: &[(&str, &str)]| headers(5, &[POST, &block(fields)].concat());
    let malformed = &["RST_STREAM 5 PROTOCOL_ERROR"];
    check(vec![
        Case::ok("a request", headers(5, POST), &["head 5"], &[]),
        Case::ok("an empty list", headers(5, b""), &["head 5"], &[]),
        Case::ok("with priority", framed(1, priority, 5, b"\0\0\0\0\0\x83"), &["head 5"], &[]),
        Case::ok("on itself", framed(1, priority, 5, b"\0\0\0\x05\0\x83"), &["head 5"], &[]),
        Case::ok("padded", padded(1, 4, 5, 2, b"\x83.."), &["head 5"], &[]),
        Case::ok("too much padding", padded(1, 4, 5, 3, b"\x83."), &[], malformed),
        Case::ok(
            "too much padding, continued",
            [padded(1, 0, 5, 3, b"\x83."), framed(9, 0, 5, b"\x80"), framed(9, 4, 5, b"")].concat(),
            &[],
            malformed,
        ),
        Case::ok(
            "too much padding on an open stream",
            padded(1, 4, 3, 9, b""),
            &["reset 3 PROTOCOL_ERROR slot"],
            &["RST_STREAM 3 PROTOCOL_ERROR"],
        ),
        Case::ok("any authority", of(&[(":authority", "user@h:notaport /")]), &["head 5"], &[]),
        Case::ok("an upper-case name", of(&[("Te", "a")]), &[], malformed),
        Case::ok("an empty name", of(&[("", "a")]), &[], malformed),
        Case::ok("a new line in a value", of(&[("a", "b\nc")]), &[], malformed),
        Case::ok("a NUL in a path", headers(5, &block(&[(":path", "/\0")])), &[], malformed),
        Case::ok("a connection-specific field", of(&[("connection", "close")]), &[], malformed),
        Case::ok("a second path", of(&[(":path", "/")]), &[], malformed),
        Case::ok("an unknown pseudo-header", of(&[(":foo", "/")]), &[], malformed),
        Case::ok("a pseudo-header of responses", of(&[(":status", "200")]), &[], malformed),
        Case::ok("one behind a field", of(&[("a", "b"), (":authority", "h")]), &[], malformed),
        Case::ok("all of them wrong", of(&[("A", "b"), (":foo", "\0")]), &[], malformed),
        Case::fatal("of stream 0", headers(0, POST), Code::PROTOCOL_ERROR),
        Case::fatal("short padding", framed(1, 12, 5, b""), Code::FRAME_SIZE_ERROR),
        Case::fatal("short priority", framed(1, 36, 5, b"\0\0\0\0"), Code::FRAME_SIZE_ERROR),
        Case::fatal("no such field", headers(5, b"\xff\0"), Code::COMPRESSION_ERROR),
        Case::fatal("a field that is cut", headers(5, b"\x83\x40\x05"), Code::COMPRESSION_ERROR),
    ]);
}

#[test]
fn ids_that_are_not_new_end_the_connection_with_a_goodbye() {
    let said = &["GOAWAY 3 PROTOCOL_ERROR received an illegal stream id"];
    let case = |name, sent| Case {
        said,
        failed: Some(Code::PROTOCOL_ERROR),
        ..Case::ok(name, sent, &[], &[])
    };
    check(vec![
        case("even", headers(6, POST)),
        case("used: trailers of a request", headers(1, b"")),
        case("used, with the end", whole_headers(1)),
        case("of a request that has ended", headers(3, POST)),
    ]);
    // A malformed list comes first.
    check(vec![Case::ok(
        "malformed trailers",
        headers(3, &block(&[("A", "b")])),
        &["reset 3 PROTOCOL_ERROR slot"],
        &["RST_STREAM 3 PROTOCOL_ERROR"],
    )]);
}

#[test]
fn continuation_frames() {
    let begun = framed(kind::HEADERS, flag::END_STREAM, 5, &POST[..1]);
    let then = |frames: &[Vec<u8>]| [&begun[..], &frames.concat()].concat();
    let bad = framed(kind::HEADERS, 0, 5, &block(&[("A", "b")]));
    check(vec![
        Case::ok("one", then(&[framed(9, 4, 5, &POST[1..])]), &["head 5 end"], &[]),
        Case::ok(
            "within a field",
            then(&[framed(9, 0, 5, b"\x40\x01"), framed(9, 0, 5, b"a"), framed(9, 4, 5, b"\x01b")]),
            &["head 5 end"],
            &[],
        ),
        Case::ok(
            "empty ones",
            then(&[framed(9, 0, 5, b""), framed(9, 0, 5, b""), framed(9, 4, 5, b"")]),
            &["head 5 end"],
            &[],
        ),
        Case::fatal("of another stream", then(&[framed(9, 4, 7, b"")]), Code::PROTOCOL_ERROR),
        Case::fatal("DATA between", then(&[data(1, b"a")]), Code::PROTOCOL_ERROR),
        Case::fatal(
            "an unknown frame between",
            then(&[framed(99, 0, 5, b"")]),
            Code::PROTOCOL_ERROR,
        ),
        Case::fatal("without HEADERS", framed(9, 4, 5, b""), Code::PROTOCOL_ERROR),
        Case::fatal(
            "behind a malformed field",
            [bad, framed(9, 4, 5, b"")].concat(),
            Code::PROTOCOL_ERROR,
        ),
        Case::fatal("a cut end", then(&[framed(9, 4, 5, b"\x40")]), Code::COMPRESSION_ERROR),
    ]);
}

#[test]
fn window_updates_and_resets() {
    check(vec![
        Case::ok("any stream", window_update(1, 7), &[], &[]),
        Case::ok("one that never was", window_update(77, 7), &[], &[]),
        Case::ok("a window beyond 2^31-1", window_update(1, 0x7fff_ffff).repeat(3), &[], &[]),
        Case::ok("the connection's too", window_update(0, 0x7fff_ffff).repeat(3), &[], &[]),
        Case::ok(
            "0 on a stream",
            window_update(3, 0),
            &["reset 3 PROTOCOL_ERROR slot"],
            &["RST_STREAM 3 PROTOCOL_ERROR"],
        ),
        Case::ok(
            "0 but for the reserved bit, on none",
            window_update(77, 1 << 31),
            &[],
            &["RST_STREAM 77 PROTOCOL_ERROR"],
        ),
        Case::fatal("0 on the connection", window_update(0, 0), Code::PROTOCOL_ERROR),
        Case::fatal("too short", framed(8, 0, 1, b"\0\0\x01"), Code::FRAME_SIZE_ERROR),
        Case::ok("a reset", rst_stream(3, 8), &["reset 3 CANCEL slot"], &[]),
        Case::ok("an unknown code", rst_stream(1, 99), &["reset 1 Code(99) -"], &[]),
        Case::ok("of a stream that never was", rst_stream(77, 8), &[], &[]),
        Case::fatal("of stream 0", rst_stream(0, 8), Code::PROTOCOL_ERROR),
        Case::fatal("too long", framed(3, 0, 1, b"\0\0\0\0\0"), Code::FRAME_SIZE_ERROR),
    ]);
}

#[test]
fn frames_of_the_connection() {
    let ack = &["SETTINGS ack"];
    check(vec![
        Case::ok("SETTINGS", settings(&[]), &[], ack),
        Case::ok("odd ones", settings(&[(2, 2), (5, 100), (3, 0), (99, 7)]), &[], ack),
        Case::ok("their answer", framed(4, 1, 0, b""), &[], &[]),
        Case::fatal("an answer with something", framed(4, 1, 0, &[0; 6]), Code::FRAME_SIZE_ERROR),
        Case::fatal("SETTINGS on a stream", framed(4, 0, 1, b""), Code::PROTOCOL_ERROR),
        Case::fatal("of an odd size", framed(4, 0, 0, &[0; 5]), Code::FRAME_SIZE_ERROR),
        Case::fatal("too large a window", settings(&[(4, 1 << 31)]), Code::FLOW_CONTROL_ERROR),
        Case::ok("the largest window", settings(&[(4, (1 << 31) - 1)]), &[], ack),
        Case::ok(
            "a PING",
            framed(6, 0, 0, b"abcdefgh"),
            &["ping -"],
            &["PING ack [97, 98, 99, 100, 101, 102, 103, 104]"],
        ),
        Case::ok("its answer", framed(6, 1, 0, &[7; 8]), &["pong [7, 7, 7, 7, 7, 7, 7, 7]"], &[]),
        Case::fatal("a PING on a stream", framed(6, 0, 1, &[7; 8]), Code::PROTOCOL_ERROR),
        Case::fatal("a short PING", framed(6, 0, 0, &[7; 7]), Code::FRAME_SIZE_ERROR),
        Case::ok("GOAWAY", framed(7, 0, 0, &[0; 8]), &[], &[]),
        Case::fatal("GOAWAY on a stream", framed(7, 0, 1, &[0; 8]), Code::PROTOCOL_ERROR),
        Case::fatal("a short GOAWAY", framed(7, 0, 0, &[0; 7]), Code::FRAME_SIZE_ERROR),
        Case::ok("PRIORITY", framed(2, 0, 77, &[0; 5]), &[], &[]),
        Case::ok("on itself", framed(2, 0, 1, &[0, 0, 0, 1, 0]), &[], &[]),
        Case::fatal("of stream 0", framed(2, 0, 0, &[0; 5]), Code::PROTOCOL_ERROR),
        Case::fatal("a long one", framed(2, 0, 1, &[0; 6]), Code::FRAME_SIZE_ERROR),
        Case::ok("PUSH_PROMISE", framed(5, 4, 1, &[0, 0, 0, 2, 0x83]), &[], &[]),
        Case::ok("padded", padded(5, 4, 1, 1, &[0, 0, 0, 2, 0]), &[], &[]),
        Case::fatal("of stream 0", framed(5, 4, 0, &[0, 0, 0, 2]), Code::PROTOCOL_ERROR),
        Case::fatal("padded too much", padded(5, 4, 1, 2, &[0, 0, 0, 2, 0]), Code::PROTOCOL_ERROR),
        Case::fatal("a short one", framed(5, 4, 1, &[0, 0, 0]), Code::PROTOCOL_ERROR),
        Case::ok("PRIORITY_UPDATE", framed(16, 0, 0, &[0, 0, 0, 1, b'u']), &[], &[]),
        Case::fatal("of a stream", framed(16, 0, 1, &[0, 0, 0, 1]), Code::PROTOCOL_ERROR),
        Case::fatal("for stream 0", framed(16, 0, 0, &[0, 0, 0, 0]), Code::PROTOCOL_ERROR),
        Case::ok("an unknown kind", framed(99, 0xff, 77, &[0; 100]), &[], &[]),
        Case::ok("the largest frame", framed(99, 0, 0, &[0; MAX_PAYLOAD]), &[], &[]),
        Case::fatal("a larger one", vec![0, 0x40, 1, 99, 0, 0, 0, 0, 0], Code::FRAME_SIZE_ERROR),
    ]);
}

#[test]
fn the_beginning() {
    let limits = Limits { concurrent_streams: 100, ..Limits::default() };
    let mut client = Client::silent(limits);
    let greeting = ["SETTINGS 5=16384 3=100 4=1048576", "WINDOW_UPDATE 0 16711681"];
    assert_eq!(client.said(), greeting);
    assert_eq!(Client::silent(Limits::default()).said()[0], "SETTINGS 5=16384 4=1048576");
    for byte in PREFACE {
        client.send(&[*byte]);
        assert!(client.failed.is_none());
    }
    client.send(&settings(&[(1, 0), (4, 7)]));
    assert_eq!(client.said(), ["SETTINGS ack"]);

    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t", b"\0"] {
        let mut client = Client::silent(Limits::default());
        client.send(bytes);
        assert_eq!(client.failed.map(|fatal| fatal.code), Some(Code::PROTOCOL_ERROR));
    }
    // The first frame must be SETTINGS; their answer will do.
    for (frame, is_good) in [
        (framed(4, 1, 0, b""), true),
        (framed(6, 0, 0, &[0; 8]), false),
        (headers(1, POST), false),
        (framed(99, 0, 0, b""), false),
    ] {
        let mut client = Client::silent(Limits::default());
        client.send(&[PREFACE, &frame[..]].concat());
        assert_eq!(client.failed.is_none(), is_good);
    }
}

#[test]
fn too_many_streams_are_refused() {
    let limits = Limits { concurrent_streams: 2, ..Limits::default() };
    let mut client = Client::with(limits, &[]);
    let first = client.begin(1);
    client.begin(3);
    assert!(client.send(&[headers(5, POST), last_data(5, b"abc")].concat()).is_empty());
    assert_eq!(client.said(), ["RST_STREAM 5 REFUSED_STREAM"]);
    // One that the layer above refuses is told all the same.
    let refused = headers(7, &block(&[("x-refuse", "")]));
    let refuse = |server: &mut Connection<Plain>, event: &Event<'_, Plain>| {
        if let Event::Head { stream, .. } = event {
            server.headers(*stream, &OK, End::Stream);
        }
    };
    assert_eq!(client.send_with(&refused, refuse), ["head 7"]);
    assert_eq!(client.said(), ["HEADERS 7 end", "RST_STREAM 7 NO_ERROR"]);
    assert_eq!(client.server.headers(first, &OK, End::Stream), Some("slot"));
    assert_eq!(client.send(&whole_headers(9)), ["head 9 end"]);
}

#[test]
fn goodbyes() {
    let mut client = Client::new();
    let first = client.begin(1);
    client.server.goaway(crate::LastStream::Any, Code::NO_ERROR, b"graceful_stop");
    client.server.ping([1, 6, 1, 8, 0, 3, 3, 9]);
    assert_eq!(
        client.said(),
        ["GOAWAY 2147483647 NO_ERROR graceful_stop", "PING [1, 6, 1, 8, 0, 3, 3, 9]"]
    );
    assert_eq!(client.send(&whole_headers(3)), ["head 3 end"], "new streams are still welcome");
    client.server.goaway(crate::LastStream::Seen, Code::NO_ERROR, b"graceful_stop");
    assert_eq!(client.said(), ["GOAWAY 3 NO_ERROR graceful_stop"]);
    assert!(client.send(&whole_headers(5)).is_empty(), "new streams are ignored");
    assert!(client.said().is_empty() && !client.server.is_drained());
    assert_eq!(client.send(&rst_stream(3, 8)), ["reset 3 CANCEL -"]);
    client.server.answer(first, &OK, |out| out.extend_from_slice(b"abc"), DONE);
    assert_eq!(client.said(), ["HEADERS 1", "DATA 1 3", "HEADERS 1 end"]);
    assert!(client.server.is_drained() && client.failed.is_none());
}

#[test]
fn answers_forgive_pings() {
    let mut client = Client::with(Limits::default(), &[(4, 5)]);
    let ping = framed(kind::PING, 0, 0, &[0; 8]);
    assert_eq!(client.send(&ping), ["ping -"]);
    let stream = client.begin(1);
    assert_eq!(client.send(&ping), ["ping -"]);
    client.server.answer(stream, &OK, |out| out.extend_from_slice(b"1234567"), DONE);
    assert_eq!(client.send(&ping.repeat(2)), ["ping forgiven", "ping -"]);
    // What waited for a window forgives when it leaves.
    client.send(&window_update(1, 1));
    assert_eq!(client.send(&ping.repeat(2)), ["ping forgiven", "ping -"]);
    client.send(&rst_stream(1, 8));
    assert_eq!(client.send(&ping), ["ping -"]);
    // A refusal does not.
    let mut refused: Option<StreamKey> = None;
    client.send_with(&headers(3, &block(&[("x-refuse", "")])), |_, event| {
        if let Event::Head { stream, .. } = event {
            refused = Some(*stream);
        }
    });
    client.server.headers(refused.unwrap(), &OK, End::Stream);
    assert_eq!(client.send(&ping), ["ping -"]);
}
