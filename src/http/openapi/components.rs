//! The schemas that several operations share, by name.

use serde_json::{Value, json};

use super::schema::{
    any, between, constant, count, flag, list, listing, map, moment, number, object, one_of, open, or_null, refer,
    text, whole, with,
};
use crate::catalog::Scope;
use crate::engine::Job;
use crate::record::{COLUMNS, Column, Kind, Rows};

/// All of them.
pub(super) fn schemas() -> Value {
    let all = [
        ("Failure", failure()),
        ("Message", message()),
        ("Record", open_record()),
        ("ListedLog", listed_log()),
        ("LogStatus", log_status()),
        ("LogObject", log_object()),
        ("Feedback", feedback()),
        ("Export", export()),
        ("Receipt", object("What became of the records of a request.", receipt_fields())),
        ("Rejection", rejection()),
        ("Organisation", organisation()),
        ("Plan", plan()),
        ("Key", object("An API key, without its text.", key_fields())),
        ("Scope", one_of(Scope::ALL.map(Scope::name), "what a key may do; `admin` stands for all of them")),
        ("Erasure", erasure()),
        ("ArchivedProviders", archived_providers()),
        ("Share", object("A share link, without what opens it.", share_fields())),
        ("SavedFilter", saved_filter()),
        ("JobRun", job_run()),
    ];
    Value::Object(all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect())
}

/// The one envelope, with the words of both families of Portkey's clients.
fn failure() -> Value {
    let message = || text("what is wrong, and what to do");
    open(object(
        "What every failure answers. Some have further fields beside these, such as the receipt of what was taken before.",
        [
            ("status", constant("failure")),
            ("success", json!({ "const": false })),
            ("message", message()),
            (
                "error",
                object("as Portkey's gateway says it", [("message", message()), ("code", text("a number or word"))]),
            ),
            (
                "data",
                object("as Portkey's API says it", [("message", message()), ("errorCode", text("such as `AB01`"))]),
            ),
        ],
    ))
}

fn message() -> Value {
    object(
        "One side of a call.",
        [
            ("body?", any("what was sent, any JSON")),
            ("headers?", any("the headers, an object of texts; secrets are masked")),
        ],
    )
}

/// A column in its JSON form.
fn cell(column: &Column) -> Value {
    let doc = column.doc;
    or_null(match column.kind {
        Kind::Text => text(doc),
        Kind::Int => whole(doc),
        Kind::Short => with(whole(doc), "format", "int32"),
        Kind::Float => number(doc),
        Kind::Bool => flag(doc),
        Kind::Time => moment(doc),
        Kind::Tags => map(text("a value"), doc),
        Kind::Message => refer("Message"),
    })
}

/// A record as it is sent: what a source does not know is left out.
fn open_record() -> Value {
    let names: Vec<(String, Value)> =
        COLUMNS.iter().map(|column| (format!("{}?", column.name), cell(column))).collect();
    let fields = names.iter().map(|(name, schema)| (name.as_str(), schema.clone()));
    object("A call to a model. What is not known is left out or null.", fields)
}

/// A record as lists show it.
fn listed_log() -> Value {
    let shown = COLUMNS.iter().filter(|column| column.kind != Kind::Message);
    let columns = shown.map(|column| (column.name, cell(column)));
    let further = [
        ("object", constant("log")),
        ("url", text("path of the log's own page")),
        ("status", refer("LogStatus")),
        ("weighted_feedback", or_null(number("weighted mean of the feedback on its trace and on it"))),
    ];
    object("A record without its bodies.", columns.chain(further))
}

fn log_status() -> Value {
    object(
        "The four Status labels.",
        [
            ("cache", text("such as `Cache Hit`")),
            ("retry", text("such as `Retry Success on 2 Tries`")),
            ("fallback", text("`Fallback Active` or `Fallback Disabled`")),
            ("loadbalance", text("`Loadbalancer Active` or `Loadbalancer Disabled`")),
        ],
    )
}

fn log_object() -> Value {
    let request = object(
        "what was sent",
        [
            ("url", or_null(text("URL of the provider"))),
            ("method", or_null(text("HTTP method"))),
            ("headers", any("the headers, secrets masked; null if not kept")),
            ("body", any("the body as it came; null if not kept, or if the key lacks `logs.read`")),
            ("portkeyHeaders", map(any("a value"), "the headers that were meant for the gateway")),
        ],
    );
    let response = object(
        "what came back",
        [
            ("status", or_null(whole("HTTP status"))),
            ("headers", any("the headers; null if not kept")),
            ("body", any("the body as it came; null if not kept, or if the key lacks `logs.read`")),
            ("responseTime", or_null(whole("ms"))),
            ("lastUsedOptionJsonPath", or_null(text("JSON path of the target that answered"))),
        ],
    );
    let links = object(
        "Where to go from here.",
        [
            ("own", text("the log's own page")),
            ("replay", text("its replay")),
            ("config", or_null(text("logs of the same config"))),
            ("prompt", or_null(text("logs of the same prompt"))),
            ("trace", or_null(text("logs of the same trace"))),
        ],
    );
    object(
        "A log, in Portkey's form.",
        [
            ("_id", or_null(text("id of the log"))),
            ("request", request),
            ("response", response),
            ("organisation_id", or_null(text("organisation that it belongs to"))),
            ("created_at", or_null(text("when, as JavaScript writes a date"))),
            ("metrics", metrics()),
            ("object", constant("log")),
            ("status", refer("LogStatus")),
            ("feedback", list(refer("Feedback"), "what was said of it, newest first")),
            ("weighted_feedback", or_null(number("weighted mean of that"))),
            ("links", links),
        ],
    )
}

