//! Denied fields: fields that an organisation, or one of its workspaces, may not read. Only the
//! operator sets them; keys may list them.
//!
//! A denial for an organisation applies to all its keys, one for a workspace to everything bound to
//! the workspace: its keys and its export jobs. A field is denied under every name and in every
//! form that reveals it: a denial of `request` also denies `request.body`, and the reverse. Exports
//! of all columns leave denied ones out and list them; a denied column that is requested, also in a
//! filter, is an error. In SQL, lists and single logs a denied field is null as a plain column of
//! the answer, and an error anywhere else (`query::withhold`).

use std::collections::BTreeSet;

use super::known::no_workspace;
use super::model::{DeniedFields, Document, ExportJob};
use crate::error::{Error, Result};
use crate::record::COLUMNS;
use crate::record::json::{Encoder, column_of};

/// Columns that are a part of another one, with their path in it.
const PARTS: [(&str, &str); 2] = [("user_id", "metadata.value._user"), ("date", "created_at.date")];
/// Prefix of the path of a metadata value.
const METADATA_VALUE: &str = "metadata.value.";
/// Columns with content of calls, which only keys with `logs.read` may export.
const BODIES: [&str; 4] = ["request", "response", "request.body", "response.body"];

/// Fields that a caller may not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied(BTreeSet<String>);

impl Document {
    /// Sets the denied fields of an organisation, or of one of its workspaces. No fields means that
    /// everything may be read.
    pub fn set_denied_fields(
        &mut self,
        organisation: &str,
        workspace: Option<&str>,
        fields: &BTreeSet<String>,
    ) -> Result<()> {
        let known = &self.organisation(organisation)?.workspaces;
        if let Some(workspace) = workspace.filter(|workspace| !known.contains(*workspace)) {
            return Err(no_workspace(organisation, workspace, known));
        }
        for field in fields {
            Encoder::new(Some(std::slice::from_ref(field)))?;
        }
        if !fields.is_subset(self.denied(Some(organisation), workspace).fields()) {
            let here = |job: &ExportJob| {
                let within = workspace.is_none() || job.workspace.as_deref() == workspace;
                job.organisation.as_deref() == Some(organisation) && within
            };
            self.withdraw_exports("fields were denied since it was written", here);
        }
        let denied = self.denied_fields.entry(organisation.to_owned()).or_default();
        match workspace {
            None => denied.all.clone_from(fields),
            Some(workspace) => {
                denied.workspaces.insert(workspace.to_owned(), fields.clone());
            }
        }
        denied.workspaces.retain(|_, fields| !fields.is_empty());
        self.denied_fields.retain(|_, denied| *denied != DeniedFields::default());
        Ok(())
    }

    /// Returns the fields of an organisation that are denied to callers bound to a workspace.
    /// Nothing is denied to the operator.
    pub fn denied(&self, organisation: Option<&str>, workspace: Option<&str>) -> Denied {
        let Some(denied) = organisation.and_then(|id| self.denied_fields.get(id)) else {
            return Denied::default();
        };
        let of_workspace = workspace.and_then(|workspace| denied.workspaces.get(workspace));
        Denied(denied.all.iter().chain(of_workspace.into_iter().flatten()).cloned().collect())
    }
}

impl Denied {
    /// Returns the fields as they were set.
    pub fn fields(&self) -> &BTreeSet<String> {
        &self.0
    }

    /// Returns true if a column reveals a denied field.
    pub fn covers(&self, column: &str) -> bool {
        self.revealed_by(column).next().is_some()
    }

    /// Returns the denied fields that a column reveals: the column itself, those it is a part of,
    /// and its parts.
    pub fn revealed_by(&self, column: &str) -> impl Iterator<Item = &str> {
        let column = place_of(column);
        let tells =
            move |field: &str| column == field || is_part(column, field) || is_part(field, column);
        self.0.iter().map(String::as_str).filter(move |field| tells(place_of(field)))
    }

