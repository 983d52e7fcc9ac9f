//! The state of one of the two tables: its files, and the view that queries see.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use datafusion::common::ParamValues;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::config::Config;
use crate::datafile::OpenRows;
use crate::dedupe::{KeyHasher, SeenState};
use crate::error::Result;
use crate::maintain::with_marks;
use crate::query::{Limits, Queries};
use crate::record::Rows;
use crate::store::Store;
use crate::table::{DataFile, FileIndex, Table};
use crate::usage::Snapshot;
use crate::view::{View, ViewCell};

/// Columns that ids are made of, and what a part has to know of its record.
const ID_COLUMNS: [&str; 4] = ["organisation_id", "workspace_slug", "id", "do_not_track"];

/// A table with its view. A commit to the table updates the view in the same step, under the lock
/// of all commits.
#[derive(Clone, Debug)]
pub(super) struct TableState {
    pub(super) table: Table,
    pub(super) view_cell: Arc<ViewCell>,
}

impl TableState {
    /// Opens the table of such rows, and creates it if it does not exist.
    pub(super) async fn open(store: &Store, rows: Rows, config: &Config) -> Result<Self> {
        let table = Table::create_or_open(store, rows).await?;
        table.set_row_group_bytes(config.row_group_bytes());
        let view_cell = Arc::new(ViewCell::new(rows, table.index()));
        Ok(Self { table, view_cell })
    }
}

/// Both tables, and the locks under which they change. [`super`] has the order of all locks.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) logs: TableState,
    pub(super) feedback: TableState,
    /// Held while the tables and the views of queries are changed.
    pub(super) commits: tokio::sync::Mutex<Commits>,
    /// Held while stored files are merged, rewritten or deleted.
    pub(super) compacting: tokio::sync::Mutex<()>,
}

impl Tables {
    /// Takes over the open tables, with the counts of the log at its last commit.
    pub(super) fn new(logs: TableState, feedback: TableState, counted: Snapshot) -> Self {
        let commits = Commits {
            counted,
            unresolved: BTreeMap::new(),
            remembered: logs.table.index(),
            own: HashSet::new(),
        };
        Self { logs, feedback, commits: commits.into(), compacting: tokio::sync::Mutex::default() }
    }

    pub(super) fn both(&self) -> [&TableState; 2] {
        [&self.logs, &self.feedback]
    }
}

/// State that flushes, merges and refreshes change one at a time: the tables and the views of
/// queries.
#[derive(Debug)]
pub(super) struct Commits {
    /// Counts of this node's log at its last committed flush.
    pub(super) counted: Snapshot,
    /// Files of the oldest frozen rows of a table whose commit has an unknown result.
    pub(super) unresolved: BTreeMap<Rows, Unresolved>,
    /// The version whose files' ids are remembered.
    pub(super) remembered: Arc<FileIndex>,
    /// Files that this node wrote since; their ids are known anyway.
    pub(super) own: HashSet<String>,
}

impl Commits {
    /// Notes files of this node, so that they are not read for their ids.
    pub(super) fn note_own<'a>(&mut self, files: impl IntoIterator<Item = &'a DataFile>) {
        self.own.extend(files.into_iter().map(|file| file.path.clone()));
    }
}

/// Files that the table may or may not contain.
#[derive(Debug)]
pub(super) struct Unresolved {
    pub(super) last_sequence: u64,
    pub(super) written_ms: i64,
    pub(super) files: Vec<DataFile>,
}

/// Streams the keys of all ids in files of records, with what the files say of each record. Files
/// with open and other records are read one by one, since their marks are by row.
pub(super) async fn ids_of_files<'q>(
    queries: &'q Queries,
    keys: &KeyHasher,
    files: Vec<DataFile>,
) -> Result<BoxStream<'q, Result<Vec<(u128, SeenState)>>>> {
    let marks = queries.open_rows(&files).await?;
    let mut whole = Vec::new();
    let mut open = Vec::new();
    let mut mixed = Vec::new();
    for (file, marks) in files.into_iter().zip(marks) {
        match marks {
            OpenRows::Nothing => whole.push(file),
            OpenRows::All => open.push(file),
            OpenRows::Marked(_) => mixed.push((file, marks)),
        }
    }
    let of_one_kind =
        [(whole, false), (open, true)].into_iter().filter(|(files, _)| !files.is_empty());
    let of_one_kind = stream::iter(of_one_kind.collect::<Vec<_>>())
        .then(move |(files, is_open)| rows_of(queries, files, is_open));
    let mixed = stream::iter(mixed)
        .then(async move |(file, marks)| with_marks(queries, &file, marks, &ID_COLUMNS).await);
    let keys = keys.clone();
    let batches = of_one_kind.chain(mixed).try_flatten();
    Ok(batches.map_ok(move |(batch, open)| known_of(&keys, &batch, &open)).boxed())
}

/// Reads the ids of files of which either all records are open or none.
async fn rows_of(
    queries: &Queries,
    files: Vec<DataFile>,
    is_open: bool,
) -> Result<BoxStream<'static, Result<(RecordBatch, BooleanBuffer)>>> {
    let view = View::with_files(Rows::Logs, FileIndex::new(files));
    let limits = Limits { timeout: None, max_rows: None, ..queries.limits() };
    let none = ParamValues::Map(HashMap::new());
    let text = format!("select {} from logs", ID_COLUMNS.join(", "));
    let batches = queries.run(view, &text, none, limits).await?.batches;
    let marked = batches.map_ok(move |batch| {
        let rows = batch.num_rows();
        let bits =
            if is_open { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) };
        (batch, bits)
    });
    Ok(marked.boxed())
}

fn known_of(keys: &KeyHasher, batch: &RecordBatch, open: &BooleanBuffer) -> Vec<(u128, SeenState)> {
    let untracked = batch.column_by_name("do_not_track").and_then(|column| column.as_boolean_opt());
    let is_untracked = |row| untracked.is_some_and(|flag| flag.is_valid(row) && flag.value(row));
    let keys = keys.keys_of_batch(batch).into_iter().zip(open).enumerate();
    keys.map(|(row, (key, is_open))| (key, SeenState { is_open, is_untracked: is_untracked(row) }))
        .collect()
}
