//! A line of the audit log: one JSON object.
//!
//! Texts of clients are bounded, and marked where they were cut. Bytes that are no UTF-8 stand in
//! base64 under a name that says so: `key` becomes `key_base64`.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use calls::{Changes, Ended, Record};
use env::WallTime;
use types::limits::{AUDIT_KEYS, AUDIT_LINE_KEY_BYTES, AUDIT_TEXT_BYTES};

use super::subject::{IsChange, tell_subject};

/// Bytes of a time up to its second: `2006-01-02T15:04:05`.
const SECOND_BYTES: usize = 19;

/// Writes lines, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) text: String,
    /// The second that was written last, with its text.
    second: Option<(u64, String)>,
}

impl Lines {
    /// Appends the line of a record, unless its request turns out to change nothing.
    pub(crate) fn record(&mut self, at: WallTime, record: &Record) {
        let began = self.text.len();
        self.begin(at);
        let out = &mut self.text;
        out.push_str(",\"method\":\"");
        out.push_str(record.row.path);
        out.push('"');
        member(out, "user", &record.user);
        member(out, "remote", record.remote.as_deref().unwrap_or_default());
        let is_change = tell_subject(out, record.row.method, &record.request);
        let is_refused = matches!(record.ended, Ended::Refused(_));
        let by_request = calls::audit::changes(record.row.method) == Changes::ByRequest;
        if by_request && is_change == IsChange::No && !is_refused {
            out.truncate(began);
            return;
        }
        let revision = if let Ended::Done(revision) = record.ended { revision.0 } else { 0 };
        number(out, "revision", revision);
        match &record.ended {
            Ended::Done(_) => out.push_str(",\"result\":\"ok\""),
            Ended::Refused(status) | Ended::Failed(status) => {
                member(out, "result", &status.message);
            }
            Ended::Unanswered => out.push_str(",\"result\":\"unanswered\""),
        }
        out.push_str("}\n");
    }

    /// Appends the line that tells of others which are missing before it.
    pub(crate) fn dropped(&mut self, at: WallTime, count: u64) {
        self.begin(at);
        self.text.push_str(",\"dropped\":");
        self.text.push_str(&count.to_string());
        self.text.push_str("}\n");
    }

    fn begin(&mut self, at: WallTime) {
        let (seconds, nanos) = (at.unix_secs(), at.0 % 1_000_000_000);
        if self.second.as_ref().is_none_or(|(known, _)| *known != seconds) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let mut text = humantime::format_rfc3339_seconds(time).to_string();
            text.truncate(SECOND_BYTES);
            self.second = Some((seconds, text));
        }
        self.text.push_str("{\"time\":\"");
        if let Some((_, text)) = &self.second {
            self.text.push_str(text);
        }
        self.text.push('.');
        let digits: [u8; 9] =
            std::array::from_fn(|place| b'0' + (nanos / 10_u64.pow(8 - place as u32) % 10) as u8);
        digits.into_iter().for_each(|digit| self.text.push(char::from(digit)));
        self.text.push_str("Z\"");
    }
}

/// As much of a text as has at most `limit` bytes.
#[must_use]
pub fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends a text as JSON has it.
fn quoted(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Appends `,"name":"text"`, cut if it is long.
pub(crate) fn member(out: &mut String, name: &str, text: &str) {
    out.push(',');
    bytes(out, name, text.as_bytes());
}

/// Appends `,"name":number`.
pub(crate) fn number(out: &mut String, name: &str, number: i64) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(&number.to_string());
}

/// Appends `"name":"…"`, or `"name_base64":"…"` if it is no text; `"name_cut":true` behind it if it
/// was cut.
fn bytes(out: &mut String, name: &str, bytes: &[u8]) {
    out.push('"');
    out.push_str(name);
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.push_str("\":");
            quoted(out, cut(text, AUDIT_TEXT_BYTES));
        }
        Err(_) => {
            out.push_str("_base64\":\"");
            out.push_str(&STANDARD.encode(&bytes[..bytes.len().min(AUDIT_TEXT_BYTES)]));
            out.push('"');
        }
    }
    if bytes.len() > AUDIT_TEXT_BYTES {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("_cut\":true");
    }
}

/// The list of keys that a line names.
pub(crate) struct Keys<'a> {
    out: &'a mut String,
    named: usize,
    bytes: usize,
    omitted: usize,
}

impl<'a> Keys<'a> {
    pub(crate) fn begin(out: &'a mut String) -> Self {
        out.push_str(",\"keys\":[");
        Self { out, named: 0, bytes: 0, omitted: 0 }
    }

    /// Appends a key, or a range if `range_end` is not empty; `operation` tells those of a
    /// transaction apart.
    pub(crate) fn push(&mut self, operation: Option<&str>, key: &[u8], range_end: &[u8]) {
        if self.named >= AUDIT_KEYS || self.bytes >= AUDIT_LINE_KEY_BYTES {
            self.omitted += 1;
            return;
        }
        self.out.push_str(if self.named > 0 { ",{" } else { "{" });
        if let Some(operation) = operation {
            self.out.push_str("\"op\":\"");
            self.out.push_str(operation);
            self.out.push_str("\",");
        }
        bytes(self.out, "key", key);
        if !range_end.is_empty() {
            self.out.push(',');
            bytes(self.out, "range_end", range_end);
        }
        self.out.push('}');
        self.named += 1;
        self.bytes += key.len().min(AUDIT_TEXT_BYTES) + range_end.len().min(AUDIT_TEXT_BYTES);
    }

    pub(crate) fn end(self) {
        self.out.push(']');
        if self.omitted > 0 {
            self.out.push_str(",\"keys_omitted\":");
            self.out.push_str(&self.omitted.to_string());
        }
    }
}
