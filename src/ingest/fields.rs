//! Single values out of a client's JSON, lenient: what makes no sense is none. But a call whose time makes none, or is one that
//! no table can hold, is refused, and so are counts below 0 where they would be kept: what is stored is never made up.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, SecondsFormat, Utc};

use super::usage::{Members, get};
use crate::record::Record;
use crate::record::json::{FieldError, Read, finite, keep_last, members, unquote};

/// Years that a call can be of: those that count from 1970 and that readers of nanoseconds can hold.
const YEARS: RangeInclusive<i32> = 1970..=2261;
const TIME: &str = "a time of the years 1970 to 2261 such as 2026-11-21T16:26:58.758Z, or a number since 1970 in s, ms, \
                    µs or ns; without one it is the time of arrival";

/// Portkey cuts keys and values of the metadata to so many characters.
const TAG_CHARS: usize = 128;
/// What clients write where there is nothing.
const NOTHING: [&str; 3] = ["None", "null", "undefined"];

/// A JSON value; where that is a string which holds a JSON object, that object.
pub(super) fn open(raw: &str) -> Cow<'_, str> {
    if raw.starts_with('"') {
        let inner = unquote(raw);
        if inner.trim_start().starts_with('{') {
            let inner = finite(inner.trim());
            if members(&inner).is_some() {
                return Cow::Owned(inner.into_owned());
            }
        }
    }
    Cow::Borrowed(raw)
}

/// The metadata of a JSON object: what is not text is kept as its JSON, null is dropped, and all is cut as Portkey does.
pub(super) fn tags(text: &str) -> Vec<(String, String)> {
    let mut tags: Vec<(String, String)> = Vec::new();
    if tags.read("metadata", &finite(text.trim())).is_err() {
        return Vec::new();
    }
    let mut tags = tags.into_iter().map(|(key, value)| (cut(&key), cut(&value))).collect();
    keep_last(&mut tags);
    tags
}

pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(TAG_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => text[..end].to_owned(),
    }
}

/// A text that is not empty; a number counts as its digits.
pub(super) fn text(members: &Members<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let mut text: Option<String> = None;
        text.read("", get(members, &[name])?).ok()?;
        text.filter(|text| !text.is_empty())
    })
}

/// An id. Python clients write `"None"` for one that is absent.
pub(super) fn id(members: &Members<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| text(members, &[name]).filter(|id| !NOTHING.contains(&&**id)))
}

fn is_nothing(raw: &str) -> bool {
    let text = raw.trim_matches('"');
    NOTHING.contains(&text) || matches!(text, "0" | "0.0")
}

/// The first of the times that are stated.
pub(super) fn time(members: &Members<'_>, names: &[&str]) -> Result<Option<DateTime<Utc>>, FieldError> {
    for name in names {
        let Some(raw) = get(members, &[name]).filter(|raw| !is_nothing(raw)) else { continue };
        let mut time: Option<DateTime<Utc>> = None;
        if time.read("", raw).is_err() || !time.is_none_or(is_of_a_call) {
            // What is no time at all may be private.
            let is_timely = raw.bytes().all(|byte| byte.is_ascii_digit() || b"\"TZ :.+-eE".contains(&byte));
            return Err(FieldError::new(name, if is_timely { raw } else { "" }, TIME));
        }
        if time.is_some() {
            return Ok(time);
        }
    }
    Ok(None)
}

/// Nanoseconds since 1970 as a time; 0 = not stated.
pub(super) fn time_of_nanos(name: &str, nanos: u64) -> Result<Option<DateTime<Utc>>, FieldError> {
    if nanos == 0 {
        return Ok(None);
    }
    let time = i64::try_from(nanos).ok().map(DateTime::from_timestamp_nanos).filter(|time| is_of_a_call(*time));
    time.map(Some).ok_or_else(|| FieldError::new(name, &nanos.to_string(), TIME))
}

fn is_of_a_call(time: DateTime<Utc>) -> bool {
    YEARS.contains(&time.year())
}

/// Refuses what no call can have: a time out of [`YEARS`], fewer than no tokens, milliseconds or cents.
pub(super) fn check(record: &Record) -> Result<(), FieldError> {
    if let Some(time) = record.created_at.filter(|time| !is_of_a_call(*time)) {
        return Err(FieldError::new("created_at", &time.to_rfc3339_opts(SecondsFormat::AutoSi, true), TIME));
    }
    let counts = [
        ("req_units", record.req_units),
        ("res_units", record.res_units),
        ("total_units", record.total_units),
        ("response_time", record.response_time),
        ("time_to_last_token", record.time_to_last_token),
        ("upstream_response_time", record.upstream_response_time),
    ];
    let below =
        counts.into_iter().find_map(|(name, count)| Some((name, count.filter(|count| *count < 0)?.to_string())));
    let below = below.or_else(|| Some(("cost", record.cost.filter(|cents| *cents < 0.0)?.to_string())));
    below.map_or(Ok(()), |(name, value)| {
        Err(FieldError::new(name, &value, "0 or more; leave it out where it is not known"))
    })
}

pub(super) fn number(members: &Members<'_>, names: &[&str]) -> Option<f64> {
    let mut number: Option<f64> = None;
    number.read("", get(members, names)?).ok()?;
    number
}

/// A whole number of 32 bits.
pub(super) fn short(members: &Members<'_>, names: &[&str]) -> Option<i32> {
    let mut short: Option<i32> = None;
    short.read("", get(members, names)?).ok()?;
    short
}

pub(super) fn flag(members: &Members<'_>, names: &[&str]) -> Option<bool> {
    let mut flag: Option<bool> = None;
    flag.read("", get(members, names)?).ok()?;
    flag
}
