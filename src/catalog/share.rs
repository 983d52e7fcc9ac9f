//! Share links: each opens one log for people without a key until the link expires or is revoked.
//!
//! The token of a link is its id and a signature: HMAC-SHA256, with a secret of this catalog, over
//! everything that the link opens. The catalog stores what a link opens, so that links can be
//! listed and revoked and none outlives its entry. A token that is forged, expired, revoked or
//! unknown opens nothing, and the response does not reveal which of these applies.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::access::{Access, Scope};
use super::model::{Document, Share, ShareSecret};
use super::rights::SHARE;
use super::signature::{sign, verify};
use crate::error::{Error, Result};
use crate::time;

/// Default lifetime of a link, in seconds.
pub(crate) const DEFAULT_SECONDS: i64 = 7 * 86_400;
/// Longest lifetime of a link, in seconds.
pub(crate) const MAX_SECONDS: i64 = 30 * 86_400;
/// Most open links of an organisation: they are part of a document that every change rewrites as a
/// whole.
const MAX_LINKS: usize = 500;

/// A share link in API responses, without its token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShareLinkView {
    /// Always `share`.
    pub object: &'static str,
    /// Id of the link.
    pub id: String,
    /// The organisation that the log belongs to.
    pub organisation: String,
    /// Id of the log.
    pub log_id: String,
    /// True if bodies are shown.
    pub bodies: bool,
    /// Id of the key that made the link.
    pub created_by: String,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time of expiry, RFC 3339.
    pub expires_at: String,
    /// Time of revocation, RFC 3339.
    pub revoked_at: Option<String>,
}

impl Share {
    /// Returns the link as API responses show it.
    pub fn shown(&self) -> ShareLinkView {
        let text = time::seconds;
        ShareLinkView {
            object: "share",
            id: self.id.clone(),
            organisation: self.organisation.clone(),
            log_id: self.log_id.clone(),
            bodies: self.bodies,
            created_by: self.created_by.clone(),
            created_at: text(self.created_at),
            expires_at: text(self.expires_at),
            revoked_at: self.revoked_at.map(text),
        }
    }

    /// Returns the access of somebody who opens the link.
    pub fn access(&self) -> Access {
        let mut scopes = std::collections::BTreeSet::from([Scope::View]);
        if self.bodies {
            scopes.insert(Scope::Read);
        }
        Access {
            key_id: format!("{SHARE}{}", self.id),
            organisation: Some(self.organisation.clone()),
            workspace: self.workspace.clone(),
            scopes,
        }
    }

    /// Returns the text that the token signs.
    fn message(&self) -> String {
        let ends = self.expires_at.timestamp_micros().to_string();
        let workspace = self.workspace.as_deref().unwrap_or_default();
        let bodies = if self.bodies { "bodies" } else { "" };
        let parts = [
            "gatelog share 1",
            &self.id,
            &self.organisation,
            workspace,
            &self.log_id,
            bodies,
            &ends,
        ];
        // Each part is preceded by its length, so that no two links have the same message.
        parts.iter().map(|part| format!("{}:{part}", part.len())).collect()
    }

    fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at > now
    }
}

impl Document {
    /// Adds a link and returns its token, which is stored nowhere. `random` becomes the secret if
    /// there is none yet. Removes links that open nothing any more.
    pub fn add_share(&mut self, share: Share, random: [u8; 32]) -> Result<String> {
        let seconds = (share.expires_at - share.created_at).num_seconds();
        if !(1..=MAX_SECONDS).contains(&seconds) {
            return Err(Error::invalid(format!(
                "`expires_in_seconds` is {seconds}; expected 1 to {MAX_SECONDS} (30 days)"
            )));
        }
        let now = share.created_at;
        self.shares.retain(|share| share.is_open(now));
        let open =
            self.shares.iter().filter(|other| other.organisation == share.organisation).count();
        if open >= MAX_LINKS {
            return Err(Error::limit(format!(
                "organisation `{}` has {MAX_LINKS} share links; revoke some, or wait until some expire",
                share.organisation
            )));
        }
        let secret = self.share_secret.get_or_insert_with(|| ShareSecret::new(random));
        let token = format!("{}.{}", share.id, sign(secret.bytes(), &share.message()));
        self.shares.push(share);
        Ok(token)
    }

