//! OTLP: records of spans, every case in both encodings.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "spans are written where they are used, and checked field by field"
)]

mod content;
mod odd;
mod requests;

use serde_json::{Value, json};

use super::*;
use crate::ingest::otlp::{self, Call, Encoding, Signal};
use crate::parts::{has_outcome, unite};

const TRACE: &str = "5b8efff798038103d269b633813fc60c";
const SPAN: &str = "eee19b7ec3c1b174";

fn bytes_field(field: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(field << 3 | 2));
    out.extend(varint(bytes.len() as u64));
    out.extend_from_slice(bytes);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn varint_field(field: u32, number: u64) -> Vec<u8> {
    [varint(u64::from(field << 3)), varint(number)].concat()
}

fn fixed_field(field: u32, bits: u64) -> Vec<u8> {
    [varint(u64::from(field << 3 | 1)), bits.to_le_bytes().to_vec()].concat()
}

fn any_bytes(any: &Value) -> Vec<u8> {
    let Some((kind, value)) = any.as_object().and_then(|any| any.iter().next()) else {
        return Vec::new();
    };
    let values = || value["values"].as_array().into_iter().flatten();
    match kind.as_str() {
        "stringValue" => bytes_field(1, value.as_str().unwrap().as_bytes()),
        "boolValue" => varint_field(2, u64::from(value.as_bool().unwrap())),
        "intValue" => {
            varint_field(3, value.as_str().unwrap().parse::<i64>().unwrap().cast_unsigned())
        }
        "doubleValue" => fixed_field(4, value.as_f64().unwrap().to_bits()),
        "arrayValue" => bytes_field(
            5,
            &values().flat_map(|any| bytes_field(1, &any_bytes(any))).collect::<Vec<_>>(),
        ),
        "kvlistValue" => bytes_field(6, &pairs_bytes(1, &value["values"])),
        other => panic!("{other}"),
    }
}

fn pairs_bytes(field: u32, pairs: &Value) -> Vec<u8> {
    let pair = |pair: &Value| {
        let key = bytes_field(1, pair["key"].as_str().unwrap().as_bytes());
        bytes_field(field, &[key, bytes_field(2, &any_bytes(&pair["value"]))].concat())
    };
    pairs.as_array().into_iter().flatten().flat_map(pair).collect()
}

fn text_bytes(field: u32, text: &Value) -> Vec<u8> {
    text.as_str().map(|text| bytes_field(field, text.as_bytes())).unwrap_or_default()
}

fn id_bytes(field: u32, id: &Value) -> Vec<u8> {
    id.as_str().map(|id| bytes_field(field, &hex::decode(id).unwrap())).unwrap_or_default()
}

fn nanos_bytes(field: u32, nanos: &Value) -> Vec<u8> {
    nanos.as_str().map(|nanos| fixed_field(field, nanos.parse().unwrap())).unwrap_or_default()
}

fn span_bytes(span: &Value) -> Vec<u8> {
    let event = |event: &Value| {
        bytes_field(
            11,
            &[text_bytes(2, &event["name"]), pairs_bytes(3, &event["attributes"])].concat(),
        )
    };
    let status = &span["status"];
    let code = status["code"].as_u64().map(|code| varint_field(3, code)).unwrap_or_default();
    [
        id_bytes(1, &span["traceId"]),
        id_bytes(2, &span["spanId"]),
        bytes_field(3, b"a trace state, which is skipped"),
        id_bytes(4, &span["parentSpanId"]),
        text_bytes(5, &span["name"]),
        varint_field(6, 3),
        nanos_bytes(7, &span["startTimeUnixNano"]),
        nanos_bytes(8, &span["endTimeUnixNano"]),
        pairs_bytes(9, &span["attributes"]),
        span["events"].as_array().into_iter().flatten().flat_map(event).collect(),
        bytes_field(15, &[text_bytes(2, &status["message"]), code].concat()),
        [varint(16 << 3 | 5), vec![1, 0, 0, 0]].concat(),
    ]
    .concat()
}

fn log_bytes(record: &Value) -> Vec<u8> {
    [
        nanos_bytes(1, &record["timeUnixNano"]),
        bytes_field(5, &any_bytes(&record["body"])),
        pairs_bytes(6, &record["attributes"]),
        id_bytes(9, &record["traceId"]),
        id_bytes(10, &record["spanId"]),
        nanos_bytes(11, &record["observedTimeUnixNano"]),
        text_bytes(12, &record["eventName"]),
    ]
    .concat()
}

