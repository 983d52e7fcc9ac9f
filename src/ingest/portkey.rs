//! Portkey's insert-log format, as its SDKs and their integrations send it: one object, an array,
//! or an object whose keys are numbers.
//!
//! Clients of this format never see a rejection, because Portkey answers `ok` to everything. So
//! everything that can be understood is kept: an invalid optional value becomes null. Refused is
//! only an item that is not a call (it has neither request nor response), one whose stated time is
//! invalid, and one that cannot be stored. Unlike in our own form, unknown keys are ignored.
//! Secrets in headers are masked.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::context::{Context, is_off};
use super::fields::{cut, flag, id, number, open, short, tags, text, time};
use super::limits::{MAX_MADE_BYTES, MAX_RECORDS, RECORD_BYTES, too_many};
use super::mask;
use super::usage::{Billed, Members, Usage, attributes, count, get};
use crate::record::json::{
    Checks, FieldError, MAX_RECORD_BYTES, derive, keep_last, list, members, too_large, unquote,
    write_string,
};
use crate::record::{Message, Record};

const SOURCE: &str = "proxy-log";
const SPAN_NAME: &str = "llm";
/// Status of a response that does not state one.
const DEFAULT_STATUS: i32 = 200;

/// Callback that receives a record or its error, and the id generator.
pub(super) type Take<'t> = dyn FnMut(Result<Record, FieldError>, &mut dyn FnMut() -> String) + 't;

/// Reader of the records of one request.
pub(super) struct Reader<'c> {
    context: &'c Context,
    /// Metadata of the headers, which overrides that of the body.
    overlay: &'c [(String, String)],
    /// Trace id of all records of the request that do not name one.
    trace: Option<String>,
}

impl<'c> Reader<'c> {
    pub(super) fn new(context: &'c Context, overlay: &'c [(String, String)]) -> Self {
        Self { context, overlay, trace: context.trace.clone() }
    }

    /// Reads the records of one JSON value.
    pub(super) fn read(
        &mut self,
        text: &str,
        new_id: &mut dyn FnMut() -> String,
        take: &mut Take<'_>,
    ) {
        let text = text.trim();
        if text.len() > MAX_RECORD_BYTES {
            return take(Err(too_large(MAX_RECORD_BYTES)), new_id);
        }
        if let Some(items) = list(text) {
            if let Err(refused) = self.fits(items.len()) {
                return take(Err(refused), new_id);
            }
            for item in items {
                let record = self.item(item, new_id);
                take(record, new_id);
            }
            return;
        }
        match members(text) {
            // The Node SDK spreads an array into an object.
            Some(items) if !items.is_empty() && items.iter().all(|(key, _)| is_digits(key)) => {
                if let Err(refused) = self.fits(items.len()) {
                    return take(Err(refused), new_id);
                }
                for (_, item) in items {
                    let record = self.item(item, new_id);
                    take(record, new_id);
                }
            }
            _ => {
                let record = self.item(text, new_id);
                take(record, new_id);
            }
        }
    }

    /// Refuses a value whose records, each with the headers of the request, would take much more
    /// memory than the bytes that were sent.
    fn fits(&self, items: usize) -> Result<(), FieldError> {
        let made = items.saturating_mul(RECORD_BYTES + self.context.headers.bytes());
        if items > MAX_RECORDS || made > MAX_MADE_BYTES {
            return Err(too_many(items));
        }
        Ok(())
    }

