//! Number and time span of the sample records.

use chrono::{DateTime, Utc};

/// Plan of the sample records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Number of records.
    pub(super) records: u64,
    /// Number of days over which they are spread.
    pub(super) days: u32,
    pub(super) seed: u64,
    /// End of the time span, exclusive.
    pub(super) end: DateTime<Utc>,
}
