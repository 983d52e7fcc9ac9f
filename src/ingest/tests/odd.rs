//! Invalid values: each affects only itself, in every format.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::ingest::{control_plane, feedback};
use crate::record::json::Reason;

fn body(message: &Message) -> Value {
    serde_json::from_str(message.body.as_deref().unwrap_or("null")).unwrap()
}

#[test]
fn numbers_that_only_python_has_are_null_and_the_call_is_kept() {
    let asked = r#"{"model":"m","t":NaN,"text":"NaN, -Infinity"}"#;
    let answered =
        r#"{"lp":[-Infinity,Infinity,-1.5],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let expected = [
        json!({ "model": "m", "t": null, "text": "NaN, -Infinity" }),
        json!({ "lp": [null, null, -1.5], "usage": { "prompt_tokens": 3, "completion_tokens": 4 } }),
    ];
    for (shape, text) in [
        (
            SourceFormat::Native,
            format!(
                r#"{{"cost":NaN,"request":{{"body":{asked}}},"response":{{"body":{answered}}}}}"#
            ),
        ),
        (
            SourceFormat::Portkey,
            format!(
                r#"{{"request":{{"body":{asked}}},"response":{{"body":{answered}}},"output":{{"cost":NaN}}}}"#
            ),
        ),
        (
            SourceFormat::Portkey,
            format!(r#"[{{"request":{{"body":{asked}}},"response":{{"body":{answered}}}}}]"#),
        ),
        (
            SourceFormat::GatewayHook,
            format!(
                r#"{{"request":{{"json":{asked}}},"response":{{"json":{answered},"statusCode":200}}}}"#
            ),
        ),
    ] {
        let (records, rejections) = read_with(shape, text.as_bytes(), Headers::default());
        assert_eq!((records.len(), &rejections[..]), (1, &[][..]), "{text}");
        assert_eq!([body(&records[0].request), body(&records[0].response)], expected, "{text}");
    }
    let lite = format!(
        r#"{{"id":"a","model":"m","startTime":1795278418.25,"response_cost":NaN,"messages":[],
            "model_parameters":{{"t":NaN}},"response":{answered},"prompt_tokens":3,"completion_tokens":4}}"#
    );
    let (records, rejections) =
        read_with(SourceFormat::LiteLlm, format!("[{lite},{lite}]").as_bytes(), Headers::default());
    assert_eq!((records.len(), rejections.len()), (2, 0));
    assert_eq!((body(&records[1].response), records[1].req_units), (expected[1].clone(), Some(3)));
    assert_eq!(body(&records[1].request)["t"], Value::Null);
    // JSON in strings, as in metadata headers and in spans.
    let headers = Headers { metadata: some(r#"{"team":"a","score":NaN}"#), ..Headers::default() };
    let record =
        portkey_with(r#"{"request":{},"metadata":"{\"k\":\"v\",\"n\":Infinity}"}"#, headers)
            .0
            .remove(0);
    assert_eq!(
        record.metadata,
        [("k".to_owned(), "v".to_owned()), ("team".to_owned(), "a".to_owned())]
    );

    let drafts = feedback::drafts(
        br#"[{"trace_id":"t","value":1,"weight":NaN,"metadata":{"a":"b","n":NaN}}]"#,
    )
    .unwrap();
    assert_eq!(
        (drafts[0].value, &drafts[0].metadata[..]),
        (Some(1.0), &[("a".to_owned(), "b".to_owned())][..])
    );
    let context = Context::new(now());
    let object = format!(
        r#"{{"_id":"x","created_at":"2026-11-21T16:26:58Z","request":{{"body":{asked}}},"response":{{"body":{answered}}}}}"#
    );
    for logged in [
        control_plane::file(object.as_bytes(), &context).unwrap(),
        control_plane::log(format!(r#"{{"logObject":{object}}}"#).as_bytes(), &context).unwrap(),
    ] {
        let control_plane::Logged::Call(record) = logged else { panic!("{logged:?}") };
        assert_eq!([body(&record.request), body(&record.response)], expected);
    }
    let rows =
        br#"{"table":"generations","data":[{"id":"x","created_at":"2026-11-21 16:26:58","cost":NaN,"req_units":3}]}"#;
    let batch = control_plane::rows(rows, &context).unwrap();
    assert_eq!(
        (batch.rejections.len(), batch.record_parts[0].1.req_units, batch.record_parts[0].1.cost),
        (0, Some(3), None)
    );
}

/// As in JavaScript and Python, the last of two members with one key counts, in every format.
#[test]
fn the_last_of_duplicate_keys_counts() {
    let of = |text: &str| {
        let (mut records, rejections) = native(text);
        assert_eq!((records.len(), rejections.len()), (1, 0), "{text}: {rejections:?}");
        records.remove(0)
    };
    let doubled = of(
        r#"{"id":"a","id":"b","cost":1,"cost":2,"ai_model":"a","ai_model":"b","metadata":{"k":"1","k":"2"}}"#,
    );
    assert_eq!((doubled.id, doubled.cost, doubled.ai_model), (some("b"), Some(2.0), some("b")));
    assert_eq!(doubled.metadata, [("k".to_owned(), "2".to_owned())]);
    let emptied = of(
        r#"{"cost":1,"cost":null,"ai_model":"a","ai_model":null,"metadata":{"a":"1"},"metadata":{"b":"2"}}"#,
    );
    assert_eq!((emptied.cost, emptied.ai_model), (None, None));
    assert_eq!(emptied.metadata, [("b".to_owned(), "2".to_owned())]);
    for (text, headers) in [
        (r#"{"request":{"body":{"n":1}},"request":{"body":{"n":2}}}"#, None),
        (r#"{"request":{"body":{"n":1},"headers":{"h":"1"}},"request":{"body":{"n":2}}}"#, None),
        (r#"{"request":{"body":{"n":1},"body":{"n":2}}}"#, None),
        (r#"{"request.body":{"n":1},"request":{"body":{"n":2}}}"#, None),
        (r#"{"request":{"body":{"n":1}},"request.body":{"n":2}}"#, None),
        // Two spellings of a part are not a duplicate key.
        (r#"{"request.headers":{"h":"1"},"request":{"body":{"n":2}}}"#, some(r#"{"h":"1"}"#)),
    ] {
        assert_eq!(of(text).request, Message { body: some(r#"{"n":2}"#), headers }, "{text}");
    }
    assert_eq!(of(r#"{"request":{"body":{"n":1}},"request":null}"#).request, Message::default());

    let sent = r#"{"request":{"url":"https://a","url":"https://b","body":{"model":"a","model":"b"}},"id":"x","id":"y",
        "response":{"status":500,"status":200,"body":{"usage":{"prompt_tokens":1,"prompt_tokens":7,"completion_tokens":1}}},
        "metadata":{"k":"1","k":"2","trace_id":"x","trace_id":"y"}}"#;
    let record = portkey::one(sent);
    assert_eq!(
        (record.id, record.request_url, record.ai_model),
        (some("y"), some("https://b"), some("b"))
    );
    assert_eq!((record.response_status_code, record.req_units), (Some(200), Some(7)));
    assert_eq!(record.trace_id, some("y"));
    let sent = r#"{"request":{"body":{"model":"a","model":null}},"response":{},"metadata":{"trace_id":"x","trace_id":null}}"#;
    let record = portkey::one(sent);
    assert_eq!((record.ai_model, record.trace_id), (None, record.internal_trace_id));
    assert!(record.metadata.is_empty(), "{:?}", record.metadata);
    let lite = r#"{"model":"a","model":"b","status":"failure","status":"success","messages":[1],"messages":[2]}"#;
    let record = read_with(SourceFormat::LiteLlm, lite.as_bytes(), Headers::default()).0.remove(0);
    assert_eq!((record.ai_model.as_deref(), record.is_success), (Some("b"), Some(1)));
    assert_eq!(record.request.body.as_deref(), Some(r#"{"model":"b","messages":[2]}"#));
}

#[test]
fn keys_in_a_config_that_stands_in_full_are_masked_in_every_shape() {
    let config = json!({ "api_key": "0123456789abcdef", "retry": { "attempts": 3 } }).to_string();
    let record = native(&json!({ "config": config }).to_string()).0.remove(0);
    assert_eq!(
        record.config.as_deref(),
        Some(r#"{"api_key":"01********def","retry":{"attempts":3}}"#)
    );
    let lite = json!({ "model": "m", "model_group": config, "api_base": "https://u:0123456789abcdef@h?key=0123456789abcdef" });
    let record = read_with(SourceFormat::LiteLlm, lite.to_string().as_bytes(), Headers::default())
        .0
        .remove(0);
    assert!(!format!("{record:?}").contains("456789"), "{record:?}");
}

#[test]
fn records_of_an_amplifying_body_are_counted_before_they_are_built() {
    let refused = |shape, body: String, headers: Headers| {
        let (records, rejections) = read_with(shape, body.as_bytes(), headers);
        assert!(records.is_empty(), "{}", records.len());
        assert_eq!(rejections.len(), 1);
        assert_eq!(rejections[0].reason, Reason::TooLarge);
        rejections[0].expected.clone()
    };
    let numbered = |count: usize| {
        let items: Vec<String> =
            (0..count).map(|at| format!("\"{at}\":{{\"request\":1}}")).collect();
        format!("{{{}}}", items.join(","))
    };
    assert!(
        refused(SourceFormat::Portkey, numbered(MAX_RECORDS + 1), Headers::default())
            .contains("100000 records")
    );
    let headers = || Headers { span_name: some(&"s".repeat(8_000)), ..Headers::default() };
    assert_eq!(made_bytes(b"[{},{}]", &headers()), 7 + 2 * (RECORD_BYTES + 8_000));
    refused(SourceFormat::Portkey, numbered(MAX_MADE_BYTES / 8_000), headers());
    assert_eq!(read_with(SourceFormat::Portkey, numbered(100).as_bytes(), headers()).0.len(), 100);

    let spans = |count: usize| {
        format!(
            "{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}",
            vec!["{}"; count].join(",")
        )
    };
    assert!(
        refused(SourceFormat::Otlp, spans(MAX_RECORDS + 1), Headers::default())
            .contains("100000 in a request")
    );
}

#[test]
fn values_copied_into_each_record_are_bounded_and_counted() {
    let pairs: Vec<String> = (0..1_000).map(|at| format!("\"k{at}\":\"v\"")).collect();
    let long = "s".repeat(100_000);
    let metadata = format!("{{{}}}", pairs.join(","));
    let headers =
        Headers { span_name: some(&long), metadata: some(&metadata), ..Headers::default() }.cut();
    assert!(headers.span_name.as_ref().unwrap().len() < 10_000);
    let context = Context { headers, policy: Arc::default(), ..Context::new(now()) };
    let (records, rejections) =
        lines(SourceFormat::Portkey, b"{\"request\":1}", &context, &mut || "id".to_owned());
    assert_eq!((records.len(), rejections.len()), (1, 0));
    assert_eq!((records[0].span_name.as_deref(), records[0].metadata.len()), (None, 256));
    assert_eq!(context.policy.left_out(), 1, "the name; of the metadata no more was ever read");
    // An id is never shortened: two traces could become one.
    let headers = Headers { trace_id: some(&long), ..Headers::default() }.cut();
    let context = Context { headers, ..Context::new(now()) };
    let (records, rejections) =
        lines(SourceFormat::Portkey, b"{\"request\":1}", &context, &mut || "id".to_owned());
    assert_eq!((records.len(), &*rejections[0].field), (0, "trace_id"));
}
