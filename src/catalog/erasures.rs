//! Erasures as data: the request, its effect on the catalog itself, and the resulting rule. Pure.
//!
//! An entry is kept for good, because a write-ahead log of a stopped node may bring erased records
//! back; the entry hides records while it is in force. The lists of a completed erasure leave the
//! document ([`super::archived_erasures`]).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Duration, Utc};

use super::limits::{MAX_ERASURES, MAX_IDS, MAX_NAME_BYTES};
use super::model::{Document, ErasureEntry};
use crate::error::{Error, Result};
use crate::plan::{Erased, Erasure, Rules, Terms};

/// Minimum time that an erasure or a retention change stays in force after its request, so that it
/// also applies to records that other nodes still hold.
pub(super) const IN_FORCE: Duration = Duration::hours(24);
/// Longest time that rows stay in the memory of a node after the node could know of an erasure, in
/// ms. Nodes reload the catalog every few seconds and then flush.
const FLUSHED_WITHIN_MS: i64 = 60_000;

/// Returns [`ErasureEntry::arrived_ms`] for the case that nodes without knowledge of the erasure
/// may have rows in memory.
pub fn arrival(requested_at: DateTime<Utc>) -> i64 {
    requested_at.timestamp_millis().saturating_add(FLUSHED_WITHIN_MS)
}

/// Selects the records of an organisation to erase.
#[derive(Clone, Debug, PartialEq)]
pub enum ErasureSelector {
    /// All records at the time of the request.
    All,
    /// Records of an end user at the time of the request.
    User(String),
    /// Records with these ids.
    Ids(Vec<String>),
}

impl ErasureEntry {
    /// Returns true if the erasure may still have to hide records.
    pub(super) fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        now - self.requested_at < IN_FORCE
            || self.clean_before_ms < (self.requested_at + IN_FORCE).timestamp_millis()
    }

    /// Returns true if the erasure was carried out and has been in force for long enough since.
    pub(super) fn is_done(&self, now: DateTime<Utc>) -> bool {
        !self.is_in_force(now)
    }

    /// Returns the name of the kind of selection.
    pub(super) fn what(&self) -> &'static str {
        let by_ids = !self.ids.is_empty() || self.aside.is_some_and(|aside| aside.ids > 0);
        match (&self.user, by_ids) {
            (Some(_), _) => "user",
            (None, false) => "all",
            (None, true) => "ids",
        }
    }

    pub(super) fn rule(&self, gone: &HashSet<String>) -> Erasure {
        // Nothing of a deleted organisation may stay, whatever time its records claim.
        let until = if gone.contains(&self.organisation) {
            i64::MAX
        } else {
            self.requested_at.timestamp_micros()
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
    /// Adds an erasure. The organisation need not be in the catalog, because records may arrive
    /// before it is created. The caller adds the ids of the affected feedback to the returned
    /// entry.
    pub fn erase(
        &mut self,
        id: &str,
        organisation: &str,
        which: ErasureSelector,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<&mut ErasureEntry> {
        let (user, ids) = match which {
            ErasureSelector::All => (None, Vec::new()),
            ErasureSelector::User(user) if user.is_empty() => {
                return Err(Error::invalid("`user` is empty; name an end user"));
            }
            ErasureSelector::User(user) => (Some(user), Vec::new()),
            ErasureSelector::Ids(ids) if ids.is_empty() || ids.iter().any(String::is_empty) => {
                return Err(Error::invalid(
                    "`ids` names no record; give the ids of those to erase",
                ));
            }
            ErasureSelector::Ids(ids) => (None, ids),
        };
        // Erasing a whole organisation is never refused.
        if user.is_some() || !ids.is_empty() {
            self.check_erasure(organisation, user.as_deref(), &ids, now)?;
        }
        match &user {
            Some(user) => self.forget_filters(organisation, user),
            None if ids.is_empty() => {
                // Export jobs and saved filters may name any user.
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

    /// Refuses an erasure that names too much, or that exceeds the number of erasures under way.
    fn check_erasure(
        &self,
        organisation: &str,
        user: Option<&str>,
        ids: &[String],
        now: DateTime<Utc>,
    ) -> Result<()> {
        if ids.len() > MAX_IDS {
            return Err(Error::limit(format!(
                "`ids` names {} records; at most {MAX_IDS} at once: send the rest with further erasures",
                ids.len()
            )));
        }
        let (field, longest) = match user {
            Some(user) => ("user", user.len()),
            None => ("ids", ids.iter().map(String::len).max().unwrap_or(0)),
        };
        if longest > MAX_NAME_BYTES {
            return Err(Error::invalid(format!(
                "`{field}` has a name of {longest} bytes; names of records have at most {MAX_NAME_BYTES} bytes"
            )));
        }
        let open = self
            .erasures
            .iter()
            .filter(|entry| entry.organisation == organisation && !entry.is_done(now));
        let remedy = "wait a day until earlier erasures are done, or erase by `user` or with `all`";
        if open.count() >= MAX_ERASURES {
            return Err(Error::limit(format!(
                "{MAX_ERASURES} erasures of organisation `{organisation}` are under way: {remedy}"
            )));
        }
        let more = ids.iter().map(|id| id.len() + 8).sum::<usize>() + user.map_or(0, str::len);
        self.check_room(organisation, more, "erasures", remedy)
    }
}

/// Returns the rules of these erasures, including those that are no longer in force.
pub(super) fn ever_erased(entries: &[ErasureEntry]) -> Rules {
    let erasures = entries.iter().map(|erasure| erasure.rule(&HashSet::new())).collect();
    Rules::new(Terms::without_plan(0), HashMap::new(), HashSet::new(), erasures, Vec::new())
}
