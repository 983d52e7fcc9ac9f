//! Reports of a gateway 2.0 to its control plane: both parts of a call, feedback, results of
//! guardrails, and files of a log store.

use serde_json::{Value, json};

use super::*;
use crate::ingest::control_plane::{self, Batch, Logged};
use crate::parts::{RecordPart, join};
use crate::record::Feedback;
use crate::record::json::{list, members};

/// Returns a row of metrics, as the gateway writes it.
fn row() -> Value {
    let text = r#"{
        "id": "call-1", "organisation_id": "acme", "organisation_name": "Acme", "user_id": "key-owner", "prompt_id": "",
        "prompt_version_id": "pv-1", "config_id": "", "created_at": "2026-11-21 16:26:58.758", "is_success": true,
        "ai_org": "openai", "ai_org_auth_hash": "", "ai_model": "gpt-4o", "req_units": "9", "res_units": 9,
        "total_units": 18, "cost": 0.5, "cost_currency": "usd",
        "request_url": "https://host/v1/chat?key=0123456789abcdefgh", "request_method": "POST",
        "response_status_code": 200, "response_time": 249.6, "is_proxy_call": false, "cache_status": "MISS",
        "cache_type": "simple", "stream_mode": true, "retry_success_count": "2", "_environment": "dev", "_user": "ann",
        "_organisation": "", "_prompt": "", "trace_id": "t", "span_id": "s", "span_name": "llm", "parent_span_id": "p",
        "extra_key": "is_raw_logging_enabled", "extra_value": "true", "mode": "loadbalance", "virtual_key": "vk",
        "source": "rubeus-2", "runtime": "node", "runtime_version": "v20", "sdk_version": "portkey-3.1.0",
        "config": "pc-1", "internal_trace_id": "it", "last_used_option_index": -1, "prompt_slug": "pp-1",
        "workspace_slug": "search", "log_store_file_path_format": "v1", "metadata.key": ["_user", "team", "none"],
        "metadata.value": ["ann", "blue", null], "api_key_id": "key-1", "gateway_version": "2.2.3", "ttlt": 52,
        "gateway_processing_time": 2, "upstream_response_time": 8
    }"#;
    serde_json::from_str(text).unwrap()
}

fn object() -> Value {
    json!({
        "_id": "call-1", "organisation_id": "acme",
        "created_at": "Sat Nov 21 2026 16:26:58 GMT+0000 (Coordinated Universal Time)",
        "request": {
            "url": "https://host/v1/chat?key=0123456789abcdefgh", "method": "POST",
            "headers": { "accept": "*/*", "authorization": "Bearer 0123456789abcdefgh" },
            "body": { "model": "gpt-4o", "messages": [{ "role": "user", "content": "hi" }] },
            "portkeyHeaders": {
                "x-portkey-api-key": "0123456789abcdefgh", "x-portkey-span-id": null,
                "x-portkey-config": "{\"provider\":\"openai\",\"api_key\":\"0123456789abcdefgh\"}",
            },
        },
        "response": {
            "status": 200, "headers": { "set-cookie": "0123456789abcdefgh" }, "body": { "id": "chatcmpl-1" },
            "responseTime": 249.6, "lastUsedOptionJsonPath": "config.targets[1]",
        },
        "metrics": row(),
        "transformedRequest": { "body": { "other": 1 }, "headers": { "authorization": "0123456789abcdefgh" } },
    })
}

/// Returns `value` with some of its fields replaced.
fn with(mut value: Value, changes: Value) -> Value {
    if let Value::Object(changes) = changes {
        changes.into_iter().for_each(|(name, change)| value[&name] = change);
    }
    value
}

fn context() -> Context {
    Context::new(now())
}

fn logged(object: &Value) -> Result<Logged, Rejection> {
    control_plane::log(
        json!({ "logObject": object, "logOptions": {} }).to_string().as_bytes(),
        &context(),
    )
}

