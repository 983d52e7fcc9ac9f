//! A record as Portkey's LogObject, the response of `GET /v1/logs/{id}`.
//!
//! The names are Portkey's, as are the formats of times and numbers, which differ between the two
//! parts of the object: `created_at` is the text of a JavaScript date, `metrics.created_at` a time
//! with a space, `retry_success_count` a text, `mode` and `cache_type` lower case. Missing values
//! are null. Bodies and headers are embedded as they were stored. Beside Portkey's fields there are
//! `status`, the four labels; `feedback` on the record, with its weighted mean; `links` to the
//! record's own URL and to the records of the same config, prompt and trace; and `withheld`, the
//! columns that are null because the key may not read them, if there are any.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::feedback::{self, LogFeedback};
use super::hidden;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::record::json::{members, write_string};

/// Prefix of headers for the gateway.
const GATEWAY_HEADERS: &str = "x-portkey-";

#[derive(Serialize)]
struct LogObject<'a> {
    #[serde(rename = "_id")]
    id: Option<&'a str>,
    request: Request<'a>,
    response: Response<'a>,
    organisation_id: Option<&'a str>,
    created_at: Option<String>,
    metrics: Metrics<'a>,
    object: &'static str,
    status: Value,
    feedback: Vec<Value>,
    weighted_feedback: Value,
    links: Links,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    withheld: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    url: Option<&'a str>,
    method: Option<&'a str>,
    headers: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
    portkey_headers: Box<RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    status: Option<i32>,
    headers: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
    response_time: Option<i64>,
    last_used_option_json_path: Option<&'a str>,
}

/// Links to related records.
#[derive(Serialize)]
struct Links {
    own: String,
    replay: String,
    config: Option<String>,
    prompt: Option<String>,
    trace: Option<String>,
}

/// Defines a struct, and its construction from a record, from one list.
macro_rules! metrics {
    (
        $record:ident, $organisation_name:ident, $withheld:ident;
        $($(#[$form:meta])* $field:ident: $type:ty = $value:expr,)*
    ) => {
        /// Portkey's AnalyticsMetrics.
        #[derive(Serialize)]
        struct Metrics<'a> { $($(#[$form])* $field: $type,)* }

        fn metrics<'a>(
            $record: &'a Record,
            $organisation_name: Option<&'a str>,
            $withheld: &[String],
        ) -> Metrics<'a> {
            Metrics { $($field: $value,)* }
        }
    };
}

metrics! {
    record, organisation_name, withheld;
    id: Option<&'a str> = record.id.as_deref(),
    organisation_id: Option<&'a str> = record.organisation_id.as_deref(),
    organisation_name: Option<&'a str> = organisation_name,
    prompt_id: Option<&'a str> = None,
    prompt_version_id: Option<&'a str> = record.prompt_version_id.as_deref(),
    config_id: Option<&'a str> = None,
    created_at: Option<String> = record.created_at.map(|at| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()),
    is_success: Option<bool> = record.is_success.map(|success| success == 1),
    ai_org: Option<&'a str> = record.ai_org.as_deref(),
    ai_model: Option<&'a str> = record.ai_model.as_deref(),
    req_units: Option<i64> = record.req_units,
    res_units: Option<i64> = record.res_units,
    total_units: Option<i64> = record.total_units,
    cost: Option<f64> = record.cost,
    cost_currency: Option<&'a str> = record.cost_currency.as_deref(),
    request_url: Option<&'a str> = record.request_url.as_deref(),
    request_method: Option<&'a str> = record.request_method.as_deref(),
    response_status_code: Option<i32> = record.response_status_code,
    response_time: Option<i64> = record.response_time,
    is_proxy_call: Option<bool> = None,
    cache_status: Option<&'a str> = record.cache_status.as_deref(),
    cache_type: Option<String> = lower(&record.cache_type),
    stream_mode: Option<u8> = record.stream_mode.map(u8::from),
    retry_success_count: Option<String> = record.retry_success_count.map(|count| count.to_string()),
    trace_id: Option<&'a str> = record.trace_id.as_deref(),
    span_id: Option<&'a str> = record.span_id.as_deref(),
    span_name: Option<&'a str> = record.span_name.as_deref(),
    parent_span_id: Option<&'a str> = record.parent_span_id.as_deref(),
    mode: Option<String> = lower(&record.mode),
    virtual_key: Option<&'a str> = record.virtual_key.as_deref(),
    source: Option<&'a str> = record.source.as_deref(),
    runtime: Option<&'a str> = record.runtime.as_deref(),
    runtime_version: Option<&'a str> = record.runtime_version.as_deref(),
    sdk_version: Option<&'a str> = record.sdk_version.as_deref(),
    config: Option<&'a str> = record.config.as_deref(),
    internal_trace_id: Option<&'a str> = record.internal_trace_id.as_deref(),
    // A path is not a number; Portkey then returns -1.
    last_used_option_index: Option<i32> = record.last_used_option.as_ref().map(|_| -1),
    config_version_id: Option<&'a str> = None,
    prompt_slug: Option<&'a str> = record.prompt_slug.as_deref(),
    workspace_slug: Option<&'a str> = record.workspace_slug.as_deref(),
    log_store_file_path_format: Option<&'a str> = None,
    #[serde(rename = "metadata.key")]
    metadata_key: Vec<&'a str> = record.metadata.iter().map(|(key, _)| key.as_str()).collect(),
    #[serde(rename = "metadata.value")]
    metadata_value: Vec<&'a str> = record.metadata.iter().map(|(_, value)| value.as_str()).collect(),
    api_key_id: Option<&'a str> = record.api_key_id.as_deref(),
    request_parsing_time: Option<i64> = None,
    pre_processing_time: Option<i64> = None,
    cache_processing_time: Option<i64> = None,
    response_parsing_time: Option<i64> = None,
    gateway_processing_time: Option<i64> = None,
    upstream_response_time: Option<i64> = record.upstream_response_time,
    user_id: Option<&'a str> = record.user_id.as_deref(),
    #[serde(rename = "_user")]
    user: Option<&'a str> = record.metadata.iter().find(|(key, _)| key == "_user").map(|(_, value)| value.as_str()),
    ttlt: Option<i64> = record.time_to_last_token,
    extra_key: &'static str = "is_raw_logging_enabled",
    extra_value: Option<&'static str> = if withheld.iter().any(|name| name == "do_not_track") {
        None
    } else if record.do_not_track == Some(true) {
        Some("false")
    } else {
        Some("true")
    },
}

