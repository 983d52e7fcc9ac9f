//! The rights of a key: its scopes and the organisation that it is bound to.
//!
//! A key has 256 random bits and is stored and looked up by its SHA-256. A stolen catalog therefore
//! opens nothing, a slow hash would add nothing, and the time of a lookup reveals nothing about the
//! key.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::limits::Holder;
use crate::nearest::{clip, hint};

/// A permission of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Permission to send records.
    #[serde(rename = "logs.write")]
    Write,
    /// Permission to query records without bodies.
    #[serde(rename = "logs.view")]
    View,
    /// Permission to read bodies.
    #[serde(rename = "logs.read")]
    Read,
    /// Permission to export records.
    #[serde(rename = "logs.export")]
    Export,
    /// Permission to run reports.
    #[serde(rename = "analytics.view")]
    Analytics,
    /// All permissions, and managing keys. Without an organisation also organisations and
    /// maintenance.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] =
        [Self::Write, Self::View, Self::Read, Self::Export, Self::Analytics, Self::Admin];

    /// Returns its name in requests, commands and the catalog.
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
            let hint =
                hint(name, Self::ALL.map(Self::name), "scopes", "`gatelog guide organisations`");
            Error::invalid(format!("scope `{}` does not exist; {hint}", clip(name)))
        })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Identity and rights of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Id of the key, `configured` for the key of the configuration, or `cli` for a command that
    /// works on the data folder itself.
    pub key_id: String,
    /// The organisation whose records the caller reaches. `None` for all.
    pub organisation: Option<String>,
    /// The workspace whose records the caller reaches. `None` for the whole organisation.
    pub workspace: Option<String>,
    /// Permissions of the caller.
    pub scopes: BTreeSet<Scope>,
}

impl Access {
    /// Returns the party that the caller's work and memory are counted for.
    pub(crate) fn holder(&self) -> Holder {
        Holder::new(self.organisation.as_deref())
    }

    /// Returns the access of the operator, which opens everything.
    pub fn operator(key_id: &str) -> Self {
        Self {
            key_id: key_id.to_owned(),
            organisation: None,
            workspace: None,
            scopes: BTreeSet::from([Scope::Admin]),
        }
    }

    /// Returns true if the caller may do everything in every organisation.
    pub fn is_operator(&self) -> bool {
        self.organisation.is_none() && self.scopes.contains(&Scope::Admin)
    }

    /// Returns true if the caller has a permission. An admin has every permission within the reach
    /// of the key.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Returns true if the caller reaches an organisation.
    pub fn reaches(&self, organisation: &str) -> bool {
        self.organisation.as_deref().is_none_or(|own| own == organisation)
    }
}

/// Returns the hash under which a key is stored and looked up.
pub(crate) fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// Returns the text of a key made of 32 random bytes.
pub fn key_text(random: [u8; 32]) -> String {
    format!("gl-{}", hex::encode(random))
}
