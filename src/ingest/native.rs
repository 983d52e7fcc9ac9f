//! The native shape: our own JSON form, one object a record.

use crate::record::Record;
use crate::record::json::{self, FieldError};

/// Reads one record.
pub(super) fn read(text: &str) -> Result<Record, FieldError> {
    json::parse(text)
}
