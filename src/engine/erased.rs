//! Records that were ever erased on request. An import of old records leaves them out.

use std::sync::Arc;

use super::Engine;
use crate::error::Result;
use crate::plan::{Row, Rules};
use crate::record::Record;

/// Everything that was ever erased on request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ErasedRecords(Arc<Rules>);

impl ErasedRecords {
    /// Returns true if an erasure, however old, covers the record.
    pub fn contains(&self, record: &Record) -> bool {
        self.0.erases(Row::from_record(record))
    }
}

impl Engine {
    /// Reads all erasures, including those that are no longer in force. Each node deletes what an
    /// erasure covers from the store, but a file of old records may still have it.
    pub async fn erased_records(&self) -> Result<ErasedRecords> {
        let rules = self.inner.catalog.ever_erased().await?;
        Ok(ErasedRecords(Arc::new(rules)))
    }
}
