//! `GET /v1/analytics/…`: Portkey's graphs, groups and summary, in Portkey's formats.
//!
//! [`crate::analytics`] parses the parameters and computes the response. This module only sets the
//! workspace: a key that is bound to a workspace always queries that one.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::RawQuery;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};

use crate::analytics::{AnalyticsRequest, Query};
use crate::catalog::Access;
use crate::http::error::Failure;
use crate::http::input::{Fields, Id, id};
use crate::http::middleware::auth::Caller;
use crate::http::state::App;
use crate::http::stream_response::tell_withheld;

/// `GET /v1/analytics/graphs/{graph}`. The path of a graph may have two segments.
pub(crate) async fn graph(
    Caller { app, access }: Caller,
    path: Id,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    answer(&app, &access, &Query::graph(&id(path)?, asked(&access, query.as_deref())?)?).await
}

/// `GET /v1/analytics/groups/{group}`, and `…/groups/metadata/{key}`.
pub(crate) async fn group(
    Caller { app, access }: Caller,
    path: Id,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    answer(&app, &access, &Query::group(&id(path)?, asked(&access, query.as_deref())?)?).await
}

/// `GET /v1/analytics/summary/cache`.
pub(crate) async fn cache(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    answer(&app, &access, &Query::cache_summary(asked(&access, query.as_deref())?)).await
}

fn asked(access: &Access, query: Option<&str>) -> Result<AnalyticsRequest, Failure> {
    let mut fields: BTreeMap<String, String> = Fields::decode(query)?.into_map();
    if access.workspace.is_some() {
        fields.remove("workspace_slug");
    }
    Ok(AnalyticsRequest::parse(fields)?)
}

async fn answer(app: &App, access: &Access, query: &Query) -> Result<Response, Failure> {
    let answer = app.engine.reader_as(access).analytics(query).await?;
    let withheld: Vec<String> =
        answer["withheld"].as_array().into_iter().flatten().filter_map(name).collect();
    let mut response = Json(answer).into_response();
    tell_withheld(&mut response, &withheld);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn name(value: &serde_json::Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
