//! SQL, the named reports, and Portkey's analytics.

use serde_json::{Value, json};

use super::logs;
use super::operation::{JSON, Operation, told_withheld};
use super::schema::{fields, kind, object, or_null, with};
use crate::analytics::{self, Figure, GraphFacts, GroupFacts};
use crate::http::format::Format;
use crate::reports::{self, ColumnKind, Param, ParamKind, Report, ReportColumn};

pub(super) const SCHEMAS: &str = "\
Report  A report.
  name     text            its name
  purpose  text            what it tells
  params   [ReportParam]   its parameters
  columns  [ReportColumn]  its columns

ReportParam  A parameter.
  name     text                    its name
  kind     text|timestamp|integer  what it takes
  choices  [text]                  the only values that it takes; empty = any
  default  text?                   its value where none is given
  doc      text                    what it decides

ReportColumn  A column.
  name  text                                        its name
  kind  text|integer|float|boolean|timestamp|date  what it holds
  doc   text                                        what it means

Statement  A statement.
  query?   text?    one SELECT
  format?  format?  format of the answer; without it `accept` decides
  params?  sql_params  values of the placeholders: an object for `$NAME`, an array for `$1`, `$2`, …";

const FORMAT: &str = "\
format    format      json   format of the answer; without it `accept` decides
formulas  quote|keep  quote  whether cells of CSV that begin a formula are quoted; browsers get them quoted without it";
const STATEMENT: &str = "select ai_model, count(*) as calls from logs group by 1";

const GROUP_PAGE: &str = "
    current_page   0..4294967295   0         page, from 0
    page_size      page_of_groups  20        groups of a page
    order_by       text            requests  column to order by; most requests first where none is named
    order_by_type  asc|desc        desc      which way
    columns        text            requests  columns of the answer, with commas between
    include_total  flag            true      taken for the SDKs' sake; the total is always told";

const IGNORED: &str =
    "ignored_parameters?  [text]  parameters that are unknown, and were passed over
    withheld?  [text]  denied columns that figures are computed from; these are null";

pub(super) fn operations() -> Vec<Operation> {
    let params = json!({
        "name": "params", "in": "query", "required": false, "style": "form", "explode": true,
        "description": "values of placeholders, each as `param.NAME=VALUE`",
        "schema": { "type": "object", "additionalProperties": { "type": "string" }, "propertyNames": { "pattern": "^param\\.[a-z]+$" } },
        "example": { "param.day": "2026-11-21" },
    });
    let sql = |operation: Operation, query: &str| {
        let query = format!("{query}  text  {STATEMENT}  one SELECT\n{FORMAT}");
        rows(operation.takes(&query).takes_all([params.clone()]), &kind("{any}", ""))
    };
    let mut all = vec![
        sql(Operation::get("/v1/sql", "sql", "Runs one read-only statement"), "query!").says(
            "Rows of `logs`, of the small tables beside it, and of a view for each report; nothing is ever written. Values \
             are bound, never pasted: `$NAME` in the statement, `param.NAME=…` here.",
        ),
        sql(Operation::post("/v1/sql", "sqlPost", "Runs one read-only statement"), "query")
            .says("The body is JSON, or the statement itself; its fields win over those of the query string.")
            .perhaps_body("Statement", &json!({ "query": STATEMENT, "format": "json" }))
            .or_body("text/plain", "text", STATEMENT)
            .or_body("application/sql", "text", STATEMENT),
        Operation::get("/v1/reports", "listReports", "Lists the named reports").gives(200, "list:Report"),
    ];
    all.extend(reports::list().iter().map(report));
    all
}

/// Every graph, every way to group, and the summary.
pub(super) fn analytics() -> Vec<Operation> {
    let mut all: Vec<Operation> =
        analytics::graph_facts().unwrap_or_default().iter().map(graph).collect();
    let groups = analytics::group_facts().unwrap_or_default();
    all.extend(groups.iter().map(|group| {
        let path = group.path.replace("KEY", "{key}");
        let id = format!("group_{}", group.path.replace(['/', '-'], "_").to_lowercase());
        let summary = format!("Groups: {}, by {}", group.purpose, group.key);
        group_page("/v1/analytics/groups/{*group}", &id, &summary, &path, group_list(group))
    }));
    // The same by the path that Portkey's changelog names.
    let (keyed, plain): (Vec<_>, Vec<_>) =
        groups.iter().partition(|group| group.path.ends_with("KEY"));
    for (id, path, of) in
        [("logGroups", "{group}", plain), ("logGroups_metadata", "metadata/{key}", keyed)]
    {
        let answers: Vec<Value> = of.into_iter().map(group_list).collect();
        let summary = "Groups of calls, as `/v1/analytics/groups` has them";
        all.push(group_page(
            "/v1/logs/groups/{*group}",
            id,
            summary,
            path,
            json!({ "anyOf": answers }),
        ));
    }
    if let Ok(facts) = analytics::cache_facts() {
        let figures = facts.columns.iter().map(|column| (column.name, or_null(cell(column))));
        let answer = fields("object  =analytics-summary")
            .chain([("summary", object("Its figures.", figures))]);
        let summary = Operation::get(
            "/v1/analytics/summary/cache",
            "cacheSummary",
            "Tells whether the cache works, in four figures",
        );
        all.push(asked(summary, object("The summary.", answer.chain(fields(IGNORED)))));
    }
    all
}

