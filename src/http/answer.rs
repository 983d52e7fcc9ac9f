//! Responses in JSON that no proxy caches.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// A response that no proxy caches.
pub(crate) type Answer<T> = (StatusCode, [(HeaderName, &'static str); 1], Json<T>);

/// Creates a response with a status.
pub(crate) fn answer<T>(status: StatusCode, value: T) -> Answer<T> {
    (status, [(CACHE_CONTROL, "no-store")], Json(value))
}

/// Creates the response of a complete list.
pub(crate) fn list<T: Serialize>(data: &[T]) -> Answer<Value> {
    answer(StatusCode::OK, json!({ "object": "list", "total": data.len(), "data": data }))
}

/// Creates a response that proxies must not cache and browsers must not reinterpret.
pub(crate) fn private(content_type: (HeaderName, &'static str), text: String) -> Response {
    let headers = [
        content_type,
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The URL of a shared log opens it.
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}
