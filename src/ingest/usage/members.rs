//! Reads values from the members of a JSON object.

use std::borrow::Cow;

use crate::record::json::{Read, members, unquote};

/// Members of a JSON object.
pub(in crate::ingest) type Members<'a> = [(Cow<'a, str>, &'a str)];

/// Converts dollars to cents without rounding: the exponent grows by two.
pub(in crate::ingest) fn cents(raw: &str) -> Option<f64> {
    let text = raw.trim_matches('"').trim();
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'));
    let exponent = exponent.parse::<i32>().ok()?.checked_add(2)?;
    format!("{digits}e{exponent}")
        .parse::<f64>()
        .ok()
        .filter(|cents| plain && cents.is_finite() && *cents >= 0.0)
}

pub(super) fn inner<'a>(of: &Members<'a>, names: &[&str]) -> Vec<(Cow<'a, str>, &'a str)> {
    get(of, names).and_then(members).unwrap_or_default()
}

pub(super) fn is_object(of: &Members<'_>, name: &str) -> bool {
    get(of, &[name]).and_then(members).is_some()
}

pub(super) fn string(of: &Members<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let raw = get(of, &[name]).filter(|raw| raw.starts_with('"'))?;
        Some(unquote(raw).into_owned()).filter(|text| !text.is_empty())
    })
}

/// Returns the raw value of the first name that is present and not null. Of a duplicate key the
/// last value counts, even if it is null.
pub(in crate::ingest) fn get<'a>(members: &Members<'a>, names: &[&str]) -> Option<&'a str> {
    let last = |name: &&str| members.iter().rfind(|(key, _)| key == name).map(|(_, raw)| *raw);
    names.iter().find_map(|name| last(name).filter(|raw| *raw != "null"))
}

/// Reads a whole number of at least 0. A fraction is rounded, and a text such as `"0123"` is
/// accepted. Anything else gives `None`.
pub(in crate::ingest) fn count(members: &Members<'_>, names: &[&str]) -> Option<i64> {
    let raw = get(members, names)?;
    let mut whole: Option<i64> = None;
    if whole.read("", raw).is_ok() {
        return whole.filter(|whole| *whole >= 0);
    }
    let mut number: Option<f64> = None;
    number.read("", raw).ok()?;
    number.map(f64::round).filter(|number| (0.0..9e15).contains(number)).map(|number| number as i64)
}
