//! What clients sent that was not taken: every route and parser against every kind of bad input, in
//! the metrics and in the list; who sees the list; what an erasure takes; and the command beside a
//! running server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use chrono::Utc;
use gatelog::config::{Config, Plans, Redact};
use gatelog::engine::{Document, Engine, ErasureSelector, NewKey, Organisation, Scope};
use gatelog::refusals::Source;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::cli::Home;

/// A server without a socket, with organisations `acme`, `zen` and `full`, whose plan stores
/// nothing.
struct Bed {
    engine: Engine,
    router: Router,
    config: Config,
    _folder: tempfile::TempDir,
}

fn fill(document: &mut Document) -> gatelog::error::Result<()> {
    let now = Utc::now();
    for (id, plan) in [("acme", "production"), ("zen", "production"), ("full", "full")] {
        let workspaces = ["search".to_owned(), "chat".to_owned()].into();
        let organisation = Organisation { workspaces, ..Organisation::new(plan, now) };
        document.create_organisation(id, organisation, 0)?;
        let key = |scopes: &[Scope], workspace: Option<&str>| NewKey {
            organisation: Some(id.to_owned()),
            workspace: workspace.map(str::to_owned),
            scopes: scopes.iter().copied().collect(),
            ..NewKey::default()
        };
        document.add_key(&format!("{id} write"), key(&[Scope::Write], None), now)?;
        document.add_key(&format!("{id} view"), key(&[Scope::View], None), now)?;
        document.add_key(&format!("{id} read"), key(&[Scope::View, Scope::Read], None), now)?;
        document.add_key(&format!("{id} search"), key(&[Scope::Admin], Some("search")), now)?;
        document.add_key(&format!("{id} chat"), key(&[Scope::Admin], Some("chat")), now)?;
    }
    let operator = NewKey { scopes: [Scope::Admin].into(), ..NewKey::default() };
    document.add_key("operator", operator, now).map(|_| ())
}

impl Bed {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").display().to_string();
        let plans = Plans::parse("[full]\nincluded = 0\nover = 'stop'").unwrap();
        let mut config = Config { data, plans, max_record_bytes: 64 << 10, ..Config::default() };
        change(&mut config);
        let engine = Engine::open(config.clone()).await.unwrap();
        engine.catalog().change(fill).await.unwrap();
        let router = gatelog::http::router(engine.clone());
        Self { engine, router, config, _folder: folder }
    }

    async fn send(&self, key: &str, request: &Sent) -> (StatusCode, String) {
        let Sent { method, path, headers, body } = request;
        let mut built =
            Request::builder().method(method.clone()).uri(path).header("x-portkey-api-key", key);
        for (name, value) in headers {
            built = built.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(built.body(Body::from(body.clone())).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn get(&self, key: &str, path: &str) -> Value {
        let (status, text) = self.send(key, &Sent::new(Method::GET, path, "")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The list that a key sees, newest first.
    async fn refusals(&self, key: &str) -> Vec<Value> {
        let page = self.get(key, "/v1/refusals?page_size=1000").await;
        assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(false)));
        page["data"].as_array().unwrap().clone()
    }

    /// Method and path of every route that takes something, by the document of the API. A replay
    /// sends, and takes nothing.
    async fn taking_routes(&self) -> BTreeSet<String> {
        let document = self.get("operator", "/openapi.json").await;
        let paths = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(path, _)| !path.ends_with("/replay"));
        let routes = paths.flat_map(|(path, methods)| {
            let writes = methods.as_object().unwrap().iter().filter(|(method, operation)| {
                *method != "get" && operation["security"][0]["key"][0] == "logs.write"
            });
            writes.map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
        });
        routes.collect()
    }

    /// The counters of refusals, and the one without labels.
    async fn counted(&self) -> (BTreeMap<String, u64>, u64) {
        let (_, text) = self.send("operator", &Sent::new(Method::GET, "/metrics", "")).await;
        let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        let labelled = text.lines().filter_map(|line| {
            let labels = line.strip_prefix("gatelog_refusals_total{")?.split('}').next()?;
            Some((labels.replace('"', ""), number(line)))
        });
        let all = text
            .lines()
            .find(|line| line.starts_with("gatelog_records_rejected_total "))
            .map_or(0, number);
        (labelled.collect(), all)
    }
}

/// A request.
#[derive(Clone)]
struct Sent {
    method: Method,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Sent {
    fn new(method: Method, path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn post(path: &str, body: impl Into<Vec<u8>>) -> Sent {
    Sent::new(Method::POST, path, body)
}

/// What is noted of a request: source, reason, field, how often, how many records among it.
struct Noted(&'static str, &'static str, Option<&'static str>, u64, u64);

fn spans(span: &Value) -> String {
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string()
}

fn events(log: &Value) -> String {
    json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [log] }] }] }).to_string()
}

