//! Checks access again at the time of each action: a key that was revoked or has expired since its
//! request arrived opens nothing more.
//!
//! A request takes its rights from its key once, when its headers arrive, and may run for minutes.
//! So every change of the catalog, every appended chunk and every sent batch checks them again
//! here.

use chrono::{DateTime, Utc};

use super::access::Access;
use super::model::{Document, Key};
use crate::error::{Error, Result};

/// Hexadecimal digits in the id of a key.
const ID_DIGITS: usize = 12;
/// Prefix of the `key_id` of an access through a share link.
pub(super) const SHARE: &str = "share ";

impl Document {
    /// Checks that the key behind an access still opens what it opened when the request arrived.
    pub fn check_access(&self, access: &Access, now: DateTime<Utc>) -> Result<()> {
        let key = self.keys.iter().find(|key| key.id == access.key_id);
        self.check_access_of(key, access, now)
    }

    /// Checks an access like [`Self::check_access`], given the key with its id.
    pub(super) fn check_access_of(
        &self,
        key: Option<&Key>,
        access: &Access,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let allowed = match (key, access.key_id.strip_prefix(SHARE)) {
            (Some(key), _) => key.is_active(now),
            (None, Some(id)) => {
                self.shares.iter().any(|share| share.id == id && self.opens(share, now))
            }
            // The configured key and the command line are not keys of the catalog.
            (None, None) => !is_id(&access.key_id),
        };
        if !allowed {
            return Err(Error::denied(
                "the API key was revoked or has expired since the request arrived; the rest of the request was not carried \
                 out: ask an admin for another key",
            ));
        }
        Ok(())
    }

    /// Returns true if the key that made something is still active, or is not a key of the catalog.
    pub(super) fn is_maker_active(&self, key_id: &str, now: DateTime<Utc>) -> bool {
        match self.keys.iter().find(|key| key.id == key_id) {
            Some(key) => key.is_active(now),
            None => !is_id(key_id),
        }
    }
}

/// Returns true if `text` has the form of a key id.
fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
