//! The catalog document as it is stored: data only, without the rules for changing it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access::Scope;
use super::identity::Identity;
use crate::config::Plan;

/// Version of the document format. Format 1 had only keys; format 2 had no archived erasures.
pub(crate) const FORMAT: u32 = 3;

/// The catalog document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Format version.
    pub format: u32,
    /// Id of the change that made this version. Its author recognises the version by this id if the
    /// response to the write was lost.
    #[serde(default)]
    pub change: String,
    /// Identity of the store. `None` until an engine of this version has opened the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Identity>,
    /// Organisations by id.
    #[serde(default)]
    pub organisations: BTreeMap<String, Organisation>,
    /// Custom plans by name, without the built-in ones.
    #[serde(default)]
    pub plans: BTreeMap<String, Plan>,
    /// API keys, oldest first.
    #[serde(default)]
    pub keys: Vec<Key>,
    /// Requested erasures, oldest first. They are also the record of what was erased.
    #[serde(default)]
    pub erasures: Vec<ErasureEntry>,
    /// Retention of records of organisations that the catalog does not know. `None` until a writing
    /// node has recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
    /// Archived providers by organisation. Their logs cannot be replayed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub archived_providers: BTreeMap<String, BTreeSet<String>>,
    /// Saved filters by organisation and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub saved_filters: BTreeMap<String, BTreeMap<String, SavedFilter>>,
    /// Share links, oldest first. Each opens one log without a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Secret that signs share links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_secret: Option<ShareSecret>,
    /// Export jobs, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_jobs: Vec<ExportJob>,
    /// Files of export jobs that are to be deleted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub export_leftovers: BTreeSet<String>,
    /// Fields that may not be exported, by organisation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied_fields: BTreeMap<String, DeniedFields>,
}

/// Retention of records of organisations that the catalog does not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unknown {
    /// Days to keep records: `retention_days` of the nodes' configuration. 0 keeps them for ever.
    pub retention_days: i32,
    /// Retention classes that such records were stored in before `retention_days` changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<RetentionChange>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            format: FORMAT,
            change: String::new(),
            store: None,
            organisations: BTreeMap::new(),
            plans: BTreeMap::new(),
            keys: Vec::new(),
            erasures: Vec::new(),
            unknown: None,
            archived_providers: BTreeMap::new(),
            saved_filters: BTreeMap::new(),
            shares: Vec::new(),
            share_secret: None,
            export_jobs: Vec::new(),
            export_leftovers: BTreeSet::new(),
            denied_fields: BTreeMap::new(),
        }
    }
}

/// An organisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of its plan.
    pub plan: String,
    /// Agreed days of retention, if the plan leaves them open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<i32>,
    /// Workspaces; a key may be bound to one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workspaces: BTreeSet<String>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Retention classes that its records were stored in before a change of plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<RetentionChange>,
    /// Time of deletion. The records of a deleted organisation are being erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<DateTime<Utc>>,
}

/// A retention class that may still hold records of an organisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionChange {
    /// Retention class: days to keep, 0 for ever.
    pub from_days: i32,
    /// Time of the change of plan.
    pub since: DateTime<Utc>,
    /// Files written before this time hold none of these records any more, in ms since 1970-01-01.
    #[serde(default)]
    pub clean_before_ms: i64,
}

impl Organisation {
    /// Creates an organisation on a plan.
    pub fn new(plan: &str, created_at: DateTime<Utc>) -> Self {
        Self {
            name: None,
            plan: plan.to_owned(),
            retention_days: None,
            workspaces: BTreeSet::new(),
            created_at,
            moving: Vec::new(),
            deleted_at: None,
        }
    }
}

