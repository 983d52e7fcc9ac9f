//! Applies the policy to Arrow batches, which programs that embed the engine append. The columns
//! that may hold content go through the same rules as records. A batch from which nothing is
//! removed is returned unchanged.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::policy::Policy;
use crate::error::{Error, Result};
use crate::record::{BatchBuilder, Record};

/// Columns that the policy may change.
const CHANGED: [&str; 5] = ["request_url", "user_id", "metadata", "request", "response"];

/// Further columns that the policy reads.
const READ: [&str; 3] = ["do_not_track", "response_status_code", "is_success"];

/// Removes what must not be stored from a batch with the schema of records.
pub(crate) fn protect(policy: &Policy, batch: RecordBatch) -> Result<RecordBatch> {
    let read = columns_read(&batch)?;
    let mut builder = BatchBuilder::new();
    let mut changes = false;
    for row in 0..batch.num_rows() {
        // Row by row, so that the bodies of a large batch are not all in memory twice.
        for record in Record::from_batch(&read.slice(row, 1))? {
            let mut protected = record.clone();
            policy.protect(&mut protected);
            changes |= protected != record;
            builder.append(&protected);
        }
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

/// Returns the batch without the columns that the policy neither reads nor changes.
fn columns_read(batch: &RecordBatch) -> Result<RecordBatch> {
    let names = READ.iter().chain(&CHANGED);
    let places: Vec<usize> = names.filter_map(|name| batch.schema().index_of(name).ok()).collect();
    batch.project(&places).map_err(|cause| {
        Error::internal("cannot take the columns of a batch that may hold content")
            .with_source(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Message;

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
