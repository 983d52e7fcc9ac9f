//! Reasons for refusals. There are few, so that refusals can be counted by reason.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Reason for a refusal.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The text as a whole is not valid JSON, UTF-8, protobuf, gzip or zstd.
    NotReadable,
    /// A required field is missing.
    Missing,
    /// A field has an invalid value.
    #[default]
    Invalid,
    /// A field is unknown.
    UnknownField,
    /// JSON is nested too deeply.
    TooDeep,
    /// A text, a list or a body is too large.
    TooLarge,
    /// The data belongs to another organisation or workspace than the key, or the key lacks a
    /// scope.
    NotAllowed,
    /// The data is of a kind that is not stored.
    NotKept,
    /// The data refers to something that does not exist.
    NotFound,
    /// The monthly quota of the organisation's plan is used up.
    OverQuota,
    /// The record is older than the retention of the organisation's plan.
    PastRetention,
    /// The content coding of the body is not supported.
    Encoding,
    /// The body ended early.
    BrokenOff,
    /// There was not enough memory at that time.
    Busy,
    /// The server could not store data at that time.
    Unavailable,
}

impl Reason {
    /// All reasons.
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

    /// Returns the name in metrics and responses.
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

    /// Returns the reason of a refusal that has only a field.
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

/// Known facts about a refused record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Organisation in the record.
    pub organisation: Option<String>,
    /// Workspace in the record.
    pub workspace: Option<String>,
    /// Names of the fields, the refused one first. `None` if they must not or cannot be shown.
    pub excerpt: Option<String>,
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
