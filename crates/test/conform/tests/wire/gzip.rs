//! Compressed messages, proper ones and all that can be wrong with them.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use api::etcdserverpb::RangeResponse;
use conform::both::run;
use conform::grpc::envelope;
use conform::{Client, Kind, both};
use env::Entropy;
use prost::Message;

use super::{RANGE, field, framed, range_of, shape, with};

fn gzip_at(level: u32, bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::new(level);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn gzip_is_answered_with_gzip() {
    both(async |client: Client| {
        let message = range_of("a");
        let packed = gzip_at(1, &message);
        let frame = |bytes: &[u8]| framed(1, bytes.len() as u32, bytes);
        let bomb = gzip_at(1, &vec![0; 3_000_000]);
        let gzipped = || with(RANGE, "grpc-encoding", "gzip");
        let mut answers = Vec::new();
        for (what, body) in [
            ("packed", frame(&packed)),
            ("plain", envelope(&message)),
            ("cut", frame(&packed[..packed.len() - 6])),
            ("empty", frame(b"")),
            ("trailing byte", frame(&[&packed[..], b"x"].concat())),
            ("bomb", frame(&bomb)),
        ] {
            let exchange = client.exchange(gzipped(), body).await;
            if exchange.code == Some(0) {
                assert_eq!(exchange.encoding, "gzip", "{what}");
                let mut plain = Vec::new();
                let read =
                    flate2::read::GzDecoder::new(&exchange.body[5..]).read_to_end(&mut plain);
                read.unwrap_or_else(|e| panic!("{what}: {e}"));
                RangeResponse::decode(&plain[..]).expect("a range's answer");
            }
            answers.push((what, shape(exchange)));
        }
        answers
    });
}

/// A gzip file with every part that its header can have.
fn with_full_header(packed: &[u8]) -> Vec<u8> {
    let mut out = packed[..10].to_vec();
    out[3] = 2 | 4 | 8 | 16;
    out.extend_from_slice(b"\x03\0abcname\0comm\xe4nt\0");
    let mut crc = flate2::Crc::new();
    crc.update(&out);
    out.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
    out.extend_from_slice(&packed[10..]);
    out
}

/// The same file with bytes of its choice between header and body.
fn with_header(flags: u8, more: &[u8], packed: &[u8]) -> Vec<u8> {
    let mut head = packed[..10].to_vec();
    head[3] = flags;
    [&head, more, &packed[10..]].concat()
}

/// A body that goes on behind an empty block.
fn flushed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1_000);
    let mut encoder = flate2::Compress::new(flate2::Compression::fast(), false);
    encoder.compress_vec(bytes, &mut out, flate2::FlushCompress::Sync).expect("room enough");
    assert_eq!(out[out.len() - 4..], [0, 0, 0xff, 0xff]);
    out
}

/// A body that begins with a reference to bytes before it, all of two bits, where the end of the
/// block has a code of fifteen: what is read before it is refused tells how codes are read.
fn prescient() -> Vec<u8> {
    let mut bits: Vec<u64> = Vec::new();
    let mut number = |value: u64, count: u32| bits.extend((0..count).map(|n| value >> n & 1));
    // The last block, with its own codes: 258 literals and lengths, one distance.
    for (value, count) in [(1, 1), (2, 2), (1, 5), (0, 5), (15, 4)] {
        number(value, count);
    }
    // Each length of a code is written in four bits, most significant first; none is repeated.
    (0..19).for_each(|place| number(if place < 3 { 0 } else { 4 }, 3));
    let literals = (0..256).map(|symbol| if symbol < 14 { symbol + 2 } else { 0 });
    for length in literals.chain([15, 1, 1]) {
        number(u64::from((length as u8).reverse_bits() >> 4), 4);
    }
    number(0, 2);
    let byte = |bits: &[u64]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | *bit as u8);
    bits.chunks(8).map(byte).chain([0; 4]).collect()
}

