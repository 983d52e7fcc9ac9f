//! Export jobs over HTTP: every route and state, what clients of all kinds send, who sees what, and
//! the file with its URL.

use std::fs;
use std::time::Duration;

use gatelog::config::{Config, Plans};
use gatelog::engine::{Document, Job, NewKey, Organisation, Scope};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::log_objects::{get, with};
use super::{Server, eventually, failure, header, lines};

const EXPORTS: &str = "/v1/logs/exports";

/// A server with organisations `acme`, `zen` and, on plans with limits, `thirty`, `capped` and
/// `dev`; keys are named after what they are for.
pub(super) async fn bed(change: impl FnOnce(&mut Config)) -> Server {
    let server = Server::start_with(|config| {
        config.plans = Plans::parse("[capped]\nexport_rows = 2").unwrap();
        change(config);
    })
    .await;
    let fill = |document: &mut Document| {
        let now = chrono::Utc::now();
        for (id, plan) in [
            ("acme", "enterprise"),
            ("zen", "enterprise"),
            ("thirty", "production"),
            ("capped", "capped"),
            ("dev", "developer"),
        ] {
            let workspaces = ["ads".to_owned(), "search".to_owned()].into();
            document.create_organisation(
                id,
                Organisation { workspaces, ..Organisation::new(plan, now) },
                0,
            )?;
            let key = |scopes: &[Scope], workspace: Option<&str>| NewKey {
                organisation: Some(id.to_owned()),
                workspace: workspace.map(str::to_owned),
                scopes: scopes.iter().copied().collect(),
                ..NewKey::default()
            };
            let all = [Scope::Export, Scope::Read];
            document.add_key(&format!("{id} admin"), key(&[Scope::Admin], None), now)?;
            document.add_key(&format!("{id} exporter"), key(&all, None), now)?;
            document.add_key(&format!("{id} blind"), key(&[Scope::Export], None), now)?;
            document.add_key(&format!("{id} search"), key(&all, Some("search")), now)?;
        }
        Ok(())
    };
    server.engine.catalog().change(fill).await.unwrap();
    server.engine.catalog_changed();
    server
}

fn log(id: &str, organisation: &str, number: u64) -> Value {
    json!({
        "id": id, "organisation_id": organisation, "created_at": format!("2026-11-{:02}T10:00:00Z", number + 1),
        "workspace_slug": if number.is_multiple_of(2) { "search" } else { "ads" }, "ai_org": "openai",
        "ai_model": "gpt-4o", "req_units": number, "res_units": 2, "cost": 0.25, "response_status_code": 200, "mode": "SINGLE",
        "trace_id": "t", "metadata": { "team": "a" }, "request": { "body": { "secret": id } }, "response": { "body": [1] },
    })
}

pub(super) async fn fill(server: &Server, organisation: &str, numbers: std::ops::Range<u64>) {
    let records = numbers.map(|number| {
        format!("{}\n", log(&format!("{organisation}-{number}"), organisation, number))
    });
    server.ingest(records.collect::<String>()).await;
}

async fn ask(
    server: &Server,
    key: &str,
    method: Method,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = with(server, key, method, path).body(body).send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "application/json");
    (response.status(), response.json().await.unwrap())
}

async fn fine(server: &Server, key: &str, method: Method, path: &str, body: Value) -> Value {
    let (status, told) = ask(server, key, method, path, body).await;
    assert_eq!(status, StatusCode::OK, "{path}: {told}");
    told
}

fn failing(server: &Server, key: &str, method: Method, path: &str, body: &Value) -> RequestBuilder {
    with(server, key, method, path).body(body.to_string())
}

pub(super) async fn create(server: &Server, key: &str, body: Value) -> String {
    let made = fine(server, key, Method::POST, EXPORTS, body).await;
    assert_eq!(made["object"], "export");
    made["id"].as_str().unwrap().to_owned()
}

pub(super) async fn start(server: &Server, key: &str, id: &str) {
    fine(server, key, Method::POST, &format!("{EXPORTS}/{id}/start"), Value::Null).await;
}

/// Waits until a job is no longer in progress; answers it.
pub(super) async fn ended(server: &Server, key: &str, id: &str) -> Value {
    let path = format!("{EXPORTS}/{id}");
    let ended = || async { get(server, key, &path).await["status"] != "in_progress" };
    eventually("the export ends", ended).await;
    get(server, key, &path).await
}

pub(super) async fn url(server: &Server, key: &str, id: &str) -> String {
    let told = get(server, key, &format!("{EXPORTS}/{id}/download")).await;
    assert_eq!(told["url"], told["signed_url"]);
    told["signed_url"].as_str().unwrap().to_owned()
}

/// Fetches a URL as anybody would.
pub(super) async fn fetch(url: &str, headers: &[(&str, &str)]) -> Response {
    let request = reqwest::Client::new().get(url);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .send()
        .await
        .unwrap()
}

/// Makes a job and lets it be written.
pub(super) async fn done(server: &Server, key: &str, body: Value) -> String {
    let id = create(server, key, body).await;
    start(server, key, &id).await;
    let job = ended(server, key, &id).await;
    assert_eq!(job["status"], "success", "{job}");
    id
}

