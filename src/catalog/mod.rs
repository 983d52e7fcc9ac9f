//! The catalog: one small JSON document beside the tables, with organisations, plans, keys,
//! erasures and export jobs.
//!
//! A change reads the newest document, changes it and replaces exactly that version: on S3 by a
//! conditional put, on a disk under a lock file. So two nodes, or a command beside a running
//! server, never lose each other's changes. Changes of others become visible after
//! [`Catalog::refresh`]. Requests are answered from memory.
//!
//! On a disk, a document that can be read may not be durable yet: its writer may have died, or
//! failed, before it synced the folder. So a document that this process did not write is synced
//! before anything depends on it ([`Catalog::settle`]), and written again before a change that it
//! already contains is acknowledged.

mod access;
mod archived_erasures;
mod document;
mod dto;
mod erasures;
mod exports;
mod field_restrictions;
mod identity;
mod keys;
mod known;
mod limits;
mod model;
mod rights;
mod saved;
mod share;
mod signature;
mod user_mentions;

#[cfg(test)]
mod dropped_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use parking_lot::{Mutex, RwLock};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

pub(crate) use access::hash;
pub use access::{Access, Scope, key_text};
pub(crate) use document::no_organisation;
pub use dto::{CreatedKey, ErasureView, ExportView, KeyView, OrganisationView, PlanView};
pub use erasures::{ErasureSelector, arrival};
pub use exports::ExportChange;
pub(crate) use exports::{Ended, ExportEnd, LINK_SECONDS};
pub(crate) use field_restrictions::{Denied, holds_bodies};
pub(crate) use identity::Identity;
pub use keys::NewKey;
pub use model::{
    Document, ErasureEntry, ExportFile, ExportJob, ExportStatus, Key, Organisation,
    RetentionChange, Share,
};
pub(crate) use saved::SavedFilterView;
pub use share::ShareLinkView;
pub(crate) use share::expiry as share_expiry;

use crate::clock;
use crate::error::{Error, Result};
use crate::plan::Rules;
use crate::store::folders::{is_disk_full, is_sync_failure};
use crate::store::{CatalogLock, Store};

/// Maximum number of concurrent changes by others before a change gives up.
const RACES: u32 = 50;
/// Interval at which requests look for a newer document if theirs is too old, and the time-out of
/// each attempt.
const TRY_EVERY: Duration = Duration::from_secs(1);
const TRY_FOR: Duration = Duration::from_secs(2);

/// One state of the catalog.
#[derive(Debug)]
pub struct State {
    /// The document.
    pub document: Document,
    /// Rules that follow from the document.
    pub rules: Arc<Rules>,
    by_hash: HashMap<String, usize>,
    by_id: HashMap<String, usize>,
    version: Option<UpdateVersion>,
}

/// The catalog of a store. Clones share its state.
#[derive(Clone, Debug)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    unknown_days: i32,
    now: fn() -> DateTime<Utc>,
    /// Monotonic clock.
    elapsed: fn() -> Duration,
    state: RwLock<Arc<State>>,
    /// Time at which the document was last known to be the newest, by the monotonic clock.
    confirmed: Mutex<Duration>,
    /// Time at which a request last failed to look for a newer document.
    failed: Mutex<Option<Duration>>,
    /// Lock of requests that look for a newer document, one at a time.
    looking: tokio::sync::Mutex<()>,
    /// Lock of changes by this process, one at a time. Its holder may write the document.
    changing: Arc<tokio::sync::Mutex<Durable>>,
}

/// Locks of a change. They move into the task that writes, so that they are held until the write
/// ends even if the caller stops waiting.
#[derive(Debug)]
struct Held {
    durable: OwnedMutexGuard<Durable>,
    _no_other_process: CatalogLock,
}

/// Documents that are known to be durable, by the tags of their files.
#[derive(Debug, Default)]
struct Durable {
    /// The last document that this process wrote.
    written: Option<String>,
    /// The last document that this process synced.
    synced: Option<String>,
}

impl Durable {
    fn note_written(&mut self, version: &UpdateVersion) {
        self.written.clone_from(&version.e_tag);
        self.synced.clone_from(&version.e_tag);
    }
}

