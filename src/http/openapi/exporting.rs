//! Export operations: jobs that write a file, its download, and the direct stream.

use serde_json::{Value, json};

use crate::http::openapi::logs;
use crate::http::openapi::operation::{LINES, Operation, with_withheld_header};
use crate::http::openapi::schema::{kind, object, with};

pub(super) const SCHEMAS: &str = "\
Export  An export job.
  id                text            id of the job
  organisation_id   text?           organisation whose records the job reads; null means all
  filters           {any}           filters of the job, as requested
  requested_data    [text]          keys of each line
  status            draft|in_progress|success|failed|stopped   state of the job
  description       text?           purpose of the export
  created_at        moment          time of creation
  last_updated_at   moment          time of the last change
  created_by        text            id of the key that created the job
  workspace_id      text?           workspace whose records the job reads; null means all of the \
      organisation
  object            =export
  total_records     count           number of records that match
  error             text?           reason of the failure
  records_written   count?          lines written so far, or in the file
  bytes_written     count?          bytes written so far, or in the file
  max_records       count?          most lines that the plan allows in a file; null means no limit
  started_at        moment?         time of the last start
  ended_at          moment?         time at which the job ended
  file_expires_at   moment?         time until which the file can be downloaded; null if it does \
      not expire or there is no file
  file_gone         text?           reason why the file no longer exists
  withheld?         [text]          columns that are missing from the lines because they are \
      denied or the key may not read bodies

NewExport+  An export job to create or change. Unknown fields are ignored.
  workspace_id?    loose_text?      workspace whose records to read; defaults to the workspace of \
      the key
  filters?         ExportFilters?
  requested_data?  [loose_text]?    keys of each line; defaults to all that may be exported
  description?     loose_text?      purpose of the export

MadeExport  The export job that was created or changed.
  id      text      id of the job
  total   count     number of records that match
  object  =export

ExportSaid  Confirmation.
  message  text      result in words
  object   =export

ExportLink  A signed link to the file.
  signed_url  text      URL of the file; needs no header
  url         text      same as `signed_url`
  expires_at  moment    time at which the link expires
  object      =export

ExportRestrictions  Fields that may and may not be exported.
  object           =export-field-restrictions
  organisation_id  text?           organisation of the key
  workspace_id     text?           workspace of the key or of the request
  denied_fields    [text]          fields that may not be exported
  allowed_fields   [text]          fields that may be exported
  export_settings  ExportSettings

ExportSettings  Export settings in Portkey's form.
  deniedFields  [text]   fields that may not be exported

DirectExport  Records and columns to export.
  from?     day?      start of the time range, inclusive, UTC; defaults to the first record
  to?       day?      end of the time range, exclusive, UTC; defaults to the last record
  columns?  [text]?   keys of each line, in order, such as `created_at`, `request.body` and \
      `metadata.team`
  after?    text?     cursor of the last line of an earlier export, after which to continue: its \
      `created_at`, a comma, its `id`; or a JSON array of both
  limit?    0..18446744073709551615?   maximum number of lines
  format?   =jsonl?";

const WORKSPACE: &str =
    "workspace_id  text  search  workspace; defaults to all that the key can read";

const DIRECT: &str = "
    from     day     2026-11-01                    start of the time range, inclusive, UTC; \
        defaults to the first record
    to       day     2026-11-22                    end of the time range, exclusive, UTC; \
        defaults to the last record
    columns  text    created_at,ai_model,cost      keys of each line, separated by commas; \
        defaults to all
    after    text    2026-11-21T16:26:58.758Z,a-1  cursor of the last line of an earlier export: \
        its `created_at`, a comma, its `id`
    limit    0..18446744073709551615  100          maximum number of lines
    format   =jsonl  jsonl                         format of the export; only JSON lines are supported";

