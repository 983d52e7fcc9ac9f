//! Converts one JSON value to one Rust value, accepting the spellings that clients use, without
//! loss.
//!
//! `raw` is always the text of one valid JSON value without surrounding white space: the caller got
//! it from the parser.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::text::unquote;
use crate::time;

/// Description of the expected value, for the message.
pub(crate) type Expected = &'static str;

/// A field of a record that is read from JSON. `name` is the column, for the few columns with rules
/// of their own.
pub(crate) trait Read {
    /// Reads the value of `raw`. Null empties the field.
    fn read(&mut self, name: &'static str, raw: &str) -> Result<(), Expected>;
}

impl Read for Option<String> {
    #[inline]
    fn read(&mut self, name: &'static str, raw: &str) -> Result<(), Expected> {
        *self = match raw.as_bytes() {
            [b'"', ..] => Some(unquote(raw).into_owned()),
            [b'-' | b'0'..=b'9', ..] => Some(raw.to_owned()),
            b"null" => None,
            _ => return Err("a text"),
        };
        match name {
            "id" if self.as_deref() == Some("") => *self = None,
            "mode" | "cache_status" | "cache_type" => {
                self.iter_mut().for_each(|text| text.make_ascii_uppercase())
            }
            _ => {}
        }
        Ok(())
    }
}

impl Read for Option<i64> {
    fn read(&mut self, _: &'static str, raw: &str) -> Result<(), Expected> {
        *self = integer(raw).ok_or("a whole number of 64 bits")?;
        Ok(())
    }
}

impl Read for Option<i32> {
    fn read(&mut self, name: &'static str, raw: &str) -> Result<(), Expected> {
        if name == "is_success" {
            *self = boolean(raw).ok_or("1, 0, true or false")?.map(i32::from);
            return Ok(());
        }
        let number = integer(raw).ok_or("a whole number of 32 bits")?;
        *self = number.map(i32::try_from).transpose().map_err(|_| "a whole number of 32 bits")?;
        Ok(())
    }
}

impl Read for Option<f64> {
    fn read(&mut self, _: &'static str, raw: &str) -> Result<(), Expected> {
        *self = float(raw).ok_or("a number")?;
        Ok(())
    }
}

impl Read for Option<bool> {
    fn read(&mut self, _: &'static str, raw: &str) -> Result<(), Expected> {
        *self = boolean(raw).ok_or("true or false")?;
        Ok(())
    }
}

impl Read for Option<DateTime<Utc>> {
    fn read(&mut self, _: &'static str, raw: &str) -> Result<(), Expected> {
        const EXPECTED: Expected =
            "a time such as 2026-11-21T16:26:58.758Z, or a number since 1970 in s, ms, µs or ns";
        *self = match number_text(raw).ok_or(EXPECTED)? {
            None => None,
            Some(text) => Some(time::parse(&text).ok_or(EXPECTED)?),
        };
        Ok(())
    }
}

impl Read for Vec<(String, String)> {
    fn read(&mut self, _: &'static str, raw: &str) -> Result<(), Expected> {
        self.clear();
        match raw.as_bytes() {
            b"null" => return Ok(()),
            [b'{', ..] => {}
            _ => return Err("an object of texts"),
        }
        let pairs = members(raw).ok_or("an object of texts")?;
        let mut pairs: Vec<_> =
            pairs.into_iter().map(|(key, raw)| (key.into_owned(), tag(raw))).collect();
        // A null that is the last value of a duplicate key counts too.
        keep_last(&mut pairs);
        self.extend(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))));
        Ok(())
    }
}

/// Returns the text of a metadata value. Null becomes `None`, and a value that is not text keeps
/// its JSON.
pub(super) fn tag(raw: &str) -> Option<String> {
    match raw.as_bytes() {
        b"null" => None,
        [b'"', ..] => Some(unquote(raw).into_owned()),
        _ => Some(raw.to_owned()),
    }
}

/// Keeps the last value of each key, at the position of the first, as JSON parsers do.
pub(crate) fn keep_last<V>(pairs: &mut Vec<(String, V)>) {
    let doubled =
        |(at, pair): (usize, &(String, V))| pairs[..at].iter().any(|before| before.0 == pair.0);
    // The nested search is fast for the few keys that metadata has, and far too slow for thousands.
    if pairs.len() <= 32 && !pairs.iter().enumerate().any(doubled) {
        return;
    }
    let mut places = HashMap::with_capacity(pairs.len());
    let mut kept: Vec<(String, V)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs.drain(..) {
        match places.get(&key) {
            Some(place) => {
                let slot: &mut (String, V) = &mut kept[*place];
                slot.1 = value;
            }
            None => {
                places.insert(key.clone(), kept.len());
                kept.push((key, value));
            }
        }
    }
    *pairs = kept;
}

/// Returns the digits of a number or of a text: `Some(None)` for null and the empty text, `None`
/// for any other kind of value.
fn number_text(raw: &str) -> Option<Option<Cow<'_, str>>> {
    match raw.as_bytes() {
        b"null" => Some(None),
        [b'"', ..] => Some(Some(unquote(raw)).filter(|text| !text.trim().is_empty())),
        [b'-' | b'0'..=b'9', ..] => Some(Some(Cow::Borrowed(raw))),
        _ => None,
    }
}

/// Parses a whole number, also written as `12.0`, `1e3`, `"12"` or `"0123"`.
fn integer(raw: &str) -> Option<Option<i64>> {
    /// Beyond this, a float no longer represents every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let Some(text) = number_text(raw)? else { return Some(None) };
    let text = text.trim();
    if let Ok(number) = text.parse::<i64>() {
        return Some(Some(number));
    }
    let number = decimal(text)?;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(Some(number as i64))
}

fn float(raw: &str) -> Option<Option<f64>> {
    match number_text(raw)? {
        None => Some(None),
        Some(text) => decimal(text.trim()).map(Some),
    }
}

/// Parses a finite decimal number. Rejects the `inf` and `nan` that Rust's own parser accepts.
fn decimal(text: &str) -> Option<f64> {
    let plain =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    text.parse::<f64>().ok().filter(|number| plain && number.is_finite())
}

fn boolean(raw: &str) -> Option<Option<bool>> {
    let text = match raw.as_bytes() {
        b"null" => return Some(None),
        [b'"', ..] => unquote(raw),
        _ => Cow::Borrowed(raw),
    };
    match text.trim() {
        "" => Some(None),
        "1" | "1.0" => Some(Some(true)),
        "0" | "0.0" => Some(Some(false)),
        text if text.eq_ignore_ascii_case("true") => Some(Some(true)),
        text if text.eq_ignore_ascii_case("false") => Some(Some(false)),
        _ => None,
    }
}

/// Number of members for which room is reserved, enough for most headers and metadata.
const USUAL_MEMBERS: usize = 8;

/// Returns the keys of an object with the raw text of their values, in order, or `None` if the text
/// is not one JSON object.
pub(crate) fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de str)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::with_capacity(USUAL_MEMBERS);
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                members.push((unquote(key.get()), value.get()));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members).ok()?;
    reader.end().ok().map(|()| members)
}

/// Returns the raw texts of an array's elements, or `None` if the text is not one JSON array.
pub(crate) fn list(text: &str) -> Option<Vec<&str>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(value) = seq.next_element::<&RawValue>()? {
                elements.push(value.get());
            }
            Ok(elements)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let elements = reader.deserialize_seq(Elements).ok()?;
    reader.end().ok().map(|()| elements)
}