/// Portkey's AnalyticsMetrics.
fn metrics() -> Value {
    const TEXTS: &str = "id, organisation_id, organisation_name, prompt_id, prompt_version_id, config_id, created_at, ai_org, \
                         ai_model, cost_currency, request_url, request_method, cache_status, cache_type, \
                         retry_success_count, trace_id, span_id, span_name, parent_span_id, mode, virtual_key, source, \
                         runtime, runtime_version, sdk_version, config, internal_trace_id, config_version_id, prompt_slug, \
                         workspace_slug, log_store_file_path_format, api_key_id, user_id, _user, extra_key, extra_value";
    const WHOLE: &str = "req_units, res_units, total_units, response_status_code, stream_mode, last_used_option_index";
    const MS: &str = "response_time, request_parsing_time, pre_processing_time, cache_processing_time, \
                      response_parsing_time, gateway_processing_time, upstream_response_time, ttlt";
    let each =
        |names: &'static str, schema: Value| names.split(", ").map(move |name| (name.trim(), or_null(schema.clone())));
    let fields = each(TEXTS, text("a text, null where it is not known"))
        .chain(each(WHOLE, whole("a whole number, null where it is not known")))
        .chain(each(MS, whole("ms, null where it is not known")))
        .chain([
            ("is_success", or_null(flag("whether the call succeeded"))),
            ("is_proxy_call", or_null(flag("whether the gateway only passed it on"))),
            ("cost", or_null(number("cents of `cost_currency`"))),
            ("metadata.key", list(text("a key"), "keys of the metadata")),
            ("metadata.value", list(text("a value"), "their values, in the same order")),
        ]);
    object("Figures of the call.", fields)
}

fn feedback() -> Value {
    let columns = Rows::Feedback.columns().iter().map(|column| (column.name, cell(column)));
    object("What somebody said of a call.", columns.chain([("object", constant("feedback"))]))
}

fn export() -> Value {
    let state = one_of(["draft", "in_progress", "success", "failed", "stopped"], "where it stands");
    object(
        "An export job.",
        [
            ("id", text("names it")),
            ("organisation_id", or_null(text("the organisation whose records it reads; null = all"))),
            ("filters", map(any("a value"), "which records, as it was asked")),
            ("requested_data", list(text("a key"), "keys of each line")),
            ("status", state),
            ("description", or_null(text("what it is for"))),
            ("created_at", moment("when it was made")),
            ("last_updated_at", moment("when it was changed last")),
            ("created_by", text("id of the key that made it")),
            ("workspace_id", or_null(text("the workspace whose records it reads; null = all of the organisation"))),
            ("object", constant("export")),
            ("total_records", count("records that match")),
            ("error", or_null(text("why it failed"))),
            ("records_written", or_null(count("lines written so far, or in the file"))),
            ("bytes_written", or_null(count("bytes written so far, or in the file"))),
            ("max_records", or_null(count("most lines that the plan lets a job write; null = all"))),
            ("started_at", or_null(moment("when it was started last"))),
            ("ended_at", or_null(moment("when it ended"))),
            (
                "file_expires_at",
                or_null(moment("from when on the file cannot be downloaded; null = never, or no file")),
            ),
            ("file_gone", or_null(text("why there is no file any more"))),
        ],
    )
}

