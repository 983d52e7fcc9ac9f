//! Ingestion in other formats than Portkey's insert: JSON lines, LiteLLM, gateway hooks, the
//! reports of a Portkey gateway 2.0 to its control plane, OpenTelemetry.

use serde_json::{Value, json};

use crate::http::openapi::operation::{JSON, LINES, Operation, PROTOBUF};
use crate::http::openapi::schema::{fields, kind, object};

pub(super) const SCHEMAS: &str = "\
LitellmCall+  A call as LiteLLM reports it.
  id?     any   id of the call
  model?  any   name of the model

HookCall+  A call as a hook of Portkey's gateway reports it.
  request?   any   request of the call
  response?  any   response of the provider
  provider?  any   name of the provider

HookReceipt  A receipt with a verdict.
  verdict  flag   always true: logging never blocks a call
  ..Receipt

ReportedLog+  The content of a call.
  logObject  ReportedLogObject

ReportedLogObject+  A call in the form of Portkey's LogObject.
  _id?  any   id of the call

ReportedRows+  Rows of a table.
  table  generations|feedbacks|generation_hooks   table that the rows belong to
  data   [ReportedRow]   the rows

ReportedRow+  Metrics of a call, or feedback.
  id?  any   id of the call, or of the feedback

KeyDetails  The key and its owner.
  success  =true
  data     KeyOwner

KeyOwner  The key with its organisation and workspace.
  organisation_details  KeyOrganisation
  workspace_details     KeyWorkspace
  api_key_details       KeyItself

KeyOrganisation+  The organisation of the key.
  organisation_id  text   id of the organisation
  name             text   name of the organisation

KeyWorkspace+  The workspace of the key.
  id    text    slug of the workspace
  slug  text    slug of the workspace
  name  text?   name of the workspace

KeyItself+  The key.
  id          text      id of the key
  name        text?     purpose of the key
  scopes      [text]    scopes of the key, under Portkey's names
  status      =active
  expires_at  moment?   time at which the key expires

RefusalPage  A page of refusals.
  object    =list
  total     count       number of entries
  has_more  flag        true if there are more entries than the page shows
  data      [Refusal]   entries, newest first

Refusal  A record, feedback or request that was refused.
  created_at       moment   time of the refusal
  organisation_id  text     organisation of the key, or else the one that the record names
  workspace_slug   text?    workspace, if known
  source           source   format that the client sent
  route            text     method and route, or `gatelog import`
  reason           reason   reason for the refusal
  field            text?    refused field; null if the whole record or request was refused
  message          text     expected form and remedy
  record           count?   index of the record in the request, from 0
  count            count    number of refusals that the entry stands for
  excerpt          text?    names of the fields, the refused one first, with its value if that is \
      a number; null without `logs.read`

OtlpResource+  A resource with its spans, log records or metrics.

OtlpTraces+  An export of spans.
  resourceSpans?  [OtlpResource]?   resources with their spans

OtlpLogs+  An export of log records.
  resourceLogs?  [OtlpResource]?   resources with their log records

OtlpMetrics+  An export of metrics.
  resourceMetrics?  [OtlpResource]?   resources with their metrics

OtlpEither+  An export of spans or of log records.
  resourceSpans?  [OtlpResource]?   resources with their spans
  resourceLogs?   [OtlpResource]?   resources with their log records";

const REFUSALS: &str = "
    organisation_id  text           acme     only refusals of this organisation
    workspace_slug   text           search   only refusals of this workspace
    source           source         portkey  only refusals of this source format
    reason           reason         missing  only refusals for this reason
    page_size        refusals_size  20       number of entries to return";

pub(super) fn operations() -> Vec<Operation> {
    let post = Operation::post;
    let record = json!([{
        "id": "a-1", "created_at": "2026-11-21T16:26:58.758Z", "ai_org": "openai", "ai_model": "gpt-4o",
        "response_status_code": 200, "total_units": 4, "cost": 0.25, "metadata": { "team": "search" },
        "request": { "body": { "model": "gpt-4o" } },
    }]);
    let litellm = json!([{
        "id": "c-1", "call_type": "acompletion", "status": "success", "model": "gpt-4o", "custom_llm_provider": "openai",
        "startTime": 1_795_278_418.0, "endTime": 1_795_278_419.5, "total_tokens": 4, "response_cost": 0.0025,
    }]);
    let hook = json!({
        "provider": "openai", "requestType": "chatComplete",
        "request": { "json": { "model": "gpt-4o", "messages": [] }, "headers": {} },
        "response": { "json": { "model": "gpt-4o" }, "statusCode": 200 },
    });
    let mut all = vec![
        post("/v1/ingest", "ingest", "Ingests records: JSON lines, a JSON array, or concatenated JSON objects")
            .says(
                "Takes any number of records, under any content type. gzip and zstd bodies are detected from their first \
                 bytes. A record that has an `id` is stored once, however often it is sent. The status is 400, with a \
                 receipt, if every record was refused.",
            )
            .takes("source  shape  native  format of the records")
            .perhaps_body("Record*", &record)
            .or_body(LINES, "text", "{\"ai_model\":\"gpt-4o\",\"total_units\":4}\n")
            .gives(200, "Receipt")
            .fails(&[415]),
        post("/v1/ingest/litellm", "ingestLitellm", "Ingests calls from LiteLLM's `generic_api` callback")
            .says("The response is a receipt with status 200 even if every record was refused.")
            .perhaps_body("LitellmCall*", &litellm)
            .or_body(LINES, "text", "{\"model\":\"gpt-4o\"}\n")
            .gives(200, "Receipt")
            .fails(&[415]),
        post("/v1/ingest/gateway-hook", "ingestGatewayHook", "Ingests calls from the gateway hooks `default.log` and `default.webhook`")
            .says("Both are hooks of Portkey's gateway. API keys that the gateway sends in plain text are masked before the call is stored.")
            .perhaps_body("HookCall*", &hook)
            .gives(200, "HookReceipt")
            .fails(&[415]),
        Operation::get("/v2/api-keys/self/details", "keyDetails", "Returns the owner of the key, for a Portkey gateway 2.0")
            .gives(200, "KeyDetails"),
    ];
    all.push(
        Operation::get("/v1/refusals", "listRefusals", "Lists refused records, feedback and requests, newest first")
            .says(
                "Includes records refused in a request that was answered with `ok`. Each organisation keeps at most 1,000 \
                 entries, for 7 days. A record that must not be tracked, or that could not be parsed, has no excerpt.",
            )
            .takes(REFUSALS)
            .gives(200, "RefusalPage")
            .fails(&[404]),
    );
    all.extend(reports());
    for (route, id, what) in [
        ("/v1/traces", "exportTraces", "Traces"),
        ("/v1/metrics", "exportMetrics", "Metrics"),
        ("/v1/otel/v1/traces", "exportTracesOtel", "Traces"),
        ("/v1/otel/v1/logs", "exportLogsOtel", "Logs"),
        ("/v1/otel/v1/metrics", "exportMetricsOtel", "Metrics"),
        ("/v1/logs/otel", "exportEither", "Either"),
        ("/v1/logs/otel/v1/traces", "exportTracesLogs", "Traces"),
        ("/v1/logs/otel/v1/logs", "exportLogsLogs", "Logs"),
        ("/v1/logs/otel/v1/metrics", "exportMetricsLogs", "Metrics"),
    ] {
        all.push(otlp(route, id, what));
    }
    all
}

