//! `/v1/analytics`: Portkey's shapes, both SDKs' paths, and whose calls a key asks about.

use chrono::Utc;
use gatelog::engine::{Document, NewKey, Organisation, Scope};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Server, failure, header, ndjson};

const FRAME: &str = "time_of_generation_min=2026-11-01&time_of_generation_max=2026-11-21";

async fn ask(server: &Server, path: &str) -> Value {
    let joint = if path.contains('?') { '&' } else { '?' };
    let response = server.get(&format!("/v1/analytics/{path}{joint}{FRAME}")).send().await.unwrap();
    assert!(header(&response, "content-type").starts_with("application/json"));
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_groups_and_the_summary_have_portkeys_shapes() {
    let server = Server::start().await;
    server.ingest(ndjson(0..40)).await;
    server.engine.flush().await.unwrap();
    server.ingest(ndjson(40..60)).await;

    let cost = ask(&server, "graphs/cost").await;
    assert_eq!((&cost["object"], &cost["bucket"]), (&json!("analytics-graph"), &json!("day")));
    // Cents stay cents.
    assert_eq!(cost["summary"], json!({ "total": 15.0, "avg": 0.25 }));
    let points = cost["data_points"].as_array().unwrap();
    assert_eq!((points.len(), &points[0]["timestamp"]), (21, &json!("2026-11-01T00:00:00.000Z")));
    assert_eq!(
        points[19],
        json!({ "timestamp": "2026-11-20T00:00:00.000Z", "total": 0.75, "avg": 0.25 })
    );
    assert_eq!(
        points[20],
        json!({ "timestamp": "2026-11-21T00:00:00.000Z", "total": 0, "avg": null })
    );

    let models = ask(&server, "groups/ai-models").await;
    let item =
        |model: &str| json!({ "ai_model": model, "requests": "30", "object": "analytics-group" });
    assert_eq!(
        models,
        json!({ "object": "list", "total": 2, "data": [item("gpt-a"), item("gpt-b")] })
    );
    let teams = ask(&server, "groups/metadata/team?include_total=True").await;
    assert_eq!(
        teams["data"],
        json!([{
            "metadata_value": "search", "requests": 60, "cost": 15.0, "avg_tokens": null, "avg_weighted_feedback": null,
            "requests_with_feedback": 0, "last_seen": "2026-11-20T10:00:00.000Z", "object": "analytics-group",
        }])
    );
    let grouped = ask(
        &server,
        "groups/model?columns=avg_latency&page_size=1&order_by=model&order_by_type=desc",
    )
    .await;
    let item = json!({ "model": "gpt-b", "requests": 30, "avg_latency": 30.0, "object": "analytics-group" });
    assert_eq!(grouped, json!({ "object": "list", "total": 2, "data": [item] }));
    // A page behind the last one is empty, and still says how many groups there are.
    let behind = ask(&server, "groups/model?current_page=5&page_size=10").await;
    assert_eq!(behind, json!({ "object": "list", "total": 2, "data": [] }));

    let cache = ask(&server, "summary/cache").await;
    let summary =
        json!({ "hits": 0, "avg_latency": null, "total_requests": 60, "cache_speedup": null });
    assert_eq!(cache, json!({ "object": "analytics-summary", "summary": summary }));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_spellings_of_a_graph_answer_the_same() {
    let server = Server::start().await;
    server.ingest(ndjson(0..5)).await;
    for (python, node) in [
        ("users/requests", "users-requests"),
        ("errors/rate", "errors-rate"),
        ("errors/stacks", "errors-stack"),
        ("errors/status-codes", "errors-status-code"),
        ("requests/rescued", "requests-rescued"),
        ("cache/hit-rate", "cache-hit-rate"),
        ("cache/latency", "cache-latency"),
        ("feedbacks/scores", "feedbacks/score"),
    ] {
        let answer = ask(&server, &format!("graphs/{python}")).await;
        assert_eq!(answer, ask(&server, &format!("graphs/{node}")).await, "{python}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_said() {
    let server = Server::start().await;
    let (message, _) =
        failure(server.get("/v1/analytics/graphs/requests?"), StatusCode::BAD_REQUEST).await;
    assert!(message.contains("`time_of_generation_min` is missing"), "{message}");
    for (path, status, words) in [
        (
            "graphs/latency?cost_min=cheap",
            StatusCode::BAD_REQUEST,
            "`cost_min` is `cheap`; expected cents",
        ),
        (
            "graphs/latency?metadata=%7B",
            StatusCode::BAD_REQUEST,
            "`metadata` is `{`; expected a JSON object",
        ),
        ("groups/users?page_size=0", StatusCode::BAD_REQUEST, "parameter `page_size` is `0`"),
        (
            "groups/model?order_by=cost,1",
            StatusCode::BAD_REQUEST,
            "parameter `order_by` is `cost,1`",
        ),
        (
            "graphs/speed",
            StatusCode::NOT_FOUND,
            "graph `speed` does not exist; `/openapi.json` lists the graphs",
        ),
        ("groups/teams", StatusCode::NOT_FOUND, "group `teams` does not exist"),
        ("summary/costs", StatusCode::NOT_FOUND, "/v1/analytics/summary/cache"),
    ] {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (message, _) =
            failure(server.get(&format!("/v1/analytics/{path}{joint}{FRAME}")), status).await;
        assert!(message.contains(words), "{path}: {message}");
    }
    let answer = ask(&server, "graphs/requests?virtual_key=main&page_size=3").await;
    assert_eq!(answer["ignored_parameters"], json!(["virtual_key"]));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_asks_about_what_it_reaches() {
    let server = Server::start().await;
    let now = Utc::now();
    let keys = move |document: &mut Document| {
        for id in ["acme", "zen"] {
            let workspaces = ["search".to_owned(), "chat".to_owned()].into();
            let new = Organisation { workspaces, ..Organisation::new("enterprise", now) };
            document.create_organisation(id, new, 0)?;
            let key = NewKey {
                organisation: Some(id.to_owned()),
                scopes: [Scope::Analytics].into(),
                ..NewKey::default()
            };
            document.add_key(&format!("{id} key"), key.clone(), now)?;
            document.add_key(
                &format!("{id} search"),
                NewKey { workspace: Some("search".to_owned()), ..key },
                now,
            )?;
        }
        Ok(())
    };
    server.engine.catalog().change(keys).await.unwrap();
    server.engine.catalog_changed();
    let at = (now - chrono::TimeDelta::hours(1)).to_rfc3339();
    let records =
        [("acme", "search", 1), ("acme", "chat", 2), ("zen", "search", 4), ("zen", "chat", 8)];
    for (organisation, workspace, cost) in records {
        let record = json!({
            "organisation_id": organisation, "workspace_slug": workspace, "created_at": at, "cost": cost,
            "ai_model": format!("{organisation}-{workspace}"), "response_status_code": 200,
        });
        server.ingest(record.to_string()).await;
    }
    let day = |days| (now + chrono::TimeDelta::days(days)).format("%Y-%m-%d").to_string();
    let frame = format!("time_of_generation_min={}&time_of_generation_max={}", day(-1), day(2));
    let total = async |key: &str, filter: &str| {
        let path = format!("/v1/analytics/graphs/cost?{frame}{filter}");
        let answer =
            server.bare(reqwest::Method::GET, &path).bearer_auth(key).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["summary"]["total"].as_f64().unwrap_or_else(|| panic!("{answer}"))
    };
    for (key, filter, cents) in [
        (super::KEY, "", 15.0),
        (super::KEY, "&organisation_id=zen", 12.0),
        ("acme key", "", 3.0),
        ("acme key", "&organisation_id=zen", 0.0),
        ("acme key", "&workspace_slug=chat", 2.0),
        ("acme key", "&workspace_slug=chat,search", 3.0),
        // The key's own workspace, whatever it asks for.
        ("acme search", "", 1.0),
        ("acme search", "&workspace_slug=chat", 1.0),
        ("zen search", "&workspace_slug=nowhere", 4.0),
    ] {
        assert_eq!(total(key, filter).await, cents, "{key} {filter}");
    }
    let path = format!("/v1/analytics/groups/workspaces?{frame}");
    let answer =
        server.bare(reqwest::Method::GET, &path).bearer_auth("zen search").send().await.unwrap();
    let item =
        json!({ "workspace": "search", "requests": 1, "cost": 4.0, "object": "analytics-group" });
    assert_eq!(answer.json::<Value>().await.unwrap()["data"], json!([item]));
    server.end().await;
}
