//! The embedded API: open a folder, append records, query, export, close.
//!
//! An [`Engine`] owns its folder, its threads and its memory, and shares nothing with another
//! engine. An append is acknowledged when the write-ahead log has it on the disk; from then on
//! every query sees it. [`Engine::close`] works in this order: refuse appends, acknowledge waiting
//! ones, flush, stop the background tasks, release the folder. Dropping the last handle without
//! closing loses nothing either: the next open replays the log.

mod adopt;
mod append_parts;
mod builder;
mod built_append;
mod claim;
mod doctor;
mod erased;
mod exports;
mod fair_queue;
mod flush_loop;
mod flushed_seq;
mod identity;
mod jobs;
mod late_parts;
mod left_logs;
mod lock;
pub mod maintenance;
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
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Date32Type;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::BoxStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::clock::{Leap, Watch};
use crate::config::Config;
use crate::dedupe::KeyHasher;
use crate::error::{Error, Result};
use crate::ingest::{self, DEFAULT_ORGANISATION, Owner, Policy};
use crate::limits::{self, Days, Holder, MemoryReservation};
use crate::memtable::MemoryBudget;
use crate::parts::LatePart;
use crate::plan::{MAX_AHEAD_MICROS, Rules};
use crate::query::Queries;
use crate::record::json::{check_json, embeddable};
use crate::record::{BatchBuilder, DATE, Defaults, ROW_OVERHEAD, Record, Rows, normalize};
use crate::refusals::Refusals;
use crate::store::Store;
use crate::threads::Threads;
use crate::usage::Usage;
use crate::wal::Payload;

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
pub use identity::{has_log, owns_log, rebind, refuse_unfinished, require_store};
pub use lock::{FolderLock, lock};
pub use open::{Dependencies, random_bytes};
pub use reader::Reader;
pub use status::{AppendError, Job, Outcome, Receipt, Status};
use table_state::TableState;
use writer::{Append, Command, Counters};

