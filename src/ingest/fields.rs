//! Reads single values from a client's JSON leniently: an invalid optional value becomes null. A
//! call whose time is invalid, or that no table can hold, is refused, since a stored time is never
//! made up.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::usage::{Members, get};
use crate::record::json::{FieldError, Read, finite, keep_last, members, unquote};
use crate::record::{MAX_TAGS, TIME, is_storable};

/// Number of characters to which Portkey cuts keys and values of the metadata.
const TAG_CHARS: usize = 128;
/// Texts that clients write in place of a missing value.
const NOTHING: [&str; 3] = ["None", "null", "undefined"];

/// Returns a JSON value. If it is a string that holds a JSON object, returns that object.
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

/// Reads the metadata of a JSON object. Values that are not text are kept as JSON, null is dropped,
/// and keys and values are cut as Portkey cuts them.
pub(super) fn tags(text: &str) -> Vec<(String, String)> {
    let mut tags: Vec<(String, String)> = Vec::new();
    if tags.read("metadata", &finite(text.trim())).is_err() {
        return Vec::new();
    }
    let mut tags = tags.into_iter().map(|(key, value)| (cut(&key), cut(&value))).collect();
    keep_last(&mut tags);
    tags
}

/// Does the same as [`tags`], limited to what one record may have: the result is copied into each
/// record of a request.
pub(super) fn shared_tags(text: &str) -> Vec<(String, String)> {
    let mut tags = tags(text);
    tags.truncate(MAX_TAGS);
    tags
}

pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(TAG_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => text[..end].to_owned(),
    }
}

/// Reads a text that is not empty. A number counts as its digits.
pub(super) fn text(members: &Members<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let mut text: Option<String> = None;
        text.read("", get(members, &[name])?).ok()?;
        text.filter(|text| !text.is_empty())
    })
}

/// Reads an id. Python clients write `"None"` for a missing one.
pub(super) fn id(members: &Members<'_>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| text(members, &[name]).filter(|id| !NOTHING.contains(&&**id)))
}

fn is_nothing(raw: &str) -> bool {
    let text = raw.trim_matches('"');
    NOTHING.contains(&text) || matches!(text, "0" | "0.0")
}

/// Reads the first time that is stated under one of the names.
pub(super) fn time(
    members: &Members<'_>,
    names: &[&str],
) -> Result<Option<DateTime<Utc>>, FieldError> {
    for name in names {
        let Some(raw) = get(members, &[name]).filter(|raw| !is_nothing(raw)) else { continue };
        let mut time: Option<DateTime<Utc>> = None;
        if time.read("", raw).is_err() || !time.is_none_or(is_storable) {
            // A value that is not a time may be private.
            let is_timely =
                raw.bytes().all(|byte| byte.is_ascii_digit() || b"\"TZ :.+-eE".contains(&byte));
            return Err(FieldError::new(name, if is_timely { raw } else { "" }, TIME));
        }
        if time.is_some() {
            return Ok(time);
        }
    }
    Ok(None)
}

/// Converts nanoseconds since 1970 into a time. 0 means that no time is stated.
pub(super) fn time_of_nanos(name: &str, nanos: u64) -> Result<Option<DateTime<Utc>>, FieldError> {
    if nanos == 0 {
        return Ok(None);
    }
    let time = i64::try_from(nanos)
        .ok()
        .map(DateTime::from_timestamp_nanos)
        .filter(|time| is_storable(*time));
    time.map(Some).ok_or_else(|| FieldError::new(name, &nanos.to_string(), TIME))
}

pub(super) fn number(members: &Members<'_>, names: &[&str]) -> Option<f64> {
    let mut number: Option<f64> = None;
    number.read("", get(members, names)?).ok()?;
    number
}

/// Reads a whole number of 32 bits.
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