impl Catalog {
    /// Opens the catalog, which is empty if the store has none yet. `unknown_days` is the retention
    /// of organisations that are not in it.
    pub async fn open(
        store: &Store,
        unknown_days: i32,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Self> {
        Self::open_with(store, unknown_days, now, clock::elapsed).await
    }

    /// Opens the catalog with the given monotonic clock.
    pub async fn open_with(
        store: &Store,
        unknown_days: i32,
        now: fn() -> DateTime<Utc>,
        elapsed: fn() -> Duration,
    ) -> Result<Self> {
        let began = elapsed();
        let (document, version) = read(store)
            .await?
            .map_or_else(Default::default, |(document, version)| (document, Some(version)));
        let state = RwLock::new(Arc::new(State::new(document, version, unknown_days, now())));
        let store = store.clone();
        let confirmed = Mutex::new(began);
        let failed = Mutex::new(None);
        let looking = tokio::sync::Mutex::default();
        let changing = Arc::default();
        let inner = Inner {
            store,
            unknown_days,
            now,
            elapsed,
            state,
            confirmed,
            failed,
            looking,
            changing,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the newest known state.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.state.read())
    }

    /// Returns the rules of the newest known state.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.inner.state.read().rules)
    }

    /// Returns the days that records of organisations outside the catalog are kept, 0 for ever.
    pub fn unknown_days(&self) -> i32 {
        self.inner.unknown_days
    }

    /// Returns true if the store has a document.
    pub fn is_stored(&self) -> bool {
        self.state().version.is_some()
    }

    /// Returns the time since the document was last known to be the newest.
    pub fn age(&self) -> Duration {
        (self.inner.elapsed)().saturating_sub(*self.inner.confirmed.lock())
    }

    /// Returns true if the document was the newest at most this long ago. If not, looks for a newer
    /// one first, at a bounded rate and for a bounded time.
    pub async fn is_fresh(&self, most: Duration) -> bool {
        if self.age() <= most {
            return true;
        }
        let now = (self.inner.elapsed)();
        if self.inner.failed.lock().is_some_and(|last| now.saturating_sub(last) < TRY_EVERY) {
            return false;
        }
        let is_fresh = matches!(tokio::time::timeout(TRY_FOR, self.refresh()).await, Ok(Ok(_)));
        *self.inner.failed.lock() = (!is_fresh).then_some(now);
        is_fresh
    }

    /// Returns the time of the monotonic clock.
    pub fn elapsed(&self) -> Duration {
        (self.inner.elapsed)()
    }

    /// Looks for a newer document unless this one was the newest at the given time of the monotonic
    /// clock. Concurrent callers share one attempt.
    pub async fn look_since(&self, moment: Duration) {
        let _one_at_a_time = self.inner.looking.lock().await;
        if *self.inner.confirmed.lock() < moment {
            self.is_fresh(Duration::ZERO).await;
        }
    }

