//! `GET /healthz` and `GET /readyz`. They need no key, so they reveal nothing but their status.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::http::error::Failure;
use crate::http::state::App;

/// Returns 200 as long as the process runs.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Returns 200 if the server accepts records and queries: the engine is writable, the catalog is
/// fresh, and the server is not shutting down. The log and `/metrics` give the reason for a 503.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, Failure> {
    if app.closing.load(Ordering::Relaxed) {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the server is shutting down",
        ));
    }
    if !app.engine.status().writable {
        let message = "not ready: the server cannot store records; see its log for the reason, and run `gatelog doctor`";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    if app.engine.refuse_if_stale().await.is_err() {
        let message =
            "not ready: the catalog could not be read for longer than `max_staleness_seconds`";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    Ok(Json(json!({ "status": "ready" })))
}