/// The lines of the file that a new job writes.
async fn written(server: &Server, key: &str, body: Value) -> Vec<Value> {
    let id = done(server, key, body).await;
    let job = get(server, key, &format!("{EXPORTS}/{id}")).await;
    let found = lines(&fetch(&url(server, key, &id).await, &[]).await.text().await.unwrap());
    assert_eq!(job["records_written"], found.len(), "{job}");
    found
}

/// Names of the files of exports that there are.
fn files(server: &Server) -> Vec<String> {
    let Ok(folder) = fs::read_dir(format!("{}/exports", server.config.data)) else {
        return Vec::new();
    };
    folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_from_draft_to_a_file_that_anybody_with_its_url_can_fetch() {
    let server = bed(|_| {}).await;
    fill(&server, "acme", 0..5).await;
    fill(&server, "zen", 5..7).await;
    let filters = json!({ "time_of_generation_min": "2026-11-02", "cost_min": 0.1 });
    let asked = json!({ "filters": filters, "requested_data": ["id", "request", "cost"], "description": "november" });
    let made = fine(&server, "acme exporter", Method::POST, EXPORTS, asked).await;
    assert_eq!(made, json!({ "id": made["id"], "total": 4, "object": "export" }));
    let id = made["id"].as_str().unwrap().to_owned();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    let path = format!("{EXPORTS}/{id}");
    let draft = get(&server, "acme exporter", &path).await;
    for (name, value) in [
        ("id", json!(id)),
        ("organisation_id", json!("acme")),
        ("workspace_id", Value::Null),
        ("filters", filters),
        ("requested_data", json!(["id", "request", "cost"])),
        ("status", json!("draft")),
        ("description", json!("november")),
        ("object", json!("export")),
        ("total_records", json!(4)),
        ("error", Value::Null),
        ("max_records", Value::Null),
    ] {
        assert_eq!(draft[name], value, "{name}");
    }
    for name in ["created_at", "last_updated_at"] {
        chrono::DateTime::parse_from_rfc3339(draft[name].as_str().unwrap()).unwrap();
    }
    assert_eq!(draft["created_by"].as_str().unwrap().len(), 12, "the id of the key");
    let list = get(&server, "acme exporter", &format!("{EXPORTS}?")).await;
    assert_eq!(list, json!({ "object": "list", "total": 1, "data": [draft] }));

    let conflict = |method: Method, what: &str| {
        failing(&server, "acme exporter", method, &format!("{path}{what}"), &Value::Null)
    };
    let (message, body) = failure(conflict(Method::GET, "/download"), StatusCode::CONFLICT).await;
    assert!(
        message.contains("is `draft`; only one that is success can be downloaded"),
        "{message}"
    );
    assert_eq!(body["data"]["errorCode"], "AB07");
    failure(conflict(Method::POST, "/cancel"), StatusCode::CONFLICT).await;
    let told = fine(
        &server,
        "acme exporter",
        Method::POST,
        &format!("{path}/start"),
        json!({ "export_id": id }),
    )
    .await;
    assert_eq!((told["object"].as_str(), told["message"].is_string()), (Some("export"), true));
    let done = ended(&server, "acme exporter", &id).await;
    assert_eq!(
        (&done["status"], &done["records_written"], &done["total_records"]),
        (&json!("success"), &json!(4), &json!(4))
    );
    failure(conflict(Method::POST, "/cancel"), StatusCode::CONFLICT).await;

    let url = url(&server, "acme exporter", &id).await;
    assert!(url.starts_with(&format!("{}/exports/", server.base)), "{url}");
    let response = fetch(&url, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), "application/x-ndjson");
    assert_eq!(
        header(&response, "content-disposition"),
        format!("attachment; filename=\"gatelog-export-{id}.jsonl\"")
    );
    assert_eq!(header(&response, "content-length"), done["bytes_written"].to_string());
    assert_eq!(header(&response, "cache-control"), "private, no-store");
    let found = lines(&response.text().await.unwrap());
    assert_eq!(ids(&found), ["acme-1", "acme-2", "acme-3", "acme-4"]);
    assert_eq!(
        found[0],
        json!({ "id": "acme-1", "request": { "body": { "secret": "acme-1" } }, "cost": 0.25 })
    );

    // Started again it is written anew, and the URL of the file before opens nothing.
    fill(&server, "acme", 7..8).await;
    start(&server, "acme exporter", &id).await;
    let again = ended(&server, "acme exporter", &id).await;
    assert_eq!((&again["records_written"], &again["total_records"]), (&json!(5), &json!(5)));
    failure(reqwest::Client::new().get(&url), StatusCode::NOT_FOUND).await;
    eventually("the file before is deleted, without upkeep", || async {
        files(&server).len() == 1
    })
    .await;
    // Changed it is a draft; what is not named stays.
    let changed = fine(
        &server,
        "acme exporter",
        Method::PUT,
        &path,
        json!({ "filters": { "ai_model": "none" } }),
    )
    .await;
    assert_eq!(changed, json!({ "id": id, "total": 0, "object": "export" }));
    let draft = get(&server, "acme exporter", &path).await;
    assert_eq!(
        (&draft["status"], &draft["requested_data"]),
        (&json!("draft"), &json!(["id", "request", "cost"]))
    );
    server.engine.maintain(Job::Expire, false).await.unwrap();
    assert!(files(&server).is_empty(), "what was replaced is deleted");
    start(&server, "acme exporter", &id).await;
    let empty = ended(&server, "acme exporter", &id).await;
    assert_eq!((&empty["status"], &empty["bytes_written"]), (&json!("success"), &json!(0)));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_portkeys_clients_and_guide_send_is_taken() {
    let server = bed(|_| {}).await;
    fill(&server, "acme", 0..4).await;
    // Python: no body, no content type; Node: the id in the body. Nothing at all is everything.
    let key = "acme exporter";
    let response = with(&server, key, Method::POST, EXPORTS).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let made: Value = response.json().await.unwrap();
    assert_eq!(made["total"], 4);
    let all = get(&server, key, &format!("{EXPORTS}/{}", made["id"].as_str().unwrap())).await;
    let all = all["requested_data"].as_array().unwrap().clone();
    for name in [
        "id",
        "trace_id",
        "created_at",
        "request",
        "response",
        "is_success",
        "ai_org",
        "ai_model",
        "req_units",
        "res_units",
        "total_units",
        "request_url",
        "cost",
        "cost_currency",
        "response_time",
        "response_status_code",
        "mode",
        "config",
        "prompt_slug",
        "metadata",
    ] {
        assert!(all.contains(&json!(name)), "{name}");
    }
    // The seed's thirty, beside the names that only the API has and those of the guide, each under
    // the name asked for.
    let names = [
        "created_at",
        "request.body",
        "response.body",
        "is_success",
        "ai_org",
        "ai_model",
        "req_units",
        "res_units",
        "total_units",
        "cost",
        "cost_currency",
        "request_url",
        "request_method",
        "response_status_code",
        "response_time",
        "cache_status",
        "cache_type",
        "stream_mode",
        "retry_success_count",
        "trace_id",
        "mode",
        "virtual_key",
        "runtime",
        "runtime_version",
        "sdk_version",
        "config",
        "prompt_slug",
        "prompt_version_id",
        "metadata.key",
        "metadata.value",
        "id",
        "request",
        "response",
        "metadata",
        "ai_provider",
        "request_tokens",
        "response_tokens",
        "status_code",
    ];
    let found = written(
        &server,
        key,
        json!({ "filters": { "prompt_token_min": "3" }, "requested_data": names.to_vec() }),
    )
    .await;
    let keys: Vec<&String> = found[0].as_object().unwrap().keys().collect();
    let mut wanted = names.to_vec();
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    for (name, value) in [
        ("request.body", json!({ "secret": "acme-3" })),
        ("request", json!({ "body": { "secret": "acme-3" } })),
        ("metadata.key", json!(["team"])),
        ("metadata", json!({ "team": "a" })),
        ("ai_provider", json!("openai")),
        ("request_tokens", json!(3)),
        ("response_tokens", json!(2)),
        ("status_code", json!(200)),
        ("config", Value::Null),
    ] {
        assert_eq!(found[0][name], value, "{name}");
    }
    let frame = json!({ "created_at": { "gte": "2026-11-02", "lte": "2026-11-03T10:00:00Z" } });
    let of = |filters: Value| json!({ "filters": filters, "requested_data": ["id"] });
    assert_eq!(ids(&written(&server, key, of(frame)).await), ["acme-1", "acme-2"]);
    for (filters, wanted) in [
        (
            json!({ "ai_org_model": "anthropic__x, openai__gpt-4o", "metadata": { "team": "a" }, "page_size": 50000 }),
            4,
        ),
        (json!({ "status_code": "200, 429", "current_page": 0 }), 4),
        (json!({ "page_size": 3 }), 3),
        (json!({ "page_size": 3, "current_page": 1 }), 1),
        (json!({ "page_size": 3, "current_page": 2 }), 0),
        (json!({ "current_page": 1 }), 0),
        (json!({ "workspace_slug": "ads", "completion_token_max": 2 }), 2),
        (json!({ "total_units_min": 100 }), 0),
    ] {
        assert_eq!(written(&server, key, of(filters.clone())).await.len(), wanted, "{filters}");
    }
    for (body, words) in [
        (json!({ "filters": { "ai_models": "x" } }), "filter `ai_models` is unknown"),
        (json!({ "filters": { "cost_min": "much" } }), "`cost_min`"),
        (json!({ "filters": {}, "requested_data": ["price"] }), "column `price` is unknown"),
        (json!({ "filters": [] }), "field `filters` is `[]`; expected a JSON object"),
        (json!({ "filters": { "status": {} } }), "`status` is `{}`; expected texts"),
        (
            json!({ "filters": { "time_of_generation_min": true } }),
            "`time_of_generation_min` is `true`; expected a date",
        ),
        (
            json!({ "filters": { "created_at": { "gte": 5 } } }),
            "`created_at` is `{\"gte\":5}`; expected",
        ),
        (
            json!({ "filters": { "page_size": [5] } }),
            "`page_size` is `[5]`; expected a whole number",
        ),
        (
            json!({ "filters": { "cost_min": 2, "cost_max": 1 } }),
            "`cost_min` is 2, which is above `cost_max`, 1",
        ),
        (
            json!({ "requested_data": [{}] }),
            "field `requested_data` is `{}`; expected an array of column names",
        ),
        (json!({ "description": [1] }), "field `description` is `[1]`; expected a text"),
        (
            json!({ "workspace_id": "asd" }),
            "`workspace_id` is `asd`; the workspaces of the organisation are ads, search",
        ),
        (json!([]), "is not a JSON object"),
    ] {
        let (message, _) =
            failure(failing(&server, key, Method::POST, EXPORTS, &body), StatusCode::BAD_REQUEST)
                .await;
        assert!(message.contains(words), "{message}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_goes_on() {
    let server = bed(|_| {}).await;
    // More than one piece of a file.
    let big = |id: u64| {
        let mut log = log(&format!("acme-{id}"), "acme", id);
        log["request"]["body"] = json!("x".repeat(900_000));
        format!("{log}\n")
    };
    server.ingest((0..4).map(big).collect::<String>()).await;
    let id = create(&server, "acme exporter", json!({ "requested_data": ["id", "request"] })).await;
    start(&server, "acme exporter", &id).await;
    let bytes = ended(&server, "acme exporter", &id).await["bytes_written"].as_u64().unwrap();
    assert!(bytes > 3 << 20, "{bytes}");
    let url = url(&server, "acme exporter", &id).await;
    let whole = fetch(&url, &[]).await;
    let (etag, modified) =
        (header(&whole, "etag").to_owned(), header(&whole, "last-modified").to_owned());
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole.len() as u64, bytes);

    let middle = bytes / 2;
    for (range, wanted) in [
        (format!("bytes={middle}-"), middle..bytes),
        (format!("bytes=5-{middle}"), 5..middle + 1),
        ("bytes=-10".to_owned(), bytes - 10..bytes),
    ] {
        let part = fetch(&url, &[("range", &range), ("if-range", &etag)]).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(
            header(&part, "content-range"),
            format!("bytes {}-{}/{bytes}", wanted.start, wanted.end - 1)
        );
        assert_eq!(header(&part, "content-length"), (wanted.end - wanted.start).to_string());
        let part = part.bytes().await.unwrap();
        assert!(part == whole[wanted.start as usize..wanted.end as usize], "{range}");
    }
    let dated = fetch(&url, &[("range", "bytes=1-"), ("if-range", &modified)]).await;
    assert_eq!(dated.status(), StatusCode::PARTIAL_CONTENT);
    for other in [("bytes=1-", "\"other\""), ("bytes=0-1,4-5", etag.as_str()), ("lines=1-", &etag)]
    {
        let response = fetch(&url, &[("range", other.0), ("if-range", other.1)]).await;
        assert_eq!(
            (response.status(), response.bytes().await.unwrap().len() as u64),
            (StatusCode::OK, bytes),
            "{other:?}"
        );
    }
    let behind = fetch(&url, &[("range", &format!("bytes={bytes}-"))]).await;
    assert_eq!(behind.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&behind, "content-range"), format!("bytes */{bytes}"));
    assert_eq!(fetch(&url, &[("if-none-match", &etag)]).await.status(), StatusCode::NOT_MODIFIED);
    let head = reqwest::Client::new().head(&url).header("range", "bytes=1-2").send().await.unwrap();
    assert_eq!(
        (head.status(), header(&head, "content-length")),
        (StatusCode::OK, bytes.to_string().as_str())
    );
    assert_eq!(header(&head, "etag"), etag);

    let (rest, mac) = url.rsplit_once('.').unwrap();
    let (name, _) = rest.rsplit_once('.').unwrap();
    let forged = [
        format!("{name}.99999999999.{mac}"),
        format!("{rest}.{}", "0".repeat(64)),
        format!("{}/exports/x", server.base),
    ];
    let mut told = std::collections::BTreeSet::new();
    for forged in forged {
        told.insert(failure(reqwest::Client::new().get(&forged), StatusCode::NOT_FOUND).await.0);
    }
    assert_eq!(told.len(), 1, "one answer whatever is wrong");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_workspaces_stay_apart() {
    let server = bed(|_| {}).await;
    fill(&server, "acme", 0..4).await;
    fill(&server, "zen", 0..4).await;
    let acme = create(&server, "acme exporter", json!({ "requested_data": ["id"] })).await;
    let search = create(&server, "acme search", json!({ "requested_data": ["id"] })).await;
    for (method, what) in [
        (Method::GET, ""),
        (Method::PUT, ""),
        (Method::POST, "/start"),
        (Method::POST, "/cancel"),
        (Method::GET, "/download"),
    ] {
        for (key, id) in [("zen admin", &acme), ("zen search", &search), ("acme search", &acme)] {
            let path = format!("{EXPORTS}/{id}{what}");
            let request = failing(&server, key, method.clone(), &path, &json!({}));
            let (message, _) = failure(request, StatusCode::NOT_FOUND).await;
            assert_eq!(message, format!("export `{id}` does not exist"));
        }
    }
    let total = |key: &'static str, query: &'static str| {
        let server = &server;
        async move { get(server, key, &format!("{EXPORTS}{query}")).await["total"].clone() }
    };
    assert_eq!(total("acme exporter", "").await, 2);
    assert_eq!(total("acme exporter", "?workspace_id=search").await, 1);
    assert_eq!(total("acme search", "?").await, 1);
    assert_eq!(total("acme search", "?workspace_id=ads&x=y").await, 0);
    assert_eq!(total("zen admin", "").await, 0);

    // What a job reads is what its maker may read, whatever its filters say.
    let of =
        |filters: Value| json!({ "filters": filters, "requested_data": ["id", "organisation_id"] });
    assert_eq!(ids(&written(&server, "acme search", of(json!({}))).await), ["acme-0", "acme-2"]);
    assert!(
        written(&server, "acme search", of(json!({ "workspace_slug": "ads" }))).await.is_empty()
    );
    assert!(
        written(&server, "acme exporter", of(json!({ "organisation_id": "zen" }))).await.is_empty()
    );
    let narrowed = json!({ "workspace_id": "ads", "filters": {}, "requested_data": ["id"] });
    assert_eq!(ids(&written(&server, "acme exporter", narrowed).await), ["acme-1", "acme-3"]);
    let foreign =
        failing(&server, "acme search", Method::POST, EXPORTS, &json!({ "workspace_id": "ads" }));
    assert!(
        failure(foreign, StatusCode::FORBIDDEN).await.0.contains("bound to workspace `search`")
    );
    assert_eq!(
        written(&server, super::KEY, of(json!({}))).await.len(),
        8,
        "the operator's has all"
    );

    // A key that reads no bodies neither exports them nor fetches what another key exported.
    let refused = failing(
        &server,
        "acme blind",
        Method::POST,
        EXPORTS,
        &json!({ "requested_data": ["request.body"] }),
    );
    assert!(failure(refused, StatusCode::FORBIDDEN).await.0.contains("`logs.read`"));
    let blind = written(&server, "acme blind", json!({ "filters": {} })).await;
    assert!(blind[0].get("request").is_none() && blind[0].get("id").is_some());
    let bodies =
        create(&server, "acme exporter", json!({ "requested_data": ["request.body"] })).await;
    start(&server, "acme blind", &bodies).await;
    ended(&server, "acme blind", &bodies).await;
    let refused = failing(
        &server,
        "acme blind",
        Method::GET,
        &format!("{EXPORTS}/{bodies}/download"),
        &Value::Null,
    );
    assert!(failure(refused, StatusCode::FORBIDDEN).await.0.contains("holds bodies"));
    // A key that is revoked stops nothing that it made.
    let revoke = |document: &mut Document| {
        let id = document
            .keys
            .iter()
            .find(|key| key.sha256 == sha256("acme search"))
            .unwrap()
            .id
            .clone();
        document
            .revoke_key(&id, &gatelog::engine::Access::operator("test"), chrono::Utc::now())
            .map(|_| ())
    };
    server.engine.catalog().change(revoke).await.unwrap();
    start(&server, "acme exporter", &search).await;
    let job = ended(&server, "acme exporter", &search).await;
    assert_eq!(
        (&job["status"], &job["records_written"]),
        (&json!("success"), &json!(2)),
        "its bounds stay"
    );
    server.end().await;
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_fields_are_exported_by_nobody() {
    let server = bed(|_| {}).await;
    fill(&server, "acme", 0..2).await;
    let key = "acme exporter";
    let restrictions = format!("{EXPORTS}/field-restrictions");
    let free = get(&server, key, &restrictions).await;
    assert_eq!(
        (&free["denied_fields"], &free["object"]),
        (&json!([]), &json!("export-field-restrictions"))
    );
    assert!(free["allowed_fields"].as_array().unwrap().contains(&json!("cost")));
    let job = create(&server, key, json!({ "requested_data": ["id", "cost"] })).await;
    let open = create(&server, key, json!({})).await;
    start(&server, key, &job).await;
    ended(&server, key, &job).await;
    let old = url(&server, key, &job).await;
    let dear =
        create(&server, key, json!({ "filters": { "cost_min": 0.1 }, "requested_data": ["id"] }))
            .await;

    let admin = "/v1/admin/organisations/acme";
    let deny = json!({ "denied_fields": ["cost"], "workspace_denied_fields": { "search": ["request.body", "ai_provider"] } });
    let told = fine(&server, super::KEY, Method::PATCH, admin, deny).await;
    assert_eq!(told["denied_fields"], json!(["cost"]));
    assert_eq!(
        told["workspace_denied_fields"],
        json!({ "search": ["ai_provider", "request.body"] })
    );
    let wrong = json!({ "denied_fields": ["price"] });
    failure(failing(&server, super::KEY, Method::PATCH, admin, &wrong), StatusCode::BAD_REQUEST)
        .await;

    let told = get(&server, key, &restrictions).await;
    assert_eq!(
        (&told["denied_fields"], &told["export_settings"]),
        (&json!(["cost"]), &json!({ "deniedFields": ["cost"] }))
    );
    assert!(!told["allowed_fields"].as_array().unwrap().contains(&json!("cost")));
    let narrow = get(&server, key, &format!("{restrictions}?workspace_id=search")).await;
    assert_eq!(narrow["denied_fields"], json!(["ai_provider", "cost", "request.body"]));
    assert_eq!(
        get(&server, "acme search", &restrictions).await["denied_fields"],
        narrow["denied_fields"]
    );
    assert_eq!(get(&server, "zen exporter", &restrictions).await["denied_fields"], json!([]));

    let path = format!("{EXPORTS}/{open}");
    let named = json!({ "requested_data": ["id", "cost"] });
    for (key, method, path, body, words) in [
        (key, Method::POST, EXPORTS, &named, "`cost` may not be exported"),
        (key, Method::PUT, path.as_str(), &named, "`cost` may not be exported"),
        (
            "acme search",
            Method::POST,
            EXPORTS,
            &json!({ "requested_data": ["ai_org", "request"] }),
            "`ai_org`, `request`",
        ),
        (
            key,
            Method::POST,
            EXPORTS,
            &json!({ "workspace_id": "search", "requested_data": ["request"] }),
            "`request`",
        ),
        (
            key,
            Method::POST,
            "/v1/export",
            &json!({ "columns": ["id", "cost"] }),
            "`cost` may not be exported",
        ),
        // How many records match would tell the values.
        (
            key,
            Method::POST,
            EXPORTS,
            &json!({ "filters": { "cost_max": "0.3" } }),
            "`cost` may not be exported",
        ),
        (
            key,
            Method::PUT,
            path.as_str(),
            &json!({ "filters": { "cost_min": 0.1 } }),
            "nor used in a filter",
        ),
        (
            "acme search",
            Method::POST,
            EXPORTS,
            &json!({ "filters": { "ai_org_model": "a__b" } }),
            "`ai_provider`",
        ),
        // Jobs of the time before.
        (
            key,
            Method::POST,
            &format!("{EXPORTS}/{job}/start"),
            &Value::Null,
            "`cost` may not be exported",
        ),
        (
            key,
            Method::POST,
            &format!("{EXPORTS}/{dear}/start"),
            &Value::Null,
            "`cost` may not be exported",
        ),
    ] {
        let (message, _) =
            failure(failing(&server, key, method, path, body), StatusCode::FORBIDDEN).await;
        assert!(message.contains(words), "{message}");
    }
    let gone =
        failing(&server, key, Method::GET, &format!("{EXPORTS}/{job}/download"), &Value::Null);
    assert!(
        failure(gone, StatusCode::NOT_FOUND)
            .await
            .0
            .contains("fields were denied since it was written")
    );
    failure(reqwest::Client::new().get(&old), StatusCode::NOT_FOUND).await;
    start(&server, key, &open).await;
    ended(&server, key, &open).await;
    let found = lines(&fetch(&url(&server, key, &open).await, &[]).await.text().await.unwrap());
    assert!(
        found[0].get("cost").is_none() && found[0].get("cost_currency").is_some(),
        "{}",
        found[0]
    );
    let direct =
        with(&server, key, Method::GET, "/v1/export").send().await.unwrap().text().await.unwrap();
    assert!(!direct.contains("\"cost\":") && direct.contains("\"request\":{\"body\""), "{direct}");
    let direct = with(&server, "acme search", Method::GET, "/v1/export")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        !direct.contains("\"request\":") && !direct.contains("ai_org") && direct.contains("acme-0"),
        "{direct}"
    );
    let lifted =
        fine(&server, super::KEY, Method::PATCH, admin, json!({ "denied_fields": [] })).await;
    assert_eq!(lifted["denied_fields"], json!([]));
    start(&server, key, &job).await;
    assert_eq!(ended(&server, key, &job).await["status"], "success");

    // A column that is a part of another one tells it, and the other way round.
    let parts = json!({ "denied_fields": ["user_id", "date", "trace_id"] });
    fine(&server, super::KEY, Method::PATCH, admin, parts).await;
    for (path, body, words) in [
        (EXPORTS, json!({ "requested_data": ["metadata"] }), "`metadata` may not"),
        (EXPORTS, json!({ "requested_data": ["created_at"] }), "`created_at` may not"),
        (EXPORTS, json!({ "filters": { "metadata": { "_user": "ada" } } }), "`user_id` may not"),
        (
            EXPORTS,
            json!({ "filters": { "created_at": { "gte": "2026-11-01" } } }),
            "`date` may not",
        ),
        // Whoever says something of a trace would find its records by what was said.
        (EXPORTS, json!({ "filters": { "weighted_feedback_min": 1 } }), "`trace_id` may not"),
        ("/v1/export", json!({ "columns": ["metadata.value"] }), "`metadata.value` may not"),
        ("/v1/export", json!({ "from": "2026-11-01" }), "`date` may not"),
        ("/v1/export", json!({ "to": "2026-11-01" }), "`date` may not"),
        ("/v1/export", json!({ "after": "2026-11-01T10:00:00Z,acme-0" }), "`date` may not"),
    ] {
        let (message, _) =
            failure(failing(&server, key, Method::POST, path, &body), StatusCode::FORBIDDEN).await;
        assert!(message.contains(words), "{message}");
    }
    let team = json!({ "filters": { "metadata": { "team": "a" } }, "requested_data": ["id", "metadata.key"] });
    assert_eq!(written(&server, key, team).await.len(), 2);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_shows_less_takes_files_along() {
    let plans = Plans::parse("[capped]\nexport_rows = 2\n[near]\nexport_days = 3").unwrap();
    let server = bed(|config| config.plans = plans).await;
    for (organisation, plan, why) in [
        ("acme", json!({ "retention_days": 30 }), "records are kept shorter"),
        ("zen", json!({ "plan": "near" }), "exports reach less far back"),
    ] {
        let key = &format!("{organisation} exporter");
        let id = done(&server, key, json!({ "requested_data": ["id"] })).await;
        let url = url(&server, key, &id).await;
        assert_eq!(fetch(&url, &[]).await.status(), StatusCode::OK);
        fine(
            &server,
            super::KEY,
            Method::PATCH,
            &format!("/v1/admin/organisations/{organisation}"),
            plan,
        )
        .await;
        failure(reqwest::Client::new().get(&url), StatusCode::NOT_FOUND).await;
        let job = get(&server, key, &format!("{EXPORTS}/{id}")).await;
        assert!(job["file_gone"].as_str().unwrap().contains(why), "{job}");
        eventually("the file is deleted", || async { files(&server).is_empty() }).await;
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_downloads_of_one_organisation_leave_room_for_others() {
    let server = bed(|_| {}).await;
    let mut urls = Vec::new();
    for organisation in ["acme", "zen"] {
        fill(&server, organisation, 0..1).await;
        let key = &format!("{organisation} exporter");
        let id = done(&server, key, json!({ "requested_data": ["id"] })).await;
        urls.push(url(&server, key, &id).await.strip_prefix(&server.base).unwrap().to_owned());
    }
    // Nobody reads a body that is held here.
    let router = gatelog::http::router(server.engine.clone());
    let open = async |url: &str| {
        let request = axum::http::Request::get(url).body(axum::body::Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(open(&urls[0]).await);
        assert_eq!(held[held.len() - 1].status(), StatusCode::OK);
    }
    let refused = open(&urls[0]).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(open(&urls[1]).await.status(), StatusCode::OK, "another organisation's");
    held.pop();
    assert_eq!(open(&urls[0]).await.status(), StatusCode::OK, "one has ended");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_say_who_exports_how_far_back_and_how_much() {
    let server = bed(|_| {}).await;
    let now = chrono::Utc::now();
    let mut records = String::new();
    for (id, days) in [("today", 0), ("recent", 29), ("old", 31)] {
        for organisation in ["thirty", "capped", "dev"] {
            let mut log = log(&format!("{organisation}-{id}"), organisation, 0);
            log["created_at"] = json!((now - chrono::TimeDelta::days(days)).to_rfc3339());
            records.push_str(&format!("{log}\n"));
        }
    }
    server.ingest(records).await;
    let none = failing(&server, "dev exporter", Method::POST, EXPORTS, &json!({ "filters": {} }));
    assert!(
        failure(none, StatusCode::FORBIDDEN).await.0.contains("plan `developer` has no exports")
    );
    let far = json!({ "filters": { "time_of_generation_min": "2020-01-01" } });
    let far = failing(&server, "thirty exporter", Method::POST, EXPORTS, &far);
    let (message, _) = failure(far, StatusCode::FORBIDDEN).await;
    assert!(message.contains("30 days back; set `time_of_generation_min` to"), "{message}");
    let all = json!({ "filters": {}, "requested_data": ["id"] });
    assert_eq!(
        ids(&written(&server, "thirty exporter", all.clone()).await),
        ["thirty-recent", "thirty-today"]
    );

    let id = create(&server, "capped exporter", all).await;
    start(&server, "capped exporter", &id).await;
    let capped = ended(&server, "capped exporter", &id).await;
    let figures =
        ["total_records", "records_written", "max_records"].map(|name| capped[name].clone());
    assert_eq!(
        figures,
        [json!(3), json!(2), json!(2)],
        "what matches, what is in the file, and why it is less"
    );
    // The direct export ends there too, and says so; it can be gone on with.
    for (query, wanted) in [
        ("", &["capped-old", "capped-recent"][..]),
        ("?limit=9", &["capped-old", "capped-recent"]),
        ("?limit=1", &["capped-old"]),
    ] {
        let direct = with(&server, "capped exporter", Method::GET, &format!("/v1/export{query}"))
            .send()
            .await
            .unwrap();
        assert_eq!(header(&direct, "x-gatelog-max-records"), "2");
        assert_eq!(ids(&lines(&direct.text().await.unwrap())), wanted);
    }
    let free = with(&server, "thirty exporter", Method::GET, "/v1/export").send().await.unwrap();
    assert_eq!(header(&free, "x-gatelog-max-records"), "");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_and_the_end_of_an_organisation_take_its_files_along() {
    let server = bed(|_| {}).await;
    fill(&server, "acme", 0..3).await;
    fill(&server, "zen", 0..3).await;
    let mut urls = Vec::new();
    let mut jobs = Vec::new();
    for key in ["acme exporter", "zen exporter"] {
        let id = done(&server, key, json!({ "requested_data": ["id"] })).await;
        urls.push(url(&server, key, &id).await);
        jobs.push(id);
    }
    assert_eq!(files(&server).len(), 2);
    let erase = json!({ "organisation": "acme", "ids": ["acme-1"] }).to_string();
    let erased = server.post("/v1/admin/erasures", erase).send().await.unwrap();
    assert_eq!(erased.status(), StatusCode::ACCEPTED);
    // Nobody waits for upkeep: the URL opens nothing as soon as the erasure is acked.
    failure(reqwest::Client::new().get(&urls[0]), StatusCode::NOT_FOUND).await;
    let gone = failing(
        &server,
        "acme exporter",
        Method::GET,
        &format!("{EXPORTS}/{}/download", jobs[0]),
        &Value::Null,
    );
    assert!(failure(gone, StatusCode::NOT_FOUND).await.0.contains("records were erased"));
    assert_eq!(fetch(&urls[1], &[]).await.status(), StatusCode::OK);
    eventually("upkeep deletes the file", || async { files(&server).len() == 1 }).await;
    eventually("the job says why", || async {
        let job = get(&server, "acme exporter", &format!("{EXPORTS}/{}", jobs[0])).await;
        job["file_gone"].as_str().is_some_and(|why| why.contains("records were erased"))
            && job["status"] == "success"
    })
    .await;
    start(&server, "acme exporter", &jobs[0]).await;
    ended(&server, "acme exporter", &jobs[0]).await;
    let found =
        fetch(&url(&server, "acme exporter", &jobs[0]).await, &[]).await.text().await.unwrap();
    assert_eq!(ids(&lines(&found)), ["acme-0", "acme-2"]);

    let deleted = with(&server, super::KEY, Method::DELETE, "/v1/admin/organisations/zen")
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    failure(reqwest::Client::new().get(&urls[1]), StatusCode::NOT_FOUND).await;
    eventually("upkeep deletes the file", || async { files(&server).len() == 1 }).await;
    let left = get(&server, super::KEY, EXPORTS).await;
    assert_eq!((&left["total"], &left["data"][0]["id"]), (&json!(1), &json!(jobs[0])));

    // An end user who is erased is named by no job either.
    let of =
        json!({ "filters": { "metadata": { "_user": "ada" } }, "description": "what ada said" });
    let named = create(&server, "acme exporter", of).await;
    let told = create(&server, "acme exporter", json!({ "description": "what ada said" })).await;
    let erase = json!({ "organisation": "acme", "user": "ada" }).to_string();
    assert_eq!(
        server.post("/v1/admin/erasures", erase).send().await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    let gone =
        failing(&server, "acme exporter", Method::GET, &format!("{EXPORTS}/{named}"), &Value::Null);
    failure(gone, StatusCode::NOT_FOUND).await;
    assert_eq!(
        get(&server, "acme exporter", &format!("{EXPORTS}/{told}")).await["description"],
        Value::Null
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_sent_again_is_answered_as_the_first_time() {
    let server = bed(|_| {}).await;
    // As the SDKs do it: the same bytes on another connection, after the first one broke.
    let send = |path: String, body: &'static str| {
        let server = &server;
        async move {
            let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
            let request = client
                .post(format!("{}{path}", server.base))
                .header("x-portkey-api-key", "acme exporter");
            let response = request
                .header("x-portkey-package-version", "portkey-2.3.4")
                .body(body)
                .send()
                .await
                .unwrap();
            let told: (StatusCode, Value) = (response.status(), response.json().await.unwrap());
            drop(client);
            tokio::time::sleep(Duration::from_millis(100)).await;
            told
        }
    };
    let (_, first) = send(EXPORTS.to_owned(), "{}").await;
    let (_, second) = send(EXPORTS.to_owned(), "{}").await;
    assert_eq!(first, second);
    assert_eq!(get(&server, "acme exporter", EXPORTS).await["total"], 1);
    let id = first["id"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(send(format!("{EXPORTS}/{id}/start"), "").await.0, StatusCode::OK);
    }
    ended(&server, "acme exporter", id).await;
    server.end().await;
}
