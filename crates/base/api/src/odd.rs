//! Messages as protobuf-go reads them where prost does not.
//!
//! A known field of another wire type is unknown to Go; prost refuses the message. Groups, which
//! no message of ours has, are unknown fields too; prost skips them by recursing once per level,
//! so a long row of group starts would end the process. [`decode`] takes both out beforehand; it
//! walks by the descriptors and never recurses deeper than they nest. It reads what clients send
//! and what the log holds: a Go member writes requests of clients there with all their oddities.
//!
//! //= protobuf-go 1.36: internal/impl/decode.go#unmarshalPointer

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use crate::wire::{MAX_NUMBER, Malformed, skip, tag};

/// Messages within messages. Transactions are bounded more tightly before.
const MAX_DEPTH: usize = 1_000;

/// A message shorter than this can hold no groups deep enough to matter.
const SHORT_BYTES: usize = 1_024;

/// Why bytes are not a message, as protobuf-go tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// They are not in protobuf's wire format.
    Wire,
    /// A text in them is not UTF-8.
    Utf8,
}

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Undecodable::Utf8 => "string field contains invalid UTF-8",
            Undecodable::Wire => "proto: cannot parse invalid wire-format data",
        })
    }
}

impl std::error::Error for Undecodable {}

/// Decodes what protobuf-go would, without recursing over what it skips. Nearly every message
/// is proper and short, and is decoded at once.
///
/// # Errors
/// [`Undecodable`], where protobuf-go refuses too.
pub fn decode<M: Message + Default + Name>(message: Bytes) -> Result<M, Undecodable> {
    if message.len() < SHORT_BYTES
        && let Ok(proper) = M::decode(message.clone())
    {
        return Ok(proper);
    }
    let cleaned = clean(&message, &M::full_name()).map_err(|_| Undecodable::Wire)?;
    M::decode(cleaned.map_or(message, Bytes::from)).map_err(|e| {
        if e.to_string().contains("UTF-8") { Undecodable::Utf8 } else { Undecodable::Wire }
    })
}

/// How a .proto file declares a field.
#[derive(Clone, Debug)]
struct DeclaredField {
    wire: u8,
    /// Whether it may be packed.
    packable: bool,
    /// The message that it is.
    message: Option<String>,
}

type DeclaredFields = HashMap<u64, DeclaredField>;

/// The fields of every message, by full name.
static MESSAGES: LazyLock<HashMap<String, DeclaredFields>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(crate::DESCRIPTORS).expect("compiled with this program");
    let mut all = HashMap::new();
    for file in &files.file {
        for message in &file.message_type {
            add(&mut all, file.package(), message);
        }
    }
    all
});

fn add(all: &mut HashMap<String, DeclaredFields>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        add(all, &name, nested);
    }
    let fields = message.field.iter().map(|field| {
        let wire = match field.r#type() {
            Type::Double | Type::Fixed64 | Type::Sfixed64 => 1,
            Type::String | Type::Bytes | Type::Message => 2,
            Type::Float | Type::Fixed32 | Type::Sfixed32 => 5,
            Type::Group => 3,
            _ => 0,
        };
        let packable = wire != 2 && field.label() == Label::Repeated;
        let message = (field.r#type() == Type::Message)
            .then(|| field.type_name().trim_start_matches('.').to_owned());
        (u64::from(field.number().cast_unsigned()), DeclaredField { wire, packable, message })
    });
    all.insert(name, fields.collect());
}

/// What to do with a field.
enum Verdict<'a> {
    Keep,
    Drop,
    /// Keep it, but look at the message within.
    Within(&'a DeclaredFields),
}

fn judge(fields: &DeclaredFields, number: u64, wire: u8) -> Verdict<'_> {
    match fields.get(&number) {
        _ if wire == 3 => Verdict::Drop,
        Some(field) if field.wire == wire => {
            let within = field.message.as_ref().and_then(|name| MESSAGES.get(name));
            within.map_or(Verdict::Keep, Verdict::Within)
        }
        Some(field) if field.packable && wire == 2 => Verdict::Keep,
        Some(_) => Verdict::Drop,
        None => Verdict::Keep,
    }
}

