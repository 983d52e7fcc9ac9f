//! The catalog: one small JSON document beside the tables, with organisations, plans, keys, erasures and export jobs.
//!
//! A change reads the newest document, changes it and puts it in the place of exactly that one: on S3 by a conditional put, on
//! a disk under a lock file, so that two nodes, or a command beside a running server, never lose each other's change. What
//! others changed is seen after [`Catalog::refresh`]. Everything that a request asks of it is answered from memory.
//!
//! On a disk a document that can be read need not be durable: whoever wrote it may have died, or failed, before the folder was
//! synced. So one that this process did not write is synced before anything else rests on it ([`Catalog::settle`]), and written
//! again before a change that it already holds is acked.

mod access;
mod denied;
mod document;
mod erasures;
mod exports;
mod identity;
mod keys;
mod known;
mod naming;
mod saved;
mod share;
mod shown;
mod sign;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use parking_lot::RwLock;
use uuid::Uuid;

pub use access::{Access, Scope, hash, key_text};
pub use denied::holds_bodies;
pub use document::{Document, Move, Organisation, no_organisation};
pub use erasures::{ErasureEntry, Which};
pub use exports::{Ended, ExportChange, ExportEnd, ExportFile, ExportJob, ExportStatus, LINK_SECONDS};
pub use identity::Identity;
pub use keys::{Key, NewKey};
pub use saved::ShownFilter;
pub use share::{Share, ShownShare, expiry as share_expiry};
pub use shown::{FreshKey, ShownErasure, ShownExport, ShownKey, ShownOrganisation, ShownPlan};

use crate::error::{Error, Result};
use crate::plan::Rules;
use crate::store::Store;
use crate::store::folders::{is_disk_full, is_sync_failure};

/// Changes of others that may come between before one of ours gives up.
const RACES: u32 = 50;

/// One state of the catalog.
#[derive(Debug)]
pub struct State {
    /// The document.
    pub document: Document,
    /// What follows from it.
    pub rules: Arc<Rules>,
    by_hash: HashMap<String, usize>,
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
    state: RwLock<Arc<State>>,
    /// One change of this process at a time; whoever has it may write to the document.
    changing: tokio::sync::Mutex<Durable>,
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
    /// Reads the catalog; an empty one if there is none yet. `unknown_days` is the retention of organisations that are not in
    /// it.
    pub async fn open(store: &Store, unknown_days: i32, now: fn() -> DateTime<Utc>) -> Result<Self> {
        let (document, version) =
            read(store).await?.map_or_else(Default::default, |(document, version)| (document, Some(version)));
        let state = RwLock::new(Arc::new(State::new(document, version, unknown_days, now())));
        let inner = Inner { store: store.clone(), unknown_days, now, state, changing: tokio::sync::Mutex::default() };
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

    /// Looks for changes that others made; true if there are any.
    pub async fn refresh(&self) -> Result<bool> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let found = head(&self.inner.store).await?;
        let known = self.state().version.clone();
        if found.as_ref().map(|version| &version.e_tag) == known.as_ref().map(|version| &version.e_tag) {
            return Ok(false);
        }
        self.reload().await?;
        Ok(true)
    }

    /// Syncs the newest document that is known here, if another process wrote it to a disk: what is stored, expired or erased
    /// by its rules must not outlast it.
    pub async fn settle(&self) -> Result<()> {
        let mut durable = self.inner.changing.lock().await;
        let Some(e_tag) = self.state().version.as_ref().and_then(|version| version.e_tag.clone()) else {
            return Ok(());
        };
        if self.inner.store.is_shared() || durable.synced.as_ref() == Some(&e_tag) {
            return Ok(());
        }
        let store = self.inner.store.clone();
        let sync = move || store.make_durable(&[store.catalog_path()]);
        let synced = tokio::task::spawn_blocking(sync).await;
        synced.map_err(|cause| Error::internal("syncing the catalog broke off").with_source(cause))??;
        durable.synced = Some(e_tag);
        Ok(())
    }

