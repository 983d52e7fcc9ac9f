//! Estimates the memory to read a file from its footer alone, so that batches are limited by bytes
//! and not by rows, and only as many files are open as fit into memory.
//!
//! A reader holds the compressed columns of one row group, one uncompressed page of each column,
//! and the current batch. The index of pages has the uncompressed bytes of text in each, however
//! well it compresses.

use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

/// Target size of a batch, in bytes.
const BATCH_BYTES: u64 = 2 << 20;
/// Minimum size of a batch in bytes, unless it is a single row.
const LEAST_BATCH_BYTES: u64 = 64 << 10;
/// Share of a reader's memory for a batch, as a divisor: a sort holds several, twice.
const BATCH_PART: u64 = 32;
/// Assumed size of an uncompressed page, in bytes.
const PAGE_BYTES: u64 = 1 << 20;

/// Memory of a reader of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Compressed bytes of the largest row group, in the columns that are read.
    pub group: u64,
    /// Uncompressed bytes of the largest pages, one of each column that is read.
    pub pages: u64,
    /// Uncompressed bytes of a row, on average over the page with the largest rows.
    pub row: u64,
}

impl Weight {
    /// Returns the maximum of each figure.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            group: self.group.max(other.group),
            pages: self.pages.max(other.pages),
            row: self.row.max(other.row),
        }
    }

    /// Returns the rows of a batch for a reader with this much memory, at most `most`. It is 1 if a
    /// single row exceeds the size of a batch.
    pub(crate) fn batch_rows(self, most: usize, memory: u64) -> usize {
        usize::try_from(batch_bytes(memory) / self.row.max(1)).unwrap_or(most).clamp(1, most.max(1))
    }

    /// Returns the bytes that a reader holds with batches of this many rows.
    pub(crate) fn held(self, batch_rows: usize) -> u64 {
        let batch = self.row.saturating_mul(batch_rows as u64);
        self.group.saturating_add(self.pages).saturating_add(batch)
    }
}

/// Returns the bytes of a batch for a reader with `memory` bytes.
pub(super) fn batch_bytes(memory: u64) -> u64 {
    (memory / BATCH_PART).clamp(LEAST_BATCH_BYTES, BATCH_BYTES)
}

/// Returns the weight of a file for a reader of these columns, such as `id` and `request.body`.
/// `None` means all columns.
pub(super) fn weigh(metadata: &ParquetMetaData, columns: Option<&[String]>) -> Weight {
    let groups = metadata.row_groups().iter().enumerate();
    groups
        .map(|(place, group)| weigh_group(metadata, place, group, columns))
        .fold(Weight::default(), Weight::max)
}

fn weigh_group(
    metadata: &ParquetMetaData,
    place: usize,
    group: &RowGroupMetaData,
    columns: Option<&[String]>,
) -> Weight {
    let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
    let mut weight = Weight::default();
    for (leaf, chunk) in group.columns().iter().enumerate() {
        let path = chunk.column_path().string();
        if columns.is_some_and(|columns| !columns.iter().any(|column| is_part(&path, column))) {
            continue;
        }
        let unpacked = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
        let known = metadata.offset_index().and_then(|index| index.get(place)?.get(leaf));
        let pages = known.and_then(|index| {
            Some((index.page_locations(), index.unencoded_byte_array_data_bytes()?))
        });
        let mut page = unpacked.min(PAGE_BYTES);
        let mut row = unpacked / rows;
        for (at, bytes) in pages.iter().flat_map(|(_, bytes)| bytes.iter().enumerate()) {
            let bytes = u64::try_from(*bytes).unwrap_or(0);
            let first = |at: usize| {
                let location = pages.and_then(|(locations, _)| locations.get(at));
                location
                    .map_or(rows, |location| u64::try_from(location.first_row_index).unwrap_or(0))
            };
            let rows = first(at + 1).saturating_sub(first(at)).max(1);
            (page, row) = (page.max(bytes), row.max(bytes / rows));
        }
        weight.group += u64::try_from(chunk.compressed_size()).unwrap_or(0);
        weight.pages += page;
        weight.row += row;
    }
    weight
}

/// Returns true if the leaf `request.body` is a part of the column `request` or `request.body`.
fn is_part(leaf: &str, column: &str) -> bool {
    leaf.strip_prefix(column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_by_bytes() {
        let of = |row| Weight { row, ..Weight::default() };
        assert_eq!(of(0).batch_rows(8192, u64::MAX), 8192);
        assert_eq!(of(10 << 10).batch_rows(8192, u64::MAX), 204);
        assert_eq!(of(10 << 10).batch_rows(8192, 8 << 20), 25);
        assert_eq!(of(10 << 10).batch_rows(8192, 0), 6);
        assert_eq!(of(50 << 20).batch_rows(8192, u64::MAX), 1, "a giant row passes alone");
        assert_eq!(of(1).batch_rows(16, u64::MAX), 16);
        let weight = Weight { group: 1, pages: 2, row: 3 };
        assert_eq!(weight.held(10), 33);
        assert_eq!(weight.max(of(9)), Weight { row: 9, ..weight });
    }

    #[test]
    fn a_leaf_is_part_of_its_column_and_of_no_other() {
        assert!(
            is_part("request.body", "request")
                && is_part("request.body", "request.body")
                && is_part("id", "id")
        );
        assert!(!is_part("request.body", "request.headers") && !is_part("request_path", "request"));
    }
}
