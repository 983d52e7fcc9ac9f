//! The view: one consistent set of table files and of rows that are not in them yet, and the cell
//! that holds the current one.
//!
//! Every change of what a query may see (an append, a freeze, or a flush or compaction that has
//! committed) is one step under one lock. So a query that takes a view misses no acked row and sees
//! none twice, whatever runs at the same time. Each table has a cell of its own. The cell of `logs`
//! also shows partial records.

mod partial;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow::array::RecordBatch;

use crate::limits::MemoryReservation;
use crate::memtable::{Frozen, MutableMemtable};
use crate::parts::SoFar;
use crate::record::Rows;
use crate::table::FileIndex;
use crate::usage::Counts;
use partial::PartialRecord;

/// The data that one query reads.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Kind of the rows.
    pub rows: Rows,
    /// Files of the table.
    pub files: Arc<FileIndex>,
    /// Rows that are in none of the files.
    pub memory: Vec<RecordBatch>,
}

impl View {
    /// Creates a view of files only.
    pub(crate) fn with_files(rows: Rows, files: FileIndex) -> Self {
        Self { rows, files: Arc::new(files), memory: Vec::new() }
    }
}

/// The current view and its parts.
#[derive(Debug)]
pub(crate) struct ViewCell(Mutex<Contents>, Rows);

#[derive(Debug)]
struct Contents {
    files: Arc<FileIndex>,
    /// Previous indexes that a query may still read from.
    former: Vec<Weak<FileIndex>>,
    frozen: VecDeque<Arc<Frozen>>,
    live: MutableMemtable,
    /// Partial records.
    waiting: PartialRecord,
}

impl Contents {
    fn replace(&mut self, files: Arc<FileIndex>) {
        let before = std::mem::replace(&mut self.files, files);
        self.former.retain(|former| former.strong_count() > 0);
        self.former.push(Arc::downgrade(&before));
    }
}

impl ViewCell {
    /// Creates a cell with the files of the table and no rows in memory.
    pub(crate) fn new(rows: Rows, files: Arc<FileIndex>) -> Self {
        let contents = Contents {
            files,
            former: Vec::new(),
            frozen: VecDeque::new(),
            live: MutableMemtable::default(),
            waiting: PartialRecord::default(),
        };
        Self(Mutex::new(contents), rows)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Every change below is complete or has not begun if something panics, so the contents are
        // correct even if the lock is poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the view of a query that starts now.
    pub(crate) fn view(&self) -> View {
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

    /// Makes a batch visible that the write-ahead log holds durably; returns the bytes of live
    /// rows.
    pub(crate) fn insert(
        &self,
        batch: RecordBatch,
        now_micros: i64,
        permit: Option<MemoryReservation>,
    ) -> u64 {
        let mut contents = self.lock();
        contents.live.insert(batch, now_micros, permit);
        contents.live.bytes()
    }

    /// Makes a partial record visible that the write-ahead log holds durably.
    pub(crate) fn show_partial(&self, key: u128, so_far: Arc<SoFar>) {
        self.lock().waiting.insert(key, so_far);
    }

    /// Joins the parts of records whose wait has ended, so that storing them is quick. Joining
    /// takes time in proportion to their size.
    pub(crate) fn join_due(&self, now_micros: i64) {
        let due = self.lock().waiting.due(now_micros);
        due.iter().for_each(|so_far| drop(Arc::clone(so_far.record())));
    }

    /// Replaces partial records by complete ones, or removes them if `records` is `None`. Returns
    /// the bytes of live rows.
    pub(crate) fn replace_parts(
        &self,
        keys: &[u128],
        records: Option<RecordBatch>,
        now_micros: i64,
        permit: Option<MemoryReservation>,
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

    /// Notes that records among the live rows were stored before all of their parts had arrived.
    pub(crate) fn note_open(&self, keys: impl IntoIterator<Item = u128>) {
        self.lock().live.note_open(keys);
    }

    /// Freezes the live memtable; returns false if it has no rows. With `even_empty` it is frozen
    /// without rows too, so that the table gets to cover this frame. `counts` are the counts of the
    /// write-ahead log up to frame `last_sequence`, the last one.
    pub(crate) fn freeze(&self, counts: Arc<Counts>, last_sequence: u64, even_empty: bool) -> bool {
        let mut contents = self.lock();
        let frozen = contents.live.freeze(counts, last_sequence, even_empty).map(Arc::new);
        let any = frozen.is_some();
        contents.frozen.extend(frozen);
        any
    }

    /// Returns true if rows arrived since the last freeze.
    pub(crate) fn has_live_rows(&self) -> bool {
        self.lock().live.rows() > 0
    }

    /// Returns the number of days of the rows that arrived since the last freeze.
    pub(crate) fn live_days(&self) -> usize {
        self.lock().live.days()
    }

    /// Returns the oldest memtable that waits for a flush.
    pub(crate) fn oldest_frozen(&self) -> Option<Arc<Frozen>> {
        self.lock().frozen.front().map(Arc::clone)
    }

    /// Applies a flush: adds its files and removes the oldest frozen memtable in one step.
    pub(crate) fn flushed(&self, files: Arc<FileIndex>) {
        let mut contents = self.lock();
        contents.frozen.pop_front();
        contents.replace(files);
    }

    /// Applies a table version that holds the same rows in other files.
    pub(crate) fn rewritten(&self, files: Arc<FileIndex>) {
        self.lock().replace(files);
    }

    /// Returns the current files of the table.
    pub(crate) fn files(&self) -> Arc<FileIndex> {
        Arc::clone(&self.lock().files)
    }

    /// Returns every index that a query may read from now, including the current one.
    pub(crate) fn held(&self) -> Vec<Arc<FileIndex>> {
        let contents = self.lock();
        contents
            .former
            .iter()
            .filter_map(Weak::upgrade)
            .chain([Arc::clone(&contents.files)])
            .collect()
    }

    /// Returns the rows and bytes that wait for a flush, and the arrival of the oldest live row.
    pub(crate) fn memory(&self) -> (u64, u64, Option<i64>) {
        let contents = self.lock();
        let rows =
            contents.live.rows() + contents.frozen.iter().map(|frozen| frozen.rows).sum::<u64>();
        let bytes =
            contents.live.bytes() + contents.frozen.iter().map(|frozen| frozen.bytes).sum::<u64>();
        (rows, bytes, contents.live.oldest_micros())
    }
}
