//! An object store whose paths start at a folder or prefix of another one.
//!
//! [`PrefixStore`] adds and removes the prefix. This wrapper adds two properties that the layers
//! above rely on: a result has the location that was requested, and listings of a table's log are
//! sorted, as the Delta kernel requires.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// An object store below a prefix of another one.
#[derive(Debug)]
pub(crate) struct Rooted {
    inner: PrefixStore<Arc<dyn ObjectStore>>,
    sorts: bool,
}

impl Rooted {
    /// Creates a store of the objects below `root` in `inner`.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { inner: PrefixStore::new(inner, root), sorts: false }
    }

    /// Sorts listings with an offset, for a store that lists in no particular order.
    pub(crate) fn sorted(self) -> Self {
        Self { sorts: true, ..self }
    }

    fn ordered(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if !self.sorts {
            return list;
        }
        let sorted = async move {
            let mut all: Vec<ObjectMeta> = list.try_collect().await?;
            all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
            Ok::<_, object_store::Error>(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(sorted).try_flatten().boxed()
    }
}

impl fmt::Display for Rooted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rooted({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Rooted {
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
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta.location = location.clone();
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
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
        self.ordered(self.inner.list_with_offset(prefix, offset))
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

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn paths_begin_at_the_root_and_lists_are_in_order() {
        let whole = Arc::new(InMemory::new());
        let root = Path::parse("a%20b/c#1").unwrap();
        let store = Rooted::new(Arc::clone(&whole) as Arc<dyn ObjectStore>, root.clone()).sorted();
        for name in ["x/2", "x/1", "x/3", "y"] {
            store.put(&Path::from(name), name.to_owned().into()).await.unwrap();
        }
        whole.head(&root.clone().join("x").join("1")).await.unwrap();
        assert_eq!(store.head(&Path::from("y")).await.unwrap().location, Path::from("y"));
        let folder = Path::from("x");
        let offset = Path::from("x/1");
        let listed =
            store.list_with_offset(Some(&folder), &offset).try_collect::<Vec<_>>().await.unwrap();
        let listed: Vec<_> = listed.into_iter().map(|meta| meta.location).collect();
        assert_eq!(listed, [Path::from("x/2"), Path::from("x/3")]);
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 4);
    }
}
