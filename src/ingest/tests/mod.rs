//! Tests of properties of every format, of the splitter for every way to cut a stream, and of
//! content that must not be stored.

mod callbacks;
mod control_plane;
mod linear;
mod money;
mod odd;
mod otlp;
mod portkey;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::record::Message;

/// Returns a recording of a real gateway from the folder in `GATELOG_TEST_CAPTURES`, if that is
/// set.
fn captured(name: &str) -> Option<String> {
    let folder = std::env::var_os("GATELOG_TEST_CAPTURES")?;
    Some(std::fs::read_to_string(std::path::Path::new(&folder).join(name)).unwrap())
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_278_418, 0).unwrap()
}

fn read_with(shape: SourceFormat, text: &[u8], headers: Headers) -> (Vec<Record>, Vec<Rejection>) {
    let mut made = 0;
    let mut new_id = || {
        made += 1;
        format!("new-{made}")
    };
    lines(shape, text, &Context { headers, ..Context::new(now()) }, &mut new_id)
}

fn native(text: &str) -> (Vec<Record>, Vec<Rejection>) {
    read_with(SourceFormat::Native, text.as_bytes(), Headers::default())
}

fn portkey_with(text: &str, headers: Headers) -> (Vec<Record>, Vec<Rejection>) {
    read_with(SourceFormat::Portkey, text.as_bytes(), headers)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn shapes_are_named() {
    for shape in SourceFormat::ALL {
        assert_eq!(shape.to_string().to_uppercase().parse::<SourceFormat>().unwrap(), shape);
    }
    let message = "syslog".parse::<SourceFormat>().unwrap_err().to_string();
    assert_eq!(
        message,
        "`source` is `syslog`; expected one of native, portkey, litellm, gateway-hook, otlp"
    );
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
    let (records, rejections) = read_with(SourceFormat::Native, text, Headers::default());
    let ids: Vec<_> =
        records.iter().map(|record| record.id.as_deref().unwrap_or_default()).collect();
    assert_eq!(ids, ["a", "new-1", "b"]);
    assert!(records.iter().all(|record| record.created_at == Some(now())));
    assert_eq!(records[0].organisation_id.as_deref(), Some(DEFAULT_ORGANISATION));
    assert_eq!(records[2].organisation_id.as_deref(), Some("o"));
    let shown: Vec<String> = rejections.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "line 3 (record 1): field `cost` is `\"abc\"`; expected a number (cost in cents of `cost_currency`)",
            "line 4 (record 2): field `json`: expected UTF-8 text (byte 0 of the record is not)",
            "line 6 (record 4): field `json`: expected one JSON object (expected ident at column 2)",
        ]
    );
    let json = serde_json::to_string(&rejections[0]).unwrap();
    assert_eq!(
        json,
        r#"{"record":1,"line":3,"field":"cost","value":"\"abc\"","expected":"a number (cost in cents of `cost_currency`)","excerpt":"{\"cost\":\"abc\"}"}"#
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
        "line 1 (record 2): field `json`: expected `]` at the end of the array; the request seems to be cut off"
    );
}

