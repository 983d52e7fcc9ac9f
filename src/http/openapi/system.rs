//! The server itself: health, metrics, this document.

use serde_json::json;

use super::operation::Operation;

pub(super) const SCHEMAS: &str = "\
Health  That the process runs.
  status  =ok

Readiness  That records are taken.
  status  =ready";

pub(super) fn operations() -> Vec<Operation> {
    let html = [("text/html", json!({ "type": "string" }))];
    let metrics = ("application/openmetrics-text", json!({ "type": "string" }));
    vec![
        Operation::get("/healthz", "health", "Answers as long as the process runs").gives(200, "Health"),
        Operation::get("/readyz", "ready", "Tells whether records are taken").gives(200, "Readiness").fails(&[503]),
        Operation::get("/openapi.json", "openapi", "This document").gives(200, "any"),
        Operation::get("/docs", "guide", "Lists the pages of the guide").answers(200, &html),
        Operation::get("/docs/{page}", "guidePage", "Shows a page of the guide").answers(200, &html).fails(&[404]),
        Operation::get("/metrics", "metrics", "Figures of the server in OpenMetrics").answers(200, &[metrics]),
    ]
}
