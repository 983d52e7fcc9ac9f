//! Errors for unknown organisations and workspaces, with suggestions.
//!
//! Only the operator gets suggestions for organisations: other callers must not learn of
//! organisations that their key does not reach.

use std::collections::BTreeSet;

use super::access::Access;
use super::document::no_organisation;
use super::model::Document;
use crate::error::{Error, ErrorKind, Result};
use crate::nearest::{clip, hint};

impl Document {
    /// Checks that `by` reaches an organisation and that the organisation exists. The error for an
    /// operator suggests similar names.
    pub fn known_organisation(&self, id: &str, by: &Access) -> Result<()> {
        if !by.reaches(id) {
            return Err(no_organisation(id));
        }
        let missing = match self.organisation(id) {
            Ok(_) => return Ok(()),
            Err(missing) => missing,
        };
        if !by.is_operator() {
            return Err(missing);
        }
        let alive = self.organisations.iter().filter(|(_, known)| known.deleted_at.is_none());
        let known = alive.map(|(id, _)| id.as_str());
        let hint = hint(id, known, "organisations", "`gatelog org list`");
        Err(Error::new(ErrorKind::NotFound, format!("{}; {hint}", missing.message())))
    }
}

/// Returns the error for a workspace that an organisation does not have.
pub(super) fn no_workspace(organisation: &str, workspace: &str, known: &BTreeSet<String>) -> Error {
    let hint =
        hint(workspace, known.iter().map(String::as_str), "workspaces", "`gatelog org list`");
    Error::invalid(format!(
        "organisation `{organisation}` has no workspace `{}`; {hint} `gatelog org add-workspace {organisation} NAME` adds one",
        clip(workspace)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Organisation;
    use chrono::DateTime;

    fn document() -> Document {
        let mut document = Document::default();
        for id in ["acme", "acme-labs", "zen"] {
            let mut organisation = Organisation::new("enterprise", DateTime::UNIX_EPOCH);
            organisation.workspaces = BTreeSet::from(["search".to_owned(), "ads".to_owned()]);
            document.create_organisation(id, organisation, 0).unwrap();
        }
        document
    }

    #[test]
    fn only_the_operator_sees_suggestions_of_organisations() {
        let document = document();
        let operator = Access::operator("o");
        let of = |id: &str| Access { organisation: Some(id.to_owned()), ..operator.clone() };
        let message = |id: &str, by: &Access| {
            document.known_organisation(id, by).unwrap_err().message().to_owned()
        };
        assert!(document.known_organisation("acme", &operator).is_ok());
        assert!(document.known_organisation("acme", &of("acme")).is_ok());
        assert_eq!(
            message("acm", &operator),
            "organisation `acm` does not exist; did you mean `acme` or `acme-labs`?"
        );
        assert_eq!(
            message("qqqq", &operator),
            "organisation `qqqq` does not exist; the organisations are acme, acme-labs, zen"
        );
        // One organisation that the key reaches, and one that it does not reach.
        assert_eq!(message("acm", &of("acm")), "organisation `acm` does not exist");
        assert_eq!(message("zen", &of("acme")), "organisation `zen` does not exist");
    }

    #[test]
    fn a_misspelt_workspace_gets_a_suggestion() {
        let error =
            document().set_denied_fields("acme", Some("serch"), &BTreeSet::new()).unwrap_err();
        assert!(
            error.message().contains("has no workspace `serch`; did you mean `search`?"),
            "{error}"
        );
    }
}