    /// Looks for changes by others. Returns true if there are any.
    pub async fn refresh(&self) -> Result<bool> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let began = (self.inner.elapsed)();
        let found = head(&self.inner.store).await?;
        let known = self.state().version.clone();
        if found.as_ref().map(|version| &version.e_tag)
            == known.as_ref().map(|version| &version.e_tag)
        {
            self.confirm(began);
            return Ok(false);
        }
        self.reload().await?;
        Ok(true)
    }

    /// Syncs the newest known document to the disk if another process wrote it. The effects of its
    /// rules on stored data must not be more durable than the document.
    pub async fn settle(&self) -> Result<()> {
        let mut durable = Arc::clone(&self.inner.changing).lock_owned().await;
        let Some(e_tag) = self.state().version.as_ref().and_then(|version| version.e_tag.clone())
        else {
            return Ok(());
        };
        if self.inner.store.is_shared() || durable.synced.as_ref() == Some(&e_tag) {
            return Ok(());
        }
        let store = self.inner.store.clone();
        // The task holds the lock: no other write begins if the caller stops waiting.
        let sync = move || {
            store.make_durable(&[store.catalog_path()])?;
            durable.synced = Some(e_tag);
            Ok(())
        };
        let synced = tokio::task::spawn_blocking(sync).await;
        synced
            .map_err(|cause| Error::internal("syncing the catalog broke off").with_source(cause))?
    }

    /// Changes the document and returns the result of `change`. `change` is called again, on a
    /// newer document, if another change came first; the last result is returned. An error of
    /// `change` changes nothing. A write that has begun completes, and takes effect, even if the
    /// caller stops waiting.
    pub async fn change<T>(&self, mut change: impl FnMut(&mut Document) -> Result<T>) -> Result<T> {
        let durable = Arc::clone(&self.inner.changing).lock_owned().await;
        let mut held = Held { durable, _no_other_process: self.inner.store.lock_catalog().await? };
        let mut attempted = None;
        for _ in 0..RACES {
            self.reload().await?;
            let state = self.state();
            // A store may accept a document, lose the response, and refuse its own second attempt.
            if let Some((_, answer)) =
                attempted.take_if(|(change, _)| *change == state.document.change)
            {
                return Ok(answer);
            }
            let mut document = state.document.clone();
            let answer = change(&mut document)?;
            document.withdraw_narrowed(&state.document);
            if document == state.document
                && let Some(version) = &state.version
            {
                // There is nothing to change, and the response means that the document is durable.
                if self.inner.store.is_shared()
                    || (version.e_tag.is_some() && version.e_tag == held.durable.written)
                {
                    return Ok(answer);
                }
            } else {
                document.change = Uuid::new_v4().to_string();
            }
            let name = document.change.clone();
            let (locks, written) = self.replace(held, document, state.version.clone()).await?;
            if written {
                return Ok(answer);
            }
            held = locks;
            attempted = Some((name, answer));
        }
        Err(Error::busy(format!(
            "`catalog.json` was changed by others {RACES} times in a row; try again"
        )))
    }

    /// Changes the document on behalf of a key, whose rights are checked in the same document.
    /// Returns an error if the key was revoked or has expired since the request arrived.
    pub async fn change_as<T>(
        &self,
        access: &Access,
        mut change: impl FnMut(&mut Document) -> Result<T>,
    ) -> Result<T> {
        self.change(|document| {
            document.check_access(access, (self.inner.now)())?;
            change(document)
        })
        .await
    }

    /// Replaces the document that has version `before`, and takes over the new one. A separate task
    /// holds the locks until both are done. Returns false if another document came first.
    async fn replace(
        &self,
        mut held: Held,
        document: Document,
        before: Option<UpdateVersion>,
    ) -> Result<(Held, bool)> {
        let catalog = self.clone();
        let writing = tokio::spawn(async move {
            let began = (catalog.inner.elapsed)();
            let Some(version) = write(&catalog.inner.store, &document, before).await? else {
                return Ok((held, false));
            };
            held.durable.note_written(&version);
            catalog.take(document, Some(version));
            catalog.confirm(began);
            Ok((held, true))
        });
        writing
            .await
            .map_err(|cause| Error::internal("writing the catalog broke off").with_source(cause))?
    }

    /// Records that the document was the newest at a time of the monotonic clock.
    fn confirm(&self, at: Duration) {
        let mut confirmed = self.inner.confirmed.lock();
        *confirmed = at.max(*confirmed);
    }

    /// Delays every change until the returned lock is dropped.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> Box<dyn std::any::Any + Send> {
        Box::new(Arc::clone(&self.inner.changing).lock_owned().await)
    }

    /// Returns true if a change holds the lock.
    #[cfg(test)]
    pub(crate) fn is_changing(&self) -> bool {
        self.inner.changing.try_lock().is_err()
    }

    async fn reload(&self) -> Result<()> {
        let began = (self.inner.elapsed)();
        let (document, version) = match read(&self.inner.store).await? {
            Some((document, version)) => (document, Some(version)),
            None if self.is_stored() => {
                return Err(Error::damaged("`catalog.json` is gone; restore it from a copy"));
            }
            None => (Document::default(), None),
        };
        self.take(document, version);
        self.confirm(began);
        Ok(())
    }

    fn take(&self, document: Document, version: Option<UpdateVersion>) {
        let state = State::new(document, version, self.inner.unknown_days, (self.inner.now)());
        *self.inner.state.write() = Arc::new(state);
    }
}

impl State {
    fn new(
        document: Document,
        version: Option<UpdateVersion>,
        unknown_days: i32,
        now: DateTime<Utc>,
    ) -> Self {
        let place = |of: fn(&Key) -> &String| {
            document
                .keys
                .iter()
                .enumerate()
                .map(|(place, key)| (of(key).clone(), place))
                .collect::<HashMap<_, _>>()
        };
        let by_hash = place(|key| &key.sha256);
        let by_id = place(|key| &key.id);
        let rules = Arc::new(document.rules(unknown_days, now));
        Self { document, rules, by_hash, by_id, version }
    }

