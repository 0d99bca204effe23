//! Compressed messages, refused as grpc-go refuses them.
//!
//! What any encoder sends is inflated by flate2. What that refuses, or could be read in another
//! way, goes through the decoder below: it takes bits in the order in which Go's takes them, so
//! that it knows how many bytes were read when something turned out to be wrong, which Go says.
//!
//! Invariants: never more than the limit, one byte and a window are kept; any bytes end in an
//! answer.
//= go 1.26: compress/gzip/gunzip.go, compress/flate/inflate.go
//= grpc-go 1.82: rpc_util.go#decompress

use std::io::Read;
use std::sync::LazyLock;

use api::error::{Code, Status};
use bytes::Bytes;

/// What Go's decoder keeps to copy from, and hands on whenever it is full.
const WINDOW: usize = 1 << 15;
/// The longest name or comment in a header, without its end.
const MAX_NAME: usize = 511;
/// The end of a block among literals and lengths.
const END: usize = 256;
/// Literals, the end, and lengths that have a meaning.
const LENGTHS: usize = 286;
/// Distances that have a meaning.
const DISTANCES: usize = 30;
/// The order in which lengths of codes for lengths come (RFC 1951, 3.2.7).
const CODE_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The message in a gzip file of any number of members, of at most `limit` bytes.
///
/// # Errors
/// grpc-go's: the client's bytes are damaged, or too many.
pub fn gunzip(bytes: &[u8], limit: usize) -> Result<Bytes, Status> {
    usual(bytes, limit).unwrap_or_else(|| carefully(bytes, limit))
}

/// Any file, as Go reads it.
fn carefully(bytes: &[u8], limit: usize) -> Result<Bytes, Status> {
    let mut input = Input { bytes, at: 0 };
    // Go reads the first header when it opens the file, and the rest later, with another text.
    input.header().map_err(|damage| refusal("decompress the message", damage))?;
    let mut out = Vec::new();
    match members(&mut input, &mut out, limit) {
        // One byte beyond the limit is asked for, and a damage may come together with it.
        Err(Damage::Full) => Err(too_large(limit)),
        Err(_) if out.len() > limit + 1 => Err(too_large(limit)),
        Err(damage) => Err(refusal("read decompressed data", damage)),
        Ok(()) if out.len() > limit => Err(too_large(limit)),
        Ok(()) => Ok(out.into()),
    }
}

/// One member with a bare header that is whole, or far too large.
fn usual(bytes: &[u8], limit: usize) -> Option<Result<Bytes, Status>> {
    if bytes.get(3) != Some(&0) {
        return None;
    }
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    let mut out = Vec::new();
    let read = decoder.by_ref().take(limit as u64 + 2).read_to_end(&mut out);
    if out.len() > limit + 1 {
        return Some(Err(too_large(limit)));
    }
    let whole = read.is_ok() && out.len() <= limit && decoder.into_inner().is_empty();
    whole.then(|| Ok(out.into()))
}

fn too_large(limit: usize) -> Status {
    let text = format!("grpc: received message after decompression larger than max {limit}");
    Status::new(Code::ResourceExhausted, text)
}

