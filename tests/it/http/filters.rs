//! One filter, one answer: what a list finds, an export job writes and SQL counts is the same, and
//! so is a moment on every route, however it is spelled. Ids of any kind have a URL that opens
//! their log.

use std::collections::BTreeSet;

use gatelog::logs::FILTER_NAMES;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::exports::{create, done, fetch, url};
use super::log_objects::{get, with};
use super::{KEY, Server, lines};

fn of(number: usize, values: &[Value]) -> Value {
    values[number % values.len()].clone()
}

/// Records whose values have commas, quotes, blanks and underscores in them.
fn odd_records() -> Vec<Value> {
    let record = |number: usize| {
        json!({
            "id": format!("r-{number:02}"),
            "created_at": format!("2026-11-{:02}T{:02}:00:00Z", number % 4 + 8, number % 24),
            "organisation_id": of(number, &[json!("acme"), json!("zen,ltd")]),
            "ai_org": of(number, &[json!("openai"), json!("x,y"), json!(null), json!("open__ai"), json!("openai")]),
            "ai_model": of(number, &[
                json!("gpt-4o"), json!("a,b"), json!("a"), json!("b"), json!("m'x"), json!("m__n"), json!(" a "), json!("[\"a\"]"),
            ]),
            "total_units": number * 10, "req_units": number * 6, "res_units": number * 4, "cost": number as f64 / 1000.0,
            "response_status_code": of(number, &[json!(200), json!(429), json!(500), json!(204)]),
            "cache_status": of(number, &[json!("HIT"), json!("MISS"), json!("SEMANTIC HIT"), json!("REFRESH"), json!(null)]),
            "mode": of(number, &[json!("SINGLE"), json!("FALLBACK"), json!("LOADBALANCE")]),
            "retry_success_count": of(number, &[json!(0), json!(1), json!(-1), json!(null)]),
            "trace_id": format!("t {}", number / 2),
            "span_id": of(number, &[json!("s,1"), json!("s"), json!("1")]),
            "virtual_key": of(number, &[json!("vk-1"), json!("vk-2"), json!("vk-1,vk-2")]),
            "config": of(number, &[json!("pc-0"), json!("{\"retry\":1,\"cache\":2}")]),
            "prompt_slug": of(number, &[json!("p0"), json!("p,1")]),
            "workspace_slug": of(number, &[json!("w0"), json!("w,1"), json!("w")]),
            "api_key_id": of(number, &[json!("k0"), json!("k1"), json!("k2")]),
            "internal_trace_id": of(number, &[json!("c,1"), json!("c"), json!("1")]),
            "metadata": {
                "_user": of(number, &[json!("u0"), json!("u,1"), json!("u")]),
                "team": of(number, &[json!("a,b"), json!("a"), json!("é"), json!("1"), json!("true")]),
            },
        })
    };
    (0..64).map(record).collect()
}

/// Names of filters with their text in a list, further forms that they have in JSON, and the
/// condition of SQL that they are.
type Spelled = (&'static [(&'static str, &'static str)], Vec<Value>, &'static str);

