//! `GET /v1/refusals`: the list of refused records, feedback and requests; and the middleware that
//! adds requests which failed as a whole.
//!
//! Records are added where they are refused ([`super::ingest_pipeline`], [`super::otlp`]). A failed
//! request on an ingestion route is added here, so that no handler can forget it. [`SOURCES`] names
//! these routes, and a test compares it with the route table.

use std::sync::Arc;

use axum::Json;
use axum::extract::{MatchedPath, RawQuery, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::auth::Caller;
use super::error::{Failure, Refusing, reason};
use super::input::Fields;
use crate::catalog::{Access, no_organisation};
use crate::ingest::SourceFormat;
use crate::refusals::{Ask, MAX_SHOWN, Refused, Sender, Source};

/// Default number of entries in a response.
const SHOWN: u64 = 100;

/// Routes that take records or feedback, with the source of their clients.
pub(crate) const SOURCES: [(&str, &str, Source); 19] = [
    ("POST", "/v1/logs", Source::Portkey),
    ("POST", "/v1/feedback", Source::Feedback),
    ("PUT", "/v1/feedback/{id}", Source::Feedback),
    ("POST", "/v1/feedback/{id}", Source::Feedback),
    ("POST", "/v1/traces", Source::OtlpTraces),
    ("POST", "/v1/metrics", Source::OtlpMetrics),
    ("POST", "/v1/otel/v1/traces", Source::OtlpTraces),
    ("POST", "/v1/otel/v1/logs", Source::OtlpLogs),
    ("POST", "/v1/otel/v1/metrics", Source::OtlpMetrics),
    ("POST", "/v1/logs/otel", Source::OtlpTraces),
    ("POST", "/v1/logs/otel/v1/traces", Source::OtlpTraces),
    ("POST", "/v1/logs/otel/v1/logs", Source::OtlpLogs),
    ("POST", "/v1/logs/otel/v1/metrics", Source::OtlpMetrics),
    ("POST", "/v1/ingest", Source::Native),
    ("POST", "/v1/ingest/litellm", Source::Litellm),
    ("POST", "/v1/ingest/gateway-hook", Source::GatewayHook),
    ("POST", "/v1/logs/enterprise/logs", Source::ControlPlaneLogs),
    ("POST", "/v1/analytics/enterprise/analytics", Source::ControlPlaneRows),
    ("POST", "/dp/metrics", Source::ControlPlaneRows),
];

/// Middleware: passes the sender of a request to its handler, and lists the request if it fails as
/// a whole.
pub(crate) async fn watch(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(sender) = sender(&request) else { return next.run(request).await };
    request.extensions_mut().insert(sender.clone());
    let response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        match response.extensions().get::<Refusing>() {
            Some(Refusing::Noted) => {}
            Some(Refusing::As(refused)) => app.engine.refusals().request(&sender, refused.clone()),
            None => app
                .engine
                .refusals()
                .request(&sender, Refused::many(reason(status), status.as_str(), 1)),
        }
    }
    response
}

/// Returns the sender of a request to an ingestion route.
fn sender(request: &Request) -> Option<Sender> {
    let method = request.method().as_str();
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let source = source(method, path)?;
    let access = request.extensions().get::<Access>()?;
    let named = |source| if source == Source::Native { shape(request.uri().query()) } else { None };
    Some(Sender {
        organisation: access.organisation.clone(),
        workspace: access.workspace.clone(),
        source: named(source).map_or(source, Source::from),
        route: format!("{method} {path}").into(),
    })
}

fn source(method: &str, path: &str) -> Option<Source> {
    SOURCES
        .into_iter()
        .find(|(known, route, _)| (*known, *route) == (method, path))
        .map(|(_, _, source)| source)
}

/// Returns the source format that a query string names.
fn shape(query: Option<&str>) -> Option<SourceFormat> {
    Fields::decode(query).ok()?.take("source")?.parse().ok()
}

/// `GET /v1/refusals?organisation_id=…&workspace_slug=…&source=…&reason=…&page_size=…`.
pub(crate) async fn list(
    Caller { app, access }: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let (ask, most) = asked(&access, query.as_deref())?;
    let mut found = app.engine.list_refusals(&access, &ask).await?;
    let total = found.len();
    found.truncate(most);
    let answer =
        json!({ "object": "list", "total": total, "has_more": total > found.len(), "data": found });
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn asked(access: &Access, query: Option<&str>) -> Result<(Ask, usize), Failure> {
    let mut fields = Fields::decode(query)?;
    let most = fields.take_number("page_size")?.unwrap_or(SHOWN);
    if !(1..=MAX_SHOWN).contains(&most) {
        return Err(Failure::invalid(format!(
            "field `page_size` is {most}; expected 1 to {MAX_SHOWN}"
        )));
    }
    let mut text = |name: &str| fields.take(name).filter(|text| !text.is_empty());
    let ask = Ask {
        organisation: text("organisation_id"),
        workspace: text("workspace_slug"),
        source: text("source").map(|name| name.parse()).transpose()?,
        reason: text("reason").map(|name| name.parse()).transpose()?,
    };
    fields.finish("organisation_id, workspace_slug, source, reason, page_size")?;
    if let Some(named) = ask.organisation.as_ref().filter(|named| !access.reaches(named)) {
        return Err(no_organisation(named).into());
    }
    Ok((ask, usize::try_from(most).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::auth::Needs;
    use super::*;
    use crate::catalog::Scope;

    /// Routes with scope `logs.write` that store nothing from their clients.
    const TAKE_NOTHING: [(&str, &str); 1] = [("POST", "/v1/logs/{id}/replay")];

    #[test]
    fn every_route_that_takes_something_is_watched() {
        let (with_key, _) = super::super::table();
        let writes = with_key.into_parts().1.into_iter().filter(|route| {
            route.needs == Some(Needs::Scope(Scope::Write)) && route.method != "GET"
        });
        let writes: BTreeSet<_> = writes.map(|route| (route.method, route.path)).collect();
        let watched: BTreeSet<_> = SOURCES
            .into_iter()
            .map(|(method, path, _)| (method, path))
            .chain(TAKE_NOTHING)
            .collect();
        assert_eq!(writes, watched);
    }

    #[test]
    fn the_shape_of_a_request_is_its_source() {
        assert_eq!(source("POST", "/dp/metrics"), Some(Source::ControlPlaneRows));
        assert_eq!(source("GET", "/v1/logs"), None);
        assert_eq!(shape(Some("source=LiteLLM")), Some(SourceFormat::LiteLlm));
        assert_eq!(shape(Some("source=other")), None);
    }
}
