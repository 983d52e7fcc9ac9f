//! A Delta table: its files, its versions, and the one way to change it.
//!
//! A [`Table`] is a handle, and its clones share it. It keeps the newest known version as a
//! [`FileIndex`]. The index is built once at open, and each commit updates it with the files that
//! were added and removed, so neither a commit nor a refresh reads the whole table. Guarantees:
//!
//! - A commit is one version of the log. It is atomic, and it never becomes two versions, even if
//!   its answer was lost or another writer committed in between (see [`Table::commit`]).
//! - Calls do not block the async runtime, and a caller that stops waiting does not interrupt a
//!   commit.
//! - Changes by other programs (checkpoints, optimised files) are followed. Changes that this
//!   program cannot read correctly (deletion vectors, foreign partitions) are refused as damage.
//!
//! The kernel's transactions decide who committed what. Nothing about that is stored outside the
//! log.

mod actions;
mod changes;
mod clean;
mod commit;
mod index;
mod kernel;
mod settle;
mod vacuum;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::datatypes::Schema;
use delta_kernel::SnapshotRef;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::RwLock;
use url::Url;

pub use changes::Commit;
pub use index::{DataFile, FileIndex, Orphan, Partition, lower_bound, upper_bound};

use crate::error::{Error, Result};
use crate::record::Rows;
use crate::store::Store;
use crate::store::folders::is_sync_failure;

/// Maximum encoded bytes of a row group: bodies of megabytes must not make a group of gigabytes.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// File in the log that names the last checkpoint.
const HINT: &str = "_last_checkpoint";

/// A Delta table. Clones are handles to the same table.
#[derive(Clone, Debug)]
pub struct Table {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rows: Rows,
    url: Url,
    path: Path,
    store: Store,
    engine: kernel::Engine,
    index: RwLock<Arc<FileIndex>>,
    checkpoint: AtomicU64,
    row_group_bytes: AtomicUsize,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

/// State that only one commit at a time may use.
#[derive(Debug)]
struct Writer {
    snapshot: SnapshotRef,
    /// Application transactions as of `snapshot`, limited to those that were looked up.
    apps: HashMap<String, Option<i64>>,
    /// Newest log entry found at open, while a full disk prevented its rewrite. The next commit
    /// rewrites it first.
    unrenewed: Option<Path>,
}

impl Table {
    /// Opens the table of these rows for writing, or creates it with their columns and the
    /// partition columns `retention_days` and `date`. When this returns, everything that earlier
    /// processes left in the table is durable.
    pub async fn create_or_open(store: &Store, rows: Rows) -> Result<Self> {
        Self::with_columns(store, rows, &rows.file_schema()).await
    }

    async fn with_columns(store: &Store, rows: Rows, columns: &Schema) -> Result<Self> {
        if !exists(store, rows.folder()).await? {
            create(store, rows.folder(), columns).await?;
        }
        let table = Self::load(store, rows).await?;
        let wanted = columns.clone();
        table
            .locked(move |inner, writer| {
                kernel::check_columns(&writer.snapshot, &wanted)?;
                inner.settle_found(writer)
            })
            .await?;
        Ok(table)
    }

    /// Opens the table of these rows for reading. Returns `None` if the table does not exist yet.
    pub async fn open(store: &Store, rows: Rows) -> Result<Option<Self>> {
        if !exists(store, rows.folder()).await? {
            return Ok(None);
        }
        Self::load(store, rows).await.map(Some)
    }

    /// Returns true if the table of these rows exists.
    pub async fn exists(store: &Store, rows: Rows) -> Result<bool> {
        exists(store, rows.folder()).await
    }

    async fn load(store: &Store, rows: Rows) -> Result<Self> {
        let name = rows.folder();
        let url = store.table_url(name)?;
        let path = store.table_path(name);
        let store = store.clone();
        let checkpoint = last_checkpoint(store.object_store(), &path).await?;
        refuse_empty_commits(store.object_store(), &path).await?;
        blocking(move || {
            let engine = kernel::engine(Arc::clone(store.object_store()))?;
            let snapshot = kernel::snapshot(&engine, &url)
                .map_err(|e| kernel::error(&format!("cannot open table `{name}`"), e))?;
            let files = kernel::files(&engine, &snapshot)?;
            let index = FileIndex::default().apply(snapshot.version(), files, []);
            let writer = Arc::new(tokio::sync::Mutex::new(Writer {
                snapshot,
                apps: HashMap::new(),
                unrenewed: None,
            }));
            let index = RwLock::new(Arc::new(index));
            let checkpoint = AtomicU64::new(checkpoint);
            let row_group_bytes = AtomicUsize::new(ROW_GROUP_BYTES);
            let inner = Inner {
                rows,
                url,
                path,
                store,
                engine,
                index,
                checkpoint,
                row_group_bytes,
                writer,
            };
            Ok(Self { inner: Arc::new(inner) })
        })
        .await
    }

