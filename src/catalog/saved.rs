//! Saved filters of the list of logs, each with a name that everybody of the organisation can use.
//!
//! A filter is stored as its query string; callers parse it before they save it. Its maker and
//! admins may change and delete it. An erasure of an end user deletes every filter that names this
//! user.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::access::{Access, Scope};
use super::document::check_label;
use super::model::{Document, SavedFilter};
use super::user_mentions::{filter_names, holds_word};
use crate::error::{Error, Result};
use crate::time;

/// Most saved filters of an organisation: they are part of a document that every change rewrites as
/// a whole.
const MAX_SAVED: usize = 500;
/// Longest query string, in bytes.
const MAX_QUERY: usize = 8 << 10;

/// A saved filter in API responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SavedFilterView {
    /// Always `saved-filter`.
    pub object: &'static str,
    /// Name of the filter.
    pub name: String,
    /// The organisation that the filter belongs to.
    pub organisation: String,
    /// The fields of the filter, as a query string.
    pub query: String,
    /// Id of the key that saved the filter.
    pub created_by: String,
    /// Time of saving, RFC 3339.
    pub created_at: String,
}

impl Document {
    /// Saves a filter under a name; replaces an existing filter if `by` may change it.
    pub fn save_filter(
        &mut self,
        organisation: &str,
        name: &str,
        query: &str,
        by: &Access,
        now: DateTime<Utc>,
    ) -> Result<SavedFilterView> {
        check_label(name)?;
        if query.len() > MAX_QUERY {
            return Err(Error::limit(format!(
                "the filter has {} bytes; at most {MAX_QUERY} are kept",
                query.len()
            )));
        }
        let before = self.saved_filters.get(organisation).and_then(|saved| saved.get(name));
        let more = query.len().saturating_sub(before.map_or(0, |before| before.query.len()));
        self.check_room(
            organisation,
            more,
            "saved filters",
            "delete some filters, or export jobs",
        )?;
        let saved = self.saved_filters.entry(organisation.to_owned()).or_default();
        match saved.get(name) {
            Some(before) if !may_change(before, by) => {
                return Err(Error::denied(format!(
                    "filter `{name}` belongs to another key; choose another name"
                )));
            }
            None if saved.len() >= MAX_SAVED => {
                return Err(Error::limit(format!(
                    "{MAX_SAVED} filters are saved; delete some first"
                )));
            }
            _ => {}
        }
        let filter =
            SavedFilter { query: query.to_owned(), created_by: by.key_id.clone(), created_at: now };
        let shown = filter.shown(organisation, name);
        saved.insert(name.to_owned(), filter);
        Ok(shown)
    }

    /// Returns a saved filter of an organisation.
    pub fn saved_filter(&self, organisation: &str, name: &str) -> Result<&SavedFilter> {
        let found = self.saved_filters.get(organisation).and_then(|saved| saved.get(name));
        found.ok_or_else(|| Error::not_found(format!("filter `{name}` does not exist")))
    }

    /// Deletes a saved filter that `by` may change.
    pub fn delete_filter(
        &mut self,
        organisation: &str,
        name: &str,
        by: &Access,
    ) -> Result<SavedFilterView> {
        let before = self.saved_filter(organisation, name)?;
        if !may_change(before, by) {
            return Err(Error::denied(format!(
                "filter `{name}` belongs to another key; ask its maker or an admin"
            )));
        }
        let shown = before.shown(organisation, name);
        if let Some(saved) = self.saved_filters.get_mut(organisation) {
            saved.remove(name);
        }
        self.saved_filters.retain(|_, saved| !saved.is_empty());
        Ok(shown)
    }

    /// Deletes the saved filters of an organisation that mention an end user in their name or in
    /// their fields.
    pub(super) fn forget_filters(&mut self, organisation: &str, user: &str) {
        if let Some(saved) = self.saved_filters.get_mut(organisation) {
            saved.retain(|name, filter| !holds_word(name, user) && !filter.asks_for(user));
        }
        self.saved_filters.retain(|_, saved| !saved.is_empty());
    }

