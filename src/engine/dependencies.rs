//! Dependencies of an engine that tests replace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::clock;
use crate::store::Store;
use crate::store::disk::Disk;

/// Dependencies of an engine besides its settings. Tests replace them; programs use
/// [`EngineBuilder`](super::EngineBuilder).
#[doc(hidden)]
pub struct Dependencies {
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
    /// Time of a monotonic clock, from an arbitrary start.
    pub elapsed: fn() -> Duration,
    /// Fresh ids of records and files.
    pub new_uuid: fn() -> Uuid,
    /// Random bytes for keys.
    pub random: fn() -> [u8; 32],
    /// The disk of the log, instead of the disk of the store or of the operating system.
    pub log_disk: Option<Arc<dyn Disk>>,
    /// The store, instead of the one that `data` names.
    pub store: Option<Store>,
    /// The folder of the log, instead of the one in the store's own folder.
    pub log_folder: Option<PathBuf>,
    /// True if the log may begin after the end of the table: the missing frames were flushed into a
    /// table that is lost.
    pub after_loss: bool,
    /// True if the configuration's `plans` and `retention_days` are written into the catalog, as a
    /// server does. Otherwise the terms that the catalog holds stay in force.
    pub sets_terms: bool,
}

impl Default for Dependencies {
    fn default() -> Self {
        Self {
            now: Utc::now,
            elapsed: clock::elapsed,
            new_uuid: Uuid::now_v7,
            random: random_bytes,
            log_disk: None,
            store: None,
            log_folder: None,
            after_loss: false,
            sets_terms: true,
        }
    }
}

impl std::fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependencies").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Returns 32 random bytes for keys and signatures, from a cryptographic generator that the
/// operating system seeds.
pub fn random_bytes() -> [u8; 32] {
    rand::random()
}
