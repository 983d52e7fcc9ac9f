//! Archives completed erasures: moves their lists, and all but the newest completed erasures, out
//! of the document into objects of their own. Each erasure has one object, written once. A
//! write-ahead log of a stopped node, or an import, may bring erased records back at any time, so
//! opening one reads all of these objects ([`Catalog::ever_erased`]).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, PutPayload};

use super::Catalog;
use super::limits::MAX_ERASURES;
use super::model::{ArchivedLists, Document, ErasureEntry};
use crate::error::{Error, Result};
use crate::plan::Rules;
use crate::store::Store;

/// Objects that are read concurrently.
const AT_ONCE: usize = 16;

impl Document {
    /// Returns the completed erasures that have lists, or that are older than the newest few.
    fn archivable_erasures(&self, now: DateTime<Utc>) -> Vec<ErasureEntry> {
        let old = self.oldest_done(now);
        let has_list = |entry: &ErasureEntry| !entry.ids.is_empty() || !entry.feedback.is_empty();
        let leaves = |entry: &&ErasureEntry| {
            entry.is_done(now) && (has_list(entry) || old.contains(&entry.id))
        };
        self.erasures.iter().filter(leaves).cloned().collect()
    }

    /// Returns the ids of completed erasures, without the newest few of each organisation.
    fn oldest_done(&self, now: DateTime<Utc>) -> HashSet<String> {
        let mut newest: HashMap<&str, usize> = HashMap::new();
        let mut old = HashSet::new();
        for entry in self.erasures.iter().rev().filter(|entry| entry.is_done(now)) {
            let count = newest.entry(entry.organisation.as_str()).or_default();
            *count += 1;
            if *count > MAX_ERASURES {
                old.insert(entry.id.clone());
            }
        }
        old
    }

    /// Removes the lists of archived erasures, and the oldest of these erasures.
    fn drop_archived(&mut self, written: &HashSet<String>, now: DateTime<Utc>) {
        let old = self.oldest_done(now);
        self.erasures.retain(|entry| !(written.contains(&entry.id) && old.contains(&entry.id)));
        for entry in self.erasures.iter_mut().filter(|entry| written.contains(&entry.id)) {
            let ids = std::mem::take(&mut entry.ids);
            let feedback = std::mem::take(&mut entry.feedback);
            let before = entry.aside.unwrap_or(ArchivedLists { ids: 0, feedback: 0 });
            let more = |before: u64, list: &[String]| before.max(list.len() as u64);
            entry.aside = Some(ArchivedLists {
                ids: more(before.ids, &ids),
                feedback: more(before.feedback, &feedback),
            });
        }
    }
}

impl Catalog {
    /// Archives completed erasures.
    pub async fn archive_erasures(&self) -> Result<()> {
        let now = (self.inner.now)();
        let done = self.state().document.archivable_erasures(now);
        if done.is_empty() {
            return Ok(());
        }
        for entry in done.iter().filter(|entry| entry.aside.is_none()) {
            write(&self.inner.store, entry).await?;
        }
        let written: HashSet<String> = done.into_iter().map(|entry| entry.id).collect();
        self.change(|document| {
            document.drop_archived(&written, now);
            Ok(())
        })
        .await
    }

    /// Returns rules for everything that was ever erased, including erasures that are no longer in
    /// force or were archived: the write-ahead log of a stopped node may bring such records back.
    pub async fn ever_erased(&self) -> Result<Rules> {
        let mut entries = read_all(&self.inner.store).await?;
        entries.extend(self.state().document.erasures.iter().cloned());
        Ok(super::erasures::ever_erased(&entries))
    }
}

async fn write(store: &Store, entry: &ErasureEntry) -> Result<()> {
    let text = serde_json::to_vec(entry)
        .map_err(|cause| Error::internal("cannot encode an erasure").with_source(cause))?;
    let path = store.erasure_path(&entry.id);
    let put = store.object_store().put(&path, PutPayload::from(text)).await;
    put.map(|_| ())
        .map_err(|cause| Error::storage(format!("cannot write `{path}`")).with_source(cause))
}

async fn read_all(store: &Store) -> Result<Vec<ErasureEntry>> {
    let folder = store.erasures_path();
    let listed: Vec<_> =
        store.object_store().list(Some(&folder)).try_collect().await.map_err(|cause| {
            Error::storage(format!("cannot list `{folder}`")).with_source(cause)
        })?;
    let read = |object: object_store::ObjectMeta| async move {
        let path = object.location;
        let unreadable = |cause| Error::storage(format!("cannot read `{path}`")).with_source(cause);
        let bytes = store
            .object_store()
            .get(&path)
            .await
            .map_err(unreadable)?
            .bytes()
            .await
            .map_err(unreadable)?;
        serde_json::from_slice(&bytes).map_err(|cause| {
            Error::damaged(format!("`{path}` is not an erasure; restore it from a copy"))
                .with_source(cause)
        })
    };
    futures::stream::iter(listed).map(read).buffer_unordered(AT_ONCE).try_collect().await
}
