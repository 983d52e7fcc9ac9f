//! Files of export jobs as data: which of them may still be read, by whom, by which link, and which
//! must go. Pure.
//!
//! A file may be read while its job has it and its days have not passed. A job loses it as soon as
//! it shows more than may be seen: when records are erased, when a plan keeps them shorter or lets
//! exports reach less far back, when fields are denied. What is being written then begins anew.
//! Files that no job has any more are named by [`Document::export_leftovers`] until they are gone.
//! A job whose filters name an end user who is erased goes as a whole: without the filter it would
//! be another export. Where all of an organisation is erased its own jobs go, for they may name
//! anybody.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{ExportFile, ExportJob, ExportStatus};
use crate::catalog::access::{Access, Scope};
use crate::catalog::document::Document;
use crate::catalog::field_restrictions::holds_bodies;
use crate::catalog::share::ShareSecret;
use crate::catalog::signature::{sign, verify};
use crate::catalog::user_mentions::{filter_names, holds_word};
use crate::error::{Error, Result};

/// How long a link to a file opens, seconds.
pub const LINK_SECONDS: i64 = 3_600;
/// Most organisations that are noted of a job that is being written, until it begins anew at once.
const MAX_NARROWED: usize = 1_000;
const KEPT_SHORTER: &str = "records are kept shorter since it was written";

impl Document {
    /// Takes back what jobs wrote and are writing.
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

    /// Takes back what shows records that are erased now, with every trace of an erased end user.
    pub(in crate::catalog) fn erase_exports(&mut self, organisation: &str, user: Option<&str>) {
        self.withdraw_exports("records were erased after it was written", |job| {
            job.holds(organisation)
        });
        let Some(user) = user else { return };
        let naming = |job: &mut ExportJob| job.may_hold(organisation) && job.selects(user);
        let gone = self.export_jobs.extract_if(.., naming);
        self.export_leftovers.extend(gone.filter_map(|job| Some(job.file?.name)));
        let told = |job: &&mut ExportJob| {
            job.description.as_ref().is_some_and(|text| holds_word(text, user))
        };
        self.export_jobs.iter_mut().filter(|job| job.may_hold(organisation)).filter(told).for_each(
            |job| {
                job.description = None;
            },
        );
    }

    /// Takes back what shows more than plans and the retention of other organisations let be seen
    /// since they were those of `before`.
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
        // Where no node has said it, records are kept for ever.
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

    /// Takes back what has records of an organisation that was created just now and keeps them for
    /// a shorter time. It seldom has any, so what is being written goes on until it is known whose
    /// records it wrote.
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

    /// Takes back files whose days have passed.
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

    /// Names of files that belong to a job, or are known to go.
    pub fn known_export_files(&self) -> HashSet<&str> {
        let files = self.export_jobs.iter().filter_map(|job| job.file.as_ref());
        files
            .map(|file| file.name.as_str())
            .chain(self.export_leftovers.iter().map(String::as_str))
            .collect()
    }

    /// The file of a job, if a key may read it.
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
        // Whoever was given the token could read what is in the file.
        let file = self.export_file(&job.id, &Access::operator("link"), now, keep_days).ok()?;
        Some((job, file))
    }
}

impl ExportJob {
    /// Whether what it writes may hold records of an organisation: the operator's holds those of
    /// all.
    fn may_hold(&self, organisation: &str) -> bool {
        self.organisation.as_deref().is_none_or(|own| own == organisation)
    }

    /// Whether the file that it wrote, or what it is writing, may hold records of an organisation.
    fn holds(&self, organisation: &str) -> bool {
        self.may_hold(organisation)
            && self.file.as_ref().is_none_or(|file| file.may_hold(organisation))
    }

    /// Whether its filters name an end user.
    fn selects(&self, user: &str) -> bool {
        self.filters.iter().any(|(name, value)| filter_names(name, value, user))
    }
}

impl ExportFile {
    /// Whether it may hold records of an organisation, if its job may.
    pub(super) fn may_hold(&self, organisation: &str) -> bool {
        self.organisations.as_ref().is_none_or(|held| held.contains(organisation))
    }
}

/// Days of a retention, of which 0 is for ever.
fn days_or_ever(days: i32) -> i32 {
    if days == 0 { i32::MAX } else { days }
}

fn is_expired(file: &ExportFile, now: DateTime<Utc>, keep_days: u64) -> bool {
    expires_at(file, keep_days).is_some_and(|at| at <= now)
}

/// From when on a file may not be read; none = never.
pub(in crate::catalog) fn expires_at(file: &ExportFile, keep_days: u64) -> Option<DateTime<Utc>> {
    let days =
        TimeDelta::try_days(i64::try_from(keep_days).ok()?).filter(|days| !days.is_zero())?;
    file.written_at.checked_add_signed(days)
}

/// What a token signs: each part with its length, so that no two have the same.
fn message(name: &str, ends: i64) -> String {
    let ends = ends.to_string();
    ["gatelog export 1", name, &ends].iter().map(|part| format!("{}:{part}", part.len())).collect()
}
