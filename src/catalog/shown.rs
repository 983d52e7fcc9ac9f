//! What is told about the things in the catalog, over HTTP and on the command line: never a hash, and with what follows from
//! them, such as the days that an organisation's records are kept and whether a key still opens anything.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::access::{Access, Scope};
use super::document::{Document, Organisation};
use super::erasures::ErasureEntry;
use super::exports::{ExportJob, ExportStatus, expires_at};
use super::keys::Key;
use crate::config::Plan;
use crate::error::Result;

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownOrganisation {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Name of its plan.
    pub plan: String,
    /// Days that its records are kept, 0 = for ever.
    pub retention_days: i32,
    /// Its workspaces.
    pub workspaces: BTreeSet<String>,
    /// Fields that its keys may not export.
    pub denied_fields: BTreeSet<String>,
    /// Fields that may not be exported beside them, by workspace.
    pub workspace_denied_fields: BTreeMap<String, BTreeSet<String>>,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// When it was deleted; its records are being erased.
    pub deleted_at: Option<String>,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownPlan {
    /// Its name.
    pub name: String,
    /// Its terms.
    #[serde(flatten)]
    pub terms: Plan,
}

/// An API key, without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownKey {
    /// Names the key; says nothing about its text.
    pub id: String,
    /// What it is for.
    pub name: Option<String>,
    /// The organisation that it is bound to; none = the operator's.
    pub organisation: Option<String>,
    /// The workspace that it is bound to.
    pub workspace: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// From when on it opens nothing.
    pub expires_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
}

/// A key that was just made: the only place that its text is told.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct FreshKey {
    /// Its text.
    pub key: String,
    /// What else there is to tell.
    #[serde(flatten)]
    pub shown: ShownKey,
}

impl std::fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshKey").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// An erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownErasure {
    /// Names the erasure.
    pub id: String,
    /// The organisation whose records are erased.
    pub organisation: String,
    /// `all`, `user` or `ids`.
    pub what: &'static str,
    /// The end user whose records are erased.
    pub user: Option<String>,
    /// The records that are erased.
    pub ids: Vec<String>,
    /// How much feedback on them is erased along; that of a whole organisation is not counted.
    pub feedback: u64,
    /// When it was asked for, RFC 3339: since then they are in no answer.
    pub requested_at: String,
    /// Id of the key that asked, or `cli`.
    pub requested_by: String,
    /// Records that were taken out of files so far.
    pub erased: u64,
    /// When the files were gone through for the last time.
    pub last_run_at: Option<String>,
}

/// A job as it is told: Portkey's fields, and then ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownExport {
    /// Names it.
    pub id: String,
    /// The organisation whose records it reads; null = all.
    pub organisation_id: Option<String>,
    /// Which records, as it was asked.
    pub filters: Map<String, Value>,
    /// Keys of each line.
    pub requested_data: Vec<String>,
    /// `draft`, `in_progress`, `success`, `failed` or `stopped`.
    pub status: ExportStatus,
    /// What it is for.
    pub description: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_updated_at: String,
    /// Id of the key that made it.
    pub created_by: String,
    /// The workspace whose records it reads; null = all of the organisation.
    pub workspace_id: Option<String>,
    /// Always `export`.
    pub object: &'static str,
    /// Records that match.
    pub total_records: u64,
    /// Why it failed; null if it did not.
    pub error: Option<String>,
    /// Lines written so far, or in the file; null where that is not known here.
    pub records_written: Option<u64>,
    /// Bytes written so far, or in the file.
    pub bytes_written: Option<u64>,
    /// Most lines that the plan lets a job write; null = all.
    pub max_records: Option<u64>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub ended_at: Option<String>,
    /// From when on the file cannot be downloaded; null = never, or there is no file.
    pub file_expires_at: Option<String>,
    /// Why there is no file any more.
    pub file_gone: Option<String>,
    /// Columns that its lines lack because they are denied, or because its maker may not read bodies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
}

impl Document {
    /// The organisations that a key reaches, also deleted ones, by id.
    pub fn shown_organisations(&self, access: &Access) -> Vec<ShownOrganisation> {
        let reached = self.organisations.iter().filter(|(id, _)| access.reaches(id));
        reached.map(|(id, organisation)| self.shown(id, organisation)).collect()
    }

