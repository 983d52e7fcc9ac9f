//! The queue of the writer, and the memory and days that rows take until they are flushed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::writer::Command;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::limits::Days;
use crate::memtable::MemoryBudget;

/// Commands to the writer, and the limits of the rows in memory.
#[derive(Debug)]
pub(super) struct WriteQueue {
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    pub(super) budget: MemoryBudget,
    pub(super) days: Days,
}

impl WriteQueue {
    /// Creates an empty queue, and returns it with its end at the writer.
    pub(super) fn new(
        config: &Config,
        flush_wanted: &Arc<Notify>,
    ) -> (Self, mpsc::UnboundedReceiver<Command>) {
        let wait = Duration::from_millis(config.append_wait_ms);
        let (commands, orders) = mpsc::unbounded_channel();
        let queue = Self {
            commands: Mutex::new(Some(commands)),
            budget: MemoryBudget::new(config.memtable_bytes, wait, Arc::clone(flush_wanted)),
            days: Days::new(wait, Arc::clone(flush_wanted)),
        };
        (queue, orders)
    }

    pub(super) fn send(&self, command: Command) -> Result<()> {
        let closed = || Error::closed("the engine is closed");
        self.commands.lock().as_ref().ok_or_else(closed)?.send(command).map_err(|_| closed())
    }

    /// Closes the log. No command follows.
    pub(super) fn close(&self) {
        if let Some(commands) = self.commands.lock().take() {
            // A writer that panicked receives no commands.
            let _ = commands.send(Command::Close);
        }
    }
}
