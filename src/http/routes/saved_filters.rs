//! `/v1/logs/filters`: named filters of the list of logs, which every key of the organisation can
//! use as `saved=NAME`.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::catalog::{Access, Document, SavedFilterView};
use crate::http::answer::{Answer, answer, list as listed};
use crate::http::body::read_object;
use crate::http::error::Failure;
use crate::http::input::{Fields, Id, id};
use crate::http::middleware::auth::Caller;
use crate::http::organisation::one;
use crate::logs::{FILTER_NAMES, Filter};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    query: String,
}

/// `GET /v1/logs/filters`.
pub(crate) async fn list(Caller { app, access }: Caller) -> Answer<Value> {
    listed(&app.engine.catalog().state().document.shown_filters(&access))
}

/// `PUT /v1/logs/filters/{name}` with the filter as `query`, written like the query string of `GET
/// /v1/logs`.
pub(crate) async fn save(
    Caller { app, access }: Caller,
    path: Id,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Answer<SavedFilterView>, Failure> {
    let Wanted { query: filter } = read_object(body, "query").await?;
    filter_of(&filter)?;
    let name = id(path)?;
    let organisation = whose(&access, query.as_deref())?;
    let now = app.engine.now();
    let save =
        |document: &mut Document| document.save_filter(&organisation, &name, &filter, &access, now);
    Ok(answer(StatusCode::OK, app.engine.catalog().change_as(&access, save).await?))
}

/// `DELETE /v1/logs/filters/{name}`.
pub(crate) async fn delete(
    Caller { app, access }: Caller,
    path: Id,
    RawQuery(query): RawQuery,
) -> Result<Answer<SavedFilterView>, Failure> {
    let name = id(path)?;
    let organisation = whose(&access, query.as_deref())?;
    let delete = |document: &mut Document| document.delete_filter(&organisation, &name, &access);
    Ok(answer(StatusCode::OK, app.engine.catalog().change_as(&access, delete).await?))
}

/// Returns the organisation of the filter. A misspelt field must not be ignored: the filter of
/// another organisation would be changed.
fn whose(access: &Access, query: Option<&str>) -> Result<String, Failure> {
    let mut fields = Fields::decode(query)?;
    let named = fields.take("organisation_id").filter(|named| !named.is_empty());
    fields.finish("organisation_id")?;
    Ok(one(access, named, "organisation_id")?)
}

/// Parses a filter from a query string that has no other parameters.
fn filter_of(query: &str) -> Result<Filter, Failure> {
    let mut fields = Fields::decode(Some(query))?;
    let filter = Filter::read(|name| fields.take(name))?;
    fields.finish(FILTER_NAMES)?;
    Ok(filter)
}
