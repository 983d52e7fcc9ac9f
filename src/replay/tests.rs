use super::*;
use crate::record::Message;

fn record() -> Record {
    Record {
        id: Some("old".to_owned()),
        request_url: Some("https://api.openai.com/v1/chat/completions?api-version=1".to_owned()),
        ai_org: Some("openai".to_owned()),
        virtual_key: Some("main".to_owned()),
        trace_id: Some("trace".to_owned()),
        span_id: Some("span".to_owned()),
        request: Message {
            body: Some(r#"{"model":"m","stream":true,"n":1.0}"#.to_owned()),
            headers: None,
        },
        ..Record::default()
    }
}

fn why(record: &Record, archived: &[&str]) -> Option<&'static str> {
    ready(record, &archived.iter().map(|slug| (*slug).to_owned()).collect())
        .err()
        .map(|why| why.code())
}

#[test]
fn a_request_is_ready_unchanged() {
    let record = record();
    let ready = ready(&record, &BTreeSet::new()).unwrap();
    assert_eq!(
        (ready.endpoint, ready.body.get()),
        ("/chat/completions", record.request.body.as_deref().unwrap())
    );
}

#[test]
fn only_three_endpoints_are_replayed() {
    let of = |url: &str| why(&Record { request_url: Some(url.to_owned()), ..record() }, &[]);
    for url in ["http://h/v1/completions", "http://h/v1/embeddings/", "/v1/chat/completions#x"] {
        assert_eq!(of(url), None, "{url}");
    }
    for url in [
        "http://h/v1/images/generations",
        "http://h/v1/prompts/pp-1/completions",
        "http://h/?x=/embeddings",
        "",
    ] {
        assert_eq!(of(url), Some("endpoint"), "{url}");
    }
    assert_eq!(why(&Record { request_url: None, ..record() }, &[]), Some("no_url"));
}

#[test]
fn litellms_calls_are_replayed_by_their_type() {
    let of = |url: Option<&str>, source: &str, call: &str| {
        let [source, call] = [source, call].map(|text| Some(text.to_owned()));
        let record =
            Record { request_url: url.map(str::to_owned), source, span_name: call, ..record() };
        ready(&record, &BTreeSet::new()).map(|ready| ready.endpoint).map_err(|why| why.code())
    };
    let base = Some("https://api.openai.com");
    for (call, endpoint) in [
        ("acompletion", "/chat/completions"),
        ("completion", "/chat/completions"),
        ("atext_completion", "/completions"),
        ("aembedding", "/embeddings"),
    ] {
        assert_eq!(of(base, "litellm", call), Ok(endpoint));
        assert_eq!(of(None, "litellm", call), Ok(endpoint));
    }
    assert_eq!(of(Some("http://h/v1/completions"), "litellm", "acompletion"), Ok("/completions"));
    assert_eq!(of(base, "litellm", "aresponses"), Err("endpoint"));
    assert_eq!(of(None, "litellm", "aimage_generation"), Err("no_url"));
    assert_eq!(of(base, "otlp", "acompletion"), Err("endpoint"));
}

#[test]
fn an_archived_provider_is_the_virtual_key_or_else_the_provider() {
    assert_eq!(why(&record(), &["main"]), Some("provider_archived"));
    assert_eq!(why(&record(), &["openai"]), None);
    assert_eq!(
        why(&Record { virtual_key: None, ..record() }, &["openai"]),
        Some("provider_archived")
    );
}

