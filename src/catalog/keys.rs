//! API keys as data: how one is made, which opens what, and how it is revoked. Pure; of a key's text only the hash is kept.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::access::{Access, Scope, hash};
use super::document::{Document, check_label};
use super::known::no_workspace;
use super::limits::MOST_KEYS;
use crate::error::{Error, Result};

/// One API key, without the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Names the key; says nothing about its text.
    pub id: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of its text, hexadecimal.
    pub sha256: String,
    /// The organisation that it is bound to; none = the operator's, for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// The workspace that it is bound to; none = all of the organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// What a key to be made shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewKey {
    /// What it is for.
    pub name: Option<String>,
    /// The organisation that it is bound to.
    pub organisation: Option<String>,
    /// The workspace that it is bound to.
    pub workspace: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// From when on it opens nothing.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Key {
    /// Returns whether the key opens anything: it was not revoked and has not expired.
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| expires_at > now)
    }

    /// Whether the key opens everything.
    pub fn opens_everything(&self, now: DateTime<Utc>) -> bool {
        self.is_active(now) && self.organisation.is_none() && self.scopes.contains(&Scope::Admin)
    }
}

impl Document {
    /// Adds a key of that text, which is kept nowhere.
    pub fn add_key(&mut self, text: &str, key: NewKey, now: DateTime<Utc>) -> Result<&Key> {
        if key.scopes.is_empty() {
            let all: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
            return Err(Error::invalid(format!("`scopes` is empty; name at least one of {}", all.join(", "))));
        }
        match (&key.organisation, &key.workspace) {
            (Some(organisation), workspace) => {
                let known = &self.organisation(organisation)?.workspaces;
                if let Some(workspace) = workspace.as_ref().filter(|workspace| !known.contains(*workspace)) {
                    return Err(no_workspace(organisation, workspace, known));
                }
            }
            (None, Some(_)) => {
                return Err(Error::invalid(
                    "`organisation` is missing; name the one that the key's workspace belongs to",
                ));
            }
            (None, None) => {}
        }
        key.name.as_deref().map_or(Ok(()), check_label)?;
        if let Some(expires_at) = key.expires_at.filter(|expires_at| *expires_at <= now) {
            return Err(Error::invalid(format!("`expires_at` is {expires_at}, which is past; name a moment to come")));
        }
        self.make_room_for_key(key.organisation.as_deref(), now)?;
        let sha256 = hash(text);
        let NewKey { name, organisation, workspace, scopes, expires_at } = key;
        let id = sha256[..12].to_owned();
        self.keys.push(Key {
            id,
            name,
            sha256,
            organisation,
            workspace,
            scopes,
            created_at: now,
            expires_at,
            revoked_at: None,
        });
        self.keys.last().ok_or_else(|| Error::internal("a key vanished"))
    }

    /// Refuses a key beyond those that may be active at once. Of the others the oldest are forgotten: they open nothing.
    fn make_room_for_key(&mut self, organisation: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        let is_near = |key: &Key| key.organisation.as_deref() == organisation;
        let count = |active: bool| self.keys.iter().filter(|key| is_near(key) && key.is_active(now) == active).count();
        if count(true) >= MOST_KEYS {
            let whose = organisation.map_or("the operator".to_owned(), |id| format!("organisation `{id}`"));
            return Err(Error::limit(format!(
                "{whose} has {MOST_KEYS} active keys; revoke some, or let them expire (`expires_in_days`)"
            )));
        }
        let mut surplus = count(false).saturating_sub(MOST_KEYS);
        self.keys.retain(|key| {
            let goes = surplus > 0 && is_near(key) && !key.is_active(now);
            surplus -= usize::from(goes);
            !goes
        });
        Ok(())
    }

    /// Revokes a key that `by` may manage. Revoking it again changes nothing.
    pub fn revoke_key(&mut self, id: &str, by: &Access, now: DateTime<Utc>) -> Result<&Key> {
        let key = self.keys.iter_mut().find(|key| key.id == id && by.reaches_key(key));
        let key = key.ok_or_else(|| Error::not_found(format!("key `{id}` does not exist")))?;
        key.revoked_at.get_or_insert(now);
        Ok(key)
    }
}
