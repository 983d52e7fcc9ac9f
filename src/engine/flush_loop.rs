//! What goes on in the background besides upkeep: flushes when rows are many or old, and looking
//! for what others changed.
//!
//! One task flushes, so flushes commit in the order of the log. What cannot be written is tried
//! again, slower each time, while writers go on until memory for rows is full. A flush takes
//! `logs`, then `feedback`, each with a commit of its own; the log is trimmed once both have what
//! it froze. A commit whose answer was lost is tried again with the same files and the same
//! transaction, which its table takes once, and until its fate is known nothing else may change
//! what queries see of that table: the rows stay in memory, and a newer version might hold them
//! too. Only a write that the disk did not keep, or damage, closes the engine to writes, because
//! then it is not known what the tables hold.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{FutureExt, TryStreamExt};
use tokio::sync::oneshot;

use super::table_state::{TableState, ids_of_files};
use super::writer::{Command, kept_rows};
use super::{Inner, locked};
use crate::datafile::OpenRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::flush;
use crate::plan::Month;
use crate::record::Rows;
use crate::store::folders::is_sync_failure;
use crate::table::{DataFile, FileIndex};
use crate::usage::{self, Snapshot};

/// How often the age of rows is looked at.
const TICK: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Files that wait so long for the fate of their commit are written anew: a file's time must tell
/// what it was judged by, and vacuum on another node takes old files that no version names.
pub(super) const COMMIT_WITHIN_MS: i64 = 2 * 60 * 1000;
/// What other nodes counted is read again so often.
const COUNTS_EVERY: Duration = Duration::from_secs(15);

/// What flushes, merges and refreshes do one at a time: changing the table and what queries see.
#[derive(Debug)]
pub(super) struct Commits {
    /// What this node's log had come to at the last flush that committed.
    pub(super) counted: Snapshot,
    /// Files of the oldest frozen rows of a table, from a flush that was not seen to commit.
    pub(super) unresolved: BTreeMap<Rows, Unresolved>,
    /// The version whose files' ids are remembered.
    pub(super) remembered: Arc<FileIndex>,
    /// Files that this node wrote since: their ids are known anyway.
    pub(super) own: HashSet<String>,
}

impl Commits {
    /// Notes files of this node's, which need not be read for the ids in them.
    pub(super) fn note_own<'a>(&mut self, files: impl IntoIterator<Item = &'a DataFile>) {
        self.own.extend(files.into_iter().map(|file| file.path.clone()));
    }
}

/// Files that may or may not be in the table.
#[derive(Debug)]
pub(super) struct Unresolved {
    last_sequence: u64,
    written_ms: i64,
    files: Vec<DataFile>,
}

/// A task whose panic closes the engine to writes, so that it does not go on looking well.
pub(super) async fn watched(
    name: &'static str,
    inner: Arc<Inner>,
    task: impl Future<Output = ()> + Send,
) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        inner.fail(&Error::internal(format!("{name} panicked")));
    }
}

impl Inner {
    /// Flushes whenever it is wanted or due, for as long as the engine lives.
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

    /// Halves that have waited long enough become records. That is no reason for a flush: where
    /// halves come all the time, some are due all the time.
    async fn settle_when_due(&self) {
        if self.join_due().await {
            // The writer is gone only when the engine closes; then they wait in the log.
            let _ = self.send(Command::Settle);
        }
    }

    /// Joins parts that wait no longer, so that the one writer need not; says whether there may be
    /// any.
    async fn join_due(&self) -> bool {
        let (view_cell, now_micros) =
            (Arc::clone(&self.logs.view_cell), (self.now)().timestamp_micros());
        if self.counters.waiting_until.load(Ordering::Relaxed) > now_micros {
            return false;
        }
        // What is not joined, the writer joins.
        let _ = tokio::task::spawn_blocking(move || view_cell.join_due(now_micros)).await;
        true
    }

