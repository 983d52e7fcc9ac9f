//! Finds out which records of files are open, for the files that replace them and for whoever opens
//! the table.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::tools::Tools;
use crate::datafile::{OpenRecords, OpenRows};
use crate::dedupe::KeyHasher;
use crate::error::Result;
use crate::query::Queries;
use crate::record::Rows;
use crate::table::DataFile;

/// Maximum number of records whose keys a merge holds.
const MAX_KEYS: u64 = 1 << 20;
/// Columns of a record that its key is made of.
const KEY_COLUMNS: [&str; 3] = ["organisation_id", "workspace_slug", "id"];

/// Returns which records of files are open. If files have open and other records, the keys of
/// those that are fewer are read; if these are too many, all records count as open.
pub(super) async fn open_records(tools: Tools<'_>, files: &[DataFile]) -> Result<OpenRecords> {
    open_records_up_to(tools, files, MAX_KEYS).await
}

pub(super) async fn open_records_up_to(
    tools: Tools<'_>,
    files: &[DataFile],
    most_keys: u64,
) -> Result<OpenRecords> {
    if tools.table.rows() != Rows::Logs {
        return Ok(OpenRecords::Nothing);
    }
    let marks = tools.queries.open_rows(files).await?;
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let open: u64 = files.iter().zip(&marks).map(|(file, marks)| marks.count(file.rows)).sum();
    let closed = rows.saturating_sub(open);
    if open == 0 {
        return Ok(OpenRecords::Nothing);
    }
    if closed == 0 {
        return Ok(OpenRecords::All);
    }
    if open.min(closed) > most_keys {
        tracing::warn!(
            records = closed,
            "a merge has too many records to keep apart those that may still be completed by a \
             late part; all of them may"
        );
        return Ok(OpenRecords::All);
    }
    let lists_open = open <= closed;
    let hasher = KeyHasher::random();
    let mut keys = HashSet::new();
    for (file, marks) in files.iter().zip(marks) {
        let has_listed = marks != if lists_open { OpenRows::Nothing } else { OpenRows::All };
        if !has_listed {
            continue;
        }
        let mut batches = with_marks(tools.queries, file, marks, &KEY_COLUMNS).await?;
        while let Some((batch, bits)) = batches.try_next().await? {
            let marked = hasher.keys_of_batch(&batch).into_iter().zip(&bits);
            keys.extend(marked.filter(|(_, is_open)| *is_open == lists_open).map(|(key, _)| key));
        }
    }
    Ok(if lists_open {
        OpenRecords::from_open(&hasher, keys)
    } else {
        OpenRecords::from_closed(&hasher, keys)
    })
}

/// Reads columns of the records of a file, each batch with one bit per row that is set if its
/// record is open.
pub(crate) async fn with_marks(
    queries: &Queries,
    file: &DataFile,
    marks: OpenRows,
    columns: &[&str],
) -> Result<BoxStream<'static, Result<(RecordBatch, BooleanBuffer)>>> {
    let batches = queries.file_rows(Rows::Logs, file, columns).await?;
    let mut row = 0;
    let marked = batches.map_ok(move |batch| {
        let first = row;
        row += batch.num_rows();
        let bits = (first..row).map(|row| marks.is_open(row)).collect();
        (batch, bits)
    });
    Ok(marked.boxed())
}
