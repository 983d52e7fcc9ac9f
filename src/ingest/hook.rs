//! Reads what the npm gateway's `default.log` and `default.webhook` post after a call: request,
//! response and the request's headers.
//!
//! The hook fires only for answered calls, and states neither the time nor the duration of the
//! call. So the record's time is the arrival, and its latency is unknown. The hook does not state
//! the number of attempts either; it is known to be one if no retry was configured. The headers
//! hold the keys of providers, and ours, in clear text: they are masked before anything else is
//! done with them.

use super::context::{Context, Headers, is_off};
use super::fields::{open, short, tags, text};
use super::mask;
use super::targets::{Answerer, Config};
use super::usage::{Members, Usage, get};
use crate::record::json::{
    Checks, FieldError, MAX_RECORD_BYTES, Reason, derive, keep_last, members, too_large, unquote,
};
use crate::record::{Message, Record};

const SOURCE: &str = "gateway-hook";
const SPAN_NAME: &str = "llm";

/// Base URLs of providers, used unless the caller names a host of its own.
const HOSTS: [(&str, &str); 14] = [
    ("anthropic", "https://api.anthropic.com/v1"),
    ("cerebras", "https://api.cerebras.ai/v1"),
    ("cohere", "https://api.cohere.ai/v2"),
    ("deepinfra", "https://api.deepinfra.com/v1/openai"),
    ("deepseek", "https://api.deepseek.com"),
    ("fireworks-ai", "https://api.fireworks.ai/inference/v1"),
    ("groq", "https://api.groq.com/openai/v1"),
    ("mistral-ai", "https://api.mistral.ai/v1"),
    ("moonshot", "https://api.moonshot.cn/v1"),
    ("openai", "https://api.openai.com/v1"),
    ("openrouter", "https://openrouter.ai/api/v1"),
    ("perplexity-ai", "https://api.perplexity.ai"),
    ("together-ai", "https://api.together.xyz/v1"),
    ("x-ai", "https://api.x.ai/v1"),
];

/// Reads one record.
pub(super) fn read(
    raw: &str,
    context: &Context,
    new_id: &mut dyn FnMut() -> String,
) -> Result<Record, FieldError> {
    let raw = raw.trim();
    if raw.len() > MAX_RECORD_BYTES {
        return Err(too_large(MAX_RECORD_BYTES));
    }
    let item = members(raw).ok_or_else(|| FieldError::silent("json", "one JSON object"))?;
    if text(&item, &["eventType"]).is_some_and(|event| event.starts_with("before")) {
        return Err(FieldError::silent(
            "eventType",
            "`afterRequestHook`; a call is recorded when it has been answered",
        )
        .because(Reason::NotKept));
    }
    let object = |name: &str| get(&item, &[name]).and_then(members);
    let (Some(request), Some(response)) = (object("request"), object("response")) else {
        return Err(FieldError::missing(
            "request",
            "an object with `json`, next to an object `response`",
        ));
    };
    let checks = Checks::from_text(raw);
    let sent = get(&request, &["headers"]).map(open);
    let headers = sent.as_deref().and_then(members).unwrap_or_default();
    let headers = Headers::read(|name| {
        let (_, raw) = headers.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name))?;
        text(&[("".into(), raw)], &[""])
    });

    let sides = [("request", &request), ("response", &response)];
    let [asked_text, reply_text] = sides.map(|(name, side)| {
        let Some(raw) = get(side, &["json"]) else { return Ok(None) };
        checks.payload(raw).map(Some).ok_or_else(|| FieldError::too_deep(&format!("{name}.json")))
    });
    let asked_text = asked_text?;
    let reply_text = reply_text?;
    let asked = asked_text.as_deref().and_then(members).unwrap_or_default();
    let reply = reply_text.as_deref().and_then(members).unwrap_or_default();
    let status = short(&response, &["statusCode"]);
    if status.is_none() && reply.is_empty() {
        // `default.log` is also used as a hook before the request, which may still fail.
        let expected = "a status; a call is recorded when it has been answered";
        return Err(FieldError::silent("response.statusCode", expected).because(Reason::NotKept));
    }
    let config = Config::read(headers.config.as_deref(), sent.is_some());
    let provider = text(&item, &["provider"]).or_else(|| headers.provider.clone());
    // The request already holds the target's own model.
    let model = text(&asked, &["model"]);
    let answerer = config.answerer(provider.as_deref(), model.as_deref());
    let own_host = text_header(&request, "x-portkey-custom-host").or_else(|| answerer.host.clone());
    let mut record = plain(&request, &headers, context, new_id);
    record.request_url =
        url(own_host.as_deref(), provider.as_deref(), text(&item, &["requestType"]).as_deref());
    record.ai_org = provider;
    record.ai_model = model.or_else(|| text(&reply, &["model", "modelVersion"]));
    routed(&mut record, config, answerer);
    let usage = Usage::from_reply(&asked, reply_text.as_deref());
    record.req_units = usage.request;
    record.res_units = usage.response;
    record.total_units = usage.total;
    record.response_status_code = status.or(Some(200));
    record.metadata = get(&item, &["metadata"]).map(|raw| tags(&open(raw))).unwrap_or_default();
    record.metadata.extend(headers.metadata.as_deref().map(tags).unwrap_or_default());
    keep_last(&mut record.metadata);
    if !record.metadata.iter().any(|(key, _)| key == "_user")
        && let Some(user) = text(&asked, &["user"])
    {
        record.metadata.push(("_user".to_owned(), super::fields::cut(&user)));
    }
    derive(&mut record);
    context.policy.price(&mut record, &usage.billed);
    record.request = Message { body: asked_text, headers: sent.as_deref().and_then(mask::headers) };
    record.response = Message { body: reply_text, headers: None };
    Ok(record)
}