/// The fields of a receipt.
pub(super) fn receipt_fields() -> [(&'static str, Value); 6] {
    [
        ("accepted", count("records that are stored now")),
        ("duplicate", count("records whose id was known; they are stored once")),
        ("over_quota", count("records that the organisation's plan does not store this month")),
        ("message?", text("what that means and what can be done")),
        ("rejected", count("records that were not taken")),
        ("rejections", list(refer("Rejection"), "why not, of the first 100")),
    ]
}

fn rejection() -> Value {
    object(
        "Why a record was not taken.",
        [
            ("record", count("which one of the request, from 0")),
            ("field", text("the field; `json` if the text is no JSON object")),
            ("value", text("the beginning of its value; empty where it may be private")),
            ("expected", text("what was expected")),
        ],
    )
}

fn organisation() -> Value {
    object(
        "An organisation.",
        [
            ("id", text("its id")),
            ("name", or_null(text("what people call it"))),
            ("plan", text("name of its plan")),
            ("retention_days", count("days that its records are kept, 0 = for ever")),
            ("workspaces", list(text("a slug"), "its workspaces")),
            ("created_at", moment("when it was created")),
            ("deleted_at", or_null(moment("when it was deleted; its records are being erased"))),
            ("records_this_month", count("records that it had stored this month (UTC)")),
            ("not_stored_this_month", count("records that its plan did not let be stored")),
            ("denied_fields", list(text("a field"), "what its keys may not export")),
            ("workspace_denied_fields", map(list(text("a field"), "fields"), "the same beside that, by workspace")),
        ],
    )
}

fn plan() -> Value {
    object(
        "A plan with its terms.",
        [
            ("name", text("its name")),
            (
                "retention_days",
                count("days that records are kept; 0 = for ever, unless an organisation agreed on less"),
            ),
            ("included?", count("records a calendar month (UTC); none = no limit")),
            ("over", one_of(["stop", "bill"], "whether records beyond those are not stored, or billed")),
            ("block_records", count("overage is billed in started blocks of so many records")),
            ("block_cents", count("price of a block, US cents")),
            ("export_days?", count("days that an export may reach back; 0 = no exports, none = any time frame")),
            ("export_rows?", count("records that one export job writes at most; none = all")),
        ],
    )
}

/// The fields of a key.
pub(super) fn key_fields() -> [(&'static str, Value); 9] {
    [
        ("id", text("names the key; says nothing about its text")),
        ("name", or_null(text("what it is for"))),
        ("organisation", or_null(text("the organisation that it is bound to; null = the operator's"))),
        ("workspace", or_null(text("the workspace that it is bound to"))),
        ("scopes", list(refer("Scope"), "what it may do")),
        ("state", one_of(["active", "expired", "revoked"], "whether it opens anything")),
        ("created_at", moment("when it was made")),
        ("expires_at", or_null(moment("from when on it opens nothing"))),
        ("revoked_at", or_null(moment("when it was revoked"))),
    ]
}

fn erasure() -> Value {
    object(
        "An erasure.",
        [
            ("id", text("names the erasure")),
            ("organisation", text("whose records are erased")),
            ("what", one_of(["all", "user", "ids"], "which of them")),
            ("user", or_null(text("the end user whose records are erased"))),
            ("ids", list(text("an id"), "the records that are erased")),
            ("requested_at", moment("when it was asked for; since then they are in no answer")),
            ("requested_by", text("id of the key that asked, or `cli`")),
            ("erased", count("records that were taken out of files so far")),
            ("last_run_at", or_null(moment("when the files were gone through for the last time"))),
        ],
    )
}

fn archived_providers() -> Value {
    let provider = object("A provider.", [("organisation", text("whose it is")), ("provider", text("its slug"))]);
    listing(provider, "Providers that were archived.")
}

/// The fields of a share link.
pub(super) fn share_fields() -> [(&'static str, Value); 9] {
    [
        ("object", constant("share")),
        ("id", text("names the link; opens nothing by itself")),
        ("organisation", text("the organisation that the log belongs to")),
        ("log_id", text("the log")),
        ("bodies", flag("whether bodies are shown")),
        ("created_by", text("id of the key that made it")),
        ("created_at", moment("when it was made")),
        ("expires_at", moment("from when on it opens nothing")),
        ("revoked_at", or_null(moment("when it was revoked"))),
    ]
}

fn saved_filter() -> Value {
    object(
        "A filter of the list of logs under a name.",
        [
            ("object", constant("saved-filter")),
            ("name", text("its name")),
            ("organisation", text("whose it is")),
            ("query", text("the fields of the filter, as a query string")),
            ("created_by", text("id of the key that saved it")),
            ("created_at", moment("when it was saved")),
        ],
    )
}

fn job_run() -> Value {
    object(
        "The last run of an upkeep job, and the next one.",
        [
            ("schedule", text("when it runs: an interval, or a cron expression in UTC")),
            ("started_at?", moment("when it began")),
            ("ended_at?", moment("when it ended")),
            ("seconds", number("how long it took, s")),
            ("did", list(text("a step"), "what it did; empty if there was nothing to do")),
            ("error?", text("why it failed")),
            ("failures", between(0, u64::from(u32::MAX), "failures in a row")),
            ("runs", count("runs so far")),
            ("next_at?", moment("when it is due again; none = never by itself")),
        ],
    )
}

/// Names of the upkeep jobs.
pub(super) fn jobs() -> [&'static str; Job::ALL.len()] {
    Job::ALL.map(Job::name)
}
