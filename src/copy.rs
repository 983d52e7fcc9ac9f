//! Copies a store from one place to another: between folders and buckets in any combination.
//!
//! [`plan`] reads the catalog and the counts, then takes one version of each table and lists its
//! objects: first the data files, then the Delta logs, newest entry first, so that an interrupted
//! copy is not a table yet. The order matters: statements of the catalog about files must also hold
//! for older files, and counts that are behind the table are completed later, but counts ahead of
//! it never are.
//!
//! [`run`] reads every object back from the target and compares SHA-256, verifies data
//! files with their checksums and reports those that are damaged, skips equal objects that
//! are there already, and refuses a target with different data. So the same command continues an
//! interrupted copy. The write-ahead log, locks, caches, lists of refusals and the maintenance
//! lease are not copied: they belong to a node and not to the data.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

use crate::catalog::{self, Document, Identity};
use crate::datafile::checked::{self, Verified};
use crate::error::{Error, Result};
use crate::record::Rows;
use crate::store::Store;
use crate::table::Table;
use crate::wal;

/// Objects that are copied concurrently.
const PARALLEL: usize = 4;

/// One object to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    /// Path below the root.
    path: String,
    bytes: u64,
    /// Content of the object, if it was read while the copy was planned.
    content: Option<Bytes>,
    /// Rows of a data file by the table.
    rows: Option<u64>,
    /// True if a different object at the target may be replaced: one from an earlier copy of data
    /// that has grown since.
    replaces: bool,
}

/// The objects of a copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Objects that may be copied concurrently.
    data: Vec<Item>,
    /// Objects that are copied after those, one by one.
    log: Vec<Item>,
    /// The catalog.
    document: Document,
    /// Delta's id of the table of logs.
    table: Option<String>,
    /// Version of the table of logs. `None` if there is no table.
    pub version: Option<u64>,
    /// Rows in the table of logs.
    pub rows: u64,
}

/// Result of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// Number of objects that were written.
    pub objects: u64,
    /// Bytes of the objects that were written.
    pub bytes: u64,
    /// Number of equal objects that were at the target already.
    pub unchanged: u64,
    /// Data files that were damaged before they were copied: their paths, and what is wrong.
    pub damaged: Vec<String>,
}

impl Plan {
    /// Returns the bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.data.iter().chain(&self.log).map(|item| item.bytes).sum()
    }
}

/// Lists the objects of the newest versions of the tables, and those beside the tables.
pub async fn plan(from: &Store) -> Result<Plan> {
    let document = catalog::read_document(from).await?.unwrap_or_default();
    let mut plan = Plan { document, ..Plan::default() };
    let counts = list(from, &from.usage_folder()).await?;
    let erasures = list(from, &from.erasures_path()).await?;
    for object in counts.into_iter().chain(erasures) {
        let path = relative(from, &object.location)?;
        let unreadable = |cause| Error::storage(format!("cannot read `{path}`")).with_source(cause);
        let content = from
            .object_store()
            .get(&object.location)
            .await
            .map_err(unreadable)?
            .bytes()
            .await
            .map_err(unreadable)?;
        let bytes = content.len() as u64;
        plan.data.push(Item { path, bytes, content: Some(content), rows: None, replaces: true });
    }
    for rows in Rows::ALL {
        let Some(table) = Table::open(from, rows).await? else { continue };
        let index = table.index();
        if rows == Rows::Logs {
            plan.version = Some(index.version);
            plan.rows = index.rows();
            plan.table = Some(table.id().await?);
        }
        for file in index.iter() {
            let path = relative(from, &table.object_store_path(file))?;
            plan.data.push(Item {
                path,
                bytes: file.bytes,
                content: None,
                rows: Some(file.rows),
                replaces: false,
            });
        }
        let log = from.table_path(rows.folder()).join("_delta_log");
        let mut entries = list(from, &log).await?;
        entries.sort_by(|a, b| b.location.cmp(&a.location));
        for entry in entries {
            if version_of(&entry.location).is_some_and(|version| version <= index.version) {
                let path = relative(from, &entry.location)?;
                plan.log.push(Item {
                    path,
                    bytes: entry.size,
                    content: None,
                    rows: None,
                    replaces: false,
                });
            }
        }
    }
    for object in list(from, &from.exports_path()).await? {
        let path = relative(from, &object.location)?;
        plan.data.push(Item {
            path,
            bytes: object.size,
            content: None,
            rows: None,
            replaces: true,
        });
    }
    Ok(plan)
}

