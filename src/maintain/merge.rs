//! Merges sorted files into sorted files, holding a few rows of each input in memory, in as many
//! passes as the memory limit requires.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::kernels::cmp::not_distinct;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use uuid::Uuid;

use super::compact::Merge;
use super::open::open_records;
use super::tools::{MAX_FILES, Tools, held};
use crate::datafile::{DataFileWriter, Partition};
use crate::error::{Error, Result};
use crate::query::Weight;
use crate::record::SORT_KEY;
use crate::table::{Commit, DataFile, FileIndex, Table};

/// Rows passed from the merge to the writer at a time. The number is small, since each input holds
/// as many.
const MERGE_ROWS: usize = 512;
/// Runs are read once and deleted, so speed matters more than size.
const RUN_ZSTD_LEVEL: i32 = 1;

/// Replaces the inputs of a merge with the merged files and returns the new index.
pub(crate) async fn commit_merged(
    table: &Table,
    merge: &Merge,
    joined: Vec<DataFile>,
) -> Result<Arc<FileIndex>> {
    table
        .commit(Commit {
            add: joined,
            remove: merge.files.iter().map(|file| file.path.clone()).collect(),
            app: None,
            data_change: false,
            operation: "OPTIMIZE",
        })
        .await
}

/// Merges files into sorted files that are not yet part of the table. The result is one file, or,
/// if the merge seals more than the target size, several with disjoint ranges of the sort key.
pub(crate) async fn write_merged(
    tools: Tools<'_>,
    merge: &Merge,
    now: DateTime<Utc>,
    mut new_id: impl FnMut() -> Uuid + Send,
) -> Result<Vec<DataFile>> {
    let mut runs = Vec::new();
    let joined = in_passes(tools, merge, now, &mut new_id, &mut runs).await;
    if !runs.is_empty() {
        // A run that remains is an orphan, which the next vacuum deletes. The merge is valid
        // regardless.
        let _ = tools.table.remove_objects(&runs).await;
    }
    let joined = joined?;
    let rows: u64 = merge.files.iter().map(|file| file.rows).sum();
    let found: u64 = joined.iter().map(|file| file.rows).sum();
    if found != rows {
        return Err(Error::damaged(format!(
            "the files of a merge hold {found} rows, but the table says {rows}; nothing was changed; run `gatelog doctor`"
        )));
    }
    Ok(joined)
}

/// Merges the smallest inputs into runs until the rest can be read at once. Adds the paths of the
/// runs to `runs`.
async fn in_passes(
    tools: Tools<'_>,
    merge: &Merge,
    now: DateTime<Utc>,
    new_id: &mut (impl FnMut() -> Uuid + Send),
    runs: &mut Vec<String>,
) -> Result<Vec<DataFile>> {
    let partition = Partition { date: merge.date, retention_days: merge.retention_days };
    let now_ms = now.timestamp_millis();
    let files: Vec<DataFile> = merge.files.iter().map(|file| DataFile::clone(file)).collect();
    let open = open_records(tools, &files).await?;
    let open = &open;
    let mut inputs = weighed(tools, files).await?;
    loop {
        inputs.sort_by_key(|(size, _)| size.bytes);
        let sizes: Vec<Size> = inputs.iter().map(|(size, _)| *size).collect();
        let Some(count) = first_run(&sizes, tools.queries.maintenance_bytes()) else { break };
        let start = |id| {
            let run = DataFileWriter::start(tools.table, partition, id, RUN_ZSTD_LEVEL, now_ms);
            run.map(|run| run.with_open(open.clone()))
        };
        let joined = inputs.drain(..count).map(|(_, file)| file).collect();
        let run = join(tools, joined, u64::MAX, || start(new_id())).await?;
        runs.extend(run.iter().map(|file| file.path.clone()));
        inputs.extend(weighed(tools, run).await?);
    }
    let inputs = inputs.into_iter().map(|(_, file)| file).collect();
    if !merge.seal {
        let start = |id| {
            let level = tools.policy.zstd_level;
            let file = DataFileWriter::start(tools.table, partition, id, level, now_ms);
            file.map(|file| file.with_open(open.clone()))
        };
        return join(tools, inputs, u64::MAX, || start(new_id())).await;
    }
    let start = |id| {
        let level = tools.policy.sealed_zstd_level;
        let file = DataFileWriter::start_sealed(tools.table, partition, id, level, now_ms);
        file.map(|file| file.with_open(open.clone()))
    };
    join(tools, inputs, share(merge.bytes(), tools.policy.target_bytes), || start(new_id())).await
}

