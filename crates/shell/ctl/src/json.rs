//! Messages as Go's `encoding/json` writes the structs that protoc-gen-go makes of them.
//!
//! Works on encoded messages and the descriptors of `api`, so that no message is named here: names
//! and order are those of the .proto files; zero fields are left out; bytes are base64; enums are
//! numbers; a oneof is an object under its Go name.

use std::sync::OnceLock;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Deepest nesting that is printed.
const MAX_DEPTH: u32 = 100;

fn descriptors() -> &'static FileDescriptorSet {
    static SET: OnceLock<FileDescriptorSet> = OnceLock::new();
    SET.get_or_init(|| {
        FileDescriptorSet::decode(api::DESCRIPTORS).expect("written by our own build")
    })
}

fn descriptor(full_name: &str) -> Option<&'static DescriptorProto> {
    descriptors().file.iter().find_map(|file| {
        let name = full_name.trim_start_matches('.').strip_prefix(file.package())?;
        let name = name.strip_prefix('.')?;
        file.message_type.iter().find(|m| m.name() == name)
    })
}

enum Raw {
    Number(u64),
    Bytes(Bytes),
}

/// A message as JSON; `null` if there is no such type or the bytes are not one.
#[must_use]
pub fn message(full_name: &str, message: &impl Message) -> String {
    bytes(full_name, message.encode_to_vec().into())
}

/// An encoded message as JSON.
#[must_use]
pub fn bytes(full_name: &str, bytes: Bytes) -> String {
    let object = descriptor(full_name).and_then(|d| object(d, bytes, 0));
    object.map_or_else(|| "null".to_owned(), |pairs| format!("{{{}}}", pairs.join(",")))
}

/// The pairs of an object that is merged into another one.
#[must_use]
pub fn pairs(full_name: &str, message: &impl Message) -> Vec<String> {
    let bytes = message.encode_to_vec().into();
    descriptor(full_name).and_then(|d| object(d, bytes, 0)).unwrap_or_default()
}

fn object(descriptor: &DescriptorProto, mut bytes: Bytes, depth: u32) -> Option<Vec<String>> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut raw: Vec<(u32, Raw)> = Vec::new();
    while bytes.has_remaining() {
        let (number, wire) = decode_key(&mut bytes).ok()?;
        match wire {
            WireType::Varint => raw.push((number, Raw::Number(decode_varint(&mut bytes).ok()?))),
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                if len > bytes.len() {
                    return None;
                }
                raw.push((number, Raw::Bytes(bytes.split_to(len))));
            }
            _ => skip_field(wire, number, &mut bytes, DecodeContext::default()).ok()?,
        }
    }
    let mut pairs = Vec::new();
    let mut unions_seen = Vec::new();
    for field in &descriptor.field {
        let mut values = raw.iter().filter(|(n, _)| i64::from(*n) == i64::from(field.number()));
        if let Some(union) = field.oneof_index.filter(|_| !field.proto3_optional()) {
            if unions_seen.contains(&union) {
                continue;
            }
            unions_seen.push(union);
            pairs.push(one_of(descriptor, union, &raw, depth)?);
            continue;
        }
        if field.label() == Label::Repeated {
            let items: Option<Vec<_>> = values.map(|(_, v)| value(field, v, depth)).collect();
            let items = items?;
            if !items.is_empty() {
                pairs.push(format!("\"{}\":[{}]", field.name(), items.join(",")));
            }
        } else if let Some((_, last)) = values.next_back() {
            pairs.push(format!("\"{}\":{}", field.name(), value(field, last, depth)?));
        }
    }
    Some(pairs)
}

fn one_of(
    descriptor: &DescriptorProto,
    union: i32,
    raw: &[(u32, Raw)],
    depth: u32,
) -> Option<String> {
    let name = descriptor.oneof_decl.get(usize::try_from(union).ok()?)?.name();
    let name: String = name.split('_').map(capitalised).collect();
    let set = descriptor.field.iter().filter(|f| f.oneof_index == Some(union)).find_map(|f| {
        let found = raw.iter().rev().find(|(n, _)| i64::from(*n) == i64::from(f.number()));
        found.map(|(_, v)| (f, v))
    });
    Some(match set {
        None => format!("\"{name}\":null"),
        Some((field, v)) => {
            format!("\"{name}\":{{\"{}\":{}}}", field.name(), value(field, v, depth)?)
        }
    })
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn value(field: &FieldDescriptorProto, raw: &Raw, depth: u32) -> Option<String> {
    Some(match (raw, field.r#type()) {
        (Raw::Number(n), Type::Bool) => (*n != 0).to_string(),
        (Raw::Number(n), Type::Int64 | Type::Int32 | Type::Enum) => (*n as i64).to_string(),
        (Raw::Number(n), _) => n.to_string(),
        (Raw::Bytes(b), Type::String) => string(&String::from_utf8_lossy(b)),
        (Raw::Bytes(b), Type::Bytes) => format!("\"{}\"", base64(b)),
        (Raw::Bytes(b), Type::Message) => {
            let descriptor = descriptor(field.type_name())?;
            format!("{{{}}}", object(descriptor, b.clone(), depth + 1)?.join(","))
        }
        (Raw::Bytes(_), _) => return None,
    })
}

/// A string as Go writes it: `<`, `>` and `&` are escaped too.
#[must_use]
pub fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let shown = place <= chunk.len();
            let six = (bits >> (18 - 6 * place) & 63) as usize;
            out.push(if shown { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{PutResponse, ResponseHeader, ResponseOp, TxnResponse, response_op};

    use super::*;

    #[test]
    fn messages_are_written_as_go_writes_them() {
        let header = Some(ResponseHeader { revision: -2, ..ResponseHeader::default() });
        let put = PutResponse {
            header,
            prev_kv: Some(api::mvccpb::KeyValue {
                key: Bytes::from_static(b"foo"),
                ..Default::default()
            }),
        };
        let union = Some(response_op::Response::ResponsePut(put));
        let txn = TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded: true,
            responses: vec![ResponseOp { response: union }, ResponseOp { response: None }],
        };
        assert_eq!(
            message("etcdserverpb.TxnResponse", &txn),
            r#"{"header":{},"succeeded":true,"responses":[{"Response":{"response_put":{"header":{"revision":-2},"prev_kv":{"key":"Zm9v"}}}},{"Response":null}]}"#
        );
    }

    #[test]
    fn base64_and_strings_are_as_in_go() {
        assert_eq!(
            [base64(b""), base64(b"a"), base64(b"ab"), base64(b"abc")],
            ["", "YQ==", "YWI=", "YWJj"]
        );
        assert_eq!(string("<a&\"\n>"), r#""\u003ca\u0026\"\n\u003e""#);
    }
}
