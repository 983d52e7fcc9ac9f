//! The export jobs that this node writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Exports that this node writes.
#[derive(Debug, Default)]
pub(in crate::engine) struct Exports {
    pub(super) running: Mutex<HashMap<String, Running>>,
    pub(super) wanted: Notify,
    /// A job on this node has ended.
    pub(super) ended: Notify,
}

#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) run: u64,
    pub(super) organisation: Option<String>,
    /// Name of the file that is being written, until the catalog names it.
    pub(super) file: String,
    /// Records, bytes, and stored bytes so far.
    pub(super) written: Arc<[AtomicU64; 3]>,
    pub(super) cancel: CancellationToken,
}

impl Exports {
    /// Names of files that are being written.
    pub(super) fn writing(&self) -> HashSet<String> {
        self.running.lock().values().map(|running| running.file.clone()).collect()
    }

    pub(super) fn cancel_all(&self) {
        self.running.lock().values().for_each(|running| running.cancel.cancel());
    }
}