    /// Sets the row group size of files that are written from now on, in encoded bytes.
    pub fn set_row_group_bytes(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(ROW_GROUP_BYTES).min(ROW_GROUP_BYTES);
        self.inner.row_group_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Returns the row group size of new files, in encoded bytes.
    pub fn row_group_bytes(&self) -> usize {
        self.inner.row_group_bytes.load(Ordering::Relaxed)
    }

    /// Returns true if the table is in a bucket, where each part of an upload has a minimum size.
    pub fn is_shared(&self) -> bool {
        self.inner.store.is_shared()
    }

    /// Returns the name of the table.
    pub fn name(&self) -> &'static str {
        self.inner.rows.folder()
    }

    /// Returns the kind of rows in the table.
    pub fn rows(&self) -> Rows {
        self.inner.rows
    }

    /// Returns the table's unique id, which differs even from that of a table of the same name and
    /// place.
    pub async fn id(&self) -> Result<String> {
        self.locked(|_, writer| {
            Ok(writer.snapshot.table_configuration().metadata().id().to_owned())
        })
        .await
    }

    /// Returns the URL of the table, which ends with `/`.
    pub fn url(&self) -> &Url {
        &self.inner.url
    }

    /// Returns the object store that holds the table.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        self.inner.store.object_store()
    }

    /// Returns the path of a file of the table in the object store.
    pub fn object_store_path(&self, file: &DataFile) -> Path {
        self.inner.object_path(&file.path)
    }

    /// Returns the newest version that this handle knows.
    pub fn index(&self) -> Arc<FileIndex> {
        self.inner.index()
    }

    /// Returns the version of an application transaction as of [`Table::index`], or `None` if it
    /// never committed.
    pub async fn app_version(&self, app_id: &str) -> Result<Option<i64>> {
        let app_id = app_id.to_owned();
        self.locked(move |inner, writer| inner.app_version(writer, &app_id)).await
    }

    /// Commits, and returns the index of the version that holds the commit.
    ///
    /// A commit happens once: if the table already holds its application transaction, or its files,
    /// it counts as committed. If another writer committed first, the commit is retried on the
    /// newer version as long as every file that it removes still exists; otherwise the error is
    /// [`crate::error::ErrorKind::NotFound`], and the caller must plan again. Any other error means
    /// that the commit is not known to have succeeded, or that the disk could not keep it: stop
    /// writing.
    pub async fn commit(&self, commit: Commit) -> Result<Arc<FileIndex>> {
        self.locked(move |inner, writer| inner.commit(writer, &commit)).await
    }

    /// Loads the newest version of the table.
    pub async fn refresh(&self) -> Result<Arc<FileIndex>> {
        self.locked(|inner, writer| {
            inner.refresh(writer)?;
            Ok(inner.index())
        })
        .await
    }

    /// Writes a checkpoint of the newest known version and returns that version. Opening the table
    /// then need not read earlier versions. Commits continue meanwhile.
    pub async fn checkpoint(&self) -> Result<u64> {
        let snapshot = self.locked(|_, writer| Ok(Arc::clone(&writer.snapshot))).await?;
        let inner = Arc::clone(&self.inner);
        let written = blocking(move || {
            let (_, written) = snapshot
                .checkpoint(&inner.engine, None)
                .map_err(|e| inner.failed("checkpoint", e))?;
            Ok(written)
        })
        .await?;
        let version = written.version();
        self.inner.checkpoint.fetch_max(version, Ordering::Relaxed);
        self.locked(move |inner, writer| {
            // Later commits build on a snapshot that need not carry the entries before the
            // checkpoint.
            let newest =
                kernel::newer(&inner.engine, &written).map_err(|e| inner.failed("refresh", e))?;
            if newest.version() >= writer.snapshot.version() {
                inner.advance(writer, newest)
            } else {
                Ok(())
            }
        })
        .await?;
        Ok(version)
    }

    /// Returns the number of versions that an open would read after the last checkpoint.
    pub fn commits_since_checkpoint(&self) -> u64 {
        self.inner.index().version.saturating_sub(self.inner.checkpoint.load(Ordering::Relaxed))
    }

    /// Runs kernel work on a blocking thread while holding the writer's lock. The work completes
    /// even if the caller stops waiting.
    async fn locked<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let mut writer = Arc::clone(&inner.writer).lock_owned().await;
        blocking(move || work(&inner, &mut writer)).await
    }
}

