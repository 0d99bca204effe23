//! The header blocks of requests, byte for byte as grpc-go and its HPACK encoder write them.
//!
//! A call's fields are the same each time but for `grpc-timeout`, which is inserted into the
//! dynamic table with every call. So the table rolls: about each seventieth call finds that the
//! other fields fell out and inserts them again, and no two blocks are equal. A server that is
//! measured with blocks that repeat looks faster than it is with real clients.

use std::collections::VecDeque;

use super::huffman;

/// Bytes of the dynamic table, unless the server wants less.
//= RFC 9113, 6.5.2: SETTINGS_HEADER_TABLE_SIZE
pub const TABLE_BYTES: usize = 4_096;
/// Bytes that an entry is charged besides its text.
//= RFC 7541, 4.1
const ENTRY_OVERHEAD_BYTES: usize = 32;
/// Index of the newest entry of the dynamic table.
const NEWEST: u64 = 62;
/// `:method: POST` of the static table.
const POST: u8 = 0x83;
/// `:scheme: http` and `:scheme: https` of the static table.
const HTTP: u8 = 0x86;
const HTTPS: u8 = 0x87;

/// The deadline that calls set, in microseconds; `grpc-timeout` is what is left of it.
pub const TIMEOUT_US: u64 = 5_000_000;
/// Different values of `grpc-timeout`, a prime: none comes back while it is in the table.
const TIMEOUTS: u64 = 9_973;
const TIMEOUT_STEP: u64 = 3_701;
const TIMEOUT_NAME: &[u8] = b"grpc-timeout";
/// Fields that stand before it.
const BEFORE_TIMEOUT: usize = 5;

/// The user agent that is claimed.
const USER_AGENT: &str = "grpc-go/1.82.1";

/// A field that is the same in every call of a connection.
#[derive(Debug)]
struct Field {
    /// Its name's index in the static table, 0 if it is not there.
    name: u64,
    /// What stands behind the first byte of its literal: the name if it is not in the static
    /// table, and the value.
    text: Vec<u8>,
    size: usize,
    /// The insertion, by its number, that it lives from.
    inserted: Option<u64>,
}

/// What the dynamic table holds.
#[derive(Clone, Copy, Debug)]
enum Entry {
    /// A field by its place.
    Field(usize),
    Timeout,
}

/// Writes the header blocks of one connection.
#[derive(Debug)]
pub struct Encoder {
    fields: Vec<Field>,
    /// The second byte of each block.
    scheme: u8,
    deadlines: Deadlines,
    /// Entries with their sizes, the oldest first.
    table: VecDeque<(Entry, usize)>,
    size: usize,
    max_size: usize,
    /// A new size that the next block announces.
    announced: Option<usize>,
    /// Insertions so far.
    inserted: u64,
    /// The last insertion of a timeout.
    timeout: Option<u64>,
}

/// What calls carry of whoever makes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Whether the connection is within TLS.
    pub is_secure: bool,
    /// A user's token.
    pub token: Option<String>,
}

/// Whether calls have deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlines {
    /// None has, as is usual for streams.
    None,
    /// Each has one, and what is left of it differs from call to call. The number is the first
    /// call's place in the sequence of values, so that connections differ.
    Each(u64),
}

/// Appends an integer whose prefix of so many bits stands in a byte with other bits.
//= RFC 7541, 5.1
fn integer(out: &mut Vec<u8>, first: u8, bits: u32, value: u64) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string, in the Huffman code if that is shorter.
//= x/net: http2/hpack/encode.go#appendHpackString
fn string(out: &mut Vec<u8>, text: &[u8]) {
    let length = huffman::encoded_len(text);
    if length < text.len() {
        integer(out, 0x80, 7, length as u64);
        huffman::encode(text, out);
    } else {
        integer(out, 0, 7, text.len() as u64);
        out.extend_from_slice(text);
    }
}

fn size_of(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + ENTRY_OVERHEAD_BYTES
}

impl Field {
    fn new(name: &str, value: &str) -> Self {
        let known = match name {
            ":authority" => 1,
            // The last of two, as x/net finds it.
            ":path" => 5,
            "content-type" => 31,
            "user-agent" => 58,
            _ => 0,
        };
        let mut text = Vec::new();
        if known == 0 {
            string(&mut text, name.as_bytes());
        }
        string(&mut text, value.as_bytes());
        let size = size_of(name.as_bytes(), value.as_bytes());
        Self { name: known, text, size, inserted: None }
    }
}

