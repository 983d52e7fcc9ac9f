//! The JSON form of a record, for reading and writing. Import, API answers and export share it.
//!
//! A record is one object on one line. Its keys are the columns of the table; `request` and
//! `response` are objects of raw JSON (`body`, `headers`), and `metadata` is an object of strings.
//! [`parse`] reads it, including the spellings that other tools produce (dotted keys, parallel
//! arrays, numbers as text). [`Encoder`] writes it from Arrow.
//!
//! Guarantees:
//!
//! - A body keeps the text that the client sent (digits, key order), without line breaks between
//!   its tokens.
//! - A key that is not a column is refused, so nothing is dropped silently.
//! - No input makes this code panic.
//! - For a record that came through [`parse`], encoding and parsing again give the same line.

mod decode;
mod doubled;
mod encode;
mod finite;
mod reason;
mod text;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

pub use decode::{parse, read_batch};
pub use encode::{Encoder, column_of};
pub use reason::{Reason, Seen};
pub use text::{check_json, embeddable};

pub(crate) use decode::{Reader, derive, too_large};
pub(crate) use doubled::KeyScan;
#[cfg(test)]
pub(crate) use doubled::last_keys;
pub(crate) use finite::finite;
pub(crate) use text::{Checks, next_special, unquote, value_end, write_string};
pub(crate) use value::{Read, keep_last, list, members};

/// Maximum size of a record, in bytes of its JSON text.
pub const MAX_RECORD_BYTES: usize = 64 << 20;
/// Maximum nesting of a body. Most JSON readers stop at 128 levels, and a record's line adds two.
pub const MAX_DEPTH: usize = 120;

/// Refusal of a record: the field, a short excerpt of its value (never of a body, headers or
/// metadata) and the expected value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, or `json` if the text is not a JSON object.
    pub field: String,
    /// Start of the value as received. Empty if it may be private or does not matter.
    pub value: String,
    /// Description of the expected value.
    pub expected: String,
    /// Reason under which refusals are counted.
    pub reason: Reason,
    /// Other known fields of the record, if it was examined.
    pub seen: Option<Box<Seen>>,
}

/// Maximum length of the excerpt of a refused value, in characters.
const EXCERPT_CHARS: usize = 60;

impl FieldError {
    /// Creates a refusal that shows the start of the value.
    pub(crate) fn new(field: &str, value: &str, expected: impl Into<String>) -> Self {
        let reason = Reason::for_field(field);
        Self {
            field: excerpt(field),
            value: excerpt(value),
            expected: expected.into(),
            reason,
            seen: None,
        }
    }

    /// Creates a refusal of a value that may be private.
    pub(crate) fn silent(field: &str, expected: impl Into<String>) -> Self {
        Self::new(field, "", expected)
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        None => text.to_owned(),
        Some(_) => text.chars().take(EXCERPT_CHARS - 1).chain(['…']).collect(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "field `{}`: expected {}", self.field, self.expected)
        } else {
            write!(f, "field `{}` is `{}`; expected {}", self.field, self.value, self.expected)
        }
    }
}

impl std::error::Error for FieldError {}

macro_rules! reader {
    ($name:ident: Message) => {
        json::Reader::Message(|record| &mut record.$name)
    };
    ($name:ident: $kind:ident) => {
        json::Reader::Value(|record, raw| {
            json::Read::read(&mut record.$name, stringify!($name), raw)
        })
    };
}
pub(super) use reader;

macro_rules! fields {
    ($($name:ident: $kind:ident;)*) => {
        /// Readers of each column's JSON value into a [`Record`], in the order of the table.
        pub(crate) const READERS: &[json::Reader] = &[$(json::reader!($name: $kind)),*];
    };
}
pub(super) use fields;
