//! The schemas of the document by name: those that come from columns, those that several resources
//! share, and those of each resource.

use serde_json::{Map, Value};

use super::schema::{self, fields, kind, object, or_null, with};
use crate::record::{COLUMNS, Column, Kind, Rows};

/// Schemas that several resources share. A failure has the words of both families of Portkey's
/// clients.
const SHARED: &str = "\
Failure+  What every failure answers. Some have further fields, such as the receipt of what was taken before.
  status   =failure
  success  =false
  message  text           what is wrong, and what to do
  error    GatewayError
  data     ApiError

GatewayError  A failure as Portkey's gateway says it.
  message  text   what is wrong, and what to do
  code     text   a number or word

ApiError  A failure as Portkey's API says it.
  message    text   what is wrong, and what to do
  errorCode  text   such as `AB01`

Message  One side of a call.
  body?     any   what was sent, any JSON
  headers?  any   the headers, an object of texts; secrets are masked

Receipt  What became of the records of a request.
  accepted    count         records that are stored now
  duplicate   count         records whose id was known; they are stored once
  over_quota  count         records that the organisation's plan does not store this month
  past_retention  count     records among those accepted that are older than the organisation's plan keeps records
  message?    text          what that means and what can be done
  rejected    count         records that were not taken
  rejections  [Rejection]   why not, of the first 100

Rejection  Why a record was not taken.
  record    count   number of the record in the request, from 0
  line?     count   the line that it begins in, from 1
  field     text    the field; `json` if the text is no JSON object
  value     text    the beginning of its value; empty where it may be private
  expected  text    what was expected
  excerpt?  text    up to 200 characters of the record around the field, masked and redacted; not of calls that are not tracked, and of the first 20 only";

/// All of them.
pub(super) fn all() -> Map<String, Value> {
    let resources = [
        SHARED,
        super::logs::SCHEMAS,
        super::ingesting::SCHEMAS,
        super::querying::SCHEMAS,
        super::exporting::SCHEMAS,
        super::feedback::SCHEMAS,
        super::admin::SCHEMAS,
        super::system::SCHEMAS,
    ];
    let mut all = schema::schemas(&resources.join("\n\n"));
    let made = [
        ("Record", record()),
        ("ListedLog", listed_log()),
        ("LogMetrics", log_metrics()),
        ("Feedback", feedback()),
        ("ExportFilters", super::exporting::filters()),
    ];
    all.extend(made.map(|(name, schema)| (name.to_owned(), schema)));
    all
}

/// A column in its JSON form.
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

/// A record as it is sent.
fn record() -> Value {
    let columns = COLUMNS.iter().map(|column| (column.name, cell(column)));
    with(
        object("A call to a model. What is not known is left out or null.", columns),
        "required",
        Vec::<Value>::new(),
    )
}

/// A record as lists show it.
fn listed_log() -> Value {
    let shown = COLUMNS.iter().filter(|column| column.kind != Kind::Message);
    let further = "object  =log
        url  text  path of the log's own page
        status  LogStatus
        weighted_feedback  number?  weighted mean of the feedback on its trace and on it";
    object(
        "A record without its bodies.",
        shown.map(|column| (column.name, cell(column))).chain(fields(further)),
    )
}

/// Portkey's AnalyticsMetrics.
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
    let further = "is_success  flag?  whether the call succeeded
        is_proxy_call  flag?  whether the gateway only passed it on
        cost  number?  cents of `cost_currency`
        metadata.key  [text]  keys of the metadata
        metadata.value  [text]  their values, in the same order";
    let each = |names: &'static str, of: &'static str, doc: &'static str| {
        names.split_whitespace().map(move |name| (name, kind(of, doc)))
    };
    let figures =
        each(TEXTS, "text?", "").chain(each(NUMBERS, "whole?", "")).chain(each(MS, "whole?", "ms"));
    object("Figures of the call; null is not known.", figures.chain(fields(further)))
}

fn feedback() -> Value {
    let columns = Rows::Feedback.columns().iter().map(|column| (column.name, cell(column)));
    object("What somebody said of a call.", columns.chain(fields("object  =feedback")))
}
