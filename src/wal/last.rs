//! A second file that notes how far a log goes, so that a log that was emptied or cut is noticed.
//!
//! The log's own bytes do not tell if its end is missing. So before each group of frames is
//! written, this file says which sequence is durable by then, and in which segment the group goes.
//! It is written in place and without an fsync: a power cut may leave an older note, never one that
//! is ahead of the log. A log that ends before its note, and before what the tables hold, has lost
//! frames that were acked. Of the last group the note says nothing: its write may have been
//! interrupted.
//!
//! ```text
//! magic "GLLAST01" | wal id 16 | last durable sequence u64 | first sequence of the newest segment u64 | crc32 u32
//! ```

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::disk::{make_private_folders, private_file};

const MAGIC: &[u8; 8] = b"GLLAST01";
const BYTES: usize = 8 + 16 + 8 + 8 + 4;

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct LastNote {
    file: File,
    path: PathBuf,
    id: Uuid,
    has_failed: bool,
}

impl LastNote {
    /// Opens the note of a log, creating it if there is none.
    pub(super) fn open(path: &Path, id: Uuid) -> Result<Self> {
        let failed = |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
        make_private_folders(path.parent().unwrap_or(path)).map_err(failed)?;
        let file = private_file().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), id, has_failed: false })
    }

    /// Notes how far the log goes. A note that cannot be written is older than it could be, no
    /// more.
    pub(super) fn write(&mut self, durable: u64, segment: u64) {
        let written = self.file.write_all_at(&encode(self.id, durable, segment), 0);
        if let Err(error) = written
            && !std::mem::replace(&mut self.has_failed, true)
        {
            tracing::warn!(%error, file = %self.path.display(), "cannot note how far the log goes");
        }
    }
}

/// What is noted of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The file; none if nothing is to be noted.
    pub path: Option<PathBuf>,
    /// A sequence that was durable; 0 if nothing is noted.
    pub durable: u64,
    /// The first sequence of the newest segment; 0 if none was begun since the log was opened.
    pub segment: u64,
}

/// Reads the note of a log; one that is missing or cannot be read says nothing.
pub fn read_last(path: &Path, id: Uuid) -> Result<Noted> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == IoErrorKind::NotFound => Vec::new(),
        Err(cause) => return Err(Error::storage(format!("cannot read `{}`", path.display())).with_source(cause)),
    };
    let (durable, segment) = decode(&bytes, id).unwrap_or_default();
    Ok(Noted { path: Some(path.to_owned()), durable, segment })
}

fn encode(id: Uuid, durable: u64, segment: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(id.as_bytes());
    bytes[24..32].copy_from_slice(&durable.to_le_bytes());
    bytes[32..40].copy_from_slice(&segment.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..40]);
    bytes[40..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], id: Uuid) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (durable, segment) = (number(24)?, number(32)?);
    (bytes == encode(id, durable, segment)).then_some((durable, segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_not_at_all_when_it_is_harmed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, id) = (folder.path().join("a/last"), Uuid::from_u128(7));
        let noted = |id| {
            let Noted { durable, segment, .. } = read_last(&path, id).unwrap();
            (durable, segment)
        };
        assert_eq!(noted(id), (0, 0));
        let mut note = LastNote::open(&path, id).unwrap();
        for last in [3, 9] {
            note.write(last, 2);
            assert_eq!(noted(id), (last, 2));
        }
        assert_eq!(noted(Uuid::from_u128(8)), (0, 0));
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(noted(id), (0, 0));
        }
    }
}
