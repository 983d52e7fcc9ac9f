//! Reads data files and verifies their checksums: every part that a query fetches entirely is
//! checked before use, the footer first. Also verifies whole files for `doctor`.
//!
//! The Parquet reader fetches pages, bloom filters and page indexes entirely. Files without
//! checksums are read unchecked.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, CachedParquetMetaData, ParquetFileReaderFactory,
};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use super::sums::{self, Entry, Part, TRAILER};

/// Text in every error about a part that does not match its checksum, however the error is wrapped.
pub(crate) const HARMED: &str = "its checksum does not match";
/// Parts of a file that are named one by one if they are damaged.
const MAX_PARTS: usize = 5;
/// Bytes that verification of a whole file reads at a time, unless a part is larger.
const READ_BYTES: u64 = 1 << 20;

/// Creates readers that verify what they read.
#[derive(Debug)]
pub(crate) struct CheckedReaderFactory {
    store: Arc<dyn ObjectStore>,
    cache: Arc<FileMetadataCache>,
}

impl CheckedReaderFactory {
    /// Creates a factory for readers of files in a store, which share a cache of footers.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, cache: Arc<FileMetadataCache>) -> Self {
        Self { store, cache }
    }
}

impl ParquetFileReaderFactory for CheckedReaderFactory {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let known = Arc::<Known>::default();
        let store = Arc::clone(&self.store);
        let size = file.object_meta.size;
        let checked = Checked { inner: store, size, known: Arc::clone(&known) };
        let location = file.object_meta.location.clone();
        let inner = CachedParquetFileReaderFactory::new(Arc::new(checked), Arc::clone(&self.cache))
            .create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { inner, known, location, cache: Arc::clone(&self.cache) }))
    }
}

/// Known checksums of a file. The entry is empty before the footer is read, and holds `None` if the
/// file has no checksums.
#[derive(Debug, Default)]
struct Known {
    entry: OnceLock<Option<Arc<Entry>>>,
    /// Offset of the footer, once its length is read.
    footer: OnceLock<u64>,
}

impl Known {
    fn learn(&self, metadata: &Arc<ParquetMetaData>) -> std::result::Result<(), &'static str> {
        let Some(known) = self.entry.get() else {
            // Two threads would store equal values.
            let _ = self.entry.set(parsed_entry_of(metadata)?);
            return Ok(());
        };
        if let Some(known) = known {
            Parsed::shared().keep(metadata, known);
        }
        Ok(())
    }
}

/// Parsed entries by footer, kept as long as the cache holds the footer: a query opens many files,
/// and each has thousands of parts.
#[derive(Debug, Default)]
struct Parsed(Mutex<HashMap<usize, OfFooter>>);

/// Entry of a footer that is still in use.
type OfFooter = (Weak<ParquetMetaData>, Arc<Entry>);

impl Parsed {
    fn shared() -> &'static Self {
        static SHARED: LazyLock<Parsed> = LazyLock::new(Parsed::default);
        &SHARED
    }

    fn get(&self, metadata: &Arc<ParquetMetaData>) -> Option<Arc<Entry>> {
        let parsed = self.0.lock();
        let (of, entry) = parsed.get(&Arc::as_ptr(metadata).addr())?;
        std::ptr::eq(of.as_ptr(), Arc::as_ptr(metadata)).then(|| Arc::clone(entry))
    }

    fn keep(&self, metadata: &Arc<ParquetMetaData>, entry: &Arc<Entry>) {
        let mut parsed = self.0.lock();
        if parsed.len() == parsed.capacity() {
            parsed.retain(|_, (of, _)| of.strong_count() > 0);
        }
        parsed.insert(Arc::as_ptr(metadata).addr(), (Arc::downgrade(metadata), Arc::clone(entry)));
    }
}

fn parsed_entry_of(
    metadata: &Arc<ParquetMetaData>,
) -> std::result::Result<Option<Arc<Entry>>, &'static str> {
    if let Some(entry) = Parsed::shared().get(metadata) {
        return Ok(Some(entry));
    }
    let entry = entry_of(metadata)?.map(Arc::new);
    if let Some(entry) = &entry {
        Parsed::shared().keep(metadata, entry);
    }
    Ok(entry)
}

fn entry_of(metadata: &ParquetMetaData) -> std::result::Result<Option<Entry>, &'static str> {
    let file = metadata.file_metadata();
    let entries = file.key_value_metadata();
    let entry = entries.and_then(|entries| entries.iter().find(|entry| entry.key == sums::KEY));
    let entry = entry.map(Entry::parse).transpose()?.flatten();
    if entry.is_none() && file.created_by() == Some(sums::CREATED_BY) {
        Err("its checksums are missing")
    } else {
        Ok(entry)
    }
}

/// Reader of one file. Footers of files that were read before are in the cache, with their
/// checksums.
struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    known: Arc<Known>,
    location: Path,
    cache: Arc<FileMetadataCache>,
}

