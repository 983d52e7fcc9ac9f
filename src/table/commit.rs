//! Committing once, whatever becomes of the answer.
//!
//! An attempt can succeed, lose the race for its version, or end unclear: the store failed, and the entry may be in the
//! log or not, or may come to be in it later. After the last two the table is brought to its newest version, and that
//! version is asked whether the commit is in it; only if not is it tried again. A late entry of an earlier attempt
//! cannot make a second one: it needs the version that the next attempt takes, and whichever is later loses.
//!
//! A writer that slept long enough may find its version free because the log was cleaned, and what it writes there
//! nobody reads. Entries are deleted from the oldest on, so an attempt counts as committed only if the entry before its
//! own is still there after it; otherwise it lost a race.

use std::sync::Arc;

use delta_kernel::KernelError;

use super::index::{DataFile, FileIndex};
use super::kernel::{self, Attempt};
use super::{Inner, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::store::folders::is_sync_failure;

/// Races that may be lost in a row. Each means that another writer got on, so losing many means a crowd, not a fault.
const CONFLICTS: u32 = 50;
/// Attempts that may end unclear; the store has retried each on its own already.
const UNCLEAR: u32 = 3;

/// What becomes one version of the table.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Files to add. Each is already in the store, under a path that was never used before.
    pub add: Vec<DataFile>,
    /// Paths of files to remove; all must be in the table.
    pub remove: Vec<String>,
    /// Application transaction: who commits, and how far it is with this commit.
    pub app: Option<(String, i64)>,
    /// False if the rows stay the same, as when files are merged.
    pub data_change: bool,
    /// What the table's history says: `WRITE`, `OPTIMIZE`, `DELETE`, or a name of one's own.
    pub operation: &'static str,
}

impl Inner {
    pub(super) fn commit(&self, writer: &mut Writer, commit: &Commit) -> Result<Arc<FileIndex>> {
        self.renew_entry(writer)?;
        let mut conflicts = 0;
        let mut unclear = 0;
        let mut last = None;
        loop {
            if self.landed(writer, commit)? {
                return Ok(self.index());
            }
            if let Some(error) = last.take_if(|_| conflicts > CONFLICTS || unclear > UNCLEAR) {
                return Err(error);
            }
            let removed = self.check(commit)?;
            match kernel::attempt(&self.engine, &writer.snapshot, commit, &removed)? {
                Attempt::Committed(snapshot) => {
                    let remove = commit.remove.iter().map(String::as_str);
                    let next = self.index().apply(snapshot.version(), commit.add.iter().cloned(), remove);
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
                        "cannot commit to table `{}`: other writers took {conflicts} versions in a row",
                        self.rows.folder()
                    )));
                }
                Attempt::Unclear(e) => {
                    unclear += self.weigh(&e);
                    let error = self.failed("commit to", e);
                    if is_sync_failure(&error) {
                        // The entry can be read now and be gone after a power cut: the table must not vouch for it.
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
            self.refresh(writer).map_err(|e| if is_sync_failure(&e) { e } else { last.take().unwrap_or(e) })?;
        }
    }

    /// Only a failure of the store may pass; of any other one attempt is enough.
    fn weigh(&self, error: &KernelError) -> u32 {
        match error {
            KernelError::Backtraced { source, .. } => self.weigh(source),
            KernelError::ObjectStore(_) | KernelError::IOError(_) | KernelError::Reqwest(_) => 1,
            _ => UNCLEAR + 1,
        }
    }

    /// Whether the newest known version holds the commit already.
    fn landed(&self, writer: &mut Writer, commit: &Commit) -> Result<bool> {
        if let Some((app, version)) = &commit.app {
            return Ok(self.app_version(writer, app)?.is_some_and(|landed| landed >= *version));
        }
        let index = self.index();
        if commit.add.is_empty() {
            return Ok(!commit.remove.iter().any(|path| index.contains(path)));
        }
        Ok(commit.add.iter().all(|file| index.contains(&file.path)))
    }

    /// The files that the commit removes, if all that it takes for granted still holds.
    fn check(&self, commit: &Commit) -> Result<Vec<Arc<DataFile>>> {
        let index = self.index();
        if let Some(file) = commit.add.iter().find(|file| index.contains(&file.path)) {
            return Err(Error::invalid(format!("file `{}` is in table `{}` already", file.path, self.rows.folder())));
        }
        let find = |path: &String| {
            index.get(path).cloned().ok_or_else(|| {
                let version = index.version;
                Error::new(
                    ErrorKind::NotFound,
                    format!("file `{path}` is not in version {version} of table `{}`", self.rows.folder()),
                )
            })
        };
        commit.remove.iter().map(find).collect()
    }
}
