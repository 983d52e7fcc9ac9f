//! The only parser and formatter of times: the forms that clients send, and the form that we write.

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Utc};

use crate::error::{Error, Result};

const MICROS_A_SECOND: i64 = 1_000_000;
const MICROS_A_DAY: i64 = 86_400 * MICROS_A_SECOND;

/// Largest exponent of a number. No timestamp needs more digits.
const MAX_EXPONENT: i32 = 30;
/// Format of a printed JavaScript `Date`, up to the zone name in brackets.
const JAVASCRIPT: &str = "%a %b %d %Y %H:%M:%S GMT%z";

/// Requirements of a parameter that is a time, for the message of a refusal.
pub const EXPECTED: &str = "a date such as 2026-11-21 or a time such as 2026-11-21T17:30:00Z";

/// Parses the value of a parameter; the refusal names it. A bare date is its first instant.
pub fn parse_parameter(name: &str, text: &str) -> Result<DateTime<Utc>> {
    parse(text).ok_or_else(|| Error::invalid(format!("`{name}` is `{text}`; expected {EXPECTED}")))
}

/// Formats a time to the second, as RFC 3339 in UTC.
pub fn seconds(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Formats a time to the millisecond, as RFC 3339 in UTC.
pub fn millis(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Formats a time to the microsecond, as RFC 3339 in UTC.
pub fn micros(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Formats a time with as many digits after the second as it needs: none, 3, 6 or 9.
pub fn shortest(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Parses a timestamp: RFC 3339 or similar, a bare date, or a number of seconds, ms, µs or ns since
/// 1970, distinguished by size.
///
/// Every place that takes a timestamp uses this function: records, filters, parameters, flags. In
/// addition to RFC 3339 it accepts a blank instead of the `T` and before the offset, a comma before
/// the fraction, an offset without colon or minutes, the words `UTC` and `GMT`, a missing offset
/// (UTC), missing seconds, and a blank that was the `+` of a query string. The result is truncated
/// to the microsecond. Years after 9999 or before 0 are refused, because RFC 3339 cannot write
/// them.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let micros = match DateTime::parse_from_rfc3339(text) {
        Ok(at) => at.timestamp_micros(),
        Err(_) => near_rfc_3339(text).or_else(|| epoch(text)).or_else(|| printed(text))?,
    };
    DateTime::from_timestamp_micros(micros)
        .filter(|at| (0..=9999).contains(&chrono::Datelike::year(at)))
}

/// Parses a bare date, or a date and a time in spellings similar to RFC 3339.
fn near_rfc_3339(text: &str) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let is_day = day.bytes().enumerate().all(|(place, byte)| match place {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|_| is_day)?;
    if rest.is_empty() {
        return Some(day.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, zone) = time_of_day(rest)?;
    let offset_seconds = offset(zone)?;
    let micros = day.and_time(time).and_utc().timestamp_micros();
    Some(micros - offset_seconds * MICROS_A_SECOND)
}

/// Parses `HH:MM` or `HH:MM:SS`, the latter also with a fraction, and returns the rest of the text.
/// A leap second is the start of the next minute.
fn time_of_day(text: &str) -> Option<(NaiveTime, &str)> {
    let (hour, rest) = two_digits(text)?;
    let (minute, rest) = two_digits(rest.strip_prefix(':')?)?;
    let Some(rest) = rest.strip_prefix(':') else {
        return Some((NaiveTime::from_hms_opt(hour, minute, 0)?, rest));
    };
    let (second, rest) = two_digits(rest)?;
    let (micros, rest) = match rest.strip_prefix(['.', ',']) {
        None => (0, rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, rest) = rest.split_at(digits);
            let micros = (!fraction.is_empty()).then(|| format!("{fraction:0<6.6}"))?;
            (micros.parse::<u32>().ok()?, rest)
        }
    };
    let time = match second {
        60 => NaiveTime::from_hms_micro_opt(hour, minute, 59, 1_000_000 + micros)?,
        second => NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?,
    };
    Some((time, rest))
}

fn two_digits(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(2)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
    Some((number?, rest))
}

/// Parses seconds east of UTC: nothing, `Z`, `UTC`, `GMT`, or an offset with or without colon and
/// minutes. The name of the zone may follow an offset, as Go prints it.
fn offset(text: &str) -> Option<i64> {
    let zone = text.trim_start();
    if ["", "Z", "UTC", "GMT"].iter().any(|name| name.eq_ignore_ascii_case(zone)) {
        return Some(0);
    }
    let (sign, digits) = match zone.strip_prefix(['+', '-']) {
        Some(digits) => (if zone.starts_with('-') { -1 } else { 1 }, digits),
        // In a query string, a `+` becomes a blank.
        None if text.starts_with(' ') => (1, zone),
        None => return None,
    };
    let (hours, rest) = two_digits(digits)?;
    let (minutes, name) = match rest.strip_prefix(':') {
        Some(minutes) => two_digits(minutes)?,
        None => two_digits(rest).unwrap_or((0, rest)),
    };
    let is_name = name.is_empty()
        || name.strip_prefix(' ').is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic())
        });
    let within_a_day = hours < 24 && minutes < 60;
    (is_name && within_a_day).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