    /// Returns the access of a key. `None` if it is unknown, expired or revoked.
    pub fn access(&self, key: &str, now: DateTime<Utc>) -> Option<Access> {
        let key = self.by_hash.get(&hash(key)).and_then(|place| self.document.keys.get(*place))?;
        key.is_active(now).then(|| Access {
            key_id: key.id.clone(),
            organisation: key.organisation.clone(),
            workspace: key.workspace.clone(),
            scopes: key.scopes.clone(),
        })
    }

    /// Returns true if a key was revoked by a given time.
    pub fn was_revoked(&self, key_id: &str, at: DateTime<Utc>) -> bool {
        let key = self.by_id.get(key_id).and_then(|place| self.document.keys.get(*place));
        key.and_then(|key| key.revoked_at).is_some_and(|revoked_at| revoked_at <= at)
    }

    /// Checks that the key behind an access still opens what it opened when the request arrived.
    pub fn check_access(&self, access: &Access, now: DateTime<Utc>) -> Result<()> {
        let key = self.by_id.get(&access.key_id).and_then(|place| self.document.keys.get(*place));
        self.document.check_access_of(key, access, now)
    }
}

async fn head(store: &Store) -> Result<Option<UpdateVersion>> {
    match store.object_store().head(&store.catalog_path()).await {
        Ok(meta) => Ok(Some(UpdateVersion { e_tag: meta.e_tag, version: meta.version })),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(cause) => Err(Error::storage("cannot read `catalog.json`").with_source(cause)),
    }
}

/// Reads the document of a store. `None` if there is none yet.
pub(crate) async fn read_document(store: &Store) -> Result<Option<Document>> {
    Ok(read(store).await?.map(|(document, _)| document))
}

/// Encodes a document for the store.
pub(crate) fn encode(document: &Document) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(document)
        .map_err(|cause| Error::internal("cannot encode the catalog").with_source(cause))
}

async fn read(store: &Store) -> Result<Option<(Document, UpdateVersion)>> {
    let unreadable = |cause| Error::storage("cannot read `catalog.json`").with_source(cause);
    let found = match store.object_store().get(&store.catalog_path()).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(cause) => return Err(unreadable(cause)),
    };
    let version =
        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
    let bytes = found.bytes().await.map_err(unreadable)?;
    let mut document: Document = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::damaged("`catalog.json` is not a gatelog catalog; restore it from a copy")
            .with_source(cause)
    })?;
    match document.format {
        model::FORMAT => {}
        1 | 2 => document.format = model::FORMAT,
        found => {
            let reads = model::FORMAT;
            return Err(Error::damaged(format!(
                "`catalog.json` has format {found}; this gatelog reads 1 to {reads}"
            )));
        }
    }
    Ok(Some((document, version)))
}

/// Returns the error for a failed write. Its text also explains the cause, which clients do not
/// see.
fn unwritten(cause: object_store::Error) -> Error {
    let why = if is_sync_failure(&cause) {
        ": the disk failed to sync it, so it is unknown whether the change lasts; check the disk and make the change again"
    } else if is_disk_full(&cause) {
        ": the disk is full; nothing was changed: make room and try again"
    } else {
        ""
    };
    Error::storage(format!("cannot write `catalog.json`{why}")).with_source(cause)
}

/// Replaces the document that has version `before`. Returns `None` if it is no longer the current
/// one.
async fn write(
    store: &Store,
    document: &Document,
    before: Option<UpdateVersion>,
) -> Result<Option<UpdateVersion>> {
    let bytes = encode(document)?;
    let mode = match before {
        None => PutMode::Create,
        // On a disk the caller holds the lock, so nothing else writes the file.
        Some(_) if store.folder().is_some() => PutMode::Overwrite,
        Some(version) => PutMode::Update(version),
    };
    let options = PutOptions { mode, ..PutOptions::default() };
    match store
        .object_store()
        .put_opts(&store.catalog_path(), PutPayload::from(bytes), options)
        .await
    {
        Ok(put) => Ok(Some(UpdateVersion { e_tag: put.e_tag, version: put.version })),
        Err(
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. },
        ) => Ok(None),
        Err(cause) => Err(unwritten(cause)),
    }
}
