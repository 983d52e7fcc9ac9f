//! Layout of the stored data: resolves a location to an object store, and builds and parses all
//! paths.
//!
//! ```text
//! <root>/logs/, <root>/feedback/      Delta tables: retention_days=30/date=2026-11-21/part-<uuid>.parquet, _delta_log/
//! <root>/catalog.json                 organisations, plans, keys, export jobs
//! <root>/exports/                     files of export jobs
//! <root>/usage/, <root>/upkeep.json   record counts of each node; state and lease of maintenance
//! <root>/refusals/                    recent refusals of each node
//! <root>/nodes/                       of a bucket: the claims of nodes on their logs
//! <root>/wal/, <root>/gatelog.lock    of a folder: the write-ahead log, and the lock of the writer
//! <root>/wal-last/                    of a folder: the length of each log
//! <root>/.staging/                    of a folder: files that are being written
//! gatelog-wal/                        of a bucket, on the node's disk: the log, its lock, cache/
//! ```
//!
//! Callers use `Arc<dyn ObjectStore>` with paths that begin at the root of the layout
//! ([`rooted::Rooted`]), so special characters in the path of a data folder never reach the URLs of
//! the Delta kernel. For a folder, the object store is [`durable::Durable`], whose acknowledged
//! writes survive a power cut. For a bucket, it is a [`bucket::Bucket`], with a
//! [`cache::DiskCache`] in front on the node that writes.

pub mod bucket;
pub mod cache;
pub mod disk;
mod data_path;
pub mod durable;
pub mod folders;
#[cfg(test)]
pub(crate) mod gate;
pub mod places;
mod rooted;
mod settle;
pub mod staged;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Result};
use bucket::Bucket;
use cache::{Blocks, DiskCache};
use disk::{Disk, LocalDisk};
use durable::Durable;
use folders::Folders;
use rooted::Rooted;

pub use cache::CacheStats;
pub use data_path::{DataPath, data_path, date_text, parse_data_path, parse_date};

/// Default folder of the log for a bucket, in the working directory.
const BUCKET_WAL: &str = "gatelog-wal";
/// Folder of the notes on the length of each log.
const LAST_NOTES: &str = "wal-last";
/// Folder of a bucket's cache, in the folder of the log.
const CACHE: &str = "cache";
/// URL of a data folder for the Delta kernel. The kernel never gets the real path, because it
/// decodes special characters in paths twice.
const FOLDER_URL: &str = "folder:///";

/// An object store and the location in it that holds all data of one gatelog.
#[derive(Clone, Debug)]
pub struct Store {
    object_store: Arc<dyn ObjectStore>,
    /// URL of the location, for messages.
    root: Url,
    /// URL of the root of the layout, for the Delta kernel.
    base: Url,
    /// Path of the root of the layout in the object store.
    prefix: Path,
    local: Option<PathBuf>,
    wal: Option<PathBuf>,
    folders: Arc<Folders>,
    /// True if lock files protect the store. False on a disk that the caller passed, which nobody
    /// else uses.
    locks: bool,
    bucket: Option<Arc<Bucket>>,
    cache: Option<Arc<Blocks>>,
}

/// A parsed location.
enum BucketLocation {
    Folder(PathBuf),
    Bucket(Url),
}

/// Prevents other changes of the catalog until it is dropped.
#[derive(Debug)]
pub struct CatalogLock(
    #[expect(dead_code, reason = "the lock goes with the file")] Option<std::fs::File>,
);

impl Store {
    /// Opens the location in setting `data`: a folder, given as a path or a `file:///` URL, or a
    /// bucket, `s3://bucket/prefix`. With `create`, which the writing node sets, creates a missing
    /// folder and caches reads from a bucket on disk. Sends nothing to a bucket: see
    /// [`Store::check`].
    pub fn open(config: &Config, create: bool) -> Result<Self> {
        match place_of(&config.data)? {
            BucketLocation::Folder(named) => Self::open_folder(config, &named, create),
            BucketLocation::Bucket(root) => Self::open_bucket(config, root, create),
        }
    }