/// An operation that answers rows, in every format.
fn rows(operation: Operation, row: &Value) -> Operation {
    let content = Format::each().map(|(format, _, media)| {
        let schema = match format {
            Format::Json => json!({ "type": "array", "items": row }),
            Format::Jsonl => kind("text", "a row a line, as JSON"),
            Format::Csv => kind("text", "a header, then a row a line"),
            Format::Arrow => kind("any", "an Arrow IPC stream"),
            Format::Parquet => kind("any", "a Parquet file"),
        };
        (media, schema)
    });
    told_withheld(operation.answers(200, &content)).fails(&[406, 505])
}

fn report(report: &Report) -> Operation {
    let cells = report.columns.iter().map(|column| (column.name, or_null(cell(column))));
    let (id, summary) = (format!("report_{}", report.name), format!("Report: {}", report.purpose));
    let operation = Operation::get("/v1/reports/{name}", &id, &summary)
        .at(format!("/v1/reports/{}", report.name));
    let params: Vec<String> = report.params.iter().map(param).collect();
    rows(operation.takes(&params.join("\n")).takes(FORMAT), &object("A row.", cells))
}

fn param(param: &Param) -> String {
    let (of, example) = match param.kind {
        ParamKind::Text if !param.choices.is_empty() => (param.choices.join("|"), param.choices[0]),
        ParamKind::Text => ("text".to_owned(), param.default.unwrap_or("acme")),
        ParamKind::Timestamp => ("day".to_owned(), "2026-11-01"),
        ParamKind::Integer => ("count".to_owned(), "100"),
    };
    format!("{}  {of}  {example}  {}", param.name, param.doc)
}

/// A column of an answer.
fn cell(column: &ReportColumn) -> Value {
    let of = match column.kind {
        ColumnKind::Text => "text",
        ColumnKind::Integer => "whole",
        ColumnKind::Float => "number",
        ColumnKind::Boolean => "flag",
        ColumnKind::Timestamp => "moment",
        ColumnKind::Date => "date",
    };
    kind(of, column.doc)
}

/// An operation that takes what every question of analytics does.
fn asked(operation: Operation, answer: Value) -> Operation {
    let frame = logs::frame().map(|end| with(end, "required", true));
    told_withheld(
        operation.takes_all(frame).takes_all(logs::told_filters()).answers(200, &[(JSON, answer)]),
    )
}

fn figures(figures: &[Figure]) -> Vec<(&'static str, Value)> {
    // Any figure is null where a column is denied that it is computed from.
    figures.iter().map(|figure| (figure.name, or_null(cell(&figure.column)))).collect()
}

fn graph(graph: &GraphFacts) -> Operation {
    let mut point = figures(&graph.points);
    if let Some((name, items)) = &graph.list {
        point.push((
            *name,
            json!({ "type": "array", "items": object("One of them.", figures(items)) }),
        ));
    }
    let mut bucket = "";
    if graph.bucketed {
        point.extend(fields("timestamp  moment  start of the bucket, UTC"));
        bucket = "bucket  minute|hour|day|week|month|year  how wide a bucket is";
    }
    let shared_by = object("Figures of the whole time frame.", figures(&graph.summary));
    let points = json!({ "type": "array", "items": object("A point.", point) });
    let answer =
        fields("object  =analytics-graph").chain([("summary", shared_by), ("data_points", points)]);
    let answer = object("A graph.", answer.chain(fields(bucket)).chain(fields(IGNORED)));
    let path = graph.paths[0];
    let (id, summary) =
        (format!("graph_{}", path.replace(['/', '-'], "_")), format!("Graph: {}", graph.purpose));
    let operation = Operation::get("/v1/analytics/graphs/{*graph}", &id, &summary);
    let operation = asked(operation.at(format!("/v1/analytics/graphs/{path}")), answer);
    match graph.paths.get(1) {
        Some(other) => operation.says(&format!(
            "Also at `/v1/analytics/graphs/{other}`, as Portkey's Node SDK has it."
        )),
        None => operation,
    }
}

/// The list of groups of one way.
fn group_list(group: &GroupFacts) -> Value {
    let further = group.columns.iter().skip(1).map(|column| {
        let schema = if group.texts { kind("text", column.doc) } else { cell(column) };
        (format!("{}?", column.name), or_null(schema))
    });
    let further: Vec<(String, Value)> = further.collect();
    // The file of most groups says `text`, for it does not know what they are of.
    let of = if group.key == "status_code" { "whole" } else { "text" };
    let doc = group.columns.first().map_or("", |column| column.doc);
    let own = fields("object  =analytics-group").chain([(group.key, kind(of, doc))]);
    let group = object(
        "A group.",
        own.chain(further.iter().map(|(name, schema)| (name.as_str(), schema.clone()))),
    );
    let list =
        fields("object  =list\ntotal  count  how many there are in all").chain(fields(IGNORED));
    object("A page of groups.", list.chain([("data", json!({ "type": "array", "items": group }))]))
}

fn group_page(
    route: &'static str,
    id: &str,
    summary: &str,
    path: &str,
    answer: Value,
) -> Operation {
    let operation = Operation::get(route, id, summary).at(route.replace("{*group}", path));
    asked(operation, answer).takes(GROUP_PAGE)
}
