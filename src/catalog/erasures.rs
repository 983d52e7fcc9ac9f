//! Erasures as data: what was asked for, what goes with it in the catalog itself, and the rule that follows. Pure.
//!
//! An entry stays for good, since a log that slept may bring back what was erased; it hides records while it is in force. When it
//! is done, its lists leave the document ([`super::aside`]).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::aside::Aside;
use super::document::{Document, IN_FORCE};
use super::limits::{MOST_ERASURES, MOST_IDS, MOST_NAME_BYTES};
use crate::error::{Error, Result};
use crate::plan::{Erased, Erasure, Rules, Terms};

/// Time that rows may be in the memory of a node after it could know of an erasure, ms: nodes look every few seconds, and flush.
const FLUSHED_WITHIN_MS: i64 = 60_000;

/// [`ErasureEntry::arrived_ms`] where nodes that do not know of the erasure yet may have rows in memory.
pub fn arrival(requested_at: DateTime<Utc>) -> i64 {
    requested_at.timestamp_millis().saturating_add(FLUSHED_WITHIN_MS)
}

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
    /// Files written up to this moment, ms since 1970-01-01, hold only records that had arrived when it was asked for: those are
    /// erased though they are dated later. 0 = `requested_at`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub arrived_ms: i64,
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
    /// The part that lies in an object of its own; none if all of it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aside: Option<Aside>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(moment: &i64) -> bool {
    *moment == 0
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

    /// Returns whether it was carried out and has been in force for long enough since.
    pub(super) fn is_done(&self, now: DateTime<Utc>) -> bool {
        !self.is_in_force(now)
    }

    /// The records that it names.
    pub(super) fn what(&self) -> &'static str {
        let by_ids = !self.ids.is_empty() || self.aside.is_some_and(|aside| aside.ids > 0);
        match (&self.user, by_ids) {
            (Some(_), _) => "user",
            (None, false) => "all",
            (None, true) => "ids",
        }
    }

    pub(super) fn rule(&self, gone: &HashSet<String>) -> Erasure {
        // Of an organisation that was deleted nothing may stay, whatever time its records claim.
        let until = match gone.contains(&self.organisation) {
            true => i64::MAX,
            false => self.requested_at.timestamp_micros(),
        };
        let what = match (&self.user, self.what()) {
            (Some(user), _) => Erased::User { user: user.clone(), until },
            (None, "all") => Erased::All { until },
            (None, _) => Erased::Ids(self.ids.iter().cloned().collect()),
        };
        Erasure {
            id: self.id.clone(),
            organisation: self.organisation.clone(),
            what,
            feedback: self.feedback.iter().cloned().collect(),
            arrived_ms: self.arrived_ms.max(self.requested_at.timestamp_millis()),
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
        // All of an organisation can always be erased.
        if user.is_some() || !ids.is_empty() {
            self.check_erasure(organisation, user.as_deref(), &ids, now)?;
        }
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
            arrived_ms: 0,
            requested_by: by.to_owned(),
            erased: 0,
            last_run_at: None,
            clean_before_ms: 0,
            aside: None,
        });
        self.erasures.last_mut().ok_or_else(|| Error::internal("an erasure vanished"))
    }

    /// Refuses an erasure beyond those that may be under way at once, or one that names too much.
    fn check_erasure(&self, organisation: &str, user: Option<&str>, ids: &[String], now: DateTime<Utc>) -> Result<()> {
        if ids.len() > MOST_IDS {
            return Err(Error::limit(format!(
                "`ids` names {} records; at most {MOST_IDS} at once: send the rest with further erasures",
                ids.len()
            )));
        }
        let (field, longest) = match user {
            Some(user) => ("user", user.len()),
            None => ("ids", ids.iter().map(String::len).max().unwrap_or(0)),
        };
        if longest > MOST_NAME_BYTES {
            return Err(Error::invalid(format!(
                "`{field}` has a name of {longest} bytes; no record has one of more than {MOST_NAME_BYTES}"
            )));
        }
        let open = self.erasures.iter().filter(|entry| entry.organisation == organisation && !entry.is_done(now));
        let remedy =
            "those that are asked for are done a day later; or erase by `user`, or `all`, what they have in common";
        if open.count() >= MOST_ERASURES {
            return Err(Error::limit(format!(
                "{MOST_ERASURES} erasures of organisation `{organisation}` are under way: {remedy}"
            )));
        }
        let more = ids.iter().map(|id| id.len() + 8).sum::<usize>() + user.map_or(0, str::len);
        self.check_room(organisation, more, "erasures", remedy)
    }
}

/// The rules of these erasures, also of those that are out of force.
pub(super) fn ever_erased(entries: &[ErasureEntry]) -> Rules {
    let erasures = entries.iter().map(|erasure| erasure.rule(&HashSet::new())).collect();
    Rules::new(Terms::without_plan(0), HashMap::new(), HashSet::new(), erasures, Vec::new())
}
