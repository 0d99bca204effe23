//! Answers and the windows that they wait for.

use bytes::Bytes;

use super::kit::*;
use crate::frame::{MAX_PAYLOAD, kind};
use crate::{Code, End, Event, Field, Limits, ResponseHead};

const INITIAL_WINDOW: u16 = 4;

/// A client whose streams have this window at first, and a connection whose window is larger.
fn with_window(window: u32) -> Client {
    let mut client = Client::with(Limits::default(), &[(INITIAL_WINDOW, window)]);
    client.send(&window_update(0, 1 << 24));
    client
}

#[test]
fn a_whole_request_is_answered_at_once() {
    let mut client = Client::new();
    let request = [headers(1, POST), last_data(1, b"hello")].concat();
    let events = client.send_with(&request, |server, event| {
        let Event::Whole { stream, body, .. } = event else { panic!("{event:?}") };
        let slot = server.answer(*stream, &OK, |out| out.extend_from_slice(body), DONE);
        assert_eq!(slot, None);
    });
    assert_eq!(events, ["whole 1 5"]);
    assert_eq!(client.said(), ["HEADERS 1", "DATA 1 5", "HEADERS 1 end"]);
    assert!(client.server.is_idle());
    // What comes late for it is ignored.
    let late = [window_update(1, 5), rst_stream(1, 8), data(1, b"more")].concat();
    assert!(client.send(&late).is_empty() && client.said().is_empty() && client.failed.is_none());
}

#[test]
fn a_whole_request_is_opened_and_answered_later() {
    let mut client = Client::new();
    let request = [headers(1, POST), last_data(1, b"hello")].concat();
    let mut opened = None;
    client.send_with(&request, |server, event| {
        let Event::Whole { stream, .. } = event else { panic!("{event:?}") };
        opened = Some(server.open(*stream, "waits"));
    });
    let stream = opened.unwrap();
    assert!(client.server.is_open(stream) && client.server.open_streams() == 1);
    assert_eq!(client.server.slot(stream), Some(&mut "waits"));
    let slot = client.server.answer(stream, &OK, |out| out.extend_from_slice(b"abc"), DONE);
    assert_eq!(slot, Some("waits"));
    assert_eq!(client.said(), ["HEADERS 1", "DATA 1 3", "HEADERS 1 end"]);
    // A key that outlived its stream does nothing.
    assert!(!client.server.is_open(stream));
    client.server.answer(stream, &OK, |_| panic!("nobody wants it"), DONE);
    assert!(!client.server.data(stream, Bytes::from_static(b"abc")));
    assert_eq!(client.server.reset(stream, Code::CANCEL), None);
    assert_eq!(client.server.trailers(stream, DONE), None);
    assert_eq!(client.server.set_slot(stream, "late"), Some("late"));
    client.server.release(stream, 5);
    client.server.want_room(stream);
    assert!(client.said().is_empty());
}

#[test]
fn an_answer_without_a_body_has_no_data() {
    let mut client = Client::new();
    let stream = client.begin(1);
    client.server.answer(stream, &OK, |_| {}, DONE);
    assert_eq!(client.said(), ["HEADERS 1", "HEADERS 1 end"]);
}

#[test]
fn an_answer_to_a_client_that_still_sends_stops_it() {
    let mut client = Client::new();
    client.send_with(&headers(1, POST), |server, event| {
        let Event::Head { stream, .. } = event else { panic!("{event:?}") };
        server.answer(*stream, &OK, |out| out.extend_from_slice(b"abc"), DONE);
    });
    let said = ["HEADERS 1", "DATA 1 3", "HEADERS 1 end", "RST_STREAM 1 NO_ERROR"];
    assert_eq!(client.said(), said);
    assert!(client.send(&data(1, b"more")).is_empty() && client.said().is_empty());
}

