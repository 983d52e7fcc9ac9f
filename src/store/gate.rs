//! A disk that can block durable writes: the syncs of the log, and the rename that publishes the
//! catalog.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::disk::{Disk, DiskFile, LocalDisk};

#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    held: usize,
    catalog: bool,
}

impl Gate {
    /// Blocks every durable write from now on.
    pub(crate) fn close(&self) {
        self.0.0.lock().closed = true;
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock() = State::default();
        self.0.1.notify_all();
    }

    /// Waits until a write is blocked.
    pub(crate) async fn reached(&self) {
        while self.0.0.lock().held == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns true if the write of the catalog is blocked.
    pub(crate) fn holds_catalog(&self) -> bool {
        self.0.0.lock().catalog
    }

    fn pass(&self, catalog: bool) {
        let mut state = self.0.0.lock();
        if state.closed {
            state.held += 1;
            state.catalog |= catalog;
        }
        while state.closed {
            self.0.1.wait(&mut state);
        }
    }

    fn file(&self, path: &Path, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let is_log = path.extension().is_some_and(|extension| extension == "wal");
        Box::new(GatedFile { inner, gate: is_log.then(|| self.clone()) })
    }
}

struct GatedFile {
    inner: Box<dyn DiskFile>,
    gate: Option<Gate>,
}

impl DiskFile for GatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.append(bytes)
    }
    fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.overwrite(bytes)
    }
    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.inner.truncate(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.pass(false);
        }
        self.inner.sync()
    }
}

impl Disk for Gate {
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
        if to.ends_with("catalog.json") {
            self.pass(true);
        }
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
        LocalDisk.sync_file(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(folder)
    }
}
