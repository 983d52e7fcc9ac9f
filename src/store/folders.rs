//! Creates folders on a disk whose own names are durable, not only their content.
//!
//! An existing folder may have been created by a process that was killed before it synced the name.
//! So each folder above a file that must be durable is synced once per process, up to the root of
//! the file system, and [`Folders`] remembers the synced ones. A failed sync is not remembered, so
//! it is repeated.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::Disk;

/// Creates folders and remembers which of them are durable.
#[derive(Debug)]
pub struct Folders {
    disk: Arc<dyn Disk>,
    /// Folders whose names this process synced.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    /// Creates an instance that has not synced any folder yet.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, durable: Mutex::default() }
    }

    /// Returns the disk of these folders.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Creates a folder if it is missing. Returns once its name and those of the folders above it
    /// are durable.
    pub fn create(&self, folder: &Path) -> io::Result<()> {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        if !self.disk.exists(folder) {
            self.durable.lock().remove(folder);
            parent.map_or(Ok(()), |parent| self.create(parent))?;
            match self.disk.create_folder(folder) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        if self.durable.lock().contains(folder) {
            return Ok(());
        }
        if let Some(parent) = parent.filter(|_| !self.disk.is_mount(folder)) {
            self.create(parent)?;
            self.sync_above(parent)?;
        }
        self.durable.lock().insert(folder.to_owned());
        Ok(())
    }

    /// Syncs the names in a folder, and once per process its own name and those above.
    pub fn sync(&self, folder: &Path) -> io::Result<()> {
        self.create(folder)?;
        self.disk.sync_folder(folder).map_err(|e| unsynced(folder, e))
    }

    /// Writes a small file under a temporary name and renames it. After a power cut it is complete
    /// or absent.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(path);
        let staged = path.with_extension("new");
        self.create(folder)?;
        match self.disk.remove(&staged) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = self.disk.create(&staged)?;
        file.append(bytes)?;
        file.sync().map_err(|e| unsynced(&staged, e))?;
        self.disk.rename(&staged, path)?;
        self.disk.sync_folder(folder).map_err(|e| unsynced(folder, e))
    }

    /// Syncs a folder above. A folder that this process may not open, or that is read-only, cannot
    /// hold a name that a process like this one created, so such an error is ignored.
    fn sync_above(&self, folder: &Path) -> io::Result<()> {
        use ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
        match self.disk.sync_folder(folder) {
            Err(e)
                if matches!(
                    e.kind(),
                    InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported
                ) =>
            {
                Ok(())
            }
            done => done.map_err(|e| unsynced(folder, e)),
        }
    }
}

/// A failed sync: the data may be readable now and missing after a power cut.
#[derive(Debug)]
struct SyncFailed {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for SyncFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot sync `{}`", self.path.display())
    }
}

impl StdError for SyncFailed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// Marks the error of a sync so that [`is_sync_failure`] finds it.
pub fn unsynced(path: &Path, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), SyncFailed { path: path.to_owned(), source })
}

/// Returns true if a failed sync caused this error. What was written then must not count as
/// durable.
pub fn is_sync_failure(error: &(dyn StdError + 'static)) -> bool {
    // `io::Error::source` skips the wrapped error and returns that error's source.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<SyncFailed>()
        || wrapped.is_some_and(|wrapped| is_sync_failure(wrapped))
        || error.source().is_some_and(is_sync_failure)
}

/// Returns true if a full disk caused this error.
pub fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
    ) || error.source().is_some_and(is_disk_full)
}