/// Returns the protobuf form of an export request in JSON.
pub(super) fn protobuf(request: &Value) -> Vec<u8> {
    let group = |group: &Value| {
        let scoped = |scoped: &Value| {
            let spans = scoped["spans"].as_array().into_iter().flatten().map(span_bytes);
            let records = scoped["logRecords"].as_array().into_iter().flatten().map(log_bytes);
            let leaves = spans.chain(records).flat_map(|leaf| bytes_field(2, &leaf));
            bytes_field(
                2,
                &[bytes_field(1, &text_bytes(1, &scoped["scope"]["name"])), leaves.collect()]
                    .concat(),
            )
        };
        let all = ["scopeSpans", "scopeLogs"].into_iter().filter_map(|name| group[name].as_array());
        let scoped = all.flatten().flat_map(scoped).collect::<Vec<_>>();
        bytes_field(
            1,
            &[scoped, bytes_field(1, &pairs_bytes(1, &group["resource"]["attributes"]))].concat(),
        )
    };
    let all =
        ["resourceSpans", "resourceLogs"].into_iter().filter_map(|name| request[name].as_array());
    all.flatten().flat_map(group).collect()
}

/// Returns a plain value as OTLP writes it.
fn any(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "stringValue": text }),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) if number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(number) => json!({ "doubleValue": number }),
        Value::Array(values) => {
            json!({ "arrayValue": { "values": values.iter().map(any).collect::<Vec<_>>() } })
        }
        Value::Object(_) => json!({ "kvlistValue": { "values": pairs(value) } }),
        Value::Null => json!({}),
    }
}

fn pairs(object: &Value) -> Value {
    object
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": any(value) }))
        .collect()
}

fn span(attributes: Value) -> Value {
    json!({
        "traceId": TRACE, "spanId": SPAN, "name": "chat gpt-4o", "kind": 3,
        "startTimeUnixNano": "1795278400000000000", "endTimeUnixNano": "1795278401250400000",
        "attributes": pairs(&attributes), "status": {},
    })
}

fn request(spans: &[Value]) -> Value {
    let resource = json!({
        "service.name": "shop", "telemetry.sdk.language": "python", "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.2", "process.runtime.version": "3.11", "process.command_args": ["--key", "s3cret"],
    });
    json!({ "resourceSpans": [{
        "resource": { "attributes": pairs(&resource) },
        "scopeSpans": [{ "scope": { "name": "an.instrumentation" }, "spans": spans }],
    }] })
}

struct Found {
    calls: Vec<Call>,
    refused: Vec<String>,
    passed_over: u64,
}

fn read(encoding: Encoding, bytes: &[u8], context: &Context) -> Found {
    let mut calls = Vec::new();
    let mut refused = Vec::new();
    let passed_over = otlp::traces(encoding, bytes, context, &mut |read| match read {
        Ok(call) => calls.push(call),
        Err(error) => refused.push(error.to_string()),
    });
    Found { calls, refused, passed_over: passed_over.unwrap() }
}

/// Reads a request in both encodings, which must give the same result.
#[track_caller]
fn both(request: &Value, context: &Context) -> Found {
    let json = read(Encoding::Json, request.to_string().as_bytes(), context);
    let wire = read(Encoding::Protobuf, &protobuf(request), context);
    assert_eq!(json.calls, wire.calls);
    assert_eq!((&json.refused, json.passed_over), (&wire.refused, wire.passed_over));
    json
}

/// Returns the one record of a span with these attributes.
#[track_caller]
fn one(attributes: Value) -> Record {
    one_of(span(attributes))
}

#[track_caller]
fn one_of(span: Value) -> Record {
    one_call(span).record
}

#[track_caller]
fn one_call(span: Value) -> Call {
    let mut read = both(&request(&[span]), &Context::new(now()));
    assert_eq!((read.calls.len(), &read.refused[..]), (1, &[][..]));
    read.calls.remove(0)
}

fn body(message: &Message) -> Value {
    serde_json::from_str(message.body.as_deref().unwrap_or("null")).unwrap()
}

fn tag<'r>(record: &'r Record, key: &str) -> Option<&'r str> {
    record.metadata.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
}

