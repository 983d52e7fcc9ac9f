//! Reads a span as a record, if it is a call to a model.
//!
//! Only calls become records: a span of an agent, a chain or a tool counts the tokens of the calls
//! within it again. Attribute names are OpenTelemetry's for generative AI, current and deprecated,
//! and those of OpenLLMetry (`llm.*`, `traceloop.*`), of OpenInference and of the AI SDK (`ai.*`).
//! An attribute that is neither a column nor content is metadata if it describes the call
//! ([`super::figures`]), cut as Portkey cuts it. Any other attribute may be content and goes into
//! the response's body.
//!
//! A span without the content of request and response is one part of a record: log events may hold
//! the content ([`super::fragments`]).

use std::borrow::Cow;

use super::any::{Any, Attributes, find, held_json};
use super::content::{self, Content};
use super::export::{Origin, Span};
use super::labels::{RUNTIME, is_label, resource_tag, tag};
use super::object::Object;
use super::others;
use crate::ingest::context::Context;
use crate::ingest::fields::{cut, time_of_nanos};
use crate::ingest::mask;
use crate::ingest::usage::{attributes as tokens, cents};
use crate::record::json::{Checks, FieldError, derive, keep_last, list, members, unquote};
use crate::record::{Message, Record};

/// The data of a call in one span.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Record of the span, not yet completed.
    pub record: Record,
    /// True if log events add nothing to the record: the span states request and answer, or they
    /// must not be kept. If false, the record is one part of several
    /// ([`crate::parts::RecordPart::Fragment`]).
    pub is_whole: bool,
}

/// Metadata.
type Tags = [(String, String)];

pub(super) const SOURCE: &str = "otlp";
const LOG_TYPE: (&str, &str) = ("_logType", "opentelemetry");

const OPERATION: &str = "gen_ai.operation.name";
const CALLS: [&str; 7] = [
    "chat",
    "text_completion",
    "generate_content",
    "embeddings",
    "completion",
    "embedding",
    "rerank",
];
const NOT_CALLS: [&str; 6] =
    ["create_agent", "invoke_agent", "execute_tool", "invoke_workflow", "retrieval", "plan"];
const EMBEDDINGS: [&str; 2] = ["embeddings", "embedding"];
const OPENINFERENCE_KIND: &str = "openinference.span.kind";
const TRACELOOP_KIND: &str = "traceloop.span.kind";
/// The AI SDK's name of an operation. Only these operations are calls to a model; the spans around
/// them count their tokens again.
const AI_SDK_OPERATION: &str = "ai.operationId";
const AI_SDK_CALLS: [&str; 3] = [".doGenerate", ".doStream", ".doEmbed"];

const ANSWERED: [&str; 2] = ["gen_ai.response.model", "llm.response.model"];
const ASKED: [&str; 5] = [
    "gen_ai.request.model",
    "llm.request.model",
    "llm.model_name",
    "embedding.model_name",
    "ai.model.id",
];
const PROVIDER: [&str; 5] =
    ["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"];
/// Costs in dollars.
const COST: [&str; 2] = ["gen_ai.usage.cost", "llm.cost.total"];
const STREAM: [&str; 3] = ["gen_ai.request.stream", "gen_ai.request.is_stream", "llm.is_streaming"];
/// Times in seconds.
const FIRST_CHUNK: [&str; 2] =
    ["gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token"];
const STATUS: [&str; 2] = ["http.response.status_code", "http.status_code"];
const URL: [&str; 3] = ["url.full", "http.url", "gen_ai.openai.api_base"];
const METHOD: [&str; 2] = ["http.request.method", "http.method"];
const USER: [&str; 5] =
    ["user.id", "enduser.id", "llm.user", "gen_ai.request.user", "portkey.user.id"];
const PROMPT_SLUG: [&str; 2] = ["gen_ai.prompt.name", "traceloop.prompt.key"];
const REQUEST_HEADER: &str = "http.request.header.";
const RESPONSE_HEADER: &str = "http.response.header.";

