//! Makes the remains of other processes in a table on a disk durable before anything depends on
//! them.
//!
//! A process that dies, or whose sync fails, leaves log entries that can be read but are not on the
//! disk. If such an entry were trusted, the write-ahead log would be trimmed of rows that a power
//! cut then destroys. So an open for writing syncs everything newer than the last checkpoint, and
//! the files that it names. Older entries were synced by the process that wrote the checkpoint.
//! Entries that another program adds later are synced when they are first seen.
//!
//! The newest entry is rewritten: if the sync of its name failed, which closes writes, another sync
//! may not help.

use super::index::FileIndex;
use super::{HINT, Inner, Writer, kernel};
use crate::error::Result;
use crate::store::folders::is_disk_full;

impl Inner {
    /// Makes everything found at open durable.
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
            // Opening must succeed on a full disk, so that an operator can inspect it.
            Err(error) if is_disk_full(&error) => Ok(()),
            renewed => renewed,
        }
    }

    /// Rewrites the newest entry that was found at open, unless that is already done.
    pub(super) fn renew_entry(&self, writer: &mut Writer) -> Result<()> {
        if let Some(entry) = &writer.unrenewed {
            self.store.renew(std::slice::from_ref(entry))?;
        }
        writer.unrenewed = None;
        Ok(())
    }

    /// Rewrites the checkpoint that becomes the start of the log, since the sync of its name may
    /// have failed.
    pub(super) fn renew_checkpoint(&self, version: u64) -> Result<()> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut files = self.store.files_in(&self.path.clone().join("_delta_log"))?;
        let begins = format!("{version:020}.checkpoint.");
        files.retain(|file| {
            file.filename().is_some_and(|name| name.starts_with(&begins) || name == HINT)
        });
        self.store.renew(&files)
    }

    /// Makes everything that others added since a known version durable.
    pub(super) fn settle_new(&self, known: &FileIndex) -> Result<()> {
        let index = self.index();
        if index.version <= known.version {
            return Ok(());
        }
        let added =
            index.iter().filter(|file| !known.contains(&file.path)).map(|file| file.path.clone());
        self.settle(known.version + 1, &added.collect::<Vec<_>>())
    }

    /// Syncs log entries from a version on, its checkpoints and their hint, and data files.
    fn settle(&self, since: u64, added: &[String]) -> Result<()> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut files = self.store.files_in(&self.path.clone().join("_delta_log"))?;
        files.retain(|file| {
            let name = file.filename().unwrap_or_default();
            let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
            version.is_some_and(|version| version >= since) || name == HINT
        });
        files.extend(added.iter().map(|path| self.object_path(path)));
        // The order is fixed, so that a simulated crash can be repeated.
        files.sort_unstable();
        self.store.make_durable(&files)
    }
}
