//! Every shape and quirk of the clients, the splitter over every way to cut a stream, and what must not be kept.

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::record::json::MAX_RECORD_BYTES;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_278_418, 0).unwrap()
}

fn read_with(shape: Shape, text: &[u8], headers: Headers) -> (Vec<Record>, Vec<Rejection>) {
    let mut made = 0;
    let mut new_id = || {
        made += 1;
        format!("new-{made}")
    };
    lines(shape, text, &Context { headers, ..Context::new(now()) }, &mut new_id)
}

fn native(text: &str) -> (Vec<Record>, Vec<Rejection>) {
    read_with(Shape::Native, text.as_bytes(), Headers::default())
}

fn portkey_with(text: &str, headers: Headers) -> (Vec<Record>, Vec<Rejection>) {
    read_with(Shape::Portkey, text.as_bytes(), headers)
}

/// The one record of a Portkey body.
fn portkey(text: &str) -> Record {
    let (mut records, rejections) = portkey_with(text, Headers::default());
    assert_eq!((records.len(), &rejections[..]), (1, &[][..]), "{text}");
    records.remove(0)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn shapes_are_named() {
    for shape in Shape::ALL {
        assert_eq!(shape.to_string().to_uppercase().parse::<Shape>().unwrap(), shape);
    }
    let message = "otlp".parse::<Shape>().unwrap_err().to_string();
    assert_eq!(message, "`shape` is `otlp`; expected one of native, portkey");
}

#[test]
fn headers_are_read_by_name() {
    let headers = Headers::read(|name| match name {
        "x-portkey-package-version" => some("portkey-3.1.0"),
        "x-portkey-config" => some(""),
        _ => None,
    });
    assert_eq!(headers, Headers { sdk_version: some("portkey-3.1.0"), ..Headers::default() });
}

#[test]
fn good_records_are_kept_beside_bad_ones() {
    let text =
        b"{\"id\":\"a\"}\n\n{\"cost\":\"abc\"}\r\n\xff\xfe\n{}\nnonsense\n{\"id\":\"b\",\"organisation_id\":\"o\"}";
    let (records, rejections) = read_with(Shape::Native, text, Headers::default());
    let ids: Vec<_> = records.iter().map(|record| record.id.as_deref().unwrap_or_default()).collect();
    assert_eq!(ids, ["a", "new-1", "b"]);
    assert!(records.iter().all(|record| record.created_at == Some(now())));
    assert_eq!(records[0].organisation_id.as_deref(), Some(DEFAULT_ORGANISATION));
    assert_eq!(records[2].organisation_id.as_deref(), Some("o"));
    let shown: Vec<String> = rejections.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "record 1: field `cost` is `\"abc\"`; expected a number (cost in cents of `cost_currency`)",
            "record 2: field `json`: expected UTF-8 text (byte 0 of the record is not)",
            "record 4: field `json`: expected one JSON object (expected ident at line 1 column 2)",
        ]
    );
    let json = serde_json::to_string(&rejections[0]).unwrap();
    assert_eq!(
        json,
        r#"{"record":1,"field":"cost","value":"\"abc\"","expected":"a number (cost in cents of `cost_currency`)"}"#
    );
}

#[test]
fn every_container_holds_the_same_records() {
    for text in [
        "{\"id\":\"a\"}\n{\"id\":\"b\"}\n",
        "{\"id\":\"a\"}\r\n\r\n{\"id\":\"b\"}",
        "\u{feff}{\"id\":\"a\"}\n{\"id\":\"b\"}",
        "[{\"id\":\"a\"},{\"id\":\"b\"}]",
        "\u{feff} [ {\"id\":\"a\"}\n,\n{\"id\":\"b\"} , ]\n",
        "[{\"id\":\"a\"}]\n[{\"id\":\"b\"}]",
        "{\"id\":\"a\"}{\"id\":\"b\"}",
        "{\n  \"id\": \"a\"\n}\n{\n  \"id\": \"b\"\n}\n",
        "{ \"metadata\": {\n \"k\": \"}]\\\"{\" },\n\"id\":\"a\"} {\"id\":\"b\"}",
        "{\"id\":\n\"a\"}\n{\"id\":\"b\"}",
    ] {
        let (records, rejections) = native(text);
        assert_eq!(rejections, [], "{text}");
        let ids: Vec<_> = records.iter().map(|record| record.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["a", "b"], "{text}");
    }
    for empty in ["", " \n\r\n", "[]", "\u{feff}", "[ ]\n"] {
        assert_eq!(native(empty), (vec![], vec![]), "{empty:?}");
    }
}