#[test]
fn a_time_that_no_call_can_have_refuses_its_record_alone_in_every_shape() {
    let shapes = [
        (SourceFormat::Native, "created_at", r#"{"id":"ID","created_at":TIME}"#),
        (
            SourceFormat::Portkey,
            "createdAt",
            r#"{"id":"ID","request":{"body":{}},"createdAt":TIME}"#,
        ),
        (
            SourceFormat::Portkey,
            "start_time",
            r#"{"id":"ID","request":{"body":{}},"start_time":TIME}"#,
        ),
        (SourceFormat::LiteLlm, "startTime", r#"{"id":"ID","model":"m","startTime":TIME}"#),
    ];
    for (shape, field, form) in shapes {
        let bad = [
            r#""0001-01-01T00:00:00Z""#,
            r#""9999-12-31 00:00:00""#,
            r#""2026-13-45""#,
            "12",
            "[1]",
        ];
        let good =
            ["1795278418", r#""1970-01-01""#, r#""2261-12-31T23:59:59.999999Z""#, "null", "\"\""];
        let line = |(number, time): (usize, &&str)| {
            form.replace("ID", &number.to_string()).replace("TIME", time)
        };
        let lines: Vec<String> = bad.iter().chain(&good).enumerate().map(line).collect();
        let (records, rejections) =
            read_with(shape, lines.join("\n").as_bytes(), Headers::default());
        assert_eq!(
            (records.len(), rejections.len()),
            (good.len(), bad.len()),
            "{shape}: {rejections:?}"
        );
        assert!(rejections.iter().all(|refused| refused.field == field), "{shape}: {rejections:?}");
        for (refused, year) in rejections.iter().zip(["0001", "9999"]) {
            assert!(
                refused.value.contains(year) && refused.expected.contains("1970 to 2261"),
                "{shape}: {refused}"
            );
        }
    }
    // A value that is not a time may be anything, and metadata belongs to the caller. Clients write
    // these values if there is no time.
    let (_, refused) =
        portkey_with(r#"{"request":{},"createdAt":"my secret"}"#, Headers::default());
    assert_eq!((refused.len(), &*refused[0].value), (1, ""));
    let own = r#"{"request":{},"createdAt":0,"start_time":"None","metadata":{"startTime":"dawn"}}"#;
    assert_eq!(portkey::one(own).created_at, Some(now()));
}

#[test]
fn negative_counts_are_refused_in_our_form_and_null_in_others() {
    for field in ["req_units", "total_units", "response_time", "time_to_last_token", "cost"] {
        let lines =
            ["-1", "0", "1e400"].map(|number| format!("{{\"{field}\":{number}}}")).join("\n");
        let (records, rejections) = native(&lines);
        assert_eq!((records.len(), rejections.len()), (1, 2), "{field}");
        assert_eq!((&*rejections[0].field, &*rejections[0].value), (field, "-1"));
    }
    assert_eq!(
        native(r#"{"retry_success_count":-1}"#).0[0].retry_success_count,
        Some(-1),
        "all of them failed"
    );
    let portkey = portkey::one(
        r#"{"request":{},"response":{"response_time":-5,"body":{"usage":{"prompt_tokens":-9,"completion_tokens":8}}},
            "output":{"cost":{"cost":-1}}}"#,
    );
    assert_eq!((portkey.req_units, portkey.res_units, portkey.total_units), (None, Some(8), None));
    assert_eq!((portkey.response_time, portkey.cost), (None, None));
    let litellm = r#"{"model":"m","prompt_tokens":-9,"completion_tokens":8,"response_cost":-0.5,"response_time":-1}"#;
    let (records, _) = read_with(SourceFormat::LiteLlm, litellm.as_bytes(), Headers::default());
    assert_eq!(
        (records[0].req_units, records[0].res_units, records[0].cost),
        (None, Some(8), None)
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
        "{\"a\":1}\n{\"b\":\"}{\"}{\"c\":[{}]} \t{\"d\":2}x\n{}",
    ] {
        let whole = split(&[text.as_bytes()], 1000);
        assert!(!whole.0.is_empty());
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pushes = [
                    &text.as_bytes()[..first],
                    &text.as_bytes()[first..second],
                    &text.as_bytes()[second..],
                ];
                assert_eq!(split(&pushes, 1000), whole, "{text:?} cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(split(&bytes, 1000), whole, "{text:?} byte by byte");
    }
}

#[test]
fn records_on_one_line_are_read_each_alone() {
    let text = "{\"id\":\"a\"}{\"id\":\"b\"}\n{\"id\":\"c\"} \t {\"cost\":\"much\"} {\"id\":\"d\"}\r\n\
                {\"id\":\"e}{\",\"request\":{\"body\":[{},{\"k\":\"} {\"}]}}\n{\"id\":\"f\"}{\"id\":\"torn\n{\"id\":\"g\"}";
    for shape in [SourceFormat::Native, SourceFormat::Portkey, SourceFormat::LiteLlm] {
        let (records, rejections) = read_with(shape, text.as_bytes(), Headers::default());
        assert_eq!(records.len() + rejections.len(), 9, "{shape}: {rejections:?}");
    }
    let (records, rejections) = native(text);
    let ids: Vec<_> = records.iter().map(|record| record.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e}{", "f", "g"]);
    let found: Vec<_> =
        rejections.iter().map(|refused| (refused.record, refused.line, &*refused.field)).collect();
    assert_eq!(found, [(3, Some(2), "cost"), (7, Some(4), "json")]);
    // A line over the limit is refused as a whole, regardless of the pieces in which it arrives.
    let line = b"{\"a\":1}{\"b\":2}\n";
    assert_eq!(split(&[line], 20).0.len(), 2);
    for pushes in [vec![&line[..]], line.chunks(4).collect()] {
        let (records, refused) = split(&pushes, 10);
        assert_eq!((records.len(), refused.len()), (0, 1), "{refused:?}");
    }
    // Text after a record is rejected with its place.
    let (_, rejections) = native("{\"id\":\"a\"} and more\n{}");
    let expected = "expected one JSON object on a line (trailing characters at column 12 belong on a line of their own)";
    assert!(rejections[0].to_string().ends_with(expected), "{}", rejections[0]);
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
        let (records, rejections) = split(&[text.as_bytes()], 50);
        assert_eq!((records.len(), records[0].0), (1, 1), "{text} in one push");
        assert_eq!(
            rejections[0].to_string(),
            "line 1 (record 0): field `json`: expected a record of at most 50 bytes (`max_record_bytes`)"
        );
    }
}

#[test]
fn a_rejection_names_the_line_that_its_record_begins_in_in_every_container() {
    let lines = |text: &[u8], size: usize| {
        let mut splitter = Splitter::with_limit(50);
        let context = Context::new(now());
        let mut new_id = || "new".to_owned();
        let fragments: Vec<_> = text.chunks(size).collect();
        let pushed: Vec<_> = fragments.iter().map(|fragment| splitter.push(fragment)).collect();
        let chunks = pushed.into_iter().chain([splitter.finish()]);
        let refused = chunks.flat_map(|chunk| {
            read(SourceFormat::Native, &chunk, &context, &mut new_id, &mut |_| {})
        });
        let found = |refused: Rejection| (refused.record, refused.line.unwrap());
        refused.map(found).collect::<Vec<_>>()
    };
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(60));
    for (text, bad) in [
        ("{}\n\n{\"a\":1}\r\n{}\nx\n".to_owned(), &[(1, 3), (3, 5)][..]),
        ("[{},\n{},\n\n{\"a\":\n1},{\"b\":1}]".to_owned(), &[(2, 4), (3, 5)]),
        ("{\n\"id\":\"a\"\n}\n{\n\"b\":1\n}\n{\"c\":1}".to_owned(), &[(1, 4), (2, 7)]),
        (format!("{{}}\n{long}\n{{\"a\":1}}\n"), &[(1, 2), (2, 3)]),
        (format!("[{{}},\n{long},\n{{\"a\":1}}]"), &[(1, 2), (2, 3)]),
        ("[{},\n{}\n\n".to_owned(), &[(2, 4)]),
    ] {
        for size in [1, 3, 7, 1_000] {
            assert_eq!(lines(text.as_bytes(), size), bad, "{text} in pieces of {size}");
        }
    }
}

#[test]
fn lines_of_rejections_are_counted_once_however_many_there_are() {
    // Counting from the start for each record would read 2 x 10^10 bytes.
    let text = "x\n".repeat(100_000);
    let mut splitter = Splitter::new();
    let chunk = splitter.push(text.as_bytes());
    let refused =
        read(SourceFormat::Native, &chunk, &Context::new(now()), &mut String::new, &mut |_| {});
    assert_eq!((refused.len(), refused.last().unwrap().line), (100_000, Some(100_000)));
}

#[test]
fn an_excerpt_is_masked_and_absent_for_untracked_calls() {
    let (_, rejections) = native(
        "{\"cost\":\"abc\",\"request\":{\"headers\":{\"authorization\":\"Bearer sk-1234567890\"}}}",
    );
    let excerpt = rejections[0].excerpt().unwrap();
    assert!(
        excerpt.contains("\"cost\":\"abc\"") && !excerpt.contains("sk-1234567890"),
        "{excerpt}"
    );
    let (_, rejections) = native("{\"cost\":\"abc\",\"do_not_track\":true}");
    assert_eq!(rejections[0].excerpt(), None);
    assert!(!serde_json::to_string(&rejections[0]).unwrap().contains("excerpt"));
}

#[test]
fn content_that_must_not_be_kept_is_dropped_in_every_shape() {
    let own = r#"{"id":"a","do_not_track":true,"cost":1,"metadata":{"k":"v"},"request":{"body":{"secret":1},"headers":{"a":"b"}},"response":{"body":{}}}"#;
    let record = native(own).0.remove(0);
    assert_eq!((record.request, record.response), (Message::default(), Message::default()));
    assert_eq!((record.cost, record.metadata.len()), (Some(1.0), 1));

    let off = || Headers { debug: some("False"), ..Headers::default() };
    let body = r#"{"request":{"url":"u","body":{"model":"m","secret":1}},"response":{"status":500,"body":{"error":"echo","usage":{"prompt_tokens":1,"completion_tokens":2}}}}"#;
    for (shape, text) in [
        (SourceFormat::Native, r#"{"request":{"body":{"secret":1}}}"#),
        (SourceFormat::Portkey, body),
    ] {
        let record = read_with(shape, text.as_bytes(), off()).0.remove(0);
        assert_eq!(
            (record.request, record.response, record.do_not_track),
            (Message::default(), Message::default(), Some(true))
        );
    }
    let record = portkey_with(body, off()).0.remove(0);
    assert_eq!(
        (record.ai_model, record.total_units, record.is_success),
        (some("m"), Some(3), Some(0))
    );
    let inside = portkey::one(
        r#"{"request":{"headers":{"X-Portkey-Debug":"false"},"body":{"secret":1}},"response":{"body":{}}}"#,
    );
    assert_eq!((inside.request, inside.do_not_track), (Message::default(), Some(true)));
    let on = Headers { debug: some("true"), ..Headers::default() };
    assert!(portkey_with(body, on).0[0].request.body.is_some());
}

proptest! {
    #[test]
    fn no_bytes_make_ingest_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\\n 10a".to_vec())], 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        for shape in SourceFormat::ALL {
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
                let headers = Headers { metadata: Some(text.clone()), ..Headers::default() };
                read_with(SourceFormat::Portkey, item.as_bytes(), headers);
            }
        }
    }
}
