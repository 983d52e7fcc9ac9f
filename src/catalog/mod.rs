//! The catalog: one small JSON document beside the tables, with organisations, plans, keys,
//! erasures and export jobs.
//!
//! A change reads the newest document, changes it and puts it in the place of exactly that one: on
//! S3 by a conditional put, on a disk under a lock file, so that two nodes, or a command beside a
//! running server, never lose each other's change. What others changed is seen after
//! [`Catalog::refresh`]. Everything that a request asks of it is answered from memory.
//!
//! On a disk a document that can be read need not be durable: whoever wrote it may have died, or
//! failed, before the folder was synced. So one that this process did not write is synced before
//! anything else rests on it ([`Catalog::settle`]), and written again before a change that it
//! already holds is acked.

mod access;
mod aside;
mod document;
mod dto;
mod erasures;
mod exports;
mod field_restrictions;
mod identity;
mod keys;
mod known;
mod limits;
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

pub use access::{Access, Scope, hash, key_text};
pub use document::{Document, Move, Organisation, no_organisation};
pub use dto::{CreatedKey, ErasureView, ExportView, KeyView, OrganisationView, PlanView};
pub use erasures::{ErasureEntry, ErasureSelector, arrival};
pub use exports::{
    Ended, ExportChange, ExportEnd, ExportFile, ExportJob, ExportStatus, LINK_SECONDS,
};
pub use field_restrictions::{Denied, holds_bodies};
pub use identity::Identity;
pub use keys::{Key, NewKey};
pub use saved::SavedFilterView;
pub use share::{Share, ShareLinkView, expiry as share_expiry};

use crate::clock;
use crate::error::{Error, Result};
use crate::plan::Rules;
use crate::store::folders::{is_disk_full, is_sync_failure};
use crate::store::{CatalogLock, Store};

/// Changes of others that may come between before one of ours gives up.
const RACES: u32 = 50;
/// How often, and for how long, requests look for a newer document when theirs is too old.
const TRY_EVERY: Duration = Duration::from_secs(1);
const TRY_FOR: Duration = Duration::from_secs(2);

/// One state of the catalog.
#[derive(Debug)]
pub struct State {
    /// The document.
    pub document: Document,
    /// What follows from it.
    pub rules: Arc<Rules>,
    by_hash: HashMap<String, usize>,
    by_id: HashMap<String, usize>,
    version: Option<UpdateVersion>,
}

/// The catalog of a store. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    unknown_days: i32,
    now: fn() -> DateTime<Utc>,
    /// The monotonic clock.
    elapsed: fn() -> Duration,
    state: RwLock<Arc<State>>,
    /// When the document was last seen to be the newest, by the monotonic clock.
    confirmed: Mutex<Duration>,
    /// When a request last looked for a newer one and got no answer.
    failed: Mutex<Option<Duration>>,
    /// One look for a newer document at a time, of those that wait for it.
    looking: tokio::sync::Mutex<()>,
    /// One change of this process at a time; whoever has it may write to the document.
    changing: Arc<tokio::sync::Mutex<Durable>>,
}

/// The locks of a change. They move into the task that writes, so that a caller that stops waiting
/// frees none of them while the write goes on.
#[derive(Debug)]
struct Held {
    durable: OwnedMutexGuard<Durable>,
    _no_other_process: CatalogLock,
}

/// The documents that are known to be durable, by the tags of their files.
#[derive(Debug, Default)]
struct Durable {
    /// The last that this process wrote.
    written: Option<String>,
    /// The last that it synced.
    synced: Option<String>,
}

impl Durable {
    fn note_written(&mut self, version: &UpdateVersion) {
        self.written.clone_from(&version.e_tag);
        self.synced.clone_from(&version.e_tag);
    }
}

impl Catalog {
    /// Reads the catalog; an empty one if there is none yet. `unknown_days` is the retention of
    /// organisations that are not in it.
    pub async fn open(
        store: &Store,
        unknown_days: i32,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Self> {
        Self::open_with(store, unknown_days, now, clock::elapsed).await
    }

    /// Reads the catalog with a monotonic clock of the caller's.
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
        let (store, confirmed, changing) = (store.clone(), Mutex::new(began), Arc::default());
        let (failed, looking) = (Mutex::new(None), tokio::sync::Mutex::default());
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

    /// The newest state that is known here.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.state.read())
    }

