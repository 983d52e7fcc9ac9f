//! Export jobs as data: their states, who reaches them, and how many there may be. Pure.
//!
//! A job is a draft until it is started, then in progress until it succeeded, failed or was
//! stopped; whatever ended can be started again or be made another draft. What it reads is bound by
//! the key that made it, and those bounds stand in the job: the key itself may be gone. Each start
//! is a run of its own with a file of its own, so that a run which was overtaken (by a stop, by
//! another start, by a node that took over, by what [`files`] takes back) ends without a trace.
//!
//! Jobs are bounded in number, by workspace and by organisation: whoever makes many loses their
//! own, never a file of another workspace. What a job wrote is the matter of [`files`].

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access::{Access, Scope};
use super::document::Document;
use super::user_mentions::is_nothing;
use crate::error::{Error, Result};
use crate::plan::Terms;

pub use files::LINK_SECONDS;
pub(super) use files::expires_at;

mod files;

/// Jobs of a workspace, and of an organisation: they are part of a document that is rewritten as a
/// whole.
const MAX_JOBS: usize = 100;
const MAX_OF_ORGANISATION: usize = 500;
/// Longest filters (as JSON) and description, in bytes.
const MAX_FILTERS: usize = 4 << 10;
const MAX_DESCRIPTION: usize = 1 << 10;

/// Where a job stands. No others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportStatus {
    /// Never started since it was made or changed.
    Draft,
    /// Waiting for its turn, or being written.
    InProgress,
    /// Its file is whole.
    Success,
    /// It ended without a file, and says why.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl ExportStatus {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::InProgress => "in_progress",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// An export job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportJob {
    /// Names it.
    pub id: String,
    /// The organisation whose records it reads; none = all, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// The workspace whose records it reads; none = all of the organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Whether who made it may read bodies.
    pub bodies: bool,
    /// Which records, as it was asked.
    pub filters: Map<String, Value>,
    /// Keys of each line; none = all that may be exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it stands.
    pub status: ExportStatus,
    /// Records that match, as of when that was counted last.
    pub total: u64,
    /// Counts its starts, and how often it was told to begin anew.
    #[serde(default)]
    pub run: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Id of the key that made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// What it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ExportFile>,
    /// Why what it wrote was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_gone: Option<String>,
    /// Organisations that were created since it was started and keep records for a shorter time. It
    /// begins anew if it wrote any of theirs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub narrowed: BTreeSet<String>,
}

/// What a run wrote. Fields of other versions of gatelog are passed over: a file can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportFile {
    /// Names it in the store, and nothing else ever.
    pub name: String,
    /// Its size as it is downloaded.
    pub bytes: u64,
    /// Its size where it lies, packed; none = it is plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Its lines.
    pub records: u64,
    /// Keys of each line.
    pub columns: Vec<String>,
    /// Organisations whose records are in it; none = any whose records the job reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisations: Option<BTreeSet<String>>,
    /// When it was whole.
    pub written_at: DateTime<Utc>,
}

/// What a draft shall be; what is none stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportChange {
    /// The workspace whose records it reads.
    pub workspace: Option<String>,
    /// Which records.
    pub filters: Option<Map<String, Value>>,
    /// Keys of each line.
    pub columns: Option<Vec<String>>,
    /// What it is for.
    pub description: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ExportEnd {
    /// With a file, and perhaps a better count of what matches.
    Written(ExportFile, Option<u64>),
    /// Without one; why, in words for whoever made it.
    Failed(String),
}

/// What became of the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The job has it.
    Taken,
    /// The job was stopped, started again, deleted, or told to begin anew meanwhile.
    Overtaken,
}

impl ExportJob {
    /// The records that the job may read. This right is the organisation's, and outlasts the key
    /// that made the job; whoever makes, starts or downloads it needs a key that counts then.
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

    /// Refuses, in words that say where the job stands.
    fn must_be(&self, fine: &[ExportStatus], to_do: &str) -> Result<()> {
        if fine.contains(&self.status) {
            return Ok(());
        }
        let (id, status) = (&self.id, self.status.name());
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

/// Most bytes of the name of a workspace.
const MAX_WORKSPACE: usize = 128;
const IDLE: [ExportStatus; 4] =
    [ExportStatus::Draft, ExportStatus::Failed, ExportStatus::Stopped, ExportStatus::Success];

impl Document {
    /// Adds a job, without filters that have no value. One that is there already, because its
    /// request came twice, stays as it is. Of too many in its workspace the one that was touched
    /// last longest ago is forgotten; of too many in the organisation, where the workspace has none
    /// that could be, one that has no file.
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

    /// The place of the job that must go before another is added; none if there is room.
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

    /// The jobs that a key reaches, newest first; of one workspace, or of all.
    pub fn exports(&self, access: &Access, workspace: Option<&str>) -> Vec<&ExportJob> {
        let asked = |job: &&ExportJob| workspace.is_none() || job.workspace.as_deref() == workspace;
        self.export_jobs.iter().rev().filter(|job| job.is_reached(access)).filter(asked).collect()
    }

    /// A job that a key reaches.
    pub fn export(&self, id: &str, access: &Access) -> Result<&ExportJob> {
        let found = self.export_jobs.iter().find(|job| job.id == id && job.is_reached(access));
        found.ok_or_else(|| no_export(id))
    }

    fn export_mut(&mut self, id: &str, access: &Access) -> Result<&mut ExportJob> {
        let found = self.export_jobs.iter_mut().find(|job| job.id == id && job.is_reached(access));
        found.ok_or_else(|| no_export(id))
    }

    /// Changes a job, which is a draft then; what it may read of bodies is what the changing key
    /// may. `total` is what matches now.
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

    /// Starts a job; its turn comes.
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

    /// Bytes of the files of all jobs where they lie, and of those of one organisation.
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

    /// The jobs that are in progress, in the order of their starts.
    pub fn started_exports(&self) -> Vec<&ExportJob> {
        let mut jobs: Vec<_> =
            self.export_jobs.iter().filter(|job| job.status == ExportStatus::InProgress).collect();
        jobs.sort_by_key(|job| (job.started_at, &job.id));
        jobs
    }

    /// Whether that run of a job is still wanted.
    pub fn wants_export(&self, id: &str, run: u64) -> bool {
        let wanted = |job: &ExportJob| {
            job.id == id && job.run == run && job.status == ExportStatus::InProgress
        };
        self.export_jobs.iter().any(wanted)
    }

    /// Writes down how a run ended, if it is still wanted.
    pub fn end_export(&mut self, id: &str, run: u64, end: &ExportEnd, now: DateTime<Utc>) -> Ended {
        let has = |file: &ExportFile| {
            let mut jobs = self.export_jobs.iter();
            jobs.any(|job| {
                job.id == id && job.file.as_ref().is_some_and(|ours| ours.name == file.name)
            })
        };
        match end {
            // The answer to it was lost the first time.
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

    /// The job as a change makes it, if the key may change it so.
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

    /// The workspace of a job that a key makes: the one that it names, if it reaches that, or else
    /// its own. Of an organisation that has workspaces in the catalog it must be one of those.
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

    /// Records that one export of an organisation writes at most; none = all.
    pub fn most_exported(&self, organisation: Option<&str>) -> Option<u64> {
        self.terms(organisation?)?.export_rows
    }

    /// Takes the jobs of an organisation out, with what they wrote.
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
