//! Protobuf's wire format, field by field, as protobuf-go reads it.
//!
//! For the few places that look at a message without decoding it: [`odd`](crate::odd) and the
//! commands of the log. Nothing here recurses or allocates by what the bytes say, but for the
//! stack of open groups, which is bounded.
//!
//! //= protobuf-go 1.36: encoding/protowire/wire.go#ConsumeFieldValue

use std::ops::Range;

/// Groups within groups, beyond which protobuf-go gives up.
const MAX_GROUPS: usize = 10_000;

/// The greatest field number of a message.
pub const MAX_NUMBER: u64 = (1 << 29) - 1;

/// The greatest within a group that is skipped: there Go asks only whether it fits its type.
pub(crate) const MAX_NUMBER_SKIPPED: u64 = i32::MAX as u64;

/// The wire type of integers.
pub const VARINT: u8 = 0;
/// The wire type of messages, texts and bytes: a length, then so many bytes.
pub const LENGTH_DELIMITED: u8 = 2;

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads an integer of 1 to 10 bytes at `at` and moves behind it.
///
/// # Errors
/// [`Malformed`]: the bytes end within it, or it exceeds 64 bits.
pub fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at).ok_or(Malformed)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// Reads a field's number, at most `most`, and its wire type.
pub(crate) fn tag(bytes: &[u8], at: &mut usize, most: u64) -> Result<(u64, u8), Malformed> {
    let key = varint(bytes, at)?;
    let number = key >> 3;
    if number == 0 || number > most {
        return Err(Malformed);
    }
    Ok((number, (key & 7) as u8))
}

/// Moves behind the value of a field. Returns where its content begins.
///
/// # Errors
/// [`Malformed`].
pub fn skip(bytes: &[u8], at: &mut usize, number: u64, wire: u8) -> Result<usize, Malformed> {
    let len = match wire {
        VARINT => {
            let begin = *at;
            varint(bytes, at)?;
            return Ok(begin);
        }
        1 => 8,
        LENGTH_DELIMITED => usize::try_from(varint(bytes, at)?).map_err(|_| Malformed)?,
        3 => {
            let (begin, mut open) = (*at, vec![number]);
            while let Some(innermost) = open.last().copied() {
                match tag(bytes, at, MAX_NUMBER_SKIPPED)? {
                    (number, 3) if open.len() < MAX_GROUPS => open.push(number),
                    (_, 3) => return Err(Malformed),
                    (number, 4) if number == innermost => drop(open.pop()),
                    (_, 4) => return Err(Malformed),
                    (number, wire) => drop(skip(bytes, at, number, wire)?),
                }
            }
            return Ok(begin);
        }
        5 => 4,
        _ => return Err(Malformed),
    };
    let begin = *at;
    *at = begin.checked_add(len).filter(|end| *end <= bytes.len()).ok_or(Malformed)?;
    Ok(begin)
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its number, 1 to [`MAX_NUMBER`].
    pub number: u64,
    /// Its wire type, 0 to 5.
    pub wire: u8,
    /// Where its content lies in the message: without tag and length.
    pub content: Range<usize>,
}

/// The fields of a message in the order of its bytes; after an error there are no more.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Walks over the fields of a message.
#[must_use]
pub fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { bytes, at: 0 }
}

impl Fields<'_> {
    fn read(&mut self) -> Result<Field, Malformed> {
        let (number, wire) = tag(self.bytes, &mut self.at, MAX_NUMBER)?;
        let begin = skip(self.bytes, &mut self.at, number, wire)?;
        Ok(Field { number, wire, content: begin..self.at })
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_with_their_content() {
        let bytes = b"\x08\x96\x01\x12\x02ab\x1d1234";
        let read: Result<Vec<_>, _> =
            fields(bytes).map(|f| f.map(|f| (f.number, f.wire))).collect();
        assert_eq!(read, Ok(vec![(1, VARINT), (2, LENGTH_DELIMITED), (3, 5)]));
        let text = fields(bytes).nth(1).unwrap().unwrap();
        assert_eq!(&bytes[text.content], b"ab");
    }

    #[test]
    fn nothing_comes_after_an_error() {
        let read: Vec<_> = fields(b"\x08\x01\x12\x05ab\x08\x01").collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1], Err(Malformed));
    }

    #[test]
    fn an_integer_has_64_bits() {
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(varint(&most, &mut 0), Ok(u64::MAX));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(varint(&beyond, &mut 0), Err(Malformed));
        assert_eq!(varint(&[0x80], &mut 0), Err(Malformed));
    }
}