    /// The rules of the newest state that is known here.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.inner.state.read().rules)
    }

    /// Days that records of organisations which are not in the catalog are kept; 0 = for ever.
    pub fn unknown_days(&self) -> i32 {
        self.inner.unknown_days
    }

    /// Whether there is a document in the store.
    pub fn is_stored(&self) -> bool {
        self.state().version.is_some()
    }

    /// Time since the document was last seen to be the newest.
    pub fn age(&self) -> Duration {
        (self.inner.elapsed)().saturating_sub(*self.inner.confirmed.lock())
    }

    /// Returns whether the document was the newest so short a time ago. Looks for a newer one if
    /// not, at a bounded rate and for a bounded time.
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

    /// The time of its monotonic clock.
    pub fn elapsed(&self) -> Duration {
        (self.inner.elapsed)()
    }

    /// Looks for a newer document unless this one was the newest at a moment of the monotonic
    /// clock. Of many who ask at once, one looks.
    pub async fn look_since(&self, moment: Duration) {
        let _one_at_a_time = self.inner.looking.lock().await;
        if *self.inner.confirmed.lock() < moment {
            self.is_fresh(Duration::ZERO).await;
        }
    }

    /// Looks for changes that others made; true if there are any.
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

    /// Syncs the newest document that is known here, if another process wrote it to a disk: what is
    /// stored, expired or erased by its rules must not outlast it.
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
        // The lock goes with the work: a caller that stops waiting lets no other write begin
        // meanwhile.
        let sync = move || {
            store.make_durable(&[store.catalog_path()])?;
            durable.synced = Some(e_tag);
            Ok(())
        };
        let synced = tokio::task::spawn_blocking(sync).await;
        synced
            .map_err(|cause| Error::internal("syncing the catalog broke off").with_source(cause))?
    }

    /// Changes the document. `change` may be called again, on a newer document, where another
    /// change came between; what it answers the last time is answered here. An error of it changes
    /// nothing. A write that has begun ends, and is taken over here, also if the caller stops
    /// waiting.
    pub async fn change<T>(&self, mut change: impl FnMut(&mut Document) -> Result<T>) -> Result<T> {
        let durable = Arc::clone(&self.inner.changing).lock_owned().await;
        let mut held = Held { durable, _no_other_process: self.inner.store.lock_catalog().await? };
        let mut attempted = None;
        for _ in 0..RACES {
            self.reload().await?;
            let state = self.state();
            // A store may take a document, lose the answer, and refuse the second try of its own.
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
                // Nothing is to be changed, and the answer says that it lasts.
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

    /// Changes the document for a key, whose rights are looked up in the same document: one that
    /// was revoked, or has expired, since the request came changes nothing.
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

    /// Writes a document in the place of the one that had `before`, and takes it over. A task of
    /// its own holds the locks until both are done. False if another document came between.
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

    /// Notes that the document was the newest at a moment of the monotonic clock.
    fn confirm(&self, at: Duration) {
        let mut confirmed = self.inner.confirmed.lock();
        *confirmed = at.max(*confirmed);
    }

    /// Keeps every change waiting until the lock is dropped.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> Box<dyn std::any::Any + Send> {
        Box::new(Arc::clone(&self.inner.changing).lock_owned().await)
    }

    /// Returns whether a change holds the lock.
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
        let (by_hash, by_id) = (place(|key| &key.sha256), place(|key| &key.id));
        let rules = Arc::new(document.rules(unknown_days, now));
        Self { document, rules, by_hash, by_id, version }
    }

    /// What a key may do; none if it is unknown, expired or revoked.
    pub fn access(&self, key: &str, now: DateTime<Utc>) -> Option<Access> {
        let key = self.by_hash.get(&hash(key)).and_then(|place| self.document.keys.get(*place))?;
        key.is_active(now).then(|| Access {
            key_id: key.id.clone(),
            organisation: key.organisation.clone(),
            workspace: key.workspace.clone(),
            scopes: key.scopes.clone(),
        })
    }

    /// Returns whether a key had been revoked at a moment.
    pub fn was_revoked(&self, key_id: &str, at: DateTime<Utc>) -> bool {
        let key = self.by_id.get(key_id).and_then(|place| self.document.keys.get(*place));
        key.and_then(|key| key.revoked_at).is_some_and(|revoked_at| revoked_at <= at)
    }

    /// Checks that the key behind an access still opens what it opened when the request came.
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

/// The document of a store; none if there is none yet.
pub async fn read_document(store: &Store) -> Result<Option<Document>> {
    Ok(read(store).await?.map(|(document, _)| document))
}

/// The bytes that a document is stored as.
pub fn encode(document: &Document) -> Result<Vec<u8>> {
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
        document::FORMAT => {}
        1 | 2 => document.format = document::FORMAT,
        found => {
            let reads = document::FORMAT;
            return Err(Error::damaged(format!(
                "`catalog.json` has format {found}; this gatelog reads 1 to {reads}"
            )));
        }
    }
    Ok(Some((document, version)))
}

/// Why a document was not written, in words that also a client reads who does not see the cause.
fn unwritten(cause: object_store::Error) -> Error {
    let why = if is_sync_failure(&cause) {
        ": the disk failed to sync it, so the change may last or not; look at the disk and make the change again"
    } else if is_disk_full(&cause) {
        ": the disk is full; nothing was changed: make room and try again"
    } else {
        ""
    };
    Error::storage(format!("cannot write `catalog.json`{why}")).with_source(cause)
}

/// Puts the document in the place of the one that had `before`; none if that one is there no
/// longer.
async fn write(
    store: &Store,
    document: &Document,
    before: Option<UpdateVersion>,
) -> Result<Option<UpdateVersion>> {
    let bytes = encode(document)?;
    let mode = match before {
        None => PutMode::Create,
        // On a disk the lock is held, and nothing else writes the file.
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
