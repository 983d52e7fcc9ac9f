//! Decides which entries are kept, and what of them a key may see. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use super::{Refusal, Source};
use crate::catalog::{Access, Scope, State};
use crate::plan::Rules;
use crate::record::json::Reason;

/// Entries are kept so long, and no longer than records of their organisation.
const KEPT: TimeDelta = TimeDelta::days(7);
/// Most entries of one answer.
pub const MOST_SHOWN: u64 = 1_000;

/// What is left of entries under a state of the catalog.
pub(super) struct Kept {
    now: DateTime<Utc>,
    rules: Arc<Rules>,
    erased: HashMap<String, Erased>,
}

/// Until when entries of an organisation are erased.
#[derive(Default)]
struct Erased {
    /// Altogether.
    all: Option<DateTime<Utc>>,
    /// But for what says nothing of anybody: an excerpt may be of the records that were erased.
    excerpts: Option<DateTime<Utc>>,
}

impl Kept {
    pub(super) fn of(state: &State, now: DateTime<Utc>) -> Self {
        let mut erased: HashMap<String, Erased> = HashMap::new();
        for entry in &state.document.erasures {
            let of = erased.entry(entry.organisation.clone()).or_default();
            let is_all = entry.user.is_none() && entry.ids.is_empty();
            let until = if is_all { &mut of.all } else { &mut of.excerpts };
            *until = (*until).max(Some(entry.requested_at));
        }
        Self { now, rules: Arc::clone(&state.rules), erased }
    }

    /// Returns whether an entry is kept; takes out of it what is not.
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

/// Which entries are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Of that organisation.
    pub organisation: Option<String>,
    /// Of that workspace.
    pub workspace: Option<String>,
    /// Of that source.
    pub source: Option<Source>,
    /// For that reason.
    pub reason: Option<Reason>,
}

/// An entry as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// When, RFC 3339.
    pub created_at: String,
    /// The organisation.
    pub organisation_id: String,
    /// The workspace, where it is known.
    pub workspace_slug: Option<String>,
    /// What the client used.
    pub source: Source,
    /// Method and route, or the command.
    pub route: Arc<str>,
    /// The reason.
    pub reason: Reason,
    /// The field; null where it is about the whole.
    pub field: Option<String>,
    /// What was expected.
    pub message: String,
    /// Which record of the request, from 0.
    pub record: Option<u64>,
    /// How many refusals it stands for.
    pub count: u64,
    /// The names of the record's fields, the refused one first.
    pub excerpt: Option<String>,
}

/// The entries that a key may see and that are asked for, newest first.
pub fn shown(entries: Vec<Refusal>, ask: &Ask, access: &Access, state: &State, now: DateTime<Utc>) -> Vec<Shown> {
    let kept = Kept::of(state, now);
    let denied = state.document.denied(access.organisation.as_deref(), access.workspace.as_deref());
    // What may not be exported may stand in an excerpt, whichever field that is of.
    let reads = access.may(Scope::Read) && denied.fields().is_empty();
    let mut entries = entries;
    // Of one moment the later one first.
    entries.reverse();
    entries.retain_mut(|entry| is_seen(entry, access) && ask.names(entry) && kept.keep(entry));
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
    entries.into_iter().map(|entry| Shown::of(entry, reads)).collect()
}

/// Returns whether a key reaches an entry. One whose workspace is not known is its organisation's alone.
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
    fn of(entry: Refusal, reads: bool) -> Self {
        let Refusal { at, organisation, workspace, source, route, reason, field, message, record, count, excerpt } =
            entry;
        Self {
            created_at: at.to_rfc3339_opts(SecondsFormat::Millis, true),
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
