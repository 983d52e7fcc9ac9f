//! The engine's part in refusals: keeps the list in the store up to date, and answers what a key
//! may see of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, Inner};
use crate::catalog::Access;
use crate::error::Result;
use crate::refusals::{Ask, Refusals, Shown, WRITE_SECONDS, read_all, shown};

/// A bucket is written to more seldom: each write costs.
const WRITE_SECONDS_TO_BUCKET: u64 = 30;
/// How often the lists of other nodes are looked through for those that are gone.
const CLEAN_EVERY: Duration = Duration::from_secs(3_600);

impl Engine {
    /// What was refused lately, to be added to.
    pub fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// What was refused lately, by this node and others, as far as a key may see it; newest first.
    pub async fn list_refusals(&self, access: &Access, ask: &Ask) -> Result<Vec<Shown>> {
        let inner = &self.inner;
        let mut entries = inner.refusals.entries();
        if inner.store.is_shared() {
            entries.extend(read_all(&inner.store, Some(inner.wal_id)).await?);
        }
        Ok(shown(entries, ask, access, &inner.catalog.state(), (inner.now)()))
    }
}

impl Inner {
    /// Writes what was refused to the store, for as long as the engine lives.
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
                kept = kept.and(self.refusals.clean(&self.store, self.wal_id).await);
            }
            match kept {
                Ok(()) => failing = false,
                // Told once: while a bucket is away this comes again and again.
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
        self.refusals.write(&self.store, self.wal_id).await
    }

    /// Drops what an erasure, the end of an organisation or its age takes.
    pub(super) fn forget_refusals(&self) {
        self.refusals.forget(&self.catalog.state());
    }
}
