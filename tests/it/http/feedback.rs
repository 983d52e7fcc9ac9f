//! `/v1/feedback`: Portkey's words for what is taken and refused, and what becomes of it on logs,
//! in lists and graphs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gatelog::engine::{Document, NewKey, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::log_objects::{bed, get, with};
use super::{KEY, Server, eventually, failure, header};

/// A log of acme in its workspace `search`.
fn log(id: &str, trace: Option<&str>) -> Value {
    json!({
        "id": id, "organisation_id": "acme", "workspace_slug": "search", "trace_id": trace,
        "created_at": "2026-11-20T10:00:00Z", "ai_model": "gpt-4o", "response_status_code": 200, "is_success": 1,
        "metadata": { "team": id },
    })
}

/// A key of acme for one scope.
async fn add_key(server: &Server, text: &str, scope: Scope) {
    let add = |document: &mut Document| {
        let organisation = Some("acme".to_owned());
        let key = NewKey { organisation, scopes: [scope].into(), ..NewKey::default() };
        document.add_key(text, key, chrono::Utc::now()).map(|_| ())
    };
    server.engine.catalog().change(add).await.unwrap();
}

async fn give(server: &Server, key: &str, body: &Value) -> Vec<String> {
    told(server, key, Method::POST, "/v1/feedback", body, "Feedback successfully saved").await
}

/// Sends feedback that is taken; gives its ids.
async fn told(
    server: &Server,
    key: &str,
    method: Method,
    path: &str,
    body: &Value,
    message: &str,
) -> Vec<String> {
    let response = with(server, key, method, path).body(body.to_string()).send().await.unwrap();
    assert!(header(&response, "content-type").starts_with("application/json"));
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{answer}");
    let ids: Vec<String> = serde_json::from_value(answer["feedback_ids"].clone()).unwrap();
    assert_eq!(answer, json!({ "status": "success", "message": message, "feedback_ids": ids }));
    ids
}

