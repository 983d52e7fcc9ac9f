//! Values and requests that OTLP does not allow.

use super::*;

fn with_value(value: &Value) -> Value {
    let mut span = span(json!({ "gen_ai.operation.name": "chat" }));
    let value = json!({ "key": "gen_ai.usage.input_tokens", "value": value });
    span["attributes"].as_array_mut().unwrap().push(value);
    span
}

fn read_json(request: &Value) -> Found {
    read(Encoding::Json, request.to_string().as_bytes(), &Context::new(now()))
}

#[track_caller]
fn one_json(span: Value) -> Record {
    let mut read = read_json(&request(&[span]));
    assert_eq!((read.calls.len(), &read.refused[..]), (1, &[][..]));
    read.calls.remove(0).record
}

#[test]
fn counts_are_read_however_they_are_written() {
    for value in [
        json!({ "intValue": "25" }),
        json!({ "intValue": 25 }),
        json!({ "intValue": "25.0" }),
        json!({ "doubleValue": 25 }),
        json!({ "doubleValue": "25" }),
        json!({ "doubleValue": 24.9999999 }),
        json!({ "stringValue": "25" }),
        json!({ "stringValue": " 25 " }),
        json!({ "stringValue": 25 }),
        json!({ "int_value": "25" }),
        json!({ "boolValue": null, "intValue": "25" }),
        json!(25),
        json!("25"),
    ] {
        assert_eq!(one_json(with_value(&value)).req_units, Some(25), "{value}");
    }
}

#[test]
fn one_odd_value_costs_no_more_than_itself() {
    for value in [
        json!({ "intValue": "9223372036854775808" }),
        json!({ "intValue": "x" }),
        json!({ "intValue": {} }),
        json!({ "boolValue": 1 }),
        json!({ "boolValue": "maybe" }),
        json!({ "stringValue": null }),
        json!({ "stringValue": [] }),
        json!({ "doubleValue": "NaN" }),
        json!({ "doubleValue": {} }),
        json!({ "bytesValue": "AAEC" }),
        json!({ "bytesValue": 7 }),
        json!({ "arrayValue": {} }),
        json!({ "arrayValue": { "values": [{}, null, 7, { "intValue": [] }] } }),
        json!({ "arrayValue": "x" }),
        json!({ "kvlistValue": { "values": [{ "key": "a", "value": { "kvlistValue": { "values": [] } } }, 7] } }),
        json!({ "kvlistValue": { "values": "x" } }),
        json!({ "unknownValue": 1 }),
        json!({}),
        json!([]),
        json!(null),
    ] {
        let record = one_json(with_value(&value));
        assert!(
            record.req_units.is_none_or(|tokens| tokens == 1),
            "{value}: {:?}",
            record.req_units
        );
        // The same in a resource, in a scope, in an event and in a log record.
        let call = span(json!({ "gen_ai.operation.name": "chat", "gen_ai.prompt": "Hi" }));
        let mut whole = request(&[call.clone(), with_value(&value)]);
        let group = &mut whole["resourceSpans"][0];
        group["resource"]["attributes"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "key": "odd", "value": value }));
        group["scopeSpans"][0]["scope"]["name"] = value.clone();
        group["scopeSpans"][0]["spans"][0]["events"] =
            json!([{ "name": value, "attributes": [{ "key": "a", "value": value }] }, value]);
        let read = read_json(&whole);
        assert_eq!((read.calls.len(), &read.refused[..]), (2, &[][..]), "{value}");
        assert_eq!(tag(&read.calls[0].record, "service.name"), Some("shop"));

        let mut event =
            requests::log("gen_ai.user.message", &json!({ "content": "Hi" }), &json!({}));
        event["attributes"] = json!([{ "key": "a", "value": value }, value]);
        let mut taken = Vec::new();
        let logs = requests::logs_request(&[event]).to_string();
        otlp::logs(Encoding::Json, logs.as_bytes(), &Context::new(now()), &mut |read| {
            taken.push(read.unwrap())
        })
        .unwrap();
        assert_eq!(taken.len(), 1, "{value}");
    }
    let big = one_json(with_value(&json!({ "intValue": "9223372036854775808" })));
    assert_eq!(big.req_units, None);
    let mut endless = span(json!({ "gen_ai.operation.name": "chat" }));
    endless["endTimeUnixNano"] = json!("tomorrow");
    assert_eq!(one_json(endless).response_time, None);
}

#[test]
fn attributes_that_are_no_list_cost_no_other_span() {
    let call = || span(json!({ "gen_ai.operation.name": "chat" }));
    for (attributes, calls) in [
        (json!(null), 1),
        (json!([]), 1),
        (json!(7), 1),
        (json!({ "gen_ai.operation.name": "chat" }), 2),
        (json!({ "gen_ai.operation.name": { "stringValue": "chat" } }), 2),
        (
            json!([7, null, {}, { "key": "gen_ai.operation.name", "value": { "stringValue": "chat" } }]),
            2,
        ),
    ] {
        let mut odd = call();
        odd["attributes"] = attributes.clone();
        let read = read_json(&request(&[odd, call()]));
        assert_eq!((read.calls.len(), read.refused.len()), (calls, 0), "{attributes}");
    }
    let mut odd = call();
    odd["attributes"].as_array_mut().unwrap().extend([
        json!({ "key": "", "value": { "stringValue": "x" } }),
        json!({ "value": { "stringValue": "x" } }),
        json!({ "key": null, "value": { "stringValue": "x" } }),
        json!({ "key": "session.id", "value": { "stringValue": "1" } }),
        json!({ "key": "session.id", "value": { "stringValue": "2" } }),
        json!({ "key": "nul\u{0}", "value": { "stringValue": "\u{0}" } }),
    ]);
    assert_eq!(tag(&one_json(odd), "session.id"), Some("2"), "the last of a doubled name");
}

