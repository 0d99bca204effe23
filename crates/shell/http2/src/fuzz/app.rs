//! A server that does the same whether a request comes whole or in pieces.

use std::fmt::Display;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::{
    Code, Connection, End, Event, Fatal, Field, Limits, Protocol, ResponseHead, StaticTags,
    StreamKey, Verdict,
};

/// Understands nothing: a request's head is a sum of its fields.
#[derive(Debug)]
pub(super) struct Echo;

/// What is to be done for a request, by its stream's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// One answer of so many bytes when the request has ended.
    Answer(usize),
    /// What comes is sent back.
    Echo,
    /// So many bytes, as there is room.
    Pull(usize),
    /// A reset in the end.
    Reset,
    /// Nothing.
    Ignore,
}

/// What is done for the requests of a protocol.
pub(super) trait Serve: Protocol<Slot = Work, Head: Display> {
    /// What is to be done on a stream.
    fn work(stream: StreamKey) -> Work;
}

impl Serve for Echo {
    fn work(stream: StreamKey) -> Work {
        let number = stream.id() as usize / 2;
        match number % 7 {
            0 | 1 => Work::Answer([0, 400, 5, 20_000, 100_000][number / 7 % 5]),
            2 => Work::Answer(30),
            3 => Work::Echo,
            4 => Work::Pull([70_000, 10][number / 7 % 2]),
            5 => Work::Reset,
            _ => Work::Ignore,
        }
    }
}

impl Protocol for Echo {
    type Tag = u32;
    type Head = u32;
    type Slot = Work;

    fn tag(name: &[u8], value: &[u8]) -> u32 {
        sum(name.iter().chain(&[0]).chain(value))
    }

    fn static_tags() -> &'static StaticTags<u32> {
        static TAGS: LazyLock<StaticTags<u32>> = LazyLock::new(StaticTags::of::<Echo>);
        &TAGS
    }

    fn field(head: &mut u32, tag: &u32, name: &[u8], value: &[u8]) {
        assert_eq!(*tag, Self::tag(name, value));
        *head = head.wrapping_mul(31).wrapping_add(*tag);
    }

    fn judge(head: &u32) -> Verdict {
        match head % 16 {
            0 => Verdict::Reset(Code::PROTOCOL_ERROR),
            1 => Verdict::Refuse,
            _ => Verdict::Serve,
        }
    }
}

/// Like FNV-1a, of 32 bits.
fn sum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    bytes.fold(7, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

/// A part of a body: its length and its sum.
fn checksum(body: &[u8]) -> String {
    format!("{} {}", body.len(), sum(body.iter()))
}

const OK: ResponseHead<'static> =
    ResponseHead { status: 200, fields: &[Field::indexed(b"content-type", b"application/grpc")] };
const DONE: &[Field<'static>] = &[Field::indexed(b"grpc-status", b"0")];
const FAILED: &[Field<'static>] =
    &[Field::indexed(b"grpc-status", b"13"), Field::literal(b"grpc-message", b"no")];

/// What happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// The bytes that the server sent.
    pub said: Vec<u8>,
    /// What the connection told, an event each.
    pub events: Vec<String>,
    /// How it ended, unless well.
    pub failed: Option<Fatal>,
}

/// Feeds pieces to a connection and writes when a piece is used up.
pub(super) fn run<'a, P: Serve>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Ran {
    let mut server = Server::<P>::new(limits.clone());
    for piece in pieces {
        if !server.take(piece) {
            break;
        }
    }
    Ran { said: server.said, events: server.events, failed: server.failed }
}

/// A connection, and all that it did.
pub(super) struct Server<P: Serve> {
    connection: Connection<P>,
    rest: Vec<u8>,
    pub(super) said: Vec<u8>,
    events: Vec<String>,
    failed: Option<Fatal>,
    limits: Limits,
}

impl<P: Serve> Server<P> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            connection: Connection::new(limits.clone()),
            rest: Vec::new(),
            said: Vec::new(),
            events: Vec::new(),
            failed: None,
            limits,
        }
    }

    /// Takes bytes until nothing happens any more. False: the connection has ended.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut input = &rest[..];
        loop {
            match self.connection.next(&mut input) {
                Ok(Some(event)) => handle(&mut self.connection, event, &mut self.events),
                Ok(None) => {
                    let is_done = self.connection.out().is_empty();
                    self.write();
                    if is_done {
                        break;
                    }
                }
                Err(fatal) => {
                    self.failed = Some(fatal);
                    self.write();
                    return false;
                }
            }
        }
        let room = 9 + 16_384 + self.limits.unsent_bytes;
        assert!(input.len() < room && self.connection.wants_input());
        self.rest = input.to_vec();
        true
    }

    fn write(&mut self) {
        self.said.append(self.connection.out());
        let connection = &self.connection;
        assert!(connection.held_bytes() <= self.limits.held_bytes + 10 * 100_000);
        // One more for each that is refused when it is full.
        assert!(connection.open_streams() <= self.limits.concurrent_streams as usize);
        assert!(!connection.is_idle() || connection.pending_bytes() == 0);
    }
}

