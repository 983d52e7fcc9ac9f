//! Replay: sends a stored request again, optionally edited. Pure; `http` sends it.
//!
//! Corresponds to a button of Portkey's page. [`ready`] returns the request of a record, or the
//! reason why it cannot be replayed; [`outgoing`] builds the request to the gateway, and [`entry`]
//! the log of it. The call is charged to the caller: provider credentials come with the caller's
//! own request, in the headers of [`PASSED`] only, and are never logged. The new record belongs to
//! the trace of the old one, as a child of its span, and names it in its metadata under
//! [`REPLAY_OF`].

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::record::Record;
use crate::record::json::{members, write_string};

/// Metadata key that names the replayed record.
pub(crate) const REPLAY_OF: &str = "_replay_of";
/// Name of the span of a replay. Feedback on a trace does not apply to its replays; reports
/// recognise them by this name.
pub(crate) const SPAN: &str = "gatelog-replay";
/// Source of a replay's record.
const SOURCE: &str = "replay";
/// Source of records that LiteLLM sent. The name of their span is LiteLLM's call type.
const LITELLM: &str = "litellm";
/// Endpoints of the gateway whose requests can be replayed. An endpoint comes before those that are
/// a suffix of it.
pub(crate) const ENDPOINTS: [&str; 3] = ["/chat/completions", "/completions", "/embeddings"];
/// Headers of the caller that are passed on: provider and credentials. None of them names a host.
pub(crate) const PASSED: [&str; 21] = [
    "authorization",
    "api-key",
    "x-api-key",
    "anthropic-version",
    "openai-organization",
    "openai-project",
    "x-portkey-provider",
    "x-portkey-virtual-key",
    "x-portkey-config",
    "x-portkey-debug",
    "x-portkey-aws-access-key-id",
    "x-portkey-aws-secret-access-key",
    "x-portkey-aws-session-token",
    "x-portkey-aws-region",
    "x-portkey-azure-resource-name",
    "x-portkey-azure-deployment-id",
    "x-portkey-azure-api-version",
    "x-portkey-azure-model-name",
    "x-portkey-vertex-project-id",
    "x-portkey-vertex-region",
    "x-portkey-vertex-service-account-json",
];
/// Header for a key of the gateway itself, since the caller's `x-portkey-api-key` is a key of
/// gatelog.
pub(crate) const GATEWAY_KEY: &str = "x-gatelog-gateway-key";
/// Headers from which gateways build a host name or a path.
const IN_URLS: [&str; 8] = [
    "x-portkey-aws-region",
    "x-portkey-azure-resource-name",
    "x-portkey-azure-deployment-id",
    "x-portkey-azure-api-version",
    "x-portkey-azure-model-name",
    "x-portkey-vertex-project-id",
    "x-portkey-vertex-region",
    "x-portkey-provider",
];
/// Fields that a config object may have. Several others name a host, and gateways get more of them
/// with each provider.
const CONFIG_FIELDS: [&str; 16] = [
    "strategy",
    "mode",
    "targets",
    "name",
    "weight",
    "provider",
    "api_key",
    "virtual_key",
    "retry",
    "attempts",
    "on_status_codes",
    "use_retry_after_header",
    "cache",
    "max_age",
    "request_timeout",
    "override_params",
];
/// Headers of the answer that are kept.
const KEPT: [&str; 6] = [
    "content-type",
    "x-portkey-cache-status",
    "x-portkey-last-used-option-index",
    "x-portkey-provider",
    "x-portkey-retry-attempt-count",
    "x-portkey-trace-id",
];

/// Reason why a record cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Inactive {
    /// The endpoint is not one of [`ENDPOINTS`].
    Endpoint,
    /// The record has no URL, so its endpoint is unknown.
    NoUrl,
    /// The provider with this slug was archived.
    ProviderArchived(String),
    /// The request came from a prompt template that a config's target called.
    PromptInTarget,
    /// The body was not kept.
    BodyNotKept,
}

/// A stored request, ready to be edited.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ready<'a> {
    /// Always `POST`.
    pub method: &'static str,
    /// One of [`ENDPOINTS`].
    pub endpoint: &'static str,
    /// Body of the stored request.
    pub body: &'a RawValue,
}

/// Columns of a record that a replay shows or sends on.
pub(crate) const READS: [&str; 4] = ["request.body", "request_url", "ai_org", "virtual_key"];

/// An edited request from a client. Its fields are those of [`Ready`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edited<'a> {
    /// Always `POST`.
    pub method: Option<String>,
    /// One of [`ENDPOINTS`]. `None` for that of the record.
    pub endpoint: Option<String>,
    /// Body to send. `None` for the stored one.
    #[serde(borrow)]
    pub body: Option<&'a RawValue>,
}

