//! Replays, sent to a gateway that is none: what reaches it, what comes back, and what is logged of
//! it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::log_objects::{bed, get, with};
use super::{Server, failure};
use crate::files::contents;

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Value)>>>;

/// A gateway that keeps what it is sent, and answers as the model that it is asked for says.
async fn gateway() -> (String, Seen) {
    async fn answer(
        State(seen): State<Seen>,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        seen.lock().unwrap().push((uri.path().to_owned(), headers, body));
        let said = [
            ("x-portkey-cache-status", "MISS"),
            ("x-portkey-retry-attempt-count", "1"),
            ("x-portkey-last-used-option-index", "config"),
            ("x-portkey-provider", "openai"),
            ("set-cookie", "planted-cookie"),
        ];
        match model.as_str() {
            "slow" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                "late".into_response()
            }
            "big" => "x".repeat(1 << 20).into_response(),
            "text" => (axum::http::StatusCode::BAD_GATEWAY, "no JSON").into_response(),
            "elsewhere" => (axum::http::StatusCode::FOUND, [("location", "http://127.0.0.1:9/")])
                .into_response(),
            _ => {
                let usage =
                    json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 });
                (said, axum::Json(json!({ "model": "m", "choices": [], "usage": usage })))
                    .into_response()
            }
        }
    }
    let seen = Seen::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (base, seen)
}

fn log(id: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut log = json!({
        "id": id, "organisation_id": "acme", "created_at": "2026-11-20T10:00:00Z", "workspace_slug": "search",
        "trace_id": "trace-1", "span_id": "span-1", "ai_org": "openai", "virtual_key": "main",
        "request_url": "https://api.openai.com/v1/chat/completions", "response_status_code": 200,
        "request": { "body": { "model": "m", "messages": [], "stream": true } },
    });
    change(&mut log);
    format!("{log}\n")
}

async fn server(change: impl FnOnce(&mut gatelog::config::Config)) -> (Server, Seen) {
    let (base, seen) = gateway().await;
    let server = bed(|config| {
        config.gateway_url = base;
        change(config);
    })
    .await;
    server.ingest(log("old", |_| {})).await;
    (server, seen)
}

