//! Appends in two steps: a caller that reads a body builds the batches on the threads that parse
//! it, and appends them one after the other.

use arrow::array::RecordBatch;

use super::append::{days_of, holder_of, organisations_of, prepared};
use super::handle::Engine;
use super::status::Receipt;
use crate::catalog::Access;
use crate::error::Result;
use crate::record::{BatchBuilder, Record};
use crate::wal::Payload;

/// Rows that only have to be written to the log.
#[derive(Debug)]
pub(crate) struct BuiltAppend {
    batch: RecordBatch,
    payload: Payload,
    keys: Vec<u128>,
    /// Memory of the records, for which room is taken.
    bytes: usize,
}

impl Engine {
    /// Builds the rows of records whose bodies `ingest` has checked to be JSON. Blocks for as long
    /// as encoding takes.
    pub(crate) fn build_as(
        &self,
        access: &Access,
        mut records: Vec<Record>,
    ) -> Result<BuiltAppend> {
        self.check_access(access)?;
        let inner = &self.inner;
        inner.limit(&mut records)?;
        let bytes = records.iter().map(Record::held_bytes).sum();
        let now = (inner.now)();
        let rules = inner.catalog.rules();
        let mut builder = BatchBuilder::new();
        for mut record in records {
            inner.complete(&mut record, now, &rules);
            builder.append(&record);
        }
        let (batch, payload, keys) = prepared(builder.finish(), &inner.keys)?;
        Ok(BuiltAppend { batch, payload, keys, bytes })
    }

    /// Makes built rows durable and visible, for a key that must still have the rights that it had
    /// when the request arrived. Waits for free memory up to `append_wait_ms`.
    pub(crate) async fn append_built_as(
        &self,
        access: &Access,
        built: BuiltAppend,
    ) -> Result<Receipt> {
        self.check_access(access)?;
        let inner = &self.inner;
        inner.health.refuse_if_closed()?;
        let BuiltAppend { batch, payload, keys, bytes } = built;
        inner.writes.days.take(organisations_of(&batch).zip(days_of(&batch))).await?;
        let permit = inner.writes.budget.take(&holder_of(&batch), bytes as u64).await?;
        inner.note_unconfirmed(Some(access), &keys);
        inner.submit(batch, payload, keys, permit).await
    }
}
