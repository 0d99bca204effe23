//! Answers every gRPC request with what it sent, one thread per connection: to try the crate with
//! other programs, such as h2spec.
//!
//! `cargo run -p quorate-http2 --example serve -- 127.0.0.1:20790`

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::LazyLock;

use http2::{
    Code, Connection, End, Event, Field, Limits, Protocol, ResponseHead, StaticTags, StreamKey,
    Verdict,
};

#[derive(Debug)]
struct Grpc;

/// What a field makes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    #[default]
    Nothing,
    Grpc,
    Malformed,
}

impl Protocol for Grpc {
    type Tag = Tag;
    type Head = Tag;
    type Slot = Vec<u8>;

    fn tag(name: &[u8], value: &[u8]) -> Tag {
        match name {
            b"content-type" if value.starts_with(b"application/grpc") => Tag::Grpc,
            b"connection" => Tag::Malformed,
            _ => Tag::Nothing,
        }
    }

    fn static_tags() -> &'static StaticTags<Tag> {
        static TAGS: LazyLock<StaticTags<Tag>> = LazyLock::new(StaticTags::of::<Grpc>);
        &TAGS
    }

    fn field(head: &mut Tag, tag: &Tag, _name: &[u8], _value: &[u8]) {
        *head = (*head).max(*tag);
    }

    fn judge(head: &Tag) -> Verdict {
        match head {
            Tag::Malformed => Verdict::Reset(Code::PROTOCOL_ERROR),
            Tag::Nothing => Verdict::Refuse,
            Tag::Grpc => Verdict::Serve,
        }
    }
}

const OK: ResponseHead<'static> =
    ResponseHead { status: 200, fields: &[Field::indexed(b"content-type", b"application/grpc")] };
const DONE: &[Field<'static>] =
    &[Field::indexed(b"grpc-status", b"0"), Field::indexed(b"grpc-message", b"")];
const REFUSED: ResponseHead<'static> = ResponseHead {
    status: 415,
    fields: &[
        Field::indexed(b"content-type", b"application/grpc"),
        Field::literal(b"grpc-status", b"3"),
        Field::literal(b"grpc-message", b"invalid gRPC request content-type"),
    ],
};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:20790".to_owned());
    for socket in TcpListener::bind(address)?.incoming() {
        let socket = socket?;
        std::thread::spawn(move || serve(socket));
    }
    Ok(())
}

fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    let limits = Limits { concurrent_streams: 100, ..Limits::default() };
    let mut connection = Connection::<Grpc>::new(limits);
    let mut buffer = Vec::new();
    loop {
        let mut input = &buffer[..];
        let failed = loop {
            match connection.next(&mut input) {
                Ok(Some(event)) => handle(&mut connection, event),
                Ok(None) => break None,
                Err(fatal) => break Some(fatal),
            }
        };
        buffer = input.to_vec();
        if !connection.out().is_empty() {
            socket.write_all(connection.out())?;
            connection.out().clear();
            if failed.is_none() {
                continue;
            }
        }
        if let Some(fatal) = failed {
            eprintln!("{fatal}");
            return Ok(());
        }
        let mut piece = [0; 65_536];
        let size = socket.read(&mut piece)?;
        if size == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&piece[..size]);
    }
}

fn handle(connection: &mut Connection<Grpc>, event: Event<'_, Grpc>) {
    match event {
        Event::Whole { stream, body, .. } => {
            connection.answer(stream, &OK, |out| out.extend_from_slice(body), DONE);
        }
        Event::Head { stream, head, end } => {
            if head != Tag::Grpc {
                connection.headers(stream, &REFUSED, End::Stream);
                return;
            }
            connection.set_slot(stream, Vec::new());
            gather(connection, stream, b"", end);
        }
        Event::Data { stream, body, end } => gather(connection, stream, body, end),
        Event::Reset { .. } | Event::Writable { .. } | Event::Ping { .. } | Event::Pong(_) => {}
    }
}

fn gather(connection: &mut Connection<Grpc>, stream: StreamKey, body: &[u8], end: bool) {
    connection.release(stream, body.len());
    let Some(gathered) = connection.slot(stream) else { return };
    gathered.extend_from_slice(body);
    if end {
        let gathered = std::mem::take(gathered);
        connection.answer(stream, &OK, |out| out.extend_from_slice(&gathered), DONE);
    }
}
