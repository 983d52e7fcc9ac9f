//! Moments: the spellings that clients send, and the one spelling that we write.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

const MICROS_A_SECOND: i64 = 1_000_000;
const MICROS_A_DAY: i64 = 86_400 * MICROS_A_SECOND;

/// Text forms other than RFC 3339 that name an offset.
const WITH_OFFSET: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f %z"];
/// Text forms without an offset, which is then UTC.
const WITHOUT_OFFSET: [&str; 4] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
/// How JavaScript prints a `Date`, up to the name of the zone in brackets.
const JAVASCRIPT: &str = "%a %b %d %Y %H:%M:%S GMT%z";

/// The moment that a text names: RFC 3339 or near it, a bare date, or seconds, ms, µs or ns since 1970, told apart by size.
///
/// Cut to the microsecond. Years past 9999 or before 0 are not moments, because RFC 3339 cannot write them.
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let micros = match DateTime::parse_from_rfc3339(text) {
        Ok(at) => at.timestamp_micros(),
        Err(_) if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) => {
            match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
                Ok(day) if text.len() == 10 => day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros(),
                _ => epoch(text)?,
            }
        }
        Err(_) => spelled(text)?,
    };
    DateTime::from_timestamp_micros(micros).filter(|at| (0..=9999).contains(&chrono::Datelike::year(at)))
}

fn spelled(text: &str) -> Option<i64> {
    let with_offset = WITH_OFFSET.iter().find_map(|form| DateTime::parse_from_str(text, form).ok());
    let javascript = || {
        let plain = text.split_once(" (").map_or(text, |(plain, _)| plain);
        DateTime::parse_from_str(plain, JAVASCRIPT).ok()
    };
    if let Some(at) = with_offset.or_else(javascript) {
        return Some(at.timestamp_micros());
    }
    let zone_cut = text.strip_suffix("UTC").unwrap_or(text).trim_end();
    WITHOUT_OFFSET
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(zone_cut, form).ok())
        .map(|at| at.and_utc().timestamp_micros())
}

/// Microseconds from a number since 1970. Fewer than 9 digits are no moment that anyone logs, but likely a year or a day.
fn epoch(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if text.contains(['e', 'E']) || whole.len() > 20 {
        let number: f64 = text.parse().ok()?;
        return number
            .is_finite()
            .then(|| format!("{number:.0}"))
            .filter(|whole| whole.len() <= 20)
            .and_then(|t| epoch(&t));
    }
    if whole.trim_start_matches(['-', '+']).len() < 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = whole.parse().ok()?;
    let (unit_micros, parts) = match number.unsigned_abs() {
        0..100_000_000_000 => (1_000_000, 1),
        100_000_000_000..100_000_000_000_000 => (1_000, 1),
        100_000_000_000_000..100_000_000_000_000_000 => (1, 1),
        _ => (1, 1_000),
    };
    // The digits past the point as billionths of the unit, cut to a whole microsecond.
    let billionths: i128 = format!("{fraction:0<9.9}").parse().ok()?;
    let part = billionths * unit_micros / 1_000_000_000;
    let signed = if whole.starts_with('-') { -part } else { part };
    i64::try_from((number * unit_micros + signed).div_euclid(parts)).ok()
}

/// Appends the moment as a JSON string: RFC 3339, UTC, 3 digits of the second where that is exact, else 6.
pub(super) fn write(out: &mut Vec<u8>, micros: i64) {
    let (days, of_day) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return write_far(out, micros);
    }
    let (seconds, part) = (of_day / MICROS_A_SECOND, of_day % MICROS_A_SECOND);
    let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
    put(&mut text[1..5], year);
    put(&mut text[6..8], month);
    put(&mut text[9..11], day);
    put(&mut text[12..14], seconds / 3600);
    put(&mut text[15..17], seconds / 60 % 60);
    put(&mut text[18..20], seconds % 60);
    put(&mut text[21..27], part);
    if part % 1000 == 0 {
        out.extend_from_slice(&text[..24]);
        out.extend_from_slice(b"Z\"");
    } else {
        out.extend_from_slice(&text);
    }
}

