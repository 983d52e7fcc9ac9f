//! Every route, driven over a real socket: what comes back, and what becomes of it in the engine.

use std::future::Future;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use futures::StreamExt;
use gatelog::config::{Config, Secret};
use gatelog::engine::Engine;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const KEY: &str = "test-admin-key";

/// A server on a free port over an engine in a folder of its own.
struct Server {
    engine: Engine,
    config: Config,
    base: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<gatelog::error::Result<()>>,
    _folder: Arc<tempfile::TempDir>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let data = folder.path().join("data").to_str().unwrap().to_owned();
        let mut config = Config { data, admin_key: Secret(KEY.to_owned()), ..Config::default() };
        change(&mut config);
        let engine = Engine::open(config.clone()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let done = tokio::spawn(gatelog::http::serve(engine.clone(), listener, async {
            let _ = stopped.await;
        }));
        Self { engine, config, base, client: reqwest::Client::new(), stop: Some(stop), done, _folder: folder }
    }

    fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.bare(Method::GET, path).header("x-portkey-api-key", KEY)
    }

    fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.bare(Method::POST, path).header("x-portkey-api-key", KEY).body(body)
    }

    async fn ingest(&self, body: impl Into<reqwest::Body>) -> Value {
        let response = self.post("/v1/ingest", body).send().await.unwrap();
        let status = response.status();
        let receipt: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{receipt}");
        receipt
    }

    /// The rows of a statement.
    async fn sql(&self, query: &str) -> Vec<Value> {
        let response = self.post("/v1/sql", query.to_owned()).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        lines(&text)
    }

    async fn count(&self) -> u64 {
        self.sql("select count(*) as n from logs").await[0]["n"].as_u64().unwrap()
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    async fn end(mut self) {
        self.stop();
        self.done.await.unwrap().unwrap();
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn record(number: u64) -> Value {
    json!({
        "id": format!("id-{number}"),
        "created_at": format!("2026-11-{:02}T10:00:00.000Z", number % 20 + 1),
        "ai_org": "openai",
        "ai_model": if number % 2 == 0 { "gpt-a" } else { "gpt-b" },
        "response_status_code": 200,
        "response_time": number,
        "cost": 0.25,
        "metadata": { "team": "search" },
        "request": { "body": { "model": "gpt-a", "messages": [{ "role": "user", "content": format!("question {number}") }] } },
        "response": { "body": { "choices": [] } },
    })
}

fn ndjson(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{}\n", record(number))).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Checks that a failure has both families of Portkey's envelope and a request id; gives its message.
async fn failure(request: RequestBuilder, status: StatusCode) -> (String, Value) {
    let response = request.send().await.unwrap();
    assert!(!header(&response, "x-portkey-request-id").is_empty());
    assert_eq!(header(&response, "content-type"), "application/json");
    let found = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(found, status, "{body}");
    let message = body["message"].as_str().unwrap().to_owned();
    assert_eq!((&body["status"], &body["success"]), (&json!("failure"), &json!(false)));
    assert_eq!((&body["error"]["message"], &body["data"]["message"]), (&json!(message), &json!(message)));
    assert!(body["error"]["code"].is_string() && body["data"]["errorCode"].as_str().unwrap().starts_with("AB"));
    (message, body)
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const ROUTES: [(Method, &str); 9] = [
    (Method::POST, "/v1/logs"),
    (Method::POST, "/v1/ingest"),
    (Method::GET, "/v1/sql?query=select+1"),
    (Method::POST, "/v1/sql?query=select+1"),
    (Method::GET, "/v1/reports"),
    (Method::GET, "/v1/reports/status"),
    (Method::GET, "/v1/export"),
    (Method::POST, "/v1/export"),
    (Method::GET, "/metrics"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_route_but_health_asks_for_the_key() {
    let server = Server::start().await;
    for (method, path) in ROUTES {
        let (message, _) = failure(server.bare(method.clone(), path), StatusCode::UNAUTHORIZED).await;
        assert!(message.contains("x-portkey-api-key"), "{message}");
        let wrong = server.bare(method.clone(), path).header("x-portkey-api-key", "wr0ng-secret").bearer_auth(KEY);
        let (message, body) = failure(wrong, StatusCode::UNAUTHORIZED).await;
        assert!(!body.to_string().contains("wr0ng-secret"), "{message}");
        assert_eq!(body["data"]["errorCode"], "AB05");

        let known = server.bare(method, path).bearer_auth(KEY).send().await.unwrap();
        assert_eq!(known.status(), StatusCode::OK, "{path}");
        assert!(!header(&known, "x-portkey-request-id").is_empty());
        assert!(!header(&known, "content-type").is_empty());
    }
    failure(server.bare(Method::GET, "/nowhere"), StatusCode::UNAUTHORIZED).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.bare(Method::GET, path).send().await.unwrap().status(), StatusCode::OK);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_routes_and_methods_have_the_envelope() {
    let server = Server::start().await;
    let (message, _) = failure(server.get("/v1/nowhere"), StatusCode::NOT_FOUND).await;
    assert!(message.contains("`/v1/nowhere`") && message.contains("/v1/sql"), "{message}");
    for path in ["/v1/logs", "/v1/ingest"] {
        failure(server.get(path), StatusCode::METHOD_NOT_ALLOWED).await;
    }
    let response = server.bare(Method::DELETE, "/v1/sql").bearer_auth(KEY).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(header(&response, "allow").contains("POST"), "{:?}", response.headers());
    failure(server.bare(Method::POST, "/healthz"), StatusCode::METHOD_NOT_ALLOWED).await;
    let head = server.bare(Method::HEAD, "/v1/reports").bearer_auth(KEY).send().await.unwrap();
    assert_eq!((head.status(), head.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn portkeys_insert_always_answers_ok() {
    let server = Server::start().await;
    let log = |text: &str| {
        json!({
            "request": { "url": "https://api.openai.com/v1/chat/completions", "body": { "model": "gpt-a", "messages": [text] } },
            "response": { "status": 200, "body": { "usage": {} }, "response_time": "0123" },
            "metadata": { "_user": "ann", "traceId": text },
        })
    };
    let one = log("one").to_string();
    let array = json!([log("two"), log("three")]).to_string();
    let numbered = json!({ "0": log("four"), "1": log("five") }).to_string();
    let packed = gzip(log("six").to_string().as_bytes());
    for (body, accepted, rejected) in [
        (Bytes::from(one), "1", "0"),
        (Bytes::from(array), "2", "0"),
        (Bytes::from(numbered), "2", "0"),
        (Bytes::from(packed), "1", "0"),
        (Bytes::new(), "0", "0"),
        (Bytes::from_static(b"{not json"), "0", "1"),
        (Bytes::from_static(&[0x1f, 0x8b, 0, 0]), "0", "1"),
    ] {
        let response = server.post("/v1/logs", body.clone()).header("content-type", "image/png").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{body:?}");
        assert_eq!(header(&response, "content-type"), "text/plain; charset=UTF-8");
        assert_eq!(header(&response, "x-gatelog-accepted"), accepted, "{body:?}");
        assert_eq!(header(&response, "x-gatelog-rejected"), rejected, "{body:?}");
        assert_eq!(response.text().await.unwrap(), "ok");
    }
    let rows = server.sql("select ai_model, response_time, user_id, organisation_id from logs").await;
    assert_eq!(rows.len(), 6);
    assert_eq!(
        rows[0],
        json!({ "ai_model": "gpt-a", "response_time": 123, "user_id": "ann", "organisation_id": "default" })
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_of_the_insert_is_413() {
    let server = Server::start_with(|config| config.max_record_bytes = 64 << 10).await;
    let (message, _) = failure(server.post("/v1/logs", vec![b' '; 3 << 20]), StatusCode::PAYLOAD_TOO_LARGE).await;
    assert!(message.contains("/v1/ingest"), "{message}");
    let bomb = gzip(&vec![b' '; 64 << 20]);
    failure(server.post("/v1/logs", bomb), StatusCode::PAYLOAD_TOO_LARGE).await;
    failure(server.post("/v1/sql", vec![b' '; 3 << 20]), StatusCode::PAYLOAD_TOO_LARGE).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_takes_lines_and_arrays_plain_and_packed() {
    let server = Server::start().await;
    let array = |numbers: std::ops::Range<u64>| Value::from(numbers.map(record).collect::<Vec<_>>()).to_string();
    let taken = |accepted: u64, duplicate: u64| json!({ "accepted": accepted, "duplicate": duplicate, "rejected": 0, "rejections": [] });
    assert_eq!(server.ingest(ndjson(0..10)).await, taken(10, 0));
    assert_eq!(server.ingest(array(5..20)).await, taken(10, 5));
    assert_eq!(server.ingest(gzip(ndjson(20..30).as_bytes())).await, taken(10, 0));
    assert_eq!(server.ingest(zstd(array(30..40).as_bytes())).await, taken(10, 0));
    assert_eq!(server.ingest("").await, taken(0, 0));
    assert_eq!(server.ingest("\n \n").await, taken(0, 0));
    let coded = server.post("/v1/ingest", gzip(ndjson(40..50).as_bytes())).header("content-encoding", "gzip");
    assert_eq!(coded.send().await.unwrap().json::<Value>().await.unwrap(), taken(10, 0));
    assert_eq!(server.count().await, 50);

    let coded = server.post("/v1/ingest", "x").header("content-encoding", "br");
    failure(coded, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    let (message, _) = failure(server.post("/v1/ingest?source=otel", "x"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("native") && message.contains("portkey"), "{message}");
    failure(server.post("/v1/ingest?sauce=native", "x"), StatusCode::BAD_REQUEST).await;

    let portkey = json!({ "request": { "body": { "model": "m" } }, "response": { "body": {} } }).to_string();
    let response = server.post("/v1/ingest?source=portkey", portkey).send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap(), taken(1, 0));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_are_named_and_the_others_kept() {
    let server = Server::start().await;
    let body =
        format!("{}{}\n{}{}\n", ndjson(0..2), json!({ "id": "x", "response_time": "soon" }), ndjson(2..3), "{oops");
    let receipt = server.ingest(body).await;
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(3), &json!(2)));
    let rejections = receipt["rejections"].as_array().unwrap();
    assert_eq!(rejections.len(), 2);
    assert_eq!((&rejections[0]["field"], &rejections[0]["value"]), (&json!("response_time"), &json!("\"soon\"")));
    assert!(rejections[0]["expected"].is_string() && rejections[0]["record"].is_number());
    assert_eq!(rejections[1]["record"].as_u64().unwrap() - rejections[0]["record"].as_u64().unwrap(), 2);

    let bad = "{\"nope\": 1}\n".repeat(250);
    let (message, body) = failure(server.post("/v1/ingest", bad), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("nope"), "{message}");
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(0), &json!(250)));
    assert_eq!(body["rejections"].as_array().unwrap().len(), 100);
    assert_eq!(server.count().await, 3);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_an_error_that_says_what_was_kept() {
    let server = Server::start().await;
    let whole = gzip(ndjson(0..5000).as_bytes());
    let (_, body) =
        failure(server.post("/v1/ingest", whole[..whole.len() / 2].to_vec()), StatusCode::BAD_REQUEST).await;
    let kept = body["accepted"].as_u64().unwrap();
    assert_eq!(server.count().await, kept);
    assert_eq!(server.ingest(whole).await["duplicate"], json!(kept));
    assert_eq!(server.count().await, 5000);

    let array = json!([record(9000), record(9001)]).to_string();
    let receipt = server.ingest(array[..array.len() - 1].to_owned()).await;
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(2), &json!(1)), "{receipt}");
    assert!(receipt["rejections"][0]["expected"].as_str().unwrap().contains("cut off"), "{receipt}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_over_the_limit_is_rejected_alone() {
    let server = Server::start_with(|config| config.max_record_bytes = 64 << 10).await;
    let huge = json!({ "id": "huge", "request": { "body": { "text": "x".repeat(40 << 20) } } }).to_string();
    let receipt = server.ingest(zstd(format!("{}{huge}\n{}", ndjson(0..1), ndjson(1..2)).as_bytes())).await;
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(2), &json!(1)), "{receipt}");
    assert_eq!(receipt["rejections"][0]["record"], json!(1), "{receipt}");
    server.end().await;
}

/// A body of 192 MB comes in pieces while the memory for rows is 16 MiB; the process must not grow with the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_streamed_in_little_memory() {
    const RECORDS: u64 = 1920;
    let server = Server::start_with(|config| {
        config.memtable_bytes = 16 << 20;
        config.flush_bytes = 4 << 20;
        config.append_wait_ms = 60_000;
    })
    .await;
    let text = "x".repeat(100_000);
    let before = resident_bytes();
    let lines = futures::stream::iter(0..RECORDS).map(move |number| {
        let line = json!({ "id": format!("big-{number}"), "request": { "body": { "text": text } } });
        Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n")))
    });
    let mut sending = Box::pin(server.ingest(reqwest::Body::wrap_stream(lines)));
    let mut most = before;
    let receipt = loop {
        tokio::select! {
            receipt = &mut sending => break receipt,
            () = tokio::time::sleep(Duration::from_millis(5)) => most = most.max(resident_bytes()),
        }
    };
    drop(sending);
    assert_eq!(receipt["accepted"], json!(RECORDS));
    assert_eq!(server.count().await, RECORDS);
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 150, "the process grew by {grown} MiB");
    server.end().await;
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_engine_answers_429_and_what_it_kept() {
    let server = Server::start_with(|config| {
        config.memtable_bytes = 1 << 20;
        config.flush_bytes = 1 << 20;
        config.flush_seconds = 3_600;
        config.append_wait_ms = 0;
    })
    .await;
    let big = |number: u64| {
        format!("{}\n", json!({ "id": format!("b-{number}"), "request": { "body": "x".repeat(100_000) } }))
    };
    let body: String = (0..400).map(big).collect();
    let response = server.post("/v1/ingest", body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(header(&response, "retry-after").parse::<u64>().unwrap() >= 1);
    let receipt: Value = response.json().await.unwrap();
    assert!(receipt["message"].as_str().unwrap().contains("id"), "{receipt}");
    assert_eq!(server.count().await, receipt["accepted"].as_u64().unwrap());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_in_every_format() {
    let server = Server::start().await;
    server.ingest(ndjson(0..40)).await;
    let query = "select id, response_time as ms, metadata, request from logs order by response_time limit 3";
    let ask = |format: &'static str| {
        let body = json!({ "query": query, "format": format }).to_string();
        server.post("/v1/sql", body).header("content-type", "application/json").send()
    };

    let jsonl = ask("jsonl").await.unwrap();
    assert_eq!(header(&jsonl, "content-type"), "application/x-ndjson");
    let rows = lines(&jsonl.text().await.unwrap());
    assert_eq!((rows.len(), &rows[1]["id"], &rows[1]["metadata"]), (3, &json!("id-1"), &json!({ "team": "search" })));
    assert!(rows[1]["request"]["body"].as_str().unwrap().contains("question 1"));

    let array = ask("json").await.unwrap();
    assert_eq!(header(&array, "content-type"), "application/json");
    assert_eq!(array.json::<Vec<Value>>().await.unwrap(), rows);

    let csv = ask("csv").await.unwrap();
    assert_eq!(header(&csv, "content-type"), "text/csv; charset=utf-8");
    let csv = csv.text().await.unwrap();
    assert!(csv.starts_with("id,ms,metadata,request\nid-0,0,\"{\"\"team\"\":\"\"search\"\"}\","), "{csv}");
    assert_eq!(csv.lines().count(), 4);

    let stream = ask("arrow").await.unwrap();
    assert_eq!(header(&stream, "content-type"), "application/vnd.apache.arrow.stream");
    let stream = stream.bytes().await.unwrap();
    let parquet = ask("parquet").await.unwrap();
    assert_eq!(header(&parquet, "content-type"), "application/vnd.apache.parquet");
    let mut parquet =
        ParquetRecordBatchReaderBuilder::try_new(parquet.bytes().await.unwrap()).unwrap().build().unwrap();
    for batch in [StreamReader::try_new(&stream[..], None).unwrap().next().unwrap(), parquet.next().unwrap()] {
        let batch = batch.unwrap();
        assert_eq!(batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["id-0", "id-1", "id-2"]);
        assert_eq!(batch.column(1).as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_is_asked_for_by_name_or_accept() {
    let server = Server::start().await;
    let sql = "/v1/sql?query=select+1+as+a";
    let by_accept = server.get(sql).header("accept", "text/html, text/csv;q=0.9").send().await.unwrap();
    assert_eq!(by_accept.text().await.unwrap(), "a\n1\n");
    let named = server.get(&format!("{sql}&format=json")).header("accept", "text/csv").send().await.unwrap();
    assert_eq!(named.text().await.unwrap(), "[{\"a\":1}]");
    let (message, _) = failure(server.get(&format!("{sql}&format=xml")), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("jsonl, json, csv, arrow, parquet"), "{message}");
    failure(server.get(sql).header("accept", "image/png"), StatusCode::NOT_ACCEPTABLE).await;
    let none = server.get("/v1/sql?query=select+1+as+a+where+false&format=json").send().await.unwrap();
    assert_eq!(none.text().await.unwrap(), "[]");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_takes_parameters_and_fails_with_words() {
    let server = Server::start().await;
    server.ingest(ndjson(0..10)).await;
    let by_name = "/v1/sql?query=select+id+from+logs+where+response_time+%3D+%24ms+and+ai_model+%3D+%24model\
                   &param.ms=4&param.model=gpt-a";
    let response = server.get(by_name).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "{\"id\":\"id-4\"}\n");
    let body = json!({ "query": "select id from logs where response_time = $1", "params": [5] }).to_string();
    let by_place = server.post("/v1/sql", body).header("content-type", "application/json").send().await.unwrap();
    assert_eq!(by_place.text().await.unwrap(), "{\"id\":\"id-5\"}\n");

    for query in ["select nope from logs", "selec 1", "drop table logs", "insert into logs values (1)", " "] {
        failure(server.post("/v1/sql", query), StatusCode::BAD_REQUEST).await;
    }
    failure(server.get("/v1/sql"), StatusCode::BAD_REQUEST).await;
    failure(server.get("/v1/sql?sql=select+1"), StatusCode::BAD_REQUEST).await;
    assert_eq!(server.count().await, 10);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fails_on_its_way_breaks_the_connection() {
    let server = Server::start_with(|config| config.query_max_rows = 300_000).await;
    let query = "select value, repeat('x', 100) as text from generate_series(1, 1000000)";
    let response = server.post("/v1/sql", query).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err(), "a broken answer looked whole");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_refused_where_answers_are_streamed() {
    let server = Server::start().await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /v1/export HTTP/1.0\r\nx-portkey-api-key: {KEY}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.contains(" 505 ") && answer.contains("proxy_http_version"), "{answer}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_listed_and_run() {
    let server = Server::start().await;
    server.ingest(ndjson(0..10)).await;
    let list: Value = server.get("/v1/reports").send().await.unwrap().json().await.unwrap();
    let reports = list["data"].as_array().unwrap();
    assert_eq!(list["total"].as_u64().unwrap() as usize, reports.len());
    for report in reports {
        assert!(report["purpose"].is_string() && report["params"].is_array());
        let name = report["name"].as_str().unwrap();
        let response = server.get(&format!("/v1/reports/{name}?format=csv")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        let names: Vec<&str> =
            report["columns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(response.text().await.unwrap().lines().next().unwrap(), names.join(","), "{name}");
    }
    let (message, _) = failure(server.get("/v1/reports/nope"), StatusCode::NOT_FOUND).await;
    assert!(message.contains("status"), "{message}");
    failure(server.get("/v1/reports/status?nope=1"), StatusCode::BAD_REQUEST).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_json_lines_of_the_columns_named() {
    let server = Server::start().await;
    server.ingest(ndjson(0..40)).await;
    let path = "/v1/export?from=2026-11-03&to=2026-11-05&columns=created_at,id,request.body";
    let response = server.get(path).send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    assert!(header(&response, "content-disposition").contains("gatelog-export.jsonl"));
    let rows = lines(&response.text().await.unwrap());
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(row.as_object().unwrap().len(), 3, "{row}");
        assert!(row["created_at"].as_str().unwrap().starts_with("2026-11-0"));
    }
    assert!(
        rows[0].to_string().contains(r#"{"content":"#) || rows[0].to_string().contains(r#""messages":[{"#),
        "{}",
        rows[0]
    );

    let body = json!({ "from": "2026-11-03", "to": "2026-11-05", "columns": ["created_at", "id", "request.body"] });
    let posted = server.post("/v1/export", body.to_string()).send().await.unwrap();
    assert_eq!(lines(&posted.text().await.unwrap()), rows);

    let first = server.get(&format!("{path}&limit=1")).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&first), rows[..1]);
    let cursor = format!("{},{}", rows[0]["created_at"].as_str().unwrap(), rows[0]["id"].as_str().unwrap());
    let rest = server.get(path).query(&[("after", cursor)]).send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&rest), rows[1..]);

    let everything = server.post("/v1/export", "").send().await.unwrap().text().await.unwrap();
    assert_eq!(lines(&everything).len(), 40);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_refuses_other_formats_and_unknown_names() {
    let server = Server::start().await;
    let (message, _) = failure(server.get("/v1/export?format=csv"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("`csv`") && message.contains("jsonl"), "{message}");
    failure(server.get("/v1/export").header("accept", "text/csv"), StatusCode::NOT_ACCEPTABLE).await;
    let (message, _) = failure(server.get("/v1/export?columns=id,colour"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("`colour`"), "{message}");
    for path in ["/v1/export?colums=id", "/v1/export?limit=many", "/v1/export?from=yesterday", "/v1/export?after=x"] {
        failure(server.get(path), StatusCode::BAD_REQUEST).await;
    }
    failure(server.post("/v1/export", "{\"colums\": []}"), StatusCode::BAD_REQUEST).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_given_up_lets_go_of_its_query() {
    let server = Server::start().await;
    let query = "select a.value, repeat('x', 1000) as text from generate_series(1, 900000) a";
    let mut response = server.post("/v1/sql", query).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(server.engine.status().queries_running, 1);
    drop(response);
    eventually("the query ends", || async { server.engine.status().queries_running == 0 }).await;

    let slow = "select count(*) from generate_series(1, 10000000) a cross join generate_series(1, 100000) b";
    let waiting = tokio::time::timeout(Duration::from_millis(500), server.post("/v1/sql", slow).send());
    assert!(waiting.await.is_err());
    eventually("the query without an answer ends", || async { server.engine.status().queries_running == 0 }).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests_by_route() {
    let server = Server::start().await;
    server.ingest(ndjson(0..3)).await;
    server.ingest("{oops\n".to_owned() + &ndjson(3..4)).await;
    failure(server.get("/v1/reports/nope"), StatusCode::NOT_FOUND).await;
    let wanted = [
        "gatelog_http_requests_total{route=\"/v1/ingest\",status=\"2xx\"} 2",
        "gatelog_http_requests_total{route=\"/v1/reports/{name}\",status=\"4xx\"} 1",
        "gatelog_http_request_seconds_count{route=\"/v1/ingest\"} 2",
        "gatelog_records_accepted_total 4",
        "gatelog_records_rejected_total 1",
        "gatelog_writable 1",
        "gatelog_process_resident_bytes ",
    ];
    eventually("the metrics say so", || async {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        wanted.iter().all(|line| text.contains(line))
    })
    .await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_answers_what_is_held_and_keeps_it() {
    let mut server = Server::start().await;
    let (pieces, coming) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(futures::stream::unfold(coming, |mut coming| async move {
        coming.recv().await.map(|piece| (piece, coming))
    }));
    let request = tokio::spawn(server.post("/v1/ingest", body).send());
    pieces.send(Ok(Bytes::from(ndjson(0..5)))).await.unwrap();
    eventually("the request runs", || async {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        text.contains("gatelog_http_requests_running 2")
    })
    .await;

    server.stop();
    eventually("the server stops taking connections", || async {
        let address = server.base.trim_start_matches("http://").to_owned();
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    pieces.send(Ok(Bytes::from(ndjson(5..10)))).await.unwrap();
    drop(pieces);
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.json::<Value>().await.unwrap()["accepted"], json!(10));
    server.done.await.unwrap().unwrap();
    drop(server.engine);

    let engine = Engine::open(server.config).await.unwrap();
    let status = engine.status();
    assert_eq!(status.file_rows + status.memory_rows, 10);
    engine.close().await.unwrap();
}

/// The router answers without a socket, for programs that bring their own server.
#[tokio::test(flavor = "multi_thread")]
async fn the_router_works_without_a_socket() {
    use tower::ServiceExt;

    let server = Server::start().await;
    let request = axum::http::Request::get("/healthz").body(axum::body::Body::empty()).unwrap();
    let response = gatelog::http::router(server.engine.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), axum::http::StatusCode::OK);
    server.end().await;
}
