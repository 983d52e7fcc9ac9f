//! The operations that a disk did, in order, and the disk images that they give.

use std::fmt;
use std::sync::Arc;

use super::medium::{Id, Image, Medium, Model};

/// Outcome of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is durable.
    Done,
    /// It failed; what is not durable counts as clean from now on and is still seen. Names stay to
    /// be written.
    Kept,
    /// It failed; programs see again what is durable. Names are seen and never written.
    Dropped,
}

/// One operation. Power cuts come between two of them.
#[derive(Clone, Debug)]
pub enum Op {
    Create { folder: Id, name: String, id: Id, is_folder: bool },
    Link { folder: Id, name: String, id: Id },
    Rename { from: (Id, String), to: (Id, String), id: Id },
    Remove { folder: Id, name: String, id: Id },
    Append { file: Id, bytes: Arc<[u8]> },
    Overwrite { file: Id, bytes: Arc<[u8]> },
    Truncate { file: Id, size: usize },
    SyncFile { file: Id, outcome: Outcome },
    SyncFolder { folder: Id, outcome: Outcome },
}

impl Op {
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::SyncFile { .. } | Self::SyncFolder { .. })
    }

    /// Returns whether it is a sync that failed.
    pub fn has_failed(&self) -> bool {
        match self {
            Self::SyncFile { outcome, .. } | Self::SyncFolder { outcome, .. } => {
                *outcome != Outcome::Done
            }
            _ => false,
        }
    }

    /// Bytes that it writes.
    pub fn bytes(&self) -> usize {
        if let Self::Append { bytes, .. } = self { bytes.len() } else { 0 }
    }
}

/// An operation, when it was done, and on which path.
#[derive(Clone, Debug)]
pub struct Step {
    pub op: Op,
    pub at_ms: i64,
    pub path: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.op {
            Op::Create { is_folder: true, .. } => write!(f, "create folder {path}"),
            Op::Create { .. } => write!(f, "create {path}"),
            Op::Link { .. } => write!(f, "link {path}"),
            Op::Rename { from, .. } => write!(f, "rename {} to {path}", from.1),
            Op::Remove { .. } => write!(f, "remove {path}"),
            Op::Append { bytes, .. } => write!(f, "append {} bytes to {path}", bytes.len()),
            Op::Overwrite { bytes, .. } => {
                write!(f, "write {} bytes over the beginning of {path}", bytes.len())
            }
            Op::Truncate { size, .. } => write!(f, "truncate {path} to {size} bytes"),
            Op::SyncFile { outcome: Outcome::Done, .. } => write!(f, "sync {path}"),
            Op::SyncFolder { outcome: Outcome::Done, .. } => write!(f, "sync folder {path}"),
            Op::SyncFile { outcome, .. } | Op::SyncFolder { outcome, .. } => {
                write!(f, "failed sync ({outcome:?}) of {path}")
            }
        }
    }
}

/// Operations of a disk since a state of it, which is known in both models of names.
#[derive(Clone, Debug)]
pub struct Recording {
    pub posix: Medium,
    pub ordered: Medium,
    pub steps: Vec<Step>,
}

impl Recording {
    /// The disk after so many more operations; `self` then begins there.
    pub fn advance(&mut self, count: usize) {
        for step in self.steps.drain(..count) {
            self.posix.apply(&step.op, step.at_ms);
            self.ordered.apply(&step.op, step.at_ms);
        }
    }

    /// Returns the disk that a cut leaves now.
    pub fn cut(&self, model: Model) -> Image {
        if model.is_ordered() { self.ordered.cut(model) } else { self.posix.cut(model) }
    }
}
