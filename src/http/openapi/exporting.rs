//! Exports: jobs that write a file, its download, and the direct stream.

use serde_json::{Value, json};

use super::logs;
use super::operation::{LINES, Operation, told_withheld};
use super::schema::{kind, object, with};

pub(super) const SCHEMAS: &str = "\
Export  An export job.
  id                text            names it
  organisation_id   text?           the organisation whose records it reads; null = all
  filters           {any}           which records, as it was asked
  requested_data    [text]          keys of each line
  status            draft|in_progress|success|failed|stopped   where it stands
  description       text?           what it is for
  created_at        moment          when it was made
  last_updated_at   moment          when it was changed last
  created_by        text            id of the key that made it
  workspace_id      text?           the workspace whose records it reads; null = all of the organisation
  object            =export
  total_records     count           records that match
  error             text?           why it failed
  records_written   count?          lines written so far, or in the file
  bytes_written     count?          bytes written so far, or in the file
  max_records       count?          most lines that the plan lets a job write; null = all
  started_at        moment?         when it was started last
  ended_at          moment?         when it ended
  file_expires_at   moment?         from when on the file cannot be downloaded; null = never, or no file
  file_gone         text?           why there is no file any more
  withheld?         [text]          columns that lines lack, since they are denied or their reader may not read bodies

NewExport+  An export. Further fields are passed over.
  workspace_id?    loose_text?      the workspace whose records it reads; that of the key where it is bound to one
  filters?         ExportFilters?
  requested_data?  [loose_text]?    keys of each line; all that may be exported where none is named
  description?     loose_text?      what it is for

MadeExport  An export that was made or changed.
  id      text      its id
  total   count     records that match
  object  =export

ExportSaid  What was done.
  message  text      a sentence
  object   =export

ExportLink  A link.
  signed_url  text      opens the file, without any header
  url         text      the same
  expires_at  moment    from when on it opens nothing
  object      =export

ExportRestrictions  What may be exported.
  object           =export-field-restrictions
  organisation_id  text?           the organisation of the key
  workspace_id     text?           the workspace that is meant
  denied_fields    [text]          what may not be exported
  allowed_fields   [text]          what may be
  export_settings  ExportSettings

ExportSettings  What may be exported, in Portkey's words.
  deniedFields  [text]   what may not be

DirectExport  What to export.
  from?     day?      first moment, UTC; without it from the first record
  to?       day?      first moment that is no longer in, UTC; without it to the last record
  columns?  [text]?   keys of each line, in order: columns, `request.body`, `metadata.key` and the like
  after?    text?     goes on after this line of an earlier export: its `created_at`, a comma, its `id`; or a JSON array of both
  limit?    0..18446744073709551615?   most lines
  format?   =jsonl?";

const WORKSPACE: &str = "workspace_id  text  search  one workspace; all that the key reaches where none is named";

const DIRECT: &str = "
    from     day     2026-11-01                    first moment, UTC; without it from the first record
    to       day     2026-11-22                    first moment that is no longer in, UTC; without it to the last record
    columns  text    created_at,ai_model,cost      keys of each line with commas between; all where none is named
    after    text    2026-11-21T16:26:58.758Z,a-1  the last line of an earlier export: its `created_at`, a comma, its `id`
    limit    0..18446744073709551615  100          most lines
    format   =jsonl  jsonl                         there is no other format";

const RANGE: &str = "
    header:range          text  bytes=1048576-  a range of bytes; others are passed over
    header:if-range       text  \"0198a6c1\"    `etag` or `last-modified` of what there is already
    header:if-none-match  text  \"0198a6c1\"    `etag` of what there is already";

/// The filters of a job: those of the list of logs.
pub(super) fn filters() -> Value {
    let all: Vec<Value> = logs::frame().chain(logs::filters()).collect();
    let fields = all.iter().filter_map(|filter| {
        let (name, doc) = (filter["name"].as_str()?, filter["description"].as_str()?);
        Some((name, kind("any", &format!("{doc}; lists as texts with commas between, or as arrays"))))
    });
    // Each of them may be missing.
    with(object("Which records; all where none is named.", fields), "required", Vec::<Value>::new())
}

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/v1/logs/exports";
    const ONE: &str = "/v1/logs/exports/{id}";
    let (get, post) = (Operation::get, Operation::post);
    let wanted = json!({
        "filters": { "time_of_generation_min": "2026-11-01", "ai_model": "gpt-4o" },
        "requested_data": ["created_at", "ai_model", "cost"], "description": "costs of November",
    });
    vec![
        get(ALL, "listExports", "Lists export jobs").takes(WORKSPACE).gives(200, "list:Export"),
        post(ALL, "createExport", "Makes an export job, as a draft")
            .perhaps_body("NewExport", &wanted)
            .gives(200, "MadeExport")
            .fails(&[404]),
        get("/v1/logs/exports/field-restrictions", "exportRestrictions", "Tells which fields may be exported")
            .takes(WORKSPACE)
            .gives(200, "ExportRestrictions"),
        get(ONE, "getExport", "Shows an export job").gives(200, "Export"),
        Operation::new("PUT", ONE, "changeExport", "Changes an export job that does not run; what is not said stays")
            .perhaps_body("NewExport", &wanted)
            .gives(200, "MadeExport")
            .fails(&[409]),
        post("/v1/logs/exports/{id}/start", "startExport", "Starts an export job")
            .gives(200, "ExportSaid")
            .fails(&[409]),
        post("/v1/logs/exports/{id}/cancel", "cancelExport", "Stops an export job")
            .gives(200, "ExportSaid")
            .fails(&[409]),
        get("/v1/logs/exports/{id}/download", "downloadExport", "Gives a link to the file, which opens for an hour")
            .gives(200, "ExportLink")
            .fails(&[409]),
        file(),
        direct(get("/v1/export", "export", "Streams records as JSON lines").takes(DIRECT)),
        direct(post("/v1/export", "exportPost", "Streams records as JSON lines").perhaps_body(
            "DirectExport",
            &json!({ "from": "2026-11-01", "columns": ["created_at", "ai_model", "cost"] }),
        )),
    ]
}

fn file() -> Operation {
    let lines = || [(LINES, kind("text", "lines, perhaps not whole"))];
    let mut operation = Operation::get(
        "/exports/{token}",
        "exportFile",
        "Hands out the file of an export job, to whoever has its link",
    )
    .says("`Range` goes on with a download that broke off; `If-Range` makes sure that it is the same file.")
    .takes(RANGE)
    .answers(200, &lines())
    .answers(206, &lines())
    .with_header(206, "content-range", "which part")
    .answers(304, &[])
    .answers(416, &lines())
    .with_header(416, "content-range", "how long the file is");
    for status in [200, 206] {
        operation = operation
            .with_header(status, "etag", "names the file, which never changes")
            .with_header(status, "last-modified", "when it was written")
            .with_header(status, "accept-ranges", "`bytes`");
    }
    operation
}

fn direct(operation: Operation) -> Operation {
    let operation = operation
        .says(
            "A record a line, day by day, within a day by organisation and time. The connection is cut where the export \
             fails on its way; `after` goes on from the last line received.",
        )
        .answers(200, &[(LINES, kind("text", "a record a line"))])
        .with_header(200, "content-disposition", "a name for the file");
    told_withheld(operation).fails(&[404, 406, 505])
}
