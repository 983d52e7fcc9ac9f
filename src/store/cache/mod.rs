//! Cache of a bucket's data files on this node's disk.
//!
//! Only data files are cached ([`parse_data_path`]). Their paths are written once, so a copy
//! cannot become stale, and copies of a deleted file age out. The Delta log, its checkpoints and
//! the catalog always come from the bucket.
//!
//! The cache stores aligned blocks of [`BLOCK`] bytes rather than the requested ranges. DataFusion
//! reads the footer as a suffix, and of a column only the pages that pass a filter, so two queries
//! rarely request the same range but often the same part of a file. A block serves both, stores no
//! byte twice, and holds a small file whole with its footer. The extra bytes cost less than the
//! latency of another request. Missing blocks are fetched together if at most [`GAP_BLOCKS`] lie
//! between them. A request for more than [`MAX_AT_ONCE`] (an export, a merge) bypasses the cache:
//! bandwidth decides there, and it would evict the blocks that many queries use.
//!
//! Entries are files below `<log folder>/cache/`. They are written under a temporary name and
//! renamed, and each has a checksum over its key and content: an entry that a crash tore is a miss,
//! never wrong data. The least recently used blocks are evicted when the cache reaches its size
//! limit. A failure of the cache is logged once and does not fail the read.

mod blocks;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chrono::DateTime;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};

use super::data_path::parse_data_path;
use blocks::{About, BLOCK};
pub use blocks::{Blocks, CacheStats};

/// Blocks to fetch needlessly rather than send another request.
const GAP_BLOCKS: u64 = 4;
/// Largest request that the cache serves, in bytes.
const MAX_AT_ONCE: u64 = 8 << 20;

/// An object store with a disk cache in front. It writes nothing before the first read of a data
/// file.
#[derive(Debug)]
pub struct DiskCache {
    inner: Arc<dyn ObjectStore>,
    blocks: Arc<Blocks>,
}

impl DiskCache {
    /// Creates a cache of at most `most_bytes` in `folder` over `inner`. `place` identifies `inner`
    /// among all stores.
    pub fn new(inner: Arc<dyn ObjectStore>, folder: PathBuf, place: &str, most_bytes: u64) -> Self {
        Self { inner, blocks: Arc::new(Blocks::new(folder, place, most_bytes)) }
    }

    /// Returns the cached blocks, for metrics.
    pub fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Returns the blocks that a read of these ranges needs, if the read uses the cache.
    fn wanted(&self, location: &Path, ranges: &[Range<u64>]) -> Option<BTreeSet<u64>> {
        let most = MAX_AT_ONCE.min(self.blocks.most_bytes() / 4);
        let bytes = ranges
            .iter()
            .fold(0u64, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)));
        if bytes > most
            || !is_data_file(location)
            || ranges.is_empty()
            || ranges.iter().any(Range::is_empty)
        {
            return None;
        }
        let blocks: BTreeSet<u64> =
            ranges.iter().flat_map(|range| range.start / BLOCK..=(range.end - 1) / BLOCK).collect();
        // Scattered pages may touch far more blocks than they have bytes.
        (blocks.len() as u64 * BLOCK <= most + BLOCK).then_some(blocks)
    }

    /// Returns the bytes of the object in the `wanted` blocks.
    async fn pieces(&self, location: &Path, wanted: BTreeSet<u64>) -> Result<Pieces> {
        let file = self.blocks.file_key(location);
        let blocks = Arc::clone(&self.blocks);
        let asked = wanted.clone();
        let found = run_blocking(move || blocks.read(file, &asked)).await;
        let mut pieces = Pieces { location: location.clone(), about: None, parts: BTreeMap::new() };
        for (block, (about, bytes)) in found {
            pieces.about = Some(about);
            pieces.parts.insert(block * BLOCK, bytes);
        }
        let exists =
            |block: u64| pieces.about.as_ref().is_none_or(|about| block * BLOCK < about.size);
        let missing: Vec<u64> = wanted
            .into_iter()
            .filter(|block| !pieces.parts.contains_key(&(block * BLOCK)) && exists(*block))
            .collect();
        self.blocks.count(pieces.parts.len(), missing.len());
        let fetches = runs(&missing).into_iter().map(|run| self.fetch(location, run));
        let fetched = futures::future::try_join_all(fetches).await?;
        for (about, start, bytes) in &fetched {
            pieces.about = Some(about.clone());
            // A run may cover blocks that were found between two that were missing.
            pieces.parts.retain(|at, _| *at < *start || *at >= start + bytes.len() as u64);
            pieces.parts.insert(*start, bytes.clone());
        }
        if !fetched.is_empty() {
            let blocks = Arc::clone(&self.blocks);
            run_blocking(move || {
                fetched
                    .iter()
                    .for_each(|(about, start, bytes)| blocks.keep(file, about, *start, bytes))
            })
            .await;
        }
        Ok(pieces)
    }

    /// Reads a run of blocks from the store.
    async fn fetch(&self, location: &Path, run: Range<u64>) -> Result<(About, u64, Bytes)> {
        let start = run.start * BLOCK;
        let end = run.end * BLOCK;
        let options =
            GetOptions { range: Some(GetRange::Bounded(start..end)), ..GetOptions::default() };
        let found = self.inner.get_opts(location, options).await?;
        let about = About {
            size: found.meta.size,
            modified_micros: found.meta.last_modified.timestamp_micros(),
            e_tag: found.meta.e_tag.clone(),
        };
        let bytes = found.bytes().await?;
        let expected = end.min(about.size).saturating_sub(start);
        if bytes.len() as u64 != expected {
            let what = format!(
                "`{location}` returned {} bytes at offset {start}, expected {expected}",
                bytes.len()
            );
            return Err(object_store::Error::Generic { store: "DiskCache", source: what.into() });
        }
        Ok((about, start, bytes))
    }
}

