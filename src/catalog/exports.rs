//! Export jobs as data: their states, access and limits. Pure.
//!
//! A job is a draft until it is started, then in progress until it succeeds, fails or is stopped.
//! An ended job can be started again or become a draft again. A job may read what the key that made
//! it could read; the job stores these bounds, since the key may be deleted. Each start is a run of
//! its own with a file of its own, so a run that was superseded (by a stop, another start, a node
//! that took over, or a withdrawal of [`files`]) ends without effect.
//!
//! The number of jobs is limited for each workspace and each organisation: a workspace that makes
//! too many loses its own, never a file of another workspace. [`files`] has the rules for the
//! written files.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::access::{Access, Scope};
use super::model::{Document, ExportFile, ExportJob, ExportStatus};
use super::user_mentions::is_nothing;
use crate::error::{Error, Result};
use crate::plan::Terms;

pub(crate) use files::LINK_SECONDS;
pub(super) use files::expires_at;

mod files;

/// Maximum number of jobs of a workspace, and of an organisation: they are part of a document that
/// every change rewrites as a whole.
const MAX_JOBS: usize = 100;
const MAX_OF_ORGANISATION: usize = 500;
/// Maximum size of the filters (as JSON) and of the description, in bytes.
const MAX_FILTERS: usize = 4 << 10;
const MAX_DESCRIPTION: usize = 1 << 10;

/// Changes to a job, which becomes a draft. `None` leaves a field unchanged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportChange {
    /// The workspace whose records the job reads.
    pub workspace: Option<String>,
    /// Filters of the records.
    pub filters: Option<Map<String, Value>>,
    /// Columns of each line.
    pub columns: Option<Vec<String>>,
    /// Purpose of the job.
    pub description: Option<String>,
}

/// End of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum ExportEnd {
    /// The file, and a newer number of matching records if it is known.
    Written(ExportFile, Option<u64>),
    /// A failure, with the reason in words for the maker of the job.
    Failed(String),
}

/// Result of recording the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The job has the result.
    Taken,
    /// The job was stopped, started again, deleted or restarted in the meantime.
    Overtaken,
}

impl ExportJob {
    /// Returns the access of the job to records. This right belongs to the organisation and
    /// outlasts the key that made the job; making, starting and downloading it require a key that
    /// is valid at that time.
    pub fn access(&self) -> Access {
        let mut scopes = BTreeSet::from([Scope::Export, Scope::View]);
        if self.bodies {
            scopes.insert(Scope::Read);
        }
        Access {
            key_id: format!("export {}", self.id),
            organisation: self.organisation.clone(),
            workspace: self.workspace.clone(),
            scopes,
        }
    }

    fn is_reached(&self, access: &Access) -> bool {
        let organisation =
            access.organisation.is_none() || access.organisation == self.organisation;
        organisation && (access.workspace.is_none() || access.workspace == self.workspace)
    }

    /// Returns an error that names the state of the job, unless it is one of `fine`.
    fn must_be(&self, fine: &[ExportStatus], to_do: &str) -> Result<()> {
        if fine.contains(&self.status) {
            return Ok(());
        }
        let id = &self.id;
        let status = self.status.name();
        let fine: Vec<&str> = fine.iter().map(|status| status.name()).collect();
        Err(Error::conflict(format!(
            "export `{id}` is `{status}`; only one that is {} can be {to_do}",
            fine.join(", ")
        )))
    }

    fn check(&self) -> Result<()> {
        let bytes = serde_json::to_string(&self.filters).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_FILTERS {
            return Err(Error::invalid(format!(
                "`filters` has {bytes} bytes of JSON; at most {MAX_FILTERS} are kept: name fewer values"
            )));
        }
        let workspace = self.workspace.as_ref().map_or(0, String::len);
        if workspace > MAX_WORKSPACE {
            return Err(Error::invalid(format!(
                "`workspace_id` has {workspace} bytes; at most {MAX_WORKSPACE} are kept"
            )));
        }
        match self.description.as_ref().map_or(0, String::len) {
            0..=MAX_DESCRIPTION => Ok(()),
            bytes => Err(Error::limit(format!(
                "`description` has {bytes} bytes; at most {MAX_DESCRIPTION} are kept"
            ))),
        }
    }
}

/// Maximum length of the name of a workspace, in bytes.
const MAX_WORKSPACE: usize = 128;
const IDLE: [ExportStatus; 4] =
    [ExportStatus::Draft, ExportStatus::Failed, ExportStatus::Stopped, ExportStatus::Success];

impl Document {
    /// Adds a job, without filters that have no value. A job that exists already, because its
    /// request came twice, is left unchanged. If the workspace has too many jobs, the least
    /// recently changed one is removed. If the organisation has too many and the workspace has none
    /// to remove, a job without a file is removed.
    pub fn add_export(&mut self, mut job: ExportJob) -> Result<()> {
        job.filters.retain(|_, value| !is_nothing(value));
        job.check()?;
        if self.export_jobs.iter().any(|other| other.id == job.id) {
            return Ok(());
        }
        while let Some(full) = self.full_of_exports(&job) {
            let forgotten = self.export_jobs.remove(full?);
            self.export_leftovers.extend(forgotten.file.map(|file| file.name));
        }
        if let Some(organisation) = &job.organisation {
            let bytes = serde_json::to_string(&job.filters).map_or(0, |text| text.len());
            self.check_room(
                organisation,
                bytes,
                "export jobs",
                "delete some saved filters, or name fewer values",
            )?;
        }
        self.export_jobs.push(job);
        Ok(())
    }