/// Operations to which a Portkey gateway 2.0 reports as to its control plane.
fn reports() -> [Operation; 3] {
    let report = |route, id, summary, body, example: &Value| {
        Operation::post(route, id, summary)
            .says("The metrics and the content of a call share one id and may arrive in any order. gatelog merges them into one log.")
            .body(body, example)
            .gives(200, "Receipt")
    };
    let log = json!({ "logObject": {
        "_id": "84ecb99c-3ba0-4822-9d18-2cb1ee9e3773", "organisation_id": "acme",
        "created_at": "Sat Nov 21 2026 16:27:02 GMT+0000 (Coordinated Universal Time)",
        "request": { "url": "https://api.openai.com/v1/chat/completions", "method": "POST", "body": { "model": "gpt-4o" } },
        "response": { "status": 200, "body": { "model": "gpt-4o" }, "responseTime": 61 },
        "metrics": { "id": "84ecb99c-3ba0-4822-9d18-2cb1ee9e3773", "organisation_id": "acme" },
    } });
    let rows = json!({ "table": "generations", "data": [{
        "id": "84ecb99c-3ba0-4822-9d18-2cb1ee9e3773", "organisation_id": "acme", "created_at": "2026-11-21 16:27:02.657",
        "ai_org": "openai", "ai_model": "gpt-4o", "total_units": 18, "cost": 0.01125, "response_status_code": 200,
    }] });
    let summary_of_rows = "Ingests metrics of calls, and feedback, from a Portkey gateway 2.0";
    let private = "/v1/analytics/enterprise/analytics";
    [
        report(
            "/v1/logs/enterprise/logs",
            "reportLog",
            "Ingests the content of a call from a Portkey gateway 2.0",
            "ReportedLog",
            &log,
        ),
        report(private, "reportRows", summary_of_rows, "ReportedRows", &rows),
        report(
            "/dp/metrics",
            "reportRowsPublic",
            "Ingests metrics of calls, and feedback, from a gateway that is not private",
            "ReportedRows",
            &rows,
        ),
    ]
}

fn otlp(route: &'static str, id: &str, what: &str) -> Operation {
    let (summary, field, rejected) = match what {
        "Traces" => (
            "Ingests OpenTelemetry spans; spans of model calls become logs",
            "resourceSpans",
            "rejectedSpans?  text",
        ),
        "Logs" => (
            "Ingests OpenTelemetry log records with the prompts and answers of calls",
            "resourceLogs",
            "rejectedLogRecords?  text",
        ),
        "Metrics" => (
            "Rejects OpenTelemetry metrics with a partial success: gatelog stores none",
            "resourceMetrics",
            "rejectedDataPoints?  text",
        ),
        _ => (
            "Ingests OpenTelemetry spans or log records",
            "resourceSpans",
            "rejectedSpans?  text\nrejectedLogRecords?  text\nrejectedDataPoints?  text",
        ),
    };
    let partial = fields(rejected)
        .chain(fields("errorMessage?  text  reason of the rejection, or a warning"));
    let partial = object("Rejected items: their number, as a string, and the reason.", partial);
    let answer = object("An OTLP export response.", [("partialSuccess?", partial)]);
    Operation::post(route, id, summary)
        .says("Takes JSON or protobuf, compressed or not. The response has the encoding of the request. Failures also carry the gRPC `code`.")
        .takes("header:content-encoding  identity|gzip|zstd  identity  compression of the body")
        .perhaps_body(&format!("Otlp{what}"), &json!({ field: [] }))
        .or_body(PROTOBUF, "any", "")
        .answers(200, &[(JSON, answer), (PROTOBUF, kind("any", ""))])
        .with_header(200, "x-gatelog-passed-over", "Number of spans that were ignored because they are not model calls.")
        .fails(&[415])
}