/// Damaged files: cut everywhere, each bit flipped, in members, with garbage after, too large.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn damaged() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let words: Vec<u8> = (0..700u32).flat_map(|n| (n * n % 113).to_string().into_bytes()).collect();
    let long = field(1, &words);
    let short = range_of("aaaaaaaaaaaaaaaaaaaaaaaaaaab");
    for (name, packed) in [
        ("stored", gzip_at(0, &short)),
        ("fixed codes", gzip_at(6, &short)),
        ("own codes", gzip_at(9, &long[..300])),
        ("longer", gzip_at(6, &long)),
        ("full header", with_full_header(&gzip_at(6, &short))),
    ] {
        for cut in 0..=packed.len() {
            all.push((format!("{name} cut at {cut}"), packed[..cut].to_vec()));
        }
        for bit in 0..packed.len() * 8 {
            let mut packed = packed.clone();
            packed[bit / 8] ^= 1 << (bit % 8);
            all.push((format!("{name} with bit {bit}"), packed));
        }
        for second in 0..=packed.len() {
            let two = [&packed[..], &packed[..second]].concat();
            all.push((format!("{name} twice, cut at {second}"), two));
        }
        for garbage in 1..=20 {
            for byte in [0, 0x1f, b'x'] {
                let after = [&packed[..], &vec![byte; garbage]].concat();
                all.push((format!("{name} and {garbage} times {byte}"), after));
            }
        }
    }
    let packed = gzip_at(6, &short);
    for length in [0, 1, 510, 511, 512, 513, 600] {
        for flags in [8, 16, 8 | 16] {
            let mut text = vec![b'n'; length];
            all.push((format!("text {length} {flags}"), with_header(flags, &text, &packed)));
            text.push(0);
            let twice = [&text[..], &text].concat();
            all.push((format!("texts {length} {flags}"), with_header(flags, &twice, &packed)));
        }
    }
    for flags in 0..=255 {
        all.push((format!("flags {flags}"), with_header(flags, b"", &packed)));
    }
    // Around the limit a damage may or may not be reached.
    let limit = 2 * 1024 * 1024;
    for size in [limit - 1, limit, limit + 1, limit + 2, limit + 40_000] {
        let ignored = (5..7).map(|more| field(99, &vec![0; size - more]));
        let ignored = ignored.into_iter().find(|f| f.len() == size).expect("of either length");
        for level in [0, 1, 9] {
            let packed = gzip_at(level, &ignored);
            let end = packed.len();
            let mut wrong = packed.clone();
            wrong[end - 1] ^= 1;
            all.push((format!("{size} at {level}, wrong length"), wrong));
            for cut in [0, 1, 4, 8, 9, 12] {
                all.push((format!("{size} at {level} cut by {cut}"), packed[..end - cut].to_vec()));
            }
            all.push((format!("{size} at {level}, garbage"), [&packed[..], b"x"].concat()));
            all.push((format!("{size} and more"), [packed, gzip_at(level, b"\0")].concat()));
        }
        // What no block begins with, behind a flush (an empty block), and behind a stored block.
        let header = &gzip_at(0, b"")[..10];
        let flushed = [header, &flushed(&ignored), b"\xff"].concat();
        all.push((format!("{size} flushed, then nonsense"), flushed));
        let (most, rest) = ignored.split_at(size - 10);
        let stored = [&[0, 10, 0, 0xf5, 0xff], rest, b"\xff"].concat();
        all.push((
            format!("{size} stored, then nonsense"),
            [header, &self::flushed(most), &stored].concat(),
        ));
    }
    let referring = [&packed[..10], &prescient()].concat();
    for cut in 0..6 {
        let left = referring[..referring.len() - cut].to_vec();
        all.push((format!("a reference to nothing, cut by {cut}"), left));
    }
    let mut entropy = env::SplitMix::new(1);
    for n in 0..2_000 {
        let text = if n % 2 == 0 { &long[..300] } else { &long[..] };
        let mut packed = gzip_at(9, text);
        for _ in 0..1 + entropy.below(4) {
            // Most of them where the codes are described.
            let reach = if entropy.below(3) > 0 { 80 } else { packed.len() - 10 };
            packed[10 + entropy.below(reach as u64) as usize] ^= 1 << entropy.below(8);
        }
        all.push((format!("damage {n}"), packed));
    }
    all.push(("bomb".into(), gzip_at(9, &vec![0; 50_000_000])));
    let bombs = gzip_at(9, &vec![0; 900_000]).repeat(9);
    all.push(("bombs".into(), bombs));
    all.push(("nothing, often".into(), gzip_at(9, b"").repeat(3_000)));
    all
}

#[test]
fn damaged_gzip_is_refused_alike() {
    let files = damaged();
    let ask = async |client: Client| {
        let mut seen = Vec::new();
        for (_, file) in &files {
            let body = framed(1, file.len() as u32, file);
            seen.push(shape(client.exchange(with(RANGE, "grpc-encoding", "gzip"), body).await));
        }
        seen
    };
    let seen = run(Kind::Quorate, &[], ask).expect("our own binary");
    let Some(theirs) = run(Kind::Reference, &[], ask) else { return };
    for ((what, _), (ours, theirs)) in files.iter().zip(seen.iter().zip(&theirs)) {
        assert_eq!(ours, theirs, "{what}: left is ours, right is etcd's");
    }
    let texts: BTreeSet<&str> = seen.iter().map(|answer| answer.4.as_str()).collect();
    assert!(texts.len() > 100, "offsets differ: {texts:?}");
}
