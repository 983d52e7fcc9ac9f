//! The native format: gatelog's own JSON form, one object per record.

use super::{Context, discreet};
use crate::record::Record;
use crate::record::json::{self, FieldError};

/// Reads one record.
pub(super) fn read(text: &str, context: &Context) -> Result<Record, FieldError> {
    let mut record = json::parse(text).map_err(|error| discreet(error, text, context))?;
    context.policy.price_by_response(&mut record);
    Ok(record)
}
