//! Adds requests that failed as a whole to the list of refusals.
//!
//! Records are added where they are refused ([`crate::http::ingest`]). A failed request on an
//! ingestion route is added here, so that no handler can forget it. [`SOURCES`] names these routes,
//! and a test compares it with the route table.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::catalog::Access;
use crate::http::error::{Refusing, reason};
use crate::http::input::Fields;
use crate::http::state::App;
use crate::ingest::SourceFormat;
use crate::refusals::{Refused, Sender, Source};

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalog::Scope;
    use crate::http::route::Needs;
    use crate::http::router::list;

    /// Routes with scope `logs.write` that store nothing from their clients.
    const TAKE_NOTHING: [(&str, &str); 1] = [("POST", "/v1/logs/{id}/replay")];

    #[test]
    fn every_route_that_takes_something_is_watched() {
        let writes = list().into_iter().filter(|route| {
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
