//! Reads the spans or log records of an export request one by one, from either encoding, and writes
//! the answer.
//!
//! The whole request is validated first, so that an invalid one is refused before any of it is
//! stored. After that no more than one span is held in memory at a time.

use std::borrow::Cow;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::any::{self, Any, Attributes, DecodeBudget};
use super::labels;
use super::signal::{Encoding, Signal};
use super::wire::{self, Value};
use crate::ingest::fields::cut;
use crate::ingest::limits::MAX_RECORDS;
use crate::ingest::policy::Policy;
use crate::ingest::usage::get;
use crate::record::MAX_TAGS;
use crate::record::json::{
    FieldError, Read, Reason, finite, keep_last, list, members, unquote, write_string,
};

/// Origin of spans and log records. It is copied into each record, so it is read once and its size
/// is bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// First attributes of the resource, with long texts cut.
    pub(super) resource: Attributes,
    /// Attributes of the resource that are metadata.
    pub(super) tags: Vec<(String, String)>,
    /// Name of the instrumentation library.
    pub(super) scope: String,
}

/// Maximum bytes of a resource's text that goes into columns.
const MAX_TEXT_BYTES: usize = 8 << 10;

impl Origin {
    fn from_resource(mut resource: Attributes, policy: Option<&Policy>) -> Self {
        keep_last(&mut resource);
        resource.truncate(MAX_TAGS);
        let tags =
            policy.map(|policy| labels::resource_tags(&resource, policy)).unwrap_or_default();
        for (_, value) in &mut resource {
            if let Any::Text(text) = value {
                text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            }
        }
        Self { resource, tags, scope: String::new() }
    }
}

/// A span or log record in the form in which the request holds it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'a> {
    Wire(&'a [u8]),
    Json(&'a str),
}

type Found<'f> = dyn FnMut(&Origin, Leaf<'_>) + 'f;