/// Size of an input on disk, and in memory during a merge.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    bytes: u64,
    held: u64,
}

impl Size {
    /// Returns the estimated size of an input whose rows are unknown.
    #[cfg(test)]
    pub(super) fn estimated(bytes: u64) -> Self {
        Self { bytes, held: held(bytes) }
    }

    /// Returns the size of the merge of two inputs.
    fn with(self, other: Self) -> Self {
        let bytes = self.bytes + other.bytes;
        Self { bytes, held: self.held.max(other.held).max(held(bytes)) }
    }
}

/// Returns the files with their sizes, which their footers give.
async fn weighed(tools: Tools<'_>, files: Vec<DataFile>) -> Result<Vec<(Size, DataFile)>> {
    let weights = tools.weigh(&files).await?;
    let size = |(weight, file): (Weight, DataFile)| {
        let held = weight.held(weight.batch_rows(MERGE_ROWS, tools.queries.maintenance_bytes()));
        (Size { bytes: file.bytes, held }, file)
    };
    Ok(weights.into_iter().zip(files).map(size).collect())
}

/// Returns the number of smallest inputs to merge first, so that the rest and the result can be
/// read at once, or as many as possible. Returns `None` if all inputs can be read at once, or if
/// there are no more than two. `sizes` must be ascending.
pub(super) fn first_run(sizes: &[Size], most_open: u64) -> Option<usize> {
    let fits = |count: usize, open: u64| count <= MAX_FILES && open <= most_open;
    let mut rest: u64 = sizes.iter().map(|size| size.held).sum();
    if sizes.len() <= 2 || fits(sizes.len(), rest) {
        return None;
    }
    let mut joined = Size::default();
    let mut open = 0;
    for (count, size) in sizes.iter().enumerate() {
        let others_fit = fits(sizes.len() - count + 1, rest + joined.held);
        if count > 1 && (others_fit || !fits(count + 1, open + size.held)) {
            return Some(count);
        }
        (joined, open, rest) = (joined.with(*size), open + size.held, rest - size.held);
    }
    Some(sizes.len())
}

/// Returns the size at which each output file ends when `bytes` are split: as few files as the
/// target allows, with none much smaller than the rest.
fn share(bytes: u64, target: u64) -> u64 {
    match bytes.div_ceil(target.max(1)) {
        // Open pages count uncompressed, so even bytes that fit one file would appear to be more.
        0 | 1 => u64::MAX,
        files => bytes.div_ceil(files),
    }
}

/// Merges files that can be read at once into files of about `most_bytes` each.
async fn join(
    tools: Tools<'_>,
    files: Vec<DataFile>,
    most_bytes: u64,
    mut start: impl FnMut() -> Result<DataFileWriter> + Send,
) -> Result<Vec<DataFile>> {
    let text =
        format!("select * from {} order by {}", tools.table.rows().table(), SORT_KEY.join(", "));
    let mut sorted = tools.read_whole(files, &text, MERGE_ROWS).await?;
    let mut done = Vec::new();
    let mut open = None::<DataFileWriter>;
    let mut last: Option<RecordBatch> = None;
    while let Some(batch) = sorted.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let mut writer = match open.take() {
            // Rows of one key stay in one file, or the ranges of two files would overlap.
            Some(full) if full.bytes() >= most_bytes && !goes_on(last.as_ref(), &batch)? => {
                done.push(full.finish().await?);
                start()?
            }
            Some(writer) => writer,
            None => start()?,
        };
        writer.write(&batch).await?;
        open = Some(writer);
        last = Some(batch.slice(batch.num_rows() - 1, 1));
    }
    if let Some(writer) = open {
        done.push(writer.finish().await?);
    }
    Ok(done)
}

