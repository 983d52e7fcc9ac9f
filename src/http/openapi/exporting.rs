//! Exports: jobs that write a file, its download, and the direct stream.

use serde_json::{Value, json};

use super::logs::{filters, frame};
use super::operation::{JSON, Operation, header, part, query};
use super::schema::{
    any, between, constant, count, day_or_moment, list, listing, moment, object, open, or_null, refer, text,
    text_or_number, with,
};

const LINES: &str = "application/x-ndjson";

pub(super) fn operations() -> Vec<Operation> {
    let mut all = jobs();
    all.push(file());
    all.extend(direct());
    all
}

/// What a job writes.
fn wanted() -> Value {
    let filters: Vec<Value> = frame().into_iter().chain(filters()).collect();
    let filters = filters.iter().filter_map(|filter| {
        let doc = filter["description"].as_str()?;
        Some((
            format!("{}?", filter["name"].as_str()?),
            any(&format!("{doc}; lists as texts with commas between, or as arrays")),
        ))
    });
    let filters: Vec<(String, Value)> = filters.collect();
    let filters = object(
        "which records; all where none is named",
        filters.iter().map(|(name, schema)| (name.as_str(), schema.clone())),
    );
    open(object(
        "An export. Further fields are passed over.",
        [
            (
                "workspace_id?",
                or_null(text_or_number(
                    "the workspace whose records it reads; that of the key where it is bound to one",
                )),
            ),
            ("filters?", or_null(filters)),
            (
                "requested_data?",
                or_null(list(
                    text_or_number("a column"),
                    "keys of each line; all that may be exported where none is named",
                )),
            ),
            ("description?", or_null(text_or_number("what it is for"))),
        ],
    ))
}

#[expect(clippy::too_many_lines, reason = "a list of eight operations")]
fn jobs() -> Vec<Operation> {
    const ALL: &str = "/v1/logs/exports";
    const ONE: &str = "/v1/logs/exports/{id}";
    let id = || part("id", text("id of the export"), "0198a6c1-7b1e-7cc2-a3f0-5b3c2f9e1d00");
    let workspace =
        || query("workspace_id", text("one workspace; all that the key reaches where none is named"), "search");
    let made = || {
        let fields = [("id", text("its id")), ("total", count("records that match")), ("object", constant("export"))];
        object("An export.", fields)
    };
    let said = || object("Done.", [("message", text("a sentence")), ("object", constant("export"))]);
    let example = json!({
        "filters": { "time_of_generation_min": "2026-11-01", "ai_model": "gpt-4o" },
        "requested_data": ["created_at", "ai_model", "cost"], "description": "costs of November",
    });
    let link = object(
        "A link.",
        [
            ("signed_url", text("opens the file, without any header")),
            ("url", text("the same")),
            ("expires_at", moment("from when on it opens nothing")),
            ("object", constant("export")),
        ],
    );
    let fields = |doc: &str| list(text("a field"), doc);
    let restrictions = object(
        "What may be exported.",
        [
            ("object", constant("export-field-restrictions")),
            ("organisation_id", or_null(text("the organisation of the key"))),
            ("workspace_id", or_null(text("the workspace that is meant"))),
            ("denied_fields", fields("what may not be exported")),
            ("allowed_fields", fields("what may be")),
            (
                "export_settings",
                object("the same in Portkey's words", [("deniedFields", fields("what may not be exported"))]),
            ),
        ],
    );
    vec![
        Operation::get(ALL, "listExports", "Lists export jobs").takes([workspace()]).answers_json(
            200,
            "The jobs",
            listing(refer("Export"), "Export jobs."),
        ),
        Operation::post(ALL, "createExport", "Makes an export job, as a draft")
            .body(false, &[JSON], &wanted(), &example)
            .answers_json(200, "The job", made())
            .leads_to(
                200,
                &["getExport", "changeExport", "startExport", "cancelExport", "downloadExport"]
                    .map(|one| (one, "id", "$response.body#/id")),
            )
            .fails(&[404, 422, 429]),
        Operation::get(
            "/v1/logs/exports/field-restrictions",
            "exportRestrictions",
            "Tells which fields may be exported",
        )
        .takes([workspace()])
        .answers_json(200, "The fields", restrictions),
        Operation::get(ONE, "getExport", "Shows an export job")
            .takes([id()])
            .answers_json(200, "The job", refer("Export"))
            .fails(&[404]),
        Operation::put(ONE, "changeExport", "Changes an export job that does not run; what is not said stays")
            .takes([id()])
            .body(false, &[JSON], &wanted(), &example)
            .answers_json(200, "The job, a draft again", made())
            .fails(&[404, 409, 422, 429]),
        Operation::post("/v1/logs/exports/{id}/start", "startExport", "Starts an export job")
            .takes([id()])
            .answers_json(200, "Started", said())
            .fails(&[404, 409, 422, 429]),
        Operation::post("/v1/logs/exports/{id}/cancel", "cancelExport", "Stops an export job")
            .takes([id()])
            .answers_json(200, "Stopped", said())
            .fails(&[404, 409, 422, 429]),
        Operation::get(
            "/v1/logs/exports/{id}/download",
            "downloadExport",
            "Gives a link to the file, which opens for an hour",
        )
        .takes([id()])
        .answers_json(200, "The link", link)
        .fails(&[404, 409, 422, 429]),
    ]
}

