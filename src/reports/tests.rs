//! Checks the registry against the folder, the headers against the plans, and the plans for fast
//! execution.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, project_schema};
use datafusion::logical_expr::{
    Expr, LogicalPlan, ScalarUDF, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::json;

use super::*;
use crate::error::ErrorKind;

/// A table without rows that accepts filters, as the real one does.
#[derive(Debug)]
struct EmptyTable;

#[async_trait::async_trait]
impl TableProvider for EmptyTable {
    fn schema(&self) -> SchemaRef {
        crate::record::schema()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)))
    }
}

/// Creates an empty `logs` table with every report as a view.
async fn session() -> SessionContext {
    let mut context =
        SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
    datafusion_functions_json::register_all(&mut context).unwrap();
    context.register_udf(ScalarUDF::clone(&crate::query::canonical_model()));
    context.register_table("logs", Arc::new(EmptyTable)).unwrap();
    for table in [
        "organisations (organisation_id text, name text, plan text, retention_days int, created_at timestamptz)",
        "plans (plan text, retention_days int, included bigint, over text, block_records bigint, block_cents bigint, \
         export_days int, export_rows bigint)",
        "usage (organisation_id text, month date, records bigint, not_stored bigint)",
        "partitions (table_name text, retention_days int, date date, files bigint, rows bigint, bytes bigint)",
        "feedback (id text, organisation_id text, workspace_slug text, trace_id text, log_id text, value double, weight double)",
    ] {
        context.sql(&format!("create table {table}")).await.unwrap().collect().await.unwrap();
    }
    for report in list() {
        let plan = context.state().create_logical_plan(report.view_sql()).await.unwrap();
        let plan = plan.with_param_values(view_params(report)).unwrap();
        context.register_table(report.name, Arc::new(ViewTable::new(plan, None))).unwrap();
    }
    context
}

/// Returns the reports about calls, which share four parameters. The others are about plans.
fn about_calls() -> impl Iterator<Item = &'static Report> {
    list().iter().filter(|report| report.params[0].name == "from")
}

async fn planned(context: &SessionContext, report: &Report, given: &[(&str, &str)]) -> LogicalPlan {
    let given = given.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let values = bind(report, &given).unwrap();
    let plan = context.state().create_logical_plan(report.sql).await.unwrap();
    plan.with_param_values(values).unwrap()
}

fn message(report: &str, given: &[(&str, Value)]) -> String {
    let given = given.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let error = bind(find(report).unwrap(), &given).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.message().to_owned()
}

#[test]
fn every_file_is_registered_and_every_registered_report_is_a_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // The files of the subfolders are tested where they are used.
    let files: BTreeSet<String> = files.filter(|name| name.ends_with(".sql")).collect();
    let registered: BTreeSet<String> =
        list().iter().map(|report| format!("{}.sql", report.name)).collect();
    assert_eq!(files, registered);
    assert_eq!(registered.len(), FILES.len(), "a name is registered twice");
}

#[test]
fn headers_agree_on_shared_parameters() {
    for report in list() {
        for param in &report.params {
            assert!(
                report.params.iter().filter(|other| other.name == param.name).count() == 1,
                "{}",
                report.name
            );
            assert!(!param.doc.is_empty());
        }
        assert!(
            report.sql.lines().all(|line| line.chars().count() <= 120),
            "{}: a line is too long",
            report.name
        );
    }
    for report in about_calls() {
        let names: Vec<&str> = report.params.iter().map(|param| param.name).take(4).collect();
        assert_eq!(names, ["from", "to", "organisation_id", "ai_model"], "{}", report.name);
        assert_eq!(report.params[..4], list()[0].params[..4], "{}", report.name);
    }
    let others = list().iter().filter(|report| report.params[0].name != "from");
    assert_eq!(others.map(|report| report.name).collect::<Vec<_>>(), ["quota", "retention"]);
    for name in ["quota", "retention"] {
        let params = &find(name).unwrap().params;
        assert_eq!(
            params.iter().map(|param| param.name).collect::<Vec<_>>(),
            ["at", "organisation_id"]
        );
        assert_eq!(params[1], list()[0].params[2]);
    }
}

#[test]
fn a_malformed_header_is_an_error_that_shows_the_line() {
    for (sql, words) in [
        (
            "-- purpose: x\n-- param from timestamp\n\nselect 1",
            "`-- param from timestamp` is malformed",
        ),
        ("-- purpose: x\n-- param from: moment = null; doc\n\nselect 1", "is malformed"),
        ("-- purpose: x\n-- column a: text\n\nselect 1", "is malformed"),
        ("-- purpose: x\n-- about: y\n\nselect 1", "is malformed"),
        ("select 1", "is malformed"),
        ("-- purpose: x\n\nselect 1", "needs a purpose and columns"),
        (
            "-- purpose: x\n-- param n: integer = few; doc\n-- column a: text; doc\n\n",
            "parameter `n` is `few`",
        ),
        (
            "-- purpose: x\n-- param n: text in a|b = c; doc\n-- column a: text; doc\n\n",
            "expected one of a, b",
        ),
    ] {
        let error = parse("x", sql).unwrap_err();
        assert!(error.message().contains(words), "{error} does not contain {words}");
    }
}

