//! `/v1/admin/archived-providers`: the archived providers (slugs of virtual keys) of an
//! organisation. Logs of an archived provider cannot be replayed.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalog::{Access, Document};
use crate::error::{Error, Result};
use crate::http::answer::{Answer, answer};
use crate::http::body::read_object;
use crate::http::error::Failure;
use crate::http::input::{Id, NoFields, id};
use crate::http::middleware::auth::Caller;
use crate::http::organisation::{asked, one};
use crate::http::state::App;

const FIELDS: &str = "provider, organisation";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    provider: String,
    organisation: Option<String>,
}

/// `GET /v1/admin/archived-providers?organisation=…`.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Answer<Value>, Failure> {
    let access = asked(access, query.as_deref())?;
    Ok(answer(StatusCode::OK, archived_list(&app.engine.catalog().state().document, &access)))
}

/// `POST /v1/admin/archived-providers`: archives a provider. Archiving it again changes nothing.
pub(crate) async fn archive(
    Caller { app, access }: Caller,
    _: NoFields,
    body: Body,
) -> Result<Answer<Value>, Failure> {
    let New { provider, organisation } = read_object(body, FIELDS).await?;
    let access = whose(access, organisation)?;
    Ok(change(&app, &access, &provider, true).await?)
}

/// `DELETE /v1/admin/archived-providers/{provider}?organisation=…`: restores a provider.
pub(crate) async fn take_back(
    Caller { app, access }: Caller,
    path: Id,
    RawQuery(query): RawQuery,
) -> Result<Answer<Value>, Failure> {
    let provider = id(path)?;
    let access = whose(asked(access, query.as_deref())?, None)?;
    Ok(change(&app, &access, &provider, false).await?)
}

/// Returns the access of the caller, limited to the one organisation that a change is about.
fn whose(access: Access, named: Option<String>) -> Result<Access> {
    if let Some(own) = &access.workspace {
        return Err(Error::denied(format!(
            "the API key is bound to workspace `{own}`; archived providers belong to the whole organisation and need its scope `admin`"
        )));
    }
    let organisation = Some(one(&access, named, "organisation")?);
    Ok(Access { organisation, ..access })
}

async fn change(
    app: &App,
    access: &Access,
    provider: &str,
    archived: bool,
) -> Result<Answer<Value>> {
    let organisation = access.organisation.as_deref().unwrap_or_default();
    let change = |document: &mut Document| {
        document.archive_provider(organisation, provider, archived)?;
        Ok(archived_list(document, access))
    };
    Ok(answer(StatusCode::OK, app.engine.catalog().change_as(access, change).await?))
}

fn archived_list(document: &Document, access: &Access) -> Value {
    let reached =
        document.archived_providers.iter().filter(|(organisation, _)| access.reaches(organisation));
    let data: Vec<Value> = reached
        .flat_map(|(organisation, slugs)| {
            slugs.iter().map(move |slug| json!({ "organisation": organisation, "provider": slug }))
        })
        .collect();
    json!({ "object": "list", "total": data.len(), "data": data })
}
