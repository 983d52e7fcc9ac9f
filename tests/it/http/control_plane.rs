//! A gateway 2.0 with gatelog as its control plane: what it reports, replayed in every order, and
//! what it asks for.

use std::path::Path;

use gatelog::Record;
use gatelog::config::Config;
use gatelog::engine::{Document, Engine, NewKey, Organisation, Scope};
use gatelog::logs::Status;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Server, failure, gzip};
use crate::files::containing;

/// The organisation of the recorded calls.
const ORGANISATION: &str = "11111111-1111-4111-8111-111111111111";
const LOGS: &str = "/v1/logs/enterprise/logs";
const ROWS: &str = "/v1/analytics/enterprise/analytics";

/// One request of the gateway.
#[derive(Clone)]
struct Sent {
    method: Method,
    path: String,
    body: String,
}

impl Sent {
    fn is_log(&self) -> bool {
        self.path.starts_with(LOGS)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What gateways sent to their control plane: the invented calls of the repository, and where
/// `GATELOG_TEST_CAPTURES` names a folder, what was recorded there of a real one of branch 2.0.0.
fn reports() -> Vec<Vec<Sent>> {
    let mut texts = vec![include_str!("../../data/control_plane_requests.jsonl").to_owned()];
    if let Some(folder) = std::env::var_os("GATELOG_TEST_CAPTURES") {
        let file = Path::new(&folder).join("gateway_2.0_control_plane_requests.jsonl");
        texts.push(std::fs::read_to_string(file).unwrap());
    }
    let sent = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        Sent { method: text("method").parse().unwrap(), path: text("path"), body: text("body") }
    };
    texts.iter().map(|text| text.lines().map(sent).collect()).collect()
}

/// Keys: `gateway` writes for everybody, `caller` makes calls for the organisation, `viewer` does
/// not.
fn fill(document: &mut Document) -> gatelog::error::Result<()> {
    let now = chrono::Utc::now();
    for (id, name) in [(ORGANISATION, "Acme"), ("zen", "Zen")] {
        let organisation = Organisation {
            workspaces: ["ws-main-1".to_owned()].into(),
            name: Some(name.to_owned()),
            ..Organisation::new("enterprise", now)
        };
        document.create_organisation(id, organisation, 0)?;
    }
    let key =
        |scopes: &[Scope]| NewKey { scopes: scopes.iter().copied().collect(), ..NewKey::default() };
    let acme =
        |scopes: &[Scope]| NewKey { organisation: Some(ORGANISATION.to_owned()), ..key(scopes) };
    document.add_key(
        "gateway",
        NewKey { name: Some("the gateway".to_owned()), ..key(&[Scope::Write]) },
        now,
    )?;
    let caller =
        NewKey { workspace: Some("ws-main-1".to_owned()), ..acme(&[Scope::Write, Scope::View]) };
    document.add_key("caller", caller, now)?;
    document.add_key("viewer", acme(&[Scope::View]), now)?;
    document.add_key(
        "zen",
        NewKey { organisation: Some("zen".to_owned()), ..key(&[Scope::Write]) },
        now,
    )?;
    Ok(())
}

async fn bed() -> Server {
    bed_with(|_| {}).await
}

async fn bed_with(change: impl FnOnce(&mut Config)) -> Server {
    let server = Server::start_with(change).await;
    server.engine.catalog().change(fill).await.unwrap();
    server.engine.catalog_changed();
    server
}

/// A request as the gateway makes it: its own key bare.
fn as_gateway(server: &Server, method: Method, path: &str, body: &str) -> RequestBuilder {
    let request = server
        .bare(method, path)
        .header("authorization", "gateway")
        .header("content-type", "application/json");
    request.body(body.to_owned())
}

/// Sends the recorded requests. A request for something that does not exist gets a refusal that the
/// gateway understands.
async fn replay(server: &Server, requests: &[Sent]) {
    for Sent { method, path, body } in requests {
        let mut request = as_gateway(server, method.clone(), path, body);
        if path.starts_with("/v2/api-keys") {
            request = request.header("x-portkey-api-key", "caller");
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        // Only the export that it passed on does not exist.
        let known = !path.starts_with("/v1/logs/exports");
        assert!(
            if known { status == StatusCode::OK } else { status.is_client_error() },
            "{path}: {status} {text}"
        );
        assert!(
            serde_json::from_str::<Value>(&text).unwrap()["rejected"].as_u64().unwrap_or(0) == 0,
            "{path}: {text}"
        );
    }
}

/// The labels of the recorded calls, by their trace: cache, retry, fallback, load balancing.
fn labels(trace: &str) -> [&'static str; 4] {
    let plain =
        ["Cache Disabled", "Retry Not Triggered", "Fallback Disabled", "Loadbalancer Disabled"];
    let [cache, retry, fallback, balance] = plain;
    match trace {
        "t-retry" => [cache, "Retry Success on 1 Tries", fallback, balance],
        "t-retryx" => [cache, "Retry Failed", fallback, balance],
        "t-fb" => [cache, retry, "Fallback Active", balance],
        "t-lb" => [cache, retry, fallback, "Loadbalancer Active"],
        "t-cache1" => ["Cache Miss", retry, fallback, balance],
        "t-cache2" => ["Cache Hit", retry, fallback, balance],
        "t-cacher" => ["Cache Refreshed", retry, fallback, balance],
        _ => plain,
    }
}

/// A number as the gateway meant it: it writes some as texts.
fn number(raw: &RawValue) -> f64 {
    raw.get().trim_matches('"').parse().unwrap()
}

/// A row of figures. Its numbers are read as they were written: a [`Value`] rounds them.
#[derive(Deserialize)]
struct Row<'a> {
    id: String,
    trace_id: String,
    span_id: String,
    workspace_slug: String,
    internal_trace_id: String,
    api_key_id: String,
    created_at: String,
    extra_value: String,
    response_status_code: i32,
    #[serde(borrow)]
    req_units: &'a RawValue,
    #[serde(borrow)]
    res_units: &'a RawValue,
    #[serde(borrow)]
    total_units: &'a RawValue,
    #[serde(borrow)]
    cost: &'a RawValue,
}

#[derive(Deserialize)]
struct Rows<'a> {
    #[serde(borrow)]
    data: Vec<Row<'a>>,
}

