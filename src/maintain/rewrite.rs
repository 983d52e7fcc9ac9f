//! Rewrites a file without the rows that must leave it. Erased rows, and rows past their
//! organisation's retention, are dropped. Rows of another class go to a file of that class.
//! Replaced rows are dropped with them, and the rest stay in order.
//!
//! A first pass reads five small columns. Most files turn out to have no such row, so they cost
//! little.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, PrimitiveArray, RecordBatch, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use uuid::Uuid;

use super::open::open_records;
use super::tools::{MAX_OPEN_BYTES, Tools};
use crate::datafile::{DataFileWriter, OpenRecords, Partition};
use crate::error::{Error, Result};
use crate::plan::{Row, Rules};
use crate::record::{Rows, SORT_KEY};
use crate::table::{Commit, DataFile, FileIndex, Table};

/// Rows per batch in the first pass.
const LOOK_ROWS: usize = 8192;
/// Rows per batch in the second pass. The number is small, since the rows include their bodies.
const WRITE_ROWS: usize = 512;

/// A row of a file in the form that the rules check, and its workspace.
pub(crate) type Found<'a> = (Row<'a>, Option<&'a str>);

/// Result of rewriting a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rewrite {
    /// Files with the remaining rows, at most one per class. Empty if no row remains.
    pub add: Vec<DataFile>,
    /// Number of rows that moved to another class.
    pub moved: u64,
    /// Number of erased rows by index in [`Rules::erasures`]. A row counts for the first erasure
    /// that matches it.
    pub erased: Vec<(usize, u64)>,
    /// Number of rows past their organisation's retention.
    pub expired: u64,
    /// Number of rows whose replacements are committed with this file.
    pub replaced: u64,
    /// True if no row must leave the file, so it stays as it is.
    pub untouched: bool,
}

impl Rewrite {
    /// Returns the number of rows that left the table.
    pub(crate) fn gone(&self) -> u64 {
        self.expired + self.replaced + self.erased.iter().map(|(_, rows)| rows).sum::<u64>()
    }
}

/// Replaces files with their rewrites in one commit and returns the new index. `rewrites` are in
/// the order of `files`.
pub(crate) async fn commit_rewritten(
    table: &Table,
    files: &[Arc<DataFile>],
    rewrites: Vec<Rewrite>,
) -> Result<Arc<FileIndex>> {
    let touched = files.iter().zip(&rewrites).filter(|(_, rewrite)| !rewrite.untouched);
    let remove: Vec<String> = touched.map(|(file, _)| file.path.clone()).collect();
    if remove.is_empty() {
        return Ok(table.index());
    }
    let data_change = rewrites.iter().any(|rewrite| rewrite.gone() > 0);
    let operation = if data_change { "DELETE" } else { "OPTIMIZE" };
    let add = rewrites.into_iter().flat_map(|rewrite| rewrite.add).collect();
    table.commit(Commit { add, remove, app: None, data_change, operation }).await
}

/// Replaces files with their rewrites, and adds the files of the replacement rows, in one commit.
/// Returns the new index.
pub(crate) async fn commit_replaced(
    table: &Table,
    files: &[Arc<DataFile>],
    rewrites: Vec<Rewrite>,
    replacing: Vec<DataFile>,
) -> Result<Arc<FileIndex>> {
    if rewrites.iter().any(|rewrite| rewrite.untouched) {
        return Err(Error::internal("a file without replaced rows cannot be replaced"));
    }
    let remove = files.iter().map(|file| file.path.clone()).collect();
    let add = rewrites.into_iter().flat_map(|rewrite| rewrite.add).chain(replacing).collect();
    table.commit(Commit { add, remove, app: None, data_change: true, operation: "WRITE" }).await
}

/// Writes the remaining rows of a file to new files that are not yet part of the table. The result
/// is [`Rewrite::untouched`] if all rows stay.
pub(crate) async fn rewrite(
    tools: Tools<'_>,
    file: &DataFile,
    rules: &Rules,
    now: DateTime<Utc>,
    new_id: impl FnMut() -> Uuid + Send,
) -> Result<Rewrite> {
    let now_micros = now.timestamp_micros();
    rewrite_by(tools, file, |(row, _)| end_of(row, rules, now_micros), now, new_id).await
}

