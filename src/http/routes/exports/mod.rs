//! `/v1/logs/exports`: export jobs, compatible with Portkey's SDKs and guide.
//!
//! Requests are accepted leniently: without a body, without a content type, with a bare `?`, with
//! unknown fields, with numeric ids. Only an invalid filter or column is refused, since ignoring it
//! would export other records than requested. An SDK repeats a call whose response got lost: a call
//! that [`crate::http::state::retry_detection`] recognises as repeated gets the first response and
//! creates no second job. The file itself is served by [`file`], without a key.

pub(crate) mod file;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawQuery};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use serde_json::{Map, Value, json};

use crate::catalog::{ExportChange, ExportJob, ExportStatus, ExportView, Scope};
use crate::engine::NewExport;
use crate::error::{Error, ErrorKind};
use crate::http::body::{object, read_small};
use crate::http::error::Failure;
use crate::http::input::{Id, text_header};
use crate::http::middleware::auth::Caller;
use crate::http::public_url::base;
use crate::http::state::App;
use crate::http::state::retry_detection::Connection;
use crate::ingest::Headers;
use crate::nearest::clip;
use crate::time;

type Answer<T> = ([(HeaderName, &'static str); 1], Json<T>);

/// Data that identifies a repeated call.
pub(crate) struct Sending {
    connection: Option<Connection>,
    headers: Headers,
}

impl FromRequestParts<Arc<App>> for Sending {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<Connection>().cloned();
        let headers = Headers::read(|name| text_header(&parts.headers, name));
        Ok(Self { connection, headers })
    }
}

impl Sending {
    /// Returns the id of the job that a call creates, and true if the call is a repeated one.
    fn recognised(&self, caller: &Caller, call: &str) -> (String, bool) {
        let Caller { app, access } = caller;
        let fresh = app.engine.new_id();
        let now = app.engine.now();
        let connection = self.connection.as_ref();
        let key = (access.organisation.as_deref(), &*access.key_id);
        let ids = app.resends.ids(key, &self.headers, call.as_bytes(), connection, now, &fresh);
        let id = ids.map_or_else(|| fresh.clone(), |ids| ids.id(0));
        let again = id != fresh;
        (id, again)
    }
}

/// `POST /v1/logs/exports`.
pub(crate) async fn create(
    caller: Caller,
    sending: Sending,
    body: Body,
) -> Result<Answer<Value>, Failure> {
    let text = read_small(body).await?;
    let change = asked(&text)?;
    let (id, _) = sending.recognised(&caller, &text);
    let ExportChange { workspace, filters, columns, description } = change;
    let new =
        NewExport { id, workspace, filters: filters.unwrap_or_default(), columns, description };
    Ok(made(&caller.app.engine.create_export(&caller.access, new).await?))
}

/// `PUT /v1/logs/exports/{id}`. Fields that are left out keep their values.
pub(crate) async fn update(caller: Caller, path: Id, body: Body) -> Result<Answer<Value>, Failure> {
    let id = named(path)?;
    let text = read_small(body).await?;
    Ok(made(&caller.app.engine.update_export(&caller.access, &id, &asked(&text)?).await?))
}

/// `GET /v1/logs/exports?workspace_id=…`.
pub(crate) async fn list(caller: Caller, RawQuery(query): RawQuery) -> Answer<Value> {
    let jobs = caller.app.engine.exports(&caller.access, workspace_of(query.as_deref()).as_deref());
    answer(json!({ "object": "list", "total": jobs.len(), "data": jobs }))
}

/// `GET /v1/logs/exports/{id}`.
pub(crate) async fn show(caller: Caller, path: Id) -> Result<Answer<ExportView>, Failure> {
    Ok(answer(caller.app.engine.export_job(&caller.access, &named(path)?)?))
}

/// `POST /v1/logs/exports/{id}/start`.
pub(crate) async fn start(
    caller: Caller,
    sending: Sending,
    path: Id,
) -> Result<Answer<Value>, Failure> {
    let Caller { app, access } = &caller;
    let id = named(path)?;
    let (_, again) = sending.recognised(&caller, &format!("start {id}"));
    if !again || app.engine.export_job(access, &id)?.status == ExportStatus::Draft {
        app.engine.start_export(access, &id).await?;
    }
    Ok(confirmation("Export started; its status becomes `success` when the file is ready"))
}

/// `POST /v1/logs/exports/{id}/cancel`.
pub(crate) async fn cancel(
    caller: Caller,
    sending: Sending,
    path: Id,
) -> Result<Answer<Value>, Failure> {
    let Caller { app, access } = &caller;
    let id = named(path)?;
    let (_, again) = sending.recognised(&caller, &format!("cancel {id}"));
    if !again || app.engine.export_job(access, &id)?.status != ExportStatus::Stopped {
        app.engine.cancel_export(access, &id).await?;
    }
    Ok(confirmation("Export cancelled"))
}

/// `GET /v1/logs/exports/{id}/download`: returns a URL that opens the file for an hour, without a
/// key.
pub(crate) async fn download(
    Caller { app, access }: Caller,
    uri: Uri,
    headers: HeaderMap,
    path: Id,
) -> Result<Answer<Value>, Failure> {
    let (token, expires_at) = app.engine.export_token(&access, &named(path)?).await?;
    let url = format!("{}/exports/{token}", base(app.engine.config(), &uri, &headers));
    let expires_at = time::seconds(expires_at);
    Ok(answer(
        json!({ "signed_url": url, "url": url, "expires_at": expires_at, "object": "export" }),
    ))
}

/// `GET /v1/logs/exports/field-restrictions?workspace_id=…`: lists the fields that the key may not
/// export, and those that it may.
pub(crate) async fn restrictions(
    Caller { app, access }: Caller,
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

/// Parses the body of a request.
fn asked(text: &str) -> Result<ExportChange, Failure> {
    let wrong = |field: &str, value: &Value, expected: &str| {
        Failure::invalid(format!(
            "field `{field}` is `{}`; expected {expected}",
            clip(&value.to_string())
        ))
    };
    let mut fields: Map<String, Value> = match text.trim() {
        "" => Map::new(),
        text => object(text, "filters, requested_data, workspace_id, description")?,
    };
    let mut take = |name: &str| fields.remove(name).filter(|value| !value.is_null() && value != "");
    let filters = match take("filters") {
        None => None,
        Some(Value::Object(filters)) => Some(filters),
        Some(value) => {
            let expected = "a JSON object such as {\"time_of_generation_min\": \"2026-11-01\"}";
            return Err(wrong("filters", &value, expected));
        }
    };
    let text = |name: &str, value: Value, expected: &str| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        value => Err(wrong(name, &value, expected)),
    };
    let names = "an array of column names";
    let columns = match take("requested_data") {
        None => None,
        Some(Value::Array(items)) if items.is_empty() => None,
        Some(Value::Array(items)) => Some(
            items
                .into_iter()
                .map(|item| text("requested_data", item, names))
                .collect::<Result<Vec<_>, _>>()?,
        ),
        Some(value) => return Err(wrong("requested_data", &value, names)),
    };
    let mut one = |name: &str| take(name).map(|value| text(name, value, "a text")).transpose();
    Ok(ExportChange {
        workspace: one("workspace_id")?,
        description: one("description")?,
        filters,
        columns,
    })
}

fn workspace_of(query: Option<&str>) -> Option<String> {
    let mut fields = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let named =
        fields.find(|(name, _)| name == "workspace_id").map(|(_, value)| value.into_owned());
    named.filter(|named| !named.is_empty())
}

fn named(path: Id) -> Result<String, Failure> {
    // An invalid path cannot be an id.
    path.map(|axum::extract::Path(id)| id)
        .map_err(|_| Error::new(ErrorKind::NotFound, "no export has that id").into())
}

fn made(job: &ExportJob) -> Answer<Value> {
    answer(json!({ "id": job.id, "total": job.total, "object": "export" }))
}

fn confirmation(message: &str) -> Answer<Value> {
    answer(json!({ "message": message, "object": "export" }))
}

fn answer<T>(value: T) -> Answer<T> {
    ([(CACHE_CONTROL, "no-store")], Json(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenient_requests_of_clients_are_accepted() {
        for empty in [
            "",
            " ",
            "{}",
            r#"{"export_id":"x","requestedData":["id"]}"#,
            r#"{"filters":null,"requested_data":[]}"#,
        ] {
            assert_eq!(asked(empty).unwrap(), ExportChange::default(), "{empty}");
        }
        let full = asked(
            r#"{"workspace_id":7,"filters":{"cost_min":1},"requested_data":["id"],"description":"d"}"#,
        );
        let full = full.unwrap();
        assert_eq!(
            (full.workspace.as_deref(), full.description.as_deref()),
            (Some("7"), Some("d"))
        );
        assert_eq!(
            (full.filters.unwrap().len(), full.columns.unwrap()),
            (1, vec!["id".to_owned()])
        );
        for wrong in [
            "[]",
            "x",
            r#"{"filters":[]}"#,
            r#"{"requested_data":"id"}"#,
            r#"{"requested_data":[{}]}"#,
        ] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
