//! Request headers as grpc-go reads them: content type, binary metadata.

use std::borrow::Cow;

/// The content type to answer with, or `None` if the request's is not gRPC.
//= grpc-go 1.82: internal/grpcutil/method.go#ContentSubtype
#[must_use]
pub fn response_content_type(value: &str) -> Option<Cow<'static, str>> {
    let rest = value.strip_prefix("application/grpc")?;
    match rest.as_bytes().first() {
        Some(b'+' | b';') if rest.len() > 1 => {
            Some(format!("application/grpc+{}", &rest[1..]).into())
        }
        None | Some(b'+' | b';') => Some("application/grpc".into()),
        Some(_) => None,
    }
}

/// Checks binary metadata: the value of a `-bin` field must be base64, padded or not.
///
/// # Errors
/// The text that grpc-go answers with HTTP 400.
pub(crate) fn check_binary(name: &[u8], value: &[u8]) -> Result<(), String> {
    let Some(at) = bad_base64(value) else { return Ok(()) };
    let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    Err(format!(
        "malformed binary metadata {value:?} in header {name:?}: illegal base64 data at input byte \
         {at}"
    ))
}

/// The offset of the first byte that standard base64 cannot have there.
fn bad_base64(value: &[u8]) -> Option<usize> {
    let padded = value.len().is_multiple_of(4);
    let content = value.iter().rposition(|b| *b != b'=' || !padded).map_or(0, |at| at + 1);
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/';
    if let Some(at) = value[..content].iter().position(|b| !is_digit(b)) {
        return Some(at);
    }
    if value.len() - content > 2 {
        return Some(content);
    }
    (content % 4 == 1).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_echoed_with_their_subtype() {
        let got = |v| response_content_type(v);
        assert_eq!(got("application/grpc").as_deref(), Some("application/grpc"));
        assert_eq!(got("application/grpc+json").as_deref(), Some("application/grpc+json"));
        assert_eq!(
            got("application/grpc;charset=utf-8").as_deref(),
            Some("application/grpc+charset=utf-8")
        );
        assert_eq!(got("application/json"), None);
        assert_eq!(got("Application/grpc"), None);
        assert_eq!(got("application/grpcx"), None);
    }

    #[test]
    fn binary_metadata_must_be_base64() {
        let check = |value: &str| check_binary(b"x-bin", value.as_bytes());
        assert!(check("AAEC").is_ok() && check("AAE").is_ok() && check("AAE=").is_ok());
        assert_eq!(
            check("***").unwrap_err(),
            "malformed binary metadata \"***\" in header \"x-bin\": illegal base64 data at input \
             byte 0"
        );
    }
}
