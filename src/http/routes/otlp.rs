//! OTLP over HTTP: `POST …/v1/traces`, `…/v1/logs` and `…/v1/metrics`, in JSON or protobuf,
//! compressed or not.

use axum::Extension;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::http::ingest::otlp::export;
use crate::http::middleware::auth::Caller;
use crate::ingest::otlp::Signal;
use crate::refusals::Sender;

/// `POST /v1/otel/v1/traces` and its aliases.
pub(crate) async fn traces(
    caller: Caller,
    sender: Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(caller, &sender, &headers, body, Some(Signal::Traces)).await
}

/// `POST /v1/otel/v1/logs` and its aliases.
pub(crate) async fn logs(
    caller: Caller,
    sender: Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(caller, &sender, &headers, body, Some(Signal::Logs)).await
}

/// `POST /v1/otel/v1/metrics` and its aliases.
pub(crate) async fn metrics(
    caller: Caller,
    sender: Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(caller, &sender, &headers, body, Some(Signal::Metrics)).await
}

/// `POST /v1/logs/otel`: spans or log records.
pub(crate) async fn either(
    caller: Caller,
    sender: Extension<Sender>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    export(caller, &sender, &headers, body, None).await
}
