//! The embedded API: open a folder, append records, query, export, close.
//!
//! An [`Engine`] owns its folder, its threads and its memory, and shares nothing with another
//! engine. An append is acknowledged when the write-ahead log has it on the disk; from then on
//! every query sees it. [`Engine::close`] works in this order: refuse appends, acknowledge waiting
//! ones, flush, stop the background tasks, release the folder. Dropping the last handle without
//! closing loses nothing either: the next open replays the log.
//!
//! # Order of locks
//!
//! A task takes these locks in this order, and holds them while it waits for the disk or the store:
//!
//! 1. `LateQueue::turn`: late parts are added to their records.
//! 2. `Tables::compacting`: stored files are merged, rewritten or deleted.
//! 3. `Tables::commits`: a table and the view of it change. A flush that holds it waits for the
//!    writer thread, which therefore takes none of these locks.
//! 4. The lock of one subject, whose code takes no other of this list: the catalog's changes, a
//!    table's commit, the lease, the claim.
//!
//! All other locks are held for a few instructions and never across an `await`.

mod admission;
mod adopt;
mod append;
mod append_parts;
mod builder;
mod built_append;
mod claim;
mod doctor;
mod erased;
mod exports;
mod fair_queue;
mod flush_loop;
mod flush_trigger;
mod flushed_seq;
mod health;
mod identity;
mod jobs;
mod late_parts;
mod late_queue;
mod left_logs;
mod lock;
pub mod maintenance;
mod maintenance_loop;
mod node;
mod open;
mod part_join;
mod pending_parts;
mod read_beside;
mod reader;
mod refusals;
mod replay;
mod rights;
mod status;
mod system_tables;
mod table_state;
#[cfg(test)]
mod time_tests;
mod write_queue;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::clock::{Leap, Watch};
use crate::config::Config;
use crate::dedupe::KeyHasher;
use crate::error::{Error, Result};
use crate::ingest::Policy;
use crate::query::Queries;
use crate::refusals::Refusals;
use crate::store::Store;
use crate::threads::Threads;
use crate::usage::Usage;

pub use crate::catalog::arrival;
pub use crate::catalog::{
    Access, Catalog, CreatedKey, Document, ErasureEntry, ErasureSelector, ErasureView,
    ExportChange, ExportFile, ExportJob, ExportStatus, ExportView, Key, KeyView, NewKey,
    Organisation, OrganisationView, PlanView, RetentionChange, Scope, Share, ShareLinkView,
    State as CatalogState, key_text,
};
pub use crate::clock::Leap as ClockLeap;
pub use crate::export::Request as ExportRequest;
pub use crate::parts::RecordPart;
pub use crate::query::{Answer, Params};
pub use adopt::LeftBehind;
pub use builder::EngineBuilder;
pub(crate) use built_append::BuiltAppend;
pub use doctor::{Finding, Severity, doctor, doctor_of};
pub use erased::ErasedRecords;
pub use exports::NewExport;
use health::Health;
pub use identity::{has_log, owns_log, rebind, refuse_unfinished, require_store};
use late_queue::LateQueue;
pub use lock::{FolderLock, lock};
use node::Node;
pub use open::{Dependencies, random_bytes};
pub use reader::Reader;
pub use status::{AppendError, Job, Outcome, Receipt, Status};
use table_state::Tables;
use write_queue::WriteQueue;
use writer::Counters;

/// An open engine. Cheap to clone; one per folder.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
    background: Arc<Background>,
}

/// State that all handles and tasks of an engine share.
#[derive(Debug)]
struct Inner {
    config: Config,
    now: fn() -> DateTime<Utc>,
    /// Checks `now` before it is used to delete old data.
    clock: Watch,
    new_uuid: fn() -> Uuid,
    random: fn() -> [u8; 32],
    node: Node,
    health: Arc<Health>,
    store: Store,
    tables: Tables,
    queries: Arc<Queries>,
    catalog: Catalog,
    /// Records whose keys could not be checked when they arrived.
    unconfirmed: rights::Unconfirmed,
    keys: KeyHasher,
    policy: Arc<Policy>,
    writes: WriteQueue,
    counters: Arc<Counters>,
    usage: Usage,
    refusals: Refusals,
    flush_wanted: Arc<Notify>,
    late: LateQueue,
    lease: maintenance::MaintenanceLease,
    maintenance_wanted: Notify,
    exports: exports::Exports,
}

/// Threads and tasks; they end when the last handle of the engine is dropped.
#[derive(Debug)]
struct Background {
    work: Threads,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
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

    /// Returns a reader of this engine without restrictions.
    pub fn reader(&self) -> Reader {
        self.reader_as(&Access::operator("library"))
    }

    /// Returns a reader of this engine with the rights of a key.
    pub fn reader_as(&self, access: &Access) -> Reader {
        Reader::over(&self.inner, access.clone())
    }

    /// Runs one read-only statement: a query, EXPLAIN, SHOW or DESCRIBE.
    pub async fn sql(&self, query: &str, params: &Params) -> Result<Answer> {
        self.reader().sql(query, params).await
    }

