//! Opens an engine: locks the folder, opens both tables, replays the log, remembers recent ids and
//! starts the threads.
//!
//! The order matters. Nothing is read before the lock is held. Nothing is written before log and
//! store are known to belong together ([`super::identity`]). The log is replayed after each table
//! has reported the last frame that it holds, and after no other node has the log open
//! ([`super::claim`]). Ids are remembered before the first append is accepted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::admission::AdmissionControl;
use super::claim::Claim;
use super::dependencies::Dependencies;
use super::exports::running::Exports;
use super::flush_loop;
use super::flush_trigger::{FlushTrigger, micros};
use super::flushed_seq;
use super::gate::Unconfirmed;
use super::handle::{Background, Engine, Inner};
use super::health::Health;
use super::identity;
use super::late_queue::LateQueue;
use super::left_logs::left_logs;
use super::lock::{FolderLock, lock};
use super::maintenance::MaintenanceLease;
use super::node::Node;
use super::pending_parts::PendingParts;
use super::reader;
use super::replay::{self, Replayed};
use super::table_state::{TableState, Tables, ids_of_files};
use super::work_threads::work_threads;
use super::write_queue::WriteQueue;
use super::writer::{Command, Counters, Writer};
use crate::catalog::{Catalog, Document};
use crate::clock::Watch;
use crate::config::{Config, Found};
use crate::dedupe::{DedupWindow, KeyHasher};
use crate::error::{Error, Result};
use crate::ingest::Policy;
use crate::memtable::MemoryBudget;
use crate::plan::Month;
use crate::query::Queries;
use crate::record::Rows;
use crate::refusals::Refusals;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::folders::Folders;
use crate::table::{DataFile, Table};
use crate::threads::Threads;
use crate::usage::{self, Counts, Meter, Snapshot};
use crate::wal::Wal;

/// Opens an engine in four phases: store, log, shared state, tasks.
pub(super) async fn open(config: Config, mut parts: Dependencies) -> Result<Engine> {
    let opened = Opened::open(&config, &mut parts).await?;
    let flush_wanted = Arc::<Notify>::default();
    let (writes, orders) = WriteQueue::new(&opened.config, &flush_wanted);
    let recovered = opened.recover(&parts, &writes.budget).await?;
    let (inner, writer, threads) = opened.share(&parts, recovered, writes, flush_wanted).await?;
    start(inner, threads, writer, orders)
}

/// The first phase: the store under its lock, with its catalog, its tables and their queries.
struct Opened {
    config: Config,
    policy: Arc<Policy>,
    store: Store,
    lock: Arc<FolderLock>,
    /// The folder of the log, and the disk that it is on.
    folder: PathBuf,
    folders: Arc<Folders>,
    catalog: Catalog,
    logs: TableState,
    feedback: TableState,
    threads: Threads,
    queries: Arc<Queries>,
    now: DateTime<Utc>,
}

/// The second phase: the replayed log, and the counts and ids that continue from it.
struct Recovered {
    wal: Wal,
    claim: Option<Claim>,
    recent: DedupWindow,
    record_parts: replay::Parts,
    counted: Snapshot,
    meter: Meter,
}

impl Opened {
    async fn open(config: &Config, parts: &mut Dependencies) -> Result<Self> {
        let (config, policy) = check(config)?;
        let (store, folder, lock) = open_store(parts, &config).await?;
        let folders = log_folders(parts.log_disk.take(), &store);
        let catalog = open_catalog(&store, (&folders, &folder), &config, parts).await?;
        let (logs, feedback) = open_tables(&store, &config).await?;
        let threads = work_threads(&config)?;
        let queries = Queries::new(&config, &store, reader::named_views(), threads.handle()?)?;
        let queries = Arc::new(queries);
        let now = (parts.now)();
        Ok(Self {
            config,
            policy,
            store,
            lock,
            folder,
            folders,
            catalog,
            logs,
            feedback,
            threads,
            queries,
            now,
        })
    }

