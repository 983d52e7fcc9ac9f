//! What goes on in the background: flushes when rows are many or old, and upkeep on a schedule.
//!
//! One task flushes, so flushes commit in the order of the log. A file that cannot be written is tried again, slower each
//! time, while writers go on until the memtable is full; a commit that fails closes the engine to writes, because what
//! the table holds then is not known. One task does upkeep; flush and vacuum exclude each other, since a flush's files are
//! nobody's until they are committed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;

use super::writer::Command;
use super::{Inner, Job, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::flush;
use crate::maintain::{self, Policy, Tools};

/// How often the age of rows is looked at.
const TICK: Duration = Duration::from_millis(500);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A task whose panic closes the engine to writes, so that it does not go on looking well.
pub(super) async fn watched(name: &'static str, inner: Arc<Inner>, task: impl Future<Output = ()> + Send) {
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
                    if !self.flush_due() {
                        continue;
                    }
                }
            }
            match self.flush_all().await {
                Ok(()) => wait = FIRST_RETRY,
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(error) => {
                    tracing::error!(error = error.chain(), retry_seconds = wait.as_secs(), "a flush failed");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LAST_RETRY);
                }
            }
        }
    }

    fn flush_due(&self) -> bool {
        let (_, _, oldest) = self.shelf.memory();
        let age = oldest.map(|micros| (self.now)().timestamp_micros() - micros);
        let due = i64::try_from(self.config.flush_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        age.is_some_and(|age| age >= due) || (oldest.is_none() && self.shelf.oldest_frozen().is_some())
    }

    /// Moves every row that is in memory now into the table.
    pub(super) async fn flush_all(&self) -> Result<()> {
        let _one_at_a_time = self.commits.lock().await;
        self.refuse_if_failed()?;
        let (done, frozen) = oneshot::channel();
        self.send(Command::Freeze(done))?;
        frozen.await.map_err(|_| Error::closed("the engine is closed"))?;
        while let Some(frozen) = self.shelf.oldest_frozen() {
            let now_ms = (self.now)().timestamp_millis();
            let files = flush::write_files(&self.table, &frozen.chunks, now_ms, self.new_uuid).await?;
            let source = flush::Source { wal_id: self.wal_id, last_sequence: frozen.last_sequence };
            let index = match flush::commit(&self.table, files, source).await {
                Ok(index) => index,
                Err(error) => {
                    self.fail(&error);
                    return Err(error);
                }
            };
            self.shelf.flushed(index);
            self.counters.flushes.fetch_add(1, Ordering::Relaxed);
            self.send(Command::Trim(frozen.last_sequence))?;
        }
        Ok(())
    }

    /// Runs the upkeep jobs when they are due, for as long as the engine lives.
    pub(super) async fn upkeep(self: Arc<Self>) {
        let every = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        let jobs = [
            (Job::Compact, every(self.config.compact_seconds)),
            (Job::Vacuum, every(self.config.vacuum_seconds)),
            (Job::Checkpoint, Some(Duration::from_secs(5))),
        ];
        let mut due = jobs.map(|(_, every)| every.map(|every| tokio::time::Instant::now() + every));
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for ((job, every), due) in jobs.iter().zip(&mut due) {
                if due.is_none_or(|due| due > tokio::time::Instant::now()) {
                    continue;
                }
                if self.wants(*job)
                    && let Err(error) = self.maintain(*job, false, Policy::of(&self.config)).await
                {
                    tracing::error!(
                        job = job.name(),
                        error = error.chain(),
                        "upkeep failed; it is tried again when due"
                    );
                }
                *due = every.map(|every| tokio::time::Instant::now() + every);
            }
        }
    }

    fn wants(&self, job: Job) -> bool {
        let enough = self.table.commits_since_checkpoint() >= self.config.checkpoint_commits;
        self.refuse_if_failed().is_ok() && (job != Job::Checkpoint || enough)
    }

    /// Does one upkeep job now, or says what it would do.
    pub(super) async fn maintain(&self, job: Job, dry_run: bool, policy: Policy) -> Result<Outcome> {
        self.refuse_if_failed()?;
        let before = self.table.index();
        let lines = match job {
            Job::Compact => self.compact(dry_run, policy).await?,
            Job::Vacuum => self.vacuum(dry_run).await?,
            Job::Checkpoint => self.checkpoint(dry_run).await?,
        };
        let after = self.table.index();
        Ok(Outcome {
            job: job.name(),
            dry_run,
            lines,
            files_before: before.len() as u64,
            files_after: after.len() as u64,
            bytes_before: before.bytes(),
            bytes_after: after.bytes(),
        })
    }

    async fn compact(&self, dry_run: bool, policy: Policy) -> Result<Vec<String>> {
        let _one_at_a_time = self.compacting.lock().await;
        let tools = Tools { table: &self.table, queries: &self.queries, policy };
        let (mut lines, mut failed) = (Vec::new(), None);
        for merge in maintain::plan((self.now)(), &self.table.index(), policy) {
            lines.push(format!(
                "join {} files, {} bytes, of day {}",
                merge.files.len(),
                merge.bytes(),
                crate::store::date_text(merge.date)
            ));
            if dry_run {
                continue;
            }
            let joined = match maintain::write_merged(tools, &merge, (self.now)(), (self.new_uuid)()).await {
                Ok(joined) => joined,
                Err(error) => {
                    // One bad file must not keep the other days from being merged.
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            // The commit and the swap are one step for flushes, which also do both.
            let _no_flush = self.commits.lock().await;
            // A flush that failed meanwhile may have committed rows that are still in memory.
            self.refuse_if_failed()?;
            match maintain::commit_merged(&self.table, &merge, joined).await {
                Ok(index) => self.shelf.rewritten(index),
                // Another writer took one of the files away; the next plan sees what is there.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    self.fail(&error);
                    return Err(error);
                }
            }
            self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        }
        failed.map_or(Ok(lines), Err)
    }

    async fn vacuum(&self, dry_run: bool) -> Result<Vec<String>> {
        // In the order that compaction takes them.
        let _no_merge = self.compacting.lock().await;
        let _no_flush = self.commits.lock().await;
        let grace_ms = i64::try_from(self.config.vacuum_grace_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        self.refuse_if_failed()?;
        let orphans = self.table.orphans((self.now)().timestamp_millis().saturating_sub(grace_ms)).await?;
        // A long export may still read what was replaced more than the grace time ago.
        let held = self.shelf.held();
        let orphans: Vec<_> =
            orphans.into_iter().filter(|orphan| !held.iter().any(|index| index.contains(&orphan.path))).collect();
        let lines = orphans.iter().map(|orphan| format!("delete `{}`, {} bytes", orphan.path, orphan.bytes)).collect();
        if !dry_run {
            let paths: Vec<String> = orphans.into_iter().map(|orphan| orphan.path).collect();
            self.table.remove_objects(&paths).await?;
        }
        Ok(lines)
    }

    async fn checkpoint(&self, dry_run: bool) -> Result<Vec<String>> {
        let commits = self.table.commits_since_checkpoint();
        if dry_run {
            return Ok(vec![format!("write a checkpoint; {commits} commits since the last one")]);
        }
        let version = self.table.checkpoint().await?;
        Ok(vec![format!("checkpoint of version {version}")])
    }
}
