//! Content in the attributes of every convention, and its place in the record.

use super::*;

fn chat(further: Value) -> Value {
    let mut attributes = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.input.messages": r#"[{"role":"user","parts":[{"type":"text","content":"hi"}]}]"#,
        "gen_ai.output.messages": r#"[{"role":"assistant","parts":[{"type":"text","content":"yo"}],"finish_reason":"stop"}]"#,
    });
    attributes.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    attributes
}

const UNKNOWN: [&str; 14] = [
    "ai.prompt",
    "ai.prompt.messages",
    "ai.response.text",
    "traceloop.entity.input",
    "langfuse.observation.input",
    "gen_ai.tool.call.arguments",
    "gen_ai.request.messages",
    "logfire.msg",
    "mlflow.spanInputs",
    "embedding.embeddings.0.embedding.text",
    "llm.prompts",
    "request.body",
    "gen_ai.response.text",
    "prompt",
];

/// A list of names would miss some of them.
#[test]
fn texts_of_unknown_attributes_are_content() {
    let planted: Value =
        UNKNOWN.iter().map(|name| ((*name).to_owned(), json!(format!("planted {name}")))).collect();
    let record = one(chat(planted.clone()));
    assert_eq!(body(&record.response)["span_attributes"], planted);
    assert!(!format!("{:?}", record.metadata).contains("planted"), "{:?}", record.metadata);
    assert!(!record.request.body.unwrap().contains("planted"), "the body that a replay sends");

    let lists = json!({ "notes": ["planted", { "a": "planted" }], "team": "planted" });
    let record = one(chat(lists.clone()));
    assert_eq!(body(&record.response)["span_attributes"], lists);

    let headers = Headers {
        debug: some("false"),
        metadata: some(r#"{"job":"nightly"}"#),
        ..Headers::default()
    };
    let context = Context { headers, ..Context::new(now()) };
    let mut all = planted;
    all.as_object_mut().unwrap().extend(lists.as_object().unwrap().clone());
    all["session.id"] = json!("s-1");
    all["tries"] = json!(2);
    let mut call = both(&request(&[span(chat(all))]), &context).calls.remove(0);
    complete(&mut call.record, &context, &mut || unreachable!());
    assert!(!format!("{:?}", call.record).contains("planted"), "{:?}", call.record);
    for (key, value) in
        [("session.id", "s-1"), ("tries", "2"), ("job", "nightly"), ("service.name", "shop")]
    {
        assert_eq!(tag(&call.record, key), Some(value), "figures and the caller's own labels stay");
    }
}

#[test]
fn attributes_of_a_resource_are_judged_as_those_of_a_span() {
    let mut request = request(&[span(chat(json!({ "tries": 2 })))]);
    let planted: Value =
        UNKNOWN.iter().map(|name| ((*name).to_owned(), json!(format!("planted {name}")))).collect();
    let known = json!({ "app.system_prompt": "planted", "app.notes": ["planted"], "team": "planted",
        "host.name": "h-1", "k8s.pod.name": "p-1", "process.pid": 7, "process.command_line": "run --key s3cret" });
    for attributes in [&planted, &known] {
        let of_resource = &mut request["resourceSpans"][0]["resource"]["attributes"];
        of_resource.as_array_mut().unwrap().extend(pairs(attributes).as_array().unwrap().clone());
    }
    let record = both(&request, &Context::new(now())).calls.remove(0).record;
    let labels = [
        ("host.name", "h-1"),
        ("k8s.pod.name", "p-1"),
        ("process.pid", "7"),
        ("service.name", "shop"),
    ];
    for (key, value) in labels {
        assert_eq!(tag(&record, key), Some(value));
    }
    assert!(!format!("{:?}", record.metadata).contains("planted"), "{:?}", record.metadata);
    let further = body(&record.response)["span_attributes"].clone();
    assert_eq!(
        (&further["app.system_prompt"], &further["app.notes"]),
        (&json!("planted"), &json!(r#"["planted"]"#))
    );
    for name in UNKNOWN {
        assert_eq!(further[name], format!("planted {name}"));
    }
    assert!(!format!("{record:?}").contains("s3cret"), "command lines hold keys");

    let headers = Headers { debug: some("false"), ..Headers::default() };
    let context = Context { headers, ..Context::new(now()) };
    let mut untracked = both(&request, &context).calls.remove(0).record;
    complete(&mut untracked, &context, &mut || unreachable!());
    assert!(!format!("{untracked:?}").contains("planted"), "{untracked:?}");
    for (key, value) in labels {
        assert_eq!(tag(&untracked, key), Some(value));
    }
}

#[test]
fn figures_and_labels_are_metadata() {
    let figures = json!({
        "ai.telemetry.metadata.team": "search", "traceloop.association.properties.job": "nightly", "session.id": "s-1",
        "tries": 2, "ratio": 0.5, "flag": true, "gen_ai.conversation.id": "c-1", "metadata": "{\"a\":1}",
        "deployment.environment": "test",
    });
    let record = one(chat(figures.clone()));
    for (key, value) in figures.as_object().unwrap() {
        let expected = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(tag(&record, key), Some(expected.as_str()), "{key}");
    }
    assert!(body(&record.response).get("span_attributes").is_none());

    // The configuration adds further names.
    let config =
        crate::config::Config { span_labels: "team, own.*".to_owned(), ..Default::default() };
    let context = Context { policy: Policy::open(&config).unwrap(), ..Context::new(now()) };
    let attributes = chat(json!({ "team": "search", "own.label": "x", "owner": "y" }));
    let record = both(&request(&[span(attributes)]), &context).calls.remove(0).record;
    assert_eq!(
        (tag(&record, "team"), tag(&record, "own.label"), tag(&record, "owner")),
        (Some("search"), Some("x"), None)
    );
    assert_eq!(body(&record.response)["span_attributes"], json!({ "owner": "y" }));
}

#[test]
fn spans_of_the_ai_sdk_are_read() {
    let base = json!({
        "operation.name": "ai.generateText.doGenerate", "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.id": "gpt-4o", "ai.model.provider": "openai.chat", "gen_ai.system": "openai.chat",
        "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 8,
        "ai.prompt.messages": r#"[{"role":"user","content":[{"type":"text","text":"hi"}]}]"#,
        "ai.prompt.tools": [r#"{"type":"function","name":"f","parameters":{"type":"object"}}"#],
        "ai.prompt.toolChoice": r#"{"type":"auto"}"#, "ai.response.finishReason": "tool-calls",
        "ai.response.text": "Let me see.", "ai.settings.maxRetries": 2,
        "ai.response.toolCalls": r#"[{"toolCallType":"function","toolCallId":"c1","toolName":"f","input":"{\"a\":1}"}]"#,
    });
    let call = one_call(span(base.clone()));
    assert!(call.is_whole);
    let record = call.record;
    assert_eq!((record.ai_model.as_deref(), record.req_units), (Some("gpt-4o"), Some(9)));
    assert_eq!(
        body(&record.request),
        json!({
            "model": "gpt-4o", "tools": [{ "type": "function", "name": "f", "parameters": { "type": "object" } }],
            "tool_choice": { "type": "auto" },
            "messages": [{ "role": "user", "content": [{ "type": "text", "text": "hi" }] }],
        })
    );
    let answered = body(&record.response);
    assert_eq!(
        answered["choices"],
        json!([{ "index": 0, "finish_reason": "tool-calls", "message": {
            "role": "assistant", "content": "Let me see.",
            "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } }],
        } }])
    );
    assert!(answered.get("span_attributes").is_none(), "{answered}");
    // Spans around the call count its tokens a second time.
    for operation in ["ai.generateText", "ai.streamText", "ai.toolCall", "ai.embedMany"] {
        let mut outer = base.clone();
        outer["ai.operationId"] = json!(operation);
        assert_eq!(
            both(&request(&[span(outer)]), &Context::new(now())).passed_over,
            1,
            "{operation}"
        );
    }
    let embedding = json!({
        "ai.operationId": "ai.embedMany.doEmbed", "ai.model.id": "e", "ai.model.provider": "openai",
        "ai.values": [r#""one""#, r#""two""#], "ai.embeddings": ["[0.1,0.2]", "[0.3]"],
    });
    let record = one(embedding);
    assert_eq!((record.ai_model.as_deref(), record.ai_org.as_deref()), (Some("e"), Some("openai")));
    assert_eq!(body(&record.request), json!({ "model": "e", "input": ["one", "two"] }));
    assert!(!format!("{record:?}").contains("0.3"), "vectors are not kept");
}

#[test]
fn texts_of_embeddings_in_openinference_are_the_request() {
    let vector = |number: f64| vec![number; 50];
    let embedding = json!({
        "openinference.span.kind": "EMBEDDING", "embedding.model_name": "e", "llm.provider": "openai",
        "llm.token_count.prompt": 8,
        "embedding.embeddings.0.embedding.text": "text zero", "embedding.embeddings.0.embedding.vector": vector(0.125),
        "embedding.embeddings.1.embedding.text": "text one", "embedding.embeddings.1.embedding.vector": vector(0.25),
        "embedding.embeddings.10.embedding.text": "text ten", "embedding.embeddings.2.embedding.text": "text two",
    });
    let call = one_call(span(embedding));
    assert!(call.is_whole);
    assert_eq!(
        body(&call.record.request),
        json!({ "model": "e", "input": ["text zero", "text one", "text two", "text ten"] })
    );
    let shown = format!("{:?} {:?}", call.record.metadata, call.record.response);
    assert!(
        !shown.contains("text") && !shown.contains("0.125") && !shown.contains("vector"),
        "{shown}"
    );
    let one_text = json!({ "openinference.span.kind": "EMBEDDING", "embedding.embeddings.0.embedding.text": "alone" });
    assert_eq!(body(&one(one_text).request), json!({ "input": "alone" }));
    // A batch of long vectors has more values than a span may have.
    let many: Value = (0..3000)
        .map(|number| {
            (format!("embedding.embeddings.{number}.embedding.vector"), json!(vector(0.5)))
        })
        .chain([("openinference.span.kind".to_owned(), json!("EMBEDDING"))])
        .collect();
    one(many);
}

#[test]
fn messages_that_were_serialised_twice_are_opened() {
    let message = r#"{"role":"user","parts":[{"type":"text","content":"hi there"}]}"#;
    let list = json!([message]);
    for messages in [
        json!(list.to_string()),
        list.clone(),
        json!(json!(format!("[{message}]")).to_string()),
        json!([{ "role": "user", "parts": [{ "type": "text", "content": "hi there" }] }]),
        json!([{ "role": "user", "parts": r#"[{"type":"text","content":"hi there"}]"# }]),
        json!([{ "role": "user", "parts": [r#"{"type":"text","content":"hi there"}"#] }]),
        json!([{ "role": "user", "parts": "hi there" }]),
        json!(["hi there"]),
        json!("hi there"),
    ] {
        let record =
            one(json!({ "gen_ai.operation.name": "chat", "gen_ai.input.messages": messages }));
        assert_eq!(
            body(&record.request),
            json!({ "messages": [{ "role": "user", "content": "hi there" }] }),
            "{messages}"
        );
        let record =
            one(json!({ "gen_ai.operation.name": "chat", "gen_ai.output.messages": messages }));
        let choice = &body(&record.response)["choices"][0]["message"];
        assert_eq!(choice["content"], "hi there", "{messages}");
    }
    let record =
        one(json!({ "gen_ai.operation.name": "chat", "gen_ai.system_instructions": "be brief" }));
    assert_eq!(
        body(&record.request)["messages"],
        json!([{ "role": "system", "content": "be brief" }])
    );
    let with_nan = r#"[{"role":"user","content":"hi","score":NaN}]"#;
    let record = one(json!({ "gen_ai.operation.name": "chat", "gen_ai.input.messages": with_nan }));
    assert_eq!(
        body(&record.request)["messages"][0],
        json!({ "role": "user", "content": "hi", "score": null })
    );
}

#[test]
fn keys_in_attributes_are_masked_and_schemas_are_not() {
    let key = "planted-abcdefgh1jk";
    let record = one(chat(json!({
        "llm.invocation_parameters": format!(
            r#"{{"temperature":0.1,"api_key":"{key}","extra_headers":{{"Authorization":"Bearer {key}"}},"aws_secret_access_key":"{key}",
               "seed":12345678901234567890123,"stop_token_ids":[1],
               "tools":[{{"function":{{"name":"f","parameters":{{"type":"object","properties":{{"api_key":{{"type":"string"}}}}}}}}}}]}}"#
        ),
        "llm.headers": format!(r#"{{"Authorization":"Bearer {key}"}}"#), "url.query": format!("key={key}"),
        "http.target": format!("/v1?key={key}"), "api_key": key, "url.full": format!("https://u:{key}@h?key={key}"),
        "http.request.header.authorization": [format!("Bearer {key}")], "session.token": [key],
        "session.id": format!("Bearer {key}"),
    })));
    let shown = format!("{:?} {:?} {:?}", record.request, record.response, record.metadata);
    assert!(!shown.contains("bcdefgh"), "{shown}");
    let asked = record.request.body.unwrap();
    for kept in
        ["12345678901234567890123", r#""stop_token_ids":[1]"#, r#"{"api_key":{"type":"string"}}"#]
    {
        assert!(asked.contains(kept), "{asked}");
    }
}

#[test]
fn events_of_one_request_stand_in_the_order_of_their_times() {
    let event = |nanos: &str, content: &str| {
        let mut event =
            requests::log("gen_ai.user.message", &json!({ "content": content }), &json!({}));
        event["timeUnixNano"] = json!(nanos);
        event
    };
    let events = [
        event("1795278400000000300", "c"),
        event("1795278400000000100", "a"),
        event("1795278400000000200", "b"),
    ];
    let mut taken = Vec::new();
    let logs = requests::logs_request(&events).to_string();
    otlp::logs(Encoding::Json, logs.as_bytes(), &Context::new(now()), &mut |read| {
        taken.push(read.unwrap())
    })
    .unwrap();
    let words: Vec<Value> = body(&taken[0].request)["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["content"].clone())
        .collect();
    assert_eq!(words, ["a", "b", "c"]);
}
