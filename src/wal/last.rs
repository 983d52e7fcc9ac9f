//! A second file that notes the end of a log, so that a log that was emptied, cut or damaged at its
//! end is detected.
//!
//! The log's own bytes show neither if its end is missing, nor if its last group was acknowledged.
//! So after the fsync of each group of frames, and before the group is acknowledged, this file
//! records the durable sequence and its position: segment and byte. It is written in place and
//! without an fsync, except when the log is opened and closed. Its content is then:
//!
//! - after a process died, by any signal: exactly the acknowledged frames, or one more group that
//~  was fsynced and not acknowledged yet. Damage of a group that it names is an error;
//! - after a power cut: the same, or the state of up to half a minute before, when the kernel wrote
//~  the page. It never names more than was durable, since the log was fsynced first. For later
//~  groups, frames show which were durable before them ([`super::frame`]). For the very last group
//~  nothing does, and if it cannot be read, it counts as an interrupted write;
//! - after the log was closed in order: that it was closed. Then no write was in progress, and any
//~  missing frame was acknowledged.
//!
//! A file that ends within its last group looks like an interrupted write, even if the group was
//! acknowledged, for example after a disk lost a write that it had reported as done. The log is
//! then opened, since the bytes are gone, and the loss is reported as an error. If the bytes are
//! there and cannot be read, or more than the last group is missing, it is not opened.
//!
//! ```text
//! version 2  magic "GLLAST02" | wal id 16 | durable u64 | segment u64 | bytes u64 | before u64 | closed u8 | crc32 u32
//! version 1  magic "GLLAST01" | wal id 16 | durable u64 | segment u64 | crc32 u32
//! ```
//! `segment` is the first sequence of the newest segment, `bytes` its length up to `durable`, and
//! `before` the durable sequence before the last group. Notes of version 1 are read and no longer
//! written. They were written before each group, so they do not cover the last one.

use std::io::{self, ErrorKind as IoErrorKind};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::disk::{Disk, DiskFile};
use crate::store::folders::Folders;

const MAGIC: &[u8; 8] = b"GLLAST02";
const MAGIC_V1: &[u8; 8] = b"GLLAST01";
const BYTES: usize = 8 + 16 + 4 * 8 + 1 + 4;
const BYTES_V1: usize = 8 + 16 + 2 * 8 + 4;

/// The file, open for writing.
pub(super) struct LastNote {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    id: Uuid,
    has_failed: bool,
}

impl LastNote {
    /// Opens the note of a log, and creates it if it does not exist.
    pub(super) fn open(folders: &Folders, path: &Path, id: Uuid) -> Result<Self> {
        let failed =
            |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
        let disk = folders.disk();
        let folder = path.parent().unwrap_or(path);
        folders.create(folder).map_err(failed)?;
        let is_new = !disk.exists(path);
        let file = disk.open_in_place(path).map_err(failed)?;
        let mut note = Self { file, path: path.to_owned(), id, has_failed: false };
        if is_new {
            note.report(disk.sync_folder(folder));
        }
        Ok(note)
    }

    /// Notes the end of the log. A note that cannot be written stays older than necessary, and does
    /// no other harm.
    pub(super) fn write(&mut self, mark: Mark) {
        let written = self.file.overwrite(&encode(self.id, mark));
        self.report(written);
    }

    /// Notes the end of the log, and returns when the note is on the disk.
    pub(super) fn write_durably(&mut self, mark: Mark) {
        self.write(mark);
        let synced = self.file.sync();
        self.report(synced);
    }

    fn report(&mut self, done: io::Result<()>) {
        if let Err(error) = done
            && !std::mem::replace(&mut self.has_failed, true)
        {
            tracing::warn!(%error, file = %self.path.display(), "cannot note the end of the log");
        }
    }
}

