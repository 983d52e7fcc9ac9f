//! Files that get their names only after they are written completely and synced, with the errors of
//! these steps.

use std::error::Error as StdError;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::result;
use std::sync::Arc;

use object_store::{PutPayload, Result};
use uuid::Uuid;

use super::disk::Disk;
use super::folders::{self, Folders, is_sync_failure};

/// Name of the folder, below the root, for unfinished files.
pub const STAGING: &str = ".staging";

/// Files on a disk that are staged before they get their names.
#[derive(Debug)]
pub(super) struct Files {
    folders: Arc<Folders>,
    staging: PathBuf,
}

impl Files {
    pub(super) fn new(folders: Arc<Folders>, root: &FilePath) -> Self {
        Self { folders, staging: root.join(STAGING) }
    }

    /// Rewrites a file in place. Does nothing if the file is missing.
    pub(super) fn renew(&self, target: &FilePath) -> Result<()> {
        match self.disk().read(target) {
            Ok(bytes) => self.put(target, &PutPayload::from(bytes), false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(generic(io::Error::new(
                e.kind(),
                format!("cannot read `{}`: {e}", target.display()),
            ))),
        }
    }

    fn disk(&self) -> &dyn Disk {
        &**self.folders.disk()
    }

    /// Creates a staged file.
    pub(super) fn stage(&self) -> Result<(PathBuf, Box<dyn super::disk::DiskFile>)> {
        let staged = self.staging.join(Uuid::new_v4().to_string());
        self.folders.create(&self.staging).map_err(|e| failed(&staged, e))?;
        let file = self.disk().create(&staged).map_err(|e| failed(&staged, e))?;
        Ok((staged, file))
    }

    pub(super) fn put(&self, target: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
        let (staged, mut file) = self.stage()?;
        let write = || {
            payload
                .iter()
                .try_for_each(|bytes| file.append(bytes))
                .map_err(|e| failed(&staged, e))?;
            file.sync().map_err(|e| unsynced(&staged, e))
        };
        let written = { write }().and_then(|()| self.publish(&staged, target, create));
        if written.is_err() || create {
            // After a link the staged name remains, after a failure the staged file. The next start
            // removes them if this fails.
            self.discard(&staged);
        }
        written
    }

    /// Removes a staged file. If that fails, the next start removes it.
    pub(super) fn discard(&self, staged: &FilePath) {
        let _ = self.disk().remove(staged);
    }

    /// Gives a synced file its final name, then syncs the folder and those above it.
    pub(super) fn publish(&self, staged: &FilePath, target: &FilePath, create: bool) -> Result<()> {
        let folder = parent(target);
        self.folders.create(folder).map_err(|e| failed(folder, e))?;
        let disk = self.disk();
        let named =
            if create { disk.hard_link(staged, target) } else { disk.rename(staged, target) };
        named.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists {
                path: target.display().to_string(),
                source: e.into(),
            },
            _ => failed(target, e),
        })?;
        disk.sync_folder(folder).map_err(|e| unsynced(folder, e))
    }

    /// Links a file to a second name through a staged link, so that it atomically replaces an
    /// existing file.
    pub(super) fn copy(&self, source: &FilePath, target: &FilePath, create: bool) -> Result<()> {
        let staged = self.staging.join(Uuid::new_v4().to_string());
        self.folders.create(&self.staging).map_err(|e| failed(&staged, e))?;
        self.disk().sync_file(source).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not_found(source, e),
            _ => unsynced(source, e),
        })?;
        self.disk().hard_link(source, &staged).map_err(|e| failed(&staged, e))?;
        let published = self.publish(&staged, target, create);
        self.discard(&staged);
        published
    }

    pub(super) fn delete(&self, target: &FilePath) -> Result<()> {
        self.disk().remove(target).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not_found(target, e),
            _ => generic(io::Error::new(
                e.kind(),
                format!("cannot delete `{}`: {e}", target.display()),
            )),
        })?;
        self.disk().sync_folder(parent(target)).map_err(|e| unsynced(parent(target), e))
    }
}

/// Removes every file below the staging folder of `root`.
pub fn clean_staging(disk: &dyn Disk, root: &FilePath) -> io::Result<()> {
    match disk.remove_folder(&root.join(STAGING)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn parent(path: &FilePath) -> &FilePath {
    path.parent().unwrap_or(path)
}

pub(super) fn failed(path: &FilePath, source: io::Error) -> object_store::Error {
    if is_sync_failure(&source) {
        return generic(source);
    }
    // Keeps the kind, so that callers can detect a full disk.
    generic(io::Error::new(source.kind(), format!("cannot write `{}`: {source}", path.display())))
}

fn not_found(path: &FilePath, source: io::Error) -> object_store::Error {
    object_store::Error::NotFound { path: path.display().to_string(), source: source.into() }
}

pub(super) fn unsynced(path: &FilePath, source: io::Error) -> object_store::Error {
    generic(folders::unsynced(path, source))
}

/// Returns the error of a failed sync, for tests of its handling.
#[cfg(test)]
pub(crate) fn sync_failure() -> object_store::Error {
    unsynced(FilePath::new("/x"), io::Error::other("the disk is gone"))
}

pub(super) fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "Durable", source: source.into() }
}

/// Runs file system calls on a thread for blocking work, or directly without a runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(work).await.unwrap_or_else(|e| result::Result::Err(generic(e)))
        }
        Err(_) => work(),
    }
}
