//! The handle of an open engine, and the state that its tasks share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::exports::running::Exports;
use super::gate::Unconfirmed;
use super::health::Health;
use super::late_queue::LateQueue;
use super::maintenance::{MaintenanceLease, MaintenanceState};
use super::node::Node;
use super::status::{Job, Outcome, Status};
use super::table_state::Tables;
use super::write_queue::WriteQueue;
use super::writer::Counters;
use crate::catalog::Catalog;
use crate::clock::{Leap, Watch};
use crate::config::Config;
use crate::dedupe::KeyHasher;
use crate::error::{Error, Result};
use crate::heavy_work::HeavyWork;
use crate::ingest::Policy;
use crate::query::Queries;
use crate::refusals::Refusals;
use crate::store::Store;
use crate::threads::Threads;
use crate::usage::Usage;

/// An open engine. Cheap to clone; one per folder.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
    pub(super) background: Arc<Background>,
}

/// State that all handles and tasks of an engine share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) now: fn() -> DateTime<Utc>,
    /// Checks `now` before it is used to delete old data.
    pub(super) clock: Watch,
    pub(super) new_uuid: fn() -> Uuid,
    pub(super) random: fn() -> [u8; 32],
    pub(super) node: Node,
    pub(super) health: Arc<Health>,
    pub(super) store: Store,
    pub(super) tables: Tables,
    pub(super) queries: Arc<Queries>,
    pub(super) catalog: Catalog,
    /// Records whose keys could not be checked when they arrived.
    pub(super) unconfirmed: Unconfirmed,
    pub(super) keys: KeyHasher,
    pub(super) policy: Arc<Policy>,
    pub(super) writes: WriteQueue,
    pub(super) counters: Arc<Counters>,
    pub(super) usage: Usage,
    pub(super) refusals: Refusals,
    pub(super) flush_wanted: Arc<Notify>,
    pub(super) late: LateQueue,
    pub(super) lease: MaintenanceLease,
    pub(super) maintenance_wanted: Notify,
    pub(super) exports: Exports,
}

/// Threads and tasks; they end when the last handle of the engine is dropped.
#[derive(Debug)]
pub(super) struct Background {
    /// The threads of flushes and merges.
    pub(super) _work: Threads,
    pub(super) tasks: Mutex<Vec<JoinHandle<()>>>,
    pub(super) writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

impl Engine {
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
    pub fn maintenance_state(&self) -> MaintenanceState {
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

    /// Returns the places for work that takes long.
    pub(crate) fn heavy(&self) -> &HeavyWork {
        self.inner.queries.heavy()
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
