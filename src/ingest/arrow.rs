//! Applies the policy to Arrow batches, which programs that embed the engine append. The columns
//! that may hold content go through the same rules as records. A batch from which nothing is
//! removed is returned unchanged.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::Int32Type;

use super::Policy;
use crate::error::{Error, Result};
use crate::record::{BatchBuilder, Message, Record};

/// Columns that the policy may change.
const CHANGED: [&str; 5] = ["request_url", "user_id", "metadata", "request", "response"];

/// Removes what must not be stored from a batch with the schema of records.
pub(crate) fn protect(policy: &Policy, batch: RecordBatch) -> Result<RecordBatch> {
    let rows = Rows { batch: &batch };
    let mut builder = BatchBuilder::new();
    let mut changes = false;
    for row in 0..batch.num_rows() {
        let record = rows.record(row);
        let mut protected = record.clone();
        policy.protect(&mut protected);
        changes |= protected != record;
        builder.append(&protected);
    }
    if !changes {
        return Ok(batch);
    }
    let protected = builder.finish();
    let column = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| -> ArrayRef {
        let new = CHANGED
            .contains(&field.name().as_str())
            .then(|| protected.column_by_name(field.name()))
            .flatten();
        Arc::clone(new.unwrap_or_else(|| batch.column(at)))
    };
    let columns = batch.schema().fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new(batch.schema(), columns).map_err(|cause| {
        Error::internal("cannot assemble a batch from its protected columns").with_source(cause)
    })
}

/// Rows of a batch, limited to the columns that the policy reads.
struct Rows<'b> {
    batch: &'b RecordBatch,
}

impl Rows<'_> {
    fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.batch.column_by_name(name)
    }

    fn record(&self, row: usize) -> Record {
        Record {
            do_not_track: self.column("do_not_track").and_then(|column| {
                let column = column.as_boolean();
                column.is_valid(row).then(|| column.value(row))
            }),
            response_status_code: self.short("response_status_code", row),
            is_success: self.short("is_success", row),
            request_url: self.column("request_url").and_then(|column| text(column, row)),
            user_id: self.column("user_id").and_then(|column| text(column, row)),
            metadata: self.tags(row),
            request: self.message("request", row),
            response: self.message("response", row),
            ..Record::default()
        }
    }

    fn short(&self, name: &str, row: usize) -> Option<i32> {
        let column = self.column(name)?.as_primitive::<Int32Type>();
        column.is_valid(row).then(|| column.value(row))
    }

    fn tags(&self, row: usize) -> Vec<(String, String)> {
        let Some(column) = self.column("metadata").map(|column| column.as_map()) else {
            return Vec::new();
        };
        if column.is_null(row) {
            return Vec::new();
        }
        let entries: StructArray = column.value(row);
        let keys = entries.column(0).as_string::<i32>();
        let values = entries.column(1).as_string::<i32>();
        keys.iter()
            .zip(values)
            .filter_map(|(key, value)| Some((key?.to_owned(), value?.to_owned())))
            .collect()
    }

    fn message(&self, name: &str, row: usize) -> Message {
        let Some(column) = self.column(name).map(|column| column.as_struct()) else {
            return Message::default();
        };
        if column.is_null(row) {
            return Message::default();
        }
        let part = |name: &str| text(column.column_by_name(name)?, row);
        Message { body: part("body"), headers: part("headers") }
    }
}

fn text(column: &ArrayRef, row: usize) -> Option<String> {
    let column = column.as_string_view();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(records: &[Record]) -> RecordBatch {
        let mut builder = BatchBuilder::new();
        records.iter().for_each(|record| builder.append(record));
        builder.finish()
    }

    #[test]
    fn a_batch_is_protected_as_its_records_are() {
        let text = |text: &str| Some(text.to_owned());
        let message =
            || Message { body: text("1"), headers: text(r#"{"api-key":"0123456789abcdef"}"#) };
        let record = Record {
            id: text("a"),
            cost: Some(1.0),
            request_url: text("http://127.0.0.1/?key=0123456789abcdef"),
            metadata: vec![("k".to_owned(), "v".to_owned())],
            request: message(),
            response: message(),
            ..Record::default()
        };
        let untracked =
            Record { do_not_track: Some(true), response_status_code: Some(500), ..record.clone() };
        let records = [record, untracked, Record::default()];
        let policy = Policy::default();
        let mut expected = records.clone();
        expected.iter_mut().for_each(|record| policy.protect(record));
        assert_ne!(expected, records);
        assert_eq!(protect(&policy, batch(&records)).unwrap(), batch(&expected));
    }

    #[test]
    fn a_batch_without_anything_to_take_out_is_not_copied() {
        let plain = Record {
            id: Some("a".to_owned()),
            request_url: Some("http://127.0.0.1/".to_owned()),
            ..Record::default()
        };
        let before = batch(&[plain]);
        let after = protect(&Policy::default(), before.clone()).unwrap();
        assert!(
            before
                .columns()
                .iter()
                .zip(after.columns())
                .all(|(before, after)| Arc::ptr_eq(before, after))
        );
    }
}
