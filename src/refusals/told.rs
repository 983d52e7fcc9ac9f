//! Refusals in the server's own log: one line for a source and reason every few seconds, which says how many there were.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::Source;
use crate::record::json::Reason;

/// How often a line is written for a source and reason.
const EVERY: TimeDelta = TimeDelta::seconds(10);

/// What was logged, and what is still to be.
#[derive(Debug, Default)]
pub(super) struct Told {
    kinds: BTreeMap<(Source, Reason), Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    last: Option<DateTime<Utc>>,
    untold: u64,
}

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) source: Source,
    pub(super) reason: Reason,
    /// Refusals since the last line.
    pub(super) refused: u64,
}

impl Told {
    pub(super) fn count(&mut self, source: Source, reason: Reason, count: u64) {
        self.kinds.entry((source, reason)).or_default().untold += count;
    }

    /// The lines that are to be written now.
    pub(super) fn due(&mut self, now: DateTime<Utc>) -> Vec<Line> {
        let due = self.kinds.iter_mut().filter_map(|((source, reason), kind)| {
            // A clock that was set back does not silence the log.
            let waits = kind.last.is_some_and(|last| (TimeDelta::zero()..EVERY).contains(&(now - last)));
            if kind.untold == 0 || waits {
                return None;
            }
            kind.last = Some(now);
            Some(Line { source: *source, reason: *reason, refused: std::mem::take(&mut kind.untold) })
        });
        due.collect()
    }
}

impl Line {
    /// Logs it. Neither content nor names of fields stand in it, for clients choose those.
    pub(super) fn write(&self) {
        let Self { source, reason, refused } = *self;
        tracing::info!(%source, %reason, refused, "refused what clients sent; `gatelog refusals` lists it");
    }
}
