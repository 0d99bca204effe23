//! Go's spellings: numbers, durations, quoted strings, sizes, tables.

pub use types::quote;

/// Reads a switch.
///
/// # Errors
/// strconv's text.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(failed("ParseBool", text, "invalid syntax")),
    }
}

fn failed(function: &str, text: &str, why: &str) -> String {
    format!("strconv.{function}: parsing {}: {why}", quote(text.as_bytes()))
}

fn radix_of(digits: &str, base: u32) -> (&str, u32) {
    if base != 0 {
        return (digits, base);
    }
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    match lower.as_deref() {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        _ => (digits, 10),
    }
}

fn magnitude(function: &str, text: &str, digits: &str, base: u32) -> Result<u128, String> {
    let (digits, radix) = radix_of(digits, base);
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(failed(function, text, "invalid syntax"));
    }
    u128::from_str_radix(digits, radix).map_err(|_| failed(function, text, "value out of range"))
}

/// Reads a signed number of 64 bits; base 0 takes the prefixes `0x`, `0o`, `0b` and `0`.
///
/// # Errors
/// strconv's text.
pub fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = magnitude("ParseInt", text, digits, base)?;
    let out_of_range = || failed("ParseInt", text, "value out of range");
    let value = i128::try_from(value).map_err(|_| out_of_range())?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| out_of_range())
}

/// Reads an unsigned number of 64 bits, as [`parse_int`].
///
/// # Errors
/// strconv's text.
pub fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    let value = magnitude("ParseUint", text, text, base)?;
    u64::try_from(value).map_err(|_| failed("ParseUint", text, "value out of range"))
}

/// Reads a duration, in nanoseconds.
///
/// # Errors
/// The text of Go's time package.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => {
                return Err(format!("time: missing unit in duration {}", quote(text.as_bytes())));
            }
            unit => {
                let (unit, text) = (quote(unit.as_bytes()), quote(text.as_bytes()));
                return Err(format!("time: unknown unit {unit} in duration {text}"));
            }
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    if nanos > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok((sign * nanos) as i64)
}

/// A duration as Go prints it: `1.5ms`, `2m0s`.
#[must_use]
pub fn show_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let (whole, part) = (nanos / unit, nanos % unit);
        let width = unit.ilog10() as usize;
        let part = format!("{part:0width$}");
        let part = part.trim_end_matches('0');
        if part.is_empty() || unit == 1 {
            format!("{whole}{name}")
        } else {
            format!("{whole}.{part}{name}")
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => scaled(1, "ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = nanos % 60_000_000_000;
            let below = std::time::Duration::from_nanos(seconds as u64);
            let seconds = if seconds == 0 {
                "0s".to_owned()
            } else if seconds < 1_000_000_000 {
                let part = format!("{seconds:09}");
                format!("0.{}s", part.trim_end_matches('0'))
            } else if minutes == 0 {
                return scaled(1_000_000_000, "s");
            } else {
                show_duration(below)
            };
            let (hours, minutes) = (minutes / 60, minutes % 60);
            if hours > 0 {
                format!("{hours}h{minutes}m{seconds}")
            } else {
                format!("{minutes}m{seconds}")
            }
        }
    }
}

/// Every byte as `\xNN`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("\\x{b:02x}")).collect()
}

/// A size in powers of 1000, as the humanize package of Go prints it: `25 kB`, `2.1 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog(1000) as usize;
    let scaled = bytes as f64 / 1000_f64.powi(exponent as i32);
    let rounded = (scaled * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent];
    if rounded < 10.0 { format!("{rounded:.1} {unit}") } else { format!("{rounded:.0} {unit}") }
}

/// A table with light borders, right-aligned cells and a centred header in capitals.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rule = |left, middle, right| {
        let parts: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let mut out = rule("┌", "┬", "┐");
    for (head, width) in header.iter().zip(&widths) {
        let head = head.to_uppercase().replace('_', " ");
        out.push_str(&format!("│ {head:^width$} "));
    }
    out.push_str("│\n");
    out.push_str(&rule("├", "┼", "┤"));
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("│ {cell:>width$} "));
        }
        out.push_str("│\n");
    }
    out.push_str(&rule("└", "┴", "┘"));
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        assert_eq!(parse_duration("1m1.5s"), Ok(61_500_000_000));
        assert_eq!(parse_duration("1x").unwrap_err(), r#"time: unknown unit "x" in duration "1x""#);
        let shown = |nanos| show_duration(Duration::from_nanos(nanos));
        assert_eq!(shown(11_165_901), "11.165901ms");
        assert_eq!(shown(5_002_614_272), "5.002614272s");
        assert_eq!(shown(120_000_000_000), "2m0s");
        assert_eq!(shown(60_500_000_000), "1m0.5s");
        assert_eq!(shown(1_500), "1.5µs");
        assert_eq!(shown(0), "0s");
    }

    #[test]
    fn numbers_are_refused_with_the_texts_of_strconv() {
        assert_eq!(parse_int("-0x1f", 0), Ok(-31));
        assert_eq!(parse_int("694d", 16), Ok(0x694d));
        assert_eq!(
            parse_int("9223372036854775808", 10).unwrap_err(),
            r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#
        );
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert!(parse_int("", 10).is_err() && parse_int("-", 10).is_err());
    }

    #[test]
    fn sizes_quotes_and_tables_are_as_in_go() {
        assert_eq!(
            [size(24_576), size(2_147_483_648), size(0), size(999)],
            ["25 kB", "2.1 GB", "0 B", "999 B"]
        );
        assert_eq!(quote(b"a\"\n\xff\x00\xc3\xa9"), "\"a\\\"\\n\\xff\\x00\u{e9}\"");
        let table = table(&["a_b", "long head"], &[vec!["1234567".into(), "x".into()]]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "│   A B   │ LONG HEAD │");
        assert_eq!(lines[3], "│ 1234567 │         x │");
    }
}
