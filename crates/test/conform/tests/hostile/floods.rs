//! Floods on one connection: of streams that are reset, and of frames that cost more than they say.

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use conform::Kind;
use conform::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADER_TABLE_SIZE, HEADERS,
    INITIAL_WINDOW_SIZE, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, call_block, frame,
    settings,
};
use conform::grpc::envelope;
use prost::Message;

use crate::attacker::{Attacker, MAX, PUT, RANGE, Sent, WATCH, call};
use crate::beside::{Cost, times, trial, until};
use crate::{MIB, NOISE};

/// `Limits::header_list_bytes`: a list, the field that was cut, and a copy while either grows.
const HEADER_LIST: i64 = 16 * MIB;
/// `Limits::unsent_bytes` and what one read may add to it.
const UNSENT: i64 = MIB;
/// 1,000 calls that were abandoned (`Limits::abandoned_calls`), and what one read of 64 KiB begins:
/// below 4 KiB each.
const ABANDONED: i64 = 8 * MIB;
/// Bytes of a put that was applied, whether anybody was told or not: its revision in the index, its
/// entry in the log that is kept for others.
const APPLIED: i64 = 512;
/// Streams that are reset, in the short form.
const RESETS: usize = 20_000;
/// Refusals of which nobody reads one: more than fit the buffers between.
const REFUSALS: usize = 1_000_000;
/// Requests in one write.
const BATCH: usize = 100;

fn put() -> Vec<u8> {
    PutRequest { key: "reset".into(), value: "v".into(), ..Default::default() }.encode_to_vec()
}

fn read() -> Vec<u8> {
    RangeRequest { key: "reset".into(), ..Default::default() }.encode_to_vec()
}

fn watch() -> Vec<u8> {
    let create = WatchCreateRequest { key: "reset".into(), ..Default::default() };
    let request = RequestUnion::CreateRequest(create);
    WatchRequest { request_union: Some(request) }.encode_to_vec()
}

/// Sends `count` times what `one` makes of a stream's id, in batches, while answers are read.
/// Returns once the server has taken all of it.
fn streams(attacker: &mut Attacker, count: usize, mut one: impl FnMut(&mut Vec<u8>, u32)) {
    let drain = attacker.drain();
    attacker.0.set_write_timeout(None).expect("a socket");
    let mut id = 1;
    for _ in 0..count / BATCH {
        let mut out = Vec::new();
        for _ in 0..BATCH {
            one(&mut out, id);
            id += 2;
        }
        assert_eq!(attacker.send(&out), Sent::All, "a connection that only resets its streams");
    }
    // Who says goodbye is served until it closes: this is seen once all before it was taken.
    let mut out = Vec::new();
    frame(&mut out, HEADERS, END_HEADERS | END_STREAM, 0, &[]);
    let _ = attacker.send(&out);
    let kinds = drain.join().expect("it only reads");
    assert_eq!(kinds[usize::from(GOAWAY)], 0, "it was not sent away");
}

/// A trial in which calls are begun and reset at once, by whom `end` says. `kept` is what is left
/// of each on purpose.
fn resets(name: &str, path: &str, message: &[u8], kept: i64, end: impl Fn(&mut Vec<u8>, u32)) {
    let head = call_block(path);
    let count = times(RESETS / 2);
    let after = kept * count as i64 + NOISE;
    trial(name, &Cost { peak: ABANDONED + after, after }, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        streams(&mut attacker, count, |out, id| {
            call(out, id, &head, message);
            end(out, id);
        });
        (attacker, count)
    });
}

fn reset(out: &mut Vec<u8>, id: u32) {
    frame(out, RST_STREAM, 0, id, &8_u32.to_be_bytes());
}

#[test]
fn rapid_reset_of_puts() {
    resets("rapid reset, puts", PUT, &put(), APPLIED, reset);
}

#[test]
fn rapid_reset_of_linearizable_reads() {
    resets("rapid reset, reads", RANGE, &read(), 0, reset);
}

