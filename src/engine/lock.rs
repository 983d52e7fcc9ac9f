//! The lock that keeps a second process out of a data folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::disk::private_file;

/// Keeps every other process out of a store's folder (with a bucket, out of the log's folder) until
/// the lock is dropped.
pub fn lock(store: &Store) -> Result<FolderLock> {
    FolderLock::take(store.lock_file())
}

/// An exclusive lock on the folder. The process holds it, and it ends with the process.
///
/// The folder itself is locked: without it there is nothing to open, and it cannot be deleted and
/// created again while it holds files. The lock file in it names the holder, and keeps out versions
/// that lock only that file.
#[derive(Debug)]
pub struct FolderLock(Vec<File>);

impl FolderLock {
    fn take(path: Option<PathBuf>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(Vec::new())) };
        let failed = |cause| {
            Error::storage(format!("cannot open lock `{}`", path.display())).with_source(cause)
        };
        let options = &mut private_file();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let folder = File::open(path.parent().unwrap_or(&path)).map_err(failed)?;
        let locks = match folder.try_lock() {
            Ok(()) => file.try_lock(),
            // Some network file systems do not lock folders.
            Err(TryLockError::Error(cause)) if locks_no_folders(&cause) => file.try_lock(),
            refused => refused,
        };
        match locks {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The holder is only for the message. A deleted lock file does not name it.
                let _ = file.read_to_string(&mut holder);
                let holder =
                    if holder.trim().is_empty() { "another process" } else { holder.trim() };
                return Err(Error::busy(format!(
                    "the data folder is in use by process {holder} (lock `{}`); stop it, or use the running server over HTTP",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
        Ok(Self(vec![file, folder]))
    }

    pub(super) fn release(&self) {
        for file in &self.0 {
            if let Err(error) = file.unlock() {
                tracing::warn!(%error, "cannot release the lock of the data folder; it ends with the process");
            }
        }
    }
}

/// Returns true if a file system does not support locks on a folder. An error that another process
/// holds the lock returns false.
fn locks_no_folders(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    // An NFS client locks only files that are open for writing, and returns EBADF (9) otherwise.
    matches!(cause.kind(), InvalidInput | Unsupported) || cause.raw_os_error() == Some(9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_folder_stays_locked_when_its_lock_file_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gatelog.lock");
        let held = FolderLock::take(Some(path.clone())).unwrap();
        let again = FolderLock::take(Some(path.clone())).unwrap_err();
        assert!(again.message().contains(&format!("process {} ", std::process::id())), "{again}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(FolderLock::take(Some(path.clone())).unwrap_err().kind(), ErrorKind::Busy);
        held.release();
        drop(held);
        // A version that locks only the file is kept out too.
        let file = File::open(&path).unwrap();
        file.lock().unwrap();
        assert_eq!(FolderLock::take(Some(path.clone())).unwrap_err().kind(), ErrorKind::Busy);
        drop(file);
        FolderLock::take(Some(path)).unwrap();
    }
}
