//! API keys as data: creation, reach and revocation. Pure. The document keeps only the hash of a
//! key's text.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::access::{Access, Scope, hash};
use super::document::check_label;
use super::known::no_workspace;
use super::limits::MAX_KEYS;
use super::model::{Document, Key};
use crate::error::{Error, Result};

/// Properties of a key to create.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewKey {
    /// Purpose of the key.
    pub name: Option<String>,
    /// The organisation that the key is bound to.
    pub organisation: Option<String>,
    /// The workspace that the key is bound to.
    pub workspace: Option<String>,
    /// Permissions of the key.
    pub scopes: BTreeSet<Scope>,
    /// Time from which the key opens nothing.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Key {
    /// Returns true if the key opens anything: it was not revoked and has not expired.
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| expires_at > now)
    }

    /// Returns true if the key opens everything.
    pub fn opens_everything(&self, now: DateTime<Utc>) -> bool {
        self.is_active(now) && self.organisation.is_none() && self.scopes.contains(&Scope::Admin)
    }
}

impl Access {
    /// Returns true if a key reaches no further than this access.
    pub fn reaches_key(&self, key: &Key) -> bool {
        self.organisation.as_ref().is_none_or(|own| key.organisation.as_ref() == Some(own))
            && self.workspace.as_ref().is_none_or(|own| key.workspace.as_ref() == Some(own))
    }
}

impl Document {
    /// Adds a key with the given text, which is stored nowhere.
    pub fn add_key(&mut self, text: &str, key: NewKey, now: DateTime<Utc>) -> Result<&Key> {
        if key.scopes.is_empty() {
            let all: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
            return Err(Error::invalid(format!(
                "`scopes` is empty; name at least one of {}",
                all.join(", ")
            )));
        }
        match (&key.organisation, &key.workspace) {
            (Some(organisation), workspace) => {
                let known = &self.organisation(organisation)?.workspaces;
                if let Some(workspace) =
                    workspace.as_ref().filter(|workspace| !known.contains(*workspace))
                {
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
            return Err(Error::invalid(format!(
                "`expires_at` is {expires_at}, which is past; name a time in the future"
            )));
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

    /// Refuses a key if the maximum of active keys is reached. Removes the oldest inactive keys
    /// beyond that maximum, since they open nothing.
    fn make_room_for_key(&mut self, organisation: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        let is_near = |key: &Key| key.organisation.as_deref() == organisation;
        let count = |active: bool| {
            self.keys.iter().filter(|key| is_near(key) && key.is_active(now) == active).count()
        };
        if count(true) >= MAX_KEYS {
            let whose =
                organisation.map_or("the operator".to_owned(), |id| format!("organisation `{id}`"));
            return Err(Error::limit(format!(
                "{whose} has {MAX_KEYS} active keys; revoke some, or let them expire (`expires_in_days`)"
            )));
        }
        let mut surplus = count(false).saturating_sub(MAX_KEYS);
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