/// Writes the remaining rows of a file as [`rewrite`] does, without the rows that other rows
/// replace.
pub(crate) async fn rewrite_without(
    tools: Tools<'_>,
    file: &DataFile,
    is_replaced: impl Fn(Found<'_>) -> bool + Send + Sync,
    now: DateTime<Utc>,
    new_id: impl FnMut() -> Uuid + Send,
) -> Result<Rewrite> {
    let stays = End::Class(file.retention_days);
    rewrite_by(
        tools,
        file,
        |found| if is_replaced(found) { End::Replaced } else { stays },
        now,
        new_id,
    )
    .await
}

async fn rewrite_by(
    tools: Tools<'_>,
    file: &DataFile,
    end_of: impl Fn(Found<'_>) -> End + Send + Sync,
    now: DateTime<Utc>,
    mut new_id: impl FnMut() -> Uuid + Send,
) -> Result<Rewrite> {
    if !is_touched(tools, file, &end_of).await? {
        return Ok(Rewrite { untouched: true, ..Rewrite::default() });
    }
    let text =
        format!("select * from {} order by {}", tools.table.rows().table(), SORT_KEY.join(", "));
    let mut rows = tools.read_whole([file.clone()], &text, WRITE_ROWS).await?;
    let mut sorted = Sorted {
        tools,
        file,
        now_ms: now.timestamp_millis(),
        open_records: open_records(tools, std::slice::from_ref(file)).await?,
        writers: BTreeMap::new(),
    };
    let mut outcome = Rewrite::default();
    let mut erased: BTreeMap<usize, u64> = BTreeMap::new();
    while let Some(batch) = rows.try_next().await? {
        let ends: Vec<End> =
            KeyHasher::evaluate(&batch, tools, file)?.rows().map(&end_of).collect();
        for end in &ends {
            match end {
                End::Class(days) => outcome.moved += u64::from(*days != file.retention_days),
                End::Erased(place) => *erased.entry(*place).or_default() += 1,
                End::Expired => outcome.expired += 1,
                End::Replaced => outcome.replaced += 1,
            }
        }
        sorted.write(&batch, &ends, &mut new_id).await?;
    }
    outcome.erased = erased.into_iter().collect();
    outcome.add = sorted.finish().await?;
    let kept: u64 = outcome.add.iter().map(|file| file.rows).sum();
    if kept + outcome.gone() != file.rows {
        return Err(Error::damaged(format!(
            "file `{}` holds {} rows, but the table says {}; nothing was changed; run `gatelog doctor`",
            file.path,
            kept + outcome.gone(),
            file.rows
        )));
    }
    Ok(outcome)
}

/// Destination of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The file of the class with this retention in days.
    Class(i32),
    /// Dropped, since this erasure matches it.
    Erased(usize),
    /// Dropped, since its retention is over.
    Expired,
    /// Dropped, since another row replaces it.
    Replaced,
}

fn end_of(row: Row<'_>, rules: &Rules, now_micros: i64) -> End {
    if let Some(place) = rules.erased().first(row) {
        return End::Erased(place);
    }
    if rules.sees(row, now_micros) {
        End::Class(rules.retention_days(row.organisation))
    } else {
        End::Expired
    }
}

/// Returns true if any row must leave the file.
async fn is_touched(
    tools: Tools<'_>,
    file: &DataFile,
    end_of: impl Fn(Found<'_>) -> End,
) -> Result<bool> {
    let text = format!(
        "select organisation_id, workspace_slug, created_at, user_id, id from {}",
        tools.table.rows().table()
    );
    let mut rows = tools.read([file.clone()], &text, LOOK_ROWS).await?;
    while let Some(batch) = rows.try_next().await? {
        if KeyHasher::evaluate(&batch, tools, file)?
            .rows()
            .any(|found| end_of(found) != End::Class(file.retention_days))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Columns that the rules check.
struct KeyHasher<'a> {
    feedback: bool,
    written_ms: i64,
    organisations: &'a StringViewArray,
    workspaces: &'a StringViewArray,
    times: &'a PrimitiveArray<TimestampMicrosecondType>,
    users: &'a StringViewArray,
    ids: &'a StringViewArray,
}

impl<'a> KeyHasher<'a> {
    fn evaluate(batch: &'a RecordBatch, tools: Tools<'_>, file: &DataFile) -> Result<Self> {
        let missing =
            |name: &str| Error::internal(format!("column `{name}` is missing in a rewrite"));
        let text = |name: &'static str| {
            batch
                .column_by_name(name)
                .and_then(|column| column.as_string_view_opt())
                .ok_or_else(|| missing(name))
        };
        let times = batch.column_by_name("created_at").and_then(|column| column.as_primitive_opt());
        Ok(Self {
            feedback: tools.table.rows() == Rows::Feedback,
            written_ms: file.modified_ms,
            organisations: text("organisation_id")?,
            workspaces: text("workspace_slug")?,
            times: times.ok_or_else(|| missing("created_at"))?,
            users: text("user_id")?,
            ids: text("id")?,
        })
    }

    fn rows(&self) -> impl Iterator<Item = Found<'a>> {
        let Self { feedback, written_ms, organisations, workspaces, times, users, ids } = *self;
        let found = move |row| Row {
            feedback,
            organisation: text(organisations, row).unwrap_or_default(),
            id: text(ids, row).unwrap_or_default(),
            user: text(users, row),
            // Only another program can have written a row without a time. It counts as the oldest,
            // as in queries.
            created_at: if times.is_valid(row) { times.value(row) } else { i64::MIN },
            written_ms,
        };
        (0..organisations.len()).map(move |row| (found(row), text(workspaces, row)))
    }
}

fn text(values: &StringViewArray, row: usize) -> Option<&str> {
    values.is_valid(row).then(|| values.value(row))
}

/// Output files by class.
struct Sorted<'a> {
    tools: Tools<'a>,
    file: &'a DataFile,
    now_ms: i64,
    open_records: OpenRecords,
    writers: BTreeMap<i32, DataFileWriter>,
}

