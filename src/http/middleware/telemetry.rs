//! The outermost middleware of every request: its id, metrics, a log line, and a response after a
//! panic.
//!
//! The id is sent as `x-portkey-request-id` with every response; Portkey's SDKs do not repeat a
//! failed call that has it. The log line has the route template, status, time and id, but no path,
//! query, header or body.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::{Cause, Failure};
use crate::http::middleware::admission::held_by;
use crate::http::state::App;

const REQUEST_ID: &str = "x-portkey-request-id";

/// Middleware: gives each request an id, measures it and logs it.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = app.engine.new_id();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let method = request.method().clone();
    let mut running = app.metrics.start(route.clone());

    let mut response = next.run(request).await;

    let status = response.status();
    running.answered(status);
    let elapsed_ms = running.elapsed_ms();
    match response.extensions().get::<Cause>() {
        Some(Cause(cause)) => {
            tracing::error!(%method, route, status = status.as_u16(), elapsed_ms, id, cause, "request failed")
        }
        None => {
            tracing::debug!(%method, route, status = status.as_u16(), elapsed_ms, id, "request answered")
        }
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    // The request counts as running until the last byte was sent or the client disconnected.
    held_by(response, running)
}

/// Returns the response of a request whose handler panicked. The panic hook has logged the
/// location. The panic message may contain data and is not sent.
pub(crate) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let message =
        "an internal error ended the request; report it with the server's log of this request";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
}
