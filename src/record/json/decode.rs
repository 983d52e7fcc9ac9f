//! Parses JSON into a [`Record`]: one pass over the text, in which bodies are skipped as raw text
//! and copied once.
//!
//! A field that cannot be read refuses the record, and the refusal names the field.
//! [`Decoder::fault`] carries the refusal beside serde's error, because serde's messages quote
//! values.

use std::fmt;

use arrow::array::RecordBatch;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::field_error::FieldError;
use super::reader::Reader;
use super::reason::Reason;
use super::text::Checks;
use super::value::{self, Expected};
use crate::error::Error;
use crate::record::columns::{COLUMNS, READERS, Record};
use crate::record::message::Message;
use crate::record::schema::{DATE, Kind, RETENTION_DAYS};

/// Maximum size of a record, in bytes of its JSON text.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// Parses one record in its JSON form.
///
/// Refuses, with the field, its value and the expected form: text that is not one JSON object,
/// unknown keys, values that cannot be converted to the type of their column without loss, bodies
/// nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH), and more than [`MAX_RECORD_BYTES`]. Derives
/// missing `user_id`, `total_units` and `is_success` from the other fields if possible.
pub fn parse(text: &str) -> Result<Record, FieldError> {
    if text.len() > MAX_RECORD_BYTES {
        return Err(too_large(MAX_RECORD_BYTES));
    }
    let mut decoder = Decoder {
        record: Record::default(),
        entered: Vec::new(),
        checks: Checks::from_text(text),
        keys: None,
        values: None,
        fault: None,
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_map(&mut decoder).and_then(|()| reader.end());
    if let Some(fault) = decoder.fault {
        return Err(fault);
    }
    read.map_err(|error| syntax(&error))?;
    decoder.finish()
}

/// Reads the rows of a batch, and fills in the fields that follow from others, as [`parse`] does.
/// Parts in the log and batches of programs that embed the engine may lack them.
pub fn read_batch(batch: &RecordBatch) -> Result<Vec<Record>, Error> {
    let mut records = Record::from_batch(batch)?;
    records.iter_mut().for_each(derive);
    Ok(records)
}

/// Returns the refusal of a record that is larger than `limit` bytes.
pub(crate) fn too_large(limit: usize) -> FieldError {
    let limit = if limit.is_multiple_of(1 << 20) {
        format!("{} MiB", limit >> 20)
    } else {
        format!("{limit} bytes")
    };
    FieldError::silent("json", format!("a record of at most {limit} (`max_record_bytes`)"))
        .because(Reason::TooLarge)
}

/// Returns the refusal of a text that is not a JSON object, without quoting the text.
fn syntax(error: &serde_json::Error) -> FieldError {
    if error.is_data() {
        return FieldError::silent("json", "one JSON object");
    }
    // A record is usually one line, and the line number within a file is added elsewhere.
    let reason = error.to_string().replace(" at line 1 column ", " at column ");
    if reason.starts_with("trailing characters") {
        return FieldError::silent(
            "json",
            format!("one JSON object on a line ({reason} belong on a line of their own)"),
        );
    }
    FieldError::silent("json", format!("one JSON object ({reason})"))
}

/// Fills in missing fields that follow from others.
pub(crate) fn derive(record: &mut Record) {
    if record.user_id.is_none()
        && let Some((_, user)) = record.metadata.iter().find(|(key, _)| key == "_user")
    {
        record.user_id = Some(user.clone());
    }
    if record.total_units.is_none()
        && let (Some(request), Some(response)) = (record.req_units, record.res_units)
    {
        record.total_units = request.checked_add(response);
    }
    if record.is_success.is_none() {
        record.is_success =
            record.response_status_code.map(|status| i32::from((200..300).contains(&status)));
    }
}

struct Decoder {
    record: Record,
    /// Message columns that were given as an object.
    entered: Vec<&'static str>,
    checks: Checks,
    /// Parallel arrays of the metadata, until both are read.
    keys: Option<Vec<String>>,
    values: Option<Vec<Option<String>>>,
    fault: Option<FieldError>,
}

impl<'de> Visitor<'de> for &mut Decoder {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key>()? {
            self.member(key, &mut map)?;
        }
        Ok(())
    }
}