/// Parameters of a request: the attribute, and its name in the body.
const PARAMETERS: [(&str, &str); 16] = [
    ("gen_ai.request.max_tokens", "max_tokens"),
    ("gen_ai.request.temperature", "temperature"),
    ("gen_ai.request.top_p", "top_p"),
    ("gen_ai.request.top_k", "top_k"),
    ("gen_ai.request.stop_sequences", "stop"),
    ("gen_ai.request.frequency_penalty", "frequency_penalty"),
    ("gen_ai.request.presence_penalty", "presence_penalty"),
    ("gen_ai.request.seed", "seed"),
    ("gen_ai.request.choice.count", "n"),
    ("gen_ai.request.encoding_formats", "encoding_format"),
    ("gen_ai.tool.definitions", "tools"),
    ("llm.request.functions", "tools"),
    ("ai.prompt.tools", "tools"),
    ("ai.prompt.toolChoice", "tool_choice"),
    ("llm.temperature", "temperature"),
    ("llm.top_p", "top_p"),
];
const INVOCATION: &str = "llm.invocation_parameters";
const RESPONSE_ID: &str = "gen_ai.response.id";
const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";

/// Returns true if the span is a call to a model.
pub(super) fn is_call(span: &Span) -> bool {
    let attributes = &span.attributes;
    let named = |name| find(attributes, &[name]).and_then(Any::text);
    let operation = named(OPERATION).or_else(|| named("llm.request.type"));
    match operation.as_deref() {
        Some(operation) if NOT_CALLS.contains(&operation) => return false,
        Some(operation) if CALLS.contains(&operation) => return true,
        _ => {}
    }
    if let Some(operation) = named(AI_SDK_OPERATION) {
        return AI_SDK_CALLS.iter().any(|call| operation.ends_with(call));
    }
    if let Some(kind) = named(OPENINFERENCE_KIND) {
        return ["LLM", "EMBEDDING", "RERANKER"].contains(&kind.to_ascii_uppercase().as_str());
    }
    let names = |names: &[&str]| find(attributes, names).is_some();
    named(TRACELOOP_KIND).is_none()
        && (names(&ANSWERED) || names(&ASKED))
        && (names(&PROVIDER) || names(&tokens::REQUEST))
}

/// Returns the id of a span's record, which also joins the parts of the record.
pub(super) fn id(trace_id: &str, span_id: &str) -> String {
    format!("{trace_id}-{span_id}")
}

/// Returns true if the attributes are those of an embedding call.
pub(super) fn is_embedding(attributes: &Attributes) -> bool {
    text(attributes, &[OPERATION, "llm.request.type"])
        .is_some_and(|of| EMBEDDINGS.contains(&of.as_str()))
        || text(attributes, &[OPENINFERENCE_KIND])
            .is_some_and(|kind| kind.eq_ignore_ascii_case("EMBEDDING"))
        || text(attributes, &[AI_SDK_OPERATION])
            .is_some_and(|operation| operation.ends_with(".doEmbed"))
}