/// Encodes the LogObject of a record as JSON.
///
/// `withheld` names the columns that the reader may not see. They have been removed from the
/// record.
pub(crate) fn object(
    record: &Record,
    organisation_name: Option<&str>,
    log_feedback: &LogFeedback,
    withheld: &[String],
) -> Result<String> {
    let headers = record.request.headers.as_deref();
    let object = LogObject {
        id: record.id.as_deref(),
        request: Request {
            url: record.request_url.as_deref(),
            method: record.request_method.as_deref(),
            headers: raw(headers)?,
            body: raw(record.request.body.as_deref())?,
            portkey_headers: gateway_headers(headers)?,
        },
        response: Response {
            status: record.response_status_code,
            headers: raw(record.response.headers.as_deref())?,
            body: raw(record.response.body.as_deref())?,
            response_time: record.response_time,
            last_used_option_json_path: record.last_used_option.as_deref(),
        },
        organisation_id: record.organisation_id.as_deref(),
        created_at: record.created_at.map(javascript_date),
        metrics: metrics(record, organisation_name, withheld),
        object: "log",
        status: hidden::labels(record, withheld).map_err(unwritable)?,
        feedback: log_feedback.feedback.iter().map(feedback::shown).collect(),
        weighted_feedback: feedback::number(log_feedback.weighted),
        links: links(record),
        withheld,
    };
    serde_json::to_string(&object).map_err(unwritable)
}

fn unwritable(cause: serde_json::Error) -> Error {
    Error::internal("cannot encode a log").with_source(cause)
}

fn lower(text: &Option<String>) -> Option<String> {
    text.as_deref().map(str::to_lowercase)
}

fn links(record: &Record) -> Links {
    let id = record.id.as_deref().unwrap_or_default();
    let same = |name: &str, value: &Option<String>| {
        let value = value.as_deref().filter(|value| !value.is_empty())?;
        let value = super::filter::list_of_one(value);
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair(name, &value).finish();
        Some(format!("/v1/logs?{query}"))
    };
    Links {
        own: own_url(id),
        replay: api_url(id, "/replay"),
        config: same("configs", &record.config),
        prompt: same("prompt_slug", &record.prompt_slug),
        trace: same("trace_id", &record.trace_id),
    }
}

/// Words that mean another route where `/v1/logs/{id}` has an id, or at the start of such a path.
pub const ROUTE_WORDS: [&str; 5] = ["enterprise", "exports", "filters", "groups", "otel"];
/// Placeholder in the path for an id that a path cannot contain. The id is then in the query's
/// `id`.
pub const ID_IN_QUERY: &str = "-";

/// Returns the path of a record's own URL, with the query that it may need.
pub(crate) fn own_url(id: &str) -> String {
    url_of("/logs/", id, "", is_dots(id))
}

/// Returns the URL of a log in the API, `/v1/logs/{id}`, with a suffix after the id.
pub(crate) fn api_url(id: &str, behind: &str) -> String {
    url_of("/v1/logs/", id, behind, is_dots(id) || ROUTE_WORDS.contains(&id))
}

fn url_of(before: &str, id: &str, behind: &str, in_query: bool) -> String {
    let escaped = escaped(id);
    if in_query {
        format!("{before}{ID_IN_QUERY}{behind}?id={escaped}")
    } else {
        format!("{before}{escaped}{behind}")
    }
}

/// Escapes a part of a path, or a value of a query: everything but the unreserved characters of RFC
/// 3986. The `url` crate escapes less, and removes tabs and line breaks.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Returns true for parts that clients remove from a path, escaped or not. An empty one is not a
/// part.
fn is_dots(id: &str) -> bool {
    matches!(id, "" | "." | "..")
}

fn raw(text: Option<&str>) -> Result<Option<&RawValue>> {
    let wrong = |_| Error::internal("a stored body or headers are not JSON");
    text.map(|text| serde_json::from_str(text).map_err(wrong)).transpose()
}

/// Returns the headers for the gateway.
fn gateway_headers(headers: Option<&str>) -> Result<Box<RawValue>> {
    let all = headers.and_then(members).unwrap_or_default();
    let mut out = String::from("{");
    for (name, value) in
        all.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with(GATEWAY_HEADERS))
    {
        let mut key = Vec::new();
        write_string(&mut key, name);
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&String::from_utf8_lossy(&key));
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    RawValue::from_string(out).map_err(|_| Error::internal("stored headers are not JSON"))
}

fn javascript_date(at: DateTime<Utc>) -> String {
    at.format("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)").to_string()
}
