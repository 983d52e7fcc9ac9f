//! Triggers flushes: by the bytes and days of the rows in memory, and to clear the log.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::config::Config;
use crate::limits::DAYS;

/// Bounds of the rows in memory, and the time at which the log is cleared.
#[derive(Debug)]
pub(super) struct FlushTrigger {
    pub(super) wanted: Arc<Notify>,
    pub(super) max_bytes: u64,
    pub(super) max_micros: i64,
    /// Days of rows at which the memtables end.
    pub(super) max_days: usize,
    /// Time at which the log is to be cleared of data that it need not, or must not, hold any
    /// longer, µs.
    pub(super) clear_log_at: i64,
    now: fn() -> DateTime<Utc>,
}

impl FlushTrigger {
    pub(super) fn new(config: &Config, wanted: Arc<Notify>, now: fn() -> DateTime<Utc>) -> Self {
        Self {
            wanted,
            max_bytes: config.flush_bytes,
            max_micros: micros(config.flush_seconds),
            max_days: DAYS,
            clear_log_at: i64::MAX,
            now,
        }
    }

    pub(super) fn notify_if_full(&self, live_bytes: u64) {
        if live_bytes >= self.max_bytes {
            self.wanted.notify_one();
        }
    }

    /// Schedules a flush that clears the log within so many µs.
    pub(super) fn clear_log_within(&mut self, micros: i64) {
        self.clear_log_at =
            self.clear_log_at.min((self.now)().timestamp_micros().saturating_add(micros));
    }

    /// Schedules a flush that clears the log as soon as rows would be flushed because of their age.
    pub(super) fn clear_log_soon(&mut self) {
        self.clear_log_within(self.max_micros);
    }
}

/// Converts a setting in seconds to µs.
pub(super) fn micros(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}
