//! The segment that the log writes to.
//!
//! A write that fails before its fsync is cut off again: the file then ends where the last good one
//! did, and that is synced. Only if that fails too, or an fsync fails, the content of the disk is
//! unknown.
//! holds.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{Header, Marker};
use crate::error::Error;
use crate::store::disk::{Disk, DiskFile};
use crate::store::folders::is_disk_full;

/// A segment that is open for writing.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) first_sequence: u64,
    /// Bytes that are durable.
    pub(super) bytes: u64,
    /// The marker at the start of its frames.
    pub(super) marker: Marker,
    file: Box<dyn DiskFile>,
}

/// The last segment with frames as an open found it.
pub(super) struct Tail {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// Failure of a write.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// True if the content of the disk is unknown now. Otherwise nothing of the write is there, and
    /// the next one may succeed.
    pub(super) is_final: bool,
}

impl Failed {
    /// Creates the failure of a write of which nothing is on the disk.
    fn before_sync(what: &str, path: &Path, cause: io::Error) -> Self {
        let remedy = if is_disk_full(&cause) {
            "the disk is full; nothing of this is kept, and writes continue when there is room"
        } else {
            "nothing of this is kept; send it again"
        };
        let message = format!("cannot {what} `{}`: {remedy}", path.display());
        Self { error: Error::storage(message).with_source(cause), is_final: false }
    }

    /// Creates the failure after which the content of the disk is unknown.
    fn for_good(what: &str, path: &Path, cause: io::Error) -> Self {
        let message =
            format!("cannot {what} `{}`; nothing more is accepted until a restart", path.display());
        Self { error: Error::storage(message).with_source(cause), is_final: true }
    }
}

impl Segment {
    /// Creates the segment of a header. The file gets its name when the header is durable, so that
    /// a file of that name always has a complete header. When this returns, the name is durable
    /// too.
    pub(super) fn create(disk: &dyn Disk, folder: &Path, header: &Header) -> Result<Self, Failed> {
        let path = folder.join(format!("{:020}.wal", header.first_sequence));
        let staged = path.with_extension("new");
        let bytes = header.encode();
        if disk.exists(&path) {
            return Err(Failed::before_sync(
                "create segment",
                &path,
                io::ErrorKind::AlreadyExists.into(),
            ));
        }
        match disk.remove(&staged) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(Failed::before_sync("create segment", &staged, cause));
            }
            _ => {}
        }
        let mut file = disk
            .create(&staged)
            .map_err(|cause| Failed::before_sync("create segment", &staged, cause))?;
        if let Err(cause) = file.append(&bytes) {
            // The next attempt or the next open removes the rest.
            let _ = disk.remove(&staged);
            return Err(Failed::before_sync("create segment", &path, cause));
        }
        file.sync().map_err(|cause| Failed::for_good("sync segment", &staged, cause))?;
        disk.rename(&staged, &path)
            .map_err(|cause| Failed::for_good("name segment", &path, cause))?;
        disk.sync_folder(folder).map_err(|cause| Failed::for_good("sync folder", folder, cause))?;
        let file =
            disk.open(&path).map_err(|cause| Failed::for_good("open segment", &path, cause))?;
        let first_sequence = header.first_sequence;
        let marker = header.marker;
        Ok(Self { path, first_sequence, bytes: bytes.len() as u64, marker, file })
    }

    /// Appends complete frames and returns once they are durable.
    pub(super) fn append(&mut self, frames: &[u8]) -> Result<(), Failed> {
        if let Err(cause) = self.file.append(frames) {
            return Err(match self.cut_back() {
                Ok(()) => Failed::before_sync("write to", &self.path, cause),
                Err(_) => Failed::for_good("write to", &self.path, cause),
            });
        }
        self.file.sync().map_err(|cause| Failed::for_good("sync", &self.path, cause))?;
        self.bytes += frames.len() as u64;
        Ok(())
    }

    fn cut_back(&mut self) -> io::Result<()> {
        self.file.truncate(self.bytes)?;
        self.file.sync()
    }
}
