//! What of a request's header fields is gRPC's.
//!
//! //= grpc-gateway 2.29: runtime/context.go#annotateContext

use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use crate::refusal::Refusal;

/// The prefix of a field that goes on as metadata.
const PREFIX: &str = "grpc-metadata-";

/// The metadata of a call, as far as etcd reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `token`.
    pub token: Option<Vec<u8>>,
    /// `authorization`, which counts if there is no `token`.
    pub authorization: Option<Vec<u8>>,
    /// `hasleader`.
    pub requires_leader: bool,
    /// `client-api-version`.
    pub client_version: Option<Vec<u8>>,
    /// How long the call may take.
    pub timeout: Option<Duration>,
}

impl Metadata {
    /// Reads a request's header fields.
    ///
    /// # Errors
    /// `invalid grpc-timeout`, `invalid binary header`.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut metadata = Self::default();
        if let Some(text) = headers.get("grpc-timeout").filter(|text| !text.is_empty()) {
            let text = String::from_utf8_lossy(text.as_bytes()).into_owned();
            metadata.timeout = match timeout(&text) {
                Some(Duration::ZERO) => None,
                Some(timeout) => Some(timeout),
                None => return Err(Refusal::invalid(format!("invalid grpc-timeout: {text}"))),
            };
        }
        metadata.authorization = headers.get("authorization").map(|v| v.as_bytes().to_vec());
        let mut has_leader = None;
        for (name, value) in headers {
            let Some(key) = name.as_str().strip_prefix(PREFIX) else { continue };
            let value = value.as_bytes();
            if key.ends_with("-bin") {
                check_binary(name.as_str(), value)?;
            } else if !value.iter().all(|b| matches!(b, 0x20..0x7f)) {
                continue;
            }
            let value = value.to_vec();
            match key {
                "token" => _ = metadata.token.get_or_insert(value),
                "authorization" => _ = metadata.authorization.get_or_insert(value),
                "hasleader" => _ = has_leader.get_or_insert(value),
                "client-api-version" => _ = metadata.client_version.get_or_insert(value),
                _ => {}
            }
        }
        metadata.requires_leader = has_leader.is_some_and(|value| value == b"true");
        Ok(metadata)
    }
}

/// A timeout as gRPC writes it. A negative one has passed already; it is as short as can be.
//= grpc-gateway 2.29: runtime/context.go#timeoutDecode
fn timeout(text: &str) -> Option<Duration> {
    let (unit, number) = (text.as_bytes().last()?, text.get(..text.len() - 1)?);
    let nanos: u128 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let number: i64 = number.parse().ok()?;
    let Ok(number) = u64::try_from(number) else { return Some(Duration::from_nanos(1)) };
    let nanos = nanos * u128::from(number);
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

fn check_binary(name: &str, value: &[u8]) -> Result<(), Refusal> {
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let padding = match value.len() % 4 {
        0 => DecodePaddingMode::RequireCanonical,
        _ => DecodePaddingMode::RequireNone,
    };
    let engine = GeneralPurpose::new(&STANDARD, config.with_decode_padding_mode(padding));
    let checked = engine.decode(value);
    let at = match checked {
        Ok(_) => return Ok(()),
        Err(
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _),
        ) => at,
        Err(_) => value.len(),
    };
    let name: Vec<String> = name.split('-').map(capitalised).collect();
    let name = name.join("-");
    let text = format!("invalid binary header {name}: illegal base64 data at input byte {at}");
    Err(Refusal::invalid(text))
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> Result<Metadata, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Metadata::of(&headers).map_err(|refusal| refusal.status.message.into_owned())
    }

    #[test]
    fn prefixed_fields_are_metadata() {
        let metadata = of(&[
            ("authorization", "Bearer a"),
            ("grpc-metadata-token", "t"),
            ("grpc-metadata-token", "u"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-client-api-version", "3.7"),
            ("token", "ignored"),
            ("grpc-timeout", "2S"),
        ]);
        let wanted = Metadata {
            token: Some(b"t".to_vec()),
            authorization: Some(b"Bearer a".to_vec()),
            requires_leader: true,
            client_version: Some(b"3.7".to_vec()),
            timeout: Some(Duration::from_secs(2)),
        };
        assert_eq!(metadata, Ok(wanted));
        assert_eq!(
            of(&[("grpc-metadata-authorization", "a")]).unwrap().authorization.unwrap(),
            b"a"
        );
    }

    #[test]
    fn what_cannot_be_metadata_is_refused() {
        for text in ["x", "1", "1x", "S", "99999999999999999999S"] {
            assert_eq!(of(&[("grpc-timeout", text)]), Err(format!("invalid grpc-timeout: {text}")));
        }
        assert_eq!(of(&[("grpc-timeout", "0S")]).unwrap().timeout, None);
        assert_eq!(of(&[("grpc-timeout", "-1S")]).unwrap().timeout, Some(Duration::from_nanos(1)));
        let text =
            "invalid binary header Grpc-Metadata-Foo-Bin: illegal base64 data at input byte 0";
        assert_eq!(of(&[("grpc-metadata-foo-bin", "!!")]), Err(text.to_owned()));
        for value in ["Zm9v", "Zm8", "Zm9"] {
            assert!(of(&[("grpc-metadata-foo-bin", value)]).is_ok(), "{value}");
        }
    }
}