/// A request to the gateway.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// One of [`ENDPOINTS`].
    pub endpoint: &'static str,
    /// A JSON object.
    pub body: String,
    /// Names in lower case, with values. May contain credentials.
    pub headers: Vec<(String, String)>,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The gateway's answer.
#[derive(Clone)]
pub(crate) struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body: the gateway's JSON, or its text as a JSON string. Empty for null.
    pub body: String,
    /// Time from sending to the last byte, ms.
    pub elapsed_ms: u64,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Inactive {
    /// Returns the name in API responses.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::NoUrl => "no_url",
            Self::ProviderArchived(_) => "provider_archived",
            Self::PromptInTarget => "prompt_in_config_target",
            Self::BodyNotKept => "body_not_kept",
        }
    }
}

impl std::fmt::Display for Inactive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint => write!(f, "only requests to {} can be replayed", ENDPOINTS.join(", ")),
            Self::NoUrl => f.write_str(
                "the log has no `request_url`, which names the endpoint; logs sent with a URL can be replayed",
            ),
            Self::ProviderArchived(slug) => write!(f, "the provider `{slug}` of this log is archived"),
            Self::PromptInTarget => {
                f.write_str("the request came from a prompt template that was called from inside a config target")
            }
            Self::BodyNotKept => f.write_str("the body of the request was not kept"),
        }
    }
}

/// Returns the request of a record, or the reason why it cannot be replayed. `archived` are the
/// slugs of its organisation's archived providers.
pub(crate) fn ready<'a>(
    record: &'a Record,
    archived: &BTreeSet<String>,
) -> Result<Ready<'a>, Inactive> {
    let endpoint = endpoint_of(record)?;
    // Portkey calls a virtual key a provider. Without one, the name is that of the provider.
    let provider =
        record.virtual_key.as_ref().filter(|key| !key.is_empty()).or(record.ai_org.as_ref());
    if let Some(provider) = provider.filter(|provider| archived.contains(*provider)) {
        return Err(Inactive::ProviderArchived(provider.clone()));
    }
    if called_by_a_target(record) {
        return Err(Inactive::PromptInTarget);
    }
    let body = record
        .request
        .body
        .as_deref()
        .and_then(|body| serde_json::from_str::<&RawValue>(body).ok());
    let body = body.filter(|body| body.get().starts_with('{')).ok_or(Inactive::BodyNotKept)?;
    Ok(Ready { method: "POST", endpoint, body })
}

/// Returns the endpoint of a record's request: its URL ends with it, or LiteLLM names the type of
/// the call.
fn endpoint_of(record: &Record) -> Result<&'static str, Inactive> {
    let by_url = record.request_url.as_deref().map(endpoint);
    let by_call =
        || record.span_name.as_deref().filter(|_| record.source.as_deref() == Some(LITELLM));
    match by_url.flatten().or_else(|| endpoint_of_call(by_call()?)) {
        Some(endpoint) => Ok(endpoint),
        None if by_url.is_none() => Err(Inactive::NoUrl),
        None => Err(Inactive::Endpoint),
    }
}

/// Returns the endpoint of one of LiteLLM's call types. LiteLLM's URLs are those of the provider
/// and often have no path. The body of such a record is the caller's, in OpenAI's form, for every
/// provider.
fn endpoint_of_call(call: &str) -> Option<&'static str> {
    match call {
        "completion" | "acompletion" => Some("/chat/completions"),
        "text_completion" | "atext_completion" => Some("/completions"),
        "embedding" | "aembedding" => Some("/embeddings"),
        _ => None,
    }
}

/// Returns the endpoint that a URL ends with. `…/prompts/{id}/completions` of a prompt does not
/// count.
fn endpoint(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let found = ENDPOINTS.into_iter().find(|endpoint| path.ends_with(endpoint))?;
    (!path.contains("/prompts/")).then_some(found)
}

/// Returns true if a target of the config called the prompt template. The config decides if the log
/// has it. If the log has only the config's name, a record with both a template and a target
/// counts.
fn called_by_a_target(record: &Record) -> bool {
    let named = record.prompt_slug.as_deref().is_some_and(|slug| !slug.is_empty());
    let Some(path) =
        record.last_used_option.as_deref().filter(|path| named && path.contains("targets["))
    else {
        return false;
    };
    let headers = record.request.headers.as_deref().and_then(members).unwrap_or_default();
    let config = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-portkey-config"));
    let config = config.and_then(|(_, raw)| match serde_json::from_str(raw).ok()? {
        Value::String(text) => serde_json::from_str(&text).ok(),
        whole => Some(whole),
    });
    match config {
        Some(config @ Value::Object(_)) => {
            winner(&config, path).is_none_or(|target| target.get("prompt_id").is_some())
        }
        _ => true,
    }
}

