//! The upkeep jobs, one after the other: expire, compact, vacuum, checkpoint, clean the log. Each
//! does both tables.
//!
//! A job plans from a version of a table, writes files aside, and then commits and shows the new
//! version in one step with respect to flushes. Merges and rewrites exclude each other and vacuum;
//! vacuum excludes flushes too, since a flush's files are nobody's until they are committed.
//! Another writer that took a file away makes a commit void, never wrong: the next run plans again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::flush_loop::{COMMIT_WITHIN_MS, may_pass};
use super::table_state::TableState;
use super::{Inner, Job, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::maintain::{self, Merge, Policy, Tools};
use crate::plan::Rules;
use crate::record::Rows;
use crate::table::{DataFile, FileIndex};

/// Clocks of nodes may differ by so much: files this young are gone through again.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;

impl Inner {
    /// Does one upkeep job now, or says what it would do.
    pub(super) async fn maintain(
        &self,
        job: Job,
        dry_run: bool,
        policy: Policy,
    ) -> Result<Outcome> {
        self.refuse_if_failed()?;
        if !dry_run && matches!(job, Job::Expire | Job::Vacuum | Job::CleanLog) {
            self.note_clock().await;
            self.refuse_if_in_doubt()?;
        }
        let before = self.tables().map(|table_state| table_state.table.index());
        let done = match job {
            Job::Expire => {
                // Neither must wait for the other to succeed.
                let (exports, records) =
                    (self.expire_exports(dry_run).await, self.expire(dry_run, policy).await);
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
        let after = self.tables().map(|table_state| table_state.table.index());
        let files = |of: &[Arc<FileIndex>; 2]| of.iter().map(|index| index.len() as u64).sum();
        let bytes = |of: &[Arc<FileIndex>; 2]| of.iter().map(|index| index.bytes()).sum();
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

    /// Takes out of copies what the tables do not have any more (see [`crate::store::places`]).
    pub(super) async fn sweep_copies(&self) {
        if self.store.cache_stats().is_none() {
            return;
        }
        let indexes =
            self.tables().map(|table_state| (table_state.table.clone(), table_state.table.index()));
        let live = indexes
            .iter()
            .flat_map(|(table, index)| index.iter().map(|file| table.object_store_path(file)));
        let (live, store) = (live.collect::<Vec<_>>(), self.store.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || store.sweep_cache(&live)).await {
            tracing::warn!(%error, "the disk cache was not gone through for what was erased");
        }
    }

    /// Drops what is past its time, and rewrites files for changes of plan and for erasures.
    async fn expire(&self, dry_run: bool, policy: Policy) -> Result<Vec<String>> {
        self.catalog.refresh().await?;
        self.catalog.settle().await?;
        let rules = self.catalog.rules();
        // What others committed must be among the files that are gone through.
        self.refresh_table().await?;
        let started_ms = (self.now)().timestamp_millis();
        if !dry_run && (!rules.erasures().is_empty() || !rules.moving().is_empty()) {
            // What is in memory would come to the files after they were gone through.
            self.flush_all().await?;
        }
        let _one_at_a_time = self.compacting.lock().await;
        let mut run = Expired {
            rules,
            policy,
            started_ms,
            lines: Vec::new(),
            erased: Vec::new(),
            whole: true,
        };
        let mut failed = None;
        for table_state in self.tables() {
            failed = failed.or(self.expire_table(table_state, &mut run, dry_run).await?);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // Where another node took a file away meanwhile, its rows are in a file that was not gone
        // through.
        match run.whole {
            _ if dry_run => {}
            true => self.note_cleaned(&run.rules, &run.erased, started_ms).await?,
            false => self.upkeep_wanted.notify_one(),
        }
        Ok(run.lines)
    }

    /// The same for one table. Answers an error that must not keep the other files from being gone
    /// through.
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
                // One bad file must not keep the others.
                Err(error) if error.kind() == ErrorKind::Damaged => failed = failed.or(Some(error)),
                Err(error) if error.kind() == ErrorKind::NotFound => run.whole = false,
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }

    /// Refuses to go on by rules that were changed since: a plan may keep now what it did not keep
    /// before.
    pub(super) async fn unchanged(&self, rules: &Arc<Rules>) -> Result<()> {
        self.catalog.refresh().await?;
        self.catalog.settle().await?;
        if *self.catalog.rules() == **rules {
            return Ok(());
        }
        self.upkeep_wanted.notify_one();
        Err(Error::busy(
            "a plan was changed, or records were erased, while files were gone through; it begins anew",
        ))
    }

    /// Goes through one file; answers what was done, if anything was.
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
        // What an erasure says it took are records; how much feedback goes along was told when it
        // was asked for.
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

    /// Writes down that the files were gone through, so that they need not be again.
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
        for table_state in self.tables() {
            failed =
                failed.or(self.compact_table(table_state, &mut lines, dry_run, policy).await?);
        }
        failed.map_or(Ok(lines), Err)
    }

    /// The same for one table. Answers an error that must not keep the other days from being
    /// merged.
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
            // For each merge anew: late parts wait for their turn too. A merge whose files went
            // meanwhile comes to nothing.
            let _one_at_a_time = self.compacting.lock().await;
            let (written_ms, joined) =
                match maintain::write_merged(tools, &merge, (self.now)(), self.new_uuid).await {
                    Ok(mut joined) => (self.stamp(&mut joined), joined),
                    Err(error) => {
                        failed = failed.or(Some(error));
                        continue;
                    }
                };
            if self.is_ahead_of_erasure(&merge.files) {
                // In a file of this time they would seem to have come after the erasure; it goes
                // through the files first.
                continue;
            }
            if self.store.is_shared() && table_state.table.rows() == Rows::Logs {
                self.commits.lock().await.note_own(&joined);
            }
            let commit = async || maintain::commit_merged(&table_state.table, &merge, joined).await;
            if self.commit_shown(table_state, written_ms, commit).await? {
                self.counters.compactions.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(failed)
    }

    /// Returns whether files may hold records that an erasure names only by the time of the file.
    fn is_ahead_of_erasure(&self, files: &[Arc<DataFile>]) -> bool {
        let rules = self.catalog.rules();
        files.iter().any(|file| rules.erased().may_be_ahead_in(file.facts()))
    }

    /// Gives files the time of their end: what was erased, or moved, while they were written is
    /// looked for in them.
    pub(super) fn stamp(&self, files: &mut [DataFile]) -> i64 {
        let now_ms = (self.now)().timestamp_millis();
        files.iter_mut().for_each(|file| file.modified_ms = now_ms);
        now_ms
    }

    /// Commits and shows the new version to queries, in one step with respect to flushes, which
    /// also do both. False if another writer took one of the files away, so that nothing was done.
    /// Files that were written long ago are not committed: vacuum on another node may have taken
    /// them.
    pub(super) async fn commit_shown(
        &self,
        table_state: &TableState,
        written_ms: i64,
        commit: impl AsyncFnOnce() -> Result<Arc<FileIndex>>,
    ) -> Result<bool> {
        let commits = self.commits.lock().await;
        // A flush that failed meanwhile may have committed rows that are still in memory.
        self.refuse_if_failed()?;
        if !commits.unresolved.is_empty() {
            return Err(Error::storage(
                "a flush has yet to learn whether its commit was taken; upkeep waits for it",
            ));
        }
        if (self.now)().timestamp_millis() - written_ms >= COMMIT_WITHIN_MS {
            return Err(Error::busy(
                "files waited too long for their commit; they are written anew",
            ));
        }
        match commit().await {
            Ok(index) => {
                table_state.view_cell.rewritten(index);
                Ok(true)
            }
            // The next plan sees what is there.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                // Whether it was taken is seen at the next look at the table; the rows are the
                // same, or were to go, or are taken once more.
                if !may_pass(&error) {
                    self.fail(&error);
                }
                Err(error)
            }
        }
    }

    async fn vacuum(&self, dry_run: bool) -> Result<Vec<String>> {
        // In the order that compaction takes them.
        let _no_merge = self.compacting.lock().await;
        let commits = self.commits.lock().await;
        self.refuse_if_failed()?;
        if !commits.unresolved.is_empty() {
            return Err(Error::storage(
                "a flush has yet to learn whether its commit was taken; upkeep waits for it",
            ));
        }
        let mut lines = Vec::new();
        for table_state in self.tables() {
            let orphans = table_state
                .table
                .orphans((self.now)().timestamp_millis().saturating_sub(self.grace_ms()))
                .await?;
            // A long export may still read what was replaced more than the grace time ago.
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
        for table_state in self.tables() {
            let (name, commits) =
                (table_state.table.rows().folder(), table_state.table.commits_since_checkpoint());
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
        // Vacuum learns from the log which files were replaced within its grace time.
        let older_than_ms =
            (self.now)().timestamp_millis().saturating_sub(keep_ms.max(self.grace_ms()));
        let mut lines = Vec::new();
        for table_state in self.tables() {
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

/// What a run of expiry goes by, and what it did.
struct Expired {
    rules: Arc<Rules>,
    policy: Policy,
    started_ms: i64,
    lines: Vec<String>,
    /// Records that each erasure took.
    erased: Vec<(String, u64)>,
    /// Whether every file that was to be gone through was there.
    whole: bool,
}

/// What both steps of expiry did. One error is answered; what it would hide is logged.
fn joined(exports: Result<Vec<String>>, records: Result<Vec<String>>) -> Result<Vec<String>> {
    match (exports, records) {
        (Ok(exports), Ok(records)) => Ok([exports, records].concat()),
        (Ok(lines), Err(error)) | (Err(error), Ok(lines)) => {
            lines
                .iter()
                .for_each(|line| tracing::info!(step = line, "upkeep did this before it failed"));
            Err(error)
        }
        (Err(exports), Err(records)) => {
            tracing::warn!(error = exports.chain(), "files of exports were not cleared away");
            Err(records)
        }
    }
}

fn merge_line(table_state: &TableState, merge: &Merge) -> String {
    let (day, name) = (crate::store::date_text(merge.date), table_state.table.rows().folder());
    let what = if merge.seal { "seal" } else { "join" };
    format!("{what} {} files, {} bytes, of `{name}` of day {day}", merge.files.len(), merge.bytes())
}

fn dropped_line(table_state: &TableState, files: &[Arc<DataFile>]) -> String {
    let (rows, bytes) =
        files.iter().fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
    let days: std::collections::BTreeSet<_> = files.iter().map(|file| file.partition()).collect();
    let what =
        if table_state.table.rows() == Rows::Logs { "records" } else { "states of feedback" };
    format!(
        "drop {} files of {} days, {rows} {what}, {bytes} bytes, past their retention",
        files.len(),
        days.len()
    )
}
