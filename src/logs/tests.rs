//! Filters and labels checked against the records one at a time, pages, and the exact LogObject.

mod feedback;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::AsArray;
use datafusion::common::ParamValues;
use object_store::memory::InMemory;
use serde_json::json;
use tokio::runtime::Handle;
use url::Url;

use super::*;
use crate::config::Config;
use crate::query::NamedView;
use crate::record::{BatchBuilder, Feedback, FeedbackBuilder, Rows};
use crate::store::Store;
use crate::view::View;

/// Returns the records of the report tests, and some with values that those lack.
fn records() -> Vec<Record> {
    let fixture = include_str!("../../tests/slt/fixture.jsonl").lines();
    let mut records: Vec<Record> = fixture.map(|line| json::parse(line).unwrap()).collect();
    for (number, organisation) in [(1, "acme"), (2, "zen"), (3, "acme")] {
        let line = json!({
            "id": if number == 3 { "tied-2" } else { "tied" }, "organisation_id": organisation, "created_at": "2025-11-05T00:00:00Z",
            "span_id": format!("s-{number}"), "api_key_id": format!("k-{number}"), "workspace_slug": "w", "prompt_slug": "pp-1",
            "ai_org": "a__b", "ai_model": "c__d", "metadata": { "it's": "so", "n": "1" }, "response_status_code": 404,
        });
        records.push(json::parse(&line.to_string()).unwrap());
    }
    records
}

struct Rig {
    queries: Queries,
    query_context: QueryContext,
    records: Vec<Record>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(feedback: Vec<Feedback>) -> Self {
        let store =
            Store::with(Arc::new(InMemory::new()), Url::parse("memory:///state").unwrap()).unwrap();
        let here = Handle::current();
        let latest = include_str!("../../sql/views/feedback.sql");
        let latest = NamedView {
            name: "feedback",
            sql: latest,
            params: ParamValues::Map(Default::default()),
        };
        let queries = Queries::new(&Config::default(), &store, vec![latest], here).unwrap();
        let records = records();
        let mut builder = BatchBuilder::new();
        records.iter().for_each(|record| builder.append(record));
        let view = View { rows: Rows::Logs, files: Arc::default(), memory: vec![builder.finish()] };
        let mut builder = FeedbackBuilder::new();
        feedback.into_iter().for_each(|one| builder.append(&one));
        let feedback =
            View { rows: Rows::Feedback, files: Arc::default(), memory: vec![builder.finish()] };
        Self {
            queries,
            query_context: QueryContext { feedback: Some(feedback), ..QueryContext::from(view) },
            records,
        }
    }

    async fn page(&self, ask: &Ask) -> Page {
        list(&self.queries, self.query_context.clone(), ask).await.unwrap()
    }

    /// Checks that a filter finds exactly the expected records, and that it neither finds all nor
    /// none.
    async fn finds(&self, fields: &[(&str, &str)], wanted: impl Fn(&Record) -> bool) {
        let filter = filter(fields).unwrap();
        let ask =
            Ask { filter: filter.clone(), page_size: MAX_PAGE_SIZE, total: true, after: None };
        let page = self.page(&ask).await;
        let mut found: Vec<String> =
            page.records.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        let wanted = self.records.iter().filter(|record| wanted(record));
        let mut wanted: Vec<String> = wanted.map(|record| record.id.clone().unwrap()).collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{fields:?}");
        assert_eq!(page.total, Some(found.len() as u64));
        assert!(
            !found.is_empty() && found.len() < self.records.len(),
            "{fields:?} matches all records or none"
        );
    }
}

fn filter(fields: &[(&str, &str)]) -> Result<Filter> {
    Filter::read(|name| {
        fields.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
    })
}

