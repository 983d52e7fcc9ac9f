//! Who does the upkeep, when each job is due, and what became of it: one small document beside the
//! tables.
//!
//! In a bucket several nodes may write, and upkeep runs on one of them: the one that the document
//! names, until the time that it names. The holder renews it; when it was silent for
//! `lease_seconds` another node takes over, by a conditional put. Should a holder wake up late,
//! nothing is harmed: commits that meet another's are planned again, and vacuum deletes only what
//! nobody has named for the grace time. A job that fails is tried again with longer and longer
//! waits, and says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};

use super::{Inner, Job, Outcome};
use crate::clock::Leap;
use crate::config::{Config, Schedule};
use crate::error::{Error, Result};
use crate::maintain::Policy;
use crate::store::Store;

/// How often it is looked whether a job is due.
const TICK: Duration = Duration::from_secs(1);
/// First wait after a failure; it doubles with each further one.
const FIRST_RETRY: chrono::Duration = chrono::Duration::seconds(15);
const LAST_RETRY: chrono::Duration = chrono::Duration::hours(1);
/// What jobs that did nothing came to is written down so often at most.
const WRITE_EVERY: chrono::Duration = chrono::Duration::seconds(60);

/// What is known of the upkeep of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Upkeep {
    /// Id of the log of the node that does it.
    #[serde(default)]
    pub holder: Option<String>,
    /// Until when no other node may.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// A leap of the clock of the node that does it, until the time is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Leap>,
    /// What became of each job.
    #[serde(default)]
    pub jobs: BTreeMap<String, Run>,
}

/// The last run of a job, and the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it took, seconds.
    #[serde(default)]
    pub seconds: f64,
    /// What it did, one line a step; empty if there was nothing to do.
    #[serde(default)]
    pub did: Vec<String>,
    /// Why it failed; none if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// Runs since the document was begun.
    #[serde(default)]
    pub runs: u64,
    /// When it is due again; none = never by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<DateTime<Utc>>,
}

/// Lines of a run that are kept.
const MAX_LINES: usize = 20;

impl Job {
    /// Every job, in the order in which they run when several are due: retention wins over
    /// compaction.
    pub const ALL: [Self; 5] =
        [Self::Expire, Self::Compact, Self::Vacuum, Self::Checkpoint, Self::CleanLog];

    /// When a configuration wants it done.
    pub fn schedule(self, config: &Config) -> &Schedule {
        match self {
            Self::Compact => &config.compact_schedule,
            Self::Expire => &config.expire_schedule,
            Self::Vacuum => &config.vacuum_schedule,
            Self::Checkpoint => &config.checkpoint_schedule,
            Self::CleanLog => &config.clean_log_schedule,
        }
    }
}

/// Reads what is known of the upkeep of a store; nothing yet is an empty document.
pub async fn read(store: &Store) -> Result<(Upkeep, Option<UpdateVersion>)> {
    let unreadable = |cause| Error::storage("cannot read `upkeep.json`").with_source(cause);
    let found = match store.object_store().get(&store.maintenance_path()).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok((Upkeep::default(), None)),
        Err(cause) => return Err(unreadable(cause)),
    };
    let version =
        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
    let bytes = found.bytes().await.map_err(unreadable)?;
    // It is a notice board: one that cannot be read is begun anew.
    Ok((serde_json::from_slice(&bytes).unwrap_or_default(), Some(version)))
}

/// Puts the document in the place of the one that had `before`; none if another node was first.
async fn write(
    store: &Store,
    upkeep: &Upkeep,
    before: Option<UpdateVersion>,
) -> Result<Option<UpdateVersion>> {
    let bytes = serde_json::to_vec_pretty(upkeep).map_err(|cause| {
        Error::internal("cannot encode what is known of upkeep").with_source(cause)
    })?;
    let mode = match before {
        _ if store.folder().is_some() => PutMode::Overwrite,
        None => PutMode::Create,
        Some(version) => PutMode::Update(version),
    };
    let options = PutOptions { mode, ..PutOptions::default() };
    match store
        .object_store()
        .put_opts(&store.maintenance_path(), PutPayload::from(bytes), options)
        .await
    {
        Ok(put) => Ok(Some(UpdateVersion { e_tag: put.e_tag, version: put.version })),
        Err(
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. },
        ) => Ok(None),
        Err(cause) => Err(Error::storage("cannot write `upkeep.json`").with_source(cause)),
    }
}

impl Upkeep {
    /// Whether that node may do upkeep now.
    fn is_held_by(&self, holder: &str, now: DateTime<Utc>) -> bool {
        self.holder.as_deref() == Some(holder) && self.until.is_some_and(|until| until > now)
    }

    /// Whether that node may take upkeep over.
    fn is_free_for(&self, holder: &str, now: DateTime<Utc>) -> bool {
        self.holder.as_deref() == Some(holder) || self.until.is_none_or(|until| until <= now)
    }

