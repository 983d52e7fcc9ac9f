//! Acknowledged rows that are in no table file yet, and the byte budget that bounds them.
//!
//! Rows arrive as batches of any size and stay readable as Arrow. Small batches are concatenated as
//! they arrive, so that a query reads a few chunks however many requests sent the rows. A frozen
//! memtable never changes again.
//!
//! A writer takes room from the [`MemoryBudget`] before its rows go to the write-ahead log. The
//! room is given back when the rows are in the table (the permit moves with them), so the log, live
//! rows and rows in a flush share one bound.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Date32Type;
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::limits::{Full, Holder, MemoryReservation, Pool, Share};
use crate::record::{DATE, tighten};
use crate::usage::Counts;

/// Rows at which chunks stop growing: the batch size of a query.
const CHUNK_ROWS: usize = 8192;
/// Bytes at which chunks stop growing: concatenating copies them while queries wait for their view.
const CHUNK_BYTES: u64 = 1 << 20;

/// The mutable memtable.
#[derive(Debug, Default)]
pub(crate) struct MutableMemtable {
    chunks: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    oldest_micros: Option<i64>,
    /// Days of the rows, each of which becomes a file.
    days: HashSet<i32>,
    /// Keys of the open records.
    open: HashSet<u128>,
    permits: Option<MemoryReservation>,
}

/// An immutable memtable, which waits for a flush or is being flushed.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// The rows, in chunks.
    pub chunks: Vec<RecordBatch>,
    /// Sequence number of the last frame of the write-ahead log at the freeze: all frames up to it
    /// are in these rows or in older ones.
    pub last_sequence: u64,
    /// Number of rows.
    pub rows: u64,
    /// Bytes that the rows take in memory.
    pub bytes: u64,
    /// Keys of the records that were stored before all of their parts had arrived.
    pub open: HashSet<u128>,
    /// Counts of the write-ahead log after these rows.
    pub counts: Arc<Counts>,
    _permits: Option<MemoryReservation>,
}

impl MutableMemtable {
    /// Adds a batch that the write-ahead log holds durably.
    pub(crate) fn insert(
        &mut self,
        batch: RecordBatch,
        now_micros: i64,
        permit: Option<MemoryReservation>,
    ) {
        self.rows += batch.num_rows() as u64;
        self.bytes += batch_bytes(&batch);
        self.oldest_micros.get_or_insert(now_micros);
        self.note_days(&batch);
        match (&mut self.permits, permit) {
            (Some(held), Some(more)) => held.merge(more),
            (held, Some(more)) => *held = Some(more),
            (_, None) => {}
        }
        self.chunks.push(batch);
        self.join_small_chunks();
    }

    /// Notes that records were stored before all of their parts had arrived.
    pub(crate) fn note_open(&mut self, keys: impl IntoIterator<Item = u128>) {
        self.open.extend(keys);
    }

    fn note_days(&mut self, batch: &RecordBatch) {
        let dates =
            batch.column_by_name(DATE).and_then(|dates| dates.as_primitive_opt::<Date32Type>());
        let mut last = None;
        for day in dates.iter().flat_map(|dates| dates.values().iter()) {
            // Most rows are of the day of the one before.
            if last.replace(*day) != Some(*day) {
                self.days.insert(*day);
            }
        }
    }

    /// Returns the number of days of the rows.
    pub(crate) fn days(&self) -> usize {
        self.days.len()
    }

    /// Concatenates neighbours of similar size, like the carries of a binary counter, so that each
    /// row is copied a bounded number of times.
    fn join_small_chunks(&mut self) {
        while let [.., before, last] = self.chunks.as_slice() {
            let before_rows = before.num_rows();
            let last_rows = last.num_rows();
            let bytes = batch_bytes(before) + batch_bytes(last);
            if before_rows > last_rows * 2
                || before_rows + last_rows > CHUNK_ROWS
                || bytes > CHUNK_BYTES
            {
                return;
            }
            let Ok(joined) = concat_batches(&before.schema(), [before, last]) else { return };
            let joined = tighten(&joined);
            self.bytes = (self.bytes + batch_bytes(&joined)).saturating_sub(bytes);
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(joined);
        }
    }

    /// Returns the current rows.
    pub(crate) fn chunks(&self) -> &[RecordBatch] {
        &self.chunks
    }

    /// Returns the number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the bytes that the rows take in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the arrival of the oldest row.
    pub(crate) fn oldest_micros(&self) -> Option<i64> {
        self.oldest_micros
    }

    /// Freezes this memtable and starts an empty one. Returns `None` if it has no rows, unless
    /// `even_empty` is set. `counts` are the counts of the write-ahead log up to frame
    /// `last_sequence`, the last one.
    pub(crate) fn freeze(
        &mut self,
        counts: Arc<Counts>,
        last_sequence: u64,
        even_empty: bool,
    ) -> Option<Frozen> {
        if self.rows == 0 && !even_empty {
            return None;
        }
        let full = std::mem::take(self);
        Some(Frozen {
            chunks: full.chunks,
            last_sequence,
            rows: full.rows,
            bytes: full.bytes,
            open: full.open,
            counts,
            _permits: full.permits,
        })
    }
}

/// Returns the bytes of a batch's rows. Batches that come from the log share one buffer among their
/// columns, so adding up the buffers that the columns hold on to would count it once for each
/// column.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> u64 {
    let bytes = batch
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64);
    bytes.sum()
}

/// Room for rows between their acknowledgement and their flush, shared by organisations.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget {
    pool: Pool,
    wait: Duration,
    flush_wanted: Arc<Notify>,
}

impl MemoryBudget {
    /// Creates a budget of `bytes`. A writer waits up to `wait` for its part, and asks for a flush
    /// through `flush_wanted`.
    pub(crate) fn new(bytes: u64, wait: Duration, flush_wanted: Arc<Notify>) -> Self {
        Self { pool: Pool::new(bytes, Share::ThreeQuarters), wait, flush_wanted }
    }

    /// Takes room for `bytes`; waits for a flush to free it if necessary. A request for more than
    /// an organisation's share is lowered to the share.
    pub(crate) async fn take(&self, holder: &Holder, bytes: u64) -> Result<MemoryReservation> {
        let wanted = bytes.clamp(1, self.pool.most(holder));
        if let Ok(room) = self.pool.try_take_in_turn(holder, wanted) {
            return Ok(room);
        }
        // Only flushes free room, so a waiting writer asks for one.
        self.flush_wanted.notify_one();
        self.pool.take(holder, wanted, self.wait).await.map_err(|full| {
            let wait = self.wait.as_millis();
            match full {
                Full::Closed => Error::closed("the engine is closed"),
                Full::Pool => Error::busy(format!(
                    "no room for {bytes} bytes within {wait} ms: rows arrive faster than they are flushed; send again later"
                )),
                Full::Share => Error::busy(format!(
                    "no room for {bytes} bytes within {wait} ms: the rows of this organisation that are not flushed yet hold \
                     its share of memory; send again later"
                )),
            }
        })
    }

    /// Takes available room without waiting, for rows that are recovered from the log.
    pub(crate) fn take_available(&self, bytes: u64) -> Option<MemoryReservation> {
        Some(self.pool.take_available(&Holder::Operator, bytes.max(1)))
            .filter(|room| room.units() > 0)
    }

    /// Wakes every waiting writer with [`Error::closed`].
    pub(crate) fn close(&self) {
        self.pool.close();
    }
}
