//! Rights at the moment of the deed: a key that was revoked, or has expired, since its request came does nothing more.
//!
//! A request takes its rights from its key once, when its headers come, and may go on for minutes. Whoever changes the catalog,
//! appends a chunk or sends a batch for it asks here again.

use chrono::{DateTime, Utc};

use super::access::Access;
use super::document::Document;
use super::keys::Key;
use crate::error::{Error, Result};

/// Digits of the id of a key, hexadecimal.
const ID_DIGITS: usize = 12;
/// What the id of an access by a share link begins with.
pub(super) const SHARE: &str = "share ";

impl Document {
    /// Checks that the key behind an access still opens what it opened when the request came.
    pub fn check_access(&self, access: &Access, now: DateTime<Utc>) -> Result<()> {
        let key = self.keys.iter().find(|key| key.id == access.key_id);
        self.check_access_of(key, access, now)
    }

    /// The same with the key that has the id of the access.
    pub(super) fn check_access_of(&self, key: Option<&Key>, access: &Access, now: DateTime<Utc>) -> Result<()> {
        let allowed = match (key, access.key_id.strip_prefix(SHARE)) {
            (Some(key), _) => key.is_active(now),
            (None, Some(id)) => self.shares.iter().any(|share| share.id == id && self.opens(share, now)),
            // The configured key and the command line are no keys of the catalog.
            (None, None) => !is_id(&access.key_id),
        };
        if !allowed {
            return Err(Error::denied(
                "the API key was revoked or has expired since the request came; what was not done before is not done: ask an \
                 admin for another key",
            ));
        }
        Ok(())
    }

    /// Returns whether the key that made something still opens anything, or no key of the catalog made it.
    pub(super) fn is_maker_active(&self, key_id: &str, now: DateTime<Utc>) -> bool {
        match self.keys.iter().find(|key| key.id == key_id) {
            Some(key) => key.is_active(now),
            None => !is_id(key_id),
        }
    }
}

/// Returns whether a text is such as the ids of keys.
fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