/// Returns the target at a path such as `config.targets[1].targets[0]`.
fn winner<'a>(config: &'a Value, path: &str) -> Option<&'a Value> {
    path.split("targets[").skip(1).try_fold(config, |at, step| {
        let place: usize = step.split(']').next()?.parse().ok()?;
        at.get("targets")?.get(place)
    })
}

/// Parses an edited request. An empty text changes nothing.
pub(crate) fn edited(text: &str) -> Result<Edited<'_>> {
    if text.trim().is_empty() {
        return Ok(Edited::default());
    }
    let edited: Edited<'_> = serde_json::from_str(text).map_err(|cause| {
        let cause = cause.to_string();
        // For an unknown field, the parser's message lists the known ones.
        let fields = if cause.starts_with("unknown field") {
            ""
        } else {
            "; its fields are `method`, `endpoint` and `body`"
        };
        Error::invalid(format!("the body is not an edited request: {cause}{fields}"))
    })?;
    if edited.method.as_deref().is_some_and(|method| !method.eq_ignore_ascii_case("POST")) {
        return Err(Error::invalid("`method` must be POST"));
    }
    Ok(edited)
}

/// Builds the request to the gateway: the edited body, the caller's headers of [`PASSED`], and
/// headers that link it to the record. `id` is the id of the new record. `ours` is true if the
/// caller's `authorization` is a key of gatelog.
pub(crate) fn outgoing<'h>(
    record: &Record,
    ready: Ready<'_>,
    edited: &Edited<'_>,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    ours: bool,
    id: &str,
) -> Result<Outgoing> {
    let endpoint = match edited.endpoint.as_deref() {
        None => ready.endpoint,
        Some(named) => {
            ENDPOINTS.into_iter().find(|endpoint| *endpoint == named).ok_or_else(|| {
                Error::invalid(format!("`endpoint` must be one of {}", ENDPOINTS.join(", ")))
            })?
        }
    };
    let body = edited.body.unwrap_or(ready.body).get();
    let fields = members(body).ok_or_else(|| Error::invalid("`body` is not a JSON object"))?;
    let mut passed = Vec::new();
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if name == GATEWAY_KEY {
            passed.push(("x-portkey-api-key".to_owned(), value.to_owned()));
        } else if PASSED.contains(&name.as_str()) && !(ours && name == "authorization") {
            stays_home(&name, value)?;
            passed.push((name, value.to_owned()));
        }
    }
    passed.extend(route(record, &passed));
    passed.extend(links(record, id));
    passed.push(("content-type".to_owned(), "application/json".to_owned()));
    Ok(Outgoing { endpoint, body: whole_answer(&fields), headers: passed })
}

/// Returns an error if a config object, or a header that becomes part of a URL, could send the call
/// to another host.
fn stays_home(name: &str, value: &str) -> Result<()> {
    fn stays(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().all(stays),
            Value::Object(fields) => fields.iter().all(|(name, value)| {
                CONFIG_FIELDS.contains(&name.as_str())
                    && (name == "override_params" || stays(value))
            }),
            _ => true,
        }
    }
    let fine = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if IN_URLS.contains(&name) && !value.chars().all(fine) {
        return Err(Error::invalid(format!(
            "header `{name}` may contain only letters, digits and - _ ."
        )));
    }
    if name != "x-portkey-config" || !value.trim_start().starts_with(['{', '[', '"']) {
        return Ok(());
    }
    match serde_json::from_str::<Value>(value) {
        Ok(config @ Value::Object(_)) if stays(&config) => Ok(()),
        _ => Err(Error::invalid(format!(
            "header `x-portkey-config` must be a slug, or a JSON object with only {}; other fields could send a replay to \
             other hosts",
            CONFIG_FIELDS.join(", ")
        ))),
    }
}

/// Returns the header that selects the provider if the caller sends none: the record's provider if
/// the caller has credentials, else its virtual key.
fn route(record: &Record, passed: &[(String, String)]) -> Option<(String, String)> {
    let has = |names: &[&str]| passed.iter().any(|(name, _)| names.contains(&name.as_str()));
    if has(&["x-portkey-provider", "x-portkey-virtual-key", "x-portkey-config"]) {
        return None;
    }
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let virtual_key =
        filled(&record.virtual_key).map(|key| ("x-portkey-virtual-key".to_owned(), key));
    let provider =
        filled(&record.ai_org).map(|provider| ("x-portkey-provider".to_owned(), provider));
    if has(&["authorization", "api-key", "x-api-key"]) {
        provider.or(virtual_key)
    } else {
        virtual_key.or(provider)
    }
}

