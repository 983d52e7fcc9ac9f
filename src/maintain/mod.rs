//! Maintenance of a table (`logs` or `feedback`): expiry, compaction and sealing.
//!
//! [`plan_expiry`] and [`plan`] decide from metadata alone. Expiry comes first, so an expiring file
//! is not merged before.
//!
//! - **Expiry** ([`plan_expiry`]): a commit drops files without any visible row, unread. Files that
//!   may hold rows of another retention class than their own, or rows to be erased, are rewritten
//!   without them ([`rewrite`]).
//! - **Today**: eight files within a factor of four in size are merged into one. Each merge makes
//!   the file of a row about eight times as big, so in a day of n flushes a row is written about
//!   log8(n) times: four times for 2,880.
//! - **Sealing**: once a day is past and received no file for ten minutes, all of it is rewritten
//!   once more, fully sorted, at a higher zstd level, into files of at most the target size with
//!   disjoint ranges of the sort key. The file names mark them as sealed, and they stay. Later
//!   files are sealed too, after each quiet period, together with as many sealed files, smallest
//!   first, as amount to at most four times their bytes. So sealing writes at most five bytes for a
//!   late one, and a few late rows leave a day's big files alone. Small sealed files are merged by
//!   eight, as today's are.
//! - **Memory**: a merge holds a row group, some decompressed pages and a batch of every input, in
//!   sizes that the footers give. If the sum exceeds `maintenance_memory_bytes`, the smallest inputs are
//!   first merged into runs, which are deleted when the merge is done. Two files can always be
//!   merged, in batches of single rows if rows are huge. Planning assumes [`MAX_OPEN_BYTES`], of
//!   which big inputs are merged by three, so n of them are written at most ⌈log3(n)⌉ times
//!   including the last pass: 1.5 GB of full-sized files once, 4.5 GB twice.
//!
//! The new files mark the same records as open as the files that they replace.
//!
//! Each change replaces files in one commit. A query that started before continues to read the old
//! files, which vacuum deletes after the grace period.

mod compact;
mod expire;
mod merge;
mod open;
mod rewrite;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::ParamValues;
use futures::stream::BoxStream;

pub use compact::{Merge, plan};
pub use expire::{commit_dropped, plan_expiry};
pub use merge::{commit_merged, write_merged};
pub use open::with_marks;
pub use rewrite::{commit_replaced, commit_rewritten, rewrite, rewrite_without};

use crate::config::Config;
use crate::error::Result;
use crate::query::{Queries, Weight};
use crate::table::{DataFile, FileIndex, Table};
use crate::view::View;

/// Maximum number of files that a merge reads at once.
const MAX_FILES: usize = 64;
/// Limit on the memory of all inputs of a merge, for planning from file sizes alone.
const MAX_OPEN_BYTES: u64 = 120 << 20;
/// Maximum bytes of a row group. A merge holds one row group of each input, and its decompressed
/// pages.
const ROW_GROUP_BYTES: u64 = 32 << 20;
const PAGES_BYTES: u64 = 8 << 20;
/// Time without new files after which a past day is sealed.
const QUIET_MS: i64 = 10 * 60 * 1000;

/// Goals of compaction.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
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
    pub fn from_config(config: &Config) -> Self {
        Self {
            target_bytes: config.compact_target_bytes,
            zstd_level: i32::try_from(config.zstd_level).unwrap_or(3),
            sealed_zstd_level: i32::try_from(config.sealed_zstd_level).unwrap_or(6),
            quiet_ms: QUIET_MS,
        }
    }

    /// Returns the policy for maintenance on request, which does not wait for quiet days.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { quiet_ms: 0, ..self }
    }
}

/// Dependencies of work on files.
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    /// Table to maintain.
    pub table: &'a Table,
    /// Reader of the files.
    pub queries: &'a Queries,
    /// Goals of the work.
    pub policy: Policy,
}

impl Tools<'_> {
    /// Runs a statement over exactly these files. It sees all rows as they are stored.
    pub async fn read(
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
    pub async fn read_whole(
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
    async fn weigh(self, files: &[DataFile]) -> Result<Vec<Weight>> {
        let files: Vec<_> = files.iter().cloned().map(Arc::new).collect();
        self.queries.weigh(self.table.rows(), &files, None).await
    }
}

/// Estimates the memory of one input of a merge, in bytes.
fn held(bytes: u64) -> u64 {
    // Decompressed text is about four times as big.
    bytes.min(ROW_GROUP_BYTES) + bytes.saturating_mul(4).min(PAGES_BYTES)
}