impl Reader {
    /// Loads the checksums if the reader is asked for bytes before the footer: code that opens a
    /// file may pass its footer to another reader.
    async fn know(&mut self) -> parquet::errors::Result<()> {
        if self.known.entry.get().is_none() {
            self.know_cached()?;
        }
        if self.known.entry.get().is_none() {
            // The checksums are in the footer; the page indexes would take one more request.
            let footer_only =
                ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
            let metadata = self.inner.get_metadata(Some(&footer_only)).await?;
            self.known.learn(&metadata).map_err(wrong)?;
        }
        Ok(())
    }

    fn know_cached(&self) -> parquet::errors::Result<()> {
        let Some(cached) = self.cache.get(&self.location) else { return Ok(()) };
        match cached.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>() {
            Some(cached) => self.known.learn(cached.parquet_metadata()).map_err(wrong),
            None => Ok(()),
        }
    }
}

fn wrong(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            self.know().await?;
            self.inner.get_bytes(range).await
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            self.know().await?;
            self.inner.get_byte_ranges(ranges).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            // The cached metadata may lack the page indexes, which are then read and verified.
            self.know_cached()?;
            let metadata = self.inner.get_metadata(options).await?;
            self.known.learn(&metadata).map_err(wrong)?;
            Ok(metadata)
        }
        .boxed()
    }
}

/// Store below the reader of one file.
#[derive(Debug)]
struct Checked {
    inner: Arc<dyn ObjectStore>,
    size: u64,
    known: Arc<Known>,
}

impl Checked {
    /// Verifies the fetched bytes.
    fn check(&self, location: &Path, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        if self.known.entry.get().is_none() {
            self.check_footer(location, range, bytes)?;
        }
        let Some(Some(entry)) = self.known.entry.get() else { return Ok(()) };
        let mut parts = entry.sums.within(range);
        if range.end == self.size {
            // The request is for the footer and the page indexes before it. Pages that happen to be
            // included are fetched again if they are read, and no other query has to fail because
            // of them.
            parts = &parts[parts.len().saturating_sub(1)..];
        }
        for part in parts {
            if !slice_of(part, range.start, bytes).is_some_and(|bytes| part.holds(bytes)) {
                return Err(harmed(location, part.start));
            }
        }
        Ok(())
    }

    /// Reads the checksums from the footer, if it was fetched, and verifies the footer itself. A
    /// footer that cannot be decoded is left to the reader, which reports it, but not one that is
    /// longer than the file.
    fn check_footer(&self, location: &Path, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        let trailer_at = self.size.saturating_sub(TRAILER as u64);
        if range.end == self.size
            && let Some(trailer) = bytes.last_chunk::<TRAILER>()
        {
            let len = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
            // The Parquet reader subtracts the length without a check.
            let Some(start) = trailer_at.checked_sub(u64::from(len)) else {
                return Err(harmed(location, trailer_at));
            };
            let _ = self.known.footer.set(start);
        }
        let Some(start) = self.known.footer.get().copied().filter(|start| *start >= range.start)
        else {
            return Ok(());
        };
        let place = |at: u64| usize::try_from(at - range.start).unwrap_or(usize::MAX);
        if trailer_at < start || trailer_at > range.end {
            return Ok(());
        }
        let Some(footer) = bytes.get(place(start)..place(trailer_at)) else { return Ok(()) };
        let Ok(metadata) = ParquetMetaDataReader::decode_metadata(footer) else { return Ok(()) };
        let entry = entry_of(&metadata).map_err(|_| harmed(location, start))?;
        let is_damaged = match &entry {
            Some(entry) => !entry.footer_holds(footer),
            None => {
                let tail =
                    bytes.get(place(tail_before(trailer_at).max(range.start))..place(trailer_at));
                names_checksums(footer) || tail.is_some_and(names_checksums)
            }
        };
        if is_damaged {
            return Err(harmed(location, start));
        }
        let _ = self.known.entry.set(entry.map(Arc::new));
        Ok(())
    }
}

fn slice_of<'a>(part: &Part, start: u64, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let from = usize::try_from(part.start.checked_sub(start)?).ok()?;
    bytes.get(from..from.checked_add(part.len as usize)?)
}