/// Returns true if the path is that of a data file, which is written once and never changed.
fn is_data_file(location: &Path) -> bool {
    let text = location.as_ref();
    let last_three = text.rmatch_indices('/').nth(2).map_or(text, |(at, _)| &text[at + 1..]);
    last_three.ends_with(".parquet") && parse_data_path(last_three).is_some()
}

/// Groups adjacent and nearly adjacent blocks into ranges of blocks.
fn runs(blocks: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if *block <= run.end + GAP_BLOCKS => run.end = block + 1,
            _ => runs.push(*block..block + 1),
        }
    }
    runs
}

/// Parts of one object by start offset. They do not overlap.
struct Pieces {
    location: Path,
    about: Option<About>,
    parts: BTreeMap<u64, Bytes>,
}

impl Pieces {
    /// Returns the bytes of a range, up to the end of the object.
    fn range(&self, range: &Range<u64>) -> Result<Bytes> {
        let size = self.about.as_ref().map_or(0, |about| about.size);
        let end = range.end.min(size);
        let first = self.parts.range(..=range.start).next_back().map_or(range.start, |(at, _)| *at);
        let mut found = self.parts.range(first..end.max(first)).filter_map(|(at, bytes)| {
            let from = range.start.saturating_sub(*at).min(bytes.len() as u64);
            let to = end.saturating_sub(*at).min(bytes.len() as u64);
            (from < to).then(|| bytes.slice(from as usize..to as usize))
        });
        let one = found.next().unwrap_or_default();
        let whole = end.saturating_sub(range.start);
        let bytes = if one.len() as u64 == whole {
            one
        } else {
            let mut all = BytesMut::with_capacity(usize::try_from(whole).unwrap_or(0));
            all.extend_from_slice(&one);
            found.for_each(|bytes| all.extend_from_slice(&bytes));
            all.freeze()
        };
        if bytes.is_empty() || bytes.len() as u64 != whole {
            let what =
                format!("range {range:?} is outside the {size} bytes of `{}`", self.location);
            return Err(object_store::Error::Generic { store: "DiskCache", source: what.into() });
        }
        Ok(bytes)
    }

    fn meta(&self) -> ObjectMeta {
        let about = self.about.clone().unwrap_or_default();
        ObjectMeta {
            location: self.location.clone(),
            last_modified: DateTime::from_timestamp_micros(about.modified_micros)
                .unwrap_or_default(),
            size: about.size,
            e_tag: about.e_tag,
            version: None,
        }
    }
}

impl fmt::Display for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskCache({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for DiskCache {
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
        let plain = options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.if_modified_since.is_none()
            && options.if_unmodified_since.is_none()
            && options.version.is_none()
            && !options.head;
        let range = match &options.range {
            Some(GetRange::Bounded(range)) if plain => range.clone(),
            _ => return self.inner.get_opts(location, options).await,
        };
        let Some(wanted) = self.wanted(location, std::slice::from_ref(&range)) else {
            return self.inner.get_opts(location, options).await;
        };
        let pieces = self.pieces(location, wanted).await?;
        let bytes = pieces.range(&range)?;
        let range = range.start..range.start + bytes.len() as u64;
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta: pieces.meta(), range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(wanted) = self.wanted(location, ranges) else {
            return self.inner.get_ranges(location, ranges).await;
        };
        let pieces = self.pieces(location, wanted).await?;
        ranges.iter().map(|range| pieces.range(range)).collect()
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

/// Runs file system calls on a thread for blocking work. A panic there counts as an empty cache.
async fn run_blocking<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.unwrap_or_default(),
        Err(_) => work(),
    }
}
