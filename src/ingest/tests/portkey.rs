//! Portkey's format: all peculiarities of its clients.

use chrono::{DateTime, Utc};

use super::*;

/// Returns the one record of a Portkey body.
pub(super) fn one(text: &str) -> Record {
    let (mut records, rejections) = portkey_with(text, Headers::default());
    assert_eq!((records.len(), &rejections[..]), (1, &[][..]), "{text}");
    records.remove(0)
}

#[test]
fn a_portkey_object_becomes_a_record() {
    let record = one(concat!(
        r#"{"request":{"url":"https://api.openai.com/v1/chat/completions","method":"post","provider":"openai","#,
        r#""headers":{"authorization":"Bearer sk-1234567890abc","accept":"*/*"},"body":{"model":"gpt-4o","stream":true,"user":"u9"}},"#,
        r#""response":{"status":201,"headers":{"content-type":"application/json"},"response_time":61,"#,
        r#""body":{"model":"gpt-4o-0125","usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}},"#,
        r#""metadata":{"trace_id":"t","span_id":"s","span_name":"n","parentSpanId":"p","k":"v"}}"#,
    ));
    let expected = Record {
        id: some("new-2"),
        organisation_id: some("default"),
        created_at: Some(now()),
        is_success: Some(1),
        ai_org: some("openai"),
        ai_model: some("gpt-4o"),
        req_units: Some(9),
        res_units: Some(8),
        total_units: Some(17),
        cost: Some(0.01025),
        cost_currency: some("USD"),
        request_url: some("https://api.openai.com/v1/chat/completions"),
        request_method: some("POST"),
        response_status_code: Some(201),
        response_time: Some(61),
        cache_status: some("DISABLED"),
        stream_mode: Some(true),
        retry_success_count: Some(0),
        mode: some("SINGLE"),
        trace_id: some("t"),
        span_id: some("s"),
        parent_span_id: some("p"),
        span_name: some("n"),
        internal_trace_id: some("new-1"),
        user_id: some("u9"),
        source: some("proxy-log"),
        metadata: [
            ("trace_id", "t"),
            ("span_id", "s"),
            ("span_name", "n"),
            ("parentSpanId", "p"),
            ("k", "v"),
            ("_user", "u9"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec(),
        request: Message {
            body: some(r#"{"model":"gpt-4o","stream":true,"user":"u9"}"#),
            headers: some(r#"{"authorization":"sk********abc","accept":"*/*"}"#),
        },
        response: Message {
            body: some(
                r#"{"model":"gpt-4o-0125","usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}"#,
            ),
            headers: some(r#"{"content-type":"application/json"}"#),
        },
        ..Record::default()
    };
    assert_eq!(record, expected);
}

#[test]
fn portkey_headers_win_over_the_body() {
    let headers = Headers {
        trace_id: some("ht"),
        span_id: some("hs"),
        parent_span_id: some("hp"),
        span_name: some("hn"),
        metadata: some(r#"{"k":"header","_user":"hu","n":1}"#),
        provider: some("anthropic"),
        virtual_key: some("vk"),
        config: some("pc-1"),
        runtime: some("node"),
        runtime_version: some("v20"),
        sdk_version: some("portkey-3.1.0"),
        debug: None,
    };
    let text = r#"{"trace_id":"t","request":{"body":{"user":"bu"}},"response":{"body":{}},"metadata":{"spanId":"s","k":"body","o":"own"}}"#;
    let record = portkey_with(text, headers.clone()).0.remove(0);
    assert_eq!(record.trace_id.as_deref(), Some("ht"));
    assert_eq!(record.span_id.as_deref(), Some("hs"));
    assert_eq!(
        (record.parent_span_id.as_deref(), record.span_name.as_deref()),
        (Some("hp"), Some("hn"))
    );
    assert_eq!(record.ai_org.as_deref(), Some("anthropic"));
    assert_eq!((record.virtual_key, record.config), (some("vk"), some("pc-1")));
    assert_eq!(
        (record.runtime, record.runtime_version, record.sdk_version),
        (some("node"), some("v20"), some("portkey-3.1.0"))
    );
    assert_eq!(record.user_id.as_deref(), Some("hu"));
    let tags: Vec<(&str, &str)> =
        record.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, [("spanId", "s"), ("k", "header"), ("o", "own"), ("_user", "hu"), ("n", "1")]);

    let inline =
        Headers { config: some(r#"{"api_key":"sk"}"#), metadata: some("not json"), ..headers };
    let record = portkey_with(text, inline).0.remove(0);
    assert_eq!((record.config, record.metadata.len()), (None, 4));
}

#[test]
fn items_of_one_request_share_a_trace_and_are_numbered() {
    let array = r#"[{"request":{"body":{}},"response":{"body":{}}},{"trace_id":"own","request":{}},{"nothing":1},{"response":{"status":"404"}}]"#;
    let spread = r#"{"0":{"request":{"body":{}},"response":{"body":{}}},"1":{"trace_id":"own","request":{}},"2":{"nothing":1},"3":{"response":{"status":"404"}}}"#;
    let spread_pretty = format!("{{\n{}", &spread[1..]);
    for text in [array, spread, &spread_pretty, &format!(" {array}\n")] {
        let (records, rejections) = portkey_with(text, Headers::default());
        let traces: Vec<_> =
            records.iter().map(|record| record.trace_id.as_deref().unwrap()).collect();
        assert_eq!(traces, ["new-1", "own", "new-1"], "{text}");
        assert!(records.iter().all(|record| record.internal_trace_id.as_deref() == Some("new-1")));
        assert!(records.iter().all(
            |record| record.span_id == record.id && record.span_name.as_deref() == Some("llm")
        ));
        assert_eq!(rejections.iter().map(|rejection| rejection.record).collect::<Vec<_>>(), [2]);
        assert_eq!((records[2].response_status_code, records[2].is_success), (Some(404), Some(0)));
    }
}

/// Portkey's own receiver answers `ok` to all of these.
#[test]
fn bodies_that_are_not_calls_give_no_record() {
    for text in [
        "{}",
        "[{}]",
        "not json",
        "{\"request\":",
        "\"text\"",
        "{\"request\":null,\"response\":null}",
        "{\"0\":{}}",
    ] {
        let (records, rejections) = portkey_with(text, Headers::default());
        assert_eq!(records, [], "{text}");
        assert!(!rejections.is_empty(), "{text}");
    }
    assert_eq!(portkey_with("[[]]", Headers::default()), (vec![], vec![]));
    let deep = format!(r#"{{"request":{{"body":{}1{}}}}}"#, "[".repeat(500), "]".repeat(500));
    assert_eq!(portkey_with(&deep, Headers::default()).1[0].field, "request.body");
}

#[test]
fn bodies_are_found_wherever_clients_put_them() {
    for (request, body) in [
        (r#"{"body":{"a":1}}"#, Some(r#"{"a":1}"#)),
        (r#"{"body":null}"#, None),
        (r#"{"body":{ "a" : 1.0 }}"#, Some(r#"{ "a" : 1.0 }"#)),
        (r#"{"body":"{\"a\":\n 1}"}"#, Some(r#"{"a":1}"#)),
        (r#"{"body":"plain"}"#, Some(r#""plain""#)),
        (r#"{"body":[1]}"#, Some("[1]")),
        (r#"{"model":"m","messages":[]}"#, Some(r#"{"model":"m","messages":[]}"#)),
        (r#"{"url":"u","headers":{"api-key":"secret-secret"}}"#, Some(r#"{"url":"u"}"#)),
        (r#"{"headers":{}}"#, Some("{}")),
        (r#""{\"body\":{\"a\":1}}""#, Some(r#"{"a":1}"#)),
        (r#""{\"model\":\"m\"}""#, Some(r#"{"model":"m"}"#)),
        (r#""just text""#, Some(r#""just text""#)),
        (r#""{\"broken\"""#, Some(r#""{\"broken\"""#)),
        ("[1]", Some("[1]")),
    ] {
        let record = one(&format!(r#"{{"request":{request},"response":{{"body":{{}}}}}}"#));
        assert_eq!(record.request.body.as_deref(), body, "{request}");
        let record = one(&format!(r#"{{"response":{request},"request":{{"body":{{}}}}}}"#));
        assert_eq!(record.response.body.as_deref(), body, "{request}");
        assert!(!format!("{record:?}").contains("secret-secret"));
    }
    let record = one(
        r#"{"request":"{\"url\":\"u\",\"body\":{\"model\":\"m\"}}","response":"{\"status\":429,\"body\":{}}"}"#,
    );
    assert_eq!(
        (record.request_url, record.ai_model, record.response_status_code),
        (some("u"), some("m"), Some(429))
    );
}

#[test]
fn times_ids_and_numbers_come_in_every_type() {
    let record = |fields: &str, response: &str, metadata: &str| {
        one(&format!(
            r#"{{{fields}"request":{{"body":{{}}}},"response":{{{response}"body":{{}}}},"metadata":{{{metadata}}}}}"#
        ))
    };
    for (response, time) in [
        (r#""response_time":123,"#, Some(123)),
        (r#""response_time":123.4,"#, Some(123)),
        (r#""response_time":"0123","#, Some(123)),
        (r#""response_time":"12.6","#, Some(13)),
        (r#""responseTime":5,"#, Some(5)),
        (r#""time":6,"#, Some(6)),
        (r#""response_time":"soon","#, None),
        (r#""response_time":null,"#, None),
        ("", None),
    ] {
        assert_eq!(record("", response, "").response_time, time, "{response}");
    }
    let made = "2026-11-21T10:00:00.500Z".parse::<DateTime<Utc>>().unwrap();
    for (fields, response, metadata) in [
        (r#""createdAt":"2026-11-21T10:00:00.5Z","#, "", ""),
        (
            r#""createdAt":"2026-11-21T10:00:00.5Z","start_time":1,"#,
            r#""createdAt":2,"#,
            r#""startTime":3"#,
        ),
        (r#""created_at":1795255200500,"#, "", ""),
        ("", r#""createdAt":"2026-11-21 10:00:00.5","#, ""),
        (r#""start_time":1795255200.5,"#, "", ""),
        (r#""startTime":"1795255200.5","#, "", ""),
        ("", "", r#""startTime":1795255200500000000"#),
        (r#""createdAt":"nonsense","start_time":1795255200.5,"#, "", ""),
    ] {
        assert_eq!(
            record(fields, response, metadata).created_at,
            Some(made),
            "{fields} {response} {metadata}"
        );
    }
    let ids = record(
        "",
        "",
        r#""traceId":"5bd66ef5-095a","spanId":8123456789012345678,"spanName":"chat","parentSpanId":null"#,
    );
    assert_eq!(
        (ids.span_id, ids.trace_id, ids.span_name),
        (some("8123456789012345678"), some("5bd66ef5-095a"), some("chat"))
    );
    assert_eq!((ids.parent_span_id, ids.metadata.len()), (None, 3));
    for none in [r#""None""#, r#""null""#, "null", r#""""#] {
        assert_eq!(record(&format!(r#""parent_span_id":{none},"#), "", "").parent_span_id, None);
    }
    let fallen =
        record(r#""parent_span_id":"None","trace_id":7,"id":8,"#, "", r#""parentSpanId":9"#);
    assert_eq!(
        (fallen.parent_span_id, fallen.trace_id, fallen.id),
        (some("9"), some("7"), some("8"))
    );
    let stream = record("", r#""streamingMode":true,"#, "");
    assert_eq!((stream.stream_mode, record("", "", "").stream_mode), (Some(true), None));
    assert_eq!(record("", "", "").response_status_code, Some(200));
    let odd = record("", r#""status":"failed","#, "");
    assert_eq!(
        (odd.response_status_code, odd.is_success),
        (None, None),
        "an invalid status is not a success"
    );
}

#[test]
fn tokens_and_cost_come_from_the_output_or_the_reply() {
    for (output, body, expected) in [
        (
            "",
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}"#,
            (Some(9), Some(8), Some(17)),
        ),
        ("", r#"{"usage":{"prompt_tokens":9,"total_tokens":9}}"#, (Some(9), None, Some(9))),
        (
            "",
            r#"{"usage":{"input_tokens":5,"output_tokens":3,"cache_read_input_tokens":100,"cache_creation_input_tokens":10}}"#,
            (Some(115), Some(3), Some(118)),
        ),
        (
            "",
            r#"{"usage":{"inputTokens":5,"outputTokens":3,"totalTokens":8}}"#,
            (Some(5), Some(3), Some(8)),
        ),
        (
            "",
            r#"{"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"thoughtsTokenCount":1,"totalTokenCount":7}}"#,
            (Some(4), Some(3), Some(7)),
        ),
        ("", r#"{"usage":null}"#, (None, None, None)),
        ("", r#"{"usage":{"prompt_tokens":"x"}}"#, (None, None, None)),
        (
            r#""output":{"tokens":{"requestUnits":1,"responseUnits":"2"}},"#,
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":8}}"#,
            (Some(1), Some(2), Some(3)),
        ),
        (
            r#""output":{"ignoreUsage":true},"#,
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":8}}"#,
            (None, None, None),
        ),
    ] {
        let record =
            one(&format!(r#"{{{output}"request":{{"body":{{}}}},"response":{{"body":{body}}}}}"#));
        assert_eq!(
            (record.req_units, record.res_units, record.total_units),
            expected,
            "{output} {body}"
        );
        assert_eq!(
            (record.cost, record.cost_currency),
            (None, None),
            "a cost that is not known has no currency"
        );
    }
    let cost = |cost: &str| {
        let record = one(&format!(
            r#"{{"output":{{"cost":{cost}}},"request":{{"body":{{}}}},"response":{{"body":{{}}}}}}"#
        ));
        (record.cost, record.cost_currency)
    };
    assert_eq!(cost(r#"{"cost":0.01125}"#), (Some(0.01125), some("USD")));
    assert_eq!(cost(r#"{"cost":"2","currency":"EUR"}"#), (Some(2.0), some("EUR")));
    assert_eq!(cost("null"), (None, None));
}

#[test]
fn metadata_is_cut_and_names_the_user() {
    let long = "é".repeat(200);
    let text = |metadata: &str| {
        format!(
            r#"{{"request":{{"body":{{"user":"body"}}}},"response":{{"body":{{}}}},"metadata":{metadata}}}"#
        )
    };
    let record = one(&text(&format!(
        r#"{{"{long}":"{long}","n":1.50,"b":false,"z":null,"e":"","o":{{"a":1}}}}"#
    )));
    let cut = "é".repeat(128);
    let tags: Vec<(&str, &str)> =
        record.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(
        tags,
        [
            (&*cut, &*cut),
            ("n", "1.50"),
            ("b", "false"),
            ("e", ""),
            ("o", "{\"a\":1}"),
            ("_user", "body")
        ]
    );
    assert_eq!(record.user_id.as_deref(), Some("body"));
    assert_eq!(one(&text(r#"{"_user":"own"}"#)).user_id.as_deref(), Some("own"));
    assert_eq!(one(&text(r#""{\"_user\":\"own\"}""#)).user_id.as_deref(), Some("own"));
    assert_eq!(one(&text(r#"["x"]"#)).metadata, [(String::from("_user"), String::from("body"))]);
    let old = one(r#"{"request":{"body":{}},"response":{"body":{}},"metadata":{"user":"old"}}"#);
    assert_eq!(old.user_id.as_deref(), Some("old"));
}

#[test]
fn a_cost_is_computed_where_none_is_stated() {
    let of = |output: &str, usage: &str, model: &str| {
        let text = format!(
            r#"{{{output}"request":{{"provider":"openai","body":{{"model":"{model}"}}}},"response":{{"body":{{"usage":{usage}}}}}}}"#
        );
        let record = one(&text);
        (record.cost, record.cost_currency)
    };
    let plain = r#"{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}"#;
    assert_eq!(of("", plain, "gpt-4o"), (Some(0.01125), some("USD")));
    assert_eq!(of("", plain, "gpt-unheard-of"), (None, None), "unknown is null, not 0");
    assert_eq!(of("", "{}", "gpt-4o"), (None, None));
    assert_eq!(
        of(r#""output":{"cost":{"cost":0}},"#, plain, "gpt-4o"),
        (Some(0.0), some("USD")),
        "stated values stay"
    );
    let cached =
        r#"{"prompt_tokens":9,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}"#;
    assert_eq!(of("", cached, "gpt-4o").0, Some(0.01075));
    let output = r#""output":{"tokens":{"requestUnits":9,"responseUnits":9,"cache":{"cacheReadInputUnits":4}}},"#;
    assert_eq!(of(output, "{}", "gpt-4o").0, Some(0.01075));
}

#[test]
fn gateways_that_translate_leave_cached_tokens_out_or_count_them_in() {
    let tokens = |usage: &str| {
        let record = one(&format!(
            r#"{{"request":{{"body":{{}}}},"response":{{"body":{{"usage":{usage}}}}}}}"#
        ));
        (record.req_units, record.res_units, record.total_units)
    };
    let cached = r#""cache_read_input_tokens":100,"cache_creation_input_tokens":10"#;
    assert_eq!(
        tokens(&format!(
            r#"{{"prompt_tokens":5,"completion_tokens":3,"total_tokens":118,{cached}}}"#
        )),
        (Some(115), Some(3), Some(118))
    );
    assert_eq!(
        tokens(&format!(
            r#"{{"prompt_tokens":115,"completion_tokens":3,"total_tokens":118,{cached}}}"#
        )),
        (Some(115), Some(3), Some(118))
    );
    assert_eq!(
        tokens(
            r#"{"inputTokens":5,"outputTokens":3,"totalTokens":108,"cacheReadInputTokens":100}"#
        ),
        (Some(105), Some(3), Some(108))
    );
}

#[test]
fn a_span_that_portkeys_exporter_sends_says_its_model_and_tokens() {
    let record = one(
        r#"{"metadata":{"traceId":"5bd66ef5","spanId":8123456789012345678,"_logType":"opentelemetry","startTime":1795255200500000000},
            "request":{"method":"POST","headers":{},"body":{"name":"chat","attributes":{"gen_ai.system":"openai",
            "gen_ai.request.model":"gpt-4o","gen_ai.usage.prompt_tokens":9,"gen_ai.usage.output_tokens":9}}},
            "response":{"status":200,"headers":{},"body":{},"response_time":12.5}}"#,
    );
    assert_eq!(
        (record.ai_org, record.ai_model, record.request_url),
        (some("openai"), some("gpt-4o"), None)
    );
    assert_eq!(
        (record.req_units, record.res_units, record.total_units),
        (Some(9), Some(9), Some(18))
    );
    assert_eq!((record.cost, record.response_time), (Some(0.01125), Some(13)));
    assert_eq!((record.span_id, record.is_success), (some("8123456789012345678"), Some(1)));
}