async fn one(server: &Server, key: &str, body: Value) -> String {
    let mut ids = give(server, key, &body).await;
    assert_eq!(ids.len(), 1);
    ids.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_portkeys_words_and_codes_and_say_what_is_wrong() {
    let server = Server::start().await;
    let refuse = async |method: Method,
                        path: &str,
                        body: &str,
                        status: StatusCode,
                        message: &str,
                        code: &str| {
        let (found, answer) =
            failure(with(&server, KEY, method, path).body(body.to_owned()), status).await;
        assert_eq!(
            (found.as_str(), &answer["error"]["code"]),
            (message, &json!(code)),
            "{path} {body}"
        );
    };
    let word = |code: &str, why: &str| {
        format!("Portkey Error: Invalid Request Body. Error code: {code}. {why}")
    };
    let bad = StatusCode::BAD_REQUEST;
    let unreadable =
        "The body is neither a JSON object nor a list; send a JSON object, or a list of them";
    let about =
        "Field `trace_id`: expected the trace, or in `log_id` the log, that the feedback is about";
    let no_value = "Field `value`: expected a number from -10 to 10";
    let wrong =
        |value: &str| format!("Field `value` is `{value}`; expected a number from -10 to 10");
    for (body, code, why) in [
        ("", "03", unreadable),
        ("{oops", "03", unreadable),
        ("7", "03", unreadable),
        ("{}", "032", about),
        (r#"{"value":1}"#, "032", about),
        (r#"{"trace_id":"t"}"#, "032", no_value),
        (r#"[{"trace_id":"t","value":1},{"trace_id":"t"}]"#, "032", &format!("Item 2: {no_value}")),
        (r#"{"trace_id":"t","value":11}"#, "033", &wrong("11")),
        (r#"{"trace_id":"t","value":"abc"}"#, "033", &wrong("\"abc\"")),
    ] {
        refuse(Method::POST, "/v1/feedback", body, bad, &word(code, why), code).await;
    }
    let several = "Portkey Error: Invalid Request Body. Multi Update is not supported. Error code: 031. Send one object with \
                   `value`";
    let nothing = "Invalid Feedback Id passed. Nothing to update";
    for method in [Method::PUT, Method::POST] {
        refuse(method.clone(), "/v1/feedback/F", r#"[{"value":1}]"#, bad, several, "031").await;
        refuse(
            method.clone(),
            "/v1/feedback/F",
            r#"{"weight":1}"#,
            bad,
            &word("032", no_value),
            "032",
        )
        .await;
        refuse(
            method.clone(),
            "/v1/feedback/F",
            r#"{"value":-10.5}"#,
            bad,
            &word("033", &wrong("-10.5")),
            "033",
        )
        .await;
        let unknown = StatusCode::NOT_FOUND;
        let body = r#"{"feedback_id":"F2","value":2}"#;
        refuse(method.clone(), "/v1/feedback/undefined", body, unknown, nothing, "not_found").await;
        refuse(method, "/v1/feedback/%ff", body, unknown, nothing, "not_found").await;
    }
    for (method, path) in [
        (Method::DELETE, "/v1/feedback"),
        (Method::PATCH, "/v1/feedback/F"),
        (Method::PUT, "/v1/feedback"),
    ] {
        let (_, answer) =
            failure(with(&server, KEY, method, path), StatusCode::METHOD_NOT_ALLOWED).await;
        assert_eq!(answer["error"]["code"], "01");
    }
    let packed = with(&server, KEY, Method::POST, "/v1/feedback").body(vec![0x1f, 0x8b, 0]);
    let (message, _) = failure(packed, bad).await;
    assert!(message.starts_with(&word("03", "The body cannot be unpacked: ")), "{message}");
    assert_eq!(
        get(&server, KEY, "/v1/feedback").await["data"],
        json!([]),
        "a batch with a bad item leaves nothing"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_is_kept_changed_and_listed() {
    let server = bed(|_| {}).await;
    let single = json!({ "trace_id": "t", "value": 5, "weight": 0.5, "metadata": { "_user": "ann", "n": 1 } });
    let id = one(&server, "acme user", single).await;
    // What the SDKs make of batches: Python an array, Node an object, in which a name stays as it
    // was.
    let array =
        json!([{ "trace_id": "t", "value": "1" }, { "trace_id": "u", "value": 2.5, "weight": 7 }]);
    let numbered =
        json!({ "0": { "traceID": "t", "value": 1 }, "1": { "traceID": "u", "value": 2 } });
    for batch in [array, numbered] {
        let ids = give(&server, "acme user", &batch).await;
        assert!(ids.len() == 2 && ids[0] != ids[1]);
    }
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
        }
        let path = format!("/v1/feedback/{id}");
        let mut shown = get(&server, "acme viewer", &path).await;
        let fields = shown.as_object_mut().unwrap();
        let created = fields.remove("created_at").unwrap();
        let updated = fields.remove("updated_at").unwrap();
        let before = if flushed { (-3.0, 0.5) } else { (5.0, 0.5) };
        let value =
            |value: f64| if value.fract() == 0.0 { json!(value as i64) } else { json!(value) };
        assert_eq!(
            shown,
            json!({
                "id": id, "object": "feedback", "organisation_id": "acme", "workspace_slug": null, "trace_id": "t",
                "log_id": null, "value": value(before.0), "weight": value(before.1), "user_id": "ann", "source": "API",
                "metadata": { "_user": "ann", "n": "1" },
            })
        );
        assert_eq!(updated == created, !flushed, "{created} {updated}");
        for stranger in ["zen viewer", "acme search"] {
            failure(with(&server, stranger, Method::GET, &path), StatusCode::NOT_FOUND).await;
        }
        failure(
            with(&server, "zen user", Method::PUT, &path).body("{\"value\":9}"),
            StatusCode::NOT_FOUND,
        )
        .await;
        let change = json!({ "feedback_id": "F", "value": -3 });
        let ids = told(
            &server,
            "acme user",
            Method::PUT,
            &path,
            &change,
            "Feedback successfully updated",
        )
        .await;
        assert_eq!(ids, std::slice::from_ref(&id));
    }
    let change = json!({ "value": 4, "weight": 1, "metadata": { "why": "better" } });
    let path = format!("/v1/feedback/{id}");
    told(&server, "acme user", Method::POST, &path, &change, "Feedback successfully updated").await;
    let shown = get(&server, "acme viewer", &path).await;
    assert_eq!(
        (&shown["value"], &shown["weight"], &shown["metadata"], &shown["user_id"]),
        (&json!(4), &json!(1), &json!({ "why": "better" }), &json!(null))
    );

    let list =
        async |query: &str| get(&server, "acme viewer", &format!("/v1/feedback{query}")).await;
    let all = list("").await;
    assert_eq!(
        (all["data"].as_array().unwrap().len(), &all["has_more"], &all["next"]),
        (5, &json!(false), &json!(null))
    );
    let of = |list: &Value| -> Vec<f64> {
        list["data"].as_array().unwrap().iter().map(|one| one["value"].as_f64().unwrap()).collect()
    };
    let mut found = of(&list("?trace_id=u").await);
    found.sort_by(f64::total_cmp);
    assert_eq!(found, [2.0, 2.5]);
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = list(&format!("?page_size=2&cursor={next}")).await;
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next"].as_str() else { break };
        next = cursor.to_owned();
    }
    let ids: Vec<&str> =
        all["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(seen, ids);
    assert_eq!(list("?to=2020-01-01").await["data"], json!([]));
    assert_eq!(of(&list("?from=2020-01-01T00:00:00Z&log_id=").await).len(), 5);
    for wrong in ["page_size=0", "page_size=1001", "cursor=x", "from=soon", "trace=t"] {
        failure(
            with(&server, "acme viewer", Method::GET, &format!("/v1/feedback?{wrong}")),
            StatusCode::BAD_REQUEST,
        )
        .await;
    }
    // Each state is a row of its own beside what holds now.
    let rows =
        server.sql("select (select count(*) from feedback_history) as h, (select count(*) from feedback) as f").await;
    assert_eq!(rows, [json!({ "h": 8, "f": 5 })]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_on_one_log_takes_its_place_from_the_log() {
    let server = bed(|_| {}).await;
    server.ingest(format!("{}\n{}\n", log("traced", Some("t")), log("lone", None))).await;
    let unknown =
        json!([{ "trace_id": "t", "value": 1 }, { "log_id": "none", "value": 1 }]).to_string();
    for (key, body) in
        [("acme user", unknown.as_str()), ("zen user", r#"{"log_id":"traced","value":1}"#)]
    {
        let request = with(&server, key, Method::POST, "/v1/feedback").body(body.to_owned());
        let (message, _) = failure(request, StatusCode::NOT_FOUND).await;
        assert!(
            message.contains("`log_id` is `") && message.contains("which no log has; send the log"),
            "{message}"
        );
    }
    assert_eq!(get(&server, KEY, "/v1/feedback").await["data"], json!([]));
    // The operator's key reaches all organisations, and the feedback is that of the log.
    let of_one =
        one(&server, KEY, json!({ "log_id": "traced", "trace_id": "wrong", "value": 10 })).await;
    let of_lone = one(&server, "acme user", json!({ "log_id": "lone", "value": -2 })).await;
    for (id, trace, log) in [(of_one, json!("t"), "traced"), (of_lone, json!(null), "lone")] {
        let shown = get(&server, "acme search", &format!("/v1/feedback/{id}")).await;
        assert_eq!(
            (
                &shown["organisation_id"],
                &shown["workspace_slug"],
                &shown["trace_id"],
                &shown["log_id"]
            ),
            (&json!("acme"), &json!("search"), &trace, &json!(log))
        );
        let path = format!("/v1/feedback/{id}");
        told(
            &server,
            "acme user",
            Method::PUT,
            &path,
            &json!({ "value": 1 }),
            "Feedback successfully updated",
        )
        .await;
        let listed = get(&server, "acme search", &format!("/v1/feedback?log_id={log}")).await;
        assert_eq!(
            (&listed["data"][0]["value"], &listed["data"][0]["trace_id"]),
            (&json!(1), &trace)
        );
    }
    // Of two with one id, feedback says whose is meant; and a key gives none in the name of others.
    let mut other = log("traced", Some("t"));
    other["organisation_id"] = json!("zen");
    server.ingest(format!("{other}\n")).await;
    for organisation in ["acme", "zen"] {
        let of = json!({ "log_id": "traced", "value": 1, "organisation_id": organisation });
        let id = one(&server, KEY, of).await;
        assert_eq!(
            get(&server, KEY, &format!("/v1/feedback/{id}")).await["organisation_id"],
            organisation
        );
        let of = json!({ "trace_id": "t", "value": 1, "organisation_id": organisation, "workspace_slug": "search" });
        let id = one(&server, KEY, of).await;
        assert_eq!(
            get(&server, KEY, &format!("/v1/feedback/{id}")).await["workspace_slug"],
            "search"
        );
    }
    let foreign = json!({ "trace_id": "t", "value": 1, "organisation_id": "zen" }).to_string();
    failure(
        with(&server, "acme user", Method::POST, "/v1/feedback").body(foreign),
        StatusCode::FORBIDDEN,
    )
    .await;
    let foreign = json!({ "log_id": "traced", "value": 1, "organisation_id": "zen" }).to_string();
    failure(
        with(&server, "acme user", Method::POST, "/v1/feedback").body(foreign),
        StatusCode::NOT_FOUND,
    )
    .await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_show_the_feedback_on_them_and_are_found_by_it() {
    let server = bed(|config| config.share_links = true).await;
    let logs = [log("a", Some("t")), log("b", Some("t")), log("c", Some("u")), log("lone", None)];
    server.ingest(logs.map(|log| format!("{log}\n")).concat()).await;
    let first = one(&server, "acme user", json!({ "trace_id": "t", "value": 8 })).await;
    one(&server, "acme user", json!({ "trace_id": "t", "value": 2, "weight": 0.5 })).await;
    one(&server, "acme user", json!({ "log_id": "b", "value": -10, "weight": 0.5 })).await;
    one(&server, "acme user", json!({ "log_id": "lone", "value": 7, "weight": 0.7 })).await;
    // Another organisation speaks of a trace of its own.
    one(&server, "zen user", json!({ "trace_id": "t", "value": -10 })).await;
    one(&server, "acme user", json!({ "trace_id": "u", "value": 3, "weight": 0 })).await;
    // a: 9 / 1.5; b: (9 - 5) / 2; c has no weight; lone: its own alone, to the digit.
    let means =
        [("a", json!(6), 2), ("b", json!(2), 3), ("c", json!(null), 1), ("lone", json!(7), 1)];
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
            server.engine.maintain(gatelog::Job::Compact, false).await.unwrap();
        }
        let list = get(&server, "acme user", "/v1/logs").await;
        for (id, mean, count) in &means {
            let shown = get(&server, "acme user", &format!("/v1/logs/{id}")).await;
            let said = shown["feedback"].as_array().unwrap();
            assert_eq!((said.len(), &shown["weighted_feedback"]), (*count, mean), "{id}: {shown}");
            let item =
                list["data"].as_array().unwrap().iter().find(|item| item["id"] == **id).unwrap();
            assert_eq!(&item["weighted_feedback"], mean, "{id}");
        }
        let found = async |query: &str| {
            let list =
                get(&server, "acme user", &format!("/v1/logs?{query}&include_total=true")).await;
            let ids = list["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned());
            let mut ids: Vec<String> = ids.collect();
            ids.sort();
            assert_eq!(list["total"], ids.len());
            ids
        };
        assert_eq!(found("weighted_feedback_min=3").await, ["a", "lone"]);
        assert_eq!(found("weighted_feedback_max=6").await, ["a", "b"]);
        assert_eq!(found("weighted_feedback_min=6&weighted_feedback_max=6.5").await, ["a"]);
        assert_eq!(found("weighted_feedback_min=-10").await, ["a", "b", "lone"]);
        assert_eq!(found("weighted_feedback_min=-10&trace_id=u").await, [""; 0]);
    }
    let saved = with(&server, "acme user", Method::PUT, "/v1/logs/filters/good");
    let saved =
        saved.body(json!({ "query": "weighted_feedback_min=3" }).to_string()).send().await.unwrap();
    assert_eq!(saved.status(), StatusCode::OK);
    let good = get(&server, "acme user", "/v1/logs?saved=good&include_total=true").await;
    assert_eq!(good["total"], 2);
    // A page that goes on is narrowed too.
    let page = get(&server, "acme user", "/v1/logs?saved=good&page_size=1").await;
    let next = page["next"].as_str().unwrap();
    let rest =
        get(&server, "acme user", &format!("/v1/logs?saved=good&page_size=1&cursor={next}")).await;
    assert_ne!((&rest["data"][0]["id"], &rest["has_more"]), (&page["data"][0]["id"], &json!(true)));

    // A job exports what the list shows.
    add_key(&server, "acme exporter", Scope::Export).await;
    let ask = async |method: Method, path: &str, body: Value| -> Value {
        let request = with(&server, "acme exporter", method, path).body(body.to_string());
        request.send().await.unwrap().json().await.unwrap()
    };
    let wanted = json!({ "filters": { "weighted_feedback_min": 3, "weighted_feedback_max": "6.5" }, "requested_data": ["id"] });
    let job = ask(Method::POST, "/v1/logs/exports", wanted).await;
    assert_eq!(job["total"], 1, "{job}");
    let path = format!("/v1/logs/exports/{}", job["id"].as_str().unwrap());
    ask(Method::POST, &format!("{path}/start"), json!({})).await;
    eventually("the job has ended", || async {
        get(&server, "acme exporter", &path).await["status"] == "success"
    })
    .await;
    let link = get(&server, "acme exporter", &format!("{path}/download")).await;
    let file = server
        .client
        .get(link["signed_url"].as_str().unwrap())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(file, "{\"id\":\"a\"}\n");

    // A link shows what was said too, as of when it is opened.
    let link = with(&server, "acme user", Method::POST, "/v1/logs/a/share").send().await.unwrap();
    let link: Value = link.json().await.unwrap();
    told(
        &server,
        "acme user",
        Method::PUT,
        &format!("/v1/feedback/{first}"),
        &json!({ "value": -1 }),
        UPDATED,
    )
    .await;
    let open = server.client.get(link["url"].as_str().unwrap()).send().await.unwrap();
    let shared: Value = open.json().await.unwrap();
    assert_eq!(shared["weighted_feedback"], json!(0));
    server.end().await;
}

const UPDATED: &str = "Feedback successfully updated";

#[tokio::test(flavor = "multi_thread")]
async fn graphs_and_groups_count_what_was_said_once() {
    let server = bed(|_| {}).await;
    add_key(&server, "acme analyst", Scope::Analytics).await;
    let mut later = log("b", Some("t"));
    later["created_at"] = json!("2026-11-21T10:00:00Z");
    later["ai_model"] = json!("mistral");
    server.ingest(format!("{}\n{later}\n{}\n", log("a", Some("t")), log("lone", None))).await;
    for (key, body) in [
        ("acme user", json!({ "trace_id": "t", "value": 8 })),
        ("acme user", json!({ "trace_id": "t", "value": 2, "weight": 0.5 })),
        ("acme user", json!({ "log_id": "b", "value": -10, "weight": 0.5 })),
        ("acme user", json!({ "log_id": "lone", "value": 2, "weight": 1 })),
        ("acme user", json!({ "trace_id": "elsewhere", "value": 1 })),
        ("zen user", json!({ "trace_id": "t", "value": 10 })),
    ] {
        one(&server, key, body).await;
    }
    let frame = "time_of_generation_min=2026-11-20&time_of_generation_max=2026-11-30";
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
        }
        let ask =
            async |path: &str| get(&server, "acme analyst", &format!("/v1/analytics/{path}")).await;
        let graph = async |path: &str| ask(&format!("graphs/{path}?{frame}")).await;
        let total = graph("feedbacks").await;
        assert_eq!(total["summary"], json!({ "total": 4 }));
        let hour = |day: usize, hour: usize| (day - 20) * 24 + hour;
        assert_eq!(total["bucket"], "day");
        let days =
            |of: &Value, name: &str| [0, 1].map(|day: usize| of["data_points"][day][name].clone());
        assert_eq!(days(&total, "total"), [json!(3), json!(1)], "{}", hour(20, 0));
        // (8 + 1 - 5 + 2) / 3; on the first day (8 + 1 + 2) / 2.5.
        let weighted = graph("feedbacks/weighted").await;
        assert_eq!(
            (&weighted["summary"], days(&weighted, "avg")),
            (&json!({ "avg": 2.0 }), [json!(4.4), json!(-10.0)])
        );
        for path in ["feedbacks/scores", "feedbacks/score"] {
            let scores = graph(path).await;
            let score = |score: f64, total: u32| json!({ "score": score, "total": total });
            assert_eq!(scores["summary"], json!({ "total": 4 }), "{path}");
            assert_eq!(
                scores["data_points"],
                json!([score(-10.0, 1), score(2.0, 2), score(8.0, 1)]),
                "{path}"
            );
        }
        // gpt-4o: (8 + 1 + 2) / 2.5; mistral: (8 + 1 - 5) / 2.
        let model = |name: &str, avg: f64| json!({ "ai_model": name, "total": 3, "avg_weighted_feedback": avg });
        let models = graph("feedbacks/ai-models").await;
        assert_eq!(models["data_points"], json!([model("gpt-4o", 4.4), model("mistral", 2.0)]));
        let teams =
            ask(&format!("groups/metadata/team?{frame}&order_by=metadata_value&order_by_type=asc"))
                .await;
        let figures = |item: &Value| {
            ["metadata_value", "avg_weighted_feedback", "requests_with_feedback"]
                .map(|name| item[name].clone())
        };
        let found: Vec<_> = teams["data"].as_array().unwrap().iter().map(figures).collect();
        let expected = [("a", 6.0), ("b", 2.0), ("lone", 2.0)]
            .map(|(team, mean)| [json!(team), json!(mean), json!(1)]);
        assert_eq!(found, expected);
        for (filter, requests) in [
            ("weighted_feedback_min=6", 1),
            ("weighted_feedback_max=2", 2),
            ("weighted_feedback_min=2&weighted_feedback_max=6&trace_id=t", 2),
        ] {
            let narrowed = ask(&format!("graphs/requests?{frame}&{filter}")).await;
            assert_eq!(narrowed["summary"]["total"], requests, "{filter}");
            let narrowed = ask(&format!("groups/ai_service?{frame}&{filter}")).await;
            assert_eq!(narrowed["total"], 0, "{filter}");
        }
        // What is filtered out takes what was said of it alone along.
        let narrowed = ask(&format!("graphs/feedbacks?{frame}&ai_model=gpt-4o")).await;
        assert_eq!(narrowed["summary"]["total"], 3);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_counts_for_the_logs_that_it_is_about() {
    let server = bed(|_| {}).await;
    add_key(&server, "acme analyst", Scope::Analytics).await;
    // Two workspaces share a trace, and one of its logs was replayed with another model.
    let (mut other, mut replay) = (log("b", Some("t")), log("r", Some("t")));
    (other["workspace_slug"], other["ai_model"]) = (json!("other"), json!("claude"));
    (replay["span_name"], replay["ai_model"]) = (json!("gatelog-replay"), json!("mistral"));
    server.ingest(format!("{}\n{other}\n{replay}\n", log("a", Some("t")))).await;
    for feedback in [
        json!({ "trace_id": "t", "value": 8 }),
        json!({ "trace_id": "t", "value": -10, "workspace_slug": "other" }),
        json!({ "trace_id": "t", "value": 5, "workspace_slug": "elsewhere" }),
        json!({ "log_id": "r", "value": 2 }),
    ] {
        one(&server, "acme user", feedback).await;
    }
    let frame = "time_of_generation_min=2026-11-20&time_of_generation_max=2026-11-30";
    for flushed in [false, true] {
        if flushed {
            server.engine.flush().await.unwrap();
        }
        let means = [("a", json!(8), 1), ("b", json!(-1), 2), ("r", json!(2), 1)];
        let list = get(&server, "acme user", "/v1/logs").await;
        for (id, mean, count) in &means {
            let shown = get(&server, "acme user", &format!("/v1/logs/{id}")).await;
            assert_eq!(
                (&shown["weighted_feedback"], shown["feedback"].as_array().unwrap().len()),
                (mean, *count),
                "{id}"
            );
            let item =
                list["data"].as_array().unwrap().iter().find(|item| item["id"] == **id).unwrap();
            assert_eq!(&item["weighted_feedback"], mean, "{id}");
            let near = format!("weighted_feedback_min={mean}&weighted_feedback_max={mean}");
            let found = get(&server, "acme user", &format!("/v1/logs?{near}")).await;
            assert_eq!(
                (found["data"].as_array().unwrap().len(), &found["data"][0]["id"]),
                (1, &json!(id)),
                "{near}"
            );
        }
        let ask = async |path: &str| {
            get(&server, "acme analyst", &format!("/v1/analytics/{path}?{frame}")).await
        };
        assert_eq!(ask("graphs/feedbacks").await["summary"], json!({ "total": 3 }));
        assert_eq!(ask("graphs/feedbacks/scores").await["summary"], json!({ "total": 3 }));
        assert_eq!(ask("graphs/feedbacks/weighted").await["summary"], json!({ "avg": 0.0 }));
        let model = |name: &str, total: u32, avg: f64| json!({ "ai_model": name, "total": total, "avg_weighted_feedback": avg });
        let models = [model("claude", 2, -1.0), model("gpt-4o", 1, 8.0), model("mistral", 1, 2.0)];
        assert_eq!(ask("graphs/feedbacks/ai-models").await["data_points"], json!(models));
        let teams = ask("groups/metadata/team").await;
        let mean_of = |id: &str| {
            let team = teams["data"]
                .as_array()
                .unwrap()
                .iter()
                .find(|team| team["metadata_value"] == id)
                .unwrap();
            (team["avg_weighted_feedback"].as_f64(), team["requests_with_feedback"].as_u64())
        };
        assert_eq!(
            [mean_of("a"), mean_of("b"), mean_of("r")],
            [8.0, -1.0, 2.0].map(|mean| (Some(mean), Some(1)))
        );
        let report = server
            .sql("select ai_model, feedbacks, weighted_feedback as mean from feedback_by_model")
            .await;
        let mut report: Vec<_> =
            report.iter().map(|row| (row["ai_model"].as_str(), row["mean"].as_f64())).collect();
        report.sort_by_key(|(model, _)| *model);
        let expected = [("claude", -1.0), ("gpt-4o", 8.0), ("mistral", 2.0)];
        assert_eq!(report, expected.map(|(model, mean)| (Some(model), Some(mean))));
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_records_take_the_feedback_on_them_along() {
    for flushed in [false, true] {
        let server = bed(|_| {}).await;
        let replay = {
            let mut replay = log("r", Some("u"));
            replay["span_name"] = json!("gatelog-replay");
            replay
        };
        let mut of_ann = log("ann-1", Some("v"));
        of_ann["metadata"]["_user"] = json!("ann");
        let mut elsewhere = log("w-1", Some("w"));
        elsewhere["workspace_slug"] = json!("other");
        let logs = [log("a", Some("t")), log("b", Some("t")), log("c", Some("u")), replay, of_ann];
        let more = [log("w-2", Some("w")), elsewhere, log("lone", None)];
        server
            .ingest(logs.into_iter().chain(more).map(|log| format!("{log}\n")).collect::<String>())
            .await;
        let give = async |body: Value| one(&server, "acme user", body).await;
        let on = async |log: &str| give(json!({ "log_id": log, "value": 1 })).await;
        let of = async |trace: &str| give(json!({ "trace_id": trace, "value": 1 })).await;
        let (on_a, on_lone, on_r, on_ann) =
            (on("a").await, on("lone").await, on("r").await, on("ann-1").await);
        let (of_t, of_u, of_v, of_w, of_nothing) =
            (of("t").await, of("u").await, of("v").await, of("w").await, of("nothing").await);
        let w_of_search =
            give(json!({ "trace_id": "w", "value": 1, "workspace_slug": "search" })).await;
        // Only the latest state names the user; the older one must not show again.
        let named = of("nothing").await;
        let change = json!({ "value": 2, "metadata": { "_user": "ann" } });
        told(&server, "acme user", Method::PUT, &format!("/v1/feedback/{named}"), &change, UPDATED)
            .await;
        let zen = one(&server, "zen user", json!({ "trace_id": "t", "value": 1 })).await;
        // A record that has the id of feedback that goes.
        server.ingest(format!("{}\n", log(&on_a, Some("other")))).await;
        if flushed {
            server.engine.flush().await.unwrap();
        }

        let all = [
            &on_a,
            &on_lone,
            &on_r,
            &on_ann,
            &of_t,
            &of_u,
            &of_v,
            &of_w,
            &of_nothing,
            &w_of_search,
            &named,
        ];
        let gone = async || {
            let mut gone = Vec::new();
            for id in all {
                let path = format!("/v1/feedback/{id}");
                if with(&server, "acme user", Method::GET, &path).send().await.unwrap().status()
                    == StatusCode::NOT_FOUND
                {
                    gone.push(id);
                    failure(
                        with(&server, "acme user", Method::PUT, &path).body("{\"value\":1}"),
                        StatusCode::NOT_FOUND,
                    )
                    .await;
                }
            }
            let listed =
                get(&server, "acme user", "/v1/feedback").await["data"].as_array().unwrap().len();
            let states = format!(
                "select count(*) as n from feedback_history where id in ('{}')",
                gone.iter().map(|id| id.as_str()).collect::<Vec<_>>().join("','")
            );
            assert_eq!(
                (listed, &server.sql(&states).await[0]["n"]),
                (all.len() - gone.len(), &json!(0))
            );
            gone
        };
        assert_eq!(gone().await, Vec::<&String>::new());
        let erase = async |body: Value| -> Value {
            let request = with(&server, "acme admin", Method::POST, "/v1/admin/erasures")
                .body(body.to_string());
            request.send().await.unwrap().json().await.unwrap()
        };
        // Of the trace another record is left.
        assert_eq!(erase(json!({ "ids": ["a"] })).await["feedback"], 1);
        assert_eq!(gone().await, [&on_a]);
        // Now none is; of `u` only a replay, and of `w` none of the workspace that one of the two
        // speaks of.
        assert_eq!(erase(json!({ "ids": ["b", "c", "w-2", "lone"] })).await["feedback"], 4);
        assert_eq!(gone().await, [&on_a, &on_lone, &of_t, &of_u, &w_of_search]);
        assert_eq!(erase(json!({ "user": "ann" })).await["feedback"], 3);
        assert_eq!(
            gone().await,
            [&on_a, &on_lone, &on_ann, &of_t, &of_u, &of_v, &w_of_search, &named]
        );
        // Feedback is erased by its own id too.
        assert_eq!(erase(json!({ "ids": [on_r] })).await["feedback"], 1);
        assert_eq!(
            gone().await,
            [&on_a, &on_lone, &on_r, &on_ann, &of_t, &of_u, &of_v, &w_of_search, &named]
        );
        get(&server, "acme user", &format!("/v1/logs/{on_a}")).await;
        get(&server, "zen user", &format!("/v1/feedback/{zen}")).await;

        // It comes back with nothing, and leaves the files.
        server.engine.flush().await.unwrap();
        server.engine.maintain(gatelog::Job::Expire, false).await.unwrap();
        assert_eq!(server.engine.status().feedback_rows, 3, "of_w, of_nothing, and zen's");
        assert_eq!(
            server.count().await,
            3,
            "r, w-1, and the one with the id of feedback: {flushed}"
        );
        let erasures = get(&server, "acme admin", "/v1/admin/erasures").await;
        let records: Vec<u64> = erasures["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["erased"].as_u64().unwrap())
            .collect();
        assert_eq!(
            records.iter().sum::<u64>(),
            6,
            "a, b, c, w-2, lone, ann-1, and no feedback: {erasures}"
        );
        server.end().await;
    }
}

/// Sends feedback on a connection of its own and hangs up; an SDK then sends it again.
fn send(server: &Server, version: &str, body: &str) {
    let mut stream = TcpStream::connect(server.base.trim_start_matches("http://")).unwrap();
    let head = format!(
        "POST /v1/feedback HTTP/1.1\r\nhost: x\r\nx-portkey-api-key: {KEY}\r\n{version}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_an_sdk_sends_again_counts_once() {
    let server = Server::start().await;
    let sdk = "x-portkey-package-version: portkey-3.1.0\r\n";
    let body = r#"[{"trace_id":"t","value":1},{"trace_id":"u","value":2}]"#;
    let counted = async |expected: u64| {
        let rows = server.sql("select count(*) as n from feedback").await;
        rows[0]["n"] == expected
    };
    for (version, expected) in [(sdk, 2), (sdk, 2), (sdk, 4), ("", 6), ("", 8)] {
        send(&server, version, body);
        eventually("the feedback is there", || counted(expected)).await;
        // The server notices a closed connection as soon as it looks.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(counted(expected).await, "{version} {expected}");
    }
    server.engine.flush().await.unwrap();
    assert!(counted(8).await);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_at_once_the_latest_holds_and_none_is_lost_from_the_history() {
    let server = Server::start().await;
    let id = one(&server, KEY, json!({ "trace_id": "t", "value": 0 })).await;
    let path = format!("/v1/feedback/{id}");
    let changes = (1..=8).map(|value| {
        let request =
            with(&server, KEY, Method::PUT, &path).body(json!({ "value": value }).to_string());
        tokio::spawn(async move { request.send().await.unwrap().status() })
    });
    for change in changes.collect::<Vec<_>>() {
        assert_eq!(change.await.unwrap(), StatusCode::OK);
    }
    let latest = "select value from feedback_history order by updated_at desc, value desc limit 1";
    let rows = server.sql(latest).await;
    assert_eq!(rows[0]["value"].as_f64(), get(&server, KEY, &path).await["value"].as_f64());
    assert_eq!(server.sql("select count(*) as n from feedback_history").await, [json!({ "n": 9 })]);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_take_out_of_records_they_take_out_of_feedback() {
    let server = Server::start_with(|config| {
        config.set("redact", "[mail]\npattern = '[a-z]+@[a-z.]+'\nreplacement = '-'\n").unwrap();
    })
    .await;
    let id = one(
        &server,
        KEY,
        json!({ "trace_id": "t", "value": 1, "metadata": { "_user": "ann@x.org", "k": "to bob@x.org" } }),
    )
    .await;
    let shown = get(&server, KEY, &format!("/v1/feedback/{id}")).await;
    assert_eq!(
        (&shown["user_id"], &shown["metadata"]["k"], &shown["metadata"]["_user"]),
        (&json!("-"), &json!("to -"), &json!("-"))
    );
    server.end().await;
}