/// Builds the record of a call, or as much of it as the span states. `overlay` is the metadata of
/// the request's headers.
pub(super) fn record(
    span: Span,
    origin: &Origin,
    overlay: &Tags,
    context: &Context,
) -> Result<Call, FieldError> {
    for (name, id, digits) in [("traceId", &span.trace_id, 32), ("spanId", &span.span_id, 16)] {
        if id.is_empty() {
            return Err(FieldError::missing(
                name,
                format!("{digits} hexadecimal digits that are not all 0"),
            ));
        }
    }
    let (content, used) = Content::from_span(&span.attributes, &span.events);
    let of = &span.attributes;
    let is_embedding = is_embedding(of);
    let usage = tokens::read(|name| count(of, &[name]), |name| text(of, &[name]));
    let headers = &context.headers;
    let mut record = Record {
        id: Some(id(&span.trace_id, &span.span_id)),
        created_at: time_of_nanos("startTimeUnixNano", span.start_nanos)?,
        ai_org: text(of, &PROVIDER).or_else(|| headers.provider.clone()),
        ai_model: text(of, &ANSWERED).or_else(|| text(of, &ASKED)),
        req_units: usage.request,
        res_units: usage.response,
        total_units: usage.total,
        request_url: url(of),
        request_method: text(of, &METHOD)
            .map(|method| method.to_ascii_uppercase())
            .or_else(|| Some("POST".to_owned())),
        cache_status: Some("DISABLED".to_owned()),
        retry_success_count: Some(0),
        mode: Some("SINGLE".to_owned()),
        virtual_key: headers.virtual_key.clone(),
        config: headers
            .config
            .as_ref()
            .filter(|config| !config.trim_start().starts_with(['{', '[']))
            .cloned(),
        prompt_slug: text(of, &PROMPT_SLUG),
        runtime: text(&origin.resource, &RUNTIME[..1]).or_else(|| headers.runtime.clone()),
        runtime_version: text(&origin.resource, &RUNTIME[1..2])
            .or_else(|| headers.runtime_version.clone()),
        sdk_version: sdk(&origin.resource).or_else(|| headers.sdk_version.clone()),
        source: Some(SOURCE.to_owned()),
        request: Message { body: None, headers: headers_of(of, REQUEST_HEADER) },
        response: Message { body: None, headers: headers_of(of, RESPONSE_HEADER) },
        ..Record::default()
    };
    if is_embedding && record.res_units.is_none() {
        record.total_units = record.total_units.or(record.req_units);
    }
    if let Some(cents) =
        find(of, &COST).and_then(Any::float).and_then(|dollars| cents(&dollars.to_string()))
    {
        record.cost = Some(cents);
        record.cost_currency = Some("USD".to_owned());
    }
    times(&mut record, &span);
    outcome(&mut record, &span);
    metadata(&mut record, &span, origin, overlay, context);
    derive(&mut record);
    // If a call failed, or its answer is a vector, events hold no more than the request.
    let is_answered = content.is_answered() || is_embedding || record.is_success == Some(0);
    // No log events are awaited if content must not be kept.
    let is_whole = (content.is_asked() && is_answered) || context.is_untracked();
    let asked = content.request(!is_embedding, parameters(of));
    record.request.body = Some(payload("request.body", &mask::parameters(&asked))?);
    let further = further(of, origin, &used, context);
    let reply = content.response(reply(&span, &record), further.as_deref());
    record.response.body = (reply != "{}").then(|| payload("response.body", &reply)).transpose()?;
    record.trace_id = Some(span.trace_id);
    record.span_id = Some(span.span_id);
    record.parent_span_id = Some(span.parent_span_id).filter(|id| !id.is_empty());
    record.span_name = Some(span.name).filter(|name| !name.is_empty());
    context.policy.price(&mut record, &usage.billed);
    Ok(Call { record, is_whole })
}

fn text(attributes: &Attributes, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| find(attributes, &[name])?.text())
}

fn count(attributes: &Attributes, names: &[&str]) -> Option<i64> {
    names.iter().find_map(|name| find(attributes, &[name])?.count())
}

/// Sets the time to the answer. For a stream, sets the time to its first chunk, if that is known,
/// and the time to its end.
fn times(record: &mut Record, span: &Span) {
    let of = &span.attributes;
    let took = span.end_nanos.checked_sub(span.start_nanos).filter(|_| span.start_nanos > 0);
    let took = took.and_then(|nanos| i64::try_from(nanos.saturating_add(500_000) / 1_000_000).ok());
    let first =
        find(of, &FIRST_CHUNK).and_then(Any::float).filter(|seconds| (0.0..1e9).contains(seconds));
    let first = first.map(|seconds| (seconds * 1000.0).round() as i64);
    record.stream_mode = find(of, &STREAM).and_then(Any::flag).or(first.map(|_| true));
    record.response_time = first.or(took);
    record.time_to_last_token = took.filter(|_| record.stream_mode == Some(true));
}

/// Sets the status: the provider's if it is stated, otherwise that of the error's class, otherwise
/// 200 or 500.
fn outcome(record: &mut Record, span: &Span) {
    let error = text(&span.attributes, &["error.type"]);
    let stated = count(&span.attributes, &STATUS).and_then(|status| i32::try_from(status).ok());
    let failed = span.failed || error.is_some();
    let status = stated.or_else(|| error.as_deref().and_then(status_of));
    record.response_status_code = status.or(Some(if failed { 500 } else { 200 }));
    if failed {
        record.is_success = Some(0);
    }
}

/// Returns the status that an error is named after: a number, or an error class of the SDKs of
/// OpenAI, Anthropic and Portkey.
fn status_of(error: &str) -> Option<i32> {
    let class = error.rsplit(['.', ':']).next().unwrap_or(error);
    let status = match class {
        "BadRequestError" => 400,
        "AuthenticationError" => 401,
        "PermissionDeniedError" => 403,
        "NotFoundError" => 404,
        "ConflictError" => 409,
        "UnprocessableEntityError" => 422,
        "RateLimitError" => 429,
        _ => error.parse().ok().filter(|status| (100..600).contains(status))?,
    };
    Some(status)
}