    /// Returns true if a whole column is denied, and not only a part of it.
    pub fn is_whole(&self, column: &str) -> bool {
        let column = place_of(column);
        self.0
            .iter()
            .map(|field| place_of(field))
            .any(|field| column == field || is_part(field, column))
    }

    /// Returns the metadata keys whose values are denied, if other keys are not.
    pub fn metadata_keys(&self) -> BTreeSet<String> {
        let keys = self.0.iter().filter_map(|field| place_of(field).strip_prefix(METADATA_VALUE));
        keys.map(str::to_owned).collect()
    }

    /// Returns true if nothing is denied.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the fields that `other` does not deny.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        self.0.difference(&other.0).map(String::as_str)
    }

    /// Returns every column that may be exported. Includes bodies only if `bodies` is true.
    pub fn allowed(&self, bodies: bool) -> Vec<String> {
        let names = COLUMNS.iter().map(|column| column.name);
        names
            .filter(|name| !self.covers(name) && (bodies || !holds_bodies(name)))
            .map(str::to_owned)
            .collect()
    }

    /// Returns every column that may not be exported: those that [`Denied::allowed`] leaves out.
    pub fn withheld(&self, bodies: bool) -> Vec<String> {
        let names = COLUMNS.iter().map(|column| column.name);
        names
            .filter(|name| self.covers(name) || (!bodies && holds_bodies(name)))
            .map(str::to_owned)
            .collect()
    }

    /// Returns an error that names all denied fields of these columns, if there are any.
    pub fn check<'a>(&self, columns: impl IntoIterator<Item = &'a String>) -> Result<()> {
        let denied: Vec<&str> =
            columns.into_iter().map(String::as_str).filter(|name| self.covers(name)).collect();
        if denied.is_empty() {
            return Ok(());
        }
        Err(Error::denied(format!(
            "`{}` may not be exported by this organisation or workspace; leave it out, or ask the operator",
            denied.join("`, `")
        )))
    }

    /// Returns an error if a filter, or another use of these columns, reveals denied fields: the
    /// number of matching records reveals them too. A metadata key is the column
    /// `metadata.value.KEY`.
    pub fn check_filter<'a>(&self, columns: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let denied: BTreeSet<&str> =
            columns.into_iter().flat_map(|column| self.revealed_by(column)).collect();
        if denied.is_empty() {
            return Ok(());
        }
        let denied: Vec<&str> = denied.into_iter().collect();
        Err(Error::denied(format!(
            "`{}` may not be exported or read by this organisation or workspace, nor used in a filter, an order or a replay; \
             leave it out, or ask the operator",
            denied.join("`, `")
        )))
    }

    /// Returns the columns of an export: the requested ones, or else, if something is denied, all
    /// others.
    pub fn columns(&self, asked: Option<Vec<String>>, bodies: bool) -> Result<Option<Vec<String>>> {
        match asked {
            Some(columns) => self.check(&columns).map(|()| Some(columns)),
            None if self.0.is_empty() => Ok(None),
            None => Ok(Some(self.allowed(bodies))),
        }
    }
}

