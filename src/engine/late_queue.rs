//! Late parts on their way from a flush to their stored records.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::parts::LatePart;

/// Attempts to add parts to a record that cannot take them.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// Late parts whose records are in the table.
#[derive(Debug, Default)]
pub(super) struct LateQueue {
    parts: Mutex<Vec<LatePart>>,
    pub(super) wanted: Notify,
    /// Held while parts are added to their records.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Failed attempts to add parts, by their record.
    attempts: Mutex<HashMap<u128, u32>>,
}

impl LateQueue {
    /// Replaces the parts by those of the newest flush, which include all that are still waiting.
    pub(super) fn replace(&self, parts: Vec<LatePart>) {
        if !parts.is_empty() {
            *self.parts.lock() = parts;
            self.wanted.notify_one();
        }
    }

    pub(super) fn take(&self) -> Vec<LatePart> {
        std::mem::take(&mut *self.parts.lock())
    }

    /// Counts a failed attempt. Returns false, and forgets the attempts, if it was the last one.
    pub(super) fn may_try_again(&self, key: u128) -> bool {
        let mut attempts = self.attempts.lock();
        let made = attempts.entry(key).or_default();
        *made += 1;
        if *made < MAX_ATTEMPTS {
            return true;
        }
        attempts.remove(&key);
        false
    }

    pub(super) fn forget_attempts(&self, parts: &[LatePart]) {
        let mut attempts = self.attempts.lock();
        for part in parts {
            attempts.remove(&part.key);
        }
    }
}