    async fn recover(&self, parts: &Dependencies, budget: &MemoryBudget) -> Result<Recovered> {
        let Self { config, store, folder, folders, logs, now, .. } = self;
        let log = (&**folders, folder.as_path());
        let recent = remember_files(&logs.table, &self.queries, config, *now).await?;
        let early = bind_and_claim(&logs.table, store, log, config, parts.now).await?;
        let tables = [logs.clone(), self.feedback.clone()];
        let erased = self.catalog.ever_erased().await?;
        let join_micros = micros(config.join_seconds);
        let replayed = Replayed::new(tables, recent, budget.clone(), erased, join_micros, *now);
        let (wal, replayed) = replay::replay(store, folder, folders, parts, replayed).await?;
        warn_of_left_logs(store, [&logs.table, &self.feedback.table], wal.id()).await?;
        let claim = claim_if_new(early, store, wal.id(), log, config, parts.now).await?;
        let (counted, meter) =
            open_counts(store, &logs.table, wal.id(), &replayed.counts, *now).await?;
        let Replayed { recent, record_parts, .. } = replayed;
        Ok(Recovered { wal, claim, recent, record_parts, counted, meter })
    }

    /// The third phase: builds the writer, and the state that handles and tasks share.
    async fn share(
        self,
        parts: &Dependencies,
        recovered: Recovered,
        writes: WriteQueue,
        flush_wanted: Arc<Notify>,
    ) -> Result<(Arc<Inner>, Writer, Threads)> {
        let Self { config, policy, store, lock, catalog, logs, feedback, queries, .. } = self;
        let Recovered { wal, claim, recent, record_parts, counted, meter } = recovered;
        let wal_id = wal.id();
        let lease = MaintenanceLease::open(&store, wal_id, &config, parts.now).await?;
        let refusals = open_refusals(parts.now, &policy, &store, &catalog, wal_id).await;
        let clock = Watch::new(parts.now, parts.elapsed);
        let clock = watch_clock(clock, &store, &lease, wal_id).await;
        let usage = meter.usage();
        let keys = recent.keys().clone();
        let counters = Arc::<Counters>::default();
        let health = Arc::<Health>::default();
        let mut writer = Writer {
            wal,
            parts: PendingParts::new(&keys, &config),
            admission: AdmissionControl { recent, meter, catalog: catalog.clone() },
            flush: FlushTrigger::new(&config, Arc::clone(&flush_wanted), parts.now),
            logs: Arc::clone(&logs.view_cell),
            feedback: Arc::clone(&feedback.view_cell),
            frozen_to: 0,
            policy: Arc::clone(&policy),
            counters: Arc::clone(&counters),
            now: parts.now,
            health: Arc::clone(&health),
            _lock: Arc::clone(&lock),
        };
        writer.take_replayed(record_parts, self.now.timestamp_micros())?;
        let inner = Inner {
            now: parts.now,
            clock,
            new_uuid: parts.new_uuid,
            random: parts.random,
            node: Node { wal_id, claim, lock, health: Arc::clone(&health), now: parts.now },
            health,
            store,
            tables: Tables::new(logs, feedback, counted),
            queries,
            catalog,
            unconfirmed: Unconfirmed::default(),
            keys,
            policy,
            writes,
            counters,
            usage,
            refusals,
            flush_wanted,
            late: LateQueue::default(),
            lease,
            maintenance_wanted: Notify::new(),
            exports: Exports::default(),
            config,
        };
        Ok((Arc::new(inner), writer, self.threads))
    }
}

/// Returns the folders of the log: those of the store, unless a test has a disk for the log.
fn log_folders(disk: Option<Arc<dyn Disk>>, store: &Store) -> Arc<Folders> {
    disk.map_or_else(|| Arc::clone(store.folders()), |disk| Arc::new(Folders::new(disk)))
}

/// Logs a warning for each left log that has records which are not in the tables.
async fn warn_of_left_logs(store: &Store, tables: [&Table; 2], wal_id: Uuid) -> Result<()> {
    for left in left_logs(store, tables.map(Some), wal_id).await? {
        tracing::warn!(remedy = left.remedy(), "{}", left.describe());
    }
    Ok(())
}

/// Starts to watch the clock. Takes over the doubt of an earlier run and, with a bucket, compares
/// the clock with the time at which the bucket stored this node's claim.
async fn watch_clock(watch: Watch, store: &Store, lease: &MaintenanceLease, wal_id: Uuid) -> Watch {
    if let Some(leap) = lease.state().clock {
        watch.resume(leap);
    }
    if store.is_shared() {
        match store.object_store().head(&store.node_path(wal_id)).await {
            Ok(claim) => watch.compare(claim.last_modified),
            Err(cause) => tracing::warn!(%cause, "the clock cannot be compared with the bucket's"),
        }
    }
    watch
}

/// Starts the threads and tasks of an engine.
fn start(
    inner: Arc<Inner>,
    threads: Threads,
    writer: Writer,
    orders: mpsc::UnboundedReceiver<Command>,
) -> Result<Engine> {
    let writer = Mutex::new(Some(start_writer(writer, orders, Arc::clone(&inner.health))?));
    let tasks = Mutex::new(start_tasks(&threads.handle()?, &inner));
    Ok(Engine { inner, background: Arc::new(Background { tasks, _work: threads, writer }) })
}

