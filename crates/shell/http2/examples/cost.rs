//! What a call costs in process: user time of the connection alone, the least of many rounds.
//!
//! `cargo run --release -p quorate-http2 --example cost`

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http2::{Connection, Event, Field, Limits, PREFACE, Protocol, ResponseHead, StaticTags};

/// Calls in one read, and reads in one round.
const CALLS: u32 = 10;
const READS: u32 = 100;
const ROUNDS: u32 = 1_000;

/// What a gRPC server makes of a field.
#[derive(Clone, Copy, Debug)]
enum Tag {
    Path(u32),
    Post,
    Grpc,
    Timeout(u64),
    Metadata,
    Nothing,
}

#[derive(Clone, Debug, Default)]
struct Head {
    path: u32,
    timeout: u64,
    is_post: bool,
    is_grpc: bool,
    metadata: u32,
}

#[derive(Debug)]
struct Grpc;

impl Protocol for Grpc {
    type Tag = Tag;
    type Head = Head;
    type Slot = ();

    fn tag(name: &[u8], value: &[u8]) -> Tag {
        match name {
            b":path" => Tag::Path(value.len() as u32),
            b":method" if value == b"POST" => Tag::Post,
            b"content-type" if value.starts_with(b"application/grpc") => Tag::Grpc,
            b"grpc-timeout" => {
                let digits = value.iter().filter(|byte| byte.is_ascii_digit());
                Tag::Timeout(digits.fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
            }
            b":scheme" | b":authority" | b"user-agent" | b"te" => Tag::Nothing,
            _ => Tag::Metadata,
        }
    }

    fn static_tags() -> &'static StaticTags<Tag> {
        static TAGS: LazyLock<StaticTags<Tag>> = LazyLock::new(StaticTags::of::<Grpc>);
        &TAGS
    }

    fn field(head: &mut Head, tag: &Tag, _name: &[u8], _value: &[u8]) {
        match *tag {
            Tag::Path(path) => head.path = path,
            Tag::Post => head.is_post = true,
            Tag::Grpc => head.is_grpc = true,
            Tag::Timeout(timeout) => head.timeout = timeout,
            Tag::Metadata => head.metadata += 1,
            Tag::Nothing => {}
        }
    }
}

const OK: ResponseHead<'static> =
    ResponseHead { status: 200, fields: &[Field::indexed(b"content-type", b"application/grpc")] };
