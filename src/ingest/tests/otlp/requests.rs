//! OTLP: content that log records and events add to a span, reasons to refuse a whole request, and
//! the cost of hostile bytes.

use super::*;

pub(super) fn logs_request(records: &[Value]) -> Value {
    json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": records }] }] })
}

pub(super) fn log(name: &str, body: &Value, attributes: &Value) -> Value {
    json!({ "traceId": TRACE, "spanId": SPAN, "eventName": name, "body": any(body), "attributes": pairs(attributes) })
}

/// Returns the parts that a request's log records make, the same in both encodings, and the
/// rejections.
#[track_caller]
fn fragments(records: &[Value]) -> (Vec<Record>, Vec<String>) {
    let request = logs_request(records);
    let context = Context::new(now());
    let read = |encoding, bytes: &[u8]| {
        let mut fragments = Vec::new();
        let mut refused = Vec::new();
        otlp::logs(encoding, bytes, &context, &mut |read| match read {
            Ok(fragment) => fragments.push(fragment),
            Err(rejection) => refused.push(rejection.to_string()),
        })
        .unwrap();
        (fragments, refused)
    };
    let json = read(Encoding::Json, request.to_string().as_bytes());
    assert_eq!(json, read(Encoding::Protobuf, &protobuf(&request)));
    json
}

/// Returns the one part that log records of one span make.
#[track_caller]
fn fragment(records: &[Value]) -> Record {
    let (mut fragments, refused) = fragments(records);
    assert_eq!((fragments.len(), &refused[..]), (1, &[][..]));
    fragments.remove(0)
}

/// Joins a span and a part into one record. Their order only affects the order of members.
#[track_caller]
fn together(span: Value, fragment: &Record) -> Record {
    let call = one_call(span);
    assert!(!call.is_whole && has_outcome(&call.record) && !has_outcome(fragment));
    let after = unite(call.record.clone(), fragment.clone());
    let before = unite(fragment.clone(), call.record);
    assert_eq!(
        (body(&after.request), body(&after.response)),
        (body(&before.request), body(&before.response))
    );
    let bare =
        |record| Record { request: Message::default(), response: Message::default(), ..record };
    assert_eq!(bare(after.clone()), bare(before));
    after
}

#[test]
fn a_time_that_no_call_can_have_refuses_its_span_or_event_alone() {
    for (nanos, fine) in
        [("0", true), ("1795278400000000000", true), ("9214646400000000000", false)]
    {
        let mut odd = span(json!({ "gen_ai.operation.name": "chat" }));
        odd["startTimeUnixNano"] = json!(nanos);
        let good = span(json!({ "gen_ai.operation.name": "chat" }));
        let read = both(&request(&[odd, good]), &Context::new(now()));
        assert_eq!(
            (read.calls.len(), read.refused.len()),
            (1 + usize::from(fine), usize::from(!fine)),
            "{nanos}"
        );
        let mut event = log("gen_ai.user.message", &json!({ "content": "hi" }), &json!({}));
        event["timeUnixNano"] = json!(nanos);
        let (fragments, refused) = fragments(&[event]);
        assert_eq!(
            (fragments.len(), refused.len()),
            (usize::from(fine), usize::from(!fine)),
            "{nanos}"
        );
        assert!(
            read.refused.iter().chain(&refused).all(|refused| refused.contains(nanos)),
            "{refused:?}"
        );
    }
    for (nanos, field) in [(json!("soon"), "startTimeUnixNano"), (json!(-5), "startTimeUnixNano")] {
        let mut odd = span(json!({ "gen_ai.operation.name": "chat" }));
        odd[field] = nanos;
        let read =
            read(Encoding::Json, request(&[odd]).to_string().as_bytes(), &Context::new(now()));
        assert!(read.calls.is_empty() && read.refused[0].contains(field), "{:?}", read.refused);
    }
}

