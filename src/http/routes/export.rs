//! `GET|POST /v1/export`: streams the records of a time range as JSON lines, with the named
//! columns. No other format is supported.
//!
//! The stream comes directly from the engine and has no length limit of its own. It ends properly
//! only if every line was sent: a failure on the way cuts the connection. The cursor `after` of the
//! last line received resumes an interrupted download. If the plan sets `export_rows`, the export
//! ends after that many lines, and the header `x-gatelog-max-records` gives the number. If an
//! export of all columns lacks some, because the key may not read them or the operator denies them,
//! the header `x-gatelog-withheld` names them.

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use axum::response::Response;
use serde::Deserialize;

use crate::encode::Format;
use crate::engine::ExportRequest;
use crate::http::body::{object, read_small, text_or_number};
use crate::http::error::Failure;
use crate::http::input::{Fields, header};
use crate::http::middleware::admission::held_by;
use crate::http::middleware::auth::Caller;
use crate::http::stream_response;
use crate::limits::Holder;

const FIELDS: &str = "from, to, columns, after, limit, format";
/// Header with the number of records after which the plan ends every export.
const MAX_HEADER: HeaderName = HeaderName::from_static("x-gatelog-max-records");

/// Body of a `POST` request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, deserialize_with = "text_or_number")]
    from: Option<String>,
    #[serde(default, deserialize_with = "text_or_number")]
    to: Option<String>,
    columns: Option<Vec<String>>,
    after: Option<String>,
    limit: Option<u64>,
    format: Option<String>,
}

/// `GET /v1/export?from=…&to=…&columns=a,b&after=…&limit=…`.
pub(crate) async fn get(
    caller: Caller,
    version: Version,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    run(&caller, version, &headers, from_query(query.as_deref())?).await
}

/// `POST /v1/export`: the same fields as a JSON object, the columns as an array.
pub(crate) async fn post(
    caller: Caller,
    version: Version,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    run(&caller, version, &headers, from_body(&read_small(body).await?)?).await
}

async fn run(
    Caller { app, access }: &Caller,
    version: Version,
    headers: &HeaderMap,
    document: Document,
) -> Result<Response, Failure> {
    stream_response::needs_chunks(version)?;
    only_json_lines(document.format.as_deref(), header(headers, &ACCEPT))?;
    let Document { from, to, columns, after, limit, format: _ } = document;
    let place = app.places.exports.take(&Holder::new(access.organisation.as_deref()))?;
    let reader = app.engine.reader_as(access);
    let after = after.map(|after| after.parse()).transpose()?;
    let request = ExportRequest { from, to, columns, after, limit };
    let mut response =
        stream_response::stream(reader.export(&request).await?, Format::Jsonl.media_type()).await?;
    stream_response::tell_withheld(&mut response, &reader.withheld_from_export(&request));
    let file = HeaderValue::from_static("attachment; filename=\"gatelog-export.jsonl\"");
    response.headers_mut().insert(CONTENT_DISPOSITION, file);
    if let Some(most) =
        app.engine.catalog().state().document.most_exported(access.organisation.as_deref())
    {
        response.headers_mut().insert(MAX_HEADER, most.into());
    }
    Ok(held_by(response, place))
}

/// Refuses another format, whether `format` names it or `Accept` asks for it. A client that accepts
/// any JSON is served.
fn only_json_lines(format: Option<&str>, accept: Option<&str>) -> Result<(), Failure> {
    let remedy = "an export is JSON lines, one record per line; use `/v1/sql` for other formats";
    if let Some(format) = format.filter(|format| !format.eq_ignore_ascii_case("jsonl")) {
        return Err(Failure::invalid(format!(
            "field `format` is `{format}`; expected `jsonl`: {remedy}"
        )));
    }
    match accept.and_then(Format::accepted) {
        Some(Format::Csv | Format::Arrow | Format::Parquet) => Err(Failure::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("header `accept` asks for another format: {remedy}"),
        )),
        _ => Ok(()),
    }
}

fn from_query(query: Option<&str>) -> Result<Document, Failure> {
    let mut fields = Fields::decode(query)?;
    let columns = fields.take("columns").filter(|names| !names.trim().is_empty());
    let document = Document {
        from: fields.take("from"),
        to: fields.take("to"),
        columns: columns.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect()),
        after: fields.take("after"),
        limit: fields.take_number("limit")?,
        format: fields.take("format"),
    };
    fields.finish(FIELDS)?;
    Ok(document)
}

fn from_body(text: &str) -> Result<Document, Failure> {
    if text.trim().is_empty() {
        return Ok(Document::default());
    }
    object(text, FIELDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let query = from_query(Some("from=2026-11-01&columns=id,%20request.body&limit=5")).unwrap();
        let body =
            from_body(r#"{"from": "2026-11-01", "columns": ["id", "request.body"], "limit": 5}"#)
                .unwrap();
        assert_eq!(format!("{query:?}"), format!("{body:?}"));
        assert!(from_body("").is_ok());
        assert!(from_body(r#"{"colums": []}"#).is_err());
        assert!(from_query(Some("colums=id")).is_err());
    }

    #[test]
    fn other_formats_are_refused() {
        assert!(only_json_lines(Some("JSONL"), Some("*/*")).is_ok());
        assert!(only_json_lines(None, Some("application/json")).is_ok());
        assert!(only_json_lines(None, Some("text/html")).is_ok());
        assert!(only_json_lines(Some("csv"), None).is_err());
        assert!(only_json_lines(None, Some("text/csv")).is_err());
    }
}
