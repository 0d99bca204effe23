//! Times as Go's JSON writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where years have five digits, which nobody reads.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
/// Characters of a date and a time without zone and fraction.
const WHOLE_SECONDS: usize = 19;

/// A time in UTC with as many digits of the second as it needs.
pub(crate) fn format(time: SystemTime) -> String {
    let time = time.max(UNIX_EPOCH);
    let text = humantime::format_rfc3339_nanos(time).to_string();
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{}Z", &text[..digits.len().max(WHOLE_SECONDS)])
}

/// Reads a time of any zone; `None` if it is none or before 1970.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(text).ok();
    }
    let at = WHOLE_SECONDS + text.get(WHOLE_SECONDS..)?.rfind(['+', '-'])?;
    let local = humantime::parse_rfc3339(&format!("{}Z", &text[..at])).ok()?;
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let minutes =
        u64::from(hours.parse::<u8>().ok()?) * 60 + u64::from(minutes.parse::<u8>().ok()?);
    let zone = Duration::from_secs(minutes * 60);
    let time = match text.as_bytes()[at] {
        b'+' => local.checked_sub(zone)?,
        _ => local.checked_add(zone)?,
    };
    time.duration_since(UNIX_EPOCH).ok().filter(|since| *since < YEAR_10000).map(|_| time)
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
