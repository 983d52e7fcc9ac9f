//! Keeps the list of refusals in the store up to date, and returns the entries that a key may see.

use std::sync::Arc;
use std::time::Duration;

use super::handle::{Engine, Inner};
use crate::catalog::Access;
use crate::error::Result;
use crate::refusals::{Ask, Refusals, Shown, WRITE_SECONDS, read_all, shown};

/// A bucket is written to less often, because each write costs.
const WRITE_SECONDS_TO_BUCKET: u64 = 30;
/// Interval at which the lists of removed nodes are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(3_600);

impl Engine {
    /// Returns the recent refusals, to which callers add.
    pub fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// Lists the recent refusals of this node and others, as far as a key may see them, newest
    /// first.
    pub async fn list_refusals(&self, access: &Access, ask: &Ask) -> Result<Vec<Shown>> {
        let inner = &self.inner;
        let mut entries = inner.refusals.entries();
        if inner.store.is_shared() {
            entries.extend(read_all(&inner.store, Some(inner.node.wal_id)).await?);
        }
        Ok(shown(entries, ask, access, &inner.catalog.state(), (inner.now)()))
    }
}

impl Inner {
    /// Writes the refusals to the store, for as long as the engine lives.
    pub(super) async fn keep_refusals(self: Arc<Self>) {
        let every = if self.store.is_shared() { WRITE_SECONDS_TO_BUCKET } else { WRITE_SECONDS };
        let mut clean_at = tokio::time::Instant::now();
        let mut failing = false;
        loop {
            tokio::time::sleep(Duration::from_secs(every)).await;
            self.refusals.log_due();
            let mut kept = self.write_refusals().await;
            if clean_at <= tokio::time::Instant::now() {
                clean_at += CLEAN_EVERY;
                self.forget_refusals();
                kept = kept.and(self.refusals.clean(&self.store, self.node.wal_id).await);
            }
            match kept {
                Ok(()) => failing = false,
                // Logged once: while a bucket is unreachable, this error repeats.
                Err(error) if !failing => {
                    tracing::warn!(
                        error = error.chain(),
                        "the list of refusals was not written; trying again"
                    );
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    pub(super) async fn write_refusals(&self) -> Result<()> {
        self.refusals.write(&self.store, self.node.wal_id).await
    }

    /// Drops entries that were erased, have expired, or belong to a deleted organisation.
    pub(super) fn forget_refusals(&self) {
        self.refusals.forget(&self.catalog.state());
    }
}
