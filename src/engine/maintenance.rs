//! Schedules maintenance: the node that does it, the due time of each job, and the results, in one
//! small document beside the tables.
//!
//! Several nodes may write to a bucket, and one of them does the maintenance: the node that the
//! document names, until the time that it names. The holder renews this lease. If it does not for
//! `lease_seconds`, another node takes over, by a conditional put. A holder that wakes up late does
//! no harm: a commit that conflicts with another is planned again, and vacuum deletes only files
//! that no version named for the grace time. A failed job is repeated at growing intervals, and its
//! error is reported.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::status::{Job, Outcome};
use crate::clock::Leap;
use crate::config::{Config, Schedule};
use crate::error::{Error, Result};
use crate::store::Store;

/// First wait after a failure; it doubles with each further one.
const FIRST_RETRY: chrono::Duration = chrono::Duration::seconds(15);
const LAST_RETRY: chrono::Duration = chrono::Duration::hours(1);

/// State of the maintenance of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MaintenanceState {
    /// Id of the log of the node that does the maintenance.
    #[serde(default)]
    pub holder: Option<String>,
    /// End of the lease; no other node may do maintenance before.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// A leap of the clock of that node, until the time is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Leap>,
    /// Results of each job.
    #[serde(default)]
    pub jobs: BTreeMap<String, Run>,
}

/// The last run of a job, and the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// End of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Duration, seconds.
    #[serde(default)]
    pub seconds: f64,
    /// Steps, one line each; empty if there was nothing to do.
    #[serde(default)]
    pub did: Vec<String>,
    /// Error of the run; none if it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// Runs since the document was created.
    #[serde(default)]
    pub runs: u64,
    /// Next due time; none if the job is not scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<DateTime<Utc>>,
}

/// Lines of a run that are stored.
const MAX_LINES: usize = 20;

impl Job {
    /// Every job, in the order in which due jobs run: retention has priority over compaction.
    pub const ALL: [Self; 5] =
        [Self::Expire, Self::Compact, Self::Vacuum, Self::Checkpoint, Self::CleanLog];

    /// Returns the schedule of the job in a configuration.
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

/// Reads the maintenance state of a store. A missing document is read as an empty one.
pub async fn read(store: &Store) -> Result<(MaintenanceState, Option<UpdateVersion>)> {
    let unreadable = |cause| Error::storage("cannot read `upkeep.json`").with_source(cause);
    let found = match store.object_store().get(&store.maintenance_path()).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => {
            return Ok((MaintenanceState::default(), None));
        }
        Err(cause) => return Err(unreadable(cause)),
    };
    let version =
        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
    let bytes = found.bytes().await.map_err(unreadable)?;
    // The document only informs, so an unreadable one is replaced by an empty one.
    Ok((serde_json::from_slice(&bytes).unwrap_or_default(), Some(version)))
}