/// Calls `found` for every span, log record or metric of a request. Fails if the outer levels of
/// the request are not valid OTLP. The policy decides which attributes of a resource are metadata;
/// without a policy none are.
pub(super) fn walk(
    encoding: Encoding,
    signal: Signal,
    bytes: &[u8],
    policy: Option<&Policy>,
    found: &mut dyn FnMut(&Origin, Leaf<'_>),
) -> Result<(), FieldError> {
    match encoding {
        Encoding::Protobuf => {
            let mut leaves = 0;
            walk_wire(bytes, policy, &mut |_, _| leaves += 1)?;
            few(signal, leaves)?;
            walk_wire(bytes, policy, found)
        }
        Encoding::Json => {
            let text =
                str::from_utf8(bytes).map_err(|_| FieldError::silent("json", "UTF-8 text"))?;
            let text = &*finite(text);
            if text.trim().is_empty() {
                return Ok(());
            }
            let mut leaves = 0;
            walk_json(text, signal, policy, &mut |_, _| leaves += 1)?;
            few(signal, leaves)?;
            walk_json(text, signal, policy, found)
        }
    }
}

/// Refuses a request with too many spans or log records. Metrics are not stored, so their number is
/// not limited.
fn few(signal: Signal, leaves: usize) -> Result<(), FieldError> {
    if leaves <= MAX_RECORDS || signal == Signal::Metrics {
        return Ok(());
    }
    let expected =
        format!("at most {MAX_RECORDS} in a request, not {leaves}; export fewer at once");
    Err(FieldError::silent(signal.json_names()[2][0], expected).because(Reason::TooLarge))
}

fn walk_wire(
    bytes: &[u8],
    policy: Option<&Policy>,
    found: &mut Found<'_>,
) -> Result<(), FieldError> {
    for group in wire::messages(bytes, 1) {
        let group = group?;
        let mut attributes = Attributes::new();
        for resource in wire::messages(group, 1) {
            attributes.extend(attributes_of_wire(resource?, 1)?);
        }
        let mut origin = Origin::from_resource(attributes, policy);
        for scoped in wire::messages(group, 2) {
            let scoped = scoped?;
            origin.scope.clear();
            for scope in wire::messages(scoped, 1) {
                for name in wire::messages(scope?, 1) {
                    origin.scope = cut(&String::from_utf8_lossy(name?));
                }
            }
            for leaf in wire::messages(scoped, 2) {
                found(&origin, Leaf::Wire(leaf?));
            }
        }
    }
    Ok(())
}

fn attributes_of_wire(message: &[u8], field: u64) -> Result<Attributes, FieldError> {
    let mut budget = DecodeBudget::new();
    let mut attributes = Attributes::new();
    for pair in wire::messages(message, field) {
        // Attributes beyond the maximum are ignored.
        if any::pair_of_wire(pair?, &mut attributes, &mut budget).is_err() {
            break;
        }
    }
    keep_last(&mut attributes);
    Ok(attributes)
}

fn walk_json(
    text: &str,
    signal: Signal,
    policy: Option<&Policy>,
    found: &mut Found<'_>,
) -> Result<(), FieldError> {
    let [groups, scoped, leaves] = signal.json_names();
    let request = members(text.trim()).filter(|request| is_export(request, groups));
    let request = request.ok_or_else(|| refused(text, groups[0]))?;
    each(get(&request, &groups), groups[0], &mut |group| {
        let resource = get(&group, &["resource"]).and_then(members).unwrap_or_default();
        let mut attributes = Attributes::new();
        // Attributes beyond the maximum are ignored.
        let _ = any::pairs_of_json(
            get(&resource, &["attributes"]),
            &mut attributes,
            &mut DecodeBudget::new(),
        );
        let mut origin = Origin::from_resource(attributes, policy);
        each(get(&group, &scoped), scoped[0], &mut |group| {
            let scope = get(&group, &["scope"]).and_then(members).unwrap_or_default();
            origin.scope = cut(&text_of(get(&scope, &["name"])).unwrap_or_default());
            each_raw(get(&group, &leaves), leaves[0], &mut |leaf| {
                found(&origin, Leaf::Json(leaf));
                Ok(())
            })
        })
    })
}

/// Returns true if an object is an export request with one of these lists, or is empty.
fn is_export(request: &Object<'_>, groups: [&str; 2]) -> bool {
    request.is_empty() || request.iter().any(|(key, _)| groups.contains(&&**key))
}

/// Returns the error for JSON that is not an export request with that list, since nothing of it
/// would be stored.
fn refused(text: &str, groups: &str) -> FieldError {
    let expected = format!("an OTLP export request, one JSON object with `{groups}`");
    FieldError::silent(
        "json",
        match signal_of_json(text) {
            Some(signal) => {
                let name = signal.json_names()[0][0];
                format!(
                    "{expected}; send one with `{name}` to a path that ends with {}",
                    signal.path()
                )
            }
            None => expected,
        },
    )
}

/// Returns the signal of an export request in JSON, if the text is one.
pub(super) fn signal_of_json(text: &str) -> Option<Signal> {
    let request = members(text.trim())?;
    let holds = |signal: &Signal| get(&request, &signal.json_names()[0]).is_some();
    [Signal::Traces, Signal::Logs, Signal::Metrics].into_iter().find(holds)
}

type Object<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// Calls `found` for every object of an array.
fn each(
    raw: Option<&str>,
    name: &'static str,
    found: &mut dyn FnMut(Object<'_>) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    each_raw(raw, name, &mut |raw| {
        found(members(raw).ok_or_else(|| FieldError::silent(name, "an array of objects"))?)
    })
}

/// Calls `found` for every element of an array, without collecting the elements.
fn each_raw(
    raw: Option<&str>,
    name: &'static str,
    found: &mut dyn FnMut(&str) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    struct Elements<'f> {
        found: &'f mut dyn FnMut(&str) -> Result<(), FieldError>,
        refused: Result<(), FieldError>,
    }
    impl<'de> Visitor<'de> for &mut Elements<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element::<&RawValue>()? {
                if self.refused.is_ok() {
                    self.refused = (self.found)(element.get());
                }
            }
            Ok(())
        }
    }
    let Some(raw) = raw else { return Ok(()) };
    let mut elements = Elements { found, refused: Ok(()) };
    let read = serde_json::Deserializer::from_str(raw).deserialize_seq(&mut elements);
    elements.refused.and(read.map_err(|_| FieldError::silent(name, "an array")))
}

fn text_of(raw: Option<&str>) -> Option<String> {
    raw.filter(|raw| raw.starts_with('"')).map(|raw| unquote(raw).into_owned())
}