const RANGE: &str = "
    header:range          text  bytes=1048576-  range of bytes; several ranges and other units \
        are ignored
    header:if-range       text  \"0198a6c1\"    `etag` or `last-modified` of the copy that the client has
    header:if-none-match  text  \"0198a6c1\"    `etag` of the copy that the client has";

/// Returns the filters of a job, which are those of the list of logs.
pub(super) fn filters() -> Value {
    let all: Vec<Value> = logs::frame().chain(logs::filters()).collect();
    let fields = all.iter().filter_map(|filter| {
        let name = filter["name"].as_str()?;
        let doc = filter["description"].as_str()?;
        Some((
            name,
            kind("any", &format!("{doc}; lists are arrays, or strings separated by commas")),
        ))
    });
    // Every filter is optional.
    with(
        object("Filters of the records. Without a filter, all records are exported.", fields),
        "required",
        Vec::<Value>::new(),
    )
}

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/v1/logs/exports";
    const ONE: &str = "/v1/logs/exports/{id}";
    let get = Operation::get;
    let post = Operation::post;
    let wanted = json!({
        "filters": { "time_of_generation_min": "2026-11-01", "ai_model": "gpt-4o" },
        "requested_data": ["created_at", "ai_model", "cost"], "description": "Costs of November",
    });
    vec![
        get(ALL, "listExports", "Lists export jobs").takes(WORKSPACE).gives(200, "list:Export"),
        post(ALL, "createExport", "Creates an export job as a draft")
            .perhaps_body("NewExport", &wanted)
            .gives(200, "MadeExport")
            .fails(&[404]),
        get(
            "/v1/logs/exports/field-restrictions",
            "exportRestrictions",
            "Lists the fields that may and may not be exported",
        )
        .takes(WORKSPACE)
        .gives(200, "ExportRestrictions"),
        get(ONE, "getExport", "Returns an export job").gives(200, "Export"),
        Operation::new(
            "PUT",
            ONE,
            "changeExport",
            "Changes an export job that is not running; omitted fields keep their values",
        )
        .perhaps_body("NewExport", &wanted)
        .gives(200, "MadeExport")
        .fails(&[409]),
        post("/v1/logs/exports/{id}/start", "startExport", "Starts an export job")
            .gives(200, "ExportSaid")
            .fails(&[409]),
        post("/v1/logs/exports/{id}/cancel", "cancelExport", "Stops an export job")
            .gives(200, "ExportSaid")
            .fails(&[409]),
        get(
            "/v1/logs/exports/{id}/download",
            "downloadExport",
            "Returns a signed link to the file, valid for an hour",
        )
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
    let lines = || [(LINES, kind("text", "Records as JSON lines; a range may cut a line."))];
    let mut operation = Operation::get(
        "/exports/{token}",
        "exportFile",
        "Downloads the file of an export job by its signed link",
    )
    .says("Needs no key. `Range` resumes an interrupted download, and `If-Range` ensures that the file is still the same.")
    .takes(RANGE)
    .answers(200, &lines())
    .answers(206, &lines())
    .with_header(206, "content-range", "Range of bytes in the body, and the size of the file.")
    .answers(304, &[])
    .answers(416, &lines())
    .with_header(416, "content-range", "Size of the file.");
    for status in [200, 206] {
        operation = operation
            .with_header(status, "etag", "Identifies the file, which never changes.")
            .with_header(status, "last-modified", "Time at which the file was written.")
            .with_header(status, "accept-ranges", "Always `bytes`.");
    }
    operation
}

fn direct(operation: Operation) -> Operation {
    let operation = operation
        .says(
            "One record per line, ordered by day, then by organisation and time. If the export fails on its way, the \
             server closes the connection without ending the response; `after` resumes behind the last line received.",
        )
        .answers(200, &[(LINES, kind("text", "Records as JSON lines."))])
        .with_header(200, "content-disposition", "Suggested name of the file.");
    with_withheld_header(operation).fails(&[404, 406, 505])
}
