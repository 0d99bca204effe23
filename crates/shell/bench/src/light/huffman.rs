//! The Huffman code of HPACK (RFC 7541, appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and
//! follow those of shorter ones. So the lengths are all that has to be written down.

/// Symbols: the 256 bytes and the end mark.
const SYMBOLS: usize = 257;
/// The end mark, which never appears but as padding.
const END: u16 = 256;
/// The longest code.
const LONGEST: usize = 30;

/// Bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// What follows from the lengths.
struct Code {
    /// Each symbol's code, right-aligned.
    codes: [u32; SYMBOLS],
    /// Symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
    /// By length: the first code, where it stands in `symbols`, and how many there are.
    lengths: [(u32, u16, u16); LONGEST + 1],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut code =
        Code { codes: [0; SYMBOLS], symbols: [0; SYMBOLS], lengths: [(0, 0, 0); LONGEST + 1] };
    let (mut next, mut place, mut length) = (0_u32, 0_u16, 1);
    while length <= LONGEST {
        next <<= 1;
        let (first, begin) = (next, place);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                code.codes[symbol] = next;
                code.symbols[place as usize] = symbol as u16;
                next += 1;
                place += 1;
            }
            symbol += 1;
        }
        code.lengths[length] = (first, begin, place - begin);
        length += 1;
    }
    code
}

/// Bytes that a text takes in this code.
#[must_use]
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends a text in this code.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut bits) = (0_u64, 0_u32);
    for byte in text {
        let symbol = usize::from(*byte);
        window = window << LENGTHS[symbol] | u64::from(CODE.codes[symbol]);
        bits += u32::from(LENGTHS[symbol]);
        while bits >= 8 {
            bits -= 8;
            out.push((window >> bits) as u8);
        }
    }
    if bits > 0 {
        // The beginning of the end mark, which is all ones.
        let pad = 8 - bits;
        out.push((window << pad) as u8 | ((1_u16 << pad) - 1) as u8);
    }
}

/// Appends what a text in this code says; `None` if it is no such text.
#[must_use]
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut value, mut length) = (0_u32, 0_usize);
    for byte in text {
        for bit in (0..8).rev() {
            value = value << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let (first, place, count) = *CODE.lengths.get(length)?;
            let nth = value.wrapping_sub(first);
            if value >= first && nth < u32::from(count) {
                let symbol = CODE.symbols[usize::from(place) + nth as usize];
                if symbol == END {
                    return None;
                }
                out.push(symbol as u8);
                (value, length) = (0, 0);
            }
        }
    }
    // Padding: fewer than eight bits, all ones.
    let is_padding = length < 8 && value == (1 << length) - 1;
    is_padding.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_the_rfc() {
        let encoded = |text: &[u8]| {
            let mut out = Vec::new();
            encode(text, &mut out);
            out
        };
        //= RFC 7541, C.4.1, C.6.1
        assert_eq!(
            encoded(b"www.example.com"),
            [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]
        );
        assert_eq!(encoded(b"302"), [0x64, 0x02]);
        // The last codes of appendix B: 10, 13, 22 and the end mark.
        assert_eq!(CODE.codes[usize::from(b'\n')], 0x3fff_fffc);
        assert_eq!(CODE.codes[usize::from(END)], 0x3fff_ffff);
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut encoded = Vec::new();
        encode(&all, &mut encoded);
        assert_eq!(encoded.len(), encoded_len(&all));
        let mut decoded = Vec::new();
        assert_eq!(decode(&encoded, &mut decoded), Some(()));
        assert_eq!(decoded, all);
        // Eight bits of padding, and padding that is not all ones.
        assert_eq!(decode(&[0xff], &mut decoded), None);
        assert_eq!(decode(&[0x00], &mut decoded), None);
    }
}