#[test]
fn rapid_reset_of_watches() {
    let head = call_block(WATCH);
    let cost = Cost { peak: ABANDONED + NOISE, after: NOISE };
    trial("rapid reset, watches", &cost, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        let count = times(RESETS / 2);
        streams(&mut attacker, count, |out, id| {
            frame(out, HEADERS, END_HEADERS, id, &head);
            frame(out, DATA, 0, id, &envelope(&watch()));
            reset(out, id);
        });
        (attacker, count)
    });
}

#[test]
fn rapid_reset_of_requests_that_never_were_whole() {
    let head = call_block(PUT);
    let cost = Cost { peak: ABANDONED + NOISE, after: NOISE };
    trial("rapid reset, heads only", &cost, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        let count = times(RESETS);
        streams(&mut attacker, count, |out, id| {
            frame(out, HEADERS, END_HEADERS, id, &head);
            reset(out, id);
        });
        (attacker, count)
    });
}

#[test]
fn resets_that_the_server_is_made_to_send() {
    // A window that grows by nothing is the stream's error, and what was asked for goes on.
    resets("made you reset", PUT, &put(), APPLIED, |out, id| {
        frame(out, WINDOW_UPDATE, 0, id, &[0; 4]);
    });
}

/// A flood for which the server ends the connection. What it takes until then is the work that it
/// can be made to do: it must not be all that there is.
fn ended(name: &str, peak: i64, begin: &[u8], again: &[u8], count: usize) {
    trial(name, &Cost { peak: peak + NOISE, after: NOISE }, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        let drain = attacker.drain();
        attacker.0.set_write_timeout(None).expect("a socket");
        assert_eq!(attacker.send(begin), Sent::All);
        let taken = (0..count).take_while(|_| attacker.send(again) == Sent::All).count();
        assert!(taken < count || server.kind != Kind::Quorate, "{name}: it was not ended");
        attacker.hang_up();
        drain.join().expect("it only reads");
        (attacker, taken)
    });
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, kind, flags, stream, payload);
    out
}

#[test]
fn a_header_block_of_empty_pieces_that_never_ends() {
    let begin = framed(HEADERS, 0, 1, &call_block(PUT));
    let again = framed(CONTINUATION, 0, 1, &[]).repeat(1_000);
    ended("empty CONTINUATION", UNSENT, &begin, &again, 1_000);
}

#[test]
fn a_header_block_of_large_pieces_that_never_ends() {
    let begin = framed(HEADERS, 0, 1, &call_block(PUT));
    let field = block(&[("x-long", &"v".repeat(100))]);
    let again = framed(CONTINUATION, 0, 1, &field.repeat(16_000 / field.len()));
    ended("large CONTINUATION", HEADER_LIST, &begin, &again, 4_000);
}

#[test]
fn one_field_that_never_ends() {
    // A value of 15 MiB, of which a piece comes at a time. The buffer doubles, and the allocator
    // keeps the one before for a moment.
    let begin = [&call_block(PUT)[..], &[0, 1, b'x', 0x7f, 0x81, 0xff, 0xbf, 0x07]].concat();
    let begin = framed(HEADERS, 0, 1, &begin);
    let again = framed(CONTINUATION, 0, 1, &[b'v'; 16_000]);
    ended("one long field", 6 * HEADER_LIST, &begin, &again, 4_000);
}

#[test]
fn data_without_bytes() {
    let begin = framed(HEADERS, END_HEADERS, 1, &call_block(PUT));
    let again = framed(DATA, 0, 1, &[]).repeat(100);
    ended("empty DATA", UNSENT, &begin, &again, 10_000);
}

#[test]
fn pings_without_end() {
    let again = framed(PING, 0, 0, b"impolite").repeat(100);
    ended("PING", UNSENT, &[], &again, 10_000);
}

/// A flood of what is answered, by a client that reads nothing: the server stops to read it.
fn unread(name: &str, again: &[u8], count: usize) {
    trial(name, &Cost { peak: UNSENT + NOISE, after: NOISE }, |server, beside| {
        let mut attacker = Attacker::connect(server, &[]);
        let taken = (0..count).take_while(|_| attacker.send(again) == Sent::All).count();
        assert!(taken < count || server.kind != Kind::Quorate, "{name}: all was taken");
        beside.answered();
        (attacker, taken)
    });
}

