//! The catalog: one small JSON document beside the tables. This version keeps API keys in it.
//!
//! Keys are stored as SHA-256 of a key with 256 random bits, so a stolen catalog opens nothing, and a slow hash would add
//! nothing. The document is written by conditional put: two engines that start at once cannot both create it.

use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::store::Store;

/// Version of the document's form.
const FORMAT: u32 = 1;

/// The document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    format: u32,
    keys: Vec<Key>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { format: FORMAT, keys: Vec::new() }
    }
}

/// One API key, without the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    id: String,
    sha256: String,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
}

impl Catalog {
    /// Reads the catalog; `None` if there is none yet.
    pub async fn read(store: &Store) -> Result<Option<Self>> {
        let path = store.catalog_path();
        let bytes = match store.object_store().get(&path).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        }
        .map_err(|cause| Error::storage("cannot read `catalog.json`").with_source(cause))?;
        let catalog: Self = serde_json::from_slice(&bytes).map_err(|cause| {
            Error::damaged("`catalog.json` is not a gatelog catalog; restore it from a copy").with_source(cause)
        })?;
        if catalog.format != FORMAT {
            let found = catalog.format;
            return Err(Error::damaged(format!("`catalog.json` has format {found}; this gatelog reads {FORMAT}")));
        }
        Ok(Some(catalog))
    }

    /// Creates the catalog with one admin key, whose text is answered here and kept nowhere.
    pub async fn create(store: &Store, now: DateTime<Utc>, random: [u8; 32]) -> Result<(Self, String)> {
        let text = format!("gl-{}", hex::encode(random));
        let key = Key {
            id: hash(&text)[..12].to_owned(),
            sha256: hash(&text),
            scopes: vec!["admin".to_owned()],
            created_at: now,
        };
        let catalog = Self { format: FORMAT, keys: vec![key] };
        let bytes = serde_json::to_vec_pretty(&catalog)
            .map_err(|cause| Error::internal("cannot encode the catalog").with_source(cause))?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store
            .object_store()
            .put_opts(&store.catalog_path(), PutPayload::from(bytes), options)
            .await
            .map_err(|cause| Error::storage("cannot create `catalog.json`").with_source(cause))?;
        Ok((catalog, text))
    }

    /// Whether this is an admin's key.
    pub fn is_admin(&self, key: &str) -> bool {
        let sha256 = hash(key);
        self.keys.iter().any(|known| known.sha256 == sha256 && known.scopes.iter().any(|scope| scope == "admin"))
    }
}

/// The hash that a key is stored and compared by, so that comparing leaks nothing about the key.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}
