//! The list of refusals in the store: one JSON file for each node, written in the background and
//! read by commands and other nodes. The list is best effort: a file that cannot be read is started
//! again, and entries of a later version are skipped.

use std::sync::Arc;

use chrono::TimeDelta;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::list::{Refusals, Saved};
use super::refusal::Refusal;
use crate::catalog::State;
use crate::error::{Error, Result};
use crate::store::Store;

/// Interval at which a node writes its list if it changed.
pub const WRITE_SECONDS: u64 = 5;
/// Interval at which a node writes an unchanged list, which shows that the node is alive.
const WRITE_ALL_THE_SAME: TimeDelta = TimeDelta::hours(6);
/// Age at which files of other nodes are deleted: their nodes are gone.
const STALE: TimeDelta = TimeDelta::hours(24);
/// Largest file that is read. Larger ones were not written by a node.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Serialize)]
struct Written {
    refusals: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Read {
    refusals: Vec<Value>,
}

impl Refusals {
    /// Loads the list that this node wrote before it was restarted.
    pub async fn load(&self, store: &Store, node: Uuid, state: &State) {
        match read(store, &store.refusals_path(node)).await {
            Ok(entries) => {
                let mut inner = self.inner.lock();
                entries.into_iter().for_each(|entry| inner.book.add(entry));
                inner.saved = Saved { changes: inner.book.changes(), at: None };
            }
            Err(error) => {
                tracing::warn!(
                    error = error.chain(),
                    "cannot read the list of refusals; starting an empty one"
                )
            }
        }
        self.forget(state);
    }

    /// Writes the list if it has changed.
    pub async fn write(&self, store: &Store, node: Uuid) -> Result<()> {
        let now = (self.now)();
        let (changes, entries) = {
            let inner = self.inner.lock();
            let is_old = inner.saved.at.is_none_or(|at| now - at >= WRITE_ALL_THE_SAME);
            let is_same = inner.book.changes() == inner.saved.changes;
            if is_same && (!is_old || inner.book.size().0 == 0) {
                return Ok(());
            }
            (inner.book.changes(), inner.book.entries().cloned().collect())
        };
        let text = serde_json::to_vec(&Written { refusals: entries }).map_err(|cause| {
            Error::internal("cannot encode the list of refusals").with_source(cause)
        })?;
        let path = store.refusals_path(node);
        store
            .object_store()
            .put(&path, PutPayload::from(text))
            .await
            .map_err(|cause| Error::storage(format!("cannot write `{path}`")).with_source(cause))?;
        self.inner.lock().saved = Saved { changes, at: Some(now) };
        Ok(())
    }

    /// Deletes the lists of nodes that are gone.
    pub async fn clean(&self, store: &Store, node: Uuid) -> Result<()> {
        let own = store.refusals_path(node);
        let oldest = (self.now)() - STALE;
        for file in list(store).await? {
            if file.location != own && file.last_modified < oldest {
                let path = &file.location;
                match store.object_store().delete(path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(cause) => {
                        return Err(
                            Error::storage(format!("cannot delete `{path}`")).with_source(cause)
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads the entries of all nodes, without those of node `but`.
pub async fn read_all(store: &Store, but: Option<Uuid>) -> Result<Vec<Refusal>> {
    let but = but.map(|node| store.refusals_path(node));
    let mut all = Vec::new();
    for file in list(store).await? {
        if Some(&file.location) != but.as_ref() && file.size <= MAX_FILE_BYTES {
            all.extend(read(store, &file.location).await?);
        }
    }
    Ok(all)
}

async fn list(store: &Store) -> Result<Vec<ObjectMeta>> {
    let failed = |cause| Error::storage("cannot list the files of refusals").with_source(cause);
    store.object_store().list(Some(&store.refusals_folder())).try_collect().await.map_err(failed)
}

async fn read(store: &Store, path: &Path) -> Result<Vec<Refusal>> {
    let unreadable = |cause| Error::storage(format!("cannot read `{path}`")).with_source(cause);
    let bytes = match store.object_store().get(path).await {
        Ok(found) => found.bytes().await.map_err(unreadable)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(cause) => return Err(unreadable(cause)),
    };
    let refusals =
        serde_json::from_slice(&bytes).map_or_else(|_| Vec::new(), |read: Read| read.refusals);
    let mut entries: Vec<Refusal> =
        refusals.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect();
    share_routes(&mut entries);
    Ok(entries)
}

/// Lets equal routes share their text: there are only a few.
fn share_routes(entries: &mut [Refusal]) {
    let mut known: Vec<Arc<str>> = Vec::new();
    for entry in entries {
        match known.iter().find(|route| **route == entry.route) {
            Some(route) => entry.route = Arc::clone(route),
            None if known.len() < 64 => known.push(Arc::clone(&entry.route)),
            None => {}
        }
    }
}