#[test]
fn an_unknown_report_is_not_found_and_the_known_ones_are_named() {
    let error = find("costs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.message(),
        "report `costs` does not exist; the reports are status, status_counts, cache, retries, fallbacks, \
         usage_by_month, spend_by_model, latency, errors, feedback_by_model, quota, retention"
    );
}

#[test]
fn values_are_typed_by_the_header() {
    let given = [
        ("from", json!("2026-11-21")),
        ("to", json!("2026-11-21T17:30:00.000001+05:30")),
        ("organisation_id", json!("o'brien; drop table logs")),
        ("ai_model", json!(null)),
        ("limit", json!("25")),
    ];
    let report = find("status").unwrap();
    let values = bind(report, &given.map(|(name, value)| (name.to_owned(), value)).into()).unwrap();
    let value = |name: &str| values.get_placeholders_with_values(name).unwrap().value;
    let utc = || Some("UTC".into());
    assert_eq!(
        value("$from"),
        ScalarValue::TimestampMicrosecond(Some(1_795_219_200_000_000), utc())
    );
    assert_eq!(value("$to"), ScalarValue::TimestampMicrosecond(Some(1_795_262_400_000_001), utc()));
    assert_eq!(
        value("$organisation_id"),
        ScalarValue::Utf8(Some("o'brien; drop table logs".into()))
    );
    assert_eq!(value("$ai_model"), ScalarValue::Utf8(None));
    assert_eq!(value("$trace_id"), ScalarValue::Utf8(None));
    assert_eq!(value("$limit"), ScalarValue::Int64(Some(25)));
    let defaults = view_params(find("cache").unwrap());
    assert_eq!(
        defaults.get_placeholders_with_values("$bucket").unwrap().value,
        ScalarValue::from("day")
    );
}

#[test]
fn a_wrong_value_is_refused_with_what_was_expected() {
    assert_eq!(
        message("retries", &[("model", json!("gpt-4o"))]),
        "report `retries` has no parameter `model`; did you mean `ai_model`?"
    );
    for (report, name, value, words) in [
        (
            "status",
            "from",
            json!("yesterday"),
            "`from` is `yesterday`; expected a date such as 2026-11-21 or a time",
        ),
        ("status", "from", json!("2026-11-21T10:00:00+1"), "expected a date"),
        ("status", "to", json!(2026), "`to` is `2026`; expected a date"),
        ("status", "limit", json!(-1), "`limit` is `-1`; expected a whole number, 0 or more"),
        ("status", "limit", json!(1.5), "`limit` is `1.5`"),
        ("status", "limit", json!("ten"), "`limit` is `ten`"),
        ("status", "ai_model", json!(["a", "b"]), "`ai_model` is `[\"a\",\"b\"]`; expected a text"),
        (
            "cache",
            "bucket",
            json!("fortnight"),
            "`fortnight`; expected one of hour, day, week, month, year",
        ),
    ] {
        let text = message(report, &[(name, value)]);
        assert!(text.contains(words), "{text} does not contain {words}");
    }
}

#[tokio::test]
async fn declared_parameters_are_the_placeholders_of_the_query() {
    let context = session().await;
    for report in list() {
        let plan = context.state().create_logical_plan(report.sql).await.unwrap();
        let used: BTreeSet<String> = plan.get_parameter_names().unwrap().into_iter().collect();
        let declared: BTreeSet<String> =
            report.params.iter().map(|param| format!("${}", param.name)).collect();
        assert_eq!(used, declared, "{}", report.name);
    }
}

#[tokio::test]
async fn declared_columns_are_those_of_the_answer() {
    let context = session().await;
    for report in list() {
        let rows =
            context.execute_logical_plan(planned(&context, report, &[]).await).await.unwrap();
        let planned: Vec<(String, ColumnKind)> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), family(field.data_type())))
            .collect();
        let declared: Vec<(String, ColumnKind)> =
            report.columns.iter().map(|column| (column.name.to_owned(), column.kind)).collect();
        assert_eq!(planned, declared, "{}", report.name);
        assert!(report.columns.iter().all(|column| !column.doc.is_empty()));
        // Also runs the query: some errors, such as a function that needs a literal, occur only
        // then.
        rows.collect().await.unwrap();
    }
}

fn family(data_type: &DataType) -> ColumnKind {
    match data_type {
        DataType::Utf8 | DataType::Utf8View => ColumnKind::Text,
        DataType::Int32 | DataType::Int64 => ColumnKind::Integer,
        DataType::Float64 => ColumnKind::Float,
        DataType::Timestamp(_, Some(zone)) if zone.as_ref() == "UTC" => ColumnKind::Timestamp,
        DataType::Date32 => ColumnKind::Date,
        other => panic!("a report must not answer with {other}"),
    }
}

