//! The bytes of a message as JSON, as protojson writes them for etcd: fields by their names in the
//! .proto files, none that is not set, 64-bit numbers as texts.
//!
//! //= protobuf-go 1.36: encoding/protojson/encode.go (UseProtoNames)

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost::DecodeError;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// Writes a message.
///
/// # Errors
/// The bytes are none.
pub(crate) fn message(message: &MessageDescriptor, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    object(message, bytes, &mut out)?;
    Ok(out)
}

/// A field's value as it is on the wire.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, those of one number together.
fn fields<'a>(
    message: &MessageDescriptor,
    mut bytes: &'a [u8],
) -> Result<Vec<(FieldDescriptor, Vec<Value<'a>>)>, DecodeError> {
    let mut fields: Vec<(FieldDescriptor, Vec<Value<'a>>)> = Vec::new();
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes)?;
        let value = match wire {
            WireType::Varint => Value::Number(decode_varint(&mut bytes)?),
            WireType::LengthDelimited => Value::Bytes(take(&mut bytes)?),
            _ => return Err(broken()),
        };
        let last = fields.last_mut().filter(|(field, _)| field.number() == number);
        if let Some((_, values)) = last {
            values.push(value);
        } else if let Some((_, values)) = fields.iter_mut().find(|(f, _)| f.number() == number) {
            values.push(value);
        } else if let Some(field) = message.get_field(number) {
            fields.push((field, vec![value]));
        }
    }
    Ok(fields)
}

fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(decode_varint(bytes)?).map_err(|_| broken())?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
    *bytes = rest;
    Ok(taken)
}

#[expect(deprecated, reason = "the only way to say that bytes are no message")]
fn broken() -> DecodeError {
    DecodeError::new("a field of another type")
}

fn object(message: &MessageDescriptor, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.push(b'{');
    let begins = out.len();
    for (field, values) in fields(message, bytes)? {
        let separated = out.len() > begins;
        let from = out.len();
        if separated {
            out.push(b',');
        }
        text(field.name(), out);
        out.push(b':');
        let is_set = if field.is_list() {
            list(&field, &values, out)?;
            true
        } else {
            let last = *values.last().expect("a field that stands there");
            let is_default = match last {
                Value::Number(number) => number == 0,
                Value::Bytes(bytes) => bytes.is_empty(),
            };
            value(&field.kind(), last, out)?;
            !is_default || field.supports_presence()
        };
        if !is_set {
            out.truncate(from);
        }
    }
    out.push(b'}');
    Ok(())
}

fn list(
    field: &FieldDescriptor,
    values: &[Value<'_>],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    out.push(b'[');
    let begins = out.len();
    let one = |wire: Value<'_>, out: &mut Vec<u8>| {
        if out.len() > begins {
            out.push(b',');
        }
        value(&field.kind(), wire, out)
    };
    let is_number = !matches!(field.kind(), Kind::Message(_) | Kind::String | Kind::Bytes);
    for wire in values {
        match *wire {
            Value::Bytes(mut packed) if is_number => {
                while !packed.is_empty() {
                    one(Value::Number(decode_varint(&mut packed)?), out)?;
                }
            }
            wire => one(wire, out)?,
        }
    }
    out.push(b']');
    Ok(())
}

fn value(kind: &Kind, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let put = |out: &mut Vec<u8>, text: String| out.extend_from_slice(text.as_bytes());
    match (kind, value) {
        (Kind::Bool, Value::Number(number)) => put(out, (number != 0).to_string()),
        (Kind::Int32, Value::Number(number)) => put(out, (number as i32).to_string()),
        (Kind::Uint32, Value::Number(number)) => put(out, (number as u32).to_string()),
        (Kind::Int64, Value::Number(number)) => put(out, format!("\"{}\"", number as i64)),
        (Kind::Uint64, Value::Number(number)) => put(out, format!("\"{number}\"")),
        (Kind::Enum(names), Value::Number(number)) => match names.get_value(number as i32) {
            Some(name) => text(name.name(), out),
            None => put(out, (number as i32).to_string()),
        },
        (Kind::String, Value::Bytes(bytes)) => text(&String::from_utf8_lossy(bytes), out),
        (Kind::Bytes, Value::Bytes(bytes)) => {
            out.push(b'"');
            let from = out.len();
            out.resize(from + bytes.len().div_ceil(3) * 4, 0);
            let written = BASE64_STANDARD.encode_slice(bytes, &mut out[from..]);
            out.truncate(from + written.expect("four letters for three bytes"));
            out.push(b'"');
        }
        (Kind::Message(message), Value::Bytes(bytes)) => object(message, bytes, out)?,
        _ => return Err(broken()),
    }
    Ok(())
}

/// A text with its quotes.
pub(crate) fn text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\x1f' => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{AlarmMember, AlarmResponse, RangeResponse, ResponseHeader};
    use api::mvccpb::KeyValue;
    use prost::{Message, Name};

    use super::*;

    fn json<M: Message + Name>(message: &M) -> String {
        let descriptor = crate::pool().get_message_by_name(&M::full_name()).unwrap();
        let json = super::message(&descriptor, &message.encode_to_vec()).unwrap();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn a_response_has_what_is_set() {
        let header = ResponseHeader { cluster_id: u64::MAX, revision: -1, ..Default::default() };
        let kv = |key: &'static str| KeyValue { key: key.into(), ..KeyValue::default() };
        let response = RangeResponse {
            header: Some(header),
            kvs: vec![kv("foo"), kv("")],
            more: true,
            count: 2,
        };
        assert_eq!(
            json(&response),
            "{\"header\":{\"cluster_id\":\"18446744073709551615\",\"revision\":\"-1\"},\
             \"kvs\":[{\"key\":\"Zm9v\"},{}],\"more\":true,\"count\":\"2\"}"
        );
        let alarms = [1, 9].map(|alarm| AlarmMember { member_id: 1, alarm });
        assert_eq!(
            json(&AlarmResponse { header: None, alarms: alarms.to_vec() }),
            "{\"alarms\":[{\"memberID\":\"1\",\"alarm\":\"NOSPACE\"},{\"memberID\":\"1\",\"alarm\":9}]}"
        );
    }

    #[test]
    fn texts_are_escaped() {
        let mut out = Vec::new();
        text("a\"\\\n\u{1}é", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"\\\\\\n\\u0001é\"");
    }
}
