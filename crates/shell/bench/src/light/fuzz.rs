//! What a server may send, as a fuzz target.

use super::call::Event;
use super::connection::{Connection, Ends, Reading};
use super::encoder::{Caller, Deadlines, Encoder};
use super::frame;
use super::message::{put_of, ttl_of};

/// Calls that are in flight when the bytes come.
const CALLS: u32 = 4;

/// Reads bytes as what a server sends behind its first SETTINGS frame, and as messages.
///
/// # Panics
/// If the bytes mean something else when they come in pieces.
pub fn fuzz_answers(bytes: &[u8]) {
    let (_, _) = (put_of(bytes), ttl_of(bytes));
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, 7, 64] {
        assert_eq!(read(bytes, piece), whole, "pieces of {piece} bytes");
    }
}

/// All that happened, and what would be sent.
fn read(bytes: &[u8], piece: usize) -> (Vec<String>, Vec<u8>) {
    let encoder =
        Encoder::new("localhost", "/etcdserverpb.KV/Put", Deadlines::Each(0), &Caller::default());
    let mut connection = Connection::new(encoder, Reading::Show);
    let mut greeting = Vec::new();
    frame::settings(&mut greeting, &[]);
    let mut events = Vec::new();
    let mut on = |slot: u32, event: Event<'_>| events.push(format!("{slot}: {event:?}"));
    connection.received(&greeting, &mut on).expect("a SETTINGS frame");
    for slot in 0..CALLS {
        connection.begin(slot, Ends::Later, |out| out.extend_from_slice(&[0; 5]));
    }
    let mut buffer = vec![0; frame::HEAD_BYTES + frame::MAX_PAYLOAD_BYTES + piece];
    let mut broken = None;
    for chunk in bytes.chunks(piece) {
        let rest = connection.take_rest(&mut buffer);
        buffer[rest..rest + chunk.len()].copy_from_slice(chunk);
        if let Err(why) = connection.received(&buffer[..rest + chunk.len()], &mut on) {
            broken = Some(why);
            break;
        }
    }
    events.push(format!("{broken:?}"));
    (events, connection.out)
}