#[test]
fn log_events_complete_a_span() {
    let call = json!([{ "id": "t", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } }]);
    let mut choice = log(
        "gen_ai.choice",
        &json!({ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "tool_calls": call } }),
        &json!({}),
    );
    choice["timeUnixNano"] = json!("1795278401000000000");
    let asked = log(
        "gen_ai.system.message",
        &json!({ "content": "be" }),
        &json!({ "gen_ai.system": "openai" }),
    );
    let content = fragment(&[
        asked,
        log("gen_ai.user.message", &json!({ "content": "{\"Hi\":1}" }), &json!({})),
        log("gen_ai.tool.message", &json!({ "id": "t0", "content": "42" }), &json!({})),
        choice,
        log("app.started", &json!("hello"), &json!({ "role": "user", "content": "no" })),
    ]);
    let span = span(json!({ "gen_ai.operation.name": "chat", "gen_ai.request.model": "m" }));
    let record = together(span.clone(), &content);
    assert_eq!(
        body(&record.request),
        json!({ "model": "m", "messages": [
            { "role": "system", "content": "be" },
            { "role": "user", "content": "{\"Hi\":1}" },
            { "role": "tool", "tool_call_id": "t0", "content": "42" },
        ] })
    );
    assert_eq!(body(&record.response)["choices"][0]["message"]["tool_calls"], call);
    assert_eq!(
        record.created_at,
        DateTime::from_timestamp(1_795_278_400, 0),
        "the span's, not an event's"
    );

    let details = json!({
        "gen_ai.input.messages": [{ "role": "user", "parts": [{ "type": "text", "content": "Hi" }] }],
        "gen_ai.output.messages": [{ "role": "assistant", "parts": [{ "type": "text", "content": "Hello" }], "finish_reason": "stop" }],
    });
    let content =
        fragment(&[log("gen_ai.client.inference.operation.details", &Value::Null, &details)]);
    let record = together(span, &content);
    assert_eq!(body(&record.request)["messages"], json!([{ "role": "user", "content": "Hi" }]));
    assert_eq!(body(&record.response)["choices"][0]["message"]["content"], "Hello");
}

#[test]
fn a_fragment_holds_only_content() {
    let event =
        |text: &str| log("gen_ai.user.message", &json!({ "content": text }), &json!({ "k": "v" }));
    let mut seen = event("1");
    let mut happened = event("2");
    let mut answered = event("3");
    seen["observedTimeUnixNano"] = json!("1795278400000002000");
    happened["observedTimeUnixNano"] = json!("1795278400000009000");
    happened["timeUnixNano"] = json!("1795278400000001000");
    happened["spanId"] = json!("0000000000000002");
    answered["eventName"] = json!("gen_ai.choice");
    answered["spanId"] = json!("0000000000000003");
    let mut no_span = event("4");
    let mut no_trace = event("5");
    no_span["spanId"] = json!("");
    no_trace["traceId"] = json!("00");
    let (found, refused) = fragments(&[seen, happened, no_span, event("6"), no_trace, answered]);
    assert_eq!((found.len(), &refused[..]), (3, &[][..]), "log records without a span are ignored");
    let nanos = |fragment: &Record| fragment.created_at.map(|at| at.timestamp_subsec_nanos());
    assert_eq!(
        [nanos(&found[0]), nanos(&found[1]), nanos(&found[2])],
        [Some(2000), Some(1000), None]
    );
    let messages = body(&found[0].request)["messages"].as_array().unwrap().clone();
    assert_eq!(messages.iter().map(|message| &message["content"]).collect::<Vec<_>>(), ["1", "6"]);
    let bare = Record {
        id: Some(format!("{TRACE}-{SPAN}")),
        trace_id: some(TRACE),
        span_id: some(SPAN),
        source: some("otlp"),
        created_at: found[0].created_at,
        request: found[0].request.clone(),
        ..Record::default()
    };
    assert_eq!(found[0], bare);
    assert_eq!(
        (&found[2].request.body, body(&found[2].response)["choices"].is_array()),
        (&None, true)
    );
}

