//! Logs one by one and in lists, their own URL, and links for those without a key.

use gatelog::engine::{Document, NewKey, Organisation, Scope};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{Server, failure, header, ndjson};

/// A server with organisations `acme` and `zen`, keys named after what they are for, and records of
/// both.
pub(super) async fn bed(change: impl FnOnce(&mut gatelog::config::Config)) -> Server {
    let server = Server::start_with(change).await;
    let fill = |document: &mut Document| {
        let now = chrono::Utc::now();
        for id in ["acme", "zen"] {
            let workspaces = ["search".to_owned()].into();
            let organisation = Organisation {
                workspaces,
                name: Some(id.to_uppercase()),
                ..Organisation::new("enterprise", now)
            };
            document.create_organisation(id, organisation, 0)?;
            let key = |scopes: &[Scope]| NewKey {
                organisation: Some(id.to_owned()),
                scopes: scopes.iter().copied().collect(),
                ..NewKey::default()
            };
            document.add_key(&format!("{id} admin"), key(&[Scope::Admin]), now)?;
            document.add_key(&format!("{id} viewer"), key(&[Scope::View]), now)?;
            document.add_key(&format!("{id} reader"), key(&[Scope::View, Scope::Read]), now)?;
            document.add_key(
                &format!("{id} user"),
                key(&[Scope::View, Scope::Read, Scope::Write]),
                now,
            )?;
            let search =
                NewKey { workspace: Some("search".to_owned()), ..key(&[Scope::View, Scope::Read]) };
            document.add_key(&format!("{id} search"), search, now)?;
        }
        Ok(())
    };
    server.engine.catalog().change(fill).await.unwrap();
    server.engine.catalog_changed();
    server
}

pub(super) fn with(server: &Server, key: &str, method: Method, path: &str) -> RequestBuilder {
    server.bare(method, path).header("x-portkey-api-key", key)
}

