//! `GET /metrics`: metrics for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::http::error::Failure;
use crate::http::state::App;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /metrics`.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    match app.metrics.text() {
        Ok(text) => Ok(([(CONTENT_TYPE, TEXT)], text).into_response()),
        Err(_) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the metrics")),
    }
}