/// Loads the list of records that this node refused, as it was before a restart.
async fn open_refusals(
    now: fn() -> DateTime<Utc>,
    policy: &Arc<Policy>,
    store: &Store,
    catalog: &Catalog,
    wal_id: Uuid,
) -> Refusals {
    let refusals = Refusals::new(now, Arc::clone(policy));
    refusals.load(store, wal_id, &catalog.state()).await;
    refusals
}

/// Keeps other processes out, and removes the half-written files of a killed process.
fn take_over(store: &Store) -> Result<Arc<FolderLock>> {
    let lock = Arc::new(lock(store)?);
    store.clean_staging()?;
    Ok(lock)
}

/// Refuses wrong settings. Returns the settings with every share of memory filled in, and the
/// policy that is applied to every record.
fn check(config: &Config) -> Result<(Config, Arc<Policy>)> {
    config.validate()?;
    let config = config.settled(&Found::here())?;
    let policy = Policy::open(&config)?;
    Ok((config, policy))
}

/// Opens both tables with their views.
async fn open_tables(store: &Store, config: &Config) -> Result<(TableState, TableState)> {
    let logs = TableState::open(store, Rows::Logs, config).await?;
    Ok((logs, TableState::open(store, Rows::Feedback, config).await?))
}

/// Opens the store, or takes the one that was passed in, and checks that it answers. Returns it
/// with the folder of the log and the lock.
async fn open_store(
    parts: &mut Dependencies,
    config: &Config,
) -> Result<(Store, PathBuf, Arc<FolderLock>)> {
    let store = match parts.store.take() {
        Some(store) => store,
        None => {
            let store = Store::open(config, true)?;
            store.check().await?;
            store
        }
    };
    let folder = parts.log_folder.take().or_else(|| store.wal_folder());
    let folder =
        folder.ok_or_else(|| Error::invalid("the write-ahead log needs a local folder"))?;
    let lock = take_over(&store)?;
    Ok((store, folder, lock))
}

/// Opens the catalog after a check that store and log belong together, and writes the configured
/// terms into it ([`set_terms`]).
async fn open_catalog(
    store: &Store,
    log: (&Folders, &Path),
    config: &Config,
    parts: &Dependencies,
) -> Result<Catalog> {
    let days = reader::unknown_days(config);
    let catalog = Catalog::open_with(store, days, parts.now, parts.elapsed).await?;
    catalog.settle().await?;
    identity::settle(store, log, &catalog, (parts.random)()).await?;
    set_terms(&catalog, config, parts.sets_terms, parts.now).await?;
    Ok(catalog)
}

/// Binds the log to its table, and claims it for this node if it has an id.
async fn bind_and_claim(
    table: &Table,
    store: &Store,
    log: (&Folders, &Path),
    config: &Config,
    now: fn() -> DateTime<Utc>,
) -> Result<Option<Claim>> {
    identity::bind_to_table(log, table).await?;
    let (folders, folder) = log;
    Claim::take(store, crate::wal::read_identity(&**folders.disk(), folder)?, log, config, now)
        .await
}

/// Claims a log that had no id before it was opened.
async fn claim_if_new(
    early: Option<Claim>,
    store: &Store,
    id: Uuid,
    log: (&Folders, &Path),
    config: &Config,
    now: fn() -> DateTime<Utc>,
) -> Result<Option<Claim>> {
    match early {
        None => Claim::take(store, Some(id), log, config, now).await,
        early => Ok(early),
    }
}

async fn keep_claim(inner: Arc<Inner>) {
    let third = Duration::from_millis(inner.config.lease_seconds.saturating_mul(1000) / 3);
    inner.node.keep_claim(third).await;
}

fn start_tasks(
    compute: &tokio::runtime::Handle,
    inner: &Arc<Inner>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let handle = || Arc::clone(inner);
    vec![
        compute.spawn(flush_loop::watched("flushing", handle(), handle().flush_when_due())),
        compute.spawn(flush_loop::watched("amending", handle(), handle().amend_after_flushes())),
        compute.spawn(flush_loop::watched("refreshing", handle(), handle().refresh_often())),
        compute.spawn(flush_loop::watched(
            "reading the catalog",
            handle(),
            handle().keep_catalog_fresh(),
        )),
        compute.spawn(flush_loop::watched("maintenance", handle(), handle().maintain_when_due())),
        compute.spawn(flush_loop::watched("claiming", handle(), keep_claim(handle()))),
        compute.spawn(flush_loop::watched("exporting", handle(), handle().run_exports())),
        // Appends do not depend on this task, so the engine continues without it.
        compute.spawn(handle().keep_refusals()),
    ]
}