const DONE: &[Field<'static>] =
    &[Field::indexed(b"grpc-status", b"0"), Field::indexed(b"grpc-message", b"")];

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// How the answer is given.
#[derive(Clone, Copy)]
enum Answer {
    Now,
    Later,
}

/// A client's requests: the same block each time, or a new deadline in each.
#[derive(Clone, Copy)]
enum Deadline {
    None,
    Fresh,
}

/// Header compression as grpc-go's client does it: every field is kept.
#[derive(Default)]
struct Client {
    /// The newest first.
    table: VecDeque<(&'static str, String)>,
    size: usize,
}

impl Client {
    fn block(&mut self, timeout: Option<u32>) -> Vec<u8> {
        let mut block = vec![0x83, 0x86];
        for (name, value, static_name) in [
            (":path", "/etcdserverpb.KV/Range", 4),
            (":authority", "127.0.0.1:2379", 1),
            ("content-type", "application/grpc", 31),
            ("user-agent", "grpc-go/1.82.1", 58),
            ("te", "trailers", 0),
        ] {
            self.field(&mut block, name, value.to_owned(), static_name);
        }
        if let Some(timeout) = timeout {
            self.field(&mut block, "grpc-timeout", format!("{timeout}u"), 0);
        }
        block
    }

    fn field(&mut self, block: &mut Vec<u8>, name: &'static str, value: String, known: usize) {
        let same = self.table.iter().position(|kept| kept.0 == name && kept.1 == value);
        if let Some(place) = same {
            return integer(block, 0x80, 0x7f, 62 + place);
        }
        let same_name = self.table.iter().position(|kept| kept.0 == name);
        integer(block, 0x40, 0x3f, same_name.map_or(known, |place| 62 + place));
        if same_name.is_none() && known == 0 {
            block.push(name.len() as u8);
            block.extend_from_slice(name.as_bytes());
        }
        match name {
            "grpc-timeout" => {
                let coded = huffman(&value);
                block.push(0x80 | coded.len() as u8);
                block.extend_from_slice(&coded);
            }
            _ => {
                block.push(value.len() as u8);
                block.extend_from_slice(value.as_bytes());
            }
        }
        self.size += name.len() + value.len() + 32;
        self.table.push_front((name, value));
        while self.size > 4_096 {
            let (name, value) = self.table.pop_back().expect("something is too much");
            self.size -= name.len() + value.len() + 32;
        }
    }
}

fn integer(block: &mut Vec<u8>, mark: u8, mask: u8, number: usize) {
    match number.checked_sub(usize::from(mask)) {
        None => block.push(mark | number as u8),
        Some(more) => block.extend_from_slice(&[mark | mask, more as u8]),
    }
}

/// The code of digits and `u`.
fn huffman(text: &str) -> Vec<u8> {
    let mut bits = String::new();
    for byte in text.bytes() {
        bits += &match byte {
            b'0'..=b'2' => format!("{:05b}", byte - b'0'),
            b'3'..=b'9' => format!("{:06b}", byte - b'3' + 0x19),
            _ => "101101".to_owned(),
        };
    }
    bits += &"1".repeat((8 - bits.len() % 8) % 8);
    let byte = |at| u8::from_str_radix(&bits[at..at + 8], 2).expect("eight bits");
    (0..bits.len()).step_by(8).map(byte).collect()
}

fn measure(name: &str, deadline: Deadline, answer: Answer, cached_blocks: usize) {
    let mut greeting = PREFACE.to_vec();
    frame(&mut greeting, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    frame(&mut greeting, 8, 0, 0, &[0x7f, 0, 0, 0]);
    let (mut client, mut id) = (Client::default(), 1);
    let mut call = |read: &mut Vec<u8>| {
        let timeout = 4_900_000 + 7 * id % 99_991;
        let block = client.block(matches!(deadline, Deadline::Fresh).then_some(timeout));
        frame(read, 1, 4, id, &block);
        frame(read, 0, 1, id, &[7; 75]);
        id += 2;
    };
    // The table is as full as it gets when the clock starts.
    (0..200).for_each(|_| call(&mut greeting));
    let mut read_of = |_| {
        let mut read = Vec::new();
        (0..CALLS).for_each(|_| call(&mut read));
        read
    };
    let reads: Vec<Vec<u8>> = (0..READS).map(&mut read_of).collect();
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let limits = Limits { cached_blocks, ..Limits::default() };
        let mut connection = Connection::<Grpc>::new(limits);
        run(&mut connection, &greeting, answer);
        let began = Instant::now();
        for read in &reads {
            run(&mut connection, read, answer);
        }
        best = best.min(began.elapsed());
        assert_eq!(connection.open_streams(), 0);
    }
    let each = best.as_nanos() as f64 / f64::from(CALLS * READS);
    println!("{name:<50} {each:6.1} ns");
}

fn run(connection: &mut Connection<Grpc>, bytes: &[u8], answer: Answer) {
    let mut input = bytes;
    while let Some(event) = connection.next(&mut input).expect("the client keeps the rules") {
        match event {
            Event::Whole { stream, head, body } => {
                assert!(head.is_post && head.is_grpc && head.path == 22 && head.metadata == 0);
                let stream = match answer {
                    Answer::Now => stream,
                    Answer::Later => connection.open(stream, ()),
                };
                let size = black_box(body.len() + 225);
                connection.answer(stream, &OK, |out| out.resize(out.len() + size, 7), DONE);
            }
            other => panic!("{other:?}"),
        }
    }
    black_box(&connection.out()[..]);
    connection.out().clear();
}

fn main() {
    measure("the same block each time", Deadline::None, Answer::Now, 4);
    measure("the same block, not cached", Deadline::None, Answer::Now, 0);
    measure("the same block, through the table of streams", Deadline::None, Answer::Later, 4);
    measure("a new deadline in each", Deadline::Fresh, Answer::Now, 4);
    measure("a new deadline, through the table of streams", Deadline::Fresh, Answer::Later, 4);
}
