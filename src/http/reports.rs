//! `GET /v1/reports` lists the named reports; `GET /v1/reports/{name}` runs one, its parameters in the query string.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Version};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::App;
use super::answer;
use super::error::Failure;
use super::format::Format;
use super::input::Fields;
use super::sql::header;
use crate::catalog::Access;
use crate::reports::{self, Report};

/// `GET /v1/reports`.
pub(crate) async fn list() -> Json<Value> {
    let reports: Vec<Value> = reports::list().iter().map(describe).collect();
    Json(json!({ "object": "list", "total": reports.len(), "data": reports }))
}

/// `GET /v1/reports/{name}?PARAM=…&format=…`. The report itself says which parameters it takes and refuses others.
pub(crate) async fn run(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    name: Result<Path<String>, PathRejection>,
    version: Version,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    answer::needs_chunks(version)?;
    let Path(name) = name.map_err(|_| Failure::invalid("the report's name is not UTF-8 text"))?;
    let mut fields = Fields::decode(query.as_deref())?;
    let format = Format::asked(fields.take("format").as_deref(), header(&headers, &ACCEPT))?;
    answer::respond(app.engine.reader_as(&access).report(&name, &fields.into_texts()).await?, format).await
}

fn describe(report: &Report) -> Value {
    let params = report.params.iter().map(|param| {
        json!({ "name": param.name, "kind": param.kind.word(), "choices": param.choices, "default": param.default, "doc": param.doc })
    });
    let columns = report
        .columns
        .iter()
        .map(|column| json!({ "name": column.name, "kind": column.kind.word(), "doc": column.doc }));
    json!({
        "name": report.name,
        "purpose": report.purpose,
        "params": params.collect::<Vec<_>>(),
        "columns": columns.collect::<Vec<_>>(),
    })
}
