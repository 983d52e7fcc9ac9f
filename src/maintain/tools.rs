//! Goals, bounds and dependencies of work on the files of a table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use futures::stream::BoxStream;

use crate::config::Config;
use crate::error::Result;
use crate::query::{Queries, Weight};
use crate::table::{DataFile, FileIndex, Table};
use crate::view::View;

/// Maximum number of files that a merge reads at once.
pub(super) const MAX_FILES: usize = 64;
/// Limit on the memory of all inputs of a merge, for planning from file sizes alone.
pub(super) const MAX_OPEN_BYTES: u64 = 120 << 20;
/// Maximum bytes of a row group. A merge holds one row group of each input, and its decompressed
/// pages.
pub(super) const ROW_GROUP_BYTES: u64 = 32 << 20;
pub(super) const PAGES_BYTES: u64 = 8 << 20;
/// Time without new files after which a past day is sealed.
pub(super) const QUIET_MS: i64 = 10 * 60 * 1000;

/// Goals of compaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Target file size. Today's files of at least this size are left alone.
    pub target_bytes: u64,
    /// zstd level of files in days that are not sealed.
    pub zstd_level: i32,
    /// zstd level of sealed files.
    pub sealed_zstd_level: i32,
    /// Time without new files, in ms, after which a past day is sealed.
    pub quiet_ms: i64,
}

impl Policy {
    /// Creates the policy of a configuration, for scheduled maintenance.
    pub(crate) fn from_config(config: &Config) -> Self {
        Self {
            target_bytes: config.compact_target_bytes,
            zstd_level: i32::try_from(config.zstd_level).unwrap_or(3),
            sealed_zstd_level: i32::try_from(config.sealed_zstd_level).unwrap_or(6),
            quiet_ms: QUIET_MS,
        }
    }

    /// Returns the policy for maintenance on request, which does not wait for quiet days.
    #[must_use]
    pub(crate) fn at_once(self) -> Self {
        Self { quiet_ms: 0, ..self }
    }
}

/// Dependencies of work on files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tools<'a> {
    /// Table to maintain.
    pub table: &'a Table,
    /// Reader of the files.
    pub queries: &'a Queries,
    /// Goals of the work.
    pub policy: Policy,
}

impl Tools<'_> {
    /// Runs a statement over exactly these files. It sees all rows as they are stored.
    pub(crate) async fn read(
        self,
        files: impl IntoIterator<Item = DataFile>,
        text: &str,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let view = View::with_files(self.table.rows(), FileIndex::new(files));
        self.queries.merge(view, text, ParamValues::Map(HashMap::new()), batch_rows).await
    }

    /// Runs a statement that reads all columns over these files, in batches of at most `most_rows`
    /// rows. Batches of big rows are smaller, down to single rows.
    pub(crate) async fn read_whole(
        self,
        files: impl IntoIterator<Item = DataFile>,
        text: &str,
        most_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let files: Vec<DataFile> = files.into_iter().collect();
        let weights = self.weigh(&files).await?;
        let heaviest = weights.into_iter().fold(Weight::default(), Weight::max);
        let rows = heaviest.batch_rows(most_rows, self.queries.maintenance_bytes());
        self.read(files, text, rows).await
    }

    /// Returns the memory that reading all columns of each file takes.
    pub(super) async fn weigh(self, files: &[DataFile]) -> Result<Vec<Weight>> {
        let files: Vec<_> = files.iter().cloned().map(Arc::new).collect();
        self.queries.weigh(self.table.rows(), &files, None).await
    }
}

/// Estimates the memory of one input of a merge, in bytes.
pub(super) fn held(bytes: u64) -> u64 {
    // Decompressed text is about four times as big.
    bytes.min(ROW_GROUP_BYTES) + bytes.saturating_mul(4).min(PAGES_BYTES)
}
