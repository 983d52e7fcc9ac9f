//! Decides which refusals are kept, and which parts of them a key may see. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::refusal::{Refusal, Source};
use crate::catalog::{Access, Scope, State};
use crate::plan::Rules;
use crate::record::json::Reason;
use crate::time;

/// Longest time that entries are kept. Records of their organisation may have a shorter retention,
/// which then applies.
const KEPT: TimeDelta = TimeDelta::days(7);
/// Most entries in one response.
pub const MAX_SHOWN: u64 = 1_000;

/// Decides which entries are kept under a state of the catalog.
pub(super) struct Kept {
    now: DateTime<Utc>,
    rules: Arc<Rules>,
    erased: HashMap<String, Erased>,
}

/// Times up to which entries of an organisation are erased.
#[derive(Default)]
struct Erased {
    /// Time up to which whole entries are erased.
    all: Option<DateTime<Utc>>,
    /// Time up to which excerpts are erased: they may quote the erased records.
    excerpts: Option<DateTime<Utc>>,
}

impl Kept {
    pub(super) fn new(state: &State, now: DateTime<Utc>) -> Self {
        let mut erased: HashMap<String, Erased> = HashMap::new();
        for entry in &state.document.erasures {
            let of = erased.entry(entry.organisation.clone()).or_default();
            let is_all = entry.user.is_none() && entry.ids.is_empty();
            let until = if is_all { &mut of.all } else { &mut of.excerpts };
            *until = (*until).max(Some(entry.requested_at));
        }
        Self { now, rules: Arc::clone(&state.rules), erased }
    }

    /// Returns true if an entry is kept. Removes the parts of it that are not kept.
    pub(super) fn keep(&self, entry: &mut Refusal) -> bool {
        let seen_since = self.rules.seen_since(&entry.organisation, self.now.timestamp_micros());
        let is_old = entry.at < self.now - KEPT || entry.at.timestamp_micros() < seen_since;
        if is_old || self.rules.is_gone(&entry.organisation) {
            return false;
        }
        let Some(erased) = self.erased.get(&entry.organisation) else { return true };
        if erased.excerpts.is_some_and(|until| entry.at <= until) {
            entry.excerpt = None;
        }
        erased.all.is_none_or(|until| entry.at > until)
    }
}

/// Selection of entries in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Entries of this organisation.
    pub organisation: Option<String>,
    /// Entries of this workspace.
    pub workspace: Option<String>,
    /// Entries of this source.
    pub source: Option<Source>,
    /// Entries with this reason.
    pub reason: Option<Reason>,
}

/// An entry in API responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Time of the refusal, RFC 3339.
    pub created_at: String,
    /// The organisation.
    pub organisation_id: String,
    /// The workspace, if it is known.
    pub workspace_slug: Option<String>,
    /// Source of the data.
    pub source: Source,
    /// Method and route, or the command.
    pub route: Arc<str>,
    /// Reason of the refusal.
    pub reason: Reason,
    /// The refused field; null if the refusal is about the whole record or request.
    pub field: Option<String>,
    /// Expected value.
    pub message: String,
    /// Index of the record in the request, from 0.
    pub record: Option<u64>,
    /// Number of refusals that the entry stands for.
    pub count: u64,
    /// Field names of the record, the refused one first.
    pub excerpt: Option<String>,
}

/// Returns the selected entries that a key may see, newest first.
pub fn shown(
    entries: Vec<Refusal>,
    ask: &Ask,
    access: &Access,
    state: &State,
    now: DateTime<Utc>,
) -> Vec<Shown> {
    let kept = Kept::new(state, now);
    let denied = state.document.denied(access.organisation.as_deref(), access.workspace.as_deref());
    // An excerpt may contain a field that may not be exported, whichever field the refusal is
    // about.
    let reads = access.may(Scope::Read) && denied.fields().is_empty();
    let mut entries = entries;
    // Puts the later one of two entries with the same time first.
    entries.reverse();
    entries.retain_mut(|entry| is_seen(entry, access) && ask.names(entry) && kept.keep(entry));
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
    entries.into_iter().map(|entry| Shown::new(entry, reads)).collect()
}

/// Returns true if a key reaches an entry. An entry without a known workspace is visible only to
/// keys for the whole organisation.
fn is_seen(entry: &Refusal, access: &Access) -> bool {
    access.reaches(&entry.organisation)
        && access.workspace.as_ref().is_none_or(|own| entry.workspace.as_ref() == Some(own))
}

impl Ask {
    fn names(&self, entry: &Refusal) -> bool {
        self.organisation.as_ref().is_none_or(|asked| *asked == entry.organisation)
            && self.workspace.as_ref().is_none_or(|asked| entry.workspace.as_ref() == Some(asked))
            && self.source.is_none_or(|asked| asked == entry.source)
            && self.reason.is_none_or(|asked| asked == entry.reason)
    }
}

impl Shown {
    fn new(entry: Refusal, reads: bool) -> Self {
        let Refusal {
            at,
            organisation,
            workspace,
            source,
            route,
            reason,
            field,
            message,
            record,
            count,
            excerpt,
        } = entry;
        Self {
            created_at: time::millis(at),
            organisation_id: organisation,
            workspace_slug: workspace,
            source,
            route,
            reason,
            field: (!field.is_empty()).then_some(field),
            message,
            record,
            count,
            excerpt: excerpt.filter(|_| reads),
        }
    }
}