async fn replay(server: &Server, body: &Value) -> (StatusCode, Value) {
    let request = with(server, "acme user", Method::POST, "/v1/logs/old/replay")
        .bearer_auth("sk-planted-credential");
    let response = request
        .header("x-portkey-custom-host", "http://inside")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    (response.status(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_request_is_sent_answered_and_logged_beside_the_old_one() {
    let (server, seen) = server(|_| {}).await;
    let shown = get(&server, "acme reader", "/v1/logs/old/replay").await;
    assert_eq!(
        (&shown["active"], &shown["reason"], &shown["gateway"]),
        (&json!(true), &Value::Null, &json!(true))
    );
    assert_eq!(shown["request"]["body"], json!({ "model": "m", "messages": [], "stream": true }));

    let mut edited = shown["request"].clone();
    edited["body"]["messages"] = json!([{ "role": "user", "content": "edited" }]);
    let (status, told) = replay(&server, &edited).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(
        (&told["response"]["status"], &told["response"]["body"]["usage"]["total_tokens"]),
        (&json!(200), &json!(7))
    );
    assert_eq!((&told["replay_of"], &told["trace_id"]), (&json!("old"), &json!("trace-1")));

    let (path, headers, body) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (path.as_str(), &body["messages"][0]["content"]),
        ("/v1/chat/completions", &json!("edited"))
    );
    assert!(body.get("stream").is_none());
    assert_eq!(headers["authorization"], "Bearer sk-planted-credential");
    assert_eq!(headers["x-portkey-provider"], "openai");
    assert_eq!(headers["x-portkey-parent-span-id"], "span-1");
    for kept_back in ["x-portkey-api-key", "x-portkey-custom-host", "referer"] {
        assert!(!headers.contains_key(kept_back), "{kept_back}");
    }

    let new = get(&server, "acme reader", &format!("/v1{}", told["url"].as_str().unwrap())).await;
    assert_eq!(new["_id"], told["log_id"]);
    let metrics = &new["metrics"];
    for (name, value) in [
        ("trace_id", "trace-1"),
        ("parent_span_id", "span-1"),
        ("span_name", "gatelog-replay"),
        ("source", "replay"),
        ("cache_status", "MISS"),
        ("retry_success_count", "1"),
        ("workspace_slug", "search"),
        ("ai_org", "openai"),
        ("organisation_id", "acme"),
    ] {
        assert_eq!(metrics[name], value, "{name}");
    }
    assert_eq!((&metrics["total_units"], &metrics["is_success"]), (&json!(7), &json!(true)));
    assert_eq!(
        (&metrics["metadata.key"], &metrics["metadata.value"]),
        (&json!(["_replay_of"]), &json!(["old"]))
    );
    assert_eq!(new["request"]["body"]["messages"][0]["content"], "edited");
    assert_eq!(new["status"]["retry"], "Retry Success on 1 Tries");
    // Found again from the old log, by its trace.
    let trace = get(&server, "acme reader", "/v1/logs?trace_id=trace-1&include_total=true").await;
    assert_eq!(trace["total"], 2);
    server.end().await;
}

/// Credentials are looked for in every byte that the server has written.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_stored_nowhere() {
    let (server, seen) = server(|_| {}).await;
    replay(&server, &json!({})).await;
    server.engine.flush().await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 1);
    let files = contents(Path::new(&server.config.data));
    for (path, bytes) in &files {
        for planted in ["sk-planted", "ntial", "planted-cookie"] {
            let found = bytes.windows(planted.len()).any(|window| window == planted.as_bytes());
            assert!(!found, "`{planted}` is in {}", path.display());
        }
    }
    assert!(files.len() > 3);
    let rows = server.sql("select request, response from logs where source = 'replay'").await;
    assert!(!rows.is_empty() && !rows[0].to_string().contains("planted"), "{rows:?}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_inactive_for_the_reason_that_is_shown() {
    let (server, seen) = server(|_| {}).await;
    let cases = [
        ("image", "endpoint"),
        ("nowhere", "no_url"),
        ("archived", "provider_archived"),
        ("prompt", "prompt_in_config_target"),
        ("untracked", "body_not_kept"),
    ];
    server
        .ingest(log("image", |log| log["request_url"] = json!("https://h/v1/images/generations")))
        .await;
    server.ingest(log("nowhere", |log| log["request_url"] = Value::Null)).await;
    server.ingest(log("archived", |log| log["virtual_key"] = json!("retired"))).await;
    server
        .ingest(log("prompt", |log| {
            (log["prompt_slug"], log["last_used_option"]) =
                (json!("pp-1"), json!("config.targets[0]"));
        }))
        .await;
    server.ingest(log("untracked", |log| log["do_not_track"] = json!(true))).await;
    let archive = with(&server, "acme admin", Method::POST, "/v1/admin/archived-providers");
    let archived: Value =
        archive.body(r#"{"provider":"retired"}"#).send().await.unwrap().json().await.unwrap();
    assert_eq!(archived["data"], json!([{ "organisation": "acme", "provider": "retired" }]));
    for (id, reason) in cases {
        let shown = get(&server, "acme reader", &format!("/v1/logs/{id}/replay")).await;
        assert_eq!((&shown["active"], &shown["request"]), (&json!(false), &Value::Null), "{id}");
        assert_eq!(shown["reason"]["code"], reason);
        let post = with(&server, "acme user", Method::POST, &format!("/v1/logs/{id}/replay"));
        let (message, body) = failure(post, StatusCode::CONFLICT).await;
        assert_eq!(body["reason"], reason);
        assert!(message.contains(shown["reason"]["message"].as_str().unwrap()), "{message}");
    }
    assert!(seen.lock().unwrap().is_empty());

    // Another organisation's archive is its own, and a provider that is taken back can be replayed
    // again.
    assert_eq!(get(&server, "zen admin", "/v1/admin/archived-providers").await["total"], 0);
    failure(
        with(
            &server,
            "zen admin",
            Method::DELETE,
            "/v1/admin/archived-providers/retired?organisation=acme",
        ),
        StatusCode::NOT_FOUND,
    )
    .await;
    let back = with(&server, "acme admin", Method::DELETE, "/v1/admin/archived-providers/retired")
        .send()
        .await
        .unwrap();
    assert_eq!(back.status(), StatusCode::OK);
    assert_eq!(get(&server, "acme reader", "/v1/logs/archived/replay").await["active"], true);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_reaches_the_gateways_endpoints_and_nothing_else() {
    let (server, seen) = server(|_| {}).await;
    for body in [
        json!({ "endpoint": "/models" }),
        json!({ "endpoint": "/../../admin" }),
        json!({ "endpoint": "//inside/chat/completions" }),
        json!({ "url": "http://inside" }),
        json!({ "body": [] }),
    ] {
        assert_eq!(replay(&server, &body).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    // Words name the fields that there are, once.
    for body in ["{\"url\":1}", "{"] {
        let request = with(&server, "acme user", Method::POST, "/v1/logs/old/replay").body(body);
        let (message, _) = failure(request, StatusCode::BAD_REQUEST).await;
        assert_eq!(message.matches("`endpoint`").count(), 1, "{message}");
    }
    let config = r#"{"provider":"openai","custom_host":"http://inside"}"#;
    let led = with(&server, "acme user", Method::POST, "/v1/logs/old/replay")
        .header("x-portkey-config", config);
    failure(led, StatusCode::BAD_REQUEST).await;
    assert!(seen.lock().unwrap().is_empty());

    // A redirect is an answer, not a way.
    let (status, told) = replay(&server, &json!({ "body": { "model": "elsewhere" } })).await;
    assert_eq!((status, &told["response"]["status"]), (StatusCode::OK, &json!(302)));
    let (_, told) =
        replay(&server, &json!({ "endpoint": "/embeddings", "body": { "model": "text" } })).await;
    assert_eq!(
        (&told["response"]["status"], &told["response"]["body"]),
        (&json!(502), &json!("no JSON"))
    );
    let paths: Vec<String> = seen.lock().unwrap().iter().map(|(path, ..)| path.clone()).collect();
    assert_eq!(paths, ["/v1/chat/completions", "/v1/embeddings"]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_bounded_in_time_and_bytes() {
    let (server, _) = server(|config| {
        config.replay_timeout_seconds = 1;
        config.max_record_bytes = 64 << 10;
    })
    .await;
    let of = |model: &str| json!({ "body": { "model": model } });
    let (status, told) = replay(&server, &of("slow")).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{told}");
    let (status, told) = replay(&server, &of("big")).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{told}");
    let (status, _) = replay(&server, &json!({ "body": { "model": "x".repeat(40 << 10) } })).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.count().await, 1, "nothing was logged of them");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_needs_a_gateway_and_both_scopes() {
    let server = bed(|_| {}).await;
    server.ingest(log("old", |_| {})).await;
    assert_eq!(get(&server, "acme reader", "/v1/logs/old/replay").await["gateway"], false);
    let post = |key: &str| with(&server, key, Method::POST, "/v1/logs/old/replay");
    let (message, _) = failure(post("acme user"), StatusCode::CONFLICT).await;
    assert!(message.contains("`gateway_url`"), "{message}");
    failure(post("acme reader"), StatusCode::FORBIDDEN).await;
    failure(
        with(&server, "acme viewer", Method::GET, "/v1/logs/old/replay"),
        StatusCode::FORBIDDEN,
    )
    .await;
    server.end().await;

    // Nobody listens there.
    let server = bed(|config| config.gateway_url = "http://127.0.0.1:9/v1".to_owned()).await;
    server.ingest(log("old", |_| {})).await;
    let post = with(&server, "acme user", Method::POST, "/v1/logs/old/replay");
    failure(post, StatusCode::BAD_GATEWAY).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_logs_by_itself_is_not_logged_twice() {
    let (server, seen) = server(|config| config.gateway_logs = true).await;
    let (status, told) = replay(&server, &json!({})).await;
    assert_eq!((status, &told["log_id"]), (StatusCode::OK, &Value::Null));
    assert!(told["message"].as_str().unwrap().contains("the gateway logs the call"), "{told}");
    let (_, headers, _) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(headers["x-portkey-trace-id"], "trace-1");
    assert_eq!(headers["x-portkey-metadata"], r#"{"_replay_of":"old"}"#);
    assert_eq!(server.count().await, 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_not_tracked_leaves_its_figures_alone() {
    let (server, _) = server(|_| {}).await;
    let request = with(&server, "acme user", Method::POST, "/v1/logs/old/replay")
        .header("x-portkey-debug", "false");
    let told: Value = request.send().await.unwrap().json().await.unwrap();
    let new =
        get(&server, "acme reader", &format!("/v1/logs/{}", told["log_id"].as_str().unwrap()))
            .await;
    assert_eq!((&new["request"]["body"], &new["response"]["body"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&new["metrics"]["total_units"], &new["metrics"]["extra_value"]),
        (&json!(7), &json!("false"))
    );
    server.end().await;
}