    fn item(
        &mut self,
        text: &str,
        new_id: &mut dyn FnMut() -> String,
    ) -> Result<Record, FieldError> {
        let item = members(text)
            .ok_or_else(|| FieldError::silent("json", "one JSON object, or an array of them"))?;
        let checks = Checks::from_text(text);
        let request_text = get(&item, &["request"]).map(open);
        let response_text = get(&item, &["response"]).map(open);
        if request_text.is_none() && response_text.is_none() {
            return Err(FieldError::missing(
                "request",
                "an object with `url` and `body`, next to an object `response`",
            ));
        }
        let request = HttpMessage::new(request_text.as_ref(), checks);
        let response = HttpMessage::new(response_text.as_ref(), checks);
        let tag_text = get(&item, &["metadata"]).map(open);
        let raw_tags = tag_text.as_deref().and_then(members).unwrap_or_default();

        let mut record = self.defaults();
        let sent = request.message("request")?;
        let received = response.message("response")?;
        let asked = sent.body.as_deref().and_then(members).unwrap_or_default();
        let reply = received.body.as_deref().and_then(members).unwrap_or_default();
        record.created_at = created_at([&item, &response.members, &raw_tags])?;
        sides(&mut record, &request, &response);
        let stated = Usage::from_reply(&asked, received.body.as_deref());
        let billed = usage(&mut record, &item, [&asked, &reply], stated);
        let billed = span(&mut record, &asked, &raw_tags).unwrap_or(billed);
        record.metadata = tag_text.as_deref().map(tags).unwrap_or_default();
        self.user(&mut record, &asked, &raw_tags);
        self.trace(&mut record, &item, &raw_tags, new_id);
        derive(&mut record);
        self.context.policy.price(&mut record, &billed);
        record.request = sent;
        record.response = received;
        Ok(record)
    }

    /// Returns a record with the values that all records share and those of the headers.
    fn defaults(&self) -> Record {
        let headers = &self.context.headers;
        Record {
            cache_status: Some("DISABLED".to_owned()),
            retry_success_count: Some(0),
            mode: Some("SINGLE".to_owned()),
            source: Some(SOURCE.to_owned()),
            ai_org: headers.provider.clone(),
            virtual_key: headers.virtual_key.clone(),
            // A full config holds keys; only the slug of a stored config is kept.
            config: headers
                .config
                .as_ref()
                .filter(|config| !config.trim_start().starts_with(['{', '[']))
                .cloned(),
            runtime: headers.runtime.clone(),
            runtime_version: headers.runtime_version.clone(),
            sdk_version: headers.sdk_version.clone(),
            ..Record::default()
        }
    }

    /// Adds the metadata of the headers and sets the user. `_user` of the metadata comes first,
    /// then `user` of the request's body, which becomes `_user`, then `user` of the metadata, which
    /// old clients use.
    fn user(&self, record: &mut Record, asked: &Members<'_>, raw_tags: &Members<'_>) {
        record.metadata.extend(self.overlay.iter().cloned());
        keep_last(&mut record.metadata);
        if record.metadata.iter().any(|(key, _)| key == "_user") {
            return;
        }
        match text(asked, &["user"]) {
            Some(user) => record.metadata.push(("_user".to_owned(), cut(&user))),
            None => record.user_id = text(raw_tags, &["user"]),
        }
    }

    /// Sets the ids. A header overrides the item, and the item overrides its metadata.
    fn trace(
        &mut self,
        record: &mut Record,
        item: &Members<'_>,
        tags: &Members<'_>,
        new_id: &mut dyn FnMut() -> String,
    ) {
        let headers = &self.context.headers;
        let ladder = |header: &Option<String>, names: [&str; 2]| {
            header.clone().or_else(|| id(item, &names)).or_else(|| id(tags, &names))
        };
        record.trace_id = ladder(&headers.trace_id, ["trace_id", "traceId"]);
        record.span_id = ladder(&headers.span_id, ["span_id", "spanId"]);
        record.parent_span_id = ladder(&headers.parent_span_id, ["parent_span_id", "parentSpanId"]);
        record.span_name = ladder(&headers.span_name, ["span_name", "spanName"])
            .or_else(|| Some(SPAN_NAME.to_owned()));
        record.id = id(item, &["id", "_id"]).or_else(|| Some(new_id()));
        let shared = self.trace.get_or_insert_with(new_id);
        record.internal_trace_id = Some(shared.clone());
        record.trace_id.get_or_insert_with(|| shared.clone());
        record.span_id = record.span_id.take().or_else(|| record.id.clone());
    }
}

