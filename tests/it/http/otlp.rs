//! OTLP over HTTP: every path, both encodings, answers and refusals.

use std::path::Path;

use gatelog::engine::{Document, NewKey, Organisation, Reader, Scope};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::control_plane::restarted;
use super::{Server, eventually, failure, gzip, header};
use crate::files::containing;

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
    span(
        number,
        &json!({ "gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.prompt": "Hi" }),
    )
}

fn traces(spans: &[Value]) -> String {
    json!({ "resourceSpans": [{ "resource": {}, "scopeSpans": [{ "spans": spans }] }] }).to_string()
}

/// A span that says nothing of what was asked and answered.
fn silent(number: u64) -> Value {
    span(
        number,
        &json!({
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100,
        }),
    )
}

/// A span that says both.
fn whole(number: u64) -> Value {
    span(
        number,
        &json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt": "Hi", "gen_ai.completion": "Hello" }),
    )
}

fn event(number: u64, name: &str, content: &str) -> Value {
    let body = json!({ "kvlistValue": { "values": [{ "key": "content", "value": { "stringValue": content } }] } });
    json!({
        "traceId": format!("{number:032x}"), "spanId": format!("{number:016x}"), "eventName": name, "body": body,
        "timeUnixNano": "1795278400100000000",
    })
}

fn events(records: &[Value]) -> String {
    json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": records }] }] }).to_string()
}

fn logs(number: u64, content: &str) -> String {
    events(&[event(number, "gen_ai.user.message", content)])
}

