//! Keys: their rights, the first one, and the freshness of the catalog that they are in.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use super::handle::{Engine, Inner};
use crate::catalog::{Access, Document, NewKey, Scope, hash, key_text};
use crate::error::Result;

/// The catalog is read again for unknown keys at most this often.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Inner {
    /// Notes records of a key whose rights could not be checked.
    pub(super) fn note_unconfirmed(&self, access: Option<&Access>, records: &[u128]) {
        let Some(access) = access.filter(|_| self.catalog.age() > self.max_age()) else { return };
        self.unconfirmed.note(&access.key_id, (self.now)(), records);
    }

    fn max_age(&self) -> Duration {
        Duration::from_secs(self.config.max_staleness_seconds)
    }

    pub(super) fn gate(&self) -> Gate {
        Gate { catalog: self.catalog.clone(), now: self.now, max_age: Some(self.max_age()) }
    }

    /// Reads the catalog before it gets too old, independent of other slow work, for as long as the
    /// engine lives.
    pub(super) async fn keep_catalog_fresh(self: Arc<Self>) {
        let third = self.max_age() / 3;
        loop {
            tokio::time::sleep(third).await;
            if self.catalog.age() < third {
                continue;
            }
            match self.catalog.refresh().await {
                Ok(true) => {
                    self.forget_refusals();
                    self.maintenance_wanted.notify_one();
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(error = error.chain(), "the catalog cannot be read"),
            }
        }
    }
}

impl Engine {
    /// Returns the rights of a key, or `None` if it is unknown, expired or revoked. The key of the
    /// configuration is the operator's.
    pub fn access(&self, key: &str) -> Option<Access> {
        let configured = &self.inner.config.admin_key.0;
        // Hashes are compared, so the time of the comparison reveals nothing about the key.
        if !configured.is_empty() && hash(configured) == hash(key) {
            return Some(Access::operator("configured"));
        }
        self.inner.catalog.state().access(key, self.now())
    }

    /// Returns the rights of a key. An unknown key is looked up in the store again, at a bounded
    /// rate: another node or a command may have created it just now.
    pub async fn fresh_access(&self, key: &str) -> Option<Access> {
        if let Some(access) = self.access(key) {
            return Some(access);
        }
        // Not more often, and never by a read that began before the key arrived.
        let catalog = &self.inner.catalog;
        let came = catalog.elapsed();
        tokio::time::sleep(LOOK_AGAIN.saturating_sub(catalog.age())).await;
        catalog.look_since(came).await;
        self.access(key)
    }

    /// Creates an admin key if neither the configuration nor the catalog has one. Returns its text,
    /// which is stored nowhere.
    pub async fn ensure_admin_key(&self) -> Result<Option<String>> {
        let inner = &self.inner;
        let now = self.now();
        let has_one =
            |document: &Document| document.keys.iter().any(|key| key.opens_everything(now));
        if !inner.config.admin_key.0.is_empty() || has_one(&inner.catalog.state().document) {
            return Ok(None);
        }
        let text = key_text(self.random());
        let new = NewKey {
            name: Some("first".to_owned()),
            scopes: [Scope::Admin].into(),
            ..NewKey::default()
        };
        let make = |document: &mut Document| {
            // Another node that started at the same time may have been first.
            if has_one(document) {
                return Ok(false);
            }
            document.add_key(&text, new.clone(), now).map(|_| true)
        };
        Ok(inner.catalog.change(make).await?.then_some(text))
    }

    /// Refuses a key that was revoked or has expired since its request came
    /// ([`crate::error::ErrorKind::Denied`]).
    pub fn check_access(&self, access: &Access) -> Result<()> {
        self.inner.gate().check(access)
    }

    /// Returns an error if the catalog cannot be read for longer than `max_staleness_seconds`
    /// ([`crate::error::ErrorKind::Storage`]).
    pub async fn refuse_if_stale(&self) -> Result<()> {
        self.inner.gate().refuse_if_stale().await
    }
}