#[test]
fn an_event_that_cannot_be_stored_does_not_cost_the_others() {
    let prompt =
        |text: &str| log("gen_ai.content.prompt", &Value::Null, &json!({ "gen_ai.prompt": text }));
    let deep = format!(r#"[{{"a":{}1{}}}]"#, "[".repeat(130), "]".repeat(130));
    let other = log("x", &json!("y"), &json!({}));
    let (found, refused) = fragments(&[other, prompt(&deep), prompt("[{\"content\":\n\"a\"}]")]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].request.body.as_deref(),
        Some(r#"{"messages":[{"content":"a"}]}"#),
        "on one line"
    );
    assert!(refused[0].starts_with("record 1: field `request.body`"), "{refused:?}");

    let embedding = json!({ "gen_ai.operation.name": "embeddings", "gen_ai.prompt": "text" });
    let content = fragment(&[log("gen_ai.content.prompt", &Value::Null, &embedding)]);
    assert_eq!(body(&content.request), json!({ "input": "text" }));
}

#[test]
fn events_of_very_many_spans_do_not_wait_for_each_other() {
    let of = |number: u64| {
        let mut event = log("gen_ai.user.message", &json!({ "content": "Hi" }), &json!({}));
        event["spanId"] = json!(format!("{:016x}", number % 3000 + 1));
        event
    };
    let (found, refused) = fragments(&(0..6000).map(of).collect::<Vec<_>>());
    assert_eq!(
        (found.len(), refused.len()),
        (6000, 0),
        "the second of a span comes when the first was taken"
    );
    assert_eq!(found[0].id, found[3000].id);
}

#[test]
fn spans_that_say_all_there_is_to_say_are_whole() {
    let asked = json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt": "Hi" });
    let with = |attributes: &Value, name: &str, value: &str| {
        let mut all = attributes.clone();
        all[name] = json!(value);
        span(all)
    };
    let mut failed = span(asked.clone());
    failed["status"] = json!({ "code": 2 });
    let mut failed_in_silence = with(&json!({}), "gen_ai.operation.name", "chat");
    failed_in_silence["status"] = json!({ "code": 2 });
    for (span, is_whole) in [
        (with(&asked, "gen_ai.completion", "Hello"), true),
        (with(&asked, "gen_ai.operation.name", "embeddings"), true),
        (failed, true),
        (failed_in_silence, false),
        (span(asked.clone()), false),
        (with(&json!({ "gen_ai.operation.name": "chat" }), "gen_ai.completion", "Hello"), false),
        (with(&json!({}), "gen_ai.operation.name", "embeddings"), false),
    ] {
        assert_eq!(one_call(span.clone()).is_whole, is_whole, "{span}");
    }
    let headers = Headers { debug: some("false"), ..Headers::default() };
    let context = Context { headers, ..Context::new(now()) };
    assert!(
        both(&request(&[span(asked)]), &context).calls[0].is_whole,
        "what must not be kept is not waited for"
    );
}

#[test]
fn the_cost_of_a_fragment_is_that_of_a_whole_record() {
    let mut attributes = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100,
    });
    let fragment = one_call(span(attributes.clone()));
    attributes["gen_ai.prompt"] = json!("Hi");
    attributes["gen_ai.completion"] = json!("Hello");
    let whole = one_call(span(attributes));
    assert!(whole.is_whole && !fragment.is_whole && fragment.record.cost.is_some());
    assert_eq!(fragment.record.cost, whole.record.cost);
}