#[test]
fn a_large_answer_leaves_as_the_windows_open() {
    for is_whole in [true, false] {
        let mut client = Client::with(Limits::default(), &[(INITIAL_WINDOW, 20_000)]);
        let body = vec![7; 200_000];
        if is_whole {
            let request = [headers(1, POST), last_data(1, b"")].concat();
            client.send_with(&request, |server, event| {
                let Event::Whole { stream, .. } = event else { panic!("{event:?}") };
                server.answer(*stream, &OK, |out| out.extend_from_slice(&body), DONE);
            });
        } else {
            let stream = client.begin(1);
            client.server.answer(stream, &OK, |out| out.extend_from_slice(&body), DONE);
        }
        assert_eq!(client.said(), ["HEADERS 1", "DATA 1 16384", "DATA 1 3616"]);
        assert_eq!(client.server.held_bytes(), 180_000);
        client.send(&window_update(1, 1));
        assert_eq!(client.said(), ["DATA 1 1"]);
        client.send(&window_update(1, 100_000));
        assert_eq!(client.received(), 65_535 - 20_001, "the connection's window");
        client.send(&window_update(0, 1 << 20));
        assert_eq!(client.received(), 120_001 - 65_535);
        client.send(&settings(&[(INITIAL_WINDOW, 99_998)]));
        let said = client.said();
        assert_eq!(said[0], "SETTINGS ack", "before what the new window allows");
        assert_eq!(client.server.held_bytes(), 1);
        client.send(&window_update(1, 1));
        assert_eq!(client.said(), ["DATA 1 1", "HEADERS 1 end"]);
        assert!(client.server.is_idle() && client.server.held_bytes() == 0);
    }
}

#[test]
fn a_smaller_initial_window_counts_for_open_streams() {
    let mut client = with_window(10);
    let stream = client.begin(1);
    client.server.answer(stream, &OK, |out| out.extend_from_slice(&[7; 100]), DONE);
    assert_eq!(client.received(), 10);
    client.send(&settings(&[(INITIAL_WINDOW, 3)]));
    client.send(&window_update(1, 7));
    assert_eq!(client.received(), 0, "the window is 0 now");
    client.send(&window_update(1, 2));
    assert_eq!(client.received(), 2);
    client.send(&settings(&[(INITIAL_WINDOW, 4), (INITIAL_WINDOW, 6)]));
    assert_eq!(client.received(), 3);
}

#[test]
fn streams_take_turns_when_the_connection_opens() {
    let mut client = Client::with(Limits::default(), &[(INITIAL_WINDOW, 1 << 20)]);
    for id in [1, 3, 5] {
        let stream = client.begin(id);
        client.server.answer(stream, &OK, |out| out.extend_from_slice(&[7; 100_000]), DONE);
    }
    client.said();
    client.send(&window_update(0, 5 * MAX_PAYLOAD as u32 + 5));
    let said = client.said();
    let ids: Vec<&str> = said.iter().map(|frame| &frame[5..6]).collect();
    assert_eq!(ids, ["1", "3", "5", "1", "3", "5"]);
    assert_eq!(said[5], "DATA 5 5");
}

#[test]
fn a_stream_whose_window_is_shut_holds_up_nobody() {
    let mut client = with_window(0);
    for id in [1, 3, 5] {
        let stream = client.begin(id);
        client.server.answer(stream, &OK, |out| out.extend_from_slice(&[7; 10]), DONE);
    }
    client.said();
    client.send(&window_update(3, 10));
    assert_eq!(client.said(), ["DATA 3 10", "HEADERS 3 end"]);
    client.send(&[rst_stream(1, 8), settings(&[(INITIAL_WINDOW, 4)])].concat());
    assert_eq!(client.said(), ["SETTINGS ack", "DATA 5 4"]);
    client.send(&settings(&[(INITIAL_WINDOW, 400)]));
    assert_eq!(client.said(), ["SETTINGS ack", "DATA 5 6", "HEADERS 5 end"]);
}

#[test]
fn a_stream_is_told_when_there_is_room() {
    let mut client = with_window(10);
    let stream = client.begin_answer(1);
    assert_eq!(client.server.room(stream), 10);
    client.server.want_room(stream);
    assert_eq!(client.send(b""), ["writable 1"], "it has room already");
    assert!(client.send(b"").is_empty(), "once");
    assert!(client.server.data_from(stream, &[7; 10]));
    assert_eq!(client.server.room(stream), 0);
    client.server.want_room(stream);
    assert!(client.send(b"").is_empty());
    let mut sent = 0;
    let events = client.send_with(&window_update(1, 5), |server, event| {
        if let Event::Writable { stream } = event {
            sent = server.room(*stream);
            assert!(server.data(*stream, Bytes::from(vec![8; sent])));
        }
    });
    assert_eq!((events.len(), sent), (1, 5));
    assert_eq!(client.said(), ["HEADERS 1", "DATA 1 10", "DATA 1 5"]);
    // Data beyond the room waits, and whoever wants room waits for that to leave.
    assert!(client.server.data(stream, Bytes::from_static(b"abc")));
    assert!(client.server.data_from(stream, b"def"));
    client.server.want_room(stream);
    assert!(client.send(&window_update(1, 5)).is_empty());
    assert_eq!(client.said(), ["DATA 1 3", "DATA 1 2"]);
    assert_eq!(client.send(&window_update(1, 2)), ["writable 1"]);
    assert_eq!(client.server.trailers(stream, DONE), Some("slot"));
    assert_eq!(client.said(), ["DATA 1 1", "HEADERS 1 end"]);
}

