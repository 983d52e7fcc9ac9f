//! System operations: health, metrics, documentation.

use serde_json::json;

use crate::http::openapi::operation::Operation;

pub(super) const SCHEMAS: &str = "\
Health  The process is running.
  status  =ok

Readiness  The server accepts records and queries.
  status  =ready";

pub(super) fn operations() -> Vec<Operation> {
    let html = [("text/html", json!({ "type": "string" }))];
    let metrics = ("application/openmetrics-text", json!({ "type": "string" }));
    vec![
        Operation::get("/healthz", "health", "Returns 200 as long as the process runs")
            .gives(200, "Health"),
        Operation::get("/readyz", "ready", "Returns 200 if the server accepts records and queries")
            .gives(200, "Readiness")
            .fails(&[503]),
        Operation::get("/openapi.json", "openapi", "Returns this document").gives(200, "any"),
        Operation::get("/docs", "guide", "Lists the pages of the guide").answers(200, &html),
        Operation::get("/docs/{page}", "guidePage", "Returns a page of the guide")
            .answers(200, &html)
            .fails(&[404]),
        Operation::get(
            "/metrics",
            "metrics",
            "Returns the metrics of the server in the OpenMetrics format",
        )
        .answers(200, &[metrics]),
    ]
}
