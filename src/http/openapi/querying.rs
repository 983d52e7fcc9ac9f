//! SQL, the named reports, and Portkey's analytics.

use serde_json::{Value, json};

use crate::analytics::{self, Figure, GraphFacts, GroupFacts};
use crate::encode::Format;
use crate::http::openapi::logs;
use crate::http::openapi::operation::{JSON, Operation, with_withheld_header};
use crate::http::openapi::schema::{fields, kind, object, or_null, with};
use crate::reports::{self, ColumnKind, Param, ParamKind, Report, ReportColumn};

pub(super) const SCHEMAS: &str = "\
Report  A report.
  name     text            name of the report
  purpose  text            content of the report
  params   [ReportParam]   parameters of the report
  columns  [ReportColumn]  columns of the report

ReportParam  A parameter of a report.
  name     text                    name of the parameter
  kind     text|timestamp|integer  type of its values
  choices  [text]                  permitted values; an empty list permits any
  default  text?                   value that is used if none is given
  doc      text                    description

ReportColumn  A column of a report.
  name  text                                        name of the column
  kind  text|integer|float|boolean|timestamp|date  type of its values
  doc   text                                        description

Statement  A SQL statement.
  query?   text?    one SELECT
  format?  format?  format of the response; defaults to the format that `accept` asks for
  params?  sql_params  values of the placeholders: an object for `$NAME`, an array for `$1`, `$2`, …";

const FORMAT: &str = "\
format    format      json   format of the response; defaults to the format that `accept` asks for
formulas  quote|keep  quote  `quote` escapes CSV cells that a spreadsheet would read as formulas; default for browsers";
const STATEMENT: &str = "select ai_model, count(*) as calls from logs group by 1";

const GROUP_PAGE: &str = "
    current_page   0..4294967295   0         index of the page, from 0
    page_size      page_of_groups  20        number of groups per page
    order_by       text            requests  column to sort by; defaults to `requests`
    order_by_type  asc|desc        desc      sort direction
    columns        text            requests  columns of the response, separated by commas
    include_total  flag            true      accepted for Portkey's SDKs; the response always has the total";

const IGNORED: &str = "ignored_parameters?  [text]  unknown parameters, which were ignored
    withheld?  [text]  denied columns; figures computed from them are null";

pub(super) fn operations() -> Vec<Operation> {
    let params = json!({
        "name": "params", "in": "query", "required": false, "style": "form", "explode": true,
        "description": "values of the placeholders, each as `param.NAME=VALUE`",
        "schema": { "type": "object", "additionalProperties": { "type": "string" }, "propertyNames": { "pattern": "^param\\.[a-z]+$" } },
        "example": { "param.day": "2026-11-21" },
    });
    let sql = |operation: Operation, query: &str| {
        let query = format!("{query}  text  {STATEMENT}  one SELECT\n{FORMAT}");
        rows(operation.takes(&query).takes_all([params.clone()]), &kind("{any}", ""))
    };
    let mut all = vec![
        sql(Operation::get("/v1/sql", "sql", "Runs one read-only statement"), "query!").says(
            "Reads `logs`, the system tables and a view for each report. Pass values as parameters, not as part of the \
             statement: `$NAME` in the statement, `param.NAME=…` in the query string.",
        ),
        sql(Operation::post("/v1/sql", "sqlPost", "Runs one read-only statement"), "query")
            .says("The body is JSON, or the statement itself. Its fields override those of the query string.")
            .perhaps_body("Statement", &json!({ "query": STATEMENT, "format": "json" }))
            .or_body("text/plain", "text", STATEMENT)
            .or_body("application/sql", "text", STATEMENT),
        Operation::get("/v1/reports", "listReports", "Lists the named reports").gives(200, "list:Report"),
    ];
    all.extend(reports::list().iter().map(report));
    all
}

