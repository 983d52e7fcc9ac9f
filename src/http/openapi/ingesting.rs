//! Records in other forms than Portkey's insert: lines of JSON, LiteLLM, the gateways' hooks, the reports of a gateway 2.0
//! to its control plane, OpenTelemetry.

use serde_json::{Value, json};

use super::components::receipt_fields;
use super::operation::{JSON, Operation, header, query};
use super::schema::{any, beside, constant, flag, list, moment, object, one_of, open, or_null, refer, text};
use crate::ingest::Shape;

const LINES: &str = "application/x-ndjson";
const PROTOBUF: &str = "application/x-protobuf";

pub(super) fn operations() -> Vec<Operation> {
    let mut all = vec![ingest(), litellm(), hook()];
    all.extend(control_plane());
    for (route, id, what) in [
        ("/v1/traces", "exportTraces", Some(Signal::Traces)),
        ("/v1/metrics", "exportMetrics", Some(Signal::Metrics)),
        ("/v1/otel/v1/traces", "exportTracesOtel", Some(Signal::Traces)),
        ("/v1/otel/v1/logs", "exportLogsOtel", Some(Signal::Logs)),
        ("/v1/otel/v1/metrics", "exportMetricsOtel", Some(Signal::Metrics)),
        ("/v1/logs/otel", "exportEither", None),
        ("/v1/logs/otel/v1/traces", "exportTracesLogs", Some(Signal::Traces)),
        ("/v1/logs/otel/v1/logs", "exportLogsLogs", Some(Signal::Logs)),
        ("/v1/logs/otel/v1/metrics", "exportMetricsLogs", Some(Signal::Metrics)),
    ] {
        all.push(otlp(route, id, what));
    }
    all
}

/// A record or several, as one JSON value.
fn one_or_more(record: &Value) -> Value {
    json!({ "anyOf": [record, list(record.clone(), "several")] })
}

fn ingest() -> Operation {
    let example = json!([{
        "id": "a-1", "created_at": "2026-11-21T16:26:58.758Z", "ai_org": "openai", "ai_model": "gpt-4o",
        "response_status_code": 200, "total_units": 4, "cost": 0.25, "metadata": { "team": "search" },
        "request": { "body": { "model": "gpt-4o" } },
    }]);
    let shapes = one_of(Shape::ALL.map(Shape::name), "the form of the records");
    Operation::post(
        "/v1/ingest",
        "ingest",
        "Stores records of any number: lines of JSON, an array, or objects one after the other",
    )
    .says(
        "Whatever the content type. gzip and zstd are recognised. A record that has an `id` is stored once, however \
             often it is sent. 400 with a receipt means that no record was good.",
    )
    .takes([query("source", shapes, "native")])
    .body(false, &[JSON], &one_or_more(&refer("Record")), &example)
    .or_body(LINES, &text("a record a line"), "{\"ai_model\":\"gpt-4o\",\"total_units\":4}\n")
    .answers_json(200, "A receipt", refer("Receipt"))
    .fails(&[415, 429])
}

fn litellm() -> Operation {
    let call = open(object("What LiteLLM says of a call.", [("id?", any("id of the call")), ("model?", any("model"))]));
    let example = json!([{
        "id": "c-1", "call_type": "acompletion", "status": "success", "model": "gpt-4o", "custom_llm_provider": "openai",
        "startTime": 1_795_278_418.0, "endTime": 1_795_278_419.5, "total_tokens": 4, "response_cost": 0.0025,
    }]);
    Operation::post("/v1/ingest/litellm", "ingestLitellm", "Stores what LiteLLM's `generic_api` callback sends")
        .body(false, &[JSON], &one_or_more(&call), &example)
        .or_body(LINES, &text("a call a line"), "{\"model\":\"gpt-4o\"}\n")
        .answers_json(200, "A receipt, also if no record was good", refer("Receipt"))
        .fails(&[415, 429])
}

fn hook() -> Operation {
    let call = open(object(
        "What a hook of Portkey's gateway says of a call.",
        [("request?", any("the request")), ("response?", any("the response")), ("provider?", any("the provider"))],
    ));
    let example = json!({
        "provider": "openai", "requestType": "chatComplete",
        "request": { "json": { "model": "gpt-4o", "messages": [] }, "headers": {} },
        "response": { "json": { "model": "gpt-4o" }, "statusCode": 200 },
    });
    let verdict = object("A receipt with a verdict.", [("verdict", flag("always true: a log stops no call"))]);
    let receipt = object("", receipt_fields());
    Operation::post(
        "/v1/ingest/gateway-hook",
        "ingestGatewayHook",
        "Stores what `default.log` and `default.webhook` of Portkey's gateway send",
    )
    .says("Keys that the gateway sends in clear are masked before anything is stored.")
    .body(false, &[JSON], &one_or_more(&call), &example)
    .answers_json(200, "A receipt, also if no record was good", beside(verdict, &receipt))
    .fails(&[415, 429])
}

