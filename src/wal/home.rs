//! The note beside a log that says which store it is for, and the place where that store was last used.

use std::io::ErrorKind as IoErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::durable::{create_folder, write_file};

/// Name of the file.
const NAME: &str = "store.json";

/// The store that a log is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// UUID of the store.
    pub store: String,
    /// The place: a folder, or a bucket with its endpoint.
    pub place: String,
}

/// Reads the note of the log in `folder`; none beside a log that was never used, or only by a version without notes.
pub fn read_home(folder: &Path) -> Result<Option<Home>> {
    let path = folder.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::storage(format!("cannot read `{}`", path.display())).with_source(cause)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
        Error::damaged(format!(
            "`{}` does not say which store the log is for; restore it from a copy, or delete it to bind the log anew",
            path.display()
        ))
        .with_source(cause)
    })
}

/// Writes the note of the log in `folder`, which is made if it is not there.
pub fn write_home(folder: &Path, home: &Home) -> Result<()> {
    let path = folder.join(NAME);
    let failed = |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
    let bytes = serde_json::to_vec(home)
        .map_err(|cause| Error::internal("cannot encode which store a log is for").with_source(cause))?;
    create_folder(folder).map_err(failed)?;
    write_file(&path, &bytes).map_err(failed)
}

/// The sequence before the first one that the segments in `folder` hold; 0 if there is none.
pub fn before_first(folder: &Path) -> Result<u64> {
    let paths = super::replay::segment_paths(folder)?;
    let first = paths.first().and_then(|path| path.file_stem()?.to_str()?.parse::<u64>().ok());
    Ok(first.map_or(0, |first| first.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a/wal");
        assert_eq!(read_home(&log).unwrap(), None);
        let home = Home { store: "u".to_owned(), place: "/data".to_owned() };
        write_home(&log, &home).unwrap();
        assert_eq!(read_home(&log).unwrap(), Some(home));
        assert_eq!(before_first(&log).unwrap(), 0);
        for first in [12, 7] {
            std::fs::write(log.join(format!("{first:020}.wal")), "").unwrap();
        }
        assert_eq!(before_first(&log).unwrap(), 6);
        std::fs::write(log.join(NAME), "{").unwrap();
        let damaged = read_home(&log).unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::Damaged);
        assert!(damaged.message().contains("delete it to bind the log anew"), "{damaged}");
    }
}
