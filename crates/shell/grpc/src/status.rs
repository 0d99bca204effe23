//! Statuses on the wire: trailers and their encoding.

use std::fmt::Write;

use api::error::{Code, Status};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The trailer with the code.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The trailer with the text, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A code as the trailer states it.
#[must_use]
pub fn code_text(code: Code) -> &'static str {
    const CODES: [&str; 17] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    ];
    CODES[code as usize]
}

fn code(code: Code) -> HeaderValue {
    HeaderValue::from_static(code_text(code))
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
pub fn put(headers: &mut HeaderMap, status: Option<&Status>) {
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

/// The status that headers or trailers state: `None` if they state none. A code that is no number,
/// or one that nobody knows, is `Unknown`.
#[must_use]
pub fn stated(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let number = headers.get(GRPC_STATUS)?;
    let number = number.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    if number == Some(0) {
        return Some(Ok(()));
    }
    let code = number.and_then(|number| Code::ALL.get(number)).copied();
    let text = headers.get(GRPC_MESSAGE).and_then(|value| value.to_str().ok());
    let text = percent_decode(text.unwrap_or_default());
    Some(Err(Status::new(code.unwrap_or(Code::Unknown), text)))
}

/// The status at the end of a call. Trailers without one are a broken end.
///
/// # Errors
/// What the server states, if that is not OK.
pub fn at_end(trailers: &HeaderMap) -> Result<(), Status> {
    stated(trailers).unwrap_or_else(|| Err(Status::new(Code::Unknown, "")))
}

/// Decodes what [`percent_encode`] encodes; what is no escape stays.
#[must_use]
pub fn percent_decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_as_grpc_go_does() {
        assert_eq!(percent_encode("a%dé\n"), "a%25d%C3%A9%0A");
        assert_eq!(percent_encode("etcdserver: no leader"), "etcdserver: no leader");
    }

    #[test]
    fn texts_are_decoded_and_what_is_no_escape_stays() {
        for text in ["a%d\u{e9}\n", "", "100 %", "etcdserver: no leader"] {
            assert_eq!(percent_decode(&percent_encode(text)), text);
        }
        assert_eq!(percent_decode("a%20b%"), "a b%");
        assert_eq!(percent_decode("%zz"), "%zz");
    }

    #[test]
    fn what_is_put_is_stated() {
        let mut headers = HeaderMap::new();
        assert_eq!(stated(&headers), None);
        assert_eq!(at_end(&headers).unwrap_err().code, Code::Unknown);
        put(&mut headers, None);
        assert_eq!(stated(&headers), Some(Ok(())));
        for code in Code::ALL.into_iter().skip(1) {
            let status = Status::new(code, "50 % is too much");
            put(&mut headers, Some(&status));
            assert_eq!(stated(&headers), Some(Err(status)));
        }
        headers.insert(GRPC_STATUS, HeaderValue::from_static("99"));
        assert_eq!(at_end(&headers).unwrap_err().code, Code::Unknown);
    }
}