impl Inner {
    fn index(&self) -> Arc<FileIndex> {
        Arc::clone(&self.index.read())
    }

    fn object_path(&self, path: &str) -> Path {
        let relative = Path::from_url_path(path).unwrap_or_else(|_| Path::from(path));
        self.path.parts().chain(relative.parts()).collect()
    }

    fn failed(&self, what: &str, source: delta_kernel::KernelError) -> Error {
        kernel::error(&format!("cannot {what} table `{}`", self.rows.folder()), source)
    }

    fn app_version(&self, writer: &mut Writer, app_id: &str) -> Result<Option<i64>> {
        if let Some(known) = writer.apps.get(app_id) {
            return Ok(*known);
        }
        let found = writer.snapshot.get_app_id_version(app_id, &self.engine);
        let found = found.map_err(|e| self.failed("read the transactions of", e))?;
        writer.apps.insert(app_id.to_owned(), found);
        Ok(found)
    }

    fn refresh(&self, writer: &mut Writer) -> Result<()> {
        let index = self.index();
        let snapshot = Arc::clone(&writer.snapshot);
        let newest =
            kernel::newer(&self.engine, &snapshot).map_err(|e| self.failed("refresh", e))?;
        self.advance(writer, newest)?;
        self.settle_new(&index).inspect_err(|_| {
            // The newer version may be gone after a power cut.
            writer.apps.clear();
            writer.snapshot = snapshot;
            *self.index.write() = index;
        })
    }

    /// Makes `snapshot` the newest known version. It must not be older than the writer's snapshot.
    fn advance(&self, writer: &mut Writer, snapshot: SnapshotRef) -> Result<()> {
        let index = self.index();
        if snapshot.version() > index.version {
            let next = kernel::advance(&self.engine, &index, &snapshot)?;
            writer.apps.clear();
            *self.index.write() = Arc::new(next);
        }
        writer.snapshot = snapshot;
        Ok(())
    }
}

async fn exists(store: &Store, name: &str) -> Result<bool> {
    let log = store.table_path(name).join("_delta_log");
    match store.object_store().list(Some(&log)).next().await {
        None | Some(Err(object_store::Error::NotFound { .. })) => Ok(false),
        Some(Ok(_)) => Ok(true),
        Some(Err(e)) => Err(Error::storage(format!("cannot list table `{name}`")).with_source(e)),
    }
}

async fn create(store: &Store, name: &str, columns: &Schema) -> Result<()> {
    store.create_table_folder(name)?;
    let url = store.table_url(name)?;
    let object_store = Arc::clone(store.object_store());
    let columns = columns.clone();
    let what = format!("cannot create table `{name}`");
    let failed = blocking(move || {
        Ok(match kernel::create(&kernel::engine(object_store)?, &url, &columns) {
            Ok(_) => None,
            Err(e) => Some(kernel::error(&what, e)),
        })
    })
    .await?;
    match failed {
        // The answer may have been lost, so only the existence of the table decides.
        Some(error) if is_sync_failure(&error) || !exists(store, name).await? => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a log with an empty entry. The kernel skips such an entry, so the rows of that commit
/// would vanish silently.
async fn refuse_empty_commits(store: &Arc<dyn ObjectStore>, table: &Path) -> Result<()> {
    let mut entries = store.list(Some(&table.clone().join("_delta_log")));
    while let Some(entry) = entries
        .try_next()
        .await
        .map_err(|e| Error::storage("cannot list the table's log").with_source(e))?
    {
        if entry.size == 0 && entry.location.extension() == Some("json") {
            return Err(Error::damaged(format!(
                "entry `{}` of the table's log is empty; restore it from a copy, since it lists acknowledged rows",
                entry.location
            )));
        }
    }
    Ok(())
}

/// Returns the version of the last checkpoint, or 0 without one: such a table is read from version
/// 0.
async fn last_checkpoint(object_store: &Arc<dyn ObjectStore>, table: &Path) -> Result<u64> {
    let path = table.clone().join("_delta_log").join(HINT);
    let bytes = match object_store.get(&path).await {
        Ok(found) => found.bytes().await,
        Err(e) => Err(e),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(object_store::Error::NotFound { .. }) => return Ok(0),
        Err(e) => return Err(Error::storage(format!("cannot read `{path}`")).with_source(e)),
    };
    // The file is a hint; the kernel finds checkpoints without it.
    let hint: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    Ok(hint.and_then(|hint| hint.get("version")?.as_u64()).unwrap_or(0))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::internal("work on a table was interrupted").with_source(e)))
}
