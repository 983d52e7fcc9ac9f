//! The files of `sql/analytics`: their names, their texts and their headers.

use crate::error::Result;
use crate::reports::{self, Report};

/// Returns the name and the text of a file of `sql/analytics`.
macro_rules! file {
    ($name:literal) => {
        (concat!("analytics/", $name), include_str!(concat!("../../sql/analytics/", $name, ".sql")))
    };
}
pub(super) use file;

pub(super) const CALLS: (&str, &str) = file!("calls");
pub(super) const RATINGS: (&str, &str) = file!("ratings");
pub(super) const RATED: (&str, &str) = file!("rated");
pub(super) const RATED_ONCE: (&str, &str) = file!("rated_once");
pub(super) const CACHE_SUMMARY: (&str, &str) = file!("summary_cache");

/// Parses the header of a file.
pub(super) fn header((name, sql): (&'static str, &'static str)) -> Result<Report> {
    reports::parse(name, sql)
}
