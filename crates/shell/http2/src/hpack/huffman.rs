//! The code that makes texts of headers shorter.
//!
//! It is canonical: codes of one length are consecutive numbers, given to the symbols in order, and
//! each length continues where the shorter one ended. So the lengths are all of it, and the tables
//! are made of them when this is compiled.

use super::Error;

/// Bits of each byte's code, and of the end mark's.
//= RFC 7541, appendix B
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
const SYMBOLS: usize = 257;
/// The symbol that is no byte: it ends every text in theory and must not be sent.
const END: u16 = 256;
/// Bits of the longest code.
const LONGEST: usize = 30;
/// Codes of so many bits are found by one look.
const SHORT: usize = 8;

struct Tables {
    /// By the next [`SHORT`] bits: symbol and length of the code, if it is no longer than that.
    short: [(u16, u8); 1 << SHORT],
    /// By length: one past its last code, put to the left of 32 bits.
    beyond: [u64; LONGEST + 1],
    /// By length: its first code, and the place of that one's symbol.
    first: [(u32, u16); LONGEST + 1],
    /// Symbols by length of code.
    symbols: [u16; SYMBOLS],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut made = Tables {
        short: [(END, 0); 1 << SHORT],
        beyond: [0; LONGEST + 1],
        first: [(0, 0); LONGEST + 1],
        symbols: [0; SYMBOLS],
    };
    let (mut code, mut place, mut length) = (0_u32, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        made.first[length] = (code, place as u16);
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                made.symbols[place] = symbol as u16;
                if length <= SHORT {
                    let (mut at, spare) = ((code as usize) << (SHORT - length), SHORT - length);
                    let end = at + (1 << spare);
                    while at < end {
                        made.short[at] = (symbol as u16, length as u8);
                        at += 1;
                    }
                }
                code += 1;
                place += 1;
            }
            symbol += 1;
        }
        made.beyond[length] = (code as u64) << (32 - length);
        length += 1;
    }
    made
}

/// Appends the text that `coded` stands for, of at most `limit` bytes.
///
/// # Errors
/// The client's: no such code, the end mark, too much or wrong padding, or a longer text.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Error> {
    let (mut window, mut bits, mut at) = (0_u64, 0_u32, 0);
    let mut left = limit;
    loop {
        while bits <= 56 && at < coded.len() {
            window |= u64::from(coded[at]) << (56 - bits);
            bits += 8;
            at += 1;
        }
        if bits == 0 {
            return Ok(());
        }
        let (mut symbol, mut length) = TABLES.short[(window >> 56) as usize];
        if length == 0 {
            (symbol, length) = long(window)?;
        }
        if u32::from(length) > bits {
            // What is left is padding: fewer than eight bits, the beginning of the end mark.
            let is_padding = bits < 8 && window >> (64 - bits) == (1 << bits) - 1;
            return if is_padding { Ok(()) } else { Err(Error::Malformed) };
        }
        left = left.checked_sub(1).ok_or(Error::Malformed)?;
        out.push(u8::try_from(symbol).map_err(|_| Error::Malformed)?);
        window <<= length;
        bits -= u32::from(length);
    }
}

/// The symbol and length of a code that is longer than [`SHORT`].
fn long(window: u64) -> Result<(u16, u8), Error> {
    let top = (window >> 32) as u32;
    let longer = SHORT + 1..=LONGEST;
    let length = longer.into_iter().find(|length| u64::from(top) < TABLES.beyond[*length]);
    let length = length.ok_or(Error::Malformed)?;
    let (code, place) = TABLES.first[length];
    let nth = (top >> (32 - length)) - code;
    Ok((TABLES.symbols[usize::from(place) + nth as usize], length as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of a symbol, by the definition of a canonical code.
    fn code(symbol: usize) -> (u64, u32) {
        let mut code = 0_u64;
        for length in 1..=30 {
            code <<= 1;
            for (other, of) in LENGTHS.iter().enumerate() {
                if *of == length {
                    if other == symbol {
                        return (code, u32::from(length));
                    }
                    code += 1;
                }
            }
        }
        unreachable!("every symbol has a code")
    }

    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let (code, length) = code(usize::from(*byte));
            bits += &format!("{code:0width$b}", width = length as usize);
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |eight: &[u8]| u8::from_str_radix(std::str::from_utf8(eight).unwrap(), 2);
        bits.as_bytes().chunks(8).map(|eight| byte(eight).unwrap()).collect()
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        //= RFC 7541, appendix B
        let known = [(0, 0x1ff8, 13), (b'0'.into(), 0, 5), (b'~'.into(), 0x1ffd, 13)];
        let known = known.into_iter().chain([(255, 0x3ff_ffee, 26), (256, 0x3fff_ffff, 30)]);
        for (symbol, expected, length) in known {
            assert_eq!(code(symbol), (expected, length), "symbol {symbol}");
        }
    }

    #[test]
    fn every_pair_of_bytes_is_decoded() {
        for first in 0..=255_u8 {
            for second in [0, b'a', b'z', 0x80, 255, first] {
                let text = [first, second, first];
                let mut out = Vec::new();
                decode(&encode(&text), &mut out, 3).unwrap();
                assert_eq!(out, text);
            }
        }
    }

    #[test]
    fn wrong_padding_end_marks_and_long_texts_are_errors() {
        let mut out = Vec::new();
        for bad in [&[0xff][..], &[0x07, 0xff], &[0x00], &[0xff, 0xff, 0xff, 0xff], &[0x06]] {
            assert_eq!(decode(bad, &mut out, 100), Err(Error::Malformed), "{bad:x?}");
        }
        assert_eq!(decode(&encode(b"abc"), &mut out, 2), Err(Error::Malformed));
        assert_eq!(decode(&[], &mut out, 0), Ok(()));
    }
}