    /// Returns the position of the job to remove before another is added. `None` if there is room.
    fn full_of_exports(&self, job: &ExportJob) -> Option<Result<usize>> {
        let near = |other: &ExportJob| other.organisation == job.organisation;
        let beside = |other: &ExportJob| near(other) && other.workspace == job.workspace;
        let count = |of: &dyn Fn(&ExportJob) -> bool| {
            self.export_jobs.iter().filter(|other| of(other)).count()
        };
        let crowded = count(&beside) >= MAX_JOBS;
        if !crowded && count(&near) < MAX_OF_ORGANISATION {
            return None;
        }
        let oldest = |of: &dyn Fn(&ExportJob) -> bool| {
            let idle = |other: &ExportJob| other.status != ExportStatus::InProgress && of(other);
            let places = self.export_jobs.iter().enumerate().filter(|(_, other)| idle(other));
            places.min_by_key(|(_, other)| other.updated_at).map(|(place, _)| place)
        };
        let fileless = || oldest(&|other| near(other) && other.file.is_none()).filter(|_| !crowded);
        Some(oldest(&beside).or_else(fileless).ok_or_else(|| {
            Error::limit(if crowded {
                format!("{MAX_JOBS} exports of the workspace are in progress; wait until one has ended")
            } else {
                format!("the organisation has {MAX_OF_ORGANISATION} exports; wait until the file of one has expired")
            })
        }))
    }

    /// Returns the jobs that a key reaches, newest first, of one workspace or of all.
    pub fn exports(&self, access: &Access, workspace: Option<&str>) -> Vec<&ExportJob> {
        let asked = |job: &&ExportJob| workspace.is_none() || job.workspace.as_deref() == workspace;
        self.export_jobs.iter().rev().filter(|job| job.is_reached(access)).filter(asked).collect()
    }

    /// Returns a job that a key reaches.
    pub fn export(&self, id: &str, access: &Access) -> Result<&ExportJob> {
        let found = self.export_jobs.iter().find(|job| job.id == id && job.is_reached(access));
        found.ok_or_else(|| no_export(id))
    }

    fn export_mut(&mut self, id: &str, access: &Access) -> Result<&mut ExportJob> {
        let found = self.export_jobs.iter_mut().find(|job| job.id == id && job.is_reached(access));
        found.ok_or_else(|| no_export(id))
    }

    /// Changes a job and makes it a draft. The job may then read bodies if the changing key may.
    /// `total` is the number of records that match now.
    pub fn update_export(
        &mut self,
        id: &str,
        access: &Access,
        change: &ExportChange,
        total: u64,
        now: DateTime<Utc>,
    ) -> Result<&ExportJob> {
        let mut changed = self.updated_export(id, access, change)?;
        let name = changed.file.take().map(|file| file.name);
        (changed.total, changed.updated_at, changed.status) = (total, now, ExportStatus::Draft);
        (changed.error, changed.file_gone, changed.started_at, changed.ended_at) =
            (None, None, None, None);
        self.export_leftovers.extend(name);
        let job = self.export_mut(id, access)?;
        *job = changed;
        Ok(job)
    }

    /// Starts a job, which then waits for its turn.
    pub fn start_export(
        &mut self,
        id: &str,
        access: &Access,
        now: DateTime<Utc>,
    ) -> Result<&ExportJob> {
        let job = self.export(id, access)?;
        job.must_be(&IDLE, "started")?;
        let name = job.file.as_ref().map(|file| file.name.clone());
        self.export_leftovers.extend(name);
        let job = self.export_mut(id, access)?;
        job.run += 1;
        (job.status, job.updated_at) = (ExportStatus::InProgress, now);
        (job.started_at, job.ended_at, job.error) = (Some(now), None, None);
        (job.file, job.file_gone) = (None, None);
        job.narrowed.clear();
        Ok(job)
    }

    /// Stops a job that is in progress.
    pub fn cancel_export(
        &mut self,
        id: &str,
        access: &Access,
        now: DateTime<Utc>,
    ) -> Result<&ExportJob> {
        let job = self.export_mut(id, access)?;
        job.must_be(&[ExportStatus::InProgress], "cancelled")?;
        (job.status, job.updated_at, job.ended_at) = (ExportStatus::Stopped, now, Some(now));
        Ok(job)
    }

    /// Returns the size of the files of all jobs in the store, and of those of one organisation, in
    /// bytes.
    pub fn export_bytes(&self, organisation: Option<&str>) -> [u64; 2] {
        let files = self
            .export_jobs
            .iter()
            .filter_map(|job| Some((job.organisation.as_deref(), job.file.as_ref()?)));
        files.fold([0, 0], |[all, own], (of, file)| {
            let bytes = file.stored_bytes.unwrap_or(file.bytes);
            [all + bytes, own + if of == organisation { bytes } else { 0 }]
        })
    }

