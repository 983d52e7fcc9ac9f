//! The node that an engine is: its log, its claim on the log, and the lock of its folder.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::claim::Claim;
use super::health::Health;
use super::lock::FolderLock;
use crate::error::{ErrorKind, Result};

/// The rights of this node to its log.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) wal_id: Uuid,
    /// Ensures that no other node has the log open; `None` in a folder.
    pub(super) claim: Option<Claim>,
    /// Keeps other processes out of the folder.
    pub(super) lock: Arc<FolderLock>,
    pub(super) health: Arc<Health>,
    pub(super) now: fn() -> DateTime<Utc>,
}

impl Node {
    /// Renews the claim at this interval, for as long as the engine lives. A claim that was taken
    /// over closes the engine to writes.
    pub(super) async fn keep_claim(&self, every: Duration) {
        let Some(claim) = &self.claim else { return };
        let mut is_failing = false;
        loop {
            tokio::time::sleep(every).await;
            match claim.renew((self.now)()).await {
                Ok(()) => is_failing = false,
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    return self.health.fail(&error);
                }
                // Logged once: while a bucket is unreachable, this error repeats.
                Err(error) if !is_failing => {
                    tracing::warn!(
                        error = error.chain(),
                        "cannot renew the claim of the log; trying again"
                    );
                    is_failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Ensures that no other node has taken the log over, before a commit under its id.
    pub(super) async fn ensure_claim(&self) -> Result<()> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let held = claim.ensure((self.now)()).await;
        if let Err(error) = held.as_ref()
            && error.kind() == ErrorKind::Conflict
        {
            self.health.fail(error);
        }
        held
    }

    /// Releases the log and the folder at the end.
    pub(super) async fn release(&self) {
        if let Some(claim) = &self.claim
            && self.health.refuse_if_failed().is_ok()
        {
            claim.release().await;
        }
        self.lock.release();
    }
}
