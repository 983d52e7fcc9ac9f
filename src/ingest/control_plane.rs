//! Reads what Portkey's gateway 2.0 sends to its control plane, and the files of its log store, in
//! which each object is one file.
//!
//! For each call the gateway sends two parts under one id, seconds apart and in any order: a *log
//! object* with the bodies, which holds the metrics too, and later a row of the metrics alone. Rows
//! come in batches that name their table. For an unknown metric the gateway writes an empty text,
//! or 0 for a time; both become null. A cost of 0 is kept, since it may be meant. Columns that
//! gatelog does not have are ignored: names and ids of what has a slug, hashes of keys, and the
//! time that the gateway needed for its own work.
//!
//! Results of guardrails come as rows of a third table. They hold no content, and become feedback
//! without a value on the log that they belong to. They are found there, with their columns in the
//! metadata, which is cut like all metadata, and count neither as calls nor in averages. The texts
//! that the checks found are sent apart from them. Such a text may quote a call that must not be
//! tracked and does not name the call, so these texts are not stored.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;

use super::context::{Context, Headers, is_off};
use super::excerpt::{seen, whose};
use super::fields::{cut, flag, id, number, open, short, tags, text, time};
use super::mask;
use super::policy::name_provider;
use super::rejection::Rejection;
use super::usage::{Members, Usage, count, get};
use crate::parts::{RecordPart, join};
use crate::record::json::{
    Checks, FieldError, MAX_RECORD_BYTES, Reason, Seen, derive, finite, keep_last, list, members,
    too_large, unquote,
};
use crate::record::{Feedback, HIGHEST_VALUE, LOWEST_VALUE, Message, Record};

/// Source of calls that a client reported itself: the gateway measured nothing.
const REPORTED: &str = "proxy-log";
/// Source of feedback that holds the result of a guardrail.
const GUARDRAIL: &str = "guardrail";
/// Maximum number of metadata keys for the columns of a guardrail row.
const MAX_KEYS: usize = 100;
/// Metadata keys that a log may repeat as columns.
const TAG_COLUMNS: [&str; 4] = ["_user", "_environment", "_organisation", "_prompt"];

/// Content of a log object.
#[derive(Clone, Debug, PartialEq)]
pub enum Logged {
    /// A call.
    Call(Box<Record>),
    /// Organisation and workspace of texts that a guardrail found. The texts are not kept.
    Guardrail(Seen),
}

/// The rows of one batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Metrics of calls.
    pub record_parts: Vec<(RecordPart, Record)>,
    /// Feedback on calls, from people and from guardrails.
    pub feedback: Vec<Feedback>,
    /// Rejections of the first refused rows, counted from 0.
    pub rejections: Vec<Rejection>,
    /// Number of further refused rows, by the organisation that they name and the reason.
    pub further: BTreeMap<(Option<String>, Reason), u64>,
}

/// Maximum number of rejections that are described one by one.
const DESCRIBED: usize = 100;
/// Maximum number of rows. The gateway sends at most 6,000 at once. A row of a few bytes becomes a
/// record of more than a thousand.
const MAX_ROWS: usize = 20_000;

/// The tables that the gateway has.
#[derive(Clone, Copy)]
enum Table {
    Generations,
    Feedbacks,
    Hooks,
}

/// Reads the posted log of one call: `{"logObject":…,"logOptions":…}`.
pub fn log(raw: &[u8], context: &Context) -> Result<Logged, Rejection> {
    let raw = match utf8(raw) {
        Ok(raw) => finite(raw),
        Err(error) => return Err(rejection(0, error, "", context)),
    };
    let logged = members(&raw).ok_or_else(|| no_object(&raw)).and_then(|sent| {
        let expected = "a log object, with `_id`, `request` and `response`";
        get(&sent, &["logObject"]).ok_or_else(|| FieldError::missing("logObject", expected))
    });
    // The log object names the organisation, not the object around it.
    let object = logged.map_err(|error| rejection(0, error, &raw, context))?;
    read(object, Checks::from_text(&raw), context)
        .map_err(|error| rejection(0, error, object, context))
}