/// Whether anything must be taken out.
fn is_odd(bytes: &[u8], fields: &DeclaredFields, depth: usize) -> Result<bool, Malformed> {
    let mut at = 0;
    while at < bytes.len() {
        let (number, wire) = tag(bytes, &mut at, MAX_NUMBER)?;
        let begin = skip(bytes, &mut at, number, wire)?;
        match judge(fields, number, wire) {
            Verdict::Keep => {}
            Verdict::Drop => return Ok(true),
            Verdict::Within(_) if depth == 0 => return Err(Malformed),
            Verdict::Within(inner) => {
                if is_odd(&bytes[begin..at], inner, depth - 1)? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn copy(bytes: &[u8], fields: &DeclaredFields, depth: usize) -> Result<Vec<u8>, Malformed> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let start = at;
        let (number, wire) = tag(bytes, &mut at, MAX_NUMBER)?;
        let begin = skip(bytes, &mut at, number, wire)?;
        match judge(fields, number, wire) {
            Verdict::Keep => out.extend_from_slice(&bytes[start..at]),
            Verdict::Drop => {}
            Verdict::Within(_) if depth == 0 => return Err(Malformed),
            Verdict::Within(inner) => {
                let inner = copy(&bytes[begin..at], inner, depth - 1)?;
                prost::encoding::encode_varint(number << 3 | 2, &mut out);
                prost::encoding::encode_varint(inner.len() as u64, &mut out);
                out.extend_from_slice(&inner);
            }
        }
    }
    Ok(out)
}

/// The message `name` without its odd fields; `None` if it has none.
///
/// # Errors
/// [`Malformed`].
fn clean(bytes: &[u8], name: &str) -> Result<Option<Vec<u8>>, Malformed> {
    let fields = MESSAGES.get(name).ok_or(Malformed)?;
    if !is_odd(bytes, fields, MAX_DEPTH)? {
        return Ok(None);
    }
    copy(bytes, fields, MAX_DEPTH).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::{RangeRequest, TxnRequest};
    use crate::wire::MAX_NUMBER_SKIPPED;

    #[test]
    fn fields_of_another_wire_type_and_groups_are_taken_out() {
        let name = "etcdserverpb.RangeRequest";
        let proper = RangeRequest { key: "a".into(), limit: 7, ..Default::default() };
        let proper = proper.encode_to_vec();
        assert_eq!(clean(&proper, name), Ok(None));
        for odd in
            [&b"\x08\x05"[..], b"\x1a\x01x", b"\x1d1234", b"\x1b\x08\x01\x1c", b"\x9b\x06\x9c\x06"]
        {
            let message = [odd, &proper].concat();
            assert_eq!(clean(&message, name), Ok(Some(proper.clone())), "{odd:?}");
        }
        for bad in [&b"\x1b"[..], b"\x1b\x14", b"\x1c", b"\x00\x00", b"\x07"] {
            assert_eq!(clean(&[&proper, bad].concat(), name), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn an_odd_message_decodes_to_what_go_makes_of_it() {
        let odd = Bytes::from_static(b"\x0a\x01a\x1a\x01x");
        let range: RangeRequest = decode(odd).unwrap();
        assert_eq!((&range.key[..], range.limit), (&b"a"[..], 0));
        assert_eq!(decode::<RangeRequest>(b"\x07"[..].into()), Err(Undecodable::Wire));
    }

    #[test]
    fn numbers_may_be_greater_within_a_group() {
        let mut inner = Vec::new();
        prost::encoding::encode_varint(MAX_NUMBER_SKIPPED << 3, &mut inner);
        inner.push(1);
        let group = [&[0x1b], &inner[..], &[0x1c]].concat();
        assert_eq!(clean(&group, "etcdserverpb.RangeRequest"), Ok(Some(vec![])));
        assert_eq!(clean(&inner, "etcdserverpb.RangeRequest"), Err(Malformed));
    }

    #[test]
    fn what_is_odd_within_a_message_goes_too() {
        // A transaction with an operation whose range has its limit as bytes.
        let message = [0x12, 8, 0x0a, 6, 0x0a, 1, b'a', 0x1a, 1, b'x'];
        let cleaned = clean(&message, "etcdserverpb.TxnRequest").unwrap().unwrap();
        assert_eq!(cleaned, [0x12, 5, 0x0a, 3, 0x0a, 1, b'a']);
        assert_eq!(TxnRequest::decode(&cleaned[..]).unwrap().success.len(), 1);
    }

    #[test]
    fn a_row_of_group_starts_is_refused_without_recursion() {
        let rows = vec![0x1b; 1_000_000];
        assert_eq!(clean(&rows, "etcdserverpb.RangeRequest"), Err(Malformed));
        let closed = [vec![0x1b; 9_999], vec![0x1c; 9_999]].concat();
        assert_eq!(clean(&closed, "etcdserverpb.RangeRequest"), Ok(Some(vec![])));
    }
}
