//! The View: one consistent set of table files and rows that are not yet in them, and the cell that holds the current one.
//!
//! Every change of what a query may see (an append, a freeze, a flush or a compaction that committed) is one step under one
//! lock, so a query that takes a View misses no acked row and sees none twice, whatever goes on meanwhile. Each table has a cell
//! of its own. That of `logs` shows halves of records too, as the records that they are so far.

mod waiting;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow::array::RecordBatch;

use crate::halves::SoFar;
use crate::limits::Room;
use crate::memtable::{Frozen, Live};
use crate::record::Rows;
use crate::table::FileIndex;
use crate::usage::Counts;
use waiting::Unfinished;

/// What one query reads.
#[derive(Clone, Debug)]
pub struct View {
    /// What the rows are.
    pub rows: Rows,
    /// The table's files.
    pub files: Arc<FileIndex>,
    /// Rows that are in none of them.
    pub memory: Vec<RecordBatch>,
}

impl View {
    /// A View of files alone.
    pub fn of_files(rows: Rows, files: FileIndex) -> Self {
        Self { rows, files: Arc::new(files), memory: Vec::new() }
    }
}

/// The current View, and what it is made of.
#[derive(Debug)]
pub struct Shelf(Mutex<Contents>, Rows);

#[derive(Debug)]
struct Contents {
    files: Arc<FileIndex>,
    /// Former indexes that a query may still read from.
    former: Vec<Weak<FileIndex>>,
    frozen: VecDeque<Arc<Frozen>>,
    live: Live,
    /// Halves, as the records that they are so far.
    waiting: Unfinished,
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
    pub fn new(rows: Rows, files: Arc<FileIndex>) -> Self {
        let contents = Contents {
            files,
            former: Vec::new(),
            frozen: VecDeque::new(),
            live: Live::default(),
            waiting: Unfinished::default(),
        };
        Self(Mutex::new(contents), rows)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Every change below is complete or not begun when something panics, so a poisoned lock still holds the truth.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a query that starts now reads.
    pub fn view(&self) -> View {
        let contents = self.lock();
        let frozen = contents.frozen.iter().flat_map(|frozen| frozen.chunks.iter());
        let mut memory: Vec<_> = frozen.chain(contents.live.chunks()).cloned().collect();
        let files = Arc::clone(&contents.files);
        let (built, unbuilt) = contents.waiting.batches();
        // There may be thousands of rows to build, and appends wait for the lock.
        drop(contents);
        memory.extend(built);
        for rows in unbuilt {
            let batch = rows.build();
            memory.push(batch.clone());
            self.lock().waiting.keep(&rows, batch);
        }
        View { rows: self.1, files, memory }
    }

    /// Shows a batch that the log holds durably; answers the bytes of live rows.
    pub fn insert(&self, batch: RecordBatch, now_micros: i64, permit: Option<Room>) -> u64 {
        let mut contents = self.lock();
        contents.live.insert(batch, now_micros, permit);
        contents.live.bytes()
    }

    /// Shows a half that the log holds durably, as the record that it is so far.
    pub fn show_half(&self, key: u128, so_far: Arc<SoFar>) {
        self.lock().waiting.insert(key, so_far);
    }

    /// Joins the parts of records that wait no longer, which takes as long as they are large, so that who stores them need not.
    pub fn join_due(&self, now_micros: i64) {
        let due = self.lock().waiting.due(now_micros);
        due.iter().for_each(|so_far| drop(Arc::clone(so_far.record())));
    }

    /// Puts records in the place of halves of them; none if they are not kept. Answers the bytes of live rows.
    pub fn replace_halves(
        &self,
        keys: &[u128],
        records: Option<RecordBatch>,
        now_micros: i64,
        permit: Option<Room>,
    ) -> u64 {
        let mut contents = self.lock();
        for key in keys {
            contents.waiting.remove(*key);
        }
        if let Some(records) = records {
            contents.live.insert(records, now_micros, permit);
        }
        contents.live.bytes()
    }

    /// Ends the live memtable; false if it holds no rows, unless it shall be ended all the same, so that the table comes to name
    /// this frame. `counts` are those of the log up to here, which is frame `last_sequence`.
    pub fn freeze(&self, counts: Arc<Counts>, last_sequence: u64, even_empty: bool) -> bool {
        let mut contents = self.lock();
        let frozen = contents.live.freeze(counts, last_sequence, even_empty).map(Arc::new);
        let any = frozen.is_some();
        contents.frozen.extend(frozen);
        any
    }

    /// Returns whether rows came since the last freeze.
    pub fn has_live_rows(&self) -> bool {
        self.lock().live.rows() > 0
    }

    /// Number of days of the rows that came since the last freeze.
    pub fn live_days(&self) -> usize {
        self.lock().live.days()
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

    /// The table's files as they are now.
    pub fn files(&self) -> Arc<FileIndex> {
        Arc::clone(&self.lock().files)
    }

    /// Every index that a query may read from now, the current one among them.
    pub fn held(&self) -> Vec<Arc<FileIndex>> {
        let contents = self.lock();
        contents.former.iter().filter_map(Weak::upgrade).chain([Arc::clone(&contents.files)]).collect()
    }

    /// Rows and bytes that wait for a flush, and when the oldest live row came.
    pub fn memory(&self) -> (u64, u64, Option<i64>) {
        let contents = self.lock();
        let rows = contents.live.rows() + contents.frozen.iter().map(|frozen| frozen.rows).sum::<u64>();
        let bytes = contents.live.bytes() + contents.frozen.iter().map(|frozen| frozen.bytes).sum::<u64>();
        (rows, bytes, contents.live.oldest_micros())
    }
}
