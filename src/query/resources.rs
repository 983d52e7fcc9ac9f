//! Resources of statements: memory from the budget of their kind, and disk space for spilling.
//!
//! There are three kinds of statements: those of clients, exports, and maintenance, which reads
//! everything as stored. None takes the memory of another. [`super::memory`] and [`super::spill`]
//! describe how each kind is shared among organisations.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};
use std::time::Duration;

use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder};
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;

use super::context::QueryContext;
use super::failure::{OUT_OF_MEMORY, query_failed};
use super::limits::Limits;
use super::memory::MemoryBudget;
use super::provider::Ordering;
use super::spill::{Files, SpillSpace, StatementSpill};
use super::weight::batch_bytes;
use super::wide::Wide;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;

/// Maximum size of a batch with bodies, as a divisor of the memory of all queries.
const WIDE_PART: u64 = 64;
/// Bounds of that size, in bytes.
const WIDE_BYTES: (u64, u64) = (256 << 10, 4 << 20);
/// Batches that a merge of spilled rows holds of each file: two that are read ahead, and the one
/// that is merged.
const BATCHES_OF_SPILLED: u64 = 3;
/// Fraction of the memory of a kind of statement that a merge of spilled rows may take.
const MERGE_PART: u64 = 4;
/// Bounds of the number of files that are merged at once.
const MERGED: (u64, u64) = (4, 64);
/// Number of waits of a statement for the memory of its first attempt, and the length of one.
const RELEASE_WAITS: u32 = 100;
const RELEASE_WAIT: Duration = Duration::from_millis(10);
/// Approximate size in memory of a compressed byte of a file.
const EXPANSION: u64 = 6;

/// Memory and disk space of all statements.
#[derive(Debug)]
pub(super) struct Resources {
    statements: Arc<MemoryBudget>,
    exports: Arc<MemoryBudget>,
    spill: Arc<SpillSpace>,
    /// Size of a batch with bodies, in bytes.
    wide_bytes: u64,
    /// Bytes that maintenance may hold.
    pub(super) maintenance_bytes: u64,
}

/// Resources of one statement.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) runtime: Arc<RuntimeEnv>,
    spill: Arc<StatementSpill>,
    setting: &'static str,
    /// Bytes that the statement has of its budget.
    held: Arc<AtomicUsize>,
}

impl Resources {
    /// Creates the resources of a resolved configuration.
    pub(super) fn new(config: &Config, store: &Store) -> Self {
        let (least, most) = WIDE_BYTES;
        Self {
            statements: MemoryBudget::new("query_memory_bytes", config.query_memory_bytes),
            exports: MemoryBudget::for_exports("export_memory_bytes", config.export_memory_bytes),
            spill: SpillSpace::new(spill_folder(config, store), config.spill_bytes),
            wide_bytes: (config.query_memory_bytes / WIDE_PART).clamp(least, most),
            // Two row groups are being written in the meantime.
            maintenance_bytes: config
                .maintenance_memory_bytes
                .saturating_sub(2 * config.row_group_bytes()),
        }
    }

