//! Blocks of the disk cache: index, eviction, and detection of torn entries.
//!
//! Nothing is synced, since an entry that a power cut tore or emptied fails its checksum. The index
//! is in memory and is rebuilt from the folder's listing at first use. It can be wrong only about
//! the presence of a block, never about its content.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time;

use bytes::Bytes;
use object_store::path::Path;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::store::disk::{make_private_folders, private_file};

/// Bytes per block.
pub(super) const BLOCK: u64 = 256 << 10;
/// Bytes of an entry before the tag: magic, checksum, object size, modification time, tag length.
const HEADER: usize = 4 + 4 + 8 + 8 + 2;
/// Maximum number of removed files to remember: more than the queries in progress may still read.
const MAX_GONE: usize = 1 << 16;
const MAGIC: &[u8; 4] = b"GLC1";

/// Cache metrics since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks found in the cache.
    pub hits: u64,
    /// Blocks missing from the cache.
    pub misses: u64,
    /// Bytes on the disk now.
    pub bytes: u64,
}

/// Object metadata that the store reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) size: u64,
    pub(super) modified_micros: i64,
    pub(super) e_tag: Option<String>,
}

/// One block of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    file: u128,
    block: u64,
}

impl Key {
    fn name(self) -> String {
        format!("{:032x}-{:x}", self.file, self.block)
    }

    fn parse(name: &str) -> Option<Self> {
        let (file, block) = name.split_once('-')?;
        let key = Self {
            file: u128::from_str_radix(file, 16).ok()?,
            block: u64::from_str_radix(block, 16).ok()?,
        };
        (key.name() == name).then_some(key)
    }
}

/// Blocks on the disk, ordered by last use.
#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Key, (u64, u64)>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: u64,
    reserved: u64,
}

impl Index {
    fn touch(&mut self, key: Key) -> bool {
        let Some((_, used)) = self.entries.get_mut(&key) else { return false };
        self.by_use.remove(used);
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        self.uses += 1;
        true
    }

    fn insert(&mut self, key: Key, bytes: u64) {
        self.remove(key);
        self.entries.insert(key, (bytes, self.uses));
        self.by_use.insert(self.uses, key);
        self.uses += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, key: Key) {
        if let Some((bytes, used)) = self.entries.remove(&key) {
            self.by_use.remove(&used);
            self.bytes -= bytes;
        }
    }

    /// Reserves bytes for a new block and returns the blocks to evict.
    fn reserve(&mut self, bytes: u64, most: u64) -> Vec<Key> {
        self.reserved += bytes;
        let mut out = Vec::new();
        while self.bytes + self.reserved > most
            && let Some((_, key)) = self.by_use.pop_first()
        {
            if let Some((bytes, _)) = self.entries.remove(&key) {
                self.bytes -= bytes;
            }
            out.push(key);
        }
        out
    }
}

/// Files that the tables list now, and files that they no longer list.
#[derive(Debug, Default)]
struct Files {
    live: HashSet<u128>,
    gone: HashSet<u128>,
}

/// Blocks on the disk. Every call except [`Blocks::stats`] blocks on disk I/O.
#[derive(Debug)]
pub struct Blocks {
    folder: PathBuf,
    place: String,
    most_bytes: u64,
    index: OnceLock<Mutex<Index>>,
    files: Mutex<Files>,
    hits: AtomicU64,
    misses: AtomicU64,
    temporary: AtomicU64,
    warned: AtomicBool,
}

impl Blocks {
    pub(super) fn new(folder: PathBuf, place: &str, most_bytes: u64) -> Self {
        Self {
            folder,
            place: place.to_owned(),
            most_bytes,
            index: OnceLock::new(),
            files: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            temporary: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    pub(super) fn count(&self, hits: usize, misses: usize) {
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
        self.misses.fetch_add(misses as u64, Ordering::Relaxed);
    }

    /// Returns metrics since the start.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.index.get().map_or(0, |index| index.lock().bytes),
        }
    }

    pub(super) fn file_key(&self, location: &Path) -> u128 {
        let mut hash = Sha256::new();
        hash.update(self.place.as_bytes());
        hash.update([0]);
        hash.update(location.as_ref().as_bytes());
        hash.finalize().iter().take(16).fold(0, |key, byte| key << 8 | u128::from(*byte))
    }

    fn path(&self, key: Key) -> PathBuf {
        let name = key.name();
        self.folder.join(&name[..2]).join(name)
    }

    /// Returns the requested blocks of a file that are cached and intact.
    pub(super) fn read(&self, file: u128, blocks: &BTreeSet<u64>) -> Vec<(u64, (About, Bytes))> {
        let index = self.index();
        let mut found = Vec::new();
        for block in blocks {
            let key = Key { file, block: *block };
            if !index.lock().touch(key) {
                continue;
            }
            match fs::read(self.path(key)).map(|bytes| decode(key, bytes)) {
                Ok(Some(entry)) => found.push((*block, entry)),
                torn_or_gone => {
                    index.lock().remove(key);
                    if torn_or_gone.is_ok() {
                        // The next start would count the entry again. If removal fails, the next
                        // write reports it.
                        let _ = fs::remove_file(self.path(key));
                    }
                }
            }
        }
        found
    }

