//! Reads the payload of LiteLLM's generic API callback: its `StandardLoggingPayload`, one object
//! per call in any batching, and the older payload (`generic_api_use_v1`), in which every value is
//! a text.
//!
//! Dollars become cents by moving the decimal point in their text, and seconds become milliseconds.
//! Like Portkey's, this format is read leniently: an invalid optional value is null, and unknown
//! keys are ignored.
//!
//! LiteLLM logs every attempt of a call under the id of the call: retries, fallbacks, and each poll
//! of a batch that is still running. So the id of a record is the call's id followed by a hash of
//! what distinguishes attempts ([`attempt_id`]). An attempt that is sent again is stored once, and
//! no attempt hides another. The call's own id becomes `internal_trace_id`, which the attempts
//! share.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::context::{Context, is_off};
use super::fields::{cut, flag, id, number, open, short, tags, text, time};
use super::mask;
use super::usage::{Members, Tier, Usage, cents, count, get};
use crate::record::json::{
    Checks, FieldError, MAX_RECORD_BYTES, derive, embeddable, keep_last, members, too_large,
    write_string,
};
use crate::record::{Message, Record, attempt};

const SOURCE: &str = "litellm";
/// Status of a failure that states none.
const FAILED: i32 = 500;
/// Keys of which every payload, old or new, has at least one.
const MARKS: [&str; 6] = ["call_type", "messages", "response", "model", "startTime", "status"];

/// Reads one record.
pub(super) fn read(raw: &str, context: &Context) -> Result<Record, FieldError> {
    let raw = raw.trim();
    if raw.len() > MAX_RECORD_BYTES {
        return Err(too_large(MAX_RECORD_BYTES));
    }
    let item = members(raw).ok_or_else(|| FieldError::silent("json", "one JSON object"))?;
    if get(&item, &MARKS).is_none() {
        return Err(FieldError::missing(
            "call_type",
            "a call as LiteLLM logs it, with `model`, `messages` and `response`",
        ));
    }
    let checks = Checks::from_text(raw);
    let inner = |name: &str| get(&item, &[name]).map(open);
    let meta_text = inner("metadata");
    let hidden_text = inner("hidden_params");
    let meta = meta_text.as_deref().and_then(members).unwrap_or_default();
    let hidden = hidden_text.as_deref().and_then(members).unwrap_or_default();

    let mut record = plain(&item, &meta, context);
    times(&mut record, &item)?;
    outcome(&mut record, &item);
    let reply_text = inner("response");
    let usage = usage(&item, &meta, &hidden, reply_text.as_deref());
    record.req_units = usage.request;
    record.res_units = usage.response;
    record.total_units = usage.total;
    // If LiteLLM cannot compute the cost, it writes 0 and the reason.
    let is_known = get(
        &item,
        &["response_cost_failure_debug_info", "response_cost_failure_debug_information"],
    )
    .is_none();
    record.cost = get(&item, &["response_cost", "cost"])
        .filter(|_| is_known)
        .and_then(|raw| cents(&open(raw)));
    if record.cost.is_some() {
        record.cost_currency = Some("USD".to_owned());
    }
    record.metadata = labels(&item, &meta, checks);
    derive(&mut record);
    if asks_not_to_track(&meta) {
        record.do_not_track = Some(true);
    }
    record.request = Message { body: request(&item, checks)?, headers: None };
    record.response = Message { body: response(&item, checks)?, headers: None };
    context.policy.price(&mut record, &usage.billed);
    Ok(record)
}

/// Copies the fields that need no conversion.
fn plain(item: &Members<'_>, meta: &Members<'_>, context: &Context) -> Record {
    let prompt = get(meta, &["prompt_management_metadata"]).and_then(members).unwrap_or_default();
    let hit = flag(item, &["cache_hit"]);
    let cache_status = match hit {
        Some(true) => "HIT",
        Some(false) => "MISS",
        None => "DISABLED",
    };
    let call_id = id(item, &["id"]);
    Record {
        id: call_id.as_deref().map(|call_id| attempt_id(call_id, item)),
        internal_trace_id: call_id,
        ai_org: text(item, &["custom_llm_provider"]),
        ai_model: text(item, &["model"]),
        request_url: text(item, &["api_base"]),
        request_method: Some("POST".to_owned()),
        cache_status: Some(cache_status.to_owned()),
        stream_mode: flag(item, &["stream"]),
        retry_success_count: Some(0),
        mode: Some("SINGLE".to_owned()),
        virtual_key: text(meta, &["user_api_key_alias"])
            .or_else(|| text(meta, &["user_api_key_hash"])),
        config: text(item, &["model_group"]),
        prompt_slug: text(&prompt, &["prompt_id"]),
        runtime: Some("litellm".to_owned()),
        sdk_version: context.headers.sdk_version.clone(),
        trace_id: id(item, &["trace_id"]),
        span_name: text(item, &["call_type"]),
        source: Some(SOURCE.to_owned()),
        ..Record::default()
    }
}