    /// An organisation, unless it was deleted.
    pub fn shown_organisation(&self, id: &str) -> Result<ShownOrganisation> {
        Ok(self.shown(id, self.organisation(id)?))
    }

    fn shown(&self, id: &str, organisation: &Organisation) -> ShownOrganisation {
        let denied = self.denied_fields.get(id).cloned().unwrap_or_default();
        ShownOrganisation {
            id: id.to_owned(),
            name: organisation.name.clone(),
            plan: organisation.plan.clone(),
            retention_days: self.days(organisation).unwrap_or(0),
            workspaces: organisation.workspaces.clone(),
            denied_fields: denied.all,
            workspace_denied_fields: denied.workspaces,
            created_at: text(organisation.created_at),
            deleted_at: organisation.deleted_at.map(text),
        }
    }

    /// Every plan, by name.
    pub fn shown_plans(&self) -> Vec<ShownPlan> {
        self.all_plans().into_iter().map(|(name, terms)| ShownPlan { name, terms }).collect()
    }

    /// The keys that a key may manage, oldest first.
    pub fn shown_keys(&self, access: &Access, now: DateTime<Utc>) -> Vec<ShownKey> {
        self.keys.iter().filter(|key| access.reaches_key(key)).map(|key| key.shown(now)).collect()
    }

    /// The erasures of the organisations that a key reaches, oldest first.
    pub fn shown_erasures(&self, access: &Access) -> Vec<ShownErasure> {
        let reached = self.erasures.iter().filter(|erasure| access.reaches(&erasure.organisation));
        reached.map(ErasureEntry::shown).collect()
    }

    /// What is told of a job; `progress` are records and bytes that are written so far.
    pub fn shown_export(&self, job: &ExportJob, progress: Option<(u64, u64)>, keep_days: u64) -> ShownExport {
        let written = job.file.as_ref().map(|file| (file.records, file.bytes)).or(progress);
        let denied = self.denied(job.organisation.as_deref(), job.workspace.as_deref());
        ShownExport {
            id: job.id.clone(),
            organisation_id: job.organisation.clone(),
            filters: job.filters.clone(),
            requested_data: job.columns.clone().unwrap_or_else(|| denied.allowed(job.bodies)),
            status: job.status,
            description: job.description.clone(),
            created_at: text(job.created_at),
            last_updated_at: text(job.updated_at),
            created_by: job.created_by.clone(),
            workspace_id: job.workspace.clone(),
            object: "export",
            total_records: job.total,
            error: job.error.clone(),
            records_written: written.map(|(records, _)| records),
            bytes_written: written.map(|(_, bytes)| bytes),
            max_records: self.most_exported(job.organisation.as_deref()),
            started_at: job.started_at.map(text),
            ended_at: job.ended_at.map(text),
            file_expires_at: job.file.as_ref().and_then(|file| expires_at(file, keep_days)).map(text),
            file_gone: job.file_gone.clone(),
            withheld: job.columns.as_ref().map_or_else(|| denied.withheld(job.bodies), |_| Vec::new()),
        }
    }
}

impl Key {
    /// What is told about it.
    pub fn shown(&self, now: DateTime<Utc>) -> ShownKey {
        let state = match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(expires_at)) if expires_at <= now => "expired",
            (None, _) => "active",
        };
        ShownKey {
            id: self.id.clone(),
            name: self.name.clone(),
            organisation: self.organisation.clone(),
            workspace: self.workspace.clone(),
            scopes: self.scopes.clone(),
            state,
            created_at: text(self.created_at),
            expires_at: self.expires_at.map(text),
            revoked_at: self.revoked_at.map(text),
        }
    }
}

impl ErasureEntry {
    /// What is told about it.
    pub fn shown(&self) -> ShownErasure {
        ShownErasure {
            id: self.id.clone(),
            organisation: self.organisation.clone(),
            what: self.what(),
            user: self.user.clone(),
            ids: self.ids.clone(),
            feedback: self.aside.map_or(0, |aside| aside.feedback).max(self.feedback.len() as u64),
            requested_at: text(self.requested_at),
            requested_by: self.requested_by.clone(),
            erased: self.erased,
            last_run_at: self.last_run_at.map(text),
        }
    }
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