/// Returns the operations of all graphs, groups and the summary.
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
    // The same groups at the path that Portkey's changelog names.
    let (keyed, plain): (Vec<_>, Vec<_>) =
        groups.iter().partition(|group| group.path.ends_with("KEY"));
    for (id, path, of) in
        [("logGroups", "{group}", plain), ("logGroups_metadata", "metadata/{key}", keyed)]
    {
        let answers: Vec<Value> = of.into_iter().map(group_list).collect();
        let summary = "Groups of calls, same as `/v1/analytics/groups`";
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
            .chain([("summary", object("Figures of the cache.", figures))]);
        let summary = Operation::get(
            "/v1/analytics/summary/cache",
            "cacheSummary",
            "Summarises the cache in four figures",
        );
        all.push(asked(summary, object("The summary.", answer.chain(fields(IGNORED)))));
    }
    all
}

/// Adds the response of an operation that returns rows, in every format.
fn rows(operation: Operation, row: &Value) -> Operation {
    let content = Format::each().map(|(format, _, media)| {
        let schema = match format {
            Format::Json => json!({ "type": "array", "items": row }),
            Format::Jsonl => kind("text", "one row per line, as JSON"),
            Format::Csv => kind("text", "a header, then one row per line"),
            Format::Arrow => kind("any", "an Arrow IPC stream"),
            Format::Parquet => kind("any", "a Parquet file"),
        };
        (media, schema)
    });
    with_withheld_header(operation.answers(200, &content)).fails(&[406, 505])
}

fn report(report: &Report) -> Operation {
    let cells = report.columns.iter().map(|column| (column.name, or_null(cell(column))));
    let id = format!("report_{}", report.name);
    let summary = format!("Report: {}", report.purpose);
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

/// Returns the schema of a column of a response.
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

/// Adds the parameters and the response that all analytics operations have.
fn asked(operation: Operation, answer: Value) -> Operation {
    let frame = logs::frame().map(|end| with(end, "required", true));
    with_withheld_header(
        operation
            .takes_all(frame)
            .takes_all(logs::filter_references())
            .answers(200, &[(JSON, answer)]),
    )
}

fn figures(figures: &[Figure]) -> Vec<(&'static str, Value)> {
    // A figure is null if it is computed from a denied column.
    figures.iter().map(|figure| (figure.name, or_null(cell(&figure.column)))).collect()
}

fn graph(graph: &GraphFacts) -> Operation {
    let mut point = figures(&graph.points);
    if let Some((name, items)) = &graph.list {
        point
            .push((*name, json!({ "type": "array", "items": object("An item.", figures(items)) })));
    }
    let mut bucket = "";
    if graph.bucketed {
        point.extend(fields("timestamp  moment  start of the bucket, UTC"));
        bucket = "bucket  minute|hour|day|week|month|year  width of a bucket";
    }
    let shared_by = object("Figures of the whole time range.", figures(&graph.summary));
    let points = json!({ "type": "array", "items": object("A point.", point) });
    let answer =
        fields("object  =analytics-graph").chain([("summary", shared_by), ("data_points", points)]);
    let answer = object("A graph.", answer.chain(fields(bucket)).chain(fields(IGNORED)));
    let path = graph.paths[0];
    let id = format!("graph_{}", path.replace(['/', '-'], "_"));
    let summary = format!("Graph: {}", graph.purpose);
    let operation = Operation::get("/v1/analytics/graphs/{*graph}", &id, &summary);
    let operation = asked(operation.at(format!("/v1/analytics/graphs/{path}")), answer);
    match graph.paths.get(1) {
        Some(other) => operation.says(&format!(
            "Also available at `/v1/analytics/graphs/{other}`, the path of Portkey's Node SDK."
        )),
        None => operation,
    }
}

/// Returns the schema of a page of groups.
fn group_list(group: &GroupFacts) -> Value {
    let further = group.columns.iter().skip(1).map(|column| {
        let schema = if group.texts { kind("text", column.doc) } else { cell(column) };
        (format!("{}?", column.name), or_null(schema))
    });
    let further: Vec<(String, Value)> = further.collect();
    // One SQL file serves most groups, so its header declares the key as text.
    let of = if group.key == "status_code" { "whole" } else { "text" };
    let doc = group.columns.first().map_or("", |column| column.doc);
    let own = fields("object  =analytics-group").chain([(group.key, kind(of, doc))]);
    let group = object(
        "A group.",
        own.chain(further.iter().map(|(name, schema)| (name.as_str(), schema.clone()))),
    );
    let list = fields("object  =list\ntotal  count  number of groups").chain(fields(IGNORED));
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