/// Returns the id of one attempt: the call's id and a hash of what distinguishes its attempts. The
/// hash depends only on the payload, so an attempt that is sent again gets the same id. It leaves
/// out what differs if LiteLLM logs one attempt twice, such as the end time.
fn attempt_id(call_id: &str, item: &Members<'_>) -> String {
    let start = match time(item, &["startTime"]) {
        Ok(Some(start)) => Some(start.timestamp_micros().to_string()),
        _ => text(item, &["startTime"]),
    };
    let mut hash = Sha256::new();
    let names = ["call_type", "status", "custom_llm_provider", "model", "model_id", "api_base"];
    for part in [start].into_iter().chain(names.map(|name| text(item, &[name]))) {
        hash.update(part.unwrap_or_default());
        hash.update([0]);
    }
    let hash: [u8; 32] = hash.finalize().into();
    attempt::attempt_id(call_id, *hash.first_chunk().unwrap_or(&[0; attempt::HASH_BYTES]))
}

/// Sets the times, converted from seconds to milliseconds. For a stream, `response_time` is the
/// time to the first token.
fn times(record: &mut Record, item: &Members<'_>) -> Result<(), FieldError> {
    let start = time(item, &["startTime"])?;
    let between = |name: &str| {
        let micros = (time(item, &[name]).ok()?? - start?).num_microseconds()?;
        // Half a millisecond is rounded up, as for times that are stated in seconds.
        (micros >= 0).then_some((micros + 500) / 1_000)
    };
    record.created_at = start;
    let stated = number(item, &["response_time"]).filter(|seconds| (0.0..1e9).contains(seconds));
    let stated = stated.map(|seconds| (seconds * 1e3).round() as i64);
    if record.stream_mode == Some(true) {
        record.response_time = stated.or_else(|| between("completionStartTime"));
        record.time_to_last_token = between("endTime");
    } else {
        record.response_time = stated.or_else(|| between("endTime"));
    }
    Ok(())
}

fn outcome(record: &mut Record, item: &Members<'_>) {
    let error = get(item, &["error_information"]).and_then(members).unwrap_or_default();
    let failed = match text(item, &["status"]).as_deref() {
        Some(status) => !status.eq_ignore_ascii_case("success"),
        // The older payload has no status, and is sent only for successes.
        None => false,
    };
    let code = short(&error, &["error_code"]).filter(|code| (100..600).contains(code));
    record.response_status_code = Some(if failed { code.unwrap_or(FAILED) } else { 200 });
    record.is_success = Some(i32::from(!failed));
}

/// Counts tokens as LiteLLM does, and their kinds as the provider states them.
fn usage(
    item: &Members<'_>,
    meta: &Members<'_>,
    hidden: &Members<'_>,
    reply: Option<&str>,
) -> Usage {
    let parameters = get(item, &["model_parameters", "modelParameters"]).map(open);
    let asked = parameters.as_deref().and_then(members).unwrap_or_default();
    // The reply states the tier too, which the usage does not always do.
    let mut usage = Usage::from_reply(&asked, reply);
    let counted = [meta, hidden].iter().find_map(|of| get(of, &["usage_object"]).and_then(members));
    if let Some(counted) = counted.map(|counted| Usage::from_object(&counted)) {
        let tier = if counted.billed.tier == Tier::Standard {
            usage.billed.tier
        } else {
            counted.billed.tier
        };
        usage = counted;
        usage.billed.tier = tier;
    }
    let old = get(item, &["usage"]).map(open);
    let old = |name: &str| repr_number(old.as_deref()?, name);
    usage.with_counts(
        count(item, &["prompt_tokens"]).or_else(|| old("prompt_tokens")),
        count(item, &["completion_tokens"]).or_else(|| old("completion_tokens")),
        count(item, &["total_tokens"]).or_else(|| old("total_tokens")),
    )
}