impl Decoder {
    fn member<'de, A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        let read = match key {
            Key::Column(place) => match READERS[place] {
                Reader::Value(read) => {
                    let raw = map.next_value::<&RawValue>()?.get();
                    read(&mut self.record, raw).map_err(|expected| refusal(place, raw, expected))
                }
                Reader::Message(side) => {
                    let message = side(&mut self.record);
                    let name = COLUMNS[place].name;
                    if self.entered.contains(&name) {
                        // Of a duplicate key, the last value replaces the whole earlier one.
                        *message = Message::default();
                    } else {
                        self.entered.push(name);
                    }
                    let mut entered = false;
                    let side = Side {
                        message,
                        name,
                        checks: self.checks,
                        entered: &mut entered,
                        fault: &mut self.fault,
                    };
                    return map.next_value_seed(side).inspect_err(|_| {
                        if !entered {
                            self.fault = Some(FieldError::silent(name, MEMBERS));
                        }
                    });
                }
            },
            Key::Part(side, column, part) => part.read(
                side(&mut self.record),
                column,
                map.next_value::<&RawValue>()?.get(),
                self.checks,
            ),
            Key::TagKeys => {
                texts("metadata.key", map.next_value::<&RawValue>()?.get()).map(|keys| {
                    self.keys =
                        keys.map(|keys| keys.into_iter().map(Option::unwrap_or_default).collect())
                })
            }
            Key::TagValues => texts("metadata.value", map.next_value::<&RawValue>()?.get())
                .map(|values| self.values = values),
            Key::Ignored => map.next_value::<IgnoredAny>().map(|_| Ok(()))?,
            Key::Unknown(name) => Err(unknown(&name)),
        };
        read.map_err(|fault| stop(&mut self.fault, fault))
    }

    fn finish(self) -> Result<Record, FieldError> {
        let mut record = self.record;
        match (self.keys, self.values) {
            (None, None) => {}
            (keys, values) => {
                let keys = keys.unwrap_or_default();
                let values = values.unwrap_or_default();
                if keys.len() != values.len() {
                    let expected = format!("as many elements as `metadata.key`, {}", keys.len());
                    return Err(FieldError::new(
                        "metadata.value",
                        &format!("{} elements", values.len()),
                        expected,
                    ));
                }
                let mut pairs: Vec<_> = keys.into_iter().zip(values).collect();
                value::keep_last(&mut pairs);
                let pairs = pairs.into_iter();
                record.metadata.extend(pairs.filter_map(|(key, value)| Some((key, value?))));
                value::keep_last(&mut record.metadata);
            }
        }
        derive(&mut record);
        Ok(record)
    }
}

/// Stops the parser with a refusal.
fn stop<E: serde::de::Error>(slot: &mut Option<FieldError>, fault: FieldError) -> E {
    *slot = Some(fault);
    E::custom("refused")
}

/// Parses one of the parallel arrays. Null becomes `None`.
fn texts(field: &str, raw: &str) -> Result<Option<Vec<Option<String>>>, FieldError> {
    if raw == "null" {
        return Ok(None);
    }
    let elements =
        value::list(raw).ok_or_else(|| FieldError::silent(field, "an array of texts"))?;
    Ok(Some(elements.into_iter().map(value::tag).collect()))
}

fn refusal(place: usize, raw: &str, expected: Expected) -> FieldError {
    let column = &COLUMNS[place];
    let expected = format!("{expected} ({})", column.doc);
    if column.kind == Kind::Tags {
        return FieldError::silent(column.name, expected);
    }
    FieldError::new(column.name, raw, expected)
}

/// `request` or `response` as an object, or null.
struct Side<'r> {
    message: &'r mut Message,
    name: &'static str,
    checks: Checks,
    /// Set once the value is known to be an object or null.
    entered: &'r mut bool,
    fault: &'r mut Option<FieldError>,
}

const MEMBERS: &str = "an object whose only members are `body` and `headers`";

impl<'de> DeserializeSeed<'de> for Side<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Side<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        *self.entered = true;
        while let Some(PartKey(part)) = map.next_key()? {
            let raw = map.next_value::<&RawValue>()?.get();
            let read = match part {
                Ok(part) => part.read(self.message, self.name, raw, self.checks),
                Err(key) => Err(FieldError::silent(&format!("{}.{key}", self.name), MEMBERS)
                    .because(Reason::UnknownField)),
            };
            read.map_err(|fault| stop(self.fault, fault))?;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        *self.entered = true;
        *self.message = Message::default();
        Ok(())
    }
}

/// A member of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Body,
    Headers,
}

