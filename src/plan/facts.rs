//! The properties of rows and files that the rules depend on.

use crate::ingest::DEFAULT_ORGANISATION;
use crate::record::Record;

/// The columns of a record, or of a version of feedback, that the rules depend on.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// True for a version of feedback.
    pub feedback: bool,
    /// Organisation of the row.
    pub organisation: &'a str,
    /// Id of the row.
    pub id: &'a str,
    /// End user of the row.
    pub user: Option<&'a str>,
    /// Time of the call as reported by its client, in µs since 1970-01-01.
    pub created_at: i64,
    /// Time at which the row's file was written, or the row was written to the log, in ms since
    /// 1970-01-01. The row had arrived by then. `i64::MAX` if unknown.
    pub written_ms: i64,
}

impl<'a> Row<'a> {
    /// Returns the columns of a call.
    pub fn from_record(record: &'a Record) -> Self {
        Self {
            feedback: false,
            organisation: record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION),
            id: record.id.as_deref().unwrap_or_default(),
            user: record.user_id.as_deref(),
            created_at: record.created_at.map_or(i64::MIN, |at| at.timestamp_micros()),
            written_ms: i64::MAX,
        }
    }
}

/// The properties of a file that the rules depend on. An unknown bound has its widest value.
#[derive(Clone, Copy, Debug)]
pub struct FileFacts<'a> {
    /// Retention class of the file: days to keep, 0 for ever.
    pub retention_days: i32,
    /// Lower bound of `created_at` of its rows, in µs since 1970-01-01.
    pub min_created_at: i64,
    /// Upper bound of `created_at` of its rows, in µs since 1970-01-01.
    pub max_created_at: i64,
    /// Lower bound of the organisations of its rows.
    pub min_organisation: Option<&'a str>,
    /// Upper bound of the organisations of its rows.
    pub max_organisation: Option<&'a str>,
    /// Time at which the file was written, in ms since 1970-01-01.
    pub modified_ms: i64,
}

impl FileFacts<'_> {
    /// Returns true if the file may hold rows of an organisation.
    pub fn may_hold(&self, organisation: &str) -> bool {
        self.min_organisation.is_none_or(|min| min <= organisation)
            && self.max_organisation.is_none_or(|max| organisation <= max)
    }
}