/// End of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// A sequence that was durable; 0 if nothing is noted.
    pub durable: u64,
    /// The first sequence of the newest segment; 0 if there was none.
    pub segment: u64,
    /// Bytes of that segment up to the end of the last group; 0 if that is not noted.
    pub bytes: u64,
    /// The sequence that was durable before the last group.
    pub before: u64,
    /// True if the log was closed after that.
    pub closed: bool,
}

/// Note about a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Path of the file; none if no note is kept.
    pub path: Option<PathBuf>,
    /// Content of the note.
    pub mark: Mark,
}

/// Reads the note of a log. A note that is missing or cannot be read is empty.
pub fn read_last(disk: &dyn Disk, path: &Path, id: Uuid) -> Result<Noted> {
    let bytes = match disk.read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == IoErrorKind::NotFound => Vec::new(),
        Err(cause) => {
            return Err(
                Error::storage(format!("cannot read `{}`", path.display())).with_source(cause)
            );
        }
    };
    Ok(Noted { path: Some(path.to_owned()), mark: decode(&bytes, id).unwrap_or_default() })
}

fn encode(id: Uuid, mark: Mark) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(id.as_bytes());
    let numbers = [mark.durable, mark.segment, mark.bytes, mark.before];
    for (place, number) in numbers.into_iter().enumerate() {
        bytes[24 + 8 * place..][..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes[56] = u8::from(mark.closed);
    let checksum = crc32fast::hash(&bytes[..57]);
    bytes[57..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], id: Uuid) -> Option<Mark> {
    let number = |place: usize| {
        let at = 24 + 8 * place;
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    if bytes.starts_with(MAGIC_V1) {
        // A longer note may lie below it, if an earlier version was used in between.
        let (body, checksum) = bytes.get(..BYTES_V1)?.split_at(BYTES_V1 - 4);
        let is_whole =
            body[8..24] == *id.as_bytes() && crc32fast::hash(body).to_le_bytes() == *checksum;
        let durable = number(0)?;
        let segment = number(1)?;
        return is_whole.then_some(Mark { durable, segment, before: durable, ..Mark::default() });
    }
    let closed = *bytes.get(56)? == 1;
    let mark = Mark {
        durable: number(0)?,
        segment: number(1)?,
        bytes: number(2)?,
        before: number(3)?,
        closed,
    };
    (bytes == encode(id, mark)).then_some(mark)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::disk::LocalDisk;

    fn open(path: &Path, id: Uuid) -> LastNote {
        LastNote::open(&Folders::new(Arc::new(LocalDisk)), path, id).unwrap()
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_ignored_when_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/last");
        let id = Uuid::from_u128(7);
        let noted = |id| read_last(&LocalDisk, &path, id).unwrap().mark;
        assert_eq!(noted(id), Mark::default());
        let mut note = open(&path, id);
        for (durable, closed) in [(3, false), (9, true)] {
            let mark = Mark { durable, segment: 2, bytes: 700, before: 1, closed };
            note.write_durably(mark);
            assert_eq!(noted(id), mark);
        }
        assert_eq!(noted(Uuid::from_u128(8)), Mark::default());
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(noted(id), Mark::default());
        }
    }

    #[test]
    fn a_note_of_version_1_is_read_also_over_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let id = Uuid::from_u128(7);
        let path = folder.path().join("last");
        open(&path, id).write(Mark { durable: 99, ..Mark::default() });
        let mut bytes =
            [MAGIC_V1.as_slice(), id.as_bytes(), &3_u64.to_le_bytes(), &2_u64.to_le_bytes()]
                .concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        let below = std::fs::read(&path).unwrap();
        for tail in [&[], &below[bytes.len()..]] {
            std::fs::write(&path, [&bytes, tail].concat()).unwrap();
            let mark = Mark { durable: 3, segment: 2, before: 3, ..Mark::default() };
            assert_eq!(read_last(&LocalDisk, &path, id).unwrap().mark, mark);
        }
        bytes[24] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_last(&LocalDisk, &path, id).unwrap().mark, Mark::default());
    }
}
