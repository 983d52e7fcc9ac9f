//! Erasures that are done, set aside: their long lists, and what is older than the newest few, leave the document for objects of
//! their own, one an erasure, written once. A log that slept, or an import, may bring back what was erased at any time, so whoever
//! opens one reads them all ([`Catalog::ever_erased`]).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::Catalog;
use super::document::Document;
use super::erasures::ErasureEntry;
use super::limits::MOST_ERASURES;
use crate::error::{Error, Result};
use crate::plan::Rules;
use crate::store::Store;

/// Objects that are read at once.
const AT_ONCE: usize = 16;

/// The part of an erasure that was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aside {
    /// Ids of records that it names.
    pub ids: u64,
    /// Ids of feedback that goes with them.
    pub feedback: u64,
}

impl Document {
    /// The erasures that are done and have lists, and those that are older than the newest few that are done.
    fn erasures_to_set_aside(&self, now: DateTime<Utc>) -> Vec<ErasureEntry> {
        let old = self.oldest_done(now);
        let has_list = |entry: &ErasureEntry| !entry.ids.is_empty() || !entry.feedback.is_empty();
        let leaves = |entry: &&ErasureEntry| entry.is_done(now) && (has_list(entry) || old.contains(&entry.id));
        self.erasures.iter().filter(leaves).cloned().collect()
    }

    /// Ids of erasures that are done, but for the newest few of each organisation.
    fn oldest_done(&self, now: DateTime<Utc>) -> HashSet<String> {
        let mut newest: HashMap<&str, usize> = HashMap::new();
        let mut old = HashSet::new();
        for entry in self.erasures.iter().rev().filter(|entry| entry.is_done(now)) {
            let count = newest.entry(entry.organisation.as_str()).or_default();
            *count += 1;
            if *count > MOST_ERASURES {
                old.insert(entry.id.clone());
            }
        }
        old
    }

    /// Takes out the lists of erasures that were written to objects of their own, and the oldest of these erasures.
    fn set_aside(&mut self, written: &HashSet<String>, now: DateTime<Utc>) {
        let old = self.oldest_done(now);
        self.erasures.retain(|entry| !(written.contains(&entry.id) && old.contains(&entry.id)));
        for entry in self.erasures.iter_mut().filter(|entry| written.contains(&entry.id)) {
            let (ids, feedback) = (std::mem::take(&mut entry.ids), std::mem::take(&mut entry.feedback));
            let before = entry.aside.unwrap_or(Aside { ids: 0, feedback: 0 });
            let more = |before: u64, list: &[String]| before.max(list.len() as u64);
            entry.aside = Some(Aside { ids: more(before.ids, &ids), feedback: more(before.feedback, &feedback) });
        }
    }
}

impl Catalog {
    /// Sets erasures aside that are done.
    pub async fn set_erasures_aside(&self) -> Result<()> {
        let now = (self.inner.now)();
        let done = self.state().document.erasures_to_set_aside(now);
        if done.is_empty() {
            return Ok(());
        }
        for entry in done.iter().filter(|entry| entry.aside.is_none()) {
            write(&self.inner.store, entry).await?;
        }
        let written: HashSet<String> = done.into_iter().map(|entry| entry.id).collect();
        self.change(|document| {
            document.set_aside(&written, now);
            Ok(())
        })
        .await
    }

    /// Everything that was ever erased, also what is out of force or was set aside: a log that slept may bring it back.
    pub async fn ever_erased(&self) -> Result<Rules> {
        let mut entries = read_all(&self.inner.store).await?;
        entries.extend(self.state().document.erasures.iter().cloned());
        Ok(super::erasures::ever_erased(&entries))
    }
}

async fn write(store: &Store, entry: &ErasureEntry) -> Result<()> {
    let text =
        serde_json::to_vec(entry).map_err(|cause| Error::internal("cannot encode an erasure").with_source(cause))?;
    let path = store.erasure_path(&entry.id);
    let put = store.object_store().put(&path, PutPayload::from(text)).await;
    put.map(|_| ()).map_err(|cause| Error::storage(format!("cannot write `{path}`")).with_source(cause))
}

async fn read_all(store: &Store) -> Result<Vec<ErasureEntry>> {
    let folder = store.erasures_path();
    let listed: Vec<_> = store
        .object_store()
        .list(Some(&folder))
        .try_collect()
        .await
        .map_err(|cause| Error::storage(format!("cannot list `{folder}`")).with_source(cause))?;
    let read = |object: object_store::ObjectMeta| async move {
        let path = object.location;
        let unreadable = |cause| Error::storage(format!("cannot read `{path}`")).with_source(cause);
        let bytes = store.object_store().get(&path).await.map_err(unreadable)?.bytes().await.map_err(unreadable)?;
        serde_json::from_slice(&bytes).map_err(|cause| {
            Error::damaged(format!("`{path}` is no erasure; restore it from a copy")).with_source(cause)
        })
    };
    futures::stream::iter(listed).map(read).buffer_unordered(AT_ONCE).try_collect().await
}
