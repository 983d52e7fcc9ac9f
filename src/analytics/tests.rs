//! Checks the files against the tables of graphs and groups, the statements for injection and
//! speed, and the formats of responses.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::json;

use super::graphs::GRAPHS;
use super::groups::GROUPS;
use super::shape::Row;
use super::time_range::TimeRange;
use super::*;
use crate::error::ErrorKind;
use crate::reports::ColumnKind;

const FRAME: [(&str, &str); 2] =
    [("time_of_generation_min", "2026-11-01"), ("time_of_generation_max", "2026-11-02T12:00:00Z")];

/// Every filter, with values that would be harmful as SQL.
const EVERY_FILTER: [(&str, &str); 25] = [
    ("total_units_min", "1"),
    ("total_units_max", "900000"),
    ("cost_min", "0.5"),
    ("cost_max", "1e3"),
    ("prompt_token_min", "1"),
    ("prompt_token_max", "9"),
    ("completion_token_min", "1"),
    ("completion_token_max", "9"),
    ("weighted_feedback_min", "-10"),
    ("weighted_feedback_max", "9.5"),
    ("status_code", "401, 403"),
    ("ai_org_model", "openai__gpt-3.5-turbo, evil'); drop__x__y"),
    ("ai_model", "evil') or true --"),
    ("virtual_keys", "evil', main"),
    ("configs", "pc-1,evil\""),
    ("prompt_slug", "evil$x"),
    ("api_key_ids", "evil;"),
    ("trace_id", "t-1 , evil"),
    ("span_id", "evil"),
    ("cache_status", "hit, Semantic Miss,DISABLED"),
    ("metadata", r#"{"_user":"evil'","evil') --":7,"on":true}"#),
    ("workspace_slug", "evil"),
    ("organisation_id", "evil"),
    ("user_id", "evil"),
    ("status", "cache hit, Fallback Active"),
];

fn parse(given: &[(&str, &str)]) -> Result<AnalyticsRequest> {
    AnalyticsRequest::parse(
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    )
}

fn asked(given: &[(&str, &str)]) -> AnalyticsRequest {
    parse(&[&FRAME, given].concat()).unwrap()
}

#[track_caller]
fn refused(given: &[(&str, &str)], words: &str) {
    let error = parse(&[&FRAME, given].concat()).unwrap_err();
    assert!(error.message().contains(words), "{error} does not contain {words}");
}

fn every_query(given: &[(&str, &str)]) -> Vec<Query> {
    let graphs = GRAPHS.iter().map(|graph| Query::graph(graph.paths[0], asked(given)).unwrap());
    let groups = GROUPS.iter().map(|group| Query::group(group.path, asked(given)).unwrap());
    graphs.chain(groups).chain([Query::cache_summary(asked(given))]).collect()
}

/// Creates tables without rows.
async fn session() -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let logs = MemTable::try_new(crate::record::schema(), vec![vec![]]).unwrap();
    context.register_table("logs", Arc::new(logs)).unwrap();
    context.register_udf(ScalarUDF::clone(&crate::query::canonical_model()));
    let feedback = "create table feedback (organisation_id text, workspace_slug text, trace_id text, log_id text, value double, weight double)";
    context.sql(feedback).await.unwrap().collect().await.unwrap();
    context
}

async fn planned(context: &SessionContext, query: &Query) -> LogicalPlan {
    let sql = query.sql();
    let plan = context
        .state()
        .create_logical_plan(&sql)
        .await
        .unwrap_or_else(|cause| panic!("{cause}\n{sql}"));
    plan.with_param_values(query.params()).unwrap()
}

/// Returns the columns of a table that a plan reads.
fn reads(plan: &LogicalPlan, table: &str) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() == table
        {
            columns.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    columns
}

#[test]
fn every_file_is_used_and_every_header_is_well_formed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/analytics");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            format!("analytics/{}", entry.unwrap().path().file_stem().unwrap().to_string_lossy())
        })
        .collect();
    let graphs = GRAPHS.iter().map(|graph| graph.file);
    let used: Vec<_> = graphs
        .chain(GROUPS.iter().map(|group| group.file))
        .chain([CALLS, RATINGS, RATED, RATED_ONCE, CACHE_SUMMARY])
        .collect();
    assert_eq!(files, used.iter().map(|(name, _)| (*name).to_owned()).collect());
    for file in used {
        let report = header(file).unwrap();
        assert!(report.columns.iter().all(|column| !column.doc.is_empty()), "{}", file.0);
        assert!(
            file.1.lines().all(|line| line.chars().count() <= 120),
            "{}: a line is too long",
            file.0
        );
        assert!(
            file.0 == "analytics/calls" || report.params.is_empty(),
            "{}: values come in by `calls`",
            file.0
        );
    }
}

