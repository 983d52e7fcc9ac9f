//! OTLP's values and attributes, out of either encoding, in bounded memory, and back to plain JSON.
//!
//! A value of type bytes is read as null: no convention for calls uses one.

use super::wire::{self, Value};
use crate::ingest::usage::get;
use crate::record::json::{FieldError, Read, list, members, unquote, write_string};

/// The most values that one span holds. A conversation of ten thousand messages has fewer.
const MAX_VALUES: usize = 1 << 17;
/// The deepest nesting of a value.
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

/// How many more values may be read.
pub(super) struct Budget {
    values: usize,
    levels: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { values: MAX_VALUES, levels: MAX_LEVELS }
    }

    /// Counts what is no value but takes room as one does.
    pub(super) fn spend(&mut self) -> Result<(), FieldError> {
        self.one(|_| Ok(()))
    }

    /// Reads one value with what is left.
    fn one<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, FieldError>) -> Result<T, FieldError> {
        let refused = |expected: String| Err(FieldError::silent("attributes", expected));
        let Some(values) = self.values.checked_sub(1) else {
            return refused(format!("at most {MAX_VALUES} values in a span"));
        };
        let Some(levels) = self.levels.checked_sub(1) else {
            return refused(format!("values of at most {MAX_LEVELS} levels"));
        };
        (self.values, self.levels) = (values, levels);
        let read = read(self);
        self.levels += 1;
        read
    }
}

/// Reads a `KeyValue` message into the attributes.
pub(super) fn pair_of_wire(pair: &[u8], into: &mut Attributes, budget: &mut Budget) -> Result<(), FieldError> {
    let mut key = String::new();
    let mut value = Any::Null;
    for field in wire::fields(pair) {
        match field? {
            (1, field) => key = field.text().unwrap_or_default(),
            (2, Value::Bytes(bytes)) => value = of_wire(bytes, budget)?,
            _ => {}
        }
    }
    budget.spend()?;
    into.push((key, value));
    Ok(())
}

/// Reads an `AnyValue` message.
pub(super) fn of_wire(bytes: &[u8], budget: &mut Budget) -> Result<Any, FieldError> {
    budget.one(|budget| {
        let mut any = Any::Null;
        for field in wire::fields(bytes) {
            any = match field? {
                (1, text) => text.text().map_or(Any::Null, Any::Text),
                (2, Value::Varint(flag)) => Any::Bool(flag != 0),
                (3, Value::Varint(number)) => Any::Int(number.cast_signed()),
                (4, Value::Fixed64(bits)) => Any::Float(f64::from_bits(bits)),
                (5, Value::Bytes(list)) => {
                    Any::List(wire::messages(list, 1).map(|value| of_wire(value?, budget)).collect::<Result<_, _>>()?)
                }
                (6, Value::Bytes(map)) => {
                    let mut pairs = Attributes::new();
                    for pair in wire::messages(map, 1) {
                        pair_of_wire(pair?, &mut pairs, budget)?;
                    }
                    Any::Map(pairs)
                }
                _ => any,
            };
        }
        Ok(any)
    })
}

/// Reads a JSON array of `KeyValue`s.
pub(super) fn pairs_of_json(raw: Option<&str>, budget: &mut Budget) -> Result<Attributes, FieldError> {
    let Some(raw) = raw else { return Ok(Attributes::new()) };
    let expected = || FieldError::silent("attributes", "an array of objects with `key` and `value`");
    let mut pairs = Attributes::new();
    for raw in list(raw).ok_or_else(expected)? {
        let pair = members(raw).ok_or_else(expected)?;
        let key = get(&pair, &["key"]).map(|key| unquote(key).into_owned()).unwrap_or_default();
        budget.spend()?;
        pairs.push((key, get(&pair, &["value"]).map_or(Ok(Any::Null), |value| of_json(value, budget))?));
    }
    Ok(pairs)
}

/// Reads a JSON `AnyValue`: an object whose one key says the type.
pub(super) fn of_json(raw: &str, budget: &mut Budget) -> Result<Any, FieldError> {
    let expected = || FieldError::silent("attributes", "values such as {\"stringValue\":\"…\"}");
    budget.one(|budget| {
        let members = members(raw).ok_or_else(expected)?;
        let Some((kind, raw)) = members.iter().rfind(|(_, raw)| *raw != "null") else { return Ok(Any::Null) };
        let values = || get_values(raw).ok_or_else(expected);
        Ok(match &**kind {
            "stringValue" if raw.starts_with('"') => Any::Text(unquote(raw).into_owned()),
            "boolValue" => Any::Bool(read::<bool>(raw).ok_or_else(expected)?),
            "intValue" => Any::Int(read::<i64>(raw).ok_or_else(expected)?),
            // `"NaN"` and `"Infinity"` are no numbers in JSON.
            "doubleValue" => read::<f64>(raw).map_or(Any::Null, Any::Float),
            "arrayValue" => {
                let values = values()?.map(list).unwrap_or(Some(Vec::new())).ok_or_else(expected)?;
                Any::List(values.into_iter().map(|raw| of_json(raw, budget)).collect::<Result<_, _>>()?)
            }
            "kvlistValue" => Any::Map(pairs_of_json(values()?, budget)?),
            _ => Any::Null,
        })
    })
}

/// The `values` of an `ArrayValue` or a `KeyValueList`.
fn get_values(raw: &str) -> Option<Option<&str>> {
    Some(get(&members(raw)?, &["values"]))
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
    /// The text, that is not empty; of a number or a flag its digits or name.
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

    /// The number, also out of a text.
    pub(super) fn float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
        .filter(|number: &f64| number.is_finite())
    }

    /// A whole number that is not below 0, rounded from a fraction, also out of a text.
    pub(super) fn count(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number).filter(|number| *number >= 0),
            other => {
                other.float().map(f64::round).filter(|number| (0.0..9e15).contains(number)).map(|number| number as i64)
            }
        }
    }

    /// The flag, also out of a text.
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
            Self::Float(number) if number.is_finite() => out.extend_from_slice(format!("{number:?}").as_bytes()),
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

    /// The value as plain JSON; a text that holds a JSON array or object as what it holds, for that is how SDKs put one
    /// into an attribute.
    pub(super) fn json(&self) -> String {
        if let Self::Text(text) = self
            && (list(text.trim()).is_some() || members(text.trim()).is_some())
        {
            return text.trim().to_owned();
        }
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The first of the names that is there and not null.
pub(super) fn find<'a>(attributes: &'a Attributes, names: &[&str]) -> Option<&'a Any> {
    let found = |name: &&str| attributes.iter().rfind(|(key, value)| key == name && *value != Any::Null);
    names.iter().find_map(found).map(|(_, value)| value)
}
