//! `/v1/logs/exports`: export jobs, as Portkey's SDKs and its guide call them.
//!
//! What those send is taken as it comes: no body, no content type, a bare `?`, fields that nobody knows, ids that are numbers. Only
//! a filter or a column that is none is refused, since passing it over would export something else than was asked for. An SDK
//! sends a call again whose answer got lost: what [`super::resend`] knows again is answered as the first time, and makes no
//! second job. The file itself is handed out by [`file`], without a key.

pub(crate) mod file;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::{Extension, Json};
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use super::App;
use super::admin::Id;
use super::body::read_small;
use super::error::Failure;
use super::resend::Connection;
use crate::catalog::{Access, ExportChange, ExportJob, ExportStatus, Scope, ShownExport};
use crate::engine::NewExport;
use crate::error::{Error, ErrorKind};
use crate::ingest::Headers;

type Answer<T> = ([(HeaderName, &'static str); 1], Json<T>);
type Connected = Option<Extension<Connection>>;

/// `POST /v1/logs/exports`.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    connection: Connected,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer<Value>, Failure> {
    let text = read_small(body).await?;
    let change = asked(&text)?;
    let (id, _) = recognise(&app, &access, connection, &headers, &text);
    let ExportChange { workspace, filters, columns, description } = change;
    let new = NewExport { id, workspace, filters: filters.unwrap_or_default(), columns, description };
    Ok(made(&app.engine.create_export(&access, new).await?))
}

/// `PUT /v1/logs/exports/{id}`: what is not said stays as it is.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    path: Id,
    body: Body,
) -> Result<Answer<Value>, Failure> {
    let (id, text) = (named(path)?, read_small(body).await?);
    Ok(made(&app.engine.update_export(&access, &id, &asked(&text)?).await?))
}

/// `GET /v1/logs/exports?workspace_id=…`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> Answer<Value> {
    let jobs = app.engine.exports(&access, workspace_of(query.as_deref()).as_deref());
    answer(json!({ "object": "list", "total": jobs.len(), "data": jobs }))
}

/// `GET /v1/logs/exports/{id}`.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    path: Id,
) -> Result<Answer<ShownExport>, Failure> {
    Ok(answer(app.engine.export_job(&access, &named(path)?)?))
}

/// `POST /v1/logs/exports/{id}/start`.
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    connection: Connected,
    headers: HeaderMap,
    path: Id,
) -> Result<Answer<Value>, Failure> {
    let id = named(path)?;
    let (_, again) = recognise(&app, &access, connection, &headers, &format!("start {id}"));
    if !(again && app.engine.export_job(&access, &id)?.status != ExportStatus::Draft) {
        app.engine.start_export(&access, &id).await?;
    }
    Ok(said("Export started; its status is `success` when the file is there"))
}

/// `POST /v1/logs/exports/{id}/cancel`.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    connection: Connected,
    headers: HeaderMap,
    path: Id,
) -> Result<Answer<Value>, Failure> {
    let id = named(path)?;
    let (_, again) = recognise(&app, &access, connection, &headers, &format!("cancel {id}"));
    if !(again && app.engine.export_job(&access, &id)?.status == ExportStatus::Stopped) {
        app.engine.cancel_export(&access, &id).await?;
    }
    Ok(said("Export cancelled"))
}

/// `GET /v1/logs/exports/{id}/download`: a URL that opens the file for an hour, for whoever has it.
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    uri: Uri,
    headers: HeaderMap,
    path: Id,
) -> Result<Answer<Value>, Failure> {
    let (token, expires_at) = app.engine.export_token(&access, &named(path)?).await?;
    let url = format!("{}/exports/{token}", base(&uri, &headers, &app.engine.config().listen));
    let expires_at = expires_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    Ok(answer(json!({ "signed_url": url, "url": url, "expires_at": expires_at, "object": "export" })))
}

