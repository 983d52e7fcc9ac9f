//! A disk as an object store whose acknowledged writes survive a power cut.
//!
//! [`LocalFileSystem`] never syncs, so after a power cut a file that it reported as written can be
//! missing, empty or torn. This store writes through a [`Disk`], and leaves reading and listing to
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

use std::error::Error as StdError;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::{fmt, result};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result,
};
use uuid::Uuid;

use super::disk::{Disk, DiskFile};
use super::folders::{self, Folders, is_sync_failure};
use super::upload::Upload;

/// Folder, below the root, of files that have no name yet.
pub const STAGING: &str = ".staging";

/// A durable store. Its paths start at the root of the file system.
#[derive(Debug)]
pub struct Durable {
    reads: Arc<dyn ObjectStore>,
    files: Arc<Files>,
}

/// Writes files under a temporary name first.
#[derive(Debug)]
pub(super) struct Files {
    folders: Arc<Folders>,
    staging: PathBuf,
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
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: "Durable".to_owned() }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Durable {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
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

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
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

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
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

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
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

impl Files {
    pub(super) fn new(folders: Arc<Folders>, root: &FilePath) -> Self {
        Self { folders, staging: root.join(STAGING) }
    }

    /// Rewrites a file in place. Does nothing if the file is missing.
    pub(super) fn renew(&self, target: &FilePath) -> Result<()> {
        match self.disk().read(target) {
            Ok(bytes) => self.put(target, &PutPayload::from(bytes), false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(generic(io::Error::new(e.kind(), format!("cannot read `{}`: {e}", target.display())))),
        }
    }

    fn disk(&self) -> &dyn Disk {
        &**self.folders.disk()
    }

    /// Creates a file that has no name yet.
    pub(super) fn stage(&self) -> Result<(PathBuf, Box<dyn DiskFile>)> {
        let staged = self.staging.join(Uuid::new_v4().to_string());
        self.folders.create(&self.staging).map_err(|e| failed(&staged, e))?;
        let file = self.disk().create(&staged).map_err(|e| failed(&staged, e))?;
        Ok((staged, file))
    }

    fn put(&self, target: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
        let (staged, file) = self.stage()?;
        let written = write_synced(file, &staged, payload).and_then(|()| self.publish(&staged, target, create));
        if written.is_err() || create {
            // A link leaves the staged name behind, a failure the staged file. The next start
            // removes what remains.
            self.discard(&staged);
        }
        written
    }

    /// Removes an abandoned staged file. If that fails, the next start removes it.
    pub(super) fn discard(&self, staged: &FilePath) {
        let _ = self.disk().remove(staged);
    }

    /// Names a synced file and syncs its folder and the folders above.
    pub(super) fn publish(&self, staged: &FilePath, target: &FilePath, create: bool) -> Result<()> {
        let folder = parent(target);
        self.folders.create(folder).map_err(|e| failed(folder, e))?;
        let disk = self.disk();
        let named = if create { disk.hard_link(staged, target) } else { disk.rename(staged, target) };
        named.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                object_store::Error::AlreadyExists { path: target.display().to_string(), source: e.into() }
            }
            _ => failed(target, e),
        })?;
        disk.sync_folder(folder).map_err(|e| unsynced(folder, e))
    }

    /// Copies a file by a hard link through a staged name, so that the copy replaces an existing
    /// target.
    fn copy(&self, source: &FilePath, target: &FilePath, create: bool) -> Result<()> {
        let staged = self.staging.join(Uuid::new_v4().to_string());
        self.folders.create(&self.staging).map_err(|e| failed(&staged, e))?;
        self.disk().sync_file(source).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not_found(source, e),
            _ => unsynced(source, e),
        })?;
        self.disk().hard_link(source, &staged).map_err(|e| failed(&staged, e))?;
        let published = self.publish(&staged, target, create);
        self.discard(&staged);
        published
    }

    fn delete(&self, target: &FilePath) -> Result<()> {
        self.disk().remove(target).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not_found(target, e),
            _ => generic(io::Error::new(e.kind(), format!("cannot delete `{}`: {e}", target.display()))),
        })?;
        self.disk().sync_folder(parent(target)).map_err(|e| unsynced(parent(target), e))
    }
}

/// Removes every file below the staging folder of `root`.
pub fn clean_staging(disk: &dyn Disk, root: &FilePath) -> io::Result<()> {
    match disk.remove_folder(&root.join(STAGING)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes and syncs a staged file.
fn write_synced(mut file: Box<dyn DiskFile>, staged: &FilePath, payload: &PutPayload) -> Result<()> {
    payload.iter().try_for_each(|bytes| file.append(bytes)).map_err(|e| failed(staged, e))?;
    file.sync().map_err(|e| unsynced(staged, e))
}

fn parent(path: &FilePath) -> &FilePath {
    path.parent().unwrap_or(path)
}

pub(super) fn failed(path: &FilePath, source: io::Error) -> object_store::Error {
    if is_sync_failure(&source) {
        return generic(source);
    }
    // Keeps the error kind, so that the caller can report a full disk.
    generic(io::Error::new(source.kind(), format!("cannot write `{}`: {source}", path.display())))
}

fn not_found(path: &FilePath, source: io::Error) -> object_store::Error {
    object_store::Error::NotFound { path: path.display().to_string(), source: source.into() }
}

pub(super) fn unsynced(path: &FilePath, source: io::Error) -> object_store::Error {
    generic(folders::unsynced(path, source))
}

/// Returns a sync failure, for tests of error handling.
#[cfg(test)]
pub(crate) fn sync_failure() -> object_store::Error {
    unsynced(FilePath::new("/x"), io::Error::other("the disk is gone"))
}

pub(super) fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "Durable", source: source.into() }
}

/// Runs file system calls on a thread that may block, or directly without a runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.unwrap_or_else(|e| result::Result::Err(generic(e))),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::disk::LocalDisk;

    fn store() -> (tempfile::TempDir, Durable, Path) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let folders = Folders::new(Arc::new(LocalDisk));
        let reads = Arc::new(LocalFileSystem::new());
        (folder, Durable::new(Arc::new(folders), reads, &root), Path::from_absolute_path(&root).unwrap())
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
        assert!(is_sync_failure(&crate::error::Error::storage("outer").with_source(sync_failure())));
        assert!(!is_sync_failure(&failed(FilePath::new("/x"), io::Error::other("disk"))));
    }
}
