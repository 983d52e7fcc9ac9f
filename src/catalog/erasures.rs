//! Erasures as data: what was asked for, what goes with it in the catalog itself, and the rule that follows. Pure.
//!
//! An entry stays for good, since a log that slept may bring back what was erased; it hides records while it is in force.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::document::{Document, IN_FORCE};
use crate::error::{Error, Result};
use crate::plan::{Erased, Erasure, Rules, Terms};

/// One erasure: what was asked for, by whom, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasureEntry {
    /// Names the erasure.
    pub id: String,
    /// The organisation whose records are erased.
    pub organisation: String,
    /// The end user whose records are erased; none = not by user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The records that are erased; empty = not by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Ids of the feedback that goes with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<String>,
    /// Records created up to this moment are erased; those named by id whenever they were created.
    pub requested_at: DateTime<Utc>,
    /// Id of the key that asked, or `cli`.
    pub requested_by: String,
    /// Records that were taken out of files so far.
    #[serde(default)]
    pub erased: u64,
    /// When the files had been gone through for the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_at: Option<DateTime<Utc>>,
    /// Files written before this moment hold none of them any more, ms since 1970-01-01.
    #[serde(default)]
    pub clean_before_ms: i64,
}

/// Which records of an organisation to erase.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// All that there are now.
    All,
    /// Those of an end user that there are now.
    User(String),
    /// Those of these ids.
    Ids(Vec<String>),
}

impl ErasureEntry {
    /// Whether records may still have to be hidden because of it.
    pub(super) fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        now - self.requested_at < IN_FORCE || self.clean_before_ms < (self.requested_at + IN_FORCE).timestamp_millis()
    }

    pub(super) fn rule(&self, gone: &HashSet<String>) -> Erasure {
        // Of an organisation that was deleted nothing may stay, whatever time its records claim.
        let until = match gone.contains(&self.organisation) {
            true => i64::MAX,
            false => self.requested_at.timestamp_micros(),
        };
        let what = match (&self.user, self.ids.is_empty()) {
            (Some(user), _) => Erased::User { user: user.clone(), until },
            (None, true) => Erased::All { until },
            (None, false) => Erased::Ids(self.ids.iter().cloned().collect()),
        };
        Erasure {
            id: self.id.clone(),
            organisation: self.organisation.clone(),
            what,
            feedback: self.feedback.iter().cloned().collect(),
            clean_before_ms: self.clean_before_ms,
        }
    }
}

impl Document {
    /// Asks for records to be erased. The organisation need not be in the catalog, since records may come before it. Which
    /// feedback goes with them the caller says in the entry.
    pub fn erase(
        &mut self,
        id: &str,
        organisation: &str,
        which: Which,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<&mut ErasureEntry> {
        let (user, ids) = match which {
            Which::All => (None, Vec::new()),
            Which::User(user) if user.is_empty() => return Err(Error::invalid("`user` is empty; name an end user")),
            Which::User(user) => (Some(user), Vec::new()),
            Which::Ids(ids) if ids.is_empty() || ids.iter().any(String::is_empty) => {
                return Err(Error::invalid("`ids` names no record; give the ids of those to erase"));
            }
            Which::Ids(ids) => (None, ids),
        };
        match &user {
            Some(user) => self.forget_filters(organisation, user),
            None if ids.is_empty() => {
                // They may name anybody.
                self.drop_exports(organisation);
                self.saved_filters.remove(organisation);
            }
            None => {}
        }
        self.erase_exports(organisation, user.as_deref());
        self.erasures.push(ErasureEntry {
            id: id.to_owned(),
            organisation: organisation.to_owned(),
            user,
            ids,
            feedback: Vec::new(),
            requested_at: now,
            requested_by: by.to_owned(),
            erased: 0,
            last_run_at: None,
            clean_before_ms: 0,
        });
        self.erasures.last_mut().ok_or_else(|| Error::internal("an erasure vanished"))
    }

    /// Everything that was ever erased, also what is out of force: a node that slept may bring it back.
    pub fn ever_erased(&self) -> Rules {
        let erasures = self.erasures.iter().map(|erasure| erasure.rule(&HashSet::new())).collect();
        Rules::new(Terms::without_plan(0), HashMap::new(), HashSet::new(), erasures, Vec::new())
    }
}
