//! Background work besides maintenance: flushes when rows are many or old, and takes over the
//! changes of others.
//!
//! One task flushes, so flushes commit in the order of the log. A failed flush is repeated at
//! growing intervals, while appends continue until the memory for rows is full. A flush writes
//! `logs`, then `feedback`, each in its own commit. The log is trimmed once both tables have the
//! frozen rows. A commit without an answer is repeated with the same files and the same
//! transaction, which the table accepts once. Until its result is known, nothing else may change
//! what queries see of that table: the rows are still in memory, and a newer version might hold
//! them too. Only a write that the disk did not keep, or damage, closes the engine to writes,
//! because then the content of the tables is unknown.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{FutureExt, TryStreamExt};
use tokio::sync::oneshot;

use super::admission::kept_rows;
use super::flush_trigger::micros;
use super::handle::Inner;
use super::table_state::{Commits, TableState, Unresolved, ids_of_files};
use super::writer::Command;
use crate::datafile::OpenRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::flush;
use crate::plan::Month;
use crate::record::Rows;
use crate::store::folders::is_sync_failure;
use crate::table::DataFile;
use crate::usage::{self, Snapshot};

/// Interval at which the age of rows is checked.
const TICK: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Files that wait longer for the result of their commit are written again: the time of a file must
/// show which rules it was judged by, and vacuum on another node deletes old files that no version
/// names.
pub(super) const COMMIT_WITHIN_MS: i64 = 2 * 60 * 1000;
/// Interval at which the counts of other nodes are read.
const COUNTS_EVERY: Duration = Duration::from_secs(15);

/// Runs a task whose panic closes the engine to writes, so that the engine does not look healthy
/// without it.
pub(super) async fn watched(
    name: &'static str,
    inner: Arc<Inner>,
    task: impl Future<Output = ()> + Send,
) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        inner.health.fail(&Error::internal(format!("{name} panicked")));
    }
}

