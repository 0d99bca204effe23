//! A JSON value as the bytes of a message, with protojson's reading of it and its texts.
//!
//! The message is written flat, fields as they come, and what each message within it is long is
//! filled in at the end: neither depth nor size makes anything be copied more than twice.
//!
//! //= protobuf-go 1.36: encoding/protojson/decode.go (DiscardUnknown)

use std::collections::BTreeSet;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use prost_reflect::{FieldDescriptor, Kind as FieldKind, MessageDescriptor};

use crate::number::{leading, whole};
use crate::tokens::{Kind, Token, Tokens};

/// Messages within messages beyond which protobuf-go gives up.
const MAX_DEPTH: usize = 10_000;

/// protojson's text for JSON that is no such message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn too_deep() -> Self {
        Self::new("exceeded max recursion depth".to_owned())
    }

    /// The text for the client.
    #[must_use]
    pub fn text(&self) -> String {
        format!("proto: {}", self.0)
    }
}

/// A message that is being read.
struct Open {
    message: MessageDescriptor,
    /// Numbers of fields that came already, and oneofs by their place.
    fields: BTreeSet<u32>,
    oneofs: BTreeSet<usize>,
    /// The list that is being read, if one is.
    list: Option<FieldDescriptor>,
    /// Its place in [`Written::parts`]; none for the outermost.
    part: Option<usize>,
}

impl Open {
    fn new(message: MessageDescriptor, part: Option<usize>) -> Self {
        Self { message, fields: BTreeSet::new(), oneofs: BTreeSet::new(), list: None, part }
    }
}

/// A message within another, as a stretch of the flat bytes.
struct Part {
    begins: usize,
    ends: usize,
    parent: Option<usize>,
    /// Bytes that lengths within it take.
    lengths: usize,
}

#[derive(Default)]
struct Written {
    flat: Vec<u8>,
    /// In the order in which they begin.
    parts: Vec<Part>,
}

impl Written {
    fn key(&mut self, field: &FieldDescriptor, wire: WireType) {
        encode_key(field.number(), wire, &mut self.flat);
    }

    /// Begins a message as a field.
    fn begin(&mut self, field: &FieldDescriptor, parent: Option<usize>) -> usize {
        self.key(field, WireType::LengthDelimited);
        let begins = self.flat.len();
        self.parts.push(Part { begins, ends: begins, parent, lengths: 0 });
        self.parts.len() - 1
    }

    fn bytes(&mut self, field: &FieldDescriptor, bytes: &[u8]) {
        self.key(field, WireType::LengthDelimited);
        encode_varint(bytes.len() as u64, &mut self.flat);
        self.flat.extend_from_slice(bytes);
    }

    fn varint(&mut self, field: &FieldDescriptor, value: u64) {
        self.key(field, WireType::Varint);
        encode_varint(value, &mut self.flat);
    }

    /// The message, with the length of each within it in front.
    fn finish(mut self) -> Vec<u8> {
        for n in (0..self.parts.len()).rev() {
            let lengths = self.parts[n].lengths + encoded_len_varint(self.length(n));
            if let Some(parent) = self.parts[n].parent {
                self.parts[parent].lengths += lengths;
            }
        }
        let mut out = Vec::with_capacity(self.flat.len() + 5 * self.parts.len());
        let mut copied = 0;
        for n in 0..self.parts.len() {
            let begins = self.parts[n].begins;
            out.extend_from_slice(&self.flat[copied..begins]);
            encode_varint(self.length(n), &mut out);
            copied = begins;
        }
        out.extend_from_slice(&self.flat[copied..]);
        out
    }

    fn length(&self, n: usize) -> u64 {
        let Part { begins, ends, lengths, .. } = self.parts[n];
        (ends - begins + lengths) as u64
    }
}

/// Reads a message.
///
/// # Errors
/// The text for the first fault.
pub(crate) fn message(message: &MessageDescriptor, json: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut tokens = Tokens::new(json);
    let mut written = Written::default();
    expect(&mut tokens, &Kind::OpenObject)?;
    let mut open = vec![Open::new(message.clone(), None)];
    while let Some(top) = open.last_mut() {
        let within = match top.list.clone() {
            Some(list) => element(&mut tokens, &mut written, top, &list)?,
            None => match field(&mut tokens, &mut written, top, MAX_DEPTH)? {
                Step::Stays => None,
                Step::Enters(field) => Some(field),
                Step::Leaves => {
                    if let Some(part) = top.part {
                        written.parts[part].ends = written.flat.len();
                    }
                    open.pop();
                    continue;
                }
            },
        };
        if let Some((field, message)) = within {
            let parent = top.part;
            if open.len() == MAX_DEPTH {
                return Err(Malformed::too_deep());
            }
            expect(&mut tokens, &Kind::OpenObject)?;
            let part = written.begin(&field, parent);
            open.push(Open::new(message, Some(part)));
        }
    }
    Ok(written.finish())
}