/// An API key without its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Id of the key: the start of its hash, which does not reveal its text.
    pub id: String,
    /// Purpose of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the key's text, hexadecimal.
    pub sha256: String,
    /// The organisation that the key is bound to. `None` for an operator's key, which reaches all
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// The workspace that the key is bound to. `None` for the whole organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Permissions of the key.
    pub scopes: BTreeSet<Scope>,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time from which the key opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Time of revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// One erasure: its request, its author and its progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureEntry {
    /// Id of the erasure.
    pub id: String,
    /// The organisation whose records are erased.
    pub organisation: String,
    /// The end user whose records are erased. `None` if the erasure is not by user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ids of the records that are erased. Empty if the erasure is not by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Ids of the feedback that is erased with the records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<String>,
    /// Time of the request. Records created up to this time are erased; records named by id are
    /// erased whenever they were created.
    pub requested_at: DateTime<Utc>,
    /// Files written up to this time, in ms since 1970-01-01, hold only records that had arrived
    /// when the erasure was requested. Such records are erased even if they are dated later. 0
    /// stands for `requested_at`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub arrived_ms: i64,
    /// Id of the key that requested it, or `cli`.
    pub requested_by: String,
    /// Number of records removed from files so far.
    #[serde(default)]
    pub erased: u64,
    /// Time of the last complete run over the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_at: Option<DateTime<Utc>>,
    /// Files written before this time, in ms since 1970-01-01, hold none of the erased records any
    /// more.
    #[serde(default)]
    pub clean_before_ms: i64,
    /// Part of the entry that lies in an object of its own. `None` if the entry is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<ArchivedLists>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(moment: &i64) -> bool {
    *moment == 0
}

/// Sizes of the archived lists of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedLists {
    /// Number of record ids.
    pub ids: u64,
    /// Number of feedback ids.
    pub feedback: u64,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportStatus {
    /// Not started since it was made or changed.
    Draft,
    /// Waiting for its turn, or being written.
    InProgress,
    /// The file is complete.
    Success,
    /// The job ended without a file. It has a reason.
    Failed,
    /// Stopped on request.
    Stopped,
}

impl ExportStatus {
    /// Returns the name in responses.
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
    /// Id of the job.
    pub id: String,
    /// The organisation whose records the job reads. `None` for all, which only the operator may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// The workspace whose records the job reads. `None` for the whole organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// True if the maker of the job may read bodies.
    pub bodies: bool,
    /// Filters as the request gave them.
    pub filters: Map<String, Value>,
    /// Columns of each line. `None` for all that may be exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Purpose of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// State of the job.
    pub status: ExportStatus,
    /// Number of matching records when they were last counted.
    pub total: u64,
    /// Number of starts and restarts.
    #[serde(default)]
    pub run: u64,
    /// Reason of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Id of the key that made the job.
    pub created_by: String,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    pub updated_at: DateTime<Utc>,
    /// Time of the last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// Time of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The written file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<ExportFile>,
    /// Reason for the deletion of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_gone: Option<String>,
    /// Organisations that were created since the start and have a shorter retention. The job starts
    /// over if it wrote records of one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub narrowed: BTreeSet<String>,
}

/// The file of a run. Unknown fields are ignored, because a file can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportFile {
    /// Unique name in the store, never reused.
    pub name: String,
    /// Size of the download, in bytes.
    pub bytes: u64,
    /// Size in the store if it is compressed, in bytes. `None` if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Number of lines.
    pub records: u64,
    /// Columns of each line.
    pub columns: Vec<String>,
    /// Organisations with records in the file. `None` for any that the job reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisations: Option<BTreeSet<String>>,
    /// Time of completion.
    pub written_at: DateTime<Utc>,
}

/// A saved filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFilter {
    /// The fields of the filter, as a query string.
    pub query: String,
    /// Id of the key that saved the filter.
    pub created_by: String,
    /// Time of saving.
    pub created_at: DateTime<Utc>,
}

/// Secret that signs links, hexadecimal. Its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShareSecret(String);

impl ShareSecret {
    /// Creates a secret from 32 random bytes.
    pub(super) fn new(random: [u8; 32]) -> Self {
        Self(hex::encode(random))
    }

    /// Returns the key for signatures.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for ShareSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(set)")
    }
}

/// A share link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Id of the link. It opens nothing by itself.
    pub id: String,
    /// The organisation that the log belongs to.
    pub organisation: String,
    /// The workspace that its maker's key is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Id of the log.
    pub log_id: String,
    /// True if bodies are shown. Its maker must have been able to read them.
    pub bodies: bool,
    /// Id of the key that made the link.
    pub created_by: String,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time from which the link opens nothing.
    pub expires_at: DateTime<Utc>,
    /// Time of revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Fields that an organisation may not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeniedFields {
    /// Fields denied to the whole organisation.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub all: BTreeSet<String>,
    /// Fields denied to a workspace, by workspace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workspaces: BTreeMap<String, BTreeSet<String>>,
}
