//! The calls to a local file system that decide what survives a power cut, behind a trait.
//!
//! Everything that must be durable goes through [`Disk`]: the segments of the log, the small files beside it, the
//! objects of a data folder and the catalog. [`LocalDisk`] is the operating system's. Tests put a disk in its place
//! that forgets what was not synced, fails a sync, fills up or tears a write.
//!
//! Names are durable only once the folder that holds them is synced, contents only once the file is; that is what
//! POSIX promises, and no caller relies on more.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file system. Paths are absolute.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file that does not exist yet and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists for writing at its end.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Lists the paths of files and folders in a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Returns whether a file or folder of this name exists.
    fn exists(&self, path: &Path) -> bool;
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
    /// Returns once the names in a folder are durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is open for writing.
pub trait DiskFile: Send {
    /// Writes all bytes at the end. After an error any prefix of them may be in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to that many bytes; what is appended next follows them.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Returns once the file's bytes and length are durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().create_new(true).append(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
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
        fs::create_dir(folder)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is part of the data that `fdatasync` keeps.
        self.sync_data()
    }
}