    /// Changes the document. `change` may be called again, on a newer document, where another change came between; what it
    /// answers the last time is answered here. An error of it changes nothing.
    pub async fn change<T>(&self, mut change: impl FnMut(&mut Document) -> Result<T>) -> Result<T> {
        let mut durable = self.inner.changing.lock().await;
        let _no_other_process = self.inner.store.lock_catalog().await?;
        let mut attempted = None;
        for _ in 0..RACES {
            self.reload().await?;
            let state = self.state();
            // A store may take a document, lose the answer, and refuse the second try of its own.
            if let Some((_, answer)) = attempted.take_if(|(change, _)| *change == state.document.change) {
                return Ok(answer);
            }
            let mut document = state.document.clone();
            let answer = change(&mut document)?;
            document.withdraw_narrowed(&state.document);
            if document == state.document
                && let Some(version) = &state.version
            {
                // Nothing is to be changed, and the answer says that it lasts.
                if self.inner.store.is_shared() || (version.e_tag.is_some() && version.e_tag == durable.written) {
                    return Ok(answer);
                }
            } else {
                document.change = Uuid::new_v4().to_string();
            }
            if let Some(version) = write(&self.inner.store, &document, state.version.clone()).await? {
                durable.note_written(&version);
                self.take(document, Some(version));
                return Ok(answer);
            }
            attempted = Some((document.change, answer));
        }
        Err(Error::busy(format!("`catalog.json` was changed by others {RACES} times in a row; try again")))
    }

    async fn reload(&self) -> Result<()> {
        let (document, version) = match read(&self.inner.store).await? {
            Some((document, version)) => (document, Some(version)),
            None if self.is_stored() => return Err(Error::damaged("`catalog.json` is gone; restore it from a copy")),
            None => (Document::default(), None),
        };
        self.take(document, version);
        Ok(())
    }

    fn take(&self, document: Document, version: Option<UpdateVersion>) {
        let state = State::new(document, version, self.inner.unknown_days, (self.inner.now)());
        *self.inner.state.write() = Arc::new(state);
    }
}

impl State {
    fn new(document: Document, version: Option<UpdateVersion>, unknown_days: i32, now: DateTime<Utc>) -> Self {
        let by_hash = document.keys.iter().enumerate().map(|(place, key)| (key.sha256.clone(), place)).collect();
        let rules = Arc::new(document.rules(unknown_days, now));
        Self { document, rules, by_hash, version }
    }

    /// What a key may do; none if it is unknown, expired or revoked.
    pub fn access(&self, key: &str, now: DateTime<Utc>) -> Option<Access> {
        let key = self.by_hash.get(&hash(key)).and_then(|place| self.document.keys.get(*place))?;
        if key.revoked_at.is_some() || key.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return None;
        }
        Some(Access {
            key_id: key.id.clone(),
            organisation: key.organisation.clone(),
            workspace: key.workspace.clone(),
            scopes: key.scopes.clone(),
        })
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
    serde_json::to_vec_pretty(document).map_err(|cause| Error::internal("cannot encode the catalog").with_source(cause))
}

async fn read(store: &Store) -> Result<Option<(Document, UpdateVersion)>> {
    let unreadable = |cause| Error::storage("cannot read `catalog.json`").with_source(cause);
    let found = match store.object_store().get(&store.catalog_path()).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(cause) => return Err(unreadable(cause)),
    };
    let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
    let bytes = found.bytes().await.map_err(unreadable)?;
    let mut document: Document = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::damaged("`catalog.json` is not a gatelog catalog; restore it from a copy").with_source(cause)
    })?;
    match document.format {
        document::FORMAT => {}
        1 => document.format = document::FORMAT,
        found => {
            let reads = document::FORMAT;
            return Err(Error::damaged(format!("`catalog.json` has format {found}; this gatelog reads 1 to {reads}")));
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

/// Puts the document in the place of the one that had `before`; none if that one is there no longer.
async fn write(store: &Store, document: &Document, before: Option<UpdateVersion>) -> Result<Option<UpdateVersion>> {
    let bytes = encode(document)?;
    let mode = match before {
        None => PutMode::Create,
        // On a disk the lock is held, and nothing else writes the file.
        Some(_) if store.folder().is_some() => PutMode::Overwrite,
        Some(version) => PutMode::Update(version),
    };
    let options = PutOptions { mode, ..PutOptions::default() };
    match store.object_store().put_opts(&store.catalog_path(), PutPayload::from(bytes), options).await {
        Ok(put) => Ok(Some(UpdateVersion { e_tag: put.e_tag, version: put.version })),
        Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }) => Ok(None),
        Err(cause) => Err(unwritten(cause)),
    }
}