    fn open_folder(config: &Config, named: &std::path::Path, create: bool) -> Result<Self> {
        let folders = Arc::new(Folders::new(Arc::new(LocalDisk)));
        if create {
            refuse_nested(named)?;
            make_folder(&folders, named)?;
        }
        let folder = named.canonicalize().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!(
                "no folder `{}`; name the one that has the data (`--data`)",
                named.display()
            )),
            _ => Error::storage(format!("cannot open folder `{}`", named.display())).with_source(e),
        })?;
        if !folder.is_dir() {
            return Err(Error::invalid(format!("`{}` is not a folder", named.display())));
        }
        let root = folder_url(&folder)?;
        let mut store = Self::in_folder(folders, Arc::new(LocalFileSystem::new()), folder, root)?;
        if !config.wal.is_empty() {
            store.wal = Some(PathBuf::from(&config.wal));
        }
        Ok(store)
    }

    /// Opens a folder of a disk that the caller passes, including the log. `reads` reads and lists
    /// the files of that disk, by their paths from the root of its file system. Nothing else may
    /// use the folder, because there are no locks.
    pub fn on_disk(
        disk: Arc<dyn Disk>,
        reads: Arc<dyn ObjectStore>,
        folder: &std::path::Path,
    ) -> Result<Self> {
        let folders = Arc::new(Folders::new(disk));
        make_folder(&folders, folder)?;
        let root = folder_url(folder)?;
        Ok(Self { locks: false, ..Self::in_folder(folders, reads, folder.to_owned(), root)? })
    }

    fn in_folder(
        folders: Arc<Folders>,
        reads: Arc<dyn ObjectStore>,
        folder: PathBuf,
        root: Url,
    ) -> Result<Self> {
        let base = Url::parse(FOLDER_URL)
            .map_err(|cause| Error::internal("the folder has no URL").with_source(cause))?;
        let files =
            Arc::new(Durable::new(Arc::clone(&folders), reads, &folder)) as Arc<dyn ObjectStore>;
        // A disk lists names in no order, and the kernel accepts only `file:` URLs for such a disk.
        let rooted = Rooted::new(files, key_of(&root)?).sorted();
        let mut store = Self { root, ..Self::with(Arc::new(rooted), base)? };
        store.folders = folders;
        store.wal = Some(folder.join("wal"));
        store.local = Some(folder);
        Ok(store)
    }

    fn open_bucket(config: &Config, root: Url, create: bool) -> Result<Self> {
        let bucket = Arc::new(Bucket::new(&root, config)?);
        let named = if config.wal.is_empty() { BUCKET_WAL } else { &config.wal };
        let wal = std::path::absolute(named).map_err(|e| {
            Error::invalid(format!("setting `wal` is `{named}`, which is not a path"))
                .with_source(e)
        })?;
        let folders = Arc::new(Folders::new(Arc::new(LocalDisk)));
        if create {
            make_folder(&folders, &wal)?;
        }
        let mut objects = Arc::clone(&bucket) as Arc<dyn ObjectStore>;
        let mut cache = None;
        // Two processes would each use the full size of the cache, so only the holder of the log's
        // lock has one.
        if create && config.disk_cache_bytes > 0 {
            let place = format!("{bucket}");
            let cached = DiskCache::new(objects, wal.join(CACHE), &place, config.disk_cache_bytes);
            cache = Some(Arc::clone(cached.blocks()));
            objects = Arc::new(cached);
        }
        let mut base = root.clone();
        base.set_path("/");
        let rooted = Rooted::new(objects, key_of(&root)?);
        let mut store = Self { root, cache, folders, ..Self::with(Arc::new(rooted), base)? };
        store.bucket = Some(bucket);
        store.wal = Some(wal);
        Ok(store)
    }

    /// Sends a request to the bucket, so that a wrong endpoint or key is reported at the start.
    /// Does nothing for a folder.
    pub async fn check(&self) -> Result<()> {
        match &self.bucket {
            Some(bucket) => bucket.check(&key_of(&self.root)?).await,
            None => Ok(()),
        }
    }

    /// Wraps an object store. `root` is the URL of the layout in it, such as `memory:///`.
    pub fn with(object_store: Arc<dyn ObjectStore>, mut root: Url) -> Result<Self> {
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", root.path()));
        }
        let base = root.clone();
        let prefix = key_of(&root)?;
        let folders = Arc::new(Folders::new(Arc::new(LocalDisk)));
        let local = None;
        let wal = None;
        let bucket = None;
        let cache = None;
        Ok(Self {
            object_store,
            root,
            base,
            prefix,
            local,
            wal,
            folders,
            locks: true,
            bucket,
            cache,
        })
    }

    /// Returns the object store. The layout begins at [`Store::prefix`] in it.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.object_store
    }

    /// Returns a unique name of the location for messages: the path of a folder, or a bucket with
    /// its endpoint.
    pub fn place(&self) -> String {
        match (&self.local, &self.bucket) {
            (Some(folder), _) => folder.display().to_string(),
            (None, Some(bucket)) => format!("{} at {}", self.root, bucket.endpoint()),
            (None, None) => self.root.to_string(),
        }
    }

    /// Returns the URL of the location. It ends with `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// Returns the root of the layout as a path in the object store.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Returns the folder on this node's disk, or `None` for another kind of store.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    /// Returns the folders of the disk that has the store, or its log.
    pub fn folders(&self) -> &Arc<Folders> {
        &self.folders
    }

    /// Returns the disk that has the store, or its log.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.folders.disk()
    }

    /// Returns true if other nodes may write to the store too. A folder allows only the holder of
    /// its lock.
    pub fn is_shared(&self) -> bool {
        self.local.is_none()
    }

    /// Returns the metrics of the disk cache, or `None` without a cache.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(|blocks| blocks.stats())
    }

    /// Removes data files that are not in `live` from the disk cache. Blocks on the disk.
    pub fn sweep_cache(&self, live: &[Path]) {
        let Some(blocks) = &self.cache else { return };
        // The cache uses paths of the bucket, which include the prefix of the layout.
        let root = key_of(&self.root).unwrap_or_default();
        let whole = |path: &Path| root.parts().chain(path.parts()).collect::<Path>();
        blocks.sweep(&live.iter().map(whole).collect::<Vec<_>>());
    }

    /// Returns the URL of a table. It ends with `/`.
    pub fn table_url(&self, table: &str) -> Result<Url> {
        self.base.join(&format!("{table}/")).map_err(|e| {
            Error::invalid(format!("`{table}` is not a valid table name")).with_source(e)
        })
    }

    /// Returns the path of a table in the object store.
    pub fn table_path(&self, table: &str) -> Path {
        self.path(table)
    }

    /// Creates the folder of a table if the store is a disk. The kernel rejects the URL of a
    /// missing folder.
    pub fn create_table_folder(&self, table: &str) -> Result<()> {
        self.local.as_ref().map_or(Ok(()), |folder| make_folder(&self.folders, &folder.join(table)))
    }

    /// Returns the path of the catalog.
    pub fn catalog_path(&self) -> Path {
        self.path("catalog.json")
    }

    /// Returns the folder of the files of export jobs.
    pub fn exports_path(&self) -> Path {
        self.path("exports")
    }

    /// Returns the path of one file of an export job.
    pub fn export_path(&self, name: &str) -> Path {
        self.exports_path().join(name)
    }

    /// Returns the folder of the write-ahead log on this node's disk, or `None` if the caller
    /// passed the store.
    pub fn wal_folder(&self) -> Option<PathBuf> {
        self.wal.clone()
    }

    /// Locks the catalog against other processes on this disk, and waits for the lock. Takes no
    /// lock for a bucket, where a conditional put detects conflicts.
    pub async fn lock_catalog(&self) -> Result<CatalogLock> {
        let locked = self.local.as_ref().filter(|_| self.locks);
        let Some(path) = locked.map(|folder| folder.join("catalog.lock")) else {
            return Ok(CatalogLock(None));
        };
        let failed = |path: &std::path::Path, cause| {
            Error::storage(format!("cannot lock `{}`: {cause}", path.display())).with_source(cause)
        };
        let lock = move || {
            let opened = disk::private_file().create(true).truncate(false).write(true).open(&path);
            let file = opened.map_err(|cause| failed(&path, cause))?;
            file.lock().map_err(|cause| failed(&path, cause))?;
            Ok(CatalogLock(Some(file)))
        };
        let locked = tokio::task::spawn_blocking(lock).await;
        locked
            .map_err(|cause| Error::internal("waiting for the catalog failed").with_source(cause))?
    }

    /// Returns the path of one log's record counts by organisation.
    pub fn usage_path(&self, wal_id: Uuid) -> Path {
        self.usage_folder().join(format!("{wal_id}.json"))
    }

    /// Returns the path of the claim by which a node holds a log.
    pub fn node_path(&self, wal_id: Uuid) -> Path {
        self.path("nodes").join(format!("{wal_id}.json"))
    }

    /// Returns the path of a detached erasure.
    pub fn erasure_path(&self, id: &str) -> Path {
        self.erasures_path().join(format!("{id}.json"))
    }

    /// Returns the folder of detached erasures.
    pub fn erasures_path(&self) -> Path {
        self.path("erasures")
    }

    /// Returns the folder of the record counts of all nodes.
    pub fn usage_folder(&self) -> Path {
        self.path("usage")
    }

    /// Returns the path of the refusals of one log's node.
    pub fn refusals_path(&self, wal_id: Uuid) -> Path {
        self.refusals_folder().join(format!("{wal_id}.json"))
    }

    /// Returns the folder of the refusals of all nodes.
    pub fn refusals_folder(&self) -> Path {
        self.path("refusals")
    }

    /// Returns the path of the state and the lease of maintenance.
    pub fn maintenance_path(&self) -> Path {
        self.path("upkeep.json")
    }

    /// Returns the file whose lock permits writing. For a folder it is in the data folder. For a
    /// bucket it is beside the log, since other nodes may write to the bucket but not to this log.
    /// `None` if the caller passed the store.
    pub fn lock_file(&self) -> Option<PathBuf> {
        let folder = self.local.as_ref().or(self.wal.as_ref()).filter(|_| self.locks);
        folder.map(|folder| folder.join("gatelog.lock"))
    }

    /// Returns the file that notes the length of a log, to detect a truncated or emptied log:
    /// beside the tables of a folder, beside the log of a bucket. `None` if the caller passed the
    /// object store.
    pub fn last_note(&self, wal_id: Uuid) -> Option<PathBuf> {
        let folder = self.local.as_ref().or(self.wal.as_ref());
        folder.map(|folder| folder.join(LAST_NOTES).join(wal_id.to_string()))
    }

    /// Removes the notes on the lengths of logs, because older tables replace those of the folder.
    pub fn forget_last_notes(&self) -> Result<()> {
        let Some(folder) = self.local.as_ref().map(|folder| folder.join(LAST_NOTES)) else {
            return Ok(());
        };
        match self.disk().remove_folder(&folder) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::storage(format!("cannot delete `{}`", folder.display()))
                    .with_source(cause))
            }
            _ => Ok(()),
        }
    }

    /// Removes the unfinished files that a crash left. Only the holder of the lock may call it,
    /// before its first write.
    pub fn clean_staging(&self) -> Result<()> {
        let Some(folder) = &self.local else { return Ok(()) };
        staged::clean_staging(&**self.disk(), folder).map_err(|e| {
            Error::storage(format!("cannot clean `{}`", folder.join(staged::STAGING).display()))
                .with_source(e)
        })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }
}

