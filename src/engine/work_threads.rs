//! The threads of long work.

use crate::config::Config;
use crate::error::Result;
use crate::threads::{Priority, Threads};

/// Starts the threads of flushes, merges and jobs. Queries, and bodies and answers of many bytes,
/// have threads of their own.
pub(super) fn work_threads(config: &Config) -> Result<Threads> {
    Threads::start("gatelog-work", crate::query::threads(config), Priority::Low)
}
