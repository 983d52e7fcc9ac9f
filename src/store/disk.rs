//! File system calls that determine which data survives a power cut, behind a trait.
//!
//! Everything durable goes through [`Disk`]: the segments of the log, the small files beside it,
//! the objects of a data folder and the catalog. [`LocalDisk`] uses the operating system. Tests
//! substitute a disk that loses unsynced data, fails a sync, runs full or tears a write.
//!
//! A name is durable only after its folder is synced, and content only after its file is synced.
//! POSIX guarantees no more, so callers rely on no more.
//!
//! Everything that is created here belongs to the user of this process alone: folders have mode
//! 0700, files 0600 ([`private_file`], [`make_private_folders`]), since all of them may hold
//! content of calls.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file system. Paths are absolute.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file that does not exist yet and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for appending.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for overwriting its beginning. Creates the file if it is missing.
    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Returns the length of a file.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// Lists the paths of files and folders in a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Returns true if a file or folder of this name exists.
    fn exists(&self, path: &Path) -> bool;
    /// Returns true if this folder is a mount point, so that its own name need not be synced.
    fn is_mount(&self, folder: &Path) -> bool {
        folder.parent().is_none()
    }
    /// Renames a file, replacing a file with the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails with `AlreadyExists` if the name is taken.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates one folder. Its parent must exist. Fails with `AlreadyExists` if the folder exists.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes a folder and everything in it.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
    /// Syncs the content and length of a file, including data that other processes wrote.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Syncs the names in a folder.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is open for writing.
pub trait DiskFile: Send {
    /// Appends bytes. After an error, the file may hold any prefix of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Overwrites the beginning of a file that was opened in place. After an error, the file may
    /// hold any part of the bytes.
    fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Truncates the file to a length. The next append continues there.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Syncs the content and length of the file.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

/// Returns options that create files which only this user may read.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Creates a folder and its parents so that only this user may enter them.
pub fn make_private_folders(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(private_file().create_new(true).append(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(private_file().create(true).truncate(false).write(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn is_mount(&self, folder: &Path) -> bool {
        let device = |folder: &Path| fs::metadata(folder).ok().map(|about| about.dev());
        folder.parent().is_none_or(|parent| device(folder) != device(parent))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(folder)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, 0)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // `fdatasync` also syncs the length.
        self.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! A wrapper of the operating system's disk whose calls fail on request.

    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Faults to inject.
    #[derive(Debug, Default)]
    struct Fault {
        /// Text in the paths whose sync fails, and the number of syncs that succeed before.
        sync: Option<(String, usize)>,
        /// Free bytes on the disk.
        room: Option<usize>,
    }

    /// A disk that fails on request.
    #[derive(Debug, Default)]
    pub(crate) struct Failing(Arc<Mutex<Fault>>);

    impl Failing {
        /// Makes every sync of files and folders with this text in their path fail, after a number
        /// of successful ones.
        pub(crate) fn fail_sync_after(&self, text: &str, good: usize) {
            self.0.lock().sync = Some((text.to_owned(), good));
        }

        /// Sets the free bytes of the disk. `None` means unlimited.
        pub(crate) fn leave_room(&self, bytes: Option<usize>) {
            self.0.lock().room = bytes;
        }
    }

    impl Fault {
        fn sync(&mut self, path: &Path) -> io::Result<()> {
            match &mut self.sync {
                Some((text, left)) if path.to_string_lossy().contains(text.as_str()) => {
                    match left.checked_sub(1) {
                        Some(fewer) => *left = fewer,
                        None => return Err(io::Error::other("the disk says no")),
                    }
                }
                _ => {}
            }
            Ok(())
        }
    }

    struct FailingFile {
        inner: Box<dyn DiskFile>,
        path: PathBuf,
        fault: Arc<Mutex<Fault>>,
    }

    impl DiskFile for FailingFile {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let fits = self.fault.lock().room.unwrap_or(usize::MAX).min(bytes.len());
            self.inner.append(&bytes[..fits])?;
            let mut fault = self.fault.lock();
            fault.room = fault.room.map(|room| room - fits);
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.inner.overwrite(bytes)
        }
        fn truncate(&mut self, bytes: u64) -> io::Result<()> {
            self.inner.truncate(bytes)
        }
        fn sync(&mut self) -> io::Result<()> {
            self.fault.lock().sync(&self.path)?;
            self.inner.sync()
        }
    }

    impl Failing {
        fn file(&self, path: &Path, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
            Box::new(FailingFile { inner, path: path.to_owned(), fault: Arc::clone(&self.0) })
        }
    }

    impl Disk for Failing {
        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            Ok(self.file(path, LocalDisk.create(path)?))
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            Ok(self.file(path, LocalDisk.open(path)?))
        }
        fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            Ok(self.file(path, LocalDisk.open_in_place(path)?))
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            LocalDisk.read(path)
        }
        fn length(&self, path: &Path) -> io::Result<u64> {
            LocalDisk.length(path)
        }
        fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            LocalDisk.list(folder)
        }
        fn exists(&self, path: &Path) -> bool {
            LocalDisk.exists(path)
        }
        fn is_mount(&self, folder: &Path) -> bool {
            LocalDisk.is_mount(folder)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            LocalDisk.rename(from, to)
        }
        fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
            LocalDisk.hard_link(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalDisk.remove(path)
        }
        fn create_folder(&self, folder: &Path) -> io::Result<()> {
            LocalDisk.create_folder(folder)
        }
        fn remove_folder(&self, folder: &Path) -> io::Result<()> {
            LocalDisk.remove_folder(folder)
        }
        fn sync_file(&self, path: &Path) -> io::Result<()> {
            self.0.lock().sync(path)?;
            LocalDisk.sync_file(path)
        }
        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.0.lock().sync(folder)?;
            LocalDisk.sync_folder(folder)
        }
    }
}