/// A span, limited to the fields that describe a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    /// Lower-case hex, like the other ids. Empty if the id does not have the right length.
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) parent_span_id: String,
    pub(super) name: String,
    /// Nanoseconds since 1970, like the end. 0 means that no time is stated.
    pub(super) start_nanos: u64,
    pub(super) end_nanos: u64,
    /// True if the status is an error.
    pub(super) failed: bool,
    /// Message of the status.
    pub(super) message: String,
    pub(super) attributes: Attributes,
    pub(super) events: Vec<Event>,
}

/// An event of a span, or a log record that is an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) attributes: Attributes,
    /// Null in a span's event.
    pub(super) body: Any,
}

/// A log record with the span to which it belongs.
#[derive(Clone, Debug, Default)]
pub(super) struct LogRecord {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    /// Time of the event, or the time at which it was observed, in nanoseconds since 1970. 0 means
    /// that no time is stated.
    pub(super) at_nanos: u64,
    pub(super) event: Event,
}

const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

fn id(bytes: &[u8], length: usize) -> String {
    if bytes.len() == length && bytes.iter().any(|byte| *byte != 0) {
        hex::encode(bytes)
    } else {
        String::new()
    }
}

/// Reads an id in hex, as OTLP requires it, or in base64, as other writers of protobuf's JSON do.
fn id_of_json(raw: Option<&str>, length: usize) -> String {
    let text = text_of(raw).unwrap_or_default();
    let hex = hex::decode(&text).ok().filter(|bytes| bytes.len() == length);
    hex.or_else(|| base64(&text)).map(|bytes| id(&bytes, length)).unwrap_or_default()
}

/// Decodes a short base64 text of either alphabet.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|byte| {
        Some(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        })
    });
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let group = |group: &[u8]| {
        let bits = (0..4)
            .fold(0u32, |bits, at| bits << 6 | u32::from(group.get(at).copied().unwrap_or(0)));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    Some(digits.chunks(4).flat_map(group).collect())
}

/// Reads nanoseconds since 1970. 0 means that no time is stated.
fn nanos(of: &Object<'_>, names: [&'static str; 2]) -> Result<u64, FieldError> {
    let name = names[0];
    let mut number: Option<i64> = None;
    let read = get(of, &names).map_or(Ok(()), |raw| number.read("", raw));
    let nanos = read.ok().and_then(|()| u64::try_from(number.unwrap_or_default()).ok());
    nanos.ok_or_else(|| FieldError::silent(name, "nanoseconds since 1970"))
}

