//! Values of flags as Go's `flag` package reads them.

use std::time::Duration;

use super::table::{Flag, Kind};

/// Whether a text is a value of the flag's kind; the error is what Go prints behind
/// `invalid value "…" for flag -name: `.
///
/// # Errors
/// That text.
pub fn check(flag: &Flag, text: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Text | Kind::Set | Kind::List => Ok(()),
        Kind::Bool => boolean(text).map(|_| ()).ok_or_else(parse_error),
        Kind::Int => text.parse::<i64>().map(|_| ()).map_err(|_| parse_error()),
        Kind::Uint => text.parse::<u64>().map(|_| ()).map_err(|_| parse_error()),
        Kind::Duration => duration(text).map(|_| ()).ok_or_else(parse_error),
        Kind::Urls if text.is_empty() => Ok(()),
        Kind::Urls => super::urls::parse_list(text).map(|_| ()),
        Kind::Enum(values) if values.contains(&text) => Ok(()),
        Kind::Enum(_) if flag.name == "v2-deprecation" => Err(format!("invalid value {text:?}")),
        Kind::Enum(_) => Err("invalid value".to_owned()),
    }
}

fn parse_error() -> String {
    "parse error".to_owned()
}

/// Go's `strconv.ParseBool`.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `time.ParseDuration`, for durations that are not negative.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanos: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        nanos += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3_600e9,
                _ => return None,
            };
        rest = after;
    }
    (nanos < i64::MAX as f64).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(duration("100ms"), ms(100));
        assert_eq!(duration("1m30s"), ms(90_000));
        assert_eq!(duration("1.5h"), ms(5_400_000));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for bad in ["", "5", "s", "1x", "-1s", "1s2", "99999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