fn filters() -> Vec<Spelled> {
    vec![
        (
            &[("time_of_generation_min", "2026-11-10")],
            vec![],
            "created_at >= timestamp '2026-11-10T00:00:00Z'",
        ),
        (
            &[("time_of_generation_max", "2026-11-10T10:00:00+01:00")],
            vec![
                json!({ "created_at": { "lte": "2026-11-10 09:00" } }),
                json!({ "time_of_generation_max": 1_794_301_200 }),
            ],
            "created_at <= timestamp '2026-11-10T09:00:00Z'",
        ),
        (
            &[("total_units_min", "100")],
            vec![json!({ "total_units_min": 1e2 })],
            "total_units >= 100",
        ),
        (
            &[("total_units_max", "1e2")],
            vec![json!({ "total_units_max": "100.0" })],
            "total_units <= 100",
        ),
        (
            &[("cost_min", "1e-2"), ("cost_max", "0.05")],
            vec![json!({ "cost_min": 0.01, "cost_max": 5e-2 })],
            "cost between 0.01 and 0.05",
        ),
        (
            &[("prompt_token_min", "60")],
            vec![json!({ "prompt_token_min": 60.0 })],
            "req_units >= 60",
        ),
        (&[("prompt_token_max", "60")], vec![], "req_units <= 60"),
        (&[("completion_token_min", "100")], vec![], "res_units >= 100"),
        (
            &[("completion_token_max", "40")],
            vec![json!({ "completion_token_max": "40" })],
            "res_units <= 40",
        ),
        (
            &[("weighted_feedback_min", "1"), ("weighted_feedback_max", "5")],
            vec![json!({ "weighted_feedback_min": 1, "weighted_feedback_max": "5.0" })],
            "trace_id = 't 3'",
        ),
        (
            &[("status_code", "429, 500")],
            vec![json!({ "status_code": [429, "500"] })],
            "response_status_code in (429, 500)",
        ),
        (
            &[("is_success", "true")],
            vec![json!({ "is_success": true }), json!({ "is_success": 1 })],
            "is_success",
        ),
        (&[("is_success", "0")], vec![json!({ "is_success": false })], "is_success = false"),
        (
            &[("status_code", "204")],
            vec![json!({ "status_code": 204 })],
            "response_status_code = 204",
        ),
        (
            &[("ai_model", "a,b")],
            vec![json!({ "ai_model": ["a", "b"] }), json!({ "ai_model": "[\"a\",\"b\"]" })],
            "ai_model in ('a', 'b')",
        ),
        (&[("ai_model", "[\"a,b\"]")], vec![json!({ "ai_model": ["a,b"] })], "ai_model = 'a,b'"),
        (&[("ai_model", "[\" a \"]")], vec![json!({ "ai_model": [" a "] })], "ai_model = ' a '"),
        (
            &[("ai_model", "[\"[\\\"a\\\"]\"]")],
            vec![json!({ "ai_model": ["[\"a\"]"] })],
            "ai_model = '[\"a\"]'",
        ),
        (&[("ai_model", "m'x")], vec![json!({ "ai_model": ["m'x"] })], "ai_model = 'm''x'"),
        (
            &[("ai_org_model", "openai__gpt-4o, openai__a")],
            vec![json!({ "ai_org_model": ["openai__gpt-4o", "openai__a"] })],
            "ai_org = 'openai' and ai_model in ('gpt-4o', 'a')",
        ),
        (
            &[("ai_org_model", "openai__m__n")],
            vec![json!({ "ai_org_model": ["openai__m__n"] })],
            "ai_org = 'openai' and ai_model = 'm__n'",
        ),
        (&[("ai_org_model", "open__ai__a")], vec![], "ai_org = 'open__ai' and ai_model = 'a'"),
        (
            &[("ai_org_model", "[\"x,y__a,b\"]")],
            vec![json!({ "ai_org_model": ["x,y__a,b"] })],
            "ai_org = 'x,y' and ai_model = 'a,b'",
        ),
        (
            &[("virtual_keys", "vk-1,vk-2")],
            vec![json!({ "virtual_keys": ["vk-1", "vk-2"] })],
            "virtual_key in ('vk-1', 'vk-2')",
        ),
        (
            &[("virtual_keys", "[\"vk-1,vk-2\"]")],
            vec![json!({ "virtual_keys": ["vk-1,vk-2"] })],
            "virtual_key = 'vk-1,vk-2'",
        ),
        (&[("configs", "pc-0")], vec![], "config = 'pc-0'"),
        (
            &[("configs", "[\"{\\\"retry\\\":1,\\\"cache\\\":2}\"]")],
            vec![json!({ "configs": ["{\"retry\":1,\"cache\":2}"] })],
            "config like '{%'",
        ),
        (
            &[("prompt_slug", "[\"p,1\"]")],
            vec![json!({ "prompt_slug": ["p,1"] })],
            "prompt_slug = 'p,1'",
        ),
        (
            &[("trace_id", "t 1, t 2")],
            vec![json!({ "trace_id": ["t 1", "t 2"] })],
            "trace_id in ('t 1', 't 2')",
        ),
        (&[("span_id", "s,1")], vec![json!({ "span_id": ["s", 1] })], "span_id in ('s', '1')"),
        (&[("api_key_ids", "k0")], vec![json!({ "api_key_ids": ["k0", ""] })], "api_key_id = 'k0'"),
        (
            &[("workspace_slug", "[\"w,1\"]")],
            vec![json!({ "workspace_slug": ["w,1"] })],
            "workspace_slug = 'w,1'",
        ),
        (
            &[("organisation_id", "[\"zen,ltd\"]")],
            vec![json!({ "organisation_id": ["zen,ltd"] })],
            "organisation_id = 'zen,ltd'",
        ),
        (
            &[("internal_trace_id", "[\"c,1\"]")],
            vec![json!({ "internal_trace_id": ["c,1"] })],
            "internal_trace_id = 'c,1'",
        ),
        (&[("user_id", "[\"u,1\"]")], vec![json!({ "user_id": ["u,1"] })], "user_id = 'u,1'"),
        (
            &[("cache_status", "hit,DISABLED")],
            vec![json!({ "cache_status": ["HIT", "disabled"] })],
            "cache_status = 'HIT' or cache_status is null",
        ),
        (
            &[("metadata", "{\"team\":\"a,b\"}")],
            vec![json!({ "metadata": { "team": "a,b" } })],
            "metadata['team'] = 'a,b'",
        ),
        (
            &[("metadata", "{\"team\":1}")],
            vec![json!({ "metadata": { "team": 1 } })],
            "metadata['team'] = '1'",
        ),
        (
            &[("metadata", "{\"team\":true,\"_user\":\"u,1\"}")],
            vec![json!({ "metadata": { "team": true, "_user": "u,1" } })],
            "metadata['team'] = 'true' and metadata['_user'] = 'u,1'",
        ),
        (
            &[("status", "Cache Hit, Retry Failed")],
            vec![json!({ "status": ["Cache Hit", "Retry Failed"] })],
            "cache_status = 'HIT' and (retry_success_count < 0 or (retry_success_count > 0 and response_status_code not between 200 and 299))",
        ),
        (
            &[("ai_model", "a"), ("status_code", "500"), ("cost_min", "0")],
            vec![json!({ "ai_model": ["a"], "status_code": 500, "cost_min": 0 })],
            "ai_model = 'a' and response_status_code = 500",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_finds_the_same_in_lists_exports_and_sql() {
    let server = Server::start().await;
    let records = odd_records();
    let (files, memory) = records.split_at(40);
    let text =
        |records: &[Value]| records.iter().map(|record| format!("{record}\n")).collect::<String>();
    server.ingest(text(files)).await;
    server.engine.flush().await.unwrap();
    server.ingest(text(memory)).await;
    for (trace, value) in [("t 3", 3), ("t 4", -8)] {
        let said = json!({ "trace_id": trace, "value": value, "organisation_id": "acme" });
        server
            .post("/v1/feedback", said.to_string())
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
    }
    let mut names = BTreeSet::new();
    for (texts, forms, condition) in filters() {
        names.extend(texts.iter().map(|(name, _)| *name));
        // Feedback is on records of one organisation.
        let rated =
            if texts[0].0.starts_with("weighted") { " and organisation_id = 'acme'" } else { "" };
        // A model is found by the name that was said and by its canonical one.
        let or_canonical = match texts[0].0 {
            "ai_model" => format!(
                " or {}",
                condition.replace("ai_model", "canonical_model(ai_org, ai_model)")
            ),
            _ => String::new(),
        };
        let wanted: BTreeSet<String> = server
            .sql(&format!("select id from logs where ({condition}{or_canonical}){rated}"))
            .await
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        assert!(
            !wanted.is_empty() && wanted.len() < records.len(),
            "{condition}: {}",
            wanted.len()
        );

        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let query = query
            .extend_pairs(texts)
            .append_pair("include_total", "true")
            .append_pair("page_size", "100")
            .finish();
        let listed = get(&server, KEY, &format!("/v1/logs?{query}")).await;
        let ids = |rows: &[Value]| {
            rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(ids(listed["data"].as_array().unwrap()), wanted, "list: {texts:?}");
        assert_eq!(listed["total"], wanted.len(), "list: {texts:?}");

        let as_text: Value =
            texts.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        for form in forms.iter().chain([&as_text]) {
            let job = create(&server, KEY, json!({ "filters": form })).await;
            let told = get(&server, KEY, &format!("/v1/logs/exports/{job}")).await;
            assert_eq!(told["total_records"], wanted.len(), "export: {form}");
        }
        let body =
            json!({ "filters": forms.first().unwrap_or(&as_text), "requested_data": ["id"] });
        let job = done(&server, KEY, body).await;
        let text = fetch(&url(&server, KEY, &job).await, &[]).await.text().await.unwrap();
        assert_eq!(ids(&lines(&text)), wanted, "export: {texts:?}");
    }
    assert_eq!(names, FILTER_NAMES.split(", ").collect());
    server.end().await;
}

/// Spellings of one moment, 2026-11-21T16:26:58.758Z.
const SPELLINGS: &[&str] = &[
    "2026-11-21T16:26:58.758Z",
    "2026-11-21t16:26:58.758z",
    "2026-11-21T16:26:58.758",
    "2026-11-21 16:26:58.758",
    "2026-11-21 16:26:58.758Z",
    "2026-11-21 16:26:58.758 Z",
    "2026-11-21T16:26:58.758000Z",
    "2026-11-21T16:26:58.758000000Z",
    "2026-11-21T16:26:58,758Z",
    "2026-11-21 16:26:58,758",
    "2026-11-21T16:26:58.758+00",
    "2026-11-21T16:26:58.758+0000",
    "2026-11-21T16:26:58.758+00:00",
    "2026-11-21T16:26:58.758-00:00",
    "2026-11-21T17:26:58.758+01",
    "2026-11-21T17:26:58.758+0100",
    "2026-11-21T17:26:58.758+01:00",
    "2026-11-21 17:26:58.758 +01:00",
    "2026-11-21 17:26:58.758 +0100",
    "2026-11-21T11:26:58.758-0500",
    "2026-11-21 16:26:58.758 +0000 UTC",
    "2026-11-21 16:26:58.758 UTC",
    "2026-11-21T16:26:58.758GMT",
    "1795278418758",
    "1795278418.758",
    "1795278418758000",
    "1795278418758000000",
    "1.795278418758e12",
    "1.795278418758e9",
    "1.795278418758E+12",
];
/// What is no moment, or not certainly one.
const NO_MOMENTS: &[&str] = &[
    "2026-11-21T16:26:58.758+1",
    "2026-11-21T16:26:58.758 Europe/Berlin",
    "2026-11-21T16:26:58.",
    "21/11/2026 16:26",
    "2026",
    "1e400",
    "soon",
];

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_is_the_same_on_every_route() {
    let server = Server::start().await;
    let record =
        |id: &str, at: &str| json!({ "id": id, "created_at": at, "ai_model": "m", "cost": 1 });
    for (number, text) in SPELLINGS.iter().enumerate() {
        server.ingest(record(&format!("r-{number}"), text).to_string()).await;
        if let Ok(number_form) = serde_json::from_str::<serde_json::Number>(text) {
            server
                .ingest(
                    json!({ "id": format!("n-{number}"), "created_at": number_form }).to_string(),
                )
                .await;
        }
    }
    let stored = server.sql("select distinct cast(created_at as text) as at from logs").await;
    assert_eq!(stored, [json!({ "at": "2026-11-21T16:26:58.758Z" })]);
    let count = server.count().await;
    server.ingest(record("before", "2026-11-21T16:26:58.757999Z").to_string()).await;
    server.ingest(record("after", "2026-11-21T16:26:58.758001Z").to_string()).await;

    for text in SPELLINGS {
        // As a client escapes it, and, where that differs, with a bare `+`, which is a blank in a
        // query string.
        for text in [escaped(text), text.replace(' ', "%20")] {
            let frame = format!("time_of_generation_min={text}&time_of_generation_max={text}");
            let listed =
                get(&server, KEY, &format!("/v1/logs?{frame}&include_total=true&page_size=1"))
                    .await;
            assert_eq!(listed["total"], count, "list: {text}");
            let graph = get(&server, KEY, &format!("/v1/analytics/graphs/requests?{frame}")).await;
            assert_eq!(graph["summary"]["total"], count, "{text}: {graph}");
            let report = server
                .get(&format!("/v1/reports/usage_by_month?from={text}"))
                .send()
                .await
                .unwrap();
            let report = lines(&report.text().await.unwrap());
            assert_eq!(report[0]["records"], count + 1, "report: {text}: {report:?}");
            let exported =
                server.get(&format!("/v1/export?to={text}&columns=id")).send().await.unwrap();
            assert_eq!(exported.text().await.unwrap(), "{\"id\":\"before\"}\n", "export: {text}");
            let after = server
                .get(&format!("/v1/export?after={text},r-9&columns=id"))
                .send()
                .await
                .unwrap();
            assert_eq!(after.text().await.unwrap(), "{\"id\":\"after\"}\n", "after: {text}");
        }
        let mut forms = vec![json!(text)];
        forms.extend(serde_json::from_str::<Value>(text).ok());
        for form in forms {
            let filters = json!({ "time_of_generation_min": form, "created_at": { "lte": form } });
            let job = create(&server, KEY, json!({ "filters": filters })).await;
            let told = get(&server, KEY, &format!("/v1/logs/exports/{job}")).await;
            assert_eq!(told["total_records"], count, "job: {form}");
            let exported =
                server.post("/v1/export", json!({ "to": form, "columns": ["id"] }).to_string());
            assert_eq!(
                exported.send().await.unwrap().text().await.unwrap(),
                "{\"id\":\"before\"}\n",
                "{form}"
            );
        }
    }
    for text in NO_MOMENTS {
        let told = server
            .post("/v1/ingest", record("x", text).to_string())
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(told.contains("`created_at`") || told.contains("\"created_at\""), "{text}: {told}");
        let text = escaped(text);
        for path in [
            format!("/v1/logs?time_of_generation_min={text}"),
            format!(
                "/v1/analytics/graphs/requests?time_of_generation_min={text}&time_of_generation_max=2026-11-22"
            ),
            format!("/v1/reports/status?from={text}"),
            format!("/v1/export?from={text}"),
            format!("/v1/feedback?from={text}"),
        ] {
            let response = server.get(&path).send().await.unwrap();
            let (status, told) = (response.status(), response.text().await.unwrap());
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {told}");
            assert!(told.contains("expected"), "{path}: {told}");
        }
    }
    assert_eq!(server.count().await, count + 2);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_behind_any_id() {
    let server = Server::start().await;
    let at = "2026-11-21T16:26:58.758Z";
    for id in [" x ", "x", "x ", "a, b ", "a,acme", "a", ",", "é\t"] {
        let record = json!({ "id": id, "organisation_id": "acme", "created_at": at });
        server.ingest(record.to_string()).await;
    }
    let export = async |after: &str| {
        let response = server
            .get(&format!("/v1/export?columns=id&after={}", escaped(after)))
            .send()
            .await
            .unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{after:?}: {text}");
        lines(&text).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all: Vec<String> =
        lines(&server.get("/v1/export?columns=id").send().await.unwrap().text().await.unwrap())
            .iter()
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect();
    assert_eq!(all.len(), 8);
    for (place, id) in all.iter().enumerate() {
        let rest = &all[place + 1..];
        assert_eq!(export(&format!("{at},{id}")).await, rest, "{id:?}");
        assert_eq!(export(&json!([at, id]).to_string()).await, rest, "{id:?}");
        assert_eq!(export(&json!([at, id, "acme"]).to_string()).await, rest, "{id:?}");
        // With the organisation, unless there is an id that reads the same.
        if id != "a" {
            assert_eq!(export(&format!("{at},{id},acme")).await, rest, "{id:?}");
        }
    }
    // Blanks that somebody typed, where no id has them.
    let behind = |id: &str| all[all.iter().position(|other| other == id).unwrap() + 1..].to_vec();
    assert_eq!(export(&format!("{at},  a ")).await, behind("a"));
    server.end().await;
}

const IDS: &[&str] = &[
    "a/b",
    "a?b#c",
    "a b",
    "%2F",
    "%2e%2e",
    "..",
    ".",
    "-",
    "~",
    "é😀",
    "a,b",
    "a\\b",
    "a%",
    "\"",
    "'",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "\t",
    " lead",
    "trail ",
    "+",
    "a;b",
    "a&b=c",
    "0",
    "null",
    "exports",
    "filters",
    "otel",
    "groups",
    "enterprise",
    "replay",
    "share",
    "undefined",
    "\u{202e}",
    "../../v1/logs",
    "{id}",
    "*",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_a_log_opens_it_whatever_its_id_is() {
    let server = Server::start_with(|config| config.share_links = true).await;
    let long = "x".repeat(512);
    let ids: Vec<&str> = IDS.iter().copied().chain([long.as_str()]).collect();
    for id in &ids {
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        let record = json!({
            "id": id, "organisation_id": "acme", "created_at": "2026-11-21T16:26:58.758Z", "request": { "body": body },
            "request_url": "https://api.openai.com/v1/chat/completions",
        });
        server.ingest(record.to_string()).await;
    }
    let (mut found, mut next) = (BTreeSet::new(), String::new());
    loop {
        let page = get(&server, KEY, &format!("/v1/logs?page_size=7&cursor={next}")).await;
        for item in page["data"].as_array().unwrap() {
            let id = item["id"].as_str().unwrap();
            assert!(found.insert(id.to_owned()), "{id:?} is listed twice");
            let log = get(&server, KEY, item["url"].as_str().unwrap()).await;
            assert_eq!(log["_id"], id, "{}", item["url"]);
            assert_eq!(log["links"]["own"], item["url"]);
            let replay = log["links"]["replay"].as_str().unwrap();
            assert_eq!(get(&server, KEY, replay).await["log_id"], id, "{replay}");
            // The way of one whose path cannot hold the id.
            let query = format!("?id={}", escaped(id));
            assert_eq!(get(&server, KEY, &format!("/v1/logs/-{query}")).await["_id"], id);
            let share = with(&server, KEY, Method::POST, &format!("/v1/logs/-/share{query}"))
                .send()
                .await
                .unwrap();
            let share: Value = share.error_for_status().unwrap().json().await.unwrap();
            let shared = share["url"].as_str().unwrap().split_once("/shared/").unwrap().1;
            let shown =
                server.bare(Method::GET, &format!("/shared/{shared}")).send().await.unwrap();
            assert_eq!(shown.json::<Value>().await.unwrap()["_id"], id);
            let listed = get(&server, KEY, &format!("/v1/logs/-/share{query}")).await;
            assert_eq!(listed["total"], 1, "{id:?}");
        }
        match page["next"].as_str() {
            Some(cursor) => next = cursor.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ids.iter().map(|id| (*id).to_owned()).collect());
    server.end().await;
}
