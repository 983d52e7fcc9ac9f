//! Requests of other clients: callbacks of gateways, logs that are sent again, costs, and data that
//! must never be kept.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use gatelog::config::Failures;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::control_plane::restarted;
use super::{KEY, Server, header};
use crate::files::contents;

fn litellm(id: &str) -> Value {
    json!({
        "id": id, "call_type": "completion", "status": "success", "model": "gpt-4o", "custom_llm_provider": "openai",
        "prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18, "response_cost": 0.0001125,
        "startTime": 1795278418.25, "endTime": 1795278419.0, "response_time": 0.75,
        "messages": [{ "role": "user", "content": "hi" }], "response": { "choices": [] },
    })
}

fn hook() -> Value {
    let config = json!({ "provider": "openai", "api_key": "sk-in-clear-0123456789" }).to_string();
    json!({
        "request": {
            "json": { "model": "gpt-4o", "messages": [] }, "isStreamingRequest": false,
            "headers": { "x-portkey-config": config, "authorization": "Bearer sk-in-clear-0123456789" },
        },
        "response": { "json": { "usage": { "prompt_tokens": 9, "completion_tokens": 9 } }, "statusCode": 200 },
        "provider": "openai", "requestType": "chatComplete", "metadata": {},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn litellm_is_answered_with_2xx_and_stored_once() {
    let server = Server::start().await;
    let (a, b) = (litellm("call-a"), litellm("call-b"));
    let path = "/v1/ingest/litellm";
    for (path, body, counts) in [
        (path, json!([a, b]).to_string(), (2, 0, 0)),
        // Lines come as `application/json` too, and a batch may come again.
        (path, format!("{a}\n{}\n", litellm("call-c")), (1, 1, 0)),
        ("/v1/ingest?source=litellm", litellm("call-d").to_string(), (1, 0, 0)),
        (path, "[{\"nothing\":1}]".to_owned(), (0, 0, 1)),
        (path, "not json".to_owned(), (0, 0, 1)),
        (path, String::new(), (0, 0, 0)),
    ] {
        let sent = server
            .post(path, body.clone())
            .header("content-type", "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::OK, "{body}");
        let receipt: Value = sent.json().await.unwrap();
        let found =
            ["accepted", "duplicate", "rejected"].map(|name| receipt[name].as_u64().unwrap());
        assert_eq!(found, [counts.0, counts.1, counts.2], "{body}");
    }
    let query = "select internal_trace_id as id, cost, response_time, source from logs order by id";
    let rows = server.sql(query).await;
    assert_eq!(rows.len(), 4);
    assert_eq!(
        rows[0],
        json!({ "id": "call-a", "cost": 0.01125, "response_time": 750, "source": "litellm" })
    );
    server.end().await;
}

/// An attempt of a call to LiteLLM that succeeded, or failed.
fn attempt(start: f64, model: &str, status: &str, cost: f64) -> Value {
    let mut attempt = litellm("call-1");
    attempt["trace_id"] = json!("tr");
    attempt["startTime"] = json!(start);
    attempt["endTime"] = json!(start + 0.5);
    attempt["model"] = json!(model);
    attempt["status"] = json!(status);
    attempt["response_cost"] = json!(cost);
    attempt["api_base"] = json!("https://api.openai.com");
    if status == "failure" {
        (attempt["total_tokens"], attempt["prompt_tokens"], attempt["completion_tokens"]) =
            (json!(0), json!(0), json!(0));
        attempt["error_information"] = json!({ "error_code": "429" });
    }
    attempt
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_one_call_to_litellm_are_records_of_their_own() {
    let server = Server::start().await;
    let failed = json!([
        attempt(1795278418.75, "gpt-4o", "failure", 0.0),
        attempt(1795278419.75, "gpt-4o", "failure", 0.0)
    ]);
    let succeeded = json!([attempt(1795278420.75, "gpt-4o-mini", "success", 0.0002)]);
    // Sent again, also after a restart.
    for (body, counts) in
        [(&failed, [2, 0]), (&succeeded, [1, 0]), (&failed, [0, 2]), (&succeeded, [0, 1])]
    {
        let sent = server.post("/v1/ingest/litellm", body.to_string()).send().await.unwrap();
        let receipt: Value = sent.json().await.unwrap();
        assert_eq!(["accepted", "duplicate"].map(|name| receipt[name].as_u64().unwrap()), counts);
    }
    let server = restarted(server).await;
    server.post("/v1/ingest/litellm", failed.to_string()).send().await.unwrap();
    let rows =
        server.sql("select count(*) as n, sum(total_units) as t, sum(cost) as c from logs").await;
    assert_eq!(rows, [json!({ "n": 3, "t": 18, "c": 0.02 })]);
    let rows = server
        .sql("select id, is_success from logs where internal_trace_id = 'call-1' and trace_id = 'tr' order by created_at")
        .await;
    assert_eq!(
        rows.iter().map(|row| row["is_success"].as_i64()).collect::<Vec<_>>(),
        [Some(0), Some(0), Some(1)]
    );
    // The call's id finds the attempt that succeeded, by itself and for feedback; an attempt's own
    // id finds that one.
    let answer: Value = server.get("/v1/logs/call-1").send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["_id"], rows[2]["id"], "{answer}");
    let first = rows[0]["id"].as_str().unwrap();
    let answer: Value =
        server.get(&format!("/v1/logs/{first}")).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["_id"], first);
    let given = server
        .post("/v1/feedback", json!({ "log_id": "call-1", "value": 1 }).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(given.status(), StatusCode::OK);
    assert_eq!(
        server.sql("select log_id from feedback").await,
        [json!({ "log_id": rows[2]["id"] })]
    );
    let all: Value =
        server.get("/v1/logs?internal_trace_id=call-1").send().await.unwrap().json().await.unwrap();
    assert_eq!(all["data"].as_array().unwrap().len(), 3, "all attempts of the call: {all}");
    let unknown = server.get("/v1/logs/call-2").send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    // The provider's URL has no path, and the call can be replayed all the same.
    let ready: Value =
        server.get("/v1/logs/call-1/replay").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["request"]["endpoint"], "/chat/completions", "{ready}");
    // Erasing the call takes all of its attempts, the feedback on them, and an attempt that comes
    // late.
    let erasure = json!({ "organisation": "default", "ids": ["call-1"] });
    let erased = server.post("/v1/admin/erasures", erasure.to_string()).send().await.unwrap();
    assert_eq!(erased.status(), StatusCode::ACCEPTED);
    let late = attempt(1795278421.75, "gpt-4o", "failure", 0.0);
    server.post("/v1/ingest/litellm", late.to_string()).send().await.unwrap();
    for table in ["logs", "feedback"] {
        assert_eq!(
            server.sql(&format!("select count(*) as n from {table}")).await,
            [json!({ "n": 0 })]
        );
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_only_python_has_cost_no_call_on_any_route() {
    let server = Server::start().await;
    let lite = |id: &str| {
        litellm(id).to_string().replace(r#""response":{"#, r#""response":{"lp":-Infinity,"#)
    };
    let span = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
        "startTimeUnixNano":"1795278418000000000","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},
        {"key":"x","value":{"doubleValue":NaN}}]}]}]}]}"#;
    let call = r#"{"request":{"url":"https://h/v1","body":{"t":NaN}},"response":{"status":200,"body":{"lp":[-Infinity]}}}"#;
    for (path, body) in [
        ("/v1/ingest/litellm", format!("[{},{},{}]", litellm("a"), lite("b"), litellm("c"))),
        ("/v1/ingest", r#"{"id":"n","response":{"body":{"x":NaN}}}"#.to_owned()),
        ("/v1/logs", call.to_owned()),
        (
            "/v1/ingest/gateway-hook",
            hook().to_string().replace(r#""usage":"#, r#""lp":Infinity,"usage":"#),
        ),
        ("/v1/otel/v1/traces", span.to_owned()),
        ("/v1/feedback", r#"{"trace_id":"t","value":1,"metadata":{"a":NaN}}"#.to_owned()),
    ] {
        let sent = server
            .post(path, body)
            .header("content-type", "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(server.count().await, 7);
    let rows =
        server.sql("select response.body as b from logs where internal_trace_id = 'b'").await;
    assert_eq!(rows, [json!({ "b": "{\"lp\":null,\"choices\":[]}" })]);
    assert_eq!(server.sql("select count(*) as n from feedback").await, [json!({ "n": 1 })]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_not_ascii_are_read() {
    let server = Server::start().await;
    for (id, metadata) in
        [("h0", "{\"team\":\"Zürich\"}".as_bytes()), ("h1", &b"{\"team\":\"Z\xfcrich\"}"[..])]
    {
        let body =
            json!({ "id": id, "request": { "url": "https://h" }, "response": {} }).to_string();
        let metadata = reqwest::header::HeaderValue::from_bytes(metadata).unwrap();
        server.post("/v1/logs", body).header("x-portkey-metadata", metadata).send().await.unwrap();
    }
    let rows = server.sql("select metadata['team'] as team from logs order by id").await;
    assert_eq!(rows, [json!({ "team": "Zürich" }), json!({ "team": "Zürich" })]);
    server.end().await;
}

/// Every place in which clients hand keys over, in every shape: none is on the disk, nor in an
/// answer.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_nowhere_in_any_shape() {
    const KEY_TEXT: &str = "sk-fig7planted0123";
    let server = Server::start().await;
    let config = json!({
        "targets": [{ "provider": "openai", "api_key": KEY_TEXT, "custom_host": format!("https://u:{KEY_TEXT}@h/v1?api-key={KEY_TEXT}") }],
        "override_params": { "tools": [{ "function": { "parameters": { "properties": { "api_key": {} } } } }], "stop_token_ids": [5] },
    })
    .to_string();
    let url = format!("https://u:{KEY_TEXT}@h/v1?key={KEY_TEXT}#access_token={KEY_TEXT}");
    let headers = json!({ "x-portkey-config": config, "authorization": [format!("Bearer {KEY_TEXT}")], "referer": url });
    let mut lite = litellm("lite");
    lite["api_base"] = json!(url);
    lite["model_parameters"] =
        json!({ "base_url": url, "api_key": KEY_TEXT, "extra_body": { "headers": headers } });
    let attributes: Vec<Value> = [
        ("gen_ai.operation.name", json!("chat")),
        (
            "llm.invocation_parameters",
            json!(json!({ "api_key": KEY_TEXT, "extra_headers": headers }).to_string()),
        ),
        ("url.query", json!(format!("key={KEY_TEXT}"))),
        ("http.target", json!(format!("/v1?key={KEY_TEXT}"))),
        ("url.full", json!(url)),
        ("gen_ai.headers", json!(headers.to_string())),
    ]
    .iter()
    .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }))
    .collect();
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
        "startTimeUnixNano": "1795278418000000000", "attributes": attributes,
    });
    let mut hooked = hook();
    hooked["request"]["headers"] = headers.clone();
    for (path, body) in [
        (
            "/v1/ingest",
            json!({ "config": config, "request_url": url, "request": { "headers": headers } }),
        ),
        (
            "/v1/logs",
            json!({ "request": { "url": url, "headers": headers }, "response": { "headers": headers } }),
        ),
        ("/v1/ingest/litellm", lite),
        ("/v1/ingest/gateway-hook", hooked),
        (
            "/v1/otel/v1/traces",
            json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }),
        ),
    ] {
        let sent = server
            .post(path, body.to_string())
            .header("content-type", "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::OK, "{path}");
    }
    let rows = server.sql("select * from logs").await;
    assert_eq!(rows.len(), 5);
    let shown = json!(rows).to_string();
    assert!(!shown.contains("planted") && shown.contains("stop_token_ids"), "{shown}");
    server.engine.flush().await.unwrap();
    let data = PathBuf::from(&server.config.data);
    assert!(!contents(&data).iter().any(|(_, bytes)| holds(bytes, b"fig7planted")));
    assert!(!parquet_of(&data).contains("fig7planted"));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hooks_keys_are_nowhere_and_its_cost_is_computed() {
    let server = Server::start().await;
    let sent = server.post("/v1/ingest/gateway-hook", hook().to_string()).send().await.unwrap();
    assert_eq!(
        (sent.status(), header(&sent, "content-type")),
        (StatusCode::OK, "application/json")
    );
    let answer: Value = sent.json().await.unwrap();
    assert_eq!(
        (&answer["accepted"], &answer["verdict"]),
        (&json!(1), &json!(true)),
        "no verdict is a failed guardrail"
    );
    let rows =
        server.sql("select cost, cost_currency, mode, request.headers as headers from logs").await;
    assert_eq!((&rows[0]["cost"], &rows[0]["cost_currency"]), (&json!(0.01125), &json!("USD")));
    assert!(rows[0]["headers"].as_str().unwrap().contains("sk********789"), "{rows:?}");
    let data = PathBuf::from(&server.config.data);
    server.engine.flush().await.unwrap();
    assert!(!contents(&data).iter().any(|(_, bytes)| holds(bytes, b"in-clear")));
    assert!(parquet_of(&data).contains("sk********789") && !parquet_of(&data).contains("in-clear"));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_come_from_the_table_and_unknown_models_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prices.csv");
    fs::write(&file, "provider,model,above,input,output\nown,my-model,,100,200\n").unwrap();
    let server =
        Server::start_with(|config| config.prices_file = file.to_str().unwrap().to_owned()).await;
    let record = |org: &str, model: &str| json!({ "id": model, "ai_org": org, "ai_model": model, "req_units": 10, "res_units": 1 });
    let body = [
        record("own", "my-model"),
        record("openai", "gpt-4o"),
        record("own", "new-model"),
        record("x", "new-2"),
    ];
    server.ingest(json!(body).to_string()).await;
    server
        .ingest(
            json!({ "id": "stated", "ai_org": "x", "ai_model": "y", "req_units": 1, "res_units": 1, "cost": 0 })
                .to_string(),
        )
        .await;
    let rows = server.sql("select id, cost from logs order by id").await;
    let expected = [
        ("gpt-4o", json!(0.0035)),
        ("my-model", json!(0.12)),
        ("new-2", json!(null)),
        ("new-model", json!(null)),
        ("stated", json!(0.0)),
    ];
    for (row, (id, cost)) in rows.iter().zip(expected) {
        assert_eq!(
            (row["id"].as_str(), row.get("cost").cloned().unwrap_or_default()),
            (Some(id), cost)
        );
    }
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("gatelog_records_without_price_total 2\n"), "{metrics}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_prices_that_cannot_be_read_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    for (content, words) in [
        (None, "setting `prices_file`: cannot read"),
        (Some("model,price\n"), "the first line is not `provider,model,"),
    ] {
        let file = folder.path().join("prices.csv");
        let _ = fs::remove_file(&file);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let prices_file = file.to_str().unwrap().to_owned();
        let config =
            gatelog::Config { data: data.clone(), prices_file, ..gatelog::Config::default() };
        let error = gatelog::Engine::open(config).await.unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_redaction_hold_before_anything_is_written() {
    let server = Server::start_with(|config| {
        config
            .set(
                "redact",
                "[mail]\npattern = '\\w+@example\\.org'\nreplacement = '<mail>'\n[ssn]\npaths = ['request.body..ssn']",
            )
            .unwrap();
    })
    .await;
    let log = json!({
        "request": { "url": "http://127.0.0.1/?to=ann@example.org", "body": { "text": "to ann@example.org", "a": { "ssn": 12 } } },
        "response": { "body": { "text": "from ann@example.org" } }, "metadata": { "_user": "ann@example.org" },
    });
    server.post("/v1/logs", log.to_string()).send().await.unwrap();
    server
        .ingest(
            json!({ "request": { "body": { "x": "ann@example.org" }, "headers": { "x": "ann@example.org" } } })
                .to_string(),
        )
        .await;
    let rows = server
        .sql("select request.body as asked, response.body as told, user_id from logs order by user_id nulls last")
        .await;
    assert_eq!(rows[0]["user_id"], "<mail>");
    assert!(rows[0]["asked"].as_str().unwrap().contains(r#"{"ssn":"[redacted]"}"#), "{rows:?}");
    let all = server.get("/v1/export").send().await.unwrap().text().await.unwrap();
    assert!(all.contains("<mail>") && !all.contains("example.org"), "{all}");
    let data = PathBuf::from(&server.config.data);
    server.engine.flush().await.unwrap();
    assert!(!contents(&data).iter().any(|(_, bytes)| holds(bytes, b"example.org")));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_are_not_tracked_keep_what_the_setting_says() {
    let log = |status: u16| {
        json!({
            "request": { "headers": { "x-portkey-debug": "false" }, "body": { "secret": 1 } },
            "response": { "status": status, "body": { "error": "told" }, "headers": { "set-cookie": "0123456789abcdef" } },
        })
    };
    for (failures, kept) in
        [(Failures::Strict, json!(null)), (Failures::Portkey, json!("{\"error\":\"told\"}"))]
    {
        let server = Server::start_with(|config| config.do_not_track_failures = failures).await;
        for status in [200, 429] {
            server.post("/v1/logs", log(status).to_string()).send().await.unwrap();
        }
        let query = "select request.body as asked, response.body as told, response.headers as headers from logs order by response_status_code";
        let rows = server.sql(query).await;
        let told = |row: &Value| row.get("told").cloned().unwrap_or_default();
        assert_eq!((told(&rows[0]), told(&rows[1])), (json!(null), kept), "{failures}");
        assert!(rows.iter().all(|row| row.get("asked").is_none_or(Value::is_null)));
        assert!(!rows[1].to_string().contains("0123456789abcdef"));
        server.end().await;
    }
}

/// The server notices a closed connection as soon as it looks.
const GONE: Duration = Duration::from_millis(300);

/// Sends one request on a connection of its own, reads the answer or does not, and closes.
fn send(server: &Server, version: Option<&str>, body: &str, read: bool) -> TcpStream {
    let address = server.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let version = version
        .map_or_else(String::new, |version| format!("x-portkey-package-version: {version}\r\n"));
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\nx-portkey-api-key: {KEY}\r\n{version}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    if read {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    stream
}

async fn count(server: &Server, rows: u64) {
    super::eventually("the rows are there", async || server.count().await == rows).await;
    tokio::time::sleep(GONE).await;
    assert_eq!(server.count().await, rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_an_sdk_sends_again_is_stored_once() {
    let server = Server::start().await;
    let array = json!([{ "request": { "body": { "n": 1 } }, "response": {} }, { "request": { "body": { "n": 2 } }, "response": {} }]).to_string();
    let sdk = Some("portkey-2.3.4");
    drop(send(&server, sdk, &array, true));
    count(&server, 2).await;
    drop(send(&server, sdk, &array, true));
    count(&server, 2).await;
    drop(send(&server, sdk, &array, true));
    count(&server, 4).await;
    // A client that got its answer keeps the connection; and who is no SDK does not send again.
    let numbered =
        json!({ "0": { "request": { "body": {} } }, "1": { "request": { "body": {} } } })
            .to_string();
    let kept = [send(&server, sdk, &numbered, true), send(&server, sdk, &numbered, true)];
    count(&server, 8).await;
    drop(kept);
    drop(send(&server, None, &numbered, true));
    drop(send(&server, None, &numbered, true));
    count(&server, 12).await;
    // Whether the first was taken before its client was gone is open; that there is one of it is
    // not.
    let single = json!({ "request": { "body": { "n": 3 } } }).to_string();
    drop(send(&server, sdk, &single, false));
    tokio::time::sleep(GONE).await;
    drop(send(&server, sdk, &single, true));
    count(&server, 13).await;
    let traces = server.sql("select count(distinct trace_id) as n from logs").await;
    assert_eq!(traces[0]["n"], 7);
    server.end().await;
}

/// Every file below a folder with its bytes.
fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// What the Parquet files below a folder hold, unpacked.
fn parquet_of(folder: &Path) -> String {
    let mut text = String::new();
    for (path, bytes) in contents(folder) {
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
            .unwrap()
            .build()
            .unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            text.push_str(
                &arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string(),
            );
        }
    }
    text
}

/// A server of the built binary, whose own log says all it can.
struct Process {
    child: Child,
    base: String,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let address = folder.join("address");
        let _ = fs::remove_file(&address);
        let log =
            fs::OpenOptions::new().create(true).append(true).open(folder.join("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatelog"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATELOG_"))
        {
            command.env_remove(name);
        }
        let child = command
            .args([
                "serve",
                "--data",
                "data",
                "--listen",
                "127.0.0.1:0",
                "--address-file",
                "address",
            ])
            .env("GATELOG_ADMIN_KEY", KEY)
            .env("GATELOG_LOG", "trace")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            match fs::read_to_string(&address) {
                Ok(text) if !text.trim().is_empty() => {
                    return Self { child, base: format!("http://{}", text.trim()) };
                }
                _ => assert!(
                    started.elapsed() < Duration::from_secs(60),
                    "the server does not start"
                ),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: String) -> String {
        let mut request = reqwest::Client::new()
            .post(format!("{}{path}", self.base))
            .header("x-portkey-api-key", KEY);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body).send().await.unwrap();
        let (status, headers) = (response.status(), format!("{:?}", response.headers()));
        format!("{status} {headers} {}", response.text().await.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PLANTED: &str = "zebra7plum";

/// A request: path, headers, body.
type Sent = (&'static str, Vec<(&'static str, &'static str)>, String);

/// Requests with the planted text wherever content can be, by path and headers; all say that they
/// are not to be tracked.
fn untracked() -> Vec<Sent> {
    let off = vec![("x-portkey-debug", "False")];
    let message = json!({ "body": { "text": PLANTED }, "headers": { "x": PLANTED } });
    let log = |status: u16, headers: Value| {
        json!({
            "request": { "url": "http://127.0.0.1/v1", "headers": headers, "body": { "messages": [PLANTED] } },
            "response": { "status": status, "body": { "error": PLANTED }, "headers": { "x": PLANTED } },
        })
    };
    let own = json!({ "x": PLANTED, "X-Portkey-Debug": "false" });
    let mut hooked = hook();
    hooked["request"]["json"]["messages"] = json!([PLANTED]);
    hooked["request"]["text"] = json!(PLANTED);
    hooked["response"]["json"]["choices"] = json!([PLANTED]);
    let mut hooked_by_header = hooked.clone();
    hooked_by_header["request"]["headers"]["x-portkey-debug"] = json!("false");
    let mut lite = litellm("lite-1");
    lite["messages"] = json!([{ "content": PLANTED }]);
    lite["response"] = json!({ "choices": [PLANTED] });
    lite["model_parameters"] = json!({ "stop": PLANTED });
    let mut failed = lite.clone();
    failed["id"] = json!("lite-2");
    failed["status"] = json!("failure");
    failed["error_str"] = json!(PLANTED);
    failed["error_information"] = json!({ "error_code": "500", "traceback": PLANTED });
    failed["metadata"] = json!({ "requester_custom_headers": { "x-portkey-debug": "false" } });
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat", "kind": 3,
        "startTimeUnixNano": "1795278418000000000", "endTimeUnixNano": "1795278419000000000",
        "attributes": [
            { "key": "gen_ai.operation.name", "value": { "stringValue": "chat" } },
            { "key": "gen_ai.request.model", "value": { "stringValue": "gpt-4o" } },
            { "key": "gen_ai.input.messages", "value": { "stringValue": PLANTED } },
            { "key": "gen_ai.output.messages", "value": { "stringValue": PLANTED } },
            { "key": "ai.prompt.messages", "value": { "stringValue": PLANTED } },
            { "key": "ai.response.text", "value": { "stringValue": PLANTED } },
            { "key": "traceloop.entity.input", "value": { "stringValue": PLANTED } },
            { "key": "embedding.embeddings.0.embedding.text", "value": { "stringValue": PLANTED } },
            { "key": "gen_ai.tool.call.arguments", "value": { "stringValue": PLANTED } },
            { "key": "a name that nobody knows", "value": { "arrayValue": { "values": [{ "stringValue": PLANTED }] } } },
        ],
    });
    let spans = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    vec![
        ("/v1/logs", off.clone(), log(200, json!({})).to_string()),
        ("/v1/logs", off.clone(), log(500, json!({})).to_string()),
        ("/v1/logs", vec![], log(200, own.clone()).to_string()),
        ("/v1/logs", vec![], json!([log(429, own.clone())]).to_string()),
        (
            "/v1/logs",
            vec![],
            json!({ "0": { "request": log(200, own)["request"].to_string(), "response": PLANTED } }).to_string(),
        ),
        ("/v1/logs", off.clone(), format!(r#"{{"request":"{PLANTED}"#)),
        ("/v1/ingest", vec![], json!({ "do_not_track": true, "request": message, "response": message }).to_string()),
        (
            "/v1/ingest",
            off.clone(),
            json!({ "response_status_code": 500, "request": message, "response": message }).to_string(),
        ),
        // Refusals show no value of such a record, nor a name that the client made up.
        ("/v1/ingest", vec![], json!({ "do_not_track": true, "cost": PLANTED }).to_string()),
        ("/v1/ingest", vec![], json!({ "do_not_track": 1, PLANTED: 1 }).to_string()),
        ("/v1/ingest", vec![], format!(r#"{{"do_not_track":true,"cost":"{PLANTED}","#)),
        ("/v1/ingest", off.clone(), json!({ "request": { PLANTED: 1 } }).to_string()),
        ("/v1/ingest", off.clone(), PLANTED.to_owned()),
        ("/v1/ingest/litellm", off.clone(), lite.to_string()),
        ("/v1/ingest/litellm", vec![], failed.to_string()),
        ("/v1/ingest?source=litellm", off.clone(), format!("{{\"model\":\"{PLANTED}")),
        ("/v1/ingest/gateway-hook", off.clone(), hooked.to_string()),
        ("/v1/ingest/gateway-hook", vec![], hooked_by_header.to_string()),
        ("/v1/otel/v1/traces", [off, vec![("content-type", "application/json")]].concat(), spans.to_string()),
    ]
}

/// Counts of records and of what they hold, and everything that can be asked for.
async fn asked(process: &Process) -> (String, String) {
    let query = "select count(*) as n, count(request.body) as bodies, count(response.body) as told from logs";
    let counts = process.post("/v1/sql", &[], query.to_owned()).await;
    let all = process.post("/v1/export", &[], "{}".to_owned()).await;
    let metrics = reqwest::Client::new()
        .get(format!("{}/metrics", process.base))
        .header("x-portkey-api-key", KEY);
    (counts, all + &metrics.send().await.unwrap().text().await.unwrap())
}

/// The text is searched in every answer, in the log at its most talkative, in every byte below the
/// folder (the write-ahead log after a kill included), in the Parquet files unpacked, and in all
/// that can be asked for. What is tracked is found the same ways.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_tracked_is_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let mut answers = String::new();
    for (path, headers, body) in untracked() {
        assert!(body.contains(PLANTED));
        answers.push_str(&process.post(path, &headers, body).await);
    }
    let tracked = json!({ "id": "tracked", "request": { "body": "giraffe9fig" } }).to_string();
    answers.push_str(&process.post("/v1/ingest", &[], tracked).await);
    let (counts, all) = asked(&process).await;
    assert!(counts.contains(r#"{"n":13,"bodies":1,"told":0}"#), "{counts}");
    assert!(all.contains("giraffe9fig"));
    answers.push_str(&all);
    drop(process);
    let mut bytes = contents(folder.path());
    let process = Process::start(folder.path());
    let (counts, all) = asked(&process).await;
    assert!(
        counts.contains(r#"{"n":13,"bodies":1,"told":0}"#),
        "what was acked is there after the kill: {counts}"
    );
    answers.push_str(&all);
    process.post("/v1/admin/maintain/compact", &[], String::new()).await;
    drop(process);
    // Opening flushes nothing, closing does.
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    let engine = gatelog::Engine::open(gatelog::Config { data, ..gatelog::Config::default() })
        .await
        .unwrap();
    engine.close().await.unwrap();
    bytes.extend(contents(folder.path()));
    let unpacked = parquet_of(folder.path());
    assert!(unpacked.contains("giraffe9fig"));
    for (place, text) in [("answers", &answers), ("Parquet", &unpacked)] {
        assert!(!text.contains(PLANTED), "{place}: {text}");
    }
    for (path, bytes) in bytes {
        assert!(!holds(&bytes, PLANTED.as_bytes()), "{}", path.display());
    }
}

/// The library's own way in keeps nothing either.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_the_library_are_protected_too() {
    let server = Server::start().await;
    let text = |text: &str| Some(text.to_owned());
    let message = gatelog::record::Message {
        body: text(r#""zebra7plum""#),
        headers: text(r#"{"api-key":"0123456789abcdef"}"#),
    };
    let record = gatelog::Record {
        request: message.clone(),
        response: message,
        ..gatelog::Record::default()
    };
    let untracked = gatelog::Record { do_not_track: Some(true), ..record.clone() };
    server.engine.append(vec![record, untracked]).await.unwrap();
    let query = "select request.body as b, request.headers as h from logs order by do_not_track";
    let answer = server.engine.sql(query, &gatelog::Params::new()).await.unwrap();
    let batches: Vec<_> =
        futures::TryStreamExt::try_collect::<Vec<_>>(answer.batches).await.unwrap();
    let column = |number: usize| -> Vec<Option<String>> {
        let of = |batch: &arrow::array::RecordBatch| -> Vec<Option<String>> {
            let texts =
                arrow::compute::cast(batch.column(number), &arrow::datatypes::DataType::Utf8)
                    .unwrap();
            texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
        };
        batches.iter().flat_map(of).collect()
    };
    assert_eq!(column(0), [None, text(r#""zebra7plum""#)]);
    assert!(column(1).iter().flatten().all(|headers| headers == r#"{"api-key":"01********def"}"#));
    server.end().await;
}