#[test]
fn a_prompt_called_by_a_target_is_detected_by_the_config_or_the_path() {
    let called = |prompt: Option<&str>, path: &str, config: Option<Value>| {
        let headers = config.map(|config| json!({ "X-Portkey-Config": config }).to_string());
        let request = Message { headers, ..record().request };
        let prompt_slug = prompt.map(str::to_owned);
        let last_used_option = Some(path.to_owned());
        why(&Record { prompt_slug, last_used_option, request, ..record() }, &[]).is_some()
    };
    let config =
        json!({ "targets": [{ "prompt_id": "pp-1" }, { "targets": [{ "provider": "openai" }] }] });
    let text = Some(Value::String(config.to_string()));
    assert!(called(Some("pp"), "config.targets[0]", text.clone()));
    assert!(called(Some("pp"), "config.targets[0]", Some(config)));
    assert!(!called(Some("pp"), "config.targets[1].targets[0]", text.clone()));
    assert!(
        called(Some("pp"), "config.targets[7]", text),
        "a config that does not fit decides nothing"
    );
    assert!(called(Some("pp"), "config.targets[0]", None), "only the config's name is known");
    assert!(called(Some("pp"), "config.targets[0]", Some(json!("pc-1"))));
    assert!(!called(Some("pp"), "config", None));
    assert!(!called(None, "config.targets[0]", None));
}

#[test]
fn a_body_that_was_not_kept_cannot_be_sent() {
    assert_eq!(
        why(&Record { request: Message::default(), ..record() }, &[]),
        Some("body_not_kept")
    );
    let text = Message { body: Some("\"text\"".to_owned()), headers: None };
    assert_eq!(why(&Record { request: text, ..record() }, &[]), Some("body_not_kept"));
}

fn sent(headers: &[(&str, &str)], text: &str, ours: bool) -> Result<Outgoing> {
    let record = record();
    let ready = ready(&record, &BTreeSet::new()).unwrap();
    outgoing(&record, ready, &edited(text)?, headers.iter().copied(), ours, "new")
}

