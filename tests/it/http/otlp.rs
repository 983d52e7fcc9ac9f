//! OTLP over HTTP: every path, both encodings, answers and refusals.

use std::io::Write;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Server, eventually, failure, header};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

fn span(number: u64, attributes: &Value) -> Value {
    let attributes: Vec<Value> = attributes
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| match value.as_str() {
            Some(text) => json!({ "key": key, "value": { "stringValue": text } }),
            None => json!({ "key": key, "value": { "intValue": value } }),
        })
        .collect();
    json!({
        "traceId": format!("{number:032x}"), "spanId": format!("{number:016x}"), "name": "chat m",
        "startTimeUnixNano": "1795278400000000000", "endTimeUnixNano": "1795278400250000000", "attributes": attributes,
    })
}

fn call(number: u64) -> Value {
    span(number, &json!({ "gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.prompt": "Hi" }))
}

fn traces(spans: &[Value]) -> String {
    json!({ "resourceSpans": [{ "resource": {}, "scopeSpans": [{ "spans": spans }] }] }).to_string()
}

fn logs(number: u64, content: &str) -> String {
    let body = json!({ "kvlistValue": { "values": [{ "key": "content", "value": { "stringValue": content } }] } });
    let record = json!({ "traceId": format!("{number:032x}"), "spanId": format!("{number:016x}"), "eventName": "gen_ai.user.message", "body": body });
    json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] }).to_string()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A request with one span, in protobuf.
