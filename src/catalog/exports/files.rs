//! Files of export jobs as data: access, links and deletion. Pure.
//!
//! A file may be read while its job has it and its retention has not passed. A job loses its file
//! as soon as the file contains more than may be seen: when records are erased, when a plan
//! shortens their retention or the reach of exports, or when fields are denied. A running job then
//! starts over. Files that no job has any more are listed in [`Document::export_leftovers`] until
//! they are deleted. A job whose filters name an erased end user is deleted as a whole: without the
//! filter it would be another export. An erasure of a whole organisation deletes its jobs, because
//! they may name any user.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::catalog::access::{Access, Scope};
use crate::catalog::field_restrictions::holds_bodies;
use crate::catalog::model::{Document, ExportFile, ExportJob, ExportStatus, ShareSecret};
use crate::catalog::signature::{sign, verify};
use crate::catalog::user_mentions::{filter_names, holds_word};
use crate::error::{Error, Result};

/// Lifetime of a link to a file, in seconds.
pub(crate) const LINK_SECONDS: i64 = 3_600;
/// Maximum number of organisations recorded for a running job. Beyond it the job starts over at
/// once.
const MAX_NARROWED: usize = 1_000;
const KEPT_SHORTER: &str = "records are kept shorter since it was written";

impl Document {
    /// Withdraws the files of the selected jobs, and restarts running ones.
    pub(in crate::catalog) fn withdraw_exports(
        &mut self,
        why: &str,
        which: impl Fn(&ExportJob) -> bool,
    ) {
        for job in self.export_jobs.iter_mut().filter(|job| which(job)) {
            if job.status == ExportStatus::InProgress {
                job.run += 1;
                job.narrowed.clear();
            }
            if let Some(file) = job.file.take() {
                self.export_leftovers.insert(file.name);
                job.file_gone = Some(format!("{why}; start the export again"));
            }
        }
    }

    /// Withdraws files with records that are now erased, and every mention of an erased end user.
    pub(in crate::catalog) fn erase_exports(&mut self, organisation: &str, user: Option<&str>) {
        self.withdraw_exports("records were erased after it was written", |job| {
            job.holds(organisation)
        });
        let Some(user) = user else { return };
        let naming = |job: &mut ExportJob| job.may_hold(organisation) && job.selects(user);
        let gone = self.export_jobs.extract_if(.., naming);
        self.export_leftovers.extend(gone.filter_map(|job| Some(job.file?.name)));
        for job in self.export_jobs.iter_mut().filter(|job| job.may_hold(organisation)) {
            job.description.take_if(|text| holds_word(text, user));
        }
    }

    /// Withdraws files with more than the plans and retention times allow, given those of `before`.
    pub(in crate::catalog) fn withdraw_narrowed(&mut self, before: &Self) {
        if self.export_jobs.is_empty() {
            return;
        }
        for id in before.organisations.keys() {
            let Some((was, is)) = before.terms(id).zip(self.terms(id)) else { continue };
            if days_or_ever(is.retention_days) < days_or_ever(was.retention_days) {
                self.withdraw_exports(KEPT_SHORTER, |job| job.holds(id));
            }
            if is.export_days.unwrap_or(i32::MAX) < was.export_days.unwrap_or(i32::MAX) {
                let why = "the plan lets exports reach less far back since it was written";
                self.withdraw_exports(why, |job| job.organisation.as_ref() == Some(id));
            }
        }
        let was = before.unknown.as_ref().map_or(i32::MAX, |of| days_or_ever(of.retention_days));
        let new = self.organisations.keys().filter(|id| !before.organisations.contains_key(*id));
        let shorter =
            new.filter(|id| self.terms(id).is_some_and(|is| days_or_ever(is.retention_days) < was));
        for id in shorter.cloned().collect::<Vec<_>>() {
            self.withdraw_created(&id);
        }
        // Without a recorded retention, records are kept for ever.
        let kept = |document: &Self| {
            document.unknown.as_ref().map_or(i32::MAX, |of| days_or_ever(of.retention_days))
        };
        if kept(self) < kept(before) {
            let is_unknown = |id: &String| !before.organisations.contains_key(id);
            self.withdraw_exports(KEPT_SHORTER, |job| match (&job.organisation, &job.file) {
                (Some(own), _) => is_unknown(own),
                (None, Some(ExportFile { organisations: Some(held), .. })) => {
                    held.iter().any(is_unknown)
                }
                (None, _) => true,
            });
        }
    }

    /// Withdraws files with records of an organisation that was just created with a shorter
    /// retention. They seldom have any, so running jobs go on until it is known whose records they
    /// wrote.
    fn withdraw_created(&mut self, id: &str) {
        let writes =
            |job: &&mut ExportJob| job.status == ExportStatus::InProgress && job.may_hold(id);
        for job in self.export_jobs.iter_mut().filter(writes) {
            job.narrowed.insert(id.to_owned());
        }
        self.withdraw_exports(KEPT_SHORTER, |job| match job.status {
            ExportStatus::InProgress => job.narrowed.len() > MAX_NARROWED,
            _ => job.holds(id),
        });
    }

