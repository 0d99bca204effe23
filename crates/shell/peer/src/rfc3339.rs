//! Times as Go's JSON writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;
/// Where years have five digits, seconds since 1970.
const YEAR_10000: i64 = 253_402_300_800;

/// A time in UTC with as many digits of the second as it needs.
pub(crate) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let (year, month, day) = civil(secs.div_euclid(DAY));
    let of_day = secs.rem_euclid(DAY);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() != 0 {
        let digits = format!(".{:09}", since.subsec_nanos());
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Reads a time of any zone; `None` if it is none or before 1970.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    if !text.is_ascii() {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
    };
    let separators = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if separators.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(mark)) {
        return None;
    }
    let (month, day) = (number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(number(0..4)?, month, day);
    let mut secs = days * DAY + hour * 3_600 + minute * 60 + second;
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let digits = fraction.get(..len.min(9))?;
        nanos = format!("{digits:0<9}").parse::<u32>().ok()?;
        rest = &fraction[len..];
    }
    if rest != "Z" {
        let sign = match rest.get(..1)? {
            "+" => 1,
            "-" => -1,
            _ => return None,
        };
        let (hours, minutes) = rest[1..].split_once(':')?;
        let zone =
            i64::from(hours.parse::<u8>().ok()?) * 60 + i64::from(minutes.parse::<u8>().ok()?);
        secs -= sign * zone * 60;
    }
    if secs >= YEAR_10000 {
        return None;
    }
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(secs).ok()?, nanos))
}

/// Days since 1970 of a date (Howard Hinnant: chrono-compatible low-level date algorithms).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of days since 1970 (as [`days`]).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_they_were() {
        let times = [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_827_696, 120_000_000, "2000-02-29T12:34:56.12Z"),
            (1_795_388_266, 1, "2026-11-22T22:57:46.000000001Z"),
        ];
        for (secs, nanos, text) in times {
            let time = UNIX_EPOCH + Duration::new(secs, nanos);
            assert_eq!(format(time), text);
            assert_eq!(parse(text), Some(time));
        }
        assert_eq!(
            parse("2026-11-23T00:57:46+02:00"),
            Some(UNIX_EPOCH + Duration::from_secs(1_795_388_266))
        );
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T22:57:46",
            "1969-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "é026-11-22T",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
