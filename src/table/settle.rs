//! Making durable what others left of a table on a disk, before anything is built on it.
//!
//! A process that dies, or whose sync fails, leaves entries of the log that can be read and are not on the disk. Were one of
//! them taken for granted, the write-ahead log would be trimmed of rows that a power cut then takes. So an open to write syncs
//! all that is newer than the last checkpoint, with what it names; what is older was built on by a process that did so. What
//! another program adds meanwhile is synced when it is seen.
//!
//! The newest entry is rewritten: where the sync of its name failed, which closes writes, another sync need not do.

use super::index::FileIndex;
use super::{HINT, Inner, Writer, kernel};
use crate::error::Result;
use crate::store::folders::is_disk_full;

impl Inner {
    /// Makes durable what was found at an open.
    pub(super) fn settle_found(&self, writer: &mut Writer) -> Result<()> {
        let index = self.index();
        let since = self.checkpoint.load(std::sync::atomic::Ordering::Relaxed);
        let added = if since < index.version {
            kernel::added_since(&self.engine, &writer.snapshot, since)?
        } else {
            Some(Vec::new())
        };
        let added = added.unwrap_or_else(|| index.iter().map(|file| file.path.clone()).collect());
        self.settle(since, &added)?;
        let newest = format!("{:020}.json", index.version);
        writer.unrenewed = Some(self.path.clone().join("_delta_log").join(newest));
        match self.renew_entry(writer) {
            // Opening must not need room: it is how a full disk is looked into.
            Err(error) if is_disk_full(&error) => Ok(()),
            renewed => renewed,
        }
    }

    /// Rewrites the newest entry that was found at the open, if that was not done yet.
    pub(super) fn renew_entry(&self, writer: &mut Writer) -> Result<()> {
        if let Some(entry) = &writer.unrenewed {
            self.store.renew(std::slice::from_ref(entry))?;
        }
        writer.unrenewed = None;
        Ok(())
    }

    /// Writes a checkpoint that the log is to begin with again, for the sync of its name may have failed.
    pub(super) fn renew_checkpoint(&self, version: u64) -> Result<()> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut files = self.store.files_in(&self.path.clone().join("_delta_log"))?;
        let begins = format!("{version:020}.checkpoint.");
        files.retain(|file| file.filename().is_some_and(|name| name.starts_with(&begins) || name == HINT));
        self.store.renew(&files)
    }

    /// Makes durable what others added since a version.
    pub(super) fn settle_new(&self, known: &FileIndex) -> Result<()> {
        let index = self.index();
        if index.version <= known.version {
            return Ok(());
        }
        let added = index.iter().filter(|file| !known.contains(&file.path)).map(|file| file.path.clone());
        self.settle(known.version + 1, &added.collect::<Vec<_>>())
    }

    /// Syncs the entries of the log from a version on, its checkpoints and their hint, and data files.
    fn settle(&self, since: u64, added: &[String]) -> Result<()> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut files = self.store.files_in(&self.path.clone().join("_delta_log"))?;
        let is_new = |name: &str| {
            let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
            version.is_some_and(|version| version >= since) || name == HINT
        };
        files.retain(|file| file.filename().is_some_and(is_new));
        files.extend(added.iter().map(|path| self.object_path(path)));
        // In one order each time, so that a simulated crash can be repeated.
        files.sort_unstable();
        self.store.make_durable(&files)
    }
}