/// Reads one file of a log store.
pub fn file(raw: &[u8], context: &Context) -> Result<Logged, FieldError> {
    let raw = finite(utf8(raw)?.trim_start_matches('\u{feff}').trim());
    read(&raw, Checks::from_text(&raw), context)
}

/// Reads a batch of rows: `{"table":…,"data":[…]}`.
pub fn rows(raw: &[u8], context: &Context) -> Result<Batch, FieldError> {
    let raw = finite(utf8(raw)?);
    let sent = members(&raw).ok_or_else(|| no_object(&raw))?;
    let name = text(&sent, &["table"]).unwrap_or_default();
    let table = match name.as_str() {
        "generations" => Table::Generations,
        "feedbacks" => Table::Feedbacks,
        "generation_hooks" => Table::Hooks,
        _ => {
            return Err(FieldError::new(
                "table",
                &name,
                "generations, feedbacks or generation_hooks",
            ));
        }
    };
    let data = get(&sent, &["data"])
        .and_then(list)
        .ok_or_else(|| FieldError::missing("data", "an array of rows"))?;
    if data.len() > MAX_ROWS {
        return Err(FieldError::silent(
            "data",
            format!("at most {MAX_ROWS} rows, not {}", data.len()),
        )
        .because(Reason::TooLarge));
    }
    let mut batch = Batch::default();
    for (number, row) in (0..).zip(data) {
        let taken = members(row).ok_or_else(|| no_object(row)).and_then(|row| match table {
            Table::Generations => {
                time(&row, &["created_at"])?;
                let figures = kept(figures(&row), context)?;
                batch.record_parts.push((RecordPart::Figures, figures));
                Ok(())
            }
            Table::Feedbacks => feedback(&row).map(|feedback| batch.feedback.push(feedback)),
            Table::Hooks => guardrail(&row).map(|feedback| batch.feedback.push(feedback)),
        });
        if let Err(error) = taken {
            match batch.rejections.len() {
                0..DESCRIBED => batch.rejections.push(rejection(number, error, row, context)),
                _ => {
                    *batch.further.entry((whose(row).organisation, error.reason)).or_default() += 1
                }
            }
        }
    }
    Ok(batch)
}

/// Builds a rejection with the organisation and excerpt of the row or log object in the text.
fn rejection(number: u64, error: FieldError, text: &str, context: &Context) -> Rejection {
    let seen = seen(text, &error, context);
    Rejection::new(number, error.seen(seen))
}

fn utf8(raw: &[u8]) -> Result<&str, FieldError> {
    str::from_utf8(raw).map_err(|error| {
        FieldError::silent("json", format!("UTF-8 text (byte {} is not)", error.valid_up_to()))
    })
}

/// Returns the error for a text that is not a JSON object, in words that do not quote the text.
fn no_object(raw: &str) -> FieldError {
    match serde_json::from_str::<IgnoredAny>(raw) {
        Ok(_) => FieldError::silent("json", "one JSON object"),
        Err(error) => {
            FieldError::silent("json", format!("one JSON object; this is not valid JSON ({error})"))
        }
    }
}

/// Reads a log object: the metrics in `metrics`, and the bodies and headers.
fn read(raw: &str, checks: Checks, context: &Context) -> Result<Logged, FieldError> {
    let object = members(raw).ok_or_else(|| no_object(raw))?;
    let metrics = get(&object, &["metrics"]).and_then(members).unwrap_or_default();
    if get(&object, &["request"]).is_none() {
        return match get(&object, &["hook_id"]) {
            Some(_) => Ok(Logged::Guardrail(whose(raw))),
            None => Err(FieldError::missing("request", "an object, next to an object `response`")),
        };
    }
    let content = content_of(&object, checks, metrics.is_empty().then_some(context))?;
    let figures = figures(&metrics);
    if figures.id.is_some() && content.id.is_some() && figures.id != content.id {
        return Err(FieldError::silent("metrics.id", "the same as `_id`"));
    }
    let whole = join(figures, content);
    if whole.created_at.is_none() {
        time(&metrics, &["created_at"]).and(time(&object, &["created_at"]))?;
        return Err(FieldError::missing("created_at", "a time"));
    }
    kept(whole, context).map(|record| Logged::Call(Box::new(record)))
}