/// Runs a planned copy. Calls `progress` with the bytes that are done. `new_id` becomes the UUID of
/// a new copy.
pub async fn run(
    from: &Store,
    to: &Store,
    plan: &Plan,
    new_id: String,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Copied> {
    if let Some(foreign) = foreign_entry(to, plan).await? {
        return Err(Error::invalid(format!(
            "`{foreign}` at the target belongs to another table; give an empty folder or prefix"
        )));
    }
    let catalog = begin(to, plan, new_id).await?;
    let mut copied = Copied::default();
    let mut done = 0;
    let mut take = |item: &Item, written: bool| {
        done += item.bytes;
        progress(done);
        if written {
            copied.objects += 1;
            copied.bytes += item.bytes;
        } else {
            copied.unchanged += 1;
        }
    };
    let mut copies = stream::iter(&plan.data)
        .map(|item| async move {
            Ok::<_, Error>((item, copy(from, to, item).await?, damage(from, to, item).await?))
        })
        .buffer_unordered(PARALLEL);
    let mut damaged = Vec::new();
    while let Some((item, written, what)) = copies.try_next().await? {
        take(item, written);
        damaged.extend(what.map(|what| format!("`{}`: {what}", item.path)));
    }
    for item in &plan.log {
        let written = copy(from, to, item).await?;
        take(item, written);
    }
    // The emptied write-ahead log of the target may be ahead of tables that are restored over it.
    to.forget_last_notes()?;
    let written = copy(from, to, &catalog).await?;
    take(&catalog, written);
    damaged.sort();
    Ok(Copied { damaged, ..copied })
}

/// Returns a description of the damage in a copied data file, found by its checksums. Both sides
/// have the same bytes, so the faster side is read.
async fn damage(from: &Store, to: &Store, item: &Item) -> Result<Option<String>> {
    let Some(rows) = item.rows else { return Ok(None) };
    let side = if from.is_shared() && !to.is_shared() { to } else { from };
    let unreadable =
        |cause| Error::storage(format!("cannot read `{}`", item.path)).with_source(cause);
    let path = below(side, &item.path)?;
    let verified =
        checked::verify(&**side.object_store(), &path, item.bytes).await.map_err(unreadable)?;
    Ok(match verified {
        // Files of earlier versions have no checksums.
        Verified::Without => None,
        Verified::Whole(found) => {
            (found != rows).then(|| format!("it has {found} rows, the table says {rows}"))
        }
        Verified::Harmed(parts) => Some(checked::listed(&parts)),
    })
}

/// Decides which store the target is, and marks it as unfinished. An older copy is not marked,
/// because it stays usable until the last object of the new one is there. Returns the final
/// catalog.
async fn begin(to: &Store, plan: &Plan, new_id: String) -> Result<Item> {
    let there = catalog::read_document(to).await?;
    let source = plan.document.store.as_ref();
    let target = match there.as_ref().and_then(|document| document.store.clone()) {
        Some(identity) => Some(identity),
        None => known_by_log(to, source)?,
    };
    let identity = match (Identity::for_copy(source, target.as_ref(), new_id), target) {
        (Some(identity), _) => identity,
        // One of the two stores is older than UUIDs: the id of the table tells that they hold the
        // same data.
        (None, Some(target)) if is_same_table(to, plan).await => {
            Identity { unfinished: false, ..target }
        }
        (None, _) => {
            return Err(Error::invalid(format!(
                "`{}` at the target is another store: neither a copy of this one nor its source; give an empty folder or prefix",
                to.place()
            )));
        }
    };
    let is_begun =
        there.is_none_or(|document| document.store.is_some_and(|identity| identity.unfinished));
    if is_begun || !Table::exists(to, Rows::Logs).await? {
        let begun = Identity { unfinished: true, ..identity.clone() };
        let begun = catalog::encode(&Document { store: Some(begun), ..plan.document.clone() })?;
        let unwritten =
            |cause| Error::storage("cannot write `catalog.json` at the target").with_source(cause);
        to.object_store().put(&to.catalog_path(), begun.into()).await.map_err(unwritten)?;
    }
    let content =
        Bytes::from(catalog::encode(&Document { store: Some(identity), ..plan.document.clone() })?);
    let path = relative(to, &to.catalog_path())?;
    Ok(Item {
        bytes: content.len() as u64,
        path,
        content: Some(content),
        rows: None,
        replaces: true,
    })
}

/// Returns true if the table at the target is the one that is copied. Returns false if it cannot be
/// read.
async fn is_same_table(to: &Store, plan: &Plan) -> bool {
    let Ok(Some(table)) = Table::open(to, Rows::Logs).await else { return false };
    table.id().await.ok() == plan.table
}

/// Returns the identity of a target without a catalog: the write-ahead log identifies an original
/// that is restored, and remains its log.
fn known_by_log(to: &Store, source: Option<&Identity>) -> Result<Option<Identity>> {
    let inside = to.folder().map(|folder| folder.join("wal"));
    if let Some(home) =
        inside.map(|folder| wal::read_home(&**to.disk(), &folder)).transpose()?.flatten()
    {
        return Ok(Some(Identity::new(home.store)));
    }
    // The log folder of the setting may belong to any store.
    let home =
        to.wal_folder().map(|folder| wal::read_home(&**to.disk(), &folder)).transpose()?.flatten();
    let known = home.filter(|home| home.place == to.place()).map(|home| Identity::new(home.store));
    Ok(known.filter(|known| Identity::for_copy(source, Some(known), String::new()).is_some()))
}

/// Copies one object and reads it back. Returns false if it was there already.
async fn copy(from: &Store, to: &Store, item: &Item) -> Result<bool> {
    let source = below(from, &item.path)?;
    let target = below(to, &item.path)?;
    let there = match to.object_store().head(&target).await {
        Ok(meta) => Some(meta.size),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(cause) => {
            return Err(Error::storage(format!("cannot read `{}` at the target", item.path))
                .with_source(cause));
        }
    };
    if let Some(size) = there {
        let wanted = match (&item.content, size == item.bytes) {
            (_, false) => None,
            (Some(content), true) => Some(Sha256::digest(content).into()),
            (None, true) => Some(digest(from, &source, item, None).await?),
        };
        if wanted == Some(digest(to, &target, item, None).await?) {
            // An earlier copy that was killed may not have synced it.
            let to = to.clone();
            let target = target.clone();
            let synced = tokio::task::spawn_blocking(move || to.make_durable(&[target])).await;
            synced
                .map_err(|cause| Error::internal("syncing a copy panicked").with_source(cause))??;
            return Ok(false);
        }
        if !item.replaces {
            let path = &item.path;
            return Err(Error::invalid(format!(
                "`{path}` at the target differs; give an empty folder or prefix"
            )));
        }
    }
    let mut writer = BufWriter::new(Arc::clone(to.object_store()), target.clone());
    let sending = async {
        match &item.content {
            Some(content) => {
                writer.put(content.clone()).await.map_err(|cause| unwritten(item, cause))?;
                Ok(Sha256::digest(content).into())
            }
            None => digest(from, &source, item, Some(&mut writer)).await,
        }
    };
    let sent: [u8; 32] = match sending.await {
        Ok(sent) => sent,
        Err(error) => {
            // The unfinished upload has no name yet. If it cannot be aborted, the store removes it
            // after a while.
            let _ = writer.abort().await;
            return Err(error);
        }
    };
    writer.shutdown().await.map_err(|cause| unwritten(item, cause))?;
    if digest(to, &target, item, None).await? != sent {
        let path = &item.path;
        return Err(Error::storage(format!(
            "`{path}` at the target differs from the data that was written; run the copy again"
        )));
    }
    Ok(true)
}

/// Returns the SHA-256 of an object; also passes its bytes to `writer`.
async fn digest(
    store: &Store,
    path: &Path,
    item: &Item,
    mut writer: Option<&mut BufWriter>,
) -> Result<[u8; 32]> {
    let unreadable =
        |cause| Error::storage(format!("cannot read `{}`", item.path)).with_source(cause);
    let mut bytes = store.object_store().get(path).await.map_err(unreadable)?.into_stream();
    let mut hash = Sha256::new();
    while let Some(chunk) = bytes.try_next().await.map_err(unreadable)? {
        hash.update(&chunk);
        if let Some(writer) = writer.as_deref_mut() {
            writer.put(chunk).await.map_err(|cause| unwritten(item, cause))?;
        }
    }
    Ok(hash.finalize().into())
}

fn unwritten(item: &Item, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::storage(format!("cannot write `{}` at the target", item.path)).with_source(cause)
}

/// Returns an entry of a Delta log at the target that the plan does not have: it belongs to another
/// table.
async fn foreign_entry(to: &Store, plan: &Plan) -> Result<Option<String>> {
    for rows in Rows::ALL {
        let log = to.table_path(rows.folder()).join("_delta_log");
        for entry in list(to, &log).await? {
            let path = relative(to, &entry.location)?;
            if version_of(&entry.location).is_some()
                && plan.log.iter().all(|item| item.path != path)
            {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Returns the version of a Delta log entry: the digits at the start of its name.
fn version_of(entry: &Path) -> Option<u64> {
    entry.filename()?.split_once('.')?.0.parse().ok()
}

async fn list(store: &Store, folder: &Path) -> Result<Vec<ObjectMeta>> {
    let failed = |cause| Error::storage(format!("cannot list `{folder}`")).with_source(cause);
    store.object_store().list(Some(folder)).try_collect().await.map_err(failed)
}

fn relative(store: &Store, path: &Path) -> Result<String> {
    let parts = path.prefix_match(store.prefix());
    let parts: Vec<_> =
        parts.ok_or_else(|| Error::internal(format!("`{path}` is outside of the data")))?.collect();
    Ok(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
}

fn below(store: &Store, path: &str) -> Result<Path> {
    Path::parse(format!("{}/{path}", store.prefix()).trim_start_matches('/')).map_err(|cause| {
        Error::internal(format!("`{path}` is not an object path")).with_source(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_log_say_their_version() {
        let version = |name: &str| version_of(&Path::from(format!("logs/_delta_log/{name}")));
        assert_eq!(version("00000000000000000012.json"), Some(12));
        assert_eq!(version("00000000000000000012.checkpoint.parquet"), Some(12));
        assert_eq!(version("_last_checkpoint"), None);
    }
}