/// Returns the URL, or the server's address with its port.
fn url(of: &Attributes) -> Option<String> {
    if let Some(url) = text(of, &URL) {
        return Some(url);
    }
    let address = text(of, &["server.address"])?;
    if address.contains("://") {
        return Some(address);
    }
    Some(match (text(of, &["url.scheme"]), count(of, &["server.port"])) {
        (Some(scheme), None) => format!("{scheme}://{address}"),
        (Some(scheme), Some(port)) => format!("{scheme}://{address}:{port}"),
        (None, None) => address,
        (None, Some(443)) => format!("https://{address}"),
        (None, Some(80)) => format!("http://{address}"),
        (None, Some(port)) => format!("{address}:{port}"),
    })
}

fn sdk(resource: &Attributes) -> Option<String> {
    let name = text(resource, &["telemetry.sdk.name"])?;
    Some(
        text(resource, &["telemetry.sdk.version"])
            .map_or(name.clone(), |version| format!("{name}-{version}")),
    )
}

/// Returns captured headers as JSON, with their secrets masked.
fn headers_of(of: &Attributes, prefix: &str) -> Option<String> {
    let mut headers = Object::new();
    for (key, value) in of {
        if let Some(name) = key.strip_prefix(prefix) {
            // A header that was sent once is a list of one value.
            let one = match value {
                Any::List(values) if values.len() == 1 => &values[0],
                other => other,
            };
            let mut raw = Vec::new();
            one.write(&mut raw);
            headers.add_raw(name, &String::from_utf8_lossy(&raw));
        }
    }
    if headers.is_empty() { None } else { mask::headers(&headers.end()) }
}

/// Returns the fields of the request that the span states, other than its messages.
fn parameters(of: &Attributes) -> Object {
    let mut body = Object::new();
    if let Some(model) = text(of, &ASKED).or_else(|| text(of, &ANSWERED)) {
        body.add_text("model", &model);
    }
    let mut named = Vec::new();
    for (attribute, name) in PARAMETERS {
        if let Some(value) = find(of, &[attribute])
            && !named.contains(&name)
        {
            named.push(name);
            body.add_raw(name, &opened(&value.json()));
        }
    }
    if let Some(flag) = find(of, &STREAM).and_then(Any::flag) {
        body.add_raw("stream", if flag { "true" } else { "false" });
    }
    let invocation = find(of, &[INVOCATION]).map(Any::json).unwrap_or_default();
    for (name, raw) in members(&invocation).unwrap_or_default() {
        if name != "model" && name != "messages" && !named.contains(&&*name) {
            body.add_raw(&name, raw);
        }
    }
    body
}

/// Returns a list in which tools are JSON in texts as a list of tools. Other JSON is unchanged.
fn opened(json: &str) -> Cow<'_, str> {
    let Some(elements) = list(json) else { return Cow::Borrowed(json) };
    let held = |raw: &str| raw.starts_with('"').then(|| held_json(&unquote(raw))).flatten();
    let elements: Vec<(&str, Option<String>)> =
        elements.into_iter().map(|raw| (raw, held(raw))).collect();
    if elements.iter().all(|(_, held)| held.is_none()) {
        return Cow::Borrowed(json);
    }
    let elements: Vec<&str> =
        elements.iter().map(|(raw, held)| held.as_deref().unwrap_or(raw)).collect();
    Cow::Owned(format!("[{}]", elements.join(",")))
}

