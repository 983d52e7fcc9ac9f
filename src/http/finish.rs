//! Runs a handler that changes something to its end, whether its client waits for the answer or not.
//!
//! A client that hangs up drops the future of its request. A handler that is dropped between two of its steps, or while another
//! thread writes for it, frees its locks too early and leaves its last steps undone. So every request but a reading one runs in
//! a task of its own. Its body ends with the connection, so that it waits for no client that is gone.

use std::panic::resume_unwind;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::App;
use super::error::Failure;

/// Routes that only read though their method is `POST`. The work for them stops when their client goes.
pub(super) const READS: [&str; 2] = ["/v1/sql", "/v1/export"];

/// Returns whether requests of a route may change something.
pub(super) fn changes(method: &Method, path: &str) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    !reads && !READS.contains(&path)
}

/// Middleware: runs what may change something in a task of its own.
pub(super) async fn finish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if !changes(request.method(), path) {
        return next.run(request).await;
    }
    let handler = async move { next.run(request).await };
    match app.handlers.spawn(handler.in_current_span()).await {
        Ok(response) => response,
        Err(broken) if broken.is_panic() => resume_unwind(broken.into_panic()),
        Err(_) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the server ended while it answered").into_response(),
    }
}
