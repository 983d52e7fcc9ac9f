//! The calls to a local file system that decide what survives a power cut, behind a trait.
//!
//! Everything that must be durable goes through [`Disk`]: the segments of the log, the small files
//! beside it, the objects of a data folder and the catalog. [`LocalDisk`] is the operating
//! system's. Tests put a disk in its place that forgets what was not synced, fails a sync, fills up
//! or tears a write.
//!
//! Names are durable only once the folder that holds them is synced, contents only once the file
//! is; that is what POSIX promises, and no caller relies on more.
//!
//! Whatever is made here belongs to the user of this process alone: folders are 0700, files 0600
//! ([`private_file`], [`make_private_folders`]), since all of them may hold what people said.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file system. Paths are absolute.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file that does not exist yet and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists for writing at its end.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing over its beginning; creates it if there is none.
    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Returns the length of a file.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// Lists the paths of files and folders in a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Returns whether a file or folder of this name exists.
    fn exists(&self, path: &Path) -> bool;
    /// Returns whether a file system begins at this folder, so that its own name need not be
    /// synced.
    fn is_mount(&self, folder: &Path) -> bool {
        folder.parent().is_none()
    }
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails with `AlreadyExists` if the name is taken.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates one folder; its parent must exist. Fails with `AlreadyExists` if it does.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Removes a folder and everything in it.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;
    /// Returns once the bytes and the length of a file, written by whomever, are durable.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Returns once the names in a folder are durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is open for writing.
pub trait DiskFile: Send {
    /// Writes all bytes at the end. After an error any prefix of them may be in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Writes all bytes over the beginning of a file that was opened in place. After an error any
    /// of them may be in the file.
    fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to that many bytes; what is appended next follows them.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Returns once the file's bytes and length are durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

/// Options to open a file that only this user may read, should it be made.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a folder, and those above it, that only this user may enter.
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
        // The length is part of the data that `fdatasync` keeps.
        self.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! The disk of the operating system with calls that fail.

    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Where calls fail, and how.
    #[derive(Debug, Default)]
    struct Fault {
        /// Text in the path of a file whose sync fails, and how many syncs of such files go well
        /// before.
        sync: Option<(String, usize)>,
        /// Bytes that still fit on the disk.
        room: Option<usize>,
    }

    /// A disk that fails as it is asked to.
    #[derive(Debug, Default)]
    pub(crate) struct Failing(Arc<Mutex<Fault>>);

    impl Failing {
        /// Lets every sync fail of files and folders with that text in their path, after so many
        /// that go well.
        pub(crate) fn fail_sync_after(&self, text: &str, good: usize) {
            self.0.lock().sync = Some((text.to_owned(), good));
        }

        /// Lets so many more bytes fit on the disk; none = any number.
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