#[test]
fn events_of_the_span_are_read_and_its_attributes_win() {
    let mut content = span(json!({ "gen_ai.operation.name": "chat" }));
    content["events"] = json!([
        { "name": "gen_ai.user.message", "attributes": pairs(&json!({ "gen_ai.event.content": "{\"content\":\"Hi\"}" })) },
        { "name": "gen_ai.choice", "attributes": pairs(&json!({ "content": "Hello", "finish_reason": "stop" })) },
    ]);
    let record = one_of(content.clone());
    assert_eq!(body(&record.request)["messages"], json!([{ "role": "user", "content": "Hi" }]));
    let choice = &body(&record.response)["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("Hello"), &json!("stop"))
    );

    content["attributes"] =
        pairs(&json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt": "Other" }));
    let record = one_of(content.clone());
    assert_eq!(body(&record.request)["messages"][0]["content"], "Other");
    assert_eq!(body(&record.response)["choices"][0]["message"]["content"], "Hello");

    content["attributes"] = pairs(&json!({ "gen_ai.operation.name": "chat" }));
    content["events"] = json!([
        { "name": "gen_ai.content.prompt", "attributes": pairs(&json!({ "gen_ai.prompt": "Old" })) },
        { "name": "gen_ai.content.completion", "attributes": pairs(&json!({ "gen_ai.completion": "News" })) },
    ]);
    let record = one_of(content);
    assert_eq!(body(&record.request)["messages"][0]["content"], "Old");
    assert_eq!(body(&record.response)["choices"][0]["message"]["content"], "News");
}

#[test]
fn a_bad_span_does_not_cost_the_others_and_a_broken_request_is_none() {
    let good = span(json!({ "gen_ai.operation.name": "chat" }));
    let mut no_trace = good.clone();
    let mut zero = good.clone();
    no_trace["traceId"] = json!("abcd");
    zero["spanId"] = json!("0000000000000000");
    let read = both(&request(&[no_trace, good.clone(), zero]), &Context::new(now()));
    assert_eq!(read.calls.len(), 1);
    assert_eq!(
        read.refused,
        [
            "field `traceId`: expected 32 hexadecimal digits that are not all 0",
            "field `spanId`: expected 16 hexadecimal digits that are not all 0",
        ]
    );
    let context = Context::new(now());
    let whole = protobuf(&request(&[good]));
    let broken: [(Encoding, &[u8]); 6] = [
        (Encoding::Protobuf, &whole[..whole.len() - 5]),
        (Encoding::Protobuf, b"{\"resourceSpans\":[]}"),
        (Encoding::Json, b"[]"),
        (Encoding::Json, b"{\"resourceSpans\":{}}"),
        (Encoding::Json, b"{\"resourceSpans\":[{\"scopeSpans\":[7]}]}"),
        (Encoding::Json, b"\xff"),
    ];
    for (encoding, bytes) in broken {
        let mut taken = 0;
        let read = otlp::traces(encoding, bytes, &context, &mut |_| taken += 1);
        assert!(read.is_err() && taken == 0, "{encoding:?} {}", String::from_utf8_lossy(bytes));
    }
    for (encoding, bytes) in
        [(Encoding::Json, "{}"), (Encoding::Json, ""), (Encoding::Protobuf, "")]
    {
        assert_eq!(read_count(encoding, bytes.as_bytes()), 0);
    }
}

fn read_count(encoding: Encoding, bytes: &[u8]) -> usize {
    read(encoding, bytes, &Context::new(now())).calls.len()
}

#[test]
fn hostile_values_are_refused_not_built() {
    let deep = |levels: usize| {
        let mut value = json!("x");
        for _ in 0..levels {
            value = json!([value]);
        }
        span(json!({ "gen_ai.operation.name": "chat", "deep": value }))
    };
    let read = both(&request(&[deep(20), deep(40)]), &Context::new(now()));
    assert_eq!((read.calls.len(), read.refused.len()), (2, 0));
    let deepest = |call: &Call| body(&call.record.response)["span_attributes"]["deep"].to_string();
    assert_eq!(deepest(&read.calls[0]), format!("{}\"x\"{}", "[".repeat(20), "]".repeat(20)));
    assert!(
        deepest(&read.calls[1]).contains("[null]"),
        "values nested too deeply are null: {}",
        deepest(&read.calls[1])
    );

    // Empty attributes take two bytes each.
    let flood = [0x4a, 0].repeat(1 << 20);
    let request = bytes_field(1, &bytes_field(2, &bytes_field(2, &flood)));
    let read = self::read(Encoding::Protobuf, &request, &Context::new(now()));
    assert!(read.refused[0].contains("131072 values"), "{:?}", read.refused);

    let nested = format!(r#"{{"a":{}1{}}}"#, "[".repeat(130), "]".repeat(130));
    let input = json!({ "gen_ai.operation.name": "chat", "input.value": nested });
    let read = both(&self::request(&[span(input)]), &Context::new(now()));
    assert!(
        read.refused.first().is_some_and(|refused| refused.contains("`request.body`")),
        "{:?}",
        read.refused
    );
}

#[test]
fn encodings_and_signals_are_detected() {
    let traces = request(&[span(json!({ "gen_ai.operation.name": "chat" }))]);
    let mut event = log("gen_ai.user.message", &json!({ "content": "x" }), &json!({}));
    event["observedTimeUnixNano"] = json!("7");
    let logs = logs_request(&[event]);
    for (value, signal) in [(&traces, Signal::Traces), (&logs, Signal::Logs)] {
        let text = value.to_string().into_bytes();
        let wire = protobuf(value);
        assert_eq!(Encoding::detect("", &text), Encoding::Json);
        assert_eq!(Encoding::detect("", &wire), Encoding::Protobuf);
        assert_eq!(Encoding::detect("application/json; charset=utf-8", &wire), Encoding::Json);
        assert_eq!(Encoding::detect("Application/X-Protobuf", &text), Encoding::Protobuf);
        assert_eq!(Signal::detect(Encoding::Json, &text), signal);
        assert_eq!(Signal::detect(Encoding::Protobuf, &wire), signal);
    }
    assert!(otlp::is_logs_json(b" {\n \"resourceLogs\" : []}"));
    assert!(!otlp::is_logs_json(br#"{"request":{"body":"resourceLogs"},"response":{}}"#));
}

#[test]
fn answers_are_opentelemetrys() {
    assert_eq!(otlp::response(Encoding::Protobuf, Signal::Traces, 0, ""), b"");
    assert_eq!(otlp::response(Encoding::Json, Signal::Logs, 0, ""), b"{}");
    assert_eq!(
        otlp::response(Encoding::Protobuf, Signal::Traces, 3, "why"),
        b"\x0a\x07\x08\x03\x12\x03why"
    );
    for (signal, name) in [
        (Signal::Traces, "rejectedSpans"),
        (Signal::Logs, "rejectedLogRecords"),
        (Signal::Metrics, "rejectedDataPoints"),
    ] {
        let answer: Value =
            serde_json::from_slice(&otlp::response(Encoding::Json, signal, 3, "w\"y")).unwrap();
        assert_eq!(answer, json!({ "partialSuccess": { name: "3", "errorMessage": "w\"y" } }));
    }
    assert_eq!(otlp::status(3, "no"), b"\x08\x03\x12\x02no");
}

#[test]
fn data_points_are_counted() {
    let text = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"a","sum":{"dataPoints":[{},{}]}},{"gauge":{"dataPoints":[{}]}}]}]}]}"#;
    assert_eq!(otlp::data_points(Encoding::Json, text).unwrap(), 3);
    let points = [bytes_field(1, b""), bytes_field(1, b"")].concat();
    let metrics =
        [bytes_field(2, &bytes_field(7, &points)), bytes_field(2, &bytes_field(5, &points[..2]))]
            .concat();
    let wire = bytes_field(1, &bytes_field(2, &metrics));
    assert_eq!(otlp::data_points(Encoding::Protobuf, &wire).unwrap(), 3);
}