/// A field whose value is a message.
type Within = (FieldDescriptor, MessageDescriptor);

enum Step {
    Stays,
    Enters(Within),
    Leaves,
}

fn expect(tokens: &mut Tokens<'_>, kind: &Kind) -> Result<(), Malformed> {
    let token = tokens.next()?;
    if token.kind == *kind { Ok(()) } else { Err(tokens.unexpected(&token)) }
}

/// Reads what comes next of a list.
fn element(
    tokens: &mut Tokens<'_>,
    written: &mut Written,
    top: &mut Open,
    list: &FieldDescriptor,
) -> Result<Option<Within>, Malformed> {
    if tokens.peek()?.kind == Kind::CloseArray {
        tokens.next()?;
        top.list = None;
        return Ok(None);
    }
    if let FieldKind::Message(message) = list.kind() {
        return Ok(Some((list.clone(), message)));
    }
    scalar(tokens, written, list)?;
    Ok(None)
}

/// Reads what comes next of a message.
fn field(
    tokens: &mut Tokens<'_>,
    written: &mut Written,
    top: &mut Open,
    depth: usize,
) -> Result<Step, Malformed> {
    let token = tokens.next()?;
    let name = match &token.kind {
        Kind::CloseObject => return Ok(Step::Leaves),
        Kind::Name(name) => name,
        _ => return Err(tokens.unexpected(&token)),
    };
    let named = top.message.get_field_by_json_name(name);
    let Some(field) = named.or_else(|| top.message.get_field_by_name(name)) else {
        tokens.skip(depth)?;
        return Ok(Step::Stays);
    };
    if !top.fields.insert(field.number()) {
        return Err(tokens.fault(&token, "duplicate field {raw}"));
    }
    if tokens.peek().is_ok_and(|next| next.kind == Kind::Null) {
        tokens.next()?;
        return Ok(Step::Stays);
    }
    if field.is_list() {
        expect(tokens, &Kind::OpenArray)?;
        top.list = Some(field);
        return Ok(Step::Stays);
    }
    if let Some(oneof) = field.containing_oneof() {
        let place = top.message.oneofs().position(|other| other == oneof).unwrap_or_default();
        if !top.oneofs.insert(place) {
            let text = format!("error parsing {{raw}}, oneof {} is already set", oneof.full_name());
            return Err(tokens.fault(&token, &text));
        }
    }
    if let FieldKind::Message(message) = field.kind() {
        return Ok(Step::Enters((field, message)));
    }
    scalar(tokens, written, &field)?;
    Ok(Step::Stays)
}

/// Reads a value that is no message. Zeros are written as well: they mean what their absence does,
/// or that one of several fields is set.
fn scalar(
    tokens: &mut Tokens<'_>,
    written: &mut Written,
    field: &FieldDescriptor,
) -> Result<(), Malformed> {
    let token = tokens.next()?;
    let kind = field.kind();
    let is_read = match (&kind, &token.kind) {
        (FieldKind::Bool, Kind::Bool(value)) => {
            written.varint(field, u64::from(*value));
            true
        }
        (FieldKind::String, Kind::Text(text)) => {
            written.bytes(field, text.as_bytes());
            true
        }
        (FieldKind::Bytes, Kind::Text(text)) => {
            base64(text).map(|bytes| written.bytes(field, &bytes)).is_some()
        }
        (FieldKind::Enum(values), Kind::Text(name)) => {
            // A name that nobody knows sets nothing.
            if let Some(value) = values.get_value_by_name(name) {
                written.varint(field, i64::from(value.number()) as u64);
            }
            true
        }
        (FieldKind::Enum(_), Kind::Number) | (FieldKind::Int32, _) => {
            integer::<i32>(&token).map(|n| written.varint(field, i64::from(n) as u64)).is_some()
        }
        (FieldKind::Int64, _) => {
            integer::<i64>(&token).map(|n| written.varint(field, n as u64)).is_some()
        }
        (FieldKind::Uint32, _) => {
            integer::<u32>(&token).map(|n| written.varint(field, u64::from(n))).is_some()
        }
        (FieldKind::Uint64, _) => {
            integer::<u64>(&token).map(|n| written.varint(field, n)).is_some()
        }
        _ => false,
    };
    if is_read {
        return Ok(());
    }
    let text =
        format!("invalid value for {} field {}: {{raw}}", kind_name(&kind), field.json_name());
    Err(tokens.fault(&token, &text))
}