    /// Returns the jobs that are in progress, in the order of their starts.
    pub fn started_exports(&self) -> Vec<&ExportJob> {
        let mut jobs: Vec<_> =
            self.export_jobs.iter().filter(|job| job.status == ExportStatus::InProgress).collect();
        jobs.sort_by_key(|job| (job.started_at, &job.id));
        jobs
    }

    /// Returns true if this run of a job has not been superseded.
    pub fn wants_export(&self, id: &str, run: u64) -> bool {
        let wanted = |job: &ExportJob| {
            job.id == id && job.run == run && job.status == ExportStatus::InProgress
        };
        self.export_jobs.iter().any(wanted)
    }

    /// Records the end of a run, unless it was superseded.
    pub fn end_export(&mut self, id: &str, run: u64, end: &ExportEnd, now: DateTime<Utc>) -> Ended {
        let has = |file: &ExportFile| {
            let mut jobs = self.export_jobs.iter();
            jobs.any(|job| {
                job.id == id && job.file.as_ref().is_some_and(|ours| ours.name == file.name)
            })
        };
        match end {
            // The first response was lost.
            ExportEnd::Written(file, _) if has(file) => return Ended::Taken,
            _ if !self.wants_export(id, run) => return Ended::Overtaken,
            _ => {}
        }
        let Some(job) = self.export_jobs.iter_mut().find(|job| job.id == id) else {
            return Ended::Overtaken;
        };
        let narrowed = std::mem::take(&mut job.narrowed);
        if let ExportEnd::Written(file, _) = end
            && narrowed.iter().any(|organisation| file.may_hold(organisation))
        {
            job.run += 1;
            return Ended::Overtaken;
        }
        match end {
            ExportEnd::Written(file, total) => {
                (job.status, job.file) = (ExportStatus::Success, Some(file.clone()));
                job.total = total.unwrap_or(job.total);
            }
            ExportEnd::Failed(why) => {
                (job.status, job.error) = (ExportStatus::Failed, Some(why.clone()))
            }
        }
        (job.updated_at, job.ended_at) = (now, Some(now));
        Ended::Taken
    }

    /// Returns the job with the changes, if the key may make them.
    pub fn updated_export(
        &self,
        id: &str,
        access: &Access,
        change: &ExportChange,
    ) -> Result<ExportJob> {
        let job = self.export(id, access)?;
        job.must_be(&IDLE, "changed")?;
        let ExportChange { workspace, filters, columns, description } = change.clone();
        let workspace = match workspace {
            Some(named) => self.export_workspace(access, Some(named))?,
            None => job.workspace.clone(),
        };
        let mut changed = ExportJob {
            workspace,
            bodies: access.may(Scope::Read),
            filters: filters.unwrap_or_else(|| job.filters.clone()),
            columns: columns.or_else(|| job.columns.clone()),
            description: description.or_else(|| job.description.clone()),
            ..job.clone()
        };
        changed.filters.retain(|_, value| !is_nothing(value));
        changed.check()?;
        Ok(changed)
    }

    /// Returns the workspace of a job that a key makes: the requested one, if the key reaches it,
    /// or else the key's own. If the catalog has workspaces of the organisation, it must be one of
    /// them.
    pub fn export_workspace(
        &self,
        access: &Access,
        named: Option<String>,
    ) -> Result<Option<String>> {
        let Some(named) = named else { return Ok(access.workspace.clone()) };
        if let Some(own) = access.workspace.as_ref().filter(|own| **own != named) {
            return Err(Error::denied(format!(
                "`workspace_id` is `{named}`; this key is bound to workspace `{own}`"
            )));
        }
        let known = access
            .organisation
            .as_ref()
            .and_then(|id| self.organisations.get(id))
            .map(|of| &of.workspaces);
        match known.filter(|known| !known.is_empty() && !known.contains(&named)) {
            Some(known) => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Err(Error::invalid(format!(
                    "`workspace_id` is `{named}`; the workspaces of the organisation are {}",
                    known.join(", ")
                )))
            }
            None => Ok(Some(named)),
        }
    }

    fn terms(&self, organisation: &str) -> Option<Terms> {
        let of = self.organisations.get(organisation)?;
        Some(Terms::new(&of.plan, &self.plan(&of.plan).ok()?, of.retention_days))
    }

    /// Returns the maximum number of records in an export of an organisation. `None` for no limit.
    pub fn most_exported(&self, organisation: Option<&str>) -> Option<u64> {
        self.terms(organisation?)?.export_rows
    }

    /// Removes the jobs of an organisation, with their files.
    pub(super) fn drop_exports(&mut self, organisation: &str) {
        let gone = self
            .export_jobs
            .extract_if(.., |job| job.organisation.as_deref() == Some(organisation));
        self.export_leftovers.extend(gone.filter_map(|job| Some(job.file?.name)));
    }
}

fn no_export(id: &str) -> Error {
    Error::not_found(format!("export `{id}` does not exist"))
}

#[cfg(test)]
mod tests;
