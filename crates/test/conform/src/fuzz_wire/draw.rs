//! Drawing a sequence from a seed.

use api::etcdserverpb::{PutRequest, RangeRequest};
use env::{Entropy, SplitMix};
use prost::Message;

use super::{
    ACK, Await, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, PADDED,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, READ_KEY, RST_STREAM, SETTINGS, Sequence, Step,
    WINDOW_UPDATE, WRITTEN_KEY, field, frame,
};

/// The most steps behind the first SETTINGS.
const STEPS: u64 = 12;
/// PINGs of a sequence: etcd sends away who pings a third time too early, and when it counts anew
/// depends on when its answers leave. The mark at the end is one more.
const PINGS: u32 = 2;
/// The initial window below which an answer may not fit.
const WHOLE_ANSWER: u32 = 1_000;
const RANGE: &str = "/etcdserverpb.KV/Range";
const BIG: u32 = (1 << 31) - 1;

/// The sequence of a seed.
#[must_use]
pub fn draw(seed: u64) -> Sequence {
    let entropy = SplitMix::new(seed);
    let mut drawing = Drawing {
        entropy,
        next: 1,
        open: Vec::new(),
        pings: 0,
        has_room: true,
        is_routed: true,
        steps: Vec::new(),
    };
    let mut preface = PREFACE.to_vec();
    if drawing.chance(1) {
        let at = drawing.below(24) as usize;
        preface[at] ^= 1 << drawing.below(7);
    }
    if !drawing.chance(2) {
        drawing.settings();
    }
    for _ in 0..=drawing.below(STEPS) {
        drawing.step();
    }
    Sequence { preface, steps: drawing.steps }
}

struct Drawing {
    entropy: SplitMix,
    /// The number of the next stream.
    next: u32,
    /// Streams whose request goes on.
    open: Vec<u32>,
    pings: u32,
    /// Whether answers fit the windows of streams.
    has_room: bool,
    /// Whether the last block's path is a method's. What has no method is answered without a body,
    /// by a handler.
    is_routed: bool,
    steps: Vec<Step>,
}

impl Drawing {
    fn below(&mut self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    /// True so many times out of a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn read(&mut self, name: &'static str, bytes: Vec<u8>) {
        self.steps.push(Step { name, bytes, until: Await::Read });
    }

    fn answered(&mut self, name: &'static str, stream: u32, bytes: Vec<u8>) {
        let until = if self.has_room { Await::Ended(stream) } else { Await::Begun(stream) };
        self.steps.push(Step { name, bytes, until });
    }

    /// A head of which nothing is expected, unless it has no method.
    fn headed(&mut self, name: &'static str, stream: u32, bytes: Vec<u8>) {
        if self.is_routed {
            return self.read(name, bytes);
        }
        self.answered(name, stream, bytes);
    }

    fn step(&mut self) {
        match self.below(100) {
            0..=33 => self.call(),
            34..=43 => self.begin(),
            44..=53 => self.go_on(),
            54..=58 => self.reset(),
            59..=68 => self.window_update(),
            69..=75 => self.settings(),
            76..=78 => self.ping(),
            79..=82 => self.priority(),
            83..=85 => self.goaway(),
            86..=87 => self.push_promise(),
            88..=91 => self.unknown(),
            92..=95 => self.stray_data(),
            96 => self.odd_number(),
            97 => self.broken_continuation(),
            _ => self.wrong_length(),
        }
    }