    /// Returns the link that a token opens.
    pub fn open_share(&self, token: &str, now: DateTime<Utc>) -> Option<&Share> {
        let (id, signature) = token.split_once('.')?;
        let share = self.shares.iter().find(|share| share.id == id)?;
        let secret = self.share_secret.as_ref()?;
        let signed = verify(secret.bytes(), &share.message(), signature);
        (signed && self.opens(share, now)).then_some(share)
    }

    /// Returns true if a link opens its log: it ends with the key that made it and with its
    /// organisation.
    pub(super) fn opens(&self, share: &Share, now: DateTime<Utc>) -> bool {
        let deleted =
            self.organisations.get(&share.organisation).is_some_and(|of| of.deleted_at.is_some());
        share.is_open(now) && !deleted && self.is_maker_active(&share.created_by, now)
    }

    /// Revokes a link: a key may revoke its own links, an admin key every link that it reaches.
    /// Revoking a link again changes nothing.
    pub fn revoke_share(&mut self, id: &str, by: &Access, now: DateTime<Utc>) -> Result<&Share> {
        let found = self.shares.iter_mut().find(|share| share.id == id && may_revoke(by, share));
        let share =
            found.ok_or_else(|| Error::not_found(format!("share link `{id}` does not exist")))?;
        share.revoked_at.get_or_insert(now);
        Ok(share)
    }

    /// Returns the links that have not expired, oldest first. With a log id: the links to that log
    /// that a key reaches. Without: the links that the key may revoke.
    pub fn shown_shares(
        &self,
        log_id: Option<&str>,
        access: &Access,
        now: DateTime<Utc>,
    ) -> Vec<ShareLinkView> {
        let shows = |share: &&Share| match log_id {
            Some(log_id) => share.log_id == log_id && reaches(access, share),
            None => may_revoke(access, share),
        };
        self.shares
            .iter()
            .filter(|share| share.expires_at > now)
            .filter(shows)
            .map(Share::shown)
            .collect()
    }
}

fn reaches(access: &Access, share: &Share) -> bool {
    access.reaches(&share.organisation)
        && access.workspace.as_ref().is_none_or(|own| share.workspace.as_ref() == Some(own))
}

fn may_revoke(access: &Access, share: &Share) -> bool {
    reaches(access, share) && (share.created_by == access.key_id || access.may(Scope::Admin))
}