fn call(object: &Value) -> Record {
    match logged(object).unwrap() {
        Logged::Call(record) => *record,
        Logged::Guardrail(_) => panic!("not a call"),
    }
}

fn batch(table: &str, rows: &Value) -> Batch {
    control_plane::rows(json!({ "table": table, "data": rows }).to_string().as_bytes(), &context())
        .unwrap()
}

fn figures(row: &Value) -> Record {
    let Batch { mut record_parts, feedback, rejections, .. } = batch("generations", &json!([row]));
    assert_eq!((record_parts.len(), feedback.len(), rejections.len()), (1, 0, 0), "{rejections:?}");
    let (part_kind, record) = record_parts.remove(0);
    assert_eq!(part_kind, RecordPart::Figures);
    record
}

fn expected() -> Record {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Record {
        id: some("call-1"),
        organisation_id: some("acme"),
        workspace_slug: some("search"),
        created_at: Some("2026-11-21T16:26:58.758Z".parse().unwrap()),
        is_success: Some(1),
        ai_org: some("openai"),
        ai_model: some("gpt-4o"),
        req_units: Some(9),
        res_units: Some(9),
        total_units: Some(18),
        cost: Some(0.5),
        cost_currency: some("USD"),
        request_url: some("https://host/v1/chat?key=01********fgh"),
        request_method: some("POST"),
        response_status_code: Some(200),
        response_time: Some(250),
        time_to_last_token: Some(52),
        upstream_response_time: Some(8),
        cache_status: some("MISS"),
        cache_type: some("SIMPLE"),
        stream_mode: Some(true),
        retry_success_count: Some(2),
        mode: some("LOADBALANCE"),
        virtual_key: some("vk"),
        config: some("pc-1"),
        prompt_slug: some("pp-1"),
        prompt_version_id: some("pv-1"),
        runtime: some("node"),
        runtime_version: some("v20"),
        sdk_version: some("portkey-3.1.0"),
        trace_id: some("t"),
        span_id: some("s"),
        parent_span_id: some("p"),
        span_name: some("llm"),
        internal_trace_id: some("it"),
        user_id: some("ann"),
        api_key_id: some("key-1"),
        source: some("rubeus-2"),
        do_not_track: Some(false),
        metadata: vec![tag("_user", "ann"), tag("team", "blue"), tag("_environment", "dev")],
        ..Record::default()
    }
}

#[test]
fn a_row_of_figures_has_every_column_that_there_is() {
    assert_eq!(figures(&row()), expected());
}