fn choice(number: u64, content: &str) -> String {
    events(&[event(number, "gen_ai.choice", content)])
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
    let pair = |key: &str, value: &str| {
        field(9, &[field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat())
    };
    let span = [
        field(1, &u128::from(number).to_be_bytes()),
        field(2, &number.to_be_bytes()),
        pair("gen_ai.operation.name", "chat"),
        pair("gen_ai.request.model", "m"),
    ];
    field(1, &field(2, &field(2, &span.concat())))
}

impl Server {
    async fn otlp(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        self.post(path, body).header("content-type", content_type).send().await.unwrap()
    }

    /// Sends spans or log events, which are taken.
    async fn export(&self, body: String) {
        assert_eq!(self.otlp_json("/v1/logs/otel", body).await, json!({}));
    }

    /// What stands in answers of the calls: model, tokens, what was asked and what was answered, a
    /// line each.
    async fn calls(&self) -> Vec<String> {
        let rows = self
            .sql("select id, total_units, request.body as asked, response.body as told from logs order by id")
            .await;
        let body = |value: &Value| {
            value.as_str().map_or(value.clone(), |text| serde_json::from_str(text).unwrap())
        };
        let words = |list: &Value, of: fn(&Value) -> &Value| {
            let words = list
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| of(one).as_str().unwrap_or("?").to_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        let line = |row: &Value| {
            let asked = words(&body(&row["asked"])["messages"], |message| &message["content"]);
            let told =
                words(&body(&row["told"])["choices"], |choice| &choice["message"]["content"]);
            format!("{} [{asked}] [{told}]", row["total_units"])
        };
        rows.iter().map(line).collect()
    }

    async fn otlp_json(&self, path: &str, body: String) -> Value {
        let response = self.otlp(path, JSON, body).await;
        assert_eq!(
            (response.status(), header(&response, "content-type")),
            (StatusCode::OK, JSON),
            "{path}"
        );
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
            assert_eq!(
                (response.status(), header(&response, "content-type")),
                (StatusCode::OK, PROTOBUF),
                "{path}"
            );
            assert!(
                response.bytes().await.unwrap().is_empty(),
                "an empty response in protobuf is no bytes"
            );
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
        let silent = traces(&[span(number, &json!({ "gen_ai.operation.name": "chat" }))]);
        // Whichever comes first.
        if number.is_multiple_of(2) {
            server.otlp_json("/v1/otel/v1/traces", silent.clone()).await;
        }
        assert_eq!(
            server.otlp_json(path, logs(number, &format!("said {number}"))).await,
            json!({}),
            "{path}"
        );
        server.otlp_json("/v1/otel/v1/traces", silent).await;
    }
    // The same path goes on being Portkey's.
    let portkey = server
        .post("/v1/logs", r#"{"request":{"body":{"model":"p"}},"response":{}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(portkey.text().await.unwrap(), "ok");
    let rows =
        server.sql("select request.body as b from logs where ai_model is null order by id").await;
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
        server
            .post(path, body)
            .header("content-type", JSON)
            .header("x-portkey-debug", "false")
            .send()
    };
    untracked("/v1/otel/v1/logs", logs(1, "secret words")).await.unwrap();
    server
        .otlp_json(
            "/v1/otel/v1/traces",
            traces(&[span(1, &json!({ "gen_ai.operation.name": "chat" }))]),
        )
        .await;
    untracked("/v1/otel/v1/traces", traces(&[call(2)])).await.unwrap();
    let rows = server.sql("select do_not_track, request.body as b from logs order by id").await;
    assert!(!rows[0].to_string().contains("secret words"), "{}", rows[0]);
    assert_eq!((&rows[1]["do_not_track"], rows[1]["b"].is_null()), (&json!(true), true));
    assert_eq!(containing(Path::new(&server.config.data), b"secret words"), [""; 0]);
    // Where the events' exporter did not know.
    server.export(logs(3, "said too early")).await;
    untracked("/v1/otel/v1/traces", traces(&[silent(3)])).await.unwrap();
    server.export(choice(3, "said too late")).await;
    let rows = server
        .sql("select do_not_track, request.body as b, response.body as c from logs order by id")
        .await;
    assert_eq!(rows[2], json!({ "do_not_track": true, "b": null, "c": null }));
    assert_eq!(
        (rows.len(), server.engine.status().waiting_halves),
        (3, 1),
        "only the span of 1 may hear more"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_before_and_after_their_span_make_one_record_and_come_again_without_harm() {
    let server = Server::start().await;
    let asked = events(&[
        event(1, "gen_ai.system.message", "be"),
        event(1, "gen_ai.user.message", "Hi"),
        event(2, "gen_ai.user.message", "Yo"),
    ]);
    let spans = traces(&[silent(1), silent(2), whole(3)]);
    let told = choice(1, "Hello");
    server.export(asked.clone()).await;
    assert_eq!(server.calls().await, ["null [be Hi] []", "null [Yo] []"], "seen at once");
    server.export(spans.clone()).await;
    assert_eq!(server.calls().await, ["1100 [be Hi] []", "1100 [Yo] []", "null [Hi] [Hello]"]);
    server.export(told.clone()).await;
    let all = ["1100 [be Hi] [Hello]", "1100 [Yo] []", "null [Hi] [Hello]"];
    assert_eq!(server.calls().await, all);
    for again in [asked, spans, told, logs(3, "more of what is whole")] {
        server.export(again).await;
        assert_eq!(server.calls().await, all);
    }
    let rows =
        server.sql("select cost, cast(created_at as varchar) as at, ai_model, source from logs order by id").await;
    // 1000 tokens at 2.5 and 100 at 10 dollars a million, in cents.
    assert_eq!((&rows[0]["cost"], &rows[0]["ai_model"]), (&json!(0.35), &json!("gpt-4o")));
    assert_eq!(rows[0]["at"], rows[2]["at"], "the start of the span");
    assert_eq!(rows[0]["source"], "otlp");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_come_one_a_request_stand_in_the_order_of_their_times() {
    let server = Server::start().await;
    let said = |nanos: u64, content: &str| {
        let mut said = event(1, "gen_ai.user.message", content);
        said["timeUnixNano"] = json!(nanos.to_string());
        events(&[said])
    };
    let at = 1_795_278_400_000_000_000;
    server.export(said(at + 30_000, "c")).await;
    server.export(said(at + 10_000, "a")).await;
    assert_eq!(server.calls().await, ["null [a c] []"], "as soon as they come");
    server.export(traces(&[silent(1)])).await;
    server.export(said(at + 20_000, "b")).await;
    assert_eq!(server.calls().await, ["1100 [a b c] []"]);
    // The log is rewritten at a flush, and one that comes after a restart finds its place.
    server.engine.flush().await.unwrap();
    let server = restarted(server).await;
    server.export(said(at + 15_000, "ab")).await;
    server.export(said(at + 30_000, "c")).await;
    assert_eq!(server.calls().await, ["1100 [a ab b c] []"]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_which_nothing_would_be_kept_is_told_so() {
    let server = Server::start().await;
    for (path, body, told) in [
        ("/v1/otel/v1/traces", r#"{"hello":"world"}"#, "`resourceSpans`"),
        ("/v1/otel/v1/traces", r#"{"spans":[{"traceId":"1"}]}"#, "`resourceSpans`"),
        ("/v1/otel/v1/traces", &*logs(1, "x"), "/v1/logs"),
        ("/v1/otel/v1/logs", r#"{"logs":[]}"#, "`resourceLogs`"),
        ("/v1/logs/otel", r#"{"hello":"world"}"#, "`resourceSpans`"),
    ] {
        let sent = server.post(path, body.to_owned()).header("content-type", JSON);
        let (message, _) = failure(sent, StatusCode::BAD_REQUEST).await;
        assert!(message.contains(told), "{message}");
    }
    let snake = traces(&[call(1)])
        .replace("resourceSpans", "resource_spans")
        .replace("scopeSpans", "scope_spans");
    let snake = snake
        .replace("stringValue", "string_value")
        .replace("startTimeUnixNano", "start_time_unix_nano");
    assert_eq!(server.otlp_json("/v1/otel/v1/traces", snake).await, json!({}));
    assert_eq!(server.calls().await, ["null [Hi] []"]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_spans_meet_across_restarts() {
    let server = Server::start().await;
    server.export(logs(1, "Hi")).await;
    server.export(traces(&[silent(2)])).await;
    server.export(logs(4, "Hi")).await;
    let server = restarted(server).await;
    assert_eq!(server.calls().await, ["null [Hi] []", "1100 [] []", "null [Hi] []"]);
    server.export(traces(&[silent(1), whole(4)])).await;
    server.export(logs(2, "Yo")).await;
    server.export(logs(3, "alone")).await;
    let server = restarted(server).await;
    server.export(choice(1, "Hello")).await;
    let all = ["1100 [Hi] [Hello]", "1100 [Yo] []", "null [alone] []", "null [Hi] [Hello]"];
    assert_eq!(server.calls().await, all);
    server.export(traces(&[silent(1)])).await;
    server.export(choice(1, "Hello")).await;
    let server = restarted(server).await;
    assert_eq!(server.calls().await, all);
    let lone = server
        .sql("select trace_id, span_id, is_success, cast(created_at as varchar) as at from logs order by id")
        .await;
    let (trace, span) = (format!("{:032x}", 3), format!("{:016x}", 3));
    assert_eq!(
        (&lone[2]["trace_id"], &lone[2]["span_id"], &lone[2]["is_success"]),
        (&json!(trace), &json!(span), &Value::Null)
    );
    assert!(lone[2]["at"].as_str().unwrap().ends_with(".100Z"), "when the event was: {lone:?}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_is_whole_takes_the_place_of_its_events_at_once() {
    let server = Server::start().await;
    server
        .export(events(&[
            event(1, "gen_ai.user.message", "Hi"),
            event(2, "gen_ai.user.message", "other"),
        ]))
        .await;
    server.export(traces(&[whole(1), whole(3)])).await;
    let all = ["null [Hi] [Hello]", "null [other] []", "null [Hi] [Hello]"];
    assert_eq!(
        (server.calls().await, server.engine.status().waiting_halves),
        (all.map(str::to_owned).to_vec(), 1)
    );
    // Beside the server, out of its log.
    let beside = Reader::open(&server.config).await.unwrap();
    assert_eq!(beside.status().memory_rows, 3);
    let server = restarted(server).await;
    assert_eq!(server.calls().await, all);
    server.end().await;
}

fn tenants(document: &mut Document) -> gatelog::error::Result<()> {
    let now = chrono::Utc::now();
    for organisation in ["acme", "zen"] {
        let workspaces = ["ads".to_owned(), "search".to_owned()].into();
        document.create_organisation(
            organisation,
            Organisation { workspaces, ..Organisation::new("enterprise", now) },
            0,
        )?;
        for workspace in [None, Some("ads"), Some("search")] {
            let key = NewKey {
                organisation: Some(organisation.to_owned()),
                workspace: workspace.map(str::to_owned),
                scopes: [Scope::Write].into(),
                ..NewKey::default()
            };
            document.add_key(
                &workspace.map_or(organisation.to_owned(), |of| format!("{organisation} {of}")),
                key,
                now,
            )?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ids_of_two_tenants_never_meet() {
    let server = Server::start().await;
    server.engine.catalog().change(tenants).await.unwrap();
    let export = async |key: &str, body: String| {
        let sent =
            server.bare(Method::POST, "/v1/logs/otel").header("x-portkey-api-key", key).body(body);
        let response = sent.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({}), "{key}");
    };
    let both =
        events(&[event(2, "gen_ai.choice", "of search"), event(3, "gen_ai.user.message", "own")]);
    for (key, body) in [
        ("acme", logs(1, "of acme")),
        ("zen", traces(&[silent(1)])),
        ("zen", choice(1, "of zen")),
        // Nor do those of two workspaces, or of one and none.
        ("acme ads", traces(&[silent(2)])),
        ("acme search", logs(2, "of search")),
        ("acme", logs(2, "of all")),
        ("acme search", both),
        ("acme ads", logs(2, "of ads")),
    ] {
        export(key, body).await;
    }
    let rows = async |server: &Server| {
        let rows = server.sql("select organisation_id as o, workspace_slug as w, span_id as s, total_units as t, request.body as a, response.body as b from logs order by o, s, w").await;
        let line = |row: &Value| {
            let said = [&row["a"], &row["b"]].map(ToString::to_string).concat();
            let said: Vec<&str> = ["of acme", "of zen", "of search", "of all", "of ads", "own"]
                .into_iter()
                .filter(|words| said.contains(words))
                .collect();
            format!("{} {} {} {}", row["o"], row["w"], row["t"], said.join(","))
        };
        rows.iter().map(line).collect::<Vec<_>>()
    };
    let expected = [
        r#""acme" null null of acme"#,
        r#""acme" "ads" 1100 of ads"#,
        r#""acme" "search" null of search"#,
        r#""acme" null null of all"#,
        r#""acme" "search" null own"#,
        r#""zen" null 1100 of zen"#,
    ];
    assert_eq!(rows(&server).await, expected);
    let server = restarted(server).await;
    assert_eq!(rows(&server).await, expected);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_redaction_hold_for_spans_and_for_events() {
    let rules = "[mail]\npattern = '\\w+@example\\.org'\nreplacement = '<mail>'\n[asked]\npaths = ['request.body.messages[*].content']";
    let server = Server::start_with(|config| config.set("redact", rules).unwrap()).await;
    server.export(choice(1, "write to ann@example.org")).await;
    server.export(logs(1, "secret words")).await;
    let mut span = silent(1);
    span["attributes"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "key": "user.id", "value": { "stringValue": "ann@example.org" } }));
    server.export(traces(&[span])).await;
    assert_eq!(server.calls().await, ["1100 [[redacted]] [write to <mail>]"]);
    assert_eq!(server.sql("select user_id from logs").await, [json!({ "user_id": "<mail>" })]);
    for planted in ["secret words", "example.org"] {
        assert_eq!(
            containing(Path::new(&server.config.data), planted.as_bytes()),
            [""; 0],
            "{planted}"
        );
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_success_counts_what_was_rejected_and_not_what_was_passed_over() {
    let server = Server::start().await;
    let mut bad = call(3);
    bad["spanId"] = json!("");
    let other = span(4, &json!({ "http.request.method": "GET" }));
    let response =
        server.otlp("/v1/otel/v1/traces", JSON, traces(&[call(1), bad, other, call(2)])).await;
    assert_eq!(header(&response, "x-gatelog-passed-over"), "1");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    assert!(
        answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("`spanId`"),
        "{answer}"
    );
    assert_eq!(server.count().await, 2);

    let mut prompt = event(5, "gen_ai.content.prompt", "");
    let deep = format!(r#"[{{"a":{}1{}}}]"#, "[".repeat(130), "]".repeat(130));
    prompt["attributes"] = json!([{ "key": "gen_ai.prompt", "value": { "stringValue": deep } }]);
    let sent =
        events(&[event(5, "app.started", "x"), prompt, event(5, "gen_ai.user.message", "Hi")]);
    for _ in 0..2 {
        // What came already is no rejection.
        let answer = server.otlp_json("/v1/otel/v1/logs", sent.clone()).await;
        assert_eq!(answer["partialSuccess"]["rejectedLogRecords"], "1", "{answer}");
        let message = answer["partialSuccess"]["errorMessage"].as_str().unwrap();
        assert!(message.contains("record 1: field `request.body`"), "{answer}");
        assert_eq!(server.count().await, 3);
    }

    let points =
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{},{}]}}]}]}]}"#;
    for path in ["/v1/metrics", "/v1/otel/v1/metrics", "/v1/logs/otel/v1/metrics"] {
        let answer = server.otlp_json(path, points.to_owned()).await;
        assert_eq!(answer["partialSuccess"]["rejectedDataPoints"], "2", "{answer}");
        assert!(
            answer["partialSuccess"]["errorMessage"]
                .as_str()
                .unwrap()
                .contains("OTEL_METRICS_EXPORTER")
        );
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_in_the_requests_encoding() {
    let server = Server::start_with(|config| config.max_record_bytes = 64 << 10).await;
    let path = "/v1/otel/v1/traces";
    let of = |content_type: &'static str, body: Vec<u8>| {
        server.post(path, body).header("content-type", content_type)
    };
    let (message, body) = failure(of(JSON, b"{not json".to_vec()), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("resourceSpans") && body["code"] == 3, "{body}");
    failure(of(JSON, vec![b' '; 3 << 20]), StatusCode::PAYLOAD_TOO_LARGE).await;
    failure(of(JSON, vec![0x1f, 0x8b, 0, 0]), StatusCode::BAD_REQUEST).await;
    failure(of(JSON, gzip(&vec![b' '; 64 << 20])), StatusCode::PAYLOAD_TOO_LARGE).await;
    failure(
        of(JSON, Vec::new()).header("content-encoding", "br"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
    )
    .await;
    failure(server.get(path), StatusCode::METHOD_NOT_ALLOWED).await;

    for (body, status, code) in [
        (b"{}".to_vec(), StatusCode::BAD_REQUEST, 3),
        (vec![10; 3 << 20], StatusCode::PAYLOAD_TOO_LARGE, 8),
    ] {
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
        // One organisation gets three quarters of it.
        config.memtable_bytes = (4 << 20) / 3;
        config.flush_bytes = 1 << 20;
        config.flush_seconds = 3_600;
        config.append_wait_ms = 0;
    })
    .await;
    let prompt = "x".repeat(100_000);
    // Whole ones and pieces.
    let call = |number: u64| {
        let answered = if number.is_multiple_of(2) { "gen_ai.completion" } else { "other" };
        span(
            number,
            &json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt": prompt, answered: "y" }),
        )
    };
    let body = traces(&(1..100).map(call).collect::<Vec<_>>());
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
    assert_eq!(server.count().await, 99);
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
