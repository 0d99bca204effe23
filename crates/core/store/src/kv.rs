//! The stored bytes of a change: an encoded `mvccpb.KeyValue`.
//!
//! The same bytes stand on disk, in `RangeResponse.kvs` and in `Event.kv`, so they are encoded
//! once, as Go's proto3 does: fields in order, zero ones left out. A tombstone holds only the key.
//! Bytes from disk are parsed with checks and never panic.

use std::fmt;

const KEY: u8 = 0x0a;
const CREATE: u8 = 0x10;
const MOD: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;
/// `RangeResponse.kvs`: field 2, length-delimited.
const KVS_FIELD: u8 = 0x12;

/// The fields of a `KeyValue`, borrowed from its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// Key; empty only in rows that `etcdutl` adds when it bumps the revision.
    pub key: &'a [u8],
    /// Main revision of the key's creation.
    pub create: i64,
    /// Main revision of this change; 0 in a stored tombstone.
    pub main: i64,
    /// Changes since creation, from 1.
    pub version: i64,
    /// Value.
    pub value: &'a [u8],
    /// Lease id, 0 for none.
    pub lease: i64,
}

/// The bytes are no `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKeyValue;

impl fmt::Display for BadKeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stored value is no encoded KeyValue")
    }
}

impl std::error::Error for BadKeyValue {}

/// Bytes of `number` as a varint.
pub(crate) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        put_varint(out, number as u64);
    }
}

impl<'a> KeyValue<'a> {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, KEY, self.key);
        put_number(out, CREATE, self.create);
        put_number(out, MOD, self.main);
        put_number(out, VERSION, self.version);
        put_bytes(out, VALUE, self.value);
        put_number(out, LEASE, self.lease);
    }

    /// Bytes of the encoding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let bytes = |len: usize| if len == 0 { 0 } else { 1 + varint_len(len as u64) + len };
        let number = |n: i64| if n == 0 { 0 } else { 1 + varint_len(n as u64) };
        bytes(self.key.len())
            + number(self.create)
            + number(self.main)
            + number(self.version)
            + bytes(self.value.len())
            + number(self.lease)
    }

    /// Parses stored bytes as Go does: the last of a repeated field counts, unknown fields and
    /// known ones of another wire type are skipped.
    ///
    /// # Errors
    /// [`BadKeyValue`] if the bytes are cut short or no protobuf message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadKeyValue> {
        let mut kv = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let tag = take_varint(&mut rest)?;
            match u8::try_from(tag) {
                Ok(KEY) => kv.key = take_bytes(&mut rest)?,
                Ok(CREATE) => kv.create = take_varint(&mut rest)? as i64,
                Ok(MOD) => kv.main = take_varint(&mut rest)? as i64,
                Ok(VERSION) => kv.version = take_varint(&mut rest)? as i64,
                Ok(VALUE) => kv.value = take_bytes(&mut rest)?,
                Ok(LEASE) => kv.lease = take_varint(&mut rest)? as i64,
                _ => skip(&mut rest, tag)?,
            }
        }
        Ok(kv)
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, BadKeyValue> {
    let mut number = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return Err(BadKeyValue);
        }
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(number);
        }
    }
    Err(BadKeyValue)
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], BadKeyValue> {
    let len = usize::try_from(len).map_err(|_| BadKeyValue)?;
    let (taken, left) = rest.split_at_checked(len).ok_or(BadKeyValue)?;
    *rest = left;
    Ok(taken)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadKeyValue> {
    let len = take_varint(rest)?;
    take(rest, len)
}

/// Skips the value of an unknown field. Groups, which nothing here ever wrote, are refused.
fn skip(rest: &mut &[u8], tag: u64) -> Result<(), BadKeyValue> {
    if tag >> 3 == 0 {
        return Err(BadKeyValue);
    }
    match tag & 7 {
        0 => take_varint(rest).map(drop),
        1 => take(rest, 8).map(drop),
        2 => take_bytes(rest).map(drop),
        5 => take(rest, 4).map(drop),
        _ => Err(BadKeyValue),
    }
}

/// Bytes that an encoded `KeyValue` of `len` bytes takes as one element of `RangeResponse.kvs`.
#[must_use]
pub fn kvs_field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends one element of `RangeResponse.kvs`.
pub fn put_kvs_field(out: &mut Vec<u8>, key_value: &[u8]) {
    out.push(KVS_FIELD);
    put_varint(out, key_value.len() as u64);
    out.extend_from_slice(key_value);
}

/// As [`put_kvs_field`], into room that is there: [`kvs_field_len`] bytes.
pub(crate) fn write_kvs_field(room: &mut [u8], key_value: &[u8]) {
    room[0] = KVS_FIELD;
    let (mut at, mut len) = (1, key_value.len() as u64);
    while len >= 0x80 {
        room[at] = len as u8 | 0x80;
        (at, len) = (at + 1, len >> 7);
    }
    room[at] = len as u8;
    room[at + 1..][..key_value.len()].copy_from_slice(key_value);
}

/// Fuzz target: parsing never panics, and what parses survives a round trip.
#[doc(hidden)]
pub fn fuzz_key_value(data: &[u8]) {
    if let Ok(kv) = KeyValue::parse(data) {
        let mut out = Vec::new();
        kv.encode(&mut out);
        assert_eq!(out.len(), kv.encoded_len());
        assert_eq!(KeyValue::parse(&out), Ok(kv));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use env::{Entropy, SplitMix};

    #[test]
    fn encoding_is_protobufs() {
        let kv = KeyValue { key: b"k", create: 2, main: 300, version: 1, value: b"vv", lease: -1 };
        let mut out = Vec::new();
        kv.encode(&mut out);
        let want = b"\x0a\x01k\x10\x02\x18\xac\x02\x20\x01\x2a\x02vv\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(out, want);
        assert_eq!(KeyValue::parse(&out), Ok(kv));
    }

    #[test]
    fn every_prefix_and_mutation_is_parsed_or_refused_without_panic() {
        let kv = KeyValue {
            key: b"/registry/key",
            create: i64::MAX,
            main: i64::MIN,
            version: 7,
            value: &[9; 200],
            lease: 1 << 40,
        };
        let mut good = Vec::new();
        kv.encode(&mut good);
        for end in 0..good.len() {
            fuzz_key_value(&good[..end]);
        }
        let mut random = SplitMix::new(1);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            let at = random.below(24) as usize;
            bytes[at] = random.next_u64() as u8;
            fuzz_key_value(&bytes);
        }
        assert_eq!(KeyValue::parse(&[0x0a, 0x05, b'x']), Err(BadKeyValue));
        assert_eq!(KeyValue::parse(&[0xff; 11]), Err(BadKeyValue));
    }
}
