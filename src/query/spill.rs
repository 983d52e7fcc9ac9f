//! Spilling of statements to disk: the folder and the limits.
//!
//! All spilled bytes together stay below `spill_bytes`. The statements of an organisation take at
//! most half of what the others leave of it, as with memory. A part of the disk stays free
//! regardless of the setting, because the log may be on the same disk. A statement that exceeds its
//! share ends with an error that names the setting.
//!
//! A file is unlinked as soon as it is created, so it is removed however the process ends.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;
use parking_lot::Mutex;
use uuid::Uuid;

use super::memory::{Owner, allowance};

/// Number of bytes to read at once.
const READ_BYTES: usize = 128 << 10;
/// Open files of a process where its limit is not known.
const USUAL_OPEN_FILES: u64 = 1_024;
/// Number of written bytes after which the free space of the disk is checked again.
const LOOK_EVERY: u64 = 4 << 20;

/// Disk space of all statements.
#[derive(Debug)]
pub(super) struct SpillSpace {
    folder: PathBuf,
    total: u64,
    /// Maximum number of open files.
    max_files: u64,
    /// Returns the size and the free bytes of the disk of a folder.
    look: fn(&Path) -> io::Result<(u64, u64)>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    owners: HashMap<Owner, u64>,
    files: u64,
    owners_files: HashMap<Owner, u64>,
    /// Bytes written since the last check of the disk.
    unseen: u64,
}

/// Spilled files of one statement.
#[derive(Debug)]
pub(super) struct StatementSpill {
    space: Arc<SpillSpace>,
    owner: Owner,
    /// True after a write was refused.
    refused: AtomicBool,
}

impl SpillSpace {
    /// Creates the disk space in a folder, which is created when it is first needed.
    pub(super) fn new(folder: PathBuf, total: u64) -> Arc<Self> {
        let max_files = open_files() / 2;
        Arc::new(Self { folder, total, max_files, look: disk_space, state: Mutex::default() })
    }

    /// Returns the share of one statement of an owner.
    pub(super) fn for_owner(self: &Arc<Self>, owner: Owner) -> Arc<StatementSpill> {
        Arc::new(StatementSpill { space: Arc::clone(self), owner, refused: AtomicBool::new(false) })
    }

    /// Reserves bytes. Returns an error with the reason if there is no room.
    fn take(&self, owner: &Owner, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let own = state.owners.get(owner).copied().unwrap_or(0);
        if own + bytes > allowance(owner, self.total, state.used - own) {
            return Err(io::Error::other(format!(
                "the share of `spill_bytes`, {}, is used up",
                self.total
            )));
        }
        state.unseen += bytes;
        if state.unseen >= LOOK_EVERY || state.used == 0 {
            let (size, free) = (self.look)(&self.folder)?;
            if free < reserve(size).saturating_add(bytes) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is nearly full"));
            }
            state.unseen = 0;
        }
        state.used += bytes;
        *state.owners.entry(owner.clone()).or_default() += bytes;
        Ok(())
    }

    fn give_back(&self, owner: &Owner, bytes: u64) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(bytes);
        if let Some(own) = state.owners.get_mut(owner) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                state.owners.remove(owner);
            }
        }
    }

    /// Counts a file that is about to be opened. An organisation has at most half of the files
    /// that the others leave, so that connections and tables of all others can be opened.
    fn take_file(&self, owner: &Owner) -> io::Result<()> {
        let mut state = self.state.lock();
        let own = state.owners_files.get(owner).copied().unwrap_or(0);
        if own + 1 > allowance(owner, self.max_files, state.files - own) {
            return Err(io::Error::other(format!(
                "the share of {} open files for spilled rows is used up",
                self.max_files
            )));
        }
        state.files += 1;
        *state.owners_files.entry(owner.clone()).or_default() += 1;
        Ok(())
    }

    fn give_back_file(&self, owner: &Owner) {
        let mut state = self.state.lock();
        state.files = state.files.saturating_sub(1);
        if let Some(own) = state.owners_files.get_mut(owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                state.owners_files.remove(owner);
            }
        }
    }

    /// Creates an unlinked file, which is deleted with its last handle.
    fn create(&self) -> io::Result<File> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join(format!("spill-{}", Uuid::new_v4()));
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }
}

/// Returns the number of files that this process may have open.
fn open_files() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(USUAL_OPEN_FILES)
}

/// Returns the bytes of a disk that stay free: a twentieth, at least 1 GiB, at most a quarter.
fn reserve(size: u64) -> u64 {
    (size / 20).max(1 << 30).min(size / 4)
}

/// Returns the size and the free bytes of the disk of a folder.
fn disk_space(folder: &Path) -> io::Result<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok((disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize)))
}

impl StatementSpill {
    /// Returns true if the statement spilled more than it may.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Creates the files of one statement.
#[derive(Debug)]
pub(super) struct Files(pub(super) Arc<StatementSpill>);

impl TempFileFactory for Files {
    fn create_temp_file(&self, _: &str) -> Result<Arc<dyn SpillFile>> {
        let of = Arc::clone(&self.0);
        let taken = of.space.take_file(&of.owner);
        taken.inspect_err(|_| of.refused.store(true, Ordering::Relaxed))?;
        let file = of.space.create().inspect_err(|_| of.space.give_back_file(&of.owner))?;
        Ok(Arc::new(Spilled(Arc::new(Inner { file, bytes: AtomicU64::new(0), of }))))
    }
}

/// A spilled file.
struct Spilled(Arc<Inner>);

struct Inner {
    file: File,
    bytes: AtomicU64,
    of: Arc<StatementSpill>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.of.space.give_back(&self.of.owner, *self.bytes.get_mut());
        self.of.space.give_back_file(&self.of.owner);
    }
}