/// Returns the filters pushed to the scans of all tables except feedback, joined, and the columns
/// that they read.
fn scans(plan: &LogicalPlan) -> (Vec<String>, Vec<String>) {
    let mut predicates = Vec::new();
    let mut columns = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.table() != "feedback"
        {
            predicates.push(
                scan.filters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" AND "),
            );
            columns.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    (predicates, columns)
}

#[tokio::test]
async fn bound_parameters_fold_into_predicates_that_prune() {
    let context = session().await;
    let given = [
        ("from", "2026-11-01"),
        ("to", "2026-12-01"),
        ("organisation_id", "acme"),
        ("ai_model", "gpt-4o"),
    ];
    for report in about_calls() {
        let plan = context.state().optimize(&planned(&context, report, &given).await).unwrap();
        let (predicates, columns) = scans(&plan);
        assert!(!predicates.is_empty(), "{}:\n{}", report.name, plan.display_indent());
        for predicate in &predicates {
            for part in [
                "logs.created_at >= TimestampMicrosecond(1793491200000000, Some(\"UTC\"))",
                "logs.created_at < TimestampMicrosecond(1796083200000000, Some(\"UTC\"))",
                "logs.organisation_id = Utf8View(\"acme\")",
            ] {
                assert!(
                    predicate.contains(part),
                    "{}: {predicate} does not contain {part}",
                    report.name
                );
            }
            assert!(
                !predicate.contains("(NULL") && !predicate.contains("\") IS NULL"),
                "{}: {predicate}",
                report.name
            );
        }
        let model = "logs.ai_model = Utf8View(\"gpt-4o\")";
        assert!(
            predicates.iter().any(|predicate| predicate.contains(model)),
            "{}: {predicates:?}",
            report.name
        );
        let reads_bodies = columns.iter().any(|column| column == "request" || column == "response");
        assert_eq!(reads_bodies, report.name == "errors", "{} reads {columns:?}", report.name);
    }
}

#[tokio::test]
async fn the_reports_of_plans_read_next_to_nothing_of_the_records() {
    let context = session().await;
    let given = [("organisation_id", "acme"), ("at", "2026-11-21")];
    let plan =
        context.state().optimize(&planned(&context, find("quota").unwrap(), &given).await).unwrap();
    assert!(!plan.display_indent().to_string().contains("TableScan: logs"));
    let plan = context
        .state()
        .optimize(&planned(&context, find("retention").unwrap(), &given).await)
        .unwrap();
    let (predicates, columns) = scans(&plan);
    assert!(
        predicates.contains(&"logs.organisation_id = Utf8View(\"acme\")".to_owned()),
        "{predicates:?}"
    );
    let of_logs = ["organisation_id", "created_at", "retention_days"];
    let of_others = ["table_name", "files", "bytes"];
    assert!(
        columns.iter().all(|column| of_logs.contains(&&**column) || of_others.contains(&&**column)),
        "{columns:?}"
    );
}

#[tokio::test]
async fn parameters_left_out_cost_nothing() {
    let context = session().await;
    for report in about_calls() {
        let plan = context.state().optimize(&planned(&context, report, &[]).await).unwrap();
        for predicate in scans(&plan).0 {
            assert!(
                !predicate.contains("created_at") && !predicate.contains("(NULL"),
                "{}: {predicate}",
                report.name
            );
        }
        assert!(
            !plan.display_indent().to_string().contains("Limit"),
            "{}:\n{}",
            report.name,
            plan.display_indent()
        );
    }
}

#[tokio::test]
async fn a_view_sorts_nothing_and_reads_only_what_is_asked_of_it() {
    let context = session().await;
    for report in list() {
        let plan = context
            .sql(&format!("select * from {}", report.name))
            .await
            .unwrap()
            .into_optimized_plan()
            .unwrap();
        assert!(
            !plan.display_indent().to_string().contains("Sort"),
            "{}:\n{}",
            report.name,
            plan.display_indent()
        );
    }
    let plan = context.sql("select cache_label, count(*) from status group by 1").await.unwrap();
    assert_eq!(scans(&plan.into_optimized_plan().unwrap()).1, ["cache_status"]);
}

#[tokio::test]
async fn status_counts_reads_the_labels_of_status_without_its_order() {
    let context = session().await;
    let plan =
        planned(&context, find("status_counts").unwrap(), &[("organisation_id", "acme")]).await;
    let (predicates, columns) = scans(&context.state().optimize(&plan).unwrap());
    assert_eq!(predicates, ["logs.organisation_id = Utf8View(\"acme\")"]);
    assert!(!columns.contains(&"id".to_owned()), "{columns:?}");
}
