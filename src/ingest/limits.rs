//! Limits of one request, and the memory that its records take.

use super::context::Headers;
use crate::record::json::{FieldError, Reason};

/// Number of rejections of one chunk that get an excerpt.
pub(super) const EXCERPTS_AT_ONCE: usize = 20;

/// Memory that a record takes in addition to its text.
pub const RECORD_BYTES: usize = 1_500;
/// Maximum memory for the records of one value, such as an object of numbered records.
pub const MAX_MADE_BYTES: usize = 64 << 20;
/// Maximum number of records in a body that is read as a whole.
pub const MAX_RECORDS: usize = 100_000;

/// Returns the maximum memory that the records in a text take once they are built, including the
/// header values that are copied into each of them.
///
/// The bound is known before any record is built, since each record is a JSON object: it counts the
/// opening braces.
pub fn made_bytes(text: &[u8], headers: &Headers) -> usize {
    let records = memchr::memchr_iter(b'{', text).count();
    text.len().saturating_add(records.saturating_mul(RECORD_BYTES + headers.bytes()))
}

/// Returns the error for a request with too many records.
pub(super) fn too_many(records: usize) -> FieldError {
    let expected = format!(
        "at most {MAX_RECORDS} records at once, not {records}; `/v1/ingest` takes any number"
    );
    FieldError::silent("json", expected).because(Reason::TooLarge)
}