/// What a Portkey gateway 2.0 asks of its control plane and reports to it.
fn control_plane() -> [Operation; 4] {
    let call = open(object("the call as a LogObject of Portkey", [("_id?", any("id of the call"))]));
    let log = open(object("What was said in a call.", [("logObject", call)]));
    let tables = one_of(["generations", "feedbacks", "generation_hooks"], "what the rows are");
    let row = open(object("figures of a call, or feedback", [("id?", any("id of the call, or of the feedback"))]));
    let rows = open(object("Rows of a table.", [("table", tables), ("data", list(row, "the rows"))]));
    let report = |route, id: &str, summary: &str, body: &Value, example: &Value| {
        Operation::post(route, id, summary)
            .says("The two halves of a call have one id, and may come in any order; they become one log.")
            .body(true, &[JSON], body, example)
            .answers_json(200, "A receipt", refer("Receipt"))
            .fails(&[422, 429])
    };
    let entry = json!({ "logObject": {
        "_id": "84ecb99c-3ba0-4822-9d18-2cb1ee9e3773", "organisation_id": "acme",
        "created_at": "Sat Nov 21 2026 16:27:02 GMT+0000 (Coordinated Universal Time)",
        "request": { "url": "https://api.openai.com/v1/chat/completions", "method": "POST", "body": { "model": "gpt-4o" } },
        "response": { "status": 200, "body": { "model": "gpt-4o" }, "responseTime": 61 },
        "metrics": { "id": "84ecb99c-3ba0-4822-9d18-2cb1ee9e3773", "organisation_id": "acme" },
    } });
    let figures = json!({ "table": "generations", "data": [{
        "id": "84ecb99c-3ba0-4822-9d18-2cb1ee9e3773", "organisation_id": "acme", "created_at": "2026-11-21 16:27:02.657",
        "ai_org": "openai", "ai_model": "gpt-4o", "total_units": 18, "cost": 0.01125, "response_status_code": 200,
    }] });
    let private = "/v1/analytics/enterprise/analytics";
    [
        Operation::get("/v2/api-keys/self/details", "keyDetails", "Tells a gateway 2.0 whom the key is of")
            .answers_json(200, "The key's owner, in the form that the gateway reads", key_details()),
        report(
            "/v1/logs/enterprise/logs",
            "reportLog",
            "Takes what was said in a call from a gateway 2.0",
            &log,
            &entry,
        ),
        report(private, "reportRows", "Takes figures of calls, and feedback, from a gateway 2.0", &rows, &figures),
        report("/dp/metrics", "reportRowsPublic", "The same from a gateway that is not private", &rows, &figures),
    ]
}

fn key_details() -> Value {
    let organisation = [("organisation_id", text("its id")), ("name", text("its name"))];
    let workspace = [("id", text("its id")), ("slug", text("the same")), ("name", or_null(text("its name")))];
    let key = [
        ("id", text("its id")),
        ("name", or_null(text("what it is for"))),
        ("scopes", list(text("a scope"), "what it may do, in Portkey's words")),
        ("status", constant("active")),
        ("expires_at", or_null(moment("from when on it opens nothing"))),
    ];
    let details = object(
        "Who asks.",
        [
            ("organisation_details", open(object("the organisation of the key", organisation))),
            ("workspace_details", open(object("its workspace", workspace))),
            ("api_key_details", open(object("the key", key))),
        ],
    );
    object("The key's owner.", [("success", json!({ "const": true })), ("data", details)])
}

#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Logs,
    Metrics,
}

fn otlp(route: &'static str, id: &str, signal: Option<Signal>) -> Operation {
    let (summary, field, rejected) = match signal {
        Some(Signal::Traces) => {
            ("Takes OpenTelemetry's spans; calls to models become logs", "resourceSpans", "rejectedSpans")
        }
        Some(Signal::Logs) => (
            "Takes OpenTelemetry's log records: what was asked and answered in a call",
            "resourceLogs",
            "rejectedLogRecords",
        ),
        Some(Signal::Metrics) => (
            "Takes OpenTelemetry's metrics, and rejects them in words: none are kept",
            "resourceMetrics",
            "rejectedDataPoints",
        ),
        None => ("Takes OpenTelemetry's spans or log records", "resourceSpans", "rejectedSpans"),
    };
    let fields = if signal.is_some() { vec![field] } else { vec![field, "resourceLogs"] };
    let fields: Vec<String> = fields.into_iter().map(|field| format!("{field}?")).collect();
    let resources = || or_null(list(open(object("a resource", [])), "resources"));
    let request = open(object("An export request of OTLP.", fields.iter().map(|name| (name.as_str(), resources()))));
    let partial = |rejected: &'static str| {
        let name = format!("{rejected}?");
        let fields = [(name.as_str(), text("how many were rejected")), ("errorMessage?", text("why, or a warning"))];
        object("What was not taken.", fields)
    };
    let answer = match signal {
        None => {
            let fields = ["rejectedSpans?", "rejectedLogRecords?", "rejectedDataPoints?", "errorMessage?"];
            object("What was not taken.", fields.map(|name| (name, text("as its name says"))))
        }
        Some(_) => partial(rejected),
    };
    let done = object("An export response of OTLP.", [("partialSuccess?", answer)]);
    let coding = one_of(["identity", "gzip", "zstd"], "how the body is packed");
    Operation::post(route, id, summary)
        .says("JSON or protobuf, packed or not; the answer is in the encoding of the request. Failures name gRPC's `code` too.")
        .takes([header("content-encoding", coding, "identity")])
        .body(false, &[JSON], &request, &json!({ field: [] }))
        .or_body(PROTOBUF, &any("the same as protobuf"), "")
        .answers(200, "Taken, perhaps in part", &[(JSON, done), (PROTOBUF, any("the same"))])
        .with_headers(200, &[("x-gatelog-passed-over", text("spans that are no calls to models"))])
        .fails_in(&[JSON, PROTOBUF], &[400, 408, 413, 415, 429, 500, 503])
}
