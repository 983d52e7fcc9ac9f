//! `GET /v1/reports` lists the named reports. `GET /v1/reports/{name}` runs one, with its
//! parameters in the query string.

use axum::Json;
use axum::extract::RawQuery;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Version};
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::accept;
use crate::http::error::Failure;
use crate::http::input::{Fields, Id, header, id};
use crate::http::middleware::auth::Caller;
use crate::http::stream_response;
use crate::reports::{self, Report};

/// `GET /v1/reports`.
pub(crate) async fn list() -> Json<Value> {
    let reports: Vec<Value> = reports::list().iter().map(describe).collect();
    Json(json!({ "object": "list", "total": reports.len(), "data": reports }))
}

/// `GET /v1/reports/{name}?PARAM=…&format=…`. The report defines its parameters and refuses unknown
/// ones.
pub(crate) async fn run(
    Caller { app, access }: Caller,
    name: Id,
    version: Version,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    stream_response::needs_chunks(version)?;
    let name = id(name)?;
    let mut fields = Fields::decode(query.as_deref())?;
    let format = accept::format(fields.take("format").as_deref(), header(&headers, &ACCEPT))?;
    let quoted = accept::quotes_formulas(&mut fields, &headers)?;
    let answer = app.engine.reader_as(&access).report(&name, &fields.into_texts()).await?;
    stream_response::respond(&app, &access, answer, format, quoted).await
}

fn describe(report: &Report) -> Value {
    let params = report.params.iter().map(|param| {
        json!({ "name": param.name, "kind": param.kind.word(), "choices": param.choices, "default": param.default, "doc": param.doc })
    });
    let columns = report.columns.iter().map(
        |column| json!({ "name": column.name, "kind": column.kind.word(), "doc": column.doc }),
    );
    json!({
        "name": report.name,
        "purpose": report.purpose,
        "params": params.collect::<Vec<_>>(),
        "columns": columns.collect::<Vec<_>>(),
    })
}
