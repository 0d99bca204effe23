//! Sequences made by hand: each odd frame once, beside an open stream 1.

use super::{
    ACK, Await, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, PADDED,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, Sequence, Step, WINDOW_UPDATE,
    frame, literal,
};

/// A case: its name and its frames.
type Case = (&'static str, Vec<u8>);

/// An update of priorities (RFC 9218, 7.1).
const PRIORITY_UPDATE: u8 = 16;
const UNKNOWN: u8 = 99;
const LARGEST: u32 = (1 << 31) - 1;

/// All of them, with names.
#[must_use]
pub fn sequences() -> Vec<(&'static str, Sequence)> {
    let step = |name, bytes| Step { name, bytes, until: Await::Read };
    let groups =
        [data(), headers(), fields(), blocks(), windows(), settings(), control(), others()];
    let cases = groups.into_iter().flatten().map(|(name, bytes)| {
        let steps = vec![
            step("settings", frame(SETTINGS, 0, 0, &[])),
            step("stream 1", opened(1, &call())),
            step(name, bytes),
        ];
        (name, Sequence { preface: PREFACE.to_vec(), steps })
    });
    cases.collect()
}

/// The fields of a call that answers only when it is asked.
fn call() -> Vec<u8> {
    [start(), target(b"127.0.0.1"), literal(b"te", b"trailers")].concat()
}

/// The fields of a call with one message.
fn unary() -> Vec<u8> {
    let rest = [
        literal(b":path", b"/etcdserverpb.KV/Range"),
        literal(b":authority", b"localhost"),
        literal(b"content-type", b"application/grpc"),
    ];
    [start(), rest.concat()].concat()
}

/// `:method` and `:scheme`.
fn start() -> Vec<u8> {
    b"\x83\x86".to_vec()
}

fn target(authority: &[u8]) -> Vec<u8> {
    [
        literal(b":path", b"/etcdserverpb.Lease/LeaseKeepAlive"),
        literal(b":authority", authority),
        literal(b"content-type", b"application/grpc"),
    ]
    .concat()
}

fn opened(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

/// A call with one more field.
fn with(name: &[u8], value: &[u8]) -> Vec<u8> {
    opened(5, &[call(), literal(name, value)].concat())
}

/// A call with a field behind its first two.
fn with_early(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [target(b"127.0.0.1"), literal(b"te", b"trailers")].concat();
    opened(5, &[start(), literal(name, value), rest].concat())
}

fn behind(bytes: &[u8]) -> Vec<u8> {
    opened(5, &[&call(), bytes].concat())
}

fn padded(kind: u8, flags: u8, stream: u32, padding: u8, rest: &[u8]) -> Vec<u8> {
    frame(kind, flags | PADDED, stream, &[&[padding], rest].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn set(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings = settings.iter();
    let payload =
        settings.flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn data() -> Vec<Case> {
    vec![
        ("data", frame(DATA, 0, 1, &[0; 5])),
        ("empty data", frame(DATA, 0, 1, b"")),
        ("padded data", padded(DATA, 0, 1, 2, b"\0\0\0\0\0..")),
        ("data, idle", frame(DATA, 0, 77, b"abc")),
        ("data, even", frame(DATA, 0, 2, b"abc")),
        ("data, stream 0", frame(DATA, 0, 0, b"abc")),
        ("data, too much padding", padded(DATA, 0, 1, 4, b"abc")),
        ("data, no padding's length", frame(DATA, PADDED, 1, b"")),
    ]
}

fn headers() -> Vec<Case> {
    let (call, priority) = (call(), END_HEADERS | HAS_PRIORITY);
    let on = |stream: u8| frame(HEADERS, priority, 5, &[&[0, 0, 0, stream, 0], &call[..]].concat());
    let begun = |from: &[u8]| frame(HEADERS, 0, 5, from);
    vec![
        ("a call", opened(5, &call)),
        ("a call that ends with its head", frame(HEADERS, END_HEADERS | END_STREAM, 5, &call)),
        ("a unary one", frame(HEADERS, END_HEADERS | END_STREAM, 5, &unary())),
        ("with priority", on(0)),
        ("with priority, on itself", on(5)),
        ("padded", padded(HEADERS, END_HEADERS, 5, 2, &[&call[..], b".."].concat())),
        ("too much padding", padded(HEADERS, END_HEADERS, 5, 3, b"\x83.")),
        (
            "too much padding, continued",
            [
                padded(HEADERS, 0, 5, 3, b"\x83."),
                frame(CONTINUATION, 0, 5, b"\x80"),
                frame(CONTINUATION, END_HEADERS, 5, b""),
            ]
            .concat(),
        ),
        ("too much padding, open", padded(HEADERS, END_HEADERS, 1, 9, b"")),
        ("stream 0", opened(0, &call)),
        ("padding missing", frame(HEADERS, END_HEADERS | PADDED, 5, b"")),
        ("priority cut", frame(HEADERS, priority, 5, &[0; 4])),
        ("even", opened(6, &call)),
        ("trailers", opened(1, b"")),
        ("trailers with an end", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"")),
        ("malformed trailers", opened(1, &literal(b"A", b"b"))),
        ("a lower number", [opened(9, &call), opened(7, &call)].concat()),
        (
            "continued",
            [
                begun(&call[..9]),
                frame(CONTINUATION, 0, 5, b""),
                frame(CONTINUATION, END_HEADERS, 5, &call[9..]),
            ]
            .concat(),
        ),
        (
            "continued elsewhere",
            [begun(&call[..9]), frame(CONTINUATION, END_HEADERS, 7, b"")].concat(),
        ),
        ("data within a block", [begun(&call[..9]), frame(DATA, 0, 1, b"a")].concat()),
        ("continuation alone", frame(CONTINUATION, END_HEADERS, 5, b"")),
        ("unknown within a block", [begun(&call[..9]), frame(UNKNOWN, 0, 5, b"")].concat()),
        (
            "malformed, continued",
            [begun(&literal(b"A", b"b")), frame(CONTINUATION, END_HEADERS, 5, b"")].concat(),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let odd = [start(), target(b"user@h:notaport /")].concat();
    let without_type = b"\x83\x86\x84";
    vec![
        ("a pseudo-header that is none", with(b":x", b"")),
        ("upper case", with(b"Te", b"a")),
        ("no name", with(b"", b"a")),
        ("a line's end", with(b"a", b"b\nc")),
        ("NUL", with(b"a", b"b\0c")),
        ("DEL", with(b"a", b"b\x7fc")),
        ("a tab", with(b"a", b"b\tc")),
        ("connection", with(b"connection", b"close")),
        ("a second path", with(b":path", b"/")),
        (":status", with_early(b":status", b"200")),
        (":protocol", with_early(b":protocol", b"x")),
        ("a late pseudo-header", with(b":authority", b"h")),
        ("an odd authority", opened(5, &odd)),
        ("transfer-encoding", with(b"transfer-encoding", b"chunked")),
        ("no content-type", opened(5, without_type)),
        ("no content-type, an end", frame(HEADERS, END_HEADERS | END_STREAM, 5, without_type)),
        (
            "no content-type, a body",
            [opened(5, without_type), frame(DATA, END_STREAM, 5, b"abc")].concat(),
        ),
        ("no fields", frame(HEADERS, END_HEADERS | END_STREAM, 5, b"")),
    ]
}

fn blocks() -> Vec<Case> {
    let call = call();
    let before = |bytes: &[u8]| opened(5, &[bytes, &call].concat());
    vec![
        ("a number of no field", opened(5, b"\xff\0")),
        ("a cut field", opened(5, b"\x83\x40\x05")),
        ("a table of 4,096", before(b"\x3f\xe1\x1f")),
        ("a table of 4,097", before(b"\x3f\xe2\x1f")),
        ("a size behind a field", opened(5, b"\x40\x01a\x01b\x20")),
        ("two sizes", before(b"\x20\x3f\x21")),
        ("field 0", opened(5, b"\x80")),
        ("the end mark", behind(b"\0\x01a\x84\xff\xff\xff\xff")),
        ("a whole byte of padding", behind(b"\0\x01a\x82\x07\xff")),
    ]
}

fn windows() -> Vec<Case> {
    vec![
        ("a window", window(1, 7)),
        ("a window, idle", window(77, 7)),
        ("a window too large", window(1, LARGEST).repeat(3)),
        ("the connection's window too large", window(0, LARGEST)),
        ("a window of 0", window(1, 0)),
        ("a window of 0, idle", window(77, 1 << 31)),
        ("the connection's window of 0", window(0, 0)),
        ("a window cut", frame(WINDOW_UPDATE, 0, 1, b"\0\0\x01")),
        ("a reset", reset(1)),
        ("a reset, idle", reset(77)),
        ("a reset, stream 0", reset(0)),
        ("a long reset", frame(RST_STREAM, 0, 1, &[0; 5])),
        (
            "all behind a reset",
            [reset(1), frame(DATA, 0, 1, b"abc"), window(1, 5), reset(1), window(1, 0)].concat(),
        ),
    ]
}

fn settings() -> Vec<Case> {
    let without_type = opened(5, b"\x83\x86\x84");
    vec![
        ("no settings", set(&[])),
        ("odd settings", set(&[(2, 2), (5, 100), (3, 0), (99, 7)])),
        ("an acknowledgement", frame(SETTINGS, ACK, 0, b"")),
        ("a long acknowledgement", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("settings of a stream", frame(SETTINGS, 0, 1, b"")),
        ("settings cut", frame(SETTINGS, 0, 0, &[0; 5])),
        ("an initial window too large", set(&[(4, 1 << 31)])),
        ("the largest initial window", set(&[(4, LARGEST)])),
        ("an acknowledgement of a stream", frame(SETTINGS, ACK, 1, b"")),
        ("a table of 0", [set(&[(1, 0)]), without_type.clone()].concat()),
        ("a list of 1", [set(&[(6, 1)]), without_type].concat()),
    ]
}

fn control() -> Vec<Case> {
    vec![
        ("a ping", frame(PING, 0, 0, b"abcdefgh")),
        ("a ping of a stream", frame(PING, 0, 1, b"abcdefgh")),
        ("a short ping", frame(PING, 0, 0, b"abcdefg")),
        ("a ping's acknowledgement", frame(PING, ACK, 0, b"abcdefgh")),
        ("a goaway", frame(GOAWAY, 0, 0, &[0; 8])),
        ("a goaway of a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("a short goaway", frame(GOAWAY, 0, 0, &[0; 7])),
        ("a priority", frame(PRIORITY, 0, 77, &[0; 5])),
        ("a priority on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])),
        ("a priority, stream 0", frame(PRIORITY, 0, 0, &[0; 5])),
        ("a long priority", frame(PRIORITY, 0, 1, &[0; 6])),
    ]
}

fn others() -> Vec<Case> {
    let promise = |flags: u8, stream, rest: &[u8]| frame(PUSH_PROMISE, flags, stream, rest);
    let padded = |padding| padded(PUSH_PROMISE, END_HEADERS, 1, padding, b"\0\0\0\x02\0");
    vec![
        ("a promise", promise(END_HEADERS, 1, b"\0\0\0\x02\x83")),
        ("a padded promise", padded(1)),
        ("a promise, stream 0", promise(END_HEADERS, 0, b"\0\0\0\x02")),
        ("a promise, too much padding", padded(2)),
        ("a short promise", promise(END_HEADERS, 1, b"\0\0\0")),
        ("a promise, padding missing", promise(END_HEADERS | PADDED, 1, b"")),
        ("a priority update", frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u")),
        ("a priority update of a stream", frame(PRIORITY_UPDATE, 0, 1, b"\0\0\0\x01")),
        ("a priority update for stream 0", frame(PRIORITY_UPDATE, 0, 0, &[0; 4])),
        ("a short priority update", frame(PRIORITY_UPDATE, 0, 0, &[0; 2])),
        ("an unknown kind", frame(UNKNOWN, 255, 77, &[0; 100])),
        ("the longest frame", frame(UNKNOWN, 0, 0, &[0; 16_384])),
        ("too long a frame", frame(UNKNOWN, 0, 0, &[0; 16_385])),
        ("the preface again", PREFACE.to_vec()),
    ]
}