/// Sets the route of the call through the gateway, as far as it is known.
fn routed(record: &mut Record, config: Config, answerer: Answerer) {
    record.mode = config.mode;
    record.config = config.slug;
    record.last_used_option = answerer.path;
    record.retry_success_count = (answerer.retries == Some(false)).then_some(0);
}

/// Builds a record from the headers of the request.
fn plain(
    request: &Members<'_>,
    headers: &Headers,
    context: &Context,
    new_id: &mut dyn FnMut() -> String,
) -> Record {
    let id = new_id();
    let untracked = headers.debug.as_deref().is_some_and(is_off);
    Record {
        request_method: Some("POST".to_owned()),
        cache_status: Some("DISABLED".to_owned()),
        stream_mode: super::fields::flag(request, &["isStreamingRequest"]),
        virtual_key: headers.virtual_key.clone(),
        runtime: headers.runtime.clone(),
        runtime_version: headers.runtime_version.clone(),
        sdk_version: headers.sdk_version.clone(),
        trace_id: headers.trace_id.clone().or_else(|| context.headers.trace_id.clone()),
        span_id: headers.span_id.clone().or_else(|| Some(id.clone())),
        parent_span_id: headers.parent_span_id.clone(),
        span_name: headers.span_name.clone().or_else(|| Some(SPAN_NAME.to_owned())),
        source: Some(SOURCE.to_owned()),
        do_not_track: untracked.then_some(true),
        id: Some(id),
        ..Record::default()
    }
}

fn text_header(request: &Members<'_>, name: &str) -> Option<String> {
    let headers = get(request, &["headers"]).and_then(members)?;
    let (_, raw) = headers.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name))?;
    raw.starts_with('"').then(|| unquote(raw).into_owned()).filter(|text| !text.is_empty())
}

/// Returns the URL that the gateway called, as far as the hook's data determines it.
fn url(host: Option<&str>, provider: Option<&str>, kind: Option<&str>) -> Option<String> {
    let provider = provider.unwrap_or_default();
    let known = || HOSTS.iter().find(|(name, _)| *name == provider).map(|(_, host)| *host);
    let host = host.or_else(known)?.trim_end_matches('/');
    let path = match (kind?, provider) {
        ("chatComplete", "cohere") => "/chat",
        ("chatComplete", "anthropic") | ("messages", _) => "/messages",
        ("chatComplete", _) => "/chat/completions",
        ("complete", "anthropic") => "/complete",
        ("complete", _) => "/completions",
        ("embed", _) => "/embeddings",
        _ => return None,
    };
    Some(format!("{host}{path}"))
}
