//! What ends an answer that breaks off within a message: never a status, which a client would take
//! for the end of that message.

use std::time::Duration;

use api::etcdserverpb::{RangeRequest, SnapshotRequest};
use conform::frames::{ACK, DATA, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS};
use conform::{Kind, Server};
use prost::Message;

use super::RANGE;
use super::pings::{Frames, put_large};

const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
/// HTTP/2's code of that name.
const CANCEL: u32 = 8;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It was reset, with this code.
    Reset(u32),
    /// Trailers came.
    Status,
    /// Nothing more came of it while the connection was open.
    Silent,
}

/// Reads frames until the stream ends, or for as long as the socket waits. Opens no window.
fn ending(frames: &mut Frames) -> Ending {
    while let Some(frame) = frames.next() {
        match frame.head.kind {
            SETTINGS if frame.head.flags & ACK == 0 => frames.send(SETTINGS, ACK, 0, &[]),
            RST_STREAM => {
                let code = frame.payload[..].try_into().expect("four bytes");
                return Ending::Reset(u32::from_be_bytes(code));
            }
            HEADERS if frame.head.flags & END_STREAM != 0 => return Ending::Status,
            PING if frame.head.flags & ACK != 0 => return Ending::Silent,
            _ => {}
        }
    }
    Ending::Silent
}

/// Reads until the window is used up: part of a message is here then, and no status.
fn use_window_up(frames: &mut Frames) {
    let mut left = 65_535;
    while left > 0 {
        let frame = frames.next().expect("the answer begins");
        match frame.head.kind {
            SETTINGS if frame.head.flags & ACK == 0 => frames.send(SETTINGS, ACK, 0, &[]),
            DATA => left -= frame.payload.len(),
            HEADERS => assert_eq!(frame.head.flags & END_STREAM, 0, "it ends early"),
            _ => {}
        }
    }
}

fn large() -> Vec<u8> {
    RangeRequest { key: "large".into(), ..Default::default() }.encode_to_vec()
}

#[test]
fn a_deadline_within_a_message_resets_the_stream() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(server) = Server::start(kind, &[]) else { continue };
        put_large(&server);
        for (path, message) in [(SNAPSHOT, SnapshotRequest {}.encode_to_vec()), (RANGE, large())] {
            let mut frames = Frames::connect(&server);
            frames.call_with(1, path, &message, &[("grpc-timeout", "1500m")]);
            use_window_up(&mut frames);
            frames.wait_up_to(Duration::from_secs(5));
            let ending = ending(&mut frames);
            // etcd has handed a whole answer to its transport before: it waits for the client.
            let is_patient = kind == Kind::Reference && path == RANGE;
            let expected = if is_patient { Ending::Silent } else { Ending::Reset(CANCEL) };
            assert_eq!(ending, expected, "{kind:?} {path}");
        }
    }
}

#[test]
fn a_call_that_its_client_cancels_within_a_message_gets_nothing_more() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(server) = Server::start(kind, &[]) else { continue };
        put_large(&server);
        for (path, message) in [(SNAPSHOT, SnapshotRequest {}.encode_to_vec()), (RANGE, large())] {
            let mut frames = Frames::connect(&server);
            frames.call(1, path, &message);
            use_window_up(&mut frames);
            frames.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
            frames.send(PING, 0, 0, b"are you?");
            assert_eq!(ending(&mut frames), Ending::Silent, "{kind:?} {path}");
            // The connection goes on.
            frames.send(PING, 0, 0, b"are you?");
            assert_eq!(ending(&mut frames), Ending::Silent, "{kind:?} {path}");
        }
    }
}

#[test]
fn a_server_that_stops_within_a_message_sends_no_status_behind_it() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(mut server) = Server::start(kind, &[]) else { continue };
        put_large(&server);
        let mut frames = Frames::connect(&server);
        frames.call(1, RANGE, &large());
        use_window_up(&mut frames);
        let reader = std::thread::spawn(move || ending(&mut frames));
        server.stop();
        assert_ne!(reader.join().expect("it reads"), Ending::Status, "{kind:?}");
    }
}
