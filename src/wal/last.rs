//! A second file that notes how far a log goes, so that a log that was emptied, cut or harmed at
//! its end is noticed.
//!
//! The log's own bytes do not tell if its end is missing, nor whether its last group was acked. So
//! after each group of frames was fsynced, and before it is acked, this file says which sequence is
//! durable, and at which byte of which segment that is. It is written in place and without an
//! fsync, except when the log is opened and closed. What it may say then:
//!
//! - after a process died, by whatever signal: exactly what was acked, or one group that was
//!   fsynced and not acked yet. Damage of a group that it names is an error.
//! - after a power cut: that, or what it said up to half a minute before, when the kernel wrote the
//!   page; never more than was durable, since the log was fsynced first. Of groups behind that,
//!   frames say which were durable before them ([`super::frame`]); of the very last group nothing
//!   does, and if it does not read, it is taken for a write that was interrupted.
//! - after the log was closed in an orderly way: that it was closed. Then no write was going on,
//!   and whatever is missing was acked.
//!
//! A file that ends within its last group looks as an interrupted write does, also where the group
//! was acked, as after a disk that lost what it had reported as written. The log is then opened,
//! since the bytes are gone, and the loss is told as an error; if the bytes are there and do not
//! read, or more than the last group is missing, it is not opened.
//!
//! ```text
//! version 2  magic "GLLAST02" | wal id 16 | durable u64 | segment u64 | bytes u64 | before u64 | closed u8 | crc32 u32
//! version 1  magic "GLLAST01" | wal id 16 | durable u64 | segment u64 | crc32 u32
//! ```
//! `segment` is the first sequence of the newest segment, `bytes` its length up to `durable`, and
//! `before` what was durable before the last group. Notes of version 1 are read and no longer
//! written; they were written before each group, so they say nothing of the last one.

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
    /// Opens the note of a log, creating it if there is none.
    pub(super) fn open(folders: &Folders, path: &Path, id: Uuid) -> Result<Self> {
        let failed =
            |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
        let (disk, folder) = (folders.disk(), path.parent().unwrap_or(path));
        folders.create(folder).map_err(failed)?;
        let is_new = !disk.exists(path);
        let file = disk.open_in_place(path).map_err(failed)?;
        let mut note = Self { file, path: path.to_owned(), id, has_failed: false };
        if is_new {
            note.tell(disk.sync_folder(folder));
        }
        Ok(note)
    }

    /// Notes how far the log goes. A note that cannot be written is older than it could be, no
    /// more.
    pub(super) fn write(&mut self, mark: Mark) {
        let written = self.file.overwrite(&encode(self.id, mark));
        self.tell(written);
    }

    /// The same, and returns when it is on the disk.
    pub(super) fn write_durably(&mut self, mark: Mark) {
        self.write(mark);
        let synced = self.file.sync();
        self.tell(synced);
    }

    fn tell(&mut self, done: io::Result<()>) {
        if let Err(error) = done
            && !std::mem::replace(&mut self.has_failed, true)
        {
            tracing::warn!(%error, file = %self.path.display(), "cannot note how far the log goes");
        }
    }
}

/// How far a log goes.
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
    /// Whether the log was closed after that.
    pub closed: bool,
}

/// What is noted of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The file; none if nothing is to be noted.
    pub path: Option<PathBuf>,
    /// What it says.
    pub mark: Mark,
}

/// Reads the note of a log; one that is missing or cannot be read says nothing.
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
        // A longer note may lie below it, if a former version was used in between.
        let (body, checksum) = bytes.get(..BYTES_V1)?.split_at(BYTES_V1 - 4);
        let is_whole =
            body[8..24] == *id.as_bytes() && crc32fast::hash(body).to_le_bytes() == *checksum;
        let (durable, segment) = (number(0)?, number(1)?);
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
    fn a_note_is_read_as_it_was_written_and_not_at_all_when_it_is_harmed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, id) = (folder.path().join("a/last"), Uuid::from_u128(7));
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
        let (folder, id) = (tempfile::tempdir().unwrap(), Uuid::from_u128(7));
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
