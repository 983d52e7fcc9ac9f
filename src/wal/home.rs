//! The note beside a log about its store, and the place where that store was last used.

use std::io::ErrorKind as IoErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::disk::Disk;
use crate::store::folders::Folders;

/// Name of the file.
const NAME: &str = "store.json";

/// The store of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// UUID of the store.
    pub store: String,
    /// The place: a folder, or a bucket with its endpoint.
    pub place: String,
}

/// Reads the note of the log in `folder`. Returns `None` for a log that was never used, or only by
/// a version without notes.
pub fn read_home(disk: &dyn Disk, folder: &Path) -> Result<Option<Home>> {
    let path = folder.join(NAME);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(cause) => {
            return Err(
                Error::storage(format!("cannot read `{}`", path.display())).with_source(cause)
            );
        }
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
        Error::damaged(format!(
            "`{}` does not name the store of the log; restore it from a copy, or delete it to bind the log again",
            path.display()
        ))
        .with_source(cause)
    })
}

/// Writes the note of the log in `folder`, and creates the folder if it does not exist.
pub fn write_home(folders: &Folders, folder: &Path, home: &Home) -> Result<()> {
    let path = folder.join(NAME);
    let failed =
        |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
    let bytes = serde_json::to_vec(home)
        .map_err(|cause| Error::internal("cannot encode the store of a log").with_source(cause))?;
    folders.write_file(&path, &bytes).map_err(failed)
}

/// Returns the sequence before the first one in the segments of `folder`; 0 if there is none.
pub fn before_first(disk: &dyn Disk, folder: &Path) -> Result<u64> {
    let paths = super::replay::segment_paths(disk, folder)?;
    let first = paths.first().and_then(|path| super::replay::first_sequence(path));
    Ok(first.map_or(0, |first| first.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::ErrorKind;
    use crate::store::disk::LocalDisk;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a/wal");
        let folders = Folders::new(Arc::new(LocalDisk));
        assert_eq!(read_home(&LocalDisk, &log).unwrap(), None);
        let home = Home { store: "u".to_owned(), place: "/data".to_owned() };
        write_home(&folders, &log, &home).unwrap();
        assert_eq!(read_home(&LocalDisk, &log).unwrap(), Some(home));
        assert_eq!(before_first(&LocalDisk, &log).unwrap(), 0);
        for first in [12, 7] {
            std::fs::write(log.join(format!("{first:020}.wal")), "").unwrap();
        }
        assert_eq!(before_first(&LocalDisk, &log).unwrap(), 6);
        std::fs::write(log.join(NAME), "{").unwrap();
        let damaged = read_home(&LocalDisk, &log).unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::Damaged);
        assert!(damaged.message().contains("delete it to bind the log again"), "{damaged}");
    }
}