    /// Returns the saved filters that a key reaches, by organisation and name.
    pub fn shown_filters(&self, access: &Access) -> Vec<SavedFilterView> {
        let reached =
            self.saved_filters.iter().filter(|(organisation, _)| access.reaches(organisation));
        let shown = |(organisation, saved): (&String, &BTreeMap<String, SavedFilter>)| -> Vec<SavedFilterView> {
            saved.iter().map(|(name, filter)| filter.shown(organisation, name)).collect()
        };
        reached.flat_map(shown).collect()
    }
}

impl SavedFilter {
    fn asks_for(&self, user: &str) -> bool {
        let mut fields = url::form_urlencoded::parse(self.query.as_bytes());
        fields.any(|(name, value)| filter_names(&name, &Value::from(value.into_owned()), user))
    }

    fn shown(&self, organisation: &str, name: &str) -> SavedFilterView {
        SavedFilterView {
            object: "saved-filter",
            name: name.to_owned(),
            organisation: organisation.to_owned(),
            query: self.query.clone(),
            created_by: self.created_by.clone(),
            created_at: time::seconds(self.created_at),
        }
    }
}

fn may_change(filter: &SavedFilter, by: &Access) -> bool {
    filter.created_by == by.key_id || (by.may(Scope::Admin) && by.workspace.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ErasureSelector;

    #[test]
    fn a_filter_is_its_makers_and_the_admins_to_change() {
        let key = |id: &str, scope| Access {
            key_id: id.to_owned(),
            organisation: Some("acme".to_owned()),
            workspace: None,
            scopes: [scope].into(),
        };
        let maker = key("m", Scope::View);
        let other = key("o", Scope::View);
        let admin = key("a", Scope::Admin);
        let now = DateTime::UNIX_EPOCH;
        let mut document = Document::default();
        document.save_filter("acme", "mine", "a=1", &maker, now).unwrap();
        assert!(document.save_filter("acme", "mine", "a=2", &other, now).is_err());
        assert!(document.delete_filter("acme", "mine", &other).is_err());
        document.save_filter("acme", "mine", "a=3", &maker, now).unwrap();
        assert_eq!(document.saved_filter("acme", "mine").unwrap().query, "a=3");
        assert!(document.saved_filter("zen", "mine").is_err());
        assert_eq!(document.shown_filters(&other).len(), 1);
        document.delete_filter("acme", "mine", &admin).unwrap();
        assert_eq!(document, Document::default());
        assert!(document.save_filter("acme", "", "a=1", &maker, now).is_err());
        assert!(
            document.save_filter("acme", "long", &"x".repeat(MAX_QUERY + 1), &maker, now).is_err()
        );
    }

    #[test]
    fn a_filter_that_names_an_erased_user_goes() {
        let mut document = Document::default();
        let by = Access::operator("o");
        let now = DateTime::UNIX_EPOCH;
        let goes = [
            ("Ana Lima", "cost_min=1"),
            ("calls of ana lima", "cost_min=1"),
            ("plus", "user_id=ana+lima"),
            ("list", "user_id=bob,ana%20lima"),
            ("json", "metadata=%7B%22_user%22%3A%22ana%20lima%22%7D"),
            ("pair", "ai_org_model=ana+lima__gpt"),
        ];
        let stays = [("banana limas", "user_id=ana"), ("number", "cost_min=1&status_code=200")];
        for (name, query) in goes.into_iter().chain(stays) {
            document.save_filter("acme", name, query, &by, now).unwrap();
        }
        document.save_filter("zen", "other", "user_id=ana+lima", &by, now).unwrap();
        let names = |document: &Document| -> Vec<String> {
            document
                .shown_filters(&Access::operator("o"))
                .into_iter()
                .map(|shown| shown.name)
                .collect()
        };
        document
            .erase("e", "acme", ErasureSelector::Ids(vec!["ana lima".to_owned()]), "k", now)
            .unwrap();
        assert_eq!(names(&document).len(), goes.len() + stays.len() + 1, "no user is erased");
        document
            .erase("f", "acme", ErasureSelector::User("ana lima".to_owned()), "k", now)
            .unwrap();
        assert_eq!(names(&document), ["banana limas", "number", "other"]);
        document.erase("g", "acme", ErasureSelector::User("200".to_owned()), "k", now).unwrap();
        document.erase("h", "zen", ErasureSelector::User("ana lima".to_owned()), "k", now).unwrap();
        assert_eq!(names(&document), ["banana limas", "number"]);
        assert!(!document.saved_filters.contains_key("zen"));
    }
}
