//! The state of one of the two tables: its files, and the view that queries see.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use datafusion::common::ParamValues;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::config::Config;
use crate::dedupe::{KeyHasher, SeenState};
use crate::error::Result;
use crate::query::{Limits, Queries};
use crate::record::Rows;
use crate::store::Store;
use crate::table::{DataFile, FileIndex, Table};
use crate::view::{View, ViewCell};

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

/// Returns the keys of all ids in files of records, batch by batch. A file does not say if a record
/// is complete, so each counts as open.
pub(super) async fn ids_of_files(
    queries: &Queries,
    keys: &KeyHasher,
    files: Vec<DataFile>,
) -> Result<BoxStream<'static, Result<Vec<(u128, SeenState)>>>> {
    let view = View::with_files(Rows::Logs, FileIndex::new(files));
    let limits = Limits { timeout: None, max_rows: None, ..queries.limits() };
    let none = ParamValues::Map(HashMap::new());
    let ids = queries
        .run(
            view,
            "select organisation_id, workspace_slug, id, do_not_track from logs",
            none,
            limits,
        )
        .await?
        .batches;
    let keys = keys.clone();
    let known = move |batch: RecordBatch| {
        let untracked = batch
            .column_by_name("do_not_track")
            .and_then(|column| column.as_boolean_opt().cloned());
        let is_untracked =
            |row| untracked.as_ref().is_some_and(|flag| flag.is_valid(row) && flag.value(row));
        let keys = keys.keys_of_batch(&batch).into_iter().enumerate();
        keys.map(|(row, key)| (key, SeenState { is_open: true, is_untracked: is_untracked(row) }))
            .collect()
    };
    Ok(ids.map(move |batch| batch.map(&known)).boxed())
}