/// Reads the number that follows a name in the text of a Python object: `Usage(prompt_tokens=9, …)`
/// or `{'prompt_tokens': 9}`.
fn repr_number(text: &str, name: &str) -> Option<i64> {
    text.match_indices(name).find_map(|(at, _)| {
        let rest = text[at + name.len()..].trim_start_matches(['\'', '"']);
        let rest = rest.strip_prefix(['=', ':'])?.trim_start();
        let end = rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// Collects the caller's own labels: those of the request, those for the spend log, the tags, and
/// the user.
fn labels(item: &Members<'_>, meta: &Members<'_>, checks: Checks) -> Vec<(String, String)> {
    let object = |name: &str| get(meta, &[name]).map(|raw| tags(&open(raw))).unwrap_or_default();
    let mut labels = object("spend_logs_metadata");
    labels.extend(object("requester_metadata"));
    keep_last(&mut labels);
    let known = |labels: &[(String, String)], name: &str| labels.iter().any(|(key, _)| key == name);
    if let Some(list) =
        get(item, &["request_tags"]).filter(|raw| raw.starts_with('[') && *raw != "[]")
        && !known(&labels, "request_tags")
    {
        labels.push(("request_tags".to_owned(), cut(&checks.payload(list).unwrap_or_default())));
    }
    let parameters = get(item, &["model_parameters"]).and_then(members).unwrap_or_default();
    let user = text(item, &["end_user", "user"])
        .or_else(|| text(meta, &["user_api_key_end_user_id"]))
        .or_else(|| text(&parameters, &["user"]));
    if let Some(user) = user.filter(|user| user != "None" && !known(&labels, "_user")) {
        labels.push(("_user".to_owned(), cut(&user)));
    }
    labels
}

/// Returns true if the caller's headers, which LiteLLM passes on, ask not to track the call.
fn asks_not_to_track(meta: &Members<'_>) -> bool {
    ["requester_custom_headers", "requester_metadata"].iter().any(|place| {
        let headers = get(meta, &[place]).and_then(members).unwrap_or_default();
        headers.iter().any(|(name, raw)| {
            name.eq_ignore_ascii_case("x-portkey-debug") && is_off(raw.trim_matches('"'))
        })
    })
}

/// Builds the request as the provider's API has it: model, messages under the name that this kind
/// of call uses, and parameters.
fn request(item: &Members<'_>, checks: Checks) -> Result<Option<String>, FieldError> {
    let call = text(item, &["call_type"]).unwrap_or_default();
    let name = match &*call {
        call if call.contains("embedding")
            || call.contains("responses")
            || call.contains("moderation") =>
        {
            "input"
        }
        call if call.contains("text_completion") => "prompt",
        // A client sends events in a realtime session, not messages of a chat.
        call if call.contains("realtime") => "events",
        _ => "messages",
    };
    let model = get(item, &["model"]);
    let messages = get(item, &["messages"]);
    let parameters = get(item, &["model_parameters", "modelParameters"]).map(open);
    let parameters = parameters.as_deref().map(mask::parameters);
    let further = parameters.as_deref().and_then(members).unwrap_or_default();
    if messages.is_none() && further.is_empty() {
        return Ok(None);
    }
    let mut out = Vec::new();
    let own = [("model", model), (name, messages)];
    let own = own.into_iter().filter_map(|(name, raw)| Some((Cow::Borrowed(name), raw?)));
    for (name, raw) in
        own.chain(further.into_iter().filter(|(key, _)| key != "model" && key != name))
    {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&mut out, &name);
        out.push(b':');
        // The object around the value is a level of its own.
        let raw = checks.payload(raw).ok_or_else(|| too_deep("messages"))?;
        out.extend_from_slice(raw.as_bytes());
    }
    out.push(b'}');
    let body = String::from_utf8(out).map_err(|_| too_deep("messages"))?;
    match Checks::from_text(&body).payload(&body) {
        Some(body) => Ok(Some(body)),
        None => Err(too_deep("messages")),
    }
}

/// Returns the response, or for a failed call LiteLLM's description of the error.
fn response(item: &Members<'_>, checks: Checks) -> Result<Option<String>, FieldError> {
    let failed =
        text(item, &["status"]).is_some_and(|status| !status.eq_ignore_ascii_case("success"));
    let error = || get(item, &["error_information"]).or_else(|| get(item, &["error_str"]));
    let reply = || get(item, &["response"]).filter(|raw| !matches!(*raw, "{}" | "\"\""));
    let raw = if failed { error().or_else(reply) } else { reply() };
    let Some(raw) = raw else { return Ok(None) };
    match open(raw) {
        Cow::Borrowed(raw) => checks.payload(raw).map(Some).ok_or_else(|| too_deep("response")),
        Cow::Owned(text) => Ok(Some(embeddable(&text).into_owned())),
    }
}

fn too_deep(field: &str) -> FieldError {
    FieldError::too_deep(field)
}
