//! Statuses on the wire: trailers and their encoding.

use std::fmt::Write;

use api::error::{Code, Status};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

fn code(code: Code) -> HeaderValue {
    const CODES: [&str; 17] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    ];
    HeaderValue::from_static(CODES[code as usize])
}

/// Percent-encodes a message: what is not printable ASCII, and `%` itself.
//= grpc-go 1.82: internal/transport/http_util.go#encodeGrpcMessage
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Adds `grpc-status` and `grpc-message` to headers or trailers.
pub(crate) fn put(headers: &mut HeaderMap, status: Option<&Status>) {
    match status {
        None => {
            headers.insert(GRPC_STATUS, code(Code::Ok));
            headers.insert(GRPC_MESSAGE, HeaderValue::from_static(""));
        }
        Some(status) => {
            headers.insert(GRPC_STATUS, code(status.code));
            let text = HeaderValue::try_from(percent_encode(&status.message))
                .expect("percent-encoding leaves only printable ASCII");
            headers.insert(GRPC_MESSAGE, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_as_grpc_go_does() {
        assert_eq!(percent_encode("a%dé\n"), "a%25d%C3%A9%0A");
        assert_eq!(percent_encode("etcdserver: no leader"), "etcdserver: no leader");
    }
}