    /// Withdraws files whose retention has passed.
    pub fn expire_exports(&mut self, now: DateTime<Utc>, keep_days: u64) {
        let why = format!("a file is kept {keep_days} days");
        self.withdraw_exports(&why, |job| {
            job.file.as_ref().is_some_and(|file| is_expired(file, now, keep_days))
        });
    }

    /// Forgets files that were deleted.
    pub fn forget_exports(&mut self, gone: &BTreeSet<String>) {
        self.export_leftovers.retain(|name| !gone.contains(name));
    }

    /// Returns the names of files that belong to a job or are to be deleted.
    pub fn known_export_files(&self) -> HashSet<&str> {
        let files = self.export_jobs.iter().filter_map(|job| job.file.as_ref());
        files
            .map(|file| file.name.as_str())
            .chain(self.export_leftovers.iter().map(String::as_str))
            .collect()
    }

    /// Returns the file of a job, if a key may read it.
    pub fn export_file(
        &self,
        id: &str,
        access: &Access,
        now: DateTime<Utc>,
        keep_days: u64,
    ) -> Result<&ExportFile> {
        let job = self.export(id, access)?;
        job.must_be(&[ExportStatus::Success], "downloaded")?;
        let gone =
            |why: &str| Error::not_found(format!("the file of export `{id}` was deleted: {why}"));
        let Some(file) = &job.file else {
            return Err(gone(job.file_gone.as_deref().unwrap_or("start it again")));
        };
        if is_expired(file, now, keep_days) {
            return Err(gone(&format!("a file is kept {keep_days} days; start the export again")));
        }
        if !access.may(Scope::Read) && file.columns.iter().any(|name| holds_bodies(name)) {
            return Err(Error::denied(format!(
                "the file of export `{id}` holds bodies, and the key lacks the scope `logs.read`"
            )));
        }
        Ok(file)
    }

    /// Returns a token that opens the file of a job until `expires_at`, for anyone who has it.
    pub fn export_token(&self, file: &ExportFile, expires_at: DateTime<Utc>) -> Option<String> {
        let secret = self.share_secret.as_ref()?;
        let name = &file.name;
        let ends = expires_at.timestamp();
        Some(format!("{name}.{ends}.{}", sign(secret.bytes(), &message(name, ends))))
    }

    /// Creates the secret that signs links, if there is none.
    pub fn ensure_secret(&mut self, random: [u8; 32]) {
        self.share_secret.get_or_insert_with(|| ShareSecret::new(random));
    }

    /// Returns the job and the file that a token opens. `None` for every kind of invalid token.
    pub fn open_export(
        &self,
        token: &str,
        now: DateTime<Utc>,
        keep_days: u64,
    ) -> Option<(&ExportJob, &ExportFile)> {
        let (rest, signature) = token.rsplit_once('.')?;
        let (name, ends) = rest.rsplit_once('.')?;
        let ends: i64 = ends.parse().ok()?;
        let signed = verify(self.share_secret.as_ref()?.bytes(), &message(name, ends), signature);
        if !signed || ends <= now.timestamp() {
            return None;
        }
        let ours = |job: &&ExportJob| job.file.as_ref().is_some_and(|file| file.name == name);
        let job = self.export_jobs.iter().find(ours)?;
        // The person who was given the token could read the contents of the file.
        let file = self.export_file(&job.id, &Access::operator("link"), now, keep_days).ok()?;
        Some((job, file))
    }
}

impl ExportJob {
    /// Returns true if the job may write records of an organisation. The operator's jobs may write
    /// those of all.
    fn may_hold(&self, organisation: &str) -> bool {
        self.organisation.as_deref().is_none_or(|own| own == organisation)
    }

    /// Returns true if the written file, or the one in progress, may hold records of an
    /// organisation.
    fn holds(&self, organisation: &str) -> bool {
        self.may_hold(organisation)
            && self.file.as_ref().is_none_or(|file| file.may_hold(organisation))
    }

    /// Returns true if the filters name an end user.
    fn selects(&self, user: &str) -> bool {
        self.filters.iter().any(|(name, value)| filter_names(name, value, user))
    }
}

impl ExportFile {
    /// Returns true if the file may hold records of an organisation, given that its job may.
    pub(super) fn may_hold(&self, organisation: &str) -> bool {
        self.organisations.as_ref().is_none_or(|held| held.contains(organisation))
    }
}

/// Returns a retention in days, with the maximum for 0, which means for ever.
fn days_or_ever(days: i32) -> i32 {
    if days == 0 { i32::MAX } else { days }
}

fn is_expired(file: &ExportFile, now: DateTime<Utc>, keep_days: u64) -> bool {
    expires_at(file, keep_days).is_some_and(|at| at <= now)
}

/// Returns the time from which a file may not be read. `None` for never.
pub(in crate::catalog) fn expires_at(file: &ExportFile, keep_days: u64) -> Option<DateTime<Utc>> {
    let days =
        TimeDelta::try_days(i64::try_from(keep_days).ok()?).filter(|days| !days.is_zero())?;
    file.written_at.checked_add_signed(days)
}

/// Returns the text that a token signs. Each part is preceded by its length, so that no two files
/// have the same text.
fn message(name: &str, ends: i64) -> String {
    let ends = ends.to_string();
    ["gatelog export 1", name, &ends].iter().map(|part| format!("{}:{part}", part.len())).collect()
}
