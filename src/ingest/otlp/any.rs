//! OTLP's values and attributes: reads them from either encoding in bounded memory, and writes them
//! as plain JSON.
//!
//! A value of type bytes is read as null: no convention for calls uses one. A value that OTLP does
//! not allow is read as null too, so one bad value does not affect the rest. Only a span with more
//! values than the maximum is refused.

use std::borrow::Cow;

use super::wire::{self, Value};
use crate::ingest::usage::get;
use crate::record::json::{
    FieldError, Read, finite, keep_last, list, members, unquote, write_string,
};

/// Maximum number of values in one span. A conversation of ten thousand messages has fewer.
const MAX_VALUES: usize = 1 << 17;
/// Maximum nesting of a value.
const MAX_LEVELS: usize = 32;

/// A value of an attribute or of an event's body.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Any {
    #[default]
    Null,
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
    List(Vec<Any>),
    Map(Attributes),
}

/// Keys with values, in the order of the source.
pub(super) type Attributes = Vec<(String, Any)>;

/// Number of values and levels that may still be read.
pub(super) struct DecodeBudget {
    values: usize,
    levels: usize,
}

impl DecodeBudget {
    pub(super) fn new() -> Self {
        Self { values: MAX_VALUES, levels: MAX_LEVELS }
    }

    /// Counts an item that is not a value but takes as much memory as one.
    pub(super) fn spend(&mut self) -> Result<(), FieldError> {
        let refused =
            || FieldError::silent("attributes", format!("at most {MAX_VALUES} values in a span"));
        self.values = self.values.checked_sub(1).ok_or_else(refused)?;
        Ok(())
    }

    /// Reads one value within the budget. A value that is nested too deeply is null.
    fn one(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Any, FieldError>,
    ) -> Result<Any, FieldError> {
        self.spend()?;
        let Some(levels) = self.levels.checked_sub(1) else { return Ok(Any::Null) };
        self.levels = levels;
        let read = read(self);
        self.levels += 1;
        read
    }
}

/// Returns true if an attribute is the vector of an embedding. Vectors are not kept: they are long,
/// and mean nothing to a reader.
fn is_vector(key: &str) -> bool {
    key.starts_with("embedding.embeddings.") && key.ends_with(".embedding.vector")
        || ["ai.embedding", "ai.embeddings"].contains(&key)
}

/// Reads a `KeyValue` message into the attributes.
pub(super) fn pair_of_wire(
    pair: &[u8],
    into: &mut Attributes,
    budget: &mut DecodeBudget,
) -> Result<(), FieldError> {
    let mut key = String::new();
    let mut value = None;
    for field in wire::fields(pair) {
        match field {
            Ok((1, field)) => key = field.text().unwrap_or_default(),
            Ok((2, Value::Bytes(bytes))) => value = Some(bytes),
            Ok(_) => {}
            // A value that does not decode affects only itself.
            Err(_) => value = None,
        }
    }
    budget.spend()?;
    let value = value
        .filter(|_| !is_vector(&key))
        .map_or(Ok(Any::Null), |bytes| from_wire(bytes, budget))?;
    into.push((key, value));
    Ok(())
}

/// Reads an `AnyValue` message. A message that does not decode is null.
pub(super) fn from_wire(bytes: &[u8], budget: &mut DecodeBudget) -> Result<Any, FieldError> {
    budget.one(|budget| {
        let mut any = Any::Null;
        for field in wire::fields(bytes) {
            let Ok(field) = field else { return Ok(Any::Null) };
            any = match field {
                (1, text) => text.text().map_or(Any::Null, Any::Text),
                (2, Value::Varint(flag)) => Any::Bool(flag != 0),
                (3, Value::Varint(number)) => Any::Int(number.cast_signed()),
                (4, Value::Fixed64(bits)) => Any::Float(f64::from_bits(bits)),
                (5, Value::Bytes(list)) => {
                    let values = wire::messages(list, 1).filter_map(Result::ok);
                    Any::List(
                        values.map(|value| from_wire(value, budget)).collect::<Result<_, _>>()?,
                    )
                }
                (6, Value::Bytes(map)) => {
                    let mut pairs = Attributes::new();
                    for pair in wire::messages(map, 1).filter_map(Result::ok) {
                        pair_of_wire(pair, &mut pairs, budget)?;
                    }
                    keep_last(&mut pairs);
                    Any::Map(pairs)
                }
                _ => any,
            };
        }
        Ok(any)
    })
}

/// Reads a JSON array of `KeyValue`s into the attributes, or a plain object, which some clients
/// write instead. Anything else is ignored. Of a duplicate key the last value counts.
pub(super) fn pairs_of_json(
    raw: Option<&str>,
    into: &mut Attributes,
    budget: &mut DecodeBudget,
) -> Result<(), FieldError> {
    let raw = raw.unwrap_or("null");
    let pairs = list(raw).unwrap_or_default().into_iter().filter_map(members);
    let pairs = pairs.map(|pair| {
        let key = get(&pair, &["key"])
            .filter(|raw| raw.starts_with('"'))
            .map(|raw| unquote(raw).into_owned());
        (key.unwrap_or_default(), get(&pair, &["value"]))
    });
    let plain = members(raw)
        .unwrap_or_default()
        .into_iter()
        .map(|(key, raw)| (key.into_owned(), Some(raw)));
    for (key, value) in pairs.chain(plain) {
        budget.spend()?;
        let value = value.filter(|_| !is_vector(&key));
        let value = value.map_or(Ok(Any::Null), |value| from_json(value, budget))?;
        into.push((key, value));
    }
    keep_last(into);
    Ok(())
}

