//! Bytes of parts, in total and by organisation, so that an organisation with many parts uses up
//! its own share only.

use std::collections::HashMap;

/// Returns the number of the organisation of a key. [`crate::dedupe`] creates keys.
pub(super) fn organisation_of(key: u128) -> u32 {
    (key >> 96) as u32
}

/// Bytes that are held.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    pub(super) all: u64,
    of: HashMap<u32, u64>,
}

impl Bytes {
    /// Returns the bytes of a key's organisation.
    pub(super) fn bytes_of(&self, key: u128) -> u64 {
        self.of_number(organisation_of(key))
    }

    /// Returns the bytes of an organisation.
    pub(super) fn of_number(&self, organisation: u32) -> u64 {
        self.of.get(&organisation).copied().unwrap_or_default()
    }

    /// Returns the organisation with the most bytes.
    pub(super) fn most(&self) -> Option<u32> {
        self.of.iter().max_by_key(|(_, bytes)| **bytes).map(|(organisation, _)| *organisation)
    }

    pub(super) fn add(&mut self, key: u128, bytes: u64) {
        self.all += bytes;
        *self.of.entry(organisation_of(key)).or_default() += bytes;
    }

    pub(super) fn take(&mut self, key: u128, bytes: u64) {
        self.all = self.all.saturating_sub(bytes);
        let organisation = organisation_of(key);
        let Some(held) = self.of.get_mut(&organisation) else { return };
        *held = held.saturating_sub(bytes);
        if *held == 0 {
            self.of.remove(&organisation);
        }
    }
}