fn is(value: &Option<String>, text: &str) -> bool {
    value.as_deref() == Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_finds_its_records() {
    let rig = Rig::new();
    let at = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let edge = at("2025-11-01T09:00:00.016Z");
    rig.finds(&[("time_of_generation_min", "2025-11-01T09:00:00.016Z")], |record| {
        record.created_at >= Some(edge)
    })
    .await;
    rig.finds(&[("time_of_generation_max", "2025-11-01T14:30:00.016 05:30")], |record| {
        record.created_at <= Some(edge)
    })
    .await;
    let day = at("2025-10-31T00:00:00Z");
    rig.finds(&[("time_of_generation_max", "2025-10-31")], |record| record.created_at <= Some(day))
        .await;
    rig.finds(&[("total_units_min", "121")], |record| record.total_units >= Some(121)).await;
    let most = |units: Option<i64>, most| units.is_some_and(|units| units <= most);
    rig.finds(&[("total_units_max", "50")], |record| most(record.total_units, 50)).await;
    rig.finds(&[("prompt_token_max", "40")], |record| most(record.req_units, 40)).await;
    rig.finds(&[("completion_token_min", "60")], |record| record.res_units >= Some(60)).await;
    rig.finds(&[("cost_min", "0.5"), ("cost_max", "0.5")], |record| record.cost == Some(0.5)).await;
    let code = |record: &Record, codes: &[i32]| {
        record.response_status_code.is_some_and(|code| codes.contains(&code))
    };
    rig.finds(&[("status_code", "429, 500")], |record| code(record, &[429, 500])).await;
    for (text, success) in [("true", 1), ("1", 1), ("False", 0), ("0", 0)] {
        rig.finds(&[("is_success", text)], |record| record.is_success == Some(success)).await;
    }
    rig.finds(&[("ai_model", "mistral-small,c__d")], |record| {
        is(&record.ai_model, "mistral-small") || is(&record.ai_model, "c__d")
    })
    .await;
    let pair = |record: &Record, org, model| is(&record.ai_org, org) && is(&record.ai_model, model);
    rig.finds(&[("ai_org_model", "openai__gpt-4o, anthropic__claude-sonnet-4")], |record| {
        pair(record, "openai", "gpt-4o") || pair(record, "anthropic", "claude-sonnet-4")
    })
    .await;
    rig.finds(&[("virtual_keys", "anthropic-main")], |record| {
        is(&record.virtual_key, "anthropic-main")
    })
    .await;
    rig.finds(&[("configs", "pc-retry , pc-none")], |record| is(&record.config, "pc-retry")).await;
    rig.finds(&[("prompt_slug", "pp-1")], |record| is(&record.prompt_slug, "pp-1")).await;
    rig.finds(&[("trace_id", "t-1,t-2")], |record| {
        is(&record.trace_id, "t-1") || is(&record.trace_id, "t-2")
    })
    .await;
    rig.finds(&[("span_id", "s-1")], |record| is(&record.span_id, "s-1")).await;
    rig.finds(&[("api_key_ids", "k-2")], |record| is(&record.api_key_id, "k-2")).await;
    rig.finds(&[("workspace_slug", "w")], |record| is(&record.workspace_slug, "w")).await;
    rig.finds(&[("organisation_id", "zen")], |record| is(&record.organisation_id, "zen")).await;
    rig.finds(&[("user_id", "ana")], |record| is(&record.user_id, "ana")).await;
    rig.finds(&[("metadata", r#"{"it's":"so","n":1}"#)], |record| {
        record.metadata.contains(&("n".to_owned(), "1".to_owned()))
    })
    .await;
    rig.finds(&[("metadata", r#"{"_user":"ana"}"#)], |record| is(&record.user_id, "ana")).await;
    rig.finds(&[("cache_status", "semantic_hit,REFRESH")], |record| {
        is(&record.cache_status, "SEMANTIC HIT") || is(&record.cache_status, "REFRESH")
    })
    .await;
    let disabled = |record: &Record| {
        record
            .cache_status
            .as_deref()
            .is_none_or(|status| status.is_empty() || status == "DISABLED")
    };
    rig.finds(&[("cache_status", "DISABLED")], disabled).await;
    // Filters with different names are combined with `and`.
    rig.finds(&[("configs", "pc-fallback"), ("status_code", "429")], |record| {
        is(&record.config, "pc-fallback") && code(record, &[429])
    })
    .await;
}

#[test]
fn moments_come_in_every_usual_form() {
    let moment = |text| {
        Ok::<_, Error>(filter(&[("time_of_generation_min", text)])?.time.min.unwrap().to_rfc3339())
    };
    for text in [
        "2026-11-21T23:00:00+05:30",
        "2026-11-21T23:00:00 05:30",
        "2026-11-21T17:30:00.000",
        "2026-11-21 17:30:00",
        " 2026-11-21T17:30:00z ",
        "2026-11-21T18:30:00+01",
        "2026-11-21 17:30:00,000 +0000 UTC",
        "1795282200",
        "1.7952822e9",
    ] {
        assert_eq!(moment(text).unwrap(), "2026-11-21T17:30:00+00:00", "{text}");
    }
    assert_eq!(moment("2026-11-21").unwrap(), "2026-11-21T00:00:00+00:00");
    for text in ["today", "2026-13-01", "2026-11-21T25:00:00Z", "2026", "2026-11-21T17:30:00+1"] {
        assert!(moment(text).is_err(), "{text}");
    }
}

/// Returns the labels of `sql/status.sql` by record.
async fn labels_of_sql(rig: &Rig) -> Vec<[String; 5]> {
    let text = include_str!("../../sql/status.sql");
    let names = ["from", "to", "organisation_id", "ai_model", "trace_id", "limit"];
    let utc = ScalarValue::TimestampMicrosecond(None, Some("UTC".into()));
    let values = [
        utc.clone(),
        utc,
        ScalarValue::Utf8(None),
        ScalarValue::Utf8(None),
        ScalarValue::Utf8(None),
        ScalarValue::Int64(None),
    ];
    let params = names.into_iter().map(str::to_owned).zip(values).collect();
    let batches = run(&rig.queries, rig.query_context.clone(), text, params).await.unwrap();
    let mut labels = Vec::new();
    for batch in &batches {
        let columns = ["id", "cache_label", "retry_label", "fallback_label", "loadbalance_label"]
            .map(|name| {
                let column = arrow::compute::cast(
                    batch.column_by_name(name).unwrap(),
                    &arrow::datatypes::DataType::Utf8View,
                );
                column.unwrap()
            });
        for row in 0..batch.num_rows() {
            labels.push(columns.each_ref().map(|column| {
                assert!(column.is_valid(row));
                column.as_string_view().value(row).to_owned()
            }));
        }
    }
    labels
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_equal_those_of_the_report_and_are_filters() {
    let rig = Rig::new();
    let of_sql = labels_of_sql(&rig).await;
    assert_eq!(of_sql.len(), rig.records.len());
    for record in &rig.records {
        let status = Status::from_record(record);
        let ours = [
            record.id.clone().unwrap(),
            status.cache.to_owned(),
            status.retry,
            status.fallback.to_owned(),
            status.loadbalance.to_owned(),
        ];
        assert!(of_sql.contains(&ours), "{ours:?}");
    }
    let all: std::collections::BTreeSet<&String> =
        of_sql.iter().flat_map(|row| &row[1..]).collect();
    assert!(all.len() >= 14, "{all:?}");
    for label in all {
        let spelt = label.to_lowercase().replace(' ', "_");
        for text in [label, &spelt] {
            let has = |record: &Record| {
                of_sql
                    .iter()
                    .any(|row| row[0] == *record.id.as_ref().unwrap() && row[1..].contains(label))
            };
            rig.finds(&[("status", text)], has).await;
        }
    }
    let retried = |record: &Record| Status::from_record(record).retry.starts_with("Retry Success");
    rig.finds(&[("status", "Retry Success")], retried).await;
    // Labels of one kind are combined with `or`, labels of different kinds with `and`.
    rig.finds(&[("status", "Cache Hit, Cache Semantic Hit, Fallback Disabled")], |record| {
        let status = Status::from_record(record);
        status.cache.ends_with("Hit") && status.fallback == "Fallback Disabled"
    })
    .await;
    assert!(
        filter(&[("status", "Cache")]).is_err()
            && filter(&[("status", "Retry Success on 0 Tries")]).is_err()
    );
}

#[test]
fn lists_are_of_different_values_and_bounded() {
    let read = |name: &str, of: usize, value: fn(usize) -> String| {
        filter(&[(name, &(0..of).map(value).collect::<Vec<_>>().join(","))])
    };
    assert_eq!(
        read("trace_id", 5_000, |_| "t".to_owned()).unwrap().texts,
        [("trace_id", vec!["t".to_owned()])]
    );
    assert!(read("trace_id", 1_000, |number| number.to_string()).is_ok());
    assert!(read("trace_id", 1_001, |number| number.to_string()).is_err());
    let pair = |number| format!("openai__{number}");
    assert!(read("ai_org_model", 100, pair).is_ok() && read("ai_org_model", 101, pair).is_err());
    let label = |number| format!("Retry Success on {} Tries", number + 1);
    assert!(read("status", 100, label).is_ok() && read("status", 101, label).is_err());
    let object = |keys: usize| {
        json!(
            (0..keys)
                .map(|key| (key.to_string(), "v"))
                .collect::<std::collections::BTreeMap<_, _>>()
        )
    };
    assert!(filter(&[("metadata", &object(100).to_string())]).is_ok());
    assert!(filter(&[("metadata", &object(101).to_string())]).is_err());
}

#[test]
fn invalid_filters_are_refused_by_name() {
    for (name, text) in [
        ("time_of_generation_min", "yesterday"),
        ("total_units_min", "-1"),
        ("total_units_max", "1.5"),
        ("cost_min", "NaN"),
        ("weighted_feedback_max", "11"),
        ("status_code", "4xx"),
        ("ai_org_model", "openai/gpt-4o"),
        ("ai_org_model", "__gpt-4o"),
        ("cache_status", "WARM"),
        ("metadata", "[1]"),
        ("metadata", r#"{"a":{}}"#),
        ("trace_id", ","),
    ] {
        let error = filter(&[(name, text)]).unwrap_err();
        assert!(error.message().contains(name), "{error}");
    }
    assert!(filter(&[("cost_min", "2"), ("cost_max", "1")]).is_err());
    let many = (0..1_001).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    assert!(filter(&[("trace_id", &many)]).unwrap_err().message().contains("maximum is 1000"));
    // An empty value counts as missing, since clients send it.
    assert_eq!(filter(&[("trace_id", " "), ("cost_min", "")]).unwrap(), Filter::default());
    assert!(Filter::default().condition().parts.is_empty());
}

#[test]
fn a_filter_is_read_from_an_object_too() {
    let object = json!({
        "cost_min": 0.5, "total_units_max": 7, "trace_id": ["a", "b"], "metadata": { "k": "v" }, "ai_model": null, "other": 1,
    });
    let ours = filter(&[
        ("cost_min", "0.5"),
        ("total_units_max", "7"),
        ("trace_id", "a,b"),
        ("metadata", r#"{"k":"v"}"#),
    ]);
    assert_eq!(Filter::from_object(object.as_object().unwrap()).unwrap(), ours.unwrap());
    let of = |name: &str, value: Value| {
        Filter::from_object(&[(name.to_owned(), value)].into_iter().collect())
    };
    // Clients send numbers as texts and ids as numbers. A null or empty value does not filter.
    for (name, value, text) in [
        ("cost_min", json!("0.5"), "0.5"),
        ("total_units_min", json!("7"), "7"),
        ("status_code", json!(200), "200"),
        ("status_code", json!([200, "429"]), "200,429"),
        ("trace_id", json!(7), "7"),
        ("metadata", json!("{\"k\":1}"), "{\"k\":1}"),
        ("virtual_keys", json!([]), ""),
        ("metadata", json!({}), ""),
        ("cost_max", json!(""), ""),
        ("is_success", json!(true), "true"),
        ("is_success", json!(0), "false"),
    ] {
        assert_eq!(
            of(name, value.clone()).unwrap(),
            filter(&[(name, text)]).unwrap(),
            "{name}: {value}"
        );
    }
    for (name, value, expected) in [
        ("status", json!({}), "an array of texts"),
        ("ai_model", json!(true), "an array of texts"),
        ("trace_id", json!({ "a": 1 }), "an array of texts"),
        ("trace_id", json!([["a"]]), "an array of texts"),
        ("user_id", json!([null]), "an array of texts"),
        ("status", json!(5), "labels of"),
        ("status_code", json!([4.5]), "HTTP statuses"),
        ("time_of_generation_min", json!(true), "a date"),
        ("time_of_generation_max", json!(["2026-11-21"]), "a date"),
        ("total_units_min", json!([7]), "a whole number"),
        ("cost_min", json!({}), "cents"),
        ("weighted_feedback_max", json!(false), "from -10 to 10"),
        ("metadata", json!([]), "a JSON object"),
        ("metadata", json!(5), "a JSON object"),
        ("metadata", json!({ "k": [1] }), "a text, a number"),
        ("is_success", json!(2), "true, false, 1 or 0"),
    ] {
        let refused = of(name, value.clone()).unwrap_err();
        let message = refused.message();
        let shown =
            value.get(0).or(value.get("k")).filter(|_| name.contains("code") || name == "metadata");
        let shown = shown.unwrap_or(&value).to_string();
        assert!(
            message.contains(name)
                && message.contains(&format!("`{shown}`"))
                && message.contains(expected),
            "{message}"
        );
    }
}

#[test]
fn a_filter_lists_the_columns_that_it_reads() {
    for (name, text, columns) in [
        ("time_of_generation_min", "2026-11-21", &["created_at"][..]),
        ("total_units_max", "1", &["total_units"]),
        ("prompt_token_min", "1", &["req_units"]),
        ("completion_token_min", "1", &["res_units"]),
        ("cost_min", "1", &["cost"]),
        ("status_code", "200", &["response_status_code"]),
        ("ai_org_model", "a__b", &["ai_org", "ai_model"]),
        ("virtual_keys", "a", &["virtual_key"]),
        ("user_id", "a", &["user_id"]),
        ("internal_trace_id", "a", &["internal_trace_id"]),
        ("ai_model", "a", &["ai_org", "ai_model"]),
        ("cache_status", "HIT", &["cache_status"]),
        (
            "metadata",
            r#"{"_user":"a","cost":"b"}"#,
            &["metadata.key", "metadata.value._user", "metadata.value.cost"],
        ),
        ("status", "Cache Hit", &["cache_status"]),
        ("status", "Retry Failed", &["retry_success_count", "is_success", "response_status_code"]),
        ("status", "Fallback Active", &["mode"]),
        ("is_success", "true", &["is_success"]),
        ("weighted_feedback_min", "1", &["id", "trace_id", "workspace_slug", "span_name"]),
        ("weighted_feedback_max", "1", &["id", "trace_id", "workspace_slug", "span_name"]),
    ] {
        let found = filter(&[(name, text)]).unwrap().columns();
        let found: std::collections::BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, columns.iter().copied().collect(), "{name}");
    }
}

#[test]
fn no_value_is_part_of_the_sql() {
    let evil = "x' or 1=1 --";
    let metadata = json!({ evil: evil }).to_string();
    let fields = [("trace_id", evil), ("ai_org_model", "x'__y'"), ("metadata", &metadata)];
    let condition = filter(&fields).unwrap().condition();
    assert!(!condition.clause().contains('\''), "{}", condition.clause());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_the_last_ended() {
    let rig = Rig::new();
    let mut ask = Ask { page_size: 7, ..Ask::default() };
    let mut seen = Vec::new();
    loop {
        let page = rig.page(&ask).await;
        let of = |item: &Value| {
            ["created_at", "id", "organisation_id"]
                .map(|name| item[name].as_str().unwrap().to_owned())
        };
        seen.extend(page.records.iter().map(of));
        let Some(next) = page.next else { break };
        assert_eq!(page.records.len(), 7);
        ask.after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen.len(), rig.records.len());
    let tied: Vec<(&str, &str)> = seen
        .iter()
        .take(3)
        .map(|[_, id, organisation]| (id.as_str(), organisation.as_str()))
        .collect();
    assert_eq!(tied, [("tied-2", "acme"), ("tied", "zen"), ("tied", "acme")]);
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "a record came twice");
    // A page that holds exactly the rest is the last one.
    let all = rig.records.len() as u64;
    assert_eq!(rig.page(&Ask { page_size: all, ..Ask::default() }).await.next, None);
    assert!(rig.page(&Ask { page_size: all - 1, ..Ask::default() }).await.next.is_some());
    for wrong in ["", "zz", "7b7d", "5b315d"] {
        assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_no_bodies_and_one_record_has_them() {
    let rig = Rig::new();
    let page = rig
        .page(&Ask { filter: filter(&[("trace_id", "t-faq")]).unwrap(), ..Ask::default() })
        .await;
    let item = &page.records[1];
    assert_eq!(
        (&item["id"], &item["url"], &item["object"]),
        (&json!("r01"), &json!("/logs/r01"), &json!("log"))
    );
    assert_eq!(item["status"]["cache"], "Cache Miss");
    assert!(item.get("request").is_none() && item.get("response").is_none());
    assert!(
        !listed().any(|name| name.starts_with("re") && name.ends_with("st") || name == "response")
    );

    let record = get(&rig.queries, rig.query_context.clone(), "r01", None, None).await.unwrap();
    assert_eq!(Some(&record), rig.records.first());
    let of = async |id: &str, organisation| {
        get(&rig.queries, rig.query_context.clone(), id, organisation, None).await
    };
    assert_eq!(of("tied", Some("acme")).await.unwrap().organisation_id.as_deref(), Some("acme"));
    assert_eq!(of("tied", None).await.unwrap().organisation_id.as_deref(), Some("zen"));
    let unknown = of("nothing", None).await.unwrap_err();
    let foreign = of("r01", Some("zen")).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.message()), (foreign.kind(), foreign.message()));
}

#[test]
fn a_log_object_is_portkeys_to_the_letter() {
    let line = json!({
        "id": "a b", "organisation_id": "acme", "created_at": "2026-11-21T16:26:58.758Z", "is_success": 1, "ai_org": "openai",
        "request_url": "http://h/v1/chat/completions", "request_method": "POST", "response_status_code": 200, "response_time": 61,
        "cost": 0.01125, "retry_success_count": -1, "mode": "FALLBACK", "cache_type": "SIMPLE", "cache_status": "HIT",
        "stream_mode": true, "last_used_option": "config.targets[1]", "config": "pc 1", "prompt_slug": "a,b",
        "metadata": { "_user": "u1", "k": "v" },
    });
    let mut text = line.to_string();
    text.pop();
    text.push_str(
        r#","request":{"body":{"z":1.0,"a":2,"a":3},"headers":{"accept":"*/*","X-Portkey-Trace-Id":"t"}},"response":{"body":[1]}}"#,
    );
    let record = json::parse(&text).unwrap();
    let text = object(&record, Some("Acme"), &LogFeedback::default(), &[]).unwrap();
    assert!(text.contains(r#""body":{"z":1.0,"a":2,"a":3}"#), "bodies are as they came: {text}");
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&object["_id"], &object["organisation_id"]), (&json!("a b"), &json!("acme")));
    assert_eq!(
        object["created_at"],
        "Sat Nov 21 2026 16:26:58 GMT+0000 (Coordinated Universal Time)"
    );
    assert_eq!(object["request"]["url"], "http://h/v1/chat/completions");
    assert_eq!(object["request"]["method"], "POST");
    assert_eq!(object["request"]["portkeyHeaders"], json!({ "X-Portkey-Trace-Id": "t" }));
    assert_eq!(object["request"]["headers"], json!({ "accept": "*/*", "X-Portkey-Trace-Id": "t" }));
    let response = json!({
        "status": 200, "headers": null, "body": [1], "responseTime": 61, "lastUsedOptionJsonPath": "config.targets[1]",
    });
    assert_eq!(object["response"], response);
    let metrics = &object["metrics"];
    for (name, value) in [
        ("id", json!("a b")),
        ("organisation_name", json!("Acme")),
        ("created_at", json!("2026-11-21 16:26:58.758")),
        ("is_success", json!(true)),
        ("cost", json!(0.01125)),
        ("retry_success_count", json!("-1")),
        ("mode", json!("fallback")),
        ("cache_type", json!("simple")),
        ("stream_mode", json!(1)),
        ("last_used_option_index", json!(-1)),
        ("metadata.key", json!(["_user", "k"])),
        ("metadata.value", json!(["u1", "v"])),
        ("_user", json!("u1")),
        ("req_units", json!(null)),
        ("prompt_id", json!(null)),
        ("extra_value", json!("true")),
    ] {
        assert_eq!(metrics[name], value, "{name}");
    }
    let status = json!({
        "cache": "Cache Hit", "retry": "Retry Failed", "fallback": "Fallback Active", "loadbalance": "Loadbalancer Disabled",
    });
    assert_eq!(object["status"], status);
    let links = json!({
        "own": "/logs/a%20b", "replay": "/v1/logs/a%20b/replay", "config": "/v1/logs?configs=pc+1",
        "prompt": "/v1/logs?prompt_slug=%5B%22a%2Cb%22%5D", "trace": null,
    });
    assert_eq!(object["links"], links);
    assert_eq!((&object["feedback"], &object["weighted_feedback"]), (&json!([]), &Value::Null));
}

#[test]
fn any_id_has_a_url_and_any_value_a_link() {
    for (id, own, replay) in [
        ("a/b", "/logs/a%2Fb", "/v1/logs/a%2Fb/replay"),
        ("a\tb\n", "/logs/a%09b%0A", "/v1/logs/a%09b%0A/replay"),
        ("%2F", "/logs/%252F", "/v1/logs/%252F/replay"),
        ("..", "/logs/-?id=..", "/v1/logs/-/replay?id=.."),
        (".", "/logs/-?id=.", "/v1/logs/-/replay?id=."),
        ("-", "/logs/-", "/v1/logs/-/replay"),
        ("exports", "/logs/exports", "/v1/logs/-/replay?id=exports"),
        ("otel", "/logs/otel", "/v1/logs/-/replay?id=otel"),
        ("é+", "/logs/%C3%A9%2B", "/v1/logs/%C3%A9%2B/replay"),
    ] {
        let record = Record { id: Some(id.to_owned()), ..Record::default() };
        let object: Value =
            serde_json::from_str(&object(&record, None, &LogFeedback::default(), &[]).unwrap())
                .unwrap();
        assert_eq!(
            (&object["links"]["own"], &object["links"]["replay"]),
            (&json!(own), &json!(replay)),
            "{id:?}"
        );
    }
    for (trace, link) in [
        ("a,b", "/v1/logs?trace_id=%5B%22a%2Cb%22%5D"),
        (" a", "/v1/logs?trace_id=%5B%22+a%22%5D"),
        ("[1]", "/v1/logs?trace_id=%5B%22%5B1%5D%22%5D"),
        ("a b", "/v1/logs?trace_id=a+b"),
    ] {
        let record = Record { trace_id: Some(trace.to_owned()), ..Record::default() };
        let object: Value =
            serde_json::from_str(&object(&record, None, &LogFeedback::default(), &[]).unwrap())
                .unwrap();
        assert_eq!(object["links"]["trace"], link, "{trace:?}");
        let query = link.split_once('?').unwrap().1;
        let mut fields: HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let filter = Filter::read(|name| fields.remove(name)).unwrap();
        assert_eq!(filter.texts, [("trace_id", vec![trace.to_owned()])], "{trace:?}");
    }
}

#[test]
fn a_log_object_has_every_field_of_the_specification() {
    let object: Value = serde_json::from_str(
        &object(&Record::default(), None, &LogFeedback::default(), &[]).unwrap(),
    )
    .unwrap();
    let metrics = "id, organisation_id, organisation_name, prompt_id, prompt_version_id, config_id, created_at, is_success, \
                   ai_org, ai_model, req_units, res_units, total_units, cost, cost_currency, request_url, request_method, \
                   response_status_code, response_time, is_proxy_call, cache_status, cache_type, stream_mode, \
                   retry_success_count, trace_id, span_id, span_name, parent_span_id, mode, virtual_key, source, runtime, \
                   runtime_version, sdk_version, config, internal_trace_id, last_used_option_index, config_version_id, \
                   prompt_slug, workspace_slug, log_store_file_path_format, metadata.key, metadata.value, api_key_id, \
                   request_parsing_time, pre_processing_time, cache_processing_time, response_parsing_time, \
                   gateway_processing_time, upstream_response_time";
    for name in metrics.split(", ") {
        assert!(object["metrics"].get(name).is_some(), "{name}");
    }
    assert_eq!(object["request"]["portkeyHeaders"], json!({}));
    assert_eq!(object["request"]["body"], Value::Null);
}
