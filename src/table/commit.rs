//! Commits exactly once, even if the store's answer is lost.
//!
//! An attempt can succeed, lose the race for its version, or end with an unknown outcome: the store
//! failed, and the entry may be in the log, absent, or still on its way. After a lost race or an
//! unknown outcome, the newest version of the table is loaded and checked for the commit, and only
//! if it is absent is the commit retried. A delayed entry of an earlier attempt cannot commit a
//! second time: it needs the version that the next attempt takes, and the later of the two loses.
//!
//! A writer that was suspended for long may find its version free because the log was cleaned, and
//! no reader would see its entry. Entries are deleted from the oldest on, so an attempt counts as
//! committed only if the preceding entry still exists afterwards; otherwise it lost a race.

use std::sync::Arc;

use delta_kernel::KernelError;

use super::changes::Commit;
use super::index::{DataFile, FileIndex};
use super::kernel::{self, Attempt};
use super::{Inner, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::store::folders::is_sync_failure;

/// Maximum number of lost races in a row. Each means that another writer made progress, so many
/// losses mean contention, not a fault.
const CONFLICTS: u32 = 50;
/// Maximum number of attempts with an unknown outcome. The store has already retried each.
const UNCLEAR: u32 = 3;

impl Inner {
    pub(super) fn commit(&self, writer: &mut Writer, commit: &Commit) -> Result<Arc<FileIndex>> {
        self.renew_entry(writer)?;
        let mut conflicts = 0;
        let mut unclear = 0;
        let mut last = None;
        loop {
            if self.is_committed(writer, commit)? {
                return Ok(self.index());
            }
            if let Some(error) = last.take_if(|_| conflicts > CONFLICTS || unclear > UNCLEAR) {
                return Err(error);
            }
            let removed = self.check(commit)?;
            match kernel::attempt(&self.engine, &writer.snapshot, commit, &removed)? {
                Attempt::Committed(snapshot) => {
                    let remove = commit.remove.iter().map(String::as_str);
                    let next =
                        self.index().apply(snapshot.version(), commit.add.iter().cloned(), remove);
                    if let Some((app, version)) = &commit.app {
                        writer.apps.insert(app.clone(), Some(*version));
                    }
                    writer.snapshot = snapshot;
                    *self.index.write() = Arc::new(next);
                    return Ok(self.index());
                }
                Attempt::Conflict => {
                    conflicts += 1;
                    last = Some(Error::storage(format!(
                        "cannot commit to table `{}`: other writers committed first {conflicts} times in a row; try again",
                        self.rows.folder()
                    )));
                }
                Attempt::UnknownOutcome(e) => {
                    unclear += self.retry_decision(&e);
                    let error = self.failed("commit to", e);
                    if is_sync_failure(&error) {
                        // The entry can be read now and may be gone after a power cut, so the table
                        // must not rely on it.
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
            self.refresh(writer)
                .map_err(|e| if is_sync_failure(&e) { e } else { last.take().unwrap_or(e) })?;
        }
    }

    /// Returns the cost of an error against `UNCLEAR`. Only store failures may be transient; any
    /// other error ends the commit.
    fn retry_decision(&self, error: &KernelError) -> u32 {
        match error {
            KernelError::Backtraced { source, .. } => self.retry_decision(source),
            KernelError::ObjectStore(_) | KernelError::IOError(_) | KernelError::Reqwest(_) => 1,
            _ => UNCLEAR + 1,
        }
    }

    /// Returns true if the newest known version already holds the commit.
    fn is_committed(&self, writer: &mut Writer, commit: &Commit) -> Result<bool> {
        if let Some((app, version)) = &commit.app {
            return Ok(self
                .app_version(writer, app)?
                .is_some_and(|is_committed| is_committed >= *version));
        }
        let index = self.index();
        if commit.add.is_empty() {
            return Ok(!commit.remove.iter().any(|path| index.contains(path)));
        }
        Ok(commit.add.iter().all(|file| index.contains(&file.path)))
    }

    /// Returns the files that the commit removes, if its preconditions still hold.
    fn check(&self, commit: &Commit) -> Result<Vec<Arc<DataFile>>> {
        let index = self.index();
        if let Some(file) = commit.add.iter().find(|file| index.contains(&file.path)) {
            return Err(Error::invalid(format!(
                "file `{}` is already in table `{}`",
                file.path,
                self.rows.folder()
            )));
        }
        let mut removed = Vec::with_capacity(commit.remove.len());
        for path in &commit.remove {
            let Some(file) = index.get(path) else {
                let version = index.version;
                let message = format!(
                    "file `{path}` is not in version {version} of table `{}`",
                    self.rows.folder()
                );
                return Err(Error::new(ErrorKind::NotFound, message));
            };
            removed.push(Arc::clone(file));
        }
        Ok(removed)
    }
}
