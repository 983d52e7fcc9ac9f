//! Files of one version of a table, in memory. Queries and maintenance plan from them.
//!
//! An index is immutable. The next version shares every partition that its commit did not touch, so
//! its cost depends on the number of partitions and on the files of the touched ones, never on all
//! files. Files within a partition are sorted by path, so two indexes of one version are equal
//! however they were built.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::plan::FileFacts;
use crate::store;

/// An unreferenced object below the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Path relative to the table, as the object store writes it.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// One live Parquet file of the table with its statistics. An unknown bound is as wide as possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Path relative to the table, as the log writes it (URL-encoded, which changes nothing in
    /// paths that gatelog creates).
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of rows.
    pub rows: u64,
    /// Partition: days to keep the rows. 0 means for ever.
    pub retention_days: i32,
    /// Partition: UTC day in days since 1970-01-01.
    pub date: i32,
    /// Time of writing, ms since 1970-01-01.
    pub modified_ms: i64,
    /// Lower bound of the rows' times, µs since 1970-01-01. `i64::MIN` means unknown.
    pub min_created_at: i64,
    /// Upper bound of the rows' times, µs since 1970-01-01. `i64::MAX` means unknown.
    pub max_created_at: i64,
    /// Lower bound of the rows' organisations. `None` means unknown.
    pub min_organisation: Option<String>,
    /// Upper bound of the rows' organisations. `None` means unknown.
    pub max_organisation: Option<String>,
    /// Lower bound of the rows' ids. `None` means unknown.
    pub min_id: Option<String>,
    /// Upper bound of the rows' ids. `None` means unknown.
    pub max_id: Option<String>,
}

impl DataFile {
    /// Returns the file's partition, as [`FileIndex`] orders them.
    pub fn partition(&self) -> Partition {
        (self.date, self.retention_days)
    }

    /// Returns true if the file name marks it as sealed: merged for the last time after the end of
    /// its day.
    pub fn is_sealed(&self) -> bool {
        store::parse_data_path(&self.path).is_some_and(|path| path.sealed)
    }

    /// Returns the properties of the file that plan rules need.
    pub fn facts(&self) -> FileFacts<'_> {
        FileFacts {
            retention_days: self.retention_days,
            min_created_at: self.min_created_at,
            max_created_at: self.max_created_at,
            min_organisation: self.min_organisation.as_deref(),
            max_organisation: self.max_organisation.as_deref(),
            modified_ms: self.modified_ms,
        }
    }
}

/// Maximum bytes of a bound's text: the log of the table and the index in memory must not grow with
/// the texts of tenants.
const BOUND_BYTES: usize = 128;

/// Returns a lower bound of a text: the text itself, or a prefix of a long one.
pub fn lower_bound(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(BOUND_BYTES));
    text
}

/// Returns an upper bound of a text: the text itself, or for a long one the smallest text above
/// everything with the same prefix, if one exists.
pub fn upper_bound(text: String) -> String {
    if text.len() <= BOUND_BYTES {
        return text;
    }
    let mut bound = lower_bound(text.clone());
    while let Some(last) = bound.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            bound.push(next);
            return bound;
        }
    }
    text
}

/// `(date, retention_days)`, which identify one folder of files.
pub type Partition = (i32, i32);

/// Files of one version of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileIndex {
    /// Version of the table.
    pub version: u64,
    partitions: BTreeMap<Partition, Arc<Vec<Arc<DataFile>>>>,
    files: usize,
    rows: u64,
    bytes: u64,
}

impl FileIndex {
    /// Creates an index of these files without a version, for a merge or for reading a few files.
    pub fn new(files: impl IntoIterator<Item = DataFile>) -> Self {
        Self::default().apply(0, files, [])
    }

    /// Returns the partitions that have files, by day and retention, each with its files sorted by
    /// path.
    pub fn partitions(&self) -> impl Iterator<Item = (Partition, &Arc<Vec<Arc<DataFile>>>)> {
        self.partitions.iter().map(|(partition, files)| (*partition, files))
    }

    /// Returns the files of one partition.
    pub fn partition(&self, date: i32, retention_days: i32) -> Option<&Arc<Vec<Arc<DataFile>>>> {
        self.partitions.get(&(date, retention_days))
    }

