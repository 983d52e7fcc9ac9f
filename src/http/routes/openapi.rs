//! `GET /openapi.json`: the API document. Needs no key.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::http::openapi::document;
use crate::http::state::App;

/// `GET /openapi.json`.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Response {
    let text = app.document.get_or_init(|| Bytes::from(document(&app.routes).to_string()));
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], text.clone())
        .into_response()
}
