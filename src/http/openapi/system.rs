//! The server itself: health, metrics, this document, and share links.

use super::operation::{JSON, Operation, part};
use super::schema::{any, constant, object, refer, text};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/healthz", "health", "Answers as long as the process runs").answers_json(
            200,
            "It runs",
            object("Health.", [("status", constant("ok"))]),
        ),
        Operation::get("/readyz", "ready", "Tells whether records are taken")
            .answers_json(200, "Records are taken", object("Readiness.", [("status", constant("ready"))]))
            .fails(&[503]),
        Operation::get("/openapi.json", "openapi", "This document").answers_json(
            200,
            "OpenAPI 3.1",
            any("the document"),
        ),
        Operation::get("/metrics", "metrics", "Figures of the server in OpenMetrics").answers(
            200,
            "The figures",
            &[("application/openmetrics-text", text("metrics"))],
        ),
        Operation::get("/shared/{token}", "openShared", "Shows the log that a share link opens, without a key")
            .says("JSON, or a page for people where `accept` asks for `text/html`.")
            .takes([part("token", text("what the link was told with"), "0198a6c1.5b41")])
            .answers(200, "The log", &[(JSON, refer("LogObject")), ("text/html", text("a page"))])
            .fails(&[404, 422, 429, 500, 503]),
    ]
}