#[test]
fn the_end_waits_behind_data() {
    let mut client = with_window(1);
    let stream = client.begin_answer(1);
    assert!(client.server.data_from(stream, b"abc"));
    assert_eq!(client.server.trailers(stream, DONE), Some("slot"));
    assert!(!client.server.data_from(stream, b"more"), "it has ended");
    assert_eq!(client.server.trailers(stream, DONE), None);
    assert_eq!(client.said(), ["HEADERS 1", "DATA 1 1"]);
    assert!(client.server.is_open(stream));
    client.send(&window_update(1, 7));
    assert_eq!(client.said(), ["DATA 1 2", "HEADERS 1 end"]);
}

#[test]
fn a_reset_drops_what_waits() {
    let mut client = with_window(0);
    let [first, second] = [1, 3].map(|id| client.begin_answer(id));
    client.server.data_from(first, b"abc");
    client.server.data_from(second, b"abcd");
    assert_eq!(client.server.reset(first, Code::CANCEL), Some("slot"));
    assert_eq!(client.server.held_bytes(), 4);
    assert_eq!(client.send(&rst_stream(3, 8)), ["reset 3 CANCEL slot"]);
    assert_eq!(client.server.held_bytes(), 0);
    client.send(&settings(&[(INITIAL_WINDOW, 100)]));
    assert_eq!(client.said()[2..], ["RST_STREAM 1 CANCEL", "SETTINGS ack"]);
}

#[test]
fn an_answer_needs_its_head_first() {
    let mut client = Client::new();
    let stream = client.begin(1);
    assert!(!client.server.data_from(stream, b"abc"));
    client.server.headers(stream, &OK, End::Open);
    client.server.headers(stream, &OK, End::Open);
    assert_eq!(client.said(), ["HEADERS 1"], "once");
    let other = client.begin(3);
    assert_eq!(client.server.trailers(other, DONE), Some("slot"));
    assert_eq!(client.said(), ["RST_STREAM 3 INTERNAL_ERROR"]);
}

#[test]
fn windows_are_given_back_at_half() {
    let limits = Limits { stream_window: 70_000, connection_window: 100_000, ..Limits::default() };
    let mut client = Client::with(limits, &[]);
    let mut stream = None;
    client.send_with(&headers(1, POST), |_, event| {
        if let Event::Head { stream: key, .. } = event {
            stream = Some(*key);
        }
    });
    let stream = stream.unwrap();
    let chunk = data(1, &[7; 10_000]);
    client.send(&chunk.repeat(5));
    assert_eq!(client.said(), ["WINDOW_UPDATE 0 50000"], "the connection's, used or not");
    client.server.release(stream, 34_999);
    assert!(client.said().is_empty());
    client.server.release(stream, 1);
    assert_eq!(client.said(), ["WINDOW_UPDATE 1 35000"]);
    client.send(&chunk.repeat(5));
    assert_eq!(client.said(), ["WINDOW_UPDATE 0 50000"]);
    // 65,000 are not released. One more frame is one too many, which is told before it is used.
    let events = client.send(&chunk);
    assert_eq!(events, ["reset 1 FLOW_CONTROL_ERROR -"]);
    assert_eq!(client.said(), ["RST_STREAM 1 FLOW_CONTROL_ERROR"]);
}

#[test]
fn what_is_never_used_is_bounded_by_the_connections_window() {
    let limits = Limits { stream_window: 1 << 20, connection_window: 100_000, ..Limits::default() };
    let mut client = Client::with(limits, &[]);
    let mut streams = Vec::new();
    let mut sent = 0;
    for id in (1..100).step_by(2) {
        client.send_with(&[headers(id, POST), data(id, &[7; 10_000])].concat(), |_, event| {
            if let Event::Head { stream, .. } = event {
                streams.push(*stream);
            }
        });
        if client.failed.is_some() {
            break;
        }
        sent += 10_000;
    }
    assert_eq!(client.failed.map(|fatal| fatal.code), Some(Code::FLOW_CONTROL_ERROR));
    assert_eq!(sent, 200_000, "two windows");

    // Streams that end give back what they did not use.
    let limits = Limits { stream_window: 1 << 20, connection_window: 100_000, ..Limits::default() };
    let mut client = Client::with(limits, &[]);
    for id in (1..200).step_by(2) {
        client.send(&[headers(id, POST), data(id, &[7; 10_000]), rst_stream(id, 8)].concat());
        assert!(client.failed.is_none());
    }
    assert_eq!(client.said().len(), 20);
}