/// Starts the writer; if it panics, the engine is closed to writes.
fn start_writer(
    writer: Writer,
    orders: mpsc::UnboundedReceiver<Command>,
    health: Arc<Health>,
) -> Result<std::thread::JoinHandle<()>> {
    writer.measure();
    let run = move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run(orders)));
        if ended.is_err() {
            health.fail(&Error::internal("the writer thread panicked"));
        }
    };
    Ok(std::thread::Builder::new().name("gatelog-wal".to_owned()).spawn(run)?)
}

/// Remembers the ids of files that were written within the window, newest first, up to the number
/// allowed.
///
/// Compaction rewrites files, so ids may be remembered for longer than configured: a repeated
/// record is then dropped later than necessary, and never stored twice.
async fn remember_files(
    table: &Table,
    queries: &Queries,
    config: &Config,
    now: DateTime<Utc>,
) -> Result<DedupWindow> {
    let mut recent = DedupWindow::new(KeyHasher::random(), config.dedupe_hours, config.dedupe_ids);
    let window_ms = i64::try_from(config.dedupe_hours)
        .unwrap_or(i64::MAX / 3_600_000)
        .saturating_mul(3_600_000);
    let since = now.timestamp_millis().saturating_sub(window_ms);
    let index = table.index();
    let mut files: Vec<&Arc<DataFile>> =
        index.iter().filter(|file| file.modified_ms >= since).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.modified_ms));
    let mut left = config.dedupe_ids;
    files.retain(|file| {
        let fits = file.rows <= left;
        left -= if fits { file.rows } else { 0 };
        fits
    });
    if files.is_empty() || config.dedupe_hours == 0 {
        return Ok(recent);
    }
    let files = files.into_iter().map(|file| DataFile::clone(file)).collect();
    let mut ids = ids_of_files(queries, recent.keys(), files).await?;
    while let Some(keys) = ids.try_next().await? {
        for (key, known) in keys {
            recent.insert(key, known, now.timestamp_micros());
        }
    }
    Ok(recent)
}

/// Writes the configured plans, and the retention of organisations without a plan, into the
/// catalog.
async fn set_terms(
    catalog: &Catalog,
    config: &Config,
    sets_terms: bool,
    now: fn() -> DateTime<Utc>,
) -> Result<()> {
    let days = reader::unknown_days(config);
    let set = |document: &mut Document| {
        if !sets_terms && document.unknown.is_some() {
            return false;
        }
        let plans = sets_terms && document.set_plans(&config.plans, now());
        // Without an entry, records are kept for ever, so that default needs no entry.
        let unknown =
            (days != 0 || document.unknown.is_some()) && document.set_unknown_days(days, now());
        plans || unknown
    };
    if set(&mut catalog.state().document.clone()) {
        catalog.change(|document| Ok(set(document))).await?;
    }
    Ok(())
}

/// Returns the counts of this log at its last commit, and a meter that continues from there and
/// from the replayed rows.
async fn open_counts(
    store: &Store,
    table: &Table,
    wal_id: Uuid,
    replayed: &Counts,
    now: DateTime<Utc>,
) -> Result<(Snapshot, Meter)> {
    let mut logs = usage::read(store, Month::of_micros(now.timestamp_micros())).await?;
    let covered = flushed_seq::covered(Some(table), None, wal_id).await?.logs;
    let own = logs.remove(&wal_id).unwrap_or_default();
    let counted = match usage::as_of(&own, covered) {
        Some(snapshot) if snapshot.sequence == covered => snapshot.clone(),
        Some(older) => {
            let sequence = older.sequence;
            tracing::warn!(
                "counts end at sequence {sequence} of the log, the table at {covered}: quotas may count too few records"
            );
            Snapshot { sequence: covered, counts: Arc::clone(&older.counts) }
        }
        None => {
            if covered > 0 {
                tracing::warn!(
                    "no counts of this log were found: quotas of this month count only the rows in memory"
                );
            }
            Snapshot { sequence: covered, counts: Arc::default() }
        }
    };
    let others = usage::newest(&logs);
    let own = usage::sum([&*counted.counts, replayed]);
    Ok((counted, Meter::new(own, others)))
}
