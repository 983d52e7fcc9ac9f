//! Records in other forms than Portkey's insert: lines of JSON, LiteLLM, the gateways' hooks, the reports of a gateway 2.0
//! to its control plane, OpenTelemetry.

use serde_json::{Value, json};

use super::operation::{JSON, LINES, Operation, PROTOBUF};
use super::schema::{fields, kind, object};

pub(super) const SCHEMAS: &str = "\
LitellmCall+  What LiteLLM says of a call.
  id?     any   id of the call
  model?  any   model

HookCall+  What a hook of Portkey's gateway says of a call.
  request?   any   the request
  response?  any   the response
  provider?  any   the provider

HookReceipt  A receipt with a verdict.
  verdict  flag   always true: a log stops no call
  ..Receipt

ReportedLog+  What was said in a call.
  logObject  ReportedLogObject

ReportedLogObject+  The call as a LogObject of Portkey.
  _id?  any   id of the call

ReportedRows+  Rows of a table.
  table  generations|feedbacks|generation_hooks   what the rows are
  data   [ReportedRow]   the rows

ReportedRow+  Figures of a call, or feedback.
  id?  any   id of the call, or of the feedback

KeyDetails  The key's owner.
  success  =true
  data     KeyOwner

KeyOwner  Who asks.
  organisation_details  KeyOrganisation
  workspace_details     KeyWorkspace
  api_key_details       KeyItself

KeyOrganisation+  The organisation of the key.
  organisation_id  text   its id
  name             text   its name

KeyWorkspace+  The workspace of the key.
  id    text    its id
  slug  text    the same
  name  text?   its name

KeyItself+  The key.
  id          text      its id
  name        text?     what it is for
  scopes      [text]    what it may do, in Portkey's words
  status      =active
  expires_at  moment?   from when on it opens nothing

RefusalPage  What was refused.
  object    =list
  total     count       how many entries there are
  has_more  flag        whether there are more than are shown
  data      [Refusal]   the entries, newest first

Refusal  Something that was refused.
  created_at       moment   when
  organisation_id  text     the organisation of the key, or else the one that the record names
  workspace_slug   text?    the workspace, where it is known
  source           source   what the client used
  route            text     method and route, or `gatelog import`
  reason           reason   why
  field            text?    the field; null where it is about the whole
  message          text     what was expected
  record           count?   which record of the request, from 0
  count            count    how many refusals the entry stands for
  excerpt          text?    the names of the fields, the refused one first, with its value if that is a figure; null without `logs.read`

OtlpResource+  A resource.

OtlpTraces+  An export of spans.
  resourceSpans?  [OtlpResource]?   resources

OtlpLogs+  An export of log records.
  resourceLogs?  [OtlpResource]?   resources

OtlpMetrics+  An export of metrics.
  resourceMetrics?  [OtlpResource]?   resources

OtlpEither+  An export of spans or of log records.
  resourceSpans?  [OtlpResource]?   resources
  resourceLogs?   [OtlpResource]?   resources";

const REFUSALS: &str = "
    organisation_id  text           acme     only of this organisation
    workspace_slug   text           search   only of this workspace
    source           source         portkey  only of what clients sent that way
    reason           reason         missing  only for this reason
    page_size        refusals_size  20       how many entries";

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
        post("/v1/ingest", "ingest", "Stores records of any number: lines of JSON, an array, or objects in a row")
            .says(
                "Whatever the content type. gzip and zstd are recognised. A record that has an `id` is stored once, however \
                 often it is sent. 400 with a receipt means that no record was good.",
            )
            .takes("source  shape  native  the form of the records")
            .perhaps_body("Record*", &record)
            .or_body(LINES, "text", "{\"ai_model\":\"gpt-4o\",\"total_units\":4}\n")
            .gives(200, "Receipt")
            .fails(&[415]),
        post("/v1/ingest/litellm", "ingestLitellm", "Stores what LiteLLM's `generic_api` callback sends")
            .says("A receipt is the answer also if no record was good.")
            .perhaps_body("LitellmCall*", &litellm)
            .or_body(LINES, "text", "{\"model\":\"gpt-4o\"}\n")
            .gives(200, "Receipt")
            .fails(&[415]),
        post("/v1/ingest/gateway-hook", "ingestGatewayHook", "Stores what `default.log` and `default.webhook` send")
            .says("The hooks of Portkey's gateway. Keys that it sends in clear are masked before anything is stored.")
            .perhaps_body("HookCall*", &hook)
            .gives(200, "HookReceipt")
            .fails(&[415]),
        Operation::get("/v2/api-keys/self/details", "keyDetails", "Tells a gateway 2.0 whom the key is of")
            .gives(200, "KeyDetails"),
    ];
    all.push(
        Operation::get("/v1/refusals", "listRefusals", "Lists what clients sent that was not taken, newest first")
            .says(
                "Also what was answered with `ok`. Each organisation has at most 1,000 entries, of the last 7 days. There is no \
                 excerpt of a record that is not to be tracked, or that could not be read.",
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

/// What a Portkey gateway 2.0 reports to its control plane.
fn reports() -> [Operation; 3] {
    let report = |route, id, summary, body, example: &Value| {
        Operation::post(route, id, summary)
            .says("The two halves of a call have one id, and may come in any order; they become one log.")
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
    let told = "Takes figures of calls, and feedback, from a gateway 2.0";
    let private = "/v1/analytics/enterprise/analytics";
    [
        report("/v1/logs/enterprise/logs", "reportLog", "Takes what was said in a call", "ReportedLog", &log),
        report(private, "reportRows", told, "ReportedRows", &rows),
        report("/dp/metrics", "reportRowsPublic", "The same from a gateway that is not private", "ReportedRows", &rows),
    ]
}

fn otlp(route: &'static str, id: &str, what: &str) -> Operation {
    let (summary, field, rejected) = match what {
        "Traces" => {
            ("Takes OpenTelemetry's spans; calls to models become logs", "resourceSpans", "rejectedSpans?  text")
        }
        "Logs" => (
            "Takes OpenTelemetry's log records: what was asked and answered in a call",
            "resourceLogs",
            "rejectedLogRecords?  text",
        ),
        "Metrics" => (
            "Takes OpenTelemetry's metrics, and rejects them in words: none are kept",
            "resourceMetrics",
            "rejectedDataPoints?  text",
        ),
        _ => (
            "Takes OpenTelemetry's spans or log records",
            "resourceSpans",
            "rejectedSpans?  text\nrejectedLogRecords?  text\nrejectedDataPoints?  text",
        ),
    };
    let partial = fields(rejected).chain(fields("errorMessage?  text  why, or a warning"));
    let partial = object("What was not taken: how many, as texts.", partial);
    let answer = object("An export response of OTLP.", [("partialSuccess?", partial)]);
    Operation::post(route, id, summary)
        .says("JSON or protobuf, packed or not; the answer is in the encoding of the request. Failures name gRPC's `code` too.")
        .takes("header:content-encoding  identity|gzip|zstd  identity  how the body is packed")
        .perhaps_body(&format!("Otlp{what}"), &json!({ field: [] }))
        .or_body(PROTOBUF, "any", "")
        .answers(200, &[(JSON, answer), (PROTOBUF, kind("any", ""))])
        .with_header(200, "x-gatelog-passed-over", "spans that are no calls to models")
        .fails(&[415])
}