/// Parses the format of JavaScript and mail: `Sat Nov 21 2026 16:26:58 GMT+0000 (Coordinated
/// Universal Time)` and `Sat, 21 Nov 2026 16:26:58 GMT`.
fn printed(text: &str) -> Option<i64> {
    let plain = text.split_once(" (").map_or(text, |(plain, _)| plain);
    let at =
        DateTime::parse_from_str(plain, JAVASCRIPT).or_else(|_| DateTime::parse_from_rfc2822(text));
    at.ok().map(|at| at.timestamp_micros())
}

/// Converts a number since 1970 to microseconds. Fewer than 9 digits are refused: they are probably
/// a year or a day.
fn epoch(text: &str) -> Option<i64> {
    let (negative, whole, fraction) = decimal(text)?;
    if !(9..=20).contains(&whole.len()) {
        return None;
    }
    let number: i128 = whole.parse().ok()?;
    let (unit_micros, parts) = match number {
        0..100_000_000_000 => (1_000_000, 1),
        100_000_000_000..100_000_000_000_000 => (1_000, 1),
        100_000_000_000_000..100_000_000_000_000_000 => (1, 1),
        _ => (1, 1_000),
    };
    // The digits after the point are billionths of the unit, truncated to a whole microsecond.
    let billionths: i128 = format!("{fraction:0<9.9}").parse().ok()?;
    let micros = number * unit_micros + billionths * unit_micros / 1_000_000_000;
    let signed = if negative { -micros } else { micros };
    i64::try_from(signed.div_euclid(parts)).ok()
}

/// Returns true for a negative number, and its digits before and after the point. The exponent is
/// applied digit by digit, since a float would round them.
fn decimal(text: &str) -> Option<(bool, String, String)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        // In a query string, the `+` of an exponent becomes a blank.
        Some((mantissa, exponent)) => (mantissa, exponent.replace(' ', "+").parse::<i32>().ok()?),
    };
    let digits = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits || exponent.abs() > MAX_EXPONENT {
        return None;
    }
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    let (whole, fraction) = if exponent >= 0 {
        let moved = format!("{fraction:0<shift$}");
        let (moved, rest) = moved.split_at(shift);
        (format!("{whole}{moved}"), rest.to_owned())
    } else {
        let moved = format!("{whole:0>shift$}");
        let (rest, moved) = moved.split_at(moved.len() - shift);
        (rest.to_owned(), format!("{moved}{fraction}"))
    };
    Some((mantissa.starts_with('-'), whole.trim_start_matches('0').to_owned(), fraction))
}

/// Appends the timestamp as a JSON string: RFC 3339, UTC, with 3 digits after the second if that is
/// exact, else 6.
pub(crate) fn write(out: &mut Vec<u8>, micros: i64) {
    let days = micros.div_euclid(MICROS_A_DAY);
    let of_day = micros.rem_euclid(MICROS_A_DAY);
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return write_far(out, micros);
    }
    let seconds = of_day / MICROS_A_SECOND;
    let part = of_day % MICROS_A_SECOND;
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