fn metrics() -> String {
    let gauge =
        json!({ "name": "m", "gauge": { "dataPoints": [{ "asInt": "1" }, { "asInt": "2" }] } });
    json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [gauge] }] }] }).to_string()
}

fn deep() -> String {
    "[".repeat(125) + &"]".repeat(125)
}

const CALL: &str = r#"{"request":{"body":{"model":"m"}},"response":{"body":{}}}"#;
const LITELLM: &str = "/v1/ingest/litellm";
const HOOK: &str = "/v1/ingest/gateway-hook";
const LOG_OBJECT: &str = "/v1/logs/enterprise/logs";
const ROWS: &str = "/v1/analytics/enterprise/analytics";

/// Every route and parser with inputs that it refuses, and what must be noted of each.
fn table() -> Vec<(Sent, u16, Noted)> {
    let call = json!({ "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "", "name": "chat",
        "attributes": [{ "key": "gen_ai.operation.name", "value": { "stringValue": "chat" } }] });
    let packed = &[0x1f, 0x8b, 0, 0][..];
    let big = format!(r#"{{"ai_model":"{}"}}"#, "x".repeat(70 << 10));
    let mut table = vec![
        // Portkey's insert, which answers `ok`.
        (post("/v1/logs", "{not json"), 200, Noted("portkey", "not_readable", Some("json"), 1, 1)),
        (
            post("/v1/logs", b"\xff\xfe".to_vec()),
            200,
            Noted("portkey", "not_readable", Some("json"), 1, 1),
        ),
        (post("/v1/logs", packed), 200, Noted("portkey", "not_readable", None, 1, 1)),
        (
            post("/v1/logs", r#"{"metadata":{}}"#),
            200,
            Noted("portkey", "missing", Some("request"), 1, 1),
        ),
        (
            post("/v1/logs", r#"[{"request":{},"createdAt":"soon"}]"#),
            200,
            Noted("portkey", "invalid", Some("createdAt"), 1, 1),
        ),
        (
            post("/v1/logs", format!(r#"{{"request":{{"body":{}}}}}"#, deep())),
            200,
            Noted("portkey", "too_deep", Some("request.body"), 1, 1),
        ),
        (post("/v1/logs", vec![b' '; 2 << 20]), 413, Noted("portkey", "too_large", None, 1, 0)),
        (
            post("/v1/logs", events(&json!(7))),
            200,
            Noted("otlp-logs", "invalid", Some("logRecord"), 1, 1),
        ),
        // Our own form.
        (post("/v1/ingest", "{not json"), 400, Noted("native", "not_readable", Some("json"), 1, 1)),
        (
            post("/v1/ingest", r#"{"model":"m"}"#),
            400,
            Noted("native", "unknown_field", Some("model"), 1, 1),
        ),
        (
            post("/v1/ingest", r#"{"cost":"much"}"#),
            400,
            Noted("native", "invalid", Some("cost"), 1, 1),
        ),
        (
            post("/v1/ingest", r#"{"req_units":-1}"#),
            400,
            Noted("native", "invalid", Some("req_units"), 1, 1),
        ),
        (
            post("/v1/ingest", r#"{"organisation_id":"zen"}"#),
            400,
            Noted("native", "not_allowed", Some("organisation_id"), 1, 1),
        ),
        (post("/v1/ingest", big), 400, Noted("native", "too_large", Some("json"), 1, 1)),
        (post("/v1/ingest", "[{}"), 200, Noted("native", "not_readable", Some("json"), 1, 1)),
        (post("/v1/ingest", packed), 400, Noted("native", "not_readable", None, 1, 0)),
        (
            post("/v1/ingest", "{}").with("content-encoding", "br"),
            415,
            Noted("native", "encoding", None, 1, 0),
        ),
        (post("/v1/ingest?source=mail", "{}"), 400, Noted("native", "invalid", None, 1, 0)),
        // Every shape by its name.
        (
            post("/v1/ingest?source=portkey", "{}\n{}"),
            400,
            Noted("portkey", "missing", Some("request"), 2, 2),
        ),
        (
            post("/v1/ingest?source=litellm", "{}"),
            400,
            Noted("litellm", "missing", Some("call_type"), 1, 1),
        ),
        (
            post("/v1/ingest?source=gateway-hook", "{}"),
            400,
            Noted("gateway-hook", "missing", Some("request"), 1, 1),
        ),
        (
            post("/v1/ingest?source=otlp", r#"{"resourceSpans":7}"#),
            400,
            Noted("otlp", "invalid", Some("resourceSpans"), 1, 1),
        ),
        // Callbacks, whose senders look at the status alone.
        (post(LITELLM, "[1]"), 200, Noted("litellm", "not_readable", Some("json"), 1, 1)),
        (
            post(LITELLM, r#"{"model":"m","startTime":"soon"}"#),
            200,
            Noted("litellm", "invalid", Some("startTime"), 1, 1),
        ),
        (
            post(LITELLM, "{}").with("content-encoding", "br"),
            415,
            Noted("litellm", "encoding", None, 1, 0),
        ),
        (
            post(HOOK, r#"{"eventType":"beforeRequestHook"}"#),
            200,
            Noted("gateway-hook", "not_kept", Some("eventType"), 1, 1),
        ),
        (post(HOOK, "7"), 200, Noted("gateway-hook", "not_readable", Some("json"), 1, 1)),
        (post(HOOK, packed), 400, Noted("gateway-hook", "not_readable", None, 1, 0)),
        // Reports of a gateway.
        (
            post(LOG_OBJECT, "{}"),
            400,
            Noted("control-plane-logs", "missing", Some("logObject"), 1, 1),
        ),
        (
            post(LOG_OBJECT, r#"{"logObject":{"hook_id":"h"}}"#),
            200,
            Noted("control-plane-logs", "not_kept", None, 1, 1),
        ),
        (post(LOG_OBJECT, packed), 400, Noted("control-plane-logs", "not_readable", None, 1, 0)),
        (post(ROWS, "{"), 400, Noted("control-plane-rows", "not_readable", Some("json"), 1, 0)),
        (
            post(ROWS, r#"{"table":"t","data":[]}"#),
            400,
            Noted("control-plane-rows", "invalid", Some("table"), 1, 0),
        ),
        (
            post(ROWS, r#"{"table":"generations","data":[{}]}"#),
            400,
            Noted("control-plane-rows", "missing", Some("id"), 1, 1),
        ),
        (
            post("/dp/metrics", r#"{"table":"feedbacks","data":[{"trace_id":"t","value":99}]}"#),
            400,
            Noted("control-plane-rows", "invalid", Some("value"), 1, 1),
        ),
        (
            post(ROWS, r#"{"table":"generation_hooks","data":[{"id":"h"}]}"#),
            400,
            Noted("control-plane-rows", "missing", Some("generation_id"), 1, 1),
        ),
        (
            post(ROWS, r#"{"table":"generations","data":[{"id":"g","organisation_id":"zen"}]}"#),
            403,
            Noted("control-plane-rows", "not_allowed", None, 1, 0),
        ),
        // Feedback.
        (post("/v1/feedback", "{"), 400, Noted("feedback", "not_readable", Some("json"), 1, 0)),
        (post("/v1/feedback", "{}"), 400, Noted("feedback", "missing", Some("trace_id"), 1, 0)),
        (
            post("/v1/feedback", r#"[{"trace_id":"t","value":1},{"trace_id":"t","value":11}]"#),
            400,
            Noted("feedback", "invalid", Some("value"), 1, 0),
        ),
        (
            post("/v1/feedback", r#"{"log_id":"none","value":1}"#),
            404,
            Noted("feedback", "not_found", None, 1, 0),
        ),
        (
            post("/v1/feedback", r#"{"trace_id":"t","value":1,"organisation_id":"zen"}"#),
            403,
            Noted("feedback", "not_allowed", None, 1, 0),
        ),
        (post("/v1/feedback", packed), 400, Noted("feedback", "not_readable", None, 1, 0)),
    ];
    for method in [Method::PUT, Method::POST] {
        let change = |body: &str| Sent::new(method.clone(), "/v1/feedback/none", body);
        table.push((change(r#"{"value":1}"#), 404, Noted("feedback", "not_found", None, 1, 0)));
        table.push((change("{}"), 400, Noted("feedback", "missing", Some("value"), 1, 0)));
    }
    let protobuf = b"\x0a\x7f\x01".to_vec();
    for path in ["/v1/traces", "/v1/otel/v1/traces", "/v1/logs/otel", "/v1/logs/otel/v1/traces"] {
        let json = |body: &str| post(path, body).with("content-type", "application/json");
        table.push((
            json(&spans(&call)),
            200,
            Noted("otlp-traces", "missing", Some("spanId"), 1, 1),
        ));
        table.push((
            json(&spans(&json!(7))),
            200,
            Noted("otlp-traces", "invalid", Some("span"), 1, 1),
        ));
        table.push((json("{"), 400, Noted("otlp-traces", "not_readable", Some("json"), 1, 0)));
        table.push((
            post(path, protobuf.clone()).with("content-type", "application/x-protobuf"),
            400,
            Noted("otlp-traces", "not_readable", Some("protobuf"), 1, 0),
        ));
    }
    for path in ["/v1/otel/v1/logs", "/v1/logs/otel", "/v1/logs/otel/v1/logs"] {
        let json = |body: &str| post(path, body).with("content-type", "application/json");
        table.push((
            json(&events(&json!(7))),
            200,
            Noted("otlp-logs", "invalid", Some("logRecord"), 1, 1),
        ));
    }
    for path in ["/v1/metrics", "/v1/otel/v1/metrics", "/v1/logs/otel/v1/metrics"] {
        let json = |body: &str| post(path, body).with("content-type", "application/json");
        table.push((json(&metrics()), 200, Noted("otlp-metrics", "not_kept", None, 2, 2)));
        table.push((json("[]"), 400, Noted("otlp-metrics", "not_readable", Some("json"), 1, 0)));
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_and_parser_counts_and_lists_what_it_refuses() {
    let bed = Bed::new(|_| {}).await;
    let (mut counted, mut records) = bed.counted().await;
    let mut listed = 0;
    for (sent, status, Noted(source, reason, field, count, of_records)) in table() {
        let at = format!(
            "{} {} {}",
            sent.method,
            sent.path,
            String::from_utf8_lossy(&sent.body[..sent.body.len().min(80)])
        );
        let (found, text) = bed.send("acme write", &sent).await;
        assert_eq!(found.as_u16(), status, "{at}: {text}");
        *counted.entry(format!("source={source},reason={reason}")).or_default() += count;
        records += of_records;
        assert_eq!(bed.counted().await, (counted.clone(), records), "{at}");
        let entries = bed.refusals("acme read").await;
        listed += if count == 2 && source == "portkey" { 2 } else { 1 };
        assert_eq!(entries.len(), listed, "{at}: {:?}", entries.first());
        let entry = &entries[0];
        assert_eq!((&entry["source"], &entry["reason"]), (&json!(source), &json!(reason)), "{at}");
        assert_eq!(entry["field"], field.map_or(Value::Null, Value::from), "{at}: {entry}");
        assert_eq!(entry["organisation_id"], "acme");
        let message = entry["message"].as_str().unwrap();
        assert!(message.len() > 5, "{at}: {entry}");
        // The answer, where there is one in words, says the same.
        let told = text.replace('\\', "");
        let words = message.trim_start_matches("expected ").chars().take(40).collect::<String>();
        if !found.is_success() || text.contains("rejections\":[{") || text.contains("errorMessage")
        {
            let plain = words.replace('\\', "");
            assert!(
                told.contains(&plain) || text.contains(&words) || !text.starts_with('{'),
                "{at}: {text}: {entry}"
            );
        }
    }
    let of_all = |field: &str, entries: &[Value]| -> BTreeSet<String> {
        entries.iter().map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
    };
    let entries = bed.refusals("acme read").await;
    assert_eq!(
        of_all("route", &entries),
        bed.taking_routes().await,
        "every route that takes something is walked"
    );
    let of_requests = Source::ALL.into_iter().filter(|source| *source != Source::PortkeyBucket);
    let of_requests: BTreeSet<String> = of_requests.map(|source| source.to_string()).collect();
    assert_eq!(of_all("source", &entries), of_requests, "every parser is walked");
    // Nothing was refused of what is good.
    let good = post("/v1/logs", CALL);
    assert_eq!(bed.send("acme write", &good).await.0, StatusCode::OK);
    assert_eq!(bed.counted().await, (counted, records));
    bed.engine.close().await.unwrap();
}

/// The JSON text with an organisation and a workspace in every object.
fn of_acme(text: &str) -> String {
    let named = r#"{"organisation_id":"acme","workspace_slug":"search""#;
    text.replace("{}", &format!("{named}}}")).replace("{\"", &format!("{named},\"")).replace(
        &format!("{named},\"organisation_id\":\"acme\",\"workspace_slug\":\"search\""),
        named,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_of_no_organisation_sends_is_filed_under_the_organisation_that_the_record_names()
{
    let bed = Bed::new(|_| {}).await;
    let (mut of_acme_by_source, mut listed) = (BTreeSet::new(), 0);
    for (sent, _, Noted(source, ..)) in table() {
        let Ok(text) = String::from_utf8(sent.body.clone()) else { continue };
        let sent = Sent { body: of_acme(&text).into_bytes(), ..sent };
        bed.send("operator", &sent).await;
        let entries = bed.refusals("operator").await;
        for entry in &entries[..entries.len() - listed] {
            let at = format!(
                "{} {}: {entry}",
                sent.path,
                String::from_utf8_lossy(&sent.body[..sent.body.len().min(200)])
            );
            let is_of_acme = entry["organisation_id"] == "acme";
            // What is no JSON object names nobody, and neither does a request as a whole.
            let is_read = serde_json::Deserializer::from_slice(&sent.body)
                .into_iter::<Value>()
                .all(|read| read.is_ok())
                && !["not_readable", "too_large", "encoding"]
                    .contains(&entry["reason"].as_str().unwrap())
                && (entry["record"].is_u64()
                    || (source == "feedback"
                        && !entry["route"].as_str().unwrap().ends_with("/{id}"))
                    || entry["reason"] == "not_kept");
            let names_nobody =
                source == "otlp-metrics" || (text.contains(":[7]") && sent.path != "/v1/logs");
            assert_eq!(is_of_acme, is_read && !names_nobody, "{at}");
            if is_of_acme {
                assert_eq!(entry["workspace_slug"], "search", "{at}");
                of_acme_by_source.insert(source.to_owned());
            } else {
                assert_eq!(
                    (&entry["organisation_id"], &entry["excerpt"]),
                    (&json!("default"), &Value::Null),
                    "{at}"
                );
            }
        }
        listed = entries.len();
    }
    let unnamed = ["otlp-metrics", "portkey-bucket"];
    let named = Source::ALL.into_iter().map(|source| source.to_string());
    let named: BTreeSet<String> =
        named.filter(|source| !unnamed.contains(&source.as_str())).collect();
    assert_eq!(of_acme_by_source, named, "every parser reads whose a record is");
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_log_object_is_its_organisations_alone() {
    let bed = Bed::new(|_| {}).await;
    let said = |more: Value| {
        let mut object =
            json!({ "_id": "x", "request": { "body": { "messages": ["words"] } }, "response": {} });
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "logObject": object, "logOptions": { "organisation_id": "zen" } }).to_string()
    };
    let posts = [
        said(json!({ "organisation_id": "acme" })),
        said(json!({ "metrics": { "organisation_id": "acme", "id": "x" } })),
        said(
            json!({ "organisation_id": "zen", "metrics": { "organisation_id": "acme", "created_at": "soon" } }),
        ),
        said(json!({ "organisation_id": "acme", "hook_id": "h", "request": null })),
    ];
    for text in posts {
        bed.send("operator", &post(LOG_OBJECT, text)).await;
    }
    let entries = bed.refusals("acme read").await;
    assert_eq!(
        (entries.len(), bed.refusals("zen read").await.len(), bed.refusals("operator").await.len()),
        (4, 0, 4)
    );
    assert!(!json!(entries).to_string().contains("words"), "{entries:?}");
    bed.engine.erase("acme", ErasureSelector::All, "test").await.unwrap();
    assert_eq!(bed.refusals("operator").await.len(), 0);
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lacking_scope_and_a_quota_are_refusals_too() {
    let bed = Bed::new(|_| {}).await;
    assert_eq!(bed.send("acme view", &post("/v1/logs", CALL)).await.0, StatusCode::FORBIDDEN);
    let entry = bed.refusals("acme view").await.remove(0);
    assert_eq!(
        (&entry["reason"], &entry["route"]),
        (&json!("not_allowed"), &json!("POST /v1/logs"))
    );
    assert!(entry["message"].as_str().unwrap().contains("logs.write"), "{entry}");

    assert_eq!(bed.send("full write", &post("/v1/logs", CALL)).await.1, "ok");
    let entry = bed.refusals("full view").await.remove(0);
    assert_eq!((&entry["reason"], &entry["count"]), (&json!("over_quota"), &json!(1)));

    assert_eq!(bed.counted().await.1, 0, "neither counts as a record");
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_its_plan_keeps_is_counted_wherever_it_comes_in() {
    let bed = Bed::new(|_| {}).await;
    let old = Utc::now() - chrono::Duration::days(31);
    let lines =
        format!("{{\"id\":\"old\",\"created_at\":\"{}\"}}\n{{\"id\":\"new\"}}", old.to_rfc3339());
    let (status, text) = bed.send("acme write", &post("/v1/ingest", lines.as_str())).await;
    let receipt: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &receipt["accepted"], &receipt["past_retention"]),
        (StatusCode::OK, &json!(2), &json!(1))
    );
    let told = receipt["message"].as_str().unwrap();
    assert!(told.contains("`acme` is on plan `production`, which keeps records 30 days"), "{told}");
    // Sent again, it is known and told no more.
    let (_, text) = bed.send("acme write", &post("/v1/ingest", lines.as_str())).await;
    let again: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&again["duplicate"], &again["past_retention"], again.get("message")),
        (&json!(2), &json!(0), None)
    );

    let inserted =
        format!(r#"{{"request":{{"url":"u","body":{{}}}},"createdAt":"{}"}}"#, old.to_rfc3339());
    let insert = Request::post("/v1/logs")
        .header("x-portkey-api-key", "acme write")
        .body(Body::from(inserted))
        .unwrap();
    let answer = bed.router.clone().oneshot(insert).await.unwrap();
    let counts = ["past-retention", "accepted", "rejected", "over-quota"]
        .map(|name| answer.headers()[&format!("x-gatelog-{name}")].to_str().unwrap().to_owned());
    assert_eq!(counts, ["1", "1", "0", "0"]);
    assert_eq!(&axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap()[..], b"ok");

    let nanos = old.timestamp_nanos_opt().unwrap();
    let said = |role: &str| {
        json!([{ "role": role, "parts": [{ "type": "text", "content": "hi" }] }]).to_string()
    };
    let span = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [{
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "chat",
        "startTimeUnixNano": nanos.to_string(), "endTimeUnixNano": nanos.to_string(),
        "attributes": [
            { "key": "gen_ai.operation.name", "value": { "stringValue": "chat" } },
            { "key": "gen_ai.request.model", "value": { "stringValue": "m" } },
            { "key": "gen_ai.input.messages", "value": { "stringValue": said("user") } },
            { "key": "gen_ai.output.messages", "value": { "stringValue": said("assistant") } },
        ],
    }] }] }] });
    let (status, text) =
        bed.send("acme write", &post("/v1/otel/v1/traces", span.to_string())).await;
    assert_eq!(status, StatusCode::OK, "{text}");

    let partial: Value = serde_json::from_str(&text).unwrap();
    let warning = partial["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(warning.contains("plan `production`"), "{text}");
    assert_eq!(bed.engine.status().past_retention_total, 3);
    let entries = bed.refusals("acme view").await;
    assert_eq!(entries.len(), 3);
    assert!(
        entries.iter().all(|entry| entry["reason"] == "past_retention" && entry["count"] == 1),
        "{entries:?}"
    );
    assert_eq!(bed.counted().await.1, 0, "none of them was rejected");
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_the_refusals_that_it_reaches_and_excerpts_only_with_logs_read() {
    let bed = Bed::new(|_| {}).await;
    let bad = |what: &str| post("/v1/ingest", format!(r#"{{"cost":"{what}","ai_model":"m"}}"#));
    for key in ["acme write", "acme search", "acme chat", "zen write"] {
        bed.send(key, &bad(key)).await;
    }
    // A key of nobody's in particular: the record says whose it is.
    let named =
        json!({ "organisation_id": "zen", "workspace_slug": "chat", "cost": "named" }).to_string();
    bed.send("operator", &post("/v1/ingest", named)).await;
    bed.send("operator", &post("/v1/ingest", "{")).await;
    let list = async |key: &str| {
        let entries = bed.refusals(key).await;
        let excerpts =
            entries.iter().map(|entry| entry["excerpt"].as_str().unwrap_or("-").to_owned());
        let excerpts: Vec<String> = excerpts.collect();
        excerpts
    };
    let of = |what: &str| format!(r#"{{"cost":"{what}","ai_model":…}}"#);
    assert_eq!(list("acme read").await, [of("acme chat"), of("acme search"), of("acme write")]);
    assert_eq!(list("acme view").await, ["-", "-", "-"]);
    assert_eq!(list("acme search").await, [of("acme search")]);
    assert_eq!(
        list("zen chat").await,
        [r#"{"cost":"named","organisation_id":…,"workspace_slug":…}"#]
    );
    assert_eq!(list("zen read").await.len(), 2);
    assert_eq!(list("operator").await.len(), 6);
    assert_eq!(list("operator").await[0], "-", "what cannot be read has no excerpt");
    let of_default = bed.get("operator", "/v1/refusals?organisation_id=default").await;
    assert_eq!(of_default["total"], 1);
    let page = bed.get("operator", "/v1/refusals?page_size=2&reason=invalid&source=native").await;
    assert_eq!((&page["total"], &page["has_more"]), (&json!(5), &json!(true)));
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    for (key, path, status) in [
        ("acme write", "/v1/refusals", 403),
        ("acme view", "/v1/refusals?organisation_id=zen", 404),
        ("acme view", "/v1/refusals?reason=because", 400),
        ("acme view", "/v1/refusals?source=mail", 400),
        ("acme view", "/v1/refusals?page_size=0", 400),
        ("acme view", "/v1/refusals?colour=red", 400),
    ] {
        let (found, text) = bed.send(key, &Sent::new(Method::GET, path, "")).await;
        assert_eq!(found.as_u16(), status, "{path}: {text}");
    }
    bed.engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn excerpts_are_masked_and_redacted_and_there_is_none_of_what_is_not_tracked() {
    let rules = "[mail]\npattern = '\\w+@\\w+\\.org'\n[patient]\npaths = ['request.body.patient']";
    let bed = Bed::new(|config| config.redact = Redact::parse(rules).unwrap()).await;
    let key = "sk-0123456789abcdefgh";
    let record = json!({ "createdAt": "soon", "request": {
        "headers": { "authorization": format!("Bearer {key}"), "x-portkey-config": json!({ "api_key": key }).to_string() },
        "body": { "patient": "Ann Smith", "messages": ["write to ann@example.org"] } } });
    bed.send("acme write", &post("/v1/logs", record.to_string())).await;
    let untracked = post("/v1/logs", record.to_string()).with("x-portkey-debug", "false");
    bed.send("acme write", &untracked).await;
    let native =
        json!({ "do_not_track": true, "cost": "private", "request": { "body": "private" } });
    bed.send("acme write", &post("/v1/ingest", native.to_string())).await;
    let litellm = json!({ "model": "m", "startTime": "soon", "messages": "private",
        "metadata": { "requester_custom_headers": { "x-portkey-debug": "false" } } });
    bed.send("acme write", &post("/v1/ingest/litellm", litellm.to_string())).await;
    let hook = json!({ "eventType": "beforeRequestHook",
        "request": { "json": "private", "headers": { "X-Portkey-Debug": "false" } } });
    bed.send("acme write", &post("/v1/ingest/gateway-hook", hook.to_string())).await;
    let row = json!({ "extra_key": "is_raw_logging_enabled", "extra_value": "false", "config": "private" });
    let rows = json!({ "table": "generations", "data": [row] });
    bed.send("acme write", &post("/v1/analytics/enterprise/analytics", rows.to_string())).await;

    let entries = bed.refusals("acme read").await;
    assert_eq!(entries.len(), 6);
    let (shown, hidden): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| entry["excerpt"].is_string());
    assert_eq!((shown.len(), hidden.len()), (1, 5));
    let all = json!(entries).to_string();
    for secret in ["private", "3456789", "Ann", "ann@"] {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(
        shown[0]["excerpt"].as_str().unwrap().starts_with("{\"createdAt\":…,\"request\":…"),
        "{shown:?}"
    );
    bed.engine.close().await.unwrap();
    let file =
        fs::read_dir(format!("{}/refusals", bed.config.data)).unwrap().next().unwrap().unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    for secret in ["private", "3456789", "Ann", "ann@"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn erasures_take_excerpts_and_the_end_of_an_organisation_takes_its_list() {
    let bed = Bed::new(|_| {}).await;
    let words = || post("/v1/ingest", r#"{"cost":"words of ann"}"#);
    for key in ["acme write", "zen write"] {
        bed.send(key, &words()).await;
    }
    bed.engine.erase("acme", ErasureSelector::User("ann".to_owned()), "test").await.unwrap();
    let acme = bed.refusals("acme read").await;
    assert_eq!((acme.len(), &acme[0]["excerpt"]), (1, &Value::Null));
    assert!(bed.refusals("zen read").await[0]["excerpt"].is_string());
    bed.engine.erase("acme", ErasureSelector::All, "test").await.unwrap();
    assert_eq!(bed.refusals("acme read").await.len(), 0);
    let delete = Sent::new(Method::DELETE, "/v1/admin/organisations/zen", "");
    assert_eq!(bed.send("operator", &delete).await.0, StatusCode::ACCEPTED);
    assert_eq!(bed.refusals("operator").await.len(), 0);
    bed.engine.close().await.unwrap();
    for file in fs::read_dir(format!("{}/refusals", bed.config.data)).into_iter().flatten() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("words"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_outlives_a_restart() {
    let bed = Bed::new(|_| {}).await;
    bed.send("acme write", &post("/v1/logs", "{}")).await;
    let before = bed.refusals("acme read").await;
    bed.engine.close().await.unwrap();
    let engine = Engine::open(bed.config.clone()).await.unwrap();
    let after = Bed {
        router: gatelog::http::router(engine.clone()),
        engine,
        config: bed.config,
        _folder: bed._folder,
    };
    assert_eq!(after.refusals("acme read").await, before);
    assert_eq!(after.counted().await.1, 0, "metrics count since the start");
    after.engine.close().await.unwrap();
}

#[cfg(unix)]
#[test]
fn the_command_lists_what_a_running_server_and_an_import_refused() {
    let home = Home::new();
    fs::write(
        home.0.path().join("bad.jsonl"),
        "{\"organisation_id\":\"acme\",\"cost\":\"much\"}\nnot json\n",
    )
    .unwrap();
    assert_eq!(home.command(&["import", "bad.jsonl"]).output().unwrap().status.code(), Some(1));
    let bucket = home.0.path().join("store");
    fs::create_dir(&bucket).unwrap();
    fs::write(bucket.join("a.json"), "{}").unwrap();
    fs::write(bucket.join("b.json"), r#"{"hook_id":"h"}"#).unwrap();
    let import = ["import", "--source", "portkey-bucket", "store"];
    assert_eq!(home.command(&import).output().unwrap().status.code(), Some(1));
    let list = |more: &[&str]| -> Vec<Value> {
        let args = [&["refusals", "--format", "json"], more].concat();
        serde_json::from_str(&home.ok(&args)).unwrap()
    };
    let kinds = |entries: &[Value]| {
        let mut kinds: Vec<_> = entries
            .iter()
            .map(|entry| {
                format!("{} {} {}", entry["source"], entry["reason"], entry["route"])
                    .replace('"', "")
            })
            .collect();
        kinds.sort();
        kinds
    };
    let imported = [
        "native invalid gatelog import",
        "native not_readable gatelog import",
        "portkey-bucket missing gatelog import",
        "portkey-bucket not_kept gatelog import",
    ];
    assert_eq!(kinds(&list(&[])), imported);
    let acme = list(&["--org", "acme"]);
    assert_eq!((acme.len(), &acme[0]["field"]), (1, &json!("cost")));
    assert_eq!(acme[0]["excerpt"], r#"{"cost":"much","organisation_id":…}"#);

    let mut server = home.serve();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("http://{}/v1/logs", server.address);
    let client = reqwest::Client::new();
    for _ in 0..50 {
        let sent = client
            .post(&url)
            .header("x-portkey-api-key", "k")
            .body("{\"hush\":\"sk-secret\"}")
            .send();
        assert!(runtime.block_on(sent).unwrap().status().is_success());
    }
    // The server writes its list every few seconds.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while list(&["--source", "portkey"]).is_empty() {
        assert!(std::time::Instant::now() < end, "the list is never written");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(list(&["--limit", "1"])[0]["route"], "POST /v1/logs");
    assert!(!list(&["--reason", "missing", "--source", "portkey"]).is_empty());
    let table = home.ok(&["refusals"]);
    assert!(table.starts_with("time ") && table.contains("portkey"), "{table}");

    // The log has one line for many refusals, and nothing of what was sent.
    server.signal("TERM");
    let mut log = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("source=portkey reason=missing refused="))
        .collect();
    assert!((1..20).contains(&told.len()), "{log}");
    assert!(!log.contains("hush") && !log.contains("sk-secret"), "{log}");
}
