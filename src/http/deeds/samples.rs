//! A sample request for each route that changes something, with the objects that it needs.

use axum::http::Method;

use crate::catalog::{Document, NewKey, Organisation, Scope, Share};
use crate::engine::{Access, NewExport};
use crate::http::deeds::{Bed, fresh};
use crate::http::route::Route;

const SPANS: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c",
    "spanId":"SPAN","name":"chat","startTimeUnixNano":"1795600000000000000","endTimeUnixNano":"1795600001000000000",
    "attributes":[{"key":"gen_ai.request.model","value":{"stringValue":"m"}},
    {"key":"gen_ai.operation.name","value":{"stringValue":"chat"}}]}]}]}]}"#;

/// A sample request.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: String,
}

/// Objects that were created for a request.
#[derive(Default)]
pub(super) struct Things {
    key: String,
    organisation: String,
    share: String,
    job: String,
    feedback: String,
    filter: String,
}

impl Things {
    /// Returns ids of objects that do not exist.
    pub(super) fn nowhere() -> Self {
        let [key, organisation, share, job, feedback, filter] = ["x"; 6].map(str::to_owned);
        Self { key, organisation, share, job, feedback, filter }
    }
}

/// Returns the sample request of a route, and creates the objects that it needs.
pub(super) async fn sample(bed: &Bed, route: Route) -> Sample {
    let engine = &bed.app.engine;
    let number = fresh();
    let now = engine.now();
    let random = engine.random();
    let operator = Access::operator("test");
    let mut things = Things {
        organisation: format!("org-{number}"),
        share: format!("share-{number}"),
        filter: format!("filter-{number}"),
        ..Things::default()
    };
    let make = |document: &mut Document| {
        let key = NewKey { scopes: [Scope::View].into(), ..NewKey::default() };
        let key = document.add_key(&format!("made {number}"), key, now)?.id.clone();
        document.create_organisation(
            &things.organisation,
            Organisation::new("production", now),
            0,
        )?;
        document.archive_provider("acme", "archived", true)?;
        document.save_filter("acme", &things.filter, "ai_model=m", &operator, now)?;
        let share = Share {
            id: things.share.clone(),
            organisation: "acme".to_owned(),
            workspace: None,
            log_id: "log-1".to_owned(),
            bodies: false,
            created_by: "test".to_owned(),
            created_at: now,
            expires_at: now + chrono::TimeDelta::hours(1),
            revoked_at: None,
        };
        document.add_share(share, random)?;
        Ok(key)
    };
    things.key = engine.catalog().change(make).await.unwrap();
    if route.path.contains("exports") {
        let new = NewExport { id: engine.new_id(), ..NewExport::default() };
        things.job = engine.create_export(&operator, new).await.unwrap().id;
    }
    if route.path.contains("cancel") {
        engine.start_export(&operator, &things.job).await.unwrap();
    }
    if route.path.contains("feedback") {
        let feedback = crate::record::Feedback { value: Some(1.0), ..Default::default() };
        things.feedback =
            engine.append_feedback_as(&operator, vec![feedback]).await.unwrap().remove(0);
    }
    sample_of(route, &format!("{number}"), &things)
}