/// Returns the attributes of the span and of its resource that may be content and were not read as
/// such, as a JSON object. Returns `None` if there are none, or if they must not be kept. The
/// resource is the same for many spans, so its texts are cut like those of the metadata.
fn further(
    of: &Attributes,
    origin: &Origin,
    used: &[&'static str],
    context: &Context,
) -> Option<String> {
    if context.is_untracked() {
        return None;
    }
    let mut object = Object::new();
    let resource =
        origin.resource.iter().filter(|(key, value)| !is_label(key, value, &context.policy));
    for (key, text) in resource.filter_map(|(key, value)| resource_tag(key, value)) {
        object.add_text(&key, &text);
    }
    for (key, value) in of {
        if *value == Any::Null
            || is_read(key)
            || is_label(key, value, &context.policy)
            || others::is_used(key, used)
        {
            continue;
        }
        match value {
            Any::Text(text) => object.add_text(key, &mask::attribute(key, text)),
            other => {
                let mut raw = Vec::new();
                other.write(&mut raw);
                object.add_raw(key, &String::from_utf8_lossy(&raw));
            }
        }
    }
    (!object.is_empty()).then(|| mask::parameters(&object.end()).into_owned())
}

/// Returns the fields of the response that the span states, without its choices. For a failed call,
/// returns the error.
fn reply(span: &Span, record: &Record) -> Object {
    let of = &span.attributes;
    let mut body = Object::new();
    if let Some(id) = text(of, &[RESPONSE_ID]) {
        body.add_text("id", &id);
    }
    if let Some(model) = text(of, &ANSWERED) {
        body.add_text("model", &model);
    }
    let usage = [
        ("prompt_tokens", record.req_units),
        ("completion_tokens", record.res_units),
        ("total_tokens", record.total_units),
    ];
    let mut stated = Object::new();
    for (name, tokens) in usage {
        if let Some(tokens) = tokens {
            stated.add_raw(name, &tokens.to_string());
        }
    }
    if !stated.is_empty() {
        body.add_raw("usage", &stated.end());
    }
    let exception =
        span.events.iter().rfind(|event| event.name == "exception").map(|event| &event.attributes);
    let thrown = |name| exception.and_then(|exception| text(exception, &[name]));
    if record.is_success == Some(0) {
        let mut error = Object::new();
        let message = Some(span.message.clone()).filter(|message| !message.is_empty());
        if let Some(message) = message.or_else(|| thrown("exception.message")) {
            error.add_text("message", &message);
        }
        if let Some(class) = text(of, &["error.type"]).or_else(|| thrown("exception.type")) {
            error.add_text("type", &class);
        }
        if !error.is_empty() {
            body.add_raw("error", &error.end());
        }
    }
    body
}

/// Returns a body as it is stored: on one line, and not nested too deeply.
pub(super) fn payload(field: &'static str, text: &str) -> Result<String, FieldError> {
    let payload = Checks::from_text(text).payload(text);
    payload.ok_or_else(|| FieldError::too_deep(field))
}

/// Returns true if an attribute was read into columns or bodies.
fn is_read(key: &str) -> bool {
    let lists: [&[&str]; 15] = [
        &ANSWERED,
        &ASKED,
        &PROVIDER,
        &tokens::REQUEST,
        &tokens::RESPONSE,
        &tokens::TOTAL,
        &COST,
        &STREAM,
        &FIRST_CHUNK,
        &STATUS,
        &URL,
        &METHOD,
        &USER,
        &PROMPT_SLUG,
        &content::NAMES,
    ];
    let prefixes = content::PREFIXES.iter().chain(&[REQUEST_HEADER, RESPONSE_HEADER]);
    lists.iter().any(|list| list.contains(&key))
        || PARAMETERS.iter().any(|(name, _)| *name == key)
        || [INVOCATION, RESPONSE_ID, FINISH_REASONS, "server.address", "server.port", "url.scheme"]
            .contains(&key)
        || (!content::NOT_MESSAGES.contains(&key) && { prefixes }
            .any(|prefix| key.starts_with(prefix)))
}

/// Sets the metadata: the descriptive attributes of the resource and of the span, and the caller's
/// headers, of which later ones override earlier ones. Adds the user. The resource belongs to a
/// process and does not describe a single call.
fn metadata(record: &mut Record, span: &Span, origin: &Origin, overlay: &Tags, context: &Context) {
    let mut tags = vec![(LOG_TYPE.0.to_owned(), LOG_TYPE.1.to_owned())];
    if !origin.scope.is_empty() {
        tags.push(("otel.scope.name".to_owned(), origin.scope.clone()));
    }
    tags.extend(origin.tags.iter().cloned());
    let attributes = span
        .attributes
        .iter()
        .filter(|(key, value)| !is_read(key) && is_label(key, value, &context.policy));
    tags.extend(attributes.filter_map(|(key, value)| tag(key, value)));
    let user = text(&span.attributes, &USER).or_else(|| text(&origin.resource, &USER));
    if let Some(user) = user {
        tags.push(("_user".to_owned(), cut(&user)));
    }
    tags.extend(overlay.iter().cloned());
    keep_last(&mut tags);
    record.metadata = tags;
}