pub(super) async fn get(server: &Server, key: &str, path: &str) -> Value {
    let response = with(server, key, Method::GET, path).send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn log(id: &str, organisation: &str) -> Value {
    json!({
        "id": id, "organisation_id": organisation, "created_at": "2026-11-20T10:00:00Z", "trace_id": format!("trace-{id}"),
        "request_url": "https://api.openai.com/v1/chat/completions", "response_status_code": 200, "cache_status": "HIT",
        "config": "pc-1", "prompt_slug": "pp-1", "workspace_slug": "main",
        "request": { "body": { "model": "m", "messages": [{ "role": "user", "content": format!("secret of {id}") }] },
                     "headers": { "accept": "*/*" } },
        "response": { "body": { "answer": "<b>bold</b>" } },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_shown_whole_to_who_may_read_it() {
    let server = bed(|_| {}).await;
    server.ingest(format!("{}\n{}\n", log("one", "acme"), log("two", "zen"))).await;
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
        }
        let read = get(
            &server,
            "acme reader",
            "/v1/logs/one?path_format=v2&created_at=2026-11-20&type=x&whatever=1",
        )
        .await;
        assert_eq!(
            (&read["_id"], &read["metrics"]["organisation_name"]),
            (&json!("one"), &json!("ACME"))
        );
        assert_eq!(read["request"]["body"]["messages"][0]["content"], "secret of one");
        assert_eq!(read["status"]["cache"], "Cache Hit");
        let viewed = get(&server, "acme viewer", "/v1/logs/one").await;
        assert_eq!(
            (&viewed["request"]["body"], &viewed["response"]["body"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(
            (&viewed["metrics"], &viewed["request"]["headers"]),
            (&read["metrics"], &read["request"]["headers"])
        );
        assert_eq!(
            get(&server, "acme reader", "/logs/one").await,
            read,
            "its own URL shows the same"
        );
        // Its links lead to logs of the same config and prompt, this one among them.
        for link in ["config", "prompt", "trace"] {
            let same = get(&server, "acme viewer", read["links"][link].as_str().unwrap()).await;
            assert_eq!(
                (same["data"].as_array().unwrap().len(), &same["data"][0]["id"]),
                (1, &json!("one")),
                "{link}"
            );
        }
        let unknown = failure(
            with(&server, "acme admin", Method::GET, "/v1/logs/none"),
            StatusCode::NOT_FOUND,
        )
        .await;
        for (key, path) in [
            ("acme admin", "/v1/logs/two"),
            ("acme admin", "/logs/two"),
            ("acme admin", "/v1/logs/two?organisation_id=zen"),
            ("acme admin", "/v1/logs/two/replay"),
            ("acme admin", "/v1/logs/two/share"),
            ("acme admin", "/v1/logs/%ff"),
            ("acme search", "/v1/logs/one"),
            ("zen reader", "/logs/one"),
        ] {
            let foreign =
                failure(with(&server, key, Method::GET, path), StatusCode::NOT_FOUND).await;
            assert_eq!(foreign, unknown, "{key} {path}");
        }
    }
    failure(server.bare(Method::GET, "/logs/one"), StatusCode::UNAUTHORIZED).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_says_whose_log_is_meant_where_two_have_the_id() {
    let server = bed(|_| {}).await;
    server.ingest(format!("{}\n{}\n", log("same", "acme"), log("same", "zen"))).await;
    for organisation in ["acme", "zen"] {
        let found =
            get(&server, super::KEY, &format!("/v1/logs/same?organisation_id={organisation}"))
                .await;
        assert_eq!(found["organisation_id"], organisation);
        let own = get(&server, &format!("{organisation} viewer"), "/v1/logs/same").await;
        assert_eq!(own["organisation_id"], organisation);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_and_paged_within_what_the_key_reaches() {
    let server = bed(|_| {}).await;
    server.ingest(ndjson(0..30)).await;
    server.ingest(format!("{}\n{}\n", log("one", "acme"), log("two", "zen"))).await;
    let all = get(&server, super::KEY, "/v1/logs?page_size=40&include_total=True").await;
    assert_eq!(
        (&all["total"], &all["has_more"], &all["next"]),
        (&json!(32), &json!(false), &Value::Null)
    );
    let times: Vec<&str> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["created_at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    assert!(!all.to_string().contains("question") && !all.to_string().contains("secret"));

    let own = get(&server, "acme viewer", "/v1/logs?include_total=true").await;
    assert_eq!((&own["total"], &own["data"][0]["id"]), (&json!(1), &json!("one")));
    let reached =
        get(&server, "acme viewer", "/v1/logs?organisation_id=zen&include_total=true").await;
    assert_eq!((&reached["total"], &reached["data"]), (&json!(0), &json!([])));
    assert_eq!(get(&server, "acme search", "/v1/logs").await["data"], json!([]));

    let mut path =
        "/v1/logs?page_size=7&metadata=%7B%22team%22%3A%22search%22%7D&ai_model=gpt-a".to_owned();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let page = get(&server, super::KEY, &path).await;
        let ids = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|log| log["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        let Some(next) = page["next"].as_str() else { break };
        path = format!(
            "/v1/logs?page_size=7&metadata=%7B%22team%22%3A%22search%22%7D&ai_model=gpt-a&cursor={next}"
        );
        // What arrives meanwhile does not shift the pages.
        let mut late = log("late", "acme");
        late["created_at"] = json!("2026-11-21T00:00:00Z");
        server.ingest(format!("{late}\n")).await;
    }
    assert_eq!(seen.len(), 15);

    for wrong in
        ["ai_models=x", "page_size=0", "cursor=zz", "status=Warm", "time_of_generation_min=x"]
    {
        failure(server.get(&format!("/v1/logs?{wrong}")), StatusCode::BAD_REQUEST).await;
    }
    let hits = get(&server, super::KEY, "/v1/logs?status=Cache%20Hit&include_total=true").await;
    assert_eq!(hits["total"], 3, "{hits}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_filter_is_used_by_its_name() {
    let server = bed(|_| {}).await;
    server.ingest(format!("{}\n{}\n", log("one", "acme"), log("three", "acme"))).await;
    let save = |key: &'static str, query: &str| {
        with(&server, key, Method::PUT, "/v1/logs/filters/my%20logs")
            .body(json!({ "query": query }).to_string())
    };
    for wrong in ["colour=red", "cost_min=x", "page_size=3"] {
        failure(save("acme viewer", wrong), StatusCode::BAD_REQUEST).await;
    }
    let saved = save("acme viewer", "trace_id=trace-one&status=Cache+Hit").send().await.unwrap();
    assert_eq!(saved.status(), StatusCode::OK);
    failure(save("acme reader", "trace_id=x"), StatusCode::FORBIDDEN).await;
    // A misspelt organisation would be another's filter.
    let misspelt =
        with(&server, "acme viewer", Method::DELETE, "/v1/logs/filters/my%20logs?organisation=zen");
    let (message, _) = failure(misspelt, StatusCode::BAD_REQUEST).await;
    assert!(message.contains("`organisation`") && message.contains("organisation_id"), "{message}");
    // Everybody of the organisation has it, and nobody else.
    assert_eq!(get(&server, "acme reader", "/v1/logs/filters").await["data"][0]["name"], "my logs");
    assert_eq!(get(&server, "zen admin", "/v1/logs/filters").await["data"], json!([]));
    failure(
        with(&server, "zen admin", Method::GET, "/v1/logs?saved=my+logs"),
        StatusCode::NOT_FOUND,
    )
    .await;
    let found = get(&server, "acme reader", "/v1/logs?saved=my+logs&include_total=true").await;
    assert_eq!((&found["total"], &found["data"][0]["id"]), (&json!(1), &json!("one")));
    // What is said beside it wins.
    let other = get(&server, "acme reader", "/v1/logs?saved=my+logs&trace_id=trace-three").await;
    assert_eq!(other["data"][0]["id"], "three");
    let gone = with(&server, "acme admin", Method::DELETE, "/v1/logs/filters/my%20logs")
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), StatusCode::OK);
    failure(
        with(&server, "acme reader", Method::GET, "/v1/logs?saved=my+logs"),
        StatusCode::NOT_FOUND,
    )
    .await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_those_of_analytics() {
    let server = bed(|_| {}).await;
    server.ingest(ndjson(0..30)).await;
    let query = "time_of_generation_min=2026-11-01&time_of_generation_max=2026-11-30";
    let groups =
        get(&server, super::KEY, &format!("/v1/logs/groups/model?{query}&sdk=extra")).await;
    assert_eq!((&groups["object"], &groups["total"]), (&json!("list"), &json!(2)));
    assert_eq!(
        get(&server, super::KEY, &format!("/v1/analytics/groups/model?{query}")).await["data"],
        groups["data"]
    );
    failure(server.get(&format!("/v1/logs/groups/colour?{query}")), StatusCode::NOT_FOUND).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_plain_and_quotes_what_a_log_holds() {
    let server = bed(|_| {}).await;
    server.ingest(format!("{}\n", log("one", "acme"))).await;
    let asked =
        with(&server, "acme reader", Method::GET, "/logs/one").header("accept", "text/html,*/*");
    let response = asked.send().await.unwrap();
    assert_eq!(header(&response, "content-type"), "text/html; charset=utf-8");
    assert!(header(&response, "content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(header(&response, "cache-control"), "no-store");
    let page = response.text().await.unwrap();
    assert!(
        page.contains("Cache Hit") && page.contains("&lt;b&gt;bold") && !page.contains("<b>"),
        "{page}"
    );
    server.end().await;
}

async fn share(server: &Server, key: &str, id: &str, body: &'static str) -> Value {
    let request = with(server, key, Method::POST, &format!("/v1/logs/{id}/share")).body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_one_log_without_a_key_until_it_is_revoked() {
    let server = bed(|config| config.share_links = true).await;
    server.ingest(format!("{}\n{}\n", log("one", "acme"), log("two", "zen"))).await;
    let read = share(&server, "acme reader", "one", "").await;
    let viewed = share(&server, "acme viewer", "one", r#"{"expires_in_seconds":60}"#).await;
    let bare = share(&server, "acme reader", "one", r#"{"bodies":false}"#).await;
    let open = |link: &Value| server.client.get(link["url"].as_str().unwrap());
    let whole: Value = open(&read).send().await.unwrap().json().await.unwrap();
    assert_eq!(whole["request"]["body"]["messages"][0]["content"], "secret of one");
    for link in [&viewed, &bare] {
        let shown: Value = open(link).send().await.unwrap().json().await.unwrap();
        assert_eq!((&shown["_id"], &shown["request"]["body"]), (&json!("one"), &Value::Null));
        assert_eq!(link["bodies"], json!(false));
    }
    let page = open(&read).header("accept", "text/html").send().await.unwrap();
    assert_eq!(header(&page, "referrer-policy"), "no-referrer");
    assert!(page.text().await.unwrap().contains("secret of one"));

    let listed = get(&server, "acme viewer", "/v1/logs/one/share").await;
    assert_eq!(listed["total"], 3);
    // Everybody's own links of all logs, and an admin's are all of the organisation.
    for (key, own) in [("acme reader", 2), ("acme viewer", 1), ("acme admin", 3), ("zen admin", 0)]
    {
        assert_eq!(get(&server, key, "/v1/shares").await["total"], own, "{key}");
    }
    let token = read["url"].as_str().unwrap().rsplit('/').next().unwrap();
    let signature = token.split_once('.').unwrap().1;
    assert!(!listed.to_string().contains(signature), "a link's URL is told once");
    let catalog = std::fs::read_to_string(format!("{}/catalog.json", server.config.data)).unwrap();
    assert!(!catalog.contains(signature));

    let path = format!("/v1/shares/{}", read["id"].as_str().unwrap());
    for stranger in ["acme viewer", "zen admin"] {
        failure(with(&server, stranger, Method::DELETE, &path), StatusCode::NOT_FOUND).await;
    }
    let gone = with(&server, "acme reader", Method::DELETE, &path).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::OK);
    let revoked = failure(open(&read), StatusCode::NOT_FOUND).await;
    for wrong in [
        "/shared/x",
        "/shared/x.y",
        &format!("/shared/{}.{signature}", bare["id"].as_str().unwrap()),
    ] {
        assert_eq!(failure(server.bare(Method::GET, wrong), StatusCode::NOT_FOUND).await, revoked);
    }
    // What is erased is in no link either.
    server.engine.erase("acme", gatelog::engine::ErasureSelector::All, "test").await.unwrap();
    assert_eq!(failure(open(&bare), StatusCode::NOT_FOUND).await, revoked);

    let foreign = with(&server, "acme admin", Method::POST, "/v1/logs/two/share");
    failure(foreign, StatusCode::NOT_FOUND).await;
    let long = with(&server, "zen admin", Method::POST, "/v1/logs/two/share")
        .body(r#"{"expires_in_seconds":2592001}"#);
    failure(long, StatusCode::BAD_REQUEST).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_off_unless_they_are_turned_on() {
    let server = bed(|_| {}).await;
    server.ingest(format!("{}\n", log("one", "acme"))).await;
    let (message, _) = failure(
        with(&server, "acme admin", Method::POST, "/v1/logs/one/share"),
        StatusCode::FORBIDDEN,
    )
    .await;
    assert!(message.contains("`share_links`"), "{message}");
    // A link that was made while they were on opens nothing now.
    let now = chrono::Utc::now();
    let share = gatelog::engine::Share {
        id: "s".to_owned(),
        organisation: "acme".to_owned(),
        workspace: None,
        log_id: "one".to_owned(),
        bodies: true,
        created_by: "k".to_owned(),
        created_at: now,
        expires_at: now + chrono::TimeDelta::hours(1),
        revoked_at: None,
    };
    let token = server
        .engine
        .catalog()
        .change(|document| document.add_share(share.clone(), [7; 32]))
        .await
        .unwrap();
    failure(server.bare(Method::GET, &format!("/shared/{token}")), StatusCode::NOT_FOUND).await;
    server.end().await;
}
