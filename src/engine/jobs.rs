//! Runs the maintenance jobs one after the other: expire, compact, vacuum, checkpoint, clean the
//! log. Each job covers both tables.
//!
//! A job plans from a version of a table, writes new files, and then commits and shows the new
//! version in one step with respect to flushes. Merges, rewrites and vacuum exclude each other.
//! Vacuum excludes flushes too, because no version names the files of a flush until it commits. If
//! another writer removed an input file, the commit is void, never wrong: the next run plans again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::flush_loop::{COMMIT_WITHIN_MS, is_retryable};
use super::handle::Inner;
use super::status::{Job, Outcome};
use super::table_state::TableState;

use crate::error::{Error, ErrorKind, Result};
use crate::maintain::{self, Merge, Policy, Tools};
use crate::plan::Rules;
use crate::record::Rows;
use crate::table::{DataFile, FileIndex};

/// Maximum difference between the clocks of nodes, ms. Files newer than this are processed again.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;

impl Inner {
    /// Runs one maintenance job now, or reports what the job would do.
    pub(super) async fn maintain(
        &self,
        job: Job,
        dry_run: bool,
        policy: Policy,
    ) -> Result<Outcome> {
        self.health.refuse_if_failed()?;
        if !dry_run && matches!(job, Job::Expire | Job::Vacuum | Job::CleanLog) {
            self.note_clock().await;
            self.refuse_if_in_doubt()?;
        }
        let before = self.tables.both().map(|table_state| table_state.table.index());
        let done = match job {
            Job::Expire => {
                // A failure of one does not prevent the other.
                let exports = self.expire_exports(dry_run).await;
                let records = self.expire(dry_run, policy).await;
                joined(exports, records)
            }
            Job::Compact => self.compact(dry_run, policy).await,
            Job::Vacuum => self.vacuum(dry_run).await,
            Job::Checkpoint => self.checkpoint(dry_run).await,
            Job::CleanLog => self.clean_log(dry_run).await,
        };
        if !dry_run {
            self.sweep_copies().await;
        }
        let lines = self.closed_by_failed_sync(done)?;
        let after = self.tables.both().map(|table_state| table_state.table.index());
        let files =
            |indexes: &[Arc<FileIndex>; 2]| indexes.iter().map(|index| index.len() as u64).sum();
        let bytes = |indexes: &[Arc<FileIndex>; 2]| indexes.iter().map(|index| index.bytes()).sum();
        Ok(Outcome {
            job: job.name(),
            dry_run,
            lines,
            files_before: files(&before),
            files_after: files(&after),
            bytes_before: bytes(&before),
            bytes_after: bytes(&after),
        })
    }

