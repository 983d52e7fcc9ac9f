//! `/v1/admin/erasures`: erasure requests and their list. Once a request is acknowledged, no answer
//! contains the erased records or the feedback on them. The next maintenance removes them from the
//! files, and the following vacuum from the disk.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::{Access, ErasureSelector, ErasureView};
use crate::error::{Error, Result};
use crate::http::answer::{Answer, answer, list as listed};
use crate::http::body::read_object;
use crate::http::error::Failure;
use crate::http::input::NoFields;
use crate::http::middleware::auth::Caller;
use crate::http::organisation::{asked, within};

const FIELDS: &str = "organisation, and one of user, ids, all";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    organisation: Option<String>,
    user: Option<String>,
    ids: Option<Vec<String>>,
    all: Option<bool>,
}

/// `GET /v1/admin/erasures?organisation=…`.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Answer<Value>, Failure> {
    whole_organisation(&access)?;
    let access = asked(access, query.as_deref())?;
    Ok(listed(&app.engine.catalog().state().document.shown_erasures(&access)))
}

/// `POST /v1/admin/erasures`.
pub(crate) async fn create(
    Caller { app, access }: Caller,
    _: NoFields,
    body: Body,
) -> Result<Answer<ErasureView>, Failure> {
    whole_organisation(&access)?;
    let New { organisation, user, ids, all } = read_object(body, FIELDS).await?;
    let organisation = within(&access, organisation)?;
    let organisation = organisation.ok_or_else(|| {
        Error::invalid("`organisation` is missing; name the organisation to erase from")
    })?;
    let entry = app.engine.erase_as(&access, &organisation, which(user, ids, all)?).await?;
    Ok(answer(StatusCode::ACCEPTED, entry.shown()))
}

/// Refuses keys that are bound to a workspace. An erasure covers all workspaces of an organisation,
/// so such a key may neither request nor list any.
fn whole_organisation(access: &Access) -> Result<()> {
    match &access.workspace {
        None => Ok(()),
        Some(own) => Err(Error::denied(format!(
            "the API key is bound to workspace `{own}`; erasures need scope `admin` for the whole organisation"
        ))),
    }
}

fn which(
    user: Option<String>,
    ids: Option<Vec<String>>,
    all: Option<bool>,
) -> Result<ErasureSelector> {
    match (user, ids, all) {
        (Some(user), None, None) => Ok(ErasureSelector::User(user)),
        (None, Some(ids), None) => Ok(ErasureSelector::Ids(ids)),
        (None, None, Some(true)) => Ok(ErasureSelector::All),
        _ => Err(Error::invalid(
            "the body must name the records in exactly one way; give one of `user`, `ids` and `\"all\": true`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_way_names_the_records() {
        assert_eq!(
            which(Some("ada".to_owned()), None, None).unwrap(),
            ErasureSelector::User("ada".to_owned())
        );
        assert_eq!(
            which(None, Some(vec!["7".to_owned()]), None).unwrap(),
            ErasureSelector::Ids(vec!["7".to_owned()])
        );
        assert_eq!(which(None, None, Some(true)).unwrap(), ErasureSelector::All);
        assert!(which(None, None, Some(false)).is_err());
        assert!(which(None, None, None).is_err());
        assert!(which(Some("ada".to_owned()), None, Some(true)).is_err());
    }
}
