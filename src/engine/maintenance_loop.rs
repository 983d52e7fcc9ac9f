//! Runs the due maintenance jobs, and notes their results.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::handle::Inner;
use super::status::{Job, Outcome};
use crate::clock::Leap;
use crate::config::Schedule;
use crate::error::{Error, ErrorKind, Result};
use crate::maintain::Policy;

/// Interval at which due jobs are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Minimum interval between writes of the document while jobs do nothing.
const WRITE_EVERY: chrono::Duration = chrono::Duration::seconds(60);

impl Inner {
    /// Runs the due jobs while this node holds the lease, for as long as the engine lives.
    pub(super) async fn maintain_when_due(self: Arc<Self>) {
        let began = (self.now)();
        let mut written = began;
        loop {
            let wanted = tokio::select! {
                () = tokio::time::sleep(TICK) => false,
                () = self.maintenance_wanted.notified() => true,
            };
            if self.health.refuse_if_failed().is_err() || !self.lease.hold().await {
                continue;
            }
            self.note_clock().await;
            for job in Job::ALL {
                // A changed plan or an erasure does not wait for the schedule.
                let at_once = wanted
                    && job == Job::Expire
                    && *job.schedule(&self.config) != Schedule::never();
                let due = self.lease.state().due(job, &self.config, began);
                if at_once || due.is_some_and(|due| due <= (self.now)()) {
                    self.run_job(job, &mut written).await;
                }
            }
        }
    }

    /// Returns an error if the clock leapt: nothing may be deleted by such a clock.
    pub(super) fn refuse_if_in_doubt(&self) -> Result<()> {
        let Some(Leap { expected, found }) = self.clock.look() else { return Ok(()) };
        Err(Error::conflict(format!(
            "the clock of this machine leapt from about {expected} to {found}; nothing expires and no file is deleted until the \
             time is confirmed: correct the clock, or confirm it with `POST /v1/admin/clock`"
        )))
    }

    /// Writes into the document if the clock is in doubt, for the next start and for `doctor`.
    pub(super) async fn note_clock(&self) {
        let leap = self.clock.look();
        if self.lease.state.lock().clock != leap {
            self.lease.state.lock().clock = leap;
            self.lease.write().await;
        }
    }

    /// Runs a job now, independent of the lease. The node that holds the lease writes the result
    /// into the document.
    pub(super) async fn by_hand(&self, job: Job, dry_run: bool) -> Result<Outcome> {
        let started = (self.now)();
        let result = self.maintain(job, dry_run, Policy::from_config(&self.config).at_once()).await;
        if !dry_run {
            self.lease.state.lock().ended(job, &self.config, started, (self.now)(), &result);
            self.lease.write().await;
        }
        result
    }

    async fn run_job(&self, job: Job, written: &mut DateTime<Utc>) {
        let started = (self.now)();
        let enough = self
            .tables
            .both()
            .iter()
            .map(|table_state| table_state.table.commits_since_checkpoint())
            .max()
            >= Some(self.config.checkpoint_commits);
        let work = async {
            if job == Job::Checkpoint && !enough {
                return Ok(Outcome::nothing(job));
            }
            self.maintain(job, false, Policy::from_config(&self.config)).await
        };
        let result = self.renewing(work).await;
        let now = (self.now)();
        let failed_before =
            self.lease.state().jobs.get(job.name()).is_some_and(|run| run.failures > 0);
        self.lease.state.lock().ended(job, &self.config, started, now, &result);
        match &result {
            Ok(outcome) if !outcome.lines.is_empty() => {
                tracing::info!(
                    job = job.name(),
                    steps = outcome.lines.len(),
                    "maintenance job finished"
                );
            }
            Ok(_) => {}
            // The job met a change of the rules, and starts again.
            Err(error) if error.kind() == ErrorKind::Busy => {
                tracing::info!(
                    job = job.name(),
                    reason = error.chain(),
                    "a maintenance job starts again"
                );
            }
            Err(error) => {
                tracing::error!(
                    job = job.name(),
                    error = error.chain(),
                    "a maintenance job failed; it will be tried again"
                );
            }
        }
        let did_something = result.as_ref().map_or(true, |outcome| !outcome.lines.is_empty());
        if did_something || failed_before || now - *written >= WRITE_EVERY {
            *written = now;
            self.lease.write().await;
        }
    }

    /// Runs a job and renews the lease meanwhile, since a big merge may take longer than the lease.
    async fn renewing<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_secs(self.config.lease_seconds / 3)) => {
                    if !self.lease.hold().await {
                        // Cancelling the work would release its locks during a commit. It may end:
                        // a commit that conflicts with another node's is void.
                        tracing::warn!("another node may do maintenance now; this one finishes its job");
                        return work.await;
                    }
                }
            }
        }
    }
}