fn harmed(location: &Path, at: u64) -> object_store::Error {
    let what = format!("`{location}` is damaged at offset {at}: {HARMED}; restore it from a copy");
    object_store::Error::Generic { store: "gatelog", source: what.into() }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checked({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Checked {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_bytes = !options.head && !matches!(&options.range, Some(GetRange::Offset(_)));
        let found = self.inner.get_opts(location, options).await?;
        if !is_bytes {
            return Ok(found);
        }
        let meta = found.meta.clone();
        let range = found.range.clone();
        let attributes = found.attributes.clone();
        let bytes = found.bytes().await?;
        self.check(location, &range, &bytes)?;
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found = self.inner.get_ranges(location, ranges).await?;
        // Checks the last range first, since it may contain the footer.
        for (range, bytes) in ranges.iter().zip(&found).rev() {
            self.check(location, range, bytes)?;
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// Result of verifying a whole file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// The file has no checksums that this version knows. Only its end was read.
    Without,
    /// Everything matches. Holds the number of rows.
    Whole(u64),
    /// Damaged parts, one text each.
    Harmed(Vec<String>),
}

/// Lists the first few damaged parts of a file, and how many more there are.
pub(crate) fn listed(parts: &[String]) -> String {
    let first = parts.iter().take(MAX_PARTS).cloned().collect::<Vec<_>>().join("; ");
    match parts.len().saturating_sub(MAX_PARTS) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}

/// Returns the start of the bytes before the trailer in which our files name their writer, whatever
/// the trailer says of the length of the footer.
fn tail_before(trailer_at: u64) -> u64 {
    const TAIL: u64 = 1024;
    trailer_at.saturating_sub(TAIL)
}

/// Returns true if the bytes of a footer name checksums. One changed byte can hide both the key and
/// the writer from a parser: each field of the footer is found by those before it, and the footer
/// itself by its length.
fn names_checksums(footer: &[u8]) -> bool {
    let names = [sums::KEY, sums::CREATED_BY];
    names.iter().any(|name| memchr::memmem::find(footer, name.as_bytes()).is_some())
}

/// Reads a whole file, a megabyte or one part at a time, and verifies its checksums.
pub(crate) async fn verify(
    store: &dyn ObjectStore,
    location: &Path,
    size: u64,
) -> Result<Verified> {
    let one = |what: String| Ok(Verified::Harmed(vec![what]));
    let trailer_at = size.saturating_sub(TRAILER as u64);
    let trailer = store.get_range(location, trailer_at..size).await?;
    let (Some(len), true) = (trailer.first_chunk::<4>(), trailer.ends_with(b"PAR1")) else {
        return one("its last bytes are not those of a Parquet file".to_owned());
    };
    let start = trailer_at.checked_sub(u64::from(u32::from_le_bytes(*len)));
    let Some(start) = start.filter(|start| *start >= sums::FIRST as u64) else {
        return one(format!(
            "the length of its footer, at offset {trailer_at}, is larger than the file"
        ));
    };
    let footer = store.get_range(location, start..trailer_at).await?;
    let tail = store.get_range(location, tail_before(trailer_at)..trailer_at).await?;
    let metadata = match ParquetMetaDataReader::decode_metadata(&footer) {
        Ok(metadata) => metadata,
        Err(error) => {
            return one(format!("its footer at offset {start} cannot be decoded: {error}"));
        }
    };
    let entry = match entry_of(&metadata) {
        Ok(None) if names_checksums(&footer) || names_checksums(&tail) => {
            return one(format!("its footer at offset {start}: its checksums are missing"));
        }
        Ok(None) => return Ok(Verified::Without),
        Ok(Some(entry)) if entry.footer_holds(&footer) => entry,
        Ok(Some(_)) => return one(format!("its footer at offset {start}: {HARMED}")),
        Err(what) => return one(format!("its footer at offset {start}: {what}")),
    };
    let mut wrong = Vec::new();
    if !store.get_range(location, 0..sums::FIRST as u64).await?.starts_with(b"PAR1") {
        wrong.push("its first bytes are not those of a Parquet file".to_owned());
    }
    if entry.sums.end() != start {
        wrong.push(format!(
            "its checksums end at offset {}, its footer begins at {start}",
            entry.sums.end()
        ));
    }
    let mut parts = entry.sums.parts.as_slice();
    while let Some(first) = parts.first() {
        let fits = |part: &&Part| part.end() <= first.start + READ_BYTES;
        let (read, rest) = parts.split_at(parts.iter().take_while(fits).count().max(1));
        let end = read.last().map_or(first.start, Part::end).min(start);
        let bytes = store.get_range(location, first.start.min(end)..end).await?;
        let is_wrong = |part: &&Part| {
            !slice_of(part, first.start, &bytes).is_some_and(|bytes| part.holds(bytes))
        };
        wrong.extend(
            read.iter().filter(is_wrong).map(|part| format!("{}: {HARMED}", name(part, &metadata))),
        );
        parts = rest;
    }
    if wrong.is_empty() {
        Ok(Verified::Whole(metadata.file_metadata().num_rows().unsigned_abs()))
    } else {
        Ok(Verified::Harmed(wrong))
    }
}

/// Describes a part.
fn name(part: &Part, metadata: &ParquetMetaData) -> String {
    let start = part.start;
    let at = format!("at offset {}, {} bytes", part.start, part.len);
    for (place, group) in metadata.row_groups().iter().enumerate() {
        for column in group.columns() {
            let (from, len) = column.byte_range();
            let path = column.column_path().string();
            if (from..from + len).contains(&start) {
                return format!("a page of column `{path}` in row group {place} {at}");
            }
            if column.bloom_filter_offset().is_some_and(|offset| offset.cast_unsigned() == start) {
                return format!("the bloom filter of column `{path}` in row group {place} {at}");
            }
        }
    }
    format!("the page indexes {at}")
}
