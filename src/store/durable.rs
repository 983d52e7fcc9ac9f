//! A local disk as an object store whose answers survive a power cut.
//!
//! [`LocalFileSystem`] never syncs, so after a power cut a file that it reported as written can be missing, empty or
//! torn. This wrapper adds that one concern and leaves the rest to it:
//!
//! - a put and a multipart upload write to `<root>/.staging/`, sync the file, give it its name (a hard link for a put
//!   that must create, a rename else), and sync the folder. A name therefore never shows a torn file, even for a
//!   moment; a torn commit in a Delta log would make the whole table unreadable;
//! - copies, renames and deletes sync the folders that they changed; folders that were made on the way are synced too.
//!
//! A sync that fails is an error, marked so that [`is_sync_failure`] finds it: the file may be there and still not
//! last, and asking again proves nothing, since the kernel reports a lost write only once.

use std::error::Error as StdError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::{fmt, result};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use uuid::Uuid;

/// Name of the folder, below the root, of files that have no name yet.
pub const STAGING: &str = ".staging";

/// The wrapper; its paths begin at the root of the file system.
#[derive(Debug)]
pub struct Durable {
    inner: LocalFileSystem,
    staging: PathBuf,
}

impl Durable {
    /// A store that stages below `root`, which must be on the same file system as what is written.
    pub fn new(root: &FilePath) -> Self {
        Self { inner: LocalFileSystem::new(), staging: root.join(STAGING) }
    }

