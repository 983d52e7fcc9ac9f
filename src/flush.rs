//! Flushes memory to a table: sorted files, then one commit. Once both tables have their files, the
//! write-ahead log may drop the rows.
//!
//! A flush writes one file for each partition of its rows, then commits all files at once together
//! with the Delta application transaction (id of this log, last sequence number of the rows). The
//! next open of the table replays the log from that sequence number, so a crash before the commit
//! loses nothing and a crash after it duplicates nothing. Files of a flush that did not commit are
//! orphans, which vacuum deletes.

use std::sync::Arc;

use arrow::array::{AsArray, Int32Array, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Date32Type, Int32Type};
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::datafile::{DataFileWriter, OpenRecords, Partition};
use crate::error::{Error, Result};
use crate::plan::Rules;
use crate::record::{DATE, RETENTION_DAYS, Rows, SORT_KEY, SORT_OPTIONS};
use crate::table::{Commit, DataFile, FileIndex, Table};

/// Compaction soon rewrites flushed files, so speed matters more than size.
const FLUSH_ZSTD_LEVEL: i32 = 1;
/// Files that are written concurrently.
const PARALLEL_FILES: usize = 2;
/// Rows that the file writer gets at once.
const SLICE_ROWS: usize = 4096;

/// Origin of the rows: id of the write-ahead log and last sequence number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Identity of the log.
    pub wal_id: Uuid,
    /// Sequence number of the last frame.
    pub last_sequence: u64,
}

/// Writes the files of a flush without adding them to the table. `open` tells which of the records
/// are open.
pub(crate) async fn write_files(
    table: &Table,
    chunks: &[RecordBatch],
    rules: Arc<Rules>,
    open: &OpenRecords,
    now_ms: i64,
    mut new_id: impl FnMut() -> Uuid,
) -> Result<Vec<DataFile>> {
    let chunks = chunks.to_vec();
    let kind = table.rows();
    let sorted =
        tokio::task::spawn_blocking(move || sorted_partitions(kind, &chunks, &rules)).await;
    let parts =
        sorted.map_err(|cause| Error::internal("sorting panicked").with_source(cause))??;
    let jobs = parts.into_iter().map(|part| (part, new_id())).collect::<Vec<_>>();
    futures::stream::iter(jobs)
        .map(|(part, id)| {
            let table = table.clone();
            let open = open.clone();
            // Each file has a task of its own, so that encoding uses every core.
            let task =
                tokio::spawn(async move { write_file(&table, part, open, id, now_ms).await });
            async move {
                task.await
                    .map_err(|cause| Error::internal("a flush panicked").with_source(cause))?
            }
        })
        .buffer_unordered(PARALLEL_FILES)
        .try_collect()
        .await
}

/// Adds the files to the table in one commit, after which the frames of the log up to the last
/// sequence number are no longer needed.
pub(crate) async fn commit(
    table: &Table,
    files: Vec<DataFile>,
    source: Source,
) -> Result<Arc<FileIndex>> {
    let version = i64::try_from(source.last_sequence)
        .map_err(|_| Error::internal(format!("sequence {} is too large", source.last_sequence)))?;
    table
        .commit(Commit {
            add: files,
            remove: Vec::new(),
            app: Some((source.wal_id.to_string(), version)),
            data_change: true,
            operation: "WRITE",
        })
        .await
}

/// Rows of one partition, in the order of the sort key.
struct Part {
    partition: Partition,
    rows: RecordBatch,
    order: UInt32Array,
}

async fn write_file(
    table: &Table,
    part: Part,
    open: OpenRecords,
    id: Uuid,
    now_ms: i64,
) -> Result<DataFile> {
    let mut writer =
        DataFileWriter::start(table, part.partition, id, FLUSH_ZSTD_LEVEL, now_ms)?.with_open(open);
    for start in (0..part.order.len()).step_by(SLICE_ROWS) {
        let slice = part.order.slice(start, SLICE_ROWS.min(part.order.len() - start));
        writer.write(&take_record_batch(&part.rows, &slice).map_err(sort_failed)?).await?;
    }
    writer.finish().await
}

/// Sorts all rows once, by partition and sort key, and cuts the order at each change of partition.
fn sorted_partitions(kind: Rows, chunks: &[RecordBatch], rules: &Rules) -> Result<Vec<Part>> {
    let rows = classified(&concat_batches(&kind.schema(), chunks).map_err(sort_failed)?, rules)?;
    let column = |name: &str| {
        rows.column_by_name(name)
            .ok_or_else(|| Error::internal(format!("column `{name}` is missing in memory")))
    };
    let keys = [DATE, RETENTION_DAYS].into_iter().chain(SORT_KEY);
    let keys = keys
        .map(|name| {
            Ok(SortColumn { values: Arc::clone(column(name)?), options: Some(SORT_OPTIONS) })
        })
        .collect::<Result<Vec<_>>>()?;
    let order = lexsort_to_indices(&keys, None).map_err(sort_failed)?;
    let dates = column(DATE)?.as_primitive::<Date32Type>();
    let retentions = column(RETENTION_DAYS)?.as_primitive::<Int32Type>();
    let partition_at = |place: usize| {
        let row = order.value(place) as usize;
        Partition { date: dates.value(row), retention_days: retentions.value(row) }
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for end in 1..=order.len() {
        if end == order.len() || partition_at(end) != partition_at(start) {
            let order = order.slice(start, end - start);
            parts.push(Part { partition: partition_at(start), rows: rows.clone(), order });
            start = end;
        }
    }
    Ok(parts)
}

/// Gives each row the current retention class of its organisation: the plan may have changed since
/// the row arrived.
fn classified(rows: &RecordBatch, rules: &Rules) -> Result<RecordBatch> {
    let missing = |name: &str| Error::internal(format!("column `{name}` is missing in memory"));
    let organisations =
        rows.column_by_name("organisation_id").ok_or_else(|| missing("organisation_id"))?;
    let mut last: Option<(&str, i32)> = None;
    let days = organisations.as_string_view().iter().map(|organisation| {
        let organisation = organisation.unwrap_or_default();
        let days = match last {
            Some((same, days)) if same == organisation => days,
            _ => rules.retention_days(organisation),
        };
        last = Some((organisation, days));
        days
    });
    let days: Int32Array = days.collect::<Vec<_>>().into();
    let place = rows.schema().index_of(RETENTION_DAYS).map_err(|_| missing(RETENTION_DAYS))?;
    let mut columns = rows.columns().to_vec();
    columns[place] = Arc::new(days);
    RecordBatch::try_new(rows.schema(), columns).map_err(sort_failed)
}

fn sort_failed(cause: arrow::error::ArrowError) -> Error {
    Error::internal("cannot sort rows for a flush").with_source(cause)
}