#[test]
fn a_value_in_protobuf_that_does_not_decode_is_null() {
    let pair = |key: &str, value: &[u8]| {
        bytes_field(9, &[bytes_field(1, key.as_bytes()), bytes_field(2, value)].concat())
    };
    let good = |key: &str, value: &str| pair(key, &bytes_field(1, value.as_bytes()));
    let span = [
        bytes_field(1, &[1; 16]),
        bytes_field(2, &[2; 8]),
        good("gen_ai.operation.name", "chat"),
        pair("cut", &[0x0a, 50, 1]),
        pair("group", &[0x0b]),
        pair("list", &bytes_field(5, &bytes_field(1, &[0x0a, 50]))),
        bytes_field(9, &[0xff; 3]),
        good("gen_ai.request.model", "m"),
    ];
    let resource = bytes_field(
        1,
        &bytes_field(1, &[bytes_field(1, b"k"), bytes_field(2, &[0x0a, 9])].concat()),
    );
    let scoped = bytes_field(2, &bytes_field(2, &span.concat()));
    let whole = bytes_field(1, &[resource, scoped].concat());
    let read = read(Encoding::Protobuf, &whole, &Context::new(now()));
    assert_eq!((read.calls.len(), &read.refused[..]), (1, &[][..]));
    assert_eq!(read.calls[0].record.ai_model.as_deref(), Some("m"));
}

#[test]
fn the_names_of_the_protobuf_files_are_read_too() {
    let request = json!({ "resource_spans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "string_value": "shop" } }] },
        "scope_spans": [{ "scope": { "name": "own" }, "spans": [{
            "trace_id": "W47/95gDgQPSabYzgT/GDA==", "span_id": "7uGbfsPBsXQ=", "name": "chat",
            "start_time_unix_nano": "1795278400000000000", "end_time_unix_nano": 1_795_278_401_000_000_000_u64,
            "attributes": [
                { "key": "gen_ai.operation.name", "value": { "string_value": "chat" } },
                { "key": "gen_ai.usage.input_tokens", "value": { "int_value": "9" } },
            ],
        }] }],
    }] });
    let read = read_json(&request);
    let record = &read.calls[0].record;
    assert_eq!(
        record.id,
        Some(format!("{TRACE}-{SPAN}")),
        "ids in base64, as protobuf's JSON has bytes"
    );
    assert_eq!(
        (record.req_units, record.response_time, tag(record, "service.name")),
        (Some(9), Some(1000), Some("shop"))
    );
    let logs = json!({ "resource_logs": [{ "scope_logs": [{ "log_records": [{
        "trace_id": TRACE, "span_id": SPAN, "event_name": "gen_ai.user.message", "time_unix_nano": "1795278400000000000",
        "body": { "kvlist_value": { "values": [{ "key": "content", "value": { "string_value": "Hi" } }] } },
    }] }] }] });
    let text = logs.to_string();
    assert!(
        otlp::is_logs_json(text.as_bytes())
            && Signal::detect(Encoding::Json, text.as_bytes()) == Signal::Logs
    );
    let mut taken = Vec::new();
    otlp::logs(Encoding::Json, text.as_bytes(), &Context::new(now()), &mut |read| {
        taken.push(read.unwrap())
    })
    .unwrap();
    assert_eq!(body(&taken[0].request)["messages"], json!([{ "role": "user", "content": "Hi" }]));
}

#[test]
fn json_without_anything_to_store_is_refused() {
    let context = Context::new(now());
    let refused = |text: &str| match otlp::traces(
        Encoding::Json,
        text.as_bytes(),
        &context,
        &mut |_| panic!(),
    ) {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    for text in
        [r#"{"hello":"world"}"#, r#"{"spans":[{"traceId":"1"}]}"#, r#"{"logs":[]}"#, "[]", "7", "{"]
    {
        let error = refused(text).unwrap();
        assert!(
            error.contains("an OTLP export request, one JSON object with `resourceSpans`"),
            "{error}"
        );
    }
    let error = refused(
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#,
    )
    .unwrap();
    assert!(error.contains("`resourceLogs`") && error.contains("/v1/logs"), "{error}");
    for text in ["{}", "", r#"{"resourceSpans":[]}"#, r#"{"resourceSpans":null,"more":1}"#] {
        assert_eq!(refused(text), None, "{text}");
    }
    let logs = |text: &str| {
        otlp::logs(Encoding::Json, text.as_bytes(), &Context::new(now()), &mut |_| panic!())
    };
    assert!(logs(r#"{"resourceSpans":[]}"#).unwrap_err().to_string().contains("/v1/traces"));
    assert!(otlp::data_points(Encoding::Json, br#"{"hello":1}"#).is_err());
}
