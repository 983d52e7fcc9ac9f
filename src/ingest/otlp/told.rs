//! What log events said of calls whose spans have not come yet.
//!
//! Exporters send spans and log records apart. An event comes before the end of its span, and mostly is sent before it;
//! it waits here, in memory, for [`WAIT_SECONDS`]. What comes first is let go first where there is no room. Whose key
//! sent an event is a part of what it is found by.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};

use super::Content;
use crate::ingest::Owner;

/// How long an event waits: longer than any exporter's interval.
const WAIT_SECONDS: i64 = 120;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 400;

/// Owner, trace id, span id.
type Key = (Option<String>, Option<String>, String, String);

/// The events that wait.
#[derive(Debug)]
pub struct Told {
    waiting: HashMap<Key, Content>,
    /// In the order of arrival.
    arrived: VecDeque<(DateTime<Utc>, Key)>,
    bytes: usize,
    limit: usize,
}

fn key(owner: &Owner, trace_id: &str, span_id: &str) -> Key {
    (owner.organisation.clone(), owner.workspace.clone(), trace_id.to_owned(), span_id.to_owned())
}

impl Told {
    /// Room for so many bytes of text.
    pub fn new(limit: usize) -> Self {
        Self { waiting: HashMap::new(), arrived: VecDeque::new(), bytes: 0, limit }
    }

    /// Lets an event wait, after those of the same span that wait already.
    pub fn put(&mut self, owner: &Owner, trace_id: &str, span_id: &str, content: Content, now: DateTime<Utc>) {
        let key = key(owner, trace_id, span_id);
        self.arrived.push_back((now, key.clone()));
        self.bytes += content.bytes() + ENTRY_BYTES;
        self.waiting.entry(key).or_default().extend(content);
        let old = now - TimeDelta::seconds(WAIT_SECONDS);
        while self.arrived.front().is_some_and(|(came, _)| *came < old || self.bytes > self.limit) {
            if let Some((_, key)) = self.arrived.pop_front() {
                self.bytes = self.bytes.saturating_sub(ENTRY_BYTES);
                self.remove(&key);
            }
        }
    }

    /// What was said of a span. It goes on waiting, for an exporter may have to send the span again.
    pub fn get(&self, owner: &Owner, trace_id: &str, span_id: &str) -> Option<Content> {
        self.waiting.get(&key(owner, trace_id, span_id)).cloned()
    }

    fn remove(&mut self, key: &Key) {
        if let Some(content) = self.waiting.remove(key) {
            self.bytes = self.bytes.saturating_sub(content.bytes());
        }
    }
}
