//! The files of one version of a table, kept in memory: what a query plans from and what maintenance decides by.
//!
//! An index never changes. The next version shares every partition that its commit did not touch, so making it costs
//! the number of partitions and the files of the touched ones, never all files. Within a partition files are in the
//! order of their paths, so two indexes of one version are equal however they were built.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::plan::FileFacts;
use crate::store;

/// One live Parquet file of the table and what its statistics promise. A bound that is not known is the widest there
/// is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Path relative to the table, as the log writes it (URL-encoded, which changes nothing in paths that gatelog
    /// makes).
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Number of rows.
    pub rows: u64,
    /// Partition: days to keep, 0 = for ever.
    pub retention_days: i32,
    /// Partition: UTC day in days since 1970-01-01.
    pub date: i32,
    /// When the file was written, ms since 1970-01-01.
    pub modified_ms: i64,
    /// No row is earlier, µs since 1970-01-01; `i64::MIN` = not known.
    pub min_created_at: i64,
    /// No row is later, µs since 1970-01-01; `i64::MAX` = not known.
    pub max_created_at: i64,
    /// No row has a smaller organisation; none = not known.
    pub min_organisation: Option<String>,
    /// No row has a greater organisation; none = not known.
    pub max_organisation: Option<String>,
    /// No row has a smaller id; none = not known.
    pub min_id: Option<String>,
    /// No row has a greater id; none = not known.
    pub max_id: Option<String>,
}

impl DataFile {
    /// The partition that the file belongs to, as [`FileIndex`] orders them.
    pub fn partition(&self) -> Partition {
        (self.date, self.retention_days)
    }

    /// Whether the file was packed for good, when its day was past: its name says so.
    pub fn is_sealed(&self) -> bool {
        store::parse_data_path(&self.path).is_some_and(|path| path.sealed)
    }

    /// What the rules of plans ask of a file.
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

/// Longest text of a bound, in bytes: the log of the table and the index in memory must not grow with what tenants write.
const BOUND_BYTES: usize = 128;

/// A bound below a text and all greater ones: the text, or the beginning of a long one.
pub fn lower_bound(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(BOUND_BYTES));
    text
}

/// A bound above a text and all smaller ones: the text, or of a long one the first text after all that begin as it does, if there
/// is one.
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

/// `(date, retention_days)`: all files of one folder.
pub type Partition = (i32, i32);

/// The files of one version of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileIndex {
    /// The version of the table.
    pub version: u64,
    partitions: BTreeMap<Partition, Arc<Vec<Arc<DataFile>>>>,
    files: usize,
    rows: u64,
    bytes: u64,
}

impl FileIndex {
    /// An index of just these files, of no version: what a merge or a look at a few files reads.
    pub fn of(files: impl IntoIterator<Item = DataFile>) -> Self {
        Self::default().apply(0, files, [])
    }

    /// The partitions that have files, by day and retention, each with its files by path.
    pub fn partitions(&self) -> impl Iterator<Item = (Partition, &Arc<Vec<Arc<DataFile>>>)> {
        self.partitions.iter().map(|(partition, files)| (*partition, files))
    }

    /// The files of one partition.
    pub fn partition(&self, date: i32, retention_days: i32) -> Option<&Arc<Vec<Arc<DataFile>>>> {
        self.partitions.get(&(date, retention_days))
    }

    /// The files of the days from `first` to `last`, both included, of every retention.
    pub fn days(&self, first: i32, last: i32) -> impl Iterator<Item = &Arc<DataFile>> {
        // An empty range of a BTreeMap panics when its ends are crossed.
        let range = (first <= last).then(|| self.partitions.range((first, i32::MIN)..=(last, i32::MAX)));
        range.into_iter().flatten().flat_map(|(_, files)| files.iter())
    }

    /// Every file, by partition and path.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.partitions.values().flat_map(|files| files.iter())
    }

    /// The file of that path, if this version has it.
    pub fn get(&self, path: &str) -> Option<&Arc<DataFile>> {
        let partition = self.locate(path)?;
        self.partitions.get(&partition).and_then(|files| find(files, path))
    }

    /// Whether this version has the file of that path.
    pub fn contains(&self, path: &str) -> bool {
        self.locate(path).is_some()
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The index of a later version: without the files of `remove`, with those of `add`; an added file takes the place
    /// of one of the same path. A path in `remove` that this version does not have is passed over.
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
            (self.files, self.rows, self.bytes) = (self.files + 1, self.rows + file.rows, self.bytes + file.bytes);
            touched.entry(file.partition()).or_default().push(Arc::new(file));
        }
        for (partition, new) in touched {
            let files = Arc::make_mut(self.partitions.entry(partition).or_default());
            files.extend(new);
            files.sort_by(|a, b| a.path.cmp(&b.path));
        }
    }

    /// The partition of the file of that path. The path names it, unless another program chose the path.
    fn locate(&self, path: &str) -> Option<Partition> {
        let has = |partition: &Partition| self.partitions.get(partition).is_some_and(|f| find(f, path).is_some());
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
        for text in ["", "a", &long("a"), &long("é"), &long("\u{d7ff}"), &long(&last), &(long(&last[..]) + "a")] {
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