/// Returns the path of a URL in its object store.
fn key_of(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path()).map_err(|cause| {
        Error::invalid(format!("`{url}` is not a location in an object store")).with_source(cause)
    })
}

/// Refuses a new store inside the folder of another one, whose maintenance would delete its files.
fn refuse_nested(named: &std::path::Path) -> Result<()> {
    let is_store = |folder: &std::path::Path| {
        folder.join("catalog.json").is_file() && folder.join("logs").join("_delta_log").is_dir()
    };
    if is_store(named) {
        return Ok(());
    }
    let named = std::path::absolute(named)?;
    let there = named.ancestors().find_map(|folder| folder.canonicalize().ok());
    match there
        .as_deref()
        .into_iter()
        .flat_map(std::path::Path::ancestors)
        .find(|folder| is_store(folder))
    {
        Some(outer) => Err(Error::invalid(format!(
            "`{}` is inside `{}`, which is a data folder; name that one, or a folder outside it (`--data`)",
            named.display(),
            outer.display()
        ))),
        None => Ok(()),
    }
}

fn make_folder(folders: &Folders, folder: &std::path::Path) -> Result<()> {
    let failed =
        |e| Error::storage(format!("cannot create folder `{}`", folder.display())).with_source(e);
    folders.create(folder).map_err(failed)
}