impl Sorted<'_> {
    async fn write(
        &mut self,
        batch: &RecordBatch,
        ends: &[End],
        new_id: &mut impl FnMut() -> Uuid,
    ) -> Result<()> {
        let classes: BTreeSet<i32> = ends
            .iter()
            .filter_map(|end| if let End::Class(days) = end { Some(*days) } else { None })
            .collect();
        for days in classes {
            let writer = match self.writers.entry(days) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(free) => {
                    let writer = start(self.tools, self.file, days, new_id(), self.now_ms)?;
                    free.insert(writer.with_open(self.open_records.clone()))
                }
            };
            let mask: BooleanArray =
                ends.iter().map(|end| Some(*end == End::Class(days))).collect();
            let part = filter_record_batch(batch, &mask).map_err(|cause| {
                Error::internal("cannot split the rows of a file by class").with_source(cause)
            })?;
            writer.write(&part).await?;
        }
        // Each class has an open row group. If their sum exceeds the limit, the biggest ends first.
        let max_open = self.tools.queries.maintenance_bytes().min(MAX_OPEN_BYTES);
        while self.writers.len() > 1
            && self.writers.values().map(|writer| writer.buffered() as u64).sum::<u64>() > max_open
        {
            let Some(biggest) = self.writers.values_mut().max_by_key(|writer| writer.buffered())
            else {
                break;
            };
            biggest.end_row_group().await?;
        }
        Ok(())
    }

    async fn finish(self) -> Result<Vec<DataFile>> {
        let mut files = Vec::new();
        for writer in self.writers.into_values() {
            files.push(writer.finish().await?);
        }
        Ok(files)
    }
}

/// Starts the output file of a class for rows of `file`, sealed and compressed like the input.
fn start(
    tools: Tools<'_>,
    file: &DataFile,
    retention_days: i32,
    id: Uuid,
    now_ms: i64,
) -> Result<DataFileWriter> {
    let partition = Partition { date: file.date, retention_days };
    if file.is_sealed() {
        DataFileWriter::start_sealed(
            tools.table,
            partition,
            id,
            tools.policy.sealed_zstd_level,
            now_ms,
        )
    } else {
        DataFileWriter::start(tools.table, partition, id, tools.policy.zstd_level, now_ms)
    }
}