fn integer<N: std::str::FromStr>(token: &Token<'_>) -> Option<N> {
    let number = match &token.kind {
        Kind::Number => token.raw,
        Kind::Text(text) if text.trim() == text => leading(text)?,
        _ => return None,
    };
    whole(number)?.parse().ok()
}

/// protobuf's name of a kind.
fn kind_name(kind: &FieldKind) -> &'static str {
    match kind {
        FieldKind::Double => "double",
        FieldKind::Float => "float",
        FieldKind::Int32 => "int32",
        FieldKind::Int64 => "int64",
        FieldKind::Uint32 => "uint32",
        FieldKind::Uint64 => "uint64",
        FieldKind::Sint32 => "sint32",
        FieldKind::Sint64 => "sint64",
        FieldKind::Fixed32 => "fixed32",
        FieldKind::Fixed64 => "fixed64",
        FieldKind::Sfixed32 => "sfixed32",
        FieldKind::Sfixed64 => "sfixed64",
        FieldKind::Bool => "bool",
        FieldKind::String => "string",
        FieldKind::Bytes => "bytes",
        FieldKind::Message(_) => "message",
        FieldKind::Enum(_) => "enum",
    }
}

/// Bytes in either alphabet, with padding or without, as their length says. Go's decoder does not
/// look at ends of lines, nor at bits that are left over.
//= protobuf-go 1.36: encoding/protojson/decode.go#unmarshalBytes
fn base64(text: &str) -> Option<Vec<u8>> {
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let padding = match text.len() % 4 {
        0 => DecodePaddingMode::RequireCanonical,
        _ => DecodePaddingMode::RequireNone,
    };
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    let engine = GeneralPurpose::new(&alphabet, config);
    if text.contains(['\r', '\n']) {
        return engine.decode(text.replace(['\r', '\n'], "")).ok();
    }
    engine.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::request_op::Request;
    use api::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest};
    use api::method::Method;
    use prost::{Message, Name};

    use super::*;
    use crate::Mapping;

    fn read<M: Message + Name + Default>(json: &str) -> Result<M, String> {
        let message = crate::pool().get_message_by_name(&M::full_name()).unwrap();
        let bytes = super::message(&message, json.as_bytes()).map_err(|e| e.text())?;
        Ok(M::decode(&bytes[..]).unwrap())
    }

    #[test]
    fn a_message_is_read_by_either_name_of_its_fields() {
        let json = r#" {"key":"Zm9v","rangeEnd":"_-8","limit":"7","revision":1e1,"unknown":[{"a":[]}],
            "sort_order":"DESCEND","sortTarget":3,"keys_only":null,"serializable":true} "#;
        let wanted = RangeRequest {
            key: "foo".into(),
            range_end: vec![0xff, 0xef].into(),
            limit: 7,
            revision: 10,
            sort_order: 2,
            sort_target: 3,
            serializable: true,
            ..RangeRequest::default()
        };
        assert_eq!(read(json), Ok(wanted));
        let json = r#"{"filters":["NODELETE",0,"NONE",1],"watch_id":"12 34"}"#;
        let watch: WatchCreateRequest = read(json).unwrap();
        assert_eq!((watch.filters, watch.watch_id), (vec![1, 0, 1], 12));
    }

    #[test]
    fn faults_are_told_with_their_place() {
        for (json, text) in [
            ("[]", "syntax error (line 1:1): unexpected token ["),
            ("\"x\"", "syntax error (line 1:1): unexpected token \"x\""),
            ("{\"key\":1}", "(line 1:8): invalid value for bytes field key: 1"),
            ("{\"key\":\n \"!!\"}", "(line 2:2): invalid value for bytes field key: \"!!\""),
            ("{\"lease\":\"x\"}", "(line 1:10): invalid value for int64 field lease: \"x\""),
            ("{\"lease\":1.5}", "(line 1:10): invalid value for int64 field lease: 1.5"),
            ("{\"lease\":{}}", "(line 1:10): invalid value for int64 field lease: {"),
            (
                "{\"lease\":9223372036854775808}",
                "(line 1:10): invalid value for int64 field lease: 9223372036854775808",
            ),
            ("{\"prevKv\":\"true\"}", "(line 1:11): invalid value for bool field prevKv: \"true\""),
            ("{\"key\":\"\",\"key\":\"\"}", "(line 1:11): duplicate field \"key\""),
            (
                "{\"a\":\"\\ud800\\u0041\"}",
                "syntax error (line 1:6): invalid escape code \"\\\\u0041\" in string",
            ),
        ] {
            assert_eq!(read::<PutRequest>(json), Err(format!("proto: {text}")), "{json}");
        }
        let json = r#"{"request_put":{},"request_range":{}}"#;
        let text = "proto: (line 1:19): error parsing \"request_range\", oneof \
                    etcdserverpb.RequestOp.request is already set";
        assert_eq!(read::<RequestOp>(json), Err(text.to_owned()));
        let json = r#"{"success":[null]}"#;
        let text = "proto: syntax error (line 1:13): unexpected token null";
        assert_eq!(read::<TxnRequest>(json), Err(text.to_owned()));
    }

    #[test]
    fn messages_within_messages_have_their_lengths() {
        let put = PutRequest { key: vec![b'k'; 300].into(), ..PutRequest::default() };
        let txn = |request| TxnRequest {
            success: vec![RequestOp { request: Some(request) }],
            ..TxnRequest::default()
        };
        let wanted = txn(Request::RequestTxn(txn(Request::RequestPut(put.clone()))));
        let key = base64::prelude::BASE64_STANDARD.encode(&put.key);
        let json = format!(
            r#"{{"success":[{{"requestTxn":{{"success":[{{"requestPut":{{"key":"{key}"}}}}]}}}}]}}"#
        );
        assert_eq!(read(&json), Ok(wanted.clone()));
        let bytes = Mapping::of(Method::Txn.row()).decode(json.as_bytes()).unwrap();
        assert_eq!(bytes, wanted.encode_to_vec());
    }

    #[test]
    fn depth_costs_no_stack_and_no_copies() {
        let deep = |depth: usize| {
            format!("{}{}", r#"{"success":[{"requestTxn":"#.repeat(depth), "{}".to_owned())
                + &"}]}".repeat(depth)
        };
        let txn = Mapping::of(Method::Txn.row());
        assert!(txn.decode(deep(3_000).as_bytes()).is_ok());
        let text = txn.decode(deep(5_000).as_bytes()).unwrap_err().text();
        assert_eq!(text, "proto: exceeded max recursion depth");
        let unknown = format!("{{\"x\":{}{}}}", "[".repeat(10_001), "]".repeat(10_001));
        assert!(txn.decode(unknown.as_bytes()).is_err());
    }

    proptest::proptest! {
        /// Whatever comes, nothing panics, and what is read of JSON that is some is a message.
        #[test]
        fn no_body_panics(pieces in proptest::collection::vec(0usize..26, 0..40), cut in 0usize..8) {
            const PIECES: [&str; 26] = [
                "{", "}", "[", "]", ",", ":", "\"key\"", "\"success\"", "\"compare\"", "\"request_put\"",
                "\"requestTxn\"", "\"target\"", "\"VERSION\"", "null", "true", "1e3", "-0", "\"Zm9v\"",
                "\"\\ud800\"", "\"\\u00e9\"", "é", " ", "\n", "\"lease\"", "9999999999999999999", "\u{0}",
            ];
            let body: String = pieces.iter().map(|n| PIECES[*n]).collect();
            let body = &body.as_bytes()[..body.len().saturating_sub(cut)];
            let mut values = crate::Values::default();
            values.push(body);
            values.end();
            let mapping = Mapping::of(Method::Txn.row());
            // Bytes that were not checked do not panic either.
            let _ = mapping.decode(body);
            while let Ok(crate::Next::Value(value)) = values.take_next() {
                // Go takes numbers of any size, and looks at what is in texts later.
                let other = serde_json::from_slice::<serde_json::Value>(&value);
                let is_large = |e: serde_json::Error| e.to_string().starts_with("number out of range");
                proptest::prop_assert!(other.err().is_none_or(is_large)
                    || String::from_utf8_lossy(&value).contains("\\ud800")
                    || std::str::from_utf8(&value).is_err());
                if let Ok(message) = mapping.decode(&value) {
                    proptest::prop_assert!(TxnRequest::decode(&message[..]).is_ok());
                }
            }
        }
    }
}