/// Checks that each recorded call is one row that says what both of its halves said.
async fn check(server: &Server, requests: &[Sent], bodies: bool) {
    let batches =
        requests.iter().filter(|sent| sent.path == ROWS && sent.body.contains("\"generations\""));
    let rows: Vec<Row<'_>> = batches
        .flat_map(|sent| serde_json::from_str::<Rows<'_>>(&sent.body).unwrap().data)
        .collect();
    let objects: Vec<Value> = requests
        .iter()
        .filter(|sent| sent.is_log())
        .map(|sent| sent.json()["logObject"].clone())
        .collect();
    let stored = server.get("/v1/export").send().await.unwrap().text().await.unwrap();
    let stored: Vec<Record> =
        stored.lines().map(|line| gatelog::record::json::parse(line).unwrap()).collect();
    assert!(rows.len() >= 15, "{} calls", rows.len());
    assert_eq!((objects.len(), stored.len()), (rows.len(), rows.len()), "one row for each call");
    for row in rows {
        let id = row.id.as_str();
        let record = stored.iter().find(|record| record.id.as_deref() == Some(id)).unwrap();
        let Status { cache, retry, fallback, loadbalance } = Status::from_record(record);
        assert_eq!([cache, &retry, fallback, loadbalance], labels(&row.trace_id), "{id}");
        let tokens = [record.req_units, record.res_units, record.total_units]
            .map(|count| count.unwrap() as f64);
        assert_eq!(tokens, [row.req_units, row.res_units, row.total_units].map(number), "{id}");
        assert_eq!(record.cost, Some(number(row.cost)), "{id}: to the last digit");
        assert_eq!(record.response_status_code, Some(row.response_status_code), "{id}");
        let at = record.created_at.unwrap().format("%Y-%m-%d %H:%M:%S%.3f").to_string();
        let texts = [
            &record.trace_id,
            &record.span_id,
            &record.workspace_slug,
            &record.internal_trace_id,
            &record.api_key_id,
        ];
        let texts = texts.map(|text| text.clone().unwrap());
        assert_eq!(
            texts,
            [row.trace_id, row.span_id, row.workspace_slug, row.internal_trace_id, row.api_key_id],
            "{id}"
        );
        assert_eq!(
            (at, record.organisation_id.as_deref()),
            (row.created_at, Some(ORGANISATION)),
            "{id}"
        );
        let untracked = row.extra_value == "false";
        assert_eq!(record.do_not_track, Some(untracked), "{id}");

        let object = objects.iter().find(|object| object["_id"] == id).unwrap();
        let said = |side: &str| object[side]["body"].clone();
        let said = ["request", "response"]
            .map(|side| if bodies && !untracked { said(side) } else { Value::Null });
        let body = |text: &Option<String>| {
            text.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
        };
        assert_eq!([body(&record.request.body), body(&record.response.body)], said, "{id}");
        if bodies && !untracked {
            assert!(record.request.headers.as_ref().unwrap().contains("pk********est"), "{id}");
        }
        let path = object["response"]["lastUsedOptionJsonPath"]
            .as_str()
            .filter(|path| bodies && !path.is_empty());
        assert_eq!(record.last_used_option.as_deref(), path, "{id}");
    }
}

/// Ends the server and its engine and starts both again over the same folder.
pub(super) async fn restarted(server: Server) -> Server {
    let Server { config, _folder, mut stop, done, engine, client, .. } = server;
    if let Some(stop) = stop.take() {
        let _ = stop.send(());
    }
    done.await.unwrap().unwrap();
    drop(engine);
    serve(config, client, _folder).await
}

async fn serve(config: Config, client: reqwest::Client, folder: tempfile::TempDir) -> Server {
    let engine = Engine::open(config.clone()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let done = tokio::spawn(gatelog::http::serve(engine.clone(), listener, async {
        let _ = stopped.await;
    }));
    Server { engine, config, base, client, stop: Some(stop), done, _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_one_row_each_in_the_order_they_came_and_backwards() {
    for requests in reports() {
        let backwards: Vec<Sent> = requests.iter().rev().cloned().collect();
        for order in [&requests, &backwards] {
            let server = bed().await;
            replay(&server, order).await;
            check(&server, &requests, true).await;
            server.engine.flush().await.unwrap();
            check(&server, &requests, true).await;
            let said = server
                .sql("select trace_id, value, weight, source, metadata from feedback order by value, trace_id, id")
                .await;
            assert_eq!(said.len(), 3);
            assert_eq!((&said[0]["value"], &said[0]["trace_id"]), (&json!(-10.0), &json!("t-fb")));
            server.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_sent_twice_are_stored_once() {
    for requests in reports() {
        let server = bed().await;
        let twice: Vec<Sent> =
            requests.iter().flat_map(|sent| [sent.clone(), sent.clone()]).collect();
        replay(&server, &twice).await;
        check(&server, &requests, true).await;
        // And once more when all of it is in files.
        server.engine.flush().await.unwrap();
        replay(&server, &requests).await;
        check(&server, &requests, true).await;
        assert_eq!(server.sql("select id from feedback").await.len(), 3);
        server.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_meet_across_a_restart() {
    for requests in reports() {
        let (logs, rows): (Vec<Sent>, Vec<Sent>) = requests.iter().cloned().partition(Sent::is_log);
        for (first, second) in [(&logs, &rows), (&rows, &logs)] {
            let server = bed().await;
            replay(&server, first).await;
            // A half alone is seen as the record that it is so far: both halves have the figures.
            check(&server, &requests, first[0].is_log()).await;
            let server = restarted(server).await;
            replay(&server, second).await;
            check(&server, &requests, true).await;
            let server = restarted(server).await;
            check(&server, &requests, true).await;
            server.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_was_changed_is_one_feedback() {
    let server = bed().await;
    let state = |id: &str, second: u32, value: i32| {
        let at = format!("2026-11-21 10:00:{second:02}");
        json!({ "id": id, "trace_id": "t", "organisation_id": ORGANISATION, "value": value, "weight": 1, "created_at": at })
    };
    let send = async |rows: Value| {
        let body = json!({ "table": "feedbacks", "data": rows }).to_string();
        let receipt: Value = as_gateway(&server, Method::POST, ROWS, &body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        (receipt["accepted"].as_u64().unwrap(), receipt["duplicate"].as_u64().unwrap())
    };
    let holds = async |value: f64, mean: f64| {
        let first = json!("2026-11-21T10:00:01Z");
        let found = server.sql("select value, created_at from feedback where id = 'f'").await;
        assert_eq!(found, [json!({ "value": value, "created_at": first })]);
        let found =
            server.sql("select sum(value * weight) / sum(weight) as mean from feedback").await;
        assert_eq!(found, [json!({ "mean": mean })]);
    };
    assert_eq!(send(json!([state("f", 1, 2), state("g", 1, 8)])).await, (2, 0));
    holds(2.0, 5.0).await;
    assert_eq!(send(json!([state("f", 5, 4)])).await, (1, 0));
    holds(4.0, 6.0).await;
    // What came already changes nothing, though it be as old as the first state, also when all of
    // it is in files.
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
        }
        assert_eq!(send(json!([state("f", 5, 4), state("f", 1, 2)])).await, (0, 2));
        holds(4.0, 6.0).await;
    }
    assert_eq!(send(json!([state("f", 7, 0), state("f", 9, 6)])).await, (2, 0));
    holds(6.0, 7.0).await;
    // Both states within one batch, the later one first.
    assert_eq!(send(json!([state("h", 3, 7), state("h", 2, -9)])).await, (2, 0));
    holds(6.0, 7.0).await;
    server.end().await;
}

fn call(id: &str, organisation: &str) -> Value {
    json!({ "logObject": {
        "_id": id, "organisation_id": organisation, "created_at": "2026-11-21 10:00:00.000",
        "request": { "url": "https://host/v1/chat/completions", "method": "POST", "body": { "model": "m" } },
        "response": { "status": 200, "body": {} },
        "metrics": { "id": id, "organisation_id": organisation, "created_at": "2026-11-21 10:00:00.000", "cost": 0.5 },
    }, "logOptions": { "organisationId": organisation } })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_private_of_a_report_is_kept() {
    let server = bed().await;
    let key = "sk-planted-0123456789";
    let mut tracked = call("tracked", ORGANISATION);
    tracked["logObject"]["request"]["headers"] =
        json!({ "authorization": format!("Bearer {key}") });
    tracked["logObject"]["request"]["portkeyHeaders"] = json!({
        "x-portkey-api-key": key, "x-portkey-config": json!({ "targets": [{ "api_key": key }] }).to_string(),
    });
    tracked["logObject"]["transformedRequest"] =
        json!({ "headers": { "api-key": key }, "body": {} });
    let mut untracked = call("untracked", ORGANISATION);
    let metrics = &mut untracked["logObject"]["metrics"];
    (metrics["extra_key"], metrics["extra_value"]) =
        (json!("is_raw_logging_enabled"), json!("false"));
    for (side, status) in [("request", 200), ("response", 500)] {
        untracked["logObject"][side]["body"] = json!({ "text": "planted-text" });
        untracked["logObject"]["response"]["status"] = json!(status);
    }
    let guardrail = json!({ "logObject": {
        "_id": "h", "hook_id": "pg-1", "organisation_id": ORGANISATION, "created_at": "2026-11-21 10:00:00.000",
        "checks": [{ "id": "default.contains", "data": "planted-text" }],
    } });
    for (body, accepted) in [(&tracked, 1), (&untracked, 1), (&guardrail, 0)] {
        let answer =
            as_gateway(&server, Method::POST, LOGS, &body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let receipt: Value = answer.json().await.unwrap();
        assert_eq!(receipt["accepted"], accepted, "{receipt}");
        assert_eq!(
            receipt["message"].is_string(),
            accepted == 0,
            "what is not kept is said: {receipt}"
        );
    }
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
        }
        let logs = server
            .sql(
                "select id, request.body as said, request.headers as headers from logs order by id",
            )
            .await;
        assert_eq!(logs.len(), 2);
        assert!(logs[0]["headers"].as_str().unwrap().contains("sk********789"), "{logs:?}");
        assert_eq!((&logs[1]["said"], &logs[1]["headers"]), (&Value::Null, &Value::Null));
        for planted in ["planted-0123", "planted-text"] {
            assert_eq!(
                containing(Path::new(&server.config.data), planted.as_bytes()),
                [""; 0],
                "{planted}"
            );
            assert!(!json!(logs).to_string().contains(planted), "{planted}");
        }
    }
    server.end().await;
}

/// Whether any file below a folder holds those bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_about_without_the_key() {
    let server = bed().await;
    let details = "/v2/api-keys/self/details?include_organisation=true&include_workspace=true";
    let ask = |key: &str| {
        as_gateway(&server, Method::GET, details, "").header("x-portkey-api-key", key.to_owned())
    };
    let answer = ask("caller").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let told: Value = answer.json().await.unwrap();
    let of = |part: &str, name: &str| told["data"][part][name].clone();
    assert_eq!(of("organisation_details", "organisation_id"), ORGANISATION);
    assert_eq!(of("organisation_details", "name"), "Acme");
    assert_eq!(
        (of("workspace_details", "id"), of("workspace_details", "slug")),
        (json!("ws-main-1"), json!("ws-main-1"))
    );
    let scopes = of("api_key_details", "scopes");
    for scope in ["completions.write", "logs.write", "logs.view"] {
        assert!(scopes.as_array().unwrap().contains(&json!(scope)), "{scopes}");
    }
    assert!(!scopes.as_array().unwrap().contains(&json!("logs.read")), "{scopes}");
    assert!(of("api_key_details", "id").is_string());
    let text = told.to_string();
    assert!(
        !text.contains("caller") && !text.contains("gateway") && !text.contains("sha256"),
        "{text}"
    );
    // Without a caller's key the gateway is told about its own, which is bound to nothing.
    let own: Value =
        as_gateway(&server, Method::GET, details, "").send().await.unwrap().json().await.unwrap();
    assert_eq!(own["data"]["organisation_details"]["organisation_id"], "default");
    assert_eq!(own["data"]["workspace_details"]["slug"], "");
    let (_, refused) = failure(ask("wrong-key"), StatusCode::UNAUTHORIZED).await;
    assert_eq!(refused["error"]["code"], "03");
    failure(ask("viewer"), StatusCode::FORBIDDEN).await;
    // What gatelog has not is not there; it breaks nothing.
    for path in [
        "/v2/configs/pc-1",
        "/v2/virtual-keys/vk?organisation_id=o&workspace_id=w",
        "/v2/prompts/pp-1",
    ] {
        failure(
            ask("caller").try_clone().map(|_| as_gateway(&server, Method::GET, path, "")).unwrap(),
            StatusCode::NOT_FOUND,
        )
        .await;
    }
    let resync =
        as_gateway(&server, Method::POST, &format!("/v1/organisation/{ORGANISATION}/resync"), "{}");
    failure(resync, StatusCode::NOT_FOUND).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_of_organisations_that_the_gateways_key_reaches() {
    let server = bed().await;
    let report = |key: &str, path: &str, body: &Value| {
        server
            .bare(Method::POST, path)
            .header("authorization", key.to_owned())
            .body(body.to_string())
    };
    let row = |id: &str, organisation: &str| json!({ "id": id, "organisation_id": organisation, "cost": 1 });
    let rows = |rows: Value| json!({ "table": "generations", "data": rows });
    let (message, _) =
        failure(report("zen", LOGS, &call("a", ORGANISATION)), StatusCode::FORBIDDEN).await;
    assert!(message.contains("organisation_id"), "{message}");
    // Nothing of a batch is taken.
    let mixed = rows(json!([row("b", "zen"), row("c", ORGANISATION)]));
    failure(report("zen", ROWS, &mixed), StatusCode::FORBIDDEN).await;
    let feedback = json!({ "table": "feedbacks", "data": [{ "id": "f", "trace_id": "t", "value": 1, "organisation_id": ORGANISATION }] });
    failure(report("zen", "/dp/metrics", &feedback), StatusCode::FORBIDDEN).await;
    failure(report("viewer", LOGS, &call("a", ORGANISATION)), StatusCode::FORBIDDEN).await;
    assert_eq!(server.count().await, 0);
    for key in ["zen", "Bearer zen"] {
        let sent =
            report(key, "/dp/metrics", &rows(json!([row("d", "zen")]))).send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::OK);
    }
    // The gateway's own key counts where its caller's comes along.
    let both =
        report("gateway", LOGS, &call("e", ORGANISATION)).header("x-portkey-api-key", "viewer");
    assert_eq!(both.send().await.unwrap().status(), StatusCode::OK);
    let found = server.sql("select id, organisation_id from logs order by id").await;
    assert_eq!(
        found,
        [
            json!({ "id": "d", "organisation_id": "zen" }),
            json!({ "id": "e", "organisation_id": ORGANISATION })
        ]
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_may_come_packed() {
    let server = bed_with(|config| config.max_record_bytes = 1 << 20).await;
    let post = |path: &str, body: Vec<u8>, coding: &str| {
        as_gateway(&server, Method::POST, path, "").header("content-encoding", coding).body(body)
    };
    let rows = |id: &str| {
        json!({ "table": "generations", "data": [{ "id": id, "organisation_id": "zen" }] })
            .to_string()
    };
    // One is parsed where it is, the other on a thread.
    let big = rows("b").replace('[', &format!("[{}", " ".repeat(300 << 10)));
    for (path, text) in [(LOGS, call("a", "zen").to_string()), (ROWS, big)] {
        let sent = post(path, gzip(text.as_bytes()), "gzip").send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::OK, "{path}");
    }
    let zstd = zstd::encode_all(rows("c").as_bytes(), 3).unwrap();
    assert_eq!(post("/dp/metrics", zstd, "zstd").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(server.count().await, 3);
    let cut = gzip(rows("d").as_bytes())[..40].to_vec();
    let (message, _) = failure(post(ROWS, cut, "gzip"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("cannot be unpacked"), "{message}");
    let (message, _) =
        failure(post(ROWS, Vec::new(), "br"), StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    assert!(message.contains("`br`"), "{message}");
    // What unpacks to more than a body may have is no way around its limit.
    let bomb = gzip(&vec![b' '; 3 << 20]);
    failure(post(LOGS, bomb, "gzip"), StatusCode::PAYLOAD_TOO_LARGE).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_read_says_why_and_costs_no_other() {
    let server = bed().await;
    let post = |path: &str, body: String| as_gateway(&server, Method::POST, path, &body);
    for (path, body, word) in [
        (LOGS, "not json".to_owned(), "`json`"),
        (LOGS, json!({ "logObject": { "_id": "a" } }).to_string(), "`request`"),
        (ROWS, json!({ "table": "audit_logs", "data": [] }).to_string(), "generation_hooks"),
        (ROWS, json!({ "table": "generations", "data": [{}] }).to_string(), "`id`"),
    ] {
        let (message, _) = failure(post(path, body), StatusCode::BAD_REQUEST).await;
        assert!(message.contains(word), "{message}");
    }
    let rows = json!({ "table": "generations", "data": [{ "cost": 1 }, { "id": "a", "organisation_id": "zen" }] });
    let receipt: Value = post(ROWS, rows.to_string()).send().await.unwrap().json().await.unwrap();
    assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(1), &json!(1)), "{receipt}");
    assert_eq!(receipt["rejections"][0]["field"], "id");
    let nothing = json!({ "table": "generations", "data": [] }).to_string();
    assert_eq!(post(ROWS, nothing).send().await.unwrap().status(), StatusCode::OK);
    server.end().await;
}