impl SpillFile for Spilled {
    fn size(&self) -> Option<u64> {
        Some(self.0.bytes.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let start = (Arc::clone(&self.0), 0);
        Ok(Box::pin(futures::stream::try_unfold(start, |(inner, offset)| async move {
            let file = Arc::clone(&inner);
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; READ_BYTES];
                let count = file.file.read_at(&mut bytes, offset)?;
                bytes.truncate(count);
                Ok::<_, io::Error>(bytes)
            });
            let bytes =
                read.await.map_err(|cause| DataFusionError::ExecutionJoin(Box::new(cause)))??;
            let next = offset + bytes.len() as u64;
            Ok((!bytes.is_empty()).then(|| (Bytes::from(bytes), (inner, next))))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(Writing(Arc::clone(&self.0))))
    }
}

/// Appends to a spilled file.
struct Writing(Arc<Inner>);

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &self.0;
        let length = bytes.len() as u64;
        let spill = &inner.of;
        let taken = spill.space.take(&spill.owner, length);
        taken.inspect_err(|_| spill.refused.store(true, Ordering::Relaxed))?;
        // The bytes are counted before they are written, so that a write that fails halfway is
        // given back with the file.
        let offset = inner.bytes.fetch_add(length, Ordering::Relaxed);
        let written = inner.file.write_all_at(bytes, offset);
        written.inspect_err(|cause| {
            if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                spill.refused.store(true, Ordering::Relaxed);
            }
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SpillWriter for Writing {
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn space(
        folder: &Path,
        total: u64,
        look: fn(&Path) -> io::Result<(u64, u64)>,
    ) -> Arc<SpillSpace> {
        let folder = folder.join("spill");
        Arc::new(SpillSpace { folder, total, max_files: 8, look, state: Mutex::default() })
    }

    fn file(spill: &Arc<StatementSpill>) -> Arc<dyn SpillFile> {
        Files(Arc::clone(spill)).create_temp_file("test").unwrap()
    }

    fn write(file: &Arc<dyn SpillFile>, bytes: usize) -> io::Result<()> {
        file.open_writer().unwrap().write_all(&vec![7; bytes])
    }

    #[tokio::test]
    async fn what_is_spilled_is_read_back_and_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path(), 1 << 20, disk_space);
        let spilled = file(&space.for_owner(None));
        let mut writer = spilled.open_writer().unwrap();
        writer.write_all(&[1; 200_000]).unwrap();
        writer.write_all(&[2; 10]).unwrap();
        writer.finish().unwrap();
        assert_eq!(spilled.size(), Some(200_010));
        let parts: Vec<Bytes> = spilled.read_stream().unwrap().try_collect().await.unwrap();
        assert_eq!(parts.concat(), [vec![1; 200_000], vec![2; 10]].concat());
        assert_eq!(fs::read_dir(folder.path().join("spill")).unwrap().count(), 0);
        drop((spilled, writer));
        assert_eq!(space.state.lock().used, 0);
    }

    #[test]
    fn an_organisation_opens_half_of_the_files_that_the_others_leave() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path(), 1_000, disk_space);
        let [acme, zen] = ["acme", "zen"].map(|name| space.for_owner(Some(name.to_owned())));
        let mut held: Vec<_> = (0..4).map(|_| file(&acme)).collect();
        assert!(Files(Arc::clone(&acme)).create_temp_file("test").is_err() && acme.is_refused());
        let of_zen = file(&zen);
        assert!(!zen.is_refused());
        held.pop();
        drop(of_zen);
        drop(file(&acme));
        drop(held);
        let state = space.state.lock();
        assert!(state.files == 0 && state.owners_files.is_empty());
    }

    #[test]
    fn an_organisation_spills_half_of_what_the_others_leave() {
        let folder = tempfile::tempdir().unwrap();
        let space = space(folder.path(), 1_000, disk_space);
        let [acme, zen] = ["acme", "zen"].map(|name| space.for_owner(Some(name.to_owned())));
        let first = file(&acme);
        let second = file(&acme);
        let third = file(&zen);
        write(&first, 300).unwrap();
        write(&second, 200).unwrap();
        assert!(!acme.is_refused());
        let refused = write(&second, 1).unwrap_err().to_string();
        assert!(refused.contains("`spill_bytes`") && acme.is_refused(), "{refused}");
        write(&third, 250).unwrap();
        assert!(!zen.is_refused(), "other statements are not affected");
        drop(first);
        write(&second, 100).unwrap();
    }

    #[test]
    fn a_part_of_the_disk_stays_free() {
        let folder = tempfile::tempdir().unwrap();
        let full = space(folder.path(), u64::MAX, |_| Ok((100 << 30, 5 << 30)));
        let spill = full.for_owner(None);
        let refused = write(&file(&spill), 1).unwrap_err();
        assert!(refused.kind() == io::ErrorKind::StorageFull && spill.is_refused(), "{refused}");
        let roomy = space(folder.path(), u64::MAX, |_| Ok((100 << 30, (5 << 30) + 1)));
        write(&file(&roomy.for_owner(None)), 1).unwrap();
        assert_eq!((reserve(2 << 30), reserve(8 << 30)), (512 << 20, 1 << 30));
    }
}
