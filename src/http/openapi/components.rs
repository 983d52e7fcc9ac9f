//! Schemas of the document by name: those generated from columns, those that several resources
//! share, and those of each resource.

use serde_json::{Map, Value};

use crate::http::openapi::schema;
use crate::http::openapi::schema::{fields, kind, object, or_null, with};
use crate::record::{COLUMNS, Column, Kind, Rows};

/// Schemas that several resources share. A failure has the fields that either family of Portkey's
/// clients reads.
const SHARED: &str = "\
Failure+  Body of every failure. Some failures have further fields, such as the receipt of the \
    records stored before.
  status   =failure
  success  =false
  message  text           cause and remedy
  error    GatewayError
  data     ApiError

GatewayError  A failure in the form of Portkey's gateway.
  message  text   cause and remedy
  code     text   error code, a number or a word

ApiError  A failure in the form of Portkey's API.
  message    text   cause and remedy
  errorCode  text   error code such as `AB01`

Message  Request or response of a call.
  body?     any   body, any JSON
  headers?  any   headers, an object of strings; secrets are masked

Receipt  Outcome of the records of a request.
  accepted    count         stored records
  duplicate   count         records whose id is stored already; each is stored once
  over_quota  count         records not stored because of the quota of the organisation's plan
  past_retention  count     accepted records that are older than the retention of the \
      organisation's plan
  message?    text          explanation and remedy
  rejected    count         rejected records
  rejections  [Rejection]   reasons for the first 100 rejections

Rejection  Reason why a record was rejected.
  record    count   index of the record in the request, from 0
  line?     count   line where the record begins, from 1
  field     text    rejected field; `json` if the text is not a JSON object
  value     text    beginning of its value; empty if it may be private
  expected  text    expected form
  excerpt?  text    up to 200 characters of the record around the field, masked and redacted; only for the first 20 rejections, and not for calls that are not tracked";

/// Returns all schemas by name.
pub(super) fn all() -> Map<String, Value> {
    let resources = [
        SHARED,
        crate::http::openapi::logs::SCHEMAS,
        crate::http::openapi::ingesting::SCHEMAS,
        crate::http::openapi::querying::SCHEMAS,
        crate::http::openapi::exporting::SCHEMAS,
        crate::http::openapi::feedback::SCHEMAS,
        crate::http::openapi::admin::SCHEMAS,
        crate::http::openapi::system::SCHEMAS,
    ];
    let mut all = schema::schemas(&resources.join("\n\n"));
    let made = [
        ("Record", record()),
        ("ListedLog", listed_log()),
        ("LogMetrics", log_metrics()),
        ("Feedback", feedback()),
        ("ExportFilters", crate::http::openapi::exporting::filters()),
    ];
    all.extend(made.map(|(name, schema)| (name.to_owned(), schema)));
    all
}

/// Returns the schema of a column in its JSON form.
fn cell(column: &Column) -> Value {
    let of = match column.kind {
        Kind::Text => "text",
        Kind::Int => "whole",
        Kind::Short => "short",
        Kind::Float => "number",
        Kind::Bool => "flag",
        Kind::Time => "moment",
        Kind::Tags => "{text}",
        Kind::Message => "Message",
    };
    or_null(kind(of, column.doc))
}

/// Returns the schema of a record to ingest.
fn record() -> Value {
    let columns = COLUMNS.iter().map(|column| (column.name, cell(column)));
    with(
        object("A call to a model. Unknown values are left out or null.", columns),
        "required",
        Vec::<Value>::new(),
    )
}

/// Returns the schema of a record in lists.
fn listed_log() -> Value {
    let shown = COLUMNS.iter().filter(|column| column.kind != Kind::Message);
    let further = "object  =log
        url  text  path of the log's page
        status  LogStatus
        weighted_feedback  number?  weighted mean of the feedback on the log and its trace";
    object(
        "A record without its bodies.",
        shown.map(|column| (column.name, cell(column))).chain(fields(further)),
    )
}

/// Returns the schema of Portkey's AnalyticsMetrics.
fn log_metrics() -> Value {
    const TEXTS: &str = "id organisation_id organisation_name prompt_id prompt_version_id config_id created_at ai_org ai_model \
                         cost_currency request_url request_method cache_status cache_type retry_success_count trace_id \
                         span_id span_name parent_span_id mode virtual_key source runtime runtime_version sdk_version config \
                         internal_trace_id config_version_id prompt_slug workspace_slug log_store_file_path_format \
                         api_key_id user_id _user extra_key extra_value";
    const NUMBERS: &str =
        "req_units res_units total_units response_status_code stream_mode last_used_option_index";
    const MS: &str = "response_time request_parsing_time pre_processing_time cache_processing_time response_parsing_time \
                      gateway_processing_time upstream_response_time ttlt";
    let further = "is_success  flag?  true if the call succeeded
        is_proxy_call  flag?  true if the gateway only passed the call on
        cost  number?  cents of `cost_currency`
        metadata.key  [text]  keys of the metadata
        metadata.value  [text]  their values, in the same order";
    let each = |names: &'static str, of: &'static str, doc: &'static str| {
        names.split_whitespace().map(move |name| (name, kind(of, doc)))
    };
    let figures =
        each(TEXTS, "text?", "").chain(each(NUMBERS, "whole?", "")).chain(each(MS, "whole?", "ms"));
    object("Metrics of the call; null if unknown.", figures.chain(fields(further)))
}

fn feedback() -> Value {
    let columns = Rows::Feedback.columns().iter().map(|column| (column.name, cell(column)));
    object("Feedback on a call or a trace.", columns.chain(fields("object  =feedback")))
}