    fn staged(&self) -> PathBuf {
        self.staging.join(Uuid::new_v4().to_string())
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Durable({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Durable {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            // A file has neither; the file system's own refusal says so.
            return self.inner.put_opts(location, payload, opts).await;
        }
        let (staged, target) = (self.staged(), self.inner.path_to_filesystem(location)?);
        blocking(move || put(&staged, &target, &payload, opts.mode == PutMode::Create)).await?;
        let e_tag = self.inner.head(location).await.ok().and_then(|meta| meta.e_tag);
        Ok(PutResult { e_tag, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let (staged, target) = (self.staged(), self.inner.path_to_filesystem(location)?);
        let inner = self.inner.put_multipart_opts(&Path::from_absolute_path(&staged)?, opts).await?;
        Ok(Box::new(Upload { inner, staged, target }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = self.inner.clone();
        let sync = move |deleted: Result<Path>| {
            let inner = inner.clone();
            async move {
                let location = deleted?;
                let target = inner.path_to_filesystem(&location)?;
                blocking(move || sync_folder(parent(&target))).await?;
                Ok(location)
            }
        };
        self.inner.delete_stream(locations).then(sync).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let target = self.inner.path_to_filesystem(to)?;
        let anchor = existing(parent(&target)).to_path_buf();
        self.inner.copy_opts(from, to, options).await?;
        blocking(move || {
            sync_file(&target)?;
            sync_folders(parent(&target), &anchor)
        })
        .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (source, target) = (self.inner.path_to_filesystem(from)?, self.inner.path_to_filesystem(to)?);
        let anchor = existing(parent(&target)).to_path_buf();
        self.inner.rename_opts(from, to, options).await?;
        blocking(move || {
            sync_file(&target)?;
            sync_folders(parent(&target), &anchor)?;
            sync_folder(parent(&source))
        })
        .await
    }
}

/// A multipart upload that gets its name only once it is whole and synced.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    staged: PathBuf,
    target: PathBuf,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let (staged, target) = (self.staged.clone(), self.target.clone());
        blocking(move || {
            sync_file(&staged)?;
            publish(&staged, &target, false)
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// A sync that failed: the data may be readable now and gone after a power cut.
#[derive(Debug)]
struct SyncFailed {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for SyncFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot sync `{}`", self.path.display())
    }
}

impl StdError for SyncFailed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// Whether a failed sync is the cause of this error: then what was written must not be taken for kept.
pub fn is_sync_failure(error: &(dyn StdError + 'static)) -> bool {
    error.is::<SyncFailed>() || error.source().is_some_and(is_sync_failure)
}

/// Makes a folder that is still there after a power cut.
pub fn create_folder(folder: &FilePath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let anchor = existing(folder).to_path_buf();
    fs::create_dir_all(folder)?;
    ancestors_to(folder, &anchor).try_for_each(|folder| File::open(folder)?.sync_all())
}

/// Writes a small file that is whole or not there after a power cut.
pub fn write_file(path: &FilePath, bytes: &[u8]) -> io::Result<()> {
    let staged = path.with_extension("new");
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    File::open(parent(path))?.sync_all()
}

/// Removes every file below the staging folder of `root`.
pub fn clean_staging(root: &FilePath) -> io::Result<()> {
    match fs::remove_dir_all(root.join(STAGING)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn put(staged: &FilePath, target: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
    let written = write(staged, payload).and_then(|()| publish(staged, target, create));
    if written.is_err() || create {
        // A link leaves the staged name behind, a failure the staged file; the next start removes what stays.
        let _ = fs::remove_file(staged);
    }
    written
}

fn write(staged: &FilePath, payload: &PutPayload) -> Result<()> {
    create_folder(parent(staged)).map_err(|e| failed(staged, &e))?;
    let mut file = File::create_new(staged).map_err(|e| failed(staged, &e))?;
    payload.iter().try_for_each(|bytes| file.write_all(bytes)).map_err(|e| failed(staged, &e))?;
    file.sync_all().map_err(|e| unsynced(staged, e))
}

/// Gives a synced file its name and syncs the folders that changed by it.
fn publish(staged: &FilePath, target: &FilePath, create: bool) -> Result<()> {
    let folder = parent(target);
    let anchor = existing(folder).to_path_buf();
    if anchor != folder {
        fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
    }
    let named = if create { fs::hard_link(staged, target) } else { fs::rename(staged, target) };
    named.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            object_store::Error::AlreadyExists { path: target.display().to_string(), source: e.into() }
        }
        _ => failed(target, &e),
    })?;
    sync_folders(folder, &anchor)
}

fn sync_file(path: &FilePath) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| unsynced(path, e))
}

fn sync_folder(folder: &FilePath) -> Result<()> {
    match File::open(folder).and_then(|file| file.sync_all()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unsynced(folder, e)),
        _ => Ok(()),
    }
}

/// Syncs `folder` and the folders above it up to `anchor`, the deepest one that was there before.
fn sync_folders(folder: &FilePath, anchor: &FilePath) -> Result<()> {
    ancestors_to(folder, anchor).try_for_each(sync_folder)
}

fn ancestors_to<'a>(folder: &'a FilePath, anchor: &'a FilePath) -> impl Iterator<Item = &'a FilePath> {
    folder.ancestors().take_while(move |folder| folder.starts_with(anchor))
}

fn existing(folder: &FilePath) -> &FilePath {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder)
}

fn parent(path: &FilePath) -> &FilePath {
    path.parent().unwrap_or(path)
}

fn failed(path: &FilePath, source: &io::Error) -> object_store::Error {
    // With its kind: whether the disk is full is told to whoever asked for the file.
    generic(io::Error::new(source.kind(), format!("cannot write `{}`: {source}", path.display())))
}

fn unsynced(path: &FilePath, source: io::Error) -> object_store::Error {
    generic(SyncFailed { path: path.to_path_buf(), source })
}

/// A failed sync, for tests of what others make of it.
#[cfg(test)]
pub(crate) fn sync_failure() -> object_store::Error {
    unsynced(FilePath::new("/x"), io::Error::other("the disk is gone"))
}

fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "Durable", source: source.into() }
}

/// Runs file system calls where they may block; at once where there is no runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.unwrap_or_else(|e| result::Result::Err(generic(e))),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Durable, Path) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        (folder, Durable::new(&root), Path::from_absolute_path(&root).unwrap())
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
        clean_staging(folder.path()).unwrap();
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
        assert!(!is_sync_failure(&failed(FilePath::new("/x"), &io::Error::other("disk"))));
    }
}
