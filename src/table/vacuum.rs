//! Finds and deletes objects that no reader needs any more.
//!
//! An object may be deleted if the current version does not list it, it is too old to belong to a
//! commit in progress, and no recent version listed it: a query or another program may still be
//! reading such a version. The last condition is read from the log, whose entries record the
//! removal of files, so it holds across restarts.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::Deserialize;

use super::Table;
use super::index::Orphan;
use crate::error::{Error, Result};

/// Number of log entries read concurrently.
const READS: usize = 16;

impl Table {
    /// Returns Parquet objects that were last modified before `older_than_ms` (since 1970-01-01),
    /// that the current version does not list, and that no version since then listed. Never returns
    /// objects of the log.
    pub async fn orphans(&self, older_than_ms: i64) -> Result<Vec<Orphan>> {
        let failed =
            |e| Error::storage(format!("cannot list table `{}`", self.name())).with_source(e);
        let mut found = self.data_objects().await.map_err(failed)?;
        found.retain(|object| object.last_modified.timestamp_millis() < older_than_ms);
        // The version is read after the listing, so it includes every file of a commit in between.
        let index = self.refresh().await?;
        let mut used: HashSet<Path> =
            index.iter().map(|file| self.object_store_path(file)).collect();
        if found.iter().any(|object| !used.contains(&object.location)) {
            used.extend(self.removed_since(older_than_ms).await?);
        }
        found.retain(|object| !used.contains(&object.location));
        Ok(found.iter().filter_map(|object| self.orphan(object)).collect())
    }

    /// Deletes objects that [`Table::orphans`] returned. A missing object is not an error. An
    /// object that the current version lists is refused, and then nothing is deleted.
    pub async fn remove_objects(&self, paths: &[String]) -> Result<()> {
        let index = self.index();
        let used: HashSet<Path> = index.iter().map(|file| self.object_store_path(file)).collect();
        let wanted = paths.iter().map(|path| self.below(path)).collect::<Result<Vec<Path>>>()?;
        for (path, object) in paths.iter().zip(&wanted) {
            if used.contains(object) || path.starts_with(['_', '.']) || !path.ends_with(".parquet")
            {
                return Err(Error::internal(format!(
                    "`{path}` is not an orphan of table `{}`",
                    self.name()
                )));
            }
        }
        let mut deleted = self.object_store().delete_stream(stream::iter(wanted).map(Ok).boxed());
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => {
                    return Err(Error::storage(format!(
                        "cannot delete files of table `{}`",
                        self.name()
                    ))
                    .with_source(e));
                }
            }
        }
        Ok(())
    }

    async fn data_objects(&self) -> object_store::Result<Vec<ObjectMeta>> {
        let top = self.object_store().list_with_delimiter(Some(&self.inner.path)).await?;
        let mut objects = top.objects;
        for folder in top.common_prefixes {
            // Delta keeps its own data, such as the log, in folders with such names.
            if !folder.filename().is_some_and(|name| name.starts_with(['_', '.'])) {
                objects
                    .extend(self.object_store().list(Some(&folder)).try_collect::<Vec<_>>().await?);
            }
        }
        objects.retain(|object| object.location.as_ref().ends_with(".parquet"));
        Ok(objects)
    }

    /// Returns the files that versions since `ms` removed.
    async fn removed_since(&self, ms: i64) -> Result<Vec<Path>> {
        let failed = |e| {
            Error::storage(format!("cannot read the log of table `{}`", self.name())).with_source(e)
        };
        let log = self.inner.path.clone().join("_delta_log");
        let entries: Vec<ObjectMeta> =
            self.object_store().list(Some(&log)).try_collect().await.map_err(failed)?;
        let recent = entries.into_iter().filter(|entry| {
            entry.location.extension() == Some("json")
                && entry.last_modified.timestamp_millis() >= ms
        });
        let reads = recent.map(|entry| async move {
            self.object_store().get(&entry.location).await?.bytes().await
        });
        let mut texts = stream::iter(reads).buffered(READS);
        let mut paths = Vec::new();
        while let Some(text) = texts.next().await {
            paths.extend(self.removed_by(&text.map_err(failed)?)?);
        }
        Ok(paths)
    }

    fn removed_by(&self, entry: &[u8]) -> Result<Vec<Path>> {
        let mut paths = Vec::new();
        for action in serde_json::Deserializer::from_slice(entry).into_iter::<Action>() {
            let action = action.map_err(|e| {
                Error::damaged(format!("the log of table `{}` is malformed", self.name()))
                    .with_source(e)
            })?;
            paths.extend(action.remove.map(|removed| self.inner.object_path(&removed.path)));
        }
        Ok(paths)
    }

    pub(super) fn orphan(&self, object: &ObjectMeta) -> Option<Orphan> {
        let parts: Vec<_> = object.location.prefix_match(&self.inner.path)?.collect();
        let path = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
        Some(Orphan { path, bytes: object.size })
    }

    fn below(&self, path: &str) -> Result<Path> {
        Path::parse(format!("{}/{path}", self.inner.path)).map_err(|e| {
            Error::internal(format!("`{path}` is not the path of an object")).with_source(e)
        })
    }
}

#[derive(Deserialize)]
struct Action {
    remove: Option<Removed>,
}

#[derive(Deserialize)]
struct Removed {
    path: String,
}