/// Returns headers that link a replay to its record, for gateways that log by themselves.
fn links(record: &Record, id: &str) -> Vec<(String, String)> {
    let Link { trace, parent, metadata } = link(record);
    let pairs = [
        ("x-portkey-trace-id", trace),
        ("x-portkey-span-id", id.to_owned()),
        ("x-portkey-parent-span-id", parent),
        ("x-portkey-span-name", SPAN.to_owned()),
        ("x-portkey-metadata", metadata.to_string()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

struct Link {
    trace: String,
    parent: String,
    metadata: Value,
}

fn link(record: &Record) -> Link {
    let id = record.id.clone().unwrap_or_default();
    let own = |text: &Option<String>| {
        text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| id.clone())
    };
    let mut metadata = json!({ REPLAY_OF: id });
    if let Some(user) = &record.user_id {
        // An erasure of a user's records also erases their replays.
        metadata["_user"] = user.as_str().into();
    }
    Link { trace: own(&record.trace_id), parent: own(&record.span_id), metadata }
}

/// Returns the body without the fields that request a stream: the answer is logged as a whole.
fn whole_answer(fields: &[(std::borrow::Cow<'_, str>, &str)]) -> String {
    let mut out = Vec::new();
    for (name, raw) in
        fields.iter().filter(|(name, _)| name != "stream" && name != "stream_options")
    {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&mut out, name);
        out.push(b':');
        out.extend_from_slice(raw.as_bytes());
    }
    out.extend_from_slice(if out.is_empty() { b"{}" } else { b"}" });
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns the new log in the format of Portkey's insert. The headers of the request are left out.
pub(crate) fn entry(
    record: &Record,
    sent: &Outgoing,
    answered: &Answered,
    id: &str,
    url: &str,
    created_at: &str,
) -> Result<String> {
    #[derive(Serialize)]
    struct Entry<'a> {
        id: &'a str,
        created_at: &'a str,
        trace_id: String,
        span_id: &'a str,
        parent_span_id: String,
        span_name: &'static str,
        metadata: Value,
        request: Request<'a>,
        response: Response<'a>,
    }
    #[derive(Serialize)]
    struct Request<'a> {
        url: &'a str,
        method: &'static str,
        provider: Option<&'a str>,
        body: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Response<'a> {
        status: u16,
        headers: Value,
        body: Option<&'a RawValue>,
        response_time: u64,
    }
    let wrong = |cause| Error::internal("a replay cannot be logged").with_source(cause);
    let body = match answered.body.as_str() {
        "" => None,
        body => Some(serde_json::from_str(body).map_err(wrong)?),
    };
    let Link { trace, parent, metadata } = link(record);
    let provider = header(&answered.headers, "x-portkey-provider")
        .or_else(|| header(&sent.headers, "x-portkey-provider"));
    let entry = Entry {
        id,
        created_at,
        trace_id: trace,
        span_id: id,
        parent_span_id: parent,
        span_name: SPAN,
        metadata,
        request: Request {
            url,
            method: "POST",
            provider: provider.or(record.ai_org.as_deref()),
            body: serde_json::from_str(&sent.body).map_err(wrong)?,
        },
        response: Response {
            status: answered.status,
            headers: Value::Object(
                kept(&answered.headers)
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .collect(),
            ),
            body,
            response_time: answered.elapsed_ms,
        },
    };
    serde_json::to_string(&entry).map_err(wrong)
}

/// Returns the headers of the answer that are kept and returned to the caller.
pub(crate) fn kept(headers: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    headers
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

/// Adds the gateway's response headers to the record that was parsed from [`entry`].
pub(crate) fn complete(record: &mut Record, sent: &Outgoing, answered: &Answered, key_id: &str) {
    let value_of = |name: &str| header(&answered.headers, name).filter(|value| !value.is_empty());
    record.source = Some(SOURCE.to_owned());
    record.api_key_id = Some(key_id.to_owned());
    record.cache_status = value_of("x-portkey-cache-status").map(str::to_uppercase);
    record.retry_success_count =
        value_of("x-portkey-retry-attempt-count").and_then(|count| count.parse().ok());
    record.last_used_option = value_of("x-portkey-last-used-option-index").map(str::to_owned);
    let config = header(&sent.headers, "x-portkey-config");
    // The answer does not say in which way the gateway chose a target. A config that was sent in
    // full does.
    let full = config.and_then(|config| serde_json::from_str::<Value>(config).ok());
    if let Some(mode) = full.as_ref().and_then(|config| config["strategy"]["mode"].as_str()) {
        record.mode = Some(mode.to_uppercase());
    } else if record.last_used_option.as_deref().is_some_and(|path| path.contains("targets[")) {
        record.mode = None;
    }
    record.virtual_key = header(&sent.headers, "x-portkey-virtual-key").map(str::to_owned);
    record.config =
        config.filter(|config| !config.trim_start().starts_with(['{', '['])).map(str::to_owned);
}

/// Returns the value of a header.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}