    /// Removes the blocks of all files except those that the tables list now, so erased rows leave
    /// the cache. A query that still reads a removed file caches no block of it.
    pub fn sweep(&self, live: &[Path]) {
        {
            let live = live.iter().map(|path| self.file_key(path)).collect();
            let mut files = self.files.lock();
            let before = std::mem::replace(&mut files.live, live);
            if files.gone.len() > MAX_GONE {
                files.gone.clear();
            }
            let Files { live, gone } = &mut *files;
            gone.extend(before.difference(live).copied());
        }
        let index = self.index();
        let dead: Vec<Key> = {
            let files = self.files.lock();
            index
                .lock()
                .entries
                .keys()
                .filter(|key| !files.live.contains(&key.file))
                .copied()
                .collect()
        };
        for key in dead {
            index.lock().remove(key);
            if let Err(error) = fs::remove_file(self.path(key)) {
                let path = self.path(key);
                tracing::warn!(%error, file = %path.display(), "cannot remove a stale block of the disk cache");
            }
        }
    }

    /// Stores the blocks of a run that was read.
    pub(super) fn keep(&self, file: u128, about: &About, start: u64, bytes: &Bytes) {
        let step = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        for (place, from) in (0..bytes.len()).step_by(step).enumerate() {
            let key = Key { file, block: start / BLOCK + place as u64 };
            let entry = encode(key, about, &bytes[from..bytes.len().min(from + step)]);
            if let Err(error) = self.write(key, &entry) {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    let folder = self.folder.display();
                    tracing::warn!(%error, "cannot write to the disk cache `{folder}`; reads go to the bucket");
                }
                return;
            }
        }
    }

    fn write(&self, key: Key, entry: &[u8]) -> io::Result<()> {
        let index = self.index();
        let bytes = entry.len() as u64;
        let out = index.lock().reserve(bytes, self.most_bytes);
        for old in out {
            // If removal fails, the next start finds the file again.
            let _ = fs::remove_file(self.path(old));
        }
        let written = self.write_file(key, entry);
        {
            let mut index = index.lock();
            index.reserved -= bytes;
            if written.is_ok() {
                index.insert(key, bytes);
            }
        }
        // The check follows the insertion into the index: a concurrent sweep sees the block, or
        // this check sees the sweep.
        if self.files.lock().gone.contains(&key.file) {
            index.lock().remove(key);
            let _ = fs::remove_file(self.path(key));
        }
        written
    }

    fn write_file(&self, key: Key, entry: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let temporary =
            self.folder.join(format!("{}.tmp", self.temporary.fetch_add(1, Ordering::Relaxed)));
        make_private_folders(path.parent().unwrap_or(&self.folder))?;
        let file = private_file().create(true).truncate(true).write(true).open(&temporary);
        let written = file
            .and_then(|mut file| file.write_all(entry))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn index(&self) -> &Mutex<Index> {
        self.index.get_or_init(|| Mutex::new(self.load()))
    }

    /// Loads the entries of an earlier run in the order in which they were written. Removes
    /// everything else.
    fn load(&self) -> Index {
        let mut found = Vec::new();
        for folder in list(&self.folder) {
            if !folder.is_dir() {
                let _ = fs::remove_file(&folder);
                continue;
            }
            for path in list(&folder) {
                let key = path.file_name().and_then(|name| Key::parse(name.to_str()?));
                let about = fs::metadata(&path).ok();
                match (key, about) {
                    (Some(key), Some(about)) if self.path(key) == path => {
                        found.push((
                            about.modified().unwrap_or(time::UNIX_EPOCH),
                            key,
                            about.len(),
                        ));
                    }
                    _ => {
                        let _ = fs::remove_file(&path);
                    }
                }
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        let mut index = Index::default();
        for (_, key, bytes) in found {
            index.insert(key, bytes);
        }
        for key in index.reserve(0, self.most_bytes) {
            let _ = fs::remove_file(self.path(key));
        }
        index
    }
}

/// Lists a folder. An unreadable or missing folder counts as empty.
fn list(folder: &FilePath) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn encode(key: Key, about: &About, bytes: &[u8]) -> Vec<u8> {
    let tag =
        about.e_tag.as_deref().filter(|tag| tag.len() <= usize::from(u16::MAX)).unwrap_or_default();
    let mut entry = Vec::with_capacity(HEADER + tag.len() + bytes.len());
    entry.extend_from_slice(MAGIC);
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(&about.size.to_le_bytes());
    entry.extend_from_slice(&about.modified_micros.to_le_bytes());
    entry.extend_from_slice(&(tag.len() as u16).to_le_bytes());
    entry.extend_from_slice(tag.as_bytes());
    entry.extend_from_slice(bytes);
    let sum = checksum(key, &entry[8..]);
    entry[4..8].copy_from_slice(&sum.to_le_bytes());
    entry
}

/// Decodes an entry. Returns `None` if it is not what was written for this key.
fn decode(key: Key, entry: Vec<u8>) -> Option<(About, Bytes)> {
    if entry.len() < HEADER
        || entry[..4] != *MAGIC
        || entry[4..8] != checksum(key, &entry[8..]).to_le_bytes()
    {
        return None;
    }
    let size = u64::from_le_bytes(entry[8..16].try_into().ok()?);
    let modified_micros = i64::from_le_bytes(entry[16..24].try_into().ok()?);
    let tag_bytes = usize::from(u16::from_le_bytes(entry[24..26].try_into().ok()?));
    let tag = std::str::from_utf8(entry.get(HEADER..HEADER + tag_bytes)?).ok()?.to_owned();
    let bytes = Bytes::from(entry).slice(HEADER + tag_bytes..);
    let whole = size.checked_sub(key.block * BLOCK)?.min(BLOCK);
    (bytes.len() as u64 == whole)
        .then(|| (About { size, modified_micros, e_tag: (!tag.is_empty()).then_some(tag) }, bytes))
}

fn checksum(key: Key, content: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&key.file.to_le_bytes());
    hash.update(&key.block.to_le_bytes());
    hash.update(content);
    hash.finalize()
}