impl Inner {
    /// Flushes on request or when due, for as long as the engine lives.
    pub(super) async fn flush_when_due(self: Arc<Self>) {
        let mut wait = FIRST_RETRY;
        loop {
            tokio::select! {
                () = self.flush_wanted.notified() => {}
                () = tokio::time::sleep(TICK) => {
                    self.settle_when_due().await;
                    if !self.flush_due() {
                        continue;
                    }
                }
            }
            match self.flush_all().await {
                Ok(()) => wait = FIRST_RETRY,
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(error) => {
                    tracing::error!(
                        error = error.chain(),
                        retry_seconds = wait.as_secs(),
                        "a flush failed"
                    );
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LAST_RETRY);
                    // A second failure must not wait for the next record.
                    self.flush_wanted.notify_one();
                }
            }
        }
    }

    /// Stores parts whose wait is over. That does not cause a flush: where parts arrive all the
    /// time, some are due all the time.
    async fn settle_when_due(&self) {
        if self.join_due().await {
            // The writer is gone only when the engine closes. The parts then stay in the log.
            let _ = self.writes.send(Command::Settle);
        }
    }

    /// Merges parts whose wait is over, so that the single writer need not. Returns true if there
    /// may be any.
    async fn join_due(&self) -> bool {
        let view_cell = Arc::clone(&self.tables.logs.view_cell);
        let now_micros = (self.now)().timestamp_micros();
        if self.counters.waiting_until.load(Ordering::Relaxed) > now_micros {
            return false;
        }
        // The writer merges the parts that are left.
        let _ = tokio::task::spawn_blocking(move || view_cell.join_due(now_micros)).await;
        true
    }

    fn flush_due(&self) -> bool {
        let now_micros = (self.now)().timestamp_micros();
        let due = micros(self.config.flush_seconds);
        let table_due = |table_state: &TableState| {
            let (_, _, oldest) = table_state.view_cell.memory();
            let age = oldest.map(|micros| now_micros - micros);
            age.is_some_and(|age| age >= due)
                || (oldest.is_none() && table_state.view_cell.oldest_frozen().is_some())
        };
        self.counters.clear_log_at.load(Ordering::Relaxed) <= now_micros
            || self.tables.both().into_iter().any(table_due)
    }

    /// Moves every row that is in memory now into the table.
    pub(super) async fn flush_all(&self) -> Result<()> {
        let flushed = self.flush_tables().await;
        self.closed_by_failed_sync(flushed)
    }

    /// Closes the engine to writes after a failed sync of a data file, a new folder or a commit: a
    /// retry would find data there that may not last.
    pub(super) fn closed_by_failed_sync<T>(&self, done: Result<T>) -> Result<T> {
        done.inspect_err(|error| {
            if is_sync_failure(error) {
                self.health.fail(error);
            }
        })
    }

    async fn flush_tables(&self) -> Result<()> {
        let mut commits = self.tables.commits.lock().await;
        self.health.refuse_if_failed()?;
        // Records that were accepted while the catalog could not be read are judged by its current
        // content.
        self.gate().refuse_if_stale().await?;
        self.join_due().await;
        let (done, frozen) = oneshot::channel();
        let (noted, refused) = self.unconfirmed.judge(&self.catalog.state());
        self.writes.send(Command::Freeze(done))?;
        let ended = frozen.await.map_err(|_| Error::closed("the engine is closed"))??;
        self.writes.days.clear();
        let mut flushed_to = None;
        for table_state in self.tables.both() {
            flushed_to = flushed_to.max(
                self.flush_table(table_state, ended.last_sequence, &refused, &mut commits).await?,
            );
        }
        self.unconfirmed.forget(noted);
        self.late.replace(ended.late);
        // Only now, since the same segments hold frames of both tables.
        flushed_to.map_or(Ok(()), |sequence| self.writes.send(Command::Trim(sequence)))
    }

    /// Moves the rows of a table that are frozen up to a frame into its files. Returns the last
    /// frame of the log that the table covers now, if that changed.
    async fn flush_table(
        &self,
        table_state: &TableState,
        frozen_to: u64,
        refused: &HashSet<u128>,
        commits: &mut Commits,
    ) -> Result<Option<u64>> {
        let rows = table_state.table.rows();
        let mut flushed_to = None;
        // The rules of this flush do not apply to rows that were frozen later.
        while let Some(frozen) =
            table_state.view_cell.oldest_frozen().filter(|frozen| frozen.last_sequence <= frozen_to)
        {
            let now_ms = (self.now)().timestamp_millis();
            let known = commits
                .unresolved
                .get(&rows)
                .filter(|known| known.last_sequence == frozen.last_sequence);
            let (files, written_ms) =
                match known.filter(|known| now_ms - known.written_ms < COMMIT_WITHIN_MS) {
                    Some(known) => (known.files.clone(), known.written_ms),
                    None => {
                        let rules = self.catalog.rules();
                        let chunks = self.without_refused(rows, &frozen.chunks, refused)?;
                        let open = OpenRecords::from_open(&self.keys, frozen.open.clone());
                        let files = flush::write_files(
                            &table_state.table,
                            &chunks,
                            rules,
                            &open,
                            now_ms,
                            self.new_uuid,
                        )
                        .await?;
                        (files, now_ms)
                    }
                };
            let next =
                Snapshot { sequence: frozen.last_sequence, counts: Arc::clone(&frozen.counts) };
            self.node.ensure_claim().await?;
            if rows == Rows::Logs {
                let month = Month::of_micros((self.now)().timestamp_micros());
                usage::write(&self.store, self.node.wal_id, &commits.counted, &next, month).await?;
            }
            let unresolved = Unresolved {
                last_sequence: frozen.last_sequence,
                written_ms,
                files: files.clone(),
            };
            commits.unresolved.insert(rows, unresolved);
            if self.store.is_shared() && rows == Rows::Logs {
                commits.note_own(&files);
            }
            let source =
                flush::Source { wal_id: self.node.wal_id, last_sequence: frozen.last_sequence };
            let index = match flush::commit(&table_state.table, files, source).await {
                Ok(index) => index,
                Err(error) if is_retryable(&error) => return Err(error),
                Err(error) => {
                    self.health.fail(&error);
                    return Err(error);
                }
            };
            commits.unresolved.remove(&rows);
            if rows == Rows::Logs {
                commits.counted = next;
            }
            table_state.view_cell.flushed(index);
            self.counters.flushes.fetch_add(1, Ordering::Relaxed);
            flushed_to = Some(frozen.last_sequence);
        }
        Ok(flushed_to)
    }

    /// Returns the rows without records whose keys had been revoked while the catalog could not be
    /// read.
    fn without_refused(
        &self,
        rows: Rows,
        chunks: &[RecordBatch],
        refused: &HashSet<u128>,
    ) -> Result<Vec<RecordBatch>> {
        if refused.is_empty() || rows != Rows::Logs {
            return Ok(chunks.to_vec());
        }
        let mut kept = Vec::with_capacity(chunks.len());
        let mut left_out = 0;
        for chunk in chunks {
            let mask: Vec<bool> =
                self.keys.keys_of_batch(chunk).iter().map(|key| !refused.contains(key)).collect();
            left_out += mask.iter().filter(|kept| !**kept).count();
            kept.extend(kept_rows(chunk.clone(), &mask)?);
        }
        if left_out > 0 {
            tracing::warn!(
                records = left_out,
                "records of keys that had been revoked were not stored"
            );
        }
        Ok(kept)
    }

    /// Takes over the changes of other nodes, and of commands beside this process, for as long as
    /// the engine lives.
    pub(super) async fn refresh_often(self: Arc<Self>) {
        let every = Duration::from_secs(self.config.refresh_seconds);
        let mut counts_due = tokio::time::Instant::now() + COUNTS_EVERY;
        let mut failing = false;
        let mut over_quota = 0;
        // An earlier process may have cached data that was erased since.
        self.sweep_copies().await;
        loop {
            tokio::time::sleep(every).await;
            let mut refreshed = self.refresh().await;
            let is_shared = self.store.is_shared();
            if refreshed.is_ok() && (!is_shared || tokio::time::Instant::now() >= counts_due) {
                counts_due = tokio::time::Instant::now() + COUNTS_EVERY;
                let by_now = self.counters.over_quota.load(Ordering::Relaxed);
                if by_now != over_quota {
                    refreshed = self.closed_by_failed_sync(self.write_not_stored().await);
                    over_quota = if refreshed.is_ok() { by_now } else { over_quota };
                }
                if is_shared && refreshed.is_ok() {
                    refreshed = self.refresh_counts().await;
                }
            }
            match refreshed {
                Ok(()) => failing = false,
                // Logged once: while a bucket is unreachable, this error repeats every few seconds.
                Err(error) if !failing => {
                    tracing::warn!(
                        error = error.chain(),
                        "cannot exchange changes with other nodes; trying again"
                    );
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Takes over changes of the catalog and, where others write too, of the table.
    pub(super) async fn refresh(&self) -> Result<()> {
        let before = self.catalog.rules();
        if self.catalog.refresh().await? {
            self.forget_refusals();
            self.maintenance_wanted.notify_one();
            let erased = !self.catalog.rules().erased_since(&before).list().is_empty();
            if erased && self.is_any_dated_ahead() {
                self.flush_wanted.notify_one();
            }
        }
        self.catalog.settle().await?;
        self.refresh_table().await
    }

    /// Moves rows into files before an erasure, if any has a future date: an erasure recognises
    /// such records as arrived only by the time of their file. Waiting parts are stored for this,
    /// and late ones are added to their records.
    pub(super) async fn flush_dated_ahead(&self) {
        if let Err(error) = self.try_flush_dated_ahead().await {
            tracing::warn!(
                error = error.chain(),
                "records with a future date may not be erased with the others"
            );
        }
    }

    async fn try_flush_dated_ahead(&self) -> Result<()> {
        let has_parts = self.counters.waiting.load(Ordering::Relaxed) > 0;
        if !has_parts && !self.is_any_dated_ahead() {
            return Ok(());
        }
        self.writes.send(Command::StoreAhead)?;
        self.flush_all().await?;
        self.amend_late().await
    }

    fn is_any_dated_ahead(&self) -> bool {
        let now_micros = (self.now)().timestamp_micros();
        let latest = |batch: &RecordBatch| {
            let times = batch
                .column_by_name("created_at")?
                .as_primitive_opt::<TimestampMicrosecondType>()?;
            arrow::compute::max(times)
        };
        let is_ahead =
            |batch: &RecordBatch| latest(batch).is_some_and(|latest| latest > now_micros);
        self.tables
            .both()
            .iter()
            .any(|table_state| table_state.view_cell.view().memory.iter().any(is_ahead))
    }

    /// Takes over the newest version of the table, where others write too.
    pub(super) async fn refresh_table(&self) -> Result<()> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let mut commits = self.tables.commits.lock().await;
        if !commits.unresolved.is_empty() || self.health.refuse_if_failed().is_err() {
            return Ok(());
        }
        let feedback = self.tables.feedback.table.refresh().await?;
        if feedback.version != self.tables.feedback.view_cell.files().version {
            self.tables.feedback.view_cell.rewritten(feedback);
        }
        let index = self.tables.logs.table.refresh().await?;
        if index.version == commits.remembered.version {
            return Ok(());
        }
        self.tables.logs.view_cell.rewritten(Arc::clone(&index));
        let before = std::mem::replace(&mut commits.remembered, Arc::clone(&index));
        let own = std::mem::take(&mut commits.own);
        drop(commits);
        self.sweep_copies().await;
        let foreign =
            index.iter().filter(|file| !before.contains(&file.path) && !own.contains(&file.path));
        let remembered =
            self.remember_files(foreign.map(|file| DataFile::clone(file)).collect()).await;
        if remembered.is_err() {
            // Read again at the next refresh, since nothing else makes their ids known here.
            let mut commits = self.tables.commits.lock().await;
            commits.remembered = before;
            commits.own.extend(own);
        }
        remembered
    }

    /// Remembers the ids that other nodes stored, so that a record which a client sends to a second
    /// node is not stored twice.
    async fn remember_files(&self, new: Vec<DataFile>) -> Result<()> {
        if new.is_empty() || self.config.dedupe_hours == 0 {
            return Ok(());
        }
        let mut ids = ids_of_files(&self.queries, &self.keys, new).await?;
        while let Some(keys) = ids.try_next().await? {
            self.writes.send(Command::Remember(keys))?;
        }
        Ok(())
    }

    async fn refresh_counts(&self) -> Result<()> {
        let month = Month::of_micros((self.now)().timestamp_micros());
        let mut logs = usage::read(&self.store, month).await?;
        logs.remove(&self.node.wal_id);
        self.usage.set_others(usage::newest(&logs));
        Ok(())
    }

    /// Writes the counts of records that were not stored, with or without a flush: no other process
    /// could count them.
    async fn write_not_stored(&self) -> Result<()> {
        let mut commits = self.tables.commits.lock().await;
        // A flush with an unknown result needs the counts that it wrote.
        if !commits.unresolved.is_empty() || self.health.refuse_if_failed().is_err() {
            return Ok(());
        }
        let counts = commits.counted.counts.with_not_stored_of(&self.usage.own());
        if counts == *commits.counted.counts {
            return Ok(());
        }
        self.node.ensure_claim().await?;
        let next = Snapshot { sequence: commits.counted.sequence, counts: Arc::new(counts) };
        let month = Month::of_micros((self.now)().timestamp_micros());
        usage::write(&self.store, self.node.wal_id, &next, &next, month).await?;
        commits.counted = next;
        Ok(())
    }

    /// Writes the counts of records that were not stored since the last flush. All stored records
    /// are in the table by now.
    pub(super) async fn write_last_counts(&self) -> Result<()> {
        let commits = self.tables.commits.lock().await;
        let next =
            Snapshot { sequence: commits.counted.sequence, counts: Arc::new(self.usage.own()) };
        if next == commits.counted || self.tables.logs.view_cell.memory().0 > 0 {
            return Ok(());
        }
        if self.node.claim.is_some() && self.health.refuse_if_failed().is_err() {
            // The log may belong to another node by now, with its counts.
            return Ok(());
        }
        let month = Month::of_micros((self.now)().timestamp_micros());
        usage::write(&self.store, self.node.wal_id, &next, &next, month).await
    }
}

/// Returns true if a failed commit may be repeated: the store did not answer, but its earlier
/// answers are still valid.
pub(super) fn is_retryable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Storage | ErrorKind::Busy) && !is_sync_failure(error)
}
