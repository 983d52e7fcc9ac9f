//! Options for opening an engine that are no settings: its clock, ids, randomness and store.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::dependencies::Dependencies;
use super::handle::Engine;
use super::open;
use crate::config::Config;
use crate::error::Result;
use crate::store::Store;

/// Opens an [`Engine`] with a clock, ids, a store or a log folder of the caller.
///
/// ```
/// # use gatelog::{Config, Engine};
/// # #[tokio::main]
/// # async fn main() -> gatelog::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let config = Config { data: folder.path().display().to_string(), ..Config::default() };
/// let engine = Engine::builder(config).ids(uuid::Uuid::now_v7).open().await?;
/// # engine.close().await
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct EngineBuilder {
    config: Config,
    dependencies: Dependencies,
}

impl EngineBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self { config, dependencies: Dependencies::default() }
    }

    /// Sets the clock. The default is the clock of the system.
    pub fn clock(mut self, now: fn() -> DateTime<Utc>) -> Self {
        self.dependencies.now = now;
        self
    }

    /// Sets the monotonic clock that the clock is checked against before it is used to delete old
    /// data. It counts from an arbitrary start.
    pub fn monotonic_clock(mut self, elapsed: fn() -> Duration) -> Self {
        self.dependencies.elapsed = elapsed;
        self
    }

    /// Sets the source of ids of records and files. The default is version 7 UUIDs. An id must
    /// never repeat.
    pub fn ids(mut self, new_uuid: fn() -> Uuid) -> Self {
        self.dependencies.new_uuid = new_uuid;
        self
    }

    /// Sets the source of random bytes for keys and signatures. The default is the operating
    /// system.
    pub fn random(mut self, random: fn() -> [u8; 32]) -> Self {
        self.dependencies.random = random;
        self
    }

    /// Sets the store, instead of the one that the setting `data` names.
    pub fn store(mut self, store: Store) -> Self {
        self.dependencies.store = Some(store);
        self
    }

    /// Sets the folder of the write-ahead log, instead of the one in the store's own folder.
    pub fn log_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.dependencies.log_folder = Some(folder.into());
        self
    }

    /// Accepts a log that begins after the end of the table, if `is_after_loss`: the missing
    /// records were flushed into a table that is lost.
    pub fn after_loss(mut self, is_after_loss: bool) -> Self {
        self.dependencies.after_loss = is_after_loss;
        self
    }

    /// Writes the settings `plans` and `retention_days` into the catalog, as a server does. This is
    /// the default. With `false`, the terms in the catalog stay in force.
    pub fn sets_terms(mut self, sets_terms: bool) -> Self {
        self.dependencies.sets_terms = sets_terms;
        self
    }

    /// Opens the engine. Fails as [`Engine::open`] does.
    pub async fn open(self) -> Result<Engine> {
        open::open(self.config, self.dependencies).await
    }
}

impl Engine {
    /// Opens the folder of a configuration for writing, creates it if it does not exist, and
    /// replays the log.
    ///
    /// Returns [`crate::error::ErrorKind::Busy`] if another process has it open, and
    /// [`crate::error::ErrorKind::Damaged`] if the log is damaged before its end.
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_with(config, Dependencies::default()).await
    }

    /// Returns a builder, which opens the engine with a clock, ids, a store or a log folder of the
    /// caller.
    pub fn builder(config: Config) -> EngineBuilder {
        EngineBuilder::new(config)
    }

    /// Opens with the dependencies of a test.
    #[doc(hidden)]
    pub async fn open_with(config: Config, parts: Dependencies) -> Result<Self> {
        open::open(config, parts).await
    }
}
