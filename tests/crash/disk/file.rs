//! A file on a simulated disk: what is seen of it, what is durable, and what a power cut leaves of
//! the difference.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use rand::Rng;
use rand::rngs::SmallRng;
use sha2::{Digest, Sha256};

use super::journal::Outcome;
use super::medium::Model;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// Bytes of a file, with their digest.
#[derive(Debug, Default)]
pub struct Content {
    pub bytes: Vec<u8>,
    digest: OnceLock<[u8; 32]>,
}

impl Content {
    pub fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes, digest: OnceLock::new() })
    }

    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| Sha256::digest(&self.bytes).into())
    }
}

/// A file: what is seen, and what is durable.
#[derive(Clone, Debug, Default)]
pub struct File {
    pub seen: Arc<Content>,
    pub modified_ms: i64,
    /// Durable pages; they may go on behind the durable size.
    kept: Arc<Content>,
    kept_size: usize,
    /// Pages that are seen and not durable.
    dirty: BTreeSet<usize>,
    /// Pages that a failed sync made clean.
    lost: BTreeSet<usize>,
    size_lost: bool,
}

impl File {
    pub fn of(content: Arc<Content>, modified_ms: i64) -> Self {
        let kept_size = content.bytes.len();
        Self {
            seen: Arc::clone(&content),
            kept: content,
            kept_size,
            modified_ms,
            ..Self::default()
        }
    }

    pub fn append(&mut self, more: &[u8]) {
        if more.is_empty() {
            return;
        }
        let before = self.seen.bytes.len();
        let mut bytes = self.seen.bytes.clone();
        bytes.extend_from_slice(more);
        for page in before / PAGE..=(bytes.len() - 1) / PAGE {
            self.touch(page);
        }
        self.size_lost = false;
        self.seen = Content::of(bytes);
    }

    /// Writes over the beginning.
    pub fn overwrite(&mut self, start: &[u8]) {
        if start.is_empty() {
            return;
        }
        let mut bytes = self.seen.bytes.clone();
        if bytes.len() < start.len() {
            bytes.resize(start.len(), 0);
            self.size_lost = false;
        }
        bytes[..start.len()].copy_from_slice(start);
        for page in 0..=(start.len() - 1) / PAGE {
            self.touch(page);
        }
        self.seen = Content::of(bytes);
    }

    pub fn truncate(&mut self, size: usize) {
        let before = self.seen.bytes.len();
        if size == before {
            return;
        }
        let mut bytes = self.seen.bytes.clone();
        bytes.resize(size, 0);
        for page in size.min(before) / PAGE..size.max(before).div_ceil(PAGE) {
            self.touch(page);
        }
        self.size_lost = false;
        self.seen = Content::of(bytes);
    }

    fn touch(&mut self, page: usize) {
        self.dirty.insert(page);
        self.lost.remove(&page);
    }

    pub fn sync(&mut self) {
        if self.lost.is_empty() && !self.size_lost {
            self.kept = Arc::clone(&self.seen);
            self.kept_size = self.seen.bytes.len();
            self.dirty.clear();
            return;
        }
        let mut kept = self.kept.bytes.clone();
        for page in std::mem::take(&mut self.dirty) {
            put_page(&mut kept, page, page_of(&self.seen.bytes, page));
        }
        if !self.size_lost {
            self.kept_size = self.seen.bytes.len();
            kept.resize(self.kept_size, 0);
        }
        self.kept = Content::of(kept);
    }

    pub fn fail_sync(&mut self, outcome: Outcome) {
        self.lost.append(&mut self.dirty);
        self.size_lost |= self.seen.bytes.len() != self.kept_size;
        if outcome == Outcome::Dropped {
            let mut seen = self.seen.bytes.clone();
            let size = if self.size_lost { self.kept_size } else { seen.len() };
            for page in std::mem::take(&mut self.lost) {
                put_page(&mut seen, page, page_of(&self.kept.bytes, page));
            }
            seen.resize(size, 0);
            self.size_lost = false;
            self.seen = Content::of(seen);
        }
    }

    fn is_durable(&self) -> bool {
        self.dirty.is_empty() && self.lost.is_empty() && self.seen.bytes.len() == self.kept_size
    }

    /// Returns the bytes of it that a cut leaves.
    pub fn cut(&self, model: Model, random: &mut SmallRng) -> Arc<Content> {
        if self.is_durable() {
            return Arc::clone(&self.kept);
        }
        let mut kept = self.kept.bytes.clone();
        let size = match model {
            Model::Nothing | Model::Journal => self.kept_size,
            Model::Subset { seed } => self.cut_any(&mut kept, random, seed % 2 == 1),
            Model::LongerJournal { .. } if self.seen.bytes.len() > self.kept_size => {
                self.cut_grown(&mut kept, random)
            }
            Model::LongerJournal { .. } => self.cut_any(&mut kept, random, false),
        };
        kept.resize(size, 0);
        Content::of(kept)
    }

    /// Each page by chance, and the size.
    fn cut_any(&self, kept: &mut Vec<u8>, random: &mut SmallRng, is_torn: bool) -> usize {
        let share = [0.0, 0.15, 0.5, 0.85, 1.0][random.random_range(0..5)];
        for &page in self.dirty.iter().filter(|page| **page < self.seen.bytes.len().div_ceil(PAGE))
        {
            if !random.random_bool(share) {
                continue;
            }
            let mut bytes = page_of(&self.seen.bytes, page);
            if is_torn && random.random_bool(0.25) {
                let before = page_of(kept, page);
                for sector in (0..PAGE).step_by(SECTOR).filter(|_| random.random_bool(0.5)) {
                    bytes[sector..sector + SECTOR]
                        .copy_from_slice(&before[sector..sector + SECTOR]);
                }
            }
            put_page(kept, page, bytes);
        }
        let seen = self.seen.bytes.len();
        match random.random_range(0..3) {
            _ if self.size_lost => self.kept_size,
            0 => self.kept_size,
            1 => seen,
            _ if seen > self.kept_size => random.random_range(self.kept_size..=seen),
            _ => seen,
        }
    }

    /// Appended pages as a prefix: space is given and the size moves on in the order of the file.
    fn cut_grown(&self, kept: &mut Vec<u8>, random: &mut SmallRng) -> usize {
        let (from, to) = (self.kept_size / PAGE, self.seen.bytes.len().div_ceil(PAGE));
        let until = random.random_range(from..=to);
        for &page in self.dirty.iter().filter(|page| (from..until).contains(*page)) {
            put_page(kept, page, page_of(&self.seen.bytes, page));
        }
        if until <= from || self.size_lost {
            return self.kept_size;
        }
        self.seen.bytes.len().min(until * PAGE).max(self.kept_size)
    }
}

fn page_of(bytes: &[u8], page: usize) -> [u8; PAGE] {
    let mut copy = [0; PAGE];
    let (start, end) = ((page * PAGE).min(bytes.len()), ((page + 1) * PAGE).min(bytes.len()));
    copy[..end - start].copy_from_slice(&bytes[start..end]);
    copy
}

fn put_page(bytes: &mut Vec<u8>, page: usize, content: [u8; PAGE]) {
    if bytes.len() < (page + 1) * PAGE {
        bytes.resize((page + 1) * PAGE, 0);
    }
    bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&content);
}