/// Batches below this size are built on the caller's thread, larger ones on blocking threads.
const SMALL_BYTES: usize = 64 << 10;

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
    wal_id: Uuid,
    /// Ensures that no other node has the log open; `None` in a folder.
    claim: Option<claim::Claim>,
    logs: TableState,
    feedback: TableState,
    queries: Arc<Queries>,
    budget: MemoryBudget,
    days: Days,
    keys: KeyHasher,
    store: Store,
    catalog: Catalog,
    usage: Usage,
    lease: maintenance::MaintenanceLease,
    exports: exports::Exports,
    refusals: Refusals,
    policy: Arc<Policy>,
    random: fn() -> [u8; 32],
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    counters: Arc<Counters>,
    flush_wanted: Arc<Notify>,
    /// Records whose keys could not be checked when they arrived.
    unconfirmed: rights::Unconfirmed,
    /// Late parts whose records are in the table.
    late: Mutex<Vec<LatePart>>,
    amend_wanted: Notify,
    /// Held while late parts are added to their records.
    amend_turn: tokio::sync::Mutex<()>,
    /// Failed attempts to add late parts, by their record.
    amend_attempts: Mutex<HashMap<u128, u32>>,
    maintenance_wanted: Notify,
    /// Held while the tables and the views of queries are changed.
    commits: tokio::sync::Mutex<flush_loop::Commits>,
    compacting: tokio::sync::Mutex<()>,
    closing: AtomicBool,
    failure: Arc<Mutex<Option<String>>>,
    /// Keeps other processes out of the folder.
    lock: Arc<FolderLock>,
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
        for task in locked(&self.tasks).drain(..) {
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

    /// Makes the records durable and visible. Waits for free memory up to `append_wait_ms`.
    ///
    /// Missing values of `id`, `organisation_id` and `created_at` are filled in. A record whose id
    /// its organisation sent within `dedupe_hours` is acknowledged and dropped. A body that is not
    /// JSON becomes a JSON string. Content that must not be stored is removed, and a missing cost
    /// is computed ([`Policy`]).
    pub async fn append(&self, mut records: Vec<Record>) -> Result<Receipt, AppendError> {
        for record in &mut records {
            self.inner.policy.price_by_response(record);
            for message in [&mut record.request, &mut record.response] {
                for text in [&mut message.body, &mut message.headers].into_iter().flatten() {
                    if !check_json(text) {
                        *text = embeddable(text).into_owned();
                    }
                }
            }
            self.inner.policy.protect(record);
        }
        self.append_parsed(records).await
    }

    /// [`Engine::append`] for a key: records without an organisation or workspace get the key's. If
    /// one names another, nothing is stored ([`crate::error::ErrorKind::Denied`]).
    pub async fn append_as(
        &self,
        access: &Access,
        mut records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        if let Err(error) = self.check_access(access).and_then(|()| owned(access, &mut records)) {
            return Err(AppendError { error, records });
        }
        self.append(records).await
    }

    /// [`Engine::append_parsed`] for a key, which must still have the rights that it had when the
    /// request arrived.
    pub(crate) async fn append_parsed_as(
        &self,
        access: &Access,
        records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        if let Err(error) = self.check_access(access) {
            return Err(AppendError { error, records });
        }
        self.append_of(Some(access), records).await
    }

    /// Appends records as [`Engine::append`] does, but does not check bodies and other JSON fields.
    /// They must be valid JSON, as in the records that [`ingest`] returns. Otherwise exports of
    /// these records are not valid JSON.
    pub async fn append_parsed(&self, records: Vec<Record>) -> Result<Receipt, AppendError> {
        self.append_of(None, records).await
    }

    async fn append_of(
        &self,
        access: Option<&Access>,
        mut records: Vec<Record>,
    ) -> Result<Receipt, AppendError> {
        if records.is_empty() {
            return Ok(Receipt::default());
        }
        let inner = &self.inner;
        if let Err(error) = inner.limit(&mut records) {
            return Err(AppendError { error, records });
        }
        let (bytes, permit) = match inner.room_for(&records).await {
            Ok(room) => room,
            Err(error) => return Err(AppendError { error, records }),
        };
        let now = (inner.now)();
        let rules = inner.catalog.rules();
        for record in &mut records {
            inner.complete(record, now, &rules);
        }
        let keys = inner.keys.clone();
        let build = move || {
            let mut builder = BatchBuilder::new();
            records.into_iter().for_each(|record| builder.append(&record));
            prepared(builder.finish(), &keys)
        };
        let done = async {
            let (batch, payload, keys) = run_blocking_if_large(bytes, build).await?;
            inner.note_unconfirmed(access, &keys);
            inner.submit(batch, payload, keys, permit).await
        };
        done.await.map_err(|error| AppendError { error, records: Vec::new() })
    }

    /// Makes the rows of an Arrow batch durable and visible. Its columns are any of the record's,
    /// by name, with types that can be cast. Missing columns are null or filled in as for
    /// [`Engine::append`]. A body that is not JSON becomes a JSON string. Content that must not be
    /// stored is removed; costs are stored unchanged.
    pub async fn append_batch(&self, batch: RecordBatch) -> Result<Receipt> {
        let inner = Arc::clone(&self.inner);
        inner.refuse_if_closed()?;
        if batch.num_rows() == 0 {
            return Ok(Receipt::default());
        }
        // Missing columns are filled in, so each row counts as one that has every column.
        let bytes = batch.get_array_memory_size() + batch.num_rows() * ROW_OVERHEAD;
        let mut permit = inner.budget.take(&holder_of(&batch), bytes as u64).await?;
        let of = Arc::clone(&inner);
        let build = move || {
            let rules = of.catalog.rules();
            let now_micros = (of.now)().timestamp_micros();
            let mut defaults = Defaults {
                now_micros,
                latest_micros: now_micros.saturating_add(MAX_AHEAD_MICROS),
                redated: 0,
                new_id: &mut || (of.new_uuid)().to_string(),
                retention_days: &|organisation| rules.retention_days(organisation),
            };
            let batch = normalize(&batch, &mut defaults)?;
            of.note_redated(defaults.redated);
            let batch = ingest::arrow::protect(&of.policy, batch)?;
            let starts = limits::cut_at(days_of(&batch).map(Some));
            let ends = starts.iter().copied().chain([batch.num_rows()]);
            let parts = [0].into_iter().chain(starts.iter().copied()).zip(ends);
            parts
                .map(|(start, end)| prepared(batch.slice(start, end - start), &of.keys))
                .collect::<Result<Vec<_>>>()
        };
        let parts = run_blocking_if_large(bytes, build).await?;
        let mut receipt = Receipt::default();
        let mut left = parts.len() as u64;
        for (batch, payload, keys) in parts {
            inner.days.take(organisations_of(&batch).zip(days_of(&batch))).await?;
            let room = permit
                .split(permit.units() / left)
                .ok_or_else(|| Error::internal("a memory reservation is missing"))?;
            left -= 1;
            receipt += inner.submit(batch, payload, keys, room).await?;
        }
        Ok(receipt)
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
        let failure = locked(&inner.failure).clone();
        Status {
            writable: failure.is_none() && !inner.closing.load(Ordering::Acquire),
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
            commits_since_checkpoint: inner.logs.table.commits_since_checkpoint(),
            ..Status::from_tables(
                &inner.logs.view_cell,
                &inner.feedback.view_cell,
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

    /// Creates an admin key if neither the configuration nor the catalog has one. Returns its text,
    /// which is stored nowhere.
    pub async fn ensure_admin_key(&self) -> Result<Option<String>> {
        let inner = &self.inner;
        let now = self.now();
        let has_one =
            |document: &Document| document.keys.iter().any(|key| key.opens_everything(now));
        if !inner.config.admin_key.0.is_empty() || has_one(&inner.catalog.state().document) {
            return Ok(None);
        }
        let text = key_text(self.random());
        let new = NewKey {
            name: Some("first".to_owned()),
            scopes: [Scope::Admin].into(),
            ..NewKey::default()
        };
        let make = |document: &mut Document| {
            // Another node that started at the same time may have been first.
            if has_one(document) {
                return Ok(false);
            }
            document.add_key(&text, new.clone(), now).map(|_| true)
        };
        Ok(inner.catalog.change(make).await?.then_some(text))
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
        if inner.closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        inner.budget.close();
        inner.stop_exports().await;
        let flushed = match inner.refuse_if_failed() {
            Ok(()) => self.flush().await,
            // The next open replays the log. The failure was logged when it happened.
            Err(_) => Ok(()),
        };
        let flushed = match flushed {
            Ok(()) => inner.write_last_counts().await,
            failed => failed,
        };
        if let Some(commands) = locked(&inner.commands).take() {
            // A writer that panicked receives no commands.
            let _ = commands.send(Command::Close);
        }
        let writer = locked(&self.background.writer).take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the writer thread panicked");
            }
        }
        for task in locked(&self.background.tasks).drain(..) {
            task.abort();
        }
        if let Err(error) = inner.write_refusals().await {
            tracing::warn!(error = error.chain(), "the list of refusals was not written");
        }
        inner.note_clock().await;
        inner.release_lease().await;
        inner.release_claim().await;
        inner.lock.release();
        flushed
    }
}

/// Returns the owner of the records that a key sends.
fn owner(access: &Access) -> Owner {
    Owner { organisation: access.organisation.clone(), workspace: access.workspace.clone() }
}

/// Assigns records to the key's owner. Returns an error if one names another owner.
fn owned(access: &Access, records: &mut [Record]) -> Result<()> {
    let owner = owner(access);
    records.iter_mut().try_for_each(|record| owner.take(record)).map_err(|refused| {
        Error::denied(format!(
            "field `{}` of a record: expected {}",
            refused.field, refused.expected
        ))
    })
}

impl Inner {
    /// Returns both tables.
    fn tables(&self) -> [&TableState; 2] {
        [&self.logs, &self.feedback]
    }

    /// Applies the limits of values to records. Returns an error for all if one id is too long.
    fn limit(&self, records: &mut [Record]) -> Result<()> {
        let limited = records.iter_mut().try_for_each(|record| self.policy.limit(record));
        limited.map_err(|refused| Error::invalid(refused.to_string()))
    }

    /// Fills in fields that the record lacks and the engine decides.
    fn complete(&self, record: &mut Record, now: DateTime<Utc>, rules: &Rules) {
        if record.id.as_deref().is_none_or(str::is_empty) {
            record.id = Some((self.new_uuid)().to_string());
        }
        if record.organisation_id.as_deref().is_none_or(str::is_empty) {
            record.organisation_id = Some(DEFAULT_ORGANISATION.to_owned());
        }
        let organisation = record.organisation_id.as_deref().unwrap_or(DEFAULT_ORGANISATION);
        record.retention_days = rules.retention_days(organisation);
        if let Some(stated) = record.created_at {
            self.clock.hear(organisation, stated);
        }
        record.created_at = Some(self.dated(record.created_at, now));
    }

    /// Returns the time of a record. The time of arrival replaces a missing one, and one that is
    /// more than a day ahead. Refusing the record would lose it because of a wrong clock; with its
    /// own time it would outlast every retention.
    fn dated(&self, stated: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
        let latest = now + TimeDelta::microseconds(MAX_AHEAD_MICROS);
        match stated {
            Some(stated) if stated > latest => {
                self.note_redated(1);
                now
            }
            Some(stated) => stated,
            None => now,
        }
    }

    /// Counts records with a time far ahead. Logs a warning for the first of them and for each
    /// thousandth.
    fn note_redated(&self, records: u64) {
        const WARN_EVERY: u64 = 1_000;
        if records == 0 {
            return;
        }
        let before = self.counters.redated.fetch_add(records, Ordering::Relaxed);
        if before == 0 || before / WARN_EVERY != (before + records) / WARN_EVERY {
            tracing::warn!(
                records = before + records,
                "records have a `created_at` that is more than a day ahead; they got the time of their arrival: correct the clocks of \
                 their senders"
            );
        }
    }

    /// Reserves memory for records, and returns their size in bytes. Waits up to `append_wait_ms`.
    async fn room_for(&self, records: &[Record]) -> Result<(usize, MemoryReservation)> {
        self.refuse_if_closed()?;
        let now = (self.now)();
        let rows = records
            .iter()
            .map(|record| (organisation_of(record), record.created_at.unwrap_or(now)));
        self.days.take(rows.map(|(organisation, at)| (organisation, day_of(at)))).await?;
        let bytes: usize = records.iter().map(|record| record.held_bytes()).sum();
        let holder = Holder::shared_by(records.iter().map(organisation_of));
        Ok((bytes, self.budget.take(&holder, bytes as u64).await?))
    }

    /// Sends a batch to the writer and waits until it is durable.
    async fn submit(
        &self,
        batch: RecordBatch,
        payload: Payload,
        keys: Vec<u128>,
        permit: MemoryReservation,
    ) -> Result<Receipt> {
        let (reply, done) = oneshot::channel();
        let days = days_of(&batch).collect::<HashSet<_>>().len();
        let append = Append { rows: Rows::Logs, batch, payload, keys, days, permit, reply };
        self.send(Command::Append(Box::new(append)))?;
        done.await.map_err(|_| Error::closed("the engine is closed"))?
    }

    fn send(&self, command: Command) -> Result<()> {
        let closed = || Error::closed("the engine is closed");
        locked(&self.commands).as_ref().ok_or_else(closed)?.send(command).map_err(|_| closed())
    }

    fn refuse_if_closed(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(Error::closed("the engine is closing and accepts no more records"));
        }
        self.refuse_if_failed()
    }

    fn refuse_if_failed(&self) -> Result<()> {
        match locked(&self.failure).as_ref() {
            None => Ok(()),
            Some(why) => {
                Err(Error::storage(format!("writes are refused until a restart, because: {why}")))
            }
        }
    }

    /// Closes the engine to writes: the content of the disk is only known once the next open has
    /// read it.
    fn fail(&self, error: &Error) {
        fail(&self.failure, error);
    }
}

