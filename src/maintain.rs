//! Upkeep of the table: which small files to join, and the doing of it; vacuum and checkpoints.
//!
//! [`plan`] decides from numbers alone. Past days get no more rows in the normal course, so once a day is past and no file came
//! to it for ten minutes, its files are joined into as few as the target size allows. Of other days, eight files of one size
//! are joined into one, so a row is rewritten a few times at most.
//! Joining merges sorted files into sorted files, a few rows of each in memory, and commits the exchange as one version;
//! a query that began before goes on reading the old files, which vacuum deletes after the grace time.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::ParamValues;
use futures::TryStreamExt;
use uuid::Uuid;

use crate::config::Config;
use crate::datafile::{DataFileWriter, Partition};
use crate::error::{Error, Result};
use crate::query::Queries;
use crate::record::SORT_KEY;
use crate::table::{Commit, DataFile, FileIndex, Table};
use crate::view::View;

/// Files of one size class of today that are worth joining.
const FILES_OF_A_CLASS: usize = 8;
/// Most files joined at once.
const MOST_FILES: usize = 64;
/// Each input holds up to one row group; all of them together stay below this.
const MOST_OPEN_BYTES: u64 = 160 << 20;
const ROW_GROUP_BYTES: u64 = 32 << 20;
/// Rows handed from the merge to the writer at once: few, since each input holds as many.
const MERGE_ROWS: usize = 512;
const SECONDS_A_DAY: i64 = 86_400;
/// A past day is joined whole when no file came to it for so long.
const QUIET_MS: i64 = 10 * 60 * 1000;

/// What compaction aims at.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Files at least this big are left alone.
    pub target_bytes: u64,
    /// zstd level of what it writes.
    pub zstd_level: i32,
    /// How long no file may have come to a past day before it is joined whole, ms.
    pub quiet_ms: i64,
}

impl Policy {
    /// The policy of a configuration, for upkeep on a schedule.
    pub fn of(config: &Config) -> Self {
        Self {
            target_bytes: config.compact_target_bytes,
            zstd_level: i32::try_from(config.zstd_level).unwrap_or(3),
            quiet_ms: QUIET_MS,
        }
    }

    /// The same for somebody who asks for it now.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { quiet_ms: 0, ..self }
    }
}

/// Files of one partition to join into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Their partition.
    pub date: i32,
    /// Their days to keep.
    pub retention_days: i32,
    /// The files.
    pub files: Vec<Arc<DataFile>>,
}

impl Merge {
    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The merges that are due, oldest day first.
pub fn plan(now: DateTime<Utc>, index: &FileIndex, policy: Policy) -> Vec<Merge> {
    let today = i32::try_from(now.timestamp().div_euclid(SECONDS_A_DAY)).unwrap_or(i32::MAX);
    let mut merges = Vec::new();
    for ((date, retention_days), files) in index.partitions() {
        let mut small: Vec<_> = files.iter().filter(|file| file.bytes < policy.target_bytes).map(Arc::clone).collect();
        // Small ones first: they gain most, and a merge that must stop at its bounds stops before the big ones.
        small.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.path.cmp(&b.path)));
        // A past day that files still come to, as in an import, is treated as today until it is quiet.
        let newest_ms = files.iter().map(|file| file.modified_ms).max().unwrap_or(0);
        let quiet = now.timestamp_millis() - newest_ms >= policy.quiet_ms;
        let groups = if date < today && quiet { vec![small] } else { size_classes(small) };
        for group in groups {
            merges.extend(bounded(group, policy).into_iter().map(|files| Merge { date, retention_days, files }));
        }
    }
    merges
}

/// Groups of files within a factor of four in size, each group full enough to be worth joining.
fn size_classes(files: Vec<Arc<DataFile>>) -> Vec<Vec<Arc<DataFile>>> {
    let mut classes: BTreeMap<u32, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        classes.entry(file.bytes.max(1).ilog2() / 2).or_default().push(file);
    }
    classes.into_values().filter(|class| class.len() >= FILES_OF_A_CLASS).collect()
}

/// Cuts a group into merges that stay within the bounds of size, number and memory; leaves out what stays alone.
fn bounded(files: Vec<Arc<DataFile>>, policy: Policy) -> Vec<Vec<Arc<DataFile>>> {
    let mut merges: Vec<Vec<Arc<DataFile>>> = Vec::new();
    let (mut current, mut bytes, mut open) = (Vec::new(), 0, 0);
    for file in files {
        let holds = file.bytes.min(ROW_GROUP_BYTES);
        let over =
            bytes + file.bytes > policy.target_bytes || open + holds > MOST_OPEN_BYTES || current.len() == MOST_FILES;
        if over && !current.is_empty() {
            merges.push(std::mem::take(&mut current));
            (bytes, open) = (0, 0);
        }
        (bytes, open) = (bytes + file.bytes, open + holds);
        current.push(file);
    }
    merges.push(current);
    merges.retain(|files| files.len() > 1);
    merges
}