/// Returns true if one path lies within another one.
fn is_part(whole: &str, part: &str) -> bool {
    part.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns the path of a column.
fn place_of(column: &str) -> &str {
    let column = column_of(column);
    PARTS.iter().find(|(part, _)| *part == column).map_or(column, |(_, place)| place)
}

/// Returns true if a column contains bodies of calls.
pub(crate) fn holds_bodies(column: &str) -> bool {
    BODIES.contains(&column)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::catalog::Organisation;
    use crate::error::ErrorKind;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn denied(names: &[&str]) -> Denied {
        Denied(set(names))
    }

    #[test]
    fn a_field_is_denied_under_all_its_names_and_in_all_its_forms() {
        for (field, covered, others) in [
            (
                "request",
                &["request", "request.body", "request.headers"][..],
                &["response", "request_url"][..],
            ),
            ("request.body", &["request", "request.body"], &["request.headers", "response.body"]),
            ("metadata", &["metadata", "metadata.key", "metadata.value", "user_id"], &["id"]),
            (
                "metadata.value",
                &["metadata", "metadata.value", "user_id", "metadata.value.team"],
                &["metadata.key"],
            ),
            (
                "user_id",
                &["user_id", "metadata", "metadata.value"],
                &["metadata.key", "metadata.value.team"],
            ),
            ("user_id", &["metadata.value._user"], &["metadata.value._users"]),
            ("date", &["date", "created_at"], &["response_time"]),
            ("ai_org", &["ai_org", "ai_provider"], &["ai_model"]),
            ("status_code", &["status_code", "response_status_code"], &["is_success"]),
            ("created_at", &["created_at", "date"], &["response_time"]),
        ] {
            let denied = denied(&[field]);
            for column in covered {
                assert!(denied.covers(column), "{field} is in {column}");
            }
            for column in others {
                assert!(!denied.covers(column), "{field} is not in {column}");
            }
        }
    }

    #[test]
    fn requested_denied_columns_are_refused_and_others_left_out() {
        let denied = denied(&["cost", "metadata"]);
        let named = |names: &[&str]| {
            denied.columns(Some(names.iter().map(|name| (*name).to_owned()).collect()), true)
        };
        let refused = named(&["id", "metadata.key", "cost"]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        assert!(
            refused.message().starts_with("`metadata.key`, `cost` may not be exported"),
            "{refused}"
        );
        assert!(named(&["id", "cost_currency"]).is_ok());
        let refused = denied.check_filter(["ai_model", "cost", "metadata.value.team"]).unwrap_err();
        assert!(
            refused.message().starts_with("`cost`, `metadata` may not be exported"),
            "{refused}"
        );
        assert!(denied.check_filter(["ai_model"]).is_ok());
        let left = denied.columns(None, true).unwrap().unwrap();
        assert_eq!(left.len(), COLUMNS.len() - 3, "cost, metadata and user_id");
        assert!(left.contains(&"request".to_owned()));
        assert!(!denied.columns(None, false).unwrap().unwrap().contains(&"request".to_owned()));
        assert_eq!(Denied::default().columns(None, true).unwrap(), None);
    }

    #[test]
    fn a_workspace_may_be_denied_more_than_its_organisation() {
        let mut document = Document::default();
        let now = DateTime::UNIX_EPOCH;
        let acme =
            Organisation { workspaces: set(&["search"]), ..Organisation::new("enterprise", now) };
        document.create_organisation("acme", acme, 0).unwrap();
        document.set_denied_fields("acme", None, &set(&["cost"])).unwrap();
        document.set_denied_fields("acme", Some("search"), &set(&["request"])).unwrap();
        assert_eq!(document.denied(Some("acme"), None), denied(&["cost"]));
        assert_eq!(document.denied(Some("acme"), Some("search")), denied(&["cost", "request"]));
        assert_eq!(document.denied(Some("acme"), Some("ads")), denied(&["cost"]));
        assert_eq!(document.denied(Some("zen"), Some("search")), Denied::default());
        assert_eq!(document.denied(None, None), Denied::default());
        assert!(
            document
                .set_denied_fields("acme", None, &set(&["price"]))
                .unwrap_err()
                .message()
                .contains("`price`")
        );
        assert!(document.set_denied_fields("acme", Some("ads"), &set(&["cost"])).is_err());
        assert_eq!(
            document.set_denied_fields("zen", None, &set(&["cost"])).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&text).unwrap(), document);
        document.set_denied_fields("acme", None, &set(&[])).unwrap();
        document.set_denied_fields("acme", Some("search"), &set(&[])).unwrap();
        assert!(document.denied_fields.is_empty());
    }
}