impl Span {
    pub(super) fn read(leaf: Leaf<'_>) -> Result<Self, FieldError> {
        match leaf {
            Leaf::Wire(bytes) => Self::from_wire(bytes),
            Leaf::Json(raw) => Self::from_json(raw),
        }
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut span = Self::default();
        let mut budget = DecodeBudget::new();
        for field in wire::fields(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => span.trace_id = id(bytes, TRACE_ID_BYTES),
                (2, Value::Bytes(bytes)) => span.span_id = id(bytes, SPAN_ID_BYTES),
                (4, Value::Bytes(bytes)) => span.parent_span_id = id(bytes, SPAN_ID_BYTES),
                (5, name) => span.name = name.text().unwrap_or_default(),
                (7, nanos) => span.start_nanos = nanos.number().unwrap_or_default(),
                (8, nanos) => span.end_nanos = nanos.number().unwrap_or_default(),
                (9, Value::Bytes(pair)) => {
                    any::pair_of_wire(pair, &mut span.attributes, &mut budget)?
                }
                (11, Value::Bytes(event)) => {
                    span.events.push(Event::from_wire(event, [2, 3], &mut budget)?)
                }
                (15, Value::Bytes(status)) => {
                    for field in wire::fields(status) {
                        match field? {
                            (2, text) => span.message = text.text().unwrap_or_default(),
                            (3, code) => span.failed = code.number() == Some(STATUS_ERROR),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        keep_last(&mut span.attributes);
        Ok(span)
    }

    fn from_json(raw: &str) -> Result<Self, FieldError> {
        let span = members(raw).ok_or_else(|| FieldError::silent("span", "an object"))?;
        let status = get(&span, &["status"]).and_then(members).unwrap_or_default();
        let mut budget = DecodeBudget::new();
        let mut events = Vec::new();
        for event in get(&span, &["events"])
            .and_then(list)
            .unwrap_or_default()
            .into_iter()
            .filter_map(members)
        {
            budget.spend()?;
            let mut attributes = Attributes::new();
            any::pairs_of_json(get(&event, &["attributes"]), &mut attributes, &mut budget)?;
            let name = text_of(get(&event, &["name"])).unwrap_or_default();
            events.push(Event { name, attributes, body: Any::Null });
        }
        let mut attributes = Attributes::new();
        any::pairs_of_json(get(&span, &["attributes"]), &mut attributes, &mut budget)?;
        let code = get(&status, &["code"]).map(unquoted).unwrap_or_default();
        Ok(Self {
            trace_id: id_of_json(get(&span, &["traceId", "trace_id"]), TRACE_ID_BYTES),
            span_id: id_of_json(get(&span, &["spanId", "span_id"]), SPAN_ID_BYTES),
            parent_span_id: id_of_json(
                get(&span, &["parentSpanId", "parent_span_id"]),
                SPAN_ID_BYTES,
            ),
            name: text_of(get(&span, &["name"])).unwrap_or_default(),
            start_nanos: nanos(&span, ["startTimeUnixNano", "start_time_unix_nano"])?,
            // A call without an end has no known duration.
            end_nanos: nanos(&span, ["endTimeUnixNano", "end_time_unix_nano"]).unwrap_or_default(),
            failed: code == STATUS_ERROR.to_string() || code == "STATUS_CODE_ERROR",
            message: text_of(get(&status, &["message"])).unwrap_or_default(),
            attributes,
            events,
        })
    }
}

/// The code `STATUS_CODE_ERROR`.
const STATUS_ERROR: u64 = 2;

fn unquoted(raw: &str) -> Cow<'_, str> {
    if raw.starts_with('"') { unquote(raw) } else { Cow::Borrowed(raw) }
}

impl Event {
    /// Reads the message of an event. `name` and `attributes` are the numbers of these fields.
    fn from_wire(
        bytes: &[u8],
        [name, attributes]: [u64; 2],
        budget: &mut DecodeBudget,
    ) -> Result<Self, FieldError> {
        let mut event = Self::default();
        budget.spend()?;
        for field in wire::fields(bytes) {
            match field? {
                (field, value) if field == name => event.name = value.text().unwrap_or_default(),
                (field, Value::Bytes(pair)) if field == attributes => {
                    any::pair_of_wire(pair, &mut event.attributes, budget)?;
                }
                _ => {}
            }
        }
        keep_last(&mut event.attributes);
        Ok(event)
    }
}

impl LogRecord {
    pub(super) fn read(leaf: Leaf<'_>) -> Result<Self, FieldError> {
        let mut record = match leaf {
            Leaf::Wire(bytes) => Self::from_wire(bytes)?,
            Leaf::Json(raw) => Self::from_json(raw)?,
        };
        if record.event.name.is_empty() {
            // Before OTLP 1.6 the name was an attribute.
            let name = any::find(&record.event.attributes, &["event.name"]).and_then(Any::text);
            record.event.name = name.unwrap_or_default();
        }
        Ok(record)
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut budget = DecodeBudget::new();
        let mut record =
            Self { event: Event::from_wire(bytes, [12, 6], &mut budget)?, ..Self::default() };
        let mut seen_nanos = 0;
        for field in wire::fields(bytes) {
            match field? {
                (1, nanos) => record.at_nanos = nanos.number().unwrap_or_default(),
                (5, Value::Bytes(body)) => record.event.body = any::from_wire(body, &mut budget)?,
                (9, Value::Bytes(bytes)) => record.trace_id = id(bytes, TRACE_ID_BYTES),
                (10, Value::Bytes(bytes)) => record.span_id = id(bytes, SPAN_ID_BYTES),
                (11, nanos) => seen_nanos = nanos.number().unwrap_or_default(),
                _ => {}
            }
        }
        if record.at_nanos == 0 {
            record.at_nanos = seen_nanos;
        }
        Ok(record)
    }

    fn from_json(raw: &str) -> Result<Self, FieldError> {
        let record = members(raw).ok_or_else(|| FieldError::silent("logRecord", "an object"))?;
        let mut budget = DecodeBudget::new();
        let mut attributes = Attributes::new();
        any::pairs_of_json(get(&record, &["attributes"]), &mut attributes, &mut budget)?;
        let event = Event {
            name: text_of(get(&record, &["eventName", "event_name"])).unwrap_or_default(),
            attributes,
            body: get(&record, &["body"])
                .map_or(Ok(Any::Null), |body| any::from_json(body, &mut budget))?,
        };
        let trace_id = id_of_json(get(&record, &["traceId", "trace_id"]), TRACE_ID_BYTES);
        let span_id = id_of_json(get(&record, &["spanId", "span_id"]), SPAN_ID_BYTES);
        let mut at_nanos = nanos(&record, ["timeUnixNano", "time_unix_nano"])?;
        if at_nanos == 0 {
            at_nanos = nanos(&record, ["observedTimeUnixNano", "observed_time_unix_nano"])?;
        }
        Ok(Self { trace_id, span_id, at_nanos, event })
    }
}

/// Counts the data points of a metric.
pub(super) fn data_points(leaf: Leaf<'_>) -> u64 {
    match leaf {
        Leaf::Wire(bytes) => {
            let kinds = wire::fields(bytes).filter_map(Result::ok);
            let kinds = kinds.filter(|(field, _)| matches!(field, 5 | 7 | 9 | 10 | 11));
            let points =
                kinds.filter_map(|(_, kind)| kind.bytes()).flat_map(|kind| wire::messages(kind, 1));
            points.filter(Result::is_ok).count() as u64
        }
        Leaf::Json(raw) => {
            let mut points = 0;
            for (_, kind) in members(raw).unwrap_or_default() {
                let kind = members(kind).unwrap_or_default();
                // A value that is not an array holds no points.
                let _ =
                    each_raw(get(&kind, &["dataPoints", "data_points"]), "dataPoints", &mut |_| {
                        points += 1;
                        Ok(())
                    });
            }
            points
        }
    }
}

impl Signal {
    /// Determines the signal of a request whose path does not name one.
    pub fn detect(encoding: Encoding, bytes: &[u8]) -> Self {
        if holds_logs(encoding, bytes) { Self::Logs } else { Self::Traces }
    }
}

/// Returns true if the request holds log records. Its first leaf decides, since the levels above
/// are the same in protobuf.
fn holds_logs(encoding: Encoding, bytes: &[u8]) -> bool {
    if encoding == Encoding::Json {
        let text = str::from_utf8(bytes).map(finite).unwrap_or_default();
        return signal_of_json(&text) == Some(Signal::Logs);
    }
    let mut logs = None;
    // An invalid request is refused as the signal that is assumed here.
    let _ = walk_wire(bytes, None, &mut |_, leaf| {
        if let (None, Leaf::Wire(bytes)) = (logs, leaf) {
            // A log record has its time in the field in which a span has its trace id.
            let time = |field: (u64, Value<'_>)| matches!(field, (1 | 11, Value::Fixed64(_)));
            logs = Some(wire::fields(bytes).filter_map(Result::ok).any(time));
        }
    });
    logs.unwrap_or(false)
}

/// Returns the body of an `Export…ServiceResponse`: the number of rejected items and the reason, or
/// a warning. Empty if everything was accepted.
pub(super) fn response(
    encoding: Encoding,
    signal: Signal,
    rejected: u64,
    message: &str,
) -> Vec<u8> {
    let mut out = Vec::new();
    let partial = rejected > 0 || !message.is_empty();
    match encoding {
        Encoding::Protobuf if partial => {
            let mut inner = Vec::new();
            wire::write_number(&mut inner, 1, rejected);
            wire::write_bytes(&mut inner, 2, message.as_bytes());
            wire::write_bytes(&mut out, 1, &inner);
        }
        Encoding::Protobuf => {}
        Encoding::Json if partial => {
            let name = signal.rejected_name();
            out.extend_from_slice(
                format!("{{\"partialSuccess\":{{\"{name}\":\"{rejected}\",\"errorMessage\":")
                    .as_bytes(),
            );
            write_string(&mut out, message);
            out.extend_from_slice(b"}}");
        }
        Encoding::Json => out.extend_from_slice(b"{}"),
    }
    out
}

/// Returns the protobuf body of an error: `google.rpc.Status`.
pub(super) fn status(code: u8, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::write_number(&mut out, 1, u64::from(code));
    wire::write_bytes(&mut out, 2, message.as_bytes());
    out
}
