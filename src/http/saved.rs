//! `/v1/logs/filters`: filters of the list of logs under names, which everybody of the organisation can use as
//! `saved=NAME`.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;
use super::body::read_small;
use super::error::Failure;
use super::input::Fields;
use super::log_objects::{Id, filter_of};
use crate::catalog::{Access, Document, ShownFilter, no_organisation};
use crate::error::{Error, Result};

type Answer<T> = ([(HeaderName, &'static str); 1], Json<T>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    query: String,
}

/// `GET /v1/logs/filters`.
pub(crate) async fn list(State(app): State<Arc<App>>, Extension(access): Extension<Access>) -> Answer<Value> {
    let shown = app.engine.catalog().state().document.shown_filters(&access);
    answer(json!({ "object": "list", "total": shown.len(), "data": shown }))
}

/// `PUT /v1/logs/filters/{name}` with the filter as `query`: what would stand behind the `?` of `GET /v1/logs`.
pub(crate) async fn save(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    path: Id,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Answer<ShownFilter>, Failure> {
    let text = read_small(body).await?;
    let Wanted { query: filter } = serde_json::from_str(&text)
        .map_err(|cause| Failure::invalid(format!("the body is not a JSON object with query: {cause}")))?;
    filter_of(&filter)?;
    let (name, organisation, now) = (name(path)?, whose(&access, named(query.as_deref())?)?, app.engine.now());
    let save = |document: &mut Document| document.save_filter(&organisation, &name, &filter, &access, now);
    Ok(answer(app.engine.catalog().change(save).await?))
}

/// `DELETE /v1/logs/filters/{name}`.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    path: Id,
    RawQuery(query): RawQuery,
) -> Result<Answer<ShownFilter>, Failure> {
    let (name, organisation) = (name(path)?, whose(&access, named(query.as_deref())?)?);
    let delete = |document: &mut Document| document.delete_filter(&organisation, &name, &access);
    Ok(answer(app.engine.catalog().change(delete).await?))
}

/// The organisation whose filter is meant: the key's own, or, for the operator, the one that is named.
pub(super) fn whose(access: &Access, named: Option<String>) -> Result<String, Failure> {
    match (named.filter(|named| !named.is_empty()), &access.organisation) {
        (Some(named), _) if !access.reaches(&named) => Err(no_organisation(&named).into()),
        (Some(named), _) => Ok(named),
        (None, Some(own)) => Ok(own.clone()),
        (None, None) => Err(Error::invalid("`organisation_id` is missing; name the one whose filter it is").into()),
    }
}

fn named(query: Option<&str>) -> Result<Option<String>, Failure> {
    Ok(Fields::decode(query)?.take("organisation_id"))
}

fn name(path: Id) -> Result<String, Failure> {
    path.map(|axum::extract::Path(name)| name).map_err(|_| Failure::invalid("the name in the path is not UTF-8 text"))
}

fn answer<T: Serialize>(value: T) -> Answer<T> {
    ([(CACHE_CONTROL, "no-store")], Json(value))
}