#[test]
fn settings_whose_answers_nobody_reads() {
    let toggle = |window| framed(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW_SIZE, window)]));
    let again = [toggle(0), toggle(MAX)].concat().repeat(500);
    unread("SETTINGS, unread", &again, 10_000);
}

#[test]
fn refusals_that_nobody_reads() {
    let head = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    let cost = Cost { peak: UNSENT + NOISE, after: NOISE };
    trial("refusals, unread", &cost, |server, beside| {
        let mut attacker = Attacker::connect(server, &[]);
        let mut ids = (1_u32..).step_by(2);
        let mut count = 0;
        while count < REFUSALS {
            let mut out = Vec::new();
            for id in ids.by_ref().take(BATCH) {
                frame(&mut out, HEADERS, END_HEADERS | END_STREAM, id, &head);
            }
            if attacker.send(&out) != Sent::All {
                break;
            }
            count += BATCH;
        }
        assert!(count < REFUSALS || server.kind != Kind::Quorate, "all of them were taken");
        beside.answered();
        (attacker, count)
    });
}

#[test]
fn acknowledgements_of_nothing() {
    let cost = Cost { peak: UNSENT + NOISE, after: NOISE };
    trial("PING and SETTINGS acks", &cost, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        attacker.0.set_write_timeout(None).expect("a socket");
        let both = [framed(PING, ACK, 0, &[0; 8]), framed(SETTINGS, ACK, 0, &[])].concat();
        let count = times(1_000);
        assert_eq!(attacker.flood(&both.repeat(100), count), Sent::All);
        assert_eq!(attacker.send(&framed(HEADERS, END_HEADERS, 0, &[])), Sent::All);
        until("all of it is read", || attacker.is_closed_within(std::time::Duration::from_secs(1)));
        (attacker, 200 * count)
    });
}

#[test]
fn a_header_that_is_repeated_by_its_number() {
    let cost = Cost { peak: HEADER_LIST + NOISE, after: NOISE };
    trial("HPACK bomb", &cost, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        // 4,000 bytes once, then one byte each time.
        let mut large = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
        large.extend([b'v'; 4_000]);
        let count = times(5_000);
        let mut first = true;
        streams(&mut attacker, count, |out, id| {
            let mut head = call_block(PUT);
            if std::mem::take(&mut first) {
                head.extend(&large);
            }
            head.extend([0xbe; 1_000]);
            frame(out, HEADERS, END_HEADERS | END_STREAM, id, &head);
            // A call without a message would wait for it.
            reset(out, id);
        });
        (attacker, count)
    });
}

#[test]
fn a_dynamic_table_that_is_churned() {
    let cost = Cost { peak: UNSENT + NOISE, after: NOISE };
    trial("table churn", &cost, |server, _| {
        let mut attacker = Attacker::connect(server, &[(HEADER_TABLE_SIZE, u32::MAX)]);
        let count = times(5_000);
        let mut n = 0_u32;
        streams(&mut attacker, count, |out, id| {
            let mut head = Vec::new();
            if id % 16 == 1 {
                // The table is emptied, and as large as before.
                head.extend([0x20, 0x3f, 0xe1, 0x1f]);
            }
            head.extend(call_block(PUT));
            for _ in 0..50 {
                n += 1;
                let value = n.to_be_bytes();
                head.extend([0x40, 2, b'x', b'y', 4]);
                head.extend(value.map(|byte| byte & 0x7f));
            }
            frame(out, HEADERS, END_HEADERS | END_STREAM, id, &head);
        });
        (attacker, count)
    });
}

#[test]
fn requests_that_are_malformed() {
    let heads = [
        block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h")]),
        block(&[(":method", "POST"), (":path", "/none"), ("connection", "close")]),
        block(&[("Upper", "case")]),
        block(&[(":status", "200"), (":method", "POST")]),
        call_block("/no/Such"),
        block(&[]),
    ];
    let cost = Cost { peak: UNSENT + NOISE, after: NOISE };
    trial("malformed requests", &cost, |server, _| {
        let mut attacker = Attacker::connect(server, &[]);
        let count = times(RESETS);
        streams(&mut attacker, count, |out, id| {
            let head = &heads[id as usize / 2 % heads.len()];
            frame(out, HEADERS, END_HEADERS | END_STREAM, id, head);
        });
        (attacker, count)
    });
}