/// `GET /v1/logs/exports/field-restrictions?workspace_id=…`: what the key may not export, and what it may.
pub(crate) async fn restrictions(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> Answer<Value> {
    let workspace = access.workspace.clone().or_else(|| workspace_of(query.as_deref()));
    let state = app.engine.catalog().state();
    let denied = state.document.denied(access.organisation.as_deref(), workspace.as_deref());
    answer(json!({
        "object": "export-field-restrictions",
        "organisation_id": access.organisation,
        "workspace_id": workspace,
        "denied_fields": denied.fields(),
        "allowed_fields": denied.allowed(access.may(Scope::Read)),
        "export_settings": { "deniedFields": denied.fields() },
    }))
}

/// What a body asks for.
fn asked(text: &str) -> Result<ExportChange, Failure> {
    let wrong = |field: &str, expected: &str| Failure::invalid(format!("field `{field}` is no {expected}"));
    let mut fields: Map<String, Value> = match text.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|cause| {
            Failure::invalid(format!(
                "the body is not a JSON object with filters, requested_data, workspace_id, description: {cause}"
            ))
        })?,
    };
    let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_null() && value != "");
    let filters = match take("filters") {
        None => None,
        Some(Value::Object(filters)) => Some(filters),
        Some(_) => return Err(wrong("filters", "JSON object such as {\"time_of_generation_min\": \"2026-11-01\"}")),
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(()),
    };
    let columns = match take("requested_data") {
        None => None,
        Some(Value::Array(names)) if names.is_empty() => None,
        Some(Value::Array(names)) => {
            let names = names.into_iter().map(text).collect::<Result<Vec<_>, ()>>();
            Some(names.map_err(|()| wrong("requested_data", "array of names of columns"))?)
        }
        Some(_) => return Err(wrong("requested_data", "array of names of columns")),
    };
    let mut one = |name: &str| take(name).map(text).transpose().map_err(|()| wrong(name, "text"));
    Ok(ExportChange { workspace: one("workspace_id")?, description: one("description")?, filters, columns })
}

/// The id for what a request makes, and whether it is one that was sent again.
fn recognise(app: &App, access: &Access, connection: Connected, headers: &HeaderMap, body: &str) -> (String, bool) {
    let headers = Headers::read(|name| headers.get(name)?.to_str().ok().map(str::to_owned));
    let (fresh, now) = (app.engine.new_id(), app.engine.now());
    let connection = connection.map(|Extension(connection)| connection);
    let ids = app.resends.ids(&access.key_id, &headers, body.as_bytes(), connection.as_ref(), now, &fresh);
    match ids.map(|ids| ids.id(0)) {
        Some(id) => (id.clone(), id != fresh),
        None => (fresh, false),
    }
}

fn workspace_of(query: Option<&str>) -> Option<String> {
    let mut fields = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let named = fields.find(|(name, _)| name == "workspace_id").map(|(_, value)| value.into_owned());
    named.filter(|named| !named.is_empty())
}

/// Where the client reaches this server, as far as its request tells.
fn base(uri: &Uri, headers: &HeaderMap, listen: &str) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").and_then(|list| list.split(',').next()).map(str::trim);
    let scheme = scheme.filter(|scheme| ["http", "https"].contains(scheme)).unwrap_or("http");
    let host = text("host").or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
    let host = host.filter(|host| host.parse::<axum::http::uri::Authority>().is_ok() && !host.contains('@'));
    format!("{scheme}://{}", host.unwrap_or(listen))
}

fn named(path: Id) -> Result<String, Failure> {
    // What cannot be an id names nothing.
    path.map(|axum::extract::Path(id)| id).map_err(|_| Error::new(ErrorKind::NotFound, "no export has that id").into())
}

fn made(job: &ExportJob) -> Answer<Value> {
    answer(json!({ "id": job.id, "total": job.total, "object": "export" }))
}

fn said(message: &str) -> Answer<Value> {
    answer(json!({ "message": message, "object": "export" }))
}

fn answer<T>(value: T) -> Answer<T> {
    ([(CACHE_CONTROL, "no-store")], Json(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_taken_as_it_comes() {
        for empty in
            ["", " ", "{}", r#"{"export_id":"x","requestedData":["id"]}"#, r#"{"filters":null,"requested_data":[]}"#]
        {
            assert_eq!(asked(empty).unwrap(), ExportChange::default(), "{empty}");
        }
        let full = asked(r#"{"workspace_id":7,"filters":{"cost_min":1},"requested_data":["id"],"description":"d"}"#);
        let full = full.unwrap();
        assert_eq!((full.workspace.as_deref(), full.description.as_deref()), (Some("7"), Some("d")));
        assert_eq!((full.filters.unwrap().len(), full.columns.unwrap()), (1, vec!["id".to_owned()]));
        for wrong in ["[]", "x", r#"{"filters":[]}"#, r#"{"requested_data":"id"}"#, r#"{"requested_data":[{}]}"#] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_base_url_is_the_one_that_the_client_used() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            base(&Uri::from_static("/v1"), &headers, "127.0.0.1:8080")
        };
        assert_eq!(of(&[]), "http://127.0.0.1:8080");
        assert_eq!(of(&[("host", "logs.example:81")]), "http://logs.example:81");
        assert_eq!(of(&[("host", "a"), ("x-forwarded-proto", "https, http")]), "https://a");
        assert_eq!(of(&[("host", "a"), ("x-forwarded-proto", "javascript")]), "http://a");
        assert_eq!(of(&[("host", "a/b?")]), "http://127.0.0.1:8080");
        assert_eq!(of(&[("host", "user@a")]), "http://127.0.0.1:8080");
    }
}