/// Appends a timestamp that only a foreign batch can hold: the year gets a sign.
#[cold]
fn write_far(out: &mut Vec<u8>, since_1970: i64) {
    match DateTime::from_timestamp_micros(since_1970) {
        Some(at) => {
            out.push(b'"');
            out.extend_from_slice(micros(at).as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends the day, counted from 1970, as a JSON string.
pub(crate) fn write_day(out: &mut Vec<u8>, days: i32) {
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

/// Returns year, month and day of a day counted from 1970, by Howard Hinnant's `civil_from_days`:
/// years that begin in March have their leap day last, so one division gives the month.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (
        year_of_era + era * 400 + i64::from(month <= 2),
        month,
        of_year - (153 * march_month + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_names_the_same_moment() {
        for text in [
            "2026-11-21T16:26:58.758Z",
            "2026-11-21T16:26:58.758000999Z",
            "2026-11-21T16:26:58.758000000Z",
            "2026-11-21t16:26:58.758z",
            "2026-11-21T16:26:58,758Z",
            "2026-11-21T16:26:58.758",
            "2026-11-21 16:26:58.758",
            "2026-11-21 16:26:58,758",
            "2026-11-21 16:26:58.758Z",
            "2026-11-21 16:26:58.758 Z",
            "2026-11-21 16:26:58.758 UTC",
            "2026-11-21 16:26:58.758 utc",
            "2026-11-21T16:26:58.758GMT",
            "2026-11-21 16:26:58.758 +0000 UTC",
            "2026-11-21 17:26:58.758 +0100 CET",
            "2026-11-21T16:26:58.758+00",
            "2026-11-21T16:26:58.758+0000",
            "2026-11-21T16:26:58.758-00:00",
            "2026-11-21T18:26:58.758+02",
            "2026-11-21 18:26:58.758+02:00",
            "2026-11-21T18:26:58.758+0200",
            "2026-11-21T18:26:58,758 +0200",
            "2026-11-21T18:26:58.758 +02:00",
            "2026-11-21T21:56:58.758+05:30",
            "2026-11-21T11:26:58.758-05",
            "2026-11-21 11:26:58.758 -0500",
            // A query string that turned `+` into blanks.
            "2026-11-21T18:26:58.758 02:00",
            "2026-11-21 18:26:58.758 0200",
            "2026-11-21T18:26:58.758 02",
            "2026-11-21 18:26:58.758  02:00",
            "1795278418.758",
            "1795278418758",
            "1795278418758000",
            "1795278418758000999",
            "1.795278418758e12",
            "1.795278418758e9",
            "1.795278418758E+9",
            "1.795278418758e 9",
            "1.795278418758000999e18",
            "17952784187580e-1",
            "+1795278418758",
            " 1795278418758.0 ",
        ] {
            assert_eq!(
                parse(text).map(|at| at.timestamp_micros()),
                Some(1_795_278_418_758_000),
                "{text}"
            );
        }
        let whole = 1_795_278_418_000_000;
        for text in [
            "Sat Nov 21 2026 16:26:58 GMT+0000 (Coordinated Universal Time)",
            "Sat Nov 21 2026 17:26:58 GMT+0100 (Central European Standard Time)",
            "Sat, 21 Nov 2026 16:26:58 GMT",
            "Sat, 21 Nov 2026 17:26:58 +0100",
            "1795278418",
            "2026-11-21T16:26:58",
            "2026-11-21T17:26:58+01",
        ] {
            assert_eq!(parse(text).map(|at| at.timestamp_micros()), Some(whole), "{text}");
        }
        assert_eq!(parse("2026-11-21"), parse("2026-11-21T00:00"));
        assert_eq!(parse("2026-11-21"), parse("2026-11-21 01:00 +01"));
        assert_eq!(parse("2016-12-31T23:59:60Z"), parse("2017-01-01T00:00:00Z"));
        assert_eq!(
            parse("-1000000000.5").map(|at| at.timestamp_micros()),
            Some(-1_000_000_000_500_000)
        );
        assert_eq!(parse("1e9"), parse("2001-09-09T01:46:40Z"));
    }

    #[test]
    fn invalid_times_are_refused() {
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
            "2026-1-021",
            "2026-11-21Z",
            "2026-11-21T",
            "2026-11-21T16",
            "2026-11-21T16:2",
            "2026-11-21T16:26:58.Z",
            "2026-11-21T16:26:58+",
            "2026-11-21T16:26:58+1",
            "2026-11-21T16:26:58+0160",
            "2026-11-21T16:26:58+2400",
            "2026-11-21T16:26:58+01000",
            "2026-11-21T16:26:58 CET",
            "2026-11-21T16:26:58 Europe/Berlin",
            "2026-11-21T24:00:00Z",
            "21-11-2026 16:26",
            "tomorrow",
            "1e400",
            "1e-400",
            "1e",
            "1.795278418758e1.2",
            "NaN",
            "123456789.x",
            "99999999999999999999999",
            "2026-11-21T25:00:00Z",
            "-1",
            "--123456789",
            "1-2-3-4-5-6-7",
            "123456789012345678901234567890e1",
            "２０２６-１１-２１",
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
            let expected = DateTime::from_timestamp(i64::from(days) * 86_400, 0)
                .map(|at| format!("\"{}\"", at.date_naive()));
            assert_eq!(Some(String::from_utf8_lossy(&out).into_owned()), expected);
        }
    }
}