fn file() -> Operation {
    let headers = || {
        [
            ("etag", text("names the file, which never changes")),
            ("last-modified", text("when it was written")),
            ("accept-ranges", text("`bytes`")),
        ]
    };
    Operation::get("/exports/{token}", "exportFile", "Hands out the file of an export job, to whoever has its link")
        .says("`Range` goes on with a download that broke off; `If-Range` makes sure that it is the same file.")
        .takes([
            part("token", text("what the link was told with"), "0198a6c1.1795282018.5b41"),
            header("range", text("a range of bytes; others are passed over"), "bytes=1048576-"),
            header("if-range", text("`etag` or `last-modified` of what there is already"), "\"0198a6c1\""),
            header("if-none-match", text("`etag` of what there is already"), "\"0198a6c1\""),
        ])
        .answers(200, "The file", &[(LINES, text("a record a line"))])
        .with_headers(200, &headers())
        .answers(206, "A part of it", &[(LINES, text("lines, perhaps not whole"))])
        .with_headers(206, &headers())
        .with_headers(206, &[("content-range", text("which part"))])
        .answers(304, "What there is already is the file", &[])
        .answers(416, "The range begins behind the end", &[(LINES, text("nothing"))])
        .with_headers(416, &[("content-range", text("how long the file is"))])
        .fails(&[404, 429, 500, 503])
}

fn direct() -> Vec<Operation> {
    let columns =
        "keys of each line, in order: columns, `request.body`, `metadata.key` and the like; all where none is named";
    let body = object(
        "What to export.",
        [
            ("from?", or_null(first())),
            ("to?", or_null(end())),
            ("columns?", or_null(list(text("a key"), columns))),
            ("after?", or_null(after())),
            ("limit?", or_null(most())),
            ("format?", or_null(constant("jsonl"))),
        ],
    );
    let example = json!({ "from": "2026-11-01", "columns": ["created_at", "ai_model", "cost"] });
    let fields = || {
        [
            query("from", first(), "2026-11-01"),
            query("to", end(), "2026-11-22"),
            query("columns", text(&format!("{columns}; with commas between")), "created_at,ai_model,cost"),
            query("after", after(), "2026-11-21T16:26:58.758Z,a-1"),
            query("limit", most(), 100),
            query("format", with(constant("jsonl"), "description", "there is no other format"), "jsonl"),
        ]
    };
    let says = "A record a line, day by day, within a day by organisation and time. The connection is cut where the export \
                fails on its way; `after` goes on from the last line received.";
    [
        Operation::get("/v1/export", "export", "Streams records as JSON lines").takes(fields()),
        Operation::post("/v1/export", "exportPost", "Streams records as JSON lines").body(
            false,
            &[JSON],
            &body,
            &example,
        ),
    ]
    .map(|operation| {
        operation
            .says(says)
            .answers(200, "The records", &[(LINES, text("a record a line"))])
            .with_headers(200, &[("content-disposition", text("a name for the file"))])
            .fails(&[400, 404, 406, 422, 429, 505])
    })
    .into()
}

fn first() -> Value {
    day_or_moment("first moment, UTC; without it from the first record")
}

fn end() -> Value {
    day_or_moment("first moment that is no longer in, UTC; without it to the last record")
}

fn after() -> Value {
    text("goes on after this line of an earlier export: its `created_at`, a comma, its `id`")
}

fn most() -> Value {
    between(0, u64::MAX, "most lines")
}
