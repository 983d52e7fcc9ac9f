//! Files of export jobs as data: which of them may still be read, by whom, by which link, and which must go. Pure.
//!
//! A file may be read while its job succeeded with it, its days have not passed, and no record of the organisation was erased since
//! it was begun: what was erased must not live on in it. Files that may no longer be read are named by
//! [`Document::stale_exports`] until they are gone.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::{ExportFile, ExportJob, ExportStatus};
use crate::catalog::access::{Access, Scope};
use crate::catalog::denied::holds_bodies;
use crate::catalog::document::Document;
use crate::catalog::share::ShareSecret;
use crate::catalog::sign::{sign, verify};
use crate::error::{Error, Result};

/// How long a link to a file opens, seconds.
pub const LINK_SECONDS: i64 = 3_600;

/// A file that must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleExport {
    /// Its name in the store.
    pub name: String,
    /// The job that it belongs to, if there is one, and why it must go.
    pub of: Option<(String, String)>,
}

impl Document {
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

/// From when on a file may not be read; none = never.
pub(in crate::catalog) fn expires_at(file: &ExportFile, keep_days: u64) -> Option<DateTime<Utc>> {
    let days = TimeDelta::try_days(i64::try_from(keep_days).ok()?).filter(|days| !days.is_zero())?;
    file.written_at.checked_add_signed(days)
}

/// What a token signs: each part with its length, so that no two have the same.
fn message(name: &str, ends: i64) -> String {
    let ends = ends.to_string();
    ["gatelog export 1", name, &ends].iter().map(|part| format!("{}:{part}", part.len())).collect()
}
