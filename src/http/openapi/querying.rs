//! SQL, the named reports, and Portkey's analytics.

use serde_json::{Value, json};

use super::logs::{filters, frame};
use super::operation::{JSON, Operation, part, query, required};
use super::schema::{
    any, between, constant, count, day_or_moment, flag, list, listing, map, moment, number, object, one_of, or_null,
    text, whole, with,
};
use crate::analytics::{self, Figure, GraphFacts, GroupFacts, MOST_GROUPS, PAGE_GROUPS};
use crate::http::format::Format;
use crate::reports::{self, ColumnKind, Param, ParamKind, Report, ReportColumn};

/// What a query can fail with.
const FAILURES: [u16; 5] = [400, 406, 422, 429, 505];

pub(super) fn operations() -> Vec<Operation> {
    let sql = "Rows of `logs`, of the small tables beside it, and of a view for each report; nothing is ever written. \
               Values are bound, never pasted: `$NAME` in the statement, `param.NAME=…` here.";
    let statement = text("one SELECT");
    let params = json!({
        "name": "params", "in": "query", "required": false, "style": "form", "explode": true,
        "description": "values of placeholders, each as `param.NAME=VALUE`",
        "schema": { "type": "object", "additionalProperties": { "type": "string" }, "propertyNames": { "pattern": "^param\\.[a-z]+$" } },
        "example": { "param.day": "2026-11-21" },
    });
    let body = object(
        "A statement.",
        [
            ("query?", or_null(text("one SELECT"))),
            ("format?", or_null(format_name())),
            (
                "params?",
                json!({
                    "description": "values of the placeholders: an object for `$NAME`, an array for `$1`, `$2`, …",
                    "anyOf": [map(any("a value"), "by name"), list(any("a value"), "by place"), { "type": "null" }],
                }),
            ),
        ],
    );
    let example = "select ai_model, count(*) as calls from logs group by 1";
    let row = map(any("a cell"), "A row.");
    let mut all = vec![
        rows(Operation::get("/v1/sql", "sql", "Runs one read-only statement"), &row).says(sql).takes([
            required(query("query", statement, example)),
            format(),
            params.clone(),
        ]),
        rows(Operation::post("/v1/sql", "sqlPost", "Runs one read-only statement"), &row)
            .says("The body is JSON, or the statement itself; its fields win over those of the query string.")
            .takes([query("query", text("one SELECT"), example), format(), params])
            .body(false, &[JSON], &body, &json!({ "query": example, "format": "json" }))
            .or_body("text/plain", &text("one SELECT"), example)
            .or_body("application/sql", &text("one SELECT"), example),
    ];
    all.push(report_list());
    all.extend(reports::list().iter().map(report));
    all
}

/// Every graph, every way to group, and the summary.
pub(super) fn analytics() -> Vec<Operation> {
    let mut all: Vec<Operation> = analytics::graph_facts().unwrap_or_default().iter().map(graph).collect();
    let groups = analytics::group_facts().unwrap_or_default();
    all.extend(groups.iter().map(group));
    all.extend(groups_of_logs(&groups));
    if let Ok(facts) = analytics::cache_facts() {
        let figures = facts.columns.iter().map(|column| (column.name, or_null(cell(column))));
        let answer = object(
            "The summary.",
            [("object", constant("analytics-summary")), ("summary", object("figures", figures)), ignored()],
        );
        let summary = Operation::get(
            "/v1/analytics/summary/cache",
            "cacheSummary",
            "Tells whether the cache works, in four figures",
        );
        all.push(asked(summary).answers_json(200, "The figures", answer));
    }
    all
}

/// The name of a format.
fn format_name() -> Value {
    one_of(Format::each().map(|(_, name, _)| name), "format of the answer; without it `accept` decides")
}

fn format() -> Value {
    query("format", format_name(), "json")
}

