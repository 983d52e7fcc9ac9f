//! Accepts writes, or refuses them with the reason: the engine closes, or a write failed.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// State in which an engine accepts or refuses writes. Its handles, tasks and writer share it.
#[derive(Debug, Default)]
pub(super) struct Health {
    closing: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Health {
    /// Refuses appends from now on. Returns true if they were refused before.
    pub(super) fn close(&self) -> bool {
        self.closing.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Closes the engine to writes: the content of the disk is only known once the next open has
    /// read it.
    pub(super) fn fail(&self, error: &Error) {
        tracing::error!(
            error = error.chain(),
            "the engine accepts no more writes until it is restarted"
        );
        self.failure.lock().get_or_insert_with(|| error.chain());
    }

    /// Returns the first failure.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) fn refuse_if_closed(&self) -> Result<()> {
        if self.is_closing() {
            return Err(Error::closed("the engine is closing and accepts no more records"));
        }
        self.refuse_if_failed()
    }

    pub(super) fn refuse_if_failed(&self) -> Result<()> {
        match self.failure() {
            None => Ok(()),
            Some(why) => {
                Err(Error::storage(format!("writes are refused until a restart, because: {why}")))
            }
        }
    }
}
