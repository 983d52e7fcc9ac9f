//! Runs every handler that changes something to its end, even if the client disconnects.
//!
//! A client that disconnects drops the future of its request. A handler that is dropped between two
//! steps, or while another thread writes for it, would release its locks too early and leave its
//! last steps undone. So every request that may write runs in a task of its own. Its body ends with
//! the connection, so the task does not wait for a client that is gone.

use std::panic::resume_unwind;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::http::error::Failure;
use crate::http::state::App;

/// `POST` routes that only read. Their work is cancelled when the client disconnects.
pub(crate) const READS: [&str; 2] = ["/v1/sql", "/v1/export"];

/// Returns true if requests of the route may change something.
pub(crate) fn changes(method: &Method, path: &str) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    !reads && !READS.contains(&path)
}

/// Middleware: runs requests that may change something in a task of their own.
pub(crate) async fn finish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if !changes(request.method(), path) {
        return next.run(request).await;
    }
    let handler = async move { next.run(request).await };
    match app.handlers.spawn(handler.in_current_span()).await {
        Ok(response) => response,
        Err(broken) if broken.is_panic() => resume_unwind(broken.into_panic()),
        Err(_) => Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server shut down before the request was complete",
        )
        .into_response(),
    }
}