    fn new_stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += self.one_of(&[2, 2, 2, 2, 4, 20]);
        stream
    }

    /// A number that was used, or may be used later.
    fn any_stream(&mut self) -> u32 {
        match self.below(10) {
            0 => 0,
            1 => 2 * self.below(20) as u32,
            2 => BIG,
            3 => self.next + 2 * self.below(5) as u32,
            _ => 1 + 2 * self.below(u64::from(self.next / 2).max(1)) as u32,
        }
    }

    /// Sometimes the reserved bit, which means nothing.
    fn with_reserved(&mut self, stream: u32) -> u32 {
        if self.chance(5) { stream | 1 << 31 } else { stream }
    }

    fn message(&mut self) -> (&'static str, Vec<u8>) {
        if self.chance(25) {
            let value = vec![b'v'; self.one_of(&[0, 1, 90, 5_000])].into();
            let put = PutRequest { key: WRITTEN_KEY.into(), value, ..Default::default() };
            return ("/etcdserverpb.KV/Put", put.encode_to_vec());
        }
        (RANGE, range())
    }

    /// A message in its envelope; seldom one with an odd head, or none.
    fn body(&mut self, message: &[u8]) -> Vec<u8> {
        let length = message.len() as u32;
        let (flag, length) = match self.below(40) {
            0 => (1, length),
            1 => (2, length),
            2 => (0, length + 1),
            3 => (0, u32::MAX),
            4 => (0, 3 << 20),
            5 => (0, length.saturating_sub(1)),
            _ => (0, length),
        };
        let mut body = vec![flag];
        body.extend(length.to_be_bytes());
        body.extend(message);
        match self.below(60) {
            0 => body.clear(),
            1 => body.extend(body.clone()),
            2 => body.truncate(3),
            _ => {}
        }
        body
    }

    /// A block of fields, mostly of a sound call.
    fn block(&mut self, path: &str) -> Vec<u8> {
        let mut fields: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.as_bytes()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ];
        self.is_routed = true;
        if self.chance(25) {
            self.make_odd(&mut fields);
        }
        let mut block = Vec::new();
        if self.chance(4) {
            block.extend(self.one_of(&[
                &b"\x20"[..],
                b"\x3f\xe1\x1f",
                b"\x3f\xe2\x1f",
                b"\x3f\x21",
            ]));
        }
        for (name, value) in fields {
            let kind = self.one_of(&[0, 0, 0x10, 0x40]);
            block.extend(field(kind, name, value));
        }
        match self.below(60) {
            0 => block.push(0xbe),
            1 => block.push(0x80),
            2 => block.extend(b"\xff\0"),
            3 => block.truncate(block.len() - 1),
            4 => block.extend(b"\0\x01a\x84\xff\xff\xff\xff"),
            5 => block.extend(b"\0\x01a\x82\x07\xff"),
            6 => block.extend(b"\x20"),
            7 => block.extend(field(0, b"x-long", &[b'l'; 126]).repeat(20)),
            _ => {}
        }
        block
    }

    fn make_odd(&mut self, fields: &mut Vec<(&[u8], &[u8])>) {
        const VALUES: &[(usize, &[u8])] = &[
            (0, b"GET"),
            (0, b"post"),
            (1, b"what:ever"),
            (2, b"/"),
            (2, b"foo"),
            (2, b"/etcdserverpb.KV/Nope"),
            (2, b"/nope/Range"),
            (3, b"user@h:notaport /"),
            (4, b"application/json"),
            (4, b"application/grpc+proto"),
            (4, b"application/grpcx"),
            (5, b"gzip"),
        ];
        const MORE: &[(&[u8], &[u8])] = &[
            (b":path", b"/"),
            (b":authority", b"other"),
            (b":status", b"200"),
            (b":protocol", b"x"),
            (b":x", b""),
            (b"host", b"h"),
            (b"Te", b"a"),
            (b"", b"a"),
            (b"a b", b"c"),
            (b"a", b"b\nc"),
            (b"a", b"b\0c"),
            (b"a", b"b\x7fc"),
            (b"a", b"b\tc"),
            (b"connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"content-length", b"1"),
            (b"content-type", b"application/grpc"),
            (b"grpc-encoding", b"snappy"),
            (b"grpc-encoding", b"identity"),
            (b"grpc-timeout", b"soon"),
            (b"grpc-timeout", b"99H"),
            (b"x-bin", b"***"),
            (b"x-bin", b"YWJj"),
            (b"grpc-accept-encoding", b"gzip"),
        ];
        match self.below(10) {
            0 => {
                let at = self.below(fields.len() as u64) as usize;
                self.is_routed = fields[at].0 != b":path";
                fields.remove(at);
            }
            1 => fields.push(fields[self.below(fields.len() as u64) as usize]),
            2 => {
                let with = self.below(fields.len() as u64) as usize;
                fields.swap(0, with);
            }
            3..=5 => {
                let (at, value) = self.one_of(VALUES);
                self.is_routed = fields[at].0 != b":path";
                fields[at].1 = value;
            }
            _ => {
                let at = self.one_of(&[0, fields.len(), fields.len()]);
                let more = self.one_of(MORE);
                // What cannot be decompressed is refused by a handler, too.
                self.is_routed = more.1 != b"snappy";
                fields.insert(at, more);
            }
        }
    }

    /// HEADERS with all that they may have besides the block, and CONTINUATION.
    fn headers(&mut self, stream: u32, block: &[u8], end: u8) -> Vec<u8> {
        let (mut flags, mut before, mut padding) = (end, Vec::new(), 0);
        if self.chance(12) {
            padding = self.one_of(&[0, 1, 50]);
            flags |= PADDED;
            // Seldom more than there is.
            before.push(if self.chance(5) { 255 } else { padding });
        }
        if self.chance(12) {
            flags |= HAS_PRIORITY;
            let on = self.one_of(&[0, stream, 7]);
            before.extend(on.to_be_bytes());
            before.push(15);
        }
        let cuts = if self.chance(15) { 1 + self.below(3) } else { 0 };
        let mut cut: Vec<usize> =
            (0..cuts).map(|_| self.below(block.len() as u64 + 1) as usize).collect();
        cut.sort_unstable();
        cut.push(block.len());
        let (stream, last) = (self.with_reserved(stream), cut.len() - 1);
        let (mut out, mut from) = (Vec::new(), 0);
        for (number, to) in cut.into_iter().enumerate() {
            let ends = if number == last { END_HEADERS } else { 0 };
            let piece = &block[from..to];
            if number == 0 {
                let payload = [&before[..], piece, &vec![0; usize::from(padding)]].concat();
                out.extend(frame(HEADERS, flags | ends, stream, &payload));
            } else {
                out.extend(frame(CONTINUATION, ends, stream, piece));
            }
            from = to;
        }
        out
    }

    /// A body in one DATA frame or more, some of them padded or empty.
    fn data(&mut self, stream: u32, body: &[u8], end: u8) -> Vec<u8> {
        let cut = if self.chance(25) { self.below(body.len() as u64 + 1) as usize } else { 0 };
        let (first, second) = body.split_at(cut);
        let mut out = Vec::new();
        if cut > 0 || self.chance(5) {
            out.extend(self.piece(stream, first, 0));
        }
        out.extend(self.piece(stream, second, end));
        out
    }

    fn piece(&mut self, stream: u32, bytes: &[u8], end: u8) -> Vec<u8> {
        let stream = self.with_reserved(stream);
        if self.chance(10) {
            let padding = self.one_of(&[0_u8, 1, 100]);
            let told = if self.chance(4) { 255 } else { padding };
            let padded = [&[told], bytes, &vec![0; usize::from(padding)]].concat();
            return frame(DATA, end | PADDED, stream, &padded);
        }
        frame(DATA, end, stream, bytes)
    }

    /// A whole call in one write.
    fn call(&mut self) {
        let stream = self.new_stream();
        let (path, message) = self.message();
        let block = self.block(path);
        if self.chance(4) {
            let bytes = self.headers(stream, &block, END_STREAM);
            // Nothing comes, unless the head is refused.
            return self.headed("a call without a body", stream, bytes);
        }
        let mut bytes = self.headers(stream, &block, 0);
        let body = self.body(&message);
        bytes.extend(self.data(stream, &body, END_STREAM));
        self.answered("a call", stream, bytes);
    }

    fn begin(&mut self) {
        let stream = self.new_stream();
        let block = self.block(RANGE);
        let bytes = self.headers(stream, &block, 0);
        self.open.push(stream);
        self.headed("a call begins", stream, bytes);
    }

    fn go_on(&mut self) {
        let Some(stream) = self.open.pop() else { return self.begin() };
        let body = self.body(&range());
        let bytes = self.data(stream, &body, END_STREAM);
        self.answered("a call ends", stream, bytes);
    }

    fn reset(&mut self) {
        let open = self.open.last().copied().filter(|_| self.chance(70));
        let stream = open.unwrap_or_else(|| self.any_stream());
        let code = self.one_of(&[0, 1, 5, 8, 99, u32::MAX]);
        self.open.retain(|open| *open != stream);
        self.read("a reset", frame(RST_STREAM, 0, stream, &code.to_be_bytes()));
    }

    fn window_update(&mut self) {
        let stream = if self.chance(30) { 0 } else { self.any_stream() };
        let by = self.one_of(&[1, 1_000, 65_535, BIG, BIG + 1_001, 1_000, 1_000, 0]);
        let stream = self.with_reserved(stream);
        self.read("a window", frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes()));
    }

    fn settings(&mut self) {
        let mut payload = Vec::new();
        for _ in 0..self.below(4) {
            let id = self.below(9) as u16;
            let mut value =
                self.one_of(&[0, 1, 2, 100, 4_096, 16_384, 65_535, 100_000, BIG, u32::MAX]);
            if id == 4 && self.chance(70) {
                value = self.one_of(&[65_535, 100_000]);
            }
            self.has_room &= id != 4 || value >= WHOLE_ANSWER;
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        self.read("settings", frame(SETTINGS, 0, 0, &payload));
    }

    fn ping(&mut self) {
        let flags = self.one_of(&[0, 0, ACK, 0xfe]);
        if flags & ACK == 0 {
            self.pings += 1;
        }
        if self.pings <= PINGS {
            self.read("a ping", frame(PING, flags, 0, b"pingpong"));
        }
    }

    fn priority(&mut self) {
        let stream = self.any_stream();
        let on = self.one_of(&[0, 3, stream]);
        let payload = [&on.to_be_bytes()[..], &[9]].concat();
        self.read("a priority", frame(PRIORITY, 0, stream, &payload));
    }

    fn goaway(&mut self) {
        let code = self.one_of(&[0, 2, 11, 77]);
        let payload = [&self.next.to_be_bytes()[..], &u32::to_be_bytes(code), b"bye"].concat();
        let stream = self.one_of(&[0, 0, 0, 0, 0, 1]);
        self.read("a goaway", frame(GOAWAY, 0, stream, &payload));
    }

    fn push_promise(&mut self) {
        let stream = self.any_stream();
        let flags = self.one_of(&[END_HEADERS, END_HEADERS, END_HEADERS | PADDED]);
        self.read("a promise", frame(PUSH_PROMISE, flags, stream, b"\0\0\0\x02\x83"));
    }

    fn unknown(&mut self) {
        let stream = self.any_stream();
        let (kind, flags) = (10 + self.below(246) as u8, self.below(256) as u8);
        let length = self.one_of(&[0, 4, 100, 16_384]);
        // PRIORITY_UPDATE is known to Go, which wants four bytes of it.
        self.read("a frame of an unknown kind", frame(kind, flags, stream, &vec![1; length]));
    }

    fn stray_data(&mut self) {
        let stream = loop {
            let stream = self.any_stream();
            if !self.open.contains(&stream) {
                break stream;
            }
        };
        // grpc-go stalls on a second end while an answer waits for its window.
        let flags = if self.has_room { self.one_of(&[0, END_STREAM]) } else { 0 };
        self.read("data that nobody waits for", frame(DATA, flags, stream, b"\0\0\0\0\0"));
    }

    fn odd_number(&mut self) {
        let stream = loop {
            let stream = self.any_stream();
            if stream < self.next {
                break stream;
            }
        };
        let block = self.block(RANGE);
        let end = self.one_of(&[0, END_STREAM]);
        let bytes = self.headers(stream, &block, end);
        // Numbers that were passed over may be free yet.
        if end == 0 && !self.open.contains(&stream) {
            self.open.push(stream);
        }
        self.headed("headers of a number that was used", stream, bytes);
    }

    fn broken_continuation(&mut self) {
        let stream = self.new_stream();
        let block = self.block(RANGE);
        let (first, second) = block.split_at(block.len() / 2);
        let mut bytes = frame(HEADERS, 0, stream, first);
        bytes.extend(match self.below(5) {
            0 => frame(CONTINUATION, END_HEADERS, stream + 2, second),
            1 => frame(DATA, 0, stream, second),
            2 => frame(99, 0, stream, second),
            3 => frame(SETTINGS, 0, 0, &[]),
            _ => frame(HEADERS, END_HEADERS, stream, second),
        });
        self.read("a block that does not go on", bytes);
    }

    fn wrong_length(&mut self) {
        let kind = self.below(10) as u8;
        let stream = if matches!(kind, SETTINGS | PING | GOAWAY) { 0 } else { self.any_stream() };
        let length = self.one_of(&[0, 1, 3, 4, 5, 7, 9, 16_385]);
        let bytes = frame(kind, 0, stream, &vec![0; length]);
        // A block that goes on would swallow what comes; five bytes of DATA are a message.
        if matches!(kind, DATA | HEADERS | PUSH_PROMISE) {
            return self.broken_continuation();
        }
        if kind == RST_STREAM {
            self.open.retain(|open| *open != stream);
        }
        self.read("a frame of a wrong length", bytes);
    }
}

/// A read that waits for nobody.
fn range() -> Vec<u8> {
    let range = RangeRequest { key: READ_KEY.into(), serializable: true, ..Default::default() };
    range.encode_to_vec()
}
