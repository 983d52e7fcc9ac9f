//! Reasons for which something that a client sent is refused: few, so that refusals can be counted
//! by them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::FieldError;
use crate::error::Error;

/// Why something was refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The text is not what it must be as a whole: JSON, UTF-8, protobuf, gzip or zstd.
    NotReadable,
    /// A field that is needed is not there.
    Missing,
    /// A field has a value that it cannot have.
    #[default]
    Invalid,
    /// A field is not known.
    UnknownField,
    /// JSON is nested too deep.
    TooDeep,
    /// A text, a list or a body is too large.
    TooLarge,
    /// It belongs to another organisation or workspace than the key, or the key lacks a scope.
    NotAllowed,
    /// It is of a kind that is not kept.
    NotKept,
    /// What it refers to does not exist.
    NotFound,
    /// The plan of the organisation stores no more records this month.
    OverQuota,
    /// It is older than the plan of the organisation keeps records.
    PastRetention,
    /// The content coding of the body is not supported.
    Encoding,
    /// The body ended before its time.
    BrokenOff,
    /// There was no room for it at that moment.
    Busy,
    /// The server could not store anything at that moment.
    Unavailable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::NotReadable,
        Self::Missing,
        Self::Invalid,
        Self::UnknownField,
        Self::TooDeep,
        Self::TooLarge,
        Self::NotAllowed,
        Self::NotKept,
        Self::NotFound,
        Self::OverQuota,
        Self::PastRetention,
        Self::Encoding,
        Self::BrokenOff,
        Self::Busy,
        Self::Unavailable,
    ];

    /// Its name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotReadable => "not_readable",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::UnknownField => "unknown_field",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::NotAllowed => "not_allowed",
            Self::NotKept => "not_kept",
            Self::NotFound => "not_found",
            Self::OverQuota => "over_quota",
            Self::PastRetention => "past_retention",
            Self::Encoding => "encoding",
            Self::BrokenOff => "broken_off",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }

    /// The reason of a refusal that names only its field.
    pub(super) fn for_field(field: &str) -> Self {
        if matches!(field, "json" | "protobuf") { Self::NotReadable } else { Self::Invalid }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|reason| reason.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("`reason` is `{name}`; expected one of {known}"))
        })
    }
}

/// What is known of a refused record beside its fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The organisation that the record names.
    pub organisation: Option<String>,
    /// The workspace that it names.
    pub workspace: Option<String>,
    /// The names of its fields, the refused one first; none where they must not or cannot be shown.
    pub excerpt: Option<String>,
}

impl FieldError {
    /// A refusal of a record that lacks a field.
    pub(crate) fn missing(field: &str, expected: impl Into<String>) -> Self {
        Self::silent(field, expected).because(Reason::Missing)
    }

    /// A refusal of JSON that is nested deeper than [`super::MAX_DEPTH`].
    pub(crate) fn too_deep(field: &str) -> Self {
        Self::silent(field, format!("at most {} levels of nesting", super::MAX_DEPTH))
            .because(Reason::TooDeep)
    }

    /// The same refusal for that reason.
    pub(crate) fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// The same refusal with what is known of the record.
    pub(crate) fn seen(self, seen: Seen) -> Self {
        Self { seen: Some(Box::new(seen)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_reasons_are_read_back_and_are_those_of_serde() {
        for reason in Reason::ALL {
            assert_eq!(reason.name().parse::<Reason>().unwrap(), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
        assert!("other".parse::<Reason>().unwrap_err().message().contains("not_readable"));
    }
}
