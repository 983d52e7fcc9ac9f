//! What is told about the things in the catalog, over HTTP and on the command line: never a hash, and with what follows from
//! them, such as the days that an organisation's records are kept and whether a key still opens anything.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::access::{Access, Scope};
use super::document::{Document, ErasureEntry, Key, Organisation};
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
    /// When it was asked for, RFC 3339: since then they are in no answer.
    pub requested_at: String,
    /// Id of the key that asked, or `cli`.
    pub requested_by: String,
    /// Records that were taken out of files so far.
    pub erased: u64,
    /// When the files were gone through for the last time.
    pub last_run_at: Option<String>,
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
        ShownOrganisation {
            id: id.to_owned(),
            name: organisation.name.clone(),
            plan: organisation.plan.clone(),
            retention_days: self.days(organisation).unwrap_or(0),
            workspaces: organisation.workspaces.clone(),
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
        let what = match (&self.user, self.ids.is_empty()) {
            (Some(_), _) => "user",
            (None, true) => "all",
            (None, false) => "ids",
        };
        ShownErasure {
            id: self.id.clone(),
            organisation: self.organisation.clone(),
            what,
            user: self.user.clone(),
            ids: self.ids.clone(),
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
