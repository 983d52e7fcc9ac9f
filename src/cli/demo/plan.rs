//! How many sample records are made, and of which time.

use chrono::{DateTime, Utc};

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How many records.
    pub(super) records: u64,
    /// Over how many days.
    pub(super) days: u32,
    pub(super) seed: u64,
    /// The moment before which all of them were made.
    pub(super) end: DateTime<Utc>,
}