/// A moment that only a foreign batch can hold: the year gets a sign.
#[cold]
fn write_far(out: &mut Vec<u8>, micros: i64) {
    match DateTime::from_timestamp_micros(micros) {
        Some(at) => super::write_string(out, &at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends the day, counted from 1970, as a JSON string.
pub(super) fn write_day(out: &mut Vec<u8>, days: i32) {
    let (year, month, day) = civil(i64::from(days));
    if !(0..=9999).contains(&year) {
        return out.extend_from_slice(b"null");
    }
    let mut text = *b"\"0000-00-00\"";
    put(&mut text[1..5], year);
    put(&mut text[6..8], month);
    put(&mut text[9..11], day);
    out.extend_from_slice(&text);
}

fn put(digits: &mut [u8], mut number: i64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day counted from 1970, by Howard Hinnant's `civil_from_days`: years that begin in March
/// have their leap day last, so that a month follows from the day by one division.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * march_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_the_same_moment() {
        for text in [
            "2026-11-21T16:26:58.758Z",
            "2026-11-21T16:26:58.758000999Z",
            "2026-11-21t16:26:58.758z",
            "2026-11-21 16:26:58.758",
            "2026-11-21 16:26:58.758 UTC",
            "2026-11-21 18:26:58.758+02:00",
            "2026-11-21T18:26:58.758+0200",
            "2026-11-21 11:26:58.758 -0500",
            "1795278418.758",
            "1795278418758",
            "1795278418758000",
            "1795278418758000999",
            "1.795278418758e12",
            " 1795278418758.0 ",
        ] {
            assert_eq!(parse(text).map(|at| at.timestamp_micros()), Some(1_795_278_418_758_000), "{text}");
        }
        let whole = 1_795_278_418_000_000;
        for text in
            ["Sat Nov 21 2026 16:26:58 GMT+0000 (Coordinated Universal Time)", "1795278418", "2026-11-21T16:26:58"]
        {
            assert_eq!(parse(text).map(|at| at.timestamp_micros()), Some(whole), "{text}");
        }
        assert_eq!(parse("2026-11-21"), parse("2026-11-21T00:00"));
        assert_eq!(parse("-1000000000.5").map(|at| at.timestamp_micros()), Some(-1_000_000_000_500_000));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "e",
            "12",
            "2026",
            "20261121",
            "2026-13-01",
            "2026-11-31",
            "tomorrow",
            "1e400",
            "1e-400",
            "NaN",
            "123456789.x",
            "99999999999999999999999",
            "2026-11-21T25:00:00Z",
            "-1",
            "--123456789",
            "1-2-3-4-5-6-7",
            "123456789012345678901234567890e1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn written_moments_are_rfc_3339_and_read_back() {
        for (micros, text) in [
            (0, "\"1970-01-01T00:00:00.000Z\""),
            (1_795_278_418_758_000, "\"2026-11-21T16:26:58.758Z\""),
            (1_795_278_418_758_001, "\"2026-11-21T16:26:58.758001Z\""),
            (-1, "\"1969-12-31T23:59:59.999999Z\""),
            (951_827_696_789_000, "\"2000-02-29T12:34:56.789Z\""),
            (-62_167_219_200_000_000, "\"0000-01-01T00:00:00.000Z\""),
            (253_402_300_799_999_999, "\"9999-12-31T23:59:59.999999Z\""),
            (253_402_300_800_000_000, "\"+10000-01-01T00:00:00.000000Z\""),
            (i64::MIN, "null"),
        ] {
            let mut out = Vec::new();
            write(&mut out, micros);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
        for days in (-719_000..2_932_000).step_by(89) {
            let mut out = Vec::new();
            write_day(&mut out, days);
            let expected =
                DateTime::from_timestamp(i64::from(days) * 86_400, 0).map(|at| format!("\"{}\"", at.date_naive()));
            assert_eq!(Some(String::from_utf8_lossy(&out).into_owned()), expected);
        }
    }
}