fn wire(number: u64) -> Vec<u8> {
    let pair =
        |key: &str, value: &str| field(9, &[field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat());
    let span = [
        field(1, &u128::from(number).to_be_bytes()),
        field(2, &number.to_be_bytes()),
        pair("gen_ai.operation.name", "chat"),
        pair("gen_ai.request.model", "m"),
    ];
    field(1, &field(2, &field(2, &span.concat())))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Server {
    async fn otlp(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        self.post(path, body).header("content-type", content_type).send().await.unwrap()
    }

    async fn otlp_json(&self, path: &str, body: String) -> Value {
        let response = self.otlp(path, JSON, body).await;
        assert_eq!((response.status(), header(&response, "content-type")), (StatusCode::OK, JSON), "{path}");
        response.json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_takes_spans_in_json_and_protobuf() {
    let server = Server::start().await;
    let paths = ["/v1/otel/v1/traces", "/v1/logs/otel/v1/traces", "/v1/logs/otel", "/v1/traces"];
    for (number, path) in (1u64..).zip(paths) {
        assert_eq!(server.otlp_json(path, traces(&[call(number)])).await, json!({}));
        for body in [wire(100 + number), gzip(&wire(200 + number))] {
            let response = server.otlp(path, PROTOBUF, body).await;
            assert_eq!((response.status(), header(&response, "content-type")), (StatusCode::OK, PROTOBUF), "{path}");
            assert!(response.bytes().await.unwrap().is_empty(), "an empty response in protobuf is no bytes");
        }
    }
    assert_eq!(server.count().await, 12);
    // What an exporter sends again is there once; a missing content type is told by the bytes.
    let response = server.post("/v1/otel/v1/traces", wire(101)).send().await.unwrap();
    assert_eq!(header(&response, "content-type"), PROTOBUF);
    let response = server.post("/v1/otel/v1/traces", traces(&[call(1)])).send().await.unwrap();
    assert_eq!(header(&response, "content-type"), JSON);
    assert_eq!(server.count().await, 12);
    let rows = server
        .sql(
            "select id, ai_model, trace_id, span_id, response_time, source, organisation_id, request.body as b \
                           from logs where response_time is not null order by id limit 1",
        )
        .await;
    let (trace, span) = (format!("{:032x}", 1), format!("{:016x}", 1));
    assert_eq!(rows[0]["id"], json!(format!("{trace}-{span}")));
    assert_eq!((&rows[0]["trace_id"], &rows[0]["span_id"]), (&json!(trace), &json!(span)));
    assert_eq!((&rows[0]["ai_model"], &rows[0]["response_time"]), (&json!("m"), &json!(250)));
    assert!(rows[0]["b"].to_string().contains("Hi"), "{}", rows[0]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_events_on_every_path_give_the_span_its_words() {
    let server = Server::start().await;
    let paths = ["/v1/otel/v1/logs", "/v1/logs/otel/v1/logs", "/v1/logs/otel", "/v1/logs"];
    for (number, path) in (1u64..).zip(paths) {
        assert_eq!(server.otlp_json(path, logs(number, &format!("said {number}"))).await, json!({}), "{path}");
        let silent = span(number, &json!({ "gen_ai.operation.name": "chat" }));
        server.otlp_json("/v1/otel/v1/traces", traces(&[silent])).await;
    }
    // The same path goes on being Portkey's.
    let portkey = server.post("/v1/logs", r#"{"request":{"body":{"model":"p"}},"response":{}}"#).send().await.unwrap();
    assert_eq!(portkey.text().await.unwrap(), "ok");
    let rows = server.sql("select request.body as b from logs where ai_model is null order by id").await;
    assert_eq!(rows.len(), 4);
    for (number, row) in (1..).zip(&rows) {
        assert!(row["b"].to_string().contains(&format!("said {number}")), "{row}");
    }
    let response = server.otlp("/v1/logs", PROTOBUF, field(1, b"")).await;
    assert_eq!((response.status(), header(&response, "content-type")), (StatusCode::OK, PROTOBUF));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_call_that_is_not_tracked_are_not_kept() {
    let server = Server::start().await;
    let untracked = |path: &str, body: String| {
        server.post(path, body).header("content-type", JSON).header("x-portkey-debug", "false").send()
    };
    untracked("/v1/otel/v1/logs", logs(1, "secret words")).await.unwrap();
    server.otlp_json("/v1/otel/v1/traces", traces(&[span(1, &json!({ "gen_ai.operation.name": "chat" }))])).await;
    untracked("/v1/otel/v1/traces", traces(&[call(2)])).await.unwrap();
    let rows = server.sql("select do_not_track, request.body as b from logs order by id").await;
    assert!(!rows[0].to_string().contains("secret words"), "{}", rows[0]);
    assert_eq!((&rows[1]["do_not_track"], rows[1]["b"].is_null()), (&json!(true), true));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_success_counts_what_was_rejected_and_not_what_was_passed_over() {
    let server = Server::start().await;
    let mut bad = call(3);
    bad["spanId"] = json!("");
    let other = span(4, &json!({ "http.request.method": "GET" }));
    let response = server.otlp("/v1/otel/v1/traces", JSON, traces(&[call(1), bad, other, call(2)])).await;
    assert_eq!(header(&response, "x-gatelog-passed-over"), "1");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("`spanId`"), "{answer}");
    assert_eq!(server.count().await, 2);

    let points = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{},{}]}}]}]}]}"#;
    for path in ["/v1/metrics", "/v1/otel/v1/metrics", "/v1/logs/otel/v1/metrics"] {
        let answer = server.otlp_json(path, points.to_owned()).await;
        assert_eq!(answer["partialSuccess"]["rejectedDataPoints"], "2", "{answer}");
        assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("OTEL_METRICS_EXPORTER"));
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_in_the_requests_encoding() {
    let server = Server::start_with(|config| config.max_record_bytes = 64 << 10).await;
    let path = "/v1/otel/v1/traces";
    let of = |content_type: &'static str, body: Vec<u8>| server.post(path, body).header("content-type", content_type);
    let (message, body) = failure(of(JSON, b"{not json".to_vec()), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("resourceSpans") && body["code"] == 3, "{body}");
    failure(of(JSON, vec![b' '; 3 << 20]), StatusCode::PAYLOAD_TOO_LARGE).await;
    failure(of(JSON, vec![0x1f, 0x8b, 0, 0]), StatusCode::BAD_REQUEST).await;
    failure(of(JSON, gzip(&vec![b' '; 64 << 20])), StatusCode::PAYLOAD_TOO_LARGE).await;
    failure(of(JSON, Vec::new()).header("content-encoding", "br"), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    failure(server.get(path), StatusCode::METHOD_NOT_ALLOWED).await;

    for (body, status, code) in
        [(b"{}".to_vec(), StatusCode::BAD_REQUEST, 3), (vec![10; 3 << 20], StatusCode::PAYLOAD_TOO_LARGE, 8)]
    {
        let response = of(PROTOBUF, body).send().await.unwrap();
        assert_eq!((response.status(), header(&response, "content-type")), (status, PROTOBUF));
        let bytes = response.bytes().await.unwrap();
        // google.rpc.Status: its code, then its message.
        assert_eq!((bytes[0], bytes[1], bytes[2]), (8, code, 0x12), "{bytes:?}");
        assert!(bytes.len() > 20);
    }
    assert_eq!(server.count().await, 0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_engine_says_when_to_come_again_and_takes_the_rest_then() {
    let server = Server::start_with(|config| {
        config.memtable_bytes = 1 << 20;
        config.flush_bytes = 1 << 20;
        config.flush_seconds = 3_600;
        config.append_wait_ms = 0;
    })
    .await;
    let prompt = "x".repeat(100_000);
    let call = |number: u64| span(number, &json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt": prompt }));
    let body = traces(&(1..200).map(call).collect::<Vec<_>>());
    let response = server.otlp("/v1/otel/v1/traces", JSON, body.clone()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(header(&response, "retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], 8);
    // Each time it is sent again, more of it is there already.
    eventually("all of it is taken", || async {
        server.engine.flush().await.unwrap();
        server.otlp("/v1/otel/v1/traces", JSON, body.clone()).await.status() == StatusCode::OK
    })
    .await;
    assert_eq!(server.count().await, 199);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_many_spans_is_taken_whole() {
    let server = Server::start().await;
    let spans: Vec<Value> = (1..=3000).map(call).collect();
    assert_eq!(server.otlp_json("/v1/otel/v1/traces", traces(&spans)).await, json!({}));
    assert_eq!(server.otlp_json("/v1/otel/v1/traces", traces(&spans)).await, json!({}));
    assert_eq!(server.count().await, 3000);
    server.end().await;
}
