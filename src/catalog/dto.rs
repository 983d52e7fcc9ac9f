//! The parts of the catalog as API responses and commands show them: without hashes, and with
//! derived values such as the retention of an organisation's records and the state of a key.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::access::{Access, Scope};
use super::exports::expires_at;
use super::model::{Document, ErasureEntry, ExportJob, ExportStatus, Key, Organisation};
use crate::config::Plan;
use crate::error::Result;
use crate::time;

/// An organisation in API responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrganisationView {
    /// Id of the organisation.
    pub id: String,
    /// Display name.
    pub name: Option<String>,
    /// Name of its plan.
    pub plan: String,
    /// Days that its records are kept, 0 for ever.
    pub retention_days: i32,
    /// Workspaces of the organisation.
    pub workspaces: BTreeSet<String>,
    /// Fields that its keys may not export.
    pub denied_fields: BTreeSet<String>,
    /// Further fields that may not be exported, by workspace.
    pub workspace_denied_fields: BTreeMap<String, BTreeSet<String>>,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time of deletion, RFC 3339. The records of a deleted organisation are being erased.
    pub deleted_at: Option<String>,
}

/// A plan in API responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanView {
    /// Name of the plan.
    pub name: String,
    /// Terms of the plan.
    #[serde(flatten)]
    pub terms: Plan,
}

/// An API key in API responses, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyView {
    /// Id of the key: the start of its hash, which does not reveal its text.
    pub id: String,
    /// Purpose of the key.
    pub name: Option<String>,
    /// The organisation that the key is bound to. `None` for an operator's key.
    pub organisation: Option<String>,
    /// The workspace that the key is bound to.
    pub workspace: Option<String>,
    /// Permissions of the key.
    pub scopes: BTreeSet<Scope>,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time from which the key opens nothing, RFC 3339.
    pub expires_at: Option<String>,
    /// Time of revocation, RFC 3339.
    pub revoked_at: Option<String>,
}

/// A key that was just created: the only response that contains its text.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct CreatedKey {
    /// Text of the key.
    pub key: String,
    /// Properties of the key.
    #[serde(flatten)]
    pub shown: KeyView,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FreshKey").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// An erasure in API responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErasureView {
    /// Id of the erasure.
    pub id: String,
    /// The organisation whose records are erased.
    pub organisation: String,
    /// `all`, `user` or `ids`.
    pub what: &'static str,
    /// The end user whose records are erased.
    pub user: Option<String>,
    /// Ids of the records that are erased.
    pub ids: Vec<String>,
    /// Number of feedback entries that are erased with the records. The feedback of a whole
    /// organisation is not counted.
    pub feedback: u64,
    /// Time of the request, RFC 3339. No response contains the records from then on.
    pub requested_at: String,
    /// Id of the key that requested it, or `cli`.
    pub requested_by: String,
    /// Number of records removed from files so far.
    pub erased: u64,
    /// Time of the last complete run over the files, RFC 3339.
    pub last_run_at: Option<String>,
}

/// An export job in API responses: Portkey's fields, followed by gatelog's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportView {
    /// Id of the job.
    pub id: String,
    /// The organisation whose records the job reads; null for all.
    pub organisation_id: Option<String>,
    /// Filters as the request gave them.
    pub filters: Map<String, Value>,
    /// Columns of each line.
    pub requested_data: Vec<String>,
    /// `draft`, `in_progress`, `success`, `failed` or `stopped`.
    pub status: ExportStatus,
    /// Purpose of the job.
    pub description: Option<String>,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time of the last change, RFC 3339.
    pub last_updated_at: String,
    /// Id of the key that made the job.
    pub created_by: String,
    /// The workspace whose records the job reads; null for the whole organisation.
    pub workspace_id: Option<String>,
    /// Always `export`.
    pub object: &'static str,
    /// Number of records that match.
    pub total_records: u64,
    /// Reason of the failure; null if the job did not fail.
    pub error: Option<String>,
    /// Lines written so far, or lines in the file; null if this node does not know.
    pub records_written: Option<u64>,
    /// Bytes written so far, or bytes in the file.
    pub bytes_written: Option<u64>,
    /// Most lines that the plan lets a job write; null for no limit.
    pub max_records: Option<u64>,
    /// Start of the job, RFC 3339.
    pub started_at: Option<String>,
    /// End of the job, RFC 3339.
    pub ended_at: Option<String>,
    /// Time from which the file cannot be downloaded; null if it never expires or does not exist.
    pub file_expires_at: Option<String>,
    /// Reason why the file no longer exists.
    pub file_gone: Option<String>,
    /// Columns that the lines lack, because they are denied or because the job's maker may not read
    /// bodies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
}

impl Document {
    /// Returns the organisations that a key reaches, including deleted ones, by id.
    pub fn shown_organisations(&self, access: &Access) -> Vec<OrganisationView> {
        let reached = self.organisations.iter().filter(|(id, _)| access.reaches(id));
        reached.map(|(id, organisation)| self.shown(id, organisation)).collect()
    }

    /// Returns an organisation unless it was deleted.
    pub fn shown_organisation(&self, id: &str) -> Result<OrganisationView> {
        Ok(self.shown(id, self.organisation(id)?))
    }

    fn shown(&self, id: &str, organisation: &Organisation) -> OrganisationView {
        let denied = self.denied_fields.get(id).cloned().unwrap_or_default();
        OrganisationView {
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

    /// Returns every plan, by name.
    pub fn shown_plans(&self) -> Vec<PlanView> {
        self.all_plans().into_iter().map(|(name, terms)| PlanView { name, terms }).collect()
    }

    /// Returns the keys that a key may manage, oldest first.
    pub fn shown_keys(&self, access: &Access, now: DateTime<Utc>) -> Vec<KeyView> {
        self.keys.iter().filter(|key| access.reaches_key(key)).map(|key| key.shown(now)).collect()
    }

    /// Returns the erasures of the organisations that a key reaches, oldest first.
    pub fn shown_erasures(&self, access: &Access) -> Vec<ErasureView> {
        let reached = self.erasures.iter().filter(|erasure| access.reaches(&erasure.organisation));
        reached.map(ErasureEntry::shown).collect()
    }

    /// Returns a job as API responses show it; `progress` has the records and bytes written so far.
    pub fn shown_export(
        &self,
        job: &ExportJob,
        progress: Option<(u64, u64)>,
        keep_days: u64,
    ) -> ExportView {
        let written = job.file.as_ref().map(|file| (file.records, file.bytes)).or(progress);
        let denied = self.denied(job.organisation.as_deref(), job.workspace.as_deref());
        ExportView {
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
            file_expires_at: job
                .file
                .as_ref()
                .and_then(|file| expires_at(file, keep_days))
                .map(text),
            file_gone: job.file_gone.clone(),
            withheld: job
                .columns
                .as_ref()
                .map_or_else(|| denied.withheld(job.bodies), |_| Vec::new()),
        }
    }
}

impl Key {
    /// Returns the key as API responses show it.
    pub fn shown(&self, now: DateTime<Utc>) -> KeyView {
        let state = match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(expires_at)) if expires_at <= now => "expired",
            (None, _) => "active",
        };
        KeyView {
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
    /// Returns the erasure as API responses show it.
    pub fn shown(&self) -> ErasureView {
        ErasureView {
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
    time::millis(at)
}
