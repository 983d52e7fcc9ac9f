//! Reports that gateways send by themselves: LiteLLM's callback, and the hooks of the npm gateway.

use serde_json::{Value, json};

use super::*;

fn litellm(value: &Value) -> Record {
    let (mut records, rejections) =
        read_with(SourceFormat::LiteLlm, value.to_string().as_bytes(), Headers::default());
    assert_eq!((records.len(), rejections.len()), (1, 0), "{rejections:?}");
    records.remove(0)
}

fn hook(value: &Value) -> Record {
    let (mut records, rejections) =
        read_with(SourceFormat::GatewayHook, value.to_string().as_bytes(), Headers::default());
    assert_eq!((records.len(), rejections.len()), (1, 0), "{rejections:?}");
    records.remove(0)
}

/// Returns `value` with `changes` applied level by level.
fn with(mut value: Value, changes: Value) -> Value {
    match changes {
        Value::Object(fields) if value.is_object() => {
            for (name, change) in fields {
                let old = value[&name].take();
                value[&name] = with(old, change);
            }
            value
        }
        other => other,
    }
}

fn payload() -> Value {
    json!({
        "id": "chatcmpl-1", "trace_id": "t-1", "call_type": "acompletion", "stream": false, "response_cost": 0.0001125,
        "response_cost_failure_debug_info": null, "status": "success", "custom_llm_provider": "openai",
        "total_tokens": 18, "prompt_tokens": 9, "completion_tokens": 9, "startTime": 1795278418.25,
        "endTime": 1795278419.0, "completionStartTime": 1795278418.5, "response_time": 0.75, "model": "gpt-4o",
        "model_group": "fast", "api_base": "https://api.openai.com/v1/?key=0123456789abcdef", "cache_hit": null,
        "metadata": {
            "user_api_key_hash": "hash", "user_api_key_alias": "team-key", "spend_logs_metadata": { "job": "nightly", "team": "a" },
            "requester_metadata": { "team": "b" }, "prompt_management_metadata": { "prompt_id": "greet" },
        },
        "request_tags": ["x", "y"], "end_user": "ann", "messages": [{ "role": "user", "content": "hi" }],
        "response": { "model": "gpt-4o", "choices": [] }, "error_information": null, "error_str": null,
        "model_parameters": { "temperature": 0.5, "max_tokens": 7, "extra_headers": { "api-key": "0123456789abcdef" } },
        "hidden_params": { "response_cost": "0.0001125" },
    })
}

