//! Limits of one query, and the errors for exceeding them.

use std::time::Duration;

use super::provider::Ordering;
use super::withhold::Reads;
use crate::error::{Error, Result};

/// Limits of one query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum run time.
    pub timeout: Option<Duration>,
    /// Maximum number of rows.
    pub max_rows: Option<u64>,
    /// Number of rows in a batch.
    pub batch_rows: Option<usize>,
    /// Order in which the table's files are read.
    pub ordering: Ordering,
    /// Treatment of withheld columns in the statement.
    pub reads: Reads,
}

/// Fails if a query has returned more rows than it may.
pub(super) fn within_rows(rows: u64, most: Option<u64>) -> Result<()> {
    match most {
        Some(most) if rows > most => Err(Error::limit(format!(
            "the query returns more than {most} rows; add a LIMIT, raise `query_max_rows`, or use an export, which has no limit"
        ))),
        _ => Ok(()),
    }
}

/// Returns the error for a query that exceeded its time limit.
pub(super) fn too_long(limits: Limits) -> Error {
    let seconds = limits.timeout.unwrap_or_default().as_secs();
    Error::limit(format!(
        "the query ran longer than {seconds} s; narrow its time frame or raise `query_timeout_seconds`"
    ))
}