/// Calls with the same number have the same timeout; the numbers of 9,973 calls in a row differ.
fn timeout(number: u64) -> [u8; 8] {
    let elapsed = 1 + number % TIMEOUTS * TIMEOUT_STEP % TIMEOUTS;
    let mut left = TIMEOUT_US - elapsed;
    let mut text = *b"0000000u";
    for digit in text[..7].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    text
}

impl Encoder {
    /// For calls of a method (`/service/Name`).
    //= grpc-go 1.82: internal/transport/http2_client.go#createHeaderFields
    //= etcd 3.7.3: client/v3/ctx.go#withVersion
    #[must_use]
    pub fn new(authority: &str, path: &str, deadlines: Deadlines, caller: &Caller) -> Self {
        let mut fields = vec![
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("user-agent", USER_AGENT),
            ("te", "trailers"),
        ];
        // Credentials of a call come before what its context carries.
        fields.extend(caller.token.as_deref().map(|token| ("token", token)));
        fields.push(("client-api-version", "3.7"));
        Self {
            scheme: if caller.is_secure { HTTPS } else { HTTP },
            fields: fields.iter().map(|(name, value)| Field::new(name, value)).collect(),
            deadlines,
            table: VecDeque::new(),
            size: 0,
            max_size: TABLE_BYTES,
            announced: None,
            inserted: 0,
            timeout: None,
        }
    }

    /// Takes note of the size that the server allows the dynamic table.
    pub fn set_table_size(&mut self, allowed: usize) {
        let size = allowed.min(TABLE_BYTES);
        if size != self.max_size {
            self.max_size = size;
            self.announced = Some(size);
            self.make_room(0);
        }
    }

    /// Appends the header block of a call.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        if let Some(size) = self.announced.take() {
            integer(out, 0x20, 5, size as u64);
        }
        out.extend_from_slice(&[POST, self.scheme]);
        for place in 0..BEFORE_TIMEOUT {
            self.write_field(place, out);
        }
        if let Deadlines::Each(number) = self.deadlines {
            self.write_timeout(number, out);
            self.deadlines = Deadlines::Each(number.wrapping_add(1));
        }
        for place in BEFORE_TIMEOUT..self.fields.len() {
            self.write_field(place, out);
        }
    }

    fn write_field(&mut self, place: usize, out: &mut Vec<u8>) {
        let field = &self.fields[place];
        if let Some(number) = field.inserted {
            integer(out, 0x80, 7, self.index(number));
            return;
        }
        let (name, size) = (field.name, field.size);
        let inserted = self.write_name(name, size, out);
        out.extend_from_slice(&self.fields[place].text);
        if inserted {
            self.fields[place].inserted = Some(self.insert(Entry::Field(place), size));
        }
    }

    fn write_timeout(&mut self, number: u64, out: &mut Vec<u8>) {
        let value = timeout(number);
        let size = size_of(TIMEOUT_NAME, &value);
        let name = self.timeout.map_or(0, |number| self.index(number));
        let inserted = self.write_name(name, size, out);
        if name == 0 {
            string(out, TIMEOUT_NAME);
        }
        string(out, &value);
        if inserted {
            self.timeout = Some(self.insert(Entry::Timeout, size));
        }
    }

    /// The first byte of a literal, and whether it is to be inserted.
    //= x/net: http2/hpack/encode.go#shouldIndex
    fn write_name(&self, name: u64, size: usize, out: &mut Vec<u8>) -> bool {
        let inserted = size <= self.max_size;
        let (first, bits) = if inserted { (0x40, 6) } else { (0, 4) };
        integer(out, first, bits, name);
        inserted
    }

    fn index(&self, number: u64) -> u64 {
        NEWEST + self.inserted - number
    }

    /// Inserts an entry and gives its number.
    fn insert(&mut self, entry: Entry, size: usize) -> u64 {
        self.make_room(size);
        self.table.push_back((entry, size));
        self.size += size;
        self.inserted += 1;
        self.inserted
    }

    fn make_room(&mut self, room: usize) {
        while self.size + room > self.max_size
            && let Some((entry, size)) = self.table.pop_front()
        {
            self.size -= size;
            let oldest = self.inserted - self.table.len() as u64;
            match entry {
                Entry::Field(place) => self.fields[place].inserted = None,
                // The last one only if no later one is left.
                Entry::Timeout => self.timeout = self.timeout.filter(|number| *number > oldest),
            }
        }
    }
}
