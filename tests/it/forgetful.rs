//! A disk that loses at a power cut what was not synced, over a folder of the operating system's.
//!
//! Every call goes through to the folder, so that it can be read as usual. Beside it stands what a
//! power cut leaves: the bytes that files had when they were synced, and the names that folders had
//! when they were. [`Forgetful::cut`] gives that as another disk; [`Forgetful::restarted`] is the
//! same disk for the next process.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gatelog::store::disk::{Disk, DiskFile, LocalDisk};

/// A call that a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Any,
    Create,
    Append,
    Rename,
    Link,
    Sync,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    /// It fails. The bytes that a failed sync was for count as clean from then on, as Linux has it.
    Fails(io::ErrorKind),
    /// The process is gone before it.
    DiesBefore,
    /// The process is gone after it.
    DiesAfter,
}

/// What goes wrong, and where.
#[derive(Clone, Debug)]
pub struct Fault {
    call: Call,
    /// What the path holds; with `$` at its end, what it ends in.
    text: String,
    happens: Happens,
    good: usize,
    times: usize,
    forgets_names: bool,
}

impl Fault {
    fn new(call: Call, text: &str, happens: Happens) -> Self {
        Self { call, text: text.to_owned(), happens, good: 0, times: 1, forgets_names: false }
    }

    /// The sync of a file or folder fails.
    pub fn sync(text: &str) -> Self {
        Self::new(Call::Sync, text, Happens::Fails(io::ErrorKind::Other))
    }

    /// The disk is full when a file is written to.
    pub fn full(text: &str) -> Self {
        Self::new(Call::Append, text, Happens::Fails(io::ErrorKind::StorageFull))
    }

    /// The process is gone before the call.
    pub fn dies_before(call: Call, text: &str) -> Self {
        Self::new(call, text, Happens::DiesBefore)
    }

    /// The process is gone after the call.
    pub fn dies_after(call: Call, text: &str) -> Self {
        Self::new(call, text, Happens::DiesAfter)
    }

    /// Only after so many calls that go well.
    pub fn after(self, good: usize) -> Self {
        Self { good, ..self }
    }

    /// The names in the folder whose sync failed count as written from then on, and only changed
    /// again do they get there.
    pub fn and_forgets_names(self) -> Self {
        Self { forgets_names: true, ..self }
    }

    /// Again and again.
    pub fn for_ever(self) -> Self {
        Self { times: usize::MAX, ..self }
    }
}

#[derive(Debug, Default)]
struct State {
    /// What is on the disk of each file, by inode.
    bytes: HashMap<u64, Vec<u8>>,
    /// How many bytes of a file count as clean though a failed sync did not write them.
    clean: HashMap<u64, usize>,
    /// The names on the disk: the inode of a file, none for a folder.
    names: BTreeMap<PathBuf, Option<u64>>,
    /// Names that count as written though a failed sync did not write them.
    clean_names: Vec<(PathBuf, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Process {
    fault: Option<Fault>,
    is_dead: bool,
}

/// The disk, for one process.
#[derive(Clone, Debug)]
pub struct Forgetful {
    root: PathBuf,
    state: Arc<Mutex<State>>,
    process: Arc<Mutex<Process>>,
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

impl Forgetful {
    /// A disk of which everything is durable that is in the folder now.
    pub fn new(root: &Path) -> Self {
        let disk = Self { root: root.to_owned(), state: Arc::default(), process: Arc::default() };
        disk.sync_all(root);
        disk
    }

    /// The path of something on it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn sync_all(&self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.sync_all(&path);
            } else {
                self.keep_bytes(&path).unwrap();
            }
        }
        self.keep_names(folder).unwrap();
    }

    /// Lets something go wrong.
    pub fn fail(&self, fault: Fault) {
        self.process.lock().unwrap().fault = Some(fault);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.process.lock().unwrap().fault = None;
    }

    /// Returns whether what was to go wrong went wrong, and is over.
    pub fn has_failed(&self) -> bool {
        self.process.lock().unwrap().fault.is_none()
    }

    /// The process is gone: no call of it does anything any more.
    pub fn kill(&self) {
        self.process.lock().unwrap().is_dead = true;
    }

    /// The disk as the next process finds it.
    pub fn restarted(&self) -> Self {
        self.kill();
        Self { process: Arc::default(), ..self.clone() }
    }

    /// What a power cut leaves, in another folder.
    pub fn cut(&self, to: &Path) -> Self {
        self.kill();
        let state = self.state.lock().unwrap();
        for (name, inode) in &state.names {
            let target = to.join(name.strip_prefix(&self.root).unwrap());
            // A folder whose own name is gone is gone with all that is in it.
            if target.parent().is_some_and(Path::is_dir) {
                match inode {
                    None => fs::create_dir(&target).unwrap(),
                    Some(inode) => {
                        fs::write(&target, state.bytes.get(inode).map_or(&[][..], |bytes| bytes))
                            .unwrap()
                    }
                }
            }
        }
        Self::new(to)
    }

    fn keep_bytes(&self, path: &Path) -> io::Result<()> {
        let (inode, seen) = (inode(path)?, fs::read(path)?);
        let mut state = self.state.lock().unwrap();
        let clean = state.clean.get(&inode).copied().unwrap_or(0).min(seen.len());
        let bytes = state.bytes.entry(inode).or_default();
        let before = bytes.len().min(clean);
        *bytes = [&bytes[..before], &vec![0; clean - before], &seen[clean..]].concat();
        if clean == 0 {
            *bytes = seen;
        }
        Ok(())
    }