    fn flush_due(&self) -> bool {
        let now_micros = (self.now)().timestamp_micros();
        let due =
            i64::try_from(self.config.flush_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let table_due = |table_state: &TableState| {
            let (_, _, oldest) = table_state.view_cell.memory();
            let age = oldest.map(|micros| now_micros - micros);
            age.is_some_and(|age| age >= due)
                || (oldest.is_none() && table_state.view_cell.oldest_frozen().is_some())
        };
        self.counters.clear_log_at.load(Ordering::Relaxed) <= now_micros
            || self.tables().into_iter().any(table_due)
    }

    /// Moves every row that is in memory now into the table.
    pub(super) async fn flush_all(&self) -> Result<()> {
        let flushed = self.flush_tables().await;
        self.closed_by_failed_sync(flushed)
    }

    /// Closes the engine to writes after a failed sync, of a data file or a new folder as of a
    /// commit: the next try would find there what may not last.
    pub(super) fn closed_by_failed_sync<T>(&self, done: Result<T>) -> Result<T> {
        done.inspect_err(|error| {
            if is_sync_failure(error) {
                self.fail(error);
            }
        })
    }

    async fn flush_tables(&self) -> Result<()> {
        let mut commits = self.commits.lock().await;
        self.refuse_if_failed()?;
        // Records that were taken while the catalog could not be read go into files by what it says
        // by now.
        self.gate().refuse_if_stale().await?;
        self.join_due().await;
        let (done, frozen) = oneshot::channel();
        let (noted, refused) = self.unconfirmed.judge(&self.catalog.state());
        self.send(Command::Freeze(done))?;
        let ended = frozen.await.map_err(|_| Error::closed("the engine is closed"))??;
        self.days.clear();
        let mut flushed_to = None;
        for table_state in self.tables() {
            flushed_to = flushed_to.max(
                self.flush_table(table_state, ended.last_sequence, &refused, &mut commits).await?,
            );
        }
        self.unconfirmed.forget(noted);
        if !ended.late.is_empty() {
            *locked(&self.late) = ended.late;
            self.amend_wanted.notify_one();
        }
        // Only now, since the frames of both tables stand in the same segments.
        flushed_to.map_or(Ok(()), |sequence| self.send(Command::Trim(sequence)))
    }

    /// Moves the rows of a table that are frozen up to a frame into it; answers the last frame of
    /// the log that it covers now, if it is another.
    async fn flush_table(
        &self,
        table_state: &TableState,
        frozen_to: u64,
        refused: &HashSet<u128>,
        commits: &mut Commits,
    ) -> Result<Option<u64>> {
        let rows = table_state.table.rows();
        let mut flushed_to = None;
        // What was frozen since is not judged by the rules of this flush.
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
            self.ensure_claim().await?;
            if rows == Rows::Logs {
                let month = Month::of_micros((self.now)().timestamp_micros());
                usage::write(&self.store, self.wal_id, &commits.counted, &next, month).await?;
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
            let source = flush::Source { wal_id: self.wal_id, last_sequence: frozen.last_sequence };
            let index = match flush::commit(&table_state.table, files, source).await {
                Ok(index) => index,
                Err(error) if may_pass(&error) => return Err(error),
                Err(error) => {
                    self.fail(&error);
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

    /// Rows without the records that came with revoked keys while the catalog could not be read.
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

    /// Takes over what other nodes, and commands beside this process, changed, for as long as the
    /// engine lives.
    pub(super) async fn refresh_often(self: Arc<Self>) {
        let every = Duration::from_secs(self.config.refresh_seconds);
        let mut counts_due = tokio::time::Instant::now() + COUNTS_EVERY;
        let mut failing = false;
        let mut over_quota = 0;
        // An earlier process may have kept what was erased since.
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
                // Told once: while a bucket is away this comes every few seconds.
                Err(error) if !failing => {
                    tracing::warn!(
                        error = error.chain(),
                        "cannot exchange changes with others; trying again"
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
            self.upkeep_wanted.notify_one();
            let erased = !self.catalog.rules().erased_since(&before).list().is_empty();
            if erased && self.is_any_dated_ahead() {
                self.flush_wanted.notify_one();
            }
        }
        self.catalog.settle().await?;
        self.refresh_table().await
    }

    /// Moves rows into files before records are erased, if any is dated ahead: of those an erasure
    /// only knows by the time of their file that they had arrived. Parts that wait are stored for
    /// this, and late ones are added to their records.
    pub(super) async fn flush_dated_ahead(&self) {
        if let Err(error) = self.try_flush_dated_ahead().await {
            tracing::warn!(
                error = error.chain(),
                "records that are dated ahead may not be erased with the others"
            );
        }
    }

    async fn try_flush_dated_ahead(&self) -> Result<()> {
        let has_parts = self.counters.waiting.load(Ordering::Relaxed) > 0;
        if !has_parts && !self.is_any_dated_ahead() {
            return Ok(());
        }
        self.send(Command::StoreAhead)?;
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
        self.tables()
            .iter()
            .any(|table_state| table_state.view_cell.view().memory.iter().any(is_ahead))
    }

    /// Takes over the newest version of the table, where others write too.
    pub(super) async fn refresh_table(&self) -> Result<()> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let mut commits = self.commits.lock().await;
        if !commits.unresolved.is_empty() || self.refuse_if_failed().is_err() {
            return Ok(());
        }
        let feedback = self.feedback.table.refresh().await?;
        if feedback.version != self.feedback.view_cell.files().version {
            self.feedback.view_cell.rewritten(feedback);
        }
        let index = self.logs.table.refresh().await?;
        if index.version == commits.remembered.version {
            return Ok(());
        }
        self.logs.view_cell.rewritten(Arc::clone(&index));
        let before = std::mem::replace(&mut commits.remembered, Arc::clone(&index));
        let own = std::mem::take(&mut commits.own);
        drop(commits);
        self.sweep_copies().await;
        let foreign =
            index.iter().filter(|file| !before.contains(&file.path) && !own.contains(&file.path));
        let remembered =
            self.remember_files(foreign.map(|file| DataFile::clone(file)).collect()).await;
        if remembered.is_err() {
            // Read again with the next refresh, for nothing else makes their ids known here.
            let mut commits = self.commits.lock().await;
            commits.remembered = before;
            commits.own.extend(own);
        }
        remembered
    }

    /// Remembers the ids that other nodes stored, so that a client that turns to another node with
    /// a record is not kept twice.
    async fn remember_files(&self, new: Vec<DataFile>) -> Result<()> {
        if new.is_empty() || self.config.dedupe_hours == 0 {
            return Ok(());
        }
        let mut ids = ids_of_files(&self.queries, &self.keys, new).await?;
        while let Some(keys) = ids.try_next().await? {
            self.send(Command::Remember(keys))?;
        }
        Ok(())
    }

    async fn refresh_counts(&self) -> Result<()> {
        let month = Month::of_micros((self.now)().timestamp_micros());
        let mut logs = usage::read(&self.store, month).await?;
        logs.remove(&self.wal_id);
        self.usage.set_others(usage::newest(&logs));
        Ok(())
    }

    /// Writes down what was not stored by now, whether or not anything is flushed: nobody beside
    /// this process could count it.
    async fn write_not_stored(&self) -> Result<()> {
        let mut commits = self.commits.lock().await;
        // A flush that may have committed needs the counts that it wrote.
        if !commits.unresolved.is_empty() || self.refuse_if_failed().is_err() {
            return Ok(());
        }
        let counts = commits.counted.counts.with_not_stored_of(&self.usage.own());
        if counts == *commits.counted.counts {
            return Ok(());
        }
        self.ensure_claim().await?;
        let next = Snapshot { sequence: commits.counted.sequence, counts: Arc::new(counts) };
        let month = Month::of_micros((self.now)().timestamp_micros());
        usage::write(&self.store, self.wal_id, &next, &next, month).await?;
        commits.counted = next;
        Ok(())
    }

    /// Writes down what was not stored since the last flush; of what was stored, everything is in
    /// the table by now.
    pub(super) async fn write_last_counts(&self) -> Result<()> {
        let commits = self.commits.lock().await;
        let next =
            Snapshot { sequence: commits.counted.sequence, counts: Arc::new(self.usage.own()) };
        if next == commits.counted || self.logs.view_cell.memory().0 > 0 {
            return Ok(());
        }
        if self.claim.is_some() && self.refuse_if_failed().is_err() {
            // The log may be another node's by now, and its counts too.
            return Ok(());
        }
        let month = Month::of_micros((self.now)().timestamp_micros());
        usage::write(&self.store, self.wal_id, &next, &next, month).await
    }
}

/// Whether a failed commit may be tried again: the store did not answer, but what it answered
/// before holds.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Storage | ErrorKind::Busy) && !is_sync_failure(error)
}
