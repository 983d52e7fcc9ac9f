//! Every route, driven over a real socket: what comes back, and what becomes of it in the engine.

mod analytics;
mod answers;
mod clients;
mod exports;
mod feedback;
mod filters;
mod former_version;
mod limits;
mod control_plane;
mod otlp;
mod log_objects;
mod openapi;
mod records;
mod replay;

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatelog::config::{Config, Secret};
use gatelog::engine::Engine;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const KEY: &str = "test-admin-key";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A server on a free port over an engine in a folder of its own.
struct Server {
    engine: Engine,
    config: Config,
    base: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<gatelog::error::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").to_str().unwrap().to_owned();
        let mut config = Config { data, admin_key: Secret(KEY.to_owned()), ..Config::default() };
        change(&mut config);
        let engine = Engine::open(config.clone()).await.unwrap();
        Self::over(engine, config, folder).await
    }

    /// Starts a server over an engine that is open in a folder.
    async fn over(engine: Engine, config: Config, folder: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let done = tokio::spawn(gatelog::http::serve(engine.clone(), listener, async {
            let _ = stopped.await;
        }));
        Self {
            engine,
            config,
            base,
            client: reqwest::Client::new(),
            stop: Some(stop),
            done,
            _folder: folder,
        }
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
        "ai_model": if number.is_multiple_of(2) { "gpt-a" } else { "gpt-b" },
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

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Checks that a failure has both families of Portkey's envelope and a request id; gives its
/// message.
async fn failure(request: RequestBuilder, status: StatusCode) -> (String, Value) {
    let response = request.send().await.unwrap();
    assert!(!header(&response, "x-portkey-request-id").is_empty());
    assert_eq!(header(&response, "content-type"), "application/json");
    let found = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(found, status, "{body}");
    let message = body["message"].as_str().unwrap().to_owned();
    crate::said::once(&message);
    assert_eq!((&body["status"], &body["success"]), (&json!("failure"), &json!(false)));
    assert_eq!(
        (&body["error"]["message"], &body["data"]["message"]),
        (&json!(message), &json!(message))
    );
    assert!(
        body["error"]["code"].is_string()
            && body["data"]["errorCode"].as_str().unwrap().starts_with("AB")
    );
    (message, body)
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(90);
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
        let (message, _) =
            failure(server.bare(method.clone(), path), StatusCode::UNAUTHORIZED).await;
        assert!(message.contains("x-portkey-api-key"), "{message}");
        let wrong = server
            .bare(method.clone(), path)
            .header("x-portkey-api-key", "wr0ng-secret")
            .bearer_auth(KEY);
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
    assert!(message.contains("`/v1/nowhere`") && message.contains("/openapi.json"), "{message}");
    failure(server.get("/v1/ingest"), StatusCode::METHOD_NOT_ALLOWED).await;
    let response = server.bare(Method::DELETE, "/v1/sql").bearer_auth(KEY).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(header(&response, "allow").contains("POST"), "{:?}", response.headers());
    failure(server.bare(Method::POST, "/healthz"), StatusCode::METHOD_NOT_ALLOWED).await;
    let head = server.bare(Method::HEAD, "/v1/reports").bearer_auth(KEY).send().await.unwrap();
    assert_eq!((head.status(), head.bytes().await.unwrap().len()), (StatusCode::OK, 0));
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
    let body =
        reqwest::Body::wrap_stream(futures::stream::unfold(coming, |mut coming| async move {
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
