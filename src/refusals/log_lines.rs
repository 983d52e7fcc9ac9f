//! Reports refusals in the server's own log: at most one line for each source and reason every few
//! seconds, with the number of refusals.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::refusal::Source;
use crate::record::json::Reason;

/// Interval between two lines for the same source and reason.
const EVERY: TimeDelta = TimeDelta::seconds(10);

/// State of the log: last lines, and refusals that have not been logged.
#[derive(Debug, Default)]
pub(super) struct LogLines {
    kinds: BTreeMap<(Source, Reason), Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    last: Option<DateTime<Utc>>,
    unreported: u64,
}

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) source: Source,
    pub(super) reason: Reason,
    /// Refusals since the last line.
    pub(super) refused: u64,
}

impl LogLines {
    pub(super) fn count(&mut self, source: Source, reason: Reason, count: u64) {
        self.kinds.entry((source, reason)).or_default().unreported += count;
    }

    /// Returns the lines that are due.
    pub(super) fn due(&mut self, now: DateTime<Utc>) -> Vec<Line> {
        let due = self.kinds.iter_mut().filter_map(|((source, reason), kind)| {
            // A clock that was set back must not silence the log.
            let waits =
                kind.last.is_some_and(|last| (TimeDelta::zero()..EVERY).contains(&(now - last)));
            if kind.unreported == 0 || waits {
                return None;
            }
            kind.last = Some(now);
            Some(Line {
                source: *source,
                reason: *reason,
                refused: std::mem::take(&mut kind.unreported),
            })
        });
        due.collect()
    }
}

impl Line {
    /// Logs the line. It contains neither content nor field names, because clients choose those.
    pub(super) fn write(&self) {
        let Self { source, reason, refused } = *self;
        tracing::info!(%source, %reason, refused, "refused data from clients; `gatelog refusals` lists the refusals");
    }
}
