//! Making durable what an open found of the log, before anything is built on it.
//!
//! An earlier process acked what it fsynced, and may have died before or after it did; which of the
//! two the bytes do not tell. Were they taken as they are, a record sent again would be acked as a
//! duplicate of a copy that a power cut takes, and a segment could follow one whose end is not on
//! the disk. So:
//!
//! - segments before the last one, which was begun only when they were synced, are synced;
//! - the last one that has frames is rewritten, beside its name, synced, and put in its place. To
//!   sync it would not do: if its fsync failed before, the kernel takes its bytes for written and
//!   answers the next fsync with a lie. The bytes are those that were replayed, without a torn end.
//!   Until the new file has the name the old one has it, so whatever was durable stays so at every
//!   moment, and a process that dies meanwhile leaves a file that the next open removes;
//! - the folder is synced, and with it the names of all of them.
//!
//! On a full disk there may be no room for that. Then the log opens all the same, so that what it
//! holds can be read and flushed, and the first append makes up for it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::Wal;
use super::replay::Replay;
use crate::error::{Error, Result};
use crate::store::folders::is_disk_full;

/// The last segment with frames as it was found.
pub(super) struct Tail {
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
}

impl Wal {
    /// Cuts what was never acked, makes the rest durable and takes it over as closed segments.
    pub(super) fn settle(&mut self, found: Replay) -> Result<()> {
        self.remove_leftovers()?;
        for path in &found.incomplete_segments {
            self.remove(path)?;
        }
        for segment in found.segments {
            if segment.next_sequence == segment.first_sequence {
                // Its name is that of the next segment to be made.
                self.remove(&segment.path)?;
                continue;
            }
            if segment.torn_bytes > 0 {
                tracing::warn!(
                    file = %segment.path.display(),
                    offset = segment.good_bytes,
                    torn_bytes = segment.torn_bytes,
                    "cut what is no whole frame at the end of the log: usually a write that was interrupted before its ack"
                );
            }
            self.closed.push((
                segment.path,
                segment.next_sequence.saturating_sub(1),
                segment.good_bytes,
            ));
        }
        if let Some(((path, ..), before)) = self.closed.split_last() {
            for (path, ..) in before {
                self.disk.sync_file(path).map_err(|cause| failed("sync", path, cause))?;
            }
            self.tail = Some(Tail { path: path.clone(), bytes: found.tail });
        }
        match self.settle_tail() {
            Err(error) if is_disk_full(&error) => {
                tracing::warn!(
                    error = error.chain(),
                    "the log opens on a full disk; writes are refused until there is room"
                );
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => self.sync_folder(),
        }
    }

    /// Writes the last segment that was found again, if that was not done yet.
    pub(super) fn settle_tail(&mut self) -> Result<()> {
        let Some(tail) = &self.tail else { return Ok(()) };
        let fresh = tail.path.with_extension("new");
        self.remove(&fresh)?;
        let mut file = self.disk.create(&fresh).map_err(|cause| failed("write", &fresh, cause))?;
        let written = file.append(&tail.bytes);
        if written.is_err() {
            // It only takes room; the next attempt removes what stays.
            let _ = self.disk.remove(&fresh);
        }
        written.map_err(|cause| failed("write", &fresh, cause))?;
        file.sync().map_err(|cause| failed("sync", &fresh, cause))?;
        self.disk
            .rename(&fresh, &tail.path)
            .map_err(|cause| failed("replace", &tail.path, cause))?;
        self.sync_folder()?;
        self.tail = None;
        Ok(())
    }

    /// Removes files of an open that was interrupted.
    fn remove_leftovers(&self) -> Result<()> {
        let listed =
            self.disk.list(&self.folder).map_err(|cause| failed("list", &self.folder, cause))?;
        let is_segment = |path: &Path| {
            let name = path.file_stem().map(OsStr::as_encoded_bytes).unwrap_or_default();
            path.extension().is_some_and(|extension| extension == "new")
                && name.iter().all(u8::is_ascii_digit)
        };
        listed.iter().filter(|path| is_segment(path)).try_for_each(|path| self.remove(path))
    }
}

fn failed(what: &str, path: &Path, cause: io::Error) -> Error {
    let remedy = match is_disk_full(&cause) {
        true => "; the disk is full, and writes go on when there is room",
        false => "",
    };
    Error::storage(format!("cannot {what} `{}`{remedy}", path.display())).with_source(cause)
}