/// Returns true if the batch starts with the sort key that the preceding batch ended with.
fn goes_on(last: Option<&RecordBatch>, batch: &RecordBatch) -> Result<bool> {
    let Some(last) = last else { return Ok(false) };
    for name in SORT_KEY {
        let (Some(before), Some(after)) = (last.column_by_name(name), batch.column_by_name(name))
        else {
            return Err(Error::internal(format!("column `{name}` is missing in a merge")));
        };
        let same = not_distinct(before, &after.slice(0, 1)).map_err(|cause| {
            Error::internal("cannot compare rows of a merge").with_source(cause)
        })?;
        if !same.value(0) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintain::tools::{MAX_OPEN_BYTES, ROW_GROUP_BYTES};

    /// Returns the first run for inputs of which only the size on disk is known.
    fn first_run(sizes: &[u64]) -> Option<usize> {
        let sizes: Vec<Size> = sizes.iter().copied().map(Size::estimated).collect();
        super::first_run(&sizes, MAX_OPEN_BYTES)
    }

    #[test]
    fn two_inputs_are_merged_whatever_their_size() {
        let giant = Size { bytes: 1, held: 50 << 20 };
        assert_eq!(super::first_run(&[giant; 2], 1 << 20), None);
        assert_eq!(super::first_run(&[giant; 1], 1 << 20), None);
        // Sixteen inputs are merged by twos, so that it ends.
        let mut left = vec![giant; 16];
        let mut runs = 0;
        while let Some(count) = super::first_run(&left, 1 << 20) {
            assert_eq!(count, 2);
            let run = left.drain(..count).reduce(Size::with).unwrap();
            left.push(run);
            runs += 1;
        }
        assert_eq!((left.len(), runs), (2, 14));
    }

    #[test]
    fn inputs_that_fit_are_read_at_once() {
        assert_eq!(first_run(&[]), None);
        assert_eq!(first_run(&[1; MAX_FILES]), None);
        assert_eq!(first_run(&[10 * ROW_GROUP_BYTES; 3]), None);
    }

    #[test]
    fn no_more_than_needed_is_read_twice() {
        assert_eq!(first_run(&[1; MAX_FILES + 1]), Some(2));
        assert_eq!(first_run(&[1; MAX_FILES * 2 - 1]), Some(MAX_FILES));
        assert_eq!(first_run(&[1; 1_000]), Some(MAX_FILES));
        let big = 10 * ROW_GROUP_BYTES;
        assert_eq!(first_run(&[big; 4]), Some(2));
        assert_eq!(
            first_run(&[1, 1, 1, big, big, big]),
            Some(4),
            "a run beside three big ones is one too many"
        );
        assert_eq!(first_run(&[big; 200]), Some(3));
    }

    /// Returns the bytes that all passes write for each byte of the inputs.
    fn amplification(mut sizes: Vec<u64>) -> f64 {
        let total = sizes.iter().sum::<u64>();
        let mut written = 0;
        loop {
            sizes.sort_unstable();
            let count = first_run(&sizes).unwrap_or(sizes.len());
            let open: u64 = sizes[..count].iter().map(|bytes| held(*bytes)).sum();
            assert!(count <= MAX_FILES && open <= MAX_OPEN_BYTES, "{count} inputs, {open} bytes");
            assert!(count > 1);
            let run = sizes.drain(..count).sum::<u64>();
            written += run;
            if sizes.is_empty() {
                return written as f64 / total as f64;
            }
            sizes.push(run);
        }
    }

    #[test]
    fn passes_are_few() {
        for (files, most) in
            [(3, 1.0), (4, 1.5), (8, 2.0), (9, 2.0), (27, 3.0), (64, 4.0), (200, 5.0)]
        {
            let found = amplification(vec![512 << 20; files]);
            assert!(found <= most, "{files} files: {found}");
        }
        assert!(amplification(vec![100_000; 2_880]) < 4.0);
    }

    #[test]
    fn parts_of_a_day_are_of_one_size() {
        assert_eq!(share(100, 512), u64::MAX);
        assert_eq!(share(512, 512), u64::MAX);
        assert_eq!(share(520, 512), 260);
        assert_eq!(share(5_000, 512), 500);
        assert_eq!(share(0, 512), u64::MAX);
    }
}