    /// When a job is due; `began` is when the program that asks was started.
    pub fn due(&self, job: Job, config: &Config, began: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let run = self.jobs.get(job.name());
        let retry = run.filter(|run| run.failures > 0).and_then(|run| run.next_at);
        let last = run.and_then(|run| run.ended_at).unwrap_or(began);
        let planned = job.schedule(config).next(last)?;
        Some(retry.unwrap_or(planned))
    }

    /// Writes down how a run ended.
    fn ended(
        &mut self,
        job: Job,
        config: &Config,
        started: DateTime<Utc>,
        now: DateTime<Utc>,
        result: &Result<Outcome>,
    ) {
        let run = self.jobs.entry(job.name().to_owned()).or_default();
        run.runs += 1;
        (run.started_at, run.ended_at) = (Some(started), Some(now));
        run.seconds = (now - started).num_milliseconds() as f64 / 1000.0;
        run.next_at = job.schedule(config).next(now);
        match result {
            Ok(outcome) => {
                (run.error, run.failures) = (None, 0);
                run.did = outcome.lines.iter().take(MAX_LINES).cloned().collect();
                if outcome.lines.len() > MAX_LINES {
                    run.did.push(format!("and {} steps more", outcome.lines.len() - MAX_LINES));
                }
            }
            Err(error) => {
                let wait = FIRST_RETRY * 2_i32.saturating_pow(run.failures.min(10));
                run.failures += 1;
                run.error = Some(error.chain());
                run.did.clear();
                run.next_at = run.next_at.map(|next| next.min(now + wait.min(LAST_RETRY)));
            }
        }
    }
}

/// This node's part in upkeep.
#[derive(Debug)]
pub(super) struct MaintenanceLease {
    upkeep: parking_lot::Mutex<Upkeep>,
    version: tokio::sync::Mutex<Option<UpdateVersion>>,
}

impl MaintenanceLease {
    /// Begins with what is known of a store's upkeep.
    pub(super) async fn open(store: &Store) -> Result<Self> {
        let (upkeep, version) = read(store).await?;
        Ok(Self {
            upkeep: parking_lot::Mutex::new(upkeep),
            version: tokio::sync::Mutex::new(version),
        })
    }

    /// What is known here.
    pub(super) fn state(&self) -> Upkeep {
        self.upkeep.lock().clone()
    }
}

