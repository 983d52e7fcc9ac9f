//! Upkeep of a table, `logs` or `feedback`: what leaves it, which files to join, and the doing of it.
//!
//! [`plan_expiry`] and [`plan`] decide from numbers alone; what leaves comes first, so a file that expires is not
//! joined before.
//!
//! - **Expiry** ([`plan_expiry`]): files none of whose rows is in answers are dropped by a commit, unread. Files that
//!   hold rows of another class than their own, or rows to be erased, are written anew without them ([`rewrite`]).
//! - **Today**: eight files within a factor of four in size are joined into one, so each join makes rows' file about
//!   eight times as big, and a row of a day of n flushes is written about log8(n) times: four times for 2,880.
//! - **Sealing**: once a day is past and no file came to it for ten minutes, all of it is written once more, sorted
//!   whole, at a higher zstd level, into files of at most the target size with disjoint ranges of the sort key. Their
//!   names say that they are sealed, and they stay. What comes later is sealed too, each quiet time, together with as
//!   many sealed files, the smallest first, as come to at most four times its bytes: so sealing writes at most five
//!   bytes for a late one, and a few late rows leave a day's big files alone. Small sealed files are joined by eight,
//!   as today's are.
//! - **Memory**: a merge holds a row group, some unpacked pages and a batch of every input: what that comes to is read from
//!   the footers. If it is more than `upkeep_memory_bytes` allows, the smallest are first joined into runs, which are
//!   deleted when the merge is done. Two files can always be joined, in batches of single rows if rows are giants. Planning
//!   counts on [`MOST_OPEN_BYTES`], of which big inputs are joined by three, so n of them are written at most ⌈log3(n)⌉
//!   times, the last pass among them: 1.5 GB of full-sized files once, 4.5 GB twice.
//!
//! All of it replaces files by one commit; a query that began before goes on reading the old ones, which vacuum deletes
//! after the grace time.

mod compact;
mod expire;
mod merge;
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
pub use rewrite::{commit_replaced, commit_rewritten, rewrite, rewrite_without};

use crate::config::Config;
use crate::error::Result;
use crate::query::{Queries, Weight};
use crate::table::{DataFile, FileIndex, Table};
use crate::view::View;

/// Most files that a merge reads at once.
const MOST_FILES: usize = 64;
/// What all inputs of a merge hold together stays below this where sizes of files are all that is known.
const MOST_OPEN_BYTES: u64 = 120 << 20;
/// Most bytes of a row group, of which a merge holds one of each input, and of those of its pages that are unpacked.
const ROW_GROUP_BYTES: u64 = 32 << 20;
const PAGES_BYTES: u64 = 8 << 20;
/// A past day is sealed when no file came to it for so long.
const QUIET_MS: i64 = 10 * 60 * 1000;

/// What compaction aims at.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Files are made about this big, and of today's files those that are so big are left alone.
    pub target_bytes: u64,
    /// zstd level of what it writes of days that are not sealed.
    pub zstd_level: i32,
    /// zstd level of sealed files.
    pub sealed_zstd_level: i32,
    /// How long no file may have come to a past day before it is sealed, ms.
    pub quiet_ms: i64,
}

impl Policy {
    /// The policy of a configuration, for upkeep on a schedule.
    pub fn of(config: &Config) -> Self {
        Self {
            target_bytes: config.compact_target_bytes,
            zstd_level: i32::try_from(config.zstd_level).unwrap_or(3),
            sealed_zstd_level: i32::try_from(config.sealed_zstd_level).unwrap_or(6),
            quiet_ms: QUIET_MS,
        }
    }

    /// The same for somebody who asks for it now.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { quiet_ms: 0, ..self }
    }
}

/// What work on files needs of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    /// The table.
    pub table: &'a Table,
    /// Reads the files.
    pub queries: &'a Queries,
    /// What to aim at.
    pub policy: Policy,
}

impl Tools<'_> {
    /// The rows that a statement gives over just these files, all of their rows as they are stored.
    pub async fn read(
        self,
        files: impl IntoIterator<Item = DataFile>,
        text: &str,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let view = View::of_files(self.table.rows(), FileIndex::of(files));
        self.queries.merge(view, text, ParamValues::Map(HashMap::new()), batch_rows).await
    }

    /// The same for a statement that reads all columns: in batches of at most so many rows, and fewer where they are big, down
    /// to single ones.
    pub async fn read_whole(
        self,
        files: impl IntoIterator<Item = DataFile>,
        text: &str,
        most_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let files: Vec<DataFile> = files.into_iter().collect();
        let weights = self.weigh(&files).await?;
        let heaviest = weights.into_iter().fold(Weight::default(), Weight::max);
        let rows = heaviest.batch_rows(most_rows, self.queries.upkeep_bytes());
        self.read(files, text, rows).await
    }

    /// What reading all columns of files takes.
    async fn weigh(self, files: &[DataFile]) -> Result<Vec<Weight>> {
        let files: Vec<_> = files.iter().cloned().map(Arc::new).collect();
        self.queries.weigh(self.table.rows(), &files, None).await
    }
}

/// Bytes that an input of a merge holds in memory.
fn held(bytes: u64) -> u64 {
    // Text unpacks to about four times its size.
    bytes.min(ROW_GROUP_BYTES) + bytes.saturating_mul(4).min(PAGES_BYTES)
}
