//! A disk as an object store whose acknowledged writes survive a power cut.
//!
//! [`LocalFileSystem`] never syncs, so after a power cut a file that it reported as written can be
//! missing, empty or torn. This store writes through a
//! [`Disk`](super::disk::Disk), and leaves reading and listing to
//! another object store over the same files:
//!
//! - A put or a multipart upload writes to `<root>/.staging/`, syncs the file, names it (with a
//!   hard link for a put that must create, else with a rename), and syncs the folder. A name
//!   therefore never shows a torn file, even for a moment; a torn commit in a Delta log would make
//!   the whole table unreadable.
//! - Copies, renames and deletes sync the folders that they change. The folders above are synced
//!   once per process ([`Folders`]), including those that existed before.
//!
//! A sync that fails is an error, marked so that
//! [`is_sync_failure`](super::folders::is_sync_failure) finds it. The file may be readable and
//! still not durable, and another sync proves nothing, since the kernel reports a lost write only
//! once.

use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, RenameTargetMode, Result,
};

use super::folders::Folders;
use super::staged::{Files, blocking};
use super::upload::Upload;

/// A durable store. Its paths start at the root of the file system.
#[derive(Debug)]
pub struct Durable {
    reads: Arc<dyn ObjectStore>,
    files: Arc<Files>,
}

impl Durable {
    /// Creates a store that stages below `root`, which must be on the same file system as the
    /// written files. `reads` reads and lists the files on the disk of `folders`, by their paths
    /// from the root of the file system.
    pub fn new(folders: Arc<Folders>, reads: Arc<dyn ObjectStore>, root: &FilePath) -> Self {
        Self { reads, files: Arc::new(Files::new(folders, root)) }
    }

    async fn e_tag(&self, location: &Path) -> Option<String> {
        self.reads.head(location).await.ok().and_then(|meta| meta.e_tag)
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Durable({})", self.reads)
    }
}

/// Returns the file path of an object.
pub(super) fn file_of(location: &Path) -> Result<PathBuf> {
    LocalFileSystem::new().path_to_filesystem(location)
}

fn refused(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "Durable".to_owned(),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Durable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return Err(refused("`put_opts` with mode `PutMode::Update`"));
        }
        if !opts.attributes.is_empty() {
            return Err(refused("`put_opts` with `opts.attributes` specified"));
        }
        let files = Arc::clone(&self.files);
        let target = file_of(location)?;
        blocking(move || files.put(&target, &payload, opts.mode == PutMode::Create)).await?;
        Ok(PutResult { e_tag: self.e_tag(location).await, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return Err(refused("`put_multipart_opts` with `opts.attributes` specified"));
        }
        let files = Arc::clone(&self.files);
        let target = file_of(location)?;
        let reads = Arc::clone(&self.reads);
        let (staged, file) = {
            let files = Arc::clone(&files);
            blocking(move || files.stage()).await?
        };
        Ok(Box::new(Upload::new(files, reads, staged, file, location.clone(), target)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let files = Arc::clone(&self.files);
        let delete = move |location: Result<Path>| {
            let files = Arc::clone(&files);
            async move {
                let location = location?;
                let target = file_of(&location)?;
                blocking(move || files.delete(&target)).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        // Sorts by name: the Delta kernel expects sorted listings from every store except `file:`.
        let found = self.reads.list_with_offset(prefix, offset);
        let sorted = async move {
            let mut found: Vec<Result<ObjectMeta>> = found.collect().await;
            found.sort_by(|a, b| match (a, b) {
                (Ok(a), Ok(b)) => a.location.cmp(&b.location),
                (a, b) => a.is_ok().cmp(&b.is_ok()),
            });
            stream::iter(found)
        };
        stream::once(sorted).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let files = Arc::clone(&self.files);
        let source = file_of(from)?;
        let target = file_of(to)?;
        blocking(move || files.copy(&source, &target, options.mode == CopyMode::Create)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let files = Arc::clone(&self.files);
        let source = file_of(from)?;
        let target = file_of(to)?;
        let create = options.target_mode == RenameTargetMode::Create;
        blocking(move || {
            files.copy(&source, &target, create)?;
            files.delete(&source)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::*;
    use crate::store::disk::LocalDisk;
    use crate::store::folders::is_sync_failure;
    use crate::store::staged::{STAGING, clean_staging, failed, sync_failure};

    fn store() -> (tempfile::TempDir, Durable, Path) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let folders = Folders::new(Arc::new(LocalDisk));
        let reads = Arc::new(LocalFileSystem::new());
        (
            folder,
            Durable::new(Arc::new(folders), reads, &root),
            Path::from_absolute_path(&root).unwrap(),
        )
    }

    async fn text(store: &Durable, path: &Path) -> String {
        String::from_utf8(store.get(path).await.unwrap().bytes().await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn puts_create_once_and_overwrite() {
        let (folder, store, root) = store();
        let path = root.join("a").join("b").join("c.json");
        let create = || PutOptions::from(PutMode::Create);
        let first = store.put_opts(&path, "one".into(), create()).await.unwrap();
        assert_eq!(first.e_tag, store.head(&path).await.unwrap().e_tag);
        let again = store.put_opts(&path, "two".into(), create()).await.unwrap_err();
        assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{again}");
        assert_eq!(text(&store, &path).await, "one");
        store.put(&path, "three".into()).await.unwrap();
        assert_eq!(text(&store, &path).await, "three");
        assert_eq!(fs::read_dir(folder.path().join(STAGING)).unwrap().count(), 0);
        assert_eq!(store.to_string(), "Durable(LocalFileSystem(file:///))");
    }

    #[tokio::test]
    async fn a_multipart_upload_appears_when_complete() {
        let (folder, store, root) = store();
        let path = root.clone().join("x").join("y.parquet");
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        upload.put_part("def".into()).await.unwrap();
        assert!(store.head(&path).await.is_err());
        upload.complete().await.unwrap();
        assert_eq!(text(&store, &path).await, "abcdef");
        let mut upload = store.put_multipart(&root.join("x").join("z.parquet")).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        upload.abort().await.unwrap();
        clean_staging(&LocalDisk, folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("x")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn copies_renames_and_deletes() {
        let (_folder, store, root) = store();
        let path = |name: &str| root.clone().join("d").join(name);
        store.put(&path("a"), "1".into()).await.unwrap();
        store.copy(&path("a"), &path("b")).await.unwrap();
        store.rename(&path("b"), &root.clone().join("e").join("c")).await.unwrap();
        store.delete(&path("a")).await.unwrap();
        let left: Vec<_> = store.list(Some(&root)).collect().await;
        let left: Vec<_> = left.into_iter().map(|meta| meta.unwrap().location).collect();
        assert_eq!(left, [root.join("e").join("c")]);
    }

    #[test]
    fn a_failed_sync_is_found_in_the_chain() {
        assert!(is_sync_failure(
            &crate::error::Error::storage("outer").with_source(sync_failure())
        ));
        assert!(!is_sync_failure(&failed(FilePath::new("/x"), io::Error::other("disk"))));
    }
}