    /// Runs a named report.
    pub async fn report(&self, name: &str, params: &Params) -> Result<Answer> {
        self.reader().report(name, params).await
    }

    /// Exports records as JSON lines, in chunks that end on a line.
    pub async fn export(
        &self,
        request: &ExportRequest,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.reader().export(request).await
    }

    /// Moves every row that was acknowledged before into the table.
    pub async fn flush(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        // A separate task: a caller that stops waiting must not interrupt a commit.
        let flushed = tokio::spawn(async move { inner.flush_all().await });
        flushed
            .await
            .map_err(|cause| Error::internal("a flush was interrupted").with_source(cause))?
    }

    /// Runs one maintenance job now, or reports what the job would do.
    pub async fn maintain(&self, job: Job, dry_run: bool) -> Result<Outcome> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::spawn(async move { inner.by_hand(job, dry_run).await });
        done.await
            .map_err(|cause| Error::internal("maintenance was interrupted").with_source(cause))?
    }

    /// Returns the unconfirmed leap of the wall clock. Until it is confirmed nothing expires, and
    /// no file is deleted.
    pub fn clock_in_doubt(&self) -> Option<Leap> {
        self.inner.clock.look()
    }

    /// Confirms the time of the wall clock, on behalf of an operator who has checked it. Returns
    /// the leap that was in doubt.
    pub async fn confirm_clock(&self) -> Option<Leap> {
        let leap = self.inner.clock.confirm();
        self.inner.note_clock().await;
        leap
    }

    /// Returns the last and the next runs of the maintenance jobs.
    pub fn maintenance_state(&self) -> maintenance::MaintenanceState {
        self.inner.lease.state()
    }

    /// Returns the catalog: organisations, plans and keys.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Applies a change of the catalog that was made here: drops refusals that it covers, and
    /// notifies maintenance.
    pub fn catalog_changed(&self) {
        self.inner.forget_refusals();
        self.inner.maintenance_wanted.notify_one();
    }

    /// Returns the number of records that each organisation had stored in each month.
    pub fn usage(&self) -> Usage {
        self.inner.usage.clone()
    }

    /// Returns the policy that is applied to every incoming record.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.inner.policy
    }

    /// Returns the store of the engine.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Returns the current status.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let counters = &inner.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let failure = inner.health.failure();
        Status {
            writable: failure.is_none() && !inner.health.is_closing(),
            failure,
            memtable_budget_bytes: inner.config.memtable_bytes,
            wal_bytes: read(&counters.wal_bytes),
            wal_segments: read(&counters.wal_segments),
            accepted_total: read(&counters.accepted),
            duplicate_total: read(&counters.duplicate),
            over_quota_total: read(&counters.over_quota),
            past_retention_total: read(&counters.past_retention),
            refused_total: read(&counters.refused),
            redated_total: read(&counters.redated),
            clock_in_doubt: inner.clock.look().is_some(),
            catalog_age_seconds: inner.catalog.age().as_secs(),
            flushes_total: read(&counters.flushes),
            compactions_total: read(&counters.compactions),
            waiting_halves: read(&counters.waiting),
            commits_since_checkpoint: inner.tables.logs.table.commits_since_checkpoint(),
            ..Status::from_tables(
                &inner.tables.logs.view_cell,
                &inner.tables.feedback.view_cell,
                inner.queries.running(),
            )
        }
    }

    /// Returns the settings of the engine.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Returns a fresh id for a record.
    pub fn new_id(&self) -> String {
        (self.inner.new_uuid)().to_string()
    }

    /// Returns the time of the engine's clock.
    pub fn now(&self) -> DateTime<Utc> {
        (self.inner.now)()
    }

    /// Runs work that takes long on a thread with a lower priority than those of the server.
    pub(crate) fn run_heavy<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        Ok(self.background.work.handle()?.spawn_blocking(work))
    }

    /// Returns 32 random bytes.
    pub fn random(&self) -> [u8; 32] {
        (self.inner.random)()
    }

    /// Refuses appends, acknowledges waiting ones, flushes, and releases the folder. A second call
    /// has no effect.
    pub async fn close(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.health.close() {
            return Ok(());
        }
        inner.writes.budget.close();
        inner.stop_exports().await;
        let flushed = match inner.health.refuse_if_failed() {
            Ok(()) => self.flush().await,
            // The next open replays the log. The failure was logged when it happened.
            Err(_) => Ok(()),
        };
        let flushed = match flushed {
            Ok(()) => inner.write_last_counts().await,
            failed => failed,
        };
        inner.writes.close();
        let writer = self.background.writer.lock().take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the writer thread panicked");
            }
        }
        for task in self.background.tasks.lock().drain(..) {
            task.abort();
        }
        if let Err(error) = inner.write_refusals().await {
            tracing::warn!(error = error.chain(), "the list of refusals was not written");
        }
        inner.note_clock().await;
        inner.lease.release().await;
        inner.node.release().await;
        flushed
    }
}

/// Starts the threads of flushes, merges, exports and large bodies. Queries have threads of their
/// own.
fn work_threads(config: &Config) -> Result<Threads> {
    Threads::start("gatelog-work", crate::query::threads(config))
}