#[test]
fn lines_of_the_collectors_files_are_read() {
    let spans = request(&[span(json!({ "gen_ai.operation.name": "chat" })), span(json!({}))]);
    let logs = logs_request(&[log("x", &json!("y"), &json!({}))]);
    let text = format!("{spans}\n{logs}\n{{\"resourceSpans\":7}}\n");
    let (records, rejections) = read_with(SourceFormat::Otlp, text.as_bytes(), Headers::default());
    assert_eq!((records.len(), rejections.len()), (1, 1));
    assert_eq!(records[0].organisation_id.as_deref(), Some(DEFAULT_ORGANISATION));
    assert_eq!(
        rejections[0].to_string(),
        "line 3 (record 2): field `resourceSpans`: expected an array"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any_byte(), 0..200),
        cut in 0usize..400,
    ) {
        let whole = protobuf(&request(&[span(json!({ "gen_ai.operation.name": "chat", "a": [1, { "b": 2.5 }] }))]));
        let mut mixed = whole[..cut.min(whole.len())].to_vec();
        mixed.extend(&bytes);
        let context = Context::new(now());
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            for bytes in [&bytes, &mixed] {
                let _ = otlp::traces(encoding, bytes, &context, &mut |_| {});
                let _ = otlp::logs(encoding, bytes, &context, &mut |_| {});
                let _ = otlp::data_points(encoding, bytes);
                let _ = Signal::detect(encoding, bytes);
            }
        }
    }
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![proptest::num::u8::ANY, Just(0x0au8), Just(0x12), Just(0x4a), Just(1), Just(0)]
}