/// Applies limits and policy to a record before it is stored. The engine sets the organisation of a
/// record that names none.
fn kept(mut record: Record, context: &Context) -> Result<Record, FieldError> {
    if record.id.is_none() {
        return Err(FieldError::missing("id", "the id of the log"));
    }
    let texts = [&record.request, &record.response].map(|side| [&side.body, &side.headers]);
    if texts.into_iter().flatten().flatten().map(String::len).sum::<usize>() > MAX_RECORD_BYTES {
        return Err(too_large(MAX_RECORD_BYTES));
    }
    context.policy.limit(&mut record)?;
    name_provider(&mut record);
    context.policy.protect(&mut record);
    Ok(record)
}

/// Reads a row of `generations`, or the `metrics` of a log object, which have the same fields.
fn figures(row: &Members<'_>) -> Record {
    let name = |name: &str| text(row, &[name]);
    let upper = |name: &str| text(row, &[name]).map(|text| text.to_ascii_uppercase());
    let measured = |name: &str| count(row, &[name]).filter(|ms| *ms > 0);
    let source = name("source");
    let response_time =
        count(row, &["response_time"]).filter(|ms| *ms > 0 || source.as_deref() != Some(REPORTED));
    let mut record = Record {
        id: id(row, &["id"]),
        organisation_id: name("organisation_id"),
        workspace_slug: name("workspace_slug"),
        created_at: time(row, &["created_at"]).unwrap_or_default(),
        is_success: flag(row, &["is_success"]).map(i32::from),
        ai_org: name("ai_org"),
        ai_model: name("ai_model"),
        req_units: count(row, &["req_units"]),
        res_units: count(row, &["res_units"]),
        total_units: count(row, &["total_units"]),
        cost: number(row, &["cost"]).filter(|cents| *cents >= 0.0),
        cost_currency: upper("cost_currency"),
        request_url: name("request_url"),
        request_method: upper("request_method"),
        response_status_code: short(row, &["response_status_code"]),
        response_time,
        time_to_last_token: measured("ttlt"),
        upstream_response_time: measured("upstream_response_time"),
        cache_status: upper("cache_status"),
        cache_type: upper("cache_type"),
        stream_mode: flag(row, &["stream_mode"]),
        retry_success_count: short(row, &["retry_success_count"]),
        mode: upper("mode"),
        virtual_key: name("virtual_key"),
        config: name("config"),
        prompt_slug: name("prompt_slug"),
        prompt_version_id: name("prompt_version_id"),
        runtime: name("runtime"),
        runtime_version: name("runtime_version"),
        sdk_version: name("sdk_version"),
        trace_id: name("trace_id"),
        span_id: name("span_id"),
        parent_span_id: name("parent_span_id"),
        span_name: name("span_name"),
        internal_trace_id: name("internal_trace_id"),
        api_key_id: name("api_key_id"),
        source,
        do_not_track: untracked(row),
        metadata: pairs(row, "metadata.key", "metadata.value"),
        ..Record::default()
    };
    for column in TAG_COLUMNS {
        if let Some(value) =
            name(column).filter(|_| !record.metadata.iter().any(|(key, _)| key == column))
        {
            record.metadata.push((column.to_owned(), cut(&value)));
        }
    }
    derive(&mut record);
    // The owner of the API key is the user if the caller names none.
    record.user_id = record.user_id.or_else(|| name("user_id"));
    record
}

/// Returns true if the gateway kept no content, so that the call is not to be tracked; `None` if
/// the row does not say.
fn untracked(row: &Members<'_>) -> Option<bool> {
    let says = text(row, &["extra_key"])? == "is_raw_logging_enabled";
    let enabled = text(row, &["extra_value"]).filter(|_| says)?;
    Some(is_off(&enabled))
}

