//! The View: one consistent set of table files and rows that are not yet in them, and the cell that holds the current one.
//!
//! Every change of what a query may see (an append, a freeze, a flush or a compaction that committed) is one step under one
//! lock, so a query that takes a View misses no acked row and sees none twice, whatever goes on meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow::array::RecordBatch;
use tokio::sync::OwnedSemaphorePermit;

use crate::memtable::{Frozen, Live};
use crate::table::FileIndex;
use crate::usage::Counts;

/// What one query reads.
#[derive(Clone, Debug)]
pub struct View {
    /// The table's files.
    pub files: Arc<FileIndex>,
    /// Rows that are in none of them.
    pub memory: Vec<RecordBatch>,
}

/// The current View, and what it is made of.
#[derive(Debug)]
pub struct Shelf(Mutex<Contents>);

#[derive(Debug)]
struct Contents {
    files: Arc<FileIndex>,
    /// Former indexes that a query may still read from.
    former: Vec<Weak<FileIndex>>,
    frozen: VecDeque<Arc<Frozen>>,
    live: Live,
}

impl Contents {
    fn replace(&mut self, files: Arc<FileIndex>) {
        let before = std::mem::replace(&mut self.files, files);
        self.former.retain(|former| former.strong_count() > 0);
        self.former.push(Arc::downgrade(&before));
    }
}

impl Shelf {
    /// A shelf with the table's files and no rows in memory.
    pub fn new(files: Arc<FileIndex>) -> Self {
        Self(Mutex::new(Contents { files, former: Vec::new(), frozen: VecDeque::new(), live: Live::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Every change below is complete or not begun when something panics, so a poisoned lock still holds the truth.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a query that starts now reads.
    pub fn view(&self) -> View {
        let contents = self.lock();
        let frozen = contents.frozen.iter().flat_map(|frozen| frozen.chunks.iter());
        let memory = frozen.chain(contents.live.chunks()).cloned().collect();
        View { files: Arc::clone(&contents.files), memory }
    }

    /// Shows a batch that the log holds durably; answers the bytes of live rows.
    pub fn insert(
        &self,
        batch: RecordBatch,
        sequence: u64,
        now_micros: i64,
        permit: Option<OwnedSemaphorePermit>,
    ) -> u64 {
        let mut contents = self.lock();
        contents.live.insert(batch, sequence, now_micros, permit);
        contents.live.bytes()
    }

    /// Ends the live memtable, if it holds rows. `counts` are those of the log up to here.
    pub fn freeze(&self, counts: Arc<Counts>) {
        let mut contents = self.lock();
        if let Some(frozen) = contents.live.freeze(counts) {
            contents.frozen.push_back(Arc::new(frozen));
        }
    }

    /// The oldest memtable that waits for a flush.
    pub fn oldest_frozen(&self) -> Option<Arc<Frozen>> {
        self.lock().frozen.front().map(Arc::clone)
    }

    /// Takes a flush over: its files come in and the oldest frozen memtable goes, in one step.
    pub fn flushed(&self, files: Arc<FileIndex>) {
        let mut contents = self.lock();
        contents.frozen.pop_front();
        contents.replace(files);
    }

    /// Takes over a table version that holds the same rows in other files.
    pub fn rewritten(&self, files: Arc<FileIndex>) {
        self.lock().replace(files);
    }

    /// Every index that a query may read from now, the current one among them.
    pub fn held(&self) -> Vec<Arc<FileIndex>> {
        let contents = self.lock();
        contents.former.iter().filter_map(Weak::upgrade).chain([Arc::clone(&contents.files)]).collect()
    }

    /// Rows and bytes in memory, and when the oldest live row came.
    pub fn memory(&self) -> (u64, u64, Option<i64>) {
        let contents = self.lock();
        let rows = contents.live.rows() + contents.frozen.iter().map(|frozen| frozen.rows).sum::<u64>();
        let bytes = contents.live.bytes() + contents.frozen.iter().map(|frozen| frozen.bytes).sum::<u64>();
        (rows, bytes, contents.live.oldest_micros())
    }
}