#[test]
fn only_named_headers_are_passed_on() {
    let headers = [
        ("Authorization", "Bearer sk-1"),
        ("x-portkey-api-key", "ours"),
        ("x-gatelog-gateway-key", "theirs"),
        ("x-portkey-custom-host", "http://inside"),
        ("x-portkey-forward-headers", "cookie"),
        ("cookie", "a=b"),
        ("host", "gatelog"),
        ("x-portkey-metadata", "{}"),
    ];
    let out = sent(&headers, "", false).unwrap();
    assert_eq!(header(&out.headers, "authorization"), Some("Bearer sk-1"));
    assert_eq!(header(&out.headers, "x-portkey-api-key"), Some("theirs"));
    for name in
        ["x-portkey-custom-host", "x-portkey-forward-headers", "cookie", "host", GATEWAY_KEY]
    {
        assert_eq!(header(&out.headers, name), None, "{name}");
    }
    assert_eq!(header(&out.headers, "x-portkey-metadata"), Some(r#"{"_replay_of":"old"}"#));
    let ours = sent(&headers, "", true).unwrap();
    assert_eq!(header(&ours.headers, "authorization"), None, "a key of gatelog is not passed on");
    assert!(!format!("{out:?}").contains("sk-1"));
}

#[test]
fn the_provider_is_the_callers_or_the_records() {
    let route = |headers: &[(&str, &str)]| {
        let out = sent(headers, "", false).unwrap();
        ["x-portkey-provider", "x-portkey-virtual-key"]
            .map(|name| header(&out.headers, name).map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(route(&[]), [None, some("main")]);
    assert_eq!(route(&[("authorization", "Bearer sk-1")]), [some("openai"), None]);
    assert_eq!(route(&[("x-portkey-provider", "groq")]), [some("groq"), None]);
    assert_eq!(route(&[("x-portkey-config", "pc-1")]), [None, None]);
}

#[test]
fn a_config_that_leads_elsewhere_is_refused() {
    for config in [
        r#"{"targets":[{"provider":"openai","custom_host":"http://inside"}]}"#,
        r#"{"customHost":"http://inside"}"#,
        r#"{"Custom-Host":"http://inside"}"#,
        r#"{"forward_headers":["authorization"]}"#,
        r#"{"azure_foundry_url":"http://inside"}"#,
        r#""{\"custom_host\":\"x\"}""#,
        "{oops",
    ] {
        assert!(sent(&[("x-portkey-config", config)], "", false).is_err(), "{config}");
    }
    let fine = r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"openai","api_key":"sk-1","override_params":{"x":1}}]}"#;
    for config in ["pc-1", fine] {
        assert!(sent(&[("x-portkey-config", config)], "", false).is_ok(), "{config}");
    }
}

#[test]
fn a_header_that_becomes_part_of_a_url_is_a_plain_name() {
    for value in ["inside:80/#", "a@b", "a b", "../x"] {
        assert!(sent(&[("x-portkey-azure-resource-name", value)], "", false).is_err(), "{value}");
    }
    assert!(sent(&[("x-portkey-azure-resource-name", "my-resource")], "", false).is_ok());
}

#[test]
fn the_edited_body_is_sent_and_not_as_a_stream() {
    assert_eq!(sent(&[], "", false).unwrap().body, r#"{"model":"m","n":1.0}"#);
    let out = sent(
        &[],
        r#"{"endpoint":"/embeddings","body":{"b":1,"a":[1e2],"stream_options":{}}}"#,
        false,
    )
    .unwrap();
    assert_eq!((out.endpoint, out.body.as_str()), ("/embeddings", r#"{"b":1,"a":[1e2]}"#));
    for text in [
        r#"{"endpoint":"/models"}"#,
        r#"{"endpoint":"/../admin"}"#,
        r#"{"body":[1]}"#,
        r#"{"method":"GET"}"#,
        r#"{"url":"http://inside"}"#,
        "{",
    ] {
        assert!(sent(&[], text, false).is_err(), "{text}");
    }
}

#[test]
fn the_new_log_is_linked_and_has_no_credentials() {
    let out =
        sent(&[("authorization", "Bearer sk-planted"), ("x-portkey-config", "pc-1")], "", false)
            .unwrap();
    let headers = [
        ("x-portkey-cache-status", "hit"),
        ("x-portkey-retry-attempt-count", "2"),
        ("set-cookie", "c"),
    ];
    let answered = Answered {
        status: 200,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        body: r#"{"usage":{}}"#.to_owned(),
        elapsed_ms: 12,
    };
    let text = entry(
        &record(),
        &out,
        &answered,
        "new",
        "http://gateway/v1/chat/completions",
        "2026-11-21T10:00:00Z",
    )
    .unwrap();
    assert!(!text.contains("planted") && !text.contains("set-cookie"), "{text}");
    let entry: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&entry["trace_id"], &entry["parent_span_id"]), (&json!("trace"), &json!("span")));
    assert_eq!(
        (&entry["span_id"], &entry["metadata"]),
        (&json!("new"), &json!({ "_replay_of": "old" }))
    );
    let mut record = Record { mode: Some("SINGLE".to_owned()), ..Record::default() };
    complete(&mut record, &out, &answered, "key");
    assert_eq!(record.mode.as_deref(), Some("SINGLE"));
    assert_eq!(
        (record.cache_status.as_deref(), record.retry_success_count),
        (Some("HIT"), Some(2))
    );
    assert_eq!(
        (record.config.as_deref(), record.api_key_id.as_deref()),
        (Some("pc-1"), Some("key"))
    );
}
#[test]
fn a_config_object_shows_how_a_target_was_chosen() {
    let mode = |config: &str, path: &str| {
        let out = sent(&[("x-portkey-config", config)], "", false).unwrap();
        let headers = vec![("x-portkey-last-used-option-index".to_owned(), path.to_owned())];
        let answered = Answered { status: 200, headers, body: String::new(), elapsed_ms: 1 };
        let mut record = Record { mode: Some("SINGLE".to_owned()), ..Record::default() };
        complete(&mut record, &out, &answered, "key");
        record.mode
    };
    let fallback = r#"{"strategy":{"mode":"fallback"},"targets":[{"provider":"openai"}]}"#;
    assert_eq!(mode(fallback, "config.targets[0]").as_deref(), Some("FALLBACK"));
    assert_eq!(mode(r#"{"provider":"openai"}"#, "config").as_deref(), Some("SINGLE"));
    assert_eq!(mode("pc-1", "config").as_deref(), Some("SINGLE"));
    assert_eq!(mode("pc-1", "config.targets[0]"), None);
}
