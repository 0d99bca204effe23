//! Formats of answers, and the parts that several commands print alike.

use api::etcdserverpb::ResponseHeader;
use api::method::Method;
use api::mvccpb::KeyValue;
use cli::{Exit, output, text};
use prost::Message;

use crate::json;
use crate::session::Session;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Simple,
    Json,
    Fields,
    Protobuf,
    Table,
}

impl Format {
    /// The format of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Format::Simple,
            "json" => Format::Json,
            "fields" => Format::Fields,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return None,
        })
    }

    /// The refusal of a command that does not have this format.
    #[must_use]
    pub fn unsupported(self) -> Exit {
        let name = match self {
            Format::Simple => "simple",
            Format::Json => "json",
            Format::Fields => "fields",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
        };
        Exit::new(Exit::BAD_FEATURE, format!("{name} not supported as output format"))
    }
}

/// Prints an answer in the session's format.
///
/// # Errors
/// The command does not have the format.
pub fn answer(
    session: &Session<'_>,
    method: Method,
    message: &impl Message,
    simple: impl FnOnce(&mut Vec<u8>) -> Result<(), Exit>,
    fields: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Exit> {
    let mut text = Vec::new();
    match session.format {
        Format::Simple => simple(&mut text)?,
        Format::Fields => fields(&mut text),
        Format::Json => {
            let row = method.row();
            let package = row.service.split('.').next().unwrap_or_default();
            text = json::message(&format!("{package}.{}", row.response), message).into_bytes();
            text.push(b'\n');
        }
        Format::Protobuf => text = message.encode_to_vec(),
        Format::Table => return Err(Format::Table.unsupported()),
    }
    output::out(&text);
    Ok(())
}

/// Prints the answer to a change that says no more than that it was made: a line, or the header.
///
/// # Errors
/// As [`answer`].
pub fn done(
    session: &Session<'_>,
    method: Method,
    (message, header): (&impl Message, Option<ResponseHeader>),
    said: impl AsRef<[u8]>,
) -> Result<(), Exit> {
    let simple = |out: &mut Vec<u8>| {
        line(out, said);
        Ok(())
    };
    let fields = |out: &mut Vec<u8>| header_fields(out, header.as_ref(), session.is_hex);
    answer(session, method, message, simple, fields)
}

/// Adds a line.
pub fn line(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.extend_from_slice(text.as_ref());
    out.push(b'\n');
}

/// Adds `"Name" : value`.
pub fn field(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    line(out, format!("\"{name}\" : {value}"));
}

/// An id in `fields` output.
#[must_use]
pub fn id(value: u64, is_hex: bool) -> String {
    if is_hex { format!("{value:x}") } else { value.to_string() }
}

/// The header in `fields` output.
pub fn header_fields(out: &mut Vec<u8>, header: Option<&ResponseHeader>, is_hex: bool) {
    let header = header.copied().unwrap_or_default();
    field(out, "ClusterID", id(header.cluster_id, is_hex));
    field(out, "MemberID", id(header.member_id, is_hex));
    if header.revision > 0 {
        field(out, "Revision", header.revision);
    }
    field(out, "RaftTerm", header.raft_term);
}

/// A key-value in `fields` output.
pub fn kv_fields(out: &mut Vec<u8>, prefix: &str, kv: &KeyValue, is_hex: bool) {
    let name = |n: &str| format!("{prefix}{n}");
    field(out, &name("Key"), text::quote(&kv.key));
    field(out, &name("CreateRevision"), kv.create_revision);
    field(out, &name("ModRevision"), kv.mod_revision);
    field(out, &name("Version"), kv.version);
    field(out, &name("Value"), text::quote(&kv.value));
    let lease = if is_hex { format!("{:016x}", kv.lease) } else { kv.lease.to_string() };
    field(out, &name("Lease"), lease);
}

/// Key and value in simple output.
pub fn kv_lines(out: &mut Vec<u8>, kv: &KeyValue, is_hex: bool, value_only: bool) {
    let shown = |bytes: &[u8]| if is_hex { text::hex(bytes).into_bytes() } else { bytes.to_vec() };
    if !value_only {
        line(out, shown(&kv.key));
    }
    line(out, shown(&kv.value));
}