fn handle<P: Serve>(connection: &mut Connection<P>, event: Event<'_, P>, events: &mut Vec<String>) {
    match event {
        Event::Whole { stream, head, body } => {
            let id = stream.id();
            events.push(format!("head {id} {head}"));
            events.push(format!("data {id} {} true", checksum(body)));
            match P::work(stream) {
                Work::Answer(size) => {
                    connection.answer(stream, &OK, |out| out.resize(out.len() + size, 7), DONE);
                }
                work => {
                    let stream = connection.open(stream, work);
                    on_data(connection, stream, body, true);
                }
            }
        }
        Event::Head { stream, head, end } => {
            events.push(format!("head {} {head}", stream.id()));
            if P::judge(&head) == Verdict::Refuse {
                let refused = ResponseHead { status: 415, fields: FAILED };
                connection.headers(stream, &refused, End::Stream);
                assert!(!connection.is_open(stream));
                return;
            }
            assert!(connection.set_slot(stream, P::work(stream)).is_none());
            if end {
                on_data(connection, stream, b"", true);
            }
        }
        Event::Data { stream, body, end } => {
            events.push(format!("data {} {} {end}", stream.id(), checksum(body)));
            on_data(connection, stream, body, end);
        }
        Event::Reset { stream, code, .. } => {
            events.push(format!("reset {} {code:?}", stream.id()));
            assert!(!connection.is_open(stream));
        }
        Event::Writable { stream } => {
            events.push(format!("writable {}", stream.id()));
            pull(connection, stream);
        }
        Event::Ping { forgiven } => events.push(format!("ping {forgiven}")),
        Event::Pong(data) => {
            events.push(format!("pong {data:?}"));
        }
    }
}

fn on_data<P: Serve>(connection: &mut Connection<P>, stream: StreamKey, body: &[u8], end: bool) {
    let Some(&mut work) = connection.slot(stream) else { return };
    if work != Work::Ignore {
        connection.release(stream, body.len());
    }
    match work {
        Work::Echo => {
            connection.headers(stream, &OK, End::Open);
            // The client may take no such head, which resets the stream.
            let is_open = connection.is_open(stream);
            assert_eq!(connection.data_from(stream, body), is_open);
            if end {
                connection.trailers(stream, FAILED);
            }
        }
        Work::Answer(size) if end => {
            connection.answer(stream, &OK, |out| out.resize(out.len() + size, 7), DONE);
        }
        Work::Pull(_) if end => {
            connection.headers(stream, &OK, End::Open);
            pull(connection, stream);
        }
        Work::Reset if end => {
            assert_eq!(connection.reset(stream, Code::CANCEL), Some(Work::Reset));
        }
        _ => {}
    }
}

fn pull<P: Serve>(connection: &mut Connection<P>, stream: StreamKey) {
    let room = connection.room(stream).min(10_000);
    let Some(Work::Pull(left)) = connection.slot(stream) else { return };
    let size = room.min(*left);
    *left -= size;
    let is_done = *left == 0;
    assert!(connection.data(stream, Bytes::from(vec![7; size])));
    match is_done {
        true => assert_eq!(connection.trailers(stream, DONE), Some(Work::Pull(0))),
        false => connection.want_room(stream),
    }
}