#[test]
fn a_log_object_has_metrics_and_content_with_secrets_masked() {
    let body = r#"{"messages":[{"content":"hi","role":"user"}],"model":"gpt-4o"}"#;
    let config = r#""{\"provider\":\"openai\",\"api_key\":\"01********fgh\"}""#;
    let headers = format!(
        r#"{{"accept":"*/*","authorization":"01********fgh","x-portkey-api-key":"01********fgh","x-portkey-config":{config}}}"#
    );
    let whole = Record {
        last_used_option: some("config.targets[1]"),
        request: Message { body: some(body), headers: Some(headers) },
        response: Message {
            body: some(r#"{"id":"chatcmpl-1"}"#),
            headers: some(r#"{"set-cookie":"01********fgh"}"#),
        },
        ..expected()
    };
    assert_eq!(call(&object()), whole);
    // A file of a log store contains only the log object.
    let file =
        control_plane::file(format!("\u{feff}{}\n", object()).as_bytes(), &context()).unwrap();
    assert_eq!(file, Logged::Call(Box::new(whole.clone())));
    // A row that arrives later changes nothing.
    assert_eq!(join(figures(&row()), whole.clone()), whole);
}

#[test]
fn unknown_values_are_null_and_a_cost_of_0_is_kept() {
    let unset = json!({
        "cost": 0, "ttlt": 0, "upstream_response_time": 0, "cache_status": "", "cache_type": "", "virtual_key": "",
        "parent_span_id": "", "_user": "", "_environment": "", "metadata.key": [], "metadata.value": [], "extra_value": "",
    });
    let record = figures(&with(row(), unset));
    assert_eq!(record.cost, Some(0.0));
    assert_eq!(
        (record.time_to_last_token, record.upstream_response_time, record.do_not_track),
        (None, None, None)
    );
    let texts =
        [&record.cache_status, &record.cache_type, &record.virtual_key, &record.parent_span_id];
    assert!(texts.iter().all(|text| text.is_none()), "{texts:?}");
    assert_eq!((record.metadata, record.user_id), (Vec::new(), some("key-owner")));
    // The gateway has no measurements of a call that a client reported itself.
    for (source, expected) in [("proxy-log", None), ("rubeus-2", Some(0))] {
        let record = figures(&with(row(), json!({ "response_time": 0, "source": source })));
        assert_eq!(record.response_time, expected, "{source}");
    }
    // Calls of tools have another value in the place where others state if content was stored.
    let tool =
        json!({ "extra_key": "mcp_otel_status", "extra_value": "false", "mode": "mcp:tool_call" });
    let tool = figures(&with(row(), tool));
    assert_eq!((tool.do_not_track, tool.mode), (None, some("MCP:TOOL_CALL")));
}

#[test]
fn content_of_a_call_that_is_not_tracked_is_dropped_from_each_part() {
    let untracked = with(
        row(),
        json!({ "extra_value": "false", "is_success": false, "response_status_code": 400 }),
    );
    let record = call(&with(object(), json!({ "metrics": untracked })));
    let empty = Message::default();
    assert_eq!(
        (record.do_not_track, &record.request, &record.response),
        (Some(true), &empty, &empty)
    );
    assert_eq!((record.cost, figures(&untracked).do_not_track), (Some(0.5), Some(true)));
    // Without metrics, the header of the caller decides.
    let mut alone = object();
    alone["metrics"] = Value::Null;
    alone["request"]["portkeyHeaders"]["x-portkey-debug"] = json!("False");
    let record = call(&alone);
    assert_eq!(
        (record.do_not_track, record.request, record.response),
        (Some(true), empty.clone(), empty)
    );
    // With metrics, the gateway has decided: an organisation can overrule the header.
    alone["metrics"] = row();
    assert_eq!(call(&alone).do_not_track, Some(false));
}

#[test]
fn a_log_object_without_metrics_takes_them_from_bodies_and_headers() {
    let mut alone = object();
    alone["metrics"] = Value::Null;
    alone["request"]["portkeyHeaders"] = json!({
        "x-portkey-provider": "openai", "x-portkey-trace-id": "t", "x-portkey-metadata": "{\"_user\":\"ann\",\"n\":1}",
        "x-portkey-config": "pc-1", "x-portkey-package-version": "portkey-3.1.0",
    });
    alone["response"]["body"] = json!({ "usage": { "prompt_tokens": 9, "completion_tokens": 9 } });
    alone["request"]["body"] = Value::Null;
    alone["finalUntransformedRequest"] = json!({ "body": { "model": "gpt-4o", "stream": true } });
    let record = call(&alone);
    assert_eq!((record.ai_org, record.ai_model), (some("openai"), some("gpt-4o")));
    assert_eq!(
        (record.total_units, record.cost, record.stream_mode),
        (Some(18), Some(0.01125), Some(true))
    );
    assert_eq!(
        (record.trace_id, record.config, record.user_id),
        (some("t"), some("pc-1"), some("ann"))
    );
    assert_eq!(
        (record.sdk_version, record.is_success, record.mode),
        (some("portkey-3.1.0"), Some(1), None)
    );
    assert_eq!(record.created_at.unwrap().to_rfc3339(), "2026-11-21T16:26:58+00:00");
    assert_eq!(record.request.body.as_deref(), Some(r#"{"model":"gpt-4o","stream":true}"#));
}

#[test]
fn invalid_fields_are_refused_by_name_and_without_their_content() {
    let deep = format!("{}1{}", "[".repeat(121), "]".repeat(121));
    let deep: Value = serde_json::from_str(&deep).unwrap();
    let mut too_deep = object();
    too_deep["response"]["body"] = deep;
    for (object, field) in [
        (json!("secret"), "json"),
        (json!({ "_id": "a" }), "request"),
        (with(object(), json!({ "_id": null, "metrics": null })), "id"),
        (with(object(), json!({ "_id": "other" })), "metrics.id"),
        (with(object(), json!({ "created_at": "secret", "metrics": null })), "created_at"),
        (with(object(), json!({ "created_at": null, "metrics": null })), "created_at"),
        (too_deep, "response.body"),
    ] {
        let rejection = logged(&object).unwrap_err();
        assert_eq!((&*rejection.field, &*rejection.value), (field, ""), "{rejection}");
    }
    // The message says where the text stops being JSON, and quotes none of it.
    let broken = control_plane::file(b"{\"_id\":\n{secret", &context()).unwrap_err().to_string();
    assert_eq!(
        broken,
        "field `json`: expected one JSON object; this is not valid JSON (key must be a string at line 2 column 2)"
    );
    for (sent, field) in
        [(&b"{}"[..], "logObject"), (b"secret", "json"), (b"\xff", "json"), (b"", "json")]
    {
        assert_eq!(control_plane::log(sent, &context()).unwrap_err().field, field);
    }
    for (sent, field) in [
        (json!({ "data": [] }), "table"),
        (json!({ "table": "audit_logs", "data": [] }), "table"),
        (json!({ "table": "generations" }), "data"),
        (json!([]), "json"),
    ] {
        let refused = control_plane::rows(sent.to_string().as_bytes(), &context()).unwrap_err();
        assert_eq!(refused.field, field);
    }
    // A bad row does not affect the others.
    let late = with(row(), json!({ "created_at": "9999-12-31 00:00:00" }));
    let rows = json!([
        1,
        row(),
        with(row(), json!({ "id": "" })),
        with(row(), json!({ "id": "call-2" })),
        late
    ]);
    let Batch { record_parts, rejections, .. } = batch("generations", &rows);
    let ids: Vec<_> =
        record_parts.iter().map(|(_, record)| record.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["call-1", "call-2"]);
    let refused: Vec<_> = rejections.iter().map(|one| (one.record, &*one.field)).collect();
    assert_eq!(refused, [(0, "json"), (2, "id"), (4, "created_at")]);
    // A file has the time of its name; without one it has that of the metrics.
    let file = |object: &Value| control_plane::file(object.to_string().as_bytes(), &context());
    assert!(file(&with(object(), json!({ "metrics": late }))).is_ok());
    let refused =
        file(&with(object(), json!({ "created_at": "0001-01-01", "metrics": late }))).unwrap_err();
    assert_eq!((&*refused.field, &*refused.value), ("created_at", "\"9999-12-31 00:00:00\""));
    for table in ["feedbacks", "generation_hooks"] {
        let row = json!({ "id": "f", "trace_id": "t", "generation_id": "g", "value": 1, "created_at": "2026-13-45" });
        assert_eq!(batch(table, &json!([row])).rejections[0].field, "created_at", "{table}");
    }
}

#[test]
fn feedback_is_read_within_its_bounds() {
    let rating = json!({
        "id": "f-1", "trace_id": "t", "organisation_id": "acme", "value": 5, "weight": 0.5, "source": "API",
        "created_at": "2026-11-21 16:27:03", "meta.key": ["_user", "text"], "meta.value": ["ann", "ok"],
    });
    let at = Some("2026-11-21T16:27:03Z".parse().unwrap());
    let expected = Feedback {
        id: some("f-1"),
        organisation_id: some("acme"),
        created_at: at,
        updated_at: at,
        trace_id: some("t"),
        value: Some(5.0),
        weight: Some(0.5),
        user_id: some("ann"),
        source: some("API"),
        metadata: vec![
            ("_user".to_owned(), "ann".to_owned()),
            ("text".to_owned(), "ok".to_owned()),
        ],
        ..Feedback::default()
    };
    let Batch { feedback, rejections, .. } = batch("feedbacks", &json!([rating]));
    assert_eq!((feedback, rejections), (vec![expected], vec![]));
    let mut others = [-10, 10]
        .map(|value| with(rating.clone(), json!({ "value": value, "weight": null })))
        .to_vec();
    let bad = [
        json!({ "value": 11 }),
        json!({ "value": null }),
        json!({ "weight": 2 }),
        json!({ "trace_id": "" }),
    ];
    others.extend(bad.map(|change| with(rating.clone(), change)));
    let Batch { feedback, rejections, .. } = batch("feedbacks", &json!(others));
    assert_eq!(
        feedback.iter().map(|one| (one.value, one.weight)).collect::<Vec<_>>(),
        [(Some(-10.0), Some(1.0)), (Some(10.0), Some(1.0))]
    );
    let fields: Vec<_> = rejections.iter().map(|one| &*one.field).collect();
    assert_eq!(fields, ["value", "value", "weight", "trace_id"]);
}

#[test]
fn results_of_guardrails_become_feedback_without_loss() {
    let found = json!({
        "id": "h-1", "organisation_id": "acme", "workspace_slug": "search", "generation_id": "call-1", "trace_id": "t",
        "internal_trace_id": "it", "hook_id": "pg-1", "hook_event_type": "beforeRequestHook", "hook_category": "guardrail",
        "execution_time": 3, "created_at": "2026-11-21 16:26:58.800", "verdict": false, "deny": true,
        "checks.check_id": ["default.contains"], "checks.verdict": [false], "guardrail_version_id": "",
    });
    let Batch { record_parts, mut feedback, rejections, .. } =
        batch("generation_hooks", &json!([found]));
    assert_eq!((record_parts.len(), feedback.len(), rejections.len()), (0, 1, 0));
    let found_too = feedback.remove(0);
    assert_eq!(
        (found_too.log_id, found_too.trace_id, found_too.id),
        (some("call-1"), some("t"), some("h-1"))
    );
    assert_eq!(
        (found_too.value, found_too.weight, found_too.source),
        (None, None, some("guardrail"))
    );
    let own =
        ["id", "organisation_id", "workspace_slug", "generation_id", "trace_id", "created_at"];
    let expected: Vec<_> = found
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .collect();
    assert_eq!(found_too.metadata.len(), expected.len());
    for (name, value) in expected {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert!(found_too.metadata.contains(&(name.clone(), text)), "{name}");
    }
    // The columns are cut like other metadata, and the number of keys is limited.
    let mut long = found.clone();
    for number in 0..200 {
        long[format!("{number:03}{}", "é".repeat(200))] = json!("ü".repeat(129));
    }
    let metadata = batch("generation_hooks", &json!([long])).feedback.remove(0).metadata;
    assert_eq!(metadata.len(), 100);
    let longest =
        metadata.iter().map(|(key, value)| (key.chars().count(), value.chars().count())).max();
    assert_eq!(longest, Some((128, 128)));
    // The texts that the checks found do not name the call, which may not be tracked.
    let texts = json!({ "_id": "h-1", "hook_id": "pg-1", "organisation_id": "acme", "checks": [{ "data": "secret" }] });
    let whose = crate::ingest::whose(r#"{"organisation_id":"acme"}"#);
    assert_eq!(logged(&texts), Ok(Logged::Guardrail(whose.clone())));
    assert_eq!(
        control_plane::file(texts.to_string().as_bytes(), &context()),
        Ok(Logged::Guardrail(whose))
    );
}

/// Joins the two parts of each call that a gateway sent, and returns the calls.
fn joined(sent: &str) -> Vec<Record> {
    let mut contents = Vec::new();
    let mut figures = Vec::new();
    let mut rows = Vec::new();
    for line in sent.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        let body = request["body"].as_str().unwrap();
        if request["path"].as_str().unwrap().starts_with("/v1/logs/enterprise") {
            match control_plane::log(body.as_bytes(), &context()).unwrap() {
                Logged::Call(record) => contents.push(*record),
                Logged::Guardrail(_) => panic!("{body}"),
            }
        } else if request["path"] == "/v1/analytics/enterprise/analytics" {
            let Batch { record_parts, rejections, .. } =
                control_plane::rows(body.as_bytes(), &context()).unwrap();
            assert_eq!(rejections, []);
            figures.extend(record_parts.into_iter().map(|(_, record)| record));
            // A `Value` would round costs.
            let data =
                members(body).unwrap().into_iter().find(|(name, _)| name == "data").unwrap().1;
            rows.extend(list(data).unwrap().into_iter().map(str::to_owned));
        }
    }
    assert_eq!(contents.len(), figures.len());
    for figures in figures {
        let content = contents.iter().find(|content| content.id == figures.id).unwrap().clone();
        let row = rows.iter().find(|row| row.contains(figures.id.as_deref().unwrap())).unwrap();
        let (_, cost) = members(row).unwrap().into_iter().find(|(name, _)| name == "cost").unwrap();
        assert_eq!(
            join(figures.clone(), content.clone()),
            content,
            "each half of these has all figures"
        );
        assert_eq!(figures.cost.unwrap(), cost.parse::<f64>().unwrap(), "to the last digit");
        assert!(!content.request.headers.unwrap_or_default().contains("null"));
    }
    contents
}

#[test]
fn parts_join_in_any_order() {
    let calls = joined(include_str!("../../../tests/data/control_plane_requests.jsonl"));
    let figures = |record: &Record| {
        (
            record.trace_id.clone().unwrap(),
            record.total_units.unwrap(),
            record.cost.unwrap(),
            record.is_success.unwrap(),
        )
    };
    let expected = [
        ("t-plain", 34, 0.024250000000000003, 1),
        ("t-stream", 10, 0.00475, 1),
        ("t-dnt", 11, 0.00725, 1),
        ("t-dnt-fail", 0, 0.0, 0),
        ("t-retry", 16, 0.010000000000000002, 1),
        ("t-retryx", 0, 0.0, 0),
        ("t-fb", 0, 0.0, 0),
        ("t-fb", 17, 0.00066, 1),
        ("t-lb", 15, 0.00040500000000000003, 1),
        ("t-cache1", 18, 0.0135, 1),
        ("t-cache2", 18, 0.0135, 1),
        ("t-cacher", 18, 0.0135, 1),
        ("t-emb", 4, 8e-6, 1),
        ("t-reported", 19, 0.00625, 1),
        ("t-bare", 0, 0.0, 0),
    ];
    assert_eq!(
        calls.iter().map(figures).collect::<Vec<_>>(),
        expected.map(|(trace, tokens, cost, success)| (trace.to_owned(), tokens, cost, success))
    );
    for call in &calls {
        let kept = !call.trace_id.as_ref().unwrap().starts_with("t-dnt");
        assert_eq!(
            (call.request.body.is_some(), call.response.body.is_some()),
            (kept, kept),
            "{:?}",
            call.trace_id
        );
    }
    // Requests that a real gateway of branch 2.0.0 sent.
    if let Some(sent) = captured("gateway_2.0_control_plane_requests.jsonl") {
        assert_eq!(joined(&sent).len(), 19);
    }
}