    /// Removes from the disk cache the files that the tables do not have any more (see
    /// [`crate::store::places`]).
    pub(super) async fn sweep_copies(&self) {
        if self.store.cache_stats().is_none() {
            return;
        }
        let indexes = self
            .tables
            .both()
            .map(|table_state| (table_state.table.clone(), table_state.table.index()));
        let live = indexes
            .iter()
            .flat_map(|(table, index)| index.iter().map(|file| table.object_store_path(file)));
        let live = live.collect::<Vec<_>>();
        let store = self.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.sweep_cache(&live)).await {
            tracing::warn!(%error, "erased data could not be removed from the disk cache");
        }
    }

    /// Drops expired records, and rewrites files for changes of plan and for erasures.
    async fn expire(&self, dry_run: bool, policy: Policy) -> Result<Vec<String>> {
        self.catalog.refresh().await?;
        self.catalog.settle().await?;
        let rules = self.catalog.rules();
        // The files must include those that other nodes committed.
        self.refresh_table().await?;
        let started_ms = (self.now)().timestamp_millis();
        if !dry_run && (!rules.erasures().is_empty() || !rules.moving().is_empty()) {
            // Rows in memory would otherwise reach the files after those were processed.
            self.flush_all().await?;
        }
        let _one_at_a_time = self.tables.compacting.lock().await;
        let mut run = Expired {
            rules,
            policy,
            started_ms,
            lines: Vec::new(),
            erased: Vec::new(),
            whole: true,
        };
        let mut failed = None;
        for table_state in self.tables.both() {
            failed = failed.or(self.expire_table(table_state, &mut run, dry_run).await?);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // If another node took a file away meanwhile, its rows are in a file that was not
        // processed.
        if dry_run {
            return Ok(run.lines);
        }
        if run.whole {
            self.note_cleaned(&run.rules, &run.erased, started_ms).await?;
        } else {
            self.maintenance_wanted.notify_one();
        }
        Ok(run.lines)
    }

    /// Expires the records of one table. Returns an error that must not prevent the other files
    /// from being processed.
    async fn expire_table(
        &self,
        table_state: &TableState,
        run: &mut Expired,
        dry_run: bool,
    ) -> Result<Option<Error>> {
        let expiry = maintain::plan_expiry((self.now)(), &table_state.table.index(), &run.rules);
        if !expiry.drop.is_empty() {
            run.lines.push(dropped_line(table_state, &expiry.drop));
            if !dry_run {
                self.refuse_if_in_doubt()?;
                self.unchanged(&run.rules).await?;
                let drop =
                    async || maintain::commit_dropped(&table_state.table, &expiry.drop).await;
                run.whole &= self.commit_shown(table_state, run.started_ms, drop).await?;
            }
        }
        if dry_run {
            run.lines
                .extend(expiry.rewrite.iter().map(|file| format!("go through `{}`", file.path)));
            return Ok(None);
        }
        let mut failed = None;
        for file in &expiry.rewrite {
            match self.rewrite(table_state, file, run).await {
                Ok(Some(line)) => run.lines.push(line),
                Ok(None) => {}
                // One damaged file must not block the others.
                Err(error) if error.kind() == ErrorKind::Damaged => failed = failed.or(Some(error)),
                Err(error) if error.kind() == ErrorKind::NotFound => run.whole = false,
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }

    /// Returns an error if the rules changed since they were read: a plan may now keep records that
    /// it did not keep before.
    pub(super) async fn unchanged(&self, rules: &Arc<Rules>) -> Result<()> {
        self.catalog.refresh().await?;
        self.catalog.settle().await?;
        if *self.catalog.rules() == **rules {
            return Ok(());
        }
        self.maintenance_wanted.notify_one();
        Err(Error::busy(
            "a plan was changed, or records were erased, while files were rewritten; the job starts again",
        ))
    }

    /// Rewrites one file. Returns a line about the changes, if there were any.
    async fn rewrite(
        &self,
        table_state: &TableState,
        file: &Arc<DataFile>,
        run: &mut Expired,
    ) -> Result<Option<String>> {
        let rules = &run.rules;
        let tools = Tools { table: &table_state.table, queries: &self.queries, policy: run.policy };
        let mut rewrite =
            maintain::rewrite(tools, file, rules, (self.now)(), self.new_uuid).await?;
        if rewrite.untouched {
            return Ok(None);
        }
        let written_ms = self.stamp(&mut rewrite.add);
        self.refuse_if_in_doubt()?;
        self.unchanged(rules).await?;
        let gone: u64 = rewrite.erased.iter().map(|(_, rows)| rows).sum();
        let line = format!(
            "rewrote `{}`: {gone} records erased, {} expired, {} moved to another class",
            file.path, rewrite.expired, rewrite.moved
        );
        // An erasure reports its number of records. The amount of feedback was reported when it was
        // requested.
        let records = rewrite.erased.iter().filter(|_| table_state.table.rows() == Rows::Logs);
        let named: Vec<_> = records
            .filter_map(|(place, rows)| Some((rules.erasures().get(*place)?.id.clone(), *rows)))
            .collect();
        let file = std::slice::from_ref(file);
        let commit =
            async || maintain::commit_rewritten(&table_state.table, file, vec![rewrite]).await;
        if !self.commit_shown(table_state, written_ms, commit).await? {
            return Err(Error::not_found("another node took the file away meanwhile"));
        }
        run.erased.extend(named);
        Ok(Some(line))
    }

    /// Records in the catalog that the files were processed, so that they are not processed again.
    async fn note_cleaned(
        &self,
        rules: &Arc<Rules>,
        erased: &[(String, u64)],
        started_ms: i64,
    ) -> Result<()> {
        if rules.erasures().is_empty() && rules.moving().is_empty() {
            return Ok(());
        }
        let now = (self.now)();
        let margin = if self.store.is_shared() { CLOCKS_DIFFER_MS } else { 0 };
        self.catalog
            .change(|document| {
                document.cleaned(rules, erased, started_ms - margin, now);
                document.settle(now);
                Ok(())
            })
            .await?;
        self.catalog.archive_erasures().await
    }

    async fn compact(&self, dry_run: bool, policy: Policy) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut failed = None;
        for table_state in self.tables.both() {
            failed =
                failed.or(self.compact_table(table_state, &mut lines, dry_run, policy).await?);
        }
        failed.map_or(Ok(lines), Err)
    }

    /// Merges the files of one table. Returns an error that must not prevent the other days from
    /// being merged.
    async fn compact_table(
        &self,
        table_state: &TableState,
        lines: &mut Vec<String>,
        dry_run: bool,
        policy: Policy,
    ) -> Result<Option<Error>> {
        let tools = Tools { table: &table_state.table, queries: &self.queries, policy };
        let mut failed = None;
        for merge in
            maintain::plan((self.now)(), &table_state.table.index(), &self.catalog.rules(), policy)
        {
            lines.push(merge_line(table_state, &merge));
            if dry_run {
                continue;
            }
            // The lock is taken for each merge, because late parts wait for it too. A merge whose
            // files were removed meanwhile has no effect.
            let _one_at_a_time = self.tables.compacting.lock().await;
            let (written_ms, joined) =
                match maintain::write_merged(tools, &merge, (self.now)(), self.new_uuid).await {
                    Ok(mut joined) => (self.stamp(&mut joined), joined),
                    Err(error) => {
                        failed = failed.or(Some(error));
                        continue;
                    }
                };
            if self.is_ahead_of_erasure(&merge.files) {
                // In a file of this time the records would seem to have arrived after the erasure,
                // so the erasure processes the files first.
                continue;
            }
            if self.store.is_shared() && table_state.table.rows() == Rows::Logs {
                self.tables.commits.lock().await.note_own(&joined);
            }
            let commit = async || maintain::commit_merged(&table_state.table, &merge, joined).await;
            if self.commit_shown(table_state, written_ms, commit).await? {
                self.counters.compactions.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(failed)
    }

    /// Returns true if files may hold records that an erasure recognises only by the time of the
    /// file.
    fn is_ahead_of_erasure(&self, files: &[Arc<DataFile>]) -> bool {
        let rules = self.catalog.rules();
        files.iter().any(|file| rules.erased().may_be_ahead_in(file.facts()))
    }

    /// Sets the time of files to now, and returns it, ms. Erasures and plan changes that were made
    /// while the files were written apply to them by this time.
    pub(super) fn stamp(&self, files: &mut [DataFile]) -> i64 {
        let now_ms = (self.now)().timestamp_millis();
        files.iter_mut().for_each(|file| file.modified_ms = now_ms);
        now_ms
    }

    /// Commits and shows the new version to queries, in one step with respect to flushes, which do
    /// the same. Returns false if another writer took one of the files away, so that nothing was
    /// done. Refuses files that were written long ago: vacuum on another node may have deleted
    /// them.
    pub(super) async fn commit_shown(
        &self,
        table_state: &TableState,
        written_ms: i64,
        commit: impl AsyncFnOnce() -> Result<Arc<FileIndex>>,
    ) -> Result<bool> {
        let commits = self.tables.commits.lock().await;
        // A flush that failed meanwhile may have committed rows that are still in memory.
        self.health.refuse_if_failed()?;
        if !commits.unresolved.is_empty() {
            return Err(Error::storage(
                "the result of a flush commit is not known yet; maintenance waits for it",
            ));
        }
        if (self.now)().timestamp_millis() - written_ms >= COMMIT_WITHIN_MS {
            return Err(Error::busy(
                "files waited too long for their commit; they are written again",
            ));
        }
        match commit().await {
            Ok(index) => {
                table_state.view_cell.rewritten(index);
                Ok(true)
            }
            // The next plan uses the files that exist by then.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                // The next refresh of the table shows if the commit succeeded. The rows are the
                // same, or were to be removed, or are removed again.
                if !is_retryable(&error) {
                    self.health.fail(&error);
                }
                Err(error)
            }
        }
    }

    async fn vacuum(&self, dry_run: bool) -> Result<Vec<String>> {
        // In the same order as compaction, to avoid a deadlock.
        let _no_merge = self.tables.compacting.lock().await;
        let commits = self.tables.commits.lock().await;
        self.health.refuse_if_failed()?;
        if !commits.unresolved.is_empty() {
            return Err(Error::storage(
                "the result of a flush commit is not known yet; maintenance waits for it",
            ));
        }
        let mut lines = Vec::new();
        for table_state in self.tables.both() {
            let orphans = table_state
                .table
                .orphans((self.now)().timestamp_millis().saturating_sub(self.grace_ms()))
                .await?;
            // A long export may still read files that were replaced before the grace time.
            let held = table_state.view_cell.held();
            let orphans: Vec<_> = orphans
                .into_iter()
                .filter(|orphan| !held.iter().any(|index| index.contains(&orphan.path)))
                .collect();
            lines.extend(
                orphans
                    .iter()
                    .map(|orphan| format!("delete `{}`, {} bytes", orphan.path, orphan.bytes)),
            );
            if !dry_run {
                let paths: Vec<String> = orphans.into_iter().map(|orphan| orphan.path).collect();
                table_state.table.remove_objects(&paths).await?;
            }
        }
        Ok(lines)
    }

    fn grace_ms(&self) -> i64 {
        i64::try_from(self.config.vacuum_grace_seconds)
            .unwrap_or(i64::MAX / 1000)
            .saturating_mul(1000)
    }

    async fn checkpoint(&self, dry_run: bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for table_state in self.tables.both() {
            let name = table_state.table.rows().folder();
            let commits = table_state.table.commits_since_checkpoint();
            match (commits, dry_run) {
                (0, _) => {}
                (_, true) => lines.push(format!(
                    "write a checkpoint of `{name}`; {commits} commits since the last one"
                )),
                (_, false) => {
                    let version = table_state.table.checkpoint().await?;
                    lines.push(format!("checkpoint of `{name}`, version {version}"));
                }
            }
        }
        Ok(lines)
    }

    async fn clean_log(&self, dry_run: bool) -> Result<Vec<String>> {
        let keep_ms = i64::try_from(self.config.clean_log_seconds)
            .unwrap_or(i64::MAX / 1000)
            .saturating_mul(1000);
        // Vacuum reads from the log which files were replaced within its grace time.
        let older_than_ms =
            (self.now)().timestamp_millis().saturating_sub(keep_ms.max(self.grace_ms()));
        let mut lines = Vec::new();
        for table_state in self.tables.both() {
            let cleaned = table_state.table.clean_log(older_than_ms, dry_run).await?;
            lines.extend(
                cleaned
                    .iter()
                    .map(|entry| format!("delete `{}`, {} bytes", entry.path, entry.bytes)),
            );
        }
        Ok(lines)
    }
}

/// Rules and results of a run of expiry.
struct Expired {
    rules: Arc<Rules>,
    policy: Policy,
    started_ms: i64,
    lines: Vec<String>,
    /// Records that each erasure took.
    erased: Vec<(String, u64)>,
    /// True if every file to be processed existed.
    whole: bool,
}

/// Combines the results of both steps of expiry. Returns one error, and logs the results that it
/// would hide.
fn joined(exports: Result<Vec<String>>, records: Result<Vec<String>>) -> Result<Vec<String>> {
    match (exports, records) {
        (Ok(exports), Ok(records)) => Ok([exports, records].concat()),
        (Ok(lines), Err(error)) | (Err(error), Ok(lines)) => {
            lines.iter().for_each(|line| {
                tracing::info!(step = line, "maintenance did this before it failed")
            });
            Err(error)
        }
        (Err(exports), Err(records)) => {
            tracing::warn!(error = exports.chain(), "files of exports were not deleted");
            Err(records)
        }
    }
}

fn merge_line(table_state: &TableState, merge: &Merge) -> String {
    let day = crate::store::date_text(merge.date);
    let name = table_state.table.rows().folder();
    let verb = if merge.seal { "seal" } else { "join" };
    format!("{verb} {} files, {} bytes, of `{name}` of day {day}", merge.files.len(), merge.bytes())
}

fn dropped_line(table_state: &TableState, files: &[Arc<DataFile>]) -> String {
    let (rows, bytes) =
        files.iter().fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
    let days: std::collections::BTreeSet<_> = files.iter().map(|file| file.partition()).collect();
    let noun =
        if table_state.table.rows() == Rows::Logs { "records" } else { "states of feedback" };
    format!(
        "drop {} files of {} days, {rows} {noun}, {bytes} bytes, past their retention",
        files.len(),
        days.len()
    )
}
