//! The note beside a log of a bucket that names the claim under which this folder was opened last.
//!
//! Each claim of a log has an epoch of its own, a UUID, in the bucket and in the folder of the log
//! that holds the claim. So a folder whose epoch is not that of the bucket is a copy that was left
//! behind: another copy of the same log was opened since, and both use the same sequences for
//! different records.
//!
//! A claim is requested before the bucket is known to accept it. So the requested epochs are noted
//! first, and dropped once one of them is held.

use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::disk::Disk;
use crate::store::folders::Folders;

/// Name of the file.
const NAME: &str = "claim.json";

/// Epochs that a log folder knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epochs {
    /// Epoch of the last claim held; empty before the first.
    pub held: String,
    /// Epochs of claims that were requested since, and may have been accepted.
    #[serde(default)]
    pub asked: Vec<String>,
}

impl Epochs {
    /// Returns true if a claim of that epoch is, or may be, one of this folder.
    pub fn knows(&self, epoch: &str) -> bool {
        self.held == epoch || self.asked.iter().any(|asked| asked == epoch)
    }
}

/// Returns the path of the note in the log's folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Reads the note of the log in `folder`. It is empty for a log that was never opened with a
/// bucket, or only by a version without epochs.
pub fn read_epochs(disk: &dyn Disk, folder: &Path) -> Result<Epochs> {
    let path = path(folder);
    let bytes = match disk.read(&path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == IoErrorKind::NotFound => return Ok(Epochs::default()),
        Err(cause) => {
            return Err(
                Error::storage(format!("cannot read `{}`", path.display())).with_source(cause)
            );
        }
    };
    serde_json::from_slice(&bytes).map_err(|cause| {
        Error::damaged(format!(
            "`{}` does not name the claim under which the log was opened; restore it from a copy, or delete it and import the \
             records of the log with `gatelog wal adopt {}`",
            path.display(),
            folder.display()
        ))
        .with_source(cause)
    })
}

/// Writes the note of the log in `folder`.
pub fn write_epochs(folders: &Folders, folder: &Path, epochs: &Epochs) -> Result<()> {
    let path = path(folder);
    let failed =
        |cause| Error::storage(format!("cannot write `{}`", path.display())).with_source(cause);
    let bytes = serde_json::to_vec(epochs).map_err(|cause| {
        Error::internal("cannot encode the epoch of a log's claim").with_source(cause)
    })?;
    folders.write_file(&path, &bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::ErrorKind;
    use crate::store::disk::LocalDisk;

    #[test]
    fn epochs_are_read_as_they_were_written_and_none_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_epochs(&LocalDisk, folder.path()).unwrap(), Epochs::default());
        let epochs = Epochs { held: "a".to_owned(), asked: vec!["b".to_owned()] };
        write_epochs(&Folders::new(Arc::new(LocalDisk)), folder.path(), &epochs).unwrap();
        assert_eq!(read_epochs(&LocalDisk, folder.path()).unwrap(), epochs);
        assert!(epochs.knows("a") && epochs.knows("b") && !epochs.knows("c"));
        std::fs::write(folder.path().join(NAME), "{").unwrap();
        let damaged = read_epochs(&LocalDisk, folder.path()).unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::Damaged);
        assert!(damaged.message().contains("gatelog wal adopt"), "{damaged}");
    }
}