/// Reads the fields of a log object outside of its `metrics`. With `alone`, for a log object
/// without metrics, also reads headers and bodies, under the policy of that context.
fn content_of(
    object: &Members<'_>,
    checks: Checks,
    alone: Option<&Context>,
) -> Result<Record, FieldError> {
    let side = |name: &str| get(object, &[name]).and_then(members).unwrap_or_default();
    let request = side("request");
    let response = side("response");
    let gateway = get(&request, &["portkeyHeaders"]).map(open).unwrap_or(Cow::Borrowed("{}"));
    let gateway = members(&gateway).unwrap_or_default();
    // The request to the provider and its answer replace the client's own side if that was not
    // kept.
    let asked = [&request, &side("finalUntransformedRequest"), &side("transformedRequest")];
    let asked = asked.into_iter().find_map(|side| get(side, &["body"]));
    let answered = get(&response, &["body"]).or_else(|| get(&side("originalResponse"), &["body"]));
    let mut record = Record {
        id: id(object, &["_id"]),
        organisation_id: text(object, &["organisation_id"]),
        created_at: time(object, &["created_at"]).unwrap_or_default(),
        request_url: text(&request, &["url"]),
        request_method: text(&request, &["method"]).map(|method| method.to_ascii_uppercase()),
        response_status_code: short(&response, &["status"]),
        response_time: count(&response, &["responseTime"]),
        last_used_option: text(&response, &["lastUsedOptionJsonPath"]),
        request: Message {
            body: payload("request.body", asked, checks)?,
            headers: headers(get(&request, &["headers"]), &gateway),
        },
        response: Message {
            body: payload("response.body", answered, checks)?,
            headers: headers(get(&response, &["headers"]), &[]),
        },
        ..Record::default()
    };
    if let Some(context) = alone {
        by_itself(&mut record, &gateway, context);
    }
    Ok(record)
}

/// Reads the metrics of a log without `metrics` from its bodies and from the headers that were
/// meant for the gateway.
fn by_itself(record: &mut Record, gateway: &Members<'_>, context: &Context) {
    let headers = Headers::read(|name| text(gateway, &[name]));
    let asked = record.request.body.as_deref().and_then(members).unwrap_or_default();
    let reply = record.response.body.as_deref().and_then(members).unwrap_or_default();
    let usage = Usage::from_reply(&asked, record.response.body.as_deref());
    record.ai_model = text(&asked, &["model"]).or_else(|| text(&reply, &["model", "modelVersion"]));
    record.stream_mode = flag(&asked, &["stream"]);
    record.req_units = usage.request;
    record.res_units = usage.response;
    record.total_units = usage.total;
    record.ai_org = headers.provider;
    record.virtual_key = headers.virtual_key;
    record.config = headers.config.filter(|config| !config.trim_start().starts_with(['{', '[']));
    record.runtime = headers.runtime;
    record.runtime_version = headers.runtime_version;
    record.sdk_version = headers.sdk_version;
    record.trace_id = headers.trace_id;
    record.span_id = headers.span_id;
    record.parent_span_id = headers.parent_span_id;
    record.span_name = headers.span_name;
    record.metadata = headers.metadata.as_deref().map(tags).unwrap_or_default();
    record.do_not_track = headers.debug.as_deref().map(is_off);
    derive(record);
    context.policy.price(record, &usage.billed);
}

/// Returns a body as it is stored.
fn payload(field: &str, raw: Option<&str>, checks: Checks) -> Result<Option<String>, FieldError> {
    let Some(raw) = raw else { return Ok(None) };
    checks.payload(raw).map(Some).ok_or_else(|| FieldError::too_deep(field))
}