    /// Returns the files of the days from `first` to `last` inclusive, of every retention.
    pub fn days(&self, first: i32, last: i32) -> impl Iterator<Item = &Arc<DataFile>> {
        // `BTreeMap::range` panics if the start is after the end.
        let range =
            (first <= last).then(|| self.partitions.range((first, i32::MIN)..=(last, i32::MAX)));
        range.into_iter().flatten().flat_map(|(_, files)| files.iter())
    }

    /// Returns every file, by partition and path.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.partitions.values().flat_map(|files| files.iter())
    }

    /// Returns the file with this path, if this version has it.
    pub fn get(&self, path: &str) -> Option<&Arc<DataFile>> {
        let partition = self.locate(path)?;
        self.partitions.get(&partition).and_then(|files| find(files, path))
    }

    /// Returns true if this version has a file with this path.
    pub fn contains(&self, path: &str) -> bool {
        self.locate(path).is_some()
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.files
    }

    /// Returns true if there are no files.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Returns the number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the index of a later version, without the files in `remove` and with those in `add`.
    /// An added file replaces one with the same path. A path in `remove` that this version does not
    /// have is ignored.
    pub(super) fn apply<'a>(
        &self,
        version: u64,
        add: impl IntoIterator<Item = DataFile>,
        remove: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut next = Self { version, ..self.clone() };
        let mut gone: BTreeMap<Partition, HashSet<&str>> = BTreeMap::new();
        for path in remove {
            if let Some(partition) = self.locate(path) {
                gone.entry(partition).or_default().insert(path);
            }
        }
        for (partition, paths) in &gone {
            next.drop_files(*partition, paths);
        }
        next.add_files(add);
        next
    }

    fn drop_files(&mut self, partition: Partition, paths: &HashSet<&str>) {
        let Some(files) = self.partitions.get_mut(&partition) else { return };
        let (dropped, kept): (Vec<_>, Vec<_>) =
            files.iter().cloned().partition(|file| paths.contains(file.path.as_str()));
        self.files -= dropped.len();
        self.rows -= dropped.iter().map(|file| file.rows).sum::<u64>();
        self.bytes -= dropped.iter().map(|file| file.bytes).sum::<u64>();
        if kept.is_empty() {
            self.partitions.remove(&partition);
        } else {
            *files = Arc::new(kept);
        }
    }

    fn add_files(&mut self, add: impl IntoIterator<Item = DataFile>) {
        let mut touched: BTreeMap<Partition, Vec<Arc<DataFile>>> = BTreeMap::new();
        for file in add {
            if let Some(partition) = self.locate(&file.path) {
                self.drop_files(partition, &HashSet::from([file.path.as_str()]));
            }
            self.files += 1;
            self.rows += file.rows;
            self.bytes += file.bytes;
            touched.entry(file.partition()).or_default().push(Arc::new(file));
        }
        for (partition, new) in touched {
            let files = Arc::make_mut(self.partitions.entry(partition).or_default());
            files.extend(new);
            files.sort_by(|a, b| a.path.cmp(&b.path));
        }
    }

    /// Returns the partition of the file with this path. The path names the partition unless
    /// another program chose the path.
    fn locate(&self, path: &str) -> Option<Partition> {
        let has = |partition: &Partition| {
            self.partitions.get(partition).is_some_and(|f| find(f, path).is_some())
        };
        match store::parse_data_path(path).map(|named| (named.date, named.retention_days)) {
            Some(partition) if has(&partition) => Some(partition),
            Some(_) => None,
            None => self.partitions.keys().find(|partition| has(partition)).copied(),
        }
    }
}

fn find<'a>(files: &'a [Arc<DataFile>], path: &str) -> Option<&'a Arc<DataFile>> {
    files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &files[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_long_texts_are_short_and_hold() {
        let last = char::MAX.to_string();
        let long = |text: &str| text.repeat(300);
        for text in [
            "",
            "a",
            &long("a"),
            &long("é"),
            &long("\u{d7ff}"),
            &long(&last),
            &(long(&last[..]) + "a"),
        ] {
            let low = lower_bound(text.to_owned());
            let high = upper_bound(text.to_owned());
            assert!(*low <= *text && *high >= *text, "{text:.8}");
            assert!(low.len() <= BOUND_BYTES, "{text:.8}");
            assert!(high.len() <= BOUND_BYTES || text.starts_with(char::MAX), "{text:.8}");
            if text.len() <= BOUND_BYTES {
                assert_eq!((&*low, &*high), (text, text));
            }
        }
    }
}
