//! Export jobs as data: their states, who reaches them, and which of their files may still be read. Pure.
//!
//! A job is a draft until it is started, then in progress until it succeeded, failed or was stopped; whatever ended can be started
//! again or be made another draft. What it reads is bound by the key that made it, and those bounds stand in the job: the key
//! itself may be gone. Each start is a run of its own with a file of its own, so that a run which was overtaken (by a stop, by
//! another start, by a node that took over) ends without a trace.
//!
//! A file may be read while its job succeeded with it, its days have not passed, and no record of the organisation was erased since
//! it was begun: what was erased must not live on in it. Files that may no longer be read are named by
//! [`Document::stale_exports`] until they are gone.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access::{Access, Scope};
use super::denied::holds_bodies;
use super::document::Document;
use super::share::ShareSecret;
use super::sign::{sign, verify};
use crate::error::{Error, Result};

/// How long a link to a file opens, seconds.
pub const LINK_SECONDS: i64 = 3_600;
/// Jobs of an organisation: they are part of a document that is rewritten as a whole.
const MOST_JOBS: usize = 200;
/// Longest filters and description, in bytes.
const MOST_FILTERS: usize = 32 << 10;
const MOST_DESCRIPTION: usize = 1 << 10;

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
    /// Counts its starts.
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
}

/// What a run wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportFile {
    /// Names it in the store, and nothing else ever.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its lines.
    pub records: u64,
    /// Keys of each line.
    pub columns: Vec<String>,
    /// Erasures of the organisation that it honours.
    #[serde(default)]
    pub erasures: u64,
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
    /// Records were erased while it was written: it must be written again.
    Again,
    /// The job was stopped, started again or deleted meanwhile.
    Overtaken,
}

/// A file that must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleExport {
    /// Its name in the store.
    pub name: String,
    /// The job that it belongs to, if there is one, and why it must go.
    pub of: Option<(String, String)>,
}

impl ExportJob {
    /// What the job may read.
    pub fn access(&self) -> Access {
        let mut scopes = BTreeSet::from([Scope::Export, Scope::View]);
        if self.bodies {
            scopes.insert(Scope::Read);
        }
        Access {
            key_id: self.created_by.clone(),
            organisation: self.organisation.clone(),
            workspace: self.workspace.clone(),
            scopes,
        }
    }

    fn is_reached(&self, access: &Access) -> bool {
        let organisation = access.organisation.is_none() || access.organisation == self.organisation;
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
        if bytes > MOST_FILTERS {
            return Err(Error::limit(format!("`filters` has {bytes} bytes; at most {MOST_FILTERS} are kept")));
        }
        match self.description.as_ref().map_or(0, String::len) {
            0..=MOST_DESCRIPTION => Ok(()),
            bytes => Err(Error::limit(format!("`description` has {bytes} bytes; at most {MOST_DESCRIPTION} are kept"))),
        }
    }
}

const ENDED: [ExportStatus; 3] = [ExportStatus::Failed, ExportStatus::Stopped, ExportStatus::Success];