/// Returns the headers that were sent to the provider, followed by those that were meant for the
/// gateway, with secrets masked.
fn headers(raw: Option<&str>, gateway: &Members<'_>) -> Option<String> {
    let own = raw.map(open);
    let own = own.as_deref().and_then(members);
    let forwarded = || gateway.iter().filter(|(_, raw)| *raw != "null");
    if own.is_none() && forwarded().next().is_none() {
        return None;
    }
    let mut all = Vec::new();
    for (name, value) in own.iter().flatten().chain(forwarded()) {
        all.push(if all.is_empty() { b'{' } else { b',' });
        crate::record::json::write_string(&mut all, name);
        all.push(b':');
        all.extend_from_slice(value.as_bytes());
    }
    all.extend_from_slice(if all.is_empty() { b"{}" } else { b"}" });
    mask::headers(&String::from_utf8(all).ok()?)
}

/// Reads a row of `feedbacks`. A changed row is sent again, with the time of the change:
/// [`super::feedback::states`] applies it.
fn feedback(row: &Members<'_>) -> Result<Feedback, FieldError> {
    let trace_id = id(row, &["trace_id"])
        .ok_or_else(|| FieldError::missing("trace_id", "the trace that the feedback is about"))?;
    let within = |field: &str, lowest: f64, highest: f64| match number(row, &[field]) {
        Some(number) if (lowest..=highest).contains(&number) => Ok(number),
        other => {
            let value = other.map(|number| number.to_string()).unwrap_or_default();
            Err(FieldError::new(field, &value, format!("a number from {lowest} to {highest}")))
        }
    };
    let metadata = pairs(row, "meta.key", "meta.value");
    let said_at = time(row, &["created_at"])?;
    Ok(Feedback {
        value: Some(within("value", LOWEST_VALUE, HIGHEST_VALUE)?),
        weight: Some(if get(row, &["weight"]).is_some() {
            within("weight", 0.0, 1.0)?
        } else {
            1.0
        }),
        user_id: metadata.iter().find(|(key, _)| key == "_user").map(|(_, user)| user.clone()),
        metadata,
        source: text(row, &["source"]),
        ..bound(row, said_at, trace_id)
    })
}

/// Reads a row of `generation_hooks`. Columns without a field of their own go into the metadata.
fn guardrail(row: &Members<'_>) -> Result<Feedback, FieldError> {
    const PLACED: [&str; 6] =
        ["id", "organisation_id", "workspace_slug", "created_at", "trace_id", "generation_id"];
    let log_id = id(row, &["generation_id"]).ok_or_else(|| {
        FieldError::missing("generation_id", "the id of the log that was checked")
    })?;
    let trace_id = id(row, &["trace_id"]).unwrap_or_else(|| log_id.clone());
    let rest = row.iter().filter(|(name, raw)| *raw != "null" && !PLACED.contains(&&**name));
    let mut metadata = rest.map(|(name, raw)| (cut(name), cut(&plain(raw)))).collect();
    keep_last(&mut metadata);
    metadata.truncate(MAX_KEYS);
    Ok(Feedback {
        log_id: Some(log_id),
        source: Some(GUARDRAIL.to_owned()),
        metadata,
        ..bound(row, time(row, &["created_at"])?, trace_id)
    })
}

/// Builds the fields that all kinds of feedback have.
fn bound(row: &Members<'_>, said_at: Option<DateTime<Utc>>, trace_id: String) -> Feedback {
    Feedback {
        id: id(row, &["id"]),
        organisation_id: text(row, &["organisation_id"]),
        workspace_slug: text(row, &["workspace_slug"]),
        created_at: said_at,
        updated_at: said_at,
        trace_id: Some(trace_id),
        ..Feedback::default()
    }
}

/// Reads metadata from parallel arrays. A key without a value is left out.
fn pairs(row: &Members<'_>, keys: &str, values: &str) -> Vec<(String, String)> {
    let column = |name: &str| get(row, &[name]).and_then(list).unwrap_or_default();
    let pairs = column(keys).into_iter().zip(column(values)).filter(|(_, value)| *value != "null");
    let mut pairs = pairs.map(|(key, value)| (cut(&plain(key)), cut(&plain(value)))).collect();
    keep_last(&mut pairs);
    pairs
}

/// Returns the text of a value, or its JSON if it is not a text.
fn plain(raw: &str) -> String {
    if raw.starts_with('"') { unquote(raw).into_owned() } else { raw.to_owned() }
}