fn fail(failure: &Mutex<Option<String>>, error: &Error) {
    tracing::error!(
        error = error.chain(),
        "the engine accepts no more writes until it is restarted"
    );
    locked(failure).get_or_insert_with(|| error.chain());
}

/// Returns the organisation of a record, or the one that it will get.
fn organisation_of(record: &Record) -> &str {
    record
        .organisation_id
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(DEFAULT_ORGANISATION)
}

/// Returns the day of a time as partitions number it, since 1970-01-01.
pub(crate) fn day_of(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(86_400)
}

/// Returns the day of each row of a batch.
fn days_of(batch: &RecordBatch) -> impl Iterator<Item = i64> {
    let dates = batch.column_by_name(DATE).and_then(|dates| dates.as_primitive_opt::<Date32Type>());
    dates.into_iter().flat_map(|dates| dates.values().iter().copied().map(i64::from))
}

/// Returns the organisation of each row of a batch.
fn organisations_of(batch: &RecordBatch) -> impl Iterator<Item = &str> {
    let named =
        batch.column_by_name("organisation_id").and_then(|column| column.as_string_view_opt());
    named
        .into_iter()
        .flat_map(|named| named.iter().map(|name| name.unwrap_or(DEFAULT_ORGANISATION)))
}

/// Returns the holder whose memory the rows of a batch count against.
fn holder_of(batch: &RecordBatch) -> Holder {
    let named =
        batch.column_by_name("organisation_id").and_then(|column| column.as_string_view_opt());
    match named {
        Some(named) => {
            Holder::shared_by(named.iter().map(|name| name.unwrap_or(DEFAULT_ORGANISATION)))
        }
        None => Holder::Operator,
    }
}

/// Returns a batch with its encoding for the log and the keys of its ids.
fn prepared(batch: RecordBatch, keys: &KeyHasher) -> Result<(RecordBatch, Payload, Vec<u128>)> {
    let payload = Payload::encode(&batch)?;
    let keys = keys.keys_of_batch(&batch);
    Ok((batch, payload, keys))
}

/// Runs small work at once, and other work on a blocking thread.
async fn run_blocking_if_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < SMALL_BYTES {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::internal("preparing a batch panicked").with_source(cause))?
}

/// Starts the threads of flushes, merges, exports and large bodies. Queries have threads of their
/// own.
fn work_threads(config: &Config) -> Result<Threads> {
    Threads::start("gatelog-work", crate::query::threads(config))
}

/// Locks a mutex, also after a panic of a holder: every use here is one assignment, so its content
/// is consistent.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
