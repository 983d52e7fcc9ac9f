//! Erasures on request. An import of old records leaves out all that were ever erased.

use std::sync::Arc;

use super::handle::Engine;
use crate::catalog::{Access, Document, ErasureEntry, ErasureSelector, arrival};
use crate::error::{Error, Result};
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
    /// Hides records, and the feedback on them, from every query on this node at once. The next
    /// maintenance removes them from the files. The catalog notes what was deleted, when and by
    /// whom (`by`: the id of a key).
    pub async fn erase(
        &self,
        organisation: &str,
        which: ErasureSelector,
        by: &str,
    ) -> Result<ErasureEntry> {
        self.erase_as(&Access::operator(by), organisation, which).await
    }

    /// [`Engine::erase`] for a key, whose rights are checked when the erasure is written.
    pub async fn erase_as(
        &self,
        access: &Access,
        organisation: &str,
        which: ErasureSelector,
    ) -> Result<ErasureEntry> {
        let engine = self.clone();
        let access = access.clone();
        let organisation = organisation.to_owned();
        // A separate task: maintenance must be notified even if the caller stops waiting.
        let erased =
            tokio::spawn(async move { engine.erase_now(&access, &organisation, which).await });
        erased
            .await
            .map_err(|cause| Error::internal("an erasure was interrupted").with_source(cause))?
    }

    async fn erase_now(
        &self,
        access: &Access,
        organisation: &str,
        which: ErasureSelector,
    ) -> Result<ErasureEntry> {
        let inner = &self.inner;
        inner.flush_dated_ahead().await;
        let id = self.new_id();
        let now = (inner.now)();
        let arrived_ms = if inner.store.is_shared() { arrival(now) } else { 0 };
        let tied = match &which {
            ErasureSelector::All => Vec::new(),
            some => self.reader().erasing(organisation, some).await?.tied,
        };
        let erase = |document: &mut Document| {
            let entry = document.erase(&id, organisation, which.clone(), &access.key_id, now)?;
            entry.feedback.clone_from(&tied);
            entry.arrived_ms = arrived_ms;
            Ok(entry.clone())
        };
        let entry = inner.catalog.change_as(access, erase).await?;
        self.catalog_changed();
        Ok(entry)
    }

    /// Reads all erasures, including those that are no longer in force. Each node deletes what an
    /// erasure covers from the store, but a file of old records may still have it.
    pub async fn erased_records(&self) -> Result<ErasedRecords> {
        let rules = self.inner.catalog.ever_erased().await?;
        Ok(ErasedRecords(Arc::new(rules)))
    }
}
