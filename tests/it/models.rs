//! One model under one name in reports, and truth values beside the stored 1 and 0.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use futures::TryStreamExt;
use gatelog::{Engine, Params, Record};
use serde_json::json;

use crate::engine::{config, record};

async fn batches(answer: gatelog::Answer) -> Vec<RecordBatch> {
    answer.batches.try_collect().await.unwrap()
}

#[tokio::test]
async fn one_model_has_one_row_however_it_is_spelled() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let call = |id: &str, model: &str, cost: f64| Record {
        ai_org: Some("openai".to_owned()),
        ai_model: Some(model.to_owned()),
        total_units: Some(10),
        cost: Some(cost),
        ..record(id)
    };
    let records = vec![
        call("a", "gpt-4o", 1.0),
        call("b", "gpt-4o-2024-08-06", 2.0),
        call("c", "openai/gpt-4o", 4.0),
        call("d", "gpt-4o", 8.0),
        call("e", "gpt-4o-mini", 16.0),
    ];
    engine.append(records).await.unwrap();
    let said = "gpt-4o, gpt-4o-2024-08-06, openai/gpt-4o";
    for (asked, names, calls, cents) in [
        ("gpt-4o", said, 4, 15.0),
        ("openai/gpt-4o", "openai/gpt-4o", 1, 4.0),
        ("gpt-4o-mini", "gpt-4o-mini", 1, 16.0),
    ] {
        let params = Params::from([("ai_model".to_owned(), json!(asked))]);
        let rows = batches(engine.report("spend_by_model", &params).await.unwrap()).await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "{asked}");
        let column = |name: &str| rows[0].column_by_name(name).unwrap();
        let text = |name: &str| {
            let column =
                arrow::compute::cast(column(name), &arrow::datatypes::DataType::Utf8).unwrap();
            column.as_string::<i32>().value(0).to_owned()
        };
        assert_eq!(
            (text("model"), text("ai_model")),
            (asked.replace("openai/", ""), names.to_owned())
        );
        assert_eq!(column("records").as_primitive::<Int64Type>().value(0), calls);
        assert_eq!(column("cost_cents").as_primitive::<Float64Type>().value(0), cents);
    }
    for report in ["latency", "cache", "errors", "status", "status_counts", "feedback_by_model"] {
        let answer = engine.report(report, &Params::new()).await.unwrap();
        let model = answer.schema.index_of("model").unwrap();
        assert_eq!(answer.schema.field(model + 1).name(), "ai_model", "{report}");
    }
    let latency = batches(engine.report("latency", &Params::new()).await.unwrap()).await;
    assert_eq!(latency.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_bound_truth_value_compares_with_is_success() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(&folder)).await.unwrap();
    let outcome = |id: &str, is_success| Record { is_success, ..record(id) };
    engine
        .append(vec![outcome("a", Some(1)), outcome("b", Some(0)), outcome("c", None)])
        .await
        .unwrap();
    let ids = async |query: &str, params: Params| {
        let rows = batches(engine.sql(query, &params).await.unwrap()).await;
        let ids = rows.iter().flat_map(|batch| batch.column(0).as_string_view().iter().flatten());
        ids.map(str::to_owned).collect::<Vec<_>>().join("")
    };
    let query = |condition: &str| format!("select id from logs where {condition} order by id");
    for (value, found) in
        [(json!(true), "a"), (json!(false), "b"), (json!(1), "a"), (json!(0), "b")]
    {
        let named = Params::from([("ok".to_owned(), value.clone())]);
        assert_eq!(ids(&query("is_success = $ok"), named.clone()).await, found, "{value}");
        assert_eq!(
            ids(&query("$ok = logs.is_success and id <> 'x'"), named).await,
            found,
            "{value}"
        );
        let placed = Params::from([("1".to_owned(), value.clone())]);
        assert_eq!(ids(&query("is_success = $1"), placed).await, found, "{value}");
    }
    let value = Params::from([("ok".to_owned(), json!(false))]);
    assert_eq!(ids(&query("is_success is distinct from $ok"), value).await, "ac");
    assert_eq!(ids(&query("is_success is not false"), Params::new()).await, "ac");
    assert_eq!(ids("select id from logs where is_success order by id", Params::new()).await, "a");
    let columns = Some(vec!["id".to_owned(), "is_success".to_owned()]);
    let request = gatelog::ExportRequest { columns, ..gatelog::ExportRequest::default() };
    let lines: Vec<_> = engine.export(&request).await.unwrap().try_collect().await.unwrap();
    let text = String::from_utf8(lines.concat()).unwrap();
    assert!(
        text.starts_with("{\"id\":\"a\",\"is_success\":1}\n{\"id\":\"b\",\"is_success\":0}\n"),
        "{text}"
    );
    engine.close().await.unwrap();
}