/// Returns the time of expiry of a link with the given lifetime.
pub(crate) fn expiry(now: DateTime<Utc>, seconds: Option<i64>) -> Result<DateTime<Utc>> {
    let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
    TimeDelta::try_seconds(seconds).and_then(|long| now.checked_add_signed(long)).ok_or_else(|| {
        Error::invalid(format!(
            "`expires_in_seconds` is {seconds}; expected 1 to {MAX_SECONDS} (30 days)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn share(id: &str) -> Share {
        Share {
            id: id.to_owned(),
            organisation: "acme".to_owned(),
            workspace: None,
            log_id: "log".to_owned(),
            bodies: false,
            created_by: "maker".to_owned(),
            created_at: now(),
            expires_at: now() + TimeDelta::hours(1),
            revoked_at: None,
        }
    }

    fn key(id: &str, organisation: &str, scope: Scope) -> Access {
        let organisation = Some(organisation.to_owned());
        Access { key_id: id.to_owned(), organisation, workspace: None, scopes: [scope].into() }
    }

    #[test]
    fn a_link_opens_until_it_expires_or_is_revoked() {
        let mut document = Document::default();
        let token = document.add_share(share("1"), [7; 32]).unwrap();
        assert_eq!(
            document.open_share(&token, now()).map(|share| share.log_id.as_str()),
            Some("log")
        );
        assert!(document.open_share(&token, now() + TimeDelta::hours(1)).is_none());
        document.revoke_share("1", &key("maker", "acme", Scope::View), now()).unwrap();
        assert!(document.open_share(&token, now()).is_none());
    }

    #[test]
    fn a_token_that_was_changed_opens_nothing() {
        let mut document = Document::default();
        let token = document.add_share(share("1"), [7; 32]).unwrap();
        document.add_share(share("2"), [9; 32]).unwrap();
        let signature = token.split_once('.').unwrap().1;
        for forged in [
            "",
            "1",
            "1.",
            &format!("2.{signature}"),
            &format!("{token}0"),
            &token[..token.len() - 2],
        ] {
            assert!(document.open_share(forged, now()).is_none(), "{forged}");
        }
        // The signature covers everything that the link opens, and its time of expiry.
        for change in [
            (|share: &mut Share| share.log_id = "other".to_owned()) as fn(&mut Share),
            |share| share.organisation = "zen".to_owned(),
            |share| share.bodies = true,
            |share| share.workspace = Some("w".to_owned()),
            |share| share.expires_at += TimeDelta::hours(1),
        ] {
            let mut changed = document.clone();
            change(&mut changed.shares[0]);
            assert!(changed.open_share(&token, now()).is_none());
        }
        let mut other = Document::default();
        other.add_share(share("1"), [8; 32]).unwrap();
        assert!(other.open_share(&token, now()).is_none(), "another catalog has another secret");
    }

    #[test]
    fn only_its_maker_and_admins_who_reach_it_list_and_revoke_a_link() {
        let mut document = Document::default();
        document.add_share(share("1"), [7; 32]).unwrap();
        for stranger in [
            key("other", "acme", Scope::View),
            key("maker", "zen", Scope::View),
            key("a", "zen", Scope::Admin),
        ] {
            assert!(document.revoke_share("1", &stranger, now()).is_err(), "{stranger:?}");
            assert!(document.shown_shares(None, &stranger, now()).is_empty(), "{stranger:?}");
        }
        // A key that reaches the log sees that a link to it exists.
        assert_eq!(
            document.shown_shares(Some("log"), &key("other", "acme", Scope::View), now()).len(),
            1
        );
        for own in [
            key("maker", "acme", Scope::View),
            key("a", "acme", Scope::Admin),
            Access::operator("o"),
        ] {
            assert_eq!(document.shown_shares(None, &own, now()).len(), 1, "{own:?}");
            assert!(
                document.shown_shares(None, &own, now() + TimeDelta::hours(1)).is_empty(),
                "expired"
            );
        }
        let narrow = Access { workspace: Some("w".to_owned()), ..key("a", "acme", Scope::Admin) };
        assert!(document.revoke_share("1", &narrow, now()).is_err());
        assert!(document.revoke_share("1", &key("a", "acme", Scope::Admin), now()).is_ok());
    }

    #[test]
    fn links_are_bounded_in_time_and_number_and_forgotten() {
        let mut document = Document::default();
        let lasting =
            |seconds| Share { expires_at: now() + TimeDelta::seconds(seconds), ..share("x") };
        for seconds in [-1, 0, MAX_SECONDS + 1] {
            assert!(document.add_share(lasting(seconds), [7; 32]).is_err(), "{seconds}");
        }
        for number in 0..MAX_LINKS {
            document.add_share(share(&number.to_string()), [7; 32]).unwrap();
        }
        assert!(document.add_share(share("one more"), [7; 32]).is_err());
        document.revoke_share("0", &Access::operator("o"), now()).unwrap();
        document.add_share(share("one more"), [7; 32]).unwrap();
        assert_eq!(document.shares.len(), MAX_LINKS, "one that was revoked takes no place");
        let later = now() + TimeDelta::hours(2);
        let next =
            Share { created_at: later, expires_at: later + TimeDelta::hours(1), ..share("later") };
        document.add_share(next, [7; 32]).unwrap();
        assert_eq!(document.shares.len(), 1);
        assert!(!format!("{document:?}").contains(&hex::encode([7; 32])));
        assert!(expiry(now(), Some(i64::MAX)).is_err());
    }

    #[test]
    fn a_secret_and_links_survive_in_the_document() {
        let mut document = Document::default();
        let token = document.add_share(share("1"), [7; 32]).unwrap();
        let text = serde_json::to_string(&document).unwrap();
        let again: Document = serde_json::from_str(&text).unwrap();
        assert!(again.open_share(&token, now()).is_some());
        let empty = serde_json::to_string(&Document::default()).unwrap();
        assert!(!empty.contains("share"), "a catalog without links is as it was: {empty}");
    }
}
