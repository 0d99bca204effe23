//! Playing a sequence to a server, and what comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use api::etcdserverpb::RangeResponse;
use bench::light::decoder::Decoder;
use prost::Message;

use super::{
    ACK, Await, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, Sequence, frame,
};

/// How long a server may keep us waiting; then it is taken to say nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the last PING carries.
const MARK: &[u8; 8] = b"all read";

/// Something that a server says on a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Fields, sorted, and whether they are the last.
    Headers(Vec<(String, String)>, bool),
    /// A whole answer in words, or the length of what came of it.
    Data(String),
    /// RST_STREAM with a code.
    Reset(u32),
}

/// What a server did about a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reactions {
    /// By stream.
    pub streams: BTreeMap<u32, Vec<Event>>,
    /// Code and last stream of each GOAWAY.
    pub goaways: Vec<(u32, u32)>,
    /// Acknowledged SETTINGS: one for the client's own of each step, and those that are sequence.
    pub settings: usize,
    /// The payloads of acknowledged PINGs.
    pub pings: Vec<Vec<u8>>,
    /// The step that made the server close.
    pub closed_at: Option<usize>,
    /// Steps whose answer did not come in time, which the generator should not draw.
    pub unanswered: Vec<usize>,
    /// The first line of what is no HTTP/2.
    pub other: Option<String>,
}

struct Exchange {
    socket: TcpStream,
    decoder: Decoder,
    seen: Reactions,
    /// Bytes of DATA by stream, until the stream says something else.
    data: BTreeMap<u32, Vec<u8>>,
    /// Streams of which something came, and those that are over.
    begun: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    /// Streams whose requests have ended.
    ending: BTreeSet<u32>,
    read: Vec<u8>,
}

/// The server said nothing more, or closed.
enum Silence {
    Closed,
    TimedOut,
}

impl Sequence {
    /// Plays the sequence to the server at a port.
    ///
    /// # Panics
    /// If nobody listens there, or the server's header compression is broken.
    #[must_use]
    pub fn play(&self, port: u16) -> Reactions {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        socket.set_nodelay(true).expect("a TCP socket");
        if self.preface != PREFACE {
            return self.play_broken(&mut socket);
        }
        let mut exchange = Exchange {
            socket,
            decoder: Decoder::default(),
            seen: Reactions::default(),
            data: BTreeMap::new(),
            begun: BTreeSet::new(),
            ended: BTreeSet::new(),
            ending: BTreeSet::new(),
            read: Vec::new(),
        };
        exchange.run(self);
        exchange.seen
    }

    fn play_broken(&self, socket: &mut TcpStream) -> Reactions {
        let steps = self.steps.iter().flat_map(|step| &step.bytes).copied();
        let bytes: Vec<u8> = self.preface.iter().copied().chain(steps).collect();
        // A server that has closed is met by reading.
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        let line = said.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Reactions { other: Some(line.escape_ascii().to_string()), ..Reactions::default() }
    }
}

impl Exchange {
    fn run(&mut self, sequence: &Sequence) {
        let mut waiting = PREFACE.to_vec();
        let is_held = sequence.steps.iter().any(|step| matches!(step.until, Await::Begun(_)));
        for (at, step) in sequence.steps.iter().enumerate() {
            waiting.extend(&step.bytes);
            if !self.step(at, std::mem::take(&mut waiting), step.until) {
                return;
            }
            // grpc-go writes what a window allows behind acknowledgements that came before it: the
            // next step may end the connection.
            if is_held && !self.step(at, Vec::new(), Await::Read) {
                return;
            }
        }
        let end = sequence.steps.len();
        waiting.extend(frame(PING, 0, 0, MARK));
        self.write(&waiting);
        let is_marked = |own: &Self| own.seen.pings.last().is_some_and(|ping| ping == MARK);
        self.wait(end, is_marked);
        if self.seen.closed_at.is_none() {
            self.step(end, Vec::new(), Await::Read);
        }
        self.settle_all();
    }

    /// False if the server closed.
    fn step(&mut self, at: usize, mut bytes: Vec<u8>, until: Await) -> bool {
        let marker = frame(SETTINGS, 0, 0, &[]);
        self.ending.extend(ending(&bytes));
        // What was said of a stream before it was opened is no answer.
        for (_, _, stream) in heads(&bytes).filter(|(kind, ..)| *kind == HEADERS) {
            self.begun.remove(&stream);
            self.ended.remove(&stream);
        }
        let is_single = heads(&bytes).count() == 1;
        let before = (self.seen.streams.clone(), self.data.clone(), self.seen.settings);
        let goal = self.seen.settings + 1 + own_settings(&bytes);
        if until == Await::Read {
            bytes.extend(&marker);
            self.write(&bytes);
        } else {
            self.write(&bytes);
            self.wait(at, |own| match until {
                Await::Ended(stream) => own.ended.contains(&stream),
                Await::Begun(stream) => own.begun.contains(&stream),
                Await::Read => true,
            });
            self.write(&marker);
        }
        self.wait(at, |own| own.seen.settings >= goal);
        if self.seen.closed_at.is_none() {
            return true;
        }
        if !is_single {
            // grpc-go's answers to the first frames are written beside the reading of the last one.
            (self.seen.streams, self.data, self.seen.settings) = before;
        }
        self.settle_all();
        false
    }

