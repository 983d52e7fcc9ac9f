//! A disk in memory that records what is done to it, fails on request, and serves reads of objects.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use gatelog::store::disk::{Disk, DiskFile};

use super::file::Content;
use super::journal::{Op, Outcome, Recording, Step};
use super::medium::{Id, Medium, Names, ROOT};

/// The clock of all simulated disks and of the engines on them: it moves on by a millisecond
/// whenever it is read.
static CLOCK_MS: AtomicI64 = AtomicI64::new(1_795_600_000_000);

pub fn now_ms() -> i64 {
    CLOCK_MS.fetch_add(1, Ordering::Relaxed)
}

pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(now_ms()).unwrap_or_default()
}

/// Fault of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The sync of this number, from now on and from 0, fails once.
    Sync { number: usize, outcome: Outcome },
    /// So many bytes more can be written.
    Full { room: usize },
}

/// A disk. Clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    medium: Medium,
    steps: Vec<Step>,
    next_id: Id,
    fault: Fault,
    /// Syncs since the fault was asked for.
    syncs: usize,
    failed: Option<Step>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// Entry of a listing for a file.
pub struct Found {
    pub path: String,
    pub size: usize,
    pub modified_ms: i64,
    pub tag: String,
}

impl SimDisk {
    /// A disk that begins with a state.
    pub fn over(medium: Medium) -> Self {
        let next_id = medium.next_id();
        let (steps, fault) = (Vec::new(), Fault::None);
        Self(Arc::new(Mutex::new(State { medium, steps, next_id, fault, syncs: 0, failed: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of its operations.
    pub fn len(&self) -> usize {
        self.state().steps.len()
    }

    /// Its operations since it began with a state in both models of names.
    pub fn recording(&self, posix: Medium, ordered: Medium) -> Recording {
        Recording { posix, ordered, steps: self.state().steps.clone() }
    }

    /// Returns whether something has that path.
    pub fn has(&self, path: &str) -> bool {
        self.state().find(Path::new(path)).is_ok()
    }

    pub fn arm(&self, fault: Fault) {
        let mut state = self.state();
        (state.fault, state.syncs, state.failed) = (fault, 0, None);
    }

    /// The operation that failed, if the fault came.
    pub fn failed(&self) -> Option<Step> {
        self.state().failed.clone()
    }

    /// The content of a file, and what a listing says of it.
    pub fn object(&self, path: &Path) -> Option<(Arc<Content>, Found)> {
        let state = self.state();
        let id = state.find(path).ok()?;
        let file = state.medium.file(id)?;
        let found = state.found(id, path.to_string_lossy().trim_start_matches('/').to_owned())?;
        Some((Arc::clone(&file.seen), found))
    }

    /// Every file below a folder, in the order of paths.
    pub fn files_below(&self, folder: &Path) -> Vec<Found> {
        let state = self.state();
        let mut found = Vec::new();
        if let Ok(id) = state.find(folder) {
            let above = folder.to_string_lossy().trim_matches('/').to_owned();
            state.collect(id, &above, &mut found);
        }
        found
    }

    /// Files and folders in a folder.
    pub fn entries(&self, folder: &Path) -> (Vec<Found>, BTreeSet<String>) {
        let state = self.state();
        let (mut files, mut folders) = (Vec::new(), BTreeSet::new());
        let names = state.find(folder).ok().and_then(|id| state.medium.names(id));
        let above = folder.to_string_lossy().trim_matches('/').to_owned();
        for (name, id) in names.into_iter().flatten() {
            let path = format!("{above}/{name}");
            match state.found(*id, path.clone()) {
                Some(file) => files.push(file),
                None => {
                    folders.insert(path);
                }
            }
        }
        (files, folders)
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<Id> {
        let mut id = ROOT;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name.to_string_lossy(),
                Component::RootDir | Component::CurDir => continue,
                other => return Err(io::Error::other(format!("{other:?} in {}", path.display()))),
            };
            let names =
                self.medium.names(id).ok_or_else(|| error(ErrorKind::NotADirectory, path))?;
            id = *names.get(name.as_ref()).ok_or_else(|| error(ErrorKind::NotFound, path))?;
        }
        Ok(id)
    }

    fn file(&self, path: &Path) -> io::Result<Id> {
        let id = self.find(path)?;
        self.medium.file(id).map(|_| id).ok_or_else(|| error(ErrorKind::IsADirectory, path))
    }

    fn folder(&self, path: &Path) -> io::Result<(Id, &Names)> {
        let id = self.find(path)?;
        self.medium
            .names(id)
            .map(|names| (id, names))
            .ok_or_else(|| error(ErrorKind::NotADirectory, path))
    }

    /// The folder that a path is in, its name there, and what has that name.
    fn place(&self, path: &Path) -> io::Result<(Id, String, Option<Id>)> {
        let parent = path.parent().ok_or_else(|| error(ErrorKind::InvalidInput, path))?;
        let (folder, names) = self.folder(parent)?;
        let name = path.file_name().ok_or_else(|| error(ErrorKind::InvalidInput, path))?;
        let name = name.to_string_lossy().into_owned();
        let taken = names.get(&name).copied();
        Ok((folder, name, taken))
    }

    fn found(&self, id: Id, path: String) -> Option<Found> {
        let file = self.medium.file(id)?;
        let size = file.seen.bytes.len();
        let tag = format!("{id:x}-{:x}-{size:x}", file.modified_ms);
        Some(Found { path, size, modified_ms: file.modified_ms, tag })
    }

    fn collect(&self, folder: Id, above: &str, into: &mut Vec<Found>) {
        for (name, id) in self.medium.names(folder).into_iter().flatten() {
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            match self.found(*id, path.clone()) {
                Some(file) => into.push(file),
                None => self.collect(*id, &path, into),
            }
        }
    }

    fn apply(&mut self, op: Op, path: &Path) {
        let step = Step { op, at_ms: now_ms(), path: path.display().to_string() };
        self.medium.apply(&step.op, step.at_ms);
        self.steps.push(step);
    }

    fn sync(&mut self, op: impl Fn(Outcome) -> Op, path: &Path) -> io::Result<()> {
        self.syncs += 1;
        let outcome = match self.fault {
            Fault::Sync { number, outcome } if number + 1 == self.syncs => outcome,
            _ => Outcome::Done,
        };
        self.apply(op(outcome), path);
        if outcome == Outcome::Done {
            return Ok(());
        }
        self.failed = self.steps.last().cloned();
        Err(io::Error::other(format!("the disk failed to sync `{}`", path.display())))
    }

    fn create(&mut self, path: &Path, is_folder: bool) -> io::Result<Id> {
        let (folder, name, taken) = self.place(path)?;
        if taken.is_some() {
            return Err(error(ErrorKind::AlreadyExists, path));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.apply(Op::Create { folder, name, id, is_folder }, path);
        Ok(id)
    }

    fn append(&mut self, file: Id, bytes: &[u8], path: &Path) -> io::Result<()> {
        let mut fits = bytes.len();
        if let Fault::Full { room } = &mut self.fault {
            fits = fits.min(*room);
            *room -= fits;
        }
        if fits > 0 {
            self.apply(Op::Append { file, bytes: bytes[..fits].into() }, path);
        }
        if fits == bytes.len() {
            return Ok(());
        }
        self.failed = self.steps.last().cloned();
        Err(error(ErrorKind::StorageFull, path))
    }

    /// Writes over the beginning of a file; only what it grows by needs room.
    fn overwrite(&mut self, file: Id, bytes: &[u8], path: &Path) -> io::Result<()> {
        let size = self.medium.file(file).map_or(0, |file| file.seen.bytes.len());
        let more = bytes.len().saturating_sub(size);
        if let Fault::Full { room } = &mut self.fault {
            if *room < more {
                self.failed = self.steps.last().cloned();
                return Err(error(ErrorKind::StorageFull, path));
            }
            *room -= more;
        }
        self.apply(Op::Overwrite { file, bytes: bytes.into() }, path);
        Ok(())
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        let inside: Vec<String> = self.folder(path)?.1.keys().cloned().collect();
        for name in inside {
            let path = path.join(name);
            match self.file(&path) {
                Ok(id) => self.remove(id, &path)?,
                Err(_) => self.remove_folder(&path)?,
            }
        }
        self.remove(self.find(path)?, path)
    }

    fn remove(&mut self, id: Id, path: &Path) -> io::Result<()> {
        let (folder, name, _) = self.place(path)?;
        self.apply(Op::Remove { folder, name, id }, path);
        Ok(())
    }
}

fn error(kind: ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{kind}: {}", path.display()))
}

/// A file that is open for writing.
struct OpenFile {
    disk: SimDisk,
    file: Id,
    path: PathBuf,
}

impl DiskFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.state().append(self.file, bytes, &self.path)
    }

    fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.state().overwrite(self.file, bytes, &self.path)
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let size = usize::try_from(bytes).map_err(io::Error::other)?;
        self.disk.state().apply(Op::Truncate { file: self.file, size }, &self.path);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = self.file;
        self.disk.state().sync(|outcome| Op::SyncFile { file, outcome }, &self.path)
    }
}

impl SimDisk {
    fn opened(&self, file: Id, path: &Path) -> Box<dyn DiskFile> {
        Box::new(OpenFile { disk: self.clone(), file, path: path.to_owned() })
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().create(path, false)?;
        Ok(self.opened(file, path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().file(path)?;
        Ok(self.opened(file, path))
    }

    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.exists(path) { self.open(path) } else { self.create(path) }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let id = state.file(path)?;
        Ok(state.medium.file(id).map(|file| file.seen.bytes.clone()).unwrap_or_default())
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        let id = state.file(path)?;
        Ok(state.medium.file(id).map_or(0, |file| file.seen.bytes.len() as u64))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        let (_, names) = state.folder(folder)?;
        Ok(names.keys().map(|name| folder.join(name)).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().find(path).is_ok()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.file(from)?;
        let ((from_folder, from_name, _), (to_folder, to_name, _)) =
            (state.place(from)?, state.place(to)?);
        let op = Op::Rename { from: (from_folder, from_name), to: (to_folder, to_name), id };
        state.apply(op, to);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.file(from)?;
        let (folder, name, taken) = state.place(to)?;
        if taken.is_some() {
            return Err(error(ErrorKind::AlreadyExists, to));
        }
        state.apply(Op::Link { folder, name, id }, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.file(path)?;
        state.remove(id, path)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.state().create(folder, true).map(|_| ())
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.state().remove_folder(folder)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(path)?;
        state.sync(|outcome| Op::SyncFile { file, outcome }, path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (folder, _) = state.folder(path)?;
        state.sync(|outcome| Op::SyncFolder { folder, outcome }, path)
    }
}
