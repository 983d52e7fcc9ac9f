//! Single values out of a client's JSON, lenient: what makes no sense is none.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::usage::{Members, get};
use crate::record::json::{Read, keep_last, members, unquote};

/// Portkey cuts keys and values of the metadata to so many characters.
const TAG_CHARS: usize = 128;

/// A JSON value; where that is a string which holds a JSON object, that object.
pub(super) fn open(raw: &str) -> Cow<'_, str> {
    if raw.starts_with('"') {
        let inner = unquote(raw);
        if inner.trim_start().starts_with('{') && members(&inner).is_some() {
            return Cow::Owned(inner.trim().to_owned());
        }
    }
    Cow::Borrowed(raw)
}

/// The metadata of a JSON object: what is not text is kept as its JSON, null is dropped, and all is cut as Portkey does.
pub(super) fn tags(text: &str) -> Vec<(String, String)> {
    let mut tags: Vec<(String, String)> = Vec::new();
    if tags.read("metadata", text.trim()).is_err() {
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
    names.iter().find_map(|name| text(members, &[name]).filter(|id| !matches!(&**id, "None" | "null" | "undefined")))
}

pub(super) fn time(members: &Members<'_>, names: &[&str]) -> Option<DateTime<Utc>> {
    names.iter().find_map(|name| {
        let mut time: Option<DateTime<Utc>> = None;
        time.read("", get(members, &[name])?).ok()?;
        time
    })
}

pub(super) fn number(members: &Members<'_>, names: &[&str]) -> Option<f64> {
    let mut number: Option<f64> = None;
    number.read("", get(members, names)?).ok()?;
    number
}

pub(super) fn flag(members: &Members<'_>, names: &[&str]) -> Option<bool> {
    let mut flag: Option<bool> = None;
    flag.read("", get(members, names)?).ok()?;
    flag
}