/// Reads the time of the call: a stated creation time, or the start of a span. Without either,
/// [`super::complete`] sets the arrival time. A stated value that is not a time is an error.
fn created_at(
    [item, response, tags]: [&Members<'_>; 3],
) -> Result<Option<DateTime<Utc>>, FieldError> {
    let stated = ["createdAt", "created_at"];
    let start = ["start_time", "startTime"];
    let times = [(item, stated), (response, stated), (item, start)]
        .map(|(members, names)| time(members, &names));
    // The metadata belongs to the caller, who may use these names for something else.
    let found = times.iter().chain(&[time(tags, &start)]).find_map(|time| *time.as_ref().ok()?);
    match found {
        None => times.into_iter().find(Result::is_err).unwrap_or(Ok(None)),
        found => Ok(found),
    }
}

/// Sets model, tokens and cost from the bodies and from `output`, in which the caller states them.
/// Returns what else the price depends on.
fn usage(
    record: &mut Record,
    item: &Members<'_>,
    [asked, reply]: [&Members<'_>; 2],
    stated: Usage,
) -> Billed {
    record.ai_model = text(asked, &["model"]).or_else(|| text(reply, &["model", "modelVersion"]));
    if record.stream_mode.is_none() {
        record.stream_mode = flag(asked, &["stream"]);
    }
    let output = get(item, &["output"]).and_then(members).unwrap_or_default();
    let usage =
        if flag(&output, &["ignoreUsage"]) == Some(true) { Usage::default() } else { stated };
    let tokens = get(&output, &["tokens"]).and_then(members).unwrap_or_default();
    record.req_units = count(&tokens, &["requestUnits", "request_units"]).or(usage.request);
    record.res_units = count(&tokens, &["responseUnits", "response_units"]).or(usage.response);
    if record.req_units.is_none() || record.res_units.is_none() {
        record.total_units = usage.total;
    }
    let cost = get(&output, &["cost"]).and_then(members).unwrap_or_default();
    record.cost = number(&cost, &["cost"]).filter(|cents| *cents >= 0.0);
    if record.cost.is_some() {
        record.cost_currency = text(&cost, &["currency"]).or_else(|| Some("USD".to_owned()));
    }
    let cache = get(&tokens, &["cache"]).and_then(members).unwrap_or_default();
    let mut billed = usage.billed;
    let parts = &mut billed.parts;
    parts.cache_read = count(&cache, &["cacheReadInputUnits"]).unwrap_or(parts.cache_read);
    parts.cache_write = count(&cache, &["cacheWriteInputUnits"]).unwrap_or(parts.cache_write);
    parts.audio_cache_read =
        count(&cache, &["cacheReadAudioInputUnits"]).unwrap_or(parts.audio_cache_read);
    billed
}

/// Reads the attributes of a span that Portkey's span exporter sends: its request is an
/// OpenTelemetry span. Returns what else the price depends on, if the tokens are those of the span.
fn span(record: &mut Record, asked: &Members<'_>, tags: &Members<'_>) -> Option<Billed> {
    if text(tags, &["_logType"]).as_deref() != Some("opentelemetry") {
        return None;
    }
    let of = get(asked, &["attributes"]).and_then(members).unwrap_or_default();
    let model = || text(&of, &["gen_ai.response.model", "gen_ai.request.model", "llm.model_name"]);
    record.ai_model = record.ai_model.take().or_else(model);
    record.ai_org =
        record.ai_org.take().or_else(|| text(&of, &["gen_ai.provider.name", "gen_ai.system"]));
    let usage = attributes::read(|name| count(&of, &[name]), |name| text(&of, &[name]));
    let is_untold = record.req_units.is_none() && record.res_units.is_none();
    record.req_units = record.req_units.or(usage.request);
    record.res_units = record.res_units.or(usage.response);
    if is_untold {
        record.total_units = record.total_units.or(usage.total);
    }
    is_untold.then_some(usage.billed)
}

/// Sets what the request and the response state outside of their bodies.
fn sides(record: &mut Record, request: &HttpMessage<'_>, response: &HttpMessage<'_>) {
    record.request_url = text(&request.members, &["url"]);
    let method = text(&request.members, &["method"]).map(|method| method.to_ascii_uppercase());
    record.request_method = method.or_else(|| Some("POST".to_owned()));
    record.ai_org = text(&request.members, &["provider"]).or_else(|| record.ai_org.take());
    if request.asks_not_to_track() {
        record.do_not_track = Some(true);
    }
    if response.raw.is_none() {
        return;
    }
    let names = ["status", "statusCode"];
    record.response_status_code = match get(&response.members, &names) {
        None => Some(DEFAULT_STATUS),
        Some(_) => short(&response.members, &names),
    };
    record.response_time = count(&response.members, &["response_time", "responseTime", "time"]);
    record.stream_mode =
        flag(&response.members, &["streamingMode", "streaming_mode", "stream_mode"]);
    record.last_used_option = text(&response.members, &["lastUsedOptionJsonPath"]);
}

/// The `request` or the `response` of an item.
struct HttpMessage<'a> {
    /// One JSON value; `None` if the item does not have it.
    raw: Option<&'a str>,
    /// Members of the value, if it is an object.
    members: Vec<(Cow<'a, str>, &'a str)>,
    checks: Checks,
}

impl<'a> HttpMessage<'a> {
    fn new(text: Option<&'a Cow<'_, str>>, checks: Checks) -> Self {
        let raw = text.map(|text| &**text);
        let checks = match text {
            Some(Cow::Owned(text)) => Checks::from_text(text),
            _ => checks,
        };
        Self { raw, members: raw.and_then(members).unwrap_or_default(), checks }
    }

    fn message(&self, name: &str) -> Result<Message, FieldError> {
        let body = self.body().map_err(|()| FieldError::too_deep(&format!("{name}.body")))?;
        Ok(Message {
            body,
            headers: get(&self.members, &["headers"]).and_then(|raw| mask::headers(&open(raw))),
        })
    }

    /// Returns the payload: the member `body`, or without one all members except the headers, with
    /// their secrets masked (the URL is among them). Fails if it is nested too deeply.
    fn body(&self) -> Result<Option<String>, ()> {
        let Some(whole) = self.raw else { return Ok(None) };
        if let Some((_, raw)) = self.members.iter().rfind(|(key, _)| key == "body") {
            return match open(raw) {
                _ if *raw == "null" => Ok(None),
                Cow::Borrowed(raw) => self.checks.payload(raw).map(Some).ok_or(()),
                Cow::Owned(text) => Checks::from_text(&text).payload(&text).map(Some).ok_or(()),
            };
        }
        if !self.members.iter().any(|(key, _)| key == "headers") {
            return self
                .checks
                .payload(whole)
                .map(|whole| Some(mask::parameters(&whole).into_owned()))
                .ok_or(());
        }
        let mut rest = Vec::with_capacity(whole.len());
        for (key, raw) in self.members.iter().filter(|(key, _)| key != "headers") {
            rest.push(if rest.is_empty() { b'{' } else { b',' });
            write_string(&mut rest, key);
            rest.push(b':');
            rest.extend_from_slice(self.checks.payload(raw).ok_or(())?.as_bytes());
        }
        rest.extend_from_slice(if rest.is_empty() { b"{}" } else { b"}" });
        Ok(String::from_utf8(rest).ok().map(|rest| mask::parameters(&rest).into_owned()))
    }

    fn asks_not_to_track(&self) -> bool {
        let headers = get(&self.members, &["headers"]).and_then(members).unwrap_or_default();
        headers.iter().any(|(name, raw)| {
            name.eq_ignore_ascii_case("x-portkey-debug") && is_off(&unquote(raw))
        })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
