//! What a client that mostly keeps the rules may send.

use crate::PREFACE;
use crate::frame::{self, flag, kind};

/// Frames of one connection.
const MOST_FRAMES: usize = 80;

/// A row of choices: of a fuzzer's bytes, or random ones.
pub(super) enum Choices<'a> {
    Given(&'a [u8]),
    Random(u64),
}

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self::Given(bytes)
    }

    pub(super) fn random(seed: u64) -> Self {
        Self::Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `n`, which is 256 at most; 0 when nothing is left.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        match self {
            Self::Given(bytes) => {
                let Some((&first, rest)) = bytes.split_first() else { return 0 };
                *bytes = rest;
                u32::from(first) % n
            }
            Self::Random(state) => {
                // Knuth's MMIX.
                let next = state.wrapping_mul(6_364_136_223_846_793_005);
                *state = next.wrapping_add(1_442_695_040_888_963_407);
                (*state >> 33) as u32 % n
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Given(bytes) => bytes.is_empty(),
            Self::Random(_) => false,
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

struct Writer {
    frames: Vec<Vec<u8>>,
    next: u32,
    /// Fields that the server was told to keep, of which the newest are surely there.
    kept: u32,
}

impl Writer {
    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let mut out = Vec::new();
        frame::head(&mut out, payload.len(), kind, flags, id);
        out.extend_from_slice(payload);
        self.frames.push(out);
    }
}

/// The frames of a connection, the first behind the preface.
pub(super) fn written_by(choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut writer = Writer { frames: vec![PREFACE.to_vec()], next: 1, kept: 0 };
    let windows: &[u8] = &[0, 4, 0, 0, choices.pick(&[0, 0, 255]), choices.below(256) as u8];
    writer.frame(kind::SETTINGS, 0, 0, choices.pick(&[&[], windows]));
    let frames = choices.below(MOST_FRAMES as u32);
    for _ in 0..frames {
        if choices.is_empty() {
            break;
        }
        one(choices, &mut writer);
    }
    // Now and then a flipped bit, which may well end it.
    if choices.below(8) == 1 {
        let number = choices.below(writer.frames.len() as u32) as usize;
        let frame = &mut writer.frames[number];
        let at = choices.below(256) as usize % frame.len();
        frame[at] ^= 1 << choices.below(8);
    }
    writer.frames
}

fn one(choices: &mut Choices<'_>, writer: &mut Writer) {
    if choices.below(64) == 1 {
        return odd(choices, writer);
    }
    // Mostly a stream of the last few.
    let back = 2 * choices.below(12).min((writer.next - 1) / 2);
    let any = if back == 0 { writer.next + 2 * choices.below(2) } else { writer.next - back };
    match choices.below(16) {
        0..=5 => request(choices, writer),
        6 | 7 => {
            let size = choices.pick(&[0, 1, 50, 3_000, 16_384]);
            let flags = choices.pick(&[0, 0, flag::END_STREAM]);
            writer.frame(kind::DATA, flags, any, &vec![3; size]);
        }
        8 => {
            let padding = choices.pick(&[0, 3, 50]);
            writer.frame(kind::DATA, flag::PADDED, any, &[&[padding][..], &[1; 50]].concat());
        }
        9 => writer.frame(kind::RST_STREAM, 0, any, &[0, 0, 0, 8]),
        10 | 11 => {
            let id = choices.pick(&[0, any]);
            let increment = [0, choices.pick(&[0, 0, 1, 127]), choices.below(256) as u8, 1];
            writer.frame(kind::WINDOW_UPDATE, 0, id, &increment);
        }
        12 => {
            let flags = choices.pick(&[0, flag::ACK]);
            writer.frame(kind::PING, flags, 0, &[choices.below(256) as u8; 8]);
        }
        13 => {
            let high = choices.pick(&[0, 0, 1, 255]);
            let setting = [0, choices.pick(&[4, 4, 4, 1, 6]), 0, 0, high, choices.below(256) as u8];
            writer.frame(kind::SETTINGS, 0, 0, &setting);
        }
        14 => writer.frame(kind::WINDOW_UPDATE, 0, any, &[0, 0, 0, choices.below(3) as u8]),
        _ => writer.frame(choices.pick(&[7, 99]), choices.below(256) as u8, 0, &[0; 8]),
    }
}

/// A frame that may be anything, and mostly ends the connection.
fn odd(choices: &mut Choices<'_>, writer: &mut Writer) {
    let kind = choices.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 99]);
    let (flags, id) = (choices.below(256) as u8, choices.below(2 * writer.next.min(100)));
    let size = choices.pick(&[5, 8, 0, 4, 30]);
    writer.frame(kind, flags, id, &vec![choices.below(256) as u8; size]);
}

/// A request, mostly with a body right behind its head.
fn request(choices: &mut Choices<'_>, writer: &mut Writer) {
    let id = writer.next;
    writer.next += choices.pick(&[2, 2, 2, 2, 6, 20]);
    let mut block = vec![0x83, 0x86];
    for _ in 0..choices.below(6) {
        match choices.below(8) {
            0 => block.extend_from_slice(b"\x0f\x10\x10application/grpc"),
            1 => block.extend_from_slice(b"\x5f\x10application/grpc"),
            2 => block.extend_from_slice(b"\x40\x0cgrpc-timeout\x03200"),
            3 => block.extend_from_slice(&[0x40, 1, b'x', 1, choices.below(256) as u8]),
            4 => block.extend_from_slice(b"\x58\x86\xa8\xeb\x10\x64\x9c\xbf"),
            5 => block.push(choices.pick(&[0x90, 0x90, 0x90, 0x84, 0x88])),
            _ => block.push(if writer.kept > 2 { 0xbe + choices.below(3) as u8 } else { 0x90 }),
        }
        writer.kept += u32::from(block.last().is_some_and(|last| *last < 0x80));
    }
    if choices.below(200) == 1 {
        block.push(choices.pick(&[0x20, 0x80, 0xff, 0x40]));
    }
    let end = choices.pick(&[0, 0, 0, flag::END_STREAM]);
    match choices.below(8) {
        0 => {
            let at = choices.below(block.len() as u32) as usize;
            writer.frame(kind::HEADERS, end, id, &block[..at]);
            writer.frame(kind::CONTINUATION, 0, id, b"");
            writer.frame(kind::CONTINUATION, flag::END_HEADERS, id, &block[at..]);
        }
        1 => {
            let flags = end | flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
            let padded = [&[2, 0, 0, 0, 0, 9][..], &block, &[0; 2]].concat();
            writer.frame(kind::HEADERS, flags, id, &padded);
        }
        _ => writer.frame(kind::HEADERS, end | flag::END_HEADERS, id, &block),
    }
    if end == 0 && choices.below(4) > 0 {
        let flags = choices.pick(&[flag::END_STREAM, flag::END_STREAM, 0]);
        let body = vec![9; choices.pick(&[0, 7, 75, 5_000])];
        writer.frame(kind::DATA, flags, id, &body);
    }
}
