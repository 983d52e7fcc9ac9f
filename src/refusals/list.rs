//! The list of refusals of a node, its counts and its log lines.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use super::book::Book;
use super::log_lines::{self, LogLines};
use super::refusal::{Refusal, Source};
use super::shown;
use crate::catalog::State;
use crate::ingest::{DEFAULT_ORGANISATION, Policy, Rejection};
use crate::record::json::{FieldError, Reason, Seen};

/// Most refusals of one call that get an entry each. The others share one entry for each reason.
const SINGLE_ENTRIES: usize = 20;
/// Longest text of an entry, in characters.
pub(super) const TEXT_CHARS: usize = 300;

/// Sender of refused data, and the route that it used.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The organisation that the sender's key is bound to.
    pub organisation: Option<String>,
    /// The workspace that the key is bound to.
    pub workspace: Option<String>,
    /// Source of the data.
    pub source: Source,
    /// Method and route, or the command.
    pub route: Arc<str>,
}

impl Sender {
    /// Returns the same sender with another source.
    pub fn with(&self, source: impl Into<Source>) -> Self {
        Self { source: source.into(), ..self.clone() }
    }
}

/// Description of a refusal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refused {
    /// Reason of the refusal.
    pub reason: Reason,
    /// The refused field. Empty if the refusal is about the whole record or request.
    pub field: String,
    /// Expected value, as in the response.
    pub message: String,
    /// Index of the record in the request, from 0.
    pub record: Option<u64>,
    /// Number of records that were refused like this.
    pub count: u64,
    /// Known properties of the record.
    pub seen: Seen,
}

impl Refused {
    /// Creates the refusal of `count` records for one reason, without further details.
    pub fn many(reason: Reason, message: impl Into<String>, count: u64) -> Self {
        Self { reason, message: message.into(), count, ..Self::default() }
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        let Rejection { record, field, expected, reason, seen, .. } = rejection;
        let seen = seen.map(|seen| *seen).unwrap_or_default();
        Self {
            reason,
            message: format!("expected {expected}"),
            field,
            record: Some(record),
            count: 1,
            seen,
        }
    }
}

impl From<FieldError> for Refused {
    fn from(error: FieldError) -> Self {
        let FieldError { field, expected, reason, seen, .. } = error;
        let seen = seen.map(|seen| *seen).unwrap_or_default();
        Self {
            reason,
            message: format!("expected {expected}"),
            field,
            record: None,
            count: 1,
            seen,
        }
    }
}

/// Refusals of a node.
#[derive(Debug)]
pub struct Refusals {
    pub(super) now: fn() -> DateTime<Utc>,
    policy: Arc<Policy>,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) book: Book,
    log_lines: LogLines,
    counts: BTreeMap<(Source, Reason), u64>,
    /// Refusals that count as refused records: not those of whole requests.
    records: u64,
    pub(super) saved: Saved,
}

/// State of this node's file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saved {
    pub(super) changes: u64,
    pub(super) at: Option<DateTime<Utc>>,
}

/// Figures for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Refusals since the start.
    pub counts: BTreeMap<(Source, Reason), u64>,
    /// Refusals among them that rejected a record for its content.
    pub records: u64,
    /// Entries in the list.
    pub entries: u64,
    /// Memory that the entries take.
    pub bytes: u64,
}

impl Refusals {
    /// Creates an empty list. The policy redacts the texts of entries.
    pub fn new(now: fn() -> DateTime<Utc>, policy: Arc<Policy>) -> Self {
        Self { now, policy, inner: Mutex::default() }
    }

    /// Notes that records, or parts of them, were refused for their content.
    pub fn records(&self, sender: &Sender, refused: impl IntoIterator<Item = impl Into<Refused>>) {
        let refused: Vec<Refused> = refused.into_iter().map(Into::into).collect();
        let records = refused.iter().map(|refused| refused.count).sum();
        self.note(sender, refused, records);
    }

    /// Notes another refusal: of a whole request, or of records for which there is no room.
    pub fn request(&self, sender: &Sender, refused: Refused) {
        self.note(sender, vec![refused], 0);
    }

    /// Counts, logs and lists refusals. Every refusal goes through here.
    fn note(&self, sender: &Sender, refused: Vec<Refused>, records: u64) {
        let now = (self.now)();
        let entries =
            refused.into_iter().filter(|one| one.count > 0).map(|one| self.entry(sender, one, now));
        let entries: Vec<Refusal> = entries.collect();
        let due = {
            let mut inner = self.inner.lock();
            inner.records += records;
            for entry in &entries {
                *inner.counts.entry((entry.source, entry.reason)).or_default() += entry.count;
                inner.log_lines.count(entry.source, entry.reason, entry.count);
            }
            few(entries).into_iter().for_each(|entry| inner.book.add(entry));
            inner.log_lines.due(now)
        };
        due.iter().for_each(log_lines::Line::write);
    }

    /// Logs the lines that have become due since the last refusal.
    pub fn log_due(&self) {
        let due = self.inner.lock().log_lines.due((self.now)());
        due.iter().for_each(log_lines::Line::write);
    }

    /// Returns the current figures.
    pub fn figures(&self) -> Figures {
        let inner = self.inner.lock();
        let (entries, bytes) = inner.book.size();
        Figures { counts: inner.counts.clone(), records: inner.records, entries, bytes }
    }

    /// Returns the entries, in no particular order.
    pub fn entries(&self) -> Vec<Refusal> {
        self.inner.lock().book.entries().cloned().collect()
    }

    /// Drops entries that are too old, or that a change of the catalog does not let it keep.
    pub fn forget(&self, state: &State) {
        let now = (self.now)();
        let mut inner = self.inner.lock();
        let kept = shown::Kept::new(state, now);
        inner.book.retain(|entry| kept.keep(entry));
    }

    fn entry(&self, sender: &Sender, refused: Refused, now: DateTime<Utc>) -> Refusal {
        let Refused { reason, field, message, record, count, seen } = refused;
        let organisation = sender.organisation.clone().or(seen.organisation);
        // Without a known organisation nobody may read the excerpt.
        let excerpt = seen.excerpt.filter(|_| organisation.is_some());
        let text = |text: &str| plain(&self.policy.redacted(text));
        Refusal {
            at: now,
            organisation: organisation.unwrap_or_else(|| DEFAULT_ORGANISATION.to_owned()),
            workspace: sender.workspace.clone().or(seen.workspace),
            source: sender.source,
            route: Arc::clone(&sender.route),
            reason,
            field: text(&field),
            message: text(&message),
            record,
            count,
            excerpt: excerpt.as_deref().map(plain),
        }
    }
}

/// Returns the entries of one call: the first ones as they are, the others merged by organisation,
/// workspace and reason.
fn few(mut entries: Vec<Refusal>) -> Vec<Refusal> {
    let others = entries.split_off(entries.len().min(SINGLE_ENTRIES));
    let mut joined: BTreeMap<(String, Option<String>, Reason), Refusal> = BTreeMap::new();
    for entry in others {
        let entry = Refusal { record: None, excerpt: None, ..entry };
        match joined.entry((entry.organisation.clone(), entry.workspace.clone(), entry.reason)) {
            Entry::Vacant(place) => drop(place.insert(entry)),
            Entry::Occupied(mut all) => all.get_mut().join(&entry),
        }
    }
    entries.extend(joined.into_values());
    entries
}

/// Shortens a text and replaces control characters, which a terminal might interpret.
fn plain(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(TEXT_CHARS)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if text.chars().nth(TEXT_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