    fn names_in(folder: &Path) -> io::Result<Vec<(PathBuf, Option<u64>)>> {
        let name = |path: PathBuf| {
            let about = fs::metadata(&path)?;
            Ok((path, (!about.is_dir()).then(|| about.ino())))
        };
        LocalDisk.list(folder)?.into_iter().map(name).collect()
    }

    /// Has the names that are new in a folder count as written.
    fn forget_names(&self, folder: &Path) -> io::Result<()> {
        let found = Self::names_in(folder)?;
        let mut state = self.state.lock().unwrap();
        let new: Vec<_> = found
            .into_iter()
            .filter(|(name, inode)| state.names.get(name) != Some(inode))
            .collect();
        state.clean_names.extend(new);
        Ok(())
    }

    fn keep_names(&self, folder: &Path) -> io::Result<()> {
        let mut found = Self::names_in(folder)?;
        let mut state = self.state.lock().unwrap();
        let kept = state.clean_names.clone();
        let before = state.names.clone();
        found.retain(|name| !kept.contains(name));
        // Of a name that counts as written the disk has what it had.
        for (name, _) in
            kept.iter().filter(|(name, _)| name.parent() == Some(folder) && name.exists())
        {
            if found.iter().all(|(found, _)| found != name) {
                found.extend(before.get(name).map(|inode| (name.clone(), *inode)));
            }
        }
        state.names.retain(|name, _| name.parent() != Some(folder));
        state.names.extend(found);
        Ok(())
    }

    /// Does a call, or lets it go wrong.
    fn call<T>(
        &self,
        call: Call,
        path: &Path,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let gone = || io::Error::other("this process is gone");
        let (happens, forgets_names) = {
            let mut process = self.process.lock().unwrap();
            if process.is_dead {
                return Err(gone());
            }
            process
                .hits(call, path)
                .map_or((None, false), |(happens, forgets)| (Some(happens), forgets))
        };
        match happens {
            None => work(),
            Some(Happens::Fails(kind)) => {
                if call == Call::Sync && path.is_file() {
                    let (inode, length) = (inode(path)?, fs::metadata(path)?.len() as usize);
                    self.state.lock().unwrap().clean.insert(inode, length);
                }
                if call == Call::Sync && path.is_dir() && forgets_names {
                    self.forget_names(path)?;
                }
                Err(kind.into())
            }
            Some(Happens::DiesBefore) => {
                self.kill();
                Err(gone())
            }
            Some(Happens::DiesAfter) => {
                let _ = work();
                self.kill();
                Err(gone())
            }
        }
    }
}

impl Process {
    fn hits(&mut self, call: Call, path: &Path) -> Option<(Happens, bool)> {
        let fault = self.fault.as_mut()?;
        let path = path.to_string_lossy();
        let is_path = match fault.text.strip_suffix('$') {
            Some(end) => path.ends_with(end),
            None => path.contains(&fault.text),
        };
        if !is_path || !(fault.call == call || fault.call == Call::Any) {
            return None;
        }
        if fault.good > 0 {
            fault.good -= 1;
            return None;
        }
        fault.times -= 1;
        let happens = (fault.happens, fault.forgets_names);
        if fault.times == 0 {
            self.fault = None;
        }
        Some(happens)
    }
}

struct ForgetfulFile {
    inner: Box<dyn DiskFile>,
    path: PathBuf,
    inode: u64,
    disk: Forgetful,
}

impl DiskFile for ForgetfulFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let inner = &mut self.inner;
        let done = self.disk.call(Call::Append, &self.path, || inner.append(bytes));
        if done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            // Some of it fits.
            self.inner.append(&bytes[..bytes.len() / 2])?;
        }
        done
    }

    fn overwrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        let inner = &mut self.inner;
        self.disk.call(Call::Append, &self.path, || inner.overwrite(bytes))
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.inner.truncate(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // By the name that it was opened by, for it is renamed only after it was synced.
        let (disk, path, inode) = (&self.disk, &self.path, self.inode);
        disk.call(Call::Sync, path, || {
            assert_eq!(self::inode(path)?, inode, "a file that has another name is synced");
            disk.keep_bytes(path)
        })
    }
}

impl Forgetful {
    fn file(&self, path: &Path, inner: Box<dyn DiskFile>) -> io::Result<Box<dyn DiskFile>> {
        let (inode, disk) = (inode(path)?, self.clone());
        Ok(Box::new(ForgetfulFile { inner, path: path.to_owned(), inode, disk }))
    }

    fn create_with(
        &self,
        path: &Path,
        create: impl FnOnce() -> io::Result<Box<dyn DiskFile>>,
    ) -> io::Result<Box<dyn DiskFile>> {
        self.call(Call::Create, path, || {
            let file = create()?;
            let mut state = self.state.lock().unwrap();
            let inode = inode(path)?;
            state.bytes.insert(inode, Vec::new());
            state.clean.remove(&inode);
            drop(state);
            self.file(path, file)
        })
    }
}

impl Disk for Forgetful {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.create_with(path, || LocalDisk.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.file(path, LocalDisk.open(path)?)
    }
    fn open_in_place(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.exists(path) {
            self.file(path, LocalDisk.open_in_place(path)?)
        } else {
            self.create_with(path, || LocalDisk.open_in_place(path))
        }
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
        folder == self.root
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Rename, to, || LocalDisk.rename(from, to))
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Link, to, || LocalDisk.hard_link(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Rename, path, || LocalDisk.remove(path))
    }
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(Call::Create, folder, || LocalDisk.create_folder(folder))
    }
    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(Call::Rename, folder, || LocalDisk.remove_folder(folder))
    }
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Sync, path, || self.keep_bytes(path))
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call(Call::Sync, folder, || self.keep_names(folder))
    }
}
