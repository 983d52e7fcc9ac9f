//! `GET /healthz` and `GET /readyz`: the only routes without a key, so they tell nothing but yes or no.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::App;
use super::error::Failure;

/// The process runs and answers.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Records are taken and questions answered: the engine is writable, the catalog fresh, and the server is not closing. The log and `/metrics` say why not.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Value>, Failure> {
    if app.closing.load(Ordering::Relaxed) {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not ready: the server is closing"));
    }
    if !app.engine.status().writable {
        let message = "not ready: records are not taken; the server's log says why, `gatelog doctor` what can be done";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    if app.engine.refuse_if_stale().await.is_err() {
        let message = "not ready: the catalog could not be read for longer than `max_staleness_seconds`";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    Ok(Json(json!({ "status": "ready" })))
}