#[test]
fn every_field_of_a_litellm_payload_has_its_column() {
    let record = litellm(&payload());
    assert!(
        record.id.as_ref().is_some_and(|id| id.starts_with("chatcmpl-1-") && id.len() == 27),
        "{:?}",
        record.id
    );
    let text = |text: &str| Some(text.to_owned());
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let body = r#"{"model":"gpt-4o","messages":[{"content":"hi","role":"user"}],"extra_headers":{"api-key":"01********def"},"max_tokens":7,"temperature":0.5}"#;
    let expected = Record {
        id: record.id.clone(),
        internal_trace_id: text("chatcmpl-1"),
        organisation_id: text(DEFAULT_ORGANISATION),
        created_at: Some("2026-11-21T16:26:58.250Z".parse().unwrap()),
        is_success: Some(1),
        ai_org: text("openai"),
        ai_model: text("gpt-4o"),
        req_units: Some(9),
        res_units: Some(9),
        total_units: Some(18),
        cost: Some(0.01125),
        cost_currency: text("USD"),
        request_url: text("https://api.openai.com/v1/?key=01********def"),
        request_method: text("POST"),
        response_status_code: Some(200),
        response_time: Some(750),
        cache_status: text("DISABLED"),
        stream_mode: Some(false),
        retry_success_count: Some(0),
        mode: text("SINGLE"),
        virtual_key: text("team-key"),
        config: text("fast"),
        prompt_slug: text("greet"),
        runtime: text("litellm"),
        trace_id: text("t-1"),
        span_name: text("acompletion"),
        user_id: text("ann"),
        source: text("litellm"),
        metadata: vec![
            tag("job", "nightly"),
            tag("team", "b"),
            tag("request_tags", r#"["x","y"]"#),
            tag("_user", "ann"),
        ],
        request: Message { body: text(body), headers: None },
        response: Message { body: text(r#"{"choices":[],"model":"gpt-4o"}"#), headers: None },
        ..Record::default()
    };
    assert_eq!(record, expected);
}

#[test]
fn litellms_cases_are_distinguished() {
    let of = |changes: Value| litellm(&with(payload(), changes));
    for (hit, status) in [
        (json!(true), "HIT"),
        (json!(false), "MISS"),
        (json!("True"), "HIT"),
        (json!(null), "DISABLED"),
    ] {
        assert_eq!(of(json!({ "cache_hit": hit })).cache_status.as_deref(), Some(status));
    }
    let stream = of(json!({ "stream": true, "response_time": 0.25 }));
    assert_eq!(
        (stream.stream_mode, stream.response_time, stream.time_to_last_token),
        (Some(true), Some(250), Some(750))
    );
    let untimed = of(json!({ "stream": true, "response_time": null }));
    assert_eq!((untimed.response_time, untimed.time_to_last_token), (Some(250), Some(750)));
    assert_eq!(of(json!({ "response_time": null })).response_time, Some(750));

    let error = json!({ "error_code": "429", "error_class": "RateLimitError", "error_message": "slow down" });
    let failed = of(
        json!({ "status": "failure", "error_information": error, "response": {}, "response_cost": 0 }),
    );
    assert_eq!(
        (failed.response_status_code, failed.is_success, failed.cost),
        (Some(429), Some(0), Some(0.0))
    );
    assert_eq!(serde_json::from_str::<Value>(&failed.response.body.unwrap()).unwrap(), error);
    let unknown = of(json!({ "status": "failure", "error_information": { "error_code": "" } }));
    assert_eq!((unknown.response_status_code, unknown.is_success), (Some(500), Some(0)));

    let keyless = of(json!({ "metadata": { "user_api_key_alias": null } }));
    assert_eq!(keyless.virtual_key.as_deref(), Some("hash"));
    let untracked =
        of(json!({ "metadata": { "requester_custom_headers": { "X-Portkey-Debug": "false" } } }));
    assert_eq!(
        (untracked.do_not_track, untracked.request, untracked.response),
        (Some(true), Message::default(), Message::default())
    );
    assert_eq!((untracked.cost, untracked.req_units), (Some(0.01125), Some(9)));

    for (call, name) in [
        ("aembedding", "input"),
        ("text_completion", "prompt"),
        ("aresponses", "input"),
        ("completion", "messages"),
    ] {
        let body = of(json!({ "call_type": call, "messages": "text" })).request.body.unwrap();
        assert!(body.starts_with(&format!(r#"{{"model":"gpt-4o","{name}":"text","#)), "{body}");
    }
}

#[test]
fn litellms_dollars_become_cents_to_the_last_digit() {
    let cost = |dollars: Value| litellm(&with(payload(), json!({ "response_cost": dollars }))).cost;
    for (dollars, cents) in [
        (json!(0.0001125), 0.01125),
        (json!(1.1e-6), 0.00011),
        (json!("2.5e-07"), 0.000025),
        (json!(0.07), 7.0),
        (json!(1.15), 115.0),
        (json!(0.29), 29.0),
        (json!(0), 0.0),
    ] {
        assert_eq!(cost(dollars), Some(cents));
    }
    // The cost is computed if it is missing, or if LiteLLM could not compute it.
    assert_eq!(cost(json!(null)), Some(0.01125));
    assert_eq!(cost(json!("free")), Some(0.01125));
    let failed = with(
        payload(),
        json!({ "response_cost": 0, "response_cost_failure_debug_info": { "error": "no such model" } }),
    );
    assert_eq!(litellm(&failed).cost, Some(0.01125));
    let cached = json!({ "metadata": { "usage_object": { "prompt_tokens": 9, "prompt_tokens_details": { "cached_tokens": 4 } } } });
    // 5 at 2.5, 4 at 1.25, 9 at 10 dollars for a million.
    assert_eq!(
        litellm(&with(payload(), with(cached, json!({ "response_cost": null })))).cost,
        Some(0.01075)
    );
}

#[test]
fn litellm_batches_come_in_every_container() {
    let a = payload();
    let b = with(
        payload(),
        json!({ "id": "chatcmpl-2", "messages": [{ "content": "zwei\nZeilen é" }] }),
    );
    for text in [
        json!([a, b]).to_string(),
        format!("{a}\n{b}\n"),
        format!("{a}\r\n\r\n{b}"),
        format!("{a}{b}"),
        serde_json::to_string_pretty(&json!([a, b])).unwrap(),
    ] {
        let (records, rejections) =
            read_with(SourceFormat::LiteLlm, text.as_bytes(), Headers::default());
        let ids: Vec<_> =
            records.iter().filter_map(|record| record.internal_trace_id.as_deref()).collect();
        assert_eq!((ids, rejections), (vec!["chatcmpl-1", "chatcmpl-2"], vec![]), "{text}");
        assert!(records[1].request.body.as_ref().unwrap().contains("zwei\\nZeilen"));
    }
    let single = serde_json::to_string_pretty(&a).unwrap();
    assert_eq!(
        read_with(SourceFormat::LiteLlm, single.as_bytes(), Headers::default()).0,
        [litellm(&a)]
    );
    let (records, rejections) =
        read_with(SourceFormat::LiteLlm, b"[{\"x\":1},7,{\"model\":\"m\"}]", Headers::default());
    assert_eq!(
        (records.len(), rejections.iter().map(|one| one.record).collect::<Vec<_>>()),
        (1, vec![0, 1])
    );
}

#[test]
fn litellms_older_payload_of_texts_is_read() {
    let record = litellm(&json!({
        "id": "chatcmpl-9", "call_type": "completion", "cache_hit": "None", "startTime": "2026-11-21 16:26:58.250000",
        "endTime": "2026-11-21 16:26:59", "model": "gpt-4o", "user": "ann", "modelParameters": "{'temperature': 0.5}",
        "messages": "[{'role': 'user', 'content': 'hi'}]", "response": "ModelResponse(id='chatcmpl-9')",
        "usage": "Usage(completion_tokens=9, prompt_tokens=9, total_tokens=18, completion_tokens_details=None)",
        "metadata": "{}", "cost": "0.0001125",
    }));
    assert_eq!(
        (record.internal_trace_id.as_deref(), record.response_time),
        (Some("chatcmpl-9"), Some(750))
    );
    assert_eq!(
        (record.req_units, record.res_units, record.total_units),
        (Some(9), Some(9), Some(18))
    );
    assert_eq!(
        (record.cost, record.response_status_code, record.is_success),
        (Some(0.01125), Some(200), Some(1))
    );
    assert_eq!(record.user_id.as_deref(), Some("ann"));
    assert_eq!(
        record.request.body.as_deref(),
        Some(r#"{"model":"gpt-4o","messages":"[{'role': 'user', 'content': 'hi'}]"}"#)
    );
    assert_eq!(record.response.body.as_deref(), Some(r#""ModelResponse(id='chatcmpl-9')""#));
}

/// LiteLLM sends retries, fallbacks, cache hits and polls of a batch under the id of the call.
#[test]
fn attempts_of_a_call_to_litellm_have_ids_of_their_own() {
    let attempts = [
        json!({}),
        json!({ "startTime": 1795278419.25 }),
        json!({ "startTime": 1795278419.25, "status": "failure" }),
        json!({ "startTime": 1795278419.25, "model": "gpt-4o-mini" }),
        json!({ "startTime": 1795278419.25, "model_id": "deployment-2" }),
        json!({ "call_type": "aretrieve_batch" }),
        json!({ "startTime": null }),
        json!({ "startTime": 1795278430.5, "cache_hit": true }),
    ];
    let of = |changes: &Value| litellm(&with(payload(), changes.clone()));
    let records: Vec<Record> = attempts.iter().map(of).collect();
    let ids: std::collections::BTreeSet<_> =
        records.iter().map(|record| record.id.clone()).collect();
    assert_eq!(ids.len(), attempts.len(), "{ids:?}");
    assert!(records.iter().all(|record| record.internal_trace_id.as_deref() == Some("chatcmpl-1")));
    for (changes, record) in attempts.iter().zip(&records) {
        assert_eq!(of(changes).id, record.id, "sent again it is the same");
        // If LiteLLM logs an attempt twice, the end times differ, and the start may have another
        // spelling.
        let again = with(changes.clone(), json!({ "endTime": 1795278499.0, "response_time": 80 }));
        assert_eq!(of(&again).id, record.id);
    }
    assert_eq!(of(&json!({ "startTime": "2026-11-21T16:26:58.250Z" })).id, records[0].id);
    let nameless = litellm(&with(payload(), json!({ "id": null })));
    assert_eq!((nameless.id.as_deref(), nameless.internal_trace_id), (Some("new-1"), None));
}

#[test]
fn the_events_of_a_realtime_session_are_kept() {
    let event = json!([{ "type": "session.update", "session": { "voice": "alloy" } }]);
    let answered = json!([{ "type": "response.done", "response": { "id": "r" } }]);
    let changes = json!({ "call_type": "_arealtime", "messages": event, "response": answered, "model_parameters": null });
    let record = litellm(&with(payload(), changes));
    let body = |text: Option<String>| serde_json::from_str::<Value>(&text.unwrap()).unwrap();
    assert_eq!(body(record.request.body), json!({ "model": "gpt-4o", "events": event }));
    assert_eq!(body(record.response.body), answered);
    for (call_type, messages) in [
        (json!("pass_through_endpoint"), json!({ "contents": [1] })),
        (json!(""), json!("say")),
        (json!(null), json!({})),
        (json!("atext_completion"), json!(null)),
    ] {
        let record =
            litellm(&with(payload(), json!({ "call_type": call_type, "messages": messages })));
        let asked = body(record.request.body);
        let kept = messages.is_null()
            || asked.as_object().unwrap().values().any(|value| *value == messages);
        assert!(kept && asked["max_tokens"] == 7, "{asked}");
    }
}

#[test]
fn litellms_user_is_also_a_parameter() {
    let user = |changes: Value| {
        litellm(&with(payload(), with(changes, json!({ "model_parameters": { "user": "eve" } }))))
            .user_id
    };
    assert_eq!(user(json!({ "end_user": "" })).as_deref(), Some("eve"));
    assert_eq!(user(json!({})).as_deref(), Some("ann"));
}

fn event(config: &Value) -> Value {
    json!({
        "request": {
            "json": { "model": "gpt-4o", "messages": [{ "role": "user", "content": "hi" }], "user": "body-user" }, "text": "hi",
            "isStreamingRequest": false, "isTransformed": false,
            "headers": {
                "content-type": "application/json", "x-portkey-config": config.to_string(), "x-portkey-trace-id": "t-1",
                "x-portkey-metadata": "{\"_user\":\"ann\",\"n\":1}", "x-portkey-span-id": "s-1",
                "X-Portkey-Virtual-Key": "vk-1", "authorization": "Bearer sk-plain-secret-1",
                "x-portkey-package-version": "portkey-3.1.0",
            },
        },
        "response": {
            "json": { "model": "gpt-4o-0125", "choices": [], "usage": { "prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18 } },
            "text": "Hello!", "statusCode": 200, "isTransformed": false,
        },
        "provider": "openai", "requestType": "chatComplete", "metadata": { "team": "search", "n": "0" },
    })
}

fn config() -> Value {
    json!({ "strategy": { "mode": "fallback" }, "targets": [{ "provider": "openai", "api_key": "sk-plain-secret-2" }] })
}

#[test]
fn a_hook_becomes_a_record_without_its_keys() {
    let record = hook(&event(&config()));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(record.created_at, Some(now()));
    assert_eq!(
        (record.response_time, record.upstream_response_time),
        (None, None),
        "a latency that is not known is not 0"
    );
    assert_eq!((record.ai_org, record.ai_model), (text("openai"), text("gpt-4o")));
    assert_eq!(
        (record.req_units, record.res_units, record.total_units),
        (Some(9), Some(9), Some(18))
    );
    assert_eq!((record.cost, record.cost_currency), (Some(0.01125), text("USD")));
    assert_eq!(record.request_url, text("https://api.openai.com/v1/chat/completions"));
    assert_eq!(
        (record.request_method, record.response_status_code, record.is_success),
        (text("POST"), Some(200), Some(1))
    );
    assert_eq!(
        (record.cache_status, record.cache_type, record.stream_mode),
        (text("DISABLED"), None, Some(false))
    );
    assert_eq!(
        (record.retry_success_count, record.mode, record.config),
        (Some(0), text("FALLBACK"), None)
    );
    assert_eq!((record.trace_id, record.span_id), (text("t-1"), text("s-1")));
    assert_eq!((record.virtual_key, record.sdk_version), (text("vk-1"), text("portkey-3.1.0")));
    assert_eq!((record.user_id, record.source), (text("ann"), text("gateway-hook")));
    let tags: Vec<(&str, &str)> =
        record.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, [("n", "1"), ("team", "search"), ("_user", "ann")]);
    let headers = record.request.headers.unwrap();
    assert!(headers.contains("sk********t-1") && headers.contains("sk********t-2"), "{headers}");
    assert!(!headers.contains("secret"), "{headers}");
    assert!(record.request.body.unwrap().contains(r#""content":"hi""#));
    assert!(record.response.body.unwrap().contains("gpt-4o-0125"));
}

#[test]
fn hooks_differ_by_request_provider_and_config() {
    let of = |changes: Value| hook(&with(event(&config()), changes));
    let stream =
        of(json!({ "request": { "isStreamingRequest": true }, "response": { "json": null } }));
    assert_eq!((stream.stream_mode, stream.req_units, stream.cost), (Some(true), None, None));
    assert_eq!((stream.response.body, stream.response_status_code), (None, Some(200)));
    let of_config =
        |config: &str| of(json!({ "request": { "headers": { "x-portkey-config": config } } }));
    let slug = of_config("pc-fast-1");
    assert_eq!((slug.config.as_deref(), slug.mode.as_deref()), (Some("pc-fast-1"), Some("SINGLE")));
    let host = of_config(r#"{"provider":"openai","custom_host":"http://127.0.0.1:9001/v1/"}"#);
    assert_eq!(host.request_url.as_deref(), Some("http://127.0.0.1:9001/v1/chat/completions"));
    for (provider, kind, url) in [
        ("openai", "complete", Some("https://api.openai.com/v1/completions")),
        ("anthropic", "messages", Some("https://api.anthropic.com/v1/messages")),
        ("anthropic", "chatComplete", Some("https://api.anthropic.com/v1/messages")),
        ("somebody", "chatComplete", None),
        ("openai", "imagine", None),
    ] {
        let record = of(json!({ "provider": provider, "requestType": kind }));
        assert_eq!(record.request_url.as_deref(), url, "{provider} {kind}");
    }
    let untracked = of(json!({ "request": { "headers": { "x-portkey-debug": "False" } } }));
    assert_eq!(
        (untracked.do_not_track, untracked.request, untracked.response),
        (Some(true), Message::default(), Message::default())
    );
    assert_eq!((untracked.total_units, untracked.cost), (Some(18), Some(0.01125)));
    let mut bare = event(&config());
    bare["request"].as_object_mut().unwrap().remove("headers");
    bare["metadata"] = json!({});
    bare["eventType"] = json!("afterRequestHook");
    let bare = hook(&bare);
    assert_eq!(
        (bare.user_id.as_deref(), bare.trace_id, bare.span_id),
        (Some("body-user"), None, bare.id)
    );
    assert_eq!(
        (bare.mode, bare.retry_success_count, bare.last_used_option),
        (None, None, None),
        "no header, no config"
    );
    assert_eq!(bare.ai_model.as_deref(), Some("gpt-4o"));
}

#[test]
fn a_hooks_config_tells_which_target_answered() {
    let config = json!({
        "strategy": { "mode": "fallback" }, "retry": { "attempts": 3 },
        "targets": [
            { "provider": "openai", "override_params": { "model": "gpt-4o-mini" } },
            { "provider": "anthropic", "custom_host": "http://127.0.0.1/a", "override_params": { "model": "claude-sonnet-4-5" } },
        ],
    });
    let of = |provider: &str, model: &str| {
        let asked = json!({ "json": { "model": model } });
        hook(&with(event(&config), json!({ "provider": provider, "request": asked })))
    };
    let first = of("openai", "gpt-4o-mini");
    assert_eq!(first.ai_model.as_deref(), Some("gpt-4o-mini"));
    assert_eq!(first.request_url.as_deref(), Some("https://api.openai.com/v1/chat/completions"));
    assert_eq!(first.last_used_option.as_deref(), Some("config.targets[0]"));
    assert_eq!(first.retry_success_count, None, "it may have been tried again");
    let second = of("anthropic", "claude-sonnet-4-5");
    assert_eq!(second.request_url.as_deref(), Some("http://127.0.0.1/a/messages"));
    assert_eq!(second.last_used_option.as_deref(), Some("config.targets[1]"));
}

#[test]
fn calls_without_an_answer_are_not_records() {
    let before = with(event(&config()), json!({ "eventType": "beforeRequestHook" }));
    // `default.log` before a request has no `eventType`.
    let mut unanswered = event(&config());
    unanswered["response"] = json!({ "json": {}, "text": "", "statusCode": null });
    for (value, field) in [
        (before, "eventType"),
        (unanswered, "response.statusCode"),
        (json!({ "request": {} }), "request"),
        (json!([]), ""),
        (json!("x"), "json"),
    ] {
        let (records, rejections) =
            read_with(SourceFormat::GatewayHook, value.to_string().as_bytes(), Headers::default());
        assert_eq!(records, []);
        assert_eq!(rejections.first().map_or("", |one| &*one.field), field);
        assert!(rejections.iter().all(|one| one.value.is_empty()));
    }
}

fn hooks(bodies: &str) -> Vec<Record> {
    let (records, rejections) =
        read_with(SourceFormat::GatewayHook, bodies.as_bytes(), Headers::default());
    assert_eq!(rejections, []);
    for record in records.iter().filter(|record| record.do_not_track != Some(true)) {
        let headers = record.request.headers.as_ref().unwrap().replace(' ', "");
        assert!(headers.contains(r#"\"api_key\":\"********\""#));
    }
    records
}

#[test]
fn hook_bodies_are_read() {
    let records = hooks(include_str!("../../../tests/data/gateway_hook_bodies.jsonl"));
    let routing = |record: &Record| {
        let url = record
            .request_url
            .as_deref()
            .unwrap()
            .strip_prefix("http://127.0.0.1:9/v1/")
            .unwrap()
            .to_owned();
        let way = (
            record.mode.clone().unwrap(),
            record.last_used_option.clone().unwrap(),
            record.retry_success_count,
        );
        (
            url,
            record.ai_model.clone().unwrap(),
            way,
            record.response_status_code.unwrap(),
            record.total_units,
            record.cost,
        )
    };
    let chat = "chat/completions";
    let large = "gpt-4o";
    let small = "gpt-4o-mini";
    let embed = "text-embedding-3-small";
    let expected = [
        (chat, large, ("SINGLE", "config", Some(0)), 200, Some(14), Some(0.005)),
        (chat, small, ("SINGLE", "config", Some(0)), 200, Some(15), Some(0.00045)),
        (chat, large, ("SINGLE", "config", None), 200, Some(18), Some(0.01125)),
        (chat, small, ("FALLBACK", "config.targets[1]", Some(0)), 200, Some(11), Some(0.0003)),
        (chat, large, ("LOADBALANCE", "config.targets[0]", Some(0)), 200, Some(12), Some(0.006)),
        ("embeddings", embed, ("SINGLE", "config", Some(0)), 200, Some(3), Some(6e-6)),
        (chat, large, ("SINGLE", "config", Some(0)), 246, Some(8), Some(0.00275)),
        (chat, large, ("SINGLE", "config", Some(0)), 200, None, None),
        (chat, large, ("SINGLE", "config", Some(0)), 200, Some(12), Some(0.0075)),
    ];
    for (number, (record, (url, model, (mode, path, retries), status, tokens, cost))) in
        records.iter().zip(expected).enumerate()
    {
        let (found_url, found_model, way, found_status, found_tokens, found_cost) = routing(record);
        assert_eq!(
            (&*found_url, &*found_model, found_status, found_tokens),
            (url, model, status, tokens),
            "{number}"
        );
        assert_eq!((&*way.0, &*way.1, way.2), (mode, path, retries), "{number}");
        let near = found_cost.zip(cost).is_some_and(|(found, cost)| (found - cost).abs() < 1e-12);
        assert!(near || found_cost == cost, "{number}: {found_cost:?}");
    }
    assert_eq!(records.len(), expected.len());
    let streamed: Vec<_> = records.iter().map(|record| record.stream_mode == Some(true)).collect();
    assert_eq!(streamed.iter().position(|streamed| *streamed), Some(7));
    let kept: Vec<_> = records.iter().map(|record| record.request != Message::default()).collect();
    assert_eq!(kept.iter().position(|kept| !kept), Some(8));
    assert_eq!((records[0].user_id.clone(), records[8].do_not_track), (some("ines"), Some(true)));

    // Bodies that a real gateway of version 1.15 posted.
    let Some(bodies) = captured("gateway_1.15_log_hook_bodies.jsonl") else { return };
    let records = hooks(&bodies);
    for record in &records {
        assert_eq!(
            record.request_url.as_deref(),
            Some("http://127.0.0.1:9001/v1/chat/completions")
        );
        assert_eq!(
            (record.ai_model.as_deref(), record.mode.as_deref()),
            (Some("gpt-4o-c"), Some("SINGLE"))
        );
    }
    let tokens: Vec<_> =
        records.iter().map(|record| (record.stream_mode, record.total_units)).collect();
    assert_eq!(
        tokens,
        [
            (Some(false), Some(18)),
            (Some(false), Some(18)),
            (Some(false), Some(18)),
            (Some(true), None)
        ]
    );
}
