//! The refusal of a field.

use std::fmt;

use super::reason::{Reason, Seen};
use super::text::MAX_DEPTH;

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

    /// Creates the refusal of a record without a required field.
    pub(crate) fn missing(field: &str, expected: impl Into<String>) -> Self {
        Self::silent(field, expected).because(Reason::Missing)
    }

    /// Creates the refusal of JSON that is nested deeper than [`MAX_DEPTH`].
    pub(crate) fn too_deep(field: &str) -> Self {
        Self::silent(field, format!("at most {MAX_DEPTH} levels of nesting"))
            .because(Reason::TooDeep)
    }

    /// Sets the reason.
    pub(crate) fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// Sets the known facts about the record.
    pub(crate) fn seen(self, seen: Seen) -> Self {
        Self { seen: Some(Box::new(seen)), ..self }
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
