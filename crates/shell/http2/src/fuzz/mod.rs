//! Fuzz targets, and the server and the client that they play: whatever a client sends, nothing
//! panics, what the server says is a sound conversation within the client's windows, and neither
//! how the bytes are cut nor what is done in one step instead of two changes a byte of it.

mod app;
mod client;
mod recorded;
mod traffic;

use app::Echo;

use crate::hpack::{Class, Decoder, Encoder, Error, Sink, StaticTags};
use crate::protocol::Field;
use crate::{Limits, PREFACE};

pub use app::Ran;
pub use recorded::replay;

/// Limits that random traffic reaches.
fn small_limits() -> Limits {
    Limits {
        concurrent_streams: 20,
        stream_window: 65_535 + 1_000,
        connection_window: 100_000,
        header_list_bytes: 2_000,
        header_block_bytes: 4_000,
        empty_data_frames: 10,
        unsent_bytes: 1 << 30,
        held_bytes: 1 << 20,
        ..Limits::default()
    }
}

/// What some client sends behind its preface: seeds for [`frames`].
#[must_use]
pub fn client_bytes(seed: u64) -> Vec<u8> {
    traffic::written_by(&mut traffic::Choices::random(seed))[1..].concat()
}

/// Any bytes as what a client sends behind its preface. With the preface they are what a real one
/// sent, which knew a server's limits.
pub fn frames(bytes: &[u8]) {
    let (frames, limits) = match bytes.strip_prefix(PREFACE) {
        Some(frames) => (frames, Limits::default()),
        None => (bytes, small_limits()),
    };
    let limits = Limits { unsent_bytes: 1_000, ..limits };
    let bytes = &[PREFACE, frames].concat();
    let whole = app::run::<Echo>([&bytes[..]], &limits);
    // Little room changes when things are said, so that only what happened is compared.
    let cut = app::run::<Echo>(bytes.chunks(17), &limits);
    assert_eq!(whole.failed, cut.failed);
}

/// Bytes as the choices of a client that mostly keeps the rules.
pub fn connection(bytes: &[u8]) {
    let sent = traffic::written_by(&mut traffic::Choices::new(bytes));
    compare(&sent.concat(), &small_limits());
}

/// What a real client sent, preface first, as [`connection`] takes what an invented one sends.
pub fn recording(bytes: &[u8]) {
    compare(bytes, &Limits { unsent_bytes: 1 << 30, ..Limits::default() });
}

/// A connection whose client sends these bytes, taken whole, cut, and without short cuts.
fn compare(bytes: &[u8], limits: &Limits) {
    let plain = Limits { whole_requests: false, cached_blocks: 0, ..limits.clone() };
    client::check(bytes, limits);
    let whole = app::run::<Echo>([bytes], limits);
    // Single bytes of much would take long: what is left of a frame is copied each time.
    let smallest = 1 + bytes.len() / 3_000;
    for size in [smallest, smallest + 9, 1_000] {
        assert!(app::run::<Echo>(bytes.chunks(size), limits) == whole, "pieces of {size}");
    }
    assert!(app::run::<Echo>([bytes], &plain) == whole, "without short cuts");
}

/// Bytes as header blocks, each behind its length: the same whatever they are cut into, and what
/// they mean survives the encoder.
pub fn hpack(bytes: &[u8]) {
    let (mut whole, mut cut, mut back) = (decoder(), decoder(), decoder());
    let mut encoder = Encoder::new();
    let Some((&options, mut rest)) = bytes.split_first() else { return };
    let piece = usize::from(options % 16) + 1;
    while let Some((&length, after)) = rest.split_first() {
        let (block, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let fields = decode(&mut whole, block, usize::MAX, options);
        assert_eq!(decode(&mut cut, block, piece, options), fields);
        let Ok(Fields { fields, .. }) = fields else { return };
        if length % 16 == 0 {
            encoder.allow(u32::from(options) * 2);
        }
        let mut again = Vec::new();
        encoder.begin(&mut again);
        for (number, (name, value)) in fields.iter().enumerate() {
            match number % 3 {
                0 => encoder.field(&mut again, &Field::indexed(name, value)),
                1 => encoder.field(&mut again, &Field::literal(name, value)),
                _ => Encoder::timeless(&mut again, &Field::literal(name, value)),
            }
        }
        let returned = decode(&mut back, &again, usize::MAX, 255).expect("what we encode is sound");
        assert_eq!(returned.fields, fields);
    }
}

fn decoder() -> Decoder<u32> {
    static TAGS: std::sync::LazyLock<StaticTags<u32>> =
        std::sync::LazyLock::new(StaticTags::of::<app::Echo>);
    Decoder::new(&TAGS, <app::Echo as crate::Protocol>::tag, 10_000)
}

/// The first fields of a block.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    most: usize,
}

impl Sink<u32> for Fields {
    fn is_open(&self) -> bool {
        self.fields.len() < self.most
    }

    fn field(&mut self, class: Class, tag: &u32, name: &[u8], value: &[u8], _: usize) {
        assert_eq!(class, Class::of(name, value));
        assert_eq!(*tag, <app::Echo as crate::Protocol>::tag(name, value));
        self.fields.push((name.to_vec(), value.to_vec()));
    }
}

/// Decodes a block in pieces; of its fields no more than `most` are looked at.
fn decode(
    decoder: &mut Decoder<u32>,
    block: &[u8],
    piece: usize,
    most: u8,
) -> Result<Fields, Error> {
    let mut fields = Fields { most: usize::from(most), ..Fields::default() };
    let mut cut = Vec::new();
    for piece in block.chunks(piece) {
        cut.extend_from_slice(piece);
        let mut rest = &cut[..];
        decoder.decode(&mut rest, &mut fields)?;
        cut.drain(..cut.len() - rest.len());
    }
    decoder.end();
    if cut.is_empty() { Ok(fields) } else { Err(Error::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare_all(seeds: std::ops::Range<u64>) {
        for seed in seeds {
            let sent = traffic::written_by(&mut traffic::Choices::random(seed)).concat();
            let result = std::panic::catch_unwind(|| compare(&sent, &small_limits()));
            assert!(result.is_ok(), "seed {seed}");
        }
    }

    #[test]
    fn random_clients_get_the_same_answers_however_their_bytes_come() {
        compare_all(0..1_000);
    }

    #[ignore = "minutes: for whoever changes the connection"]
    #[test]
    fn many_random_clients_get_the_same_answers_however_their_bytes_come() {
        compare_all(1_000..50_000);
    }

    #[test]
    fn random_traffic_reaches_what_it_is_for() {
        let mut seen = std::collections::BTreeMap::<String, u32>::new();
        for seed in 0..500 {
            let sent = traffic::written_by(&mut traffic::Choices::random(seed)).concat();
            let ran = app::run::<Echo>([&sent[..]], &small_limits());
            let failed = ran.failed.map_or("good end".to_owned(), |fatal| fatal.to_string());
            *seen.entry(failed).or_default() += 1;
            for event in ran.events {
                let name = event.split(' ').next().unwrap_or_default();
                *seen.entry(name.to_owned()).or_default() += 1;
            }
        }
        for wanted in ["good end", "head", "data", "reset", "writable", "ping", "pong"] {
            assert!(seen.get(wanted).is_some_and(|n| *n >= 20), "{wanted}: {seen:#?}");
        }
    }

    #[test]
    fn random_header_blocks() {
        for seed in 0..20_000 {
            let mut choices = traffic::Choices::random(seed);
            let bytes: Vec<u8> =
                (0..choices.below(200)).map(|_| choices.below(256) as u8).collect();
            hpack(&bytes);
        }
    }
}