#[test]
fn a_span_of_the_current_conventions_becomes_a_record() {
    let mut span = span(json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06", "gen_ai.response.id": "c1", "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5, "gen_ai.request.stop_sequences": ["x"], "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 8, "gen_ai.response.finish_reasons": ["stop"], "server.address": "api.openai.com",
        "server.port": 443, "gen_ai.conversation.id": "conv-1", "user.id": "ann", "team": "search", "tries": 2,
        "gen_ai.system_instructions": r#"[{"type":"text","content":"be brief"}]"#,
        "gen_ai.input.messages": [
            { "role": "user", "parts": [{ "type": "text", "content": "Hi" }] },
            { "role": "assistant", "parts": [{ "type": "tool_call", "id": "t1", "name": "f", "arguments": { "a": 1 } }] },
            { "role": "tool", "parts": [{ "type": "tool_call_response", "id": "t1", "response": "42" }] },
            { "role": "user", "parts": [{ "type": "text", "content": "a" }, { "type": "uri", "uri": "https://x/y.png" }] },
        ],
        "gen_ai.output.messages":
            r#"[{"role":"assistant","parts":[{"type":"reasoning","content":"hm"},{"type":"text","content":"Hello"}],"finish_reason":"stop"}]"#,
    }));
    span["parentSpanId"] = json!("0102030405060708");
    let record = one_of(span);
    let expected = Record {
        id: Some(format!("{TRACE}-{SPAN}")),
        created_at: DateTime::from_timestamp(1_795_278_400, 0),
        is_success: Some(1),
        ai_org: some("openai"),
        ai_model: some("gpt-4o-2024-08-06"),
        req_units: Some(9),
        res_units: Some(8),
        total_units: Some(17),
        request_url: some("https://api.openai.com"),
        request_method: some("POST"),
        response_status_code: Some(200),
        response_time: Some(1250),
        cache_status: some("DISABLED"),
        retry_success_count: Some(0),
        mode: some("SINGLE"),
        runtime: some("python"),
        runtime_version: some("3.11"),
        sdk_version: some("opentelemetry-1.45.2"),
        trace_id: some(TRACE),
        span_id: some(SPAN),
        parent_span_id: some("0102030405060708"),
        span_name: some("chat gpt-4o"),
        user_id: some("ann"),
        source: some("otlp"),
        ..Record::default()
    };
    let request = body(&record.request);
    let response = body(&record.response);
    let mut tags = record.metadata.clone();
    tags.sort();
    let bare = Record {
        metadata: Vec::new(),
        request: Message::default(),
        response: Message::default(),
        cost: None,
        cost_currency: None,
        ..record
    };
    assert_eq!(bare, expected);
    assert_eq!(
        request,
        json!({
            "model": "gpt-4o", "max_tokens": 7, "temperature": 0.5, "stop": ["x"],
            "messages": [
                { "role": "system", "content": "be brief" },
                { "role": "user", "content": "Hi" },
                { "role": "assistant", "content": null, "tool_calls": [
                    { "id": "t1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } }] },
                { "role": "tool", "tool_call_id": "t1", "content": "42" },
                { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "uri", "uri": "https://x/y.png" }] },
            ],
        })
    );
    assert_eq!(
        response,
        json!({
            "id": "c1", "model": "gpt-4o-2024-08-06",
            "usage": { "prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17 },
            "choices": [{ "index": 0, "finish_reason": "stop",
                "message": { "role": "assistant", "content": "Hello", "reasoning_content": "hm" } }],
            // A text under an unknown name may be content.
            "span_attributes": { "team": "search" },
        })
    );
    let expected = [
        ("_logType", "opentelemetry"),
        ("_user", "ann"),
        ("gen_ai.conversation.id", "conv-1"),
        ("gen_ai.operation.name", "chat"),
        ("otel.scope.name", "an.instrumentation"),
        ("service.name", "shop"),
        ("tries", "2"),
    ];
    assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn deprecated_and_other_conventions_come_to_the_same() {
    let openllmetry = json!({
        "llm.request.type": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "m", "gen_ai.response.model": "m-1",
        "gen_ai.usage.prompt_tokens": 9, "gen_ai.usage.completion_tokens": 8, "llm.usage.total_tokens": 17,
        "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Hi",
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Hello",
        "gen_ai.completion.0.finish_reason": "stop", "llm.is_streaming": false, "llm.user": "ann",
    });
    let openinference = json!({
        "openinference.span.kind": "LLM", "llm.provider": "openai", "llm.model_name": "m", "llm.response.model": "m-1",
        "llm.token_count.prompt": 9, "llm.token_count.completion": 8, "llm.token_count.total": 17,
        "llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "Hi",
        "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "Hello",
        "llm.invocation_parameters": r#"{"model":"m","stream":false}"#, "input.value": "Hi", "user.id": "ann",
    });
    let old = json!({
        "gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-1", "gen_ai.usage.prompt_tokens": 9, "gen_ai.usage.completion_tokens": 8,
        "gen_ai.prompt": r#"[{"role":"user","content":"Hi"}]"#, "gen_ai.request.stream": false, "enduser.id": "ann",
        "gen_ai.completion": r#"[{"role":"assistant","content":"Hello"}]"#,
    });
    for attributes in [openllmetry, openinference, old] {
        let record = one(attributes.clone());
        assert_eq!(
            (record.ai_org.as_deref(), record.ai_model.as_deref()),
            (Some("openai"), Some("m-1")),
            "{attributes}"
        );
        assert_eq!(
            (record.req_units, record.res_units, record.total_units),
            (Some(9), Some(8), Some(17))
        );
        assert_eq!(record.user_id.as_deref(), Some("ann"));
        let sent = body(&record.request);
        assert_eq!((&sent["model"], &sent["stream"]), (&json!("m"), &json!(false)), "{sent}");
        assert_eq!(sent["messages"], json!([{ "role": "user", "content": "Hi" }]), "{sent}");
        let choice = &body(&record.response)["choices"][0];
        assert_eq!(
            choice["message"],
            json!({ "role": "assistant", "content": "Hello" }),
            "{choice}"
        );
        for (key, _) in &record.metadata {
            assert!(
                !key.contains("prompt") && !key.contains("completion") && !key.contains("value"),
                "{key}"
            );
        }
    }
}

#[test]
fn numbered_tool_calls_and_texts_that_are_no_messages() {
    let record = one(json!({
        "gen_ai.system": "a", "gen_ai.request.model": "m",
        "gen_ai.completion.1.content": "two", "gen_ai.completion.1.role": "assistant",
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.tool_calls.0.id": "t",
        "gen_ai.completion.0.tool_calls.0.name": "f", "gen_ai.completion.0.tool_calls.0.arguments": "{}",
        "gen_ai.prompt": "Say it",
    }));
    assert_eq!(body(&record.request)["messages"], json!([{ "role": "user", "content": "Say it" }]));
    let call =
        json!([{ "id": "t", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    let choices = &body(&record.response)["choices"];
    assert_eq!(choices[0]["message"], json!({ "role": "assistant", "tool_calls": call }));
    assert_eq!(choices[1]["message"]["content"], "two");

    let whole = one(json!({
        "openinference.span.kind": "LLM", "llm.model_name": "m", "input.value": r#"{"model":"m","messages":[1]}"#,
        "output.value": r#"{"choices":[2]}"#,
    }));
    assert_eq!(body(&whole.request), json!({ "model": "m", "messages": [1] }));
    assert_eq!(body(&whole.response), json!({ "choices": [2] }));

    let embedding = one(json!({
        "gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e", "gen_ai.usage.input_tokens": 3,
        "gen_ai.prompt": "text",
    }));
    assert_eq!(body(&embedding.request), json!({ "model": "e", "input": "text" }));
    assert_eq!((embedding.res_units, embedding.total_units), (None, Some(3)));
}

#[test]
fn only_calls_become_records() {
    let not_calls = [
        json!({ "http.request.method": "GET" }),
        json!({ "gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 9 }),
        json!({ "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "f" }),
        json!({ "openinference.span.kind": "CHAIN", "llm.model_name": "m", "llm.token_count.prompt": 3 }),
        json!({ "traceloop.span.kind": "workflow", "gen_ai.system": "x", "gen_ai.request.model": "m" }),
        json!({ "gen_ai.request.model": "m" }),
    ];
    let calls = [
        json!({ "gen_ai.operation.name": "rerank" }),
        json!({ "openinference.span.kind": "embedding" }),
        json!({ "gen_ai.operation.name": "transcribe", "gen_ai.request.model": "m", "gen_ai.system": "s" }),
    ];
    let mut spans: Vec<Value> = not_calls.into_iter().chain(calls).map(span).collect();
    // The ids of ignored spans do not matter.
    spans[0]["spanId"] = json!("00");
    let read = both(&request(&spans), &Context::new(now()));
    assert_eq!((read.calls.len(), read.passed_over, read.refused.len()), (3, 6, 0));
}

#[test]
fn statuses_come_from_the_provider_the_error_or_the_span() {
    for (attributes, code, status, success) in [
        (json!({}), 0, 200, 1),
        (json!({}), 1, 200, 1),
        (json!({}), 2, 500, 0),
        (json!({ "error.type": "503" }), 2, 503, 0),
        (json!({ "error.type": "openai.RateLimitError" }), 2, 429, 0),
        (json!({ "error.type": "timeout" }), 0, 500, 0),
        (json!({ "http.response.status_code": 429 }), 0, 429, 0),
        (json!({ "http.response.status_code": 404, "error.type": "500" }), 2, 404, 0),
        (json!({ "http.response.status_code": 200 }), 2, 200, 0),
    ] {
        let mut attributes = attributes;
        attributes["gen_ai.operation.name"] = json!("chat");
        let mut span = span(attributes.clone());
        span["status"] = json!({ "code": code, "message": "went wrong" });
        let record = one_of(span);
        assert_eq!(
            (record.response_status_code, record.is_success),
            (Some(status), Some(success)),
            "{attributes} {code}"
        );
        let error = body(&record.response)["error"]["message"].clone();
        assert_eq!(error == "went wrong", success == 0, "{attributes} {code}: {error}");
    }
    let mut span = span(json!({ "gen_ai.operation.name": "chat" }));
    span["status"] = json!({ "code": 2 });
    span["events"] = json!([{ "name": "exception", "attributes": pairs(&json!({ "exception.message": "no", "exception.type": "E" })) }]);
    assert_eq!(body(&one_of(span).response), json!({ "error": { "message": "no", "type": "E" } }));
}

#[test]
fn times_of_a_stream_and_costs_in_dollars() {
    let stream = one(json!({
        "gen_ai.operation.name": "chat", "gen_ai.response.time_to_first_chunk": 0.25, "gen_ai.usage.cost": 0.0003,
    }));
    assert_eq!((stream.stream_mode, stream.response_time), (Some(true), Some(250)));
    assert_eq!((stream.time_to_last_token, stream.cost), (Some(1250), Some(0.03)));
    assert_eq!(stream.cost_currency.as_deref(), Some("USD"));

    let mut bare = span(json!({ "gen_ai.operation.name": "chat", "gen_ai.request.stream": true }));
    bare["endTimeUnixNano"] = json!("5");
    let record = one_of(bare.clone());
    assert_eq!((record.response_time, record.cost), (None, None));
    bare["startTimeUnixNano"] = json!("0");
    assert_eq!(one_of(bare).created_at, None, "the arrival, which is filled in later");
}

#[test]
fn addresses_become_urls_where_the_scheme_is_known() {
    for (attributes, url) in [
        (json!({ "url.full": "https://a/b" }), "https://a/b"),
        (json!({ "server.address": "a" }), "a"),
        (json!({ "server.address": "a", "server.port": 80 }), "http://a"),
        (json!({ "server.address": "a", "server.port": "8080" }), "a:8080"),
        (
            json!({ "server.address": "a", "server.port": 8080, "url.scheme": "http" }),
            "http://a:8080",
        ),
        (json!({ "server.address": "http://a:1" , "server.port": 1 }), "http://a:1"),
    ] {
        let mut attributes = attributes;
        attributes["gen_ai.operation.name"] = json!("chat");
        assert_eq!(one(attributes).request_url.as_deref(), Some(url));
    }
}

#[test]
fn secrets_do_not_get_into_headers_or_metadata() {
    let record = one(json!({
        "gen_ai.operation.name": "chat", "http.request.header.authorization": ["Bearer sk-1234567890abc"],
        "http.response.header.content-type": ["text/plain"], "llm.api_key": "sk-1234567890abc",
        "gen_ai.agent.name": "x".repeat(200),
    }));
    assert_eq!(record.request.headers.as_deref(), Some(r#"{"authorization":"sk********abc"}"#));
    assert_eq!(record.response.headers.as_deref(), Some(r#"{"content-type":"text/plain"}"#));
    assert_eq!(tag(&record, "gen_ai.agent.name").map(str::len), Some(128));
    let all = format!("{record:?}");
    assert!(!all.contains("1234567890") && !all.contains("s3cret"), "{all}");
}

#[test]
fn headers_of_the_request_hold_for_its_records() {
    let headers = Headers {
        metadata: some(r#"{"team":"ads","_user":"bob"}"#),
        virtual_key: some("vk"),
        provider: some("groq"),
        ..Headers::default()
    };
    let context = Context { headers, ..Context::new(now()) };
    let span = span(json!({ "gen_ai.operation.name": "chat", "team": "search", "user.id": "ann" }));
    let record = both(&request(&[span]), &context).calls.remove(0).record;
    assert_eq!((tag(&record, "team"), record.user_id.as_deref()), (Some("ads"), Some("bob")));
    assert_eq!(
        (record.virtual_key.as_deref(), record.ai_org.as_deref()),
        (Some("vk"), Some("groq"))
    );
}
