//! Integers as protojson reads them: any number whose value is whole.
//!
//! //= protobuf-go 1.36: internal/encoding/json/decode_number.go

/// The digits of a most negative or largest integer, and more.
const MAX_DIGITS: usize = 20;

/// A number that is whole, without fraction and exponent; `None` if it is not, or far too large.
pub(crate) fn whole(number: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(number).ok()?;
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, exponent.parse::<i32>().ok()),
        None => (text, Some(0)),
    };
    let (int, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (int, fraction) = (int.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if int.is_empty() && fraction.is_empty() {
        return Some("0".to_owned());
    }
    let exponent = exponent?;
    let moved = usize::try_from(exponent.unsigned_abs()).ok()?;
    let digits = if exponent >= 0 {
        if fraction.len() > moved || int.len().saturating_add(moved) > MAX_DIGITS {
            return None;
        }
        format!("{int}{fraction}{}", "0".repeat(moved - fraction.len()))
    } else {
        let kept = int.len().checked_sub(moved).filter(|_| fraction.is_empty())?;
        let (kept, dropped) = int.split_at(kept);
        dropped.bytes().all(|digit| digit == b'0').then(|| kept.to_owned())?
    };
    Some(format!("{sign}{digits}"))
}

/// The number at the beginning of a text, as Go's scanner of tokens sees it: what follows must not
/// look as if it belonged to it.
//= protobuf-go 1.36: internal/encoding/json/decode_number.go#parseNumber
pub(crate) fn leading(text: &str) -> Option<&[u8]> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
        at += 1 + digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) && bytes.len() >= at + 2 {
        at += 1;
        if matches!(bytes[at], b'+' | b'-') {
            at += 1;
            if at == bytes.len() {
                return None;
            }
        }
        at += digits(at);
    }
    let goes_on = |b: &u8| b.is_ascii_alphanumeric() || b"-+._".contains(b);
    if bytes.get(at).is_some_and(goes_on) { None } else { Some(&bytes[..at]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_be_written_in_many_ways() {
        for (number, value) in [
            ("0", Some("0")),
            ("-0.0e5", Some("0")),
            ("1e3", Some("1000")),
            ("1.5e1", Some("15")),
            ("1.5", None),
            ("1200e-2", Some("12")),
            ("125e-2", None),
            ("-7", Some("-7")),
            ("1e20", None),
            ("1e99999999999", None),
            ("9223372036854775808", Some("9223372036854775808")),
        ] {
            assert_eq!(whole(number.as_bytes()).as_deref(), value, "{number}");
        }
    }

    #[test]
    fn a_number_in_a_text_may_have_something_else_behind_it() {
        for (text, number) in [
            ("12", Some("12")),
            ("12 34", Some("12")),
            ("12}", Some("12")),
            ("0x10", None),
            ("01", None),
            ("1e", None),
            ("1e+", None),
            ("", None),
            ("-", None),
            ("-1.5e3", Some("-1.5e3")),
            ("true", None),
        ] {
            assert_eq!(leading(text), number.map(str::as_bytes), "{text}");
        }
    }
}
