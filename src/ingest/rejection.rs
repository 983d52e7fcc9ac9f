//! Rejections of records.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::record::json::{FieldError, Reason, Seen};

/// A record that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Number of the record in the request, counted from 0.
    pub record: u64,
    /// Line in which the record begins, counted from 1; `None` if records are not read from text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Name of the field, or `json` if the text is not a JSON object.
    pub field: String,
    /// Beginning of the field's value; empty if the value may be private.
    pub value: String,
    /// Description of the expected value.
    pub expected: String,
    /// Reason, by which refusals are counted.
    #[serde(skip)]
    pub reason: Reason,
    /// Organisation and workspace that the record names, and its excerpt. Only the excerpt is
    /// written to clients.
    #[serde(
        rename = "excerpt",
        serialize_with = "write_excerpt",
        skip_serializing_if = "has_no_excerpt"
    )]
    pub seen: Option<Box<Seen>>,
}

fn excerpt(seen: Option<&Seen>) -> Option<&str> {
    seen.and_then(|seen| seen.excerpt.as_deref())
}

#[expect(clippy::ref_option, reason = "serde passes the field this way")]
fn write_excerpt<S: Serializer>(
    seen: &Option<Box<Seen>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    excerpt(seen.as_deref()).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde passes the field this way")]
fn has_no_excerpt(seen: &Option<Box<Seen>>) -> bool {
    excerpt(seen.as_deref()).is_none()
}

impl Rejection {
    pub(super) fn new(record: u64, error: FieldError) -> Self {
        let FieldError { field, value, expected, reason, seen } = error;
        Self { record, line: None, field, value, expected, reason, seen }
    }

    /// Returns the rejection with the line in which the record begins.
    pub(super) fn in_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// Returns the excerpt of the record, masked and redacted, if it may be shown.
    pub fn excerpt(&self) -> Option<&str> {
        excerpt(self.seen.as_deref())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, line, field, value, expected, .. } = self;
        match line {
            Some(line) => write!(f, "line {line} (record {record}): field `{field}`")?,
            None => write!(f, "record {record}: field `{field}`")?,
        }
        match value.as_str() {
            "" => write!(f, ": expected {expected}"),
            value => write!(f, " is `{value}`; expected {expected}"),
        }
    }
}