/// Reads a JSON `AnyValue`: an object whose one key names the type. A plain value has its own type.
/// A value of another type than named is converted if possible, and is null otherwise.
pub(super) fn from_json(raw: &str, budget: &mut DecodeBudget) -> Result<Any, FieldError> {
    budget.one(|budget| {
        let Some(members) = members(raw) else { return Ok(plain(raw)) };
        let Some((kind, raw)) = members.iter().rfind(|(_, raw)| *raw != "null") else {
            return Ok(Any::Null);
        };
        Ok(match &**kind {
            "stringValue" | "string_value" => match plain(raw) {
                Any::Null => Any::Null,
                Any::Text(text) => Any::Text(text),
                _ => Any::Text((*raw).to_owned()),
            },
            "boolValue" | "bool_value" => read::<bool>(raw).map_or(Any::Null, Any::Bool),
            "intValue" | "int_value" => whole(raw),
            // `"NaN"` and `"Infinity"` are not numbers in JSON.
            "doubleValue" | "double_value" => read::<f64>(raw).map_or(Any::Null, Any::Float),
            "arrayValue" | "array_value" => {
                let values = values(raw).and_then(list).unwrap_or_default();
                Any::List(
                    values
                        .into_iter()
                        .map(|raw| from_json(raw, budget))
                        .collect::<Result<_, _>>()?,
                )
            }
            "kvlistValue" | "kvlist_value" => {
                let mut pairs = Attributes::new();
                pairs_of_json(values(raw), &mut pairs, budget)?;
                Any::Map(pairs)
            }
            _ => Any::Null,
        })
    })
}

/// Reads a value that does not name its type.
fn plain(raw: &str) -> Any {
    match raw.as_bytes() {
        [b'"', ..] => Any::Text(unquote(raw).into_owned()),
        b"true" => Any::Bool(true),
        b"false" => Any::Bool(false),
        [b'-' | b'0'..=b'9', ..] => match raw.parse() {
            Ok(number) => Any::Int(number),
            Err(_) => read::<f64>(raw).map_or(Any::Null, Any::Float),
        },
        _ => Any::Null,
    }
}

/// Reads a whole number. One that is too large for 64 bits becomes a text of its digits.
fn whole(raw: &str) -> Any {
    if let Some(number) = read::<i64>(raw) {
        return Any::Int(number);
    }
    let text = if raw.starts_with('"') { unquote(raw) } else { Cow::Borrowed(raw) };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole { Any::Text(text.into_owned()) } else { Any::Null }
}

/// Returns the `values` of an `ArrayValue` or a `KeyValueList`.
fn values(raw: &str) -> Option<&str> {
    get(&members(raw)?, &["values"])
}

fn read<T>(raw: &str) -> Option<T>
where
    Option<T>: Read,
{
    let mut value: Option<T> = None;
    value.read("", raw).ok()?;
    value
}

impl Any {
    /// Returns the text if it is not empty. A number gives its digits, and a flag its name.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Bool(flag) => Some(flag.to_string()),
            Self::Int(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Null | Self::List(_) | Self::Map(_) => None,
        }
        .filter(|text| !text.is_empty())
    }

    /// Returns the number. A text is parsed.
    pub(super) fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
        .filter(|number: &f64| number.is_finite())
    }

    /// Returns a whole number of at least 0. A fraction is rounded, and a text is parsed.
    pub(super) fn count(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number).filter(|number| *number >= 0),
            other => other
                .float()
                .map(f64::round)
                .filter(|number| (0.0..9e15).contains(number))
                .map(|number| number as i64),
        }
    }

    /// Returns the flag. A text is parsed.
    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            Self::Text(text) => text.trim().to_ascii_lowercase().parse().ok(),
            _ => None,
        }
    }

    /// Appends the value as plain JSON.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write_string(out, text),
            Self::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Self::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(number) if number.is_finite() => {
                out.extend_from_slice(format!("{number:?}").as_bytes())
            }
            Self::Null | Self::Float(_) => out.extend_from_slice(b"null"),
            Self::List(values) => {
                out.push(b'[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    value.write(out);
                }
                out.push(b']');
            }
            Self::Map(pairs) => {
                out.push(b'{');
                for (at, (key, value)) in pairs.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_string(out, key);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// Returns the value as plain JSON. A text that holds a JSON array or object gives what it
    /// holds, since SDKs put JSON into an attribute this way.
    pub(super) fn json(&self) -> String {
        if let Self::Text(text) = self
            && let Some(held) = held_json(text)
        {
            return held;
        }
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Returns the JSON array or object that a text holds, even if it was encoded as a JSON string
/// twice.
pub(super) fn held_json(text: &str) -> Option<String> {
    let is_held = |text: &str| {
        text.starts_with('[') && list(text).is_some()
            || text.starts_with('{') && members(text).is_some()
    };
    let text = finite(text.trim());
    if is_held(&text) {
        return Some(text.into_owned());
    }
    let inner =
        text.starts_with('"').then(|| serde_json::from_str::<String>(&text).ok()).flatten()?;
    let inner = finite(inner.trim());
    is_held(&inner).then(|| inner.into_owned())
}

/// Returns the value of the first name that is present and not null. Of a duplicate name the last
/// value counts.
pub(super) fn find<'a>(attributes: &'a Attributes, names: &[&str]) -> Option<&'a Any> {
    let last =
        |name: &&str| attributes.iter().rfind(|(key, _)| key == name).map(|(_, value)| value);
    names.iter().find_map(|name| last(name).filter(|value| **value != Any::Null))
}
