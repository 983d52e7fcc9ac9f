//! A batch that is ready for the writer.

use std::collections::{BTreeSet, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Date32Type;

use crate::dedupe::KeyHasher;
use crate::error::Result;
use crate::ingest::DEFAULT_ORGANISATION;
use crate::limits::Holder;
use crate::record::DATE;
use crate::wal::Payload;

/// A batch with all that takes time in proportion to its rows, so that the threads which answer
/// requests only have to pass it on.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) batch: RecordBatch,
    /// The encoding for the log.
    pub(super) payload: Payload,
    /// Keys of the rows.
    pub(super) keys: Vec<u128>,
    /// The party whose memory the rows count against.
    pub(super) holder: Holder,
    /// Organisations and days of the rows.
    days: BTreeSet<(String, i64)>,
}

impl Prepared {
    pub(super) fn new(batch: RecordBatch, keys: &KeyHasher) -> Result<Self> {
        let mut days = BTreeSet::new();
        let mut last = None;
        for row in organisations_of(&batch).zip(days_of(&batch)) {
            // Most rows have the same day and organisation as the row before.
            if last.replace(row) != Some(row) {
                days.insert((row.0.to_owned(), row.1));
            }
        }
        let payload = Payload::encode(&batch)?;
        let keys = keys.keys_of_batch(&batch);
        let holder = holder_of(&batch);
        Ok(Self { batch, payload, keys, holder, days })
    }

    /// Returns the days of each organisation.
    pub(super) fn days(&self) -> impl Iterator<Item = (&str, i64)> {
        self.days.iter().map(|(organisation, day)| (organisation.as_str(), *day))
    }

    /// Returns the number of different days.
    pub(super) fn day_count(&self) -> usize {
        self.days.iter().map(|(_, day)| day).collect::<HashSet<_>>().len()
    }
}

/// Returns the day of each row of a batch.
pub(super) fn days_of(batch: &RecordBatch) -> impl Iterator<Item = i64> {
    let dates = batch.column_by_name(DATE).and_then(|dates| dates.as_primitive_opt::<Date32Type>());
    dates.into_iter().flat_map(|dates| dates.values().iter().copied().map(i64::from))
}

/// Returns the organisation of each row of a batch.
fn organisations_of(batch: &RecordBatch) -> impl Iterator<Item = &str> {
    let named =
        batch.column_by_name("organisation_id").and_then(|column| column.as_string_view_opt());
    named
        .into_iter()
        .flat_map(|named| named.iter().map(|name| name.unwrap_or(DEFAULT_ORGANISATION)))
}

/// Returns the holder whose memory the rows of a batch count against.
pub(super) fn holder_of(batch: &RecordBatch) -> Holder {
    let named =
        batch.column_by_name("organisation_id").and_then(|column| column.as_string_view_opt());
    match named {
        Some(named) => {
            Holder::shared_by(named.iter().map(|name| name.unwrap_or(DEFAULT_ORGANISATION)))
        }
        None => Holder::Operator,
    }
}
