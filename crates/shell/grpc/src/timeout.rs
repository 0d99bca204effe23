//! The header `grpc-timeout`.

use std::time::Duration;

/// Parses `grpc-timeout`; the error is the text behind `malformed grpc-timeout: `.
///
/// # Errors
/// The text that grpc-go gives.
//= grpc-go 1.82: internal/transport/http_util.go#decodeTimeout
pub fn timeout(value: &str) -> Result<Duration, String> {
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {value:?}"));
    }
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {value:?}"));
    }
    let unit = value.bytes().last().and_then(|unit| match unit {
        b'H' => Some(3_600_000_000_000_u64),
        b'M' => Some(60_000_000_000),
        b'S' => Some(1_000_000_000),
        b'm' => Some(1_000_000),
        b'u' => Some(1_000),
        b'n' => Some(1),
        _ => None,
    });
    let Some(nanos) = unit else {
        return Err(format!("transport: timeout unit is not recognized: {value:?}"));
    };
    // The unit is one byte, so what is before it is text.
    let digits = &value[..value.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"));
    }
    let number: u64 = digits.parse().expect("at most eight digits");
    Ok(Duration::from_nanos(number.saturating_mul(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_parse_as_in_grpc_go() {
        assert_eq!(timeout("5S"), Ok(Duration::from_secs(5)));
        assert_eq!(timeout("99999999H").map(|d| d > Duration::from_secs(1)), Ok(true));
        let text = |v: &str| timeout(v).unwrap_err();
        assert_eq!(text("1"), "transport: timeout string is too short: \"1\"");
        assert_eq!(text("1x"), "transport: timeout unit is not recognized: \"1x\"");
        assert_eq!(text("-1S"), "strconv.ParseUint: parsing \"-1\": invalid syntax");
        assert!(text("123456789S").contains("too long"));
        assert!(text("1\u{26c}").contains("not recognized"), "its last byte is no letter");
    }
}