#[test]
fn a_padded_frame_counts_with_its_padding() {
    let limits = Limits { stream_window: 70_000, ..Limits::default() };
    let mut client = Client::with(limits, &[]);
    client.send(&headers(1, POST));
    let mut padded = vec![255];
    padded.resize(256 + 1, 7);
    let frame = framed(kind::DATA, 8, 1, &padded);
    // 1 byte of body each: the padding is given back without being asked for.
    for _ in 0..140 {
        assert_eq!(client.send(&frame), ["data 1 1"]);
    }
    assert_eq!(client.said(), ["WINDOW_UPDATE 1 35072"]);
}

#[test]
fn a_list_that_the_client_does_not_take_resets_the_stream() {
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    let mut client = Client::with(Limits::default(), &[(MAX_HEADER_LIST_SIZE, 100)]);
    let long = ResponseHead { status: 200, fields: &[Field::literal(b"a", &[b'x'; 30])] };
    let stream = client.begin(1);
    assert_eq!(client.server.headers(stream, &long, End::Open), Some("slot"));
    assert_eq!(client.said(), ["RST_STREAM 1 INTERNAL_ERROR"]);
    let stream = client.begin(3);
    client.server.answer(stream, &long, |_| panic!("too late"), DONE);
    let stream = client.begin(5);
    let short = ResponseHead { status: 200, fields: &[] };
    client.server.headers(stream, &short, End::Open);
    client.server.trailers(stream, &[Field::literal(b"grpc-message", &[b'x'; 100])]);
    let said = ["RST_STREAM 3 INTERNAL_ERROR", "HEADERS 5", "RST_STREAM 5 INTERNAL_ERROR"];
    assert_eq!(client.said(), said);
    // The end is looked at when it comes.
    let request = [headers(7, POST), last_data(7, b"")].concat();
    let too_long = &[Field::literal(b"grpc-message", &[b'x'; 100])];
    client.send_with(&request, |server, event| {
        let Event::Whole { stream, .. } = event else { panic!("{event:?}") };
        server.answer(*stream, &short, |out| out.extend_from_slice(b"abc"), too_long);
    });
    assert_eq!(client.said(), ["HEADERS 7", "DATA 7 3", "RST_STREAM 7 INTERNAL_ERROR"]);
}

#[test]
fn a_long_status_is_continued() {
    let mut client = Client::new();
    let stream = client.begin_answer(1);
    let message = vec![b'x'; 40_000];
    client.server.trailers(stream, &[Field::literal(b"grpc-message", &message)]);
    assert_eq!(client.said(), ["HEADERS 1", "HEADERS 1 end", "CONTINUATION 1", "CONTINUATION 1"]);
}

#[test]
fn answers_obey_the_clients_table() {
    const HEADER_TABLE_SIZE: u16 = 1;
    let mut client = Client::new();
    let answer = |client: &mut Client, id| {
        let stream = client.begin(id);
        client.server.answer(stream, &OK, |_| {}, DONE);
        let out = std::mem::take(client.server.out());
        let blocks: Vec<Vec<u8>> = frames(&out).map(|(_, block)| block.to_vec()).collect();
        blocks
    };
    assert_eq!(answer(&mut client, 1)[1], b"\x40\x0bgrpc-status\x010");
    assert_eq!(answer(&mut client, 3), [&b"\x88\xbf"[..], b"\xbe"]);
    client.send(&settings(&[(HEADER_TABLE_SIZE, 0)]));
    client.said();
    let literals = [&b"\x20\x88\x0f\x10\x10application/grpc"[..], b"\x00\x0bgrpc-status\x010"];
    assert_eq!(answer(&mut client, 5), literals);
    assert_eq!(answer(&mut client, 7)[0], literals[0][1..]);
    client.send(&settings(&[(HEADER_TABLE_SIZE, 1 << 20)]));
    client.said();
    assert_eq!(answer(&mut client, 9)[0], b"\x20\x3f\xe1\x1f\x88\x5f\x10application/grpc");
    assert_eq!(answer(&mut client, 11), [&b"\x88\xbf"[..], b"\xbe"]);
}