impl Document {
    /// Adds a job. One that is there already, because its request came twice, stays as it is; of too many the one that was
    /// touched last longest ago is forgotten.
    pub fn add_export(&mut self, job: ExportJob) -> Result<()> {
        job.check()?;
        if self.export_jobs.iter().any(|other| other.id == job.id) {
            return Ok(());
        }
        let idle = |other: &ExportJob| other.status != ExportStatus::InProgress;
        while self.export_jobs.iter().filter(|other| other.organisation == job.organisation).count() >= MOST_JOBS {
            let ours = self.export_jobs.iter().enumerate().filter(|(_, other)| other.organisation == job.organisation);
            let oldest = ours.filter(|(_, other)| idle(other)).min_by_key(|(_, other)| other.updated_at);
            let Some((place, _)) = oldest else {
                return Err(Error::limit(format!("{MOST_JOBS} exports are in progress; wait until some have ended")));
            };
            let forgotten = self.export_jobs.remove(place);
            self.export_leftovers.extend(forgotten.file.map(|file| file.name));
        }
        self.export_jobs.push(job);
        Ok(())
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

    /// Changes a job, which is a draft then; what it may read of bodies is what the changing key may. `total` is what matches now.
    pub fn update_export(
        &mut self,
        id: &str,
        access: &Access,
        change: &ExportChange,
        total: u64,
        now: DateTime<Utc>,
    ) -> Result<&ExportJob> {
        let mut changed = self.export(id, access)?.updated(access, change)?;
        let name = changed.file.take().map(|file| file.name);
        (changed.total, changed.updated_at, changed.status) = (total, now, ExportStatus::Draft);
        (changed.error, changed.file_gone, changed.started_at, changed.ended_at) = (None, None, None, None);
        self.export_leftovers.extend(name);
        let job = self.export_mut(id, access)?;
        *job = changed;
        Ok(job)
    }

    /// Starts a job; its turn comes.
    pub fn start_export(&mut self, id: &str, access: &Access, now: DateTime<Utc>) -> Result<&ExportJob> {
        let job = self.export(id, access)?;
        job.must_be(&[ExportStatus::Draft, ENDED[0], ENDED[1], ENDED[2]], "started")?;
        if let Some(columns) = &job.columns {
            self.denied(job.organisation.as_deref(), job.workspace.as_deref()).check(columns)?;
        }
        let name = job.file.as_ref().map(|file| file.name.clone());
        self.export_leftovers.extend(name);
        let job = self.export_mut(id, access)?;
        job.run += 1;
        (job.status, job.updated_at) = (ExportStatus::InProgress, now);
        (job.started_at, job.ended_at, job.error) = (Some(now), None, None);
        (job.file, job.file_gone) = (None, None);
        Ok(job)
    }

    /// Stops a job that is in progress.
    pub fn cancel_export(&mut self, id: &str, access: &Access, now: DateTime<Utc>) -> Result<&ExportJob> {
        let job = self.export_mut(id, access)?;
        job.must_be(&[ExportStatus::InProgress], "cancelled")?;
        (job.status, job.updated_at, job.ended_at) = (ExportStatus::Stopped, now, Some(now));
        Ok(job)
    }

    /// The jobs that are in progress, in the order of their starts.
    pub fn started_exports(&self) -> Vec<&ExportJob> {
        let mut jobs: Vec<_> = self.export_jobs.iter().filter(|job| job.status == ExportStatus::InProgress).collect();
        jobs.sort_by_key(|job| (job.started_at, &job.id));
        jobs
    }

    /// Whether that run of a job is still wanted.
    pub fn wants_export(&self, id: &str, run: u64) -> bool {
        let wanted = |job: &ExportJob| job.id == id && job.run == run && job.status == ExportStatus::InProgress;
        self.export_jobs.iter().any(wanted)
    }

    /// Writes down how a run ended, if it is still wanted.
    pub fn end_export(&mut self, id: &str, run: u64, end: &ExportEnd, now: DateTime<Utc>) -> Ended {
        let has = |file: &ExportFile| {
            let mut jobs = self.export_jobs.iter();
            jobs.any(|job| job.id == id && job.file.as_ref().is_some_and(|ours| ours.name == file.name))
        };
        match end {
            // The answer to it was lost the first time.
            ExportEnd::Written(file, _) if has(file) => return Ended::Taken,
            _ if !self.wants_export(id, run) => return Ended::Overtaken,
            _ => {}
        }
        let organisation = self.export_jobs.iter().find(|job| job.id == id).and_then(|job| job.organisation.clone());
        let erasures = self.erasures_of(organisation.as_deref());
        let Some(job) = self.export_jobs.iter_mut().find(|job| job.id == id) else { return Ended::Overtaken };
        match end {
            ExportEnd::Written(file, _) if file.erasures != erasures => return Ended::Again,
            ExportEnd::Written(file, total) => {
                (job.status, job.file) = (ExportStatus::Success, Some(file.clone()));
                job.total = total.unwrap_or(job.total);
            }
            ExportEnd::Failed(why) => (job.status, job.error) = (ExportStatus::Failed, Some(why.clone())),
        }
        (job.updated_at, job.ended_at) = (now, Some(now));
        Ended::Taken
    }

    /// How many erasures of an organisation, or of all, were ever asked for.
    pub fn erasures_of(&self, organisation: Option<&str>) -> u64 {
        let of = |of: &str| organisation.is_none_or(|organisation| organisation == of);
        self.erasures.iter().filter(|erasure| of(&erasure.organisation)).count() as u64
    }

    /// Records that one job of an organisation writes at most; none = all.
    pub fn most_exported(&self, organisation: Option<&str>) -> Option<u64> {
        let plan = &self.organisations.get(organisation?)?.plan;
        self.plan(plan).ok()?.export_rows
    }

    /// Takes the jobs of an organisation out, with what they wrote.
    pub(super) fn drop_exports(&mut self, organisation: &str) {
        let gone = self.export_jobs.extract_if(.., |job| job.organisation.as_deref() == Some(organisation));
        self.export_leftovers.extend(gone.filter_map(|job| Some(job.file?.name)));
    }

    /// Files that must go. They can be read no longer, and are deleted as soon as somebody gets to it.
    pub fn stale_exports(&self, now: DateTime<Utc>, keep_days: u64) -> Vec<StaleExport> {
        let leftovers = self.export_leftovers.iter().map(|name| StaleExport { name: name.clone(), of: None });
        let stale = self.export_jobs.iter().filter_map(|job| {
            let why = self.why_stale(job, job.file.as_ref()?, now, keep_days)?;
            Some(StaleExport { name: job.file.as_ref()?.name.clone(), of: Some((job.id.clone(), why)) })
        });
        leftovers.chain(stale).collect()
    }

    fn why_stale(&self, job: &ExportJob, file: &ExportFile, now: DateTime<Utc>, keep_days: u64) -> Option<String> {
        if self.erasures_of(job.organisation.as_deref()) > file.erasures {
            return Some("records were erased after it was written; start the export again".to_owned());
        }
        let expires = expires_at(file, keep_days)?;
        (expires <= now).then(|| format!("a file is kept {keep_days} days; start the export again"))
    }

    /// Forgets files that were deleted.
    pub fn forget_exports(&mut self, gone: &[StaleExport]) {
        let names: HashSet<&str> = gone.iter().map(|stale| stale.name.as_str()).collect();
        self.export_leftovers.retain(|name| !names.contains(name.as_str()));
        for (id, why) in gone.iter().filter_map(|stale| stale.of.as_ref()) {
            let ours = |job: &&mut ExportJob| {
                job.id == *id && job.file.as_ref().is_some_and(|file| names.contains(file.name.as_str()))
            };
            if let Some(job) = self.export_jobs.iter_mut().find(ours) {
                (job.file, job.file_gone) = (None, Some(why.clone()));
            }
        }
    }

    /// Names of files that belong to a job, or are known to go.
    pub fn known_export_files(&self) -> HashSet<&str> {
        let files = self.export_jobs.iter().filter_map(|job| job.file.as_ref());
        files.map(|file| file.name.as_str()).chain(self.export_leftovers.iter().map(String::as_str)).collect()
    }

    /// The file of a job, if a key may read it.
    pub fn export_file(&self, id: &str, access: &Access, now: DateTime<Utc>, keep_days: u64) -> Result<&ExportFile> {
        let job = self.export(id, access)?;
        job.must_be(&[ExportStatus::Success], "downloaded")?;
        let gone = |why: &str| Error::not_found(format!("the file of export `{id}` was deleted: {why}"));
        let Some(file) = &job.file else { return Err(gone(job.file_gone.as_deref().unwrap_or("start it again"))) };
        if let Some(why) = self.why_stale(job, file, now, keep_days) {
            return Err(gone(&why));
        }
        self.denied(job.organisation.as_deref(), job.workspace.as_deref()).check(&file.columns)?;
        if !access.may(Scope::Read) && file.columns.iter().any(|name| holds_bodies(name)) {
            return Err(Error::denied(format!(
                "the file of export `{id}` holds bodies, and the key lacks the scope `logs.read`"
            )));
        }
        Ok(file)
    }

    /// A token that opens the file of a job until `expires_at`, for whoever has it.
    pub fn export_token(&self, file: &ExportFile, expires_at: DateTime<Utc>) -> Option<String> {
        let secret = self.share_secret.as_ref()?;
        let (name, ends) = (&file.name, expires_at.timestamp());
        Some(format!("{name}.{ends}.{}", sign(secret.bytes(), &message(name, ends))))
    }

    /// Makes the secret that links are signed with, if there is none.
    pub fn ensure_secret(&mut self, random: [u8; 32]) {
        self.share_secret.get_or_insert_with(|| ShareSecret::new(random));
    }

    /// The job and the file that a token opens. Whatever is wrong with it, it is none.
    pub fn open_export(&self, token: &str, now: DateTime<Utc>, keep_days: u64) -> Option<(&ExportJob, &ExportFile)> {
        let (rest, signature) = token.rsplit_once('.')?;
        let (name, ends) = rest.rsplit_once('.')?;
        let ends: i64 = ends.parse().ok()?;
        let signed = verify(self.share_secret.as_ref()?.bytes(), &message(name, ends), signature);
        if !signed || ends <= now.timestamp() {
            return None;
        }
        let ours = |job: &&ExportJob| job.file.as_ref().is_some_and(|file| file.name == name);
        let job = self.export_jobs.iter().find(ours)?;
        // Whoever was given the token could read what is in the file.
        let file = self.export_file(&job.id, &Access::operator("link"), now, keep_days).ok()?;
        Some((job, file))
    }
}

impl ExportJob {
    /// The job as a change makes it, if the key may change it so.
    pub fn updated(&self, access: &Access, change: &ExportChange) -> Result<Self> {
        self.must_be(&[ExportStatus::Draft, ENDED[0], ENDED[1], ENDED[2]], "changed")?;
        let ExportChange { workspace, filters, columns, description } = change.clone();
        let workspace = match workspace {
            Some(named) => export_workspace(access, Some(named))?,
            None => self.workspace.clone(),
        };
        let changed = Self {
            workspace,
            bodies: access.may(Scope::Read),
            filters: filters.unwrap_or_else(|| self.filters.clone()),
            columns: columns.or_else(|| self.columns.clone()),
            description: description.or_else(|| self.description.clone()),
            ..self.clone()
        };
        changed.check()?;
        Ok(changed)
    }
}

/// The workspace of a job that a key makes: the one that it names, if it reaches that, or else its own.
pub fn export_workspace(access: &Access, named: Option<String>) -> Result<Option<String>> {
    match (named, &access.workspace) {
        (Some(named), Some(own)) if named != *own => {
            Err(Error::denied(format!("`workspace_id` is `{named}`; this key is bound to workspace `{own}`")))
        }
        (named, own) => Ok(named.or_else(|| own.clone())),
    }
}

fn no_export(id: &str) -> Error {
    Error::not_found(format!("export `{id}` does not exist"))
}

/// From when on a file may not be read; none = never.
pub(super) fn expires_at(file: &ExportFile, keep_days: u64) -> Option<DateTime<Utc>> {
    let days = TimeDelta::try_days(i64::try_from(keep_days).ok()?).filter(|days| !days.is_zero())?;
    file.written_at.checked_add_signed(days)
}

/// What a token signs: each part with its length, so that no two have the same.
fn message(name: &str, ends: i64) -> String {
    let ends = ends.to_string();
    ["gatelog export 1", name, &ends].iter().map(|part| format!("{}:{part}", part.len())).collect()
}

#[cfg(test)]
mod tests;