/// The answer of a query, in every format.
fn rows(operation: Operation, row: &Value) -> Operation {
    let content = Format::each().map(|(format, _, media)| {
        let schema = match format {
            Format::Json => list(row.clone(), "rows"),
            Format::Jsonl => text("a row a line, as JSON"),
            Format::Csv => text("a header, then a row a line"),
            Format::Arrow => any("an Arrow IPC stream"),
            Format::Parquet => any("a Parquet file"),
        };
        (media, schema)
    });
    operation.answers(200, "The rows", &content).fails(&FAILURES)
}

fn report_list() -> Operation {
    let kinds = ["text", "timestamp", "integer"];
    let param = object(
        "A parameter.",
        [
            ("name", text("its name")),
            ("kind", one_of(kinds, "what it takes")),
            ("choices", list(text("a value"), "the only values that it takes; empty = any")),
            ("default", or_null(text("its value where none is given"))),
            ("doc", text("what it decides")),
        ],
    );
    let kinds = ["text", "integer", "float", "boolean", "timestamp", "date"];
    let column = object(
        "A column.",
        [("name", text("its name")), ("kind", one_of(kinds, "what it holds")), ("doc", text("what it means"))],
    );
    let report = object(
        "A report.",
        [
            ("name", text("its name")),
            ("purpose", text("what it tells")),
            ("params", list(param, "its parameters")),
            ("columns", list(column, "its columns")),
        ],
    );
    Operation::get("/v1/reports", "listReports", "Lists the named reports").answers_json(
        200,
        "The reports",
        listing(report, "Reports."),
    )
}

fn report(report: &Report) -> Operation {
    let id = format!("report_{}", report.name);
    let cells = report.columns.iter().map(|column| (column.name, or_null(cell(column))));
    let summary = format!("Report: {}", report.purpose);
    rows(Operation::get("/v1/reports/{name}", &id, &summary), &object("A row.", cells))
        .at(format!("/v1/reports/{}", report.name))
        .takes(report.params.iter().map(param))
        .takes([format()])
}

fn param(param: &Param) -> Value {
    let (schema, example) = match param.kind {
        ParamKind::Text if !param.choices.is_empty() => {
            (one_of(param.choices.iter().copied(), param.doc), json!(param.choices[0]))
        }
        ParamKind::Text => (text(param.doc), json!(param.default.unwrap_or("acme"))),
        ParamKind::Timestamp => (day_or_moment(param.doc), json!("2026-11-01")),
        ParamKind::Integer => (count(param.doc), json!(100)),
    };
    query(param.name, schema, example)
}

/// A column of an answer.
fn cell(column: &ReportColumn) -> Value {
    match column.kind {
        ColumnKind::Text => text(column.doc),
        ColumnKind::Integer => whole(column.doc),
        ColumnKind::Float => number(column.doc),
        ColumnKind::Boolean => flag(column.doc),
        ColumnKind::Timestamp => moment(column.doc),
        ColumnKind::Date => with(text(column.doc), "format", "date"),
    }
}

/// What every question of analytics takes.
fn asked(operation: Operation) -> Operation {
    operation.takes(frame().map(required)).takes(filters()).fails(&[400, 422, 429])
}

/// What stands in an answer to a question with parameters that are unknown.
fn ignored() -> (&'static str, Value) {
    ("ignored_parameters?", list(text("a name"), "parameters that are unknown, and were passed over"))
}

fn figures(figures: &[Figure]) -> Vec<(&'static str, Value)> {
    let field = |figure: &Figure| {
        let schema = cell(&figure.column);
        // A sum of what is not known is null too.
        let nullable = figure.nullable || figure.column.kind == ColumnKind::Float;
        (figure.name, if nullable { or_null(schema) } else { schema })
    };
    figures.iter().map(field).collect()
}

