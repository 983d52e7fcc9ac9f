//! The native format: gatelog's own JSON form, one object per record.

use super::context::Context;
use crate::record::Record;
use crate::record::json::{self, FieldError, members};

/// Reads one record.
pub(super) fn read(text: &str, context: &Context) -> Result<Record, FieldError> {
    let mut record = json::parse(text).map_err(|error| discreet(error, text, context))?;
    context.policy.price_by_response(&mut record);
    Ok(record)
}

/// Returns the error without the client's values if the call is not to be tracked: a bad record may
/// hold content in any place.
fn discreet(error: FieldError, text: &str, context: &Context) -> FieldError {
    let untracked = context.is_untracked()
        || match members(text) {
            None => text.contains("do_not_track"),
            Some(fields) => fields.iter().any(|(key, raw)| {
                key == "do_not_track"
                    && !matches!(*raw, "false" | "0" | "null" | "\"false\"" | "\"0\"" | "\"\"")
            }),
        };
    if !untracked {
        return error;
    }
    match crate::record::column(&error.field) {
        Some(column) => FieldError::silent(column.name, error.expected).because(error.reason),
        None => {
            let expected =
                "a valid record; the details are not shown, because the call is not tracked";
            FieldError::silent("json", expected).because(error.reason)
        }
    }
}
