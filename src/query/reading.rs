//! Reads Parquet files with their checksums, and counts the bytes in memory against the statement
//! until they are dropped.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::memory::count_read;
use crate::datafile::checked::CheckedReaderFactory;

/// URL of the store in plans. It never leaves the process.
pub(super) const STORE_URL: &str = "gatelog://table";
/// Bytes to read from the end of a file for its footer. This is enough for most footers and saves a
/// second request.
pub(super) const FOOTER_BYTES: usize = 64 << 10;

/// Returns the URL of the store in plans.
pub(super) fn store_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(STORE_URL)
}

/// Factory of readers that share the cache of footers and count the bytes that they read.
#[derive(Debug)]
pub(super) struct CountedReads {
    inner: CheckedReaderFactory,
    pool: Arc<dyn MemoryPool>,
}

impl CountedReads {
    /// Creates the readers of a session.
    pub(super) fn new(runtime: &RuntimeEnv) -> Result<Self> {
        let store = runtime.object_store(&store_url()?)?;
        let cache = runtime.cache_manager.get_file_metadata_cache();
        Ok(Self {
            inner: CheckedReaderFactory::new(store, cache),
            pool: Arc::clone(&runtime.memory_pool),
        })
    }
}

impl CountedReads {
    /// Returns the footer of a file, with the index of its pages if it has one.
    pub(super) async fn footer(&self, file: PartitionedFile) -> Result<Arc<ParquetMetaData>> {
        let metrics = ExecutionPlanMetricsSet::new();
        let mut reader = self.create_reader(0, file, Some(FOOTER_BYTES), &metrics)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        Ok(reader.get_metadata(Some(&options)).await?)
    }
}

impl ParquetFileReaderFactory for CountedReads {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self.inner.create_reader(partition, file, footer_bytes, metrics)?;
        Ok(Box::new(Counted { inner, pool: Arc::clone(&self.pool) }))
    }
}

struct Counted {
    inner: Box<dyn AsyncFileReader + Send>,
    pool: Arc<dyn MemoryPool>,
}

/// Bytes that count until their last clone is dropped.
struct Held {
    bytes: Bytes,
    _counted: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Counted {
    fn count(&self, bytes: u64) -> parquet::errors::Result<Arc<MemoryReservation>> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let counted = count_read(&self.pool, bytes);
        Ok(Arc::new(counted.map_err(|cause| ParquetError::External(Box::new(cause)))?))
    }
}

fn held(bytes: Bytes, counted: &Arc<MemoryReservation>) -> Bytes {
    Bytes::from_owner(Held { bytes, _counted: Arc::clone(counted) })
}

impl AsyncFileReader for Counted {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let counted = self.count(range.end.saturating_sub(range.start))?;
            Ok(held(self.inner.get_bytes(range).await?, &counted))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            // The parts of a row group are read together and dropped together.
            let counted =
                self.count(ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum())?;
            let parts = self.inner.get_byte_ranges(ranges).await?;
            Ok(parts.into_iter().map(|bytes| held(bytes, &counted)).collect())
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.inner.get_metadata(options)
    }
}
