//! Reads a bucket on the engine's threads for queries.
//!
//! A connection to a bucket lives on the threads that opened it. It must not be lost or blocked
//! together with the threads of one organisation's queries.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// A store whose reads run on another runtime.
#[derive(Debug)]
pub(super) struct ReadElsewhere {
    store: Arc<dyn ObjectStore>,
    threads: Handle,
}

impl ReadElsewhere {
    pub(super) fn new(store: Arc<dyn ObjectStore>, threads: Handle) -> Self {
        Self { store, threads }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let running = AbortOnDropHandle::new(self.threads.spawn(work));
        running.await.map_err(|source| object_store::Error::JoinError { source })?
    }
}

impl std::fmt::Display for ReadElsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for ReadElsewhere {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let store = Arc::clone(&self.store);
        let location = location.clone();
        self.run(async move { store.get_opts(&location, options).await }).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let store = Arc::clone(&self.store);
        let location = location.clone();
        let ranges = ranges.to_vec();
        self.run(async move { store.get_ranges(&location, &ranges).await }).await
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
