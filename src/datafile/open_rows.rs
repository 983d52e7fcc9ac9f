//! Marks of open records: those that were stored before all of their parts had arrived, so that a
//! part which arrives later is still added to them.
//!
//! The footer's key-value metadata has the marks of a file's rows, so a process that opens the
//! table knows the same of its records as the one that stored them:
//!
//! ```text
//! gatelog.open = 1;none | 1;all | 1;<bits>
//! ```
//!
//! Bits are one per row in file order, least significant first, 1 for an open record, compressed
//! with zstd and encoded in base 64. They contain no id, and they are deleted with the file. The
//! log of the table cannot hold them: the kernel writes no tags of files. Records of files without
//! marks, or with an unknown version of them, count as open.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{BooleanBufferBuilder, RecordBatch};
use arrow::buffer::{BooleanBuffer, Buffer};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{KeyValue, ParquetMetaData};

use super::sums::{decode64, encode64};
use crate::dedupe::KeyHasher;

/// Key of the marks in the footer's metadata.
const KEY: &str = "gatelog.open";
const VERSION: &str = "1";
const NOTHING: &str = "none";
const ALL: &str = "all";
const ZSTD_LEVEL: i32 = 3;

/// Open records of a file by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpenRows {
    /// No record is open.
    Nothing,
    /// Every record is open, or the file does not say.
    All,
    /// Records are open where the bit of their row is set.
    Marked(BooleanBuffer),
}

impl OpenRows {
    /// Creates the marks of rows from one bit per row.
    pub(crate) fn from_bits(bits: BooleanBuffer) -> Self {
        match bits.count_set_bits() {
            0 => Self::Nothing,
            open if open == bits.len() => Self::All,
            _ => Self::Marked(bits),
        }
    }

    /// Reads the marks of a file from its footer.
    pub(crate) fn from_footer(metadata: &ParquetMetaData) -> Self {
        let file = metadata.file_metadata();
        let entries = file.key_value_metadata();
        let entry = entries.and_then(|entries| entries.iter().find(|entry| entry.key == KEY));
        let value = entry.and_then(|entry| entry.value.as_deref());
        let rows = usize::try_from(file.num_rows()).unwrap_or(0);
        value.and_then(|value| parsed(value, rows)).unwrap_or(Self::All)
    }

    /// Returns the number of open records among `rows` rows.
    pub(crate) fn count(&self, rows: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::All => rows,
            Self::Marked(bits) => bits.count_set_bits() as u64,
        }
    }

    /// Returns true if the record of a row is open.
    pub(crate) fn is_open(&self, row: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Marked(bits) => row >= bits.len() || bits.value(row),
        }
    }

    /// Returns the metadata entry of the marks.
    pub(super) fn entry(&self) -> Result<KeyValue> {
        let said = match self {
            Self::Nothing => NOTHING.to_owned(),
            Self::All => ALL.to_owned(),
            Self::Marked(bits) => {
                let packed = zstd::bulk::compress(bits.sliced().as_slice(), ZSTD_LEVEL);
                encode64(&packed.map_err(|cause| ParquetError::External(Box::new(cause)))?)
            }
        };
        Ok(KeyValue::new(KEY.to_owned(), format!("{VERSION};{said}")))
    }
}

/// Parses the value of an entry. Returns `None` if it is of another version or does not fit the
/// number of rows.
fn parsed(value: &str, rows: usize) -> Option<OpenRows> {
    let said = value.strip_prefix(VERSION)?.strip_prefix(';')?;
    match said {
        NOTHING => return Some(OpenRows::Nothing),
        ALL => return Some(OpenRows::All),
        _ => {}
    }
    let bytes = rows.div_ceil(8);
    let bits = zstd::bulk::decompress(&decode64(said)?, bytes).ok()?;
    (bits.len() == bytes)
        .then(|| OpenRows::from_bits(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows)))
}

/// Open records among those that are written to files, whichever file and row they come to.
#[derive(Clone, Debug, Default)]
pub(crate) enum OpenRecords {
    /// No record is open.
    #[default]
    Nothing,
    /// Every record is open.
    All,
    /// A list tells which records are open.
    Listed(Arc<OpenList>),
}

/// The smaller part of some records: either those that are open or those that are not.
#[derive(Debug)]
pub(crate) struct OpenList {
    hasher: KeyHasher,
    keys: HashSet<u128>,
    are_open: bool,
}

impl OpenRecords {
    /// Creates a list of the open records by key.
    pub(crate) fn from_open(hasher: &KeyHasher, keys: HashSet<u128>) -> Self {
        if keys.is_empty() { Self::Nothing } else { Self::listed(hasher, keys, true) }
    }

    /// Creates a list of the records by key that are not open, while all others are.
    pub(crate) fn from_closed(hasher: &KeyHasher, keys: HashSet<u128>) -> Self {
        if keys.is_empty() { Self::All } else { Self::listed(hasher, keys, false) }
    }

    fn listed(hasher: &KeyHasher, keys: HashSet<u128>, are_open: bool) -> Self {
        Self::Listed(Arc::new(OpenList { hasher: hasher.clone(), keys, are_open }))
    }

    /// Appends a bit for each row of a batch.
    pub(super) fn mark(&self, batch: &RecordBatch, bits: &mut BooleanBufferBuilder) {
        match self {
            Self::Nothing => bits.append_n(batch.num_rows(), false),
            Self::All => bits.append_n(batch.num_rows(), true),
            Self::Listed(list) => {
                for key in list.hasher.keys_of_batch(batch) {
                    bits.append(list.keys.contains(&key) == list.are_open);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_from_their_entry() {
        let every = |step: usize, rows: usize| {
            OpenRows::from_bits((0..rows).map(|row| row % step == 1).collect())
        };
        for (marks, rows) in [
            (every(2, 0), 0),
            (every(3, 1), 1),
            (every(1_000, 999), 999),
            (every(3, 1_000), 1_000),
            (every(2, 131_077), 131_077),
            (OpenRows::from_bits(BooleanBuffer::new_set(77)), 77),
        ] {
            let entry = marks.entry().unwrap();
            let read = parsed(entry.value.as_deref().unwrap(), rows).unwrap();
            assert_eq!(read, marks, "{rows} rows");
            let open = (0..rows).filter(|row| read.is_open(*row)).count() as u64;
            assert_eq!(open, read.count(rows as u64), "{rows} rows");
        }
    }

    #[test]
    fn marks_of_another_version_or_number_of_rows_are_not_read() {
        let marks = OpenRows::from_bits((0..1_000).map(|row| row % 3 == 1).collect());
        let value = marks.entry().unwrap().value.unwrap();
        assert_eq!(parsed(&value, 1_000), Some(marks));
        let other = value.replacen('1', "2", 1);
        for (value, rows) in
            [(value.as_str(), 900), (&value, 1_009), (&other, 1_000), ("1;", 1_000), ("", 1_000)]
        {
            assert_eq!(parsed(value, rows), None, "{rows} rows");
        }
    }
}