/// Returns the sample request of a route. `number` makes each one different.
pub(super) fn sample_of(route: Route, number: &str, things: &Things) -> Sample {
    let span = format!("{:0>16}", number);
    let spans = SPANS.replace("SPAN", &span);
    let record = format!(r#"{{"id":"r-{number}","ai_model":"m"}}"#);
    let (path, body) = match route.path {
        "/v1/logs" => ("/v1/logs".to_owned(), r#"{"request":{},"response":{}}"#.to_owned()),
        "/v1/logs/filters/{name}" => (
            format!("/v1/logs/filters/{}?organisation_id=acme", things.filter),
            r#"{"query":"ai_model=n"}"#.to_owned(),
        ),
        "/v1/logs/exports" => ("/v1/logs/exports".to_owned(), "{}".to_owned()),
        path if path.starts_with("/v1/logs/exports/{id}") => {
            (path.replace("{id}", &things.job), r#"{"description":"d"}"#.to_owned())
        }
        path if path.starts_with("/v1/logs/{id}/") => {
            (path.replace("{id}", "log-1"), "{}".to_owned())
        }
        "/v1/shares/{id}" => (format!("/v1/shares/{}", things.share), String::new()),
        "/v1/feedback" => ("/v1/feedback".to_owned(), r#"{"trace_id":"t","value":1}"#.to_owned()),
        "/v1/feedback/{id}" => {
            (format!("/v1/feedback/{}", things.feedback), r#"{"value":2}"#.to_owned())
        }
        "/v1/ingest" => ("/v1/ingest".to_owned(), record),
        "/v1/ingest/litellm" => {
            let body =
                format!(r#"{{"id":"l-{number}","model":"m","status":"success","messages":[]}}"#);
            ("/v1/ingest/litellm".to_owned(), body)
        }
        "/v1/ingest/gateway-hook" => {
            let body = serde_json::json!({
                "request": { "json": { "model": "m", "messages": [] }, "isStreamingRequest": false, "headers": {} },
                "response": { "json": { "usage": { "prompt_tokens": 9 }, "id": number }, "statusCode": 200 },
                "provider": "openai", "requestType": "chatComplete", "metadata": { "number": number },
            });
            ("/v1/ingest/gateway-hook".to_owned(), body.to_string())
        }
        "/v1/logs/enterprise/logs" => (
            "/v1/logs/enterprise/logs".to_owned(),
            format!(
                r#"{{"logObject":{{"_id":"cp-{number}","created_at":"2026-11-21 10:00:00.000",
                "request":{{"url":"u"}},"response":{{"status":200}},"metrics":{{}}}}}}"#
            ),
        ),
        path @ ("/v1/analytics/enterprise/analytics" | "/dp/metrics") => (
            path.to_owned(),
            format!(r#"{{"table":"generations","data":[{{"id":"cp-{number}"}}]}}"#),
        ),
        path if path.ends_with("/traces") || path == "/v1/logs/otel" => (path.to_owned(), spans),
        path if path.ends_with("otel/v1/logs") => {
            (path.to_owned(), r#"{"resourceLogs":[]}"#.to_owned())
        }
        path if path.ends_with("/metrics") => (path.to_owned(), "{}".to_owned()),
        "/v1/admin/organisations" => (
            "/v1/admin/organisations".to_owned(),
            format!(r#"{{"id":"new-{number}","plan":"production"}}"#),
        ),
        "/v1/admin/organisations/{id}" => (
            format!("/v1/admin/organisations/{}", things.organisation),
            r#"{"name":"n"}"#.to_owned(),
        ),
        "/v1/admin/keys" => ("/v1/admin/keys".to_owned(), r#"{"scopes":["logs.view"]}"#.to_owned()),
        "/v1/admin/keys/{id}" => (format!("/v1/admin/keys/{}", things.key), String::new()),
        "/v1/admin/erasures" => (
            "/v1/admin/erasures".to_owned(),
            r#"{"organisation":"acme","user":"nobody"}"#.to_owned(),
        ),
        "/v1/admin/archived-providers" => (
            "/v1/admin/archived-providers".to_owned(),
            format!(r#"{{"organisation":"acme","provider":"p-{number}"}}"#),
        ),
        "/v1/admin/archived-providers/{provider}" => {
            ("/v1/admin/archived-providers/archived?organisation=acme".to_owned(), String::new())
        }
        "/v1/admin/maintain/{job}" => {
            ("/v1/admin/maintain/vacuum?dry_run=true".to_owned(), String::new())
        }
        "/v1/admin/clock" => ("/v1/admin/clock".to_owned(), String::new()),
        other => panic!("route `{other}` changes something and has no sample here: give it one"),
    };
    Sample { method: route.method.parse().unwrap(), path, body }
}
