//! Query-visible batches of partial records, built when a query needs them and again only after
//! parts have arrived or left.
//!
//! Partial records mostly leave in the order of their arrival, so batches are cut by arrival: a
//! change invalidates about one batch. A batch that has lost three quarters of its rows moves the
//! rest to the newest batch, so there are never many small ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::parts::SoFar;
use crate::record::BatchBuilder;

/// Rows of a batch.
const CHUNK_ROWS: usize = 1024;

/// Partial records, by key.
#[derive(Debug, Default)]
pub(super) struct PartialRecord {
    /// Chunk of each record.
    places: HashMap<u128, u64>,
    chunks: BTreeMap<u64, Chunk>,
    next_chunk: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    records: HashMap<u128, Arc<SoFar>>,
    /// Number of records that were ever added.
    taken: usize,
    /// Number of changes.
    changes: u64,
    batch: Option<RecordBatch>,
}

impl Chunk {
    fn changed(&mut self) {
        self.changes += 1;
        self.batch = None;
    }
}

/// Rows of a chunk whose batch has to be built.
#[derive(Debug)]
pub(super) struct Unbuilt {
    chunk: u64,
    changes: u64,
    records: Vec<Arc<SoFar>>,
}

impl Unbuilt {
    pub(super) fn build(&self) -> RecordBatch {
        let mut builder = BatchBuilder::new();
        self.records.iter().for_each(|so_far| builder.append(so_far.record()));
        builder.finish()
    }
}

impl PartialRecord {
    /// Makes a partial record visible.
    pub(super) fn insert(&mut self, key: u128, record: Arc<SoFar>) {
        let place = self.places.get(&key).copied().unwrap_or_else(|| self.newest());
        self.places.insert(key, place);
        let chunk = self.chunks.entry(place).or_default();
        chunk.taken += usize::from(chunk.records.insert(key, record).is_none());
        chunk.changed();
    }

    /// Returns the chunk for new records.
    fn newest(&mut self) -> u64 {
        if self.chunks.get(&self.next_chunk).is_some_and(|chunk| chunk.taken >= CHUNK_ROWS) {
            self.next_chunk += 1;
        }
        self.next_chunk
    }

    /// Removes a partial record.
    pub(super) fn remove(&mut self, key: u128) {
        let Some(place) = self.places.remove(&key) else { return };
        let Some(chunk) = self.chunks.get_mut(&place) else { return };
        chunk.records.remove(&key);
        chunk.changed();
        if chunk.taken >= CHUNK_ROWS && chunk.records.len() <= CHUNK_ROWS / 4 {
            let rest = std::mem::take(&mut chunk.records);
            self.chunks.remove(&place);
            self.next_chunk = self.next_chunk.max(place + 1);
            for (key, record) in rest {
                self.places.remove(&key);
                self.insert(key, record);
            }
        }
    }

    /// Returns the records whose wait ends at `now_micros` or before.
    pub(super) fn due(&self, now_micros: i64) -> Vec<Arc<SoFar>> {
        let all = self.chunks.values().flat_map(|chunk| chunk.records.values());
        all.filter(|so_far| so_far.until_micros() <= now_micros).cloned().collect()
    }

    /// Returns the batches that are built, and the rows of those that are not.
    pub(super) fn batches(&self) -> (Vec<RecordBatch>, Vec<Unbuilt>) {
        let mut built = Vec::new();
        let mut unbuilt = Vec::new();
        for (number, chunk) in self.chunks.iter().filter(|(_, chunk)| !chunk.records.is_empty()) {
            match &chunk.batch {
                Some(batch) => built.push(batch.clone()),
                None => {
                    let records = chunk.records.values().cloned().collect();
                    unbuilt.push(Unbuilt { chunk: *number, changes: chunk.changes, records });
                }
            }
        }
        (built, unbuilt)
    }

    /// Keeps a batch that was built, if its rows have not changed since.
    pub(super) fn keep(&mut self, unbuilt: &Unbuilt, batch: RecordBatch) {
        let chunk =
            self.chunks.get_mut(&unbuilt.chunk).filter(|chunk| chunk.changes == unbuilt.changes);
        if let Some(chunk) = chunk {
            chunk.batch = Some(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{JoinBuffer, RecordPart};
    use crate::record::Record;

    fn rows(unfinished: &mut PartialRecord) -> (usize, usize) {
        let (built, unbuilt) = unfinished.batches();
        let mut rows: usize = built.iter().map(RecordBatch::num_rows).sum();
        for one in &unbuilt {
            let batch = one.build();
            rows += batch.num_rows();
            unfinished.keep(one, batch);
        }
        (rows, unbuilt.len())
    }

    #[test]
    fn only_changed_chunks_are_rebuilt_and_few_records_are_left_in_few_batches() {
        let mut unfinished = PartialRecord::default();
        let record = || {
            let mut waiting: JoinBuffer<()> = JoinBuffer::default();
            waiting.add(0, RecordPart::Fragment, Record::default(), 0, 0, None);
            Arc::clone(waiting.get(0).unwrap())
        };
        (0..10_000).for_each(|key| unfinished.insert(key, record()));
        assert_eq!(rows(&mut unfinished), (10_000, 10));
        assert_eq!(rows(&mut unfinished), (10_000, 0));
        unfinished.insert(5, record());
        unfinished.insert(10_000, record());
        assert_eq!(rows(&mut unfinished), (10_001, 2), "the first chunk, and the last");
        unfinished.remove(7);
        let (_, unbuilt) = unfinished.batches();
        let stale = unbuilt[0].build();
        unfinished.remove(8);
        unfinished.keep(&unbuilt[0], stale);
        assert_eq!(
            rows(&mut unfinished),
            (9_999, 1),
            "a batch that was built meanwhile is not kept"
        );
        (0..10_000).filter(|key| key % 100 != 0).for_each(|key| unfinished.remove(key));
        assert_eq!(rows(&mut unfinished).0, 101);
        assert!(unfinished.chunks.len() <= 2, "{} chunks", unfinished.chunks.len());
        (0..=10_000).for_each(|key| unfinished.remove(key));
        assert_eq!(rows(&mut unfinished), (0, 0));
    }
}
