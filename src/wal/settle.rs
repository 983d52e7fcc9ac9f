//! Makes the frames that an open found durable, before anything is built on them.
//!
//! An earlier process acknowledges frames after an fsync, and may have died before or after it; the
//! bytes do not show which. If they were accepted unchanged, a repeated record would be
//! acknowledged as a duplicate of a copy that a power cut removes, and a segment could follow one
//! whose end is not on the disk. So:
//!
//! - segments before the last one are synced. The last one was started only after their own sync;
//! - the last one that has frames is rewritten under another name, synced, and renamed. A sync of
//~  the old file is not enough: if its fsync failed before, the kernel considers its bytes written
//~  and reports success for the next fsync. The new bytes are the replayed ones, without a torn end.
//~  The old file keeps the name until the new one has it, so durable data stays durable at every
//~  moment, and a process that dies meanwhile leaves a file that the next open removes;
//! - the folder is synced, and with it the names of all files.
//!
//! A full disk may have no room for that. Then the log opens anyway, so that its content can be
//! read and flushed, and the first append does the rest.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::Wal;
use super::replay::Replay;
use super::segment::Tail;
use crate::error::{Error, Result};
use crate::store::folders::is_disk_full;

impl Wal {
    /// Cuts frames that were never acknowledged, makes the rest durable and takes it over as closed
    /// segments.
    pub(super) fn settle(&mut self, found: Replay) -> Result<()> {
        self.remove_leftovers()?;
        for path in &found.incomplete_segments {
            self.remove(path)?;
        }
        for segment in found.segments {
            if segment.next_sequence == segment.first_sequence {
                // The next segment gets the same name.
                self.remove(&segment.path)?;
                continue;
            }
            if segment.torn_bytes > 0 {
                tracing::warn!(
                    file = %segment.path.display(),
                    offset = segment.good_bytes,
                    torn_bytes = segment.torn_bytes,
                    "cut an incomplete frame at the end of the log: usually a write that was interrupted before its ack"
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

    /// Rewrites the last segment, if that was not done yet.
    pub(super) fn settle_tail(&mut self) -> Result<()> {
        let Some(tail) = &self.tail else { return Ok(()) };
        let fresh = tail.path.with_extension("new");
        self.remove(&fresh)?;
        let mut file = self.disk.create(&fresh).map_err(|cause| failed("write", &fresh, cause))?;
        let written = file.append(&tail.bytes);
        if written.is_err() {
            // The file only takes space; the next attempt removes it.
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

    /// Removes files of an interrupted open.
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
    let remedy = if is_disk_full(&cause) {
        "; the disk is full, and writes continue when there is room"
    } else {
        ""
    };
    Error::storage(format!("cannot {what} `{}`{remedy}", path.display())).with_source(cause)
}