    fn write(&mut self, bytes: &[u8]) {
        // A server that has closed is met by reading: what it said before is there.
        let _ = self.socket.write_all(bytes);
    }

    fn wait(&mut self, at: usize, is_reached: impl Fn(&Self) -> bool) {
        while self.seen.closed_at.is_none() && !is_reached(self) {
            match self.next() {
                Ok(()) => {}
                Err(Silence::Closed) => self.seen.closed_at = Some(at),
                Err(Silence::TimedOut) => {
                    self.seen.unanswered.push(at);
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Result<(), Silence> {
        let (head, length) = loop {
            if let Some(head) = self.read.first_chunk::<9>().copied() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if self.read.len() >= 9 + length {
                    break (head, length);
                }
            }
            let mut piece = [0; 4_096];
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(Silence::Closed),
                Ok(n) => self.read.extend(&piece[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(Silence::TimedOut);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Silence::Closed),
            }
        };
        let [_, _, _, kind, flags, stream @ ..] = head;
        let payload: Vec<u8> = self.read.drain(..9 + length).skip(9).collect();
        self.take(kind, flags, u32::from_be_bytes(stream), &payload);
        Ok(())
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            DATA => self.data.entry(stream).or_default().extend(payload),
            HEADERS => {
                assert!(flags & END_HEADERS != 0, "answers have short heads");
                let mut fields = Vec::new();
                let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
                let decoded = self.decoder.decode(payload, |name, value| {
                    fields.push((text(name), text(value)));
                });
                decoded.expect("a server compresses soundly");
                fields.sort();
                self.push(stream, Event::Headers(fields, flags & END_STREAM != 0));
            }
            // Whether it is sent depends on whether the answer or the request ended first.
            RST_STREAM
                if payload == [0; 4]
                    && self.ended.contains(&stream)
                    && self.ending.contains(&stream) => {}
            RST_STREAM => self.push(stream, Event::Reset(number(payload, 0))),
            SETTINGS if flags & ACK != 0 => self.seen.settings += 1,
            PING if flags & ACK != 0 => self.seen.pings.push(payload.to_vec()),
            GOAWAY => {
                self.seen.goaways.push((number(payload, 0), number(payload, 4)));
                // grpc-go reads no more, and gives us up to a second to close.
                let _ = self.socket.shutdown(Shutdown::Write);
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS | RST_STREAM) {
            self.begun.insert(stream);
        }
        let is_last = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if is_last || kind == RST_STREAM {
            self.ended.insert(stream);
        }
    }

    fn push(&mut self, stream: u32, event: Event) {
        self.settle(stream);
        self.seen.streams.entry(stream).or_default().push(event);
    }

    fn settle(&mut self, stream: u32) {
        if let Some(data) = self.data.remove(&stream) {
            self.seen.streams.entry(stream).or_default().push(Event::Data(in_words(&data)));
        }
    }

    fn settle_all(&mut self) {
        for stream in self.data.keys().copied().collect::<Vec<_>>() {
            self.settle(stream);
        }
    }
}

fn number(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
    u32::from_be_bytes(*bytes.expect("a server's frames have their lengths"))
}

/// The kind, flags and stream of each frame.
fn heads(bytes: &[u8]) -> impl Iterator<Item = (u8, u8, u32)> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    std::iter::from_fn(move || {
        let [a, b, c, kind, flags, stream @ ..] = *rest.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
        Some((kind, flags, u32::from_be_bytes(stream) & !(1 << 31)))
    })
}

/// How many SETTINGS there are among frames, that are acknowledged if they are in order.
fn own_settings(bytes: &[u8]) -> usize {
    heads(bytes).filter(|(kind, flags, _)| *kind == SETTINGS && flags & ACK == 0).count()
}

/// The streams whose requests end among frames.
fn ending(bytes: &[u8]) -> BTreeSet<u32> {
    let ends = |kind, flags| matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
    heads(bytes).filter(|(kind, flags, _)| ends(*kind, *flags)).map(|(.., stream)| stream).collect()
}

/// An answer without what differs between two clusters. A put's answer without the previous pair
/// is a range's without pairs.
fn in_words(data: &[u8]) -> String {
    let whole = data
        .split_at_checked(5)
        .filter(|(head, message)| head[0] == 0 && number(head, 1) as usize == message.len());
    let Some((_, message)) = whole else { return format!("{} bytes", data.len()) };
    match RangeResponse::decode(message) {
        Ok(mut answer) => {
            let has_header = answer.header.take().is_some();
            format!("header {has_header}, {answer:?}")
        }
        Err(e) => format!("no answer: {e}"),
    }
}