impl Part {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "body" => Some(Self::Body),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
        }
    }

    fn read(
        self,
        message: &mut Message,
        column: &str,
        raw: &str,
        checks: Checks,
    ) -> Result<(), FieldError> {
        let refuse = |expected: String| {
            Err(FieldError::silent(&format!("{column}.{}", self.name()), expected))
        };
        let text = match raw.as_bytes() {
            b"null" => None,
            // Headers that were not JSON in an Arrow batch are exported as a string.
            [first, ..] if self == Self::Headers && !matches!(first, b'{' | b'"') => {
                return refuse("an object of texts".to_owned());
            }
            _ => match checks.payload(raw) {
                None => return Err(FieldError::too_deep(&format!("{column}.{}", self.name()))),
                payload => payload,
            },
        };
        match self {
            Self::Body => message.body = text,
            Self::Headers => message.headers = text,
        }
        Ok(())
    }
}

struct PartKey(Result<Part, String>);

impl<'de> Deserialize<'de> for PartKey {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = PartKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, name: &str) -> Result<PartKey, E> {
                Ok(PartKey(Part::named(name).ok_or_else(|| name.to_owned())))
            }
        }
        reader.deserialize_str(Name)
    }
}

/// Meaning of a key of the record's object.
enum Key {
    /// The column with this index in the table.
    Column(usize),
    /// One member of a message column, as in `request.body`.
    Part(fn(&mut Record) -> &mut Message, &'static str, Part),
    TagKeys,
    TagValues,
    /// A column that the engine fills in.
    Ignored,
    Unknown(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Key::named(name))
            }
        }
        reader.deserialize_str(Name)
    }
}

impl Key {
    fn named(name: &str) -> Self {
        if let Some(place) = place(name) {
            return Self::Column(place);
        }
        match name {
            "metadata.key" => return Self::TagKeys,
            "metadata.value" => return Self::TagValues,
            RETENTION_DAYS | DATE => return Self::Ignored,
            _ => {}
        }
        let dotted = name
            .split_once('.')
            .and_then(|(column, part)| Some((place(column)?, Part::named(part)?)));
        match dotted.map(|(place, part)| (&READERS[place], COLUMNS[place].name, part)) {
            Some((Reader::Message(side), column, part)) => Self::Part(*side, column, part),
            _ => Self::Unknown(name.to_owned()),
        }
    }
}

const SLOTS: usize = 256;
const EMPTY: u8 = u8::MAX;

/// Hash table of the columns by name, with open addressing: a key costs one or two comparisons
/// instead of one for each preceding column. A record has dozens of keys.
static PLACES: [u8; SLOTS] = {
    let mut slots = [EMPTY; SLOTS];
    let mut place = 0;
    while place < COLUMNS.len() {
        let mut slot = hash(COLUMNS[place].name.as_bytes());
        while slots[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = place as u8;
        place += 1;
    }
    slots
};

const fn hash(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let first = name[0] as usize;
    let middle = name[name.len() / 2] as usize;
    let last = name[name.len() - 1] as usize;
    (name.len() * 37 + first * 11 + middle * 5 + last * 3) % SLOTS
}

/// Returns the index of the column with this name.
fn place(name: &str) -> Option<usize> {
    let mut slot = hash(name.as_bytes());
    while PLACES[slot] != EMPTY {
        let place = usize::from(PLACES[slot]);
        if COLUMNS[place].name == name {
            return Some(place);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// Refuses a key that is not a column, and names similar columns.
fn unknown(name: &str) -> FieldError {
    let dotted = [
        "request.body",
        "request.headers",
        "response.body",
        "response.headers",
        "metadata.key",
        "metadata.value",
    ];
    let mut near: Vec<(usize, &str)> = COLUMNS
        .iter()
        .map(|column| column.name)
        .chain(dotted)
        .map(|known| (distance(name, known), known))
        .collect();
    near.sort_unstable();
    let names: Vec<String> = near.iter().take(3).map(|(_, known)| format!("`{known}`")).collect();
    FieldError::silent(
        name,
        format!(
            "a column; the nearest names are {}; put your own keys into `metadata`",
            names.join(", ")
        ),
    )
    .because(Reason::UnknownField)
}

/// Edit distance over the first bytes of two names.
fn distance(left: &str, right: &str) -> usize {
    let left = left.as_bytes();
    let right = right.as_bytes();
    let left = &left[..left.len().min(64)];
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, byte) in left.iter().enumerate() {
        let mut corner = row[0];
        row[0] = at + 1;
        for (place, other) in right.iter().enumerate() {
            let change = corner + usize::from(!byte.eq_ignore_ascii_case(other));
            corner = row[place + 1];
            row[place + 1] = change.min(corner + 1).min(row[place] + 1);
        }
    }
    row[right.len()]
}