/// Replaces the document that had the version `before`. Returns `None` if another node was first.
async fn write(
    store: &Store,
    state: &MaintenanceState,
    before: Option<UpdateVersion>,
) -> Result<Option<UpdateVersion>> {
    let bytes = serde_json::to_vec_pretty(state).map_err(|cause| {
        Error::internal("cannot encode the state of maintenance").with_source(cause)
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

impl MaintenanceState {
    /// Returns true if that node may do maintenance now.
    fn is_held_by(&self, holder: &str, now: DateTime<Utc>) -> bool {
        self.holder.as_deref() == Some(holder) && self.until.is_some_and(|until| until > now)
    }

    /// Returns true if that node may take maintenance over.
    fn is_free_for(&self, holder: &str, now: DateTime<Utc>) -> bool {
        self.holder.as_deref() == Some(holder) || self.until.is_none_or(|until| until <= now)
    }

    /// Returns the due time of a job; `began` is the start of the program that asks.
    pub fn due(&self, job: Job, config: &Config, began: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let run = self.jobs.get(job.name());
        let retry = run.filter(|run| run.failures > 0).and_then(|run| run.next_at);
        let last = run.and_then(|run| run.ended_at).unwrap_or(began);
        let planned = job.schedule(config).next(last)?;
        Some(retry.unwrap_or(planned))
    }

    /// Records the end of a run.
    pub(super) fn ended(
        &mut self,
        job: Job,
        config: &Config,
        started: DateTime<Utc>,
        now: DateTime<Utc>,
        result: &Result<Outcome>,
    ) {
        let run = self.jobs.entry(job.name().to_owned()).or_default();
        run.runs += 1;
        run.started_at = Some(started);
        run.ended_at = Some(now);
        run.seconds = (now - started).num_milliseconds() as f64 / 1000.0;
        run.next_at = job.schedule(config).next(now);
        match result {
            Ok(outcome) => {
                run.error = None;
                run.failures = 0;
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

/// The lease of this node, and the document as it was last read.
#[derive(Debug)]
pub(super) struct MaintenanceLease {
    store: Store,
    holder: String,
    length: chrono::Duration,
    now: fn() -> DateTime<Utc>,
    pub(super) state: parking_lot::Mutex<MaintenanceState>,
    version: tokio::sync::Mutex<Option<UpdateVersion>>,
}

impl MaintenanceLease {
    /// Reads the maintenance state of a store, for the node of that log.
    pub(super) async fn open(
        store: &Store,
        wal_id: Uuid,
        config: &Config,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Self> {
        let (state, version) = read(store).await?;
        Ok(Self {
            store: store.clone(),
            holder: wal_id.to_string(),
            length: chrono::Duration::seconds(i64::try_from(config.lease_seconds).unwrap_or(60)),
            now,
            state: parking_lot::Mutex::new(state),
            version: tokio::sync::Mutex::new(version),
        })
    }

    /// Returns the state as this node knows it.
    pub(super) fn state(&self) -> MaintenanceState {
        self.state.lock().clone()
    }

    /// Takes or renews the lease if it can. Returns true if this node may do maintenance.
    pub(super) async fn hold(&self) -> bool {
        if !self.store.is_shared() {
            return true;
        }
        let now = (self.now)();
        let known = self.state();
        let fresh = known.is_held_by(&self.holder, now)
            && known.until.is_some_and(|until| until - now > self.length / 2);
        if fresh {
            return true;
        }
        let mut version = self.version.lock().await;
        if !known.is_free_for(&self.holder, now) || version.is_none() {
            match read(&self.store).await {
                Ok((state, found)) => {
                    *self.state.lock() = state;
                    *version = found;
                }
                Err(_) => return false,
            }
        }
        let mut state = self.state();
        if !state.is_free_for(&self.holder, now) {
            return false;
        }
        state.holder = Some(self.holder.clone());
        state.until = Some(now + self.length);
        match write(&self.store, &state, version.clone()).await {
            Ok(Some(put)) => {
                *self.state.lock() = state;
                *version = Some(put);
                true
            }
            // Another node was first, or the bucket is unreachable: read again next time.
            Ok(None) | Err(_) => {
                *version = None;
                false
            }
        }
    }

    /// Ends the lease, so that another node can take over at once.
    pub(super) async fn release(&self) {
        let now = (self.now)();
        if self.store.is_shared() && self.state().is_held_by(&self.holder, now) {
            self.write().await;
            self.state.lock().until = Some(now);
            let version = self.version.lock().await.clone();
            // If this fails, the lease expires.
            let _ = write(&self.store, &self.state(), version).await;
        }
    }

    pub(super) async fn write(&self) {
        let mut version = self.version.lock().await;
        let mut state = self.state();
        if self.store.is_shared() && !state.is_held_by(&self.holder, (self.now)()) {
            return;
        }
        if !self.store.is_shared() {
            state.holder = Some(self.holder.clone());
        }
        match write(&self.store, &state, version.clone()).await {
            Ok(put) => *version = put,
            Err(error) => {
                tracing::warn!(error = error.chain(), "the results of maintenance were not stored")
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
        let state = MaintenanceState {
            holder: Some("a".to_owned()),
            until: Some(at(60)),
            ..MaintenanceState::default()
        };
        assert!(
            state.is_held_by("a", at(59))
                && !state.is_held_by("a", at(60))
                && !state.is_held_by("b", at(0))
        );
        assert!(
            state.is_free_for("a", at(0))
                && !state.is_free_for("b", at(59))
                && state.is_free_for("b", at(60))
        );
        assert!(MaintenanceState::default().is_free_for("b", at(0)));
    }

    #[test]
    fn a_failed_job_is_tried_again_sooner_and_then_less_and_less_often() {
        let config =
            Config { vacuum_schedule: Schedule::every_seconds(3_600), ..Config::default() };
        let mut state = MaintenanceState::default();
        assert_eq!(state.due(Job::Vacuum, &config, at(0)), Some(at(3_600)));
        for wait in [15, 30, 60, 120] {
            state.ended(
                Job::Vacuum,
                &config,
                at(0),
                at(10),
                &Err(Error::storage("the disk is gone")),
            );
            assert_eq!(state.due(Job::Vacuum, &config, at(0)), Some(at(10 + wait)));
        }
        assert_eq!(state.jobs["vacuum"].error.as_deref(), Some("the disk is gone"));
        state.ended(Job::Vacuum, &config, at(10), at(20), &Ok(Outcome::nothing(Job::Vacuum)));
        assert_eq!(state.due(Job::Vacuum, &config, at(0)), Some(at(3_620)));
        assert_eq!((state.jobs["vacuum"].failures, state.jobs["vacuum"].runs), (0, 5));
        let config = Config { vacuum_schedule: Schedule::never(), ..config };
        assert_eq!(state.due(Job::Vacuum, &config, at(0)), None);
    }
}
