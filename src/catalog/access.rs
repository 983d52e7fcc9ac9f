//! What a key may do: its scopes and the organisation that it is bound to.
//!
//! Keys are stored and looked up as SHA-256 of a key with 256 random bits: a stolen catalog opens nothing, a slow hash would
//! add nothing, and looking up a hash tells nothing about the key by its time.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

use super::keys::Key;
use crate::error::{Error, Result};
use crate::nearest::{clip, hint};

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Send records.
    #[serde(rename = "logs.write")]
    Write,
    /// Query records, without bodies.
    #[serde(rename = "logs.view")]
    View,
    /// Read bodies too.
    #[serde(rename = "logs.read")]
    Read,
    /// Export records.
    #[serde(rename = "logs.export")]
    Export,
    /// Run reports.
    #[serde(rename = "analytics.view")]
    Analytics,
    /// All of these, and manage keys; without an organisation also organisations and upkeep.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [Self::Write, Self::View, Self::Read, Self::Export, Self::Analytics, Self::Admin];

    /// Its name in requests, commands and the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "logs.write",
            Self::View => "logs.view",
            Self::Read => "logs.read",
            Self::Export => "logs.export",
            Self::Analytics => "analytics.view",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or_else(|| {
            let hint = hint(name, Self::ALL.map(Self::name), "scopes", "`gatelog guide organisations`");
            Error::invalid(format!("scope `{}` does not exist; {hint}", clip(name)))
        })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who asks, and for what they may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Id of the key, `configured` for the key of the configuration, `cli` for whoever has the folder itself.
    pub key_id: String,
    /// The organisation whose records it reaches; none = all.
    pub organisation: Option<String>,
    /// The workspace whose records it reaches; none = all of the organisation.
    pub workspace: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
}

impl Access {
    /// Everything, for the operator.
    pub fn operator(key_id: &str) -> Self {
        Self { key_id: key_id.to_owned(), organisation: None, workspace: None, scopes: BTreeSet::from([Scope::Admin]) }
    }

    /// Whether it may do everything everywhere.
    pub fn is_operator(&self) -> bool {
        self.organisation.is_none() && self.scopes.contains(&Scope::Admin)
    }

    /// Whether it may do that. An admin may do everything within what the key reaches.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether the organisation is one that it reaches.
    pub fn reaches(&self, organisation: &str) -> bool {
        self.organisation.as_deref().is_none_or(|own| own == organisation)
    }

    /// Whether a key reaches no further than this one does.
    pub fn reaches_key(&self, key: &Key) -> bool {
        self.organisation.as_ref().is_none_or(|own| key.organisation.as_ref() == Some(own))
            && self.workspace.as_ref().is_none_or(|own| key.workspace.as_ref() == Some(own))
    }
}

/// The hash that a key is stored and looked up by.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// The text of a key from 32 random bytes.
pub fn key_text(random: [u8; 32]) -> String {
    format!("gl-{}", hex::encode(random))
}
