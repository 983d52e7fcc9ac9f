//! The JSON form: every spelling that is read, every refusal, and the round trip.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray,
    StringViewArray, StructArray,
};
use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::record::{BatchBuilder, COLUMNS, Kind, Message, Record};

fn batch(records: &[Record]) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    records.iter().for_each(|record| builder.append(record));
    builder.finish()
}

fn encode(columns: Option<&[&str]>, batch: &RecordBatch) -> String {
    let columns: Option<Vec<String>> =
        columns.map(|names| names.iter().map(ToString::to_string).collect());
    let mut out = Vec::new();
    Encoder::new(columns.as_deref()).unwrap().encode(batch, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Returns the native line of a parsed text.
fn again(text: &str) -> String {
    encode(None, &batch(&[parse(text).unwrap()])).trim_end().to_owned()
}

#[test]
fn the_native_form_has_every_column_in_the_order_of_the_table() {
    let line = concat!(
        r#"{"id":"1","organisation_id":"o","workspace_slug":"w","created_at":"2026-11-21T16:26:58.758Z","is_success":1,"#,
        r#""ai_org":"openai","ai_model":"gpt-4o","req_units":9,"res_units":8,"total_units":17,"cost":0.01125,"#,
        r#""cost_currency":"USD","request_url":"https://a.b/c","request_method":"POST","response_status_code":200,"#,
        r#""response_time":61,"time_to_last_token":70,"upstream_response_time":43,"cache_status":"SEMANTIC HIT","#,
        r#""cache_type":"SEMANTIC","stream_mode":true,"retry_success_count":-1,"mode":"FALLBACK","#,
        r#""last_used_option":"config.targets[1]","virtual_key":"vk","config":"pc-1","prompt_slug":"pp-1","#,
        r#""prompt_version_id":"3","runtime":"node","runtime_version":"v20","sdk_version":"portkey-3.1.0","#,
        r#""trace_id":"t","span_id":"s","parent_span_id":"p","span_name":"llm","internal_trace_id":"it","user_id":"u1","#,
        r#""api_key_id":"k","source":"api","do_not_track":false,"metadata":{"_user":"u1","a\"b":"é\u0000\n"},"#,
        r#""request":{"body":{"model":"gpt-4o","n":1.0,"n":1e2,"x":"\ud83d"},"headers":{"a":"b"}},"response":{"body":[1, 2]}}"#,
    );
    assert_eq!(again(line), line);
    let keys: Vec<String> =
        members(line).unwrap().into_iter().map(|(key, _)| key.into_owned()).collect();
    assert_eq!(keys, COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>());
    assert_eq!(
        parse(line).unwrap().request.body.as_deref(),
        Some(r#"{"model":"gpt-4o","n":1.0,"n":1e2,"x":"\ud83d"}"#)
    );
}

#[test]
fn every_spelling_of_a_value_becomes_the_one_form() {
    for (text, line) in [
        ("{}", "{}"),
        (" {\"id\":\"\"}\r\n", "{}"),
        (r#"{"id":12345678901234567890}"#, r#"{"id":"12345678901234567890"}"#),
        (r#"{"id":"a","id":"b"}"#, r#"{"id":"b"}"#),
        (r#"{"\u0069d":"\u0061\/"}"#, r#"{"id":"a/"}"#),
        (
            r#"{"id":null,"cost":null,"request":null,"metadata":null,"stream_mode":null,"created_at":null}"#,
            "{}",
        ),
        (r#"{"trace_id":""}"#, r#"{"trace_id":""}"#),
        (r#"{"trace_id":"cut \ud83d"}"#, "{\"trace_id\":\"cut \u{fffd}\"}"),
        (
            r#"{"mode":"fallback","cache_status":"semantic hit","cache_type":"simple"}"#,
            r#"{"cache_status":"SEMANTIC HIT","cache_type":"SIMPLE","mode":"FALLBACK"}"#,
        ),
        (r#"{"is_success":true}"#, r#"{"is_success":1}"#),
        (r#"{"is_success":"0"}"#, r#"{"is_success":0}"#),
        (r#"{"stream_mode":"TRUE"}"#, r#"{"stream_mode":true}"#),
        (r#"{"stream_mode":0}"#, r#"{"stream_mode":false}"#),
        (r#"{"stream_mode":"","cost":"","req_units":" "}"#, "{}"),
        (
            r#"{"retry_success_count":"-1","response_time":"0123","req_units":1e3,"res_units":12.0}"#,
            r#"{"req_units":1000,"res_units":12,"total_units":1012,"response_time":123,"retry_success_count":-1}"#,
        ),
        (
            r#"{"req_units":9223372036854775807,"res_units":1}"#,
            r#"{"req_units":9223372036854775807,"res_units":1}"#,
        ),
        (r#"{"cost":"0.01125"}"#, r#"{"cost":0.01125}"#),
        (r#"{"cost":1}"#, r#"{"cost":1.0}"#),
        (r#"{"cost":1E-7}"#, r#"{"cost":1e-7}"#),
        (r#"{"response_status_code":246}"#, r#"{"is_success":1,"response_status_code":246}"#),
        (r#"{"response_status_code":446}"#, r#"{"is_success":0,"response_status_code":446}"#),
        (
            r#"{"response_status_code":500,"is_success":1}"#,
            r#"{"is_success":1,"response_status_code":500}"#,
        ),
        (r#"{"created_at":1795278418758}"#, r#"{"created_at":"2026-11-21T16:26:58.758Z"}"#),
        (r#"{"created_at":"2026-11-21"}"#, r#"{"created_at":"2026-11-21T00:00:00.000Z"}"#),
        (r#"{"retention_days":30,"date":{"a":[1]}}"#, "{}"),
        (
            r#"{"request.body":{"a":1},"response.headers":{"b":"c"}}"#,
            r#"{"request":{"body":{"a":1}},"response":{"headers":{"b":"c"}}}"#,
        ),
        (r#"{"request":{"headers":{},"body":null}}"#, r#"{"request":{"headers":{}}}"#),
        (
            r#"{"request":{"body":"{\"a\":1}"},"response":{"body":7}}"#,
            r#"{"request":{"body":"{\"a\":1}"},"response":{"body":7}}"#,
        ),
        (
            "{\"request\":{\"body\":{\r\n  \"a\": [ 1,\t\"x y\\n\" ]\n}}}",
            r#"{"request":{"body":{"a":[1,"x y\n"]}}}"#,
        ),
        (r#"{"request":{"body":{ "a" : 1 }}}"#, r#"{"request":{"body":{ "a" : 1 }}}"#),
        (
            r#"{"metadata":{"a":1,"b":true,"c":null,"d":{"e":[1]},"a":"2","_user":"u"}}"#,
            r#"{"user_id":"u","metadata":{"a":"2","b":"true","d":"{\"e\":[1]}","_user":"u"}}"#,
        ),
        (
            r#"{"user_id":"own","metadata":{"_user":"u"}}"#,
            r#"{"user_id":"own","metadata":{"_user":"u"}}"#,
        ),
        (
            r#"{"metadata.key":["_user",2,"n"],"metadata.value":["u","x",null]}"#,
            r#"{"user_id":"u","metadata":{"_user":"u","2":"x"}}"#,
        ),
        (r#"{"metadata.key":[],"metadata.value":null,"metadata":{}}"#, "{}"),
        (
            r#"{"metadata.value":["u"],"metadata":{"a":"b"},"metadata.key":["a"]}"#,
            r#"{"metadata":{"a":"u"}}"#,
        ),
    ] {
        assert_eq!(again(text), line, "{text}");
        assert_eq!(again(line), line, "{text}");
    }
}

#[test]
fn a_refusal_names_field_value_and_what_was_expected() {
    for (text, field, value, expected) in [
        (r#"{"cost":"abc"}"#, "cost", "\"abc\"", "a number (cost in cents"),
        (r#"{"cost":1e999}"#, "cost", "1e999", "a number"),
        (r#"{"cost":"inf"}"#, "cost", "\"inf\"", "a number"),
        (r#"{"cost":[1]}"#, "cost", "[1]", "a number"),
        (r#"{"req_units":1.5}"#, "req_units", "1.5", "a whole number of 64 bits"),
        (
            r#"{"req_units":9223372036854775808}"#,
            "req_units",
            "9223372036854775808",
            "a whole number of 64 bits",
        ),
        (
            r#"{"response_status_code":3000000000}"#,
            "response_status_code",
            "3000000000",
            "of 32 bits",
        ),
        (r#"{"is_success":2}"#, "is_success", "2", "1, 0, true or false"),
        (r#"{"stream_mode":"yes"}"#, "stream_mode", "\"yes\"", "true or false"),
        (r#"{"id":true}"#, "id", "true", "a text"),
        (r#"{"ai_model":{"a":1}}"#, "ai_model", "{\"a\":1}", "a text"),
        (
            r#"{"created_at":"soon"}"#,
            "created_at",
            "\"soon\"",
            "a time such as 2026-11-21T16:26:58.758Z",
        ),
        (r#"{"created_at":true}"#, "created_at", "true", "a time"),
        (r#"{"metadata":"private"}"#, "metadata", "", "an object of texts"),
        (r#"{"metadata":["private"]}"#, "metadata", "", "an object of texts"),
        (r#"{"metadata.key":"private"}"#, "metadata.key", "", "an array of texts"),
        (
            r#"{"metadata.key":["a"],"metadata.value":[]}"#,
            "metadata.value",
            "0 elements",
            "as many elements as `metadata.key`, 1",
        ),
        (r#"{"request":"private"}"#, "request", "", "an object whose only members"),
        (r#"{"request":[{}]}"#, "request", "", "an object whose only members"),
        (
            r#"{"request":{"body":{},"url":"private"}}"#,
            "request.url",
            "",
            "an object whose only members",
        ),
        (r#"{"request":{"headers":["private"]}}"#, "request.headers", "", "an object of texts"),
        (r#"{"request.url":"private"}"#, "request.url", "", "`request_url`"),
        (
            r#"{"ai_modell":"private"}"#,
            "ai_modell",
            "",
            "a column; the nearest names are `ai_model`",
        ),
        (r#"{"":1}"#, "", "", "a column"),
        (r#"["private"]"#, "json", "", "one JSON object"),
        (r#""private""#, "json", "", "one JSON object"),
        ("", "json", "", "one JSON object (EOF while parsing a value"),
        ("{} {}", "json", "", "one JSON object on a line (trailing characters at column 4"),
        (r#"{"id":"1""#, "json", "", "one JSON object (EOF while parsing an object"),
        (r#"{"id":"1",}"#, "json", "", "one JSON object (trailing comma"),
        (r#"{"request":{"body":{"a":private}}}"#, "json", "", "one JSON object (expected value"),
        ("{\"request\":{\"body\":\"a\nb\"}}", "json", "", "one JSON object (control character"),
        ("\u{feff}{}", "json", "", "one JSON object (expected value"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((&*error.field, &*error.value), (field, value), "{text}");
        assert!(error.expected.contains(expected), "{text}: {}", error.expected);
        assert!(!error.to_string().contains("private"), "{error}");
    }
    let long = parse(&format!(r#"{{"cost":"{}"}}"#, "é".repeat(100))).unwrap_err();
    assert_eq!(long.value.chars().count(), 60);
    let shown = FieldError::new("cost", "abc", "a number (cents)").to_string();
    assert_eq!(shown, "field `cost` is `abc`; expected a number (cents)");
}

#[test]
fn nasty_texts_are_refused_or_read_but_never_panic() {
    let deep = |levels| {
        format!(r#"{{"request":{{"body":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    assert!(parse(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(parse(&deep(MAX_DEPTH + 1)).unwrap_err().field, "request.body");
    assert_eq!(parse(&deep(1_000_000)).unwrap_err().expected, "at most 120 levels of nesting");
    let deepest: serde_json::Value = serde_json::from_str(&again(&deep(MAX_DEPTH))).unwrap();
    assert!(deepest.is_object(), "other readers take the deepest line too");
    assert!(parse(&"[".repeat(1_000_000)).is_err());
    assert!(parse(&r#"{"a":"#.repeat(1_000_000)).is_err());
    assert!(
        parse(&format!("{{\"request\":{{\"body\":\"{}\"}}}}", "[".repeat(1000))).is_ok(),
        "brackets in strings"
    );
    let large = format!(r#"{{"request":{{"body":"{}"}}}}"#, "x".repeat(MAX_RECORD_BYTES));
    assert_eq!(
        parse(&large).unwrap_err().expected,
        "a record of at most 64 MiB (`max_record_bytes`)"
    );
    let keys: String = (0..100_000).map(|key| format!("\"k{}\":\"v\",", key % 90_000)).collect();
    assert_eq!(
        parse(&format!(r#"{{"metadata":{{{keys}"z":"v"}}}}"#)).unwrap().metadata.len(),
        90_001
    );

    let whole = again(
        r#"{"id":"é\u0000","created_at":1795278418758,"cost":1e3,"metadata":{"k":"\ud83d\ude00"},"request":{"body":[{}]}}"#,
    );
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        assert!(parse(&whole[..end]).is_err());
    }
    for number in
        ["-", "1.", "01", "1e", "--1", "+1", "0x1", "NaN", "Infinity", ".5", &"9".repeat(100_000)]
    {
        for column in ["cost", "req_units", "created_at", "is_success", "stream_mode"] {
            let read = parse(&format!(r#"{{"{column}":{number}}}"#));
            assert!(read.is_err(), "{column} {:.20}", number);
        }
    }
}

#[test]
fn named_columns_come_in_that_order_with_null_where_there_is_nothing() {
    let full = parse(concat!(
        r#"{"id":"1","created_at":"2026-11-21T16:26:58.758123Z","stream_mode":false,"cost":0.5,"#,
        r#""request":{"body":{"a":1},"headers":{"h":"x"}},"metadata":{"k":"v","l":"w"}}"#
    ));
    let batch = batch(&[full.unwrap(), Record::default()]);
    let names = [
        "response",
        "request",
        "metadata",
        "metadata.value",
        "metadata.key",
        "stream_mode",
        "date",
        "retention_days",
        "cost",
        "request.headers",
        "response.body",
        "created_at",
        "is_success",
        "request.body",
    ];
    let expected = concat!(
        r#"{"response":null,"request":{"body":{"a":1},"headers":{"h":"x"}},"metadata":{"k":"v","l":"w"},"metadata.value":["v","w"],"#,
        r#""metadata.key":["k","l"],"stream_mode":false,"date":"2026-11-21","retention_days":0,"cost":0.5,"request.headers":{"h":"x"},"#,
        r#""response.body":null,"created_at":"2026-11-21T16:26:58.758123Z","is_success":null,"request.body":{"a":1}}"#,
        "\n",
        r#"{"response":null,"request":null,"metadata":null,"metadata.value":null,"metadata.key":null,"stream_mode":null,"date":null,"#,
        r#""retention_days":0,"cost":null,"request.headers":null,"response.body":null,"created_at":null,"is_success":null,"request.body":null}"#,
        "\n",
    );
    assert_eq!(encode(Some(&names), &batch), expected);
    for line in expected.lines() {
        parse(line).unwrap();
    }
}

#[test]
fn the_projection_names_only_the_leaves_that_are_needed() {
    let projection = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Encoder::new(Some(&names)).unwrap().projection()
    };
    assert_eq!(projection(&["request.body", "id"]), ["request.body", "id"]);
    assert_eq!(
        projection(&["request", "request.body", "metadata.key", "metadata"]),
        ["request.body", "request.headers", "metadata"]
    );
    let whole = Encoder::new(None).unwrap().projection();
    assert_eq!(whole.len(), COLUMNS.len() + 2);
    assert!(
        whole.contains(&"response.headers".to_owned()) && !whole.contains(&"response".to_owned())
    );
}

#[test]
fn wrong_column_names_are_refused_with_the_nearest_ones() {
    let refused = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Encoder::new(Some(&names)).unwrap_err().message().to_owned()
    };
    for (names, near) in [
        (&["cost", "costs"][..], "did you mean `cost` or"),
        (&["metadata.user"], "did you mean `metadata.key`"),
        (&["request.url"], "did you mean `request_url`"),
        (&["cost.body"], "did you mean `cost`"),
        (&[""], "`gatelog guide schema` lists the columns"),
    ] {
        let message = refused(names);
        assert!(
            message.contains(&format!("column `{}` is unknown", names[names.len() - 1])),
            "{message}"
        );
        assert!(message.contains(near), "{message}");
    }
    assert!(refused(&["id", "cost", "id"]).starts_with("column `id` is named twice"));
    assert!(refused(&[]).starts_with("no column is named"));
}

/// Batches from SQL have other text types, message parts as separate columns, null structs, and
/// NaN.
#[test]
fn batches_of_other_types_are_encoded_alike() {
    let own =
        batch(&[parse(r#"{"id":"1","request":{"body":{"a":1}}}"#).unwrap(), Record::default()]);
    let leaf: ArrayRef = Arc::new(StringArray::from(vec![Some(r#"{"a":1}"#), None]));
    let other = RecordBatch::try_from_iter_with_nullable([
        ("request.body", leaf, true),
        ("id", Arc::new(StringArray::from(vec![Some("1"), None])) as ArrayRef, true),
    ]);
    assert_eq!(
        encode(Some(&["id", "request.body"]), &other.unwrap()),
        encode(Some(&["id", "request.body"]), &own)
    );

    let DataType::Struct(fields) = Kind::Message.data_type() else { unreachable!() };
    let bodies: ArrayRef = Arc::new(StringViewArray::from(vec!["1", "2"]));
    let headers: ArrayRef = Arc::new(StringViewArray::from(vec![None::<&str>, None]));
    let message = StructArray::new(fields, vec![bodies, headers], Some(vec![true, false].into()));
    let nulls = RecordBatch::try_from_iter_with_nullable([(
        "request",
        Arc::new(message) as ArrayRef,
        true,
    )])
    .unwrap();
    assert_eq!(
        encode(Some(&["request.body"]), &nulls),
        "{\"request.body\":1}\n{\"request.body\":null}\n"
    );
    assert_eq!(encode(Some(&["request"]), &nulls.slice(1, 1)), "{\"request\":null}\n");

    let costs: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -0.0, 1e21, f64::INFINITY]));
    let costs = RecordBatch::try_from_iter_with_nullable([("cost", costs, true)]).unwrap();
    assert_eq!(
        encode(Some(&["cost"]), &costs),
        "{\"cost\":null}\n{\"cost\":-0.0}\n{\"cost\":1e+21}\n{\"cost\":null}\n"
    );

    let encoder = Encoder::new(Some(&["id".to_owned()])).unwrap();
    assert!(
        encoder.encode(&costs, &mut Vec::new()).unwrap_err().message().contains("no column `id`")
    );
    let wrong: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    let wrong = RecordBatch::try_from_iter([("created_at", wrong)]).unwrap();
    let encoder = Encoder::new(Some(&["created_at".to_owned()])).unwrap();
    assert!(
        encoder.encode(&wrong, &mut Vec::new()).unwrap_err().message().contains("has type Boolean")
    );
}

#[test]
fn a_slice_of_a_batch_encodes_its_own_rows() {
    let records: Vec<Record> = (0..5)
        .map(|id| parse(&format!(r#"{{"id":"{id}","metadata":{{"k":"{id}"}}}}"#)).unwrap())
        .collect();
    let batch = batch(&records);
    let lines = encode(None, &batch);
    assert_eq!(
        encode(None, &batch.slice(3, 2)),
        lines.lines().skip(3).map(|line| format!("{line}\n")).collect::<String>()
    );
    assert_eq!(batch.column(0).as_string_view().len(), 5);
}

fn json_value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\ud83d \u0000\/""#.to_owned()),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|list| format!("[{}]", list.join(" , "))),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|pairs| {
                let pairs = pairs
                    .iter()
                    .map(|(key, value)| format!("{}:{value}", serde_json::to_string(key).unwrap()));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn message() -> impl Strategy<Value = Message> {
    let body = prop::option::of(json_value().prop_filter("null is none", |json| json != "null"));
    let headers = prop::option::of(any::<String>().prop_map(|text| embeddable(&text).into_owned()));
    let headers = headers.prop_map(|text| text.filter(|text| text.starts_with(['{', '"'])));
    (body, headers).prop_map(|(body, headers)| Message { body, headers })
}

prop_compose! {
    fn record()(
        texts in prop::collection::vec(prop::option::of(any::<String>()), 12),
        upper in prop::option::of("[A-Z ]{0,12}"),
        ints in prop::collection::vec(prop::option::of(any::<i64>()), 6),
        shorts in prop::collection::vec(prop::option::of(any::<i32>()), 2),
        cost in prop::option::of(any::<f64>().prop_filter("finite", |number| number.is_finite())),
        bools in prop::collection::vec(prop::option::of(any::<bool>()), 3),
        micros in prop::option::of(-62_167_219_200_000_000i64..253_402_300_800_000_000),
        metadata in prop::collection::hash_map(any::<String>(), any::<String>(), 0..5),
        request in message(),
        response in message(),
    ) -> Record {
        let text = |place: usize| texts[place].clone();
        let mut record = Record {
            id: text(0).filter(|id| !id.is_empty()), organisation_id: text(1), ai_org: text(2), ai_model: text(3),
            request_url: text(4), last_used_option: text(5), trace_id: text(6), span_name: text(7),
            user_id: text(8),
            sdk_version: text(9), config: text(10), api_key_id: text(11),
            mode: upper.clone(), cache_status: upper.clone(), cache_type: upper,
            req_units: ints[0], res_units: ints[1], total_units: ints[2], response_time: ints[3],
            time_to_last_token: ints[4], upstream_response_time: ints[5],
            response_status_code: shorts[0], retry_success_count: shorts[1], cost,
            is_success: bools[0].map(i32::from), stream_mode: bools[1], do_not_track: bools[2],
            created_at: micros.and_then(DateTime::<Utc>::from_timestamp_micros),
            metadata: metadata.into_iter().collect(), request, response,
            ..Record::default()
        };
        derive(&mut record);
        record
    }
}

proptest! {
    #[test]
    fn records_survive_arrow_and_json(records in prop::collection::vec(record(), 1..4)) {
        let batch = batch(&records);
        prop_assert_eq!(&Record::from_batch(&batch).unwrap(), &records);
        let lines = encode(None, &batch);
        let read: Vec<Record> = lines.lines().map(|line| parse(line).unwrap()).collect();
        prop_assert_eq!(&read, &records);
        let all: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        let full: Vec<Record> = encode(Some(&all), &batch).lines().map(|line| parse(line).unwrap()).collect();
        prop_assert_eq!(&full, &records);
        for line in lines.lines() {
            prop_assert_eq!(again(line), line);
            prop_assert!(check_json(line));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(
        text in any::<String>(),
        at in any::<prop::sample::Index>(),
        record in record(),
    ) {
        drop(parse(&text));
        drop(embeddable(&text));
        drop(parse(&format!("{{\"id\":{text}}}")));
        let mut line = encode(None, &batch(&[record]));
        let place = at.index(line.len());
        if line.is_char_boundary(place) {
            line.insert_str(place, &text);
            drop(parse(&line));
        }
    }

    #[test]
    fn embedded_values_are_one_line_of_json(json in json_value(), text in any::<String>()) {
        prop_assert_eq!(&*embeddable(&json), &*json);
        for text in [&text, &json.replace(' ', "\n")] {
            let embedded = embeddable(text);
            prop_assert!(check_json(&embedded));
            prop_assert!(!embedded.contains(['\n', '\r']));
        }
    }
}