fn folder_url(folder: &std::path::Path) -> Result<Url> {
    Url::from_directory_path(folder)
        .map_err(|()| Error::invalid(format!("folder `{}` has no URL", folder.display())))
}

fn place_of(location: &str) -> Result<BucketLocation> {
    let Some((scheme, _)) = location.split_once("://") else {
        if location.is_empty() {
            return Err(Error::invalid(
                "the location of the data is empty; give a folder or `s3://bucket/prefix`",
            ));
        }
        return std::path::absolute(location)
            .map(BucketLocation::Folder)
            .map_err(|e| Error::invalid(format!("`{location}` is not a path")).with_source(e));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => Url::parse(location)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .map(BucketLocation::Folder)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "`{location}` names no local folder; write `file:///folder`"
                ))
            }),
        "s3" | "s3a" => bucket_url(location).map(BucketLocation::Bucket),
        _ => Err(Error::invalid(format!(
            "scheme `{scheme}` of `{location}` is unknown; give a folder, `file:///folder` or `s3://bucket/prefix`"
        ))),
    }
}

/// Returns the location of a bucket in its canonical form: `s3://bucket/prefix/`.
fn bucket_url(location: &str) -> Result<Url> {
    let rest = location.split_once("://").map_or("", |(_, rest)| rest);
    if rest.split('/').next().is_some_and(|host| host.contains('@')) {
        // The message omits the location, since it may contain a key.
        return Err(Error::invalid(
            "the location of the data names a user or key; write `s3://bucket/prefix`, and the key as \
             `s3_access_key_id` and `s3_secret_access_key`",
        ));
    }
    let wrong =
        || Error::invalid(format!("`{location}` names no bucket; write `s3://bucket/prefix`"));
    let mut url = Url::parse(&format!("s3://{rest}")).map_err(|_| wrong())?;
    let named = url.host_str().is_some_and(|host| !host.is_empty());
    if !named || url.port().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Returns the name of a file of an export job.
pub fn export_name(uuid: Uuid) -> String {
    format!("{uuid}{PACKED_LINES}")
}

/// Returns true if the file of an export job is compressed in blocks. Earlier versions wrote plain
/// lines.
pub fn is_packed_export(name: &str) -> bool {
    name.ends_with(PACKED_LINES)
}

/// Returns the name of a file of an export job without its extension.
pub fn export_stem(name: &str) -> &str {
    name.strip_suffix(PACKED_LINES).or_else(|| name.strip_suffix(PLAIN_LINES)).unwrap_or(name)
}

/// Returns true if an export job wrote the file.
pub fn is_export_name(name: &str) -> bool {
    export_stem(name) != name && export_stem(name).parse::<Uuid>().is_ok()
}

/// Extensions of the files of export jobs.
const PLAIN_LINES: &str = ".jsonl";
const PACKED_LINES: &str = ".jsonl.zst";

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;

    use super::*;
    use crate::error::ErrorKind;

    fn open(data: &str, create: bool) -> Result<Store> {
        Store::open(&Config { data: data.to_owned(), ..Config::default() }, create)
    }

    #[test]
    fn opens_existing_folders_and_creates_missing_ones_if_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a b/c");
        let text = wanted.to_str().unwrap();
        assert_eq!(open(text, false).unwrap_err().kind(), ErrorKind::NotFound);
        let store = open(text, true).unwrap();
        assert_eq!(store.folder().unwrap(), wanted.canonicalize().unwrap());
        assert!(store.root().as_str().ends_with("/a%20b/c/"), "{}", store.root());
        assert_eq!(store.catalog_path().as_ref(), "catalog.json", "paths begin at the folder");
        assert_eq!(store.place(), wanted.canonicalize().unwrap().display().to_string());
        assert_eq!(open(store.root().as_str(), false).unwrap().root(), store.root());
        assert!(store.wal_folder().unwrap().ends_with("a b/c/wal"));
        assert!(store.lock_file().unwrap().ends_with("a b/c/gatelog.lock"));
        assert!(!store.is_shared() && store.cache_stats().is_none());
        let config =
            Config { data: text.to_owned(), wal: "/elsewhere".to_owned(), ..Config::default() };
        let store = Store::open(&config, true).unwrap();
        assert_eq!(store.wal_folder().unwrap(), FilePath::new("/elsewhere"));
        assert!(
            store.lock_file().unwrap().ends_with("a b/c/gatelog.lock"),
            "the lock stays with the data"
        );
    }

    #[test]
    fn a_bucket_keeps_its_log_here_and_is_not_asked_when_opened() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path().join("node/log");
        let config = Config {
            data: "s3a://my_bucket/a%20b/c".to_owned(),
            wal: wal.display().to_string(),
            // Nobody listens there.
            s3_endpoint: "http://127.0.0.1:1".to_owned(),
            s3_access_key_id: "id".to_owned(),
            s3_secret_access_key: crate::config::Secret("hidden".to_owned()),
            ..Config::default()
        };
        let reading = Store::open(&config, false).unwrap();
        assert!(!wal.exists() && reading.cache_stats().is_none(), "who only reads writes nothing");
        let store = Store::open(&config, true).unwrap();
        assert_eq!(store.root().as_str(), "s3://my_bucket/a%20b/c/");
        assert_eq!(store.place(), "s3://my_bucket/a%20b/c/ at http://127.0.0.1:1");
        assert_eq!(store.table_url("logs").unwrap().as_str(), "s3://my_bucket/logs/");
        assert_eq!(store.table_path("logs").as_ref(), "logs");
        assert_eq!(store.wal_folder().unwrap(), wal);
        assert_eq!(store.lock_file().unwrap(), wal.join("gatelog.lock"));
        assert!(store.is_shared() && wal.is_dir() && store.folder().is_none());
        assert_eq!(store.cache_stats(), Some(CacheStats::default()));
        let uncached =
            Store::open(&Config { disk_cache_bytes: 0, ..config.clone() }, true).unwrap();
        assert_eq!(uncached.cache_stats(), None);
        store.clean_staging().unwrap();
        store.create_table_folder("logs").unwrap();
        assert!(!format!("{store:?}").contains("hidden"));
        let whole = Config { data: "s3://bucket".to_owned(), ..config };
        assert_eq!(Store::open(&whole, false).unwrap().catalog_path().as_ref(), "catalog.json");
    }

    #[test]
    fn refuses_other_places_with_a_reason() {
        let error = open("ftp://host/x", true).unwrap_err();
        assert!(error.message().contains("scheme `ftp`"), "{error}");
        assert_eq!(open("", true).unwrap_err().kind(), ErrorKind::Invalid);
        for wrong in ["s3://", "s3:///prefix", "s3://bucket:80/x", "s3://bucket/x?region=y"] {
            let error = open(wrong, true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(
                error.message().contains("names no bucket; write `s3://bucket/prefix`"),
                "{wrong}: {error}"
            );
        }
        let error = open("s3://id:hidden@bucket/x", true).unwrap_err();
        assert!(
            error.message().contains("s3_access_key_id") && !error.message().contains("hidden"),
            "{error}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(
            open(file.path().to_str().unwrap(), false).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}