    /// Returns the resources of a statement.
    pub(super) fn grant(
        &self,
        base: &RuntimeEnv,
        query_context: &QueryContext,
        limits: Limits,
    ) -> Result<Granted> {
        let owner = query_context.owner();
        let budget = match (&query_context.read_scope, limits.ordering) {
            (None, _) => None,
            (Some(_), Ordering::WhenCheap) => Some(&self.statements),
            (Some(_), Ordering::Always | Ordering::Never) => Some(&self.exports),
        };
        let held = Arc::new(AtomicUsize::new(0));
        let memory_pool = match budget {
            Some(budget) => budget.pool(owner.clone(), Arc::clone(&held)),
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        let spill = self.spill.for_owner(owner);
        let runtime =
            RuntimeEnv { memory_pool, disk_manager: disk_manager(&spill)?, ..base.clone() };
        let setting = budget.map_or("maintenance_memory_bytes", |budget| budget.setting);
        Ok(Granted { runtime: Arc::new(runtime), spill, setting, held })
    }

    /// Returns the bytes that an export may take at the moment.
    pub(super) fn export_room(&self, query_context: &QueryContext) -> u64 {
        self.exports.allowance(&query_context.owner())
    }

    /// Returns how a statement runs that reads bodies: with batches by the mean size of the rows.
    pub(super) fn wide(&self, query_context: &QueryContext, limits: Limits) -> Wide {
        let (memory, batch) = match limits.ordering {
            Ordering::WhenCheap => (self.statements.total(), self.wide_bytes),
            Ordering::Always | Ordering::Never => {
                (self.exports.total(), batch_bytes(self.export_room(query_context)))
            }
        };
        let (least, most) = MERGED;
        let merged = (memory / MERGE_PART / (BATCHES_OF_SPILLED * batch)).clamp(least, most);
        Wide {
            rows: self.wide_rows(query_context),
            merged: usize::try_from(merged).unwrap_or(usize::MAX),
        }
    }

    /// Returns the rows of a batch with bodies, by the mean size of the rows.
    fn wide_rows(&self, query_context: &QueryContext) -> usize {
        let view = &query_context.view;
        let memory_rows: u64 = view.memory.iter().map(|batch| batch.num_rows() as u64).sum();
        let memory_bytes: u64 = view.memory.iter().map(crate::memtable::batch_bytes).sum();
        let rows = (view.files.rows() + memory_rows).max(1);
        let row_bytes = (view.files.bytes() * EXPANSION + memory_bytes) / rows;
        usize::try_from(self.wide_bytes / row_bytes.max(1)).unwrap_or(usize::MAX).max(1)
    }
}

impl Granted {
    /// Returns true if a statement failed because it could not get more memory.
    pub(super) fn is_short_of_memory(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Limit
            && error.message() == OUT_OF_MEMORY
            && !self.spill.is_refused()
    }

    /// Waits until the tasks of a statement that has ended have released its memory.
    pub(super) async fn wait_for_release(&self) {
        for _ in 0..RELEASE_WAITS {
            if self.held.load(atomic::Ordering::Relaxed) == 0 {
                return;
            }
            tokio::time::sleep(RELEASE_WAIT).await;
        }
    }

    /// Rewrites the error of a statement so that it names the limit that was reached.
    pub(super) fn explained(&self, error: Error) -> Error {
        if self.spill.is_refused() {
            return Error::limit(
                "the statement needs more disk space or files to sort or join than its share of `spill_bytes`, or of the open files \
                 of the server; narrow its time frame or columns, ask again when other statements have ended, or raise the limit",
            )
            .with_source(error);
        }
        if !self.is_short_of_memory(&error) {
            return error;
        }
        let setting = self.setting;
        // The client sees the setting. The step of the plan and its memory are for the operator.
        tracing::info!(
            setting,
            cause = error.chain(),
            "a statement needed more memory than was available"
        );
        Error::limit(format!(
            "the query needs more memory than its share of `{setting}` (an organisation gets at most half of what is free); \
             narrow its time frame or columns, ask again when other statements have ended, or raise `{setting}`"
        ))
        .with_source(error)
    }
}

fn disk_manager(spill: &Arc<StatementSpill>) -> Result<Arc<DiskManager>> {
    let files = Arc::new(Files(Arc::clone(spill)));
    let manager = DiskManagerBuilder::default().with_temp_file_factory(files).build();
    manager.map(Arc::new).map_err(query_failed)
}

/// Returns the folder to spill to: the configured one, else one beside the log, else the system's
/// folder for temporary files.
fn spill_folder(config: &Config, store: &Store) -> PathBuf {
    if config.spill_folder.is_empty() {
        store.wal_folder().map_or_else(std::env::temp_dir, |folder| folder.join("spill"))
    } else {
        PathBuf::from(&config.spill_folder)
    }
}