#[test]
fn both_sdks_find_their_graphs() {
    let python = [
        "requests",
        "cost",
        "latency",
        "tokens",
        "users",
        "users/requests",
        "errors",
        "errors/rate",
        "errors/stacks",
        "errors/status-codes",
        "requests/rescued",
        "cache/hit-rate",
        "cache/latency",
        "feedbacks",
        "feedbacks/scores",
        "feedbacks/weighted",
        "feedbacks/ai-models",
    ];
    let node = [
        "users-requests",
        "errors-rate",
        "errors-stack",
        "errors-status-code",
        "requests-rescued",
        "cache-hit-rate",
        "cache-latency",
        "feedbacks/score",
    ];
    assert_eq!(GRAPHS.iter().map(|graph| graph.paths[0]).collect::<Vec<_>>(), python);
    for path in python.into_iter().chain(node) {
        assert_eq!(GRAPHS.iter().filter(|graph| graph.paths.contains(&path)).count(), 1, "{path}");
    }
    assert_eq!(
        GRAPHS.iter().map(|graph| graph.paths.len()).sum::<usize>(),
        python.len() + node.len()
    );
    let error = Query::graph("costs", asked(&[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.message().starts_with("graph `costs` does not exist; did you mean `cost`"),
        "{error}"
    );
    for path in ["metadata", "metadata/", "teams", ""] {
        let error = Query::group(path, asked(&[])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("metadata/KEY"), "{error}");
    }
}

#[tokio::test]
async fn every_statement_runs_with_every_filter() {
    let context = session().await;
    for given in [&[][..], &EVERY_FILTER[..]] {
        for query in every_query(given) {
            let plan = planned(&context, &query).await;
            let batches =
                context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
            query.json(&batches).unwrap();
        }
    }
}

#[tokio::test]
async fn declared_columns_are_those_of_the_answer() {
    let context = session().await;
    for query in every_query(&[]) {
        if let AnswerShape::Group(_) = query.answer {
            continue;
        }
        let frame = context.execute_logical_plan(planned(&context, &query).await).await.unwrap();
        let columns = frame
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), family(field.data_type())));
        let declared = header(query.file).unwrap().columns;
        let mut declared: Vec<_> =
            declared.iter().map(|column| (column.name.to_owned(), column.kind)).collect();
        // A file with only figures is completed for each bucket and for the whole time frame.
        if matches!(query.answer, AnswerShape::Graph(_))
            && declared.iter().all(|(name, _)| name != "whole")
        {
            let added = [("whole", ColumnKind::Integer), ("bucket", ColumnKind::Timestamp)];
            declared.splice(0..0, added.map(|(name, kind)| (name.to_owned(), kind)));
        }
        assert_eq!(columns.collect::<Vec<_>>(), declared, "{}", query.file.0);
    }
    // A request may select any column of a group's file, so this selects all.
    for group in &GROUPS {
        let declared = header(group.file).unwrap().columns;
        let names: Vec<&str> = declared.iter().skip(1).map(|column| column.name).collect();
        let query = Query::group(group.path, asked(&[("columns", &names.join(", "))])).unwrap();
        let frame = context.execute_logical_plan(planned(&context, &query).await).await.unwrap();
        for (field, column) in frame.schema().fields().iter().zip(&declared) {
            let key_of_code = group.path == "status_code" && column.name == "group_key";
            let kind = if key_of_code { ColumnKind::Integer } else { column.kind };
            assert_eq!(
                (field.name().as_str(), family(field.data_type())),
                (column.name, kind),
                "{}",
                group.path
            );
        }
        assert_eq!(frame.schema().fields().last().unwrap().name(), groups::TOTAL);
    }
}

fn family(data_type: &DataType) -> ColumnKind {
    match data_type {
        DataType::Utf8 | DataType::Utf8View => ColumnKind::Text,
        DataType::Int32 | DataType::Int64 => ColumnKind::Integer,
        DataType::Float64 => ColumnKind::Float,
        DataType::Timestamp(_, Some(zone)) if zone.as_ref() == "UTC" => ColumnKind::Timestamp,
        other => panic!("analytics must not answer with {other}"),
    }
}