fn refusal(failed_to: &str, damage: Damage) -> Status {
    let reason = match damage {
        Damage::Empty => "EOF".to_owned(),
        Damage::Cut | Damage::Full => "unexpected EOF".to_owned(),
        Damage::Header => "gzip: invalid header".to_owned(),
        Damage::Checksum => "gzip: invalid checksum".to_owned(),
        Damage::Corrupt(before) => format!("flate: corrupt input before offset {before}"),
    };
    Status::new(Code::Internal, format!("grpc: failed to {failed_to}: {reason}"))
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// There is no member.
    Empty,
    /// It ends within something.
    Cut,
    Header,
    Checksum,
    /// After so many bytes of the member's body it cannot go on.
    Corrupt(usize),
    /// Nothing, but more was read than may be.
    Full,
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// So many bytes, or all that there are and the damage.
    fn take(&mut self, count: usize) -> Result<&'a [u8], (&'a [u8], Damage)> {
        let rest = &self.bytes[self.at..];
        let taken = &rest[..count.min(rest.len())];
        self.at += taken.len();
        if taken.len() < count { Err((taken, Damage::Cut)) } else { Ok(taken) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let taken = self.take(N).map_err(|(_, damage)| damage)?;
        Ok(taken.try_into().expect("so many were asked for"))
    }

    /// The header of a member (RFC 1952, 2.3). Flags that have no meaning are passed over.
    fn header(&mut self) -> Result<(), Damage> {
        let start = self.at;
        if start == self.bytes.len() {
            return Err(Damage::Empty);
        }
        let [id1, id2, method, flags, ..] = self.array::<10>()?;
        if [id1, id2, method] != [0x1f, 0x8b, 8] {
            return Err(Damage::Header);
        }
        if flags & 4 != 0 {
            let length = u16::from_le_bytes(self.array()?);
            self.take(length.into()).map_err(|(_, damage)| damage)?;
        }
        for flag in [8, 16] {
            if flags & flag != 0 {
                let text = &self.bytes[self.at..];
                match text.iter().take(MAX_NAME + 1).position(|&byte| byte == 0) {
                    Some(end) => self.at += end + 1,
                    None if text.len() > MAX_NAME => return Err(Damage::Header),
                    None => return Err(Damage::Cut),
                }
            }
        }
        if flags & 2 != 0 {
            let sum = crc(&self.bytes[start..self.at]) as u16;
            if u16::from_le_bytes(self.array()?) != sum {
                return Err(Damage::Header);
            }
        }
        Ok(())
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What follows the first header: bodies and trailers, and headers between them.
fn members(input: &mut Input<'_>, out: &mut Vec<u8>, limit: usize) -> Result<(), Damage> {
    loop {
        let start = out.len();
        Body::new(input, out, limit).inflate()?;
        let (sum, length) = (input.array::<4>()?, input.array::<4>()?);
        let body = &out[start..];
        if u32::from_le_bytes(sum) != crc(body) || u32::from_le_bytes(length) != body.len() as u32 {
            return Err(Damage::Checksum);
        }
        match input.header() {
            Ok(()) if out.len() > limit => return Err(Damage::Full),
            Ok(()) => {}
            Err(Damage::Empty) => return Ok(()),
            Err(damage) => return Err(damage),
        }
    }
}

/// The body of a member (RFC 1951).
struct Body<'a, 'b> {
    input: &'a mut Input<'b>,
    /// Where it begins in the input.
    start: usize,
    out: &'a mut Vec<u8>,
    /// Where what it holds begins in the output.
    member: usize,
    limit: usize,
    /// Bits that were read and not used, the next one lowest, and how many.
    bits: u32,
    count: u32,
}

impl<'a, 'b> Body<'a, 'b> {
    fn new(input: &'a mut Input<'b>, out: &'a mut Vec<u8>, limit: usize) -> Self {
        Self { start: input.at, member: out.len(), limit, bits: 0, count: 0, input, out }
    }

    fn corrupt(&self) -> Damage {
        Damage::Corrupt(self.input.at - self.start)
    }

    /// Reads bytes until there are so many bits.
    fn need(&mut self, count: u32) -> Result<(), Damage> {
        while self.count < count {
            let [byte] = self.input.array()?;
            self.bits |= u32::from(byte) << self.count;
            self.count += 8;
        }
        Ok(())
    }

    /// Takes so many bits.
    fn take(&mut self, count: u32) -> Result<usize, Damage> {
        self.need(count)?;
        let taken = self.bits & ((1 << count) - 1);
        self.bits >>= count;
        self.count -= count;
        Ok(taken as usize)
    }

    /// A code, bit by bit.
    fn symbol(&mut self, codes: &Codes) -> Result<usize, Damage> {
        self.need(codes.at_once)?;
        let (mut code, mut first, mut index) = (0, 0, 0);
        for length in 1..=codes.longest {
            self.need(length)?;
            code |= (self.bits >> (length - 1)) as usize & 1;
            let count = codes.counts[length as usize];
            if code < first + count {
                self.take(length)?;
                return Ok(codes.symbols[index + code - first]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(self.corrupt())
    }

    /// Go's decoder hands on what it has: if that is enough, nobody asks it for more.
    fn hand_on(&self) -> Result<(), Damage> {
        if self.out.len() > self.limit { Err(Damage::Full) } else { Ok(()) }
    }

    fn push(&mut self, byte: u8) -> Result<(), Damage> {
        self.out.push(byte);
        if (self.out.len() - self.member).is_multiple_of(WINDOW) { self.hand_on() } else { Ok(()) }
    }

    fn inflate(mut self) -> Result<(), Damage> {
        loop {
            // Read together, as Go reads them.
            self.need(3)?;
            let last = self.take(1)? == 1;
            match self.take(2)? {
                0 => self.stored(last)?,
                1 => {
                    let (literals, distances) = &*FIXED;
                    self.block(literals, distances)?;
                }
                2 => {
                    let (literals, distances) = self.codes()?;
                    self.block(&literals, &distances)?;
                }
                _ => return Err(self.corrupt()),
            }
            if last {
                return Ok(());
            }
        }
    }

    fn stored(&mut self, last: bool) -> Result<(), Damage> {
        (self.bits, self.count) = (0, 0);
        let [a, b, c, d] = self.input.array()?;
        let length = u16::from_le_bytes([a, b]);
        if length != !u16::from_le_bytes([c, d]) {
            return Err(self.corrupt());
        }
        if length == 0 && !last {
            return self.hand_on();
        }
        let (bytes, end) = match self.input.take(length.into()) {
            Ok(bytes) => (bytes, Ok(())),
            Err((bytes, damage)) => (bytes, Err(damage)),
        };
        for &byte in bytes {
            self.push(byte)?;
        }
        end
    }

    /// The codes of a block that brings its own.
    fn codes(&mut self) -> Result<(Codes, Codes), Damage> {
        self.need(14)?;
        let (literals, distances) = (self.take(5)? + 257, self.take(5)? + 1);
        if literals > LENGTHS || distances > DISTANCES {
            return Err(self.corrupt());
        }
        let mut of_lengths = [0; 19];
        for &place in &CODE_ORDER[..self.take(4)? + 4] {
            of_lengths[place] = self.take(3)? as u8;
        }
        let of_lengths = Codes::new(&of_lengths).ok_or_else(|| self.corrupt())?;
        let total = literals + distances;
        let mut lengths = Vec::with_capacity(total);
        while lengths.len() < total {
            let (again, least, bits) = match self.symbol(&of_lengths)? {
                16 => (*lengths.last().ok_or_else(|| self.corrupt())?, 3, 2),
                17 => (0, 3, 3),
                18 => (0, 11, 7),
                length => (length as u8, 1, 0),
            };
            let times = least + self.take(bits)?;
            if lengths.len() + times > total {
                return Err(self.corrupt());
            }
            lengths.resize(lengths.len() + times, again);
        }
        let (for_literals, for_distances) = lengths.split_at(literals);
        let codes = Codes::new(for_literals).zip(Codes::new(for_distances));
        let (mut literals, distances) = codes.ok_or_else(|| self.corrupt())?;
        // Whatever comes, the end's code comes as well.
        literals.at_once = literals.at_once.max(for_literals[END].into());
        Ok((literals, distances))
    }

    fn block(&mut self, literals: &Codes, distances: &Codes) -> Result<(), Damage> {
        loop {
            let length = match self.symbol(literals)? {
                END => return Ok(()),
                LENGTHS.. => return Err(self.corrupt()),
                285 => 258,
                literal @ ..END => {
                    self.push(literal as u8)?;
                    continue;
                }
                code => self.spread(code - 257, 2)? + 3,
            };
            // A fixed distance is read as five bits, a code of the block's own as what it is.
            let distance = match self.symbol(distances)? {
                DISTANCES.. => return Err(self.corrupt()),
                code => self.spread(code, 1)? + 1,
            };
            if distance > (self.out.len() - self.member).min(WINDOW) {
                return Err(self.corrupt());
            }
            for _ in 0..length {
                self.push(self.out[self.out.len() - distance])?;
            }
        }
    }

    /// A number whose code says its highest bits, and how many more follow: the first codes
    /// stand for themselves, then each `2^steps` of them cover twice as much.
    fn spread(&mut self, code: usize, steps: u32) -> Result<usize, Damage> {
        let extra = ((code >> steps) as u32).saturating_sub(1);
        if extra == 0 {
            return Ok(code);
        }
        let high = (1 << steps) | (code & ((1 << steps) - 1));
        Ok((high << extra) | self.take(extra)?)
    }
}

/// The codes of blocks that bring none, literals and distances (RFC 1951, 3.2.6). Made once: a
/// file may have a block of them for every ten bits.
static FIXED: LazyLock<(Codes, Codes)> = LazyLock::new(|| {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Codes::new(&lengths).zip(Codes::new(&[5; 32])).expect("complete codes")
});

/// A canonical Huffman code.
struct Codes {
    /// How many codes have each length.
    counts: [usize; 16],
    /// The symbols in the order of their codes.
    symbols: Vec<usize>,
    longest: u32,
    /// How many bits are read before the first one is looked at.
    at_once: u32,
}

impl Codes {
    /// The code with these lengths, if it is complete, has no symbol, or one of length 1.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&length| counts[usize::from(length)] += 1);
        counts[0] = 0;
        let (mut places, mut total, mut room) = ([0; 16], 0, 0);
        for length in 1..16 {
            places[length] = total;
            total += counts[length];
            room += counts[length] << (15 - length);
        }
        let mut symbols = vec![0; total];
        for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let place = &mut places[usize::from(length)];
            symbols[*place] = symbol;
            *place += 1;
        }
        let used = || (1..16).filter(|&length| counts[length] > 0);
        let at_once = used().next().unwrap_or(0) as u32;
        let longest = used().next_back().unwrap_or(0) as u32;
        let complete = room == 1 << 15 || symbols.is_empty() || room == 1 << 14 && longest == 1;
        complete.then_some(Self { counts, symbols, longest, at_once })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use env::{Entropy, SplitMix};

    use super::*;

    fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder =
            flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Texts with repetitions near and far, of many lengths.
    fn text(entropy: &mut SplitMix, length: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < length {
            let back = entropy.below(out.len() as u64 + 1) as usize;
            for n in 0..1 + entropy.below(300) as usize {
                let copied = out.get(out.len().wrapping_sub(back)).copied();
                let byte = copied.filter(|_| back > 9).unwrap_or((n % 7) as u8 * 31);
                out.push(byte);
            }
            out.push(entropy.below(256) as u8);
        }
        out.truncate(length);
        out
    }

    #[test]
    fn both_decoders_read_what_an_encoder_writes() {
        let mut entropy = SplitMix::new(1);
        for length in [0, 1, 2, 300, 5_000, 32_767, 32_768, 32_769, 70_000, 200_000] {
            for level in [0, 1, 6, 9] {
                let text = text(&mut entropy, length);
                let packed = gzip(&text, level);
                assert!(usual(&packed, length).is_some_and(|o| o.is_ok_and(|o| o == text)));
                assert!(carefully(&packed, length).unwrap() == text, "{length} at level {level}");
                let twice = [&packed[..], &packed].concat();
                assert!(gunzip(&twice, 2 * length).unwrap() == [&text[..], &text].concat());
            }
        }
    }

    #[test]
    fn damages_have_gos_texts() {
        let packed = gzip(&[7; 10_000], 6);
        let text = |bytes: &[u8]| gunzip(bytes, 10_000).unwrap_err().message.into_owned();
        assert_eq!(text(b""), "grpc: failed to decompress the message: EOF");
        assert_eq!(text(&packed[..5]), "grpc: failed to decompress the message: unexpected EOF");
        let nonsense = "grpc: failed to decompress the message: gzip: invalid header";
        assert_eq!(text(b"no gzip file"), nonsense);
        let within = |what| format!("grpc: failed to read decompressed data: {what}");
        assert_eq!(text(&packed[..packed.len() - 6]), within("unexpected EOF"));
        assert_eq!(text(&[&packed[..], b"x"].concat()), within("unexpected EOF"));
        let mut wrong = packed.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(text(&wrong), within("gzip: invalid checksum"));
        wrong[10] = 7;
        assert_eq!(text(&wrong), within("flate: corrupt input before offset 1"));
        let large = "grpc: received message after decompression larger than max 9999";
        assert_eq!(gunzip(&packed, 9_999).unwrap_err().message, large);
        assert_eq!(gunzip(&packed.repeat(3), 9_999).unwrap_err().message, large);
    }

    /// What the shortcut takes, the other decoder would take.
    #[test]
    fn the_shortcut_takes_nothing_that_is_damaged() {
        let mut entropy = SplitMix::new(2);
        let mut taken = 0;
        for _ in 0..20_000 {
            let length = entropy.below(2_000) as usize;
            let mut packed = gzip(&text(&mut entropy, length), entropy.below(10) as u32);
            for _ in 0..1 + entropy.below(2) {
                let at = entropy.below(packed.len() as u64) as usize;
                packed[at] ^= 1 << entropy.below(8);
            }
            // The trailer's checks would hide a body read in another way.
            let (mut input, mut out) = (Input { bytes: &packed, at: 0 }, Vec::new());
            let read =
                input.header().and_then(|()| Body::new(&mut input, &mut out, 9_999).inflate());
            let end = input.at;
            if read.is_ok() {
                packed.truncate(end);
                packed.extend_from_slice(&crc(&out).to_le_bytes());
                packed.extend_from_slice(&(out.len() as u32).to_le_bytes());
            }
            let limit = 4_000;
            if let Some(usual) = usual(&packed, limit) {
                taken += 1;
                let careful = carefully(&packed, limit);
                match (usual, careful) {
                    (Ok(usual), Ok(careful)) => assert_eq!(usual, careful),
                    (usual, careful) => assert_eq!(
                        usual.unwrap_err().message,
                        careful.unwrap_err().message,
                        "{packed:?}"
                    ),
                }
            }
        }
        assert!(taken > 1_000, "only {taken}");
    }
}