/// What a merge needs of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    /// The table.
    pub table: &'a Table,
    /// Runs the merge.
    pub queries: &'a Queries,
    /// What to aim at.
    pub policy: Policy,
}

/// Makes a merged file take the place of its inputs; answers the new index.
pub async fn commit_merged(table: &Table, merge: &Merge, joined: DataFile) -> Result<Arc<FileIndex>> {
    table
        .commit(Commit {
            add: vec![joined],
            remove: merge.files.iter().map(|file| file.path.clone()).collect(),
            app: None,
            data_change: false,
            operation: "OPTIMIZE",
        })
        .await
}

/// Joins the files of a merge into one sorted file, which is not part of the table yet.
pub async fn write_merged(tools: Tools<'_>, merge: &Merge, now: DateTime<Utc>, id: Uuid) -> Result<DataFile> {
    let files = merge.files.iter().map(|file| DataFile::clone(file));
    let view = View { files: Arc::new(FileIndex::of(files)), memory: Vec::new() };
    let text = format!("select * from logs order by {}", SORT_KEY.join(", "));
    let none = ParamValues::Map(std::collections::HashMap::new());
    let mut sorted = tools.queries.merge(view, &text, none, MERGE_ROWS).await?;
    let partition = Partition { date: merge.date, retention_days: merge.retention_days };
    let mut writer =
        DataFileWriter::start(tools.table, partition, id, tools.policy.zstd_level, now.timestamp_millis())?;
    while let Some(batch) = sorted.try_next().await? {
        writer.write(&batch).await?;
    }
    let joined = writer.finish().await?;
    let rows: u64 = merge.files.iter().map(|file| file.rows).sum();
    if joined.rows != rows {
        let found = joined.rows;
        return Err(Error::damaged(format!(
            "the files of a merge hold {found} rows, but the table says {rows}; nothing was changed; run `gatelog doctor`"
        )));
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { target_bytes: 100 << 20, zstd_level: 3, quiet_ms: QUIET_MS };

    fn file(date: i32, name: usize, bytes: u64) -> DataFile {
        DataFile {
            path: format!("retention_days=0/date={}/part-{name:04}.parquet", crate::store::date_text(date)),
            bytes,
            rows: 1,
            retention_days: 0,
            date,
            modified_ms: 0,
            min_created_at: i64::MIN,
            max_created_at: i64::MAX,
            min_organisation: None,
            max_organisation: None,
            min_id: None,
            max_id: None,
        }
    }

    fn day(date: i32) -> DateTime<Utc> {
        DateTime::from_timestamp(i64::from(date) * SECONDS_A_DAY + 3_600, 0).unwrap()
    }

    fn planned(now: i32, files: Vec<DataFile>) -> Vec<usize> {
        plan(day(now), &FileIndex::of(files), POLICY).iter().map(|merge| merge.files.len()).collect()
    }

    #[test]
    fn a_past_day_becomes_one_file_and_a_single_file_is_left_alone() {
        assert_eq!(planned(101, vec![file(100, 1, 5 << 20), file(100, 2, 60 << 20)]), [2]);
        assert_eq!(planned(101, vec![file(100, 1, 5 << 20), file(99, 2, 5 << 20)]), [0_usize; 0]);
        assert_eq!(planned(101, vec![file(100, 1, 5 << 20), file(100, 2, 100 << 20)]), [0_usize; 0]);
    }

    #[test]
    fn today_waits_for_eight_files_of_a_size() {
        let files = |count: usize| (0..count).map(|name| file(100, name, 1 << 20)).collect::<Vec<_>>();
        assert_eq!(planned(100, files(7)), [0_usize; 0]);
        assert_eq!(planned(100, files(8)), [8]);
        let mixed = files(7).into_iter().chain([file(100, 90, 50 << 20)]).collect();
        assert_eq!(planned(100, mixed), [0_usize; 0]);
    }

    #[test]
    fn a_merge_stays_within_number_size_and_memory() {
        let many = (0..200).map(|name| file(100, name, 1 << 10)).collect();
        assert_eq!(planned(101, many), [64, 64, 64, 8]);
        let big = (0..6).map(|name| file(100, name, 40 << 20)).collect();
        assert_eq!(planned(101, big), [2, 2, 2]);
    }
}