#[test]
fn no_text_of_a_request_is_in_a_statement() {
    for query in every_query(&EVERY_FILTER) {
        let sql = query.sql();
        assert!(!sql.contains("evil") && !sql.contains("2026"), "{sql}");
    }
    let query = Query::group("metadata/evil' or 1=1", asked(&[])).unwrap();
    assert!(!query.sql().contains("evil"));
    for (name, value) in
        [("order_by", "requests; drop"), ("order_by_type", "asc, 1"), ("columns", "cost, id")]
    {
        let error = Query::group("model", asked(&[(name, value)])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().starts_with(&format!("parameter `{name}` is `")), "{error}");
    }
}

#[tokio::test]
async fn filters_become_comparisons_that_prune() {
    let context = session().await;
    let given = [
        ("virtual_keys", "a, b"),
        ("status_code", "401,403"),
        ("cost_min", "2"),
        ("ai_org_model", "openai__gpt-4o"),
        ("metadata", r#"{"team":"search"}"#),
    ];
    for query in every_query(&given) {
        let plan = context.state().optimize(&planned(&context, &query).await).unwrap();
        let text = plan.display_indent().to_string();
        for part in [
            "logs.created_at >= TimestampMicrosecond(1793491200000000, Some(\"UTC\"))",
            "logs.created_at <= TimestampMicrosecond(1793620800000000, Some(\"UTC\"))",
            "logs.virtual_key = Utf8View(\"a\") OR logs.virtual_key = Utf8View(\"b\")",
            "logs.response_status_code = Int32(401) OR logs.response_status_code = Int32(403)",
            "logs.cost >= Float64(2)",
            "logs.ai_org = Utf8View(\"openai\")",
            "logs.ai_model = Utf8View(\"gpt-4o\")",
            "Utf8(\"team\")",
        ] {
            assert!(text.contains(part), "{}: no {part} in\n{text}", query.file.0);
        }
    }
}

#[tokio::test]
async fn a_statement_reads_once_and_no_more_than_it_needs() {
    let context = session().await;
    let expected: [(&str, &[&str]); 9] = [
        ("requests", &["created_at"]),
        ("cost", &["created_at", "cache_status", "cost", "cost_currency"]),
        ("latency", &["created_at", "response_time"]),
        ("tokens", &["created_at", "total_units"]),
        ("users", &["created_at", "user_id"]),
        ("errors", &["created_at", "is_success", "response_status_code"]),
        ("cache/latency", &["created_at", "cache_status", "response_time"]),
        (
            "requests/rescued",
            &[
                "created_at",
                "organisation_id",
                "internal_trace_id",
                "is_success",
                "response_status_code",
                "retry_success_count",
                "mode",
                "last_used_option",
            ],
        ),
        (
            "feedbacks",
            &["created_at", "organisation_id", "workspace_slug", "trace_id", "id", "span_name"],
        ),
    ];
    for (path, columns) in expected {
        let plan = planned(&context, &Query::graph(path, asked(&[])).unwrap()).await;
        let plan = context.state().optimize(&plan).unwrap();
        assert_eq!(
            reads(&plan, "logs"),
            columns.iter().map(|name| (*name).to_owned()).collect(),
            "{path}"
        );
    }
    for query in every_query(&[]) {
        let plan = context.state().optimize(&planned(&context, &query).await).unwrap();
        let text = plan.display_indent().to_string();
        // The failures before a rescued call are separate records, and the feedback on a group's
        // calls is summed separately.
        let twice =
            ["analytics/requests_rescued", "analytics/group_metadata"].contains(&query.file.0);
        let scans = if twice { 2 } else { 1 };
        assert_eq!(text.matches("TableScan: logs").count(), scans, "{}:\n{text}", query.file.0);
        let read = reads(&plan, "logs");
        assert!(
            !read.contains("request") && !read.contains("response"),
            "{}: {read:?}",
            query.file.0
        );
    }
    // Columns that are not requested are not computed.
    let plan = planned(&context, &Query::group("model", asked(&[])).unwrap()).await;
    let plan = context.state().optimize(&plan).unwrap();
    assert_eq!(
        reads(&plan, "logs"),
        ["created_at", "ai_org", "ai_model"].map(str::to_owned).into()
    );
}

#[test]
fn an_invalid_value_is_refused() {
    // `logs` tests the other errors of filters.
    refused(&[("total_units_min", "many")], "`total_units_min` is `many`; expected a whole number");
    refused(&[("metadata", r#"{"team":["a"]}"#)], "`metadata.team` is `[\"a\"]`; expected a text");
    let [from, to] = FRAME;
    for (given, words) in [
        (&[from][..], "parameter `time_of_generation_max` is missing"),
        (&[to][..], "parameter `time_of_generation_min` is missing"),
        (&[from, ("time_of_generation_max", "")][..], "`time_of_generation_max` is missing"),
        (
            &[from, ("time_of_generation_max", "soon")][..],
            "`time_of_generation_max` is `soon`; expected a date",
        ),
        (
            &[from, ("time_of_generation_max", "2026-10-31")][..],
            "`time_of_generation_min` is 2026-11-01",
        ),
    ] {
        let error = parse(given).unwrap_err();
        assert!(error.message().contains(words), "{error} does not contain {words}");
    }
    for (name, value) in
        [("page_size", "0"), ("page_size", "10001"), ("current_page", "-1"), ("page_size", "all")]
    {
        let error = Query::group("users", asked(&[(name, value)])).unwrap_err();
        assert!(
            error.message().contains(&format!("parameter `{name}` is `{value}`; expected a whole")),
            "{error}"
        );
    }
}

#[test]
fn parameters_of_the_sdks_are_known_and_unknown_ones_are_named() {
    let sent = [
        ("current_page", "0"),
        ("page_size", "20"),
        ("order_by", "cost"),
        ("order_by_type", "ASC"),
        ("columns", "cost"),
        ("include_total", "True"),
    ];
    assert!(asked(&sent).ignored.is_empty());
    assert!(asked(&EVERY_FILTER).ignored.is_empty());
    let query =
        Query::graph("requests", asked(&[("virtual_key", "main"), ("status_code", "")])).unwrap();
    assert_eq!(query.json(&[]).unwrap()["ignored_parameters"], json!(["virtual_key"]));
    assert!(
        Query::graph("requests", asked(&[]))
            .unwrap()
            .json(&[])
            .unwrap()
            .get("ignored_parameters")
            .is_none()
    );
}

fn at(text: &str) -> DateTime<Utc> {
    asked(&[("time_of_generation_min", text), ("time_of_generation_max", "9999-12-31")]).frame.from
}

#[test]
fn the_span_decides_how_wide_a_bucket_is() {
    for (from, to, width, buckets) in [
        ("2026-11-21T10:00:30Z", "2026-11-21T13:00:30Z", "minute", 181),
        ("2026-11-21T10:00:00Z", "2026-11-21T13:00:01Z", "hour", 4),
        ("2026-11-21T00:00:00Z", "2026-11-28T00:00:00Z", "hour", 169),
        ("2026-11-21T00:00:00Z", "2026-11-28T00:00:01Z", "day", 8),
        ("2026-01-01", "2026-12-31T23:59:59.999Z", "day", 365),
        // A Thursday to a Wednesday: the first week begins on the Monday before.
        ("2026-01-01", "2027-11-24", "week", 100),
        ("2016-02-29", "2026-02-28", "month", 121),
        ("1970-01-01", "2026-11-21", "year", 57),
        ("0000-01-01", "9999-12-31", "year", 10_000),
        ("1969-12-31T23:59:30Z", "1970-01-01T00:00:30Z", "minute", 2),
        ("2026-11-21", "2026-11-21", "minute", 1),
    ] {
        let frame = TimeRange { from: at(from), to: at(to) };
        assert_eq!(
            (frame.width().word(), frame.buckets().count()),
            (width, buckets),
            "{from} to {to}"
        );
        let starts: Vec<_> = frame.buckets().collect();
        assert!(
            starts[0] <= frame.from && starts.is_sorted() && *starts.last().unwrap() <= frame.to
        );
    }
    let frame = TimeRange { from: at("2026-01-01"), to: at("2027-11-24") };
    assert_eq!(frame.buckets().next(), Some(at("2025-12-29")));
}

fn row(value: Value) -> Row {
    serde_json::from_value(value).unwrap()
}

#[test]
fn buckets_without_calls_are_zeros_nulls_and_sums_carried_on() {
    let frame = TimeRange { from: at("2026-11-21T10:00:00Z"), to: at("2026-11-21T14:00:00Z") };
    let graph = graphs::find("cache-hit-rate").unwrap();
    let part = |hour: &str, hits: i64, saved: f64| {
        row(json!({
            "whole": 0, "bucket": format!("2026-11-21T{hour}:00:00.000Z"), "total": hits, "simple_hits": hits,
            "semantic_hits": 0, "rate": 50.0, "cumulative_simple_cache_savings": saved,
            "cumulative_semantic_cache_savings": 0.0,
        }))
    };
    let whole = row(json!({ "whole": 1, "bucket": null, "total": 5, "rate": 50.0 }));
    let answer = shape::graph(
        graph,
        &frame,
        &[part("11", 2, 1.5), part("13", 3, 4.0), whole],
        &Figures::new(),
    );
    assert_eq!((&answer["object"], &answer["bucket"]), (&json!("analytics-graph"), &json!("hour")));
    assert_eq!(answer["summary"], json!({ "total": 5, "rate": 50.0 }));
    let points = answer["data_points"].as_array().unwrap();
    let of = |name: &str| points.iter().map(|point| point[name].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("timestamp")[..2],
        [json!("2026-11-21T10:00:00.000Z"), json!("2026-11-21T11:00:00.000Z")]
    );
    assert_eq!(of("simple_hits"), [json!(0), json!(2), json!(0), json!(3), json!(0)]);
    assert_eq!(of("rate"), [json!(null), json!(50.0), json!(null), json!(50.0), json!(null)]);
    assert_eq!(
        of("cumulative_simple_cache_savings"),
        [json!(0), json!(1.5), json!(1.5), json!(4.0), json!(4.0)]
    );
    assert_eq!(points[0].as_object().unwrap().len(), 6);
}

#[test]
fn lists_in_buckets_hold_the_counts() {
    let frame = TimeRange { from: at("2026-11-21T10:00:00Z"), to: at("2026-11-21T13:30:00Z") };
    let part = |hour: &str, retries: Option<i64>, count: i64| {
        let bucket = format!("2026-11-21T{hour}:00:00.000Z");
        row(
            json!({ "whole": 0, "bucket": bucket, "retry_success_count": retries, "count": count, "fallback": 2 }),
        )
    };
    let whole = row(
        json!({ "whole": 1, "bucket": null, "retry_success_count": null, "count": 5, "fallback": 4 }),
    );
    let rows = [
        part("10", None, 0),
        part("12", Some(1), 4),
        part("12", Some(3), 1),
        part("12", None, 0),
        whole,
    ];
    let answer =
        shape::graph(graphs::find("requests/rescued").unwrap(), &frame, &rows, &Figures::new());
    assert_eq!(answer["summary"], json!({ "retry": 5, "fallback": 4 }));
    let retries =
        json!([{ "retry_success_count": 1, "count": 4 }, { "retry_success_count": 3, "count": 1 }]);
    assert_eq!(
        answer["data_points"],
        json!([
            { "timestamp": "2026-11-21T10:00:00.000Z", "retry": [], "fallback": 2 },
            { "timestamp": "2026-11-21T11:00:00.000Z", "retry": [], "fallback": 0 },
            { "timestamp": "2026-11-21T12:00:00.000Z", "retry": retries, "fallback": 2 },
            { "timestamp": "2026-11-21T13:00:00.000Z", "retry": [], "fallback": 0 },
        ])
    );
}

#[test]
fn groups_have_a_page_an_order_and_columns() {
    let query = Query::group("model", asked(&[])).unwrap();
    assert!(query.sql().ends_with(
        "order by \"requests\" desc nulls last, \"group_key\" limit $page_size offset $page_start"
    ));
    assert!(query.first_page().is_none());
    let given = [
        ("current_page", "2"),
        ("page_size", "30"),
        ("order_by", "model"),
        ("order_by_type", "asc"),
        ("columns", "cost, cost, p95_latency"),
    ];
    let query = Query::group("model", asked(&given)).unwrap();
    let sql = query.sql();
    assert!(
        sql.contains(
            "select \"group_key\", \"requests\", \"cost\", \"p95_latency\", count(*) over ()"
        ),
        "{sql}"
    );
    assert!(sql.contains("order by \"group_key\" asc"), "{sql}");
    let value = |query: &Query, name: &str| {
        query.params().get_placeholders_with_values(name).unwrap().value
    };
    assert_eq!(
        (value(&query, "$page_size"), value(&query, "$page_start")),
        (30_i64.into(), 60_i64.into())
    );
    let first = query.first_page().unwrap();
    assert_eq!(
        (value(&first, "$page_size"), value(&first, "$page_start")),
        (1_i64.into(), 0_i64.into())
    );

    let rows = vec![row(json!({ "user": "ana", "requests": 7, "cost": 0.25, "groups": 9 }))];
    let Query { answer: AnswerShape::Group(listing), .. } =
        Query::group("users", asked(&[])).unwrap()
    else {
        panic!("a group");
    };
    assert_eq!(
        listing.json(rows),
        json!({
            "object": "list",
            "total": 9,
            "data": [{ "user": "ana", "requests": "7", "cost": "0.25", "object": "analytics-group" }],
        })
    );
}

/// Creates a table of feedback beside calls: two calls of one trace, and one of a trace with the
/// same name in another organisation. One call has feedback of its own, as does one without a
/// trace.
async fn rated() -> SessionContext {
    let context = SessionContext::new();
    context.register_udf(ScalarUDF::clone(&crate::query::canonical_model()));
    for table in [
        "create table logs as select arrow_cast(column1, 'Timestamp(Microsecond, Some(\"UTC\"))') as created_at, \
         column2 as organisation_id, column3 as trace_id, 'openai' as ai_org, column4 as ai_model, 1 as is_success, \
         200 as response_status_code, 'MISS' as cache_status, 'USD' as cost_currency, 0.5 as cost, 10 as total_units, \
         map(['team'], [column5]) as metadata, column6 as id, 's' as workspace_slug, column7 as span_name \
         from (values ('2026-11-01T10:00:00Z', 'acme', 't', 'a', 'x', 'a1', 'llm'), \
         ('2026-11-01T12:00:00Z', 'acme', 't', 'b', 'y', 'a2', null), \
         ('2026-11-02T10:00:00Z', 'zen', 't', 'a', 'x', 'z1', null), \
         ('2026-11-02T11:00:00Z', 'zen', null, 'a', 'x', 'z2', null))",
        "create table feedback as select column1 as organisation_id, column2 as trace_id, column3 as log_id, \
         column4 as value, column5 as weight, cast(null as text) as workspace_slug from (values ('acme', 't', null, 8.0, 1.0), \
         ('acme', 't', null, 2.0, 0.5), ('zen', 't', null, -4.0, 1.0), ('zen', 'other', null, 10.0, 1.0), \
         ('acme', 't', 'a2', -10.0, 0.5), ('zen', null, 'z2', 2.0, 0.0), ('acme', null, 'z2', 10.0, 1.0), \
         ('zen', 'z2', null, 10.0, 1.0), ('zen', 't', 'a2', 10.0, 1.0))",
    ] {
        context.sql(table).await.unwrap().collect().await.unwrap();
    }
    context
}

#[tokio::test]
async fn feedback_counts_once_a_trace_or_log_of_its_own_organisation() {
    let context = rated().await;
    let answer = async |query: Query| {
        let plan = planned(&context, &query).await;
        query
            .json(&context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap())
            .unwrap()
    };
    let graph = |path: &str| answer(Query::graph(path, asked(&[])).unwrap());
    let feedbacks = graph("feedbacks").await;
    assert_eq!((&feedbacks["summary"]["total"], &feedbacks["bucket"]), (&json!(5), &json!("hour")));
    let points = feedbacks["data_points"].as_array().unwrap();
    let totals = points.iter().enumerate().map(|(at, point)| (at, &point["total"]));
    let totals = totals.filter(|(_, total)| *total != &json!(0));
    // Feedback on the trace counts in the hour of its first call, feedback on one call in the hour
    // of that call.
    assert_eq!(
        totals.collect::<Vec<_>>(),
        [(10, &json!(2)), (12, &json!(1)), (34, &json!(1)), (35, &json!(1))]
    );
    // (8 * 1 + 2 * 0.5 - 10 * 0.5 - 4 * 1) / 3; for the trace of acme 9 / 1.5. Without weights
    // there is no mean.
    let weighted = graph("feedbacks/weighted").await;
    let averages = [10, 12, 34, 35].map(|at: usize| weighted["data_points"][at]["avg"].clone());
    assert_eq!(
        (&weighted["summary"]["avg"], averages),
        (&json!(0.0), [json!(6.0), json!(-10.0), json!(-4.0), json!(null)])
    );
    let scores = graph("feedbacks/scores").await;
    let score = |score: f64, total: u32| json!({ "score": score, "total": total });
    assert_eq!(
        scores["data_points"],
        json!([score(-10.0, 1), score(-4.0, 1), score(2.0, 2), score(8.0, 1)])
    );
    assert_eq!(scores["summary"]["total"], json!(5));
    // Model a has the feedback of both traces and of the call without one, model b that of acme's
    // trace and its own.
    let models = graph("feedbacks/ai-models").await;
    let model = |name: &str, total: u32, avg: f64| json!({ "ai_model": name, "total": total, "avg_weighted_feedback": avg });
    assert_eq!(models["data_points"], json!([model("a", 4, 2.0), model("b", 3, 2.0)]));
    let teams = answer(Query::group("metadata/team", asked(&[])).unwrap()).await;
    let figures: Vec<_> = teams["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["metadata_value"].clone(),
                item["requests"].clone(),
                item["requests_with_feedback"].clone(),
                item["avg_weighted_feedback"].clone(),
            )
        })
        .collect();
    // For x (8 + 1 - 4) / 2.5, for y (8 + 1 - 5) / 2.
    assert_eq!(
        figures,
        [
            (json!("x"), json!(3), json!(3), json!(2.0)),
            (json!("y"), json!(1), json!(1), json!(2.0))
        ]
    );
    // The means of the calls: 9 / 1.5 = 6, (9 - 5) / 2 = 2, -4, and none.
    for (filter, requests) in [
        (&[("weighted_feedback_min", "6")][..], 1),
        (&[("weighted_feedback_min", "2")][..], 2),
        (&[("weighted_feedback_max", "5")][..], 2),
        (&[("weighted_feedback_min", "-10"), ("weighted_feedback_max", "10")][..], 3),
        (&[("weighted_feedback_min", "6.5")][..], 0),
    ] {
        let answer = answer(Query::graph("requests", asked(filter)).unwrap()).await;
        assert_eq!(answer["summary"]["total"], json!(requests), "{filter:?}");
    }
}

#[tokio::test]
async fn a_model_is_one_group_in_every_spelling() {
    let context = SessionContext::new();
    context.register_udf(ScalarUDF::clone(&crate::query::canonical_model()));
    let logs = "create table logs as select arrow_cast('2026-11-01T10:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))') \
        as created_at, column1 as ai_org, column2 as ai_model, 1 as is_success, 200 as response_status_code, \
        'MISS' as cache_status, 'USD' as cost_currency, 0.5 as cost, 10 as total_units, 5 as req_units, 5 as res_units, \
        7 as response_time from (values ('openai', 'gpt-4o'), ('openai', 'gpt-4o-2024-08-06'), ('azure', 'azure/gpt-4o'), \
        ('openai', 'gpt-4o-mini'), ('openai', null))";
    context.sql(logs).await.unwrap().collect().await.unwrap();
    let answer = async |path: &str, given: &[(&str, &str)]| {
        let query = Query::group(path, asked(given)).unwrap();
        let plan = planned(&context, &query).await;
        query
            .json(&context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap())
            .unwrap()["data"]
            .take()
    };
    let models = answer("ai-models", &[("columns", "said_models")]).await;
    assert_eq!(models[0]["ai_model"], "gpt-4o");
    assert_eq!(models[0]["said_models"], "azure/gpt-4o, gpt-4o, gpt-4o-2024-08-06", "{models}");
    for path in ["ai-models", "model"] {
        let all = answer(path, &[]).await;
        let all: Vec<_> =
            all.as_array().unwrap().iter().map(|item| item["requests"].to_string()).collect();
        assert_eq!(
            all.iter().map(|count| count.trim_matches('"')).collect::<Vec<_>>(),
            ["3", "1"],
            "{path}"
        );
        // The filter accepts the name of the group; a logged name finds only its own calls.
        for (model, requests) in [("gpt-4o", "3"), ("gpt-4o-2024-08-06", "1")] {
            let found = answer(path, &[("ai_model", model)]).await;
            assert_eq!(
                found[0]["requests"].to_string().trim_matches('"'),
                requests,
                "{path} {model}"
            );
        }
    }
}
