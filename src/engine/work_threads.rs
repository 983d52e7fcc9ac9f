//! The threads of long work.

use crate::config::Config;
use crate::error::Result;
use crate::threads::Threads;

/// Starts the threads of flushes, merges, exports and large bodies. Queries have threads of their
/// own.
pub(super) fn work_threads(config: &Config) -> Result<Threads> {
    Threads::start("gatelog-work", crate::query::threads(config))
}