#[test]
fn a_bad_record_takes_no_other_with_it() {
    for (text, good, bad) in [
        ("{\"id\":\"a\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n", 2, 1),
        ("{\"id\":\"a\",\n{\"id\":\"b\"}\n", 1, 1),
        ("{\"metadata\":{\n{\"id\":\"b\"}\n", 1, 1),
        ("[1,{\"id\":\"a\"},\"x,]\",null,{\"id\":\"b\"}]", 2, 3),
        ("[{\"id\":\"a\"}}, {\"id\":\"b\"}]", 2, 1),
        ("[{\"id\":\"a\"},{\"id\":\"b\"}", 2, 1),
        ("[{\"id\":\"a\"},{\"id\":", 1, 2),
        ("{\"id\":", 0, 1),
        ("}", 0, 1),
        ("1", 0, 1),
    ] {
        let (records, rejections) = native(text);
        assert_eq!((records.len(), rejections.len()), (good, bad), "{text}: {rejections:?}");
    }
    let (_, rejections) = native("[{\"id\":\"a\"},{\"id\":\"b\"}");
    assert_eq!(
        rejections[0].to_string(),
        "record 2: field `json`: expected `]` at the end of the array; the request seems to be cut off"
    );
}

fn split(pushes: &[&[u8]], limit: usize) -> (Vec<(u64, String)>, Vec<Rejection>) {
    let mut splitter = Splitter::with_limit(limit);
    let mut chunks: Vec<Chunk> = pushes.iter().map(|bytes| splitter.push(bytes)).collect();
    chunks.push(splitter.finish());
    let text = |chunk: &Chunk, range: &std::ops::Range<usize>| {
        String::from_utf8_lossy(&chunk.text[range.clone()]).trim().to_owned()
    };
    let records = chunks
        .iter()
        .flat_map(|chunk| chunk.records.iter().map(|(number, range)| (*number, text(chunk, range))))
        .collect();
    (records, chunks.into_iter().flat_map(|chunk| chunk.rejections).collect())
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    for text in [
        "\u{feff}{\"a\":\"x\\\\\"}\n\n{\"b\":[1,{}]}\r\nbad\n{\"c\":\"\\\"\"}",
        "[{\"a\":\"]}\\\\\"},\n1, \"s\\\"\" ,{\"b\":[[],{}]}]",
        "{\n\"a\":\"}\",\n\"b\":[\n{}]}\n{\"c\":\"\\\\\"}{}",
        "{\"a\": 1,\n \"b\": 2}",
        "{\"truncated\":\"\n{\"a\":1}",
    ] {
        let whole = split(&[text.as_bytes()], 1000);
        assert!(whole.0.len() > 0);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pushes = [&text.as_bytes()[..first], &text.as_bytes()[first..second], &text.as_bytes()[second..]];
                assert_eq!(split(&pushes, 1000), whole, "{text:?} cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(split(&bytes, 1000), whole, "{text:?} byte by byte");
    }
}

#[test]
fn a_record_over_the_limit_is_skipped_and_not_held() {
    let long = "x".repeat(100);
    for text in [
        format!("{{\"id\":\"{long}\"}}\n{{\"id\":\"b\"}}\n"),
        format!("[{{\"id\":\"{long}\"}},{{\"id\":\"b\"}}]"),
        format!("{{\n\"id\":\"{long}\"}}\n{{\"id\":\"b\"}}\n"),
    ] {
        let mut splitter = Splitter::with_limit(50);
        let mut numbers = Vec::new();
        let mut refused = Vec::new();
        for bytes in text.as_bytes().chunks(7) {
            let chunk = splitter.push(bytes);
            assert!(chunk.text.len() <= 57, "{}", chunk.text.len());
            numbers.extend(chunk.records.iter().map(|(number, _)| *number));
            refused.extend(chunk.rejections.iter().map(|rejection| rejection.record));
        }
        numbers.extend(splitter.finish().records.iter().map(|(number, _)| *number));
        assert_eq!((&numbers[..], &refused[..]), (&[1][..], &[0][..]), "{text}");
    }
    let mut splitter = Splitter::new();
    let rejection =
        (0..MAX_RECORD_BYTES / (1 << 20) + 1).find_map(|_| splitter.push(&vec![b'x'; 1 << 20]).rejections.pop());
    assert_eq!(rejection.unwrap().expected, "a record of at most 64 MiB");
}

#[test]
fn content_that_must_not_be_kept_is_dropped_in_every_shape() {
    let own = r#"{"id":"a","do_not_track":true,"cost":1,"metadata":{"k":"v"},"request":{"body":{"secret":1},"headers":{"a":"b"}},"response":{"body":{}}}"#;
    let record = native(own).0.remove(0);
    assert_eq!((record.request, record.response), (Message::default(), Message::default()));
    assert_eq!((record.cost, record.metadata.len()), (Some(1.0), 1));

    let off = || Headers { debug: some("False"), ..Headers::default() };
    let body = r#"{"request":{"url":"u","body":{"model":"m","secret":1}},"response":{"status":500,"body":{"error":"echo","usage":{"prompt_tokens":1,"completion_tokens":2}}}}"#;
    for (shape, text) in [(Shape::Native, r#"{"request":{"body":{"secret":1}}}"#), (Shape::Portkey, body)] {
        let record = read_with(shape, text.as_bytes(), off()).0.remove(0);
        assert_eq!(
            (record.request, record.response, record.do_not_track),
            (Message::default(), Message::default(), Some(true))
        );
    }
    let record = portkey_with(body, off()).0.remove(0);
    assert_eq!((record.ai_model, record.total_units, record.is_success), (some("m"), Some(3), Some(0)));
    let inside =
        portkey(r#"{"request":{"headers":{"X-Portkey-Debug":"false"},"body":{"secret":1}},"response":{"body":{}}}"#);
    assert_eq!((inside.request, inside.do_not_track), (Message::default(), Some(true)));
    let on = Headers { debug: some("true"), ..Headers::default() };
    assert!(portkey_with(body, on).0[0].request.body.is_some());
}

#[test]
fn a_portkey_object_becomes_a_record() {
    let record = portkey(concat!(
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
    assert_eq!((record.parent_span_id.as_deref(), record.span_name.as_deref()), (Some("hp"), Some("hn")));
    assert_eq!(record.ai_org.as_deref(), Some("anthropic"));
    assert_eq!((record.virtual_key, record.config), (some("vk"), some("pc-1")));
    assert_eq!(
        (record.runtime, record.runtime_version, record.sdk_version),
        (some("node"), some("v20"), some("portkey-3.1.0"))
    );
    assert_eq!(record.user_id.as_deref(), Some("hu"));
    let tags: Vec<(&str, &str)> = record.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, [("spanId", "s"), ("k", "header"), ("o", "own"), ("_user", "hu"), ("n", "1")]);

    let inline = Headers { config: some(r#"{"api_key":"sk"}"#), metadata: some("not json"), ..headers };
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
        let traces: Vec<_> = records.iter().map(|record| record.trace_id.as_deref().unwrap()).collect();
        assert_eq!(traces, ["new-1", "own", "new-1"], "{text}");
        assert!(records.iter().all(|record| record.internal_trace_id.as_deref() == Some("new-1")));
        assert!(records.iter().all(|record| record.span_id == record.id && record.span_name.as_deref() == Some("llm")));
        assert_eq!(rejections.iter().map(|rejection| rejection.record).collect::<Vec<_>>(), [2]);
        assert_eq!((records[2].response_status_code, records[2].is_success), (Some(404), Some(0)));
    }
}

/// Portkey's own receiver answers `ok` to all of these.
#[test]
fn what_is_no_call_gives_no_record() {
    for text in
        ["{}", "[{}]", "not json", "{\"request\":", "\"text\"", "{\"request\":null,\"response\":null}", "{\"0\":{}}"]
    {
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
        let record = portkey(&format!(r#"{{"request":{request},"response":{{"body":{{}}}}}}"#));
        assert_eq!(record.request.body.as_deref(), body, "{request}");
        let record = portkey(&format!(r#"{{"response":{request},"request":{{"body":{{}}}}}}"#));
        assert_eq!(record.response.body.as_deref(), body, "{request}");
        assert!(!format!("{record:?}").contains("secret-secret"));
    }
    let record = portkey(
        r#"{"request":"{\"url\":\"u\",\"body\":{\"model\":\"m\"}}","response":"{\"status\":429,\"body\":{}}"}"#,
    );
    assert_eq!((record.request_url, record.ai_model, record.response_status_code), (some("u"), some("m"), Some(429)));
}

#[test]
fn times_ids_and_numbers_come_in_every_type() {
    let record = |fields: &str, response: &str, metadata: &str| {
        portkey(&format!(
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
        (r#""createdAt":"2026-11-21T10:00:00.5Z","start_time":1,"#, r#""createdAt":2,"#, r#""startTime":3"#),
        (r#""created_at":1795255200500,"#, "", ""),
        ("", r#""createdAt":"2026-11-21 10:00:00.5","#, ""),
        (r#""start_time":1795255200.5,"#, "", ""),
        (r#""startTime":"1795255200.5","#, "", ""),
        ("", "", r#""startTime":1795255200500000000"#),
        (r#""createdAt":"nonsense","start_time":1795255200.5,"#, "", ""),
    ] {
        assert_eq!(record(fields, response, metadata).created_at, Some(made), "{fields} {response} {metadata}");
    }
    assert_eq!(record(r#""createdAt":"nonsense","#, "", "").created_at, Some(now()));
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
    let fallen = record(r#""parent_span_id":"None","trace_id":7,"id":8,"#, "", r#""parentSpanId":9"#);
    assert_eq!((fallen.parent_span_id, fallen.trace_id, fallen.id), (some("9"), some("7"), some("8")));
    let stream = record("", r#""streamingMode":true,"#, "");
    assert_eq!((stream.stream_mode, record("", "", "").stream_mode), (Some(true), None));
    assert_eq!(record("", "", "").response_status_code, Some(200));
}

#[test]
fn tokens_and_cost_come_from_the_output_or_the_reply() {
    for (output, body, expected) in [
        ("", r#"{"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}"#, (Some(9), Some(8), Some(17))),
        ("", r#"{"usage":{"prompt_tokens":9,"total_tokens":9}}"#, (Some(9), None, Some(9))),
        (
            "",
            r#"{"usage":{"input_tokens":5,"output_tokens":3,"cache_read_input_tokens":100,"cache_creation_input_tokens":10}}"#,
            (Some(115), Some(3), Some(118)),
        ),
        ("", r#"{"usage":{"inputTokens":5,"outputTokens":3,"totalTokens":8}}"#, (Some(5), Some(3), Some(8))),
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
        let record = portkey(&format!(r#"{{{output}"request":{{"body":{{}}}},"response":{{"body":{body}}}}}"#));
        assert_eq!((record.req_units, record.res_units, record.total_units), expected, "{output} {body}");
        assert_eq!((record.cost, record.cost_currency), (None, None), "a cost that is not known has no currency");
    }
    let cost = |cost: &str| {
        let record =
            portkey(&format!(r#"{{"output":{{"cost":{cost}}},"request":{{"body":{{}}}},"response":{{"body":{{}}}}}}"#));
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
        format!(r#"{{"request":{{"body":{{"user":"body"}}}},"response":{{"body":{{}}}},"metadata":{metadata}}}"#)
    };
    let record = portkey(&text(&format!(r#"{{"{long}":"{long}","n":1.50,"b":false,"z":null,"e":"","o":{{"a":1}}}}"#)));
    let cut = "é".repeat(128);
    let tags: Vec<(&str, &str)> = record.metadata.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, [(&*cut, &*cut), ("n", "1.50"), ("b", "false"), ("e", ""), ("o", "{\"a\":1}"), ("_user", "body")]);
    assert_eq!(record.user_id.as_deref(), Some("body"));
    assert_eq!(portkey(&text(r#"{"_user":"own"}"#)).user_id.as_deref(), Some("own"));
    assert_eq!(portkey(&text(r#""{\"_user\":\"own\"}""#)).user_id.as_deref(), Some("own"));
    assert_eq!(portkey(&text(r#"["x"]"#)).metadata, [(String::from("_user"), String::from("body"))]);
    let old = portkey(r#"{"request":{"body":{}},"response":{"body":{}},"metadata":{"user":"old"}}"#);
    assert_eq!(old.user_id.as_deref(), Some("old"));
}

proptest! {
    #[test]
    fn no_bytes_make_ingest_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\\n 10a".to_vec())], 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        for shape in Shape::ALL {
            let (records, _) = read_with(shape, &bytes, Headers::default());
            prop_assert!(records.iter().all(|record| record.id.is_some() && record.created_at.is_some()));
        }
        let cut = cut.index(bytes.len() + 1);
        prop_assert_eq!(split(&[&bytes[..cut], &bytes[cut..]], 1000), split(&[&bytes], 1000));
    }

    #[test]
    fn nasty_members_never_panic(text in any::<String>(), json in "[\\[\\]{}\",:0-9a\\\\ud8n-]{0,40}") {
        for value in [&serde_json::to_string(&text).unwrap(), &json] {
            for key in ["request", "response", "metadata", "output", "createdAt", "trace_id", "id"] {
                let item = format!(r#"{{"request":{{"body":{{}}}},"{key}":{value}}}"#);
                read_with(Shape::Portkey, item.as_bytes(), Headers { metadata: Some(text.clone()), ..Headers::default() });
            }
        }
    }
}
