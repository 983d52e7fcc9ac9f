//! `/v1/admin/keys`: creates, lists and revokes keys. The text of a key is returned once, by the
//! request that created it.
//!
//! A key can only create keys within its own reach: of its own organisation and workspace. Keys
//! without an organisation need the operator.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::{Access, CreatedKey, Document, KeyView, NewKey, Scope, key_text};
use crate::config::MAX_DAYS;
use crate::error::{Error, Result};
use crate::http::answer::{Answer, answer, list as listed};
use crate::http::body::{read_object, text_or_number};
use crate::http::error::Failure;
use crate::http::input::{Id, NoFields, id};
use crate::http::middleware::auth::Caller;
use crate::http::organisation::{asked, within};
use crate::time;

const FIELDS: &str = "organisation, workspace, scopes, name, expires_at, expires_in_days";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    organisation: Option<String>,
    workspace: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "text_or_number")]
    expires_at: Option<String>,
    expires_in_days: Option<i64>,
}

/// `GET /v1/admin/keys?organisation=…`.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Answer<Value>, Failure> {
    let access = asked(access, query.as_deref())?;
    Ok(listed(&app.engine.catalog().state().document.shown_keys(&access, app.engine.now())))
}

/// `POST /v1/admin/keys`.
pub(crate) async fn create(
    Caller { app, access }: Caller,
    _: NoFields,
    body: Body,
) -> Result<Answer<CreatedKey>, Failure> {
    let now = app.engine.now();
    let wanted = wanted(&access, read_object(body, FIELDS).await?, now)?;
    let key = key_text(app.engine.random());
    let create = |document: &mut Document| {
        if let Some(organisation) = &wanted.organisation {
            document.known_organisation(organisation, &access)?;
        }
        Ok(document.add_key(&key, wanted.clone(), now)?.shown(now))
    };
    let shown = app.engine.catalog().change_as(&access, create).await?;
    app.engine.catalog_changed();
    Ok(answer(StatusCode::CREATED, CreatedKey { key, shown }))
}

/// `DELETE /v1/admin/keys/{id}`: revokes a key.
pub(crate) async fn revoke(
    Caller { app, access }: Caller,
    _: NoFields,
    path: Id,
) -> Result<Answer<KeyView>, Failure> {
    let id = id(path)?;
    let now = app.engine.now();
    let revoke = |document: &mut Document| Ok(document.revoke_key(&id, &access, now)?.shown(now));
    let shown = app.engine.catalog().change_as(&access, revoke).await?;
    app.engine.catalog_changed();
    Ok(answer(StatusCode::OK, shown))
}

/// Returns the requested key, limited to the reach of the caller.
fn wanted(access: &Access, new: New, now: DateTime<Utc>) -> Result<NewKey> {
    let organisation = within(access, new.organisation)?;
    let workspace = match (new.workspace, &access.workspace) {
        (Some(named), Some(own)) if named != *own => {
            return Err(Error::denied(format!(
                "the API key is bound to workspace `{own}` and can only create keys of that workspace"
            )));
        }
        (named, own) => named.or_else(|| own.clone()),
    };
    let scopes: BTreeSet<Scope> =
        new.scopes.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    let expires_at = expiry(new.expires_at.as_deref(), new.expires_in_days, now)?;
    Ok(NewKey { name: new.name, organisation, workspace, scopes, expires_at })
}

fn expiry(
    at: Option<&str>,
    days: Option<i64>,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    match (at, days) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Error::invalid("`expires_at` and `expires_in_days` are both given; give one"))
        }
        (Some(text), None) => time::parse_parameter("expires_at", text).map(Some),
        (None, Some(days)) if (1..=i64::from(MAX_DAYS)).contains(&days) => {
            Ok(Some(now + TimeDelta::days(days)))
        }
        (None, Some(days)) => {
            Err(Error::invalid(format!("`expires_in_days` is {days}; expected 1 to {MAX_DAYS}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(organisation: Option<&str>, workspace: Option<&str>) -> New {
        New {
            organisation: organisation.map(str::to_owned),
            workspace: workspace.map(str::to_owned),
            scopes: vec!["logs.write".to_owned()],
            name: None,
            expires_at: None,
            expires_in_days: None,
        }
    }

    #[test]
    fn a_key_cannot_create_a_key_with_a_wider_reach() {
        let now = DateTime::UNIX_EPOCH;
        let operator = Access::operator("o");
        let acme = Access { organisation: Some("acme".to_owned()), ..operator.clone() };
        let search = Access { workspace: Some("search".to_owned()), ..acme.clone() };
        let made = |access: &Access, organisation, workspace| {
            let key = wanted(access, new(organisation, workspace), now)?;
            Ok((key.organisation.unwrap_or_default(), key.workspace.unwrap_or_default()))
        };
        let fine = |organisation: &str, workspace: &str| {
            Ok((organisation.to_owned(), workspace.to_owned()))
        };
        let outcome = |made: Result<(String, String)>| made.map_err(|error| error.to_string());
        assert_eq!(outcome(made(&operator, None, None)), fine("", ""));
        assert_eq!(outcome(made(&operator, Some("zen"), None)), fine("zen", ""));
        assert_eq!(outcome(made(&acme, None, None)), fine("acme", ""));
        assert_eq!(outcome(made(&acme, Some("acme"), Some("search"))), fine("acme", "search"));
        assert_eq!(outcome(made(&search, None, None)), fine("acme", "search"));
        assert_eq!(
            outcome(made(&acme, Some("zen"), None)),
            Err("organisation `zen` does not exist".to_owned())
        );
        assert!(
            outcome(made(&search, None, Some("ads"))).unwrap_err().contains("workspace `search`")
        );
    }

    #[test]
    fn an_expiry_is_a_moment_or_days_from_now() {
        let now = DateTime::UNIX_EPOCH;
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        assert_eq!(expiry(None, Some(30), now).unwrap(), Some(at("1970-01-31T00:00:00Z")));
        assert_eq!(
            expiry(Some("2027-01-31T00:00:00+01:00"), None, now).unwrap(),
            Some(at("2027-01-30T23:00:00Z"))
        );
        for (text, days) in
            [(Some("soon"), None), (None, Some(0)), (None, Some(i64::MAX)), (Some("x"), Some(1))]
        {
            assert!(expiry(text, days, now).is_err(), "{text:?} {days:?}");
        }
    }
}