fn graph(graph: &GraphFacts) -> Operation {
    let mut point = figures(&graph.points);
    if let Some((name, items)) = &graph.list {
        point.push((*name, list(object("One of them.", figures(items)), "what was counted")));
    }
    let mut answer = vec![
        ("object", constant("analytics-graph")),
        ("summary", object("figures of the whole time frame", figures(&graph.summary))),
    ];
    if graph.bucketed {
        point.push(("timestamp", moment("start of the bucket, UTC")));
        answer.push(("bucket", one_of(["minute", "hour", "day", "week", "month", "year"], "how wide a bucket is")));
    }
    answer.push(("data_points", list(object("A point.", point), "points")));
    answer.push(ignored());
    let path = graph.paths[0];
    let id = format!("graph_{}", path.replace(['/', '-'], "_"));
    let summary = format!("Graph: {}", graph.purpose);
    let operation = asked(Operation::get("/v1/analytics/graphs/{*graph}", &id, &summary))
        .at(format!("/v1/analytics/graphs/{path}"))
        .answers_json(200, "The graph", object("A graph.", answer));
    match graph.paths.get(1) {
        Some(other) => {
            operation.says(&format!("Also at `/v1/analytics/graphs/{other}`, as Portkey's Node SDK has it."))
        }
        None => operation,
    }
}

/// The list of groups of one way.
fn groups(group: &GroupFacts) -> Value {
    let further = group.columns.iter().skip(1).map(|column| {
        let schema = if group.texts { text(column.doc) } else { cell(column) };
        (format!("{}?", column.name), or_null(schema))
    });
    let fields: Vec<(String, Value)> = further.collect();
    let doc = group.columns.first().map_or("", |column| column.doc);
    // The file of most groups says `text`, for it does not know what they are of.
    let key = if group.key == "status_code" { whole(doc) } else { text(doc) };
    let ours = [(group.key, key), ("object", constant("analytics-group"))];
    let fields = ours.into_iter().chain(fields.iter().map(|(name, schema)| (name.as_str(), schema.clone())));
    let groups = listing(object("A group.", fields), "A page of groups; `total` counts all of them.");
    super::schema::beside(groups, &object("", [ignored()]))
}

/// Page, order and columns of groups.
fn paging(order: &str) -> [Value; 6] {
    [
        query("current_page", between(0, u64::from(u32::MAX), "page, from 0"), 0),
        query("page_size", with(between(1, MOST_GROUPS, "groups of a page"), "default", PAGE_GROUPS), 20),
        query("order_by", text("column to order by; most requests first where none is named"), order),
        query("order_by_type", one_of(["asc", "desc"], "which way"), "desc"),
        query("columns", text("columns of the answer, with commas between"), "requests"),
        query("include_total", flag("taken for the SDKs' sake; the total is always told"), true),
    ]
}

fn group(group: &GroupFacts) -> Operation {
    let id = format!("group_{}", group.path.replace(['/', '-'], "_").to_lowercase());
    let summary = format!("Groups: {}", group.purpose);
    let operation =
        asked(Operation::get("/v1/analytics/groups/{*group}", &id, &format!("{summary}, by {}", group.key)))
            .at(format!("/v1/analytics/groups/{}", group.path.replace("KEY", "{key}")))
            .takes(paging("requests"))
            .answers_json(200, "A page of groups", groups(group));
    if group.path.ends_with("KEY") { operation.takes([metadata_key()]) } else { operation }
}

fn metadata_key() -> Value {
    part("key", with(text("key of the metadata"), "minLength", 1), "team")
}

/// The same by the path that Portkey's changelog names.
fn groups_of_logs(all: &[GroupFacts]) -> [Operation; 2] {
    let (keyed, plain): (Vec<&GroupFacts>, Vec<&GroupFacts>) =
        all.iter().partition(|group| group.path.ends_with("KEY"));
    let operation = |id: &str, path: &str, of: &[&GroupFacts]| {
        let answers: Vec<Value> = of.iter().map(|group| groups(group)).collect();
        asked(Operation::get("/v1/logs/groups/{*group}", id, "Groups of calls, as `/v1/analytics/groups` has them"))
            .at(path.to_owned())
            .takes(paging("requests"))
            .answers_json(200, "A page of groups", json!({ "anyOf": answers }))
            .fails(&[404])
    };
    let names = one_of(plain.iter().map(|group| group.path), "what calls are grouped by");
    [
        operation("logGroups", "/v1/logs/groups/{group}", &plain).takes([part("group", names, "model")]),
        operation("logGroups_metadata", "/v1/logs/groups/metadata/{key}", &keyed).takes([metadata_key()]),
    ]
}