impl Inner {
    /// Does the jobs that are due, while this node holds the lease, for as long as the engine
    /// lives.
    pub(super) async fn keep_up(self: Arc<Self>) {
        let began = (self.now)();
        let mut written = began;
        loop {
            let wanted = tokio::select! {
                () = tokio::time::sleep(TICK) => false,
                () = self.upkeep_wanted.notified() => true,
            };
            if self.refuse_if_failed().is_err() || !self.holds_lease().await {
                continue;
            }
            self.note_clock().await;
            for job in Job::ALL {
                // Somebody changed a plan or asked for records to be erased: that does not wait for
                // the schedule.
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

    /// Refuses to destroy anything by a clock that leapt.
    pub(super) fn refuse_if_in_doubt(&self) -> Result<()> {
        let Some(Leap { expected, found }) = self.clock.look() else { return Ok(()) };
        Err(Error::conflict(format!(
            "the clock of this machine leapt from about {expected} to {found}; nothing expires and no file is deleted until the \
             time is confirmed: set the clock right, or confirm it with `POST /v1/admin/clock`"
        )))
    }

    /// Writes down whether the clock is in doubt, for the next start and for `doctor`.
    pub(super) async fn note_clock(&self) {
        let leap = self.clock.look();
        if self.lease.upkeep.lock().clock != leap {
            self.lease.upkeep.lock().clock = leap;
            self.write_upkeep().await;
        }
    }

    /// Does a job now, whoever holds the lease; the node that holds it writes down what became of
    /// it.
    pub(super) async fn by_hand(&self, job: Job, dry_run: bool) -> Result<Outcome> {
        let started = (self.now)();
        let result = self.maintain(job, dry_run, Policy::from_config(&self.config).at_once()).await;
        if !dry_run {
            self.lease.upkeep.lock().ended(job, &self.config, started, (self.now)(), &result);
            self.write_upkeep().await;
        }
        result
    }

    async fn run_job(&self, job: Job, written: &mut DateTime<Utc>) {
        let started = (self.now)();
        let enough = self
            .tables()
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
        self.lease.upkeep.lock().ended(job, &self.config, started, now, &result);
        match &result {
            Ok(outcome) if !outcome.lines.is_empty() => {
                tracing::info!(
                    job = job.name(),
                    steps = outcome.lines.len(),
                    "upkeep did its work"
                );
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(
                    job = job.name(),
                    error = error.chain(),
                    "an upkeep job failed; it is tried again"
                );
            }
        }
        let did_something = result.as_ref().map_or(true, |outcome| !outcome.lines.is_empty());
        if did_something || failed_before || now - *written >= WRITE_EVERY {
            *written = now;
            self.write_upkeep().await;
        }
    }

    /// Runs a job and renews the lease meanwhile, since a big merge may take longer than the lease
    /// lasts.
    async fn renewing<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_secs(self.config.lease_seconds / 3)) => {
                    if !self.holds_lease().await {
                        // Called off here, the work would free its locks while a commit goes on.
                        // Let it end: a commit that meets another node's is void.
                        tracing::warn!("another node may do upkeep now; this one ends its job");
                        return work.await;
                    }
                }
            }
        }
    }

    /// Whether this node may do upkeep; takes or renews the lease if it can.
    pub(super) async fn holds_lease(&self) -> bool {
        if !self.store.is_shared() {
            return true;
        }
        let (holder, now) = (self.wal_id.to_string(), (self.now)());
        let lease =
            chrono::Duration::seconds(i64::try_from(self.config.lease_seconds).unwrap_or(60));
        let known = self.lease.state();
        let fresh = known.is_held_by(&holder, now)
            && known.until.is_some_and(|until| until - now > lease / 2);
        if fresh {
            return true;
        }
        let mut version = self.lease.version.lock().await;
        if !known.is_free_for(&holder, now) || version.is_none() {
            match read(&self.store).await {
                Ok((upkeep, found)) => (*self.lease.upkeep.lock(), *version) = (upkeep, found),
                Err(_) => return false,
            }
        }
        let mut upkeep = self.lease.state();
        if !upkeep.is_free_for(&holder, now) {
            return false;
        }
        (upkeep.holder, upkeep.until) = (Some(holder), Some(now + lease));
        match write(&self.store, &upkeep, version.clone()).await {
            Ok(Some(put)) => {
                (*self.lease.upkeep.lock(), *version) = (upkeep, Some(put));
                true
            }
            // Another node was first, or the bucket is away: look again next time.
            Ok(None) | Err(_) => {
                *version = None;
                false
            }
        }
    }

    /// Lets another node take over at once.
    pub(super) async fn let_go_of_upkeep(&self) {
        let now = (self.now)();
        if self.store.is_shared() && self.lease.state().is_held_by(&self.wal_id.to_string(), now) {
            self.write_upkeep().await;
            self.lease.upkeep.lock().until = Some(now);
            let version = self.lease.version.lock().await.clone();
            // If it fails, the lease ends by itself.
            let _ = write(&self.store, &self.lease.state(), version).await;
        }
    }

    async fn write_upkeep(&self) {
        let mut version = self.lease.version.lock().await;
        let mut upkeep = self.lease.state();
        if self.store.is_shared() && !upkeep.is_held_by(&self.wal_id.to_string(), (self.now)()) {
            return;
        }
        if !self.store.is_shared() {
            upkeep.holder = Some(self.wal_id.to_string());
        }
        match write(&self.store, &upkeep, version.clone()).await {
            Ok(put) => *version = put,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the results of upkeep were not written down")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_lease_is_held_until_its_time_and_then_free_for_anyone() {
        let upkeep =
            Upkeep { holder: Some("a".to_owned()), until: Some(at(60)), ..Upkeep::default() };
        assert!(
            upkeep.is_held_by("a", at(59))
                && !upkeep.is_held_by("a", at(60))
                && !upkeep.is_held_by("b", at(0))
        );
        assert!(
            upkeep.is_free_for("a", at(0))
                && !upkeep.is_free_for("b", at(59))
                && upkeep.is_free_for("b", at(60))
        );
        assert!(Upkeep::default().is_free_for("b", at(0)));
    }

    #[test]
    fn a_failed_job_is_tried_again_sooner_and_then_less_and_less_often() {
        let config =
            Config { vacuum_schedule: Schedule::every_seconds(3_600), ..Config::default() };
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.due(Job::Vacuum, &config, at(0)), Some(at(3_600)));
        for wait in [15, 30, 60, 120] {
            upkeep.ended(
                Job::Vacuum,
                &config,
                at(0),
                at(10),
                &Err(Error::storage("the disk is gone")),
            );
            assert_eq!(upkeep.due(Job::Vacuum, &config, at(0)), Some(at(10 + wait)));
        }
        assert_eq!(upkeep.jobs["vacuum"].error.as_deref(), Some("the disk is gone"));
        upkeep.ended(Job::Vacuum, &config, at(10), at(20), &Ok(Outcome::nothing(Job::Vacuum)));
        assert_eq!(upkeep.due(Job::Vacuum, &config, at(0)), Some(at(3_620)));
        assert_eq!((upkeep.jobs["vacuum"].failures, upkeep.jobs["vacuum"].runs), (0, 5));
        let config = Config { vacuum_schedule: Schedule::never(), ..config };
        assert_eq!(upkeep.due(Job::Vacuum, &config, at(0)), None);
    }
}
